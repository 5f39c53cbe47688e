"""What an actor's durable state is made of: typed records, one SQL row each.

Rule: a record belongs to one actor, which alone changes it and says so with `turn.save(record)`. The row that
SQL reads and the object that the actor holds are the same fields; there is no second copy to disagree.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec


class Record(msgspec.Struct, kw_only=True, gc=False):
    """Base of every durable record.

    Scalar fields (`str`, `int`, `float`, `bool`, an enum, or one of them `| None`) become SQL columns; any other
    field becomes a JSON column. New fields need a default: rows written before them are read with it.
    """

    TABLE: ClassVar[str] = ""
    KEY: ClassVar[str] = ""
    # Rows are only ever added; they are not read back at recovery and are no part of `replay == tables`.
    APPEND_ONLY: ClassVar[bool] = False
    # SQL `order by` for recovery, with a limit of OPERATIONS_REMEMBERED_MAX rows plus what is open; empty: read all.
    RECOVER_ORDER: ClassVar[str] = ""
    # Of a table that only ever grows: the column whose newest values stay, and how many rows that is. 0: all stay.
    KEPT_BY: ClassVar[str] = ""
    ROWS_KEPT_MAX: ClassVar[int] = 0


def key_of(record: Record) -> str:
    """The record's primary key as text."""
    key = getattr(record, type(record).KEY)
    assert isinstance(key, str), f"{type(record).__name__}.{type(record).KEY} is not text"
    return key
