"""Whether the highly available VMs of each host would find room if that host were lost: oVirt's HA reservation.

Each host by itself: its VMs, the largest first, must first-fit into what the other hosts that are Up have free, in
memory, vCPUs and load. It counts capacity only; pinning and affinity are left out, as in oVirt.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from olvm.scheduling.host_table import HostTable
from olvm.scheduling.moves import Machine

FULL_LOAD_PERCENT = 100


class Shortfall(msgspec.Struct, frozen=True, kw_only=True):
    """Machines of `host` that would find no room, by name, the largest first."""

    host: str
    machines: tuple[str, ...]


def ha_shortfalls(table: HostTable, machines_by_host: Mapping[str, list[Machine]]) -> list[Shortfall]:
    """The hosts whose loss the others could not make good, in order of name. `machines_by_host`: only HA ones."""
    roomiest = sorted(table.usable_slots, key=lambda slot: (-table.memory_free_bytes[slot], table.name[slot]))
    found = []
    for host in sorted(machines_by_host):
        homeless = _homeless(table, roomiest, host, machines_by_host[host])
        if homeless:
            found.append(Shortfall(host=host, machines=tuple(homeless)))
    return found


def _homeless(table: HostTable, roomiest: list[int], host: str, machines: list[Machine]) -> list[str]:
    taken: dict[int, tuple[int, int, int]] = {}
    homeless = []
    for machine in sorted(machines, key=lambda one: (-one.memory_need_bytes, one.vm_id)):
        for slot in roomiest:
            memory_bytes, vcpus, load = taken.get(slot, (0, 0, 0))
            if table.name[slot] == host or not _fits(table, slot, machine, taken.get(slot, (0, 0, 0))):
                continue
            taken[slot] = (
                memory_bytes + machine.memory_need_bytes,
                vcpus + machine.vcpus,
                load + machine.load,
            )
            break
        else:
            homeless.append(machine.name)
    return homeless


def _fits(table: HostTable, slot: int, machine: Machine, taken: tuple[int, int, int]) -> bool:
    memory_bytes, vcpus, load = taken
    # Without a CPU limit of the cluster, vCPUs of different VMs share threads: only each one's size counts.
    vcpus_before = vcpus if table.cpu_overcommit_percent else 0
    return (
        memory_bytes + machine.memory_need_bytes <= table.memory_free_bytes[slot]
        and vcpus_before + machine.vcpus <= table.vcpus_max[slot]
        and table.thread_load_percent[slot] + load + machine.load <= FULL_LOAD_PERCENT * table.cpus[slot]
    )
