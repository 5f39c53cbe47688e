"""What may be asked of a machine in each of its statuses, and the sentence that says why not.

`FORBIDDEN_VM_ACTIONS` is oVirt's black-list as it stands. It is a first filter, not the whole truth:
`vm_refusal` adds what oVirt leaves to each command: a request that the transition table has no row for,
MigratingTo (which the black-list does not name), and the disks of a machine that may run.

Source: `ActionUtils.java` of ovirt-engine 4.5.
"""

from __future__ import annotations

from enum import StrEnum

from olvm.model.vm_states import VM_TRANSITIONS
from olvm.model.vm_states import VmStatus as S
from olvm.model.vm_states import VmTrigger as T


class VmAction(StrEnum):
    """The 21 actions that oVirt's black-list speaks of."""

    RUN = "run"
    RUN_ONCE = "run_once"
    STOP = "stop"
    SHUTDOWN = "shutdown"
    REBOOT = "reboot"
    RESET = "reset"
    HIBERNATE = "hibernate"  # users say suspend
    MIGRATE = "migrate"
    CANCEL_MIGRATE = "cancel_migrate"
    REMOVE = "remove"
    EXPORT = "export"
    IMPORT = "import"
    CLONE = "clone"
    ADD_TEMPLATE = "add_template"
    CHANGE_DISK = "change_disk"  # the disc in its CD drive
    ADD_NIC = "add_nic"
    UPDATE_NIC = "update_nic"
    REMOVE_NIC = "remove_nic"
    CREATE_SNAPSHOT = "create_snapshot"
    RESTORE_SNAPSHOTS = "restore_snapshots"
    EXTEND_IMAGE = "extend_image"


A = VmAction
_EVERYTHING = frozenset(VmAction)
_NICS = frozenset({A.ADD_NIC, A.UPDATE_NIC, A.REMOVE_NIC})
_POWERING_UP = _NICS | {
    A.HIBERNATE,
    A.RUN,
    A.RUN_ONCE,
    A.ADD_TEMPLATE,
    A.REMOVE,
    A.EXPORT,
    A.IMPORT,
    A.CHANGE_DISK,
    A.RESTORE_SNAPSHOTS,
    A.CANCEL_MIGRATE,
    A.EXTEND_IMAGE,
}
_LAUNCHING = _POWERING_UP | {A.MIGRATE, A.REBOOT, A.RESET}
_MIGRATING = (_LAUNCHING - {A.CANCEL_MIGRATE}) | {A.CREATE_SNAPSHOT}
# oVirt's list for a save or a restore leaves out the snapshot alone, so the snapshot's own checks refuse it
# there.
_SAVING = _EVERYTHING - {A.CREATE_SNAPSHOT}

FORBIDDEN_VM_ACTIONS: dict[S, frozenset[VmAction]] = {
    S.UP: frozenset({A.RUN, A.RUN_ONCE, A.ADD_TEMPLATE, A.REMOVE, A.EXPORT, A.IMPORT, A.CANCEL_MIGRATE}),
    S.DOWN: frozenset(
        {A.STOP, A.SHUTDOWN, A.HIBERNATE, A.MIGRATE, A.CHANGE_DISK, A.CANCEL_MIGRATE, A.REBOOT, A.RESET}
    ),
    S.POWERING_UP: _POWERING_UP,
    S.WAIT_FOR_LAUNCH: _LAUNCHING,
    S.POWERING_DOWN: _LAUNCHING,
    S.REBOOT_IN_PROGRESS: _POWERING_UP | {A.REBOOT},
    S.MIGRATING_FROM: _MIGRATING,
    S.SUSPENDED: _NICS
    | {
        A.HIBERNATE,
        A.ADD_TEMPLATE,
        A.RUN_ONCE,
        A.MIGRATE,
        A.EXPORT,
        A.IMPORT,
        A.CHANGE_DISK,
        A.REMOVE,
        A.CANCEL_MIGRATE,
        A.REBOOT,
        A.CREATE_SNAPSHOT,
        A.CLONE,
    },
    S.PAUSED: _NICS
    | {
        A.REMOVE,
        A.HIBERNATE,
        A.ADD_TEMPLATE,
        A.RUN_ONCE,
        A.EXPORT,
        A.IMPORT,
        A.EXTEND_IMAGE,
        A.RESTORE_SNAPSHOTS,
        A.CANCEL_MIGRATE,
        A.REBOOT,
        A.RESET,
    },
    S.SAVING_STATE: _SAVING,
    S.RESTORING_STATE: _SAVING,
    S.NOT_RESPONDING: _EVERYTHING - {A.STOP, A.SHUTDOWN},
    S.IMAGE_ILLEGAL: _EVERYTHING - {A.REMOVE},
    S.IMAGE_LOCKED: _EVERYTHING,
    S.UNASSIGNED: _EVERYTHING,
    S.UNKNOWN: _EVERYTHING - {A.RESTORE_SNAPSHOTS},
}

# The triggers that carry an action out, of which the status must take one. To run a paused machine
# continues it.
TRIGGERS_BY_ACTION: dict[VmAction, tuple[T, ...]] = {
    A.RUN: (T.RUN_ACCEPTED, T.CONTINUED),
    A.RUN_ONCE: (T.RUN_ACCEPTED,),
    A.STOP: (T.STOPPED,),
    A.SHUTDOWN: (T.SHUTDOWN_REQUESTED,),
    A.REBOOT: (T.REBOOT_REQUESTED,),
    A.RESET: (T.RESET_REQUESTED,),
    A.HIBERNATE: (T.SAVE_REQUESTED,),
    A.MIGRATE: (T.MIGRATE_STARTED,),
    A.CANCEL_MIGRATE: (T.MIGRATION_FAILED,),
}

_VERB: dict[VmAction, str] = {
    A.RUN: "start",
    A.RUN_ONCE: "run once",
    A.STOP: "stop",
    A.SHUTDOWN: "shut down",
    A.REBOOT: "reboot",
    A.RESET: "reset",
    A.HIBERNATE: "suspend",
    A.MIGRATE: "migrate",
    A.CANCEL_MIGRATE: "cancel a migration of",
    A.REMOVE: "remove",
    A.EXPORT: "export",
    A.IMPORT: "import over",
    A.CLONE: "clone",
    A.ADD_TEMPLATE: "make a template of",
    A.CHANGE_DISK: "change the CD of",
    A.ADD_NIC: "add a network interface to",
    A.UPDATE_NIC: "change a network interface of",
    A.REMOVE_NIC: "remove a network interface from",
    A.CREATE_SNAPSHOT: "take a snapshot of",
    A.RESTORE_SNAPSHOTS: "restore a snapshot of",
    A.EXTEND_IMAGE: "extend a disk of",
}

# Why the status stands in the way (empty: the word alone says it), and what a person can do about it.
_WHY_AND_ADVICE: dict[S, tuple[str, str]] = {
    S.UP: ("", "shut it down first"),
    S.DOWN: ("", "start it first"),
    S.POWERING_UP: ("its guest is booting", "wait until it is up, or stop it"),
    S.WAIT_FOR_LAUNCH: ("its host is creating it", "wait until it is up, or stop it"),
    S.POWERING_DOWN: ("its guest was asked to shut down", "wait until it is down, or stop it"),
    S.REBOOT_IN_PROGRESS: ("its guest is booting again", "wait until it is up, or stop it"),
    S.MIGRATING_FROM: ("it is moving to another host", "wait for the migration to end, or cancel it"),
    S.MIGRATING_TO: ("it is arriving on another host", "wait for the migration to end"),
    S.SUSPENDED: ("its memory is saved on disk", "start it to restore it, or stop it to discard its memory"),
    S.PAUSED: ("its virtual CPUs are halted", "resume it first, or stop it"),
    S.SAVING_STATE: ("its memory is being saved", "wait until it is suspended"),
    S.RESTORING_STATE: ("its memory is being restored", "wait until it is up"),
    S.NOT_RESPONDING: ("its QEMU does not answer", "stop it, or wait until it answers"),
    S.IMAGE_ILLEGAL: ("a disk image of it is illegal", "repair the image, or remove the machine"),
    S.IMAGE_LOCKED: ("an operation holds its disks", "wait for that operation to end"),
    S.UNASSIGNED: ("nothing is known of it yet", "wait until its creation has ended"),
    S.UNKNOWN: (
        "its host does not answer, so it may still run",
        "wait for the host, or fence it and confirm that it was restarted",
    ),
}

# Where the advice of the status would miss the point of the request.
_ADVICE: dict[tuple[S, VmAction], str] = {
    (S.UP, A.RUN): "stop it first, or use reboot",
    (S.UP, A.RUN_ONCE): "stop it first",
    (S.DOWN, A.STOP): "there is nothing to stop",
    (S.DOWN, A.SHUTDOWN): "there is nothing to shut down",
    (S.POWERING_UP, A.RUN): "it is starting already; wait until it is up",
    (S.WAIT_FOR_LAUNCH, A.RUN): "it is starting already; wait until it is up",
    (S.RESTORING_STATE, A.RUN): "it is starting already; wait until it is up",
    (S.WAIT_FOR_LAUNCH, A.SHUTDOWN): "there is no guest to ask yet; stop it, or wait until it is up",
    (S.PAUSED, A.SHUTDOWN): "its guest cannot hear; resume it first, or stop it",
    (S.NOT_RESPONDING, A.SHUTDOWN): "its guest cannot be asked; stop it",
    (S.SUSPENDED, A.SHUTDOWN): "there is no guest to ask; stop it to discard its memory",
    (S.SUSPENDED, A.RESET): "there is nothing to reset; start it, or stop it to discard its memory",
    (S.SUSPENDED, A.HIBERNATE): "it is suspended already; there is nothing to do",
}
_NO_MIGRATION = "it is not migrating; there is nothing to cancel"
_MAY_BE_MIGRATING = frozenset({S.MIGRATING_FROM, S.MIGRATING_TO, S.PAUSED, S.UNKNOWN, S.NOT_RESPONDING})

# What oVirt's list lets through and leaves to the command itself, refused here at once. It never stores
# MigratingTo; the disks of a machine that may run somewhere, or that is being saved, must not change under
# it.
_BLOCKED_BUT_NOT_LISTED: dict[S, frozenset[VmAction]] = {
    S.MIGRATING_TO: _MIGRATING | {A.CANCEL_MIGRATE},
    S.UNKNOWN: frozenset({A.RESTORE_SNAPSHOTS}),
    S.SAVING_STATE: frozenset({A.CREATE_SNAPSHOT}),
    S.RESTORING_STATE: frozenset({A.CREATE_SNAPSHOT}),
}


def vm_refusal(name: str, status: S, action: VmAction, what: str = "") -> str | None:
    """Why `action` cannot be asked of the machine now, in a sentence for a person; None: it may be asked.

    `what`: the verb of the sentence, where several share one action ("commit a snapshot of").
    """
    blocked = FORBIDDEN_VM_ACTIONS.get(status, frozenset()) | _BLOCKED_BUT_NOT_LISTED.get(status, frozenset())
    if action not in blocked and _is_carried_out(status, action):
        return None
    why, advice = _WHY_AND_ADVICE[status]
    if action is A.CANCEL_MIGRATE and status not in _MAY_BE_MIGRATING:
        advice = _NO_MIGRATION
    advice = _ADVICE.get((status, action), advice)
    reason = f" ({why})" if why else ""
    return f"cannot {what or _VERB[action]} {name}: it is {status.value}{reason}; {advice}"


def _is_carried_out(status: S, action: VmAction) -> bool:
    triggers = TRIGGERS_BY_ACTION.get(action, ())
    return not triggers or any((status, trigger) in VM_TRANSITIONS for trigger in triggers)
