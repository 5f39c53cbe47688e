"""What a replay took, in hours: of hosts that held a VM, what they cost, and of vCPUs that were promised and used.

All hours are counted from the first arrival to the last arrival, or the last placement if that was later; where the
line stands for ever, to the last departure that did not help it. What comes after nobody knows.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from olvm.experiments.host_specs import HostFleet
from olvm.experiments.kernels.events import World
from olvm.experiments.kernels.requests import hold_until
from olvm.experiments.kernels.state import LAST_END, MILLI, NOW, PLACED, Floats
from olvm.experiments.trace import Trace

SECONDS_PER_HOUR = 3600.0


def hours_of(world: World, trace: Trace, hosts: HostFleet) -> dict[str, Any]:
    """`host_hours`; `cost`, None without prices; and of the VMs whose utilisation is known their vCPU-hours.

    Sums are exact before they are rounded (`math.fsum`), so that they are the same on every machine.
    """
    clock = world.progress.clock
    last_s = max(float(trace.arrival_s[-1]), float(clock[NOW]), float(clock[LAST_END]))
    held_s = _held(world, last_s)
    used = np.flatnonzero(held_s)
    cost = None
    if hosts.price_per_hour is not None:
        cost = math.fsum((held_s[used] * hosts.price_per_hour[used]).tolist()) / SECONDS_PER_HOUR
    return {
        "host_hours": math.fsum(held_s[used].tolist()) / SECONDS_PER_HOUR,
        "cost": cost,
        **_vcpu_hours(world, trace, last_s),
    }


def _held(world: World, last_s: float) -> Floats:
    """Of each host, for how long it held VMs, up to the end."""
    requests, fleet = world.requests, world.fleet
    until_s = fleet.since_s.copy()
    hold_until(requests.status, requests.host, requests.start_s, requests.lifetime_s, last_s, until_s)
    return np.where(fleet.vm_count > 0, fleet.held_s + (until_s - fleet.since_s), fleet.held_s)


def _vcpu_hours(world: World, trace: Trace, last_s: float) -> dict[str, float | None]:
    if trace.utilisation is None:
        return {"reserved_vcpu_hours": None, "used_vcpu_hours": None, "waste": None}
    requests = world.requests
    known = np.flatnonzero((requests.status == PLACED) & ~np.isnan(trace.utilisation))
    end_s = np.minimum(requests.start_s[known] + requests.lifetime_s[known], last_s)
    reserved = (end_s - requests.start_s[known]) * (trace.milli_vcpus[known] / MILLI)
    total = math.fsum(reserved.tolist()) / SECONDS_PER_HOUR
    used = math.fsum((reserved * trace.utilisation[known]).tolist()) / SECONDS_PER_HOUR
    return {
        "reserved_vcpu_hours": total,
        "used_vcpu_hours": used,
        "waste": 1 - used / total if total else None,
    }
