"""Power by a person's command: what is confirmed, switched or refused, and how each operation ends."""

from __future__ import annotations

import msgspec
import pytest

from olvm.model import messages as m
from olvm.model.host_states import HostStatus
from olvm.model.limits import NS_PER_S
from tests.builders import encoded, endings, sent_to, turn
from tests.unit.actors.fence_story import (
    BMC1,
    H2,
    READY_IN_A_NEW_BOOT,
    S,
    Story,
    at_off,
    command,
)


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


@pytest.mark.parametrize("silent_from", [S.UP, S.ERROR])
@pytest.mark.parametrize("by", ["heartbeat", "agent"])
def test_fence_power_on_of_a_silent_host_that_answers_ends_for_it_was_on(
    silent_from: HostStatus, by: str
) -> None:
    """Its agent is not started anew, so no word of it would ever end the operation."""
    story = Story(silent_from=silent_from.value)
    command(story, "power_on")
    record = story.record
    heartbeat = m.Heartbeat("H1", record.host_epoch, record.boot_id)
    ready = msgspec.structs.replace(READY_IN_A_NEW_BOOT, host_epoch=record.host_epoch, boot_id=record.boot_id)
    done = story.hear(heartbeat if by == "heartbeat" else ready)
    assert (record.status, story.step) == (silent_from, "")
    assert endings(done) == [m.OperationEnded("op-1", True)]


@pytest.mark.parametrize("action", ["restart", "power_on"])
def test_fence_of_a_silent_host_that_started_anew_ends_in_the_error_it_was_in(action: m.HostVerb) -> None:
    story = Story(silent_from=S.ERROR.value)
    command(story, action)
    done = story.hear(READY_IN_A_NEW_BOOT)
    assert (story.record.status, story.step) == (S.ERROR, "")
    assert endings(done) == [m.OperationEnded("op-1", True)]


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
