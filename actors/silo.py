"""A silo: mailboxes, turns, group commit, outbox, timers and recovery of many actors, without threads or I/O.

Rules that this file defends:
1. A turn is a transaction. What a turn saved, sent and scheduled is committed together with all turns of its batch;
   nothing leaves the silo before that commit.
2. Messages between actors of one silo are handled in the batch that sent them, so a commit never leaves one behind.
3. A turn that raises changes nothing: the batch so far is committed, the silo recovers from its journal, and the
   message is put aside with an event that names the fault. This is the one supervisor.
4. Turns that save nothing and send nothing durable (heartbeats, samples) are not journalled.

The runtime that owns a silo gives it a clock, a journal, a transport and ports, and calls `run_batch` from one
thread whenever `has_work` or a timer is due.
"""

from __future__ import annotations

import hashlib
import heapq
import logging
from collections import deque
from collections.abc import Callable
from typing import Protocol, cast

import msgspec

from actors.behaviour import Behaviour, Turn
from actors.channel import Outbox, accept
from actors.wire import (
    ENGINE_SILO,
    Envelope,
    at_silo,
    decode_envelope,
    decode_frame,
    encode,
    local_name,
    silo_of,
)
from olvm.journal.port import Batch, Journal, Outgoing
from olvm.journal.port import Recovered as RecoveredState
from olvm.journal.port import Turn as TurnRow
from olvm.model.config import Config
from olvm.model.errors import JournalUnwritable, NotFound
from olvm.model.limits import HELD_MESSAGES_MAX, MESSAGES_PER_FRAME_MAX, TURNS_PER_COMMIT_MAX
from olvm.model.messages import (
    AnyMessage,
    CallEnded,
    ChangeAffinity,
    ChangeCluster,
    ChangeVm,
    CommandCluster,
    CommandHost,
    CommandVm,
    DomainHappened,
    EndCluster,
    EventTold,
    OperationEnded,
    Recovered,
    Refusal,
    TaskHost,
    TaskVm,
    TimerFired,
)
from olvm.model.record import Record, key_of
from olvm.model.records import EventRecord, PeerRecord

log = logging.getLogger("olvm.silo")

Records = dict[type[Record], dict[str, Record]]
Cast = Callable[[Records], list[Behaviour]]

POSTED_PER_STEP = 200
# Whoever sent one of these waits for the end of its operation.
ENDED_FOR_NOBODY = (
    CommandVm
    | ChangeVm
    | TaskVm
    | CommandHost
    | TaskHost
    | ChangeCluster
    | EndCluster
    | CommandCluster
    | ChangeAffinity
)


class Port(Protocol):
    """The outer world of a silo: a hypervisor, the history file."""

    def submit(self, caller: str, request: object, tag: str) -> None:
        """Start the request; its answer is posted to `caller` as `CallEnded(tag)`, now or later."""
        ...


class SiloObserver(Protocol):
    """Who must hear of commits: the gateway that answers clients."""

    def on_reply(self, address: str, message: AnyMessage) -> None: ...

    def on_committed(self, saved: Records, events: list[EventRecord]) -> None: ...

    def on_released(self) -> None:
        """After the replies of the batch."""


class Held:
    """An actor without power, and what other actors sent to it: timers, and answers to what it asked, die with it."""

    def __init__(self, behaviour: Behaviour | None) -> None:
        self.behaviour = behaviour
        self.waiting: deque[Envelope] = deque(maxlen=HELD_MESSAGES_MAX)

    def take(self, envelope: Envelope) -> None:
        if envelope.sender and not isinstance(envelope.message, CallEnded | DomainHappened):
            self.waiting.append(envelope)


class Silo:
    """See the module. All methods but `receive` and `post` belong to the owner's thread."""

    # A simulator runs a thousand of them in one thread: what a batch touches should lie together.
    __slots__ = (
        "_ack_due",
        "_ahead_ns",
        "_answers",
        "_batch",
        "_batch_calls",
        "_batch_events",
        "_batch_replies",
        "_batch_volatile",
        "_behaviours",
        "_cast",
        "_clock_ns",
        "_due_by_timer",
        "_event_seq",
        "_frames",
        "_heap",
        "_heap_count",
        "_held",
        "_id_base",
        "_id_count",
        "_id_prefix",
        "_local",
        "_marks",
        "_posted",
        "_process_clock_ns",
        "_resends",
        "_transmit",
        "_turn",
        "_turn_seq",
        "_unsent",
        "_wake",
        "commit_count",
        "config",
        "fault_count",
        "journal",
        "journal_id",
        "name",
        "observer",
        "outboxes",
        "peers",
        "ports",
        "services",
        "turn_count",
    )

    def __init__(
        self,
        name: str,
        journal: Journal,
        cast: Cast,
        config: Config,
        *,
        clock_ns: Callable[[], int],
        transmit: Callable[[str, bytes], None],
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self.journal = journal
        self.config = config
        self.ports: dict[str, Port] = {}
        self.observer: SiloObserver | None = None
        # Answer what needs no actor (the event feed). Called in the silo's thread; must not block.
        self.services: dict[str, Callable[[Envelope], None]] = {}
        self._marks: list[str] | None = None
        self._cast = cast
        self._process_clock_ns = self._clock_ns = clock_ns
        self._ahead_ns = 0
        self._transmit = transmit
        self._wake = wake
        self._frames: deque[bytes] = deque()
        self._posted: deque[Envelope] = deque()
        self._answers: deque[Callable[[], None]] = deque()
        self._local: deque[Envelope] = deque()
        self._heap: list[tuple[int, int, str, str, Callable[[], None] | None]] = []
        self._heap_count = 0
        self._due_by_timer: dict[tuple[str, str], int] = {}
        self._held: dict[str, Held] = {}  # actors that stand in `_behaviours` no longer, see `hold`
        self._ack_due: set[str] = set()
        # Outboxes with messages that were never on the wire, and those that may have to send again, by when.
        self._unsent: set[str] = set()
        self._resends: list[tuple[int, str]] = []
        self.turn_count = 0
        self.fault_count = 0
        self.commit_count = 0
        self._recover()

    @property
    def marks(self) -> list[str] | None:
        """Where situations are counted (simulation): the names that turns marked, in order."""
        return self._marks

    @marks.setter
    def marks(self, marks: list[str] | None) -> None:
        self._marks = self._turn.marks = marks

    # ------------------------------------------------------------------ in: from other threads

    def receive(self, frame: bytes) -> None:
        """Take a frame from the transport. Safe from any thread."""
        self._frames.append(frame)
        self._wake()

    def receive_unwoken(self, frame: bytes) -> None:
        """As `receive`, by an owner that runs the next batch at once."""
        self._frames.append(frame)

    def post(self, envelope: Envelope) -> None:
        """Give an actor of this silo a message that needs no journal of a sender. Safe from any thread."""
        self._posted.append(envelope)
        self._wake()

    def run_soon(self, action: Callable[[], None]) -> None:
        """Run `action` in the silo's thread, before the next batch. Safe from any thread, and not forgotten when the
        silo recovers: it is how a thread of a port brings its answer, and nobody would bring it again."""
        self._answers.append(action)
        self._wake()

    def call_at(self, due_ns: int, action: Callable[[], None]) -> Callable[[], None]:
        """Run `action` in the silo's thread at `due_ns`, unless the returned cancel is called. Forgotten on crash."""
        cancelled: list[bool] = []

        def run() -> None:
            if not cancelled:
                action()

        self._push(due_ns, "", "", run)
        return lambda: cancelled.append(True)

    def hold(self, address: str) -> None:
        """Give this actor nothing until `let_go`: the computer that it stands for is switched off.

        For simulated hosts that share a silo; where each has its own, the silo itself stops. What is held has been
        acknowledged: a crash of the silo loses it, as a host's memory is lost.
        """
        if address not in self._held:
            self._held[address] = Held(self._behaviours.pop(address, None))

    def let_go(self, address: str, first: AnyMessage) -> None:
        """Deliver `first`, then what other actors have sent meanwhile. Without effect on one that is not held."""
        held = self._held.pop(address, None)
        if held is None:
            return
        if held.behaviour is not None:
            self._behaviours[address] = held.behaviour
        self.post(Envelope(address, "", f"{address}-let-go", "", first))
        self._posted.extend(held.waiting)

    def now_ns(self) -> int:
        """The silo's own clock."""
        return self._clock_ns()

    # ------------------------------------------------------------------ recovery

    def _recover(self) -> None:
        recovered: RecoveredState = self.journal.recover()
        self._keep_time(recovered.last_at_ns)
        self.journal_id = recovered.journal_id
        self._turn_seq = recovered.next_turn_seq
        self._event_seq = recovered.next_event_seq
        self._id_base = hashlib.blake2b(self.journal_id.encode(), digest_size=8).hexdigest()
        self._number_ids()
        self._turn = self._new_turn()
        self._behaviours: dict[str, Behaviour] = {}
        self._local.clear()
        self._batch = Batch()
        self._batch_events: list[EventRecord] = []
        self._batch_replies: list[tuple[str, AnyMessage]] = []
        self._batch_calls: list[tuple[str, str, object, str]] = []
        self._batch_volatile: dict[str, list[bytes]] = {}
        self._due_by_timer.clear()
        self._heap = [entry for entry in self._heap if entry[4] is not None]
        heapq.heapify(self._heap)
        self.outboxes = {name: Outbox(name, seq) for name, seq in recovered.acknowledged.items()}
        self._unsent.clear()
        self._resends = []
        for row in recovered.outgoing:
            outbox = self._outbox(row.destination)
            outbox.restore(row.seq, row.payload)
            self._list(outbox)
        self.peers: dict[str, PeerRecord] = {
            key: record
            for key, record in recovered.records.get(PeerRecord, {}).items()
            if isinstance(record, PeerRecord)
        }
        first_start = recovered.next_turn_seq <= 1
        for behaviour in self._cast(recovered.records):
            self._install(behaviour)
        for address, held in self._held.items():
            held.behaviour = self._behaviours.pop(address, None)
        for address in list(self._behaviours):
            self._enqueue(address, "", Recovered(first_start=first_start), "")

    def _keep_time(self, last_at_ns: int) -> None:
        """The silo's time never goes back: deadlines on the disk were set by the clock that was, and a computer's
        clock may have been set back while the silo was down."""
        behind_ns = last_at_ns - self._process_clock_ns()
        if behind_ns > self._ahead_ns:
            ahead_ns, clock_ns = behind_ns, self._process_clock_ns
            self._ahead_ns = ahead_ns
            self._clock_ns = lambda: clock_ns() + ahead_ns

    def _install(self, behaviour: Behaviour) -> None:
        assert behaviour.address not in self._behaviours, f"two actors at {behaviour.address}"
        address = behaviour.address
        self._behaviours[address] = behaviour
        record = behaviour.timed_record()
        if record is not None:
            for name, due_ns in record.timers.items():
                self._arm(address, name, due_ns)

    # ------------------------------------------------------------------ timers

    def _push(self, due_ns: int, address: str, name: str, action: Callable[[], None] | None) -> None:
        self._heap_count += 1
        heapq.heappush(self._heap, (due_ns, self._heap_count, address, name, action))

    def _arm(self, address: str, name: str, due_ns: int) -> None:
        self._due_by_timer[address, name] = due_ns
        self._push(due_ns, address, name, None)

    def next_due_ns(self) -> int | None:
        """When `run_batch` must be called next although nothing arrives, by the process's clock."""
        due_ns = self._due_ns()
        return due_ns if due_ns is None or not self._ahead_ns else due_ns - self._ahead_ns

    def _due_ns(self) -> int | None:
        if not self._resends:
            return self._heap[0][0] if self._heap else None
        resend_ns = self._next_resend_ns()
        if not self._heap:
            return resend_ns
        timer_ns = self._heap[0][0]
        return timer_ns if resend_ns is None or timer_ns < resend_ns else resend_ns

    def _list(self, outbox: Outbox) -> None:
        """See to it that what is not acknowledged is sent again."""
        due_ns = outbox.due_ns()
        if due_ns is not None and not outbox.is_listed:
            outbox.is_listed = True
            heapq.heappush(self._resends, (due_ns, outbox.destination))

    def _next_resend_ns(self) -> int | None:
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

    def _fire_due(self, now_ns: int) -> None:
        while self._heap and self._heap[0][0] <= now_ns:
            due_ns, _, address, name, action = heapq.heappop(self._heap)
            if action is not None:
                action()
            elif self._due_by_timer.get((address, name)) == due_ns:
                del self._due_by_timer[address, name]
                self._id_count += 1
                message_id = f"{self._id_prefix}{self._id_count}"
                self._local.append(tuple.__new__(Envelope, (address, "", message_id, "", TimerFired(name))))

    # ------------------------------------------------------------------ the batch

    @property
    def has_work(self) -> bool:
        return bool(self._frames or self._posted or self._local or self._ack_due or self._answers)

    @property
    def queue_length(self) -> int:
        return len(self._frames) + len(self._posted) + len(self._local)

    def actor_count(self) -> int:
        return len(self._behaviours)

    def run_batch(self) -> None:
        """Handle what waits (bounded), commit it, then let it out.

        Raises:
            JournalUnwritable: nothing of the batch happened; call `give_up_batch` and try again later.
        """
        while self._answers:
            self._answers.popleft()()
        now_ns = self._clock_ns()
        if self._heap and self._heap[0][0] <= now_ns:
            self._fire_due(now_ns)
        turns = 0
        while turns < TURNS_PER_COMMIT_MAX:
            if self._local:
                turns += self._drain(now_ns)
            elif self._posted or self._frames:
                self._take_some(now_ns)
            else:
                break
        if self._local:
            self._drain(now_ns)
        batch = self._batch
        if batch.turns or batch.upserts or batch.outgoing or self._batch_events:
            self._commit()
        if (
            self._batch_calls
            or self._batch_volatile
            or self._ack_due
            or self._unsent
            or self._resends
            or self._batch_replies
            or self.observer is not None
        ):
            self._release(self._clock_ns())

    def _take_some(self, now_ns: int) -> None:
        """From both doors in turn: a burst of clients must not keep heartbeats waiting, nor the other way round."""
        if self._frames:
            self._take_frame(self._frames.popleft(), now_ns)
        for _ in range(min(len(self._posted), POSTED_PER_STEP) if self._posted else 0):
            self._local.append(self._posted.popleft())

    def give_up_batch(self, reason: str) -> None:
        """Forget the batch that could not be committed, as a crash would, and recover.

        Other silos send again what they sent; clients do not, so each is told `reason` in place of its reply.
        """
        replies, self._batch_replies = self._batch_replies, []
        if self.observer is not None:
            for address, _ in replies:
                self.observer.on_reply(address, Refusal(JournalUnwritable.code, reason))
            self.observer.on_released()
        self._ack_due.clear()
        self._recover()

    def _drain(self, now_ns: int) -> int:
        turns = 0
        while self._local:
            envelope = self._local.popleft()
            self._run_turn(envelope, now_ns)
            turns += 1
            assert turns <= 200 * TURNS_PER_COMMIT_MAX, f"actors of {self.name} talk in a circle: {envelope}"
        return turns

    def _take_frame(self, data: bytes, now_ns: int) -> None:
        frame = decode_frame(data)
        peer = self.peers.get(frame.source)
        if peer is None:
            peer = self.peers[frame.source] = PeerRecord(silo=frame.source)
        if frame.acked_id == self.journal_id and self._outbox(frame.source).acknowledge(
            frame.acked_seq, now_ns
        ):
            self._batch.acknowledged[frame.source] = frame.acked_seq
        if frame.durable:
            self._ack_due.add(frame.source)
            fresh = accept(peer, frame)
            if fresh:
                self._batch.upserts.setdefault(PeerRecord, {})[peer.silo] = peer
                self._local.extend(map(decode_envelope, fresh))
        for payload in frame.volatile:
            self._local.append(decode_envelope(payload))

    def _enqueue(self, to: str, sender: str, message: AnyMessage, cause_id: str) -> None:
        self._id_count += 1
        message_id = f"{self._id_prefix}{self._id_count}"
        self._local.append(Envelope(to, sender, message_id, cause_id, message))

    def _number_ids(self) -> None:
        """Ids count from one again in each journalled turn."""
        self._id_prefix = f"{self.name}-{self._turn_seq}-"
        self._id_count = 0

    def _new_id(self) -> str:
        """An id in the form of a UUID, unique and reproducible: a digest of this journal's id and a counter."""
        self._id_count += 1
        seed = f"{self._id_base}/{self._turn_seq}/{self._id_count}".encode()
        digest = hashlib.blake2b(seed, digest_size=16).hexdigest()
        return f"{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:]}"

    def _run_turn(self, envelope: Envelope, now_ns: int) -> None:
        to, sender, message_id, _, message = envelope
        address = to
        behaviour = self._behaviours.get(to)
        if behaviour is None:
            address = local_name(to)
            behaviour = self._behaviours.get(address)
            if behaviour is None:
                self._pass_on(envelope, address, now_ns)
                return
        turn = self._turn
        turn.me, turn.sender, turn.message_id, turn.now_ns = address, sender, message_id, now_ns
        try:
            if type(message) is TimerFired:
                timed = behaviour.timed_record()
                if timed is not None and timed.timers.pop(message.name, None) is not None:
                    turn.save(timed)  # type: ignore[arg-type]
            behaviour.handle(message, turn)
        except Exception as fault:  # noqa: BLE001 - rule 3: the one supervisor
            self._turn = self._new_turn()
            self._put_aside(envelope, fault)
            return
        self.turn_count += 1
        self._collect(envelope, turn)

    def _pass_on(self, envelope: Envelope, address: str, now_ns: int) -> None:
        """A message for which there is no actor here."""
        held = self._held.get(address)
        if held is not None:
            held.take(envelope)
            return
        if address in self.services:
            self.services[address](envelope)
            return
        silo = silo_of(envelope.to)
        if silo != self.name:
            self._batch_volatile.setdefault(silo, []).append(encode(tuple(envelope)))
            return
        self._answer_for_nobody(envelope, now_ns)

    def _answer_for_nobody(self, envelope: Envelope, now_ns: int) -> None:
        """A command whose actor is gone ends its operation here; anything else came too late to matter."""
        message, address = envelope.message, local_name(envelope.to)
        log.debug("%s: no actor %s for %s", self.name, address, type(message).__name__)
        if isinstance(message, ENDED_FOR_NOBODY):
            turn = self._turn_of(envelope, now_ns)
            reason = f"{address} was removed before it could carry out the command"
            turn.send("engine", OperationEnded(message.operation_id, False, reason, NotFound.code))
            self._collect(envelope, turn)

    def _new_turn(self) -> Turn:
        turn = Turn("", "", "", 0, self.config, self._new_id, silo=self.name)
        turn.marks = self._marks
        return turn

    def _turn_of(self, envelope: Envelope, now_ns: int) -> Turn:
        turn = self._new_turn()
        turn.me, turn.sender = local_name(envelope.to), envelope.sender
        turn.message_id, turn.now_ns = envelope.message_id, now_ns
        return turn

    def _put_aside(self, envelope: Envelope, fault: Exception) -> None:
        """Rule 3. The message that the fault came from is not handled again."""
        log.exception("%s: %s failed on %r", self.name, envelope.to, envelope.message, exc_info=fault)
        self.fault_count += 1
        waiting = [one for one in self._local if type(one.message) is not Recovered]
        self._restore_upserts()
        if self.name == ENGINE_SILO:
            self._record_event(
                EventRecord(
                    id="",
                    seq=0,
                    at_ns=self._clock_ns(),
                    code="turn_failed",
                    severity="alert",
                    message=f"{envelope.to} could not handle {type(envelope.message).__name__}: {fault!r}",
                )
            )
        self._commit()
        self._release(self._clock_ns())
        self._recover()
        self._local.extend(waiting)
        self._drop_cause(envelope)

    def _drop_cause(self, envelope: Envelope) -> None:
        """A timer is in the durable record, and `Recovered` is said anew: recovery would bring both back."""
        address, message = local_name(envelope.to), envelope.message
        if type(message) is Recovered:
            again = [one for one in self._local if one.to != address or type(one.message) is not Recovered]
            self._local = deque(again)
        behaviour = self._behaviours.get(address)
        timed = None if behaviour is None else behaviour.timed_record()
        if type(message) is TimerFired and timed is not None and timed.timers.pop(message.name, 0):
            self._due_by_timer.pop((address, message.name), None)
            turn = self._turn_of(envelope, self._clock_ns())
            turn.save(cast("Record", timed))
            self._collect(envelope, turn)

    def _restore_upserts(self) -> None:
        """Undo what the failed turn did to records that the batch will write: back to their after-images."""
        batch = self._batch
        kinds = {kind.TABLE: kind for kind in [*batch.upserts, *batch.erasures]}
        batch.upserts = {}
        for row in batch.turns:
            for table, key, image in msgspec.msgpack.decode(row.changes):
                kind = kinds[table]
                if image is None:
                    batch.upserts.get(kind, {}).pop(key, None)
                else:
                    batch.upserts.setdefault(kind, {})[key] = msgspec.convert(image, kind)
        for peer in self.peers.values():
            batch.upserts.setdefault(PeerRecord, {})[peer.silo] = peer

    def _collect(self, envelope: Envelope, turn: Turn) -> None:
        """Take over what the turn asked for, and leave it empty for the next one."""
        durable = False
        if turn.timers:
            me = turn.me
            for name, due_ns in turn.timers:
                if due_ns is None:
                    self._due_by_timer.pop((me, name), None)
                else:
                    self._due_by_timer[me, name] = due_ns
                    self._heap_count += 1
                    heapq.heappush(self._heap, (due_ns, self._heap_count, me, name, None))
            turn.timers.clear()
        if turn.sent:
            for to, message, is_durable in turn.sent:
                if self._send(turn, to, message, is_durable):
                    durable = True
            turn.sent.clear()
        if turn.calls:
            self._batch_calls.extend((port, turn.me, request, tag) for port, request, tag in turn.calls)
            turn.calls.clear()
        if durable or turn.saved or turn.erased or turn.events or turn.spawned or turn.stopped:
            self._collect_durable(envelope, turn)

    def _collect_durable(self, envelope: Envelope, turn: Turn) -> None:
        for spawned in turn.spawned:
            self._install(spawned)
        if turn.stopped:
            del self._behaviours[turn.me]
        for event in turn.events:
            if self.name == ENGINE_SILO:
                self._record_event(event)
            else:
                self._send(turn, "engine", EventTold(encode(event)), True)
        self._journal_turn(envelope, turn)
        turn.clear()

    def _record_event(self, event: EventRecord) -> None:
        event.seq = self._event_seq
        event.id = f"{self.name}-{self._event_seq}"
        self._event_seq += 1
        self._batch_events.append(event)

    def _send(self, turn: Turn, to: str, message: AnyMessage, is_durable: bool) -> bool:
        """Queue one message; true when it needs the journal."""
        at = to.find("@")
        if at >= 0:
            silo = to[at + 1 :]
        elif to.startswith("client/"):
            self._batch_replies.append((to, message))
            return False
        else:
            silo = ENGINE_SILO
        self._id_count += 1
        message_id = f"{self._id_prefix}{self._id_count}"
        if silo == self.name:
            # Past the generated constructor: this is the hottest line of a silo.
            self._local.append(tuple.__new__(Envelope, (to, turn.me, message_id, turn.message_id, message)))
            return False
        data = encode((to, at_silo(turn.me, self.name), message_id, turn.message_id, message))
        if is_durable:
            seq = self._outbox(silo).add(data)
            self._unsent.add(silo)
            self._batch.outgoing.append(Outgoing(silo, seq, data))
            return True
        self._batch_volatile.setdefault(silo, []).append(data)
        return False

    def _outbox(self, silo: str) -> Outbox:
        outbox = self.outboxes.get(silo)
        if outbox is None:
            outbox = self.outboxes[silo] = Outbox(silo)
        return outbox

    def _journal_turn(self, envelope: Envelope, turn: Turn) -> None:
        changes: list[tuple[str, str, Record | None]] = []
        batch = self._batch
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
                self._turn_seq,
                turn.now_ns,
                turn.me,
                type(envelope.message).__name__,
                envelope.message_id,
                envelope.cause_id,
                encode(envelope.message),
                encode(changes),
            )
        )
        self._turn_seq += 1
        self._number_ids()

    # ------------------------------------------------------------------ out

    def _commit(self) -> None:
        batch = self._batch
        events = self._batch_events
        if events:
            batch.upserts[EventRecord] = {event.id: event for event in events}
        if batch.turns or batch.upserts or batch.outgoing:
            self._journal_peers()
            self.journal.commit(batch)
            self.commit_count += 1
            if self.observer is not None:
                self.observer.on_committed(batch.upserts, events)
            self._batch = Batch()
            self._batch_events = []

    def _journal_peers(self) -> None:
        """How far the channels came is state like any other: `replay(journal) == tables` holds for it too."""
        peers = self._batch.upserts.get(PeerRecord)
        if not peers:
            return
        changes = [(PeerRecord.TABLE, key, record) for key, record in peers.items()]
        self._batch.turns.append(
            TurnRow(self._turn_seq, self._clock_ns(), "silo", "FramesTaken", "", "", b"\xc0", encode(changes))
        )
        self._turn_seq += 1
        self._number_ids()

    def _release(self, now_ns: int) -> None:
        if self.observer is not None:
            for address, message in self._batch_replies:
                self.observer.on_reply(address, message)
            self.observer.on_released()
        if self._batch_replies:
            self._batch_replies = []
        if self._batch_calls:
            calls, self._batch_calls = self._batch_calls, []
            for port, caller, request, tag in calls:
                self.ports[port].submit(caller, request, tag)
        if self._resends:
            self._list_late(now_ns)
        volatile = self._batch_volatile
        if volatile:
            self._batch_volatile = {}
        if not (self._ack_due or self._unsent):
            for silo in volatile if len(volatile) < 2 else sorted(volatile):
                self._transmit_to(silo, volatile[silo], False, now_ns)
            return
        acks, self._ack_due = self._ack_due, set()
        unsent, self._unsent = self._unsent, set()
        for silo in sorted({*volatile, *acks, *unsent}):
            self._transmit_to(silo, volatile.get(silo, []), silo in acks, now_ns)

    def _list_late(self, now_ns: int) -> None:
        """What was not acknowledged in time is sent again."""
        resend_ns = self._next_resend_ns()
        while resend_ns is not None and resend_ns <= now_ns:
            name = heapq.heappop(self._resends)[1]
            self.outboxes[name].is_listed = False
            self._unsent.add(name)
            resend_ns = self._next_resend_ns()

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
            fields = (self.name, self.journal_id, base_seq, first_seq, durable, volatile, acked_seq, acked_id)
            self._transmit(silo, encode(fields))
            if len(durable) < MESSAGES_PER_FRAME_MAX:
                break
            volatile, must_ack = [], False
        if outbox.waiting and not outbox.is_listed:
            self._list(outbox)


def deliver_result(silo: Silo, to: str, message: AnyMessage, origin: str) -> None:
    """Post the answer of a port."""
    silo.post(Envelope(to, origin, f"{origin}-answer", "", message))
