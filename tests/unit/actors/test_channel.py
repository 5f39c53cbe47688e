"""Ordered channels under any loss, repetition, reordering and crash: each committed message once, in order."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from actors.channel import RESEND_AFTER_NS, Outbox, accept
from actors.wire import Frame
from olvm.model.records import PeerRecord

STEP_NS = RESEND_AFTER_NS // 3


class Side:
    """One end. `disk` holds what was committed; a crash forgets the rest."""

    def __init__(self, life: str) -> None:
        self.life = life
        self.disk_waiting: list[tuple[int, bytes]] = []
        self.disk_acked = 0
        self.disk_peer = PeerRecord(silo="other")
        self.outbox = Outbox("other")
        self.peer = PeerRecord(silo="other")
        self.got: list[bytes] = []

    def recover(self) -> None:
        self.outbox = Outbox("other", self.disk_acked)
        for seq, payload in self.disk_waiting:
            self.outbox.restore(seq, payload)
        self.peer = PeerRecord(
            silo="other", incarnation=self.disk_peer.incarnation, received_seq=self.disk_peer.received_seq
        )

    def send(self, payload: bytes) -> None:
        self.disk_waiting.append((self.outbox.add(payload), payload))

    def frame(self, now_ns: int) -> Frame:
        first_seq, durable = self.outbox.take(now_ns)
        return Frame(
            source="other",
            source_id=self.life,
            base_seq=self.outbox.acked_seq + 1,
            first_seq=first_seq,
            durable=durable,
            volatile=[],
            acked_seq=self.peer.received_seq,
            acked_id=self.peer.incarnation,
        )

    def take(self, frame: Frame, now_ns: int, *, is_committed: bool) -> None:
        if frame.acked_id == self.life and self.outbox.acknowledge(frame.acked_seq, now_ns) and is_committed:
            self.disk_acked = frame.acked_seq
            self.disk_waiting = [one for one in self.disk_waiting if one[0] > frame.acked_seq]
        fresh = accept(self.peer, frame)
        if is_committed:
            self.got += fresh
            self.disk_peer = PeerRecord(
                silo="other", incarnation=self.peer.incarnation, received_seq=self.peer.received_seq
            )
        else:
            self.recover()  # it crashed before the commit


class Wire:
    """Two sides and every frame that was ever sent, any of which may arrive at any time."""

    def __init__(self) -> None:
        self.sides = [Side("a"), Side("b")]
        self.frames: list[list[Frame]] = [[], []]
        self.now_ns = RESEND_AFTER_NS
        self.sent: list[list[bytes]] = [[], []]

    def send(self, who: int) -> None:
        payload = f"{who}-{len(self.sent[who])}".encode()
        self.sent[who].append(payload)
        self.sides[who].send(payload)

    def act(self, kind: int, who: int, which: int) -> None:
        self.now_ns += STEP_NS
        side = self.sides[who]
        match kind:
            case 0:
                self.send(who)
            case 1:
                self.frames[1 - who].append(side.frame(self.now_ns))
            case 2 | 3 if self.frames[who]:
                frame = self.frames[who][which % len(self.frames[who])]
                side.take(frame, self.now_ns, is_committed=kind == 2)
            case _:
                side.recover()

    def settle(self) -> None:
        """From here on every frame arrives, once."""
        for _ in range(12):
            for who in (0, 1):
                self.now_ns += RESEND_AFTER_NS
                self.sides[1 - who].take(self.sides[who].frame(self.now_ns), self.now_ns, is_committed=True)


ACTS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 1), st.integers(0, 30)), min_size=10, max_size=60)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(acts=ACTS)
@example([(0, 0, 0), (1, 0, 0), (0, 0, 0), (1, 0, 0), (2, 1, 1)])  # the second frame alone
def test_channel_any_loss_repetition_order_and_crash_delivers_once_in_order(
    acts: list[tuple[int, int, int]],
) -> None:
    wire = Wire()
    for kind, who, which in acts:
        wire.act(kind, who, which)
    wire.settle()
    assert [side.got for side in wire.sides] == [wire.sent[1], wire.sent[0]]
    assert [list(side.outbox.waiting) for side in wire.sides] == [[], []]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(before=ACTS, after=st.integers(0, 5))
def test_channel_receiver_that_lost_its_disk_gets_all_that_follows(
    before: list[tuple[int, int, int]], after: int
) -> None:
    wire = Wire()
    for kind, who, which in before:
        wire.act(kind, who, which)
    wire.settle()
    wire.sides[1] = Side("b2")
    old = [frame for frame in wire.frames[1] if frame.durable]
    for frame in old[:1]:  # a frame from before the loss arrives late, and first
        wire.sides[1].take(frame, wire.now_ns, is_committed=True)
    wire.sides[1].got.clear()
    done = len(wire.sent[0])
    for _ in range(after):
        wire.send(0)
    wire.settle()
    assert wire.sides[1].got[-after or 1 :] == wire.sent[0][done:]
    assert list(wire.sides[0].outbox.waiting) == []


@settings(max_examples=200, deadline=None, derandomize=True)
@given(before=ACTS, after=st.integers(0, 5))
def test_channel_sender_that_lost_its_disk_begins_anew_and_is_heard(
    before: list[tuple[int, int, int]], after: int
) -> None:
    wire = Wire()
    for kind, who, which in before:
        wire.act(kind, who, which)
    wire.settle()
    wire.sides[0] = Side("a2")
    wire.sides[1].got.clear()
    done = len(wire.sent[0])
    for _ in range(after):
        wire.send(0)
    wire.settle()
    assert wire.sides[1].got == wire.sent[0][done:]


def test_channel_frame_of_a_journal_that_was_lost_changes_nothing() -> None:
    def frame(journal: str, first_seq: int, *payloads: bytes) -> Frame:
        return Frame("a", journal, 1, first_seq, list(payloads), [], 0, "")

    peer = PeerRecord(silo="a")
    assert accept(peer, frame("old", 1, b"1", b"2")) == [b"1", b"2"]
    assert accept(peer, frame("new", 1, b"3")) == [b"3"]
    assert accept(peer, frame("old", 2, b"2", b"late")) == []
    assert accept(peer, frame("new", 2, b"4")) == [b"4"]


def test_outbox_acknowledgement_of_what_was_never_sent_is_ignored() -> None:
    outbox = Outbox("other")
    outbox.add(b"one")
    assert not outbox.acknowledge(2, 0)
    assert not outbox.acknowledge(0, 0)
    assert list(outbox.waiting) == [b"one"]


def test_outbox_unacknowledged_message_is_sent_again_after_the_delay_and_not_before() -> None:
    outbox = Outbox("other")
    outbox.add(b"one")
    assert outbox.take(0) == (1, [b"one"])
    assert outbox.take(RESEND_AFTER_NS - 1) == (2, [])
    assert outbox.due_ns() == RESEND_AFTER_NS
    assert outbox.take(RESEND_AFTER_NS) == (1, [b"one"])
    assert outbox.acknowledge(1, RESEND_AFTER_NS)
    assert outbox.due_ns() is None
