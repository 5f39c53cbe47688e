"""The fence saga: what each step asks, what counts as proof, and that nothing is given up in silence."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from actors.behaviour import Turn
from actors.host import Host
from actors.host_fence_steps import FenceStep
from actors.runtime_port import RestartHostAgent
from olvm.model import messages as m
from olvm.model.config import Config
from olvm.model.host_states import HostStatus
from olvm.model.limits import FENCE_RETRY_S_MAX, NS_PER_S
from tests.builders import GIB, encoded, endings, host, sent_to, turn

S = HostStatus
BMC1: m.Settings = {"type": "simulated", "address": "bmc-1"}
BMC2: m.Settings = {"type": "simulated", "address": "bmc-2"}
H2, H3 = "agent/H2@host-2", "agent/H3@host-3"
READY_IN_A_NEW_BOOT = m.AgentReady("H1", 3, "boot-2", 8, 16 * GIB)
READY_IN_THE_SAME_BOOT = m.AgentReady("H1", 3, "boot-1", 8, 16 * GIB)


class Story:
    """One host and what happens to it, in order; the time of each turn is the story's."""

    def __init__(self, config: Config | None = None, **fields: Any) -> None:
        base: dict[str, Any] = {"status": S.NON_RESPONSIVE, "fence_devices": [BMC1]}
        self.one = host(**(base | fields))
        self.config = config or Config()
        self.now_s = 200.0

    @property
    def record(self) -> Any:
        return self.one.record

    @property
    def step(self) -> str:
        return str(self.record.fence_step)

    def hear(self, message: m.AnyMessage, after_s: float = 0.0) -> Turn:
        self.now_s += after_s
        done = turn(me="host/H1", at_s=self.now_s, config=self.config)
        done.marks = []
        if isinstance(message, m.TimerFired) and self.record.timers.pop(message.name, None):
            done.save(self.record)
        self.one.handle(message, done)
        return done

    def begin(self, *, allowed: bool = True) -> Turn:
        """The engine has just found that the host is silent for good."""
        done = turn(me="host/H1", at_s=self.now_s, config=self.config)
        self.one.fencing.begin("not_responding", done)
        return self.advise() if allowed else done

    def advise(self, proxies: list[str] | None = None, *, check_lease: bool = True) -> Turn:
        named = [H2, H3] if proxies is None else proxies
        return self.hear(m.FencingAdvice("H1", self.record.fence_seq, True, "", named, check_lease))

    def refuse(self, reason: str) -> Turn:
        return self.hear(m.FencingAdvice("H1", self.record.fence_seq, False, reason, [H2, H3]))

    def due(self, name: str = "fence") -> Turn:
        """The deadline passes."""
        self.now_s = max(self.now_s, self.record.timers[name] / NS_PER_S)
        return self.hear(m.TimerFired(name))

    def device(self, action: str, *, ok: bool = True, power: str = "unknown", reason: str = "") -> Turn:
        seq = self.record.fence_seq
        return self.hear(m.FenceResult("H1", seq, action, ok, power, reason))  # type: ignore[arg-type]

    def restart_engine(self) -> Turn:
        self.one = Host(self.one.record)
        return self.hear(m.Recovered())

    def left_s(self, name: str = "fence") -> float:
        return float(self.record.timers[name] / NS_PER_S - self.now_s)


def at_off(**fields: Any) -> Story:
    """The order to switch off has just been given."""
    story = Story(**fields)
    story.begin()
    story.due()  # the agent was not brought back
    story.advise(check_lease=False)
    story.advise()
    assert story.step == "off"
    return story


def fenced(**fields: Any) -> Story:
    story = at_off(**fields)
    story.device("off")
    story.device("status", power="off")
    assert story.step == "ask_on"
    return story


def codes(done: Turn) -> list[tuple[str, str]]:
    return [(event.code, event.severity) for event in done.events]


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


# ---------------------------------------------------------------------- devices and proxies that fail


def orders(story: Story) -> list[tuple[str, Any]]:
    """Fail every order until the flow pauses; which proxy and device were tried."""
    tried = []
    while story.step in ("off", "ask_off_again"):
        if story.step == "ask_off_again":
            done = story.advise()
            tried += [(to, said.device) for to, said, _ in done.sent if isinstance(said, m.FenceHost)]
        else:
            story.device("off", ok=False, reason="no route to the device")
    return tried


def test_fence_order_that_fails_goes_to_the_next_proxy_then_the_next_device_in_rounds() -> None:
    story = at_off(fence_devices=[BMC1, BMC2])
    everyone = [(H2, BMC1), (H3, BMC1), (H2, BMC2), (H3, BMC2)]
    assert orders(story) == everyone[1:]
    assert (story.step, story.left_s()) == ("off_pause", 30.0)
    story.due()
    assert orders(story) == everyone
    story.due()
    assert orders(story) == everyone
    assert (story.step, story.left_s()) == ("failed", 30.0)
    assert "no route to the device" in story.record.fence_reason


def test_fence_flow_that_is_tried_out_alerts_and_begins_again_later_and_later() -> None:
    story = at_off()
    waits = []
    done = turn()
    for _ in range(7):
        while story.step != "failed":
            waits_for_device = story.step in ("off", "off_pause")
            done = story.due() if waits_for_device else story.advise(check_lease=False)
        assert codes(done) == [("host_fence_failed", "alert")]
        assert done.events[0].message == (
            f"host H1 could not be powered off: {H3} did not answer in 10 s; repair its power management, or once you "
            "have seen to it that it is off or has been restarted, say so: `olvm host confirm-rebooted H1`"
        )
        waits.append(story.left_s())
        story.due()
        assert story.step == "ask_check"
    assert waits == [30.0, 60.0, 120.0, 240.0, 480.0, FENCE_RETRY_S_MAX, FENCE_RETRY_S_MAX]


@pytest.mark.parametrize("how", ["silence", "refusal"])
def test_fence_status_that_is_not_answered_tries_another_proxy_from_the_order_on(how: str) -> None:
    story = at_off()
    story.device("off")
    if how == "silence":
        story.due()
    else:
        story.device("status", ok=False)
    assert story.step == "ask_off_again"
    assert story.advise().sent == [(H3, m.FenceHost("H1", story.record.fence_seq, "off", BMC1), False)]


def test_fence_device_that_says_on_for_ever_is_asked_eighteen_times_and_then_another_way_is_tried() -> None:
    story = at_off()
    story.device("off")
    polls = 0
    while story.step != "ask_off_again":
        story.device("status", power="unknown" if polls % 2 else "on")
        polls += 1
        if story.step == "off_wait":
            story.due()
    assert polls == 18


@pytest.mark.parametrize(
    "message",
    [
        m.FenceResult("H1", 3, "off", True),
        m.FenceResult("H1", 3, "status", True, "off"),
        m.FenceResult("H1", 4, "status", True, "off"),  # asked before the order was taken
        m.FenceResult("H1", 4, "on", True, "on"),
        m.FenceResult("H1", 5, "off", True),
        m.FencingAdvice("H1", 4, True, "", [H3]),
        m.FencingAdvice("H1", 3, True, "", [H3]),
        m.HostLeaseChecked("H1", 3, "live"),
        m.HostLeaseChecked("H1", 4, "live"),
        m.CallEnded("soft/4", False),
    ],
    ids=repr,
)
def test_fence_answer_that_is_late_or_belongs_to_another_question_changes_nothing(
    message: m.AnyMessage,
) -> None:
    story = at_off()
    assert story.record.fence_seq == 4
    before = encoded(story.record)
    assert story.hear(message).sent == []
    assert encoded(story.record) == before


def test_fence_that_succeeded_after_its_timeout_is_marked_and_proves_nothing() -> None:
    story = at_off()
    story.due()
    done = story.hear(m.FenceResult("H1", 4, "off", True))
    assert (done.marks, done.sent, story.step) == (["fence_succeeded_after_its_timeout"], [], "ask_off_again")


def test_fence_status_off_that_overtakes_another_answer_counts() -> None:
    story = at_off()
    story.device("off")
    story.device("status", power="on")
    done = story.device("status", power="off")
    assert any(isinstance(said, m.HostFenced) for said in sent_to(done, "cluster/prod"))


# ---------------------------------------------------------------------- a host that answers meanwhile


@pytest.mark.parametrize(
    "step", ["quiet", "ask_soft", "soft", "kdump", "ask_check", "lease", "retry", "ask_off", "failed"]
)
def test_fence_host_that_answers_before_it_is_touched_is_believed(step: str) -> None:
    story = Story(fence_step=step, fence_intent="not_responding", fence_seq=4, timers={"fence": 1})
    story.hear(m.Heartbeat("H1", 2, "boot-1"))
    assert (story.record.status, story.step, story.record.timers) == (S.UP, "", {})


@pytest.mark.parametrize("step", ["off", "off_status", "off_wait", "ask_off_again", "off_pause"])
@pytest.mark.parametrize(
    "message",
    [
        m.Heartbeat("H1", 2, "boot-1"),
        m.HostReport("H1", 2, 9, 1.0, []),
        READY_IN_THE_SAME_BOOT,
        m.AgentRecovering("H1", 2),
    ],
    ids=lambda message: type(message).__name__,
)
def test_fence_host_that_answers_after_the_order_is_power_cycled_to_the_end(
    step: str, message: m.AnyMessage
) -> None:
    story = Story(fence_step=step, fence_intent="not_responding", fence_seq=4, timers={"fence": 1})
    before = encoded(story.record)
    done = story.hear(message)
    assert (done.marks, done.sent) == (["host_answered_while_power_off_was_ordered"], [])
    assert encoded(story.record) == before


@pytest.mark.parametrize(
    "step", ["soft", "lease", "off", "off_status", "off_wait", "ask_off_again", "failed"]
)
def test_fence_host_that_comes_back_in_a_new_boot_ends_the_flow_and_proves_the_old_one(step: str) -> None:
    story = Story(fence_step=step, fence_intent="not_responding", fence_seq=4, timers={"fence": 1})
    said = sent_to(story.hear(READY_IN_A_NEW_BOOT), "cluster/prod")
    assert said[0] == m.HostFenced("H1", "boot-1", "it has been restarted")
    assert isinstance(said[-1], m.HostJoined)
    assert (story.record.status, story.step, story.record.timers) == (S.UP, "", {})
    late = story.hear(m.FenceResult("H1", 4, "status", True, "off"))
    assert (late.sent, story.record.fenced_boot_id) == ([], "boot-1")


# ---------------------------------------------------------------------- a boot that was proven over answers


def test_fence_device_that_lied_is_an_alert_and_the_host_is_fenced_again_and_not_believed() -> None:
    story = fenced()
    done = story.hear(READY_IN_THE_SAME_BOOT, 60.0)
    assert codes(done)[0] == ("host_fence_lied", "alert")
    assert (story.record.status, story.step) == (S.NON_RESPONSIVE, "ask_off_again")
    assert not any(isinstance(said, m.HostJoined) for said in sent_to(done, "cluster/prod"))
    assert done.marks == ["boot_that_was_proven_over_answers"]
    again = story.hear(READY_IN_THE_SAME_BOOT, 3.0)
    assert (again.events, again.sent, story.step) == ([], [], "ask_off_again")
    story.advise()
    story.device("off")
    done = story.device("status", power="off")
    assert isinstance(sent_to(done, "cluster/prod")[0], m.HostFenced)
    # It lies once more: that is a new alert.
    assert codes(story.hear(READY_IN_THE_SAME_BOOT))[0] == ("host_fence_lied", "alert")


def test_fence_lie_without_power_management_keeps_the_host_out_until_a_new_boot() -> None:
    story = Story(fence_devices=[], fenced_boot_id="boot-1")
    assert codes(story.hear(READY_IN_THE_SAME_BOOT)) == [("host_fence_lied", "alert")]
    assert (story.hear(READY_IN_THE_SAME_BOOT).events, story.record.status) == ([], S.NON_RESPONSIVE)
    story.hear(m.AgentReady("H1", 4, "boot-2", 8, 16 * GIB))
    assert story.record.status is S.UP


def test_fence_late_word_of_a_boot_before_the_present_one_is_an_alert_and_no_more() -> None:
    story = Story(status=S.UP, boot_id="boot-2", fenced_boot_id="boot-1")
    done = story.hear(READY_IN_THE_SAME_BOOT)
    assert (codes(done), done.sent) == ([("host_fence_lied", "alert")], [])
    assert (story.record.status, story.record.boot_id) == (S.UP, "boot-2")


# ---------------------------------------------------------------------- back on


def test_fence_host_that_cannot_be_powered_on_is_non_responsive_an_alert_and_tried_again() -> None:
    story = fenced()
    story.advise()
    story.device("on")
    done = story.due()
    assert codes(done)[0] == ("host_not_back", "alert")
    assert (story.record.status, story.step, story.left_s()) == (S.NON_RESPONSIVE, "not_back", 30.0)
    story.due()
    story.advise()
    story.device("on")
    assert (story.record.status, story.step) == (S.REBOOT, "booting")
    story.hear(READY_IN_A_NEW_BOOT)
    assert story.record.status is S.UP


def test_fence_host_without_a_proxy_to_power_it_on_does_not_stay_in_reboot_for_ever() -> None:
    story = fenced()
    for _ in range(2):
        story.advise([])
        story.due()
    story.advise([])
    assert (story.record.status, story.step) == (S.NON_RESPONSIVE, "not_back")


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


# ---------------------------------------------------------------------- by hand


def command(story: Story, action: m.HostVerb) -> Turn:
    return story.hear(m.CommandHost("op-1", action))


def test_fence_confirmed_by_a_person_is_as_good_as_a_device() -> None:
    story = Story(fence_step="failed", fence_intent="not_responding", fence_seq=4, timers={"fence": 1})
    assert command(story, "confirm_rebooted").sent == [
        ("cluster/prod", m.HostFenced("H1", "boot-1", "a person confirmed that it was restarted"), True),
        ("engine", m.OperationEnded("op-1", True), True),
    ]
    assert (story.step, story.record.timers, story.record.status) == ("", {}, S.NON_RESPONSIVE)


def test_fence_confirmed_while_power_is_switched_lets_the_flow_go_on() -> None:
    story = at_off()
    command(story, "confirm_rebooted")
    assert (story.step, story.record.fenced_boot_id) == ("off", "boot-1")


@pytest.mark.parametrize("status", [S.NON_OPERATIONAL, S.CONNECTING])
def test_fence_confirmed_of_a_host_that_answers_is_refused(status: HostStatus) -> None:
    story = Story(status=status)
    story.one.last_seen_ns = int(195 * NS_PER_S)
    (ended,) = endings(command(story, "confirm_rebooted"))
    assert ended.reason == "cannot confirm_rebooted host H1: it answers, and reports its machines itself"
    assert story.record.fenced_boot_id == ""


def test_fence_confirmed_of_a_host_within_its_grace_makes_its_machines_unknown_first() -> None:
    story = Story(status=S.CONNECTING)
    said = sent_to(command(story, "confirm_rebooted"), "cluster/prod")
    assert [type(one).__name__ for one in said] == ["HostUsable", "HostUnresponsive", "HostFenced"]


def test_fence_power_off_by_hand_is_down_when_the_device_says_so() -> None:
    story = Story(status=S.MAINTENANCE)
    assert command(story, "power_off").sent == [("cluster/prod", m.AskFencing("H1", 2), True)]
    story.refuse("a storm is no objection to a person")
    assert story.step == "off"
    story.device("off")
    done = story.device("status", power="off")
    assert (story.record.status, story.step) == (S.DOWN, "")
    assert endings(done) == [m.OperationEnded("op-1", True)]


def test_fence_restart_by_hand_ends_when_the_host_is_up_again() -> None:
    story = Story(status=S.MAINTENANCE)
    command(story, "restart")
    story.advise()
    story.device("off")
    assert endings(story.device("status", power="off")) == []
    story.advise()
    story.device("on")
    done = story.hear(READY_IN_A_NEW_BOOT, 60.0)
    assert (story.record.status, endings(done)) == (S.UP, [m.OperationEnded("op-1", True)])


def test_fence_power_on_by_hand_brings_a_host_that_is_down_into_service() -> None:
    story = Story(status=S.DOWN, fenced_boot_id="boot-1")
    command(story, "power_on")
    assert story.advise().sent == [(H2, m.FenceHost("H1", 2, "on", BMC1), False)]
    story.device("on")
    assert story.record.status is S.REBOOT
    done = story.hear(READY_IN_A_NEW_BOOT)
    assert (story.record.status, endings(done)) == (S.UP, [m.OperationEnded("op-1", True)])


def test_fence_power_on_of_a_host_that_started_before_the_device_said_so_is_up() -> None:
    story = Story(status=S.DOWN, fenced_boot_id="boot-1")
    command(story, "power_on")
    story.advise()
    done = story.hear(READY_IN_A_NEW_BOOT)
    assert (story.record.status, story.step) == (S.UP, "")
    assert endings(done) == [m.OperationEnded("op-1", True)]


def test_fence_power_on_of_a_silent_host_that_stays_silent_proves_nothing_and_fences_it() -> None:
    story = Story()
    command(story, "power_on")
    story.advise()
    story.device("on")
    done = story.due()
    assert (story.record.status, story.step) == (S.NON_RESPONSIVE, "ask_soft")
    assert story.record.fenced_boot_id == ""
    assert [ended.succeeded for ended in endings(done)] == [False]


def test_fence_restart_by_hand_takes_over_a_flow_that_waits() -> None:
    story = Story(fence_step="retry", fence_intent="not_responding", fence_seq=4, timers={"fence": 1})
    command(story, "restart")
    assert (story.step, story.record.fence_intent) == ("ask_off", "restart")


@pytest.mark.parametrize("action", ["restart", "power_off", "power_on", "maintenance"])
def test_fence_command_beside_a_flow_that_switches_is_refused(action: m.HostVerb) -> None:
    story = at_off()
    before = encoded(story.record)
    (ended,) = endings(command(story, action))
    assert ended.reason == (
        f"cannot {action} host H1: its power is being switched (off); wait until it is up or down"
    )
    assert encoded(story.record) == before


@pytest.mark.parametrize("action", ["restart", "power_off", "power_on"])
def test_fence_command_without_power_management_or_in_its_quiet_time_is_refused(action: m.HostVerb) -> None:
    story = Story(fence_devices=[])
    (ended,) = endings(command(story, action))
    assert ended.reason == f"cannot {action} host H1: it has no power management; switch it by hand"
    story = Story(timers={"power_quiet": int(230 * NS_PER_S)})
    (ended,) = endings(command(story, action))
    assert ended.reason == f"cannot {action} host H1: its power was switched a moment ago; ask again in 30 s"


def test_fence_quiet_time_between_commands_begins_with_one_and_ends_by_itself() -> None:
    story = Story(status=S.MAINTENANCE)
    command(story, "power_off")
    assert story.left_s("power_quiet") == 180.0
    story.due("power_quiet")
    assert "power_quiet" not in story.record.timers


@pytest.mark.parametrize(
    "status", [S.UP, S.ERROR, S.NON_OPERATIONAL, S.PREPARING_FOR_MAINTENANCE, S.CONNECTING]
)
def test_fence_power_of_a_host_that_may_run_machines_is_not_switched_by_hand(status: HostStatus) -> None:
    for action in ("restart", "power_off"):
        story = Story(status=status)
        (ended,) = endings(command(story, action))
        assert not ended.succeeded
        assert story.step == ""


def test_fence_by_hand_that_fails_says_why_and_leaves_the_rest_to_the_flow_of_a_silent_host() -> None:
    for status, step in ((S.MAINTENANCE, ""), (S.NON_RESPONSIVE, "failed")):
        story = Story(status=status)
        command(story, "restart")
        done = turn()
        while story.step not in ("", "failed"):
            done = story.advise() if story.step.startswith("ask") else story.due()
        (ended,) = endings(done)
        assert "could not be powered off" in ended.reason
        assert (story.step, story.record.operation_id) == (step, None)


def test_fence_by_hand_without_a_proxy_is_given_up_after_three_tries() -> None:
    story = Story(status=S.MAINTENANCE)
    command(story, "power_off")
    for _ in range(2):
        assert endings(story.advise([])) == []
        story.due()
    (ended,) = endings(story.advise([]))
    assert "no other host of its cluster is up" in ended.reason


def test_fence_restart_by_hand_of_a_host_that_answers_before_it_is_touched_fails_with_that_reason() -> None:
    story = Story()
    command(story, "restart")
    done = story.hear(m.Heartbeat("H1", 2, "boot-1"))
    assert (story.record.status, story.step) == (S.UP, "")
    assert [ended.reason for ended in endings(done)] == ["host H1 answers (answered); it was not powered off"]


def test_fence_power_off_of_a_host_that_starts_anew_meanwhile_fails_with_that_reason() -> None:
    story = Story(status=S.MAINTENANCE)
    command(story, "power_off")
    story.advise()
    (ended,) = endings(story.hear(READY_IN_A_NEW_BOOT))
    assert (ended.succeeded, story.record.status, story.step) == (False, S.MAINTENANCE, "")


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("ask_soft", m.FencingAdvice("H1", 3, True, "", [H2])),
        ("ask_off", m.FencingAdvice("H1", 3, True, "", [H2])),
        ("ask_off", m.FencingAdvice("H1", 3, False, "a storm that is over", [H2])),
        ("lease", m.HostLeaseChecked("H1", 3, "dead")),
        ("soft", m.CallEnded("soft/3", False)),
    ],
    ids=repr,
)
def test_fence_answer_to_an_earlier_question_of_the_same_kind_changes_nothing(
    step: str, message: m.AnyMessage
) -> None:
    story = Story(fence_step=step, fence_intent="not_responding", fence_seq=4, timers={"fence": 1})
    before = encoded(story.record)
    assert story.hear(message).sent == []
    assert encoded(story.record) == before


def test_fence_confirmed_ends_the_restart_that_waited_for_a_proxy() -> None:
    story = Story()
    command(story, "restart")
    story.advise([])
    done = story.hear(m.CommandHost("op-2", "confirm_rebooted"))
    assert [(ended.operation_id, ended.succeeded) for ended in endings(done)] == [
        ("op-1", False),
        ("op-2", True),
    ]
    assert story.record.operation_id is None
