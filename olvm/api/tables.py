"""Reads one table of the engine as typed records, by oVirt's search language. Nothing is kept between two reads."""

from __future__ import annotations

import functools
from types import UnionType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, get_args

import msgspec

from olvm.model.errors import NotFound
from olvm.model.limits import SQL_SHORT_S
from olvm.model.record import Record
from olvm.model.search import parse
from olvm.model.search_fields import fields_of
from olvm.model.search_targets import to_sql

if TYPE_CHECKING:
    from olvm.api.data_center import DataCenter

R = TypeVar("R", bound=Record)


class Table(Generic[R]):
    """Reads rows of one table by oVirt's search language."""

    record: type[R]
    free_text = "name"  # where a word alone is looked for

    def __init__(self, dc: DataCenter, restriction: str = "") -> None:
        self._dc = dc
        self._restriction = restriction  # value of the column `cluster`

    def rows(self, where: str = "", limit: int = 100_000) -> list[R]:
        """Rows that match a search such as `status=up and host=kvm1* sortby name`; all, by name, without one."""
        search = to_sql(parse(where), fields_of(self.record, self.free_text), page_rows=limit)
        table = self.record.TABLE
        condition = f"({search.where})" if search.where else "true"
        params: list[Any] = list(search.parameters)
        if self._restriction:
            condition += " and cluster = ?"
            params.append(self._restriction)
        order = search.order_by or self._order()
        sql = f"select * from {table} where {condition} order by {order} limit {search.limit_rows or limit}"  # noqa: S608
        if search.offset_rows:
            sql += f" offset {search.offset_rows}"
        return [
            self._decode(row) for row in self._dc.sql(sql, params, limit=limit, timeout=SQL_SHORT_S).dicts()
        ]

    def _order(self) -> str:
        return "name"

    def _one(self, kind: str, name: str, *columns: str) -> R:
        """The row whose key is `name`; `NotFound` when there is none."""
        condition = " or ".join(f"{column} = ?" for column in columns)
        sql = f"select * from {self.record.TABLE} where {condition}"  # noqa: S608 - names of ours
        rows = self._dc.sql(sql, [name] * len(columns), timeout=SQL_SHORT_S).dicts()
        if not rows:
            raise NotFound(f"{kind} {name} does not exist; `olvm {kind} list` shows those that do")
        return self._decode(rows[0])

    def _decode(self, row: dict[str, Any]) -> R:
        return decode_row(self.record, row)


def decode_row(record: type[R], row: dict[str, Any]) -> R:
    """A SQL row as the typed record; JSON columns are parsed."""
    fields = _fields_by_name(record)
    values: dict[str, Any] = {}
    for name, value in row.items():
        field = fields.get(name)
        if field is None or value is None:
            if field is not None:
                values[name] = None
            continue
        text_like = isinstance(value, str) and value[:1] in "[{" and _is_container(field.type)
        values[name] = msgspec.json.decode(value) if text_like else value
    return msgspec.convert(values, record)


@functools.cache
def _fields_by_name(record: type[Record]) -> dict[str, msgspec.structs.FieldInfo]:
    """Kept: msgspec evaluates every annotation anew each time it is asked, 0.25 ms a row."""
    return {field.name: field for field in msgspec.structs.fields(record)}


def _is_container(annotation: object) -> bool:
    """What stands in a JSON column: a list, a mapping, a struct, or nothing in place of one."""
    if isinstance(annotation, UnionType):
        return any(_is_container(part) for part in get_args(annotation))
    origin = getattr(annotation, "__origin__", annotation)
    return origin in (list, dict, tuple) or (isinstance(origin, type) and issubclass(origin, msgspec.Struct))
