"""The first host with room, from a tree of the largest free capacity.

Each inner node of a binary tree holds the most vCPUs and the most memory that are free anywhere below it. A search goes
down only where both would be enough. They may be free on different hosts, so it may have to come back; it never comes
back to the same subtree.

Cost: O(log n) for an update. A search is O(log n) as long as what is scarce is the same everywhere; the worst case,
half of the fleet without memory and the other half without vCPUs, visits every host.

Source: the tree of first fit is in D. S. Johnson, "Near-optimal bin packing algorithms", 1973; two resources are ours.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from olvm.experiments.kernels.compilation import compiled
from olvm.experiments.kernels.state import Ask, Fleet, Ints


class FirstFitIndex(NamedTuple):
    """Trees with their root at 1; rows are (vCPUs, memory), leaf k stands at `len // 2 + k`. Length 2: not in use."""

    by_node: Ints  # over NUMA nodes: who has room for a VM in one node
    by_host: Ints  # over hosts: what each of its nodes has at least; who has room for a VM that is spread


def new_first_fit(fleet: Fleet, node_count: int, *, is_used: bool) -> FirstFitIndex:
    if not is_used:
        return FirstFitIndex(np.full((2, 2), -1, np.int64), np.full((2, 2), -1, np.int64))
    by_node = _tree(fleet.node_cpu, fleet.node_mem)
    if node_count == 1:
        return FirstFitIndex(by_node, np.full((2, 2), -1, np.int64))
    least_cpu = fleet.node_cpu.reshape(-1, node_count).min(axis=1)
    least_mem = fleet.node_mem.reshape(-1, node_count).min(axis=1)
    return FirstFitIndex(by_node, _tree(least_cpu, least_mem))


def _tree(cpu: Ints, mem: Ints) -> Ints:
    size = 1 << max(0, int(len(cpu) - 1).bit_length())
    tree = np.full((2 * size, 2), -1, np.int64)
    tree[size : size + len(cpu), 0] = cpu
    tree[size : size + len(cpu), 1] = mem
    while size > 1:
        size //= 2
        tree[size : 2 * size] = tree[2 * size : 4 * size].reshape(size, 2, 2).max(axis=1)
    return tree


@compiled
def find_first(tree: Ints, start: int, cpu: int, mem: int) -> int:
    """The first leaf at or after `start` with at least `cpu` and `mem`; -1 if there is none."""
    size = tree.shape[0] // 2
    at = size + start if start > 0 else 1
    while True:
        if tree[at, 0] >= cpu and tree[at, 1] >= mem:
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
def set_leaf(tree: Ints, leaf: int, cpu: int, mem: int) -> None:
    at = tree.shape[0] // 2 + leaf
    tree[at, 0] = cpu
    tree[at, 1] = mem
    at >>= 1
    while at >= 1:
        cpu = max(tree[2 * at, 0], tree[2 * at + 1, 0])
        mem = max(tree[2 * at, 1], tree[2 * at + 1, 1])
        if tree[at, 0] == cpu and tree[at, 1] == mem:
            return
        tree[at, 0] = cpu
        tree[at, 1] = mem
        at >>= 1


@compiled
def first_fit_from(index: FirstFitIndex, start: int, ask: Ask) -> int:
    """The first host at or after `start` with room; -1 if there is none."""
    if ask.is_spread:
        return find_first(index.by_host, start, ask.cpu, ask.mem)
    leaf = find_first(index.by_node, start * ask.node_count, ask.cpu, ask.mem)
    return leaf // ask.node_count if leaf >= 0 else -1


@compiled
def first_fit_changed(index: FirstFitIndex, fleet: Fleet, host: int, node: int, node_count: int) -> None:
    """What host `host` has free has changed in `node`, or in all of them (`SPREAD`)."""
    first = host * node_count
    if node_count == 1:
        set_leaf(index.by_node, host, fleet.node_cpu[host], fleet.node_mem[host])
        return
    least_cpu, least_mem = fleet.node_cpu[first], fleet.node_mem[first]
    for k in range(node_count):
        least_cpu = min(least_cpu, fleet.node_cpu[first + k])
        least_mem = min(least_mem, fleet.node_mem[first + k])
        if node < 0 or node == k:
            set_leaf(index.by_node, first + k, fleet.node_cpu[first + k], fleet.node_mem[first + k])
    set_leaf(index.by_host, host, least_cpu, least_mem)
