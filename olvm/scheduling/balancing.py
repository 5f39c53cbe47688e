"""Which VMs leave crowded hosts, or hosts that had better be empty: oVirt's three balancers as pure functions.

- OptimalForEvenDistribution: a host over HighUtilization for CpuOverCommitDurationMinutes, or with less free memory
  than MaxFreeMemoryForOverUtilized, gives VMs to the emptiest hosts.
- OptimalForEvenGuestDistribution: from the host with most VMs (HighVmCount or more) to those with at least
  MigrationThreshold fewer.
- OptimalForPowerSaving: as the first, but onto the fullest hosts that still take them; then hosts at or below
  LowUtilization are emptied onto fuller ones, whole or not at all.

oVirt moves one VM a minute in a cluster. Here it is as many as the budget allows, planned on a copy of the loads.

Rules:
1. A destination stays at or below HighUtilization and above MaxFreeMemoryForOverUtilized, so no move makes what
   another one mends.
2. Every move is a strict improvement of one order (overload first, then what the policy is for), so that planning
   and moving, repeated, comes to an end: `potential` is that order, and the tests watch it fall.
3. In one plan a VM moves once, and no host both gives and gets.
"""

from __future__ import annotations

from collections.abc import Iterable

from olvm.scheduling.moves import FleetView, Machine, Move
from olvm.scheduling.request import MIB
from olvm.scheduling.units import (
    CPU_OVERCOMMIT_DURATION,
    HIGH_UTILIZATION,
    HIGH_VM_COUNT,
    LOW_UTILIZATION,
    MAX_FREE_MEMORY_FOR_OVER_UTILIZED,
    MIGRATION_THRESHOLD,
    MIN_FREE_MEMORY_FOR_UNDER_UTILIZED,
    SPM_VM_GRACE,
)

# A plan looks at no more pairs of VM and host than this: about 50 ms where nothing fits anywhere.
PAIRS_TRIED_MAX = 50_000
HIGH_UTILIZATION_DEFAULT = 80
CPU_OVERCOMMIT_DURATION_DEFAULT_MINUTES = 2


def balance(view: FleetView) -> list[Move]:
    """The moves that the cluster's policy wants now, best first; none for a policy without a balancer."""
    match view.policy.balancer:
        case "OptimalForEvenDistribution":
            plan = _Plan(view, pack=False)
            plan.relieve_cpu()
            plan.relieve_memory()
        case "OptimalForPowerSaving":
            plan = _Plan(view, pack=True)
            plan.relieve_cpu()
            plan.relieve_memory()
            plan.evacuate()
        case "OptimalForEvenGuestDistribution":
            plan = _Plan(view, pack=False)
            plan.even_guests()
        case _:
            return []
    return plan.moves


def potential(view: FleetView) -> tuple[int, int, int]:
    """What every move lowers, in order: CPU overload, memory shortage, and what the policy is for."""
    plan, balancer = _Plan(view, pack=False), view.policy.balancer
    overload = sum(max(0, plan.load[host] - plan.limit[host]) for host in plan.hosts)
    shortage = sum(max(0, plan.memory_low_bytes - plan.free_bytes[host]) for host in plan.hosts)
    if balancer == "OptimalForPowerSaving":
        return overload, shortage, -sum(plan.mass(host) ** 2 for host in plan.hosts)
    if balancer == "OptimalForEvenGuestDistribution":
        return 0, 0, sum(plan.count[host] ** 2 for host in plan.hosts)
    return overload, shortage, 0


class _Plan:
    """The loads as they will be after the moves planned so far."""

    def __init__(self, view: FleetView, *, pack: bool) -> None:
        table = view.table
        self.view = view
        self.pack = pack
        self.moves: list[Move] = []
        self.moved: set[str] = set()
        self.gave: set[str] = set()
        self.got: set[str] = set()
        self.pairs_tried = 0
        self.parameters = dict(view.policy.parameters)
        high = int(self.parameters.get(HIGH_UTILIZATION.name, HIGH_UTILIZATION_DEFAULT))
        low_mib = self.parameters.get(MAX_FREE_MEMORY_FOR_OVER_UTILIZED.name, 0)
        self.memory_low_bytes = int(low_mib) * MIB
        self.hosts = [table.name[slot] for slot in table.usable_slots]
        slots = dict(zip(self.hosts, table.usable_slots, strict=True))
        self.cpus = {host: table.cpus[slot] for host, slot in slots.items()}
        self.load = {host: table.thread_load_percent[slot] for host, slot in slots.items()}
        self.limit = {host: high * self.cpus[host] for host in self.hosts}
        self.free_bytes = {host: table.memory_free_bytes[slot] for host, slot in slots.items()}
        grace = int(self.parameters.get(SPM_VM_GRACE.name, 0))
        if view.policy.balancer != "OptimalForEvenGuestDistribution":
            grace = 0
        self.count = {
            host: table.vm_count[slot] + (grace if table.profile[slot].storage_pool_manager else 0)
            for host, slot in slots.items()
        }

    def mass(self, host: str) -> int:
        """Load and number of VMs: an idle VM weighs something too."""
        return self.load[host] + self.count[host]

    # ---------------------------------------------------------------- reasons to move

    def relieve_cpu(self) -> None:
        minutes = self.parameters.get(CPU_OVERCOMMIT_DURATION.name, CPU_OVERCOMMIT_DURATION_DEFAULT_MINUTES)
        over = [
            host
            for host in self.hosts
            if self.load[host] > self.limit[host] and self.view.over_s.get(host, 0.0) >= minutes * 60
        ]
        over.sort(key=lambda host: (-self.load[host] * 1000 // self.cpus[host], host))
        for source in over:
            percent = self.load[source] // self.cpus[source]
            why = f"host {source} is at {percent} % CPU, over {self.limit[source] // self.cpus[source]} %"
            while (excess := self.load[source] - self.limit[source]) > 0:
                loaded = [machine for machine in self._movable(source) if machine.load > 0]
                # The lightest that is enough, else the heaviest.
                loaded.sort(key=lambda one: (one.load < excess, abs(one.load - excess), one.vm_id))
                if not self._move_one(source, loaded, why):
                    break

    def relieve_memory(self) -> None:
        low_bytes = self.memory_low_bytes
        short = [host for host in self.hosts if self.free_bytes[host] < low_bytes]
        short.sort(key=lambda host: (self.free_bytes[host], host))
        for source in short:
            why = f"host {source} has less free memory than {low_bytes // MIB} MiB"
            while (lack := low_bytes - self.free_bytes[source]) > 0:
                machines = self._movable(source)
                machines.sort(
                    key=lambda one: (
                        one.memory_need_bytes < lack,
                        abs(one.memory_need_bytes - lack),
                        one.vm_id,
                    )
                )
                if not self._move_one(source, machines, why):
                    break

    def even_guests(self) -> None:
        high = int(self.parameters.get(HIGH_VM_COUNT.name, 10))
        threshold = max(2, int(self.parameters.get(MIGRATION_THRESHOLD.name, 5)))
        stuck: set[str] = set()
        while self.view.budget.moves_left > 0:
            sources = [host for host in self.hosts if self.count[host] >= high and host not in stuck]
            if not sources:
                return
            source = min(sources, key=lambda host: (-self.count[host], host))
            why = f"host {source} runs {self.count[source]} machines, at least {threshold} more than others"
            smallest = sorted(
                self._movable(source), key=lambda machine: (machine.memory_need_bytes, machine.vm_id)
            )
            limit = self.count[source] - threshold
            targets = sorted(
                (host for host in self.hosts if self.count[host] <= limit),
                key=lambda host: (self.count[host], host),
            )
            if not self._move_one(source, smallest, why, targets):
                stuck.add(source)

    def evacuate(self) -> None:
        """Empty what is hardly used, the least used first. A host that cannot be emptied whole is left alone."""
        low = int(self.parameters.get(LOW_UTILIZATION.name, 20))
        free_min_bytes = int(self.parameters.get(MIN_FREE_MEMORY_FOR_UNDER_UTILIZED.name, 0)) * MIB
        idle = [
            host
            for host in self.hosts
            if self.count[host]
            and self.load[host] <= low * self.cpus[host]
            and self.free_bytes[host] >= free_min_bytes
        ]
        for source in sorted(idle, key=lambda host: (self.mass(host), host)):
            if self.view.budget.moves_left <= 0 or self.pairs_tried > PAIRS_TRIED_MAX:
                return
            percent = self.load[source] // self.cpus[source]
            why = f"host {source} is at {percent} % CPU, at most {low} %: its machines fit elsewhere"
            machines = self._movable(source)
            if source not in self.got and len(machines) == self.count[source]:
                self._empty(source, machines, why)

    def _empty(self, source: str, machines: list[Machine], why: str) -> None:
        planned: list[tuple[Machine, str]] = []
        machines.sort(key=lambda machine: (-machine.memory_need_bytes, machine.vm_id))
        for machine in machines:
            # Slots bound how many go now, not whether all of them fit.
            target = self._target(machine, self._fuller(source), in_slots=False)
            if target is None:
                for done, host in planned:
                    self._shift(done, host, source)
                return
            self._shift(machine, source, target)
            planned.append((machine, target))
        for machine, target in planned:
            budget = self.view.budget
            if budget.leaves(source) and budget.enters(target):
                self._emit(machine, source, target, why)
        # What does not go now is still meant to: nobody else plans with that room.
        self.gave.add(source)
        self.got.update(target for _, target in planned)

    def _fuller(self, source: str) -> list[str]:
        mass = self.mass(source)
        return [host for host in self._by_load(self.hosts) if self.count[host] and self.mass(host) >= mass]

    # ---------------------------------------------------------------- one move

    def _movable(self, host: str) -> list[Machine]:
        if host in self.view.busy_hosts or host in self.got:
            return []
        machines = self.view.machines_by_host.get(host, [])
        return [machine for machine in machines if machine.movable and machine.vm_id not in self.moved]

    def _by_load(self, hosts: Iterable[str]) -> list[str]:
        sign = -1 if self.pack else 1
        # Packing prefers the fullest, but a host that is empty is the last to be woken either way.
        return sorted(hosts, key=lambda host: (sign * self.load[host] * 1000 // self.cpus[host], host))

    def _move_one(
        self, source: str, machines: list[Machine], why: str, targets: list[str] | None = None
    ) -> bool:
        if not machines or not self.view.budget.leaves(source):
            return False
        ordered = self._by_load(self.hosts) if targets is None else targets
        for machine in machines:
            target = self._target(machine, ordered, guests=targets is not None)
            if target is not None:
                self._shift(machine, source, target)
                self._emit(machine, source, target, why)
                self.gave.add(source)
                self.got.add(target)
                return True
        return False

    def _target(
        self, machine: Machine, ordered: list[str], *, in_slots: bool = True, guests: bool = False
    ) -> str | None:
        """The first host of `ordered` that takes the VM and stays within rule 1."""
        view = self.view
        for host in ordered:
            if self.pairs_tried > PAIRS_TRIED_MAX:
                return None
            self.pairs_tried += 1
            if host == machine.host or host in view.busy_hosts or host in self.gave:
                continue
            if in_slots and not view.budget.enters(host):
                continue
            # A balancer of guests looks at their number and leaves load to the administrator, as oVirt's does.
            if not guests and self.load[host] + machine.load > self.limit[host]:
                continue
            if self.free_bytes[host] - machine.memory_need_bytes < self.memory_low_bytes:
                continue
            if view.accepts(machine.vm_id, host):
                return host
        return None

    def _shift(self, machine: Machine, source: str, target: str) -> None:
        for host, sign in ((source, -1), (target, 1)):
            self.load[host] += sign * machine.load
            self.free_bytes[host] -= sign * machine.memory_need_bytes
            self.count[host] += sign

    def _emit(self, machine: Machine, source: str, target: str, why: str) -> None:
        self.view.budget.take(source, target)
        self.moved.add(machine.vm_id)
        self.moves.append(Move(vm_id=machine.vm_id, from_host=source, to_host=target, why=why))
