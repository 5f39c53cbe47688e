"""A heap of VMs by a time, the earliest at its root; each entry has up to four below it.

Four children instead of two: half as many levels, and the children of an entry lie side by side in memory.

Source: Williams, 1964 (binary); D. B. Johnson, "Priority queues with update and finding minimum spanning trees", 1975.
"""

from __future__ import annotations

from olvm.experiments.compilation import compiled
from olvm.experiments.kernels.state import Ends


@compiled
def push_end(ends: Ends, at: int, end_s: float, vm: int) -> None:
    """Put a VM in; `at` is how many are there without it."""
    while at > 0:
        parent = (at - 1) >> 2
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
    while 4 * at + 1 < count:
        first = 4 * at + 1
        earliest, earliest_s = first, ends.at_s[first]
        for child in range(first + 1, min(first + 4, count)):
            child_s = ends.at_s[child]
            if child_s < earliest_s:
                earliest, earliest_s = child, child_s
        if earliest_s >= end_s:
            break
        ends.at_s[at], ends.vm[at] = earliest_s, ends.vm[earliest]
        at = earliest
    ends.at_s[at], ends.vm[at] = end_s, last
    return int(vm)
