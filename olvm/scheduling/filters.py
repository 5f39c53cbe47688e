"""The filters that every policy runs: which hosts may take a VM at all.

Rule: `Memory` and `CPU` read the same derived columns as `HostTable.reserve`, so a host that passes them
can be reserved in the same turn. `Status` and `Excluded` are not policy: the scheduler always applies them
first.
"""

# Every unit has the same signature and few need all of it.
# ruff: noqa: ARG002

from __future__ import annotations

from collections.abc import Mapping

from olvm.scheduling.host_table import HostTable
from olvm.scheduling.request import VmRequest, gib_free, gib_needed, memory_need_bytes
from olvm.scheduling.units import filter_unit


class Status:
    """Drops hosts that are not Up."""

    def keep(self, table: HostTable, request: VmRequest, slots: list[int]) -> list[int]:
        return [slot for slot in slots if table.usable[slot]]

    def reason(self, table: HostTable, request: VmRequest, slot: int) -> str:
        return "the host is not Up"

    def summary(self, table: HostTable, request: VmRequest, slots: list[int]) -> str:
        return f"{len(slots)} {_is(slots)} not Up"


class Excluded:
    """Drops hosts that the caller has already tried."""

    def keep(self, table: HostTable, request: VmRequest, slots: list[int]) -> list[int]:
        excluded = request.excluded_hosts
        return [slot for slot in slots if table.name[slot] not in excluded] if excluded else slots

    def reason(self, table: HostTable, request: VmRequest, slot: int) -> str:
        return "already tried for this start"

    def summary(self, table: HostTable, request: VmRequest, slots: list[int]) -> str:
        return f"{len(slots)} {'was' if len(slots) == 1 else 'were'} already tried"


@filter_unit("PinToHost")
class PinToHost:
    """Drops hosts that a pinned VM is not pinned to."""

    def __init__(self, parameters: Mapping[str, float]) -> None:
        del parameters

    def keep(self, table: HostTable, request: VmRequest, slots: list[int]) -> list[int]:
        pinned = request.pinned_hosts
        return [slot for slot in slots if table.name[slot] in pinned] if pinned else slots

    def reason(self, table: HostTable, request: VmRequest, slot: int) -> str:
        return f"the VM is pinned to {', '.join(request.pinned_hosts)}"

    def summary(self, table: HostTable, request: VmRequest, slots: list[int]) -> str:
        return f"{len(slots)} {_is(slots)} not where it is pinned ({', '.join(request.pinned_hosts)})"


@filter_unit("Migration")
class Migration:
    """Drops the host that the VM runs on: a VM does not migrate to itself."""

    def __init__(self, parameters: Mapping[str, float]) -> None:
        del parameters

    def keep(self, table: HostTable, request: VmRequest, slots: list[int]) -> list[int]:
        current = request.current_host
        return [slot for slot in slots if table.name[slot] != current] if current is not None else slots

    def reason(self, table: HostTable, request: VmRequest, slot: int) -> str:
        return "the VM runs here already"

    def summary(self, table: HostTable, request: VmRequest, slots: list[int]) -> str:
        return f"{len(slots)} {_is(slots)} where it runs already"


@filter_unit("CPU")
class Cpu:
    """Drops hosts with fewer threads than the VM has vCPUs, or no room under the CPU overcommit limit."""

    def __init__(self, parameters: Mapping[str, float]) -> None:
        del parameters

    def keep(self, table: HostTable, request: VmRequest, slots: list[int]) -> list[int]:
        vcpus, vcpus_max = request.vcpus, table.vcpus_max
        return [slot for slot in slots if vcpus_max[slot] >= vcpus]

    def reason(self, table: HostTable, request: VmRequest, slot: int) -> str:
        if request.vcpus > table.cpus[slot]:
            return f"needs {request.vcpus} CPUs, the host has {table.cpus[slot]}"
        limit = table.cpus[slot] * table.cpu_overcommit_percent // 100
        return f"needs {request.vcpus} CPUs, {table.reserved_cpus[slot]} of at most {limit} vCPUs are taken"

    def summary(self, table: HostTable, request: VmRequest, slots: list[int]) -> str:
        most = max(0, *(table.vcpus_max[slot] for slot in slots))
        return f"{len(slots)} {_lack(slots)} CPUs (most left {most}, needs {request.vcpus})"


@filter_unit("Memory")
class Memory:
    """Drops hosts whose free schedulable memory is less than the VM's need with its overhead."""

    def __init__(self, parameters: Mapping[str, float]) -> None:
        del parameters

    def keep(self, table: HostTable, request: VmRequest, slots: list[int]) -> list[int]:
        need_bytes, free_bytes = memory_need_bytes(request), table.memory_free_bytes
        return [slot for slot in slots if free_bytes[slot] >= need_bytes]

    def reason(self, table: HostTable, request: VmRequest, slot: int) -> str:
        return (
            f"needs {gib_needed(memory_need_bytes(request))}, {gib_free(table.memory_free_bytes[slot])} free "
            f"of {gib_free(table.memory_bytes[slot])}"
        )

    def summary(self, table: HostTable, request: VmRequest, slots: list[int]) -> str:
        largest = gib_free(max(table.memory_free_bytes[slot] for slot in slots))
        need = gib_needed(memory_need_bytes(request))
        return f"{len(slots)} {_lack(slots)} memory (largest free {largest}, needs {need})"


def _is(slots: list[int]) -> str:
    return "is" if len(slots) == 1 else "are"


def _lack(slots: list[int]) -> str:
    return "lacks" if len(slots) == 1 else "lack"
