"""One round of consolidation: relieve overloaded hosts, then empty under-loaded ones, all or nothing.

Decides moves on a draft and carries none out. At a round no machine is on its way: a migration lasts under half a
minute, a round comes every five.

Source: Beloglazov & Buyya 2012, algorithms 1 and 2, as CloudSim 3.0.3 carries them out.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from olvm.experiments.compilation import allocating
from olvm.experiments.consolidation.placing import (
    NOWHERE,
    Draft,
    Policy,
    add_guest,
    best_host,
    candidate_of,
    draft_of,
    is_host_overloaded,
    sum_up,
    take_off_newest,
)
from olvm.experiments.consolidation.plant import Flags, Floats, Ints, Plant, State
from olvm.experiments.consolidation.ranking import ranked
from olvm.experiments.consolidation.selectors import chosen_guest


class Moves(NamedTuple):
    """Moves in their order. A machine may stand twice: then it goes to the last host, and both count."""

    vm: Ints
    host: Ints
    size: Ints  # 1: how many of them are filled in


class Scene(NamedTuple):
    """All that a round is about."""

    plant: Plant
    state: State
    policy: Policy
    draft: Draft
    moves: Moves


class Room(NamedTuple):
    """Where machines may go."""

    hosts: Ints  # ascending
    closed: Flags  # H: those of them that are not to be taken
    all_or_none: bool  # stop at the first machine that finds no host


@allocating
def consolidate(plant: Plant, state: State, policy: Policy) -> Moves:
    """The moves of this round."""
    host_count = len(plant.kind)
    move_count_max = 2 * len(state.home)
    moves = Moves(
        np.empty(move_count_max, dtype=np.int64),
        np.empty(move_count_max, dtype=np.int64),
        np.zeros(1, dtype=np.int64),
    )
    scene = Scene(plant, state, policy, draft_of(plant, state), moves)
    overloaded = np.zeros(host_count, dtype=np.bool_)
    for host in range(host_count):
        overloaded[host] = is_host_overloaded(plant, scene.draft, policy, host)
    leaving = relieve(scene, overloaded)
    place_all(scene, leaving, Room(np.arange(host_count), overloaded, False))
    empty_underloaded(scene, overloaded)
    return moves


@allocating
def relieve(scene: Scene, overloaded: Flags) -> Ints:
    """Take machines from each overloaded host until it is not overloaded; the machines, in order."""
    plant, state, policy, draft, _ = scene
    leaving = np.empty(len(state.home), dtype=np.int64)
    count = 0
    for host in range(len(overloaded)):
        if not overloaded[host]:
            continue
        while draft.guest_count[host] > 0:
            guests = draft.guests[host, : draft.guest_count[host]]
            place = chosen_guest(plant, state, policy.selector, guests, policy.draw)
            leaving[count] = guests[place]
            count += 1
            for later in range(place + 1, len(guests)):
                guests[later - 1] = guests[later]
            draft.guest_count[host] -= 1
            sum_up(plant, state, draft, host)
            if not is_host_overloaded(plant, draft, policy, host):
                break
    return leaving[:count]


@allocating
def place_all(scene: Scene, vms: Ints, room: Room) -> bool:
    """Place machines on the draft, those that ask for most first; false when one found no host."""
    plant, state, policy, draft, moves = scene
    all_placed = True
    for vm in by_demand(vms, state.demand):
        new = candidate_of(state, vm)
        host = best_host(plant, draft, policy, new, room.hosts, room.closed)
        if host != NOWHERE:
            add_guest(plant, draft, host, new)
            moves.vm[moves.size[0]] = vm
            moves.host[moves.size[0]] = host
            moves.size[0] += 1
        elif room.all_or_none:
            return False
        else:
            all_placed = False
    return all_placed


@allocating
def empty_underloaded(scene: Scene, overloaded: Flags) -> None:
    """Empty hosts, the least utilised first, onto others that have load and are not being emptied.

    A host that has taken a machine in this second part is not emptied; one that has taken a machine from an
    overloaded host may be, and then that machine moves on.
    """
    plant, state, _, draft, moves = scene
    loaded = np.flatnonzero(~overloaded & (draft.utilisation != 0))
    room = Room(loaded, overloaded.copy(), True)
    settled = np.zeros(len(overloaded), dtype=np.bool_)
    for index in ranked(draft.utilisation[loaded]):
        source = loaded[index]
        if draft.utilisation[source] >= 1 or settled[source] or draft.guest_count[source] == 0:
            continue
        room.closed[source] = True
        first = moves.size[0]
        guests = draft.guests[source, : draft.guest_count[source]].astype(np.int64)
        if not place_all(scene, guests, room):
            take_off_newest(plant, state, draft, moves.host[first : moves.size[0]])
            moves.size[0] = first
        for move in range(first, moves.size[0]):
            settled[moves.host[move]] = True


@allocating
def by_demand(vms: Ints, demand: Floats) -> Ints:
    """The machines, those that ask for most first; equals keep their order."""
    lacking = np.empty(len(vms))
    for index in range(len(vms)):
        lacking[index] = -demand[vms[index]]
    order = ranked(lacking)
    ordered = np.empty(len(vms), dtype=np.int64)
    for index in range(len(vms)):
        ordered[index] = vms[order[index]]
    return ordered
