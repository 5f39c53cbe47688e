"""The classic selectors as their rules read: one key for each host, and the first host of the best key."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from olvm.scheduling import HostTable, VmRequest
from olvm.scheduling.request import memory_need_bytes
from olvm.scheduling.resources import numa_unevenness

Key = Callable[[HostTable, VmRequest, int], Any]


def free(table: HostTable, slot: int) -> tuple[int, int]:
    limit = table.cpus[slot] * (table.cpu_overcommit_percent or 100) // 100
    alone = len(table.taken[slot].exclusive_cpus)
    return limit - table.reserved_cpus[slot] - alone, table.memory_free_bytes[slot]


def shares(table: HostTable) -> tuple[float, float]:
    percent = table.cpu_overcommit_percent or 100
    cpus = max(table.cpus[slot] * percent // 100 for slot in table.slots())
    memory_bytes = max(table.capacity_bytes(slot) for slot in table.slots())
    return 1 / (1000 * max(1, cpus)), 1 / max(1, memory_bytes)


def vectors(table: HostTable, request: VmRequest, slot: int) -> tuple[float, float, float, float]:
    """What is asked and what is free: thousandths of vCPUs and bytes, as shares of the largest host."""
    cpu_share, memory_share = shares(table)
    cpus, memory_bytes = free(table, slot)
    asked = 1000 * request.vcpus * cpu_share, memory_need_bytes(request) * memory_share
    return *asked, 1000 * cpus * cpu_share, memory_bytes * memory_share


def dot(table: HostTable, request: VmRequest, slot: int) -> float:
    asked_cpu, asked_memory, cpu, memory = vectors(table, request, slot)
    return -(asked_cpu * cpu + asked_memory * memory)


def cosine(table: HostTable, request: VmRequest, slot: int) -> float:
    asked_cpu, asked_memory, cpu, memory = vectors(table, request, slot)
    asked = math.sqrt(asked_cpu * asked_cpu + asked_memory * asked_memory)
    length = asked * math.sqrt(cpu * cpu + memory * memory)
    return -((asked_cpu * cpu + asked_memory * memory) / length) if length else 0.0


def norm(table: HostTable, request: VmRequest, slot: int) -> float:
    asked_cpu, asked_memory, cpu, memory = vectors(table, request, slot)
    return (cpu - asked_cpu) * (cpu - asked_cpu) + (memory - asked_memory) * (memory - asked_memory)


def weighted(table: HostTable, request: VmRequest, slot: int) -> float:
    asked_cpu, asked_memory, cpu, memory = vectors(table, request, slot)
    cpu_share, memory_share = shares(table)
    cpus = sum(table.taken_cpus(one) for one in table.slots()) + request.vcpus
    amount = sum(table.reserved_memory_bytes[one] for one in table.slots()) + memory_need_bytes(request)
    return -(1000 * cpus * cpu_share * asked_cpu * cpu + amount * memory_share * asked_memory * memory)


def uneven(table: HostTable, request: VmRequest, slot: int) -> tuple[bool, int, int, int]:
    apart = numa_unevenness(table.profile[slot], table.taken[slot], request.needs)
    return apart is None, apart or 0, *free(table, slot)


def emptiest(table: HostTable, request: VmRequest, slot: int) -> tuple[int, int]:
    del request
    cpus, memory_bytes = free(table, slot)
    return -cpus, -memory_bytes


# The least key wins.
KEY_BY_POLICY: dict[str, Key] = {
    "first_fit": lambda table, request, slot: 0,
    "best_fit": lambda table, request, slot: free(table, slot),
    "worst_fit": emptiest,
    "round_robin": lambda table, request, slot: table.name[slot] <= table.turn_host,
    "dot_product": dot,
    "cosine": cosine,
    "norm_greedy": norm,
    "weighted_dot_product": weighted,
    "numa_balance": uneven,
}
