"""The filters of how a host or the cluster fares: load, swap, the engine's own machine, maintenance."""

# Every unit has the same signature and few need all of it.
# ruff: noqa: ARG002

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from olvm.scheduling.host_table import HostTable
from olvm.scheduling.request import VmRequest, gib_needed, memory_need_bytes
from olvm.scheduling.units import (
    CPU_OVERCOMMIT_DURATION,
    CPU_OVERCOMMIT_DURATION_MINUTES,
    HE_SPARES_COUNT,
    HIGH_UTILIZATION,
    HIGH_UTILIZATION_FOR_SCHEDULING,
    MAXIMUM_ALLOWED_SWAP_USAGE,
    VCPU_TO_PHYSICAL_CPU_RATIO,
    Filter,
    Reads,
    filter_unit,
)


@filter_unit("CPUOverloaded", HIGH_UTILIZATION, CPU_OVERCOMMIT_DURATION, VCPU_TO_PHYSICAL_CPU_RATIO)
class CpuOverloaded(Filter):
    """Drops hosts over `HighUtilization` for `CpuOverCommitDurationMinutes`.

    With `VCpuToPhysicalCpuRatio` above 0, also those that have so many vCPUs for each thread already.
    """

    READS: ClassVar[Reads] = "row"

    def __init__(self, parameters: Mapping[str, float]) -> None:
        super().__init__(parameters)
        self.high_percent = parameters.get(HIGH_UTILIZATION.name, HIGH_UTILIZATION_FOR_SCHEDULING)
        minutes = parameters.get(CPU_OVERCOMMIT_DURATION.name, CPU_OVERCOMMIT_DURATION_MINUTES)
        self.duration_s = minutes * 60
        self.vcpu_ratio_max = parameters.get(VCPU_TO_PHYSICAL_CPU_RATIO.name, 0)

    def drops_row(self, table: HostTable, slot: int) -> bool:
        over = table.over_utilized_s[slot] >= self.duration_s and (
            table.thread_load_percent[slot] > self.high_percent * table.cpus[slot]
        )
        return over or bool(
            self.vcpu_ratio_max and table.reserved_cpus[slot] >= self.vcpu_ratio_max * table.cpus[slot]
        )

    def why_not(self, table: HostTable, request: VmRequest, slot: int) -> str | None:
        cpus, load = table.cpus[slot], table.thread_load_percent[slot]
        over_s = table.over_utilized_s[slot]
        if over_s >= self.duration_s and load > self.high_percent * cpus:
            return f"its CPUs have been over {self.high_percent:g} % for {over_s / 60:.0f} minutes ({load // cpus} %)"
        if self.vcpu_ratio_max and table.reserved_cpus[slot] >= self.vcpu_ratio_max * cpus:
            return f"it has {table.reserved_cpus[slot]} vCPUs on {cpus} CPUs, at most {self.vcpu_ratio_max:g} each"
        return None

    def keep(self, table: HostTable, request: VmRequest, slots: list[int]) -> list[int]:
        if self.vcpu_ratio_max:
            return super().keep(table, request, slots)
        over_s, duration_s = table.over_utilized_s, self.duration_s
        hot = [slot for slot in slots if over_s[slot] >= duration_s]
        dropped = {slot for slot in hot if self.why_not(table, request, slot) is not None}
        return [slot for slot in slots if slot not in dropped] if dropped else slots

    def summary(self, table: HostTable, request: VmRequest, slots: list[int]) -> str:
        return f"{len(slots)} {'is' if len(slots) == 1 else 'are'} overloaded"


@filter_unit("Swap", MAXIMUM_ALLOWED_SWAP_USAGE)
class Swap(Filter):
    """Drops hosts that have more of their swap in use than `MaximumAllowedSwapUsage` percent, where that is set."""

    READS: ClassVar[Reads] = "row"

    def __init__(self, parameters: Mapping[str, float]) -> None:
        super().__init__(parameters)
        self.percent_max = parameters.get(MAXIMUM_ALLOWED_SWAP_USAGE.name)

    def applies(self, table: HostTable, request: VmRequest) -> bool:
        return self.percent_max is not None

    @property
    def may_drop_rows(self) -> bool:
        return self.percent_max is not None

    def drops_row(self, table: HostTable, slot: int) -> bool:
        return self.percent_max is not None and table.swap_used_percent[slot] > self.percent_max

    def why_not(self, table: HostTable, request: VmRequest, slot: int) -> str | None:
        used = table.swap_used_percent[slot]
        if self.percent_max is None or used <= self.percent_max:
            return None
        return f"{used} % of its swap is in use, at most {self.percent_max:g} % may be"

    def summary(self, table: HostTable, request: VmRequest, slots: list[int]) -> str:
        return f"{len(slots)} {'uses' if len(slots) == 1 else 'use'} too much swap"


@filter_unit("HA")
class HostedEngineScore(Filter):
    """Of the machine that the engine runs in: drops hosts whose hosted-engine score is not above 0."""

    def applies(self, table: HostTable, request: VmRequest) -> bool:
        return request.needs is not None and request.needs.hosted_engine

    def why_not(self, table: HostTable, request: VmRequest, slot: int) -> str | None:
        score = table.profile[slot].hosted_engine_score
        if score is None:
            return "the host cannot run the engine's machine"
        return None if score > 0 else f"its hosted-engine score is {score}"

    def lacking(self, request: VmRequest) -> str:
        return "a hosted-engine score above 0"


@filter_unit("HostedEngineSpares", HE_SPARES_COUNT)
class HostedEngineSpares(Filter):
    """Drops hosts that could take the engine's machine, if with the VM fewer than `HeSparesCount` such were left."""

    UNASKED: ClassVar[bool] = True

    def __init__(self, parameters: Mapping[str, float]) -> None:
        super().__init__(parameters)
        self.spares_min = int(parameters.get(HE_SPARES_COUNT.name, 0))

    def applies(self, table: HostTable, request: VmRequest) -> bool:
        is_engine = request.needs is not None and request.needs.hosted_engine
        return self.spares_min > 0 and table.hosted_engine_need_bytes > 0 and not is_engine

    def keep(self, table: HostTable, request: VmRequest, slots: list[int]) -> list[int]:
        if not self.applies(table, request):
            return slots
        spares = frozenset(_spares(table))
        if len(spares) > self.spares_min:
            return slots
        return [slot for slot in slots if self._why_not(table, request, slot, spares) is None]

    def why_not(self, table: HostTable, request: VmRequest, slot: int) -> str | None:
        return self._why_not(table, request, slot, frozenset(_spares(table)))

    def _why_not(self, table: HostTable, request: VmRequest, slot: int, spares: frozenset[int]) -> str | None:
        engine_bytes = table.hosted_engine_need_bytes
        left_bytes = table.memory_free_bytes[slot] - memory_need_bytes(request)
        if slot not in spares or left_bytes >= engine_bytes or len(spares) - 1 >= self.spares_min:
            return None
        return (
            f"the engine's machine needs {gib_needed(engine_bytes)} on {self.spares_min} spare hosts, "
            f"and this is one of {len(spares)}"
        )

    def summary(self, table: HostTable, request: VmRequest, slots: list[int]) -> str:
        return f"{len(slots)} {'is' if len(slots) == 1 else 'are'} kept for the engine's machine"


def _spares(table: HostTable) -> list[int]:
    """The usable hosts that could take the engine's machine now."""
    return [
        slot
        for slot in table.usable_slots
        if (table.profile[slot].hosted_engine_score or 0) > 0
        and table.memory_free_bytes[slot] >= table.hosted_engine_need_bytes
    ]


@filter_unit("ClusterInMaintenance")
class ClusterInMaintenance(Filter):
    """Drops every host for a VM that is not highly available and does not run yet."""

    UNASKED: ClassVar[bool] = True

    def applies(self, table: HostTable, request: VmRequest) -> bool:
        return not request.high_availability and request.current_host is None

    def why_not(self, table: HostTable, request: VmRequest, slot: int) -> str | None:
        return "the cluster is in maintenance, and only highly available VMs start"

    def summary(self, table: HostTable, request: VmRequest, slots: list[int]) -> str:
        return f"{len(slots)} take only highly available VMs while the cluster is in maintenance"
