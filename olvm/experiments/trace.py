"""A trace of VM requests as a table, checked row by row; where it comes from is `trace_sources`' affair.

Rules:
1. A bad row is never skipped in silence: reading fails and says which row, which value and why; with `on_bad="drop"`
   the row is left out, counted and named.
2. Kernels count in thousandths of a vCPU and in KiB. A request between two steps is rounded up, and how many were is
   told.
3. `lifetime_s` null (in NumPy: nan) means that the VM never leaves, and null in a column that need not be there that
   nothing is known. In a file, nan is a mistake and null is meant.
4. Rows stay in the order of the source; arrivals must not fall.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from olvm.experiments.kernels.state import GIB_KIB, MILLI, Bytes, Floats, Ints
from olvm.experiments.trace_groups import Groups, read_groups
from olvm.experiments.trace_sources import RawColumn, RawTable, TraceSource, open_source
from olvm.model.errors import BadInput
from olvm.model.search import nearest

REQUIRED_COLUMNS = ("arrival_s", "lifetime_s", "vcpus", "memory_gib")
# Read where they are there, and not where they are ignored.
OPTIONAL_COLUMNS = ("numa_nodes", "host_group", "utilisation")
# Beyond any machine; sums over 2**31 VMs stay below 2**63.
VCPUS_MAX = 100_000.0
MEMORY_GIB_MAX = 4_000.0 * 1024
NUMA_NODES_MAX = 64
BAD_ROWS_SHOWN_MAX = 5
BAD_ROWS_KEPT_MAX = 1000
_ROUNDING_SLACK = 1e-6  # 1.1 vCPUs are 1100.0000000000002 thousandths, and meant as 1100

_Why = Callable[[int], str]
OnBad = Literal["error", "drop"]
Mask = npt.NDArray[np.bool_]


class BadRow(msgspec.Struct, frozen=True, kw_only=True):
    """`place` names the row as its source counts: `line 7` of a CSV (the header is line 1), `row 5` (from 0) else."""

    place: str
    column: str
    why: str

    def __str__(self) -> str:
        return f"{self.place}, {self.column} {self.why}"


@dataclass(frozen=True, kw_only=True)
class Trace:
    """n VM requests in order of arrival. Arrays of length n; nobody writes to them."""

    arrival_s: Floats
    lifetime_s: Floats  # nan: never leaves
    milli_vcpus: Ints
    memory_kib: Ints
    numa_nodes: Bytes | None = None  # over how many nodes of a host the VM is spread; 0: not said
    groups: Groups | None = None
    utilisation: Floats | None = None  # mean share of its vCPUs that the VM used; nan: not known
    rows: Ints | None  # numbers in the source of the rows that were kept; None: all of them
    source: TraceSource
    digest: str  # SHA-256: of the file's bytes, or of the columns that were read of a table in memory
    bad_rows: tuple[BadRow, ...] = ()  # dropped; the first BAD_ROWS_KEPT_MAX
    dropped_count: int = 0
    rounded_count: int = 0
    names: tuple[str, ...] = field(default=())  # all columns of the source

    def __len__(self) -> int:
        return len(self.arrival_s)

    def without(self, ignored: Collection[str]) -> Trace:
        """The same, as if these optional columns were not there."""
        return replace(
            self,
            numa_nodes=None if "numa_nodes" in ignored else self.numa_nodes,
            groups=None if "host_group" in ignored else self.groups,
            utilisation=None if "utilisation" in ignored else self.utilisation,
        )

    def picked(self, at: Ints) -> Trace:
        """Some of its VMs, by number; what is told of the source stays as it was."""
        picked = replace(
            self,
            arrival_s=self.arrival_s[at],
            lifetime_s=self.lifetime_s[at],
            milli_vcpus=self.milli_vcpus[at],
            memory_kib=self.memory_kib[at],
            numa_nodes=None if self.numa_nodes is None else self.numa_nodes[at],
            groups=None if self.groups is None else self.groups.picked(at),
            utilisation=None if self.utilisation is None else self.utilisation[at],
            rows=at if self.rows is None else self.rows[at],
        )
        for column in (picked.arrival_s, picked.lifetime_s, picked.milli_vcpus, picked.memory_kib):
            column.flags.writeable = False
        return picked

    def column(self, name: str) -> npt.NDArray[np.generic] | None:
        """An optional column by name, as the source has it; None if it has none. Read when it is asked for."""
        if name not in self.names:
            return None
        values = self.source.column(name)
        return values if self.rows is None else values[self.rows]


def read_trace(source: object, *, on_bad: OnBad = "error", ignore: Collection[str] = ()) -> Trace:
    """Read and check a trace.

    Args:
        source: `azure-v1` (bundled), a path (`.parquet`, `.csv`), a mapping of names to arrays, anything with
            `__arrow_c_stream__` (Arrow, polars, pandas), or a DuckDB relation. Columns `arrival_s, lifetime_s, vcpus,
            memory_gib`, and `numa_nodes, host_group, utilisation` where they are there; others are kept by name. Of a
            `Trace` only what is to be ignored is taken out.
        on_bad: `error`, or `drop` to go on without bad rows.
        ignore: some of `numa_nodes, host_group, utilisation`, which are not read then.

    Raises:
        BadInput: no such file, a missing column, bad rows (the first five are named), or nothing left.

    Cost: 0.1 µs a row, in 60 bytes a row; a table in memory of a few hundred rows takes 0.2 ms.
    """
    for column in ignore:
        if column not in OPTIONAL_COLUMNS:
            raise BadInput(
                f"cannot ignore {column}{nearest(column, OPTIONAL_COLUMNS)}: "
                f"a trace can be read without {', '.join(OPTIONAL_COLUMNS)}"
            )
    if isinstance(source, Trace):
        return source.without(ignore) if ignore else source
    opened = open_source(source)
    optional = [column for column in OPTIONAL_COLUMNS if column not in ignore and column != "host_group"]
    table = opened.read(REQUIRED_COLUMNS, optional)
    groups = None
    if "host_group" in table.names and "host_group" not in ignore:
        groups = read_groups(opened.column("host_group"))
    return _checked(opened, table, groups, on_bad)


def _checked(source: TraceSource, table: RawTable, groups: Groups | None, on_bad: OnBad) -> Trace:
    if table.row_count == 0:
        raise BadInput(f"cannot replay {source.name}: it has no rows; a trace needs at least one VM")
    finder = _Finder(source)
    arrival_s = finder.numbers("arrival_s", table.columns["arrival_s"])
    lifetime_s = finder.numbers("lifetime_s", table.columns["lifetime_s"])
    vcpus = finder.numbers("vcpus", table.columns["vcpus"])
    memory_gib = finder.numbers("memory_gib", table.columns["memory_gib"])
    nodes, utilisation = (
        finder.numbers(column, table.columns[column]) if column in table.columns else None
        for column in ("numa_nodes", "utilisation")
    )
    finder.below_order(arrival_s)
    kept: Ints | None = None
    if finder.count:
        if on_bad == "error":
            raise BadInput(_bad_rows_sentence(source, finder, table.row_count))
        kept = np.flatnonzero(~finder.is_bad).astype(np.int64)
        if not len(kept):
            raise BadInput(
                f"nothing is left of {source.name}: all {table.row_count} rows are bad; {finder.shown()}"
            )
        arrival_s, lifetime_s, vcpus, memory_gib = (
            column[kept] for column in (arrival_s, lifetime_s, vcpus, memory_gib)
        )
        nodes, utilisation = (None if column is None else column[kept] for column in (nodes, utilisation))
        groups = None if groups is None else groups.picked(kept)
    milli_vcpus, vcpus_rounded = _rounded_up(vcpus, MILLI)
    memory_kib, memory_rounded = _rounded_up(memory_gib, GIB_KIB)
    numa_nodes = None if nodes is None else np.nan_to_num(nodes).astype(np.int8)
    columns: list[npt.NDArray[np.generic]] = [arrival_s, lifetime_s, milli_vcpus, memory_kib]
    codes = None if groups is None else groups.code
    for optional in (numa_nodes, codes, utilisation):
        if optional is not None:
            columns.append(optional)
    for column in columns:
        column.flags.writeable = False
    names = () if groups is None else groups.names
    return Trace(
        arrival_s=arrival_s,
        lifetime_s=lifetime_s,
        milli_vcpus=milli_vcpus,
        memory_kib=memory_kib,
        numa_nodes=numa_nodes,
        groups=groups,
        utilisation=utilisation,
        rows=kept,
        source=source,
        digest=source.file_digest() or _digest_of(columns, names),
        bad_rows=finder.rows(BAD_ROWS_KEPT_MAX),
        dropped_count=int(finder.is_bad.sum()) if kept is not None else 0,
        rounded_count=int(np.count_nonzero(vcpus_rounded | memory_rounded)),
        names=table.names,
    )


def _rounded_up(values: Floats, steps: int) -> tuple[Ints, Mask]:
    exact = values * steps
    nearest = np.rint(exact)
    is_off = np.abs(exact - nearest) > _ROUNDING_SLACK
    return np.where(is_off, np.ceil(exact), nearest).astype(np.int64), is_off


def _digest_of(columns: Sequence[npt.NDArray[np.generic]], names: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for column in columns:
        digest.update(np.ascontiguousarray(column).data)
    digest.update("\0".join(names).encode())
    return digest.hexdigest()


def _bad_rows_sentence(source: TraceSource, finder: _Finder, row_count: int) -> str:
    count = int(finder.is_bad.sum())
    what = "a bad row" if count == 1 else f"{count} bad rows"
    return (
        f"cannot replay {source.name}: it has {what} of {row_count}: {finder.shown()}; "
        "mend the trace, or drop such rows (--on-bad drop, on_bad='drop')"
    )


class _Finder:
    """Collects what is wrong with the rows of a source."""

    def __init__(self, source: TraceSource) -> None:
        self._source = source
        self._found: list[tuple[int, BadRow]] = []
        self._unsorted: Mask | None = None
        self.is_bad: Mask = np.zeros(0, np.bool_)
        self.count = 0

    def numbers(self, column: str, raw: RawColumn) -> Floats:
        """The column's values; what must not be there is noted."""
        values = raw.values
        if not len(self.is_bad):
            self.is_bad = np.zeros(len(values), np.bool_)
        is_nullable = column in _NULLABLE
        is_null = raw.is_null
        if raw.is_text is not None and raw.is_text.any():
            texts = self._source.texts(column, np.flatnonzero(raw.is_text)[:BAD_ROWS_KEPT_MAX])
            self._note(raw.is_text, column, lambda row: f"is no number: {texts.get(row, '')!r}")
            values = np.where(raw.is_text, 0.0, values)
        if is_null is not None:
            if not is_nullable:
                self._note(is_null, column, lambda _: "is missing")
            values = np.where(is_null, np.nan if is_nullable else 0.0, values)
        self._note_out_of_range(column, values, is_null, nan_is_null=is_nullable and raw.nan_is_null)
        if column == "numa_nodes":
            is_part = np.isfinite(values) & (values != np.rint(values))
            self._note(is_part, column, lambda row: f"is no whole number: {values[row]:g}")
        return values

    def _note_out_of_range(
        self, column: str, values: Floats, is_null: Mask | None, *, nan_is_null: bool
    ) -> None:
        low, high = float(np.fmin.reduce(values)), float(np.fmax.reduce(values))
        least = _LEAST[column]
        is_nan = np.isnan(values) if is_null is None else np.isnan(values) & ~is_null
        has_nan = bool(is_nan.any())
        if low >= least and (low > 0 or column not in _NEVER_0) and high <= _MOST[column] and not has_nan:
            return
        if has_nan and not nan_is_null:
            leave = _NULLABLE.get(column, "")
            self._note(is_nan, column, lambda _: f"is nan{leave}")
        if np.isinf(high) or np.isinf(low):
            leave = _NULLABLE.get(column, "")
            self._note(np.isinf(values), column, lambda _: f"is infinite{leave}")
        is_finite = np.isfinite(values)
        self._note(is_finite & (values < least), column, lambda row: f"is negative: {values[row]:g}")
        if column in _NEVER_0:
            is_text_or_null = self.is_bad & (values == 0)
            is_zero = is_finite & (values == 0) & ~is_text_or_null
            self._note(is_zero, column, lambda _: f"is 0; {_NEVER_0[column]}")
        beyond = "is more than all of its vCPUs" if column == "utilisation" else "is beyond any machine"
        self._note(
            is_finite & (values > _MOST[column]),
            column,
            lambda row: f"{beyond}: {values[row]:g} (at most {_MOST[column]:g})",
        )

    def below_order(self, arrival_s: Floats) -> None:
        """Note rows that arrive before one above them which is good itself."""
        if not (np.diff(arrival_s) < 0).any():
            return
        counted = np.where(self.is_bad, -np.inf, arrival_s)
        latest = np.maximum.accumulate(counted)
        is_early = ~self.is_bad & (arrival_s < latest)
        self._note(
            is_early,
            "arrival_s",
            lambda row: (
                f"is {arrival_s[row]:g}, before a row above it ({latest[row]:g}); sort the trace by arrival_s"
            ),
        )

    def _note(self, mask: Mask, column: str, why: _Why) -> None:
        rows = np.flatnonzero(mask)
        self.count += len(rows)
        self.is_bad |= mask
        for row in rows[:BAD_ROWS_KEPT_MAX].tolist():
            self._found.append((row, BadRow(place=self._source.place_of(row), column=column, why=why(row))))

    def rows(self, count_max: int) -> tuple[BadRow, ...]:
        return tuple(bad for _, bad in sorted(self._found, key=lambda found: found[0])[:count_max])

    def shown(self) -> str:
        shown = self.rows(BAD_ROWS_SHOWN_MAX)
        more = self.count - len(shown)
        return "; ".join(map(str, shown)) + (f"; and {more} more" if more > 0 else "")


_LEAST = dict.fromkeys((*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS), 0.0)
_MOST = {
    "arrival_s": 1e15,
    "lifetime_s": 1e15,
    "vcpus": VCPUS_MAX,
    "memory_gib": MEMORY_GIB_MAX,
    "numa_nodes": float(NUMA_NODES_MAX),
    "utilisation": 1.0,
}
_NEVER_0 = {
    "vcpus": "a VM has at least a part of a vCPU",
    "numa_nodes": "a VM lives in at least one node; leave it null where it does not matter",
}
_NULLABLE = {
    "lifetime_s": "; leave it null for a VM that never leaves",
    "numa_nodes": "; leave it null where it does not matter",
    "utilisation": "; leave it null where it is not known",
}
