"""How a record type becomes a DuckDB table, and a record a row.

Scalars are columns of their own type and everything else is a JSON column; an enum is stored by its value.
The order of columns is the order of fields, and statements name their columns, so that a column added later
(at the end of the table, wherever its field stands) changes nothing.

No column but the key is NOT NULL: the record type already guarantees it, and a column whose field a newer
release dropped must not refuse that release's rows.
"""

from __future__ import annotations

import enum
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
from msgspec import inspect

from olvm.model.errors import JournalCorrupt
from olvm.model.limits import OPERATIONS_REMEMBERED_MAX
from olvm.model.record import Record

Row = tuple[object, ...]
_Convert = Callable[[Any], object]


def quoted(identifier: str) -> str:
    """An SQL identifier that means itself, whatever it is spelled like."""
    return '"' + identifier.replace('"', '""') + '"'


def quoted_text(text: str) -> str:
    """An SQL string literal, for the statements that take no parameters."""
    return "'" + text.replace("'", "''") + "'"


class Column:
    """One field of a record type. `encode` and `decode` are None where the value is stored as it is."""

    __slots__ = ("decode", "default", "encode", "name", "sql_type")

    def __init__(self, field: msgspec.structs.FieldInfo) -> None:
        self.name = field.name
        kind, is_optional = _without_none(inspect.type_info(field.type))
        self.sql_type = _sql_type(kind)
        self.encode, self.decode = _conversions(kind, self.sql_type, field.type, is_optional=is_optional)
        self.default = _default_value(field)

    def definition(self) -> str:
        return f"{quoted(self.name)} {self.sql_type}"

    def default_sql(self) -> str:
        """The default as an SQL literal, for the rows written before this column existed."""
        value = self.encode(self.default) if self.encode else self.default
        if value is None:
            return "NULL"
        return quoted_text(value) if isinstance(value, str) else str(value)


class RecordTable:
    """The table of one record type: its statements, and its fast row encoder and decoder."""

    def __init__(self, record_type: type[Record]) -> None:
        assert record_type.TABLE, f"{record_type.__name__} names no TABLE"
        assert record_type.KEY, f"{record_type.__name__} names no KEY"
        self.record_type = record_type
        self.name = record_type.TABLE
        self.columns = [Column(field) for field in msgspec.structs.fields(record_type)]
        self.column_names = [column.name for column in self.columns]
        assert record_type.KEY in self.column_names, f"{self.name}: no field {record_type.KEY}"
        self.is_append_only = record_type.APPEND_ONLY
        self._values = _values_of(self.column_names)
        self._encoders = [(i, c.encode) for i, c in enumerate(self.columns) if c.encode is not None]
        self._decoders = [(i, c.decode) for i, c in enumerate(self.columns) if c.decode is not None]

    def create_sql(self) -> str:
        # An append-only table has no key constraint: each row is new, and an index of a million events costs
        # more than the rows themselves.
        key = "" if self.is_append_only else f", primary key ({quoted(self.record_type.KEY)})"
        body = ", ".join(column.definition() for column in self.columns)
        return f"create table {quoted(self.name)} ({body}{key})"

    def add_column_sql(self, column: Column) -> str:
        return (
            f"alter table {quoted(self.name)} add column {column.definition()} default {column.default_sql()}"
        )

    def delete_sql(self, key_count: int) -> str:
        """Erase by key; the keys are one parameter each when few (an index lookup), one list when many."""
        key = quoted(self.record_type.KEY)
        keys = ", ".join("?" * key_count) if key_count <= INDEXED_KEYS_MAX else "select unnest(?)"
        return f"delete from {quoted(self.name)} where {key} in ({keys})"  # noqa: S608 - our own names

    def update_sql(self, columns: Iterable[int]) -> str:
        """Change these columns, by index, of one row: their values are the parameters, and its key the last one."""
        changes = ", ".join(f"{quoted(self.column_names[index])} = ?" for index in columns)
        return f"update {quoted(self.name)} set {changes} where {quoted(self.record_type.KEY)} = ?"  # noqa: S608 - our own names

    def recover_sql(self) -> str:
        """Every row; with a RECOVER_ORDER, whose first term is false for open rows, all open ones and the
        newest OPERATIONS_REMEMBERED_MAX of the others."""
        table, columns = quoted(self.name), ", ".join(map(quoted, self.column_names))
        by_key = f"order by {quoted(self.record_type.KEY)}"
        order = self.record_type.RECOVER_ORDER
        if not order:
            return f"select {columns} from {table} {by_key}"  # noqa: S608 - our own names
        is_closed = order.split(",", maxsplit=1)[0]
        open_count = f"(select count(*) from {table} where not ({is_closed}))"  # noqa: S608 - our own names
        newest = f"order by {order} limit ({OPERATIONS_REMEMBERED_MAX} + {open_count})"
        return f"select * from (select {columns} from {table} {newest}) {by_key}"  # noqa: S608 - our own names

    def encode(self, record: Record) -> Row:
        """One row for the appender. Cost: about 2 us."""
        values = list(self._values(record))
        for index, convert in self._encoders:
            values[index] = convert(values[index])
        return tuple(values)

    def decode_all(self, rows: Iterable[Row], shared: dict[str, str] | None = None) -> dict[str, Record]:
        """Records by key, in the order of `rows`. Cost: about 5 us a row.

        Equal texts become one object by way of `shared`: ids and names stand in many records.
        """
        share = {} if shared is None else shared
        record_type, names, decoders = self.record_type, self.column_names, self._decoders
        key_index = names.index(record_type.KEY)
        records: dict[str, Record] = {}
        for row in rows:
            values = list(row)
            try:
                for index, convert in decoders:
                    values[index] = convert(values[index])
            except (ValueError, KeyError, msgspec.MsgspecError) as error:
                raise JournalCorrupt(
                    f"record {row[key_index]!r} of table {self.name} cannot be read: {error}; "
                    "restore the file from a backup, or open it with the release that wrote it"
                ) from error
            for index, value in enumerate(values):
                if type(value) is str:
                    values[index] = share.setdefault(value, value)
            key = str(row[key_index])
            records[share.setdefault(key, key)] = record_type(**dict(zip(names, values, strict=True)))
        return records


# Up to this many keys a parameter each is faster than a list, which is joined by a scan of the table.
INDEXED_KEYS_MAX = 8


def delete_parameters(keys: Iterable[str]) -> list[object]:
    """The parameters that `RecordTable.delete_sql` expects."""
    listed: list[object] = list(keys)
    return listed if len(listed) <= INDEXED_KEYS_MAX else [listed]


def _values_of(names: list[str]) -> Callable[[Record], Iterable[object]]:
    if len(names) == 1:
        name = names[0]
        return lambda record: (getattr(record, name),)
    getter: Callable[[Record], tuple[object, ...]] = operator.attrgetter(*names)
    return getter


def _without_none(kind: inspect.Type) -> tuple[inspect.Type, bool]:
    """`X | None` as X; any other union stays what it is and becomes JSON."""
    if not isinstance(kind, inspect.UnionType):
        return kind, False
    others = tuple(one for one in kind.types if not isinstance(one, inspect.NoneType))
    is_optional = len(others) < len(kind.types)
    return (others[0] if len(others) == 1 else kind), is_optional


def _sql_type(kind: inspect.Type) -> str:
    match kind:
        case inspect.BoolType():
            return "BOOLEAN"
        case inspect.IntType():
            return "BIGINT"
        case inspect.FloatType():
            return "DOUBLE"
        case inspect.StrType():
            return "VARCHAR"
        case inspect.EnumType():
            return _sql_type_of_values(member.value for member in kind.cls)
        case inspect.LiteralType():
            return _sql_type_of_values(kind.values)
        case _:
            return "JSON"


def _sql_type_of_values(values: Iterable[object]) -> str:
    types = {type(value) for value in values}
    return "BIGINT" if types == {int} else "VARCHAR" if all(issubclass(one, str) for one in types) else "JSON"


def _conversions(
    kind: inspect.Type, sql_type: str, field_type: Any, *, is_optional: bool
) -> tuple[_Convert | None, _Convert | None]:
    if sql_type == "JSON":
        decoder = msgspec.json.Decoder(field_type)
        if is_optional:
            return (
                lambda value: None if value is None else _json_text(value),
                lambda text: None if text is None else decoder.decode(text),
            )
        return _json_text, decoder.decode
    if isinstance(kind, inspect.EnumType):
        members: Mapping[object, enum.Enum] = {member.value: member for member in kind.cls}
        if is_optional:
            return (
                lambda member: None if member is None else member.value,
                lambda value: None if value is None else members[value],
            )
        return operator.attrgetter("value"), members.__getitem__
    return None, None


def _json_text(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _default_value(field: msgspec.structs.FieldInfo) -> object:
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return None if field.default is msgspec.NODEFAULT else field.default
