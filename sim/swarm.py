"""Draws a plan from a seed: topology, knobs, workload and faults, a different mixture for each seed.

Swarm testing: a run in which everything happens a little finds less than runs in which some things do not happen at
all and others very often. So each seed enables a random half of the faults and commands and gives each a weight of
its own. Every draw comes from a stream named by its purpose.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Final

from olvm.model.errors import BadInput
from sim.failure_model import COMMANDS, FAULTS, PLUGS, SNAPSHOTS, TASKS, FaultKind
from sim.plan import Knobs, Plan, Profile, Shape, Step

FAULTS_PER_HOUR: Final[dict[Profile, int]] = {"calm": 12, "rough": 90, "brutal": 300}
COMMANDS_PER_HOUR: Final[dict[Profile, int]] = {"calm": 120, "rough": 240, "brutal": 400}
TASKS_PER_HOUR: Final = 200  # of each table
PLUGGING_SHARE: Final = 0.4  # of the seeds
HISTORY_SHARE: Final = 0.35  # of the seeds
SNAPSHOT_SHARE: Final = 0.3  # of the seeds
TASK_CALLS: Final = {
    "set_vcpus": "SetVcpus",
    "plug_memory": "PlugMemory",
    "unplug_memory": "UnplugMemory",
    "take_snapshot": "CreateSnapshot",
    "commit_snapshot": "CommitSnapshot",
    "revert_snapshot": "RevertSnapshot",
}
FAVOUR_FACTOR: Final = 10
NEWER_SHARE: Final = 100  # of this weight a fault would be all faults of a run
CALM_KINDS: Final = frozenset({"process", "network", "hypervisor"})
CALLS: Final = (
    "StartDomain",
    "ShutdownDomain",
    "RebootDomain",
    "ResetDomain",
    "SuspendDomain",
    "RestoreDomain",
    "PauseDomain",
    "ContinueDomain",
    "PrepareIncoming",
    "MigrateDomain",
    "CancelMigration",
)
CALL_FAULTS: Final = ("call_fails", "call_hangs", "call_times_out")
# What makes the first matter; how long after, at least and most; and in which share of cases it is drawn.
SEQUELS: Final[dict[str, tuple[str, float, float, float]]] = {
    "suspend": ("resume", 10, 90, 0.5),
    "migrate": ("cancel_migration", 0, 20, 0.15),
    "maintenance": ("cancel_maintenance", 0, 20, 0.3),
    "host_problem": ("activate", 15, 120, 0.3),
    "guest_is_deaf": ("shutdown", 0, 5, 0.8),
    "monitor_hangs": ("stop", 0, 5, 0.3),
    "migration_never_converges": ("migrate", 0, 5, 0.8),
    "fence_lies": ("isolate_fully", 0, 5, 0.5),
    "fence_fails": ("isolate_host", 0, 5, 0.2),
    "fence_times_out": ("isolate_host", 0, 5, 0.3),
    "call to start": ("start", 0, 3, 0.8),
    "call to stop": ("shutdown", 0, 3, 0.8),
    "call to reboot": ("reboot", 0, 3, 0.8),
    "call to reset": ("reset", 0, 3, 0.8),
    "call to suspend": ("suspend", 0, 3, 0.8),
    "call to resume": ("resume", 0, 3, 0.8),
    "call to migrate": ("migrate", 0, 3, 0.8),
    "call to cancel": ("cancel_migration", 0, 3, 0.8),
}
# By the call that a fault waits for: whose sequel it gets.
SPRUNG_BY: Final = {
    "StartDomain": "call to start",
    "ShutdownDomain": "call to stop",
    "RebootDomain": "call to reboot",
    "ResetDomain": "call to reset",
    "SuspendDomain": "call to suspend",
    "RestoreDomain": "call to resume",
    "PrepareIncoming": "call to migrate",
    "MigrateDomain": "call to migrate",
    "CancelMigration": "call to cancel",
}
VERB_TARGET: Final = {
    "repeat": "none",
    "maintenance": "host",
    "cancel_maintenance": "host",
    "activate": "host",
    "restart_host": "host",
    "confirm_rebooted": "host",
    "remove_host": "host",
    "add_host": "none",
    "create_vm": "none",
    "affinity": "none",
    "policy": "none",
    "cluster_shutdown": "none",
    "cluster_start": "none",
}


def draw_plan(
    seed: int,
    profile: Profile = "rough",
    *,
    hours: float | None = None,
    hosts: int | None = None,
    vms: int | None = None,
    favour: tuple[str, ...] = (),
) -> Plan:
    """The plan of `seed`. What is given is not drawn, and everything else is the same as without it.

    `favour` names faults and commands that every plan has, and `FAVOUR_FACTOR` times as often as it would: which of
    them befalls whom, and when, is drawn as ever.
    """
    if profile not in FAULTS_PER_HOUR:
        raise BadInput(f"profile {profile} does not exist: choose from {', '.join(FAULTS_PER_HOUR)}")
    check_favoured(favour)
    if (
        (hosts is not None and hosts < 1)
        or (vms is not None and vms < 0)
        or (hours is not None and hours <= 0)
    ):
        raise BadInput(f"a world of {hosts} hosts, {vms} machines and {hours} hours cannot be built")
    rng = _stream(seed, "length")
    drawn_hours = rng.choice((0.15, 0.25, 0.25, 0.4))
    shape = _draw_shape(seed, hosts, vms, favour)
    plan = Plan(
        seed=seed,
        profile=profile,
        hours=drawn_hours if hours is None else hours,
        shape=shape,
        knobs=_draw_knobs(seed, profile, shape),
    )
    steps = [*_draw_faults(plan, favour), *_draw_commands(plan, favour)]
    steps += _draw_sequels(plan, steps)
    rng = _stream(seed, "plugs")
    if rng.random() < PLUGGING_SHARE or any(name in PLUGS for name in favour):
        steps += _draw_tasks(rng, plan, favour, PLUGS, "plug_memory")
    if shape.disks:
        rng = _stream(seed, "tasks of snapshots")
        steps += _draw_tasks(rng, plan, favour, SNAPSHOTS, "take_snapshot")
    steps += _draw_newer(plan, favour)
    # Commands come before faults of the same instant, and equal ones in the order they were drawn.
    steps.sort(key=lambda step: step.at_ms)
    return Plan(
        seed=seed, profile=profile, hours=plan.hours, shape=shape, knobs=plan.knobs, steps=tuple(steps)
    )


def check_favoured(names: Iterable[str]) -> None:
    """Refuse what is neither a fault nor a command; the error lists all that are."""
    commands = COMMANDS | TASKS
    unknown = sorted(set(names) - FAULTS.keys() - commands.keys())
    if unknown:
        raise BadInput(
            f"{', '.join(map(repr, unknown))} cannot be favoured: neither a fault nor a command; "
            f"faults are {', '.join(sorted(FAULTS))}; commands are {', '.join(sorted(commands))}"
        )


def is_of_history(name: str) -> bool:
    """Whether this is a fault that strikes nobody where history is not simulated."""
    return name in FAULTS and FAULTS[name].history


def _stream(seed: int, purpose: str) -> random.Random:
    # A text seed goes through SHA-512: the same in every process.
    return random.Random(f"{seed}/{purpose}")


def _draw_shape(seed: int, hosts: int | None, vms: int | None, favour: tuple[str, ...]) -> Shape:
    rng = _stream(seed, "shape")
    drawn_hosts = rng.choice((2, 3, 3, 4, 5, 5, 6, 8))
    per_host = rng.choice((1, 2, 3, 5, 8))
    # Tight worlds make reservations meet; roomy ones let every machine come back.
    headroom = rng.choice((1.15, 1.5, 2.0, 3.0))
    count = drawn_hosts if hosts is None else hosts
    machines = count * per_host if vms is None else vms
    memory_gib = rng.choice((1, 2, 4))
    host_memory_gib = max(4, int(machines * memory_gib * headroom / count) + memory_gib + 1)
    return Shape(
        hosts=count,
        vms=machines,
        racks=rng.choice((1, 2, 2, 3)),
        host_cpus=rng.choice((4, 8, 16)),
        host_memory_gib=host_memory_gib,
        vm_vcpus=rng.choice((1, 1, 2)),
        vm_memory_gib=memory_gib,
        vm_silos=rng.choice((0, 0, 0, 1, 2)),
        running_percent=rng.choice((50, 80, 100)),
        ha_percent=rng.choice((0, 50, 100)),
        lease_percent=rng.choice((0, 50, 100)),
        fence_percent=rng.choice((0, 60, 100)),
        kdump_percent=rng.choice((0, 30, 100)),
        policy=rng.choice(("none", "none", "evenly_distributed", "power_saving", "vm_evenly_distributed")),
        migration_policy=rng.choice(
            ("minimal_downtime", "minimal_downtime", "post_copy", "suspend_workload")
        ),
        telemetry=_stream(seed, "history").random() < HISTORY_SHARE or any(map(is_of_history, favour)),
        disks=_stream(seed, "snapshots").random() < SNAPSHOT_SHARE
        or any(name in SNAPSHOTS for name in favour),
    )


def _draw_knobs(seed: int, profile: Profile, shape: Shape) -> Knobs:
    rng = _stream(seed, "knobs")
    scale = {"calm": 0, "rough": 1, "brutal": 3}[profile]

    def some(*values: int, often: float = 0.4) -> int:
        value = rng.choice(values)
        return value * scale if rng.random() < often else 0

    return Knobs(
        latency_us=rng.choice((0, 0, 1_000, 10_000, 50_000)),
        jitter_us=rng.choice((0, 500, 5_000, 100_000)),
        tail_per_10k=some(5, 50, 200),
        loss_per_10k=some(10, 100, 500),
        duplicate_per_10k=some(10, 100, 500),
        late_duplicate_per_10k=some(5, 50),
        clock_drift_ppm_max=min(10_000, some(100, 1_000, 3_000, often=0.6)),
        clock_step_s_max=some(1, 60, 3_600, often=0.3),
        commit_ms_max=some(1, 5, 50, often=0.3),
        torn_tail_percent=min(100, some(10, 30, often=0.5)),
        call_fault_per_10k=some(20, 100, 300, often=0.5),
        dirty_rate_percent=rng.choice((0, 10, 60, 95, 150)),
        boot_s_max=rng.choice((0, 2, 30)),
        old_agents=some(1, often=0.15) and min(shape.hosts - 1, 1),
        quick_timers=int(rng.random() < 0.5),
    )


def _enabled(rng: random.Random, weight_by_name: dict[str, int], favour: tuple[str, ...]) -> dict[str, int]:
    """A random half, each with a weight of its own; never none. And those that are favoured, heavier."""
    chosen = {name: weight for name, weight in weight_by_name.items() if rng.random() < 0.5}
    chosen = chosen or weight_by_name
    weights = {name: max(1, weight * rng.randint(1, 100) // 20) for name, weight in chosen.items()}
    for name in favour:
        if name in weight_by_name:
            weights[name] = FAVOUR_FACTOR * max(weight_by_name[name], weights.get(name, 0))
    return weights


def _draw_faults(plan: Plan, favour: tuple[str, ...]) -> list[Step]:
    rng = _stream(plan.seed, "faults")
    allowed = {
        name: fault.weight
        for name, fault in FAULTS.items()
        if not fault.newer
        and (plan.profile != "calm" or fault.kind in CALM_KINDS)
        and (plan.profile == "brutal" or not fault.brutal)
        and (plan.shape.hosts > 1 or name not in ("cut_migration", "storm", "swizzle"))
    }
    weights = _enabled(rng, allowed, favour)
    names = list(weights)
    # Faults grow a little with the world; a world of a thousand hosts is not a hundred times as sick.
    count = int(plan.hours * FAULTS_PER_HOUR[plan.profile] * max(1.0, (plan.shape.hosts / 5) ** 0.5))
    steps = []
    at_ms = 0
    for _ in range(count):
        # Bursts: half of the faults come close upon one another, because pairs find what single ones do not.
        if rng.random() < 0.5:
            at_ms = rng.randrange(plan.end_ms)
        else:
            at_ms = min(plan.end_ms - 1, at_ms + rng.choice((0, 1, 20, 300, 2_000, 12_000, 40_000)))
        name = rng.choices(names, [weights[other] for other in names])[0]
        steps.append(_draw_fault(rng, name, FAULTS[name], at_ms, plan.shape))
    return steps


def _draw_newer(plan: Plan, favour: tuple[str, ...]) -> list[Step]:
    """Faults that came after the others, each from a stream of its own; half of the plans have one of a kind.

    Before a libvirtd is killed a machine is started, so that now and then a start is cut off. While the telemetry silo
    hears the engine late, it is killed: then it gets answers to what its former life had asked.
    """
    steps = []
    for name, fault in FAULTS.items():
        rng = _stream(plan.seed, f"fault {name}")
        is_had = rng.random() < 0.5 or name in favour
        if not fault.newer or not is_had or (plan.profile == "calm" and fault.kind not in CALM_KINDS):
            continue
        if fault.history and not plan.shape.telemetry:
            continue
        often = FAVOUR_FACTOR if name in favour else 1
        count = plan.hours * FAULTS_PER_HOUR[plan.profile] * often * fault.weight / NEWER_SHARE
        for _ in range(int(count + rng.random())):
            step = _draw_fault(rng, name, fault, rng.randrange(plan.end_ms), plan.shape)
            apart_ms, vm = rng.randrange(100, 1_500), rng.randint(1, max(1, plan.shape.vms))
            steps.append(step)
            if name == "kill_libvirtd":
                steps.append(Step(max(0, step.at_ms - apart_ms), "start", f"v{vm}"))
            elif name == "clog_telemetry" and step.at_ms + apart_ms < plan.end_ms:
                steps.append(Step(step.at_ms + apart_ms, "crash_telemetry", for_ms=1_000))
    return steps


def _draw_fault(rng: random.Random, name: str, fault: FaultKind, at_ms: int, shape: Shape) -> Step:
    least, most = fault.for_s
    for_ms = 0 if most == 0 else int(1000 * least * (most / least) ** rng.random())
    detail = rng.choice(CALLS) if name in CALL_FAULTS else ""
    return Step(
        at_ms, name, _draw_target(rng, name, fault.target, shape), for_ms, rng.choice((1, 2, 3, 8)), detail
    )


def _draw_sequels(plan: Plan, steps: list[Step]) -> list[Step]:
    """After some steps, the one that makes them matter: drawn by themselves the two would seldom meet.

    A planted fault waits for its call, a suspended machine for its resuming, a fence device that lies for a host
    that must be fenced.
    """
    rng = _stream(plan.seed, "sequels")
    sequels = []
    for step in steps:
        what, least_s, most_s, share = SEQUELS.get(SPRUNG_BY.get(step.detail, step.what), ("", 0, 0, 0.0))
        by_chance, after_s, vm = (
            rng.random(),
            rng.uniform(least_s, most_s),
            rng.randint(1, max(1, plan.shape.vms)),
        )
        at_ms = step.at_ms + int(after_s * 1_000)
        if not what or by_chance >= share or at_ms >= plan.end_ms:
            continue
        is_call = step.what in CALL_FAULTS
        target = f"v{vm}" if is_call else step.target
        detail = step.target if is_call and what == "migrate" and step.detail == "PrepareIncoming" else ""
        for_ms = 1_000 * rng.randint(60, 300) if what in FAULTS else 0
        sequels.append(Step(at_ms, what, target, for_ms, rng.randrange(1_000), detail))
    return sequels


def _draw_target(rng: random.Random, name: str, kind: str, shape: Shape) -> str:
    host = rng.randint(1, shape.hosts)
    match kind:
        case "vm":
            return f"v{rng.randint(1, max(1, shape.vms))}"
        case "host":
            return f"H{host}"
        case "rack":
            return f"R{rng.randrange(shape.racks)}"
        case "silo":
            return rng.choice(("engine", f"host-{host}", f"host-{host}"))
        case "link" if name == "cut_migration":
            other = rng.choice([number for number in range(1, shape.hosts + 1) if number != host])
            return f"H{host}|H{other}"
        case "link":
            return f"engine|host-{host}" if rng.random() < 0.5 else f"host-{host}|engine"
        case _:
            return ""


def _draw_commands(plan: Plan, favour: tuple[str, ...]) -> list[Step]:
    rng = _stream(plan.seed, "commands")
    weights = _enabled(rng, COMMANDS, favour)
    # Without these two a world falls asleep.
    weights["start"] = max(weights.get("start", 0), 20)
    weights["migrate"] = max(weights.get("migrate", 0), 20)
    names = list(weights)
    count = int(plan.hours * COMMANDS_PER_HOUR[plan.profile] * max(1.0, (plan.shape.vms / 10) ** 0.5))
    steps = []
    at_ms, vm = 0, 1
    for _ in range(count):
        if rng.random() < 0.6:
            at_ms = rng.randrange(plan.end_ms)
            vm = rng.randint(1, max(1, plan.shape.vms))
        else:  # again the same machine, a moment later
            at_ms = min(plan.end_ms - 1, at_ms + rng.choice((0, 10, 200, 1_000, 5_000, 15_000)))
        name = rng.choices(names, [weights[other] for other in names])[0]
        host = f"H{rng.randint(1, plan.shape.hosts)}"
        target = {"vm": f"v{vm}", "host": host, "none": ""}[VERB_TARGET.get(name, "vm")]
        detail = host if name == "migrate" and rng.random() < 0.4 else ""
        steps.append(Step(at_ms, name, target, 0, rng.randrange(1_000), detail))
    return steps


def _draw_tasks(
    rng: random.Random, plan: Plan, favour: tuple[str, ...], table: dict[str, int], first: str
) -> list[Step]:
    """What is done to machines that run, by one of the tables, and calls of that kind that go wrong.

    From a stream of its own: plans of seeds that have none of it are what they were before there was any. `first` is
    what the others of its table live on, so it is never left out.
    """
    if not plan.shape.vms:
        return []
    weights = _enabled(rng, table, favour)
    weights[first] = max(weights.get(first, 0), 4)
    names = list(weights)
    steps = []
    for _ in range(int(plan.hours * TASKS_PER_HOUR)):
        at_ms = rng.randrange(plan.end_ms)
        vm = f"v{rng.randint(1, plan.shape.vms)}"
        name = rng.choices(names, [weights[other] for other in names])[0]
        steps.append(Step(at_ms, name, vm, 0, rng.randrange(1_000)))
        host, fault = f"H{rng.randint(1, plan.shape.hosts)}", rng.choice(CALL_FAULTS)
        if rng.random() < 0.2:
            steps.append(Step(max(0, at_ms - 1_000), fault, host, 0, 1, TASK_CALLS[name]))
        if rng.random() < 0.3:
            steps.append(Step(min(plan.end_ms - 1, at_ms + rng.choice((0, 20, 500))), "migrate", vm, 0, 1))
    return steps
