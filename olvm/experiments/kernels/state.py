"""The arrays of one replay. Kernels take them as named tuples, which numba sees as plain groups of arrays.

Units: vCPUs in thousandths and memory in KiB, both int64, so that giving back what was taken is exact; times in float64
seconds. A host has `node_count` NUMA nodes; node k of host h stands at `h * node_count + k`.

Rule: only `events.py` changes `Requests`, `Fleet`, `Ends` and the counters; an index changes only itself.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
SmallInts = npt.NDArray[np.int32]
Bytes = npt.NDArray[np.int8]
Words = npt.NDArray[np.uint64]

MILLI = 1000  # steps of a vCPU
GIB_KIB = 1 << 20

# What became of a VM. The order is that of `olvm.experiments.result.WHY`.
WAITING, PLACED, NO_ROOM, TOO_MANY_VCPUS, TOO_MUCH_MEMORY, TOO_LARGE = 0, 1, 2, 3, 4, 5
SPREAD = -1  # the node of a VM that is spread over all nodes of its host

(
    FIRST_FIT,
    BEST_FIT,
    WORST_FIT,
    ROUND_ROBIN,
    RANDOM,
    TWO_CHOICE,
    DOT_PRODUCT,
    COSINE,
    NORM_GREEDY,
    WEIGHTED_DOT_PRODUCT,
    NUMA_BALANCE,
    NILAS,
    LAVA,
) = range(13)

# Places in `Progress.counts`.
NEXT, END_COUNT, ACTIVE, USED, PEAK, TURN, RUNNING, ARRIVED, HANDLED, REFUSED = range(10)
TAKEN_CPU, TAKEN_MEM = 10, 11  # what all hosts have given away; kept for WEIGHTED_DOT_PRODUCT alone
COUNT_COUNT = 12
# Places in `Progress.clock`.
NOW, WAIT_TOTAL, WAIT_MAX = range(3)


class Demand(NamedTuple):
    """What each VM asks of one node: all of it, or the share if the VM is spread."""

    cpu: Ints
    mem: Ints
    is_spread: Bytes
    status: Bytes  # written once for each VM; what fits no empty host is marked before the first event


class Requests(NamedTuple):
    """n VMs in the trace's order."""

    arrival_s: Floats
    lifetime_s: Floats  # inf: never leaves
    cpu: Ints  # these four are those of `Demand`
    mem: Ints
    is_spread: Bytes
    status: Bytes
    host: SmallInts  # -1: not placed
    node: SmallInts
    start_s: Floats  # nan: not placed


class Ask(NamedTuple):
    """One VM that looks for a host; `cpu` and `mem` are what it takes from one node."""

    cpu: int
    mem: int
    is_spread: bool
    node_count: int


class Fleet(NamedTuple):
    """What is free now. `host_cpu[h]` is always the sum of `node_cpu` over the nodes of h, and so for memory."""

    cpu_capacity: Ints
    mem_capacity: Ints
    node_cpu: Ints
    node_mem: Ints
    host_cpu: Ints
    host_mem: Ints
    vm_count: SmallInts
    was_used: Bytes
    share: Floats  # 1 / the fleet's largest capacity in vCPUs and memory, for scores that add both


class Ends(NamedTuple):
    """A binary heap of the VMs that will leave, the earliest at its root."""

    at_s: Floats
    vm: SmallInts


class Progress(NamedTuple):
    counts: Ints
    clock: Floats
    random: Words  # one word: the state of splitmix64


def new_requests(arrival_s: Floats, lifetime_s: Floats, demand: Demand) -> Requests:
    n = len(arrival_s)
    return Requests(
        arrival_s,
        lifetime_s,
        demand.cpu,
        demand.mem,
        demand.is_spread,
        demand.status,
        np.full(n, -1, np.int32),
        np.full(n, -1, np.int32),
        np.full(n, np.nan),
    )


def new_fleet(cpu_capacity: Ints, mem_capacity: Ints, node_count: int) -> Fleet:
    """An empty fleet whose hosts divide what they have evenly over their nodes."""
    node_cpu = np.repeat(cpu_capacity // node_count, node_count)
    node_mem = np.repeat(mem_capacity // node_count, node_count)
    host_cpu = (cpu_capacity // node_count) * node_count
    host_mem = (mem_capacity // node_count) * node_count
    share = np.array([1.0 / float(host_cpu.max()), 1.0 / float(host_mem.max())])
    n = len(cpu_capacity)
    return Fleet(
        host_cpu.copy(),
        host_mem.copy(),
        node_cpu,
        node_mem,
        host_cpu,
        host_mem,
        np.zeros(n, np.int32),
        np.zeros(n, np.int8),
        share,
    )


def new_ends(vm_count: int) -> Ends:
    return Ends(np.empty(vm_count), np.empty(vm_count, np.int32))


def new_progress(seed: int) -> Progress:
    random = np.array([seed % (1 << 64)], np.uint64)
    clock = np.array([-np.inf, 0.0, 0.0])
    return Progress(np.zeros(COUNT_COUNT, np.int64), clock, random)
