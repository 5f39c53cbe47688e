"""Every (status, message) pair of a machine, and the rules of its reconciliation."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from actors.behaviour import Turn
from actors.vm import Vm
from actors.vm_commands import ACTION_BY_VERB
from actors.vm_core import BOUNDED
from olvm.model import messages as m
from olvm.model.vm_actions import vm_refusal
from olvm.model.vm_states import VmStatus
from tests.builders import (
    LAUNCHING,
    command,
    create_vm,
    encoded,
    endings,
    reported,
    sent_to,
    turn,
    vm,
)

S = VmStatus
STATUSES = [status for status in VmStatus if "migrat" not in status.value]
VERBS = sorted(ACTION_BY_VERB)
AGENT = "agent/H1@host-1"

OTHERS: dict[str, m.AnyMessage] = {
    "placed": m.VmPlaced(3, "H2", "agent/H2@host-2"),
    "placed_late": m.VmPlaced(2, "H2", "agent/H2@host-2"),
    "not_placed": m.VmNotPlaced(3, "no host has room"),
    "missing": m.DomainMissing("H1", 1, 11),
    "missing_elsewhere": m.DomainMissing("H2", 1, 11),
    "refused": m.DomainRefused("H1", 3, "shutdown", "wrong state", "wrong_state"),
    "refused_absent": m.DomainRefused("H1", 3, "destroy", "no such machine", "absent"),
    "refused_older_copy": m.DomainRefused("H1", 3, "create", "an older copy", "older_copy"),
    "refused_stale": m.DomainRefused("H1", 2, "create", "stale", "stale_epoch"),
    "host_lost": m.HostLost("H1", "silent"),
    "deadline": m.TimerFired("deadline"),
    "query": m.TimerFired("query"),
    "ha_retry": m.TimerFired("ha_retry"),
    "change": m.ChangeVm("op-new", m.UpdateVm("web", vcpus=2)),
    "register": m.RegisterVm("op-new", "v1", create_vm()),
    "explain": m.ExplainFor("client/1"),
    "recovered": m.Recovered(),
    "absent": reported(S.DOWN, absent=True),
    "down_failed": reported(S.DOWN, exit_reason=3, exit_message="no"),
    "down_saved": reported(S.DOWN, exit_reason=5),
    "down_admin": reported(S.DOWN, exit_reason=6),
    "ghost": reported(S.UP, on="H2", epoch=2),
    "confirmed_dead": m.HostConfirmedDead("H1", "boot-1", "fenced"),
    "silent": m.HostSilent("H1", "silent"),
    "move": m.MoveVm("H1", "maintenance"),
    "stay": m.StayVm("H1"),
    "slot": m.SlotFree(),
    "copy_placed_late": m.CopyPlaced(2, "H2", "agent/H2@host-2", "boot-2"),
    "copy_not_placed_late": m.CopyNotPlaced(2, "no host has room"),
    "incoming_late": m.IncomingReady("H2", 2, "uri"),
    "progressed_late": m.MigrationProgressed("H1", 3, 2, 50, 1, 1, 1, 1, 1),
    "migration_failed_late": m.MigrationFailed("H1", 3, 2, "no"),
    "refused_lease": m.DomainRefused("H1", 3, "create", "held", "lease_held"),
    "copy_timer_late": m.TimerFired("copy"),
    "place_timer_late": m.TimerFired("place"),
    **{f"power_{verb}": m.PowerVm(verb) for verb in ("shutdown", "stop", "start")},
    "post_migrate": reported(S.PAUSED, pause_code="POSTMIGRATE"),
    **{f"reported_{status.value}": reported(status) for status in STATUSES},
}
MESSAGES = OTHERS | {f"command_{verb}": command(verb) for verb in VERBS}  # type: ignore[arg-type]


def in_flight(status: VmStatus) -> Vm:
    """A machine in `status` with the operation that a transient one has."""
    kind = {S.POWERING_DOWN: "shutdown", S.SAVING_STATE: "suspend", S.REBOOT_IN_PROGRESS: "reboot"}
    if status not in BOUNDED | {S.POWERING_UP}:
        return vm(status=status)
    timers = {"deadline": 10**12}
    return vm(status=status, operation_id="op-old", operation_kind=kind.get(status, "start"), timers=timers)


def without_marks(one: Vm) -> bytes:
    """The record without the marks of what was seen, which are committed with the next change."""
    image = type(one.record)(**{name: getattr(one.record, name) for name in one.record.__struct_fields__})
    image.seen_host_epoch = image.seen_seq = image.copy_seen_host_epoch = image.copy_seen_seq = 0
    return encoded(image)


def check_turn(one: Vm, before: bytes, done: Turn) -> None:
    if without_marks(one) != before:
        saved = one.record in done.saved or one.record in done.erased
        assert saved, "changed and not saved"
    if done.stopped:
        return
    record = one.record
    if record.status in BOUNDED:
        assert "deadline" in record.timers, f"{record.status} without a deadline"
    if record.operation_id is not None:
        assert "deadline" in record.timers, f"operation {record.operation_kind} without a deadline"
    for ended in endings(done):
        assert ended.succeeded or (ended.reason and ended.error_code), ended
    if (record.status is S.UNKNOWN) and b"unknown" not in before:
        assert "query" in [name for name, _ in done.timers]


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("kind", MESSAGES)
def test_vm_any_message_in_any_status_is_handled_and_saved(status: VmStatus, kind: str) -> None:
    one = in_flight(status)
    message = MESSAGES[kind]
    before = without_marks(one)
    if isinstance(message, m.TimerFired):  # as the silo does
        one.record.timers.pop(message.name, None)
    done = turn()
    if isinstance(message, m.TimerFired):
        done.save(one.record)
    one.handle(message, done)
    check_turn(one, before, done)


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("verb", VERBS)
def test_vm_refused_command_ends_with_the_reason_and_changes_nothing(
    status: VmStatus, verb: m.VmVerb
) -> None:
    one = in_flight(status)
    refusal = vm_refusal("web", status, ACTION_BY_VERB[verb])
    if refusal is None:
        done = turn()
        one.handle(command(verb), done)
        mine = [ended for ended in endings(done) if ended.operation_id == "op-new"]
        assert one.record.operation_id == "op-new" or mine, "accepted, and nobody will end it"
        return
    before, done = encoded(one.record), turn()
    one.handle(command(verb), done)
    assert done.sent == [("engine", m.OperationEnded("op-new", False, refusal, "conflict"), True)]
    assert (encoded(one.record), done.saved) == (before, [])


@pytest.mark.parametrize("message", [m.StartCluster("o", m.CreateCluster("c")), m.Heartbeat("H1", 1, "b")])
def test_vm_message_of_another_actor_is_a_fault_of_the_programmer(message: m.AnyMessage) -> None:
    with pytest.raises(AssertionError, match="cannot handle"):
        vm().handle(message, turn())


def test_vm_unknown_timer_is_a_fault_of_the_programmer() -> None:
    with pytest.raises(AssertionError, match="no timer"):
        vm().handle(m.TimerFired("lunch"), turn())


# ---------------------------------------------------------------- reconciliation


def test_vm_ghost_on_another_host_is_ended_by_its_own_epoch() -> None:
    one, done = vm(status=S.UP), turn()
    one.handle(reported(S.UP, on="H2", epoch=2), done)
    assert done.sent == [("agent/H2@host-2", m.CommandDomain("v1", 2, "destroy"), True)]
    assert one.record.status is S.UP


def test_vm_waiting_ghost_while_unknown_is_left_alone() -> None:
    one, done = vm(status=S.UNKNOWN), turn()
    one.handle(reported(S.WAIT_FOR_LAUNCH, on="H2", epoch=2), done)
    assert done.sent == []


def test_vm_ghost_of_a_later_epoch_is_not_touched() -> None:
    one, done = vm(status=S.UP), turn()
    one.handle(reported(S.UP, on="H2", epoch=4), done)
    assert (done.sent, done.saved) == ([], [])


def test_vm_down_report_of_an_old_attempt_is_only_acknowledged() -> None:
    one, done = vm(status=S.UP), turn()
    one.handle(reported(S.DOWN, epoch=2), done)
    assert done.sent == [(AGENT, m.ForgetDomain("v1", 2), True)]
    assert one.record.status is S.UP


def test_vm_down_is_acknowledged_before_anything_else() -> None:
    one, done = vm(status=S.UP), turn()
    one.handle(reported(S.DOWN, exit_reason=6, exit_message="stopped"), done)
    assert [message for _, message, _ in done.sent] == [
        m.ForgetDomain("v1", 3),
        m.ReleaseVm("v1", "H1", 3),
    ]
    assert (one.record.status, one.record.host, one.record.agent) == (S.DOWN, None, None)


@pytest.mark.parametrize(("host_epoch", "seq"), [(1, 10), (1, 9), (0, 99)])
def test_vm_stale_report_is_ignored(host_epoch: int, seq: int) -> None:
    one, done = vm(status=S.UP), turn()
    one.handle(reported(S.DOWN, host_epoch=host_epoch, seq=seq), done)
    assert (done.sent, done.saved, one.record.status) == ([], [], S.UP)


def test_vm_report_of_a_newer_host_epoch_counts_whatever_its_number() -> None:
    one = vm(status=S.UP)
    one.handle(reported(S.DOWN, host_epoch=2, seq=1), turn())
    assert one.record.status is S.DOWN


def test_vm_missing_from_a_report_is_unknown_and_its_host_is_asked() -> None:
    one, done = vm(status=S.UP), turn()
    one.handle(m.DomainMissing("H1", 1, 11), done)
    assert one.record.status is S.UNKNOWN
    assert done.sent == [(AGENT, m.QueryDomain("v1", "vm/v1", 3), False)]
    assert [name for name, _ in done.timers] == ["query"]
    answer = turn()
    one.handle(reported(S.DOWN, seq=12, absent=True), answer)
    assert (one.record.status, one.record.host) == (S.DOWN, None)
    assert sent_to(answer, "cluster/prod") == [m.ReleaseVm("v1", "H1", 3)]


def test_vm_unknown_is_asked_about_until_it_is_known() -> None:
    one, done = vm(status=S.UNKNOWN), turn()
    one.handle(m.TimerFired("query"), done)
    assert done.sent == [(AGENT, m.QueryDomain("v1", "vm/v1", 3), False)]
    assert [name for name, _ in done.timers] == ["query"]
    one.handle(reported(S.UP), turn())
    after = turn()
    one.handle(m.TimerFired("query"), after)
    assert (one.record.status, after.sent, after.timers) == (S.UP, [], [])


def test_vm_failed_start_is_tried_on_three_hosts_at_most() -> None:
    one = vm()
    one.handle(command("start"), turn())
    hosts = []
    done = turn()
    for number in (1, 2, 3):
        epoch = one.record.epoch
        host = f"H{number}"
        one.handle(m.VmPlaced(epoch, host, f"agent/{host}@host-{number}"), turn())
        done = turn()
        failed = reported(
            S.DOWN, on=host, seq=100 + number, epoch=epoch, exit_reason=3, exit_message="no KVM"
        )
        one.handle(failed, done)
        hosts.append(host)
        assert m.ReleaseVm("v1", host, epoch, failed_start=True) in sent_to(done, "cluster/prod")
        if number < 3:
            assert [
                ask.excluded_hosts for ask in sent_to(done, "cluster/prod") if type(ask) is m.PlaceVm
            ] == [hosts]
    assert [(ended.operation_id, ended.succeeded) for ended in endings(done)] == [("op-new", False)]
    assert "H1, H2, H3" in endings(done)[0].reason
    assert "no KVM" in endings(done)[0].reason
    assert one.record.status is S.DOWN


@pytest.mark.parametrize("exit_reason", [3, 6])
def test_vm_stopped_while_starting_is_not_tried_elsewhere(exit_reason: int) -> None:
    """Found by the world: the start failed by itself while the stop was on its way, and ran again."""
    one = in_flight(S.WAIT_FOR_LAUNCH)
    one.handle(command("stop"), turn())
    done = turn()
    one.handle(reported(S.DOWN, exit_reason=exit_reason, exit_message="over"), done)
    assert one.record.status is S.DOWN
    assert [(ended.operation_id, ended.succeeded) for ended in endings(done)] == [("op-new", True)]
    assert not any(type(message) is m.PlaceVm for message in sent_to(done, "cluster/prod"))


def test_vm_up_report_does_not_end_a_stop() -> None:
    one = in_flight(S.POWERING_UP)
    one.handle(command("stop"), turn())
    done = turn()
    one.handle(reported(S.UP), done)
    assert (one.record.status, endings(done), one.record.operation_kind) == (S.UP, [], "stop")


def test_vm_stopped_before_it_was_placed_gives_its_placement_back() -> None:
    one = vm()
    one.handle(command("start"), turn())
    done = turn()
    one.handle(command("stop", operation_id="op-stop"), done)
    assert sent_to(done, "cluster/prod") == [m.ReleaseVm("v1", "", 4)]
    assert [(ended.operation_id, ended.succeeded) for ended in endings(done)] == [
        ("op-new", False),
        ("op-stop", True),
    ]
    late = turn()
    one.handle(m.VmPlaced(4, "H1", AGENT), late)
    assert late.sent == [("cluster/prod", m.ReleaseVm("v1", "H1", 4), True)]


def test_vm_launch_deadline_ends_what_the_host_may_have_begun() -> None:
    one, done = in_flight(S.WAIT_FOR_LAUNCH), turn()
    one.record.timers.clear()
    one.handle(m.TimerFired("deadline"), done)
    assert one.record.status is S.UNKNOWN
    assert sent_to(done, AGENT) == [m.CommandDomain("v1", 3, "destroy")]
    assert [(ended.operation_id, ended.succeeded) for ended in endings(done)] == [("op-old", False)]
    assert ("query", 110 * 10**9) in done.timers


@pytest.mark.parametrize("back", sorted(BOUNDED))
def test_vm_back_from_unknown_in_a_transient_status_has_a_deadline(back: VmStatus) -> None:
    one, done = vm(status=S.UNKNOWN), turn()
    one.handle(reported(back), done)
    assert one.record.status is back
    assert "deadline" in one.record.timers


@pytest.mark.parametrize("before", [S.POWERING_DOWN, S.REBOOT_IN_PROGRESS, S.SAVING_STATE])
def test_vm_whose_guest_does_not_obey_is_up_again_and_its_host_is_asked(before: VmStatus) -> None:
    one, done = in_flight(before), turn()
    one.record.timers.clear()
    one.handle(m.TimerFired("deadline"), done)
    assert one.record.status is S.UP
    assert sent_to(done, AGENT) == [m.QueryDomain("v1", "vm/v1", 3)]
    assert [ended.succeeded for ended in endings(done)] == [False]


def test_vm_highly_available_crash_is_started_again_with_a_new_epoch() -> None:
    one, done = vm(status=S.UP, high_availability=True), turn()
    one.handle(reported(S.DOWN, exit_reason=2, exit_message="QEMU is gone"), done)
    assert one.record.status is S.WAIT_FOR_LAUNCH
    assert [type(message) for message in sent_to(done, "cluster/prod")] == [m.ReleaseVm, m.PlaceVm]
    assert one.record.epoch == 4


@pytest.mark.parametrize("exit_reason", [0, 5, 6, 7])
def test_vm_highly_available_that_ended_as_asked_stays_down(exit_reason: int) -> None:
    one, done = vm(status=S.UP, high_availability=True), turn()
    one.handle(reported(S.DOWN, exit_reason=exit_reason), done)
    assert not any(type(message) is m.PlaceVm for message in sent_to(done, "cluster/prod"))


def test_vm_lost_host_never_starts_a_highly_available_machine_elsewhere() -> None:
    one, done = vm(status=S.UP, high_availability=True), turn()
    one.handle(m.HostLost("H1", "silent"), done)
    assert (one.record.status, done.sent) == (S.UNKNOWN, [])


def test_vm_same_operation_twice_has_one_effect() -> None:
    one = vm()
    one.handle(command("start"), turn())
    before, done = encoded(one.record), turn()
    one.handle(command("start"), done)
    assert (encoded(one.record), done.sent, done.saved) == (before, [], [])


def test_vm_in_a_silo_of_its_own_tells_the_engine_each_change() -> None:
    one, done = vm(status=S.UP, silo="vms-1"), turn()
    one.handle(reported(S.PAUSED), done)
    assert sent_to(done, "engine") == [m.VmChanged(encoded(one.record), "v1")]


# ---------------------------------------------------------------- any order of messages


class AnyOrder(RuleBasedStateMachine):
    """One machine, and messages in an order that nobody promised to be sensible."""

    def __init__(self) -> None:
        super().__init__()
        self.one = vm(high_availability=True)
        self.asked: set[str] = set()
        self.ended: list[str] = []
        self.seq = 100
        self.now_s = 100.0

    def give(self, message: m.AnyMessage) -> None:
        self.now_s += 1
        done = turn(at_s=self.now_s)
        before = without_marks(self.one)
        if isinstance(message, m.TimerFired) and self.one.record.timers.pop(message.name, 0):
            done.save(self.one.record)
        self.one.handle(message, done)
        check_turn(self.one, before, done)
        self.ended += [ended.operation_id for ended in endings(done)]

    @rule(verb=st.sampled_from([verb for verb in VERBS if verb != "remove"]))
    def command(self, verb: m.VmVerb) -> None:
        operation_id = f"op-{len(self.asked)}"
        self.asked.add(operation_id)
        self.give(command(verb, operation_id=operation_id))

    @rule(late=st.integers(0, 1), host=st.sampled_from(["H1", "H2"]))
    def placed(self, late: int, host: str) -> None:
        self.give(m.VmPlaced(self.one.record.epoch - late, host, f"agent/{host}@host-{host[1:]}"))

    @rule(late=st.integers(0, 1))
    def not_placed(self, late: int) -> None:
        self.give(m.VmNotPlaced(self.one.record.epoch - late, "no room"))

    @rule(
        status=st.sampled_from(STATUSES),
        host=st.sampled_from(["H1", "H2"]),
        late=st.sampled_from([0, 0, 0, 1]),
        exit_reason=st.sampled_from([2, 3, 5, 6, 7]),
        absent=st.booleans(),
    )
    def told(self, status: VmStatus, host: str, late: int, exit_reason: int, absent: bool) -> None:
        self.seq += 1
        epoch = self.one.record.epoch - late
        absent = absent and status is S.DOWN
        reason = exit_reason if status is S.DOWN else None
        self.give(reported(status, on=host, seq=self.seq, epoch=epoch, exit_reason=reason, absent=absent))

    @rule(host=st.sampled_from(["H1", "H2"]))
    def missing(self, host: str) -> None:
        self.seq += 1
        self.give(m.DomainMissing(host, 1, self.seq))

    @rule(host=st.sampled_from(["H1", "H2"]))
    def lost(self, host: str) -> None:
        self.give(m.HostLost(host, "silent"))

    @rule(code=st.sampled_from(["older_copy", "absent", "wrong_state"]))
    def refused(self, code: str) -> None:
        verb = "create" if code == "older_copy" else "shutdown"
        if code == "older_copy" and self.one.record.status not in LAUNCHING:
            return
        self.give(m.DomainRefused(self.one.record.host or "H1", self.one.record.epoch, verb, "no", code))

    @rule()
    def timer(self) -> None:
        for name in sorted(self.one.record.timers):
            self.give(m.TimerFired(name))

    @invariant()
    def each_operation_ends_once_or_is_under_way(self) -> None:
        under_way = self.one.record.operation_id
        assert sorted(self.ended + ([under_way] if under_way else [])) == sorted(self.asked)

    @invariant()
    def host_and_agent_go_together(self) -> None:
        record = self.one.record
        assert (record.host is None) == (record.agent is None)
        if record.status in (S.DOWN, S.SUSPENDED):
            assert record.host is None


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=40, deadline=None, derandomize=True)
