"""The data center of the experiment: its hosts, its kinds of machine, and the figures kept while it runs.

Decides sizes and the layout of the arrays; knows nothing of policies. Units: MIPS for processor capacity and demand,
seconds, watts. A host is named by its index, so is a VM.

Source: Beloglazov & Buyya 2012, and the constants of CloudSim 3.0.3's example.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from olvm.experiments.consolidation.energy import rises
from olvm.experiments.power import POWER_MODELS

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

HOST_COUNT = 800
SAMPLE_COUNT = 288
INTERVAL_S = 300.0
DAY_S = 86_400.0

CORE_MIPS_BY_KIND = (1860.0, 2660.0)  # HP ProLiant ML110 G4 and G5
CORES = 2
HOST_MEMORY_MB = 4096
HOST_BANDWIDTH_KBIT_S = 1_000_000
HOST_GUESTS_MAX = 400  # by disk: 1 TB of hosts, 2.5 GB of machines

MIPS_BY_QUARTER = (2500.0, 2000.0, 1000.0, 500.0)
MEMORY_MB_BY_QUARTER = (870, 1740, 1740, 613)
VM_BANDWIDTH_KBIT_S = 100_000
# Half of the host's bandwidth carries migrations, and a megabyte is 8,000 kbit.
MIGRATION_MB_S = HOST_BANDWIDTH_KBIT_S / (2 * 8000)

HISTORY_MAX = 30


class Plant(NamedTuple):
    """What does not change in a run. `n` VMs, `H` hosts, two kinds of host."""

    kind: Ints  # H: 0 or 1
    core_mips: Floats  # H
    host_mips: Floats  # H: of all cores together
    watts: Floats  # 2 × 11: at 0, 10, … 100 %
    rise: Floats  # 2 × 11: watts per percent from each of these to the next
    vm_mips: Floats  # n
    memory_mb: Ints  # n
    load: Floats  # n × 289: fractions in 0..1; the last sample stands twice


class State(NamedTuple):
    """Where the machines are, and what they ask for now."""

    guests: npt.NDArray[np.int32]  # H × HOST_GUESTS_MAX + 1: in the order in which they came
    arriving: Flags  # the same shape: this guest still runs elsewhere
    guest_count: Ints  # H
    home: Ints  # n: the host that runs it; -1: none
    moving: Flags  # n
    demand: Floats  # n: MIPS
    used: Floats  # H: MIPS given out, those of migrating machines at their full size
    free: Floats  # H: MIPS not yet promised
    share: Floats  # 2 × n × 288: recorded demands as fractions of a host of each kind
    recorded: Floats  # n × 288: recorded utilisations
    record_count: Ints  # 1: how many of the 288 are recorded


class Ledger(NamedTuple):
    """What is counted. The last entry of a host or a VM is open until a later time: it may be rewritten."""

    host_since: Floats  # H: when the open entry began; -1: there is none
    host_given: Floats
    host_asked: Floats
    host_active: Flags
    host_was_active: Flags
    host_active_s: Floats
    host_violated_s: Floats
    host_shutdowns: Ints
    vm_since: Floats
    vm_given: Floats
    vm_asked: Floats
    vm_moving: Flags
    vm_asked_mips_s: Floats
    vm_lost_mips_s: Floats  # not given while it migrated


def build_plant(load: npt.NDArray[Any], host_count: int = HOST_COUNT) -> Plant:
    """The plant for VMs with these samples (n × 288, fractions). VM types go by quarters of the order of rows."""
    vm_count = load.shape[0]
    kind = np.arange(host_count, dtype=np.int64) % 2
    core_mips = np.asarray(CORE_MIPS_BY_KIND)[kind]
    quarter = np.arange(vm_count) // -(-vm_count // 4)
    watts = np.asarray([POWER_MODELS["hp-ml110-g4"], POWER_MODELS["hp-ml110-g5"]])
    return Plant(
        kind=kind,
        core_mips=core_mips,
        host_mips=core_mips * CORES,
        watts=watts,
        rise=rises(watts),
        vm_mips=np.asarray(MIPS_BY_QUARTER)[quarter],
        memory_mb=np.asarray(MEMORY_MB_BY_QUARTER, dtype=np.int64)[quarter],
        load=np.concatenate([load, load[:, -1:]], axis=1),
    )


def empty_state(vm_count: int, host_count: int) -> State:
    places = (host_count, HOST_GUESTS_MAX + 1)
    return State(
        guests=np.zeros(places, dtype=np.int32),
        arriving=np.zeros(places, dtype=np.bool_),
        guest_count=np.zeros(host_count, dtype=np.int64),
        home=np.full(vm_count, -1, dtype=np.int64),
        moving=np.zeros(vm_count, dtype=np.bool_),
        demand=np.zeros(vm_count),
        used=np.zeros(host_count),
        free=np.zeros(host_count),
        share=np.zeros((2, vm_count, SAMPLE_COUNT)),
        recorded=np.zeros((vm_count, SAMPLE_COUNT)),
        record_count=np.zeros(1, dtype=np.int64),
    )


def empty_ledger(vm_count: int, host_count: int) -> Ledger:
    return Ledger(
        host_since=np.full(host_count, -1.0),
        host_given=np.zeros(host_count),
        host_asked=np.zeros(host_count),
        host_active=np.zeros(host_count, dtype=np.bool_),
        host_was_active=np.ones(host_count, dtype=np.bool_),
        host_active_s=np.zeros(host_count),
        host_violated_s=np.zeros(host_count),
        host_shutdowns=np.zeros(host_count, dtype=np.int64),
        vm_since=np.full(vm_count, -1.0),
        vm_given=np.zeros(vm_count),
        vm_asked=np.zeros(vm_count),
        vm_moving=np.zeros(vm_count, dtype=np.bool_),
        vm_asked_mips_s=np.zeros(vm_count),
        vm_lost_mips_s=np.zeros(vm_count),
    )
