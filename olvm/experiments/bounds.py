"""What no policy can go below: the least number of hosts that are in use at once, by capacity and by a solver.

The solver knows the future: each VM gets one host for all of its life, nobody waits, nobody is refused, and the peak of
hosts in use is least. That is a harder question than any policy answers, so its answer is a bound for all of them; and
it is NP-hard, so it is for small instances, within a time limit, after which the best proven bound is told.

The solver is a process of its own (`solver_process`): it takes all CPUs and as much memory as it likes, and whatever
ends it, what it had proven until then stands.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Literal

import msgspec
import numpy as np

from olvm.experiments.host_specs import HostFleet, parse_hosts
from olvm.experiments.kernels.state import TOO_MANY_VCPUS, Fleet, Floats
from olvm.experiments.replays import replay
from olvm.experiments.running import NEVER_SPLIT, Prepared
from olvm.experiments.trace import read_trace
from olvm.model.errors import BadInput, OlvmError

VMS_MAX = 2_000
TIME_LIMIT_S = 60.0
ENDS_WITHIN_S = 20.0  # beyond the time limit
NEVER_S = 1e18
HEURISTICS = ("first_fit", "best_fit")

Status = Literal["optimal", "feasible", "infeasible", "unknown"]


class Instance(msgspec.Struct, frozen=True, kw_only=True):
    """What the solver's process is asked. VM number n comes at instant n; hosts are by number too."""

    end: list[int]  # for each VM the instant at which it is gone
    cpu: list[int]
    memory: list[int]
    host_cpu: list[int]
    host_memory: list[int]
    hint: list[int]  # a host for each VM, from a heuristic; empty: there is none
    least: int  # what is proven already
    time_limit_s: float
    seed: int


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the solver's process: what it has proven and found so far."""

    bound: int = 0
    best: int | None = None
    status: Status = "unknown"


class Bound(msgspec.Struct, frozen=True, kw_only=True):
    """`capacity_bound` <= `solver_bound` <= `solver_best`, where there are such.

    `status`: `optimal`: the last two are equal. `feasible`: they are not, in the time that there was. `infeasible`:
    these hosts cannot serve the demand as it was offered, whatever the policy. `unknown`: nothing was found in time.
    `heuristics`: `hosts_peak` of policies on the same trace; None where a VM waited.
    """

    vm_count: int
    host_count: int
    capacity_bound: int
    solver_bound: int
    solver_best: int | None
    status: Status
    heuristics: dict[str, int | None]


def bound(
    trace: object,
    hosts: str | HostFleet,
    *,
    time_limit_s: float = TIME_LIMIT_S,
    seed: int = 0,
) -> Bound:
    """The least peak of hosts in use with which these hosts can serve the trace as it is offered.

    Args:
        trace, hosts: as `olvm.experiments.replay` takes them; what the trace says of NUMA nodes and host groups is not
            read, and no policy that must heed it can do better. VMs that fit on no empty host are left out.
        time_limit_s: of the solver, wall time.
        seed: of the solver.

    Raises:
        BadInput: more than 2,000 VMs, a time limit that makes no sense, or what a replay refuses.
        OlvmError: OR-Tools is not installed.

    Cost: up to the time limit on all CPUs. Tens of VMs take seconds, hundreds often more than one has.
    """
    if not 0 < time_limit_s < float("inf"):
        raise BadInput(f"a solver cannot have {time_limit_s} s: give more than 0")
    if find_spec("ortools") is None:
        raise OlvmError("the solver is OR-Tools, which is not installed: pip install 'olvm[solver]'")
    read, fleet = read_trace(trace, ignore=("numa_nodes", "host_group")), parse_hosts(hosts)
    if len(read) > VMS_MAX:
        raise BadInput(
            f"the solver is for small instances: {read.source.name} has {len(read)} VMs, more than {VMS_MAX}; "
            "bound a part of it (bound_hosts of a replay is the bound by capacity of all of it)"
        )
    prepared = Prepared.of(read, fleet, 1, NEVER_SPLIT)
    capacity_bound = prepared.bound()
    fits = np.flatnonzero(prepared.demand.status < TOO_MANY_VCPUS)
    replays = {name: replay(read, fleet, policy=name) for name in HEURISTICS}
    served = {name: one for name, one in replays.items() if one.wait_s_total == 0 and not one.waiting}
    kept = list(range(len(fleet)))
    hint: list[int] = []
    if served:
        found = min(served.values(), key=lambda one: one.hosts_peak)
        kept = _worth_having(prepared.fleet, found.hosts_peak)
        number_by_host = {host: number for number, host in enumerate(kept)}
        hint = [number_by_host[host] for host in found.requests.host[fits].tolist()]
    instance = Instance(
        end=_ends(read.arrival_s[fits], prepared.lifetime_s[fits]),
        cpu=prepared.demand.cpu[fits].tolist(),
        memory=prepared.demand.mem[fits].tolist(),
        host_cpu=prepared.fleet.cpu_capacity[kept].tolist(),
        host_memory=prepared.fleet.mem_capacity[kept].tolist(),
        hint=hint,
        least=capacity_bound,
        time_limit_s=time_limit_s,
        seed=seed,
    )
    if not len(fits):
        said = Said(best=0, status="optimal")
    elif capacity_bound > len(fleet):
        said = Said(bound=capacity_bound, status="infeasible")
    else:
        said = _solved(instance)
    return Bound(
        vm_count=len(read),
        host_count=len(fleet),
        capacity_bound=capacity_bound,
        solver_bound=max(said.bound, capacity_bound),
        solver_best=said.best,
        status=said.status,
        heuristics={name: replays[name].hosts_peak if name in served else None for name in HEURISTICS},
    )


def _worth_having(fleet: Fleet, peak: int) -> list[int]:
    """Of each kind of host the first `peak`, by index.

    With `peak` hosts in use at once no more of a kind are needed: one that is empty can be taken again. A policy that
    takes the lowest of equal hosts has never taken another.
    """
    counts: Counter[tuple[int, int]] = Counter()
    kept = []
    for host, shape in enumerate(zip(fleet.cpu_capacity.tolist(), fleet.mem_capacity.tolist(), strict=True)):
        counts[shape] += 1
        if counts[shape] <= peak:
            kept.append(host)
    return kept


def _ends(arrival_s: Floats, lifetime_s: Floats) -> list[int]:
    """The instant at which each VM is gone. Every arrival is an instant of its own, and these are all there are.

    At one time those who leave go first, and then VMs come one after the other; one of no lifetime is gone before the
    next comes.
    """
    end_s = np.minimum(arrival_s + lifetime_s, NEVER_S)
    first_later = np.searchsorted(arrival_s, end_s, side="left")
    ends: list[int] = np.maximum(first_later, np.arange(1, len(arrival_s) + 1)).tolist()
    return ends


def _solved(instance: Instance) -> Said:
    """The last that the process said; what it could not say in time is not known."""
    said = Said(bound=instance.least)
    with subprocess.Popen(
        [sys.executable, "-m", "olvm.experiments.solver_process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            output, _ = process.communicate(
                msgspec.json.encode(instance), timeout=instance.time_limit_s + ENDS_WITHIN_S
            )
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
        except BaseException:  # Ctrl-C: its process ends with us
            process.kill()
            raise
    for line in _lines(output):
        best = line.best if line.best is not None else said.best
        said = Said(bound=max(said.bound, line.bound), best=best, status=line.status)
    if said.status == "unknown" and said.best is not None:
        said = msgspec.structs.replace(said, status="feasible")
    return said


def _lines(output: bytes) -> Iterator[Said]:
    """A line that the end of the process has torn says nothing."""
    whole = output[: output.rfind(b"\n") + 1]
    for line in whole.splitlines():
        yield msgspec.json.decode(line, type=Said)
