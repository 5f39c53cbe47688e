"""The fullest host with room, or the emptiest one, from classes of hosts with equal free capacity.

Three layers, from the outside in:

1. *Levels*: one for each number of free vCPUs that a host can have. A tree over them holds the most free memory of any
   host in each, so that a search steps only on levels where a host with enough of both is.
2. *Classes*: hosts of the same groups that have the same free in every NUMA node. The classes of a level stand in a
   treap, ordered by free memory, then by groups, then node by node.
3. *Hosts*: those of a class stand in a pairing heap, the lowest index at the root.

With several nodes a host can have room in total and in no single node, and where VMs ask for host groups, hosts of
other groups are classes of their own; such classes are passed one by one.

Cost: O(log levels + log classes + log hosts) for a decision and for an update, amortized; what hosts of one class cost
together does not grow with their number.

Source: classes of machines with equal free vectors as in Hadary et al., "Protean", OSDI 2020; treap: Aragon and Seidel,
1989; pairing heap: Fredman et al., 1986.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from olvm.experiments.compilation import compiled, entry
from olvm.experiments.kernels.state import Ask, Fleet, Ints, SmallInts

LEFT, RIGHT = 0, 1
LEVEL_COUNT_MAX = 1 << 24  # 256 MiB of tree; hosts of 16,000 vCPUs by thousandths


class BestFitIndex(NamedTuple):
    """c classes at most (one for each host), L levels. Index c + level stands above that level's treap."""

    level_cpu: Ints  # one number: how many thousandths of a vCPU lie between two levels
    level_mem: Ints  # the tree over levels: the most free memory; -1 where no host is. Length 2: not in use
    links: npt.NDArray[
        np.int32
    ]  # (c + L, 2): children in treaps; an entry above a treap has its root at the left
    rank: Ints  # of a class, by chance and fixed: a parent's is not below its children's
    class_mem: Ints  # total free memory of each host of a class
    top: SmallInts  # the lowest host of a class; -1: the class is free
    spare: SmallInts  # a stack of free classes; its height stands in its last place
    class_of: SmallInts  # of a host
    child: SmallInts  # pairing heaps: first child, next sibling, and previous sibling or parent
    after: SmallInts
    before: SmallInts


def new_best_fit(fleet: Fleet, node_count: int, level_cpu: int, *, is_used: bool) -> BestFitIndex:
    """`level_cpu` divides every amount of vCPUs that a host can have free."""
    host_count = len(fleet.host_cpu) if is_used else 0
    level_count = int(fleet.host_cpu.max()) // level_cpu + 1 if is_used else 1
    assert level_count <= LEVEL_COUNT_MAX
    size = 1 << max(0, (level_count - 1).bit_length())
    spare = np.append(np.arange(host_count - 1, -1, -1, dtype=np.int32), np.int32(host_count))
    index = BestFitIndex(
        np.array([level_cpu], np.int64),
        np.full(2 * size, -1, np.int64),
        np.full((host_count + level_count, 2), -1, np.int32),
        _ranks(host_count),
        np.zeros(host_count, np.int64),
        np.full(host_count, -1, np.int32),
        spare,
        np.full(host_count, -1, np.int32),
        np.full(host_count, -1, np.int32),
        np.full(host_count, -1, np.int32),
        np.full(host_count, -1, np.int32),
    )
    if is_used:
        _fill(index, fleet, node_count)
    return index


def _ranks(count: int) -> Ints:
    word = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    word ^= word >> np.uint64(30)
    word *= np.uint64(0xBF58476D1CE4E5B9)
    return (word >> np.uint64(33)).astype(np.int64)


@entry
def _fill(digest: int) -> Callable[..., None]:
    def _fill(index: BestFitIndex, fleet: Fleet, node_count: int) -> None:
        assert digest >= 0
        # From the last to the first: each is the new lowest of its class, and the heaps are chains.
        for host in range(len(fleet.host_cpu) - 1, -1, -1):
            best_fit_insert(index, fleet, host, node_count)

    return _fill


# ---------------------------------------------------------------- decisions


@compiled
def find_best(index: BestFitIndex, fleet: Fleet, ask: Ask) -> int:
    """The host with the least free vCPUs, then memory, then index, of those with room; -1 if there is none."""
    node_count = ask.node_count
    cpu_in_all, mem_in_all = ask.cpu * ask.parts, ask.mem * ask.parts
    is_plain = node_count == 1 and len(fleet.group) == 0
    class_count = len(index.rank)
    level = _level_from(index.level_mem, cpu_in_all // index.level_cpu[0], mem_in_all)
    while level >= 0:
        at = _first_class(index, class_count + level, mem_in_all)
        if is_plain:
            return int(index.top[at])
        host = -1
        while at >= 0:
            top = index.top[at]
            if host >= 0 and fleet.host_mem[top] > fleet.host_mem[host]:
                break
            if has_room(fleet, top, ask) and (host < 0 or top < host):
                host = top
            at = _class_after(index, fleet, class_count + level, top, node_count)
        if host >= 0:
            return host
        level = _level_from(index.level_mem, level + 1, mem_in_all)
    return -1


@compiled
def has_room(fleet: Fleet, host: int, ask: Ask) -> bool:
    """The host is in the group that is asked for, and so many nodes of it as the VM has parts have room for one."""
    if ask.group and fleet.group[host] & ask.group != ask.group:
        return False
    first, missing = host * ask.node_count, ask.parts
    for at in range(first, first + ask.node_count):
        if fleet.node_cpu[at] >= ask.cpu and fleet.node_mem[at] >= ask.mem:
            missing -= 1
            if missing == 0:
                return True
    return False


@compiled
def _level_from(tree: Ints, level: int, mem: int) -> int:
    """The lowest level at or above `level` where a host has `mem` free; -1 if there is none."""
    size = tree.shape[0] // 2
    if level >= size:
        return -1
    at = size + level
    while tree[at] < mem:
        while at & 1:
            at >>= 1
        if at == 0:
            return -1
        at += 1
    while at < size:
        at *= 2
        if tree[at] < mem:
            at += 1
    return int(at - size)


@compiled
def _first_class(index: BestFitIndex, above: int, mem: int) -> int:
    at, found = index.links[above, LEFT], -1
    while at >= 0:
        if index.class_mem[at] >= mem:
            found = at
            at = index.links[at, LEFT]
        else:
            at = index.links[at, RIGHT]
    return found


@compiled
def _class_after(index: BestFitIndex, fleet: Fleet, above: int, host: int, node_count: int) -> int:
    """The class of the next larger key than that of `host`, in the same level; -1 if it is the last."""
    at, found = index.links[above, LEFT], -1
    while at >= 0:
        if _order(fleet, host, index.top[at], node_count) < 0:
            found = at
            at = index.links[at, LEFT]
        else:
            at = index.links[at, RIGHT]
    return found


@compiled
def _order(fleet: Fleet, one: int, other: int, node_count: int) -> int:
    """Below, at or above 0 as host `one` stands before, beside or after host `other` of the same level."""
    if fleet.host_mem[one] != fleet.host_mem[other]:
        return -1 if fleet.host_mem[one] < fleet.host_mem[other] else 1
    if len(fleet.group) and fleet.group[one] != fleet.group[other]:
        return -1 if fleet.group[one] < fleet.group[other] else 1
    if node_count == 1:
        return 0
    for k in range(node_count):
        a, b = one * node_count + k, other * node_count + k
        if fleet.node_cpu[a] != fleet.node_cpu[b]:
            return -1 if fleet.node_cpu[a] < fleet.node_cpu[b] else 1
        if fleet.node_mem[a] != fleet.node_mem[b]:
            return -1 if fleet.node_mem[a] < fleet.node_mem[b] else 1
    return 0


# ---------------------------------------------------------------- updates


@compiled
def best_fit_insert(index: BestFitIndex, fleet: Fleet, host: int, node_count: int) -> None:
    """Enter a host with what it has free now. It stands nowhere."""
    class_count = len(index.rank)
    level = fleet.host_cpu[host] // index.level_cpu[0]
    parent, side = class_count + level, LEFT
    at = index.links[parent, LEFT]
    while at >= 0:
        order = _order(fleet, host, index.top[at], node_count)
        if order == 0:
            index.top[at] = _meld(index, index.top[at], host)
            index.class_of[host] = at
            return
        side = LEFT if order < 0 else RIGHT
        parent = at
        at = index.links[at, side]
    height = index.spare[class_count] - 1
    new = index.spare[height]
    index.spare[class_count] = height
    index.class_mem[new] = fleet.host_mem[host]
    index.top[new] = host
    index.class_of[host] = new
    _hang(index, fleet, class_count + level, new, node_count)
    _set_level(index, level)


@compiled
def best_fit_remove(index: BestFitIndex, fleet: Fleet, host: int, node_count: int) -> None:
    """Take a host out, before what it has free changes."""
    class_count = len(index.rank)
    at = index.class_of[host]
    rest = _without(index, index.top[at], host)
    index.class_of[host] = -1
    if rest >= 0:
        index.top[at] = rest
        return
    level = fleet.host_cpu[host] // index.level_cpu[0]
    _unhang(index, fleet, class_count + level, at, node_count)
    index.top[at] = -1
    index.spare[index.spare[class_count]] = at
    index.spare[class_count] += 1
    _set_level(index, level)


@compiled
def _set_level(index: BestFitIndex, level: int) -> None:
    mem, at = -1, index.links[len(index.rank) + level, LEFT]
    while at >= 0:
        mem = index.class_mem[at]
        at = index.links[at, RIGHT]
    tree = index.level_mem
    at = tree.shape[0] // 2 + level
    if tree[at] == mem:
        return
    tree[at] = mem
    at >>= 1
    while at >= 1:
        mem = max(tree[2 * at], tree[2 * at + 1])
        if tree[at] == mem:
            return
        tree[at] = mem
        at >>= 1


@compiled
def _hang(index: BestFitIndex, fleet: Fleet, above: int, new: int, node_count: int) -> None:
    """Put a class into its treap: down to where its rank belongs, and split what stood there."""
    links, host = index.links, index.top[new]
    parent, side = above, LEFT
    at = links[above, LEFT]
    while at >= 0 and index.rank[at] >= index.rank[new]:
        parent = at
        side = LEFT if _order(fleet, host, index.top[at], node_count) < 0 else RIGHT
        at = links[at, side]
    links[parent, side] = new
    low, low_side, high, high_side = new, LEFT, new, RIGHT
    while at >= 0:
        if _order(fleet, host, index.top[at], node_count) > 0:
            links[low, low_side] = at
            low, low_side = at, RIGHT
            at = links[at, RIGHT]
        else:
            links[high, high_side] = at
            high, high_side = at, LEFT
            at = links[at, LEFT]
    links[low, low_side] = -1
    links[high, high_side] = -1


@compiled
def _unhang(index: BestFitIndex, fleet: Fleet, above: int, old: int, node_count: int) -> None:
    """Take a class out of its treap: what stood below it is merged."""
    links, host = index.links, index.top[old]
    parent, side = above, LEFT
    at = links[above, LEFT]
    while at != old:
        parent = at
        side = LEFT if _order(fleet, host, index.top[at], node_count) < 0 else RIGHT
        at = links[at, side]
    low, high = links[old, LEFT], links[old, RIGHT]
    while low >= 0 and high >= 0:
        if index.rank[low] >= index.rank[high]:
            links[parent, side] = low
            parent, side = low, RIGHT
            low = links[low, RIGHT]
        else:
            links[parent, side] = high
            parent, side = high, LEFT
            high = links[high, LEFT]
    links[parent, side] = low if low >= 0 else high
    links[old, LEFT] = -1
    links[old, RIGHT] = -1


@compiled
def _meld(index: BestFitIndex, one: int, other: int) -> int:
    """Two heaps as one; their roots have no siblings."""
    if one < 0:
        return other
    if other < 0:
        return one
    low, high = min(one, other), max(one, other)
    first = index.child[low]
    index.after[high] = first
    if first >= 0:
        index.before[first] = high
    index.before[high] = low
    index.child[low] = high
    return low


@compiled
def _without(index: BestFitIndex, root: int, host: int) -> int:
    """The heap without one of its hosts; -1 if that was all."""
    rest = _melded_children(index, host)
    if host != root:
        before, after = index.before[host], index.after[host]
        if index.child[before] == host:
            index.child[before] = after
        else:
            index.after[before] = after
        if after >= 0:
            index.before[after] = before
        rest = _meld(index, root, rest)
    index.child[host] = -1
    index.after[host] = -1
    index.before[host] = -1
    return rest


@compiled
def _melded_children(index: BestFitIndex, host: int) -> int:
    """The children of a host as one heap: in pairs from the left, then those from the right."""
    at, pairs = index.child[host], -1
    while at >= 0:
        other = index.after[at]
        index.after[at] = -1
        following = -1
        if other >= 0:
            following = index.after[other]
            index.after[other] = -1
        pair = _meld(index, at, other)
        index.after[pair] = pairs  # roots of pairs wait in a list, the last one first
        pairs = pair
        at = following
    rest = -1
    while pairs >= 0:
        following = index.after[pairs]
        index.after[pairs] = -1
        rest = _meld(index, rest, pairs)
        pairs = following
    if rest >= 0:
        index.before[rest] = -1
    return rest
