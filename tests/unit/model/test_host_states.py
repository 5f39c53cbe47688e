"""The host's table of transitions, pair by pair, and oVirt's black-list for hosts."""

from __future__ import annotations

from itertools import product

import pytest

from olvm.model.host_states import (
    FORBIDDEN_HOST_ACTIONS,
    HOST_TRANSITIONS,
    INITIAL,
    MONITORED,
    OVIRT_NUMBER_BY_HOST_STATUS,
    SCHEDULABLE,
    TRIGGER_BY_ACTION,
    HostAction,
    HostStatus,
    HostTrigger,
    host_refusal,
    next_host_status,
)
from olvm.model.transitions import IllegalTransition

FORBIDDEN_COUNT = {
    HostStatus.UP: 7,
    HostStatus.MAINTENANCE: 3,
    HostStatus.NON_OPERATIONAL: 2,
    HostStatus.NON_RESPONSIVE: 6,
    HostStatus.PREPARING_FOR_MAINTENANCE: 7,
    HostStatus.CONNECTING: 7,
    HostStatus.ERROR: 6,
    HostStatus.REBOOT: 8,
    HostStatus.UNASSIGNED: 8,
    HostStatus.INITIALIZING: 8,
    HostStatus.KDUMPING: 8,
    HostStatus.INSTALLING: 11,
    HostStatus.DOWN: 7,
    HostStatus.INSTALL_FAILED: 2,
    HostStatus.PENDING_APPROVAL: 8,
    HostStatus.INSTALLING_OS: 9,
}


@pytest.mark.parametrize(("status", "trigger"), list(product(HostStatus, HostTrigger)))
def test_host_transition_of_every_pair_follows_the_table_or_raises(
    status: HostStatus, trigger: HostTrigger
) -> None:
    expected = HOST_TRANSITIONS.get((status, trigger))
    if expected is not None:
        assert next_host_status(status, trigger) is expected
        return
    before = dict(HOST_TRANSITIONS)
    with pytest.raises(IllegalTransition, match=f"{trigger.value} does not apply to a host that is"):
        next_host_status(status, trigger)
    assert before == HOST_TRANSITIONS


def test_host_statuses_are_all_reached_from_the_initial_ones() -> None:
    reached = set(INITIAL)
    for _ in HostStatus:
        reached |= {to for (start, _), to in HOST_TRANSITIONS.items() if start in reached}
    assert reached == set(HostStatus)


def test_host_statuses_all_lead_to_up_and_to_maintenance() -> None:
    for goal in (HostStatus.UP, HostStatus.MAINTENANCE):
        escaping = {goal}
        for _ in HostStatus:
            escaping |= {start for (start, _), to in HOST_TRANSITIONS.items() if to in escaping}
        assert escaping == set(HostStatus)


def test_host_triggers_are_all_used_and_numbers_are_ovirts() -> None:
    assert {trigger for _, trigger in HOST_TRANSITIONS} == set(HostTrigger)
    assert sorted(OVIRT_NUMBER_BY_HOST_STATUS.values()) == list(range(16))
    assert {HostStatus.UP} == SCHEDULABLE
    assert len(MONITORED) == 8


@pytest.mark.parametrize("status", sorted(MONITORED))
def test_host_that_is_monitored_and_silent_ends_non_responsive(status: HostStatus) -> None:
    if status not in (HostStatus.CONNECTING, HostStatus.NON_RESPONSIVE):
        status = next_host_status(status, HostTrigger.HEARTBEAT_MISSED)
    if status is HostStatus.CONNECTING:
        status = next_host_status(status, HostTrigger.GRACE_OVER)
    assert status is HostStatus.NON_RESPONSIVE
    assert next_host_status(status, HostTrigger.ANSWERED) is HostStatus.UP


def test_host_life_cycle_of_maintenance_and_failed_starts_reads_as_the_reference_says() -> None:
    status, seen = HostStatus.INSTALLING, []
    for trigger in (
        HostTrigger.CAPABILITIES_OK,
        HostTrigger.FAILED_RUNS,
        HostTrigger.ERROR_EXPIRED,
        HostTrigger.MAINTENANCE_REQUESTED,
        HostTrigger.EMPTIED,
        HostTrigger.ACTIVATE,
        HostTrigger.CAPABILITIES_OK,
    ):
        status = next_host_status(status, trigger)
        seen.append(status.value)
    assert seen == ["up", "error", "up", "preparing_for_maintenance", "maintenance", "unassigned", "up"]


def test_host_black_list_has_ovirts_universe_and_counts() -> None:
    assert len(HostAction) == 14
    assert {status: len(actions) for status, actions in FORBIDDEN_HOST_ACTIONS.items()} == FORBIDDEN_COUNT


@pytest.mark.parametrize(("status", "action"), list(product(HostStatus, HostAction)))
def test_host_command_that_is_let_through_always_has_a_transition(
    status: HostStatus, action: HostAction
) -> None:
    refusal = host_refusal("kvm01", status, action)
    trigger = TRIGGER_BY_ACTION.get(action)
    if refusal is None:
        assert action not in FORBIDDEN_HOST_ACTIONS[status]
        assert trigger is None or (status, trigger) in HOST_TRANSITIONS
    else:
        assert refusal.startswith("cannot ")
        assert "host kvm01" in refusal
        assert f"it is {status.value}" in refusal
        assert "; " in refusal
        assert "\n" not in refusal


@pytest.mark.parametrize(
    ("action", "taken_in"),
    [
        (
            "activate",
            {"maintenance", "non_operational", "install_failed", "error", "preparing_for_maintenance"},
        ),
        (
            "maintenance",
            {"up", "non_operational", "non_responsive", "error", "down", "install_failed"},
        ),
        ("remove", {"maintenance", "down", "install_failed", "pending_approval", "installing_os"}),
        ("approve", {"pending_approval"}),
        ("start", {"maintenance", "down", "non_responsive"}),
        ("stop", {"maintenance", "non_responsive"}),
        (
            "clear_non_responsive_vms",
            {"non_responsive", "connecting", "non_operational", "down", "install_failed"},
        ),
    ],
)
def test_host_command_is_taken_in_exactly_these_statuses(action: str, taken_in: set[str]) -> None:
    free = {status for status in HostStatus if host_refusal("kvm01", status, HostAction(action)) is None}
    assert free == taken_in


def test_host_refusal_says_what_which_why_and_what_to_do() -> None:
    assert host_refusal("kvm01", HostStatus.UP, HostAction.REMOVE) == (
        "cannot remove host kvm01: it is up; put it into maintenance first"
    )
    assert host_refusal("kvm01", HostStatus.CONNECTING, HostAction.MAINTENANCE) == (
        "cannot put host kvm01 into maintenance: it is connecting (it stopped answering a moment ago); "
        "wait until it answers or is non_responsive"
    )


def test_host_refusal_says_what_was_asked_where_the_action_has_another_word() -> None:
    assert host_refusal("kvm01", HostStatus.UP, HostAction.STOP, asked="restart {}") == (
        "cannot restart host kvm01: it is up; put it into maintenance first"
    )


@pytest.mark.parametrize("status", ["up", "unassigned", "connecting", "non_responsive"])
def test_host_whose_agent_recovers_is_initializing_then_up_or_non_operational(status: str) -> None:
    recovering = next_host_status(HostStatus(status), HostTrigger.AGENT_RECOVERING)
    assert recovering is HostStatus.INITIALIZING
    assert next_host_status(recovering, HostTrigger.CAPABILITIES_OK) is HostStatus.UP
    for trigger in (HostTrigger.RECOVERY_TIMED_OUT, HostTrigger.REQUIREMENTS_FAILED):
        assert next_host_status(recovering, trigger) is HostStatus.NON_OPERATIONAL
