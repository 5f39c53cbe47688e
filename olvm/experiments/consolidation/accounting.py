"""What a host gives its machines, and the figures that follow: active and violated time, unserved demand, shutdowns.

Rules:
1. A host that has enough gives each machine what it asks for, at most one core. One that has not scales all alike, to
   whole MIPS.
2. While a machine migrates, it gets nine tenths where it runs and a tenth is reserved where it goes.
3. A figure holds from one look to the next; of several looks at one time the last counts.

Source: the schedulers of CloudSim 3.0.3 and its example's `Helper`.
"""

from __future__ import annotations

import numpy as np

from olvm.experiments.compilation import allocating_inlined
from olvm.experiments.consolidation.plant import Ledger, Plant, State

MOVING_SHARE = 0.9
ARRIVING_SHARE = 0.1


@allocating_inlined
def close_host(ledger: Ledger, host: int, now_s: float) -> None:
    """Count the open entry, which lasted until now."""
    since = ledger.host_since[host]
    if since < 0:
        return
    if ledger.host_active[host]:
        ledger.host_active_s[host] += now_s - since
        if ledger.host_given[host] < ledger.host_asked[host]:
            ledger.host_violated_s[host] += now_s - since
    elif ledger.host_was_active[host]:
        ledger.host_shutdowns[host] += 1
    ledger.host_was_active[host] = ledger.host_active[host]


@allocating_inlined
def note_host(ledger: Ledger, host: int, now_s: float, given: float, asked: float) -> None:
    since = ledger.host_since[host]
    if since != now_s:
        close_host(ledger, host, now_s)
        ledger.host_since[host] = now_s
    ledger.host_given[host] = given
    ledger.host_asked[host] = asked
    ledger.host_active[host] = given > 0


@allocating_inlined
def note_vm(ledger: Ledger, vm: int, now_s: float, given: float, asked: float, moving: bool) -> None:
    since = ledger.vm_since[vm]
    if since != now_s:
        if since >= 0:
            span_s = now_s - since
            ledger.vm_asked_mips_s[vm] += ledger.vm_asked[vm] * span_s
            if ledger.vm_moving[vm] and ledger.vm_given[vm] < ledger.vm_asked[vm]:
                ledger.vm_lost_mips_s[vm] += (ledger.vm_asked[vm] - ledger.vm_given[vm]) * span_s
        ledger.vm_since[vm] = now_s
    ledger.vm_given[vm] = given
    ledger.vm_asked[vm] = asked
    ledger.vm_moving[vm] = moving


@allocating_inlined
def look_at(plant: Plant, state: State, ledger: Ledger, host: int, now_s: float) -> None:
    """Share the host out again, and write down what came of it."""
    count = state.guest_count[host]
    core = plant.core_mips[host]
    free = plant.host_mips[host]
    is_short = False
    promised = 0.0
    for place in range(count):
        need = min(state.demand[state.guests[host, place]], core)
        if state.arriving[host, place]:
            need *= ARRIVING_SHARE
        promised += need
        if free >= need:
            free -= need
        else:
            is_short = True
            free = 0.0
    scale = plant.host_mips[host] / promised if is_short else 1.0
    used = 0.0
    asked = 0.0
    for place in range(count):
        vm = state.guests[host, place]
        given = min(state.demand[vm], core)
        if state.arriving[host, place]:
            given = given * ARRIVING_SHARE
            if is_short:
                given = np.floor(given * scale)
        else:
            if is_short:
                given = given * scale
            if state.moving[vm]:
                given = given * MOVING_SHARE
            if is_short:
                given = np.floor(given)
            note_vm(ledger, vm, now_s, given, state.demand[vm], state.moving[vm])
            if state.moving[vm]:
                given /= MOVING_SHARE
        used += given
        asked += state.demand[vm]
    state.used[host] = used
    state.free[host] = free
    note_host(ledger, host, now_s, used, asked)
