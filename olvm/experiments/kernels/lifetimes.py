"""Lifetime alignment: VMs go where they will not outlive their neighbours, so that hosts become empty as a whole.

Each VM has a predicted lifetime. One that outlives it is predicted anew: it is expected to run as long again as it has
run, each time that it outlives the last prediction (a lifetime of 10 s, then 20, 40, …). A host ends, as far as is
known, when the last of its VMs does.

*NILAS* takes the host whose end the VM puts off least, in steps (`LATER_S`), and of those the fullest, as in best fit.
An empty host ends now.

*LAVA* gives each host in use a class of lifetimes (`CLASS_S`): that of the VM that came to it when it was empty.
1. A host is *open* and takes VMs of its class, until it is full by `FULL_PERCENT` in vCPUs or memory. Then it is
   *recycling*: whoever is there is a resident, and it takes VMs of lower classes into the gaps that residents leave.
2. When the last resident is gone, the class falls by one, and whoever is there is a resident. An empty host has none.
3. A host that is there for longer than its VMs were predicted to be, which is a class's length after the last VM of its
   class came or after its class changed, is of the next higher class.
4. A VM of class c goes to a recycling host of the class next above c that there is; else to an open host of class c;
   else to any host in use; else to an empty one. Within each of these, as in NILAS.

Source: Ling et al., LAVA, MLSys 2025, arXiv 2412.09840; docs/experiments.md says what of this is our reading.

Rule: `outlived` is called with the time before hosts are compared, so that every prediction lies in the future.

Cost: O(hosts) for each decision; O(VMs of the host) where the VM with the latest end leaves or residents change.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from olvm.experiments.compilation import compiled
from olvm.experiments.kernels.best_fit import has_room
from olvm.experiments.kernels.ends import pop_end, push_end
from olvm.experiments.kernels.numa import fuller
from olvm.experiments.kernels.state import LAVA, Ask, Bytes, Ends, Fleet, Floats, Ints, SmallInts

HOUR_S = 3600.0
CLASS_S = (HOUR_S, 10 * HOUR_S, 100 * HOUR_S, np.inf)  # the longest lifetime of classes 1 to 4
CLASS_MAX = len(CLASS_S)
# How much later a host would end: steps that count as one.
LATER_S = (
    0.0,
    0.5 * HOUR_S,
    HOUR_S,
    2 * HOUR_S,
    4 * HOUR_S,
    8 * HOUR_S,
    16 * HOUR_S,
    32 * HOUR_S,
    64 * HOUR_S,
)
FULL_PERCENT = 90
GUESS_S_MIN = 1.0  # what a VM that was predicted to live for no time is given
# LAVA's preferences, the least first; a recycling host has the distance of its class, 1 to 3.
OPEN, IN_USE, EMPTY = 4, 5, 6


class Lifetimes(NamedTuple):
    """n VMs, m hosts; all of length 0 where no policy asks."""

    predicted_s: Floats  # of each VM when it comes
    guess_s: Floats  # the lifetime that it is given now
    start_s: Floats
    end_s: Floats  # start + guess
    first: SmallInts  # of each host a VM, -1: none; the others follow in a list
    after: SmallInts
    before: SmallInts
    host_end_s: Floats  # the largest end of its VMs; -inf: none
    outlived_at: Ends  # a heap of running VMs by end_s, and of some that have left
    outlived_count: Ints  # one number: how many are in it
    host_class: Bytes  # LAVA: 1 to 4; 0: empty
    is_recycling: Bytes
    resident_count: SmallInts
    is_resident: Bytes  # of VMs
    class_until_s: Floats  # when the class is found too low
    left_s: Floats  # when a VM left last; all that leave at one time are one event


def new_lifetimes(predicted_s: Floats, host_count: int) -> Lifetimes:
    n, m = len(predicted_s), host_count
    return Lifetimes(
        predicted_s,
        predicted_s.copy(),
        np.full(n, np.nan),
        np.full(n, np.nan),
        np.full(m, -1, np.int32),
        np.full(n, -1, np.int32),
        np.full(n, -1, np.int32),
        np.full(m, -np.inf),
        Ends(np.empty(n), np.empty(n, np.int32)),
        np.zeros(1, np.int64),
        np.zeros(m, np.int8),
        np.zeros(m, np.int8),
        np.zeros(m, np.int32),
        np.zeros(n, np.int8),
        np.full(m, np.inf),
        np.full(m, -np.inf),
    )


def no_lifetimes() -> Lifetimes:
    return new_lifetimes(np.empty(0), 0)


# ---------------------------------------------------------------- decisions


@compiled
def class_of(lifetime_s: float) -> int:
    number = 1
    while number < CLASS_MAX and lifetime_s > CLASS_S[number - 1]:
        number += 1
    return number


@compiled
def steps_later(vm_end_s: float, host_end_s: float) -> int:
    """0: the host would not end later; else in which step of `LATER_S` the difference lies, from 1."""
    if vm_end_s <= host_end_s:
        return 0
    steps = 0
    while steps < len(LATER_S) and vm_end_s - host_end_s > LATER_S[steps]:
        steps += 1
    return steps


@compiled
def preference(lifetimes: Lifetimes, host: int, vm_class: int) -> int:
    """LAVA's, the least first."""
    own = lifetimes.host_class[host]
    if own == 0:
        return EMPTY
    if lifetimes.is_recycling[host] != 0:
        return int(own - vm_class) if own > vm_class else IN_USE
    return OPEN if own == vm_class else IN_USE


@compiled
def find_aligned(policy: int, lifetimes: Lifetimes, fleet: Fleet, vm: int, now_s: float, ask: Ask) -> int:
    """The host; -1 if none has room. `outlived` was called for `now_s`."""
    vm_end_s = now_s + lifetimes.predicted_s[vm]
    vm_class = class_of(lifetimes.predicted_s[vm])
    best, best_cost = -1, 0
    for host in range(len(fleet.host_cpu)):
        if not has_room(fleet, host, ask):
            continue
        cost = steps_later(vm_end_s, max(now_s, lifetimes.host_end_s[host]))
        if policy == LAVA:
            settle_class(lifetimes, host, now_s)
            cost += (len(LATER_S) + 1) * preference(lifetimes, host, vm_class)
        if best < 0 or cost < best_cost or (cost == best_cost and fuller(fleet, host, best)):
            best, best_cost = host, cost
    return best


# ---------------------------------------------------------------- what happens to hosts


@compiled
def outlived(lifetimes: Lifetimes, host_of: SmallInts, now_s: float) -> None:
    """Predict anew for each VM that was to be gone by now."""
    heap, count = lifetimes.outlived_at, lifetimes.outlived_count
    while count[0] > 0 and heap.at_s[0] <= now_s:
        count[0] -= 1
        vm = pop_end(heap, count[0])
        if np.isnan(lifetimes.end_s[vm]):  # it has left
            continue
        while lifetimes.end_s[vm] <= now_s:
            lifetimes.guess_s[vm] = max(2 * lifetimes.guess_s[vm], GUESS_S_MIN)
            lifetimes.end_s[vm] = lifetimes.start_s[vm] + lifetimes.guess_s[vm]
        host = host_of[vm]
        lifetimes.host_end_s[host] = max(lifetimes.host_end_s[host], lifetimes.end_s[vm])
        push_end(heap, count[0], lifetimes.end_s[vm], vm)
        count[0] += 1


@compiled
def entered(policy: int, lifetimes: Lifetimes, fleet: Fleet, vm: int, host: int, now_s: float) -> None:
    """The VM has come to the host, which the fleet shows already."""
    vm_class = class_of(lifetimes.predicted_s[vm])
    lifetimes.start_s[vm] = now_s
    end_s = now_s + lifetimes.predicted_s[vm]
    lifetimes.end_s[vm] = end_s
    lifetimes.host_end_s[host] = max(lifetimes.host_end_s[host], end_s)
    if end_s < np.inf:
        push_end(lifetimes.outlived_at, lifetimes.outlived_count[0], end_s, vm)
        lifetimes.outlived_count[0] += 1
    head = lifetimes.first[host]
    lifetimes.after[vm] = head
    lifetimes.before[vm] = -1
    if head >= 0:
        lifetimes.before[head] = vm
    lifetimes.first[host] = vm
    if policy != LAVA:
        return
    if head < 0:
        lifetimes.host_class[host] = vm_class
    else:
        settle_class(lifetimes, host, now_s)
    if lifetimes.is_recycling[host] != 0:
        return
    if lifetimes.host_class[host] == vm_class:
        lifetimes.class_until_s[host] = now_s + CLASS_S[vm_class - 1]
    is_full = (
        100 * fleet.host_cpu[host] <= (100 - FULL_PERCENT) * fleet.cpu_capacity[host]
        or 100 * fleet.host_mem[host] <= (100 - FULL_PERCENT) * fleet.mem_capacity[host]
    )
    if is_full:
        lifetimes.is_recycling[host] = 1
        all_reside(lifetimes, host)


@compiled
def left(policy: int, lifetimes: Lifetimes, vm: int, host: int, now_s: float) -> None:
    """The VM has gone from the host."""
    if policy == LAVA and now_s > lifetimes.left_s[host]:
        settle_class(lifetimes, host, lifetimes.left_s[host])
        lifetimes.left_s[host] = now_s
    before, after = lifetimes.before[vm], lifetimes.after[vm]
    if before >= 0:
        lifetimes.after[before] = after
    else:
        lifetimes.first[host] = after
    if after >= 0:
        lifetimes.before[after] = before
    if lifetimes.end_s[vm] >= lifetimes.host_end_s[host]:
        latest_s, at = -np.inf, lifetimes.first[host]
        while at >= 0:
            latest_s = max(latest_s, lifetimes.end_s[at])
            at = lifetimes.after[at]
        lifetimes.host_end_s[host] = latest_s
    lifetimes.end_s[vm] = np.nan
    if policy != LAVA:
        return
    lifetimes.resident_count[host] -= lifetimes.is_resident[vm]
    if lifetimes.first[host] < 0:
        lifetimes.host_class[host] = 0
        lifetimes.is_recycling[host] = 0
        lifetimes.class_until_s[host] = np.inf


@compiled
def settle_class(lifetimes: Lifetimes, host: int, now_s: float) -> None:
    """Let the class fall if the last resident has left, and rise where its time is over by now."""
    if lifetimes.is_recycling[host] != 0 and lifetimes.resident_count[host] == 0:
        age_class(lifetimes, host, lifetimes.left_s[host])
        own = max(1, lifetimes.host_class[host] - 1)
        lifetimes.host_class[host] = own
        lifetimes.class_until_s[host] = lifetimes.left_s[host] + CLASS_S[own - 1]
        all_reside(lifetimes, host)
    age_class(lifetimes, host, now_s)


@compiled
def age_class(lifetimes: Lifetimes, host: int, now_s: float) -> None:
    """An empty host has no time that could be over."""
    while lifetimes.class_until_s[host] <= now_s and lifetimes.host_class[host] < CLASS_MAX:
        lifetimes.host_class[host] += 1
        lifetimes.class_until_s[host] += CLASS_S[lifetimes.host_class[host] - 1]


@compiled
def all_reside(lifetimes: Lifetimes, host: int) -> None:
    count, at = 0, lifetimes.first[host]
    while at >= 0:
        lifetimes.is_resident[at] = 1
        count += 1
        at = lifetimes.after[at]
    lifetimes.resident_count[host] = count
