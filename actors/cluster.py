"""The `cluster/<name>` actor: which host a machine goes to.

It owns the reservations: a host's capacity is promised here, in the turn that chose the host, before any command
leaves. The host table is derived from hosts and reservations and is rebuilt when the silo recovers.
Rule: a reservation exists from the placement of a machine until the machine gives it back with its epoch.
"""

from __future__ import annotations

from actors.behaviour import TimedRecord, Turn
from olvm.model import messages as m
from olvm.model.errors import Conflict, OlvmError
from olvm.model.host_states import HostStatus
from olvm.model.records import ClusterRecord, HostRecord, ReservationRecord
from olvm.model.vm_states import VmStatus
from olvm.scheduling.host_table import HostTable
from olvm.scheduling.policy import policy_named
from olvm.scheduling.request import VmRequest
from olvm.scheduling.scheduler import Placement, explain, place


class Cluster:
    def __init__(
        self,
        record: ClusterRecord,
        hosts: list[HostRecord],
        reservations: dict[str, ReservationRecord],
    ) -> None:
        self.record = record
        self.address = f"cluster/{record.name}"
        self.reservations = reservations
        self.vm_ids_by_host: dict[str, dict[str, None]] = {}
        self.agent_by_host: dict[str, str] = {}
        self._apply_record()
        for host in sorted(hosts, key=lambda item: item.name):
            if host.cpus:
                self._add_host(
                    host.name,
                    host.cpus,
                    host.memory_bytes,
                    f"agent/{host.name}@{host.silo}",
                    host.status is HostStatus.UP,
                )
        for reservation in sorted(reservations.values(), key=lambda item: item.vm_id):
            self.table.reserve(
                reservation.vm_id,
                reservation.host,
                reservation.vcpus,
                reservation.memory_bytes,
                already_running=True,
            )
            self.vm_ids_by_host[reservation.host][reservation.vm_id] = None

    @classmethod
    def new(cls, name: str) -> Cluster:
        return cls(ClusterRecord(name=name), [], {})

    def timed_record(self) -> TimedRecord | None:
        return None

    def handle(self, message: m.AnyMessage, turn: Turn) -> None:  # noqa: C901, PLR0912 - one case a message
        match message:
            case m.PlaceVm():
                self._on_place_vm(message, turn)
            case m.ReleaseVm():
                self._on_release_vm(message, turn)
            case m.HostReported():
                self._on_host_reported(message, turn)
            case m.HostUsable():
                if message.host in self.table:
                    self.table.update_host(message.host, usable=message.usable)
            case m.HostJoined():
                self._on_host_joined(message, turn)
            case m.HostLeft():
                self._on_host_left(message, turn)
            case m.HostUnresponsive():
                self._on_host_unresponsive(message, turn)
            case m.AskEmpty():
                names = sorted(
                    self.reservations[vm].vm_name for vm in self.vm_ids_by_host.get(message.host, {})
                )
                turn.reply(m.HostOccupancy(message.host, names))
            case m.ExplainForVm():
                self._on_explain(message, turn)
            case m.StartCluster():
                self._on_start(message, turn)
            case m.ChangeCluster():
                self._on_change(message, turn)
            case m.EndCluster():
                self._on_end(message, turn)
            case m.Recovered():
                pass
            case _:
                raise AssertionError(f"{self.address} cannot handle {type(message).__name__}")

    # ------------------------------------------------------------------ placement

    def _request(self, ask: m.PlaceVm) -> VmRequest:
        return VmRequest(
            vm_id=ask.vm_id,
            name=ask.vm_name,
            vcpus=ask.vcpus,
            memory_bytes=ask.memory_bytes,
            pinned_hosts=tuple(ask.pinned_hosts),
            excluded_hosts=tuple(ask.excluded_hosts),
            high_availability=ask.high_availability,
        )

    def _on_place_vm(self, ask: m.PlaceVm, turn: Turn) -> None:
        held = self.reservations.get(ask.vm_id)
        if held is not None:
            if held.epoch == ask.epoch:  # asked twice: the same answer
                turn.reply(m.VmPlaced(ask.epoch, held.host, self.agent_by_host[held.host]))
                return
            if held.epoch > ask.epoch:
                return  # a late repetition of an attempt that has ended
            self._give_back(held, turn)
        outcome = place(self.table, self._request(ask), self.policy)
        if not isinstance(outcome, Placement):
            turn.reply(m.VmNotPlaced(ask.epoch, outcome.reason))
            return
        self.table.reserve(ask.vm_id, outcome.host, ask.vcpus, ask.memory_bytes)
        reservation = ReservationRecord(
            vm_id=ask.vm_id,
            vm_name=ask.vm_name,
            vm_address=turn.sender,
            cluster=self.record.name,
            host=outcome.host,
            epoch=ask.epoch,
            vcpus=ask.vcpus,
            memory_bytes=ask.memory_bytes,
            created_ns=turn.now_ns,
        )
        self.reservations[ask.vm_id] = reservation
        self.vm_ids_by_host[outcome.host][ask.vm_id] = None
        turn.save(reservation)
        turn.reply(m.VmPlaced(ask.epoch, outcome.host, self.agent_by_host[outcome.host]))

    def _on_release_vm(self, message: m.ReleaseVm, turn: Turn) -> None:
        held = self.reservations.get(message.vm_id)
        if held is None or held.epoch != message.epoch:
            return
        self._give_back(held, turn)
        if message.failed_start:
            turn.send(f"host/{held.host}", m.HostStartFailed(held.host, held.vm_name, ""))
        if not self.vm_ids_by_host[held.host]:
            turn.send(f"host/{held.host}", m.HostOccupancy(held.host, []))

    def _give_back(self, held: ReservationRecord, turn: Turn) -> None:
        self.table.release(held.vm_id, held.host)
        del self.reservations[held.vm_id]
        del self.vm_ids_by_host[held.host][held.vm_id]
        turn.erase(held)

    def _on_explain(self, message: m.ExplainForVm, turn: Turn) -> None:
        explanation = explain(self.table, self._request(message.request), self.policy)
        outcome = explanation.outcome
        if isinstance(outcome, Placement):
            summary = f"{message.request.vm_name} would go to {outcome.host}"
        else:
            summary = outcome.reason
        verdicts = [
            m.HostVerdict(
                host=verdict.host,
                accepted=verdict.rejected_by is None,
                rejected_by=verdict.rejected_by or "",
                reason=verdict.reason or "",
                score=verdict.score,
                chosen=verdict.chosen,
            )
            for verdict in explanation.hosts
        ]
        turn.tell(
            message.reply_to,
            m.PlacementExplanation(message.request.vm_name, self.record.policy, summary, verdicts),
        )

    # ------------------------------------------------------------------ hosts

    def _add_host(self, name: str, cpus: int, memory_bytes: int, agent: str, usable: bool) -> None:
        self.agent_by_host[name] = agent
        self.vm_ids_by_host.setdefault(name, {})
        if name in self.table:
            self.table.update_host(name, usable=usable, cpus=cpus, memory_bytes=memory_bytes)
        else:
            self.table.add_host(name, cpus=cpus, memory_bytes=memory_bytes, usable=usable)

    def _on_host_joined(self, message: m.HostJoined, turn: Turn) -> None:
        self._add_host(message.host, message.cpus, message.memory_bytes, message.agent, message.usable)
        self._count_hosts(turn)

    def _on_host_left(self, message: m.HostLeft, turn: Turn) -> None:
        if message.host in self.table:
            self.table.remove_host(message.host)
            del self.vm_ids_by_host[message.host]
            del self.agent_by_host[message.host]
            self._count_hosts(turn)

    def _count_hosts(self, turn: Turn) -> None:
        if self.record.host_count != len(self.table):
            self.record.host_count = len(self.table)
            turn.save(self.record)

    def _on_host_unresponsive(self, message: m.HostUnresponsive, turn: Turn) -> None:
        for vm_id in self.vm_ids_by_host.get(message.host, {}):
            turn.send(self.reservations[vm_id].vm_address, m.HostLost(message.host, message.reason))

    def _on_host_reported(self, report: m.HostReported, turn: Turn) -> None:
        """Pass each line of a full report to its machine, and name those that are missing from it."""
        if report.host in self.table:
            self.table.update_host(report.host, cpu_load_percent=report.cpu_load_percent)
        seen = set()
        for domain in report.domains:
            seen.add(domain.vm_id)
            if domain.status is VmStatus.UP:
                self.table.settle(domain.vm_id)
            turn.tell(
                domain.vm_address,
                m.DomainReported(report.host, report.agent, report.host_epoch, report.seq, domain),
            )
        for vm_id in self.vm_ids_by_host.get(report.host, {}):
            if vm_id not in seen:
                turn.tell(
                    self.reservations[vm_id].vm_address,
                    m.DomainMissing(report.host, report.host_epoch, report.seq),
                )

    # ------------------------------------------------------------------ its own life

    def _apply_record(self) -> None:
        record = self.record
        self.policy = policy_named(record.policy, record.policy_parameters)
        self.table = HostTable(
            memory_overcommit_percent=record.memory_overcommit_percent,
            cpu_overcommit_percent=record.cpu_overcommit_percent,
        )

    def _on_start(self, message: m.StartCluster, turn: Turn) -> None:
        command = message.command
        record = self.record
        record.policy = command.policy
        record.policy_parameters = command.policy_parameters
        record.memory_overcommit_percent = command.memory_overcommit_percent
        record.cpu_overcommit_percent = command.cpu_overcommit_percent
        record.created_ns = turn.now_ns
        self._apply_record()
        turn.save(record)
        self._tell_configuration("cluster_created", turn, message.operation_id)
        turn.send("engine", m.OperationEnded(message.operation_id, True))

    def _on_change(self, message: m.ChangeCluster, turn: Turn) -> None:
        command, record = message.command, self.record
        policy = record.policy if command.policy is None else command.policy
        if command.policy_parameters is not None:
            parameters = command.policy_parameters
        else:
            parameters = record.policy_parameters if policy == record.policy else {}
        try:
            self.policy = policy_named(policy, parameters)
        except OlvmError as error:
            turn.send("engine", m.OperationEnded(message.operation_id, False, error.message, error.code))
            return
        record.policy, record.policy_parameters = policy, parameters
        if command.memory_overcommit_percent is not None:
            record.memory_overcommit_percent = command.memory_overcommit_percent
        if command.cpu_overcommit_percent is not None:
            record.cpu_overcommit_percent = command.cpu_overcommit_percent
        self.table.set_overcommit(
            memory_overcommit_percent=record.memory_overcommit_percent,
            cpu_overcommit_percent=record.cpu_overcommit_percent,
        )
        turn.save(record)
        self._tell_configuration("cluster_updated", turn, message.operation_id)
        turn.send("engine", m.OperationEnded(message.operation_id, True))

    def _on_end(self, message: m.EndCluster, turn: Turn) -> None:
        if len(self.table):
            reason = f"cannot remove cluster {self.record.name}: it still has hosts"
            turn.send("engine", m.OperationEnded(message.operation_id, False, reason, Conflict.code))
            return
        turn.erase(self.record)
        turn.stop()
        turn.record(
            "cluster_removed",
            f"cluster {self.record.name} was removed",
            cluster=self.record.name,
            operation_id=message.operation_id,
        )
        turn.send("engine", m.EntityRemoved("cluster", self.record.name))
        turn.send("engine", m.OperationEnded(message.operation_id, True))

    def _tell_configuration(self, code: str, turn: Turn, operation_id: str) -> None:
        record = self.record
        turn.record(
            code,
            f"cluster {record.name}: policy {record.policy}",
            cluster=record.name,
            operation_id=operation_id,
            details={
                "kind": "cluster",
                "policy": record.policy,
                "memory_overcommit_percent": record.memory_overcommit_percent,
                "cpu_overcommit_percent": record.cpu_overcommit_percent,
            },
        )
