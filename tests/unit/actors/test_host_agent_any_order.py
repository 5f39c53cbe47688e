"""An agent between an engine that says anything in any order and a hypervisor whose answers come late.

The hypervisor is a model of one machine: what it says is true when it says it, but it may say that the outcome of a
call is not known, and its events may be lost. However it went, once the engine falls silent and everything is answered
the agent's record and the hypervisor agree.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from actors.behaviour import Turn
from actors.host_agent import HostAgent
from actors.host_agent_domains import ASSUMED
from actors.hypervisor_port import FoundDomain, LookAround, OpenHost
from actors.lease_port import JoinLease, LeaveLease, TakeLease
from hypervisor_backends.protocol import (
    CancelMigration,
    ChangeMigration,
    ContinueDomain,
    DestroyDomain,
    ExitReason,
    GetMigrationStatistics,
    ListDomains,
    MigrateDomain,
    PauseDomain,
    PrepareIncoming,
    RebootDomain,
    ResetDomain,
    RestoreDomain,
    ShutdownDomain,
    StartDomain,
    StartPostCopy,
    SuspendDomain,
)
from olvm.model import messages as m
from olvm.model.limits import NS_PER_S
from olvm.model.records import AgentRecord, DomainRecord
from olvm.model.vm_states import VmStatus
from tests.builders import GIB
from tests.unit.actors.agent_driving import (
    VM,
    agent,
    failed,
    give,
    incoming,
    listed,
    ok,
    opened,
    reports,
    seen,
    statistics,
)

VERBS = ("shutdown", "destroy", "reboot", "reset", "save", "pause", "continue")
OUTCOMES = ("ok", "ok", "refused", "unknown, done", "unknown, not done")
UNSEEN = ("Sample", "Renew")  # of what no answer is needed
ANSWERS_MAX = 100  # in one round: more is an agent that goes in circles
SETTLED_WITHIN = 40  # rounds in which everything that waits is answered and every timer fires


class Hypervisor:
    """One machine's truth, and the events that were told of it."""

    def __init__(self) -> None:
        self.there: FoundDomain | None = None
        self.events: list[m.DomainHappened] = []

    def found(self) -> dict[str, FoundDomain]:
        return {} if self.there is None else {"v1": self.there}

    def stands(self, status: str, pause_code: str = "", *, kind: str = "") -> None:
        assert self.there is not None
        self.there = FoundDomain(self.there.epoch, status, pause_code, "web")
        if kind:
            self.events.append(m.DomainHappened("v1", self.there.epoch, kind, pause_code=pause_code))

    def ends(self, kind: str, reason: ExitReason) -> None:
        assert self.there is not None
        self.events.append(m.DomainHappened("v1", self.there.epoch, kind, int(reason), "it ended"))
        self.there = None

    def refusal(self, request: Any) -> str:
        """The code with which it surely does nothing; empty where it may."""
        there = self.there
        if isinstance(request, StartDomain | RestoreDomain | PrepareIncoming):
            wants = "migrating_to" if isinstance(request, PrepareIncoming) else ""
            is_same = there is not None and there.epoch == request.epoch
            is_same = is_same and (there.status == "migrating_to") == bool(wants)  # type: ignore[union-attr]
            return "" if there is None or is_same else "duplicate_domain"
        if there is None:
            return "unknown_domain"
        if isinstance(request, DestroyDomain):
            return ""
        if isinstance(request, ContinueDomain):
            return "" if there.status == "paused" else "wrong_state"
        if isinstance(request, CancelMigration | GetMigrationStatistics | ChangeMigration | StartPostCopy):
            return "" if there.status == "migrating_from" else "wrong_state"
        return "" if there.status in ("up", "powering_up") else "wrong_state"

    def carry_out(self, request: Any) -> None:
        match request:
            case StartDomain() | RestoreDomain() | PrepareIncoming() if self.there is not None:
                return
            case StartDomain():
                self.there = FoundDomain(request.epoch, "powering_up", "", "web")
                self.events.append(m.DomainHappened("v1", request.epoch, "started"))
            case RestoreDomain():
                self.there = FoundDomain(request.epoch, "up", "", "web")
                self.events.append(m.DomainHappened("v1", request.epoch, "guest_up"))
            case PrepareIncoming():
                self.there = FoundDomain(request.epoch, "migrating_to", "", "web")
            case DestroyDomain():
                self.ends("stopped", ExitReason.ADMIN_SHUTDOWN)
            case ShutdownDomain():
                self.stands("powering_down")
            case RebootDomain() | ResetDomain():
                self.stands("reboot_in_progress", kind="rebooted")
            case SuspendDomain():
                self.ends("stopped", ExitReason.SAVE_STATE_SUCCEEDED)
            case PauseDomain():
                self.stands("paused", "NOERR", kind="paused")
            case ContinueDomain():
                self.stands("up", kind="continued")
            case CancelMigration():
                self.stands("up")
            case _:
                assert isinstance(request, GetMigrationStatistics | ChangeMigration | StartPostCopy), request


class AnyOrder(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.one = agent()
        self.now_s = 100.0
        self.hypervisor = Hypervisor()
        self.calls: deque[tuple[Any, str]] = deque()  # that change something; carried out in their order
        self.questions: list[tuple[Any, str]] = []
        self.migration: tuple[MigrateDomain, str] | None = None  # under way, and to be answered
        self.leased = False
        self.lease_calls: deque[tuple[Any, str]] = deque()
        self.timers: dict[str, float] = {}
        self.is_backend_open = False  # it is of the process, and stays when the agent alone is restarted
        self.durable: dict[str, bytes] = {}
        self.record = msgspec.msgpack.encode(self.one.record)
        self.epoch = 3  # the newest that the engine has issued
        self.die(are_done=False)
        self.answer_question(index=0, is_answered=True)
        assert self.one.book.is_open

    # ------------------------------------------------------------------ turns

    def give(self, message: m.AnyMessage, after_s: float = 0.1) -> Turn:
        self.now_s += after_s
        done = give(self.one, message, at_s=self.now_s)
        for saved in done.saved:
            if isinstance(saved, DomainRecord):
                self.durable[saved.key] = msgspec.msgpack.encode(saved)
            elif isinstance(saved, AgentRecord):
                self.record = msgspec.msgpack.encode(saved)
        for erased in done.erased:
            if isinstance(erased, DomainRecord):
                self.durable.pop(erased.key, None)
        for name, due_ns in done.timers:
            if due_ns is None:
                self.timers.pop(name, None)
            else:
                self.timers[name] = due_ns / NS_PER_S
        for _, request, tag in done.calls:
            self.asked(request, tag)
        self.check_told(done)
        return done

    def asked(self, request: Any, tag: str) -> None:
        if isinstance(request, StartDomain | RestoreDomain | PrepareIncoming):
            record = self.one.domains["v1"]
            assert (request.epoch, record.forgotten, record.status is VmStatus.DOWN) == (
                record.epoch,
                False,
                False,
            )
        if isinstance(request, TakeLease | JoinLease | LeaveLease):
            self.lease_calls.append((request, tag))
        elif isinstance(request, ListDomains | LookAround | OpenHost | GetMigrationStatistics):
            self.questions.append((request, tag))
        elif not type(request).__name__.startswith(UNSEEN):
            self.calls.append((request if self.is_backend_open else None, tag))

    def check_told(self, done: Turn) -> None:
        """An end that is told is one, unless it is said that nobody knows."""
        there = self.hypervisor.there
        for said in reports(done):
            state = said.domain
            if state.status is VmStatus.DOWN and state.exit_reason != ExitReason.LIBVIRT_DOMAIN_MISSING:
                assert there is None or there.epoch != state.epoch, (state, there)

    # ------------------------------------------------------------------ the engine

    @initialize(leased=st.booleans())
    def draw(self, leased: bool) -> None:
        self.leased = leased

    @rule(newer=st.booleans(), restore=st.booleans())
    def create(self, newer: bool, restore: bool) -> None:
        self.epoch += newer
        self.give(m.CreateDomain("v1", VM, self.epoch, "web", 1, GIB, restore=restore, leased=self.leased))

    @rule(newer=st.booleans())
    def prepare(self, newer: bool) -> None:
        self.epoch += newer
        self.give(incoming(self.epoch, leased=self.leased))

    @rule(older=st.sampled_from([0, 0, 1]))
    def migrate(self, older: int) -> None:
        here = self.one.domains.get("v1")
        epoch = (self.epoch if here is None else here.epoch) - older
        self.epoch += 1
        self.give(m.MigrateDomain("v1", epoch, "H2", self.epoch, "sim://H2/v1", "post_copy", 0.0))

    @rule(older=st.sampled_from([0, 0, 1]))
    def cancel(self, older: int) -> None:
        here = self.one.domains.get("v1")
        self.give(m.CancelMigration("v1", (self.epoch if here is None else here.epoch) - older))

    @rule(verb=st.sampled_from(VERBS), older=st.sampled_from([0, 0, 0, 1, -1]))
    def command(self, verb: Any, older: int) -> None:
        here = self.one.domains.get("v1")
        epoch = (self.epoch if here is None else here.epoch) - older
        self.epoch = max(self.epoch, epoch)
        self.give(m.CommandDomain("v1", epoch, verb))

    @rule()
    def query(self) -> None:
        self.give(m.QueryDomain("v1", VM, self.epoch))

    @rule()
    def forget(self) -> None:
        here = self.one.domains.get("v1")
        if here is not None:
            self.give(m.ForgetDomain("v1", here.epoch))

    # ------------------------------------------------------------------ the hypervisor

    @precondition(lambda self: self.calls)
    @rule(outcome=st.sampled_from(OUTCOMES))
    def answer_call(self, outcome: str) -> None:
        request, tag = self.calls.popleft()
        code = "host_down" if request is None else self.hypervisor.refusal(request)
        if isinstance(request, MigrateDomain):
            self.begin_migration(request, tag, code, outcome)
        elif code or outcome == "refused":
            self.give(failed(tag, code or "call_failed"))
        else:
            if outcome != "unknown, not done":
                self.hypervisor.carry_out(request)
            if outcome == "ok":
                self.give(ok(tag, "sim://H1/v1" if isinstance(request, PrepareIncoming) else ""))
            else:
                self.give(failed(tag, "timed_out", outcome_known=False))

    def begin_migration(self, request: MigrateDomain, tag: str, code: str, outcome: str) -> None:
        if code or outcome == "refused":
            self.give(failed(tag, code or "migration_failed"))
            return
        self.hypervisor.stands("migrating_from")
        self.migration = (request, tag)

    @precondition(lambda self: self.migration is not None)
    @rule(outcome=st.sampled_from(["handed over", "handed over", "broke", "stranded"]))
    def end_migration(self, outcome: str) -> None:
        assert self.migration is not None
        (_, tag), self.migration = self.migration, None
        there = self.hypervisor.there
        if there is None or there.status != "migrating_from":
            self.give(failed(tag, "domain_ended" if there is None else "migration_cancelled"))
        elif outcome == "handed over":
            self.hypervisor.ends("stopped", ExitReason.MIGRATION_SUCCEEDED)
            self.give(ok(tag))
        elif outcome == "broke":
            self.hypervisor.stands("up")
            self.give(failed(tag, "migration_failed"))
        else:
            self.hypervisor.stands("paused", "POSTMIGRATE", kind="paused")
            self.give(failed(tag, "timed_out", outcome_known=False))

    @precondition(lambda self: self.questions)
    @rule(index=st.integers(0, 3), is_answered=st.sampled_from([True, True, True, False]))
    def answer_question(self, index: int, is_answered: bool) -> None:
        request, tag = self.questions.pop(min(index, len(self.questions) - 1))
        found = self.hypervisor.found()
        if not is_answered:
            self.give(failed(tag, "call_failed", outcome_known=False))
        elif isinstance(request, OpenHost):
            self.is_backend_open = True
            self.give(opened(found, under_way=tuple(tag for _, tag in self.calls)))
        elif isinstance(request, LookAround):
            self.give(seen(found))
        elif isinstance(request, ListDomains):
            self.give(listed(tag, found))
        elif self.hypervisor.refusal(request):
            self.give(failed(tag, "wrong_state"))
        else:
            self.give(statistics(tag, iteration=3))

    @precondition(lambda self: self.lease_calls)
    @rule(outcome=st.sampled_from(["ok", "ok", "held", "stale", "unreachable"]))
    def answer_lease(self, outcome: str) -> None:
        request, tag = self.lease_calls.popleft()
        if isinstance(request, LeaveLease) and outcome in ("held", "stale"):
            outcome = "ok"
        self.give(ok(tag) if outcome == "ok" else failed(tag, outcome))

    @precondition(lambda self: self.hypervisor.events)
    @rule(is_lost=st.sampled_from([False, False, False, True]))
    def event(self, is_lost: bool) -> None:
        told = self.hypervisor.events.pop(0)
        if not is_lost and self.one.book.is_open:
            self.give(told)

    @precondition(lambda self: self.hypervisor.there is not None)
    @rule(what=st.sampled_from(["crash", "goes on", "io error"]))
    def guest(self, what: str) -> None:
        """Of its own accord."""
        there = self.hypervisor.there
        assert there is not None
        match what, there.status:
            case "crash", "migrating_to":
                self.hypervisor.ends("stopped", ExitReason.MIGRATION_FAILED)
            case "crash", _:
                self.hypervisor.ends("crashed", ExitReason.LOST_QEMU)
            case "goes on", "powering_down":
                self.hypervisor.ends("shut_down", ExitReason.ADMIN_SHUTDOWN)
            case "goes on", "powering_up" | "reboot_in_progress":
                self.hypervisor.stands("up", kind="guest_up")
            case "goes on", "migrating_to":
                self.hypervisor.stands("up", kind="started")
                self.hypervisor.events.append(m.DomainHappened("v1", there.epoch, "guest_up"))
            case "io error", "up" | "powering_up":
                self.hypervisor.stands("paused", "EIO", kind="paused")

    # ------------------------------------------------------------------ time and death

    @precondition(lambda self: self.timers)
    @rule()
    def timer(self) -> None:
        name, due_s = min(self.timers.items(), key=lambda item: (item[1], item[0]))
        del self.timers[name]
        self.give(m.TimerFired(name), max(0.0, due_s - self.now_s))

    @rule(are_done=st.booleans())
    def die(self, are_done: bool) -> None:
        """A new life has the records alone. What was asked is carried out, or was not."""
        if are_done:
            for request, _ in self.calls:
                if request is None or self.hypervisor.refusal(request):
                    continue
                if isinstance(request, MigrateDomain):
                    self.hypervisor.stands("migrating_from")
                else:
                    self.hypervisor.carry_out(request)
        self.calls.clear()
        self.lease_calls.clear()
        self.questions, self.migration, self.hypervisor.events, self.timers = [], None, [], {}
        self.is_backend_open = False
        self.live_again()

    def live_again(self) -> None:
        self.timers = {}
        record = msgspec.msgpack.decode(self.record, type=AgentRecord)
        copies = [msgspec.msgpack.decode(one, type=DomainRecord) for one in self.durable.values()]
        self.one = HostAgent(record, {one.vm_id: one for one in copies})
        self.give(m.Recovered())

    @rule(is_recovered=st.booleans())
    def restart(self, is_recovered: bool) -> None:
        """Within its process, by order or as its silo recovers: what was asked is still under way, and is answered."""
        if is_recovered:
            self.live_again()
        elif self.one.book.is_open:
            self.give(m.RestartAgent("H1"))

    # ------------------------------------------------------------------ what holds

    @invariant()
    def what_is_remembered_is_what_was_saved(self) -> None:
        for one in self.one.domains.values():
            assert self.durable.get(one.key) == msgspec.msgpack.encode(one), one

    def teardown(self) -> None:
        for _ in range(SETTLED_WITHIN):
            self.settle()
        there, record = self.hypervisor.there, self.one.domains.get("v1")
        if there is None:
            assert record is None or (record.status, record.lease_taken) == (VmStatus.DOWN, False), record
            return
        assert record is not None
        assert record.epoch == there.epoch, (record, there)
        assert record.status == there.status or record.status in ASSUMED, (record, there)
        assert record.pending in ("", "kill"), record

    def settle(self) -> None:
        """Everything that waits is answered, and every timer fires; machines that migrate away stay."""
        for _ in range(ANSWERS_MAX):
            if self.hypervisor.events:
                self.event(is_lost=False)
            elif self.lease_calls:
                self.answer_lease(outcome="ok")
            elif self.calls:
                self.answer_call(outcome="ok")
            else:
                break
        else:
            raise AssertionError("it asks again for what it was just answered")
        there = self.hypervisor.there
        if self.migration is not None:
            self.end_migration(outcome="broke")
        elif there is not None and there.status == "migrating_from":  # begun by a life that is over
            self.hypervisor.stands("up")
        for _ in range(len(self.questions)):
            self.answer_question(index=0, is_answered=True)
        for name in sorted(self.timers):
            self.timers.pop(name)
            self.give(m.TimerFired(name), 20.0)


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=150, stateful_step_count=30, deadline=None, derandomize=True)
