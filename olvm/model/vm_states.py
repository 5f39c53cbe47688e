"""The life of a machine: its 17 statuses, what may be asked in each, and how one becomes another.

It decides nothing by itself: the `Vm` actor asks `vm_refusal` before it accepts a command and
`next_vm_status` for every change. It must not know actors, hosts or time.

Rules:
1. A command that `vm_refusal` lets through never meets a missing row of `VM_TRANSITIONS`.
2. A machine that a report does not name is Unknown, not Down (oVirt says Down). Only a confirmed fence, an
   expired lease or the hypervisor's own word that it has no such machine leads from there to Down.
3. A machine that returns from Unknown or NotResponding has the status that its host reports.

Source: `VMStatus.java`, `ActionUtils.java` and `VmAnalyzer.java` of ovirt-engine 4.5.
"""

from __future__ import annotations

from enum import StrEnum

from olvm.model.transitions import every, flatten, step


class VmStatus(StrEnum):
    UNASSIGNED = "unassigned"  # nothing is known yet; where every machine's life begins
    DOWN = "down"
    UP = "up"
    POWERING_UP = "powering_up"  # QEMU runs, the guest has not reported
    PAUSED = "paused"  # vCPUs are stopped: by a user, an I/O error, or the post-copy phase of a migration
    MIGRATING_FROM = "migrating_from"
    MIGRATING_TO = "migrating_to"
    UNKNOWN = "unknown"  # its host does not answer: it may or may not run
    NOT_RESPONDING = "not_responding"  # its host answers, its QEMU monitor does not
    WAIT_FOR_LAUNCH = "wait_for_launch"  # the host accepted it, QEMU does not run yet
    REBOOT_IN_PROGRESS = "reboot_in_progress"
    SAVING_STATE = "saving_state"
    RESTORING_STATE = "restoring_state"
    SUSPENDED = "suspended"  # saved to disk; a start restores its memory
    IMAGE_ILLEGAL = "image_illegal"
    IMAGE_LOCKED = "image_locked"
    POWERING_DOWN = "powering_down"


S = VmStatus

# The numbers that oVirt keeps in its database and shows in its history; 3 was never reused.
OVIRT_NUMBER_BY_VM_STATUS: dict[VmStatus, int] = {
    S.UNASSIGNED: -1,
    S.DOWN: 0,
    S.UP: 1,
    S.POWERING_UP: 2,
    S.PAUSED: 4,
    S.MIGRATING_FROM: 5,
    S.MIGRATING_TO: 6,
    S.UNKNOWN: 7,
    S.NOT_RESPONDING: 8,
    S.WAIT_FOR_LAUNCH: 9,
    S.REBOOT_IN_PROGRESS: 10,
    S.SAVING_STATE: 11,
    S.RESTORING_STATE: 12,
    S.SUSPENDED: 13,
    S.IMAGE_ILLEGAL: 14,
    S.IMAGE_LOCKED: 15,
    S.POWERING_DOWN: 16,
}

# ---------------------------------------------------------------- groups of statuses that commands test

NOT_RUNNING = frozenset({S.DOWN, S.SUSPENDED, S.IMAGE_LOCKED, S.IMAGE_ILLEGAL})
RUNNING = frozenset(
    {
        S.UP,
        S.POWERING_DOWN,
        S.POWERING_UP,
        S.MIGRATING_FROM,
        S.MIGRATING_TO,
        S.WAIT_FOR_LAUNCH,
        S.REBOOT_IN_PROGRESS,
    }
)
RUNNING_OR_PAUSED = RUNNING | {S.PAUSED, S.SAVING_STATE, S.RESTORING_STATE}
QUALIFIED_TO_MIGRATE = frozenset({S.UP, S.POWERING_UP, S.PAUSED, S.REBOOT_IN_PROGRESS})
LIVE_MERGE_ALLOWED = QUALIFIED_TO_MIGRATE
MERGE_ALLOWED = LIVE_MERGE_ALLOWED | {S.DOWN}
GUEST_CPU_RUNNING = frozenset({S.UP, S.POWERING_UP})
CONSOLE_ALLOWED = frozenset(
    {
        S.POWERING_UP,
        S.UP,
        S.REBOOT_IN_PROGRESS,
        S.POWERING_DOWN,
        S.PAUSED,
        S.MIGRATING_FROM,
        S.SAVING_STATE,
    }
)
BACKUP_ALLOWED = frozenset({S.UP, S.DOWN})
QOS_LIVE_CHANGE_ALLOWED = frozenset({S.UP})
WAITING_TO_COME_UP = frozenset(
    {
        S.WAIT_FOR_LAUNCH,
        S.POWERING_UP,
        S.PAUSED,
        S.REBOOT_IN_PROGRESS,
        S.MIGRATING_TO,
        S.MIGRATING_FROM,
        S.RESTORING_STATE,
    }
)
# A process on some host may exist for it and answers for its fate. Unknown is apart: there nobody answers.
ON_A_HOST = RUNNING_OR_PAUSED | {S.NOT_RESPONDING}

# ---------------------------------------------------------------- the table of transitions


class VmTrigger(StrEnum):
    REGISTERED = "registered"
    RUN_ACCEPTED = "run_accepted"
    LAUNCHED = "launched"
    LAUNCH_FAILED = "launch_failed"
    GUEST_UP = "guest_up"
    STILL_BOOTING = "still_booting"  # taken for up after a migration, and its guest has not reported yet
    SHUTDOWN_REQUESTED = "shutdown_requested"
    SHUTDOWN_TIMED_OUT = "shutdown_timed_out"
    REBOOT_REQUESTED = "reboot_requested"
    REBOOT_TIMED_OUT = "reboot_timed_out"
    RESET_REQUESTED = "reset_requested"
    GUEST_REBOOTED = "guest_rebooted"  # nobody asked
    PAUSED = "paused"
    CONTINUED = "continued"
    SAVE_REQUESTED = "save_requested"
    SAVED = "saved"
    SAVE_FAILED = "save_failed"
    STOPPED = "stopped"  # it ended as somebody asked: shutdown from inside included
    CRASHED = "crashed"
    DISAPPEARED = "disappeared"  # a full report of its host does not name it
    HOST_LOST = "host_lost"
    CONFIRMED_DEAD = "confirmed_dead"  # fenced, lease expired, or the hypervisor has no such machine
    MONITOR_LOST = "monitor_lost"
    MONITOR_BACK = "monitor_back"  # and the guest runs; any other case is a returned_*
    RETURNED_UP = "returned_up"
    RETURNED_POWERING_UP = "returned_powering_up"
    RETURNED_POWERING_DOWN = "returned_powering_down"
    RETURNED_REBOOT_IN_PROGRESS = "returned_reboot_in_progress"
    RETURNED_PAUSED = "returned_paused"
    RETURNED_MIGRATING_FROM = "returned_migrating_from"
    RETURNED_WAIT_FOR_LAUNCH = "returned_wait_for_launch"
    RETURNED_SAVING_STATE = "returned_saving_state"
    RETURNED_RESTORING_STATE = "returned_restoring_state"
    RETURNED_SUSPENDED = "returned_suspended"  # it went down by a save that nobody saw the end of
    RETURNED_DOWN = "returned_down"
    MIGRATE_STARTED = "migrate_started"
    MIGRATION_ARRIVING = "migration_arriving"  # the destination's side
    MIGRATED = "migrated"
    MIGRATION_FAILED = "migration_failed"
    IMAGES_LOCKED = "images_locked"
    IMAGES_RELEASED = "images_released"
    IMAGES_BROKEN = "images_broken"
    IMAGES_REPAIRED = "images_repaired"


T = VmTrigger
_UNSURE = (S.UNKNOWN, S.NOT_RESPONDING)

VM_TRANSITIONS: dict[tuple[VmStatus, VmTrigger], VmStatus] = flatten(
    {
        T.REGISTERED: {S.UNASSIGNED: S.DOWN},
        # Start. Events may be lost, so a guest may be up before its launch was heard of.
        T.RUN_ACCEPTED: {S.DOWN: S.WAIT_FOR_LAUNCH, S.SUSPENDED: S.RESTORING_STATE},
        T.LAUNCHED: {S.WAIT_FOR_LAUNCH: S.POWERING_UP, S.RESTORING_STATE: S.POWERING_UP},
        T.LAUNCH_FAILED: {S.WAIT_FOR_LAUNCH: S.DOWN, S.RESTORING_STATE: S.SUSPENDED},
        T.GUEST_UP: every({S.WAIT_FOR_LAUNCH, S.POWERING_UP, S.REBOOT_IN_PROGRESS, S.RESTORING_STATE}, S.UP),
        T.STILL_BOOTING: {S.UP: S.POWERING_UP},
        # Ask the guest. A second request asks it again.
        T.SHUTDOWN_REQUESTED: every(
            {S.UP, S.POWERING_UP, S.REBOOT_IN_PROGRESS, S.POWERING_DOWN}, S.POWERING_DOWN
        ),
        T.SHUTDOWN_TIMED_OUT: {S.POWERING_DOWN: S.UP},
        T.REBOOT_REQUESTED: every({S.UP, S.POWERING_UP}, S.REBOOT_IN_PROGRESS),
        T.REBOOT_TIMED_OUT: {S.REBOOT_IN_PROGRESS: S.UP},
        T.RESET_REQUESTED: every({S.UP, S.POWERING_UP, S.REBOOT_IN_PROGRESS}, S.REBOOT_IN_PROGRESS),
        T.GUEST_REBOOTED: every(
            {S.UP, S.POWERING_UP, S.POWERING_DOWN, S.REBOOT_IN_PROGRESS}, S.REBOOT_IN_PROGRESS
        ),
        T.PAUSED: every((RUNNING | {S.RESTORING_STATE}) - {S.MIGRATING_TO}, S.PAUSED),
        T.CONTINUED: {S.PAUSED: S.UP},
        # Suspend to disk.
        T.SAVE_REQUESTED: {S.UP: S.SAVING_STATE},
        T.SAVED: {S.SAVING_STATE: S.SUSPENDED},
        T.SAVE_FAILED: {S.SAVING_STATE: S.UP},
        # The end. Stopping a suspended machine discards its saved memory.
        T.STOPPED: every(ON_A_HOST | {S.SUSPENDED}, S.DOWN),
        T.CRASHED: every(ON_A_HOST, S.DOWN),
        # Doubt, and its end.
        T.DISAPPEARED: every(ON_A_HOST, S.UNKNOWN),
        T.HOST_LOST: every(ON_A_HOST, S.UNKNOWN),
        T.CONFIRMED_DEAD: {S.UNKNOWN: S.DOWN},
        T.MONITOR_LOST: every(RUNNING_OR_PAUSED, S.NOT_RESPONDING),
        T.MONITOR_BACK: {S.NOT_RESPONDING: S.UP},
        T.RETURNED_UP: every(_UNSURE, S.UP),
        T.RETURNED_POWERING_UP: every(_UNSURE, S.POWERING_UP),
        T.RETURNED_POWERING_DOWN: every(_UNSURE, S.POWERING_DOWN),
        T.RETURNED_REBOOT_IN_PROGRESS: every(_UNSURE, S.REBOOT_IN_PROGRESS),
        T.RETURNED_PAUSED: every(_UNSURE, S.PAUSED),
        T.RETURNED_MIGRATING_FROM: every(_UNSURE, S.MIGRATING_FROM),
        T.RETURNED_WAIT_FOR_LAUNCH: every(_UNSURE, S.WAIT_FOR_LAUNCH),
        T.RETURNED_SAVING_STATE: every(_UNSURE, S.SAVING_STATE),
        T.RETURNED_RESTORING_STATE: every(_UNSURE, S.RESTORING_STATE),
        T.RETURNED_SUSPENDED: every(_UNSURE, S.SUSPENDED),
        T.RETURNED_DOWN: every(_UNSURE, S.DOWN),
        # Live migration. In its post-copy phase the source is Paused, and the hand-over comes from there.
        T.MIGRATE_STARTED: every(QUALIFIED_TO_MIGRATE, S.MIGRATING_FROM),
        T.MIGRATION_ARRIVING: {S.UNASSIGNED: S.MIGRATING_TO},
        T.MIGRATED: every({S.MIGRATING_FROM, S.MIGRATING_TO, S.PAUSED}, S.UP),
        T.MIGRATION_FAILED: {S.MIGRATING_FROM: S.UP, S.MIGRATING_TO: S.DOWN},
        # Operations on disks. A machine that is created with disks begins locked.
        T.IMAGES_LOCKED: {S.DOWN: S.IMAGE_LOCKED, S.UNASSIGNED: S.IMAGE_LOCKED},
        T.IMAGES_RELEASED: {S.IMAGE_LOCKED: S.DOWN},
        T.IMAGES_BROKEN: {S.IMAGE_LOCKED: S.IMAGE_ILLEGAL},
        T.IMAGES_REPAIRED: {S.IMAGE_ILLEGAL: S.DOWN},
    }
)


def next_vm_status(status: VmStatus, trigger: VmTrigger) -> VmStatus:
    """The status after `trigger`.

    Raises:
        IllegalTransition: the pair is not in `VM_TRANSITIONS`; nothing has changed.
    """
    return step(VM_TRANSITIONS, "machine", status, trigger)


def returned_trigger(reported: VmStatus) -> VmTrigger | None:
    """What a machine of unknown state meets when its host reports it; None: the report settles nothing.

    A destination's MigratingTo settles nothing: its source decides.
    """
    name = f"returned_{reported.value}"
    return VmTrigger(name) if name in _RETURNED_NAMES else None


_RETURNED_NAMES = frozenset(trigger.value for trigger in VmTrigger if trigger.value.startswith("returned_"))
