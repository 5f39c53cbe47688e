"""L2: a highly available machine whose life ended by a fault runs again within the bound, if there is room."""

from __future__ import annotations

from typing import ClassVar, cast

from olvm.model.host_states import HostStatus
from olvm.model.records import ClusterRecord, HostRecord, OperationRecord, VmRecord
from olvm.model.vm_states import NOT_RUNNING
from sim.oracles.oracle import Oracle, OracleKind

# VDSM exit reasons that are no fault: success, migrated, saved, shut down by an administrator or from inside.
NORMAL_EXITS = frozenset({0, 4, 5, 6, 7})
ENDINGS = frozenset({"stop_vm", "shutdown_vm", "suspend_vm"})
WISHES_OF_CLUSTERS = frozenset({"shutdown_cluster", "start_cluster"})
WISHES = ENDINGS | {"start_vm", "resume_vm"}
ROOM_FACTOR = 1.25  # a machine's overheads, and a little that is lost between hosts


class AvailableAgain(Oracle):
    ID: ClassVar[str] = "L2"
    KIND: ClassVar[OracleKind] = "liveness"
    PROMISE: ClassVar[str] = "a highly available machine runs again within the bound if capacity exists"

    def _ended_by_clients(self) -> set[str]:
        """Machines whose newest command was to end them, whatever its end was told to be."""
        rows = cast("dict[str, OperationRecord]", self.witness.durable("engine", OperationRecord))
        newest: dict[str, OperationRecord] = {}
        of_clusters: list[OperationRecord] = []
        for row in rows.values():
            if row.kind in WISHES_OF_CLUSTERS:
                of_clusters.append(row)
            elif row.kind in WISHES and row.error_code not in ("conflict", "not_found"):
                known = newest.get(row.target_id)
                if known is None or row.created_ns >= known.created_ns:
                    newest[row.target_id] = row
        last = max(of_clusters, key=lambda row: row.created_ns, default=None)
        if last is not None and last.kind == "shutdown_cluster":
            # Also one that did not come to its end has ended machines, and nobody has asked for them since.
            return {
                vm_id
                for vm_id in self.witness.durable("engine", VmRecord)
                if vm_id not in newest
                or newest[vm_id].kind in ENDINGS
                or newest[vm_id].created_ns < last.created_ns
            }
        return {vm_id for vm_id, row in newest.items() if row.kind in ENDINGS}

    def settled(self) -> None:
        witness = self.witness
        clusters = cast("dict[str, ClusterRecord]", witness.durable("engine", ClusterRecord))
        hosts = cast("dict[str, HostRecord]", witness.durable("engine", HostRecord))
        free_bytes = {
            name: host.memory_bytes
            for name, host in hosts.items()
            if host.status is HostStatus.UP and witness.is_powered(name)
        }
        vms = cast("dict[str, VmRecord]", witness.durable("engine", VmRecord))
        unwanted = self._ended_by_clients()
        for row in vms.values():
            if row.host in free_bytes:
                free_bytes[row.host] -= int(row.memory_bytes * ROOM_FACTOR)
        for row in vms.values():
            wanted = row.high_availability and row.exit_reason not in NORMAL_EXITS | {None}
            if not wanted or row.status not in NOT_RUNNING or clusters[row.cluster].power != "running":
                continue
            if row.pinned_hosts or row.id in unwanted:
                continue
            roomy = [name for name, free in free_bytes.items() if free >= row.memory_bytes * ROOM_FACTOR]
            if roomy:
                self.fail(
                    f"machine {row.name} is highly available, ended by a fault ({row.exit_message}), is "
                    f"{row.status.value} ({row.status_reason}), and {roomy[0]} has room"
                )
