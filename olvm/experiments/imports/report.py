"""What an import did: how many rows, in which units, what is missing, what was left out and why.

Rule: nothing is left out that is not counted here. A row is *bad* when it cannot mean what the format says; a row is
*left out* when it means something that is no request for a machine.
"""

from __future__ import annotations

import msgspec


class BadRow(msgspec.Struct, frozen=True, kw_only=True):
    """`line` counts from 1; in Parquet and SQLite it is the number of the row."""

    file: str
    line: int
    kind: str
    why: str


class ImportReport(msgspec.Struct, kw_only=True):
    """The result of `import_trace`. `rows_written` is the number of VMs; counts are of source rows unless said."""

    format: str
    source: str
    out: str
    files: int
    # Rows of the source that describe something: no headers, no comments, no empty lines.
    rows_read: int
    rows_written: int
    # What a row of the source is: a VM, an event, a sample.
    row_is: str
    bad_rows: int
    bad_rows_by_kind: dict[str, int]
    # The first ten in order of files and lines.
    bad_rows_named: list[BadRow]
    left_out: dict[str, int]
    # VMs whose value was rounded up to a thousandth of a vCPU or to a KiB, or raised to the shortest lifetime.
    rounded: dict[str, int]
    # VMs without an end: `lifetime_s` is null.
    never_leave: int
    lifetime_zero: int
    first_arrival_s: float | None
    last_arrival_s: float | None
    longest_gap_s: float
    longest_gap_from_s: float | None
    # What is missing in the source, in sentences.
    gaps: list[str]
    units: dict[str, str]
    notes: list[str]
    licence: str
    cite: str

    def lines(self) -> list[str]:
        """The report for a person, a line each."""
        told = [
            f"{self.format}: {self.rows_written:,} VMs from {self.rows_read:,} {self.row_is} "
            f"in {self.files:,} {'file' if self.files == 1 else 'files'}"
        ]
        told += [f"unit of {column}: {unit}" for column, unit in self.units.items()]
        if self.bad_rows:
            kinds = ", ".join(f"{count:,} {kind}" for kind, count in self.bad_rows_by_kind.items())
            told.append(f"bad rows dropped: {self.bad_rows:,} ({kinds})")
            told += [f"bad row: {named(row)}" for row in self.bad_rows_named]
        told += [f"left out: {count:,}: {reason}" for reason, count in self.left_out.items()]
        told += [f"rounded up: {count:,}: {what}" for what, count in self.rounded.items()]
        told += [f"gap: {gap}" for gap in self.gaps]
        told += [f"note: {note}" for note in self.notes]
        if self.first_arrival_s is not None and self.last_arrival_s is not None:
            told.append(
                f"arrivals from {self.first_arrival_s:,.0f} s to {self.last_arrival_s:,.0f} s; the longest time "
                f"without one: {self.longest_gap_s:,.0f} s; {self.never_leave:,} VMs never leave"
            )
        told.append(f"licence of the data: {self.licence}; cite {self.cite}")
        return told


def named(row: BadRow) -> str:
    return f"{row.file} line {row.line}: {row.why}"
