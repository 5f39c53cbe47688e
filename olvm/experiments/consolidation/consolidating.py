"""One round of consolidation: relieve overloaded hosts, then empty under-loaded ones, all or nothing.

Decides moves on a draft and carries none out. At a round no machine is on its way: a migration lasts under half a
minute, a round comes every five.

Source: Beloglazov & Buyya 2012, algorithms 1 and 2, as CloudSim 3.0.3 carries them out.
"""

from __future__ import annotations

import numpy as np

from olvm.experiments.consolidation.compiling import compiled
from olvm.experiments.consolidation.placing import (
    NOWHERE,
    Draft,
    Rule,
    add_guest,
    best_host,
    is_overloaded_with,
    past_of,
    samples_that_count,
)
from olvm.experiments.consolidation.plant import HISTORY_MAX, Flags, Floats, Ints, Plant, State
from olvm.experiments.consolidation.power import utilisation_of, watts_at
from olvm.experiments.consolidation.ranking import ranked
from olvm.experiments.consolidation.selectors import chosen_guest


@compiled
def consolidate(
    plant: Plant, state: State, rule: Rule, selector: int, record_count: int, draw: np.random.Generator
) -> Ints:
    """The moves of this round in order, k × 2: machine, host. A machine may stand twice; the last host is its."""
    draft = draft_of(plant, state, record_count)
    host_count = len(plant.kind)
    no_past = np.zeros((2, HISTORY_MAX))
    overloaded = np.zeros(host_count, dtype=np.bool_)
    for host in range(host_count):
        overloaded[host] = is_overloaded_with(plant, draft, rule, host, -1, 0.0, no_past, 0)
    leaving = relieve(plant, state, draft, rule, selector, overloaded, record_count, draw)
    moves = np.empty((2 * len(state.home), 2), dtype=np.int64)
    everywhere = np.arange(host_count)
    move_count = 0
    for vm in by_demand(leaving, state.demand):
        past = past_of(state.share, vm, record_count)
        length = samples_that_count(state.recorded[vm], record_count)
        target = best_host(plant, draft, rule, state.demand[vm], past, length, everywhere, overloaded)
        if target != NOWHERE:
            add_guest(plant, draft, target, vm, state.demand[vm], past, length)
            moves[move_count, 0] = vm
            moves[move_count, 1] = target
            move_count += 1
    return empty_underloaded(plant, state, draft, rule, overloaded, record_count, moves, move_count)


@compiled
def draft_of(plant: Plant, state: State, record_count: int) -> Draft:
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
        np.zeros(host_count, dtype=np.bool_),
    )
    for host in range(host_count):
        kind = plant.kind[host]
        utilisation = utilisation_of(state.used[host], plant.host_mips[host])
        draft.power[host] = watts_at(plant.watts[kind], plant.rise[kind], utilisation)
        draft.idle[host] = utilisation == 0
        sum_up(plant, state, draft, host, record_count)
    return draft


@compiled
def sum_up(plant: Plant, state: State, draft: Draft, host: int, record_count: int) -> None:
    """What the guests ask for and asked for, added in the order of the list."""
    kind = plant.kind[host]
    depth = min(record_count, HISTORY_MAX)
    past = draft.past[host]
    past[:] = 0.0
    asked = 0.0
    length = 0
    for place in range(draft.guest_count[host]):
        vm = draft.guests[host, place]
        asked += state.demand[vm]
        length = max(length, samples_that_count(state.recorded[vm], record_count))
        for age in range(depth):
            past[age] += state.share[kind, vm, record_count - 1 - age]
    draft.asked[host] = asked
    draft.length[host] = length


@compiled
def relieve(
    plant: Plant,
    state: State,
    draft: Draft,
    rule: Rule,
    selector: int,
    overloaded: Flags,
    record_count: int,
    draw: np.random.Generator,
) -> Ints:
    """Take machines from each overloaded host until it is not overloaded; the machines, in order."""
    leaving = np.empty(len(state.home), dtype=np.int64)
    count = 0
    no_past = np.zeros((2, HISTORY_MAX))
    for host in range(len(overloaded)):
        if not overloaded[host]:
            continue
        while draft.guest_count[host] > 0:
            guests = draft.guests[host, : draft.guest_count[host]]
            place = chosen_guest(
                selector,
                guests,
                state.demand,
                plant.vm_mips,
                plant.memory_mb,
                state.recorded,
                record_count,
                draw,
            )
            leaving[count] = guests[place]
            count += 1
            for later in range(place + 1, len(guests)):
                guests[later - 1] = guests[later]
            draft.guest_count[host] -= 1
            sum_up(plant, state, draft, host, record_count)
            if not is_overloaded_with(plant, draft, rule, host, -1, 0.0, no_past, 0):
                break
    return leaving[:count]


@compiled
def by_demand(vms: Ints, demand: Floats) -> Ints:
    """The machines, those that ask for most first; equals keep their order."""
    lacking = np.empty(len(vms))
    for index in range(len(vms)):
        lacking[index] = -demand[vms[index]]
    ordered = np.empty(len(vms), dtype=np.int64)
    order = ranked(lacking)
    for index in range(len(vms)):
        ordered[index] = vms[order[index]]
    return ordered


@compiled
def empty_underloaded(
    plant: Plant,
    state: State,
    draft: Draft,
    rule: Rule,
    overloaded: Flags,
    record_count: int,
    moves: Ints,
    move_count: int,
) -> Ints:
    """Empty hosts, the least utilised first, onto others that have load and are not being emptied.

    A host that has taken a machine in this second part is not emptied; one that has taken a machine from an
    overloaded host may be, and then that machine moves on.
    """
    loaded = np.flatnonzero(~overloaded & ~draft.idle)
    utilisation = np.empty(len(loaded))
    for index in range(len(loaded)):
        utilisation[index] = utilisation_of(state.used[loaded[index]], plant.host_mips[loaded[index]])
    closed = overloaded.copy()
    settled = np.zeros(len(overloaded), dtype=np.bool_)
    for index in ranked(utilisation):
        source = loaded[index]
        if utilisation[index] >= 1 or settled[source] or draft.guest_count[source] == 0:
            continue
        closed[source] = True
        first = move_count
        guests = draft.guests[source, : draft.guest_count[source]].astype(np.int64)
        for vm in by_demand(guests, state.demand):
            past = past_of(state.share, vm, record_count)
            length = samples_that_count(state.recorded[vm], record_count)
            target = best_host(plant, draft, rule, state.demand[vm], past, length, loaded, closed)
            if target == NOWHERE:
                undo(plant, state, draft, moves, first, move_count, record_count)
                move_count = first
                break
            add_guest(plant, draft, target, vm, state.demand[vm], past, length)
            moves[move_count, 0] = vm
            moves[move_count, 1] = target
            move_count += 1
        for move in range(first, move_count):
            settled[moves[move, 1]] = True
    return moves[:move_count].copy()


@compiled
def undo(
    plant: Plant, state: State, draft: Draft, moves: Ints, first: int, after: int, record_count: int
) -> None:
    """Take the newest guests off the draft again, and add the sums of those hosts anew."""
    for move in range(first, after):
        draft.guest_count[moves[move, 1]] -= 1
    for move in range(first, after):
        host = moves[move, 1]
        given = state.used[host]
        free = state.free[host]
        for place in range(state.guest_count[host], draft.guest_count[host]):
            given += state.demand[draft.guests[host, place]]
            free -= state.demand[draft.guests[host, place]]
        draft.given[host] = given
        draft.free[host] = free
        sum_up(plant, state, draft, host, record_count)
