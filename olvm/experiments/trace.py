"""A trace of VM requests as a table, checked row by row; where it comes from is `trace_sources`' affair.

Rules:
1. A bad row is never skipped in silence: reading fails and says which row, which value and why; with `on_bad="drop"`
   the row is left out, counted and named.
2. Kernels count in thousandths of a vCPU and in KiB. A request between two steps is rounded up, and how many were is
   told.
3. `lifetime_s` null (in NumPy: nan) means that the VM never leaves. In a file, nan is a mistake and null is meant.
4. Rows stay in the order of the source; arrivals must not fall.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from olvm.experiments.kernels.state import GIB_KIB, MILLI, Floats, Ints
from olvm.experiments.trace_sources import RawColumn, RawTable, TraceSource, open_source
from olvm.model.errors import BadInput

REQUIRED_COLUMNS = ("arrival_s", "lifetime_s", "vcpus", "memory_gib")
# Beyond any machine; sums over 2**31 VMs stay below 2**63.
VCPUS_MAX = 100_000.0
MEMORY_GIB_MAX = 4_000.0 * 1024
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
    rows: Ints | None  # numbers in the source of the rows that were kept; None: all of them
    source: TraceSource
    digest: str  # SHA-256: of the file's bytes, or of the four columns of a table in memory
    bad_rows: tuple[BadRow, ...] = ()  # dropped; the first BAD_ROWS_KEPT_MAX
    dropped_count: int = 0
    rounded_count: int = 0
    names: tuple[str, ...] = field(default=())  # all columns of the source

    def __len__(self) -> int:
        return len(self.arrival_s)

    def column(self, name: str) -> npt.NDArray[np.generic] | None:
        """An optional column by name, as the source has it; None if it has none. Read when it is asked for."""
        if name not in self.names:
            return None
        values = self.source.column(name)
        return values if self.rows is None else values[self.rows]


def read_trace(source: object, *, on_bad: OnBad = "error") -> Trace:
    """Read and check a trace.

    Args:
        source: `azure-v1` (bundled), a path (`.parquet`, `.csv`), a mapping of names to arrays, anything with
            `__arrow_c_stream__` (Arrow, polars, pandas), or a DuckDB relation. Columns `arrival_s, lifetime_s, vcpus,
            memory_gib`; others are kept by name. A `Trace` is returned as it is.
        on_bad: `error`, or `drop` to go on without bad rows.

    Raises:
        BadInput: no such file, a missing column, bad rows (the first five are named), or nothing left.

    Cost: 0.1 µs a row, in 60 bytes a row; a table in memory of a few hundred rows takes 0.2 ms.
    """
    if isinstance(source, Trace):
        return source
    opened = open_source(source)
    table = opened.read(REQUIRED_COLUMNS)
    return _checked(opened, table, on_bad)


def _checked(source: TraceSource, table: RawTable, on_bad: OnBad) -> Trace:
    if table.row_count == 0:
        raise BadInput(f"cannot replay {source.name}: it has no rows; a trace needs at least one VM")
    finder = _Finder(source)
    arrival_s = finder.numbers("arrival_s", table.columns["arrival_s"])
    lifetime_s = finder.numbers("lifetime_s", table.columns["lifetime_s"])
    vcpus = finder.numbers("vcpus", table.columns["vcpus"])
    memory_gib = finder.numbers("memory_gib", table.columns["memory_gib"])
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
    milli_vcpus, vcpus_rounded = _rounded_up(vcpus, MILLI)
    memory_kib, memory_rounded = _rounded_up(memory_gib, GIB_KIB)
    trace = Trace(
        arrival_s=arrival_s,
        lifetime_s=lifetime_s,
        milli_vcpus=milli_vcpus,
        memory_kib=memory_kib,
        rows=kept,
        source=source,
        digest=source.file_digest() or _digest_of(arrival_s, lifetime_s, milli_vcpus, memory_kib),
        bad_rows=finder.rows(BAD_ROWS_KEPT_MAX),
        dropped_count=int(finder.is_bad.sum()) if kept is not None else 0,
        rounded_count=int(np.count_nonzero(vcpus_rounded | memory_rounded)),
        names=table.names,
    )
    for column in (arrival_s, lifetime_s, milli_vcpus, memory_kib):
        column.flags.writeable = False
    return trace


def _rounded_up(values: Floats, steps: int) -> tuple[Ints, Mask]:
    exact = values * steps
    nearest = np.rint(exact)
    is_off = np.abs(exact - nearest) > _ROUNDING_SLACK
    return np.where(is_off, np.ceil(exact), nearest).astype(np.int64), is_off


def _digest_of(*columns: npt.NDArray[np.generic]) -> str:
    digest = hashlib.sha256()
    for column in columns:
        digest.update(np.ascontiguousarray(column).data)
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
        is_lifetime = column == "lifetime_s"
        is_null = raw.is_null
        if raw.is_text is not None and raw.is_text.any():
            texts = self._source.texts(column, np.flatnonzero(raw.is_text)[:BAD_ROWS_KEPT_MAX])
            self._note(raw.is_text, column, lambda row: f"is no number: {texts.get(row, '')!r}")
            values = np.where(raw.is_text, 0.0, values)
        if is_null is not None:
            if not is_lifetime:
                self._note(is_null, column, lambda _: "is missing")
            values = np.where(is_null, np.nan if is_lifetime else 0.0, values)
        self._note_out_of_range(column, values, is_null, nan_is_null=is_lifetime and raw.nan_is_null)
        return values

    def _note_out_of_range(
        self, column: str, values: Floats, is_null: Mask | None, *, nan_is_null: bool
    ) -> None:
        low, high = float(np.fmin.reduce(values)), float(np.fmax.reduce(values))
        least = _LEAST[column]
        is_nan = np.isnan(values) if is_null is None else np.isnan(values) & ~is_null
        has_nan = bool(is_nan.any())
        if low >= least and (low > 0 or column != "vcpus") and high <= _MOST[column] and not has_nan:
            return
        if has_nan and not nan_is_null:
            leave = "; leave it null for a VM that never leaves" if column == "lifetime_s" else ""
            self._note(is_nan, column, lambda _: f"is nan{leave}")
        if np.isinf(high) or np.isinf(low):
            leave = "; leave it null for a VM that never leaves" if column == "lifetime_s" else ""
            self._note(np.isinf(values), column, lambda _: f"is infinite{leave}")
        is_finite = np.isfinite(values)
        self._note(is_finite & (values < least), column, lambda row: f"is negative: {values[row]:g}")
        if column == "vcpus":
            is_text_or_null = self.is_bad & (values == 0)
            is_zero = is_finite & (values == 0) & ~is_text_or_null
            self._note(is_zero, column, lambda _: "is 0; a VM has at least a part of a vCPU")
        self._note(
            is_finite & (values > _MOST[column]),
            column,
            lambda row: f"is beyond any machine: {values[row]:g} (at most {_MOST[column]:g})",
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


_LEAST = {"arrival_s": 0.0, "lifetime_s": 0.0, "vcpus": 0.0, "memory_gib": 0.0}
_MOST = {"arrival_s": 1e15, "lifetime_s": 1e15, "vcpus": VCPUS_MAX, "memory_gib": MEMORY_GIB_MAX}
