"""Many reports as one table of arrays that DuckDB reads in place.

Decides how buffered reports become rows without any Python per row: the rows of all reports of one shape are joined as
bytes and read as records, and what is one value per report is repeated. numpy is loaded by the first commit, not by
import.
"""

# Statements are built from names of our own tables; values are parameters.
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

import msgspec

from olvm.history.clipped import Clips
from olvm.history.dictionary import NO_KEY
from olvm.history.kinds import SampleColumn, SampleKind
from olvm.history.row_layout import layout_of
from olvm.history.samples import UNKNOWN_FLOAT, UNKNOWN_INT, SampleBatch


class KeyedBatch(msgspec.Struct, frozen=True, gc=False):
    """A report with its texts looked up. `vm_keys` and each of `text_keys` are native 32-bit integers.

    Python's collector does not track it: a million that wait would be looked through again and again.
    """

    batch: SampleBatch
    host_key: int
    vm_keys: bytes
    text_keys: tuple[bytes, ...]


def sample_columns(kind: SampleKind, batches: Sequence[KeyedBatch]) -> tuple[dict[str, Any], list[Clips]]:
    """The columns of `kind.table` for all rows of these reports, by name, but those that no report has sent.

    And the values that were clipped. Rows are in the order of the reports, those of one shape together.
    """
    import numpy as np

    by_shape: dict[str, list[KeyedBatch]] = {}
    for keyed in batches:
        by_shape.setdefault(keyed.batch.shape, []).append(keyed)
    batches = [keyed for of_shape in by_shape.values() for keyed in of_shape]
    row_counts = np.array([keyed.batch.row_count for keyed in batches], dtype=np.int64)
    at_us = np.array([keyed.batch.at_ns // 1000 for keyed in batches], dtype=np.int64)
    host_keys = np.array([keyed.host_key for keyed in batches], dtype=np.int32)
    columns: dict[str, Any] = {
        "history_datetime": np.repeat(at_us, row_counts).view("datetime64[us]"),
        "host_key": np.repeat(host_keys, row_counts),
    }
    if kind.has_vm:
        columns["vm_key"] = np.frombuffer(b"".join([keyed.vm_keys for keyed in batches]), dtype=np.int32)
    for position, (name, _) in enumerate(kind.texts):
        joined = b"".join([keyed.text_keys[position] for keyed in batches])
        columns[f"{name}_key"] = np.frombuffer(joined, dtype=np.int32)
    tables = [_records(shape, of_shape) for shape, of_shape in by_shape.items()]
    clips = []
    for column in kind.columns:
        told = _joined(column, tables)
        if told is None:
            continue
        columns[column.name], beyond = _clipped(column, told)
        if beyond is not None:
            vm_keys = columns["vm_key"][beyond] if kind.has_vm else None
            of = columns["history_datetime"][beyond], columns["host_key"][beyond], vm_keys
            clips.append(Clips(column.name, *of, told[beyond]))
    return columns, clips


def _records(shape: str, batches: Sequence[KeyedBatch]) -> tuple[int, Any]:
    """How many rows there are, and their numbers as records with a field for each column that was sent."""
    import numpy as np

    record = np.dtype(layout_of(shape).record)
    data = b"".join([keyed.batch.data for keyed in batches])
    row_count = sum([keyed.batch.row_count for keyed in batches])
    return row_count, np.frombuffer(data, dtype=record) if data else np.empty(row_count, dtype=record)


def _joined(column: SampleColumn, tables: Sequence[tuple[int, Any]]) -> Any:
    """The column of all rows, one after another; None if nobody has sent it."""
    import numpy as np

    if not any(column.name in records.dtype.fields for _, records in tables if records.dtype.fields):
        return None
    dtype, unknown = (np.float32, UNKNOWN_FLOAT) if column.code == "f" else (np.int64, UNKNOWN_INT)
    parts = [
        records[column.name]
        if records.dtype.fields and column.name in records.dtype.fields
        else np.full(row_count, unknown, dtype=dtype)
        for row_count, records in tables
    ]
    return np.concatenate(parts, dtype=dtype)


def report_columns(batches: Sequence[KeyedBatch]) -> dict[str, Any]:
    """The columns of `sample_reports` but the kind, one row per report."""
    import numpy as np

    return {
        "host_key": np.array([keyed.host_key for keyed in batches], dtype=np.int32),
        "host_epoch": np.array([keyed.batch.host_epoch for keyed in batches], dtype=np.int64),
        "seq": np.array([keyed.batch.seq for keyed in batches], dtype=np.int64),
        "history_datetime": np.array([keyed.batch.at_ns // 1000 for keyed in batches], dtype=np.int64).view(
            "datetime64[us]"
        ),
        "row_count": np.array([keyed.batch.row_count for keyed in batches], dtype=np.int32),
    }


def insert_samples_sql(kind: SampleKind, source: str, present: Container[str]) -> str:
    """Insert `sample_columns`, registered as `source` with the columns `present`; what is unknown becomes NULL here."""
    names = ["history_datetime", *(["vm_key"] if kind.has_vm else []), "host_key"]
    values = list(names)
    for name, _ in kind.texts:
        names.append(f"{name}_key")
        values.append(f"nullif({name}_key, {NO_KEY})")
    for column in kind.columns:
        if column.name in present:
            names.append(column.name)
            unknown = "'nan'::FLOAT" if column.code == "f" else str(UNKNOWN_INT)
            values.append(f"nullif({column.name}, {unknown})")
    return f"insert into {kind.table} ({', '.join(names)}) select {', '.join(values)} from {source}"


def insert_reports_sql(kind: SampleKind, source: str) -> str:
    names = "host_key, host_epoch, seq, history_datetime, row_count"
    return f"insert into sample_reports (kind, {names}) select '{kind.name}', {names} from {source}"


def _clipped(column: SampleColumn, values: Any) -> tuple[Any, Any]:
    """What cannot be: too large becomes the maximum; negative is 0 of a share, and unknown of a number.

    And which rows those were; None: no row.
    """
    import numpy as np

    lowest = 0.0 if column.code == "f" else -1
    beyond = (values > column.maximum) | (values < lowest)  # NaN is neither
    return (np.clip(values, lowest, column.maximum), beyond) if beyond.any() else (values, None)
