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

MIGRATION_FEATURE = "migration"
WATCHDOG_FEATURE = "watchdog"


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
    """Drops the host that the VM runs on, those that a copy of it has not left, and those that do no migration."""

    def __init__(self, parameters: Mapping[str, float]) -> None:
        del parameters

    def keep(self, table: HostTable, request: VmRequest, slots: list[int]) -> list[int]:
        current, held = request.current_host, request.held_hosts
        if current is not None:
            slots = [slot for slot in slots if table.name[slot] != current]
        if held:
            slots = [slot for slot in slots if table.name[slot] not in held]
        if request.live:
            slots = [slot for slot in slots if MIGRATION_FEATURE in table.features[slot]]
        return slots

    def reason(self, table: HostTable, request: VmRequest, slot: int) -> str:
        if table.name[slot] == request.current_host:
            return "the VM runs here already"
        if table.name[slot] in request.held_hosts:
            return "a copy of the VM has not ended here"
        return "the host's hypervisor does no live migration"

    def summary(self, table: HostTable, request: VmRequest, slots: list[int]) -> str:
        here = [slot for slot in slots if table.name[slot] == request.current_host]
        held = [slot for slot in slots if slot not in here and table.name[slot] in request.held_hosts]
        unable = len(slots) - len(here) - len(held)
        parts = [f"{len(here)} {_is(here)} where it runs already"] if here else []
        parts += [f"{len(held)} still {'has' if len(held) == 1 else 'have'} a copy of it"] if held else []
        parts += [f"{unable} {'does' if unable == 1 else 'do'} no live migration"] if unable else []
        return ", ".join(parts)


@filter_unit("CPU-Level")
class CpuLevel:
    """Drops hosts of another CPU model than the running VM's: a guest's CPU cannot change under it."""

    def __init__(self, parameters: Mapping[str, float]) -> None:
        del parameters

    def keep(self, table: HostTable, request: VmRequest, slots: list[int]) -> list[int]:
        model = request.cpu_model
        return [slot for slot in slots if table.cpu_model[slot] == model] if model else slots

    def reason(self, table: HostTable, request: VmRequest, slot: int) -> str:
        return (
            f"the VM runs on a {request.cpu_model}, the host has a {table.cpu_model[slot] or 'CPU not told'}"
        )

    def summary(self, table: HostTable, request: VmRequest, slots: list[int]) -> str:
        return f"{len(slots)} {'has' if len(slots) == 1 else 'have'} another CPU than {request.cpu_model}"


@filter_unit("VM leases ready")
class VmLeasesReady:
    """Drops hosts without a watchdog: only one that stops its leased VMs by itself may run them."""

    def __init__(self, parameters: Mapping[str, float]) -> None:
        del parameters

    def keep(self, table: HostTable, request: VmRequest, slots: list[int]) -> list[int]:
        if not request.leased:
            return slots
        return [slot for slot in slots if WATCHDOG_FEATURE in table.features[slot]]

    def reason(self, table: HostTable, request: VmRequest, slot: int) -> str:
        return "the VM has a lease and the host has no watchdog"

    def summary(self, table: HostTable, request: VmRequest, slots: list[int]) -> str:
        return f"{len(slots)} {_lack(slots)} the watchdog that a lease needs"


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
