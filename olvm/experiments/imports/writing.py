"""Writes the trace table, streaming: rows wait in a DuckDB file beside the result, are sorted there, and go to Parquet.

Decides the columns, the grid and the order; knows no format.

Rules:
1. The result has its name only when it is whole: it is written under another name and moved.
2. Requests are rounded up to thousandths of a vCPU and whole KiB, the grid on which replays count exactly.
3. Rows are in order of arrival, and at one time in the order of the source.
4. The same rows give the same bytes, whatever the number of threads.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import msgspec

from olvm.experiments.imports.bounds import IMPORT_MEMORY_BYTES, IMPORT_THREADS
from olvm.experiments.imports.checking import quoted
from olvm.model.errors import BadInput

if TYPE_CHECKING:
    import duckdb

MILLI = 1_000
KIB_PER_GIB = 1 << 20
# A request this near to the grid lies on it: 0.1 × 3 is no reason to take a thousandth more.
GRID_TOLERANCE = 1e-6

REQUIRED_COLUMNS = {"arrival_s": "double", "lifetime_s": "double", "vcpus": "double", "memory_gib": "double"}
KNOWN_COLUMNS = {
    "vm_id": "varchar",
    "tenant": "varchar",
    "numa_nodes": "integer",
    "priority": "integer",
    "host_group": "varchar",
    "utilisation": "double",  # the mean share of its vCPUs that it used, 0 to 1
}
# Where a row comes from and whether it stays: in the waiting table, not in the result.
_INNER_COLUMNS = {
    "source_file": "integer default 0",
    "source_line": "bigint default 0",
    "source_part": "integer default 0",
    "problem": "varchar",
    "left_out": "varchar",
    "raised": "boolean",  # whether its lifetime was raised to the shortest that the source can see
}
_VCPUS = f"ceil(vcpus * {MILLI} - {GRID_TOLERANCE}) / {MILLI}"
_MEMORY = f"ceil(memory_gib * {KIB_PER_GIB} - {GRID_TOLERANCE}) / {KIB_PER_GIB}"
_STAYS = "problem is null and left_out is null"


class WrittenTrace(msgspec.Struct, frozen=True, kw_only=True):
    """What came to be written."""

    rows: int
    rounded_vcpus: int
    rounded_memory: int
    raised_lifetime: int
    never_leave: int
    lifetime_zero: int
    first_arrival_s: float | None
    last_arrival_s: float | None
    longest_gap_s: float
    longest_gap_from_s: float | None


class TraceWriter:
    """Takes rows in any order and amount, and writes them as one Parquet file. Optional columns without values go.

    ```python
    with TraceWriter(Path("t.parquet"), {"vm_id": "varchar"}) as writer:
        writer.append({"arrival_s": [0.0], "lifetime_s": [60.0], "vcpus": [2], "memory_gib": [4], "vm_id": ["a"]})
        writer.write()
    ```

    `connection` is the DuckDB file in which rows wait (table `vms`); importers stage what they need in it.

    Memory: `IMPORT_MEMORY_BYTES` and what one batch takes, whatever the number of rows. Disk: about the size of the
    result, twice, in a hidden folder beside it, which is gone after the `with`.
    """

    def __init__(self, out: Path, columns: Mapping[str, str] | None = None) -> None:
        self.out = out
        self.columns = {**REQUIRED_COLUMNS, **(KNOWN_COLUMNS if columns is None else columns)}
        self._folder: Path | None = None
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._appended = 0

    def __enter__(self) -> TraceWriter:
        import duckdb

        if not self.out.parent.is_dir():
            raise BadInput(f"cannot write {self.out}: there is no folder {self.out.parent}")
        if "?" in str(self.out.parent):
            raise BadInput(f"cannot write {self.out}: DuckDB cannot work in a folder with '?' in its name")
        self._folder = Path(
            tempfile.mkdtemp(prefix=f".{self.out.name}.", suffix=".part", dir=self.out.parent)
        )
        try:
            self._connection = duckdb.connect(str(self._folder / "waiting.duckdb"))
            self.connection.execute(f"set memory_limit = '{IMPORT_MEMORY_BYTES >> 20}MiB'")
            self.connection.execute(f"set threads = {IMPORT_THREADS}")
            # It would stand on stdout, among the data.
            self.connection.execute("set enable_progress_bar = false")
            self.connection.execute(f"set temp_directory = {quoted(self._folder / 'spilled')}")
            declared = {**self.columns, **_INNER_COLUMNS}
            self.connection.execute(
                f"create table vms ({', '.join(f'{name} {kind}' for name, kind in declared.items())})"
            )
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        assert self._connection is not None, "a TraceWriter is used within `with`"
        return self._connection

    @property
    def folder(self) -> Path:
        """For files that an importer needs for a while; gone after the `with`."""
        assert self._folder is not None, "a TraceWriter is used within `with`"
        return self._folder

    def append(self, columns: Mapping[str, Any]) -> None:
        """Add a batch: a sequence or array for each column, all of one length. NaN and None mean null."""
        import numpy as np

        arrays = {name: self._array(name, values) for name, values in columns.items()}
        count = len(next(iter(arrays.values())))
        if any(len(array) != count for array in arrays.values()):
            raise BadInput("the columns of a batch differ in length")
        if "source_line" not in arrays:
            arrays["source_line"] = np.arange(self._appended + 1, self._appended + count + 1)
        self._appended += count
        self.connection.register("arriving", arrays)
        try:
            self.insert("select * from arriving")
        finally:
            self.connection.unregister("arriving")

    def insert(self, select: str) -> None:
        """Add the rows of a statement; its columns are matched by name."""
        self.connection.execute(f"insert into vms by name {select}")

    def write(self) -> WrittenTrace:
        """Sort what came and write it; rows with a `problem` or `left_out` stay behind.

        Raises:
            BadInput: a row that no trace may have: an arrival that is missing or negative, a negative size.
        """
        written = self._measured()
        extra = self._columns_with_values()
        part = self.folder / "trace.parquet"
        self.connection.execute(
            f"copy (select arrival_s, lifetime_s, {_VCPUS} as vcpus, {_MEMORY} as memory_gib"
            f"{''.join(', ' + name for name in extra)} from vms where {_STAYS} "
            f"order by arrival_s, source_file, source_line, source_part) "
            f"to {quoted(part)} (format parquet, compression zstd)"
        )
        os.replace(part, self.out)
        return written

    def _columns_with_values(self) -> list[str]:
        """The optional columns in which anything stands; all of them where there is no row."""
        optional = [name for name in self.columns if name not in REQUIRED_COLUMNS]
        if not optional:
            return []
        counts = self.connection.execute(
            f"select {', '.join(f'count({name})' for name in optional)}, count(*) from vms where {_STAYS}"
        ).fetchall()[0]
        return [name for name, count in zip(optional, counts[:-1], strict=True) if count or not counts[-1]]

    def _measured(self) -> WrittenTrace:
        figures = self.connection.execute(
            f"""
            select count(*), count(*) filter (abs({_VCPUS} - vcpus) * {MILLI} > {GRID_TOLERANCE}),
                count(*) filter (abs({_MEMORY} - memory_gib) * {KIB_PER_GIB} > {GRID_TOLERANCE}),
                count(*) filter (lifetime_s is null), count(*) filter (lifetime_s = 0),
                count(*) filter (raised), min(arrival_s), max(arrival_s),
                count(*) filter (arrival_s is null or not isfinite(arrival_s) or arrival_s < 0 or lifetime_s < 0
                    or vcpus is null or vcpus < 0 or memory_gib is null or memory_gib < 0)
            from vms where {_STAYS}
            """
        ).fetchall()[0]
        if figures[8]:
            raise BadInput(
                f"cannot write {self.out}: {figures[8]} rows have no arrival or size, or a negative one"
            )
        gaps = self.connection.execute(
            f"""
            select arrival_s - before_s as gap_s, before_s from (
                select arrival_s, lag(arrival_s) over (order by arrival_s) as before_s
                from (select distinct arrival_s from vms where {_STAYS})
            ) where before_s is not null order by gap_s desc, before_s limit 1
            """
        ).fetchall()
        return WrittenTrace(
            rows=figures[0],
            rounded_vcpus=figures[1],
            rounded_memory=figures[2],
            never_leave=figures[3],
            lifetime_zero=figures[4],
            raised_lifetime=figures[5],
            first_arrival_s=figures[6],
            last_arrival_s=figures[7],
            longest_gap_s=gaps[0][0] if gaps else 0.0,
            longest_gap_from_s=gaps[0][1] if gaps else None,
        )

    def _array(self, name: str, values: Any) -> Any:
        import numpy as np

        kind = self.columns.get(name) or _INNER_COLUMNS.get(name)
        if kind is None:
            raise BadInput(f"the trace has no column {name!r}; it has {', '.join(self.columns)}")
        if isinstance(values, np.ndarray):
            return values
        return np.asarray(values, dtype=float if kind == "double" else object)

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
