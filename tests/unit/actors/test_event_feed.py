"""Committed events are told in the order of their numbers, from memory where that is enough, or from the journal."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from actors.event_feed import SERVICE, EventFeed
from actors.wire import Envelope
from olvm.model import messages as m
from olvm.model.records import EventRecord
from tests.unit.history.building import event


class _Silo:
    def __init__(self) -> None:
        self.services: dict[str, Callable[[Envelope], None]] = {}
        self.told: list[Envelope] = []

    def post(self, envelope: Envelope) -> None:
        self.told.append(envelope)


class _Bench:
    """A feed over a journal with events 1 to 4; reads wait until they are run."""

    def __init__(self) -> None:
        self.silo = _Silo()
        self.reads: list[Callable[[], None]] = []
        self.feed = EventFeed(self.silo, self.reads.append, self._read)  # type: ignore[arg-type]

    def _read(self, after: int, count_max: int) -> list[EventRecord]:
        return [event(seq) for seq in range(1, 5) if seq > after][:count_max]

    def pull(self, after: int, count_max: int = 10) -> list[int] | None:
        """Numbers that were told; None: it waits for a read."""
        ask = m.PullEvents(after, count_max)
        self.silo.services[SERVICE](Envelope("events@engine", "telemetry@telemetry", "1", "", ask))
        return self.told(after) if not self.reads else None

    def told(self, after: int) -> list[int]:
        to, _, _, _, message = self.silo.told.pop()
        assert to == "telemetry@telemetry"
        assert isinstance(message, m.EventsTold)
        assert (message.source, message.after_seq) == ("engine", after)
        if not message.payload:
            return []
        return [one.seq for one in msgspec.msgpack.decode(message.payload, type=list[EventRecord])]


def test_who_follows_closely_is_told_from_memory() -> None:
    bench = _Bench()
    bench.feed.committed([event(seq) for seq in range(5, 9)])
    assert bench.pull(6) == [7, 8]
    assert bench.pull(4, count_max=2) == [5, 6]
    assert bench.pull(8) == []


def test_what_memory_does_not_have_is_read() -> None:
    bench = _Bench()
    assert bench.pull(2) is None
    bench.reads.pop()()
    assert bench.told(2) == [3, 4]
    bench.feed.committed([event(5)])
    assert bench.pull(1, count_max=2) is None
    bench.reads.pop()()
    assert bench.told(1) == [2, 3]
