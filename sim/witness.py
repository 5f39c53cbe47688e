"""The truth of a simulated world, as oracles may see it."""

from __future__ import annotations

from actors.assembly import kind_of, record_types
from olvm.journal.memory_journal import MemoryJournal
from olvm.model.config import Config
from olvm.model.record import Record
from sim.availability import Restarts
from sim.oracles.oracle import ReportName, Rows
from sim.world import World


class WorldWitness:
    """Implements `sim.oracles.oracle.Witness`."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.restarts = Restarts(self)
        world.watch(self.restarts)

    @property
    def now_ns(self) -> int:
        return self._world.timeline.time_ns

    @property
    def config(self) -> Config:
        return self._world.config

    @property
    def hosts(self) -> list[str]:
        return sorted(self._world.hosts.by_name)

    def is_powered(self, host: str) -> bool:
        known = self._world.hosts.by_name.get(host)
        return known is not None and known.is_on

    def boot_id(self, host: str) -> str:
        hypervisor = self._world.hosts.by_name[host].hypervisor
        return "" if hypervisor is None else hypervisor.capabilities.boot_id

    def capacity_bytes(self, host: str) -> int:
        hypervisor = self._world.hosts.by_name[host].hypervisor
        return 0 if hypervisor is None else hypervisor.capabilities.memory_bytes

    def domains(self, host: str) -> list[tuple[str, int, str]]:
        hypervisor = self._world.hosts.by_name[host].hypervisor
        if hypervisor is None:
            return []
        return [(domain.vm_id, domain.epoch, domain.status) for domain in hypervisor.domains()]

    def size_by_vm_id(self, host: str) -> dict[str, tuple[int, int]]:
        hypervisor = self._world.hosts.by_name[host].hypervisor
        if hypervisor is None:
            return {}
        return {domain.vm_id: (domain.vcpus, domain.memory_bytes) for domain in hypervisor.domains()}

    def snapshots_by_vm_id(self) -> dict[str, list[str]]:
        return self._world.hosts.snapshots.names_by_vm_id()

    def silos(self) -> list[str]:
        return sorted(self._world.processes.by_name)

    def durable(self, silo: str, kind: type[Record]) -> Rows:
        return self._world.rows(kind, silo)

    def outgoing_count(self, silo: str) -> int:
        process = self._world.processes.by_name.get(silo)
        return 0 if process is None else process.silo.links.unacknowledged_count()

    @property
    def has_history(self) -> bool:
        return self._world.shape.telemetry

    def stored_report(self, name: ReportName) -> bytes | None:
        return self._world.histories.disk.reports.get(name)

    def verify_journal(self, silo: str) -> list[str]:
        disk = self._world.processes.disk(silo)
        if not len(disk):
            return []
        reader = MemoryJournal(record_types(kind_of(silo)), journal_id="reader", disk=disk)
        return reader.differences()
