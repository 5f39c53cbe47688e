"""The failure model: what may fail, how much of it at once, and what is promised then. A plan beyond it is refused.

Without this page a red run could be nobody's fault: a control plane owes nothing to a world in which two promises
that it stands on break together. `FAULTS` is the vocabulary of faults; `check` holds a plan against `LIMITS`.
The table of docs/promises.md is drawn from here.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from olvm.model.errors import BadInput
from sim.plan import Knobs, Plan, Step

Kind = Literal["command", "process", "power", "network", "disk", "clock", "hypervisor", "storage", "fence"]
TargetKind = Literal["vm", "host", "silo", "rack", "link", "none"]


class FaultKind(msgspec.Struct, frozen=True, kw_only=True):
    """`weight`: how often a swarm draws it, relative to the others. `for_s`: how long it lasts, at least and most."""

    kind: Kind
    target: TargetKind
    for_s: tuple[int, int] = (0, 0)
    weight: int = 10
    brutal: bool = False  # drawn by the profile brutal only
    newer: bool = False  # drawn by itself, so that the plans of earlier seeds stay as they were
    history: bool = False  # drawn where there is history
    says: str


def _fault(kind: Kind, target: TargetKind, says: str, **more: object) -> FaultKind:
    return FaultKind(kind=kind, target=target, says=says, **more)  # type: ignore[arg-type]


def _history_fault(
    kind: Kind, target: TargetKind, says: str, for_s: tuple[int, int], weight: int
) -> FaultKind:
    return _fault(kind, target, says, for_s=for_s, weight=weight, newer=True, history=True)


FAULTS: dict[str, FaultKind] = {
    # Processes. A crash loses all that is not committed; the host and its machines go on.
    "crash_engine": _fault("process", "none", "the engine's process is killed", for_s=(1, 60)),
    "zombie_engine": _fault("process", "none", "a second engine starts while the first still runs", weight=4),
    "pause_engine": _fault("process", "none", "the engine stands still", for_s=(1, 120)),
    "crash_agent": _fault("process", "host", "a host's agent is killed", for_s=(1, 60)),
    "pause_agent": _fault(
        "process", "host", "a host's agent stands still, longer than a lease", for_s=(5, 120)
    ),
    "hang_agent": _fault("process", "host", "an agent stands still until it is restarted", weight=5),
    "crash_after_turn": _fault("process", "silo", "a process dies right after its next commits", weight=8),
    # Power.
    "crash_host": _fault("power", "host", "a host loses its power", for_s=(5, 900)),
    "kdump_host": _fault(
        "power", "host", "a host's kernel crashes and writes a dump", for_s=(30, 300), weight=4
    ),
    "lose_rack": _fault("power", "rack", "all hosts of a rack lose their power", for_s=(60, 1200), weight=4),
    "reinstall_host": _fault(
        "power", "host", "a host loses its power and its agent's disk", for_s=(30, 300), weight=3, brutal=True
    ),
    # Network. A link is a|b (both ways) or a>b.
    "cut": _fault("network", "link", "nothing passes a link", for_s=(1, 300), weight=20),
    "cut_one_way": _fault(
        "network", "link", "nothing passes a link in one direction", for_s=(1, 300), weight=12
    ),
    "isolate_host": _fault(
        "network", "host", "a host reaches nothing but its storage", for_s=(5, 400), weight=12
    ),
    "isolate_fully": _fault("network", "host", "a host reaches nothing at all", for_s=(5, 400), weight=8),
    "cut_storage": _fault("network", "host", "a host does not reach the shared storage", for_s=(1, 200)),
    "cut_migration": _fault("network", "link", "two hosts cannot migrate to each other", for_s=(1, 120)),
    "clog": _fault("network", "link", "a link holds its frames and releases them in order", for_s=(1, 60)),
    "swizzle": _fault(
        "network",
        "none",
        "links clog one after another and are freed in another order",
        for_s=(10, 120),
        weight=6,
    ),
    "noise": _fault("network", "link", "a link loses, repeats and delays", for_s=(10, 300), weight=12),
    "storm": _fault("network", "none", "half of the hosts cannot be reached", for_s=(30, 400), weight=5),
    "rewind_reports": _fault("network", "host", "old reports of a host arrive again", weight=6),
    # Disks of silos. What was acknowledged as durable stays.
    "disk_errors": _fault("disk", "silo", "a silo's disk refuses writes", for_s=(1, 60)),
    "disk_full": _fault("disk", "silo", "a silo's disk is full", for_s=(1, 60), weight=5),
    "slow_disk": _fault("disk", "silo", "a silo's commits take long", for_s=(5, 120)),
    "torn_tail": _fault("disk", "silo", "a process dies and its last write is torn", for_s=(1, 30), weight=5),
    # Hypervisor and guests.
    "call_fails": _fault("hypervisor", "host", "the next call of a kind fails"),
    "call_hangs": _fault("hypervisor", "host", "the next call of a kind is never answered"),
    "call_times_out": _fault("hypervisor", "host", "the next call works and is answered with a time-out"),
    "monitor_hangs": _fault("hypervisor", "vm", "a machine's QEMU does not answer", for_s=(5, 200), weight=5),
    "guest_crashes": _fault("hypervisor", "vm", "a machine crashes"),
    "guest_reboots": _fault("hypervisor", "vm", "a guest reboots by itself", weight=5),
    "guest_shuts_down": _fault("hypervisor", "vm", "a guest powers off by itself", weight=5),
    "guest_is_deaf": _fault("hypervisor", "vm", "a guest ignores the next shutdown or reboot"),
    "migration_fails": _fault("hypervisor", "host", "the next migration from a host fails"),
    "migration_never_converges": _fault(
        "hypervisor", "vm", "a guest dirties memory too fast to migrate", weight=5
    ),
    "migration_loses_confirm": _fault("hypervisor", "host", "the next hand-over is not confirmed", weight=12),
    "arrival_is_late": _fault(
        "hypervisor",
        "host",
        "a target that has just given up takes in the next machine",
        weight=12,
        newer=True,
    ),
    "suppress_events": _fault(
        "hypervisor", "host", "a hypervisor's events are lost", for_s=(5, 120), weight=6
    ),
    "kill_libvirtd": _fault(
        "hypervisor",
        "host",
        "a host's libvirtd is killed; its machines go on",
        for_s=(1, 60),
        weight=8,
        newer=True,
    ),
    "host_problem": _fault(
        "hypervisor", "host", "a host is no longer fit for its cluster", for_s=(10, 600), weight=4
    ),
    # History. Its journal is in memory: what a crash of its silo leaves is the file.
    "crash_telemetry": _history_fault("process", "none", "the telemetry silo is killed", (1, 200), 10),
    "pause_telemetry": _history_fault("process", "none", "the telemetry silo stands still", (1, 120), 4),
    "cut_telemetry": _history_fault(
        "network", "host", "a host does not reach the telemetry silo", (1, 300), 10
    ),
    "clog_telemetry": _history_fault(
        "network", "none", "the engine and the telemetry silo hear each other late, in order", (1, 60), 8
    ),
    "break_history": _history_fault(
        "disk", "none", "history's disk takes nothing, or says so when it has", (1, 120), 8
    ),
    # Shared storage.
    "storage_hangs": _fault("storage", "host", "I/O to leases stands still and works later", for_s=(1, 120)),
    "storage_slow": _fault("storage", "none", "the storage of leases is slow", for_s=(5, 120), weight=5),
    "storage_lost": _fault(
        "storage", "none", "no host reaches the storage of leases", for_s=(1, 20), weight=3
    ),
    "disks_fail": _fault("storage", "host", "the machines of a host get I/O errors", for_s=(5, 200)),
    # Fence devices. What `status` says is true.
    "fence_fails": _fault("fence", "host", "a fence device refuses", for_s=(10, 600)),
    "fence_times_out": _fault("fence", "host", "a fence device works and does not answer", for_s=(10, 600)),
    "fence_lies": _fault(
        "fence", "host", "a fence device says that it switched off and did not", for_s=(10, 600)
    ),
}

COMMANDS: dict[str, int] = {  # and how often a swarm draws each
    "start": 30,
    "stop": 8,
    "shutdown": 8,
    "reboot": 5,
    "reset": 3,
    "suspend": 6,
    "resume": 6,
    "migrate": 40,
    "cancel_migration": 10,
    "remove_vm": 2,
    "create_vm": 3,
    "change_vm": 3,
    "repeat": 6,  # the newest command once more, with the same request id
    "maintenance": 6,
    "cancel_maintenance": 3,
    "activate": 8,
    "restart_host": 2,
    "confirm_rebooted": 4,  # only said when it is true
    "remove_host": 1,
    "add_host": 1,
    "affinity": 3,
    "policy": 3,
    "cluster_shutdown": 1,
    "cluster_start": 2,
}

# Changes of size of machines that run. Only some seeds have them, drawn beside their other commands.
PLUGS: dict[str, int] = {
    "set_vcpus": 4,
    "plug_memory": 6,
    "unplug_memory": 4,
}

# Snapshots of machines that run, in those seeds whose machines have a disk.
SNAPSHOTS: dict[str, int] = {
    "take_snapshot": 6,
    "commit_snapshot": 3,
    "revert_snapshot": 4,
}
TASKS = PLUGS | SNAPSHOTS


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the model. `most` is a number of the unit in `of`; what lies beyond is refused."""

    name: str
    most: float
    of: str
    promise: str


LIMITS: tuple[Limit, ...] = (
    Limit(
        name="clock_drift_ppm_max",
        most=10_000,
        of="ppm between true time and a host's clock",
        promise="leases hold: the expiry is stretched by twice this (docs/leases.md)",
    ),
    Limit(
        name="loss_per_10k",
        most=5_000,
        of="of 10,000 frames, outside of cuts",
        promise="nothing acknowledged is lost; everything is slower",
    ),
    Limit(
        name="duplicate_per_10k",
        most=5_000,
        of="of 10,000 frames",
        promise="every command has one effect",
    ),
    Limit(
        name="late_duplicate_per_10k",
        most=2_000,
        of="of 10,000 frames, up to two minutes late",
        promise="old reports are known as old",
    ),
    Limit(
        name="engine_disks_lost",
        most=0,
        of="times in a run",
        promise="none: the engine's file has no copy; back it up",
    ),
    Limit(
        name="agent_disks_lost_while_powered",
        most=0,
        of="times in a run",
        promise="a host that is installed anew has lost its power before",
    ),
    Limit(
        name="fence_status_lies",
        most=0,
        of="times in a run",
        promise="power fencing rests on a truthful status; a device that lies on `off` is found out by it",
    ),
    Limit(
        name="lease_writes_lost",
        most=0,
        of="of acknowledged writes",
        promise="the shared storage is one linearizable register per lease; it may be late, slow or away",
    ),
    Limit(
        name="watchdogs_broken",
        most=0,
        of="hosts",
        promise="a host's watchdog stops leased machines on the host's own clock, whatever its agent does",
    ),
    Limit(
        name="steps",
        most=200_000,
        of="steps in a plan",
        promise="a run ends",
    ),
)
_MOST_BY_KNOB = {limit.name: limit.most for limit in LIMITS if limit.name in Knobs.__struct_fields__}
_FORBIDDEN = {
    "wipe_engine": "engine_disks_lost",
    "wipe_agent": "agent_disks_lost_while_powered",
    "fence_status_lies": "fence_status_lies",
    "lose_lease_write": "lease_writes_lost",
    "break_watchdog": "watchdogs_broken",
}


def check(plan: Plan) -> None:
    """Refuse a plan that goes beyond the model.

    Raises:
        BadInput: names the step or knob, the limit, and what is promised within it.
    """
    limit_by_name = {limit.name: limit for limit in LIMITS}
    for knob, most in _MOST_BY_KNOB.items():
        value = getattr(plan.knobs, knob)
        if not 0 <= value <= most:
            limit = limit_by_name[knob]
            raise BadInput(f"knob {knob} is {value}, beyond the failure model: at most {most:g} {limit.of}")
    if len(plan.steps) > limit_by_name["steps"].most:
        raise BadInput(f"the plan has {len(plan.steps)} steps, beyond the failure model: draw fewer")
    for step in plan.steps:
        _check_step(step, plan, limit_by_name)


def _check_step(step: Step, plan: Plan, limit_by_name: dict[str, Limit]) -> None:
    name = _FORBIDDEN.get(step.what)
    if name is not None:
        limit = limit_by_name[name]
        raise BadInput(
            f"step {step.what} at {step.at_ms} ms is beyond the failure model: {limit.name} is at most "
            f"{limit.most:g} {limit.of}; {limit.promise}"
        )
    fault = FAULTS.get(step.what)
    if fault is None and step.what not in COMMANDS | TASKS:
        raise BadInput(
            f"step {step.what} at {step.at_ms} ms is neither a fault nor a command; see sim.failure_model"
        )
    if step.at_ms < 0 or step.for_ms < 0 or step.at_ms > plan.end_ms:
        raise BadInput(f"step {step.what} at {step.at_ms} ms lies outside of the run of {plan.end_ms} ms")
    if fault is not None and fault.for_s[1] and step.for_ms > 1000 * fault.for_s[1] * 10:
        raise BadInput(
            f"step {step.what} at {step.at_ms} ms lasts {step.for_ms} ms; the model has at most "
            f"{fault.for_s[1] * 10} s of it at a time"
        )
