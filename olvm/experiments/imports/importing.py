"""One import under way: the files, the rows that came, those set aside, and the report at the end.

Decides what happens to bad rows and when the result is written; formats decide what rows mean.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec

from olvm.experiments.imports.bounds import BAD_ROWS_NAMED_MAX
from olvm.experiments.imports.checking import SEPARATOR, quoted
from olvm.experiments.imports.report import BadRow, ImportReport, named
from olvm.experiments.imports.sources import ends_without_newline, file_literal, is_parquet
from olvm.experiments.imports.writing import TraceWriter, WrittenTrace
from olvm.model.errors import BadInput, OperationFailed

if TYPE_CHECKING:
    import duckdb

OnBad = Literal["error", "drop"]
Told = Callable[[str], None]


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What a format can be asked for. Each format has its own; their fields are keywords of `import_trace`."""


class Importer(msgspec.Struct, frozen=True, kw_only=True):
    """A format: what it is called, and how it is read. `read` stages rows in an `Importing`."""

    name: str
    summary: str
    # What a row of the source is, for the report: "VMs", "events", "samples".
    row_is: str
    columns: tuple[str, ...]
    units: dict[str, str]
    licence: str
    cite: str
    options: type[Options]
    read: Callable[[Importing, Any], None]
    # Columns beyond those that every trace may have, with their types.
    more_columns: dict[str, str] = {}


class Importing:
    """What the reader of a format works with. Numbers of files are positions in `files`."""

    def __init__(self, importer: Importer, source: Path, writer: TraceWriter, told: Told) -> None:
        self.importer = importer
        self.source = source
        self.writer = writer
        self.told = told
        self.files: list[Path] = []
        self.rows_read = 0
        self.gaps: list[str] = []
        self.without_newline: list[str] = []
        self.notes: list[str] = []
        self.units = dict(importer.units)
        self.connection.execute(
            "create table bad_rows (source_file integer, source_line bigint, problem varchar);"
            "create table left_out (reason varchar, rows bigint)"
        )

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        return self.writer.connection

    def add_file(self, path: Path) -> int:
        """The number of a file, for `source_file`."""
        self.files.append(path)
        if not is_parquet(path) and ends_without_newline(path):
            self.without_newline.append(path.name)
        return len(self.files) - 1

    def run(self, statement: str) -> None:
        """Run a statement that reads the source.

        Raises:
            BadInput: DuckDB cannot read a file: it is cut off, or no file of its kind.
        """
        import duckdb

        try:
            self.connection.execute(statement)
        except (duckdb.IOException, duckdb.InvalidInputException) as error:
            reason = str(error).splitlines()[0]
            if "No space left" in reason:
                raise
            raise BadInput(f"cannot import {self.source} as {self.importer.name}: {reason}") from error

    def stage(self, select: str) -> None:
        """Add VMs by a statement; see `TraceWriter.insert`."""
        self.run(f"insert into vms by name {select}")

    def set_aside(self, select: str) -> None:
        """Count bad rows: the statement has `source_file`, `source_line` and `problem`."""
        self.connection.execute(f"insert into bad_rows by name {select}")

    def leave_out(self, reason: str, rows: int) -> None:
        if rows:
            self.connection.execute(f"insert into left_out values ({quoted(reason)}, {rows})")

    def parquet_columns(self, path: Path) -> dict[str, str]:
        """The columns of a Parquet file with their types."""
        self.run(f"create or replace temp view described as from read_parquet({file_literal(path)})")
        rows = self.connection.execute("select column_name, column_type from (describe described)").fetchall()
        return dict(rows)

    def value(self, select: str) -> Any:
        """The one value of a statement."""
        return self.connection.execute(select).fetchall()[0][0]

    def bad(self) -> int:
        return int(self.value("select count(*) from bad_rows"))

    def bad_named(self) -> list[BadRow]:
        rows = self.connection.execute(
            f"select * from bad_rows order by source_file, source_line limit {BAD_ROWS_NAMED_MAX}"
        ).fetchall()
        return [self._bad_row(*row) for row in rows]

    def _bad_row(self, file: int, line: int, problem: str) -> BadRow:
        kind, _, why = problem.partition(SEPARATOR)
        shown = "".join(sign if sign.isprintable() else "?" for sign in why)
        return BadRow(file=self._name_of(self.files[file]), line=line, kind=kind, why=shown)

    def _name_of(self, file: Path) -> str:
        return (
            str(file.relative_to(self.source)) if file != self.source and self.source.is_dir() else file.name
        )


def carry_out(importing: Importing, options: Options, on_bad: OnBad) -> ImportReport:
    """Read, judge, write, report."""
    importing.importer.read(importing, options)
    importing.set_aside("select source_file, source_line, problem from vms where problem is not null")
    if "vm_id" in importing.writer.columns:
        _find_doubles(importing)
    importing.connection.execute(
        "insert into left_out select left_out, count(*) from vms "
        "where left_out is not null and problem is null group by 1"
    )
    bad = importing.bad()
    if bad and on_bad == "error":
        raise BadInput(_refusal(importing, bad))
    return _report(importing, bad, importing.writer.write())


def _find_doubles(importing: Importing) -> None:
    """A VM's id names one row: the first keeps it, the others are bad."""
    importing.connection.execute(
        "create table doubles as select vm_id from vms "
        "where problem is null and left_out is null and vm_id is not null group by vm_id having count(*) > 1"
    )
    if not importing.value("select count(*) from doubles"):
        return
    problem = quoted("duplicate_id" + SEPARATOR + "its id ")
    importing.connection.execute(
        f"""
        create table later as
            select source_file, source_line, source_part, vm_id from (
                select *, row_number() over (partition by vm_id order by source_file, source_line, source_part) as nth
                from vms semi join doubles using (vm_id) where problem is null and left_out is null
            ) where nth > 1;
        update vms set problem = {problem} || vms.vm_id || ' stands on an earlier line too' from later
            where vms.source_file = later.source_file and vms.source_line = later.source_line
                and vms.source_part = later.source_part
        """
    )
    importing.set_aside(
        "select source_file, source_line, problem from vms join later using (source_file, source_line, source_part)"
    )


def _refusal(importing: Importing, bad: int) -> str:
    rows = "; ".join(named(row) for row in importing.bad_named())
    more = f"; and {bad - BAD_ROWS_NAMED_MAX:,} more" if bad > BAD_ROWS_NAMED_MAX else ""
    what = "1 row is bad" if bad == 1 else f"{bad:,} rows are bad"
    return (
        f"cannot import {importing.source} as {importing.importer.name}: {what}: {rows}{more}; "
        "mend the file, or leave such rows out with --on-bad drop"
    )


def _report(importing: Importing, bad: int, written: WrittenTrace) -> ImportReport:
    if importing.without_newline:
        first, others = importing.without_newline[0], len(importing.without_newline) - 1
        who = f"{first} does" if not others else f"{first} and {others:,} more files do"
        importing.gaps.append(f"{who} not end with a newline: a last line may be cut off")
    kinds = importing.connection.execute(
        f"select split_part(problem, '{SEPARATOR}', 1), count(*) from bad_rows group by 1 order by 2 desc, 1"
    ).fetchall()
    left_out = importing.connection.execute(
        "select reason, cast(sum(rows) as bigint) from left_out group by 1 order by 2 desc, 1"
    ).fetchall()
    rounded = {
        "vcpus to a thousandth": written.rounded_vcpus,
        "memory to a KiB": written.rounded_memory,
        "lifetime to the shortest that the source can see": written.raised_lifetime,
    }
    importer = importing.importer
    return ImportReport(
        format=importer.name,
        source=str(importing.source),
        out=str(importing.writer.out),
        files=len(importing.files),
        rows_read=importing.rows_read,
        rows_written=written.rows,
        row_is=importer.row_is,
        bad_rows=bad,
        bad_rows_by_kind=dict(kinds),
        bad_rows_named=importing.bad_named(),
        left_out=dict(left_out),
        rounded={what: count for what, count in rounded.items() if count},
        never_leave=written.never_leave,
        lifetime_zero=written.lifetime_zero,
        first_arrival_s=written.first_arrival_s,
        last_arrival_s=written.last_arrival_s,
        longest_gap_s=written.longest_gap_s,
        longest_gap_from_s=written.longest_gap_from_s,
        gaps=importing.gaps,
        units=importing.units,
        notes=importing.notes,
        licence=importer.licence,
        cite=importer.cite,
    )


@contextlib.contextmanager
def plain_failures(source: Path, name: str) -> Iterator[None]:
    """Ctrl-C within a query is Ctrl-C, and a full disk is said as such.

    Raises:
        KeyboardInterrupt: DuckDB was interrupted; it says so by a RuntimeError.
        OperationFailed: DuckDB had not the disk or the memory that it needed.
    """
    import duckdb

    try:
        yield
    except (duckdb.IOException, duckdb.OutOfMemoryException) as error:
        raise OperationFailed(f"cannot import {source} as {name}: {str(error).splitlines()[0]}") from error
    except RuntimeError as error:
        if "interrupted" in str(error).lower():
            raise KeyboardInterrupt from error
        raise


OptionsT = TypeVar("OptionsT", bound=Options)


def made_options(kind: type[OptionsT], name: str, given: Mapping[str, object]) -> OptionsT:
    """The options of a format from keywords.

    Raises:
        BadInput: an option that the format has not, or a value that it cannot be.
    """
    known = kind.__struct_fields__
    unknown = [option for option in given if option not in known]
    if unknown:
        has = f"it has {', '.join(known)}" if known else "it has none"
        raise BadInput(f"the format {name} has no option {', '.join(unknown)}; {has}")
    try:
        return msgspec.convert(dict(given), kind)
    except msgspec.ValidationError as error:
        raise BadInput(f"an option of the format {name} is wrong: {error}") from error
