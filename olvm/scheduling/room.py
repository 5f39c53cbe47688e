"""Whether a booking fits a host, and the sentence that says why not. It changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from olvm.model.errors import BadInput, Conflict, NoCapacity
from olvm.scheduling.request import gib_free, gib_needed
from olvm.scheduling.rows import Reservation

if TYPE_CHECKING:
    from olvm.scheduling.host_table import HostTable


def check_room(table: HostTable, vm_id: str, slot: int, vcpus: int, need_bytes: int) -> None:
    host = table.name[slot]
    if not table.usable[slot]:
        raise Conflict(f"host {host} is not Up, so VM {vm_id} cannot start there: place it again")
    if vcpus > table.vcpus_max[slot]:
        raise NoCapacity(
            f"VM {vm_id} needs {vcpus} vCPUs, host {host} can take "
            f"{max(0, table.vcpus_max[slot])}: place it again"
        )
    if need_bytes > table.memory_free_bytes[slot]:
        raise NoCapacity(
            f"VM {vm_id} needs {gib_needed(need_bytes)}, host {host} has "
            f"{gib_free(table.memory_free_bytes[slot])} free: place it again"
        )


def check_growth(table: HostTable, slot: int, before: Reservation, after: Reservation) -> None:
    host, cpus = table.name[slot], table.cpus[slot]
    more_vcpus = after.vcpus - before.vcpus
    if more_vcpus > 0 and after.vcpus > cpus:
        raise NoCapacity(
            f"host {host} has {cpus} CPUs, and no machine there gets more; {after.vcpus} are asked"
        )
    if more_vcpus > 0 and table.cpu_overcommit_percent:
        room = cpus * table.cpu_overcommit_percent // 100 - table.reserved_cpus[slot]
        if more_vcpus > room:
            raise NoCapacity(f"{more_vcpus} more vCPUs are needed, and host {host} can take {max(0, room)}")
    more_bytes = after.memory_need_bytes - before.memory_need_bytes
    if more_bytes > max(0, table.memory_free_bytes[slot]):
        free = gib_free(table.memory_free_bytes[slot])
        raise NoCapacity(f"{gib_needed(more_bytes)} more are needed, and host {host} has {free} free")


def check_size(name: str, cpus: int, memory_bytes: int) -> None:
    if cpus <= 0 or memory_bytes <= 0:
        raise BadInput(
            f"host {name} reports {cpus} CPUs and {memory_bytes} bytes of memory: both must be above zero"
        )
