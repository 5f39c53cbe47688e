"""What may be done to a machine beside moving it through its statuses: tasks, as a table.

A row says which of oVirt's actions the task is (so that the black-list speaks for it), whether it needs a running
guest, which arguments it takes, and what it leaves in the hardware that the next start is given. Pure; how a host
carries a task out is the hypervisor's affair, and what it answers to is `actors/task_requests.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias, TypeVar

import msgspec

from olvm.model.errors import BadInput, Conflict, NotFound
from olvm.model.hardware import DiskSpec, Hardware, NicSpec
from olvm.model.vm_actions import VmAction, vm_refusal
from olvm.model.vm_states import VmStatus

Arguments: TypeAlias = Mapping[str, str | int | float | bool]
Change: TypeAlias = Callable[[Hardware, Arguments], Hardware]

S = TypeVar("S", DiskSpec, NicSpec)

RUNNING = frozenset({VmStatus.UP, VmStatus.POWERING_UP, VmStatus.PAUSED})
GUEST_HEARS = frozenset({VmStatus.UP, VmStatus.POWERING_UP, VmStatus.POWERING_DOWN})


class TaskRule(msgspec.Struct, frozen=True, kw_only=True):
    """`when_down`: it is possible while the machine is down, and changes its hardware alone.

    `must_be_fresh`: not once nobody waits for it any more; a host asks whether it is still wanted before it begins.
    """

    what: str  # ends the sentence "cannot … NAME"
    action: VmAction | None = None
    statuses: frozenset[VmStatus] = RUNNING
    when_down: bool = False
    change: Change | None = None
    timeout_s: float = 60.0
    must_be_fresh: bool = False


def disk_of(arguments: Arguments) -> DiskSpec:
    """Raises `BadInput`."""
    return _spec(DiskSpec, arguments)


def nic_of(arguments: Arguments) -> NicSpec:
    """Raises `BadInput`."""
    return _spec(NicSpec, arguments)


def _spec(kind: type[S], arguments: Arguments) -> S:
    try:
        return msgspec.convert(dict(arguments), kind)
    except msgspec.ValidationError as error:
        raise BadInput(f"{kind.__name__.removesuffix('Spec').lower()}: {error}") from error


def _add_disk(hardware: Hardware, arguments: Arguments) -> Hardware:
    disk = disk_of(arguments)
    kept = tuple(one for one in hardware.disks if one.name != disk.name)
    return msgspec.structs.replace(hardware, disks=(*kept, disk))


def _drop_disk(hardware: Hardware, arguments: Arguments) -> Hardware:
    kept = tuple(one for one in hardware.disks if one.name != arguments["name"])
    return msgspec.structs.replace(hardware, disks=kept)


def _change_medium(hardware: Hardware, arguments: Arguments) -> Hardware:
    disks = tuple(
        msgspec.structs.replace(one, source=str(arguments.get("source", "")))
        if one.name == arguments["name"]
        else one
        for one in hardware.disks
    )
    return msgspec.structs.replace(hardware, disks=disks)


def _add_nic(hardware: Hardware, arguments: Arguments) -> Hardware:
    nic = nic_of(arguments)
    kept = tuple(one for one in hardware.nics if one.name != nic.name)
    return msgspec.structs.replace(hardware, nics=(*kept, nic))


def _drop_nic(hardware: Hardware, arguments: Arguments) -> Hardware:
    kept = tuple(one for one in hardware.nics if one.name != arguments["name"])
    return msgspec.structs.replace(hardware, nics=kept)


def _set_link(hardware: Hardware, arguments: Arguments) -> Hardware:
    nics = tuple(
        msgspec.structs.replace(one, link_up=bool(arguments["up"])) if one.name == arguments["name"] else one
        for one in hardware.nics
    )
    return msgspec.structs.replace(hardware, nics=nics)


def _set_quota(hardware: Hardware, arguments: Arguments) -> Hardware:
    return msgspec.structs.replace(hardware, cpu_quota_percent=int(arguments["percent"]))


A = VmAction
VM_TASKS: dict[str, TaskRule] = {
    "attach_disk": TaskRule(what="attach a disk to", when_down=True, change=_add_disk),
    "detach_disk": TaskRule(what="detach a disk from", when_down=True, change=_drop_disk),
    "change_medium": TaskRule(
        what="change the CD of", action=A.CHANGE_DISK, when_down=True, change=_change_medium
    ),
    "attach_nic": TaskRule(what="add a network card to", action=A.ADD_NIC, when_down=True, change=_add_nic),
    "detach_nic": TaskRule(
        what="remove a network card from", action=A.REMOVE_NIC, when_down=True, change=_drop_nic
    ),
    "set_nic_link": TaskRule(
        what="change a network card of", action=A.UPDATE_NIC, when_down=True, change=_set_link
    ),
    "set_cpu_quota": TaskRule(what="limit the CPUs of", when_down=True, change=_set_quota),
    "set_vcpus": TaskRule(what="plug CPUs into"),
    "set_balloon": TaskRule(what="balloon the memory of"),
    "plug_memory": TaskRule(what="plug memory into"),
    "unplug_memory": TaskRule(what="unplug memory from"),
    "create_snapshot": TaskRule(what="take a snapshot of", action=A.CREATE_SNAPSHOT, timeout_s=300.0),
    "commit_snapshot": TaskRule(what="commit a snapshot of", action=A.CREATE_SNAPSHOT, timeout_s=3600.0),
    # oVirt's RESTORE_SNAPSHOTS wants a machine that is down; ours one that runs (docs/decisions/0022).
    "revert_snapshot": TaskRule(what="revert to a snapshot of", timeout_s=600.0),
    "list_snapshots": TaskRule(what="list the snapshots of"),
    "log_on": TaskRule(what="log a user on to", statuses=GUEST_HEARS, timeout_s=30.0, must_be_fresh=True),
    "log_off": TaskRule(what="log a user off from", statuses=GUEST_HEARS, timeout_s=30.0),
    "lock_screen": TaskRule(what="lock the screen of", statuses=GUEST_HEARS, timeout_s=30.0),
    "notify": TaskRule(what="show a message in", statuses=GUEST_HEARS, timeout_s=30.0),
    "set_guest_cpus": TaskRule(what="switch CPUs in", statuses=GUEST_HEARS, timeout_s=30.0),
    "refresh_guest": TaskRule(what="ask for the facts of", statuses=GUEST_HEARS, timeout_s=30.0),
    "freeze_guest": TaskRule(what="freeze the file systems of", statuses=GUEST_HEARS),
    "thaw_guest": TaskRule(what="thaw the file systems of", statuses=RUNNING | GUEST_HEARS),
}


def vm_task(verb: str) -> TaskRule:
    """Raises `NotFound`."""
    rule = VM_TASKS.get(verb)
    if rule is None:
        raise NotFound(f"a machine has no task {verb!r}; it has {', '.join(sorted(VM_TASKS))}")
    return rule


def task_refusal(name: str, status: VmStatus, verb: str) -> str | None:
    """Why the task cannot be done to a machine of that status; None: it can be asked for."""
    rule = VM_TASKS[verb]
    if rule.action is not None and not (rule.when_down and status is VmStatus.DOWN):
        refusal = vm_refusal(name, status, rule.action, rule.what)
        if refusal is not None:
            return refusal
    if status in rule.statuses or (rule.when_down and status is VmStatus.DOWN):
        return None
    need = " or down" if rule.when_down else ""
    advice = ": start it first" if status is VmStatus.DOWN else ""
    return f"cannot {rule.what} {name}: it is {status.value}; it must be running{need}{advice}"


def hardware_after(hardware: Hardware | None, verb: str, arguments: Arguments) -> Hardware | None:
    """What the machine is made of once the task is done.

    Raises:
        Conflict: the result would be no machine: a name that is taken, say.
    """
    change = VM_TASKS[verb].change
    if change is None:
        return hardware
    try:
        return change(hardware or Hardware(), arguments)
    except BadInput as error:
        raise Conflict(error.message) from error


def missing_device(hardware: Hardware | None, verb: str, arguments: Arguments) -> str | None:
    """Why the task names a device that is not there, or adds one that is, as far as the hardware tells."""
    known = hardware or Hardware()
    name = str(arguments.get("name", ""))
    kind = "disk" if verb in ("attach_disk", "detach_disk", "change_medium") else "network card"
    if verb not in VM_TASKS or VM_TASKS[verb].change is None or verb == "set_cpu_quota":
        return None
    devices = known.disks if kind == "disk" else known.nics
    names = [device.name for device in devices]
    if verb.startswith("attach"):
        return f"it has a {kind} {name} already" if name in names else None
    if name not in names:
        return f"it has no {kind} {name}; it has {', '.join(names) or 'none'}"
    return None
