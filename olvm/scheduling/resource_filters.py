"""The filters of what is counted or named on a host and booked with a VM: `olvm.scheduling.resources` decides.

Rule: they are not for a policy to leave out, because `HostTable.reserve` refuses what they would have dropped.
"""

# Every unit has the same signature and few need all of it.
# ruff: noqa: ARG002

from __future__ import annotations

from olvm.model.placement_needs import NO_NEEDS
from olvm.scheduling.host_table import HostTable
from olvm.scheduling.request import VmRequest
from olvm.scheduling.resources import cpu_fit, missing_devices, missing_huge_pages, missing_mediated, numa_fit
from olvm.scheduling.units import Filter, filter_unit


@filter_unit("CpuPinning")
class CpuPinning(Filter):
    """Drops hosts where the VM's CPUs are missing, offline or another VM's alone, or too few are free to be its own."""

    def applies(self, table: HostTable, request: VmRequest) -> bool:
        needs = request.needs
        return needs is not None and (needs.cpu_pinning != "none" or bool(needs.cpu_pins))

    def why_not(self, table: HostTable, request: VmRequest, slot: int) -> str | None:
        needs = request.needs or NO_NEEDS
        found = cpu_fit(table.profile[slot], table.taken[slot], needs, request.vcpus, table.cpus[slot])
        return found if isinstance(found, str) else None

    def lacking(self, request: VmRequest) -> str:
        return "the CPUs that it is pinned to"


@filter_unit("HostDevice")
class HostDevice(Filter):
    """Drops hosts on which a device that the VM is to have is missing or another VM's."""

    def applies(self, table: HostTable, request: VmRequest) -> bool:
        return request.needs is not None and bool(request.needs.host_devices)

    def why_not(self, table: HostTable, request: VmRequest, slot: int) -> str | None:
        return missing_devices(table.profile[slot], table.taken[slot], request.needs or NO_NEEDS)

    def lacking(self, request: VmRequest) -> str:
        return f"a free device of {', '.join((request.needs or NO_NEEDS).host_devices)}"


@filter_unit("MDevice")
class MDevice(Filter):
    """Drops hosts without enough free instances of a mediated device type (vGPU) that the VM needs."""

    def applies(self, table: HostTable, request: VmRequest) -> bool:
        return request.needs is not None and bool(request.needs.mediated_devices)

    def why_not(self, table: HostTable, request: VmRequest, slot: int) -> str | None:
        return missing_mediated(table.profile[slot], table.taken[slot], request.needs or NO_NEEDS)

    def lacking(self, request: VmRequest) -> str:
        return f"a free mediated device of {', '.join((request.needs or NO_NEEDS).mediated_devices)}"


@filter_unit("NUMA")
class Numa(Filter):
    """Drops hosts where the VM's NUMA nodes do not each fit into one of theirs, if its mode is strict."""

    def applies(self, table: HostTable, request: VmRequest) -> bool:
        return request.needs is not None and bool(request.needs.numa_nodes)

    def why_not(self, table: HostTable, request: VmRequest, slot: int) -> str | None:
        found = numa_fit(table.profile[slot], table.taken[slot], request.needs or NO_NEEDS)
        return found if isinstance(found, str) else None

    def lacking(self, request: VmRequest) -> str:
        return "NUMA nodes with room for its own"


@filter_unit("HugePages")
class HugePages(Filter):
    """Drops hosts with too few free huge pages of the VM's size."""

    def applies(self, table: HostTable, request: VmRequest) -> bool:
        return request.needs is not None and bool(request.needs.huge_page_bytes)

    def why_not(self, table: HostTable, request: VmRequest, slot: int) -> str | None:
        needs = request.needs or NO_NEEDS
        return missing_huge_pages(table.profile[slot], table.taken[slot], needs, request.memory_bytes)

    def lacking(self, request: VmRequest) -> str:
        return "huge pages of the size it needs"
