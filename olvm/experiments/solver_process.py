"""The process in which OR-Tools' CP-SAT looks for the least peak of hosts; asked and answering as `bounds` says.

Reads one `Instance` from its input, and writes a `Said` a line as it proves or finds more.

Model: a literal for each VM and host that can hold it, exactly one of a VM's true. At each instant at which VMs come
and none comes before one goes (there alone something can be at its most), each host holds what is on it, a host is in
use that has a VM, and the peak is at least their number. Equal hosts are interchangeable: numbered by their first
VMs, VM number n (from 0) has one of the first n + 1 of them.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter

import msgspec
from ortools.sat.python import cp_model

from olvm.experiments.bounds import Instance, Said, Status

_lock = threading.Lock()


def main() -> None:
    solve(msgspec.json.decode(sys.stdin.buffer.read(), type=Instance))


def solve(instance: Instance) -> None:
    model = cp_model.CpModel()
    on = _literals(model, instance)
    peak = model.new_int_var(instance.least, len(instance.host_cpu), "peak")
    for instant in _crowded(instance):
        there = [vm for vm in range(instant + 1) if instance.end[vm] > instant]
        in_use = []
        for host in range(len(instance.host_cpu)):
            here = [vm for vm in there if (vm, host) in on]
            if not here:
                continue
            used = model.new_bool_var("")
            # With the host's use in them, the capacities alone give a bound.
            model.add(sum(instance.cpu[vm] * on[vm, host] for vm in here) <= instance.host_cpu[host] * used)
            model.add(
                sum(instance.memory[vm] * on[vm, host] for vm in here) <= instance.host_memory[host] * used
            )
            for vm in here:
                model.add_implication(on[vm, host], used)
            in_use.append(used)
        model.add(sum(in_use) <= peak)
    for vm, host in enumerate(instance.hint):
        for at in range(len(instance.host_cpu)):
            if (vm, at) in on:
                model.add_hint(on[vm, at], int(at == host))
    model.minimize(peak)
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = instance.time_limit_s
    solver.parameters.random_seed = instance.seed % 2**31
    solver.best_bound_callback = lambda bound: say(Said(bound=_whole(bound)))
    outcome = solver.solve(model, _Found())
    names: dict[int, Status] = {
        int(cp_model.OPTIMAL): "optimal",
        int(cp_model.FEASIBLE): "feasible",
        int(cp_model.INFEASIBLE): "infeasible",
    }
    status = names.get(int(outcome), "unknown")
    best = int(solver.objective_value) if status in ("optimal", "feasible") else None
    bound = instance.least if status == "infeasible" else _whole(solver.best_objective_bound)
    say(Said(bound=bound, best=best, status=status))


def _literals(model: cp_model.CpModel, instance: Instance) -> dict[tuple[int, int], cp_model.IntVar]:
    shapes = list(zip(instance.host_cpu, instance.host_memory, strict=True))
    on = {}
    for vm, (cpu, memory) in enumerate(zip(instance.cpu, instance.memory, strict=True)):
        seen: Counter[tuple[int, int]] = Counter()
        for host, shape in enumerate(shapes):
            seen[shape] += 1
            if cpu <= shape[0] and memory <= shape[1] and seen[shape] <= vm + 1:
                on[vm, host] = model.new_bool_var("")
        model.add_exactly_one(on[vm, host] for host in range(len(shapes)) if (vm, host) in on)
    return on


def _crowded(instance: Instance) -> list[int]:
    """Instants after which somebody is gone before the next comes; VM number n comes at instant n."""
    ends = set(instance.end)
    return [
        instant
        for instant in range(len(instance.end))
        if instant + 1 in ends or instant + 1 == len(instance.end)
    ]


def _whole(bound: float) -> int:
    """A bound on a whole number, given as a float that may be a little too large."""
    return int(-(-(bound - 1e-6) // 1))


class _Found(cp_model.CpSolverSolutionCallback):
    def on_solution_callback(self) -> None:
        say(Said(bound=_whole(self.best_objective_bound), best=int(self.objective_value)))


def say(said: Said) -> None:
    with _lock:  # CP-SAT calls back from its own threads
        sys.stdout.buffer.write(msgspec.json.encode(said) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
