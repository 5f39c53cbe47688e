"""Where a machine goes: power-aware best fit decreasing, over a draft of who would be where.

Decides by the rise of a host's power; knows nothing of time. The rise is taken from the power that the host drew when
it was last looked at, not from that of the draft: that is what the released code does (docs/planetlab.md).

Source: Beloglazov & Buyya 2012, algorithm 2 (PABFD).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from olvm.experiments.consolidation.compiling import compiled
from olvm.experiments.consolidation.detectors import is_overloaded
from olvm.experiments.consolidation.plant import HISTORY_MAX, HOST_GUESTS_MAX, Flags, Floats, Ints, Plant
from olvm.experiments.consolidation.power import watts_at

NOWHERE = -1


class Draft(NamedTuple):
    """A plan of moves on paper: each host's guests and the sums over them, in the order of the list."""

    guests: npt.NDArray[np.int32]  # H × HOST_GUESTS_MAX + 1
    guest_count: Ints
    given: Floats  # H: MIPS that the guests would get
    free: Floats  # H
    asked: Floats  # H: MIPS that the guests ask for
    past: Floats  # H × HISTORY_MAX: the guests' recorded demand, newest first
    length: Ints  # H: samples of `past` that count
    power: Floats  # H: watts when the host was last looked at
    idle: Flags  # H: no load when it was last looked at


class Rule(NamedTuple):
    """The detector and its parameter."""

    detector: int
    safety: float


@compiled
def is_overloaded_with(
    plant: Plant, draft: Draft, rule: Rule, host: int, vm: int, demand: float, vm_past: Floats, vm_length: int
) -> bool:
    """Whether the host would be overloaded with one more machine; `vm` -1: as it stands in the draft."""
    if vm < 0:
        asked = draft.asked[host] / plant.host_mips[host]
        return is_overloaded(rule.detector, rule.safety, asked, draft.past[host], draft.length[host])
    if draft.guest_count[host] >= HOST_GUESTS_MAX:
        return True
    asked = (draft.asked[host] + demand) / plant.host_mips[host]
    length = max(draft.length[host], vm_length)
    past = draft.past[host] + vm_past[plant.kind[host]]
    return is_overloaded(rule.detector, rule.safety, asked, past, length)


@compiled
def best_host(
    plant: Plant,
    draft: Draft,
    rule: Rule,
    demand: float,
    vm_past: Floats,
    vm_length: int,
    hosts: Ints,
    closed: Flags,
) -> int:
    """The host of `hosts` (ascending) whose power rises least and that is not overloaded then; -1: none.

    Empty hosts of one kind are all alike, so only the first of them is looked at.
    """
    best = NOWHERE
    least = np.inf
    seen_empty = np.zeros(2, dtype=np.bool_)
    for host in hosts:
        kind = plant.kind[host]
        if closed[host]:
            continue
        if draft.guest_count[host] == 0:
            if seen_empty[kind]:
                continue
            seen_empty[kind] = True
        if plant.core_mips[host] < demand or draft.free[host] < demand:
            continue
        after = watts_at(
            plant.watts[kind], plant.rise[kind], (draft.given[host] + demand) / plant.host_mips[host]
        )
        rise = after - draft.power[host]
        if rise >= least:
            continue
        if draft.given[host] != 0 and is_overloaded_with(
            plant, draft, rule, host, 0, demand, vm_past, vm_length
        ):
            continue
        least = rise
        best = host
    return best


@compiled
def add_guest(
    plant: Plant, draft: Draft, host: int, vm: int, demand: float, vm_past: Floats, vm_length: int
) -> None:
    """Put a machine on a host of the draft that has room for it."""
    draft.guests[host, draft.guest_count[host]] = vm
    draft.guest_count[host] += 1
    draft.given[host] += demand
    draft.free[host] -= demand
    draft.asked[host] += demand
    draft.past[host] += vm_past[plant.kind[host]]
    draft.length[host] = max(draft.length[host], vm_length)


@compiled
def samples_that_count(recorded: Floats, record_count: int) -> int:
    """How far back a machine's oldest sample that is not zero lies, of the last thirty."""
    length = min(record_count, HISTORY_MAX)
    while length > 0 and recorded[record_count - length] == 0:
        length -= 1
    return length


@compiled
def past_of(share: Floats, vm: int, record_count: int) -> Floats:
    """A machine's recorded demand as fractions of a host of each kind, 2 × HISTORY_MAX, newest first."""
    past = np.zeros((2, HISTORY_MAX))
    for kind in range(2):
        for age in range(min(record_count, HISTORY_MAX)):
            past[kind, age] = share[kind, vm, record_count - 1 - age]
    return past
