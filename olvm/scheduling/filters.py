"""The filters of where a VM may be at all: status, names, CPUs and memory.

Rule: `Memory` and `CPU` read the same derived columns as `HostTable.reserve`, so a host that passes them
can be reserved in the same turn. `Status` and `Excluded` are not policy: the scheduler always applies them
first.
"""

# Every unit has the same signature and few need all of it.
# ruff: noqa: ARG002

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import ClassVar

from olvm.scheduling.host_table import HostTable
from olvm.scheduling.request import VmRequest, gib_free, gib_needed, memory_need_bytes
from olvm.scheduling.units import Filter, Reads, filter_unit

MIGRATION_FEATURE = "migration"
WATCHDOG_FEATURE = "watchdog"


class Status(Filter):
    """Drops hosts that are not Up."""

    def keep(self, table: HostTable, request: VmRequest, slots: list[int]) -> list[int]:
        return [slot for slot in slots if table.usable[slot]]

    def reason(self, table: HostTable, request: VmRequest, slot: int) -> str:
        return "the host is not Up"

    def summary(self, table: HostTable, request: VmRequest, slots: list[int]) -> str:
        return f"{len(slots)} {_is(slots)} not Up"


class Excluded(Filter):
    """Drops hosts that the caller has already tried."""

    def keep(self, table: HostTable, request: VmRequest, slots: list[int]) -> list[int]:
        excluded = request.excluded_hosts
        return [slot for slot in slots if table.name[slot] not in excluded] if excluded else slots

    def reason(self, table: HostTable, request: VmRequest, slot: int) -> str:
        return "already tried for this start"

    def summary(self, table: HostTable, request: VmRequest, slots: list[int]) -> str:
        return f"{len(slots)} {'was' if len(slots) == 1 else 'were'} already tried"


@filter_unit("PinToHost")
class PinToHost(Filter):
    """Drops hosts that a pinned VM is not pinned to."""

    READS: ClassVar[Reads] = "names"

    def only(self, request: VmRequest) -> list[Collection[str]]:
        return [request.pinned_hosts] if request.pinned_hosts else []

    def keep(self, table: HostTable, request: VmRequest, slots: list[int]) -> list[int]:
        pinned = request.pinned_hosts
        return [slot for slot in slots if table.name[slot] in pinned] if pinned else slots

    def reason(self, table: HostTable, request: VmRequest, slot: int) -> str:
        return f"the VM is pinned to {', '.join(request.pinned_hosts)}"

    def summary(self, table: HostTable, request: VmRequest, slots: list[int]) -> str:
        return f"{len(slots)} {_is(slots)} not where it is pinned ({', '.join(request.pinned_hosts)})"


@filter_unit("Migration")
class Migration(Filter):
    """Drops the host that the VM runs on, those that a copy of it has not left, and those that do no migration."""

    READS: ClassVar[Reads] = "group"

    def applies(self, table: HostTable, request: VmRequest) -> bool:
        return request.live

    def never(self, request: VmRequest) -> Iterable[str]:
        current, held = request.current_host, request.held_hosts
        return held if current is None else (current, *held)

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

    def why_not(self, table: HostTable, request: VmRequest, slot: int) -> str | None:
        """What it says of a group of hosts, whose names play no part."""
        return None if MIGRATION_FEATURE in table.features[slot] else "no live migration"

    def summary(self, table: HostTable, request: VmRequest, slots: list[int]) -> str:
        here = [slot for slot in slots if table.name[slot] == request.current_host]
        held = [slot for slot in slots if slot not in here and table.name[slot] in request.held_hosts]
        unable = len(slots) - len(here) - len(held)
        parts = [f"{len(here)} {_is(here)} where it runs already"] if here else []
        parts += [f"{len(held)} still {'has' if len(held) == 1 else 'have'} a copy of it"] if held else []
        parts += [f"{unable} {'does' if unable == 1 else 'do'} no live migration"] if unable else []
        return ", ".join(parts)


@filter_unit("VM leases ready")
class VmLeasesReady(Filter):
    """Drops hosts without a watchdog: only one that stops its leased VMs by itself may run them."""

    READS: ClassVar[Reads] = "group"

    def applies(self, table: HostTable, request: VmRequest) -> bool:
        return request.leased

    def why_not(self, table: HostTable, request: VmRequest, slot: int) -> str | None:
        ready = WATCHDOG_FEATURE in table.features[slot]
        return None if ready else "the VM has a lease and the host has no watchdog"

    def lacking(self, request: VmRequest) -> str:
        return "the watchdog that a lease needs"


@filter_unit("CPU")
class Cpu(Filter):
    """Drops hosts with fewer threads than the VM has vCPUs, or no room under the CPU overcommit limit."""

    READS: ClassVar[Reads] = "room"

    def keep(self, table: HostTable, request: VmRequest, slots: list[int]) -> list[int]:
        vcpus, vcpus_max = request.vcpus, table.vcpus_max
        return [slot for slot in slots if vcpus_max[slot] >= vcpus]

    def reason(self, table: HostTable, request: VmRequest, slot: int) -> str:
        if request.vcpus > table.cpus[slot]:
            return f"needs {request.vcpus} CPUs, the host has {table.cpus[slot]}"
        alone = len(table.taken[slot].exclusive_cpus)
        if request.vcpus > table.cpus[slot] - alone:
            return f"needs {request.vcpus} CPUs, {alone} of the host's {table.cpus[slot]} belong to other VMs alone"
        limit = table.cpus[slot] * table.cpu_overcommit_percent // 100
        return f"needs {request.vcpus} CPUs, {table.reserved_cpus[slot]} of at most {limit} vCPUs are taken"

    def summary(self, table: HostTable, request: VmRequest, slots: list[int]) -> str:
        most = max(0, *(table.vcpus_max[slot] for slot in slots))
        return f"{len(slots)} {_lack(slots)} CPUs (most left {most}, needs {request.vcpus})"


@filter_unit("Memory")
class Memory(Filter):
    """Drops hosts whose free schedulable memory is less than the VM's need with its overhead."""

    READS: ClassVar[Reads] = "room"

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
