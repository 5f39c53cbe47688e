"""Where the columns of a trace come from: files through DuckDB, tables in memory as they stand.

Decides how a source is read and how it names its rows; whether a value is sensible is `trace`'s affair.
"""

# ruff: noqa: S608 - statements are made of our own words and of names that are quoted

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from olvm.experiments.azure_trace import REPLAY_TABLE, TRACE_PATH
from olvm.experiments.database import cursor
from olvm.experiments.kernels.state import Floats
from olvm.model.errors import BadInput, NotFound
from olvm.model.search import nearest

if TYPE_CHECKING:
    import duckdb

BUNDLED_TRACE = "azure-v1"

Mask = npt.NDArray[np.bool_]
Values = npt.NDArray[np.generic]


class RawColumn(NamedTuple):
    """A column as numbers. Masks are None where nothing is masked."""

    values: Floats
    is_null: Mask | None
    is_text: Mask | None  # there was something that is no number
    nan_is_null: bool  # the source has no other way to say null


class RawTable(NamedTuple):
    row_count: int
    columns: Mapping[str, RawColumn]
    names: tuple[str, ...]


class TraceSource(Protocol):
    @property
    def name(self) -> str: ...

    def read(self, columns: Sequence[str], optional: Sequence[str] = ()) -> RawTable:
        """As numbers: `columns`, which must be there, and those of `optional` that are."""
        ...

    def column(self, name: str) -> Values: ...

    def place_of(self, row: int) -> str: ...

    def texts(self, column: str, rows: Iterable[int]) -> dict[int, str]: ...

    def file_digest(self) -> str | None: ...


def open_source(source: object) -> TraceSource:
    """Anything that `read_trace` takes."""
    if isinstance(source, str | Path):
        path = Path(source)
        if str(source) == BUNDLED_TRACE and not path.exists():
            return _BundledTrace(TRACE_PATH)
        if not path.is_file():
            raise NotFound(
                f"there is no trace {path}: give the path of a Parquet or CSV file, or {BUNDLED_TRACE}"
            )
        if path.suffix == ".csv":
            return _CsvFile(path)
        if path.suffix in (".parquet", ".pq"):
            return _ParquetFile(path)
        raise BadInput(f"cannot tell the format of trace {path}: its name must end in .parquet or .csv")
    if type(source).__module__.startswith(("duckdb", "_duckdb")) and hasattr(source, "project"):
        return _Relation(source)
    if isinstance(source, Mapping) or (hasattr(source, "columns") and hasattr(source, "__getitem__")):
        return _Columns(source)
    if hasattr(source, "__arrow_c_stream__"):
        return _Stream(source)
    raise BadInput(
        f"cannot read a trace from {type(source).__name__}: give a path, a mapping of names to arrays, "
        "an Arrow table, a data frame or a DuckDB relation"
    )


def _require(name: str, wanted: Sequence[str], there: Sequence[str]) -> None:
    missing = [column for column in wanted if column not in there]
    if missing:
        columns = ", ".join(f"{column}{nearest(column, list(there))}" for column in missing)
        raise BadInput(
            f"{name} lacks the column {columns}; a trace has {', '.join(wanted)}, "
            "and `olvm experiment import` makes one of a published trace"
        )


# ---------------------------------------------------------------- through DuckDB


class _Queried:
    """A source that is a table of a DuckDB connection. Subclasses name it."""

    name: str

    def _connection(self) -> duckdb.DuckDBPyConnection:
        raise NotImplementedError

    def _table(self) -> str:
        raise NotImplementedError

    def sql(self) -> tuple[str, dict[str, str]] | None:
        """What reads the source in another connection, with its parameters; None where that is impossible."""
        return None

    def place_of(self, row: int) -> str:
        return f"row {row}"

    def file_digest(self) -> str | None:
        return None

    def _run(self, statement: str) -> duckdb.DuckDBPyConnection:
        import duckdb

        try:
            return self._connection().execute(statement)
        except duckdb.Error as error:
            first = str(error).splitlines()[0]
            raise BadInput(f"cannot read {self.name}: {first}") from error

    def read(self, columns: Sequence[str], optional: Sequence[str] = ()) -> RawTable:
        types = {str(row[0]): str(row[1]) for row in self._run(f"describe {self._table()}").fetchall()}
        _require(self.name, columns, list(types))
        columns = [*columns, *(column for column in optional if column in types)]
        picked = [f'try_cast("{column}" as double) as "{column}"' for column in columns]
        texts = [column for column in columns if types[column] == "VARCHAR"]
        for column in columns:
            if types[column] in ("DATE", "TIME", "BLOB") or types[column].startswith(
                ("TIMESTAMP", "INTERVAL")
            ):
                raise BadInput(
                    f"column {column} of {self.name} is of type {types[column]}: give a number; times are in seconds"
                )
        picked += [
            f'("{column}" is not null and try_cast("{column}" as double) is null) as "text_{column}"'
            for column in texts
        ]
        read = self._run(f"select {', '.join(picked)} from ({self._table()})").fetchnumpy()
        raw = {
            column: RawColumn(
                *_unmasked(read[column], None if column not in texts else read[f"text_{column}"]), False
            )
            for column in columns
        }
        return RawTable(len(raw[columns[0]].values), raw, tuple(types))

    def column(self, name: str) -> Values:
        values: Values = self._run(f"select {identifier(name)} from ({self._table()})").fetchnumpy()[name]
        return values

    def texts(self, column: str, rows: Iterable[int]) -> dict[int, str]:
        values = self._run(
            f"select cast({identifier(column)} as varchar) as text from ({self._table()})"
        ).fetchnumpy()
        return {int(row): str(values["text"][row]) for row in rows}


def _unmasked(values: Any, is_text: Any) -> tuple[Floats, Mask | None, Mask | None]:
    text = None if is_text is None else np.asarray(is_text, np.bool_)
    if not isinstance(values, np.ma.MaskedArray):
        return np.asarray(values, np.float64), None, text
    is_null = np.ma.getmaskarray(values)
    if text is not None:
        is_null = is_null & ~text
    return np.asarray(values.filled(0.0), np.float64), is_null if is_null.any() else None, text


def identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"


class _File(_Queried):
    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path)
        self._opened: duckdb.DuckDBPyConnection | None = None

    def _connection(self) -> duckdb.DuckDBPyConnection:
        if self._opened is None:
            self._opened = cursor()
        return self._opened

    def table_sql(self) -> str:
        """A select that reads the file in any connection."""
        return self._table()

    def file_digest(self) -> str | None:
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


class _ParquetFile(_File):
    def _table(self) -> str:
        return f"select * from read_parquet({quoted(self.path)})"


class _BundledTrace(_File):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.name = BUNDLED_TRACE

    def _table(self) -> str:
        return REPLAY_TABLE.format(path=quoted(self.path))


class _CsvFile(_File):
    """Comma, double quotes, a header line, nothing guessed: what is guessed differs with the first rows."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            with path.open(newline="", encoding="utf-8") as file:
                self._names = next(csv.reader(file), [])
        except UnicodeDecodeError as error:
            raise BadInput(f"cannot read {path}: it is no text in UTF-8 ({error.reason})") from error
        if not self._names:
            raise BadInput(f"cannot read {path}: it is empty; its first line must name the columns")
        if len(set(self._names)) < len(self._names):
            raise BadInput(f"cannot read {path}: its header names a column twice: {', '.join(self._names)}")

    def _table(self) -> str:
        columns = ", ".join(f"'{name.replace(chr(39), chr(39) * 2)}': 'VARCHAR'" for name in self._names)
        return (
            f"select * from read_csv({quoted(self.path)}, auto_detect = false, header = true, delim = ',', "
            f"quote = '\"', escape = '\"', columns = {{{columns}}})"
        )

    def place_of(self, row: int) -> str:
        return f"line {row + 2}"


class _Stream(_Queried):
    """Anything with an Arrow C stream. It is copied into DuckDB once: a stream can be read only once."""

    def __init__(self, source: object) -> None:
        self._source = source
        self.name = f"the {type(source).__name__} in memory"
        self._opened: duckdb.DuckDBPyConnection | None = None

    def _connection(self) -> duckdb.DuckDBPyConnection:
        if self._opened is None:
            self._opened = cursor()
            self._opened.register("stream", _Capsule(self._source))
            self._opened.execute("create temp table trace as select * from stream")
            self._opened.unregister("stream")
        return self._opened

    def _table(self) -> str:
        return "select * from trace"


class _Capsule:
    """Shows only the stream of an object, so that DuckDB asks for no library of the object's kind."""

    def __init__(self, source: Any) -> None:
        self._source = source

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._source.__arrow_c_stream__(requested_schema)


class _Relation(_Stream):
    """A DuckDB relation. Its own connection is asked, and its rows come in the relation's order."""

    def _connection(self) -> duckdb.DuckDBPyConnection:
        if self._opened is None:
            relation: Any = self._source
            columns = relation.fetchnumpy()
            self._opened = cursor()
            self._opened.register("relation", dict(columns))
            self._opened.execute("create temp table trace as select * from relation")
            self._opened.unregister("relation")
        return self._opened


# ---------------------------------------------------------------- arrays


class _Columns:
    """A mapping of names to arrays, or a data frame. Nothing is copied but what must become float64."""

    def __init__(self, source: Any) -> None:
        self._source = source
        self.name = "the table in memory"

    def _names(self) -> tuple[str, ...]:
        names = self._source.keys() if isinstance(self._source, Mapping) else self._source.columns
        return tuple(map(str, names))

    def read(self, columns: Sequence[str], optional: Sequence[str] = ()) -> RawTable:
        names = self._names()
        _require(self.name, columns, names)
        columns = [*columns, *(column for column in optional if column in names)]
        raw = {column: _raw_column(self._source[column]) for column in columns}
        lengths = {column: len(raw[column].values) for column in columns}
        if len(set(lengths.values())) > 1:
            counted = ", ".join(f"{column} {length}" for column, length in lengths.items())
            raise BadInput(f"the columns of {self.name} differ in length: {counted}")
        return RawTable(lengths[columns[0]], raw, names)

    def column(self, name: str) -> Values:
        return np.asarray(self._source[name])

    def place_of(self, row: int) -> str:
        return f"row {row}"

    def texts(self, column: str, rows: Iterable[int]) -> dict[int, str]:
        return {int(row): str(self._source[column][row]) for row in rows}

    def file_digest(self) -> str | None:
        return None


def _raw_column(column: Any) -> RawColumn:
    is_masked = isinstance(column, np.ma.MaskedArray)
    values = column.filled(0) if is_masked else np.asarray(column)
    is_null = np.ma.getmaskarray(column) if is_masked else None
    if values.ndim != 1:
        raise BadInput(f"a column of a trace is a list of numbers, not an array of {values.ndim} dimensions")
    if values.dtype.kind in "iufb":
        # A copy: what is checked and frozen here must not be the caller's.
        return RawColumn(values.astype(np.float64, copy=True), is_null, None, nan_is_null=not is_masked)
    return _from_objects(values, is_null)


def _from_objects(values: Any, is_null: Mask | None) -> RawColumn:
    numbers = np.zeros(len(values))
    nulls = np.zeros(len(values), np.bool_) if is_null is None else is_null.copy()
    texts = np.zeros(len(values), np.bool_)
    for row, value in enumerate(values.tolist()):
        if value is None:
            nulls[row] = True
        elif not nulls[row]:
            try:
                numbers[row] = float(value)
            except (TypeError, ValueError):
                texts[row] = True
    return RawColumn(
        numbers, nulls if nulls.any() else None, texts if texts.any() else None, nan_is_null=True
    )
