"""The links of a silo to all others: what waits to leave, what must be acknowledged, and when to send again.

Decides what goes into the next frame to each silo. The order and the numbers of one channel are decided in
`channel.py`. Must not know actors or turns: it carries bytes, and leaves to the silo when they may go.

Rule: nothing is transmitted but by `release`, which the silo calls after the commit.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

from actors.channel import Outbox, accept
from actors.wire import decode_frame, encode
from olvm.journal.port import Batch, Recovered
from olvm.model.limits import MESSAGES_PER_FRAME_MAX
from olvm.model.records import PeerRecord


class Links:
    """One outbox and one peer for each silo that was ever spoken with."""

    __slots__ = (
        "_journal_id",
        "_resends",
        "_silo",
        "_transmit",
        "_unsent",
        "_volatile",
        "acks_due",
        "outboxes",
        "peers",
    )

    def __init__(self, silo: str, transmit: Callable[[str, bytes], None]) -> None:
        self._silo = silo
        self._transmit = transmit
        self._journal_id = ""
        self.outboxes: dict[str, Outbox] = {}
        self.peers: dict[str, PeerRecord] = {}
        self.acks_due: set[str] = set()  # silos that wait to hear how far their messages are durable here
        # Outboxes with messages that were never on the wire, and those that may have to send again, by when.
        self._unsent: set[str] = set()
        self._resends: list[tuple[int, str]] = []
        self._volatile: dict[str, list[bytes]] = {}

    def restore(self, recovered: Recovered) -> None:
        """Be as the journal says; what is not in it was never sent and never taken."""
        self._journal_id = recovered.journal_id
        self._volatile = {}
        self.acks_due.clear()
        self.outboxes = {name: Outbox(name, seq) for name, seq in recovered.acknowledged.items()}
        self._unsent.clear()
        self._resends = []
        for row in recovered.outgoing:
            outbox = self._outbox(row.destination)
            outbox.restore(row.seq, row.payload)
            self._list(outbox)
        self.peers = {
            key: record
            for key, record in recovered.records.get(PeerRecord, {}).items()
            if isinstance(record, PeerRecord)
        }

    def unacknowledged_count(self) -> int:
        """Messages that some silo has not acknowledged. Safe from any thread."""
        return sum(len(outbox.waiting) for outbox in list(self.outboxes.values()))

    # ------------------------------------------------------------------ in

    def take(self, data: bytes, batch: Batch, now_ns: int) -> list[bytes]:
        """The messages of a frame that are new, in order; how far the channel came is left in `batch`."""
        frame = decode_frame(data)
        peer = self.peers.get(frame.source)
        if peer is None:
            peer = self.peers[frame.source] = PeerRecord(silo=frame.source)
        if frame.acked_id == self._journal_id and self._outbox(frame.source).acknowledge(
            frame.acked_seq, now_ns
        ):
            batch.acknowledged[frame.source] = frame.acked_seq
        if not frame.durable:
            return frame.volatile
        self.acks_due.add(frame.source)
        fresh = accept(peer, frame)
        if fresh:
            batch.upserts.setdefault(PeerRecord, {})[peer.silo] = peer
        return fresh + frame.volatile

    # ------------------------------------------------------------------ out

    def send(self, silo: str, data: bytes) -> int:
        """Deliver in order and until it is acknowledged; the message's number in its channel."""
        self._unsent.add(silo)
        return self._outbox(silo).add(data)

    def tell(self, silo: str, data: bytes) -> None:
        """Send once."""
        self._volatile.setdefault(silo, []).append(data)

    @property
    def has_work(self) -> bool:
        """Whether `release` may find something to do."""
        return bool(self._volatile or self.acks_due or self._unsent or self._resends)

    def next_resend_ns(self) -> int | None:
        """An outbox's time only moves back when there was progress: an entry is never too late, at most too early."""
        resends = self._resends
        while resends:
            listed_ns, name = resends[0]
            outbox = self.outboxes[name]
            due_ns = outbox.due_ns()
            if due_ns is None:
                heapq.heappop(resends)
                outbox.is_listed = False
            elif due_ns > listed_ns:
                heapq.heapreplace(resends, (due_ns, name))
            else:
                return listed_ns
        return None

    def release(self, now_ns: int) -> None:
        """Transmit what waits, acknowledge what is durable, and send again what was not acknowledged in time."""
        if self._resends:
            self._list_late(now_ns)
        volatile = self._volatile
        if volatile:
            self._volatile = {}
        if not (self.acks_due or self._unsent):
            for silo in volatile if len(volatile) < 2 else sorted(volatile):
                self._transmit_to(silo, volatile[silo], False, now_ns)
            return
        acks, self.acks_due = self.acks_due, set()
        unsent, self._unsent = self._unsent, set()
        for silo in sorted({*volatile, *acks, *unsent}):
            self._transmit_to(silo, volatile.get(silo, []), silo in acks, now_ns)

    def _outbox(self, silo: str) -> Outbox:
        outbox = self.outboxes.get(silo)
        if outbox is None:
            outbox = self.outboxes[silo] = Outbox(silo)
        return outbox

    def _list(self, outbox: Outbox) -> None:
        """See to it that what is not acknowledged is sent again."""
        due_ns = outbox.due_ns()
        if due_ns is not None and not outbox.is_listed:
            outbox.is_listed = True
            heapq.heappush(self._resends, (due_ns, outbox.destination))

    def _list_late(self, now_ns: int) -> None:
        """What was not acknowledged in time is sent again."""
        resend_ns = self.next_resend_ns()
        while resend_ns is not None and resend_ns <= now_ns:
            name = heapq.heappop(self._resends)[1]
            self.outboxes[name].is_listed = False
            self._unsent.add(name)
            resend_ns = self.next_resend_ns()

    def _transmit_to(self, silo: str, volatile: list[bytes], must_ack: bool, now_ns: int) -> None:
        outbox = self.outboxes.get(silo) or self._outbox(silo)
        peer = self.peers.get(silo)
        acked_seq, acked_id = (peer.received_seq, peer.incarnation) if peer is not None else (0, "")
        while True:
            first_seq, durable = outbox.take(now_ns) if outbox.waiting else (outbox.next_seq, [])
            if not (durable or volatile or must_ack):
                break
            # The fields of `Frame` in its order: as a tuple they are the same bytes, for half the time.
            base_seq = outbox.acked_seq + 1
            fields = (
                self._silo,
                self._journal_id,
                base_seq,
                first_seq,
                durable,
                volatile,
                acked_seq,
                acked_id,
            )
            self._transmit(silo, encode(fields))
            if len(durable) < MESSAGES_PER_FRAME_MAX:
                break
            volatile, must_ack = [], False
        if outbox.waiting and not outbox.is_listed:
            self._list(outbox)
