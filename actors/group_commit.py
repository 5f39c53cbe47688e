"""What one commit of a silo makes durable: turns, their after-images, events, outgoing messages, channels' positions.

Rule: what is in the journal's rows is what is in the batch's tables, to the last record: `replay(journal) == tables`.
Decides how a turn is written down, and how one that failed is undone. Must not know who handles a message, or what
leaves the silo afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from actors.behaviour import Turn
from actors.numbering import Numbering
from actors.silo_ports import Records
from actors.wire import Envelope, encode
from olvm.journal.port import Batch, Journal, Outgoing
from olvm.journal.port import Turn as TurnRow
from olvm.model.record import Record, key_of
from olvm.model.records import EventRecord, PeerRecord


class GroupCommit:
    """The turns since the last commit. Empty again after `write`; one that could not be written is thrown away."""

    __slots__ = ("_events", "_journal", "_numbering", "batch")

    def __init__(self, journal: Journal, numbering: Numbering) -> None:
        self._journal = journal
        self._numbering = numbering
        self.batch = Batch()  # channels add their own part, see `actors.links`
        self._events: list[EventRecord] = []

    @property
    def is_due(self) -> bool:
        """Whether something must be written. That others have acknowledged is no reason: it waits for the next one."""
        batch = self.batch
        return bool(batch.turns or batch.upserts or batch.outgoing or self._events)

    def add_event(self, event: EventRecord) -> None:
        self._numbering.number_event(event)
        self._events.append(event)

    def add_outgoing(self, silo: str, seq: int, data: bytes) -> None:
        self.batch.outgoing.append(Outgoing(silo, seq, data))

    def add_turn(self, envelope: Envelope, turn: Turn) -> None:
        changes: list[tuple[str, str, Record | None]] = []
        batch = self.batch
        for record in turn.saved:
            kind, key = type(record), key_of(record)
            changes.append((kind.TABLE, key, record))
            batch.upserts.setdefault(kind, {})[key] = record
            erased = batch.erasures.get(kind)
            if erased is not None:
                erased.discard(key)
        for record in turn.erased:
            kind, key = type(record), key_of(record)
            changes.append((kind.TABLE, key, None))
            batch.upserts.setdefault(kind, {}).pop(key, None)
            batch.erasures.setdefault(kind, set()).add(key)
        batch.turns.append(
            TurnRow(
                self._numbering.turn_seq,
                turn.now_ns,
                turn.me,
                type(envelope.message).__name__,
                envelope.message_id,
                envelope.cause_id,
                encode(envelope.message),
                encode(changes),
            )
        )
        self._numbering.end_turn()

    def restore_images(self, peers: Iterable[PeerRecord]) -> None:
        """Undo what a failed turn did to records that the batch will write: back to their after-images."""
        batch = self.batch
        kinds = {kind.TABLE: kind for kind in [*batch.upserts, *batch.erasures]}
        batch.upserts = {}
        for row in batch.turns:
            for table, key, image in msgspec.msgpack.decode(row.changes):
                kind = kinds[table]
                if image is None:
                    batch.upserts.get(kind, {}).pop(key, None)
                else:
                    batch.upserts.setdefault(kind, {})[key] = msgspec.convert(image, kind)
        for peer in peers:
            batch.upserts.setdefault(PeerRecord, {})[peer.silo] = peer

    def write(self, now_ns: int) -> tuple[Records, list[EventRecord]] | None:
        """Commit; the records and events that are durable now, or None when there was nothing to write.

        Raises:
            JournalUnwritable: nothing was written.
        """
        batch, events = self.batch, self._events
        if events:
            batch.upserts[EventRecord] = {event.id: event for event in events}
        if not (batch.turns or batch.upserts or batch.outgoing):
            return None
        self._add_peers(now_ns)
        self._journal.commit(batch)
        self.batch = Batch()
        self._events = []
        return batch.upserts, events

    def _add_peers(self, now_ns: int) -> None:
        """How far the channels came is state like any other: `replay(journal) == tables` holds for it too."""
        peers = self.batch.upserts.get(PeerRecord)
        if not peers:
            return
        changes = [(PeerRecord.TABLE, key, record) for key, record in peers.items()]
        self.batch.turns.append(
            TurnRow(self._numbering.turn_seq, now_ns, "silo", "FramesTaken", "", "", b"\xc0", encode(changes))
        )
        self._numbering.end_turn()
