"""The weights: which of the hosts that may take a VM is liked best. Lower is better.

They compute in whole numbers what oVirt's units compute, rounding included, because the rank selector looks
at nothing but their order and their ties: a finer number would make another choice. Schedulable free memory stands
for free memory as measured; where a host tells both, it is the smaller one.
"""

# Every unit has the same signature and few need all of it.
# ruff: noqa: ARG002

from __future__ import annotations

from collections.abc import Mapping

from olvm.scheduling.host_table import PENDING_VCPU_LOAD_PERCENT, HostTable
from olvm.scheduling.request import MIB, VmRequest, memory_need_bytes
from olvm.scheduling.units import (
    HIGH_UTILIZATION,
    MAX_FREE_MEMORY_FOR_OVER_UTILIZED,
    MIN_FREE_MEMORY_FOR_UNDER_UTILIZED,
    SPM_VM_GRACE,
    VCPU_TO_PHYSICAL_CPU_RATIO,
    WEIGHT_MAX,
    weight_unit,
)

_VCPU_RATIO_PENALTY = 1000
WEIGHT_SPAN = WEIGHT_MAX - 1


@weight_unit("OptimalForCpuEvenDistribution", VCPU_TO_PHYSICAL_CPU_RATIO)
class CpuEvenDistribution:
    """Load per thread once the VM is there, in whole percent, stretched over 1..1000.

    A vCPU that no report shows yet counts as 10 % of a thread. With `VCpuToPhysicalCpuRatio` above 0, a host
    whose total vCPUs would reach that many per thread has its load multiplied by 1000.
    """

    def __init__(self, parameters: Mapping[str, float]) -> None:
        self.vcpu_ratio_max = parameters.get(VCPU_TO_PHYSICAL_CPU_RATIO.name, 0)

    def weigh(self, table: HostTable, request: VmRequest, slots: list[int]) -> list[int]:
        if not self.vcpu_ratio_max:
            return stretched(load_per_thread(table, request, slots))
        load, cpus, reserved = table.thread_load_percent, table.shared_cpus, table.reserved_cpus
        added, vcpus, ratio = added_load_percent(request), request.vcpus, self.vcpu_ratio_max
        penalties = [1 if reserved[s] + vcpus < ratio * cpus[s] else _VCPU_RATIO_PENALTY for s in slots]
        pairs = zip(slots, penalties, strict=True)
        return stretched([(2 * p * (load[s] + added) + cpus[s]) // (2 * cpus[s]) for s, p in pairs])


@weight_unit("OptimalForCpuPowerSaving", HIGH_UTILIZATION)
class CpuPowerSaving:
    """The opposite order of load per thread; a host over `HighUtilization`, or without any VM, is as bad as can be."""

    def __init__(self, parameters: Mapping[str, float]) -> None:
        self.high_percent = parameters.get(HIGH_UTILIZATION.name)

    def weigh(self, table: HostTable, request: VmRequest, slots: list[int]) -> list[int]:
        load, cpus, high = table.thread_load_percent, table.cpus, self.high_percent
        calm = slots if high is None else [s for s in slots if load[s] <= high * cpus[s]]
        weights = stretched([-percent for percent in load_per_thread(table, request, calm)])
        weight_by_slot = dict(zip(calm, weights, strict=True))
        vm_count = table.vm_count
        return [weight_by_slot.get(slot, WEIGHT_MAX) if vm_count[slot] else WEIGHT_MAX for slot in slots]


@weight_unit("OptimalForMemoryEvenDistribution")
class MemoryEvenDistribution:
    """Memory left once the VM is there, in thousandths of the most free candidate; more left is better."""

    def __init__(self, parameters: Mapping[str, float]) -> None:
        del parameters

    def weigh(self, table: HostTable, request: VmRequest, slots: list[int]) -> list[int]:
        need_bytes = memory_need_bytes(request)
        free = [table.memory_free_bytes[slot] for slot in slots]
        # Above zero: the Memory filter ran first, and a need is never zero.
        most = max(free)
        # Rounds half up like Java: floor((2·999·left + most) / (2·most)).
        start, double = most - 2 * WEIGHT_SPAN * need_bytes, 2 * most
        return [WEIGHT_MAX - (2 * WEIGHT_SPAN * left + start) // double for left in free]


@weight_unit(
    "OptimalForMemoryPowerSaving", MAX_FREE_MEMORY_FOR_OVER_UTILIZED, MIN_FREE_MEMORY_FOR_UNDER_UTILIZED
)
class MemoryPowerSaving:
    """Less memory left is better, until less than `MaxFreeMemoryForOverUtilized` (MiB) is left.

    Such a host counts as if it had more than `MinFreeMemoryForUnderUtilized` (MiB) left, at worst 1.1 times
    the most free candidate: bad, and worse than the emptiest.
    """

    def __init__(self, parameters: Mapping[str, float]) -> None:
        self.low_bytes = int(parameters.get(MAX_FREE_MEMORY_FOR_OVER_UTILIZED.name, 0)) * MIB
        high_mib = parameters.get(MIN_FREE_MEMORY_FOR_UNDER_UTILIZED.name)
        self.high_bytes = None if high_mib is None else int(high_mib) * MIB

    def weigh(self, table: HostTable, request: VmRequest, slots: list[int]) -> list[int]:
        need_bytes = memory_need_bytes(request)
        free = [table.memory_free_bytes[slot] for slot in slots]
        ceiling = max(free) * 11 // 10
        left = [amount - need_bytes for amount in free]
        if self.low_bytes:
            left = [amount if amount >= self.low_bytes else self._wrapped(amount, ceiling) for amount in left]
        return [WEIGHT_SPAN * amount // ceiling + 1 for amount in left]

    def _wrapped(self, left_bytes: int, ceiling_bytes: int) -> int:
        if self.high_bytes is None:
            return ceiling_bytes
        return min(ceiling_bytes, self.high_bytes + self.low_bytes - left_bytes)


@weight_unit("OptimalForEvenGuestDistribution", SPM_VM_GRACE)
class EvenGuestDistribution:
    """The number of VMs on the host, those still starting included, and `SpmVmGrace` on the storage pool manager."""

    def __init__(self, parameters: Mapping[str, float]) -> None:
        self.grace = int(parameters.get(SPM_VM_GRACE.name, 0))

    def weigh(self, table: HostTable, request: VmRequest, slots: list[int]) -> list[int]:
        vm_count, profile, grace = table.vm_count, table.profile, self.grace
        return [vm_count[s] + (grace if profile[s].storage_pool_manager else 0) for s in slots]


def added_load_percent(request: VmRequest) -> int:
    """The load that the VM brings, in percent of one thread."""
    needs = request.needs
    per_vcpu = None if needs is None else needs.cpu_load_percent
    return request.vcpus * (PENDING_VCPU_LOAD_PERCENT if per_vcpu is None else per_vcpu)


def load_per_thread(table: HostTable, request: VmRequest, slots: list[int]) -> list[int]:
    """In whole percent of the threads that VMs share, with the VM."""
    load, cpus = table.thread_load_percent, table.shared_cpus
    added = added_load_percent(request)
    # Rounds half up like Java: floor((2·load + cpus) / (2·cpus)).
    return [(2 * (load[s] + added) + cpus[s]) // (2 * cpus[s]) for s in slots]


def stretched(values: list[int]) -> list[int]:
    """Map the smallest value to 1 and the largest to 1000; all equal gives 1 to all."""
    if not values:
        return []
    lowest, highest = min(values), max(values)
    if lowest == highest:
        return [1] * len(values)
    span = highest - lowest
    # Loads are whole percents, so there are few different ones.
    weight_by_value = {
        v: 1 + (2 * WEIGHT_SPAN * (v - lowest) + span) // (2 * span) for v in dict.fromkeys(values)
    }
    return [weight_by_value[value] for value in values]
