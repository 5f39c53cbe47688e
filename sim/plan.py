"""A plan: everything that a run depends on, as values. Same plan, same commit: same run.

Shape and knobs say what world is built; steps say what befalls it and what its clients ask, and when. A plan comes
from a seed (`sim.swarm`), from a token (`sim.token`), from Hypothesis, or from a person. Nothing else decides
anything: what the network does to one frame is drawn from streams keyed by the seed and the link, so that leaving
a step out does not reshuffle what the others meet. 0 always means "normal", so that shrinking removes faults.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from olvm.model.hardware import DiskSpec, Hardware

GIB = 1024**3
# What a machine may have, as a multiple of what it is defined with.
VCPUS_FACTOR = 4
MEMORY_FACTOR = 3
DISK_BYTES = GIB // 1024
Profile = Literal["calm", "rough", "brutal"]


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """What is built before anything goes wrong. Sizes are the same for all hosts, and for all machines."""

    hosts: int = 5
    vms: int = 50
    racks: int = 2  # host number n stands in rack n % racks
    host_cpus: int = 16
    host_memory_gib: int = 64
    vm_vcpus: int = 1
    vm_memory_gib: int = 2
    vm_silos: int = 0
    running_percent: int = 80  # of the machines, started before the faults begin
    ha_percent: int = 60
    lease_percent: int = 70  # of those that are highly available
    fence_percent: int = 80  # of the hosts that have power management
    kdump_percent: int = 20
    policy: str = "none"
    migration_policy: str = "minimal_downtime"
    telemetry: bool = False
    disks: bool = False  # each machine has one, so that it can be frozen


def hardware_of(shape: Shape) -> Hardware:
    """Of every machine: CPUs and memory can be plugged while it runs."""
    return Hardware(
        vcpus_max=VCPUS_FACTOR * shape.vm_vcpus,
        memory_bytes_max=MEMORY_FACTOR * shape.vm_memory_gib * GIB,
        disks=(DiskSpec(name="vda", size_bytes=DISK_BYTES),) if shape.disks else (),
    )


class Knobs(msgspec.Struct, frozen=True, kw_only=True):
    """How the world is tuned for one run. All 0: a quiet machine room."""

    latency_us: int = 0  # added to each hop's 500 us
    jitter_us: int = 0  # a further delay, evenly drawn
    tail_per_10k: int = 0  # of frames that are late by seconds
    loss_per_10k: int = 0
    duplicate_per_10k: int = 0
    late_duplicate_per_10k: int = 0  # a copy that arrives up to two minutes later
    clock_drift_ppm_max: int = 0  # each host's clock runs fast or slow by up to this
    clock_step_s_max: int = 0  # a restarted process finds its wall clock stepped by up to this, either way
    commit_ms_max: int = 0  # a commit takes up to this long
    torn_tail_percent: int = 0  # of crashes that tear what was not durable, instead of losing it whole
    call_fault_per_10k: int = 0  # of hypervisor calls that fail, hang, or time out after having worked
    dirty_rate_percent: int = (
        0  # of the migration bandwidth that a busy guest dirties; 0: the backend's default
    )
    boot_s_max: int = 0  # 0: the backend's default
    old_agents: int = 0  # so many hosts are of the release before, which cannot migrate
    quick_timers: int = 0  # 1: every period and deadline of the control plane is short, so that they collide


class Step(msgspec.Struct, frozen=True, array_like=True):
    """One thing that happens. `what` is a command or a fault of `sim.failure_model.FAULTS`.

    `target` is a machine ("v7"), a host ("H3"), a silo, a link ("engine|host-3"), or empty for the whole. `for_ms`
    is how long it lasts, `value` a parameter of the fault, `detail` a word (a verb's second host, a call's name).
    """

    at_ms: int
    what: str
    target: str = ""
    for_ms: int = 0
    value: int = 0
    detail: str = ""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """`hours` is how long faults and commands go on; then all heals, and the settling is judged."""

    seed: int
    profile: Profile = "rough"
    hours: float = 0.5
    shape: Shape = Shape()
    knobs: Knobs = Knobs()
    steps: tuple[Step, ...] = ()
    settings: dict[str, float] = {}  # of `olvm.model.config.Config`, beside what `quick_timers` sets

    @property
    def end_ms(self) -> int:
        return int(self.hours * 3_600_000)
