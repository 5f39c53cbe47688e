"""Policies for which no index is known: one compiled pass over all hosts for each decision.

Ties go to the lowest host index. What a host has free is the sum over its NUMA nodes. Where vCPUs and memory are added
or compared, both count as shares of the fleet's largest host.

Cost: O(hosts); about 1 ns for each host.
"""

from __future__ import annotations

import numpy as np

from olvm.experiments.compilation import compiled
from olvm.experiments.kernels.best_fit import has_room
from olvm.experiments.kernels.numa import fuller
from olvm.experiments.kernels.state import (
    COSINE,
    DOT_PRODUCT,
    RANDOM,
    TAKEN_CPU,
    TAKEN_MEM,
    WEIGHTED_DOT_PRODUCT,
    WORST_FIT,
    Ask,
    Fleet,
    Ints,
    SmallInts,
    Words,
)


@compiled
def draw_below(random: Words, count: int) -> int:
    """A number from 0 to `count` - 1. Source: splitmix64, Steele, Lea and Flood, OOPSLA 2014."""
    random[0] = random[0] + np.uint64(0x9E3779B97F4A7C15)
    word = random[0]
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    word = word ^ (word >> np.uint64(31))
    return int(np.int64(word >> np.uint64(1)) % count)


@compiled
def score(policy: int, fleet: Fleet, counts: Ints, host: int, cpu: int, mem: int) -> float:
    """Larger is better. `cpu` and `mem` are all that the VM takes from the host."""
    free_cpu, free_mem = fleet.host_cpu[host] * fleet.share[0], fleet.host_mem[host] * fleet.share[1]
    asked_cpu, asked_mem = cpu * fleet.share[0], mem * fleet.share[1]
    if policy == DOT_PRODUCT:
        return float(asked_cpu * free_cpu + asked_mem * free_mem)
    if policy == WEIGHTED_DOT_PRODUCT:
        # Sums instead of averages, which differ by one factor for all hosts; the VM that asks is one of them.
        weight_cpu = (counts[TAKEN_CPU] + cpu) * fleet.share[0]
        weight_mem = (counts[TAKEN_MEM] + mem) * fleet.share[1]
        return float(weight_cpu * asked_cpu * free_cpu + weight_mem * asked_mem * free_mem)
    if policy == COSINE:
        product = asked_cpu * free_cpu + asked_mem * free_mem
        asked = np.sqrt(asked_cpu * asked_cpu + asked_mem * asked_mem)
        return float(product / (asked * np.sqrt(free_cpu * free_cpu + free_mem * free_mem)))
    over_cpu, over_mem = free_cpu - asked_cpu, free_mem - asked_mem
    return float(-(over_cpu * over_cpu + over_mem * over_mem))


@compiled
def emptier(fleet: Fleet, one: int, other: int) -> bool:
    """Host `one` has more vCPUs free than `other`, or as many and more memory."""
    return fuller(fleet, other, one)


@compiled
def find_by_score(policy: int, fleet: Fleet, counts: Ints, ask: Ask) -> int:
    """The host with room of the highest score (worst fit: the emptiest); -1 if there is none."""
    best, best_score = -1, 0.0
    for host in range(len(fleet.host_cpu)):
        if not has_room(fleet, host, ask):
            continue
        if policy == WORST_FIT:
            if best < 0 or emptier(fleet, host, best):
                best = host
        else:
            this = score(policy, fleet, counts, host, ask.cpu * ask.parts, ask.mem * ask.parts)
            if best < 0 or this > best_score:
                best, best_score = host, this
    return best


@compiled
def find_by_chance(policy: int, fleet: Fleet, random: Words, scratch: SmallInts, ask: Ask) -> int:
    """One of the hosts with room, or the emptier of two drawn from them; -1, and nothing drawn, if there is none."""
    count = 0
    for host in range(len(fleet.host_cpu)):
        if has_room(fleet, host, ask):
            scratch[count] = host
            count += 1
    if count == 0:
        return -1
    one = scratch[draw_below(random, count)]
    if policy == RANDOM:
        return int(one)
    other = scratch[draw_below(random, count)]
    if emptier(fleet, other, one) or (other < one and not emptier(fleet, one, other)):
        return int(other)
    return int(one)
