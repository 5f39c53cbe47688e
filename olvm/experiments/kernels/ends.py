"""A binary heap of VMs by a time, the earliest at its root. Source: Williams, 1964."""

from __future__ import annotations

from olvm.experiments.compilation import compiled
from olvm.experiments.kernels.state import Ends


@compiled
def push_end(ends: Ends, at: int, end_s: float, vm: int) -> None:
    while at > 0:
        parent = (at - 1) >> 1
        if ends.at_s[parent] <= end_s:
            break
        ends.at_s[at], ends.vm[at] = ends.at_s[parent], ends.vm[parent]
        at = parent
    ends.at_s[at], ends.vm[at] = end_s, vm


@compiled
def pop_end(ends: Ends, count: int) -> int:
    """The VM at the root; `count` is how many are left without it. At equal times the order must not matter."""
    vm = ends.vm[0]
    end_s, last = ends.at_s[count], ends.vm[count]
    at = 0
    while 2 * at + 1 < count:
        child = 2 * at + 1
        if child + 1 < count and ends.at_s[child + 1] < ends.at_s[child]:
            child += 1
        if ends.at_s[child] >= end_s:
            break
        ends.at_s[at], ends.vm[at] = ends.at_s[child], ends.vm[child]
        at = child
    ends.at_s[at], ends.vm[at] = end_s, last
    return int(vm)
