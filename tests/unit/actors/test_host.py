"""Every (status, message) pair of a host, and the rules of belief in it."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from actors.host import ACTION_BY_NAME
from olvm.model import messages as m
from olvm.model.host_states import HostStatus, host_refusal
from tests.builders import GIB, HostAct, encoded, endings, host, sent_to, turn

S = HostStatus
ACTIONS: tuple[HostAct, ...] = ("activate", "maintenance", "remove")
MESSAGES: dict[str, m.AnyMessage] = {
    "heartbeat": m.Heartbeat("H1", 2, "boot-1"),
    "old_heartbeat": m.Heartbeat("H1", 1, "boot-0"),
    "report": m.HostReport("H1", 2, 1, 5.0, []),
    "watch": m.TimerFired("watch"),
    "init": m.TimerFired("init"),
    "forgive": m.TimerFired("forgive"),
    "ready": m.AgentReady("H1", 3, "boot-2", 8, 16 * GIB),
    "failed": m.AgentFailed("H1", "no KVM"),
    "occupied": m.HostOccupancy("H1", ["web"]),
    "empty": m.HostOccupancy("H1", []),
    "start_failed": m.HostStartFailed("H1", "web", ""),
    "recovered": m.Recovered(),
    **{action: m.CommandHost("op-new", action) for action in ACTIONS},
}


@pytest.mark.parametrize("status", HostStatus)
@pytest.mark.parametrize("kind", MESSAGES)
@pytest.mark.parametrize("at_s", [101.0, 500.0])
def test_host_any_message_in_any_status_is_handled_and_saved(
    status: HostStatus, kind: str, at_s: float
) -> None:
    one, done = host(status=status), turn(me="host/H1", at_s=at_s)
    before = encoded(one.record)
    one.handle(MESSAGES[kind], done)
    if encoded(one.record) != before:
        assert one.record in done.saved or one.record in done.erased
    for ended in endings(done):
        assert ended.succeeded or (ended.reason and ended.error_code)
    if one.record.status is S.UNASSIGNED and status is not S.UNASSIGNED:
        assert "init" in one.record.timers


@pytest.mark.parametrize("status", HostStatus)
@pytest.mark.parametrize("action", ACTIONS)
def test_host_refused_command_ends_with_the_reason_and_changes_nothing(
    status: HostStatus, action: HostAct
) -> None:
    refusal = host_refusal("H1", status, ACTION_BY_NAME[action])
    one, done = host(status=status), turn(me="host/H1")
    before = encoded(one.record)
    one.handle(m.CommandHost("op-new", action), done)
    if refusal is None:
        assert done.saved or done.erased
        return
    assert done.sent == [("engine", m.OperationEnded("op-new", False, refusal, "conflict"), True)]
    assert (encoded(one.record), done.saved) == (before, [])


def test_host_message_of_another_actor_is_a_fault_of_the_programmer() -> None:
    with pytest.raises(AssertionError, match="cannot handle"):
        host().handle(m.HostLost("H1", ""), turn())


def test_host_silent_is_connecting_then_non_responsive_and_its_cluster_is_told() -> None:
    one, done = host(vm_count=10), turn()
    for at_s, status in (
        (109.0, S.UP),
        (111.0, S.CONNECTING),
        (164.0, S.CONNECTING),
        (166.0, S.NON_RESPONSIVE),
    ):
        done = turn(me="host/H1", at_s=at_s)
        one.handle(m.TimerFired("watch"), done)
        assert one.record.status is status, at_s
    (told,) = [said for said in sent_to(done, "cluster/prod") if isinstance(said, m.HostUnresponsive)]
    assert told.host == "H1"


def test_host_that_answers_again_is_up_and_usable() -> None:
    one, done = host(status=S.NON_RESPONSIVE), turn(me="host/H1")
    one.handle(m.Heartbeat("H1", 2, "boot-1"), done)
    assert one.record.status is S.UP
    assert sent_to(done, "cluster/prod") == [m.HostUsable("H1", True, "answers again")]


def test_host_heartbeat_of_an_earlier_agent_is_not_believed() -> None:
    one, done = host(status=S.NON_RESPONSIVE), turn(me="host/H1")
    one.handle(m.Heartbeat("H1", 1, "boot-0"), done)
    assert (one.record.status, done.sent) == (S.NON_RESPONSIVE, [])


@pytest.mark.parametrize(("host_epoch", "seq"), [(1, 9), (2, 4), (2, 5)])
def test_host_stale_report_is_not_passed_on(host_epoch: int, seq: int) -> None:
    one, done = host(), turn(me="host/H1")
    one.last_seq = 5
    one.handle(m.HostReport("H1", host_epoch, seq, 1.0, []), done)
    assert done.sent == []


def test_host_third_failed_start_puts_it_aside_until_it_is_forgiven() -> None:
    one = host()
    for _ in range(3):
        assert one.record.status is S.UP
        one.handle(m.HostStartFailed("H1", "web", ""), turn())
    assert one.record.status is S.ERROR
    one.handle(m.TimerFired("forgive"), turn())
    assert (one.record.status, one.record.failed_starts) == (S.UP, 0)


def test_host_maintenance_with_machines_is_refused_by_name() -> None:
    one = host()
    one.handle(m.CommandHost("op-1", "maintenance"), turn())
    done = turn()
    one.handle(m.HostOccupancy("H1", ["a", "b", "c", "d"]), done)
    (ended,) = endings(done)
    assert (ended.succeeded, one.record.status) == (False, S.UP)
    assert "still runs 4 machines (a, b, c, …)" in ended.reason


def test_host_activation_that_is_not_answered_fails_and_its_machines_are_told() -> None:
    one = host(status=S.ERROR)
    one.handle(m.CommandHost("op-1", "activate"), turn())
    done = turn(at_s=200.0)
    one.handle(m.TimerFired("init"), done)
    assert one.record.status is S.NON_RESPONSIVE
    assert [ended.succeeded for ended in endings(done)] == [False]
    assert any(isinstance(said, m.HostUnresponsive) for said in sent_to(done, "cluster/prod"))


def test_host_second_word_of_the_same_agent_keeps_the_cpu_model() -> None:
    one = host(cpu_model="Cascadelake")
    one.handle(m.AgentReady("H1", 2, "boot-1", 8, 16 * GIB), turn())
    assert one.record.cpu_model == "Cascadelake"


class AnyOrder(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.one = host()
        self.now_s = 100.0
        self.asked: set[str] = set()
        self.ended: list[str] = []
        self.is_gone = False

    def give(self, message: m.AnyMessage, after_s: float = 1.0) -> None:
        if self.is_gone:
            return
        self.now_s += after_s
        done = turn(me="host/H1", at_s=self.now_s)
        before = encoded(self.one.record)
        if isinstance(message, m.TimerFired) and self.one.record.timers.pop(message.name, 0):
            done.save(self.one.record)
        self.one.handle(message, done)
        if encoded(self.one.record) != before:
            assert self.one.record in done.saved or self.one.record in done.erased
        self.ended += [ended.operation_id for ended in endings(done)]
        self.is_gone = done.stopped
        if m.AskEmpty("H1") in sent_to(done, "cluster/prod"):
            # The cluster stands in the same silo and answers in the same batch.
            self.give(m.HostOccupancy("H1", ["web"] if int(self.now_s) % 2 else []))

    @rule(kind=st.sampled_from([name for name in MESSAGES if name not in (*ACTIONS, "init", "occupied")]))
    def hear(self, kind: str) -> None:
        self.give(MESSAGES[kind])

    @rule(action=st.sampled_from(ACTIONS))
    def command(self, action: HostAct) -> None:
        if not self.is_gone:
            self.asked.add(f"op-{len(self.asked)}")
            self.give(m.CommandHost(f"op-{len(self.asked) - 1}", action))

    @rule(after_s=st.sampled_from([5.0, 15.0, 90.0]))
    def silence(self, after_s: float) -> None:
        self.give(m.TimerFired("watch"), after_s)

    @rule()
    def timer(self) -> None:
        for name in sorted(self.one.record.timers):
            self.give(m.TimerFired(name), 30.0)

    @invariant()
    def each_operation_ends_once_or_has_a_deadline(self) -> None:
        under_way = self.one.record.operation_id
        assert sorted(self.ended + ([under_way] if under_way else [])) == sorted(self.asked)
        assert not under_way or "init" in self.one.record.timers or self.is_gone


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=30, deadline=None, derandomize=True)
