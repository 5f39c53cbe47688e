"""Placement written a second time, slowly: one host at a time, exact fractions, as oVirt computes.

It shares nothing with `olvm.scheduling` but the rows of the table, the request and the policy's data.
"""

from __future__ import annotations

from fractions import Fraction
from math import floor

from olvm.scheduling import HostRow, HostTable, Policy, VmRequest

MIB = 2**20


def java_round(value: Fraction) -> int:
    return floor(value + Fraction(1, 2))


def need_bytes(request: VmRequest) -> int:
    return request.memory_bytes + request.memory_bytes // 512 + 64 * MIB + request.vcpus * 8 * MIB


def free_bytes(table: HostTable, row: HostRow) -> int:
    promised = row.memory_bytes * table.memory_overcommit_percent // 100
    return promised - 256 * MIB - row.reserved_memory_bytes


def rejecting_filter(
    table: HostTable, row: HostRow, request: VmRequest, policy: Policy | None = None
) -> str | None:
    if not row.usable:
        return "Status"
    if row.name in request.excluded_hosts:
        return "Excluded"
    if request.pinned_hosts and row.name not in request.pinned_hosts:
        return "PinToHost"
    if row.name == request.current_host:
        return "Migration"
    if request.vcpus > row.cpus:
        return "CPU"
    limit = row.cpus * table.cpu_overcommit_percent // 100
    if table.cpu_overcommit_percent and row.reserved_cpus + request.vcpus > limit:
        return "CPU"
    if need_bytes(request) > free_bytes(table, row):
        return "Memory"
    ratio = 0 if policy is None else dict(policy.parameters).get("VCpuToPhysicalCpuRatio", 0)
    if ratio and row.reserved_cpus >= ratio * row.cpus:
        return "CPUOverloaded"
    maintained = policy is not None and "ClusterInMaintenance" in policy.filters
    if maintained and not request.high_availability and request.current_host is None:
        return "ClusterInMaintenance"
    return None


def load_per_thread(row: HostRow, request: VmRequest) -> Fraction:
    host_load = row.cpu_load_percent * row.cpus + 10 * row.pending_cpus
    return Fraction(host_load + 10 * request.vcpus, row.cpus)


def stretch(value_by_host: dict[str, int]) -> dict[str, int]:
    if not value_by_host:
        return {}
    low, high = min(value_by_host.values()), max(value_by_host.values())
    if low == high:
        return dict.fromkeys(value_by_host, 1)
    return {h: java_round(1 + Fraction(v - low, high - low) * 999) for h, v in value_by_host.items()}


def weights(
    unit: str, table: HostTable, rows: list[HostRow], request: VmRequest, policy: Policy
) -> dict[str, int]:
    parameters = dict(policy.parameters)
    left = {row.name: free_bytes(table, row) - need_bytes(request) for row in rows}
    most = max(free_bytes(table, row) for row in rows)
    match unit:
        case "OptimalForCpuEvenDistribution":
            ratio = parameters.get("VCpuToPhysicalCpuRatio", 0)
            load_by_host = {}
            for row in rows:
                over = ratio and (row.reserved_cpus + request.vcpus) / row.cpus >= ratio
                load_by_host[row.name] = java_round(load_per_thread(row, request) * (1000 if over else 1))
            return stretch(load_by_host)
        case "OptimalForCpuPowerSaving":
            busy = {
                row.name
                for row in rows
                if row.cpu_load_percent * row.cpus + 10 * row.pending_cpus
                > parameters["HighUtilization"] * row.cpus
            }
            calm = {r.name: -java_round(load_per_thread(r, request)) for r in rows if r.name not in busy}
            empty = {row.name for row in rows if not row.vm_count}
            return stretch(calm) | dict.fromkeys(busy | empty, 1000)
        case "OptimalForMemoryEvenDistribution":
            return {name: 1000 - java_round(Fraction(amount * 999, most)) for name, amount in left.items()}
        case "OptimalForMemoryPowerSaving":
            ceiling = most * 11 // 10
            low = int(parameters.get("MaxFreeMemoryForOverUtilized", 0)) * MIB
            for name, amount in left.items():
                if amount < low:
                    high = parameters.get("MinFreeMemoryForUnderUtilized")
                    left[name] = ceiling if high is None else min(ceiling, int(high) * MIB + low - amount)
            return {name: floor(Fraction(amount, ceiling) * 999) + 1 for name, amount in left.items()}
        case "OptimalForEvenGuestDistribution":
            return {row.name: row.vm_count for row in rows}
        case _:
            return dict.fromkeys(
                (row.name for row in rows), 0
            )  # in tests of their own; these VMs wish nothing


def ranks(weight_by_host: dict[str, int]) -> dict[str, int]:
    """The loop of RankSelectorPolicyUnit.best, variable for variable."""
    current = real = len(weight_by_host)
    last: int | None = None
    rank_by_host = {}
    for host, weight in sorted(weight_by_host.items(), key=lambda item: item[1]):
        real -= 1
        if last is None or weight > last:
            current, last = real, weight
        rank_by_host[host] = current
    return rank_by_host


def reference_place(table: HostTable, request: VmRequest, policy: Policy) -> str | None:
    """The name of the host, or None."""
    rows = [row for row in table.rows() if rejecting_filter(table, row, request, policy) is None]
    if not rows:
        return None
    if policy.selector in ("FirstFit", "BestFit", "WorstFit"):
        return fitting(table, rows, policy.selector)
    score_by_host = dict.fromkeys((row.name for row in rows), 0)
    for unit, factor in policy.weights:
        for host, rank in ranks(weights(unit, table, rows, request, policy)).items():
            score_by_host[host] += factor * rank
    best = max(score_by_host.values())
    return min(host for host, score in score_by_host.items() if score == best)


def fitting(table: HostTable, rows: list[HostRow], selector: str) -> str:
    """Rows are in order of name."""
    best = rows[0]
    for row in rows[1:]:
        if selector == "FirstFit":
            break
        here, there = room(table, row), room(table, best)
        if here < there if selector == "BestFit" else here > there:
            best = row
    return best.name


def room(table: HostTable, row: HostRow) -> tuple[int, int]:
    limit = row.cpus * (table.cpu_overcommit_percent or 100) // 100
    return limit - row.reserved_cpus, free_bytes(table, row)
