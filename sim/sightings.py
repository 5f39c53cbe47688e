"""Situations that only the world can see, counted from the truth. Names and meanings: `sim.situations`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from hypervisor_backends.protocol import ExitReason
from sim.hosts import Hosts
from sim.processes import Processes


class Sightings:
    """Listens like an oracle; judges nothing."""

    def __init__(
        self, hosts: Hosts, processes: Processes, counts: Counter[str], now_ns: Callable[[], int]
    ) -> None:
        self._hosts = hosts
        self._processes = processes
        self._counts = counts
        self._now_ns = now_ns
        self._migrations: dict[str, tuple[str, str]] = {}  # by machine: source and the other side
        self._off_ns: dict[str, int] = {}
        self._last_host: dict[str, str] = {}  # by machine

    def domain_added(self, host: str, vm_id: str, epoch: int, footprint_bytes: int) -> None:
        del epoch, footprint_bytes
        before = self._last_host.get(vm_id, host)
        self._last_host[vm_id] = host
        if host != before and self._hosts.snapshots.of(vm_id):
            self._counts["machine_finds_its_snapshots_on_another_host"] += 1

    def status_changed(self, host: str, vm_id: str, epoch: int, status: str) -> None:
        del epoch
        if status == "migrating_to":
            self._migrations[vm_id] = (self._migrations.get(vm_id, ("", ""))[0], host)
        elif status == "migrating_from":
            self._migrations[vm_id] = (host, self._migrations.get(vm_id, ("", ""))[1])
        elif status == "paused" and vm_id in self._migrations and self._migrations[vm_id][0] == host:
            self._counts["source_paused_unconfirmed"] += 1

    def domain_removed(self, host: str, vm_id: str, epoch: int, footprint_bytes: int) -> None:
        del epoch, footprint_bytes
        sides = self._migrations.get(vm_id)
        if sides is not None and host in sides and not self._hosts.by_name[host].is_on:
            other = sides[0] if sides[1] == host else sides[1]
            if other and not self._hosts.by_name[other].is_on:
                self._counts["both_sides_of_a_migration_lost"] += 1
                del self._migrations[vm_id]
        elif sides is not None:
            del self._migrations[vm_id]

    def ended(self, host: str, vm_id: str, epoch: int, exit_reason: ExitReason) -> None:
        del vm_id, epoch
        if exit_reason is not ExitReason.GENERIC_ERROR:  # the watchdog's word
            return
        self._counts["watchdog_ends_machines"] += 1
        process = self._processes.by_name.get(self._hosts.by_name[host].silo)
        if process is not None and process.paused_until_ns > self._now_ns():
            self._counts["lease_expires_while_agent_stands_still"] += 1

    def power_changed(self, host: str, is_on: bool, boot_id: str) -> None:
        del boot_id
        now_ns = self._now_ns()
        if is_on:
            self._off_ns.pop(host, None)
            return
        self._off_ns[host] = now_ns
        hosts = self._hosts.by_name
        if len(hosts) > 1 and all(not other.is_on for other in hosts.values()):
            self._counts["all_hosts_down"] += 1
        rack = [name for name, other in hosts.items() if other.rack == hosts[host].rack]
        if len(rack) > 1 and all(self._off_ns.get(name) == now_ns for name in rack):
            self._counts["rack_lost"] += 1
