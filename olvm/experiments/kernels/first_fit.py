"""The first host with room, from a tree of who could be taken.

Each node of a binary tree holds a set of *kinds*: those of which some leaf below could hold a VM. A search goes down
only where its kind is.

A trace of up to `KIND_COUNT_MAX` distinct sizes has a kind for each, so that a search never comes back from a subtree,
a VM that fits nowhere is known by the root, and a change goes up only as far as it lets a size in or keeps one out.
With more sizes a kind is what several have at least in common, and each node also holds the most vCPUs and the most
memory that are free anywhere below it. Both may be free on different hosts, so that a search may have to come back, but
never to the same subtree.

Cost: O(log n + kinds) for an update, O(log n) for a search; with more sizes than kinds a search may take O(n), as in a
fleet where half of the hosts lack a little memory and the other half a little of a vCPU. The tree knows nothing of
host groups, nor of several nodes that are not all: hosts that it finds and that are none for such a VM are passed one
by one.

Source: the tree of first fit is in D. S. Johnson, "Near-optimal bin packing algorithms", 1973; kinds are the
equivalence classes of requests of Hadary et al., "Protean", OSDI 2020, as bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from olvm.experiments.compilation import compiled, entry
from olvm.experiments.kernels.best_fit import has_room
from olvm.experiments.kernels.state import Ask, Bytes, Demand, Fleet, Ints

KIND_COUNT_MAX = 62  # bits of an int64 that is never negative
CPU_FLOORS, MEM_FLOORS = 7, 8  # of kinds that are shared


class Tree(NamedTuple):
    """Its root is at 1, leaf k at `len(kinds) // 2 + k`."""

    kinds: Ints  # a bit for each; two places: not in use
    most: Ints  # (2, places): the most vCPUs and memory; no places: each size has a kind of its own


class FirstFitIndex(NamedTuple):
    by_node: Tree  # over NUMA nodes: who has room for a VM in one node
    by_host: Tree  # over hosts: what each of its nodes has at least; who has room for a VM that is spread
    floors: Ints  # (kinds, 2): vCPUs and memory that every VM of a kind takes at least, of one node
    kind: Bytes  # of each VM


def new_first_fit(fleet: Fleet, demand: Demand, node_count: int, *, is_used: bool) -> FirstFitIndex:
    none = Tree(np.zeros(2, np.int64), np.zeros((2, 0), np.int64))
    if not is_used:
        return FirstFitIndex(none, none, np.zeros((0, 2), np.int64), np.zeros(0, np.int8))
    floors, kind, is_exact = _kinds(demand)
    by_node = _tree(fleet.node_cpu, fleet.node_mem, floors, is_exact=is_exact)
    if node_count == 1:
        return FirstFitIndex(by_node, none, floors, kind)
    least_cpu = fleet.node_cpu.reshape(-1, node_count).min(axis=1)
    least_mem = fleet.node_mem.reshape(-1, node_count).min(axis=1)
    by_host = _tree(least_cpu, least_mem, floors, is_exact=is_exact)
    return FirstFitIndex(by_node, by_host, floors, kind)


def _kinds(demand: Demand) -> tuple[Ints, Bytes, bool]:
    """What each kind takes at least, the kind of each VM, and whether each size has one of its own."""
    kind = np.zeros(len(demand.cpu), np.int8)
    floors = np.zeros((KIND_COUNT_MAX, 2), np.int64)
    count = number_sizes(demand, floors, kind, np.full(256, -1, np.int64))
    if count >= 0:
        return floors[:count].copy(), kind, True
    cpu_floors = np.quantile(demand.cpu, np.arange(CPU_FLOORS) / CPU_FLOORS, method="lower")
    mem_floors = np.quantile(demand.mem, np.arange(MEM_FLOORS) / MEM_FLOORS, method="lower")
    by_cpu = np.searchsorted(cpu_floors, demand.cpu, side="right") - 1
    by_mem = np.searchsorted(mem_floors, demand.mem, side="right") - 1
    pairs = np.stack([np.repeat(cpu_floors, MEM_FLOORS), np.tile(mem_floors, CPU_FLOORS)], axis=1)
    return pairs.astype(np.int64), (by_cpu * MEM_FLOORS + by_mem).astype(np.int8), False


def _tree(cpu: Ints, mem: Ints, floors: Ints, *, is_exact: bool) -> Tree:
    size = 1 << max(0, int(len(cpu) - 1).bit_length())
    tree = Tree(np.zeros(2 * size, np.int64), np.full((2, 0 if is_exact else 2 * size), -1, np.int64))
    fill_tree(tree, floors, cpu, mem)
    return tree


@entry
def number_sizes(digest: int) -> Callable[..., int]:
    def number_sizes(demand: Demand, floors: Ints, kind: Bytes, slots: Ints) -> int:
        """Number the distinct sizes in order of appearance; how many there are, or -1 if more than `floors` holds.

        `slots` is a hash table of 256 places, -1 where empty.
        """
        assert digest >= 0
        count = 0
        for vm in range(len(demand.cpu)):
            cpu, mem = demand.cpu[vm], demand.mem[vm]
            slot = (cpu * 31 + (mem >> 8) * 17 + (mem >> 20)) & 255
            while slots[slot] >= 0:
                known = slots[slot]
                if floors[known, 0] == cpu and floors[known, 1] == mem:
                    break
                slot = (slot + 1) & 255
            if slots[slot] < 0:
                if count == floors.shape[0]:
                    return -1
                floors[count, 0] = cpu
                floors[count, 1] = mem
                slots[slot] = count
                count += 1
            kind[vm] = slots[slot]
        return count

    return number_sizes


@entry
def fill_tree(digest: int) -> Callable[..., None]:
    def fill_tree(tree: Tree, floors: Ints, cpu: Ints, mem: Ints) -> None:
        """Make all nodes of a tree whose leaves have `cpu` and `mem` free. One that holds nothing is filled."""
        assert digest >= 0
        size = len(tree.kinds) // 2
        for leaf in range(len(cpu)):
            tree.kinds[size + leaf] = _kinds_that_fit(floors, cpu[leaf], mem[leaf])
            if tree.most.shape[1]:
                tree.most[0, size + leaf] = cpu[leaf]
                tree.most[1, size + leaf] = mem[leaf]
        for at in range(size - 1, 0, -1):
            _join(tree, at)

    return fill_tree


@compiled
def _kinds_that_fit(floors: Ints, cpu: int, mem: int) -> int:
    kinds = 0
    for kind in range(floors.shape[0]):
        if cpu >= floors[kind, 0] and mem >= floors[kind, 1]:
            kinds |= 1 << kind
    return kinds


@compiled
def _join(tree: Tree, at: int) -> bool:
    """Make a node what its two children are together; whether that changed it."""
    kinds = tree.kinds[2 * at] | tree.kinds[2 * at + 1]
    is_changed = tree.kinds[at] != kinds
    tree.kinds[at] = kinds
    most = tree.most
    if most.shape[1]:
        cpu = max(most[0, 2 * at], most[0, 2 * at + 1])
        mem = max(most[1, 2 * at], most[1, 2 * at + 1])
        is_changed = is_changed or most[0, at] != cpu or most[1, at] != mem
        most[0, at] = cpu
        most[1, at] = mem
    return bool(is_changed)


@compiled
def find_first(tree: Tree, start: int, cpu: int, mem: int, kind: int) -> int:
    """The first leaf from `start` on with at least `cpu` and `mem`; -1 if there is none. `kind`: its number."""
    kinds, most = tree.kinds, tree.most
    size, bit, is_exact = len(kinds) // 2, 1 << kind, most.shape[1] == 0
    at = size + start if start > 0 else 1
    while True:
        if kinds[at] & bit and (is_exact or (most[0, at] >= cpu and most[1, at] >= mem)):
            if at >= size:
                return int(at - size)
            at *= 2
        else:
            while at & 1:  # nothing more below the parent of a right child
                at >>= 1
            if at == 0:
                return -1
            at += 1


@compiled
def set_leaf(tree: Tree, floors: Ints, leaf: int, cpu: int, mem: int) -> None:
    kinds = _kinds_that_fit(floors, cpu, mem)
    at = len(tree.kinds) // 2 + leaf
    if tree.most.shape[1]:
        tree.most[0, at] = cpu
        tree.most[1, at] = mem
    elif tree.kinds[at] == kinds:
        return
    tree.kinds[at] = kinds
    at >>= 1
    while at >= 1 and _join(tree, at):
        at >>= 1


@compiled
def first_fit_from(index: FirstFitIndex, fleet: Fleet, start: int, vm: int, ask: Ask) -> int:
    """The first host at or after `start` with room; -1 if there is none."""
    kind = int(index.kind[vm])
    is_by_host = ask.parts > 1 and ask.parts == ask.node_count
    is_exact = ask.group == 0 and (ask.parts == 1 or is_by_host)
    while True:
        if is_by_host:
            host = find_first(index.by_host, start, ask.cpu, ask.mem, kind)
        else:
            leaf = find_first(index.by_node, start * ask.node_count, ask.cpu, ask.mem, kind)
            host = leaf // ask.node_count if leaf >= 0 else -1
        if host < 0 or is_exact or has_room(fleet, host, ask):
            return host
        start = host + 1
        if start == len(fleet.host_cpu):
            return -1


@compiled
def first_fit_changed(index: FirstFitIndex, fleet: Fleet, host: int, node: int, node_count: int) -> None:
    """What host `host` has free has changed in `node`, or in all of them (`SPREAD`)."""
    first = host * node_count
    if node_count == 1:
        set_leaf(index.by_node, index.floors, host, fleet.node_cpu[host], fleet.node_mem[host])
        return
    least_cpu, least_mem = fleet.node_cpu[first], fleet.node_mem[first]
    for k in range(node_count):
        least_cpu = min(least_cpu, fleet.node_cpu[first + k])
        least_mem = min(least_mem, fleet.node_mem[first + k])
        if node < 0 or node == k:
            set_leaf(
                index.by_node, index.floors, first + k, fleet.node_cpu[first + k], fleet.node_mem[first + k]
            )
    set_leaf(index.by_host, index.floors, host, least_cpu, least_mem)
