"""Ordered, durable channels between silos: what is committed is delivered exactly once, in order, or kept.

Rule: the sender numbers messages per destination and keeps them until the receiver acknowledges that it has
*committed* them. The receiver takes only the next number; a gap is dropped and sent again. So loss, repetition
and reordering below cost time and nothing else. Decision: docs/decisions/0002-ordered-channels.md.
"""

from __future__ import annotations

from collections import deque

from actors.wire import Frame
from olvm.model.limits import INCARNATIONS_REMEMBERED_MAX, MESSAGES_PER_FRAME_MAX, NS_PER_S, RESEND_AFTER_S
from olvm.model.records import PeerRecord

RESEND_AFTER_NS = int(RESEND_AFTER_S * NS_PER_S)


class Outbox:
    """Messages for one destination that it has not acknowledged."""

    __slots__ = ("acked_seq", "destination", "is_listed", "next_seq", "progress_ns", "sent_seq", "waiting")

    def __init__(self, destination: str, acked_seq: int = 0) -> None:
        self.destination = destination
        self.acked_seq = acked_seq
        self.next_seq = acked_seq + 1
        self.sent_seq = acked_seq
        self.progress_ns = 0
        self.is_listed = False  # by `Links`, among those that may have to send again
        # waiting[0] has number acked_seq + 1
        self.waiting: deque[bytes] = deque()

    def restore(self, seq: int, payload: bytes) -> None:
        """Put back a committed message at recovery; numbers come in order."""
        if not self.waiting:
            self.acked_seq = self.sent_seq = seq - 1
        assert seq == self.acked_seq + 1 + len(self.waiting), (
            f"hole in the outbox for {self.destination} at {seq}"
        )
        self.waiting.append(payload)
        self.next_seq = seq + 1

    def add(self, payload: bytes) -> int:
        seq = self.next_seq
        self.next_seq += 1
        self.waiting.append(payload)
        return seq

    def acknowledge(self, seq: int, now_ns: int) -> bool:
        """Drop what the destination has committed; true when that was news."""
        if not self.acked_seq < seq < self.next_seq:
            return False
        for _ in range(seq - self.acked_seq):
            self.waiting.popleft()
        self.acked_seq = seq
        self.sent_seq = max(self.sent_seq, seq)
        self.progress_ns = now_ns
        return True

    def take(self, now_ns: int) -> tuple[int, list[bytes]]:
        """The next messages to put on the wire: new ones, or all unacknowledged ones when progress has stopped."""
        if self.sent_seq > self.acked_seq and now_ns - self.progress_ns >= RESEND_AFTER_NS:
            self.sent_seq = self.acked_seq
        if self.sent_seq + 1 == self.next_seq:
            return self.next_seq, []
        if self.sent_seq == self.acked_seq:
            self.progress_ns = now_ns
        start = self.sent_seq - self.acked_seq
        stop = min(len(self.waiting), start + MESSAGES_PER_FRAME_MAX)
        payloads = [self.waiting[index] for index in range(start, stop)]
        first_seq = self.sent_seq + 1
        self.sent_seq += len(payloads)
        return first_seq, payloads

    def due_ns(self) -> int | None:
        """When something must be sent again; None when all is acknowledged."""
        return self.progress_ns + RESEND_AFTER_NS if self.waiting else None


def accept(peer: PeerRecord, frame: Frame) -> list[bytes]:
    """Advance the receiving side by one frame; the messages that are new, in order.

    The caller commits `peer` together with the turns that handle the messages.
    """
    if peer.incarnation != frame.source_id:
        if frame.source_id in peer.retired:
            return []  # a late frame of a journal that the peer has lost since
        # A first meeting, or the peer lost its disk: its lowest unacknowledged message is where it begins.
        if peer.incarnation:
            peer.retired = [*peer.retired, peer.incarnation][-INCARNATIONS_REMEMBERED_MAX:]
        peer.incarnation = frame.source_id
        peer.received_seq = frame.base_seq - 1
    # What lies below base was acknowledged by this silo: if it does not know, it lost its disk since.
    peer.received_seq = max(peer.received_seq, frame.base_seq - 1)
    fresh: list[bytes] = []
    for offset, payload in enumerate(frame.durable):
        seq = frame.first_seq + offset
        if seq == peer.received_seq + 1:
            fresh.append(payload)
            peer.received_seq = seq
    return fresh
