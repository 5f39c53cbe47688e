"""Where a machine goes: power-aware best fit decreasing, over a draft of who would be where.

Decides by the rise of a host's power; knows nothing of time. The rise is taken from the power that the host drew when
it was last looked at, not from that of the draft: that is what the released code does (docs/planetlab.md).

Source: Beloglazov & Buyya 2012, algorithm 2 (PABFD).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from olvm.experiments.compilation import allocating
from olvm.experiments.consolidation.detectors import is_overloaded
from olvm.experiments.consolidation.energy import utilisation_of, watts_at
from olvm.experiments.consolidation.plant import (
    HISTORY_MAX,
    HOST_GUESTS_MAX,
    Flags,
    Floats,
    Ints,
    Plant,
    State,
)

NOWHERE = -1


class Policy(NamedTuple):
    """When a host is overloaded, and which machine leaves it."""

    detector: int
    safety: float
    selector: int
    draw: np.random.Generator


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
    utilisation: Floats  # H: when it was last looked at


class Candidate(NamedTuple):
    """A machine that looks for a host."""

    vm: int
    demand: float  # MIPS
    past: Floats  # 2 × HISTORY_MAX: recorded demand as a fraction of a host of each kind, newest first
    length: int  # samples of it that count


@allocating
def draft_of(plant: Plant, state: State) -> Draft:
    """The draft that stands for how things are."""
    host_count = len(plant.kind)
    draft = Draft(
        state.guests.copy(),
        state.guest_count.copy(),
        state.used.copy(),
        state.free.copy(),
        np.zeros(host_count),
        np.zeros((host_count, HISTORY_MAX)),
        np.zeros(host_count, dtype=np.int64),
        np.zeros(host_count),
        np.zeros(host_count),
    )
    for host in range(host_count):
        kind = plant.kind[host]
        utilisation = utilisation_of(state.used[host], plant.host_mips[host])
        draft.utilisation[host] = utilisation
        draft.power[host] = watts_at(plant.watts[kind], plant.rise[kind], utilisation)
        sum_up(plant, state, draft, host)
    return draft


@allocating
def sum_up(plant: Plant, state: State, draft: Draft, host: int) -> None:
    """What the guests ask for and asked for, added in the order of the list."""
    record_count = state.record_count[0]
    kind = plant.kind[host]
    past = draft.past[host]
    past[:] = 0.0
    asked = 0.0
    length = 0
    for place in range(draft.guest_count[host]):
        vm = draft.guests[host, place]
        asked += state.demand[vm]
        length = max(length, samples_that_count(state.recorded[vm], record_count))
        for age in range(min(record_count, HISTORY_MAX)):
            past[age] += state.share[kind, vm, record_count - 1 - age]
    draft.asked[host] = asked
    draft.length[host] = length


@allocating
def samples_that_count(recorded: Floats, record_count: int) -> int:
    """How far back a machine's oldest sample that is not zero lies, of the last thirty."""
    length = min(record_count, HISTORY_MAX)
    while length > 0 and recorded[record_count - length] == 0:
        length -= 1
    return length


@allocating
def candidate_of(state: State, vm: int) -> Candidate:
    record_count = state.record_count[0]
    past = np.zeros((2, HISTORY_MAX))
    for kind in range(2):
        for age in range(min(record_count, HISTORY_MAX)):
            past[kind, age] = state.share[kind, vm, record_count - 1 - age]
    return Candidate(vm, state.demand[vm], past, samples_that_count(state.recorded[vm], record_count))


@allocating
def is_host_overloaded(plant: Plant, draft: Draft, policy: Policy, host: int) -> bool:
    """As it stands in the draft."""
    return is_overloaded(
        policy.detector,
        policy.safety,
        draft.asked[host] / plant.host_mips[host],
        draft.past[host],
        draft.length[host],
    )


@allocating
def would_be_overloaded(plant: Plant, draft: Draft, policy: Policy, host: int, new: Candidate) -> bool:
    """With one machine more, for which there is no place where the disk is full."""
    if draft.guest_count[host] >= HOST_GUESTS_MAX:
        return True
    past = np.empty(HISTORY_MAX)
    for age in range(HISTORY_MAX):
        past[age] = draft.past[host, age] + new.past[plant.kind[host], age]
    return is_overloaded(
        policy.detector,
        policy.safety,
        (draft.asked[host] + new.demand) / plant.host_mips[host],
        past,
        max(draft.length[host], new.length),
    )


@allocating
def best_host(plant: Plant, draft: Draft, policy: Policy, new: Candidate, hosts: Ints, closed: Flags) -> int:
    """The host of `hosts` (ascending) whose power rises least and that is not overloaded then; NOWHERE: none.

    Ties go to the lower index. Empty hosts of one kind are all alike, so only the first of them is looked at; whether
    a host would be overloaded is asked only of those that would be chosen.
    """
    best = NOWHERE
    least = np.inf
    seen_empty = np.zeros(2, dtype=np.bool_)
    for index in range(len(hosts)):
        host = hosts[index]
        kind = plant.kind[host]
        if closed[host] or plant.core_mips[host] < new.demand or draft.free[host] < new.demand:
            continue
        if draft.guest_count[host] == 0:
            if seen_empty[kind]:
                continue
            seen_empty[kind] = True
        utilisation = (draft.given[host] + new.demand) / plant.host_mips[host]
        rise = watts_at(plant.watts[kind], plant.rise[kind], utilisation) - draft.power[host]
        if rise >= least:
            continue
        if draft.given[host] != 0 and would_be_overloaded(plant, draft, policy, host, new):
            continue
        least = rise
        best = host
    return best


@allocating
def add_guest(plant: Plant, draft: Draft, host: int, new: Candidate) -> None:
    """Put a machine on a host of the draft that has room for it."""
    draft.guests[host, draft.guest_count[host]] = new.vm
    draft.guest_count[host] += 1
    draft.given[host] += new.demand
    draft.free[host] -= new.demand
    draft.asked[host] += new.demand
    for age in range(HISTORY_MAX):
        draft.past[host, age] += new.past[plant.kind[host], age]
    draft.length[host] = max(draft.length[host], new.length)


@allocating
def take_off_newest(plant: Plant, state: State, draft: Draft, hosts: Ints) -> None:
    """Take back what `add_guest` put on each of `hosts` last, and add the sums of those hosts anew."""
    for index in range(len(hosts)):
        draft.guest_count[hosts[index]] -= 1
    for index in range(len(hosts)):
        host = hosts[index]
        given = state.used[host]
        free = state.free[host]
        for place in range(state.guest_count[host], draft.guest_count[host]):
            given += state.demand[draft.guests[host, place]]
            free -= state.demand[draft.guests[host, place]]
        draft.given[host] = given
        draft.free[host] = free
        sum_up(plant, state, draft, host)
