"""The weights of what a VM would rather have: named hosts, its topology, one NUMA node, few others like it.

A VM that has no such wish costs nothing here: the answer is empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from olvm.model.placement_needs import NO_NEEDS
from olvm.scheduling.compatibility_filters import version_key
from olvm.scheduling.host_table import HostTable
from olvm.scheduling.request import VmRequest
from olvm.scheduling.resources import cpu_fit, fits_one_node, numa_fit
from olvm.scheduling.units import SCALE_DOWN, WEIGHT_MAX, SparseWeight, weight_unit

HOSTED_ENGINE_SCORE_MAX = 3400


class Preference(SparseWeight):
    """Base: 1 for a host that has what the VM would like, 1000 for any other."""

    def liked(self, table: HostTable, request: VmRequest, slot: int) -> bool:
        raise NotImplementedError

    def weigh(self, table: HostTable, request: VmRequest, slots: list[int]) -> list[int]:
        if not self.differs(table, request):
            return []
        return [1 if self.liked(table, request, slot) else WEIGHT_MAX for slot in slots]


@weight_unit("PreferredHosts")
class PreferredHosts(Preference):
    """The hosts that the VM names as preferred."""

    def differs(self, table: HostTable, request: VmRequest) -> bool:
        del table
        return request.needs is not None and bool(request.needs.preferred_hosts)

    def liked(self, table: HostTable, request: VmRequest, slot: int) -> bool:
        return table.name[slot] in (request.needs or NO_NEEDS).preferred_hosts


@weight_unit("CPU for high performance VMs")
class HighPerformanceCpu(Preference):
    """A high-performance VM likes hosts with at least as many sockets, cores and threads as its own topology."""

    def differs(self, table: HostTable, request: VmRequest) -> bool:
        del table
        return request.needs is not None and request.needs.high_performance

    def liked(self, table: HostTable, request: VmRequest, slot: int) -> bool:
        needs, profile = request.needs or NO_NEEDS, table.profile[slot]
        return (
            profile.cpu_sockets >= needs.cpu_sockets
            and profile.cpu_cores_per_socket >= needs.cpu_cores_per_socket
            and profile.cpu_threads_per_core >= needs.cpu_threads_per_core
        )


@weight_unit("CPU and NUMA pinning compatibility")
class CpuAndNumaPinning(Preference):
    """A VM with pinned CPUs or NUMA nodes likes hosts on which the pinning holds."""

    def differs(self, table: HostTable, request: VmRequest) -> bool:
        del table
        needs = request.needs
        return needs is not None and bool(needs.cpu_pins or any(node.host_nodes for node in needs.numa_nodes))

    def liked(self, table: HostTable, request: VmRequest, slot: int) -> bool:
        needs, profile, taken = request.needs or NO_NEEDS, table.profile[slot], table.taken[slot]
        if isinstance(cpu_fit(profile, taken, needs, request.vcpus, table.cpus[slot]), str):
            return False
        return not needs.numa_nodes or bool(
            profile.numa_nodes and not isinstance(numa_fit(profile, taken, needs), str)
        )


@weight_unit("Fit VM to single host NUMA node")
class FitsOneNumaNode(Preference):
    """A VM without NUMA nodes of its own likes hosts with a node that has its CPUs and free memory."""

    UNASKED: ClassVar[bool] = True

    def differs(self, table: HostTable, request: VmRequest) -> bool:
        del table
        return request.needs is None or not request.needs.numa_nodes

    def liked(self, table: HostTable, request: VmRequest, slot: int) -> bool:
        return fits_one_node(table.profile[slot], table.taken[slot], request.vcpus, request.memory_bytes)


@weight_unit("OptimalForHaReservation", SCALE_DOWN)
class HaReservation(SparseWeight):
    """Where the cluster keeps room for them: a highly available VM likes hosts with few such VMs.

    In thousandths of the most on any candidate, divided by `ScaleDown` (1 where it is not set).
    """

    UNASKED: ClassVar[bool] = True

    def __init__(self, parameters: Mapping[str, float]) -> None:
        super().__init__(parameters)
        self.scale_down = int(parameters.get(SCALE_DOWN.name, 1))

    def differs(self, table: HostTable, request: VmRequest) -> bool:
        return table.ha_reservation and request.high_availability

    def weigh(self, table: HostTable, request: VmRequest, slots: list[int]) -> list[int]:
        if not self.differs(table, request):
            return []
        most = max((table.ha_vm_count[slot] for slot in slots), default=0)
        if not most:
            return []
        return [table.ha_vm_count[slot] * WEIGHT_MAX // most // self.scale_down for slot in slots]


@weight_unit("HA")
class HostedEngineScoreWeight(SparseWeight):
    """The machine that the engine runs in likes hosts with a high hosted-engine score."""

    def differs(self, table: HostTable, request: VmRequest) -> bool:
        del table
        return request.needs is not None and request.needs.hosted_engine

    def weigh(self, table: HostTable, request: VmRequest, slots: list[int]) -> list[int]:
        if not self.differs(table, request):
            return []
        scores = [table.profile[slot].hosted_engine_score or 0 for slot in slots]
        return [max(0, HOSTED_ENGINE_SCORE_MAX - score) for score in scores]


@weight_unit("InClusterUpgrade")
class InClusterUpgradeWeight(SparseWeight):
    """Newer systems are better: the number of different newer ones among the candidates."""

    UNASKED: ClassVar[bool] = True

    def differs(self, table: HostTable, request: VmRequest) -> bool:
        del table, request
        return True

    def weigh(self, table: HostTable, request: VmRequest, slots: list[int]) -> list[int]:
        del request
        versions = [table.profile[slot].os_version for slot in slots]
        if len(dict.fromkeys(versions)) == 1:
            return []
        newest_first = sorted(dict.fromkeys(versions), key=version_key, reverse=True)
        place_by_version = {version: place for place, version in enumerate(newest_first)}
        return [place_by_version[version] for version in versions]
