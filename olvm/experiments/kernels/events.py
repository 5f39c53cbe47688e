"""The loop of a replay: who leaves, who waits, who comes, in this order at each time.

Rules:
1. At one time everything that ends ends first; then the line is served; then VMs arrive, in the trace's order.
2. `fifo`: the head of the line waits until it fits, and all behind it wait. A lifetime begins when the VM is placed.
3. `reject`: a VM that no host has room for when it arrives is refused.
4. Where more nodes of the chosen host have room than the VM asks for, it goes to the lowest; for a VM of one node NUMA
   balance fit chooses.
5. The loop may return anywhere between two events and be called again: everything it knows stands in the arrays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from olvm.experiments.compilation import compiled, entry
from olvm.experiments.kernels.best_fit import (
    BestFitIndex,
    best_fit_insert,
    best_fit_remove,
    find_best,
)
from olvm.experiments.kernels.ends import pop_end, push_end
from olvm.experiments.kernels.first_fit import FirstFitIndex, first_fit_changed, first_fit_from
from olvm.experiments.kernels.lifetimes import Lifetimes, entered, find_aligned, left, outlived
from olvm.experiments.kernels.numa import find_most_even, lowest_nodes, most_even_node
from olvm.experiments.kernels.samples import Samples, mark_changed, sample_before
from olvm.experiments.kernels.scan import find_by_chance, find_by_score
from olvm.experiments.kernels.state import (
    ACTIVE,
    BEST_FIT,
    END_COUNT,
    FIRST_FIT,
    HANDLED,
    LAST_END,
    LAVA,
    NEXT,
    NILAS,
    NO_ROOM,
    NOW,
    NUMA_BALANCE,
    PEAK,
    PLACED,
    RANDOM,
    REFUSED,
    ROUND_ROBIN,
    RUNNING,
    SOME_NODES,
    SPREAD,
    TAKEN_CPU,
    TAKEN_MEM,
    TURN,
    TWO_CHOICE,
    USED,
    WAIT_MAX,
    WAIT_TOTAL,
    WAITING,
    WEIGHTED_DOT_PRODUCT,
    Ask,
    Ends,
    Fleet,
    Progress,
    Requests,
    SmallInts,
)


class Indexes(NamedTuple):
    first_fit: FirstFitIndex
    best_fit: BestFitIndex
    scratch: SmallInts  # one place for each host, where a policy draws
    lifetimes: Lifetimes


class World(NamedTuple):
    requests: Requests
    fleet: Fleet
    ends: Ends
    progress: Progress
    indexes: Indexes
    samples: Samples


@entry
def advance(digest: int) -> Callable[..., bool]:
    def advance(policy: int, is_fifo: bool, node_count: int, stop: int, world: World) -> bool:
        """Handle VMs up to number `stop`; False when the samples' buffers must be emptied first."""
        assert digest >= 0
        requests, ends, samples = world.requests, world.ends, world.samples
        counts, clock = world.progress.counts, world.progress.clock
        while counts[NEXT] < stop:
            vm = counts[NEXT]
            if requests.status[vm] != WAITING:
                counts[NEXT] += 1
                continue
            now_s = max(requests.arrival_s[vm], clock[NOW])
            host = -1
            while True:
                while counts[END_COUNT] > 0 and ends.at_s[0] <= now_s:
                    if not sample_before(
                        samples, requests, world.fleet, world.progress, ends.at_s[0], node_count
                    ):
                        return False
                    take_end(policy, world, node_count)
                if not sample_before(samples, requests, world.fleet, world.progress, now_s, node_count):
                    return False
                host = _chosen(policy, world, vm, now_s, node_count)
                if host >= 0 or not is_fifo or counts[END_COUNT] == 0:
                    break
                now_s = ends.at_s[0]
            if host >= 0:
                clock[NOW] = now_s
                take_place(policy, world, vm, host, node_count)
            elif is_fifo:  # nobody leaves any more: it waits for ever, and all behind it
                counts[NEXT] = len(requests.arrival_s)
                break
            else:
                requests.status[vm] = NO_ROOM
                counts[REFUSED] += 1
            counts[NEXT] += 1
        if counts[NEXT] == len(requests.arrival_s) and samples.period_s[0] < np.inf:
            return _finish(policy, world, node_count)
        return True

    return advance


@compiled
def _finish(policy: int, world: World, node_count: int) -> bool:
    """Go on to the last arrival, or the last placement if that was later, where the series end."""
    requests, ends, samples, progress = world.requests, world.ends, world.samples, world.progress
    last_s = max(requests.arrival_s[-1], progress.clock[NOW])
    while progress.counts[END_COUNT] > 0 and ends.at_s[0] <= last_s:
        if not sample_before(samples, requests, world.fleet, world.progress, ends.at_s[0], node_count):
            return False
        take_end(policy, world, node_count)
    return sample_before(
        samples, requests, world.fleet, world.progress, np.nextafter(last_s, np.inf), node_count
    )


@compiled
def _chosen(policy: int, world: World, vm: int, now_s: float, node_count: int) -> int:
    requests, fleet, progress, indexes = world.requests, world.fleet, world.progress, world.indexes
    ask = _ask(requests, vm, node_count)
    if policy == FIRST_FIT:
        return first_fit_from(indexes.first_fit, fleet, 0, vm, ask)
    if policy == BEST_FIT:
        return find_best(indexes.best_fit, fleet, ask)
    if policy == ROUND_ROBIN:
        turn = progress.counts[TURN]
        host = first_fit_from(indexes.first_fit, fleet, turn, vm, ask)
        if host < 0 and turn > 0:
            host = first_fit_from(indexes.first_fit, fleet, 0, vm, ask)
        return host
    if policy in (RANDOM, TWO_CHOICE):
        return find_by_chance(policy, fleet, progress.random, indexes.scratch, ask)
    if policy in (NILAS, LAVA):
        outlived(indexes.lifetimes, requests.host, now_s)
        return find_aligned(policy, indexes.lifetimes, fleet, vm, now_s, ask)
    if policy == NUMA_BALANCE:
        return find_most_even(fleet, ask)
    return find_by_score(policy, fleet, progress.counts, ask)


@compiled
def _ask(requests: Requests, vm: int, node_count: int) -> Ask:
    group = requests.group[vm] if len(requests.group) else 0
    return Ask(requests.cpu[vm], requests.mem[vm], requests.parts[vm], node_count, group)


@compiled
def take_place(policy: int, world: World, vm: int, host: int, node_count: int) -> None:
    """A VM comes to a host that has room, at the clock's time."""
    requests, fleet = world.requests, world.fleet
    counts, clock = world.progress.counts, world.progress.clock
    node = SPREAD
    if policy == NUMA_BALANCE and requests.parts[vm] == 1:
        node = most_even_node(fleet, host, _ask(requests, vm, node_count))
    elif requests.parts[vm] == 1:
        node = 0
        at = host * node_count
        while fleet.node_cpu[at] < requests.cpu[vm] or fleet.node_mem[at] < requests.mem[vm]:
            node += 1
            at += 1
    elif requests.parts[vm] < node_count:
        node = SOME_NODES
        requests.nodes[vm] = lowest_nodes(fleet, host, _ask(requests, vm, node_count))
    requests.status[vm] = PLACED
    requests.host[vm] = host
    requests.node[vm] = node
    requests.start_s[vm] = clock[NOW]
    _change(policy, world, vm, -1, node_count)
    counts[HANDLED] += 1
    counts[RUNNING] += 1
    if fleet.vm_count[host] == 0:
        counts[ACTIVE] += 1
        counts[PEAK] = max(counts[PEAK], counts[ACTIVE])
        if fleet.was_used[host] == 0:
            fleet.was_used[host] = 1
            counts[USED] += 1
        fleet.since_s[host] = clock[NOW]
    fleet.vm_count[host] += 1
    if policy in (NILAS, LAVA):
        entered(policy, world.indexes.lifetimes, fleet, vm, host, clock[NOW])
    if policy == ROUND_ROBIN:
        counts[TURN] = host + 1 if host + 1 < len(fleet.host_cpu) else 0
    wait_s = clock[NOW] - requests.arrival_s[vm]
    clock[WAIT_TOTAL] += wait_s
    clock[WAIT_MAX] = max(clock[WAIT_MAX], wait_s)
    end_s = clock[NOW] + requests.lifetime_s[vm]
    if end_s < np.inf:
        push_end(world.ends, counts[END_COUNT], end_s, vm)
        counts[END_COUNT] += 1


@compiled
def take_end(policy: int, world: World, node_count: int) -> int:
    """The next VM leaves; returns the host that it had."""
    fleet, counts = world.fleet, world.progress.counts
    counts[END_COUNT] -= 1
    end_s = world.ends.at_s[0]
    world.progress.clock[LAST_END] = end_s
    vm = pop_end(world.ends, counts[END_COUNT])
    _change(policy, world, vm, 1, node_count)
    host = world.requests.host[vm]
    if policy in (NILAS, LAVA):
        left(policy, world.indexes.lifetimes, vm, host, end_s)
    fleet.vm_count[host] -= 1
    counts[RUNNING] -= 1
    if fleet.vm_count[host] == 0:
        counts[ACTIVE] -= 1
        fleet.held_s[host] += end_s - fleet.since_s[host]
    return int(host)


@compiled
def _change(policy: int, world: World, vm: int, sign: int, node_count: int) -> None:
    """Take (-1) or give back (1) what a VM has of its host, and tell the index in use."""
    requests, fleet, indexes, counts = world.requests, world.fleet, world.indexes, world.progress.counts
    host, node = requests.host[vm], requests.node[vm]
    if policy == BEST_FIT:
        best_fit_remove(indexes.best_fit, fleet, host, node_count)
    cpu, mem = sign * requests.cpu[vm], sign * requests.mem[vm]
    parts = requests.parts[vm]
    if policy == WEIGHTED_DOT_PRODUCT:
        counts[TAKEN_CPU] -= cpu * parts
        counts[TAKEN_MEM] -= mem * parts
    fleet.host_cpu[host] += cpu * parts
    fleet.host_mem[host] += mem * parts
    if node >= 0:
        fleet.node_cpu[host * node_count + node] += cpu
        fleet.node_mem[host * node_count + node] += mem
    else:
        nodes = requests.nodes[vm] if node == SOME_NODES else -1
        for k in range(node_count):
            if nodes >> k & 1:
                fleet.node_cpu[host * node_count + k] += cpu
                fleet.node_mem[host * node_count + k] += mem
    if policy == BEST_FIT:
        best_fit_insert(indexes.best_fit, fleet, host, node_count)
    elif policy in (FIRST_FIT, ROUND_ROBIN):
        first_fit_changed(indexes.first_fit, fleet, host, node, node_count)
    mark_changed(world.samples, host)
