"""Finished operations are told in the order of their ends, from memory where that is enough, or from the journal."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from actors.operation_feed import SERVICE, OperationFeed, read_ended
from actors.wire import Envelope
from olvm.model import messages as m
from olvm.model.records import OperationRecord
from olvm.model.table import QueryResult


class _Silo:
    """A journal that holds one old operation, and what is posted."""

    def __init__(self) -> None:
        self.services: dict[str, Callable[[Envelope], None]] = {}
        self.told: list[m.OperationsTold] = []
        self.journal = self
        self.asked: list[tuple[object, ...]] = []

    def query(self, sql: str, parameters: tuple[object, ...]) -> QueryResult:
        self.asked.append(parameters)
        row = msgspec.to_builtins(_operation(0))
        return QueryResult(columns=list(row), types=[], rows=[tuple(row.values())])

    def post(self, envelope: Envelope) -> None:
        assert isinstance(envelope.message, m.OperationsTold)
        self.told.append(envelope.message)


def _operation(number: int) -> OperationRecord:
    return OperationRecord(
        f"op-{number}", "start", "vm", "v1", "web", status="succeeded", finished_ns=100 + number
    )


def _pull(silo: _Silo, from_ns: int, row_count_max: int = 10) -> list[str]:
    ask = m.PullOperations(from_ns, row_count_max)
    silo.services[SERVICE](Envelope("operations@engine", "telemetry@telemetry", "1", "", ask))
    payload = silo.told[-1].payload
    return [one.id for one in msgspec.msgpack.decode(payload, type=list[OperationRecord])] if payload else []


def _feed() -> tuple[_Silo, OperationFeed]:
    silo = _Silo()
    return silo, OperationFeed(silo, lambda read: read(), read_ended(silo.journal))  # type: ignore[arg-type]


def test_what_ended_since_is_told_from_memory_the_moment_of_the_cursor_included() -> None:
    silo, feed = _feed()
    for number in range(1, 6):
        feed.committed(_operation(number))
    assert _pull(silo, 103) == ["op-3", "op-4", "op-5"]
    assert _pull(silo, 103, row_count_max=2) == ["op-3", "op-4"]
    assert _pull(silo, 106) == []
    assert silo.asked == []


def test_what_memory_may_not_hold_is_read_from_the_journal() -> None:
    silo, feed = _feed()
    assert _pull(silo, 0) == ["op-0"]
    feed.committed(_operation(1))
    assert _pull(silo, 101) == ["op-0"]  # of the same moment another may have ended before
    assert silo.asked == [(0,), (101,)]
