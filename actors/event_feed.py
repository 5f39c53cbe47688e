"""Committed events for history, in the order of their numbers: pulled, as operations are.

Decides which events the next page has. The cursor, which history keeps, is the number of the last event that it has.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Sequence

import msgspec

from actors.silo import Silo
from actors.wire import Envelope
from olvm.model import messages as m
from olvm.model.records import EventRecord

SERVICE = "events"
RECENT_MAX = 20_000

# The events after a number, so many at most, in order; from the journal.
ReadEvents = Callable[[int, int], Sequence[EventRecord | dict[str, object]]]


class EventFeed:
    """In the engine's silo. `submit` runs what reads the journal, in another thread."""

    def __init__(self, silo: Silo, submit: Callable[[Callable[[], None]], object], read: ReadEvents) -> None:
        self._silo = silo
        self._submit = submit
        self._read = read
        # The newest that are committed, so that whoever follows closely costs no query.
        self._recent: deque[EventRecord] = deque(maxlen=RECENT_MAX)
        silo.services[SERVICE] = self._on_pull

    def committed(self, events: Iterable[EventRecord]) -> None:
        self._recent.extend(events)

    def _on_pull(self, envelope: Envelope) -> None:
        ask = envelope.message
        assert isinstance(ask, m.PullEvents)
        recent = self._recent
        if recent and recent[0].seq <= ask.after_seq + 1:
            start = max(0, ask.after_seq + 1 - recent[0].seq)
            self._tell(envelope, list(itertools.islice(recent, start, start + ask.row_count_max)))
        else:
            self._submit(lambda: self._tell(envelope, self._read(ask.after_seq, ask.row_count_max)))

    def _tell(self, envelope: Envelope, events: Sequence[EventRecord | dict[str, object]]) -> None:
        ask = envelope.message
        assert isinstance(ask, m.PullEvents)
        payload = msgspec.msgpack.encode(events) if events else b""
        told = m.EventsTold("engine", payload, ask.after_seq)
        self._silo.post(Envelope(envelope.sender, SERVICE, f"events-{envelope.message_id}", "", told))
