"""The fence saga: what each step asks, what holds it back, and that nothing is given up in silence."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from actors.host_fence_steps import FenceStep
from actors.runtime_port import RestartHostAgent
from olvm.model import messages as m
from olvm.model.limits import NS_PER_S
from tests.builders import encoded, sent_to, turn
from tests.unit.actors.fence_story import (
    BMC1,
    H2,
    H3,
    READY_IN_A_NEW_BOOT,
    READY_IN_THE_SAME_BOOT,
    S,
    Story,
    at_off,
    codes,
)

# ---------------------------------------------------------------------- orders are repeated when a proxy asks


def test_fence_order_is_repeated_to_a_proxy_that_asks_while_the_flow_waits_for_it() -> None:
    story = at_off()
    seq = story.record.fence_seq
    done = story.hear(m.FenceReady("H1", seq, "off", 7, 123))
    assert (done.sent, story.step) == ([(H2, m.FenceHost("H1", seq, "off", BMC1, 7, 123), False)], "off")


def test_fence_order_whose_step_is_over_is_not_repeated() -> None:
    """Found by a campaign: the proxy hung, and when it came back the host had been well for long."""
    story = at_off()
    old = m.FenceReady("H1", story.record.fence_seq, "off", 7, 123)
    assert story.hear(msgspec.structs.replace(old, action="on")).sent == []
    story.due()
    assert (story.hear(old).sent, story.step) == ([], "ask_off_again")
    story.hear(READY_IN_A_NEW_BOOT)
    assert (story.hear(old).sent, story.step) == ([], "")


# ---------------------------------------------------------------------- from silence to service


def test_fence_flow_from_silence_to_service_asks_before_each_step_and_believes_only_a_status_off() -> None:
    story = Story()
    begun = story.begin(allowed=False)
    assert begun.sent == [("cluster/prod", m.AskFencing("H1", 2), True)]

    soft = story.advise()
    assert (soft.calls, soft.sent) == ([("runtime", RestartHostAgent("H1", "host-1"), "soft/2")], [])
    assert (story.step, story.left_s()) == ("soft", 60.0)

    assert story.due().sent == [("cluster/prod", m.AskFencing("H1", 3), True)]
    assert story.advise().sent == [(H2, m.CheckHostLease("H1", 3), False)]
    dead = story.hear(m.HostLeaseChecked("H1", 3, "dead"))
    assert dead.sent == [("cluster/prod", m.AskFencing("H1", 4), True)]
    assert story.advise().sent == [(H2, m.FenceHost("H1", 4, "off", BMC1), False)]
    assert story.device("off").sent == [(H2, m.FenceHost("H1", 4, "status", BMC1), False)]
    assert story.device("status", power="on").sent == []
    assert (story.step, story.left_s()) == ("off_wait", 10.0)
    assert story.due().sent == [(H2, m.FenceHost("H1", 4, "status", BMC1), False)]

    off = story.device("status", power="off")
    reason = f"powered off, as the device says through {H2}"
    assert off.sent == [
        ("cluster/prod", m.HostFenced("H1", "boot-1", reason), True),
        ("cluster/prod", m.HostUsable("H1", False, reason, "reboot"), True),
        ("cluster/prod", m.AskFencing("H1", 5), True),
    ]
    assert (story.record.fenced_boot_id, story.record.status) == ("boot-1", S.REBOOT)

    assert story.advise().sent == [(H2, m.FenceHost("H1", 5, "on", BMC1), False)]
    assert story.device("on").sent == []
    assert (story.step, story.left_s()) == ("booting", 600.0)
    back = story.hear(READY_IN_A_NEW_BOOT, 90.0)
    assert (story.record.status, story.step, story.record.timers) == (S.UP, "", {})
    assert isinstance(sent_to(back, "cluster/prod")[-1], m.HostJoined)


def test_fence_flow_of_a_silent_host_begins_when_its_grace_is_over_and_not_twice() -> None:
    story = Story(status=S.UP)
    story.hear(m.TimerFired("watch"))
    assert (story.record.status, story.step, story.record.fence_seq) == (S.NON_RESPONSIVE, "ask_soft", 2)
    story.hear(m.TimerFired("watch"), 3.0)
    assert story.record.fence_seq == 2
    with pytest.raises(AssertionError, match="a second fence flow"):
        story.one.fencing.begin("not_responding", turn())


def test_fence_flow_without_power_management_says_what_a_person_can_do_and_ends() -> None:
    story = Story(fence_devices=[])
    story.begin()
    done = story.due()
    assert codes(done) == [("host_not_fenced", "alert")]
    assert done.events[0].message == (
        "host H1 does not answer and is not fenced: it has no power management; once you have seen to it that it is "
        "off or has been restarted, say so: `olvm host confirm-rebooted H1`"
    )
    assert (story.step, story.record.fence_reason, story.record.status) == (
        "",
        "it has no power management",
        S.NON_RESPONSIVE,
    )
    story.hear(m.Heartbeat("H1", 2, "boot-1"), 5.0)
    assert story.record.status is S.UP


def test_fence_flow_whose_agent_cannot_be_restarted_goes_on_at_once() -> None:
    story = Story()
    story.begin()
    story.hear(m.CallEnded("soft/1", False))
    assert story.step == "soft"  # the answer of an earlier flow
    story.hear(m.CallEnded("soft/2", True))
    assert story.step == "soft"
    story.hear(m.CallEnded("soft/2", False))
    assert story.step == "ask_check"


def test_fence_flow_whose_agent_comes_back_ends() -> None:
    story = Story()
    story.begin()
    done = story.hear(READY_IN_THE_SAME_BOOT, 20.0)
    assert (story.record.status, story.step) == (S.UP, "")
    assert done.marks == ["soft_fence_brought_the_agent_back"]
    assert not any(isinstance(said, m.HostFenced) for said in sent_to(done, "cluster/prod"))


# ---------------------------------------------------------------------- crash dumps


def test_fence_flow_of_a_host_that_dumps_proves_it_at_once_and_waits_for_the_dump() -> None:
    story = Story(kdump=True)
    story.begin()
    story.due()
    assert (story.step, story.left_s()) == ("kdump", 30.0)
    reason = "its kernel crashed and writes a dump"
    assert story.hear(m.KdumpSeen("H1", "boot-1"), 5.0).sent == [
        ("cluster/prod", m.HostUsable("H1", False, reason, "kdumping"), True),
        ("cluster/prod", m.HostFenced("H1", "boot-1", reason), True),
    ]
    again = story.hear(m.KdumpSeen("H1", "boot-1"), 80.0)
    assert (again.sent, story.left_s()) == ([], 90.0)
    story.due()
    assert (story.record.status, story.step, story.left_s()) == (S.NON_RESPONSIVE, "dumped", 600.0)
    story.hear(READY_IN_A_NEW_BOOT, 60.0)
    assert (story.record.status, story.step) == (S.UP, "")


def test_fence_flow_of_a_host_that_does_not_start_after_its_dump_power_cycles_it() -> None:
    story = Story(kdump=True)
    story.begin()
    story.hear(m.KdumpSeen("H1", "boot-1"))
    story.due()
    story.due()
    story.advise()  # its boot is over: no lease is asked for
    assert story.step == "ask_off"
    assert story.advise().sent == [(H2, m.FenceHost("H1", story.record.fence_seq, "off", BMC1), False)]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kdump": True}, m.KdumpSeen("H1", "boot-0")),
        ({"kdump": False}, m.KdumpSeen("H1", "boot-1")),
        ({"kdump": True, "status": S.CONNECTING}, m.KdumpSeen("H1")),
        ({"kdump": True, "status": S.UP}, m.KdumpSeen("H1")),
    ],
    ids=["of an earlier boot", "of a host without", "of any boot, connecting", "of any boot, up"],
)
def test_fence_kdump_that_proves_nothing_changes_nothing(
    fields: dict[str, Any], message: m.KdumpSeen
) -> None:
    story = Story(**fields)
    before = encoded(story.record)
    assert story.hear(message).sent == []
    assert encoded(story.record) == before


def test_fence_kdump_of_the_present_boot_does_not_wait_for_the_grace() -> None:
    story = Story(kdump=True, status=S.UP)
    done = story.hear(m.KdumpSeen("H1", "boot-1"))
    assert story.record.status is S.KDUMPING
    assert m.HostFenced("H1", "boot-1", "its kernel crashed and writes a dump") in sent_to(
        done, "cluster/prod"
    )


# ---------------------------------------------------------------------- held back


def test_fence_flow_that_is_not_allowed_says_why_once_and_asks_again_for_ever() -> None:
    story = Story()
    story.begin(allowed=False)
    told = []
    for _ in range(5):
        done = story.refuse("5 of 8 hosts do not answer")
        told += codes(done)
        assert (story.step, story.record.fence_reason) == ("ask_soft", "5 of 8 hosts do not answer")
        assert story.left_s() == 30.0
        assert story.due().sent == [("cluster/prod", m.AskFencing("H1", story.record.fence_seq), True)]
    assert told == [("host_fence_waits", "alert")]
    story.advise()
    assert story.step == "soft"


@pytest.mark.parametrize("step", ["ask_check", "ask_off", "ask_off_again"])
def test_fence_flow_in_a_storm_is_asked_anew_before_each_step(step: str) -> None:
    story = Story(fence_step=step, fence_intent="not_responding", fence_seq=4, timers={"fence": 1})
    assert story.refuse("storm").marks == ["fencing_was_held_back_by_the_cluster"]
    assert (story.step, story.record.fence_reason) == (step, "storm")


def test_fence_flow_without_a_proxy_waits_and_asks_again() -> None:
    story = Story(fence_step="ask_off", fence_intent="not_responding", fence_seq=4)
    story.advise([])
    assert (story.step, story.left_s()) == ("ask_off", 30.0)
    assert story.record.fence_reason == "no other host of its cluster is up to fence it through"
    story.due()
    story.advise()
    assert story.step == "off"


def test_fence_flow_of_a_host_whose_lease_is_live_leaves_it_in_peace_and_begins_again() -> None:
    story = Story(fence_step="ask_check", fence_intent="not_responding", fence_seq=4)
    story.advise()
    live = story.hear(m.HostLeaseChecked("H1", 4, "live"))
    assert (codes(live), story.step, story.left_s()) == ([("host_fence_waits", "alert")], "retry", 30.0)
    assert story.due().sent == [("cluster/prod", m.AskFencing("H1", 5), True)]
    assert story.step == "ask_soft"


def test_fence_lease_that_nobody_can_judge_is_asked_of_others_and_then_power_decides() -> None:
    story = Story(fence_step="ask_check", fence_intent="not_responding", fence_seq=4)
    asked = []
    for answer in ("unknown", "silence"):
        asked += story.advise().sent
        if answer == "unknown":
            story.hear(m.HostLeaseChecked("H1", story.record.fence_seq, "unknown"))
        else:
            assert 40.0 < story.left_s() < 42.0  # the expiry on the slowest clock, and time to answer
            story.due()
    assert [to for to, _, _ in asked] == [H2, H3]
    assert story.step == "ask_check"
    story.advise()
    assert story.step == "ask_off"


def test_fence_flow_soon_after_the_engines_start_waits_and_says_so() -> None:
    story = Story(status=S.UP)
    story.restart_engine()
    done = story.hear(m.TimerFired("watch"), 61.0)
    assert (story.step, story.left_s(), done.marks) == ("quiet", 239.0, ["quiet_time_held_a_fence_back"])
    assert story.record.fence_reason == (
        "the engine has just started: hosts are not fenced for another 239 s"
    )
    assert story.due().sent == [("cluster/prod", m.AskFencing("H1", 2), True)]


# ---------------------------------------------------------------------- a restart of the engine


@pytest.mark.parametrize("step", [step for step in FenceStep if step])
def test_fence_flow_goes_on_after_a_restart_of_the_engine(step: FenceStep) -> None:
    if step in (FenceStep.DEVICES, FenceStep.UNFENCED, FenceStep.FENCED):
        return  # nobody stands there
    timers = {"fence": int(205 * NS_PER_S)}
    status = {"dumping": S.KDUMPING, "booting": S.REBOOT}.get(step.value, S.NON_RESPONSIVE)
    story = Story(
        status=status,
        fence_step=step.value,
        fence_intent="not_responding",
        fence_seq=4,
        fence_proxy=H2,
        timers=timers,
    )
    done = story.restart_engine()
    assert "engine_restarted_in_a_fence_flow" in (done.marks or [])
    untouched = step.value in (
        *("quiet", "ask_soft", "soft", "kdump", "ask_check", "lease", "retry", "ask_off", "failed"),
    )
    assert story.step == ("quiet" if untouched else step.value)
    assert story.left_s() == (300.0 if untouched else 5.0)
    story.due()
    assert "fence" in story.record.timers
    assert story.step not in ("", "quiet")


def test_fence_flow_after_a_restart_of_the_engine_takes_the_answer_to_its_last_question() -> None:
    story = at_off()
    story.device("off")
    story.restart_engine()
    done = story.device("status", power="off")
    assert isinstance(sent_to(done, "cluster/prod")[0], m.HostFenced)


def test_fence_flow_that_was_never_begun_begins_after_a_restart_of_the_engine() -> None:
    story = Story()
    story.restart_engine()
    assert story.step == "quiet"
    proven = Story(fenced_boot_id="boot-1")
    proven.restart_engine()
    assert proven.step == ""
