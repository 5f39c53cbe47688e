"""Fence devices and hosts that fail, lie, are late or answer meanwhile: what is tried next, and what is believed."""

from __future__ import annotations

from typing import Any

import pytest

from olvm.model import messages as m
from olvm.model.limits import FENCE_RETRY_S_MAX
from tests.builders import GIB, encoded, sent_to, turn
from tests.unit.actors.fence_story import (
    BMC1,
    BMC2,
    H2,
    H3,
    READY_IN_A_NEW_BOOT,
    READY_IN_THE_SAME_BOOT,
    S,
    Story,
    at_off,
    codes,
    fenced,
)

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
