"""Finished operations for history, in the order of their ends: pulled, as events are.

Decides which operations the next page has. The cursor, which history keeps, is the end of the last operation that it
has. A page begins with that very moment, as others may have ended in it; history knows those that it has by their ids.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from actors.silo import Silo
from actors.wire import Envelope
from olvm.journal.port import Journal
from olvm.model import messages as m
from olvm.model.records import OperationRecord

SERVICE = "operations"
RECENT_MAX = 20_000
COLUMNS = ", ".join(OperationRecord.__struct_fields__)

# Those that ended at a time or later, ns, so many at most, in the order of their ends; from the journal.
ReadOperations = Callable[[int, int], Sequence[OperationRecord | dict[str, object]]]


class OperationFeed:
    """In the engine's silo. `submit` runs what reads the journal, in another thread."""

    def __init__(
        self, silo: Silo, submit: Callable[[Callable[[], None]], object], read: ReadOperations
    ) -> None:
        self._silo = silo
        self._submit = submit
        self._read = read
        # All that have ended since the first of them; the journal has those before.
        self._recent: deque[OperationRecord] = deque(maxlen=RECENT_MAX)
        silo.services[SERVICE] = self._on_pull

    def committed(self, operation: OperationRecord) -> None:
        """One that has ended is on the disk."""
        self._recent.append(operation)

    def _on_pull(self, envelope: Envelope) -> None:
        ask = envelope.message
        assert isinstance(ask, m.PullOperations)
        first_ns = self._recent[0].finished_ns if self._recent else None
        if first_ns is not None and first_ns < ask.from_ns:
            ended: list[OperationRecord] = []
            for one in reversed(self._recent):
                if one.finished_ns is None or one.finished_ns < ask.from_ns:
                    break
                ended.append(one)
            self._tell(envelope, ended[::-1][: ask.row_count_max])
        else:
            self._submit(lambda: self._tell(envelope, self._read(ask.from_ns, ask.row_count_max)))

    def _tell(self, envelope: Envelope, operations: Sequence[OperationRecord | dict[str, object]]) -> None:
        ask = envelope.message
        assert isinstance(ask, m.PullOperations)
        payload = msgspec.msgpack.encode(operations) if operations else b""
        told = m.OperationsTold("engine", payload, ask.from_ns)
        self._silo.post(Envelope(envelope.sender, SERVICE, f"operations-{envelope.message_id}", "", told))


def read_ended(journal: Journal) -> ReadOperations:
    """From a journal in a file."""
    return lambda from_ns, count_max: journal.query(
        f"select {COLUMNS} from operations where finished_ns >= ? order by finished_ns, id limit {int(count_max)}",  # noqa: S608 - columns of ours
        (from_ns,),
    ).dicts()
