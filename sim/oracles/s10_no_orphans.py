"""S10: when all is quiet, records and domains agree one to one: no orphan, no ghost, no machine in name only.

And none is left behind on a host that was told to be empty and free to be worked on.
"""

from __future__ import annotations

from typing import ClassVar, cast

from olvm.model.host_states import HostStatus
from olvm.model.records import HostRecord, VmRecord
from olvm.model.vm_states import NOT_RUNNING
from sim.oracles.oracle import Oracle


class NoOrphans(Oracle):
    ID: ClassVar[str] = "S10"
    PROMISE: ClassVar[str] = (
        "at rest every domain belongs to a machine and every running machine has one domain"
    )

    def settled(self) -> None:
        witness = self.witness
        found: dict[str, list[tuple[str, int, str]]] = {}
        for host in witness.hosts:
            for vm_id, epoch, status in witness.domains(host):
                found.setdefault(vm_id, []).append((host, epoch, status))
        self._look_for_forgotten(found)
        rows = cast("dict[str, VmRecord]", witness.durable("engine", VmRecord))
        for vm_id, copies in sorted(found.items()):
            if vm_id not in rows:
                self.fail(f"domain {vm_id} on {copies} belongs to no machine")
            elif len(copies) > 1:
                self.fail(f"machine {rows[vm_id].name} has {len(copies)} domains: {copies}")
        for vm_id, row in sorted(rows.items()):
            copies = found.get(vm_id, [])
            believed = [] if row.status in NOT_RUNNING else [(row.host, row.epoch, row.status.value)]
            if copies != believed:
                self.fail(
                    f"machine {row.name} is {row.status.value} on {row.host} (epoch {row.epoch}), truly {copies}"
                )

    def _look_for_forgotten(self, found: dict[str, list[tuple[str, int, str]]]) -> None:
        hosts = cast("dict[str, HostRecord]", self.witness.durable("engine", HostRecord))
        for vm_id, copies in sorted(found.items()):
            for host, epoch, status in copies:
                if host in hosts and hosts[host].status is HostStatus.MAINTENANCE:
                    self.fail(
                        f"machine {vm_id} (epoch {epoch}) is {status} on {host}, which is in maintenance"
                    )
