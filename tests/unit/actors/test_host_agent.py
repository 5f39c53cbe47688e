"""Authority by epoch, Down until acknowledged, and doubt that is asked again."""

from __future__ import annotations

from typing import Literal

import msgspec
import pytest

from actors.host_agent_starts import spec_of
from actors.hypervisor_port import FoundDomain
from actors.roster import AgentRoster
from hypervisor_backends.fencing import FenceAnswer
from hypervisor_backends.protocol import DestroyDomain, DomainSpec, ListDomains, StartDomain
from olvm.model import messages as m
from olvm.model.hardware import Hardware, NicSpec
from olvm.model.limits import HOST_EPOCHS_UNHEARD_MAX, NS_PER_S
from olvm.model.records import DomainRecord
from olvm.model.vm_states import VmStatus
from tests.builders import GIB, sent_to, turn
from tests.unit.actors.agent_driving import (
    VM,
    agent,
    alarms,
    asked,
    create,
    domain,
    failed,
    give,
    listed,
    ok,
    opened,
    refusals,
    reports,
    seen,
    tags,
    there,
    told,
)

S = VmStatus


def test_agent_create_is_recorded_before_the_hypervisor_is_asked() -> None:
    one = agent()
    done = give(one, create())
    assert done.saved == [one.domains["v1"]]
    assert [(type(request), tag) for _, request, tag in done.calls] == [(StartDomain, "start/v1/3")]


def test_agent_create_repeated_is_answered_and_not_carried_out_again() -> None:
    done = give(agent(domain(S.UP)), create(3))
    assert (told(done), done.calls) == ([(S.UP, 3, False)], [])


def test_agent_create_of_an_older_epoch_is_refused() -> None:
    done = give(agent(domain(S.UP, epoch=5)), create(4))
    (refused,) = sent_to(done, VM)
    assert isinstance(refused, m.DomainRefused)
    assert (refused.code, refused.epoch, done.calls) == ("stale_epoch", 4, [])


def test_agent_create_of_an_older_epoch_is_refused_also_after_the_machine_was_forgotten() -> None:
    done = give(agent(domain(S.DOWN, epoch=5, forgotten=True)), create(4))
    assert [type(said) for said in sent_to(done, VM)] == [m.DomainRefused]


def test_agent_create_of_a_newer_epoch_ends_the_older_copy_first() -> None:
    done = give(agent(domain(S.UP, epoch=3)), create(4))
    assert [request for _, request, _ in done.calls] == [DestroyDomain(vm_id="v1")]
    (refused,) = sent_to(done, VM)
    assert isinstance(refused, m.DomainRefused)
    assert refused.code == "older_copy"


def test_agent_restarted_in_its_process_does_not_begin_again_what_it_has_ordered_to_end() -> None:
    one = agent(domain(S.WAIT_FOR_LAUNCH, pending="start"))
    give(one, m.CommandDomain("v1", 3, "destroy"))
    give(one, m.RestartAgent("H1"))
    done = give(one, opened(under_way=("destroy/v1/3", "verify/v1/3")))
    assert "start/v1/3" not in tags(done)
    assert told(done) == [(S.WAIT_FOR_LAUNCH, 3, False)]
    assert told(give(one, failed("destroy/v1/3", "unknown_domain"))) == [(S.DOWN, 3, False)]


def test_agent_restarted_with_its_process_begins_again_what_was_lost() -> None:
    one = agent(domain(S.WAIT_FOR_LAUNCH, pending="start"), is_open=False)
    assert "start/v1/3" in tags(give(one, opened()))


def test_agent_command_of_an_older_epoch_is_refused() -> None:
    done = give(agent(domain(S.UP, epoch=3)), m.CommandDomain("v1", 2, "destroy"))
    assert ([type(said) for said in sent_to(done, VM)], done.calls) == ([m.DomainRefused], [])


def test_agent_down_entry_is_reported_until_it_is_acknowledged_by_its_epoch() -> None:
    one = agent(domain(S.DOWN))
    for epoch, count in ((2, 1), (3, 0)):
        give(one, m.ForgetDomain("v1", epoch))
        (report,) = sent_to(give(one, m.TimerFired("report")), "host/H1")
        assert isinstance(report, m.HostReport)
        assert len(report.domains) == count


def test_agent_asked_for_a_machine_it_never_had_asks_the_hypervisor_and_then_refuses_its_create() -> None:
    one = agent()
    done = give(one, m.QueryDomain("v1", VM, 3))
    assert [(type(request), tag) for _, request, tag in done.calls] == [(ListDomains, "query/v1/3")]
    answer = listed("query/v1/3", {})
    assert told(give(one, answer)) == [(S.DOWN, 3, True)]
    late = give(one, create(2))
    assert [type(said) for said in sent_to(late, VM)] == [m.DomainRefused]


def test_agent_start_of_unknown_outcome_is_asked_about_until_it_is_known() -> None:
    one = agent(domain(S.WAIT_FOR_LAUNCH, pending="start"))
    done = give(one, m.CallEnded("start/v1/3", False, b"timed out", "timed_out", False))
    assert [tag for _, _, tag in done.calls] == ["verify/v1/3"]
    waiting = give(one, listed("verify/v1/3", there("wait_for_launch")))
    assert [name for name, _ in waiting.timers] == ["list/verify/v1/3"]
    assert [tag for _, _, tag in give(one, m.TimerFired("list/verify/v1/3")).calls] == ["verify/v1/3"]
    known = give(one, listed("verify/v1/3", there("up")))
    assert told(known) == [(S.UP, 3, False)]


def test_agent_list_that_fails_is_asked_again_later_and_not_at_once() -> None:
    done = give(agent(domain(S.WAIT_FOR_LAUNCH)), m.CallEnded("verify/v1/3", False, b"", "host_down"))
    assert (done.calls, [name for name, _ in done.timers]) == ([], ["list/verify/v1/3"])


@pytest.mark.parametrize(("found", "status"), [(there("paused"), S.PAUSED), ({}, S.DOWN)])
def test_agent_command_of_unknown_outcome_is_looked_up(
    found: dict[str, FoundDomain], status: VmStatus
) -> None:
    one = agent(domain(S.POWERING_DOWN))
    done = give(one, m.CallEnded("shutdown/v1/3", False, b"timed out", "timed_out", False))
    assert ([tag for _, _, tag in done.calls], done.sent) == (["recheck/v1/3"], [])
    after = give(one, listed("recheck/v1/3", found))
    assert told(after) == [(status, 3, False)]


@pytest.mark.parametrize(
    ("before", "status", "after"),
    [
        (domain(S.WAIT_FOR_LAUNCH, pending="start"), "up", S.UP),
        (domain(S.UP), "paused", S.PAUSED),
        (domain(S.SAVING_STATE), "saving_state", S.SAVING_STATE),
        (domain(S.UP), None, S.DOWN),
    ],
)
def test_agent_restarted_tells_what_the_hypervisor_says(
    before: DomainRecord, status: str | None, after: VmStatus
) -> None:
    one = agent(msgspec.structs.replace(before), is_open=False)
    done = give(one, opened({} if status is None else there(status)))
    assert told(done) == [(after, 3, False)]
    assert one.record.host_epoch == 2


@pytest.mark.parametrize("status", ["wait_for_launch", None])
def test_agent_restarted_in_the_middle_of_a_start_asks_for_it_again(status: str | None) -> None:
    one = agent(domain(S.WAIT_FOR_LAUNCH, pending="start"), is_open=False)
    done = give(one, opened({} if status is None else there(status)))
    assert tags(done) == ["renew", "start/v1/3"]


def test_agent_restarted_on_a_rebooted_host_says_that_the_host_was_the_reason() -> None:
    one = agent(domain(S.UP), is_open=False)
    give(one, opened(boot_id="boot-2"))
    assert (one.domains["v1"].status, one.domains["v1"].exit_reason) == (S.DOWN, 11)


def test_agent_event_of_another_epoch_is_ignored() -> None:
    done = give(agent(domain(S.UP)), m.DomainHappened("v1", 2, "crashed"))
    assert (done.sent, done.saved) == ([], [])


def test_agent_message_of_another_actor_is_a_fault_of_the_programmer() -> None:
    with pytest.raises(AssertionError, match="cannot handle"):
        give(agent(), m.HostLost("H1", ""))


# ---------------------------------------------------------------------- which boot an order was meant for


@pytest.mark.parametrize(("boot_id", "code"), [("boot-0", "other_boot"), ("boot-1", None), ("", None)])
def test_agent_create_meant_for_another_boot_is_refused(boot_id: str, code: str | None) -> None:
    one = agent()
    done = give(one, create(boot_id=boot_id))
    assert [refused[2] for refused in refusals(done)] == ([code] if code else [])
    assert ("v1" in one.domains) is (code is None)


def test_agent_start_that_waited_over_a_reboot_is_down_and_never_begun() -> None:
    one = agent(domain(S.WAIT_FOR_LAUNCH, pending="start"), is_open=False)
    done = give(one, opened(boot_id="boot-2"))
    assert (tags(done), told(done)) == (["renew"], [(S.DOWN, 3, False)])


def test_agent_without_journal_holds_a_create_against_the_boot_that_it_then_finds() -> None:
    one = agent(is_open=False)
    one.record.boot_id = ""
    give(one, create(boot_id="boot-1"))
    done = give(one, opened(boot_id="boot-2"))
    assert (tags(done), told(done)) == (["renew"], [(S.DOWN, 3, False)])


def test_agent_create_after_a_forgotten_lower_epoch_begins() -> None:
    done = give(agent(domain(S.DOWN, forgotten=True)), create(4))
    assert tags(done) == ["start/v1/4"]


def test_agent_create_of_a_forgotten_epoch_is_refused() -> None:
    done = give(agent(domain(S.DOWN, forgotten=True)), create(3))
    assert refusals(done) == [("create", 3, "stale_epoch")]


# ---------------------------------------------------------------------- while its host is not open


def test_agent_that_cannot_open_its_host_says_that_it_recovers_and_tries_again() -> None:
    one = agent(domain(), is_open=False)
    assert give(one, failed("open", "host_down")).sent == []
    done = give(one, m.TimerFired("heartbeat"))
    assert sent_to(done, "host/H1") == [m.AgentRecovering("H1", 1)]
    assert tags(done) == ["open"]


def test_agent_that_was_told_to_start_and_cannot_says_why() -> None:
    one = agent(is_open=False)
    give(one, m.StartAgent("H1", "prod", "simulated", {}, 8, 1))
    (said,) = sent_to(give(one, failed("open", "host_down")), "host/H1")
    assert isinstance(said, m.AgentFailed)


@pytest.mark.parametrize(("heard", "goes_on_at"), [(1, 1), (5, 5 + HOST_EPOCHS_UNHEARD_MAX)])
def test_agent_whose_journal_is_older_than_what_the_engine_heard_goes_on_above_that(
    heard: int, goes_on_at: int
) -> None:
    """Such as one that was restored from a copy."""
    one = agent()
    done = give(one, m.StartAgent("H1", "prod", "simulated", {}, 8, GIB, heard))
    (ready,) = sent_to(done, "host/H1")
    assert isinstance(ready, m.AgentReady)
    assert ready.host_epoch == one.record.host_epoch == goes_on_at


@pytest.mark.parametrize(
    "message",
    [m.QueryDomain("v1", VM, 3), create(3), m.TimerFired("report"), m.DomainHappened("v1", 3, "paused")],
)
def test_agent_not_open_tells_nothing_of_machines(message: m.AnyMessage) -> None:
    assert give(agent(domain(), is_open=False), message).sent == []


def test_agent_not_open_refuses_a_command_and_says_that_trying_again_helps() -> None:
    done = give(agent(domain(), is_open=False), m.CommandDomain("v1", 3, "destroy"))
    assert (refusals(done), done.calls) == ([("destroy", 3, "recovering")], [])


def test_agent_restarted_by_a_soft_fence_opens_again_and_raises_its_epoch() -> None:
    one = agent(domain())
    assert tags(give(one, m.RestartAgent("H1"))) == ["open"]
    assert give(one, m.QueryDomain("v1", VM, 3)).sent == []
    done = give(one, opened(there("paused")))
    assert (told(done), one.record.host_epoch) == ([(S.PAUSED, 3, False)], 2)
    assert give(one, opened(there("up"))).sent == []  # an answer to the earlier life


def test_agent_whose_host_was_restarted_under_it_opens_again() -> None:
    one = agent(domain())
    assert tags(give(one, seen({}, boot_id="boot-2"))) == ["open"]
    assert give(one, opened(boot_id="boot-2")).sent
    assert one.domains["v1"].exit_reason == 11


# ---------------------------------------------------------------------- what no event told


def test_agent_heartbeat_names_the_problems_that_the_last_look_found() -> None:
    one = agent()
    give(one, seen({}, problems=["network_unreachable"]))
    (beat,) = sent_to(give(one, m.TimerFired("heartbeat")), "host/H1")
    assert isinstance(beat, m.Heartbeat)
    assert beat.problems == ["network_unreachable"]
    give(one, seen({}))
    (beat,) = sent_to(give(one, m.TimerFired("heartbeat")), "host/H1")
    assert isinstance(beat, m.Heartbeat)
    assert beat.problems == []


def test_agent_machine_missing_from_two_looks_in_a_row_is_down() -> None:
    one = agent(domain())
    assert told(give(one, seen({}))) == []
    assert told(give(one, seen({}))) == [(S.DOWN, 3, False)]


def test_agent_machine_missing_from_one_look_only_is_not_down() -> None:
    one = agent(domain())
    assert [told(give(one, look)) for look in (seen({}), seen(there("up")), seen({}))] == [[], [], []]


def test_agent_look_finds_a_pause_that_no_event_told() -> None:
    (said,) = reports(give(agent(domain()), seen(there("paused", pause_code="ENOSPC"))))
    assert (said.domain.status, said.domain.pause_code) == (S.PAUSED, "ENOSPC")


def test_agent_look_is_too_old_for_a_machine_that_was_commanded_since() -> None:
    one = agent(domain())
    give(one, m.TimerFired("report"))
    give(one, m.CommandDomain("v1", 3, "continue"))
    assert told(give(one, seen(there("paused")))) == []


@pytest.mark.parametrize("message", [seen(there("up")), m.DomainHappened("v1", 3, "started")])
def test_agent_copy_that_was_told_to_be_over_and_runs_is_ended(message: m.AnyMessage) -> None:
    done = give(agent(domain(S.DOWN)), message)
    assert (asked(done), done.marks) == (["DestroyDomain"], ["agent_ends_a_stray_copy"])


def test_agent_opened_where_an_older_copy_runs_ends_it_and_begins_its_own() -> None:
    one = agent(domain(S.WAIT_FOR_LAUNCH, pending="start"), is_open=False)
    done = give(one, opened(there("up", epoch=2)))
    assert tags(done) == ["renew", "stray/v1/3", "start/v1/3"]


# ---------------------------------------------------------------------- a journal that was lost


def test_agent_without_journal_asked_for_a_machine_that_runs_finds_it_again() -> None:
    one = agent()
    give(one, m.QueryDomain("v1", VM, 3))
    done = give(one, listed("query/v1/3", there("up")))
    assert (told(done), one.domains["v1"].lease_taken) == ([(S.UP, 3, False)], True)


def test_agent_without_journal_can_start_what_it_found_as_it_was() -> None:
    one = agent()
    hardware = Hardware(nics=(NicSpec(name="nic0"),), vcpus_max=8)
    found = FoundDomain(3, "up", "", "web", True, 4, 2 * GIB, hardware)
    give(one, m.QueryDomain("v1", VM, 3))
    give(one, listed("query/v1/3", {"v1": found}))
    assert spec_of(one.domains["v1"]) == DomainSpec(
        name="web", vcpus=4, memory_bytes=2 * GIB, hardware=hardware, leased=True
    )


def test_agent_without_journal_asked_for_a_later_copy_ends_the_older_one_before_it_answers() -> None:
    one = agent()
    give(one, m.QueryDomain("v1", VM, 4))
    done = give(one, listed("query/v1/4", there("up", epoch=3)))
    assert (asked(done), told(done), [name for name, _ in alarms(done)]) == (
        ["DestroyDomain"],
        [],
        ["list/query/v1/4"],
    )
    assert told(give(one, listed("query/v1/4", {}))) == [(S.DOWN, 4, True)]


def test_agent_without_journal_told_to_destroy_a_machine_looks_for_it_first() -> None:
    one = agent()
    assert tags(give(one, m.CommandDomain("v1", 3, "destroy"))) == ["purge/v1/3"]
    assert asked(give(one, listed("purge/v1/3", there("up")))) == ["DestroyDomain"]
    done = give(one, listed("purge/v1/3", {}))
    assert (told(done), tags(done)) == ([(S.DOWN, 3, True)], ["leave/v1/3"])
    assert refusals(give(one, create(3))) == [("create", 3, "stale_epoch")]


def test_agent_told_to_destroy_a_copy_that_it_never_got_refuses_that_copy_from_then_on() -> None:
    one = agent(domain(S.DOWN, forgotten=True))
    assert refusals(give(one, m.CommandDomain("v1", 5, "destroy"))) == [("destroy", 5, "absent")]
    assert refusals(give(one, create(5))) == [("create", 5, "stale_epoch")]


# ---------------------------------------------------------------------- I/O errors


def io_paused(behavior: str, **fields: object) -> DomainRecord:
    return domain(S.PAUSED, pause_code="EIO", paused_since_ns=int(90e9), resume_behavior=behavior, **fields)


def test_agent_pause_by_an_io_error_is_reported_with_its_code() -> None:
    done = give(agent(domain()), m.DomainHappened("v1", 3, "paused", pause_code="EIO"))
    (said,) = reports(done)
    assert (said.domain.pause_code, alarms(done)) == ("EIO", [("resume/v1", 10.0)])


def test_agent_auto_resume_tries_each_period_until_the_machine_runs() -> None:
    one = agent(io_paused("auto_resume"))
    for _ in range(2):
        done = give(one, m.TimerFired("resume/v1"))
        assert (asked(done), alarms(done)) == (["ContinueDomain"], [("resume/v1", 10.0)])
        assert give(one, failed("resume/v1/3", "call_failed")).sent == []
    assert told(give(one, m.DomainHappened("v1", 3, "continued"))) == [(S.UP, 3, False)]
    assert give(one, m.TimerFired("resume/v1")).calls == []


@pytest.mark.parametrize("code", ["", "NOERR", "POSTMIGRATE"])
def test_agent_pause_that_is_no_io_error_is_left_alone(code: str) -> None:
    done = give(agent(domain()), m.DomainHappened("v1", 3, "paused", pause_code=code))
    assert alarms(done) == []


def test_agent_leave_paused_does_nothing() -> None:
    one = agent(domain(resume_behavior="leave_paused"))
    assert alarms(give(one, m.DomainHappened("v1", 3, "paused", pause_code="EIO"))) == []


@pytest.mark.parametrize("event_first", [True, False])
def test_agent_kills_after_the_time_and_says_so_whatever_comes_first(event_first: bool) -> None:
    one = agent(io_paused("kill"))
    assert give(one, m.TimerFired("kill/v1"), at_s=169.0).calls == []
    assert asked(give(one, m.TimerFired("kill/v1"), at_s=170.0)) == ["DestroyDomain"]
    event, answer = m.DomainHappened("v1", 3, "stopped", 6), ok("destroy/v1/3")
    for message in (event, answer) if event_first else (answer, event):
        give(one, message)
    assert one.domains["v1"].exit_reason == 14


def test_agent_restarted_keeps_to_the_time_since_the_pause_began() -> None:
    one = agent(io_paused("kill"), is_open=False)
    done = give(one, opened(there("paused", pause_code="EIO")), at_s=150.0)
    assert ("kill/v1", 20.0) in alarms(done)


def test_agent_restarted_after_it_ordered_the_kill_says_what_it_was() -> None:
    one = agent(io_paused("kill", pending="kill"), is_open=False)
    give(one, opened())
    assert one.domains["v1"].exit_reason == 14


# ---------------------------------------------------------------------- for other hosts


def test_agent_as_a_proxy_fences_and_tells_the_host_actor_what_the_device_said() -> None:
    one = agent()
    device: m.Settings = {"type": "simulated"}
    (ready,) = sent_to(give(one, m.FenceHost("H7", 5, "off", device)), "host/H7")
    assert isinstance(ready, m.FenceReady)
    done = give(one, m.FenceHost("H7", 5, "off", device, ready.host_epoch, ready.asked_ns))
    assert [(port, tag) for port, _, tag in done.calls] == [("fence", "fence/5/off/H7")]
    answer = FenceAnswer(ok=False, power="on", message="busy")
    told_back = give(one, m.CallEnded("fence/5/off/H7", False, msgspec.msgpack.encode(answer)))
    assert told_back.sent == [("host/H7", m.FenceResult("H7", 5, "off", False, "on", "busy"), False)]


@pytest.mark.parametrize("action", ["on", "off"])
@pytest.mark.parametrize(
    ("epochs_on", "later_s", "obeys"),
    [(0, 0.0, True), (0, 10.0, True), (0, 10.1, False), (0, -1.0, False), (1, 0.0, False)],
)  # fmt: skip
def test_agent_as_a_proxy_asks_before_it_switches_and_obeys_what_is_repeated_soon(
    action: Literal["on", "off"], epochs_on: int, later_s: float, obeys: bool
) -> None:
    """Found by a campaign: orders that had lain in front of an agent that hung switched two healthy hosts off."""
    one = agent()
    asking = give(one, m.FenceHost("H7", 5, action, {}), at_s=200.0)
    ready = m.FenceReady("H7", 5, action, one.record.host_epoch, 200 * NS_PER_S)
    assert (asking.calls, asking.sent) == ([], [("host/H7", ready, False)])
    one.record.host_epoch += epochs_on
    order = m.FenceHost("H7", 5, action, {}, ready.host_epoch, ready.asked_ns)
    done = give(one, order, at_s=200.0 + later_s)
    assert ([port for port, _, _ in done.calls], done.sent) == (["fence"] if obeys else [], [])


def test_agent_as_a_proxy_asks_a_device_for_its_status_at_once() -> None:
    done = give(agent(), m.FenceHost("H7", 5, "status", {}))
    assert [tag for _, _, tag in done.calls] == ["fence/5/status/H7"]


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [(ok("check/5/H7", "dead"), "dead"), (ok("check/5/H7", "live"), "live"), (ok("check/5/H7", "unknown"), "unknown"),
     (failed("check/5/H7", "host_down"), "unknown")],
)  # fmt: skip
def test_agent_as_a_proxy_tells_what_another_hosts_lease_says(answer: m.CallEnded, verdict: str) -> None:
    one = agent()
    assert asked(give(one, m.CheckHostLease("H7", 5))) == ["CheckLease"]
    (said,) = sent_to(give(one, answer), "host/H7")
    assert isinstance(said, m.HostLeaseChecked)
    assert (said.verdict, said.seq) == (verdict, 5)


@pytest.mark.parametrize(("host", "passed_on"), [("H1", ["agent/H1@host-1"]), ("H9", [])])
def test_roster_passes_a_restart_on_to_an_agent_that_it_has(host: str, passed_on: list[str]) -> None:
    done = turn(me="agents", sender="runtime")
    done.silo = "host-1"
    AgentRoster({"H1"}).handle(m.RestartAgent(host), done)
    assert [to for to, _, _ in done.sent] == passed_on
