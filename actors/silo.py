"""A silo: mailboxes, turns and batches of many actors, their recovery, and the one supervisor, without threads or I/O.

Decides which message is handled next, by which actor, and when a batch ends. Must not know how a batch is written down
(`group_commit.py`), what a frame holds (`links.py`), when something is due (`timers.py`) or how things are named
(`numbering.py`): it puts these together, and each keeps its own state.

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

import logging
from collections import deque
from collections.abc import Callable
from typing import cast

from actors.behaviour import Behaviour, Turn
from actors.group_commit import GroupCommit
from actors.held_actors import HeldActors
from actors.links import Links
from actors.numbering import Numbering
from actors.silo_clock import SiloClock
from actors.silo_ports import Cast, Port, SiloObserver
from actors.timers import Timers
from actors.wire import ENGINE_SILO, Envelope, at_silo, decode_envelope, encode, local_name, silo_of
from olvm.journal.port import Journal
from olvm.model.config import Config
from olvm.model.errors import JournalUnwritable, NotFound
from olvm.model.limits import TURNS_PER_COMMIT_MAX
from olvm.model.messages import (
    AnyMessage,
    ChangeAffinity,
    ChangeCluster,
    ChangeVm,
    CommandCluster,
    CommandHost,
    CommandVm,
    EndCluster,
    EventTold,
    OperationEnded,
    Recovered,
    Refusal,
    TaskHost,
    TaskVm,
    TimerFired,
)
from olvm.model.record import Record
from olvm.model.records import EventRecord

log = logging.getLogger("olvm.silo")

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


class Silo:
    """See the module. All methods but `receive` and `post` belong to the owner's thread."""

    # A simulator runs a thousand of them in one thread: what a batch touches should lie together.
    __slots__ = (
        "_answers",
        "_behaviours",
        "_calls",
        "_cast",
        "_clock",
        "_commit",
        "_frames",
        "_held",
        "_local",
        "_marks",
        "_numbering",
        "_posted",
        "_replies",
        "_timers",
        "_turn",
        "_wake",
        "commit_count",
        "config",
        "fault_count",
        "journal",
        "journal_id",
        "links",
        "name",
        "observer",
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
        self._clock = SiloClock(clock_ns)
        self._wake = wake
        self._frames: deque[bytes] = deque()
        self._posted: deque[Envelope] = deque()
        self._answers: deque[Callable[[], None]] = deque()
        self._local: deque[Envelope] = deque()
        self._timers = Timers()
        self._held = HeldActors()  # those that stand in `_behaviours` no longer, see `hold`
        self.links = Links(name, transmit)
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
        return self._timers.call_at(due_ns, action)

    def hold(self, address: str) -> None:
        """Give this actor nothing until `let_go`: the computer that it stands for is switched off.

        For simulated hosts that share a silo; where each has its own, the silo itself stops. What is held has been
        acknowledged: a crash of the silo loses it, as a host's memory is lost.
        """
        self._held.hold(address, self._behaviours)

    def let_go(self, address: str, first: AnyMessage) -> None:
        """Deliver `first`, then what other actors have sent meanwhile. Without effect on one that is not held."""
        waiting = self._held.let_go(address, self._behaviours)
        if waiting is None:
            return
        self.post(Envelope(address, "", f"{address}-let-go", "", first))
        self._posted.extend(waiting)

    def now_ns(self) -> int:
        """The silo's own clock."""
        return self._clock.now_ns()

    # ------------------------------------------------------------------ recovery

    def _recover(self) -> None:
        recovered = self.journal.recover()
        self._clock.keep_ahead_of(recovered.last_at_ns)
        self.journal_id = recovered.journal_id
        self._numbering = Numbering(self.name, recovered)
        self._commit = GroupCommit(self.journal, self._numbering)
        self._turn = self._new_turn()
        self._behaviours: dict[str, Behaviour] = {}
        self._local.clear()
        self._replies: list[tuple[str, AnyMessage]] = []
        self._calls: list[tuple[str, str, object, str]] = []
        self._timers.forget_actors()
        self.links.restore(recovered)
        first_start = recovered.next_turn_seq <= 1
        for behaviour in self._cast(recovered.records):
            self._install(behaviour)
        self._held.hold_again(self._behaviours)
        for address in list(self._behaviours):
            self._enqueue(address, Recovered(first_start=first_start))

    def _install(self, behaviour: Behaviour) -> None:
        assert behaviour.address not in self._behaviours, f"two actors at {behaviour.address}"
        address = behaviour.address
        self._behaviours[address] = behaviour
        record = behaviour.timed_record()
        if record is not None:
            for name, due_ns in record.timers.items():
                self._timers.arm(address, name, due_ns)

    def next_due_ns(self) -> int | None:
        """When `run_batch` must be called next although nothing arrives, by the process's clock."""
        resend_ns, timer_ns = self.links.next_resend_ns(), self._timers.next_ns
        if timer_ns is None or resend_ns is None:
            due_ns = resend_ns if timer_ns is None else timer_ns
        else:
            due_ns = min(timer_ns, resend_ns)
        return None if due_ns is None else self._clock.to_process_ns(due_ns)

    # ------------------------------------------------------------------ the batch

    @property
    def has_work(self) -> bool:
        return bool(self._frames or self._posted or self._local or self.links.acks_due or self._answers)

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
        now_ns = self._clock.now_ns()
        for address, name in self._timers.take_due(now_ns):
            self._enqueue(address, TimerFired(name))
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
        if self._commit.is_due:
            self._write()
        if self._calls or self._replies or self.links.has_work or self.observer is not None:
            self._release(self._clock.now_ns())

    def _take_some(self, now_ns: int) -> None:
        """From both doors in turn: a burst of clients must not keep heartbeats waiting, nor the other way round."""
        if self._frames:
            payloads = self.links.take(self._frames.popleft(), self._commit.batch, now_ns)
            self._local.extend(map(decode_envelope, payloads))
        for _ in range(min(len(self._posted), POSTED_PER_STEP) if self._posted else 0):
            self._local.append(self._posted.popleft())

    def give_up_batch(self, reason: str) -> None:
        """Forget the batch that could not be committed, as a crash would, and recover.

        Other silos send again what they sent; clients do not, so each is told `reason` in place of its reply.
        """
        replies, self._replies = self._replies, []
        if self.observer is not None:
            for address, _ in replies:
                self.observer.on_reply(address, Refusal(JournalUnwritable.code, reason))
            self.observer.on_released()
        self._recover()

    def _drain(self, now_ns: int) -> int:
        turns = 0
        while self._local:
            envelope = self._local.popleft()
            self._run_turn(envelope, now_ns)
            turns += 1
            assert turns <= 200 * TURNS_PER_COMMIT_MAX, f"actors of {self.name} talk in a circle: {envelope}"
        return turns

    def _enqueue(self, to: str, message: AnyMessage) -> None:
        """What the silo itself says to one of its actors."""
        self._local.append(Envelope(to, "", self._numbering.message_id(), "", message))

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
        if self._held.take(address, envelope):
            return
        if address in self.services:
            self.services[address](envelope)
            return
        silo = silo_of(envelope.to)
        if silo != self.name:
            self.links.tell(silo, encode(tuple(envelope)))
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
        turn = Turn("", "", "", 0, self.config, self._numbering.new_id, silo=self.name)
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
        self._commit.restore_images(self.links.peers.values())
        if self.name == ENGINE_SILO:
            self._commit.add_event(
                EventRecord(
                    id="",
                    seq=0,
                    at_ns=self._clock.now_ns(),
                    code="turn_failed",
                    severity="alert",
                    message=f"{envelope.to} could not handle {type(envelope.message).__name__}: {fault!r}",
                )
            )
        self._write()
        self._release(self._clock.now_ns())
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
            self._timers.disarm(address, message.name)
            turn = self._turn_of(envelope, self._clock.now_ns())
            turn.save(cast("Record", timed))
            self._collect(envelope, turn)

    def _collect(self, envelope: Envelope, turn: Turn) -> None:
        """Take over what the turn asked for, and leave it empty for the next one."""
        durable = False
        if turn.timers:
            me = turn.me
            for name, due_ns in turn.timers:
                if due_ns is None:
                    self._timers.disarm(me, name)
                else:
                    self._timers.arm(me, name, due_ns)
            turn.timers.clear()
        if turn.sent:
            for to, message, is_durable in turn.sent:
                if self._send(turn, to, message, is_durable):
                    durable = True
            turn.sent.clear()
        if turn.calls:
            self._calls.extend((port, turn.me, request, tag) for port, request, tag in turn.calls)
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
                self._commit.add_event(event)
            else:
                self._send(turn, "engine", EventTold(encode(event)), True)
        self._commit.add_turn(envelope, turn)
        turn.clear()

    def _send(self, turn: Turn, to: str, message: AnyMessage, is_durable: bool) -> bool:
        """Queue one message; true when it needs the journal."""
        at = to.find("@")
        if at >= 0:
            silo = to[at + 1 :]
        elif to.startswith("client/"):
            self._replies.append((to, message))
            return False
        else:
            silo = ENGINE_SILO
        message_id = self._numbering.message_id()
        if silo == self.name:
            # Past the generated constructor: this is the hottest line of a silo.
            self._local.append(tuple.__new__(Envelope, (to, turn.me, message_id, turn.message_id, message)))
            return False
        data = encode((to, at_silo(turn.me, self.name), message_id, turn.message_id, message))
        if is_durable:
            self._commit.add_outgoing(silo, self.links.send(silo, data), data)
            return True
        self.links.tell(silo, data)
        return False

    # ------------------------------------------------------------------ out

    def _write(self) -> None:
        written = self._commit.write(self._clock.now_ns())
        if written is not None:
            self.commit_count += 1
            if self.observer is not None:
                self.observer.on_committed(*written)

    def _release(self, now_ns: int) -> None:
        if self.observer is not None:
            for address, message in self._replies:
                self.observer.on_reply(address, message)
            self.observer.on_released()
        if self._replies:
            self._replies = []
        if self._calls:
            calls, self._calls = self._calls, []
            for port, caller, request, tag in calls:
                self.ports[port].submit(caller, request, tag)
        self.links.release(now_ns)


def deliver_result(silo: Silo, to: str, message: AnyMessage, origin: str) -> None:
    """Post the answer of a port."""
    silo.post(Envelope(to, origin, f"{origin}-answer", "", message))
