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
NO_GROUP, TOO_LARGE_FOR_GROUP, TOO_MANY_NODES = 6, 7, 8
STATUS_COUNT = 9
SPREAD = -1  # the node of a VM that is spread over all nodes of its host
SOME_NODES = -2  # of one that is spread over some of them: `Requests.nodes` says which

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
NOW, WAIT_TOTAL, WAIT_MAX, LAST_END = range(4)


class Demand(NamedTuple):
    """What each VM asks of one node: all of it, or the share if the VM is spread."""

    cpu: Ints
    mem: Ints
    parts: Bytes  # how many nodes give that; 0 until `prepare`: as `split_above_gib` says
    group: Ints  # a bit for the host group that it must have; empty: no VM asks for one
    status: Bytes  # written once for each VM; what fits no empty host is marked before the first event


class Requests(NamedTuple):
    """n VMs in the trace's order."""

    arrival_s: Floats
    lifetime_s: Floats  # inf: never leaves
    cpu: Ints  # these five are those of `Demand`
    mem: Ints
    parts: Bytes
    group: Ints
    status: Bytes
    host: SmallInts  # -1: not placed
    node: SmallInts
    nodes: Ints  # where `node` is SOME_NODES, a bit for each; empty: no VM asks for some nodes of several
    start_s: Floats  # nan: not placed


class Ask(NamedTuple):
    """One VM that looks for a host; `cpu` and `mem` are what it takes from each of `parts` nodes."""

    cpu: int
    mem: int
    parts: int
    node_count: int
    group: int  # 0: any host will do


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
    group: Ints  # a bit for each group that the host is in; empty: no VM asks for one
    since_s: Floats  # when a host that holds VMs got the first of them
    held_s: Floats  # how long it held VMs before that
    share: Floats  # 1 / the fleet's largest capacity in vCPUs and memory, for scores that add both


class Ends(NamedTuple):
    """A binary heap of the VMs that will leave, the earliest at its root."""

    at_s: Floats
    vm: SmallInts


class Progress(NamedTuple):
    counts: Ints
    clock: Floats
    random: Words  # one word: the state of splitmix64


def new_requests(arrival_s: Floats, lifetime_s: Floats, demand: Demand, *, is_parted: bool) -> Requests:
    """`is_parted`: some VM is spread over some nodes of a host that has more."""
    n = len(arrival_s)
    return Requests(
        arrival_s,
        lifetime_s,
        demand.cpu,
        demand.mem,
        demand.parts,
        demand.group,
        demand.status,
        np.full(n, -1, np.int32),
        np.full(n, -1, np.int32),
        np.zeros(n if is_parted else 0, np.int64),
        np.full(n, np.nan),
    )


def new_fleet(cpu_capacity: Ints, mem_capacity: Ints, node_count: int, group: Ints) -> Fleet:
    """An empty fleet whose hosts divide what they have evenly over their nodes; `group` as in `Fleet`."""
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
        group,
        np.zeros(n),
        np.zeros(n),
        share,
    )


def new_ends(vm_count: int) -> Ends:
    return Ends(np.empty(vm_count), np.empty(vm_count, np.int32))


def new_progress(seed: int) -> Progress:
    random = np.array([seed % (1 << 64)], np.uint64)
    clock = np.array([-np.inf, 0.0, 0.0, -np.inf])
    return Progress(np.zeros(COUNT_COUNT, np.int64), clock, random)
