"""The day: a round every 300 s from 300.1 s on, and inside a round the moments at which migrations end.

Decides the order of events and what each does. Times are kept as sums of floats, as the released code keeps them,
because it asks whether a time is a whole number of intervals.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from olvm.experiments.compilation import allocating, allocating_entry
from olvm.experiments.consolidation.accounting import close_host, look_at
from olvm.experiments.consolidation.consolidating import Moves, consolidate
from olvm.experiments.consolidation.energy import energy_ws, utilisation_of
from olvm.experiments.consolidation.placing import NOWHERE, Candidate, Policy, best_host, draft_of
from olvm.experiments.consolidation.plant import (
    DAY_S,
    HISTORY_MAX,
    HOST_BANDWIDTH_KBIT_S,
    HOST_MEMORY_MB,
    INTERVAL_S,
    MIGRATION_MB_S,
    VM_BANDWIDTH_KBIT_S,
    Flags,
    Floats,
    Ledger,
    Plant,
    State,
)
from olvm.experiments.consolidation.ranking import ranked

START_S = 0.1  # when all machines have been acknowledged and their loads begin


class Day(NamedTuple):
    """What a run counts beside its ledger."""

    energy_ws: float
    migrations: int
    unplaced: int


@allocating_entry
def run_day(digest: int) -> Callable[..., Day]:
    def run_day(
        plant: Plant,
        state: State,
        ledger: Ledger,
        policy: Policy,
        migrates: bool,
    ) -> Day:
        """Run the whole day; `state` and `ledger` are filled in."""
        assert digest >= 0
        unplaced = place_first(plant, state, policy, migrates)
        energy = 0.0
        migrations = 0
        last_s = 0.0
        now_s = START_S + INTERVAL_S
        while now_s < DAY_S:
            set_demand(plant, state, now_s)
            if (now_s - START_S) % INTERVAL_S == 0:
                record(plant, state, now_s)
            energy += look_around(plant, state, ledger, last_s, now_s)
            last_s = now_s
            if migrates:
                moves = consolidate(plant, state, policy)
                migrations += moves.size[0]
                if moves.size[0]:
                    begin_moves(plant, state, ledger, moves, now_s)
                    spent, last_s = end_moves(plant, state, ledger, moves, now_s)
                    energy += spent
            now_s += INTERVAL_S
        for host in range(len(plant.kind)):
            # The last entry lasts no time, but it may be a shutdown.
            close_host(ledger, host, ledger.host_since[host])
        return Day(energy, migrations, unplaced)

    return run_day


@allocating
def set_demand(plant: Plant, state: State, now_s: float) -> None:
    """What each machine asks for at this time, linear between two samples."""
    for vm in range(len(plant.vm_mips)):
        state.demand[vm] = load_at(plant.load, vm, now_s) * plant.vm_mips[vm]


@allocating
def load_at(load: Floats, vm: int, now_s: float) -> float:
    """A fraction. `now_s` lies between two samples, or on one."""
    before = int(np.floor(now_s / INTERVAL_S))
    after = int(np.ceil(now_s / INTERVAL_S))
    if before == after:
        return float(load[vm, before])
    slope = (load[vm, after] - load[vm, before]) / ((after - before) * INTERVAL_S)
    return float(load[vm, before] + slope * (now_s - before * INTERVAL_S))


@allocating
def record(plant: Plant, state: State, now_s: float) -> None:
    """Remember what each machine asks for now."""
    index = state.record_count[0]
    state.record_count[0] = index + 1
    for vm in range(len(plant.vm_mips)):
        load = load_at(plant.load, vm, now_s)
        state.recorded[vm, index] = load
        for host in range(2):  # the first two hosts are of the two kinds
            state.share[host, vm, index] = load * plant.vm_mips[vm] / plant.host_mips[host]


@allocating
def look_around(plant: Plant, state: State, ledger: Ledger, last_s: float, now_s: float) -> float:
    """Look at every host; the watt-seconds since the last time. Machines that ask for nothing are gone then."""
    spent = 0.0
    for host in range(len(plant.kind)):
        if state.guest_count[host] == 0 and ledger.host_since[host] >= 0 and not ledger.host_active[host]:
            continue  # off before and now: its open entry goes on
        before = utilisation_of(state.used[host], plant.host_mips[host])
        look_at(plant, state, ledger, host, now_s)
        if now_s > last_s:
            kind = plant.kind[host]
            now = utilisation_of(state.used[host], plant.host_mips[host])
            spent += energy_ws(plant.watts[kind], plant.rise[kind], before, now, now_s - last_s)
    for host in range(len(plant.kind)):
        retire(state, host)
    return spent


@allocating
def retire(state: State, host: int) -> None:
    kept = 0
    for place in range(state.guest_count[host]):
        vm = state.guests[host, place]
        if state.demand[vm] == 0 and not state.moving[vm]:
            state.home[vm] = NOWHERE
            continue
        state.guests[host, kept] = vm
        state.arriving[host, kept] = state.arriving[host, place]
        kept += 1
    state.guest_count[host] = kept


@allocating
def begin_moves(plant: Plant, state: State, ledger: Ledger, moves: Moves, now_s: float) -> None:
    """Machines are on their way: a place is kept for each where it goes."""
    touched = np.zeros(len(plant.kind), dtype=np.bool_)
    for index in range(moves.size[0]):
        vm = moves.vm[index]
        target = moves.host[index]
        state.moving[vm] = True
        place = state.guest_count[target]
        state.guests[target, place] = vm
        state.arriving[target, place] = True
        state.guest_count[target] += 1
        touched[target] = True
        touched[state.home[vm]] = True
    for host in range(len(touched)):
        if touched[host]:
            look_at(plant, state, ledger, host, now_s)


@allocating
def end_moves(
    plant: Plant, state: State, ledger: Ledger, moves: Moves, begun_s: float
) -> tuple[float, float]:
    """Let the migrations end, the quickest first; the watt-seconds spent, and the time of the last look."""
    delays = np.empty(moves.size[0])
    for index in range(moves.size[0]):
        delays[index] = plant.memory_mb[moves.vm[index]] / MIGRATION_MB_S
    order = ranked(delays)
    spent = 0.0
    last_s = begun_s
    for rank in range(len(order)):
        now_s = begun_s + delays[order[rank]]
        if now_s > last_s:
            set_demand(plant, state, now_s)
            spent += look_around(plant, state, ledger, last_s, now_s)
            last_s = now_s
        vm = moves.vm[order[rank]]
        target = moves.host[order[rank]]
        leave(state, state.home[vm], vm)
        leave(state, target, vm)
        state.home[vm] = target
        state.moving[vm] = False
        place = state.guest_count[target]
        state.guests[target, place] = vm
        state.arriving[target, place] = False
        state.guest_count[target] += 1
        if rank + 1 == len(order) or begun_s + delays[order[rank + 1]] > now_s:
            look_around(plant, state, ledger, now_s, now_s)
    return spent, last_s


@allocating
def leave(state: State, host: int, vm: int) -> None:
    """Take a machine from a host's list; the others keep their order."""
    found = False
    for place in range(state.guest_count[host]):
        if found:
            state.guests[host, place - 1] = state.guests[host, place]
            state.arriving[host, place - 1] = state.arriving[host, place]
        elif state.guests[host, place] == vm:
            found = True
    if found:
        state.guest_count[host] -= 1


@allocating
def place_first(plant: Plant, state: State, policy: Policy, migrates: bool) -> int:
    """Put each machine on its first host, as if it asked for all it may; how many found none.

    Without migrations the first host with room is taken. With them it is the best, where a host is judged by the new
    machine alone: those before it have no load yet. Memory and bandwidth count only here.
    """
    host_count = len(plant.kind)
    memory_mb = np.full(host_count, HOST_MEMORY_MB)
    bandwidth = np.full(host_count, HOST_BANDWIDTH_KBIT_S)
    state.free[:] = plant.host_mips
    draft = draft_of(plant, state)
    no_past = np.zeros((2, HISTORY_MAX))
    hosts = np.arange(host_count)
    closed = np.zeros(host_count, dtype=np.bool_)
    unplaced = 0
    for vm in range(len(plant.vm_mips)):
        mips = plant.vm_mips[vm]
        for host in range(host_count):
            closed[host] = memory_mb[host] < plant.memory_mb[vm] or bandwidth[host] < VM_BANDWIDTH_KBIT_S
        if migrates:
            target = best_host(plant, draft, policy, Candidate(vm, mips, no_past, 0), hosts, closed)
        else:
            target = first_host(plant, draft.free, mips, closed)
        if target == NOWHERE:
            unplaced += 1
            continue
        draft.given[target] += mips
        draft.free[target] -= mips
        draft.guest_count[target] += 1
        memory_mb[target] -= plant.memory_mb[vm]
        bandwidth[target] -= VM_BANDWIDTH_KBIT_S
        state.guests[target, state.guest_count[target]] = vm
        state.guest_count[target] += 1
        state.home[vm] = target
    return unplaced


@allocating
def first_host(plant: Plant, free: Floats, mips: float, closed: Flags) -> int:
    for host in range(len(free)):
        if not closed[host] and plant.core_mips[host] >= mips and free[host] >= mips:
            return host
    return NOWHERE
