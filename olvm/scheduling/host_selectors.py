"""The classic packing algorithms as selectors: one of the hosts that passed all filters is taken, nothing is weighed.

`olvm experiment replay` has the same algorithms by the same names in compiled loops; a test holds the two to the same
choices. Hosts stand in order of name, which is the order that "first" and every tie mean. What a host has free is what
the cluster may still promise there; where CPUs and memory are added or compared, both count as shares of the cluster's
largest host.

A choice depends on table, request and policy alone, so that a repeated question has the same answer: chance is drawn
from the machine's id, and whose turn it is follows from the newest booking, which the table knows.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_right
from collections.abc import Callable
from functools import partial

import msgspec

from olvm.scheduling.host_table import HostTable
from olvm.scheduling.request import VmRequest, memory_need_bytes
from olvm.scheduling.resources import numa_unevenness
from olvm.scheduling.user_columns import free_vcpus, free_vcpus_of

Choose = Callable[[HostTable, VmRequest, list[int]], int]
_Free = tuple[int, int]  # vCPUs, bytes


class HostSelector(msgspec.Struct, frozen=True, kw_only=True):
    """`policy`: the built-in of it alone. `choose`: from slots in order of name, at least one, to one of them."""

    policy: str
    takes: str
    source: str
    choose: Choose


def _free(table: HostTable, slot: int) -> _Free:
    return free_vcpus(table, slot), table.memory_free_bytes[slot]


def _first(table: HostTable, request: VmRequest, slots: list[int]) -> int:
    del table, request
    return slots[0]


def _fullest(table: HostTable, request: VmRequest, slots: list[int]) -> int:
    del request
    free = free_vcpus_of(table, slots)
    return min(_equal_to(min(free), free, slots), key=table.memory_free_bytes.__getitem__)


def _emptiest(table: HostTable, request: VmRequest, slots: list[int]) -> int:
    del request
    free = free_vcpus_of(table, slots)
    return max(_equal_to(max(free), free, slots), key=table.memory_free_bytes.__getitem__)


def _equal_to(value: int, values: list[int], slots: list[int]) -> list[int]:
    """The slots that have this value, in their order."""
    return [slot for slot, has in zip(slots, values, strict=True) if has == value]


def _next(table: HostTable, request: VmRequest, slots: list[int]) -> int:
    del request
    at = bisect_right(slots, table.turn_host, key=table.name.__getitem__)
    return slots[at % len(slots)]


def _any(table: HostTable, request: VmRequest, slots: list[int]) -> int:
    del table
    return slots[_draws(request)[0] % len(slots)]


def _emptier_of_two(table: HostTable, request: VmRequest, slots: list[int]) -> int:
    one, other = sorted(draw % len(slots) for draw in _draws(request))
    return max(slots[one], slots[other], key=partial(_free, table))


def _draws(request: VmRequest) -> tuple[int, int]:
    digest = hashlib.blake2b(request.vm_id.encode(), digest_size=16).digest()
    return int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big")


_Score = Callable[[float, float, float, float], float]
# vCPUs are counted in thousandths, as replays do, so that both round to the same shares; bytes and KiB differ by a
# power of two and round alike anyway.
_MILLI = 1000


def _shares(table: HostTable) -> tuple[float, float]:
    """One thousandth of a vCPU and one byte as shares of the cluster's largest host."""
    # A limit in percent leaves the order of hosts as it is: it is applied to the largest alone.
    cpus = max(map(table.cpus.__getitem__, table.all_slots())) * (table.cpu_overcommit_percent or 100) // 100
    memory_bytes = max(map(table.capacity_bytes, table.all_slots()))
    return 1 / (_MILLI * max(1, cpus)), 1 / max(1, memory_bytes)


def _by_score(score: _Score, table: HostTable, request: VmRequest, slots: list[int]) -> int:
    """`score` of what is asked and what is free, vCPUs and memory each as shares; the largest wins."""
    cpu_share, memory_share = _shares(table)
    asked_cpu = _MILLI * request.vcpus * cpu_share
    asked_memory = memory_need_bytes(request) * memory_share

    memory_free_bytes = table.memory_free_bytes
    scores = [
        score(asked_cpu, asked_memory, _MILLI * cpus * cpu_share, memory_free_bytes[slot] * memory_share)
        for slot, cpus in zip(slots, free_vcpus_of(table, slots), strict=True)
    ]
    return slots[scores.index(max(scores))]


def _by_weighted_dot(table: HostTable, request: VmRequest, slots: list[int]) -> int:
    """Weights are average demands of what is booked and of what asks; sums, which differ by one factor for all."""
    cpu_share, memory_share = _shares(table)
    booked_cpus = sum(map(table.taken_cpus, table.all_slots()))
    booked_bytes = sum(map(table.reserved_memory_bytes.__getitem__, table.all_slots()))
    cpu_weight = _MILLI * (booked_cpus + request.vcpus) * cpu_share
    memory_weight = (booked_bytes + memory_need_bytes(request)) * memory_share

    def weighted(asked_cpu: float, asked_memory: float, cpu: float, memory: float) -> float:
        return cpu_weight * asked_cpu * cpu + memory_weight * asked_memory * memory

    return _by_score(weighted, table, request, slots)


def _dot(asked_cpu: float, asked_memory: float, cpu: float, memory: float) -> float:
    return asked_cpu * cpu + asked_memory * memory


def _cosine(asked_cpu: float, asked_memory: float, cpu: float, memory: float) -> float:
    length = math.sqrt(asked_cpu * asked_cpu + asked_memory * asked_memory) * math.sqrt(
        cpu * cpu + memory * memory
    )
    return _dot(asked_cpu, asked_memory, cpu, memory) / length if length else 0.0


def _closest(asked_cpu: float, asked_memory: float, cpu: float, memory: float) -> float:
    left_cpu, left_memory = cpu - asked_cpu, memory - asked_memory
    return -(left_cpu * left_cpu + left_memory * left_memory)


def _most_even(table: HostTable, request: VmRequest, slots: list[int]) -> int:
    if request.needs is not None and request.needs.numa_nodes:
        found = [numa_unevenness(table.profile[slot], table.taken[slot], request.needs) for slot in slots]
        uneven = [_UNKNOWN if one is None else one for one in found]
    else:
        uneven = _evenness_watched(table).of(slots)
    return _fullest(table, request, _equal_to(min(uneven), uneven, slots))


# Nodes that are not known come last: no host is more uneven than by a whole node and what it is overdrawn.
_UNKNOWN = 1 << 62


class _EvennessWatcher:
    """How uneven each usable host is to a machine that wants no NUMA nodes; worked out anew where a row changes."""

    def __init__(self, table: HostTable) -> None:
        self._table = table
        self._uneven_by_slot: dict[int, int] = {}

    def entered(self, slot: int) -> None:
        uneven = numa_unevenness(self._table.profile[slot], self._table.taken[slot], None)
        assert uneven is not None, "only a machine that wants nodes asks for what is not known"
        self._uneven_by_slot[slot] = uneven

    def left(self, slot: int) -> None:
        self._uneven_by_slot.pop(slot, None)

    def changed(self, slot: int) -> None:
        self.entered(slot)

    def of(self, slots: list[int]) -> list[int]:
        return [self._uneven_by_slot[slot] for slot in slots]


def _evenness_watched(table: HostTable) -> _EvennessWatcher:
    """Cost: some µs a host the first time, then some for each change of a host."""
    watcher = table.watcher("evenness")
    if not isinstance(watcher, _EvennessWatcher):
        watcher = _EvennessWatcher(table)
        table.watch("evenness", watcher)
    return watcher


_JOHNSON = "Johnson, Demers, Ullman, Garey, Graham, SIAM J. Comput. 3(4), 1974"
_PANIGRAHY = "Panigrahy, Talwar, Uyeda, Wieder, Heuristics for vector bin packing, 2011"
HOST_SELECTORS: dict[str, HostSelector] = {
    "FirstFit": HostSelector(policy="first_fit", takes="the first host", source=_JOHNSON, choose=_first),
    "BestFit": HostSelector(
        policy="best_fit",
        takes="the host with the least free vCPUs, then the least free memory",
        source=_JOHNSON + "; with two resources in that order as in Protean, OSDI 2020",
        choose=_fullest,
    ),
    "WorstFit": HostSelector(
        policy="worst_fit",
        takes="the host with the most free vCPUs, then the most free memory",
        source=_JOHNSON,
        choose=_emptiest,
    ),
    "RoundRobin": HostSelector(
        policy="round_robin",
        takes="the next host after that of the newest booking, around the end",
        source=_JOHNSON + ", as next fit over a circle",
        choose=_next,
    ),
    "Random": HostSelector(
        policy="random",
        takes="any host, drawn from the machine's id",
        source="the usual null policy",
        choose=_any,
    ),
    "TwoChoice": HostSelector(
        policy="two_choice",
        takes="of two hosts, drawn from the machine's id, the one that WorstFit would take",
        source="Mitzenmacher, The power of two choices in randomized load balancing, IEEE TPDS 12(10), 2001",
        choose=_emptier_of_two,
    ),
    "DotProduct": HostSelector(
        policy="dot_product",
        takes="the host with the largest dot product of what is asked and what is free",
        source=_PANIGRAHY + ", without weights",
        choose=partial(_by_score, _dot),
    ),
    "Cosine": HostSelector(
        policy="cosine",
        takes="the host with the smallest angle between what is asked and what is free",
        source="the dot product of " + _PANIGRAHY + ", normalized; Tetris, Grandl et al., SIGCOMM 2014",
        choose=partial(_by_score, _cosine),
    ),
    "NormGreedy": HostSelector(
        policy="norm_greedy",
        takes="the host on which the L2 norm of what stays free is least",
        source=_PANIGRAHY + ", norm-based greedy with L2",
        choose=partial(_by_score, _closest),
    ),
    "WeightedDotProduct": HostSelector(
        policy="weighted_dot_product",
        takes="the host with the largest dot product of what is asked and what is free, each resource weighted by "
        "the average demand of the machines there are and of the one that asks",
        source=_PANIGRAHY + ", with average demands as weights, over what is known online",
        choose=_by_weighted_dot,
    ),
    "NumaBalance": HostSelector(
        policy="numa_balance",
        takes="the host whose NUMA nodes stay most even in free memory, then the one that BestFit would take",
        source="balance fit, of which we know no paper; how even is measured is ours",
        choose=_most_even,
    ),
}
