"""The machine's table of transitions, pair by pair, and oVirt's black-list by its published counts."""

from __future__ import annotations

from itertools import product

import pytest

from olvm.model.errors import from_wire
from olvm.model.transitions import IllegalTransition, mermaid
from olvm.model.vm_actions import FORBIDDEN_VM_ACTIONS, TRIGGERS_BY_ACTION, VmAction, vm_refusal
from olvm.model.vm_states import (
    NOT_RUNNING,
    ON_A_HOST,
    OVIRT_NUMBER_BY_VM_STATUS,
    RUNNING,
    RUNNING_OR_PAUSED,
    VM_TRANSITIONS,
    VmStatus,
    VmTrigger,
    next_vm_status,
    returned_trigger,
)

# How many actions oVirt forbids in each status: reference figures, not derived from our table.
FORBIDDEN_COUNT = {
    VmStatus.UP: 7,
    VmStatus.DOWN: 8,
    VmStatus.POWERING_UP: 14,
    VmStatus.WAIT_FOR_LAUNCH: 17,
    VmStatus.POWERING_DOWN: 17,
    VmStatus.REBOOT_IN_PROGRESS: 15,
    VmStatus.MIGRATING_FROM: 17,
    VmStatus.SUSPENDED: 15,
    VmStatus.PAUSED: 14,
    VmStatus.SAVING_STATE: 20,
    VmStatus.RESTORING_STATE: 20,
    VmStatus.NOT_RESPONDING: 19,
    VmStatus.IMAGE_ILLEGAL: 20,
    VmStatus.IMAGE_LOCKED: 21,
    VmStatus.UNASSIGNED: 21,
    VmStatus.UNKNOWN: 20,
}


@pytest.mark.parametrize(("status", "trigger"), list(product(VmStatus, VmTrigger)))
def test_vm_transition_of_every_pair_follows_the_table_or_raises(
    status: VmStatus, trigger: VmTrigger
) -> None:
    expected = VM_TRANSITIONS.get((status, trigger))
    if expected is not None:
        assert next_vm_status(status, trigger) is expected
        return
    before = dict(VM_TRANSITIONS)
    with pytest.raises(IllegalTransition, match=f"{trigger.value} does not apply to a machine that is"):
        next_vm_status(status, trigger)
    assert before == VM_TRANSITIONS


def test_vm_life_cycle_of_a_plain_machine_reads_as_the_reference_says() -> None:
    status, seen = VmStatus.UNASSIGNED, []
    for trigger in (
        VmTrigger.REGISTERED,
        VmTrigger.RUN_ACCEPTED,
        VmTrigger.LAUNCHED,
        VmTrigger.GUEST_UP,
        VmTrigger.SAVE_REQUESTED,
        VmTrigger.SAVED,
        VmTrigger.RUN_ACCEPTED,
        VmTrigger.GUEST_UP,
        VmTrigger.MIGRATE_STARTED,
        VmTrigger.MIGRATED,
        VmTrigger.HOST_LOST,
        VmTrigger.RETURNED_UP,
        VmTrigger.SHUTDOWN_REQUESTED,
        VmTrigger.STOPPED,
    ):
        status = next_vm_status(status, trigger)
        seen.append(status.value)
    assert seen == [
        "down",
        "wait_for_launch",
        "powering_up",
        "up",
        "saving_state",
        "suspended",
        "restoring_state",
        "up",
        "migrating_from",
        "up",
        "unknown",
        "up",
        "powering_down",
        "down",
    ]


def test_vm_statuses_are_all_reached_from_unassigned() -> None:
    reached = {VmStatus.UNASSIGNED}
    for _ in VmStatus:
        reached |= {to for (start, _), to in VM_TRANSITIONS.items() if start in reached}
    assert reached == set(VmStatus)


def test_vm_statuses_all_lead_back_to_down() -> None:
    escaping = {VmStatus.DOWN}
    for _ in VmStatus:
        escaping |= {start for (start, _), to in VM_TRANSITIONS.items() if to in escaping}
    assert escaping == set(VmStatus)


def test_vm_triggers_are_all_used() -> None:
    assert {trigger for _, trigger in VM_TRANSITIONS} == set(VmTrigger)


def test_vm_statuses_have_ovirts_numbers_and_groups() -> None:
    assert len(VmStatus) == 17
    assert sorted(OVIRT_NUMBER_BY_VM_STATUS.values()) == [-1, 0, 1, 2, *range(4, 17)]
    assert set(OVIRT_NUMBER_BY_VM_STATUS) == set(VmStatus)
    assert not RUNNING_OR_PAUSED & NOT_RUNNING
    assert len(RUNNING) == 7
    assert len(RUNNING_OR_PAUSED) == 10
    outside = {VmStatus.UNASSIGNED, VmStatus.UNKNOWN}
    assert set(VmStatus) == ON_A_HOST | NOT_RUNNING | outside


@pytest.mark.parametrize("status", sorted(ON_A_HOST))
def test_vm_on_a_host_that_is_missed_is_unknown_and_never_down(status: VmStatus) -> None:
    assert next_vm_status(status, VmTrigger.DISAPPEARED) is VmStatus.UNKNOWN
    assert next_vm_status(status, VmTrigger.HOST_LOST) is VmStatus.UNKNOWN


def test_vm_unknown_goes_down_only_by_proof() -> None:
    proofs = {
        trigger for (start, trigger), to in VM_TRANSITIONS.items() if (start, to) == ("unknown", "down")
    }
    assert proofs == {VmTrigger.CONFIRMED_DEAD, VmTrigger.RETURNED_DOWN}


@pytest.mark.parametrize("reported", VmStatus)
def test_vm_returned_from_unknown_has_the_reported_status(reported: VmStatus) -> None:
    trigger = returned_trigger(reported)
    settles = reported in (ON_A_HOST | {VmStatus.DOWN, VmStatus.SUSPENDED}) - {
        VmStatus.MIGRATING_TO,
        VmStatus.NOT_RESPONDING,
    }
    assert (trigger is not None) == settles
    for doubtful in (VmStatus.UNKNOWN, VmStatus.NOT_RESPONDING):
        if trigger is not None:
            assert next_vm_status(doubtful, trigger) is reported


def test_illegal_transition_crosses_the_wire_with_its_class() -> None:
    with pytest.raises(IllegalTransition) as caught:
        next_vm_status(VmStatus.IMAGE_LOCKED, VmTrigger.LAUNCHED)
    assert "which takes only images_released, images_broken" in caught.value.message
    assert isinstance(from_wire(*caught.value.to_wire()), IllegalTransition)


# ---------------------------------------------------------------- what may be asked


def test_vm_black_list_has_ovirts_universe_and_counts() -> None:
    assert len(VmAction) == 21
    assert {status: len(actions) for status, actions in FORBIDDEN_VM_ACTIONS.items()} == FORBIDDEN_COUNT


@pytest.mark.parametrize(
    ("status", "allowed"),
    [
        (VmStatus.IMAGE_ILLEGAL, {VmAction.REMOVE}),
        (VmStatus.NOT_RESPONDING, {VmAction.STOP, VmAction.SHUTDOWN}),
        (VmStatus.UNKNOWN, {VmAction.RESTORE_SNAPSHOTS}),
        (
            VmStatus.MIGRATING_FROM,
            {VmAction.CANCEL_MIGRATE, VmAction.STOP, VmAction.SHUTDOWN, VmAction.CLONE},
        ),
    ],
)
def test_vm_black_list_of_a_status_leaves_what_ovirt_leaves(status: VmStatus, allowed: set[VmAction]) -> None:
    assert set(VmAction) - FORBIDDEN_VM_ACTIONS[status] == allowed


def test_vm_cancel_of_a_migration_is_allowed_only_while_migrating() -> None:
    free = {status for status in VmStatus if vm_refusal("web-1", status, VmAction.CANCEL_MIGRATE) is None}
    assert free == {VmStatus.MIGRATING_FROM}


@pytest.mark.parametrize(("status", "action"), list(product(VmStatus, VmAction)))
def test_vm_command_that_is_let_through_always_has_a_transition(status: VmStatus, action: VmAction) -> None:
    refusal = vm_refusal("web-1", status, action)
    triggers = TRIGGERS_BY_ACTION.get(action, ())
    if refusal is None:
        assert action not in FORBIDDEN_VM_ACTIONS.get(status, ())
        assert not triggers or any((status, trigger) in VM_TRANSITIONS for trigger in triggers)
    else:
        assert refusal.startswith("cannot ")
        assert " web-1: it is " in refusal
        assert status.value in refusal
        assert "; " in refusal
        assert "\n" not in refusal


@pytest.mark.parametrize(
    ("status", "action", "sentence"),
    [
        ("up", "run", "cannot start web-1: it is up; stop it first, or use reboot"),
        ("down", "reboot", "cannot reboot web-1: it is down; start it first"),
        (
            "suspended",
            "reset",
            "cannot reset web-1: it is suspended (its memory is saved on disk); "
            "there is nothing to reset; start it, or stop it to discard its memory",
        ),
        (
            "migrating_to",
            "remove",
            "cannot remove web-1: it is migrating_to (it is arriving on another host); "
            "wait for the migration to end",
        ),
    ],
)
def test_vm_refusal_says_what_which_why_and_what_to_do(status: str, action: str, sentence: str) -> None:
    assert vm_refusal("web-1", VmStatus(status), VmAction(action)) == sentence


@pytest.mark.parametrize(
    ("status", "free"),
    [
        ("down", {"run", "run_once", "remove"}),
        ("up", {"stop", "shutdown", "reboot", "reset", "hibernate", "migrate"}),
        ("paused", {"run", "stop", "migrate"}),
        ("suspended", {"run", "stop"}),
        ("unknown", set()),
        ("image_locked", set()),
    ],
)
def test_vm_commands_of_the_life_cycle_that_a_status_takes(status: str, free: set[str]) -> None:
    life_cycle = {*TRIGGERS_BY_ACTION, VmAction.REMOVE}
    assert {action for action in life_cycle if vm_refusal("web-1", VmStatus(status), action) is None} == free


def test_mermaid_of_the_vm_table_draws_each_edge_once_with_all_triggers() -> None:
    drawing = mermaid(VM_TRANSITIONS).splitlines()
    assert drawing[0] == "stateDiagram-v2"
    edges = {(start, to) for (start, _), to in VM_TRANSITIONS.items()}
    assert len(drawing) == 1 + len(edges)
    assert "    suspended --> restoring_state: run_accepted" in drawing
    assert "    up --> down: stopped, crashed" in drawing
    drawn = sum(len(line.split(": ")[1].split(", ")) for line in drawing[1:])
    assert drawn == len(VM_TRANSITIONS)
