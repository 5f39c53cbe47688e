"""Records and batches for the tests of journals; also imported by the processes that those tests kill."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import ClassVar, Literal

import msgspec

from olvm.journal.port import Batch, Change, Outgoing, Turn
from olvm.model.record import Record, key_of


class Mood(enum.Enum):
    DOWN = "Down"
    UP = "Up"


class ExitCode(enum.IntEnum):
    CLEAN = 0
    CRASHED = 7


class Machine(Record):
    """One field of every kind that a record may have."""

    TABLE: ClassVar[str] = "machines"
    KEY: ClassVar[str] = "id"

    id: str
    name: str = ""
    mood: Mood = Mood.DOWN
    exit_code: ExitCode | None = None
    kind: Literal["server", "desktop"] = "server"
    memory_bytes: int = 0
    load: float = 0.0
    ready: bool = False
    host: str | None = None
    order: int | None = None  # a word that SQL keeps for itself
    tags: list[str] = []
    timers: dict[str, int] = {}
    details: dict[str, str | int | float | bool | None] | None = None


class Job(Record):
    """Finished jobs are many, and only the newest are read back."""

    TABLE: ClassVar[str] = "jobs"
    KEY: ClassVar[str] = "id"
    RECOVER_ORDER: ClassVar[str] = "finished_ns is not null, created_ns desc"

    id: str
    created_ns: int = 0
    finished_ns: int | None = None


class Happening(Record):
    """Append-only, as events are."""

    TABLE: ClassVar[str] = "happenings"
    KEY: ClassVar[str] = "id"
    APPEND_ONLY: ClassVar[bool] = True

    id: str
    seq: int
    text: str = ""


RECORDS: tuple[type[Record], ...] = (Machine, Job, Happening)


def batch(
    last_seq: int,
    *,
    saved: Iterable[Record] = (),
    erased: Iterable[tuple[type[Record], str]] = (),
    outgoing: Iterable[Outgoing] = (),
    acknowledged: Mapping[str, int] | None = None,
) -> Batch:
    """One turn for each saved or erased record, numbered after `last_seq`."""
    result = Batch()
    for record in saved:
        result.save(record)
        change = (type(record).TABLE, key_of(record), record)
        result.turns.append(turn(last_seq + len(result.turns) + 1, [change]))
    for kind, key in erased:
        result.erase(kind, key)
        result.turns.append(turn(last_seq + len(result.turns) + 1, [(kind.TABLE, key, None)]))
    result.outgoing.extend(outgoing)
    result.acknowledged.update(acknowledged or {})
    return result


def turn(seq: int, changes: Iterable[tuple[str, str, Record | None] | Change] = ()) -> Turn:
    return Turn(
        seq, seq * 1000, "vm/1", "Poke", f"m{seq}", f"c{seq}", b"\x80", msgspec.msgpack.encode(list(changes))
    )
