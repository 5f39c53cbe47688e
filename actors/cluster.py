"""The `cluster/<name>` actor: which host a machine goes to, first, second or back again.

It owns the reservations: a host's capacity is promised here, in the turn that chose the host, before any command
leaves. The host table is derived from hosts and rows and is rebuilt when the silo recovers. Its parts, each a module:

    cluster_book      what is held where                 cluster_affinity  groups
    cluster_copies    second copies, migration slots     cluster_moves     balancing, enforcement, HA reservation
    cluster_drain     hosts to be emptied                cluster_fencing   may a host be fenced
    cluster_priority  who starts again first             cluster_power     shutting down and starting all of it
    cluster_settings  what a command may set            cluster_hosts     what hosts say

Rule: a row exists from the placement of a copy until the machine gives it back with that copy's epoch.
"""

from __future__ import annotations

from actors.behaviour import TimedRecord, Turn
from actors.cluster_affinity import Groups
from actors.cluster_book import Book, Row
from actors.cluster_copies import Copies
from actors.cluster_drain import Drains
from actors.cluster_hosts import Hosts
from actors.cluster_moves import Moves
from actors.cluster_power import Power
from actors.cluster_priority import PriorityGate
from actors.cluster_settings import apply_changes, apply_creation, configuration_of
from olvm.model import messages as m
from olvm.model.errors import Conflict, OlvmError
from olvm.model.records import (
    AffinityGroupRecord,
    ClusterRecord,
    CopyRecord,
    HostRecord,
    ReservationRecord,
)
from olvm.scheduling.request import VmRequest
from olvm.scheduling.scheduler import Placement, explain, place

POWER_TIMERS = frozenset({"power", "power_wave", "power_hosts", "power_deadline"})


class Cluster:
    def __init__(
        self,
        record: ClusterRecord,
        hosts: list[HostRecord],
        reservations: dict[str, ReservationRecord],
        copies: dict[str, CopyRecord] | None = None,
        groups: dict[str, AffinityGroupRecord] | None = None,
    ) -> None:
        self.record = record
        self.address = f"cluster/{record.name}"
        self.book = Book(record, reservations, {} if copies is None else copies)
        self.book.recover(hosts)
        self.gate = PriorityGate()
        self.copies = Copies(self.book)
        self.groups = Groups(self.book, {} if groups is None else groups)
        self.drains = Drains(self.book, self.copies)
        self.moves = Moves(self.book, self.copies, self.groups, self.drains)
        self.power = Power(self.book)
        self.hosts = Hosts(self.book, self.copies, self.drains, self.moves, self.gate, self.power)

    @classmethod
    def new(cls, name: str) -> Cluster:
        return cls(ClusterRecord(name=name), [], {})

    def timed_record(self) -> TimedRecord | None:
        return self.record

    def handle(self, message: m.AnyMessage, turn: Turn) -> None:
        """Machines first: they are most of what comes."""
        if not (
            self._on_machine(message, turn)
            or self.hosts.handle(message, turn)
            or self._on_cluster(message, turn)
        ):
            raise AssertionError(f"{self.address} cannot handle {type(message).__name__}")

    def _on_machine(self, message: m.AnyMessage, turn: Turn) -> bool:
        match message:
            case m.PlaceVm():
                self._on_place_vm(message, turn)
            case m.ReleaseVm():
                self._on_release_vm(message, turn)
            case m.ResizeVm():
                self._on_resize_vm(message, turn)
            case m.PlaceCopy():
                self._on_place_copy(message, turn)
            case m.PromoteCopy():
                self._on_promote_copy(message, turn)
            case m.VmMoveRefused():
                self.drains.on_refused(message, turn)
            case m.VmPowered():
                self.power.on_powered(message, turn)
            case m.ExplainForVm():
                self._on_explain(message, turn)
            case _:
                return False
        return True

    def _on_cluster(self, message: m.AnyMessage, turn: Turn) -> bool:
        match message:
            case m.TimerFired():
                self._on_timer(message.name, turn)
            case m.ChangeAffinity():
                self.groups.on_change(message, turn)
            case m.CommandCluster():
                self.power.on_command(message, turn)
            case m.StartCluster():
                self._on_start(message, turn)
            case m.ChangeCluster():
                self._on_change(message, turn)
            case m.EndCluster():
                self._on_end(message, turn)
            case m.Recovered():
                self.moves.begin(turn)
                self.drains.recover(turn)
                self.power.recover(turn)
            case _:
                return False
        return True

    def _on_timer(self, name: str, turn: Turn) -> None:
        if name == "drain":
            self.drains.tick(turn)
        elif name in POWER_TIMERS:
            self.power.on_timer(name, turn)
        else:
            self.moves.on_tick(name, turn)

    # ------------------------------------------------------------------ placement

    def _request(self, ask: m.PlaceVm, current_host: str | None = None) -> VmRequest:
        return VmRequest(
            vm_id=ask.vm_id,
            name=ask.vm_name,
            vcpus=ask.vcpus,
            memory_bytes=ask.memory_bytes,
            pinned_hosts=tuple(ask.pinned_hosts),
            excluded_hosts=tuple(ask.excluded_hosts),
            current_host=current_host,
            held_hosts=self.book.held_hosts(ask.vm_id),
            high_availability=ask.high_availability,
            leased=ask.leased,
            affinity=self.groups.affinity_for(ask.vm_id),
            needs=ask.needs,
            priority=ask.priority,
        )

    def _on_place_vm(self, ask: m.PlaceVm, turn: Turn) -> None:
        held = self.book.reservations.get(ask.vm_id)
        if held is not None:
            if held.epoch == ask.epoch:  # asked twice: the same answer
                turn.reply(self._placed(held))
                return
            if held.epoch > ask.epoch:
                return  # a late repetition of an attempt that has ended
            self._give_back(held.vm_id, held.epoch, turn)
        refusal = self.power.refusal()
        if refusal is not None:
            turn.sometimes("placement_refused_while_the_cluster_is_shut_down")
            turn.reply(m.VmNotPlaced(ask.epoch, refusal))
            return
        if ask.ha_restart and self._waits_for_priority(ask, turn):
            return
        outcome = place(self.book.table, self._request(ask), self.book.policy)
        if not isinstance(outcome, Placement):
            turn.reply(m.VmNotPlaced(ask.epoch, outcome.reason))
            return
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
            priority=ask.priority,
            high_availability=ask.high_availability,
            leased=ask.leased,
            boot_id=self.book.hosts[outcome.host].boot_id,
            pinned_hosts=ask.pinned_hosts,
            needs=ask.needs,
        )
        self.book.take(reservation, turn)
        turn.reply(self._placed(reservation))

    def _placed(self, held: ReservationRecord) -> m.VmPlaced:
        return m.VmPlaced(held.epoch, held.host, self.book.hosts[held.host].agent, held.boot_id)

    def _waits_for_priority(self, ask: m.PlaceVm, turn: Turn) -> bool:
        block_s = turn.config.ha_priority_block_s
        self.gate.asks(ask.vm_id, ask.vm_name, ask.epoch, ask.priority, turn.now_ns, block_s)
        blocker = self.gate.blocker(ask.vm_id, ask.priority, turn.now_ns)
        if blocker is None:
            return False
        turn.sometimes("ha_restart_waits_for_a_machine_of_higher_priority")
        reason = f"{blocker} has a higher priority and is not running yet"
        turn.reply(m.VmNotPlaced(ask.epoch, reason, deferred=True))
        return True

    def _on_explain(self, message: m.ExplainForVm, turn: Turn) -> None:
        ask = message.request
        held = self.book.reservations.get(ask.vm_id)
        request = self._request(ask, None if held is None else held.host)
        explanation = explain(self.book.table, request, self.book.policy)
        outcome = explanation.outcome
        summary = (
            f"{ask.vm_name} would go to {outcome.host}" if isinstance(outcome, Placement) else outcome.reason
        )
        verdicts = [
            m.HostVerdict(
                host=verdict.host,
                accepted=verdict.rejected_by is None,
                rejected_by=verdict.rejected_by or "",
                reason=verdict.reason or "",
                score=verdict.score,
                chosen=verdict.chosen,
                weights=verdict.weights,
                ranks=verdict.ranks,
            )
            for verdict in explanation.hosts
        ]
        answer = m.PlacementExplanation(
            ask.vm_name,
            self.record.policy,
            summary,
            verdicts,
            explanation.factors,
            explanation.selector,
        )
        turn.tell(message.reply_to, answer)

    # ------------------------------------------------------------------ second copies, and the end of any

    def _on_place_copy(self, ask: m.PlaceCopy, turn: Turn) -> None:
        table = self.book.table
        refusal = self.power.refusal()
        if refusal is not None:
            turn.reply(m.CopyNotPlaced(ask.epoch, refusal))
            return
        live = ask.kind == "migration"
        known = live and ask.current_host in table
        request = VmRequest(
            vm_id=ask.vm_id,
            name=ask.vm_name,
            vcpus=ask.vcpus,
            memory_bytes=ask.memory_bytes,
            pinned_hosts=tuple(ask.pinned_hosts),
            excluded_hosts=tuple(ask.excluded_hosts),
            current_host=ask.current_host,
            held_hosts=self.book.held_hosts(ask.vm_id),
            high_availability=ask.high_availability,
            live=live,
            cpu_model=table.cpu_model[table.slot_of(ask.current_host)] if known else "",
            leased=ask.leased,
            affinity=self.groups.affinity_for(ask.vm_id),
            needs=ask.needs,
            priority=ask.priority,
        )
        self.copies.on_place_copy(ask, request, turn)
        if f"{ask.vm_id}/{ask.epoch}" in self.book.copies:
            self.drains.on_leaving(ask.vm_id, ask.current_host)

    def _on_promote_copy(self, message: m.PromoteCopy, turn: Turn) -> None:
        copy = self.book.copies.get(f"{message.vm_id}/{message.epoch}")
        if copy is None or copy.kind == "source":
            return  # said again
        source = self.book.promote(copy, turn)
        self.copies.wake(copy.from_host, copy.host, turn)
        if source is not None:
            turn.sometimes("source_is_kept_until_its_end_is_heard")
            self.drains.on_left(message.vm_id, source.host, turn)

    def _on_resize_vm(self, message: m.ResizeVm, turn: Turn) -> None:
        refusal = self.book.resize(message, turn)
        if not message.operation_id:
            return
        if refusal is not None:
            turn.sometimes("plug_refused_as_its_host_has_no_room")
        turn.reply(m.VmResized(message.epoch, message.operation_id, refusal or ""))

    def _on_release_vm(self, message: m.ReleaseVm, turn: Turn) -> None:
        self.copies.give_up(message.vm_id, message.epoch)
        row = self._give_back(message.vm_id, message.epoch, turn)
        if row is None:
            return
        self.gate.released(message.vm_id, message.epoch)
        if message.failed_start:
            turn.send(f"host/{row.host}", m.HostStartFailed(row.host, row.vm_name, ""))
        if self.book.is_empty(row.host):
            turn.send(f"host/{row.host}", m.HostOccupancy(row.host, []))
        self.power.advance(turn)

    def _give_back(self, vm_id: str, epoch: int, turn: Turn) -> Row | None:
        copy = self.book.copies.get(f"{vm_id}/{epoch}")
        row = self.book.release(vm_id, epoch, turn)
        if row is not None:
            self.drains.on_left(vm_id, row.host, turn)
        if copy is not None and copy.kind == "migration":
            self.copies.wake(copy.from_host, copy.host, turn)
            self.drains.on_left(vm_id, copy.from_host, turn)
        elif copy is not None and copy.kind == "source":
            self.copies.wake_machine(vm_id, turn)
        return row

    # ------------------------------------------------------------------ its own life

    def _on_start(self, message: m.StartCluster, turn: Turn) -> None:
        try:
            apply_creation(self.record, message.command)
        except OlvmError as error:
            turn.send("engine", m.OperationEnded(message.operation_id, False, error.message, error.code))
            return
        self.record.created_ns = turn.now_ns
        self.book.apply_record()
        turn.save(self.record)
        self.moves.begin(turn)
        self._tell_configuration("cluster_created", turn, message.operation_id)
        turn.send("engine", m.OperationEnded(message.operation_id, True))

    def _on_change(self, message: m.ChangeCluster, turn: Turn) -> None:
        try:
            self.book.policy = apply_changes(self.record, message.command)
        except OlvmError as error:
            turn.send("engine", m.OperationEnded(message.operation_id, False, error.message, error.code))
            return
        self.book.table.set_overcommit(
            memory_overcommit_percent=self.record.memory_overcommit_percent,
            cpu_overcommit_percent=self.record.cpu_overcommit_percent,
        )
        self.book.table.ha_reservation = self.record.ha_reservation
        # As after a restart: what was booked under other policies is not in the record.
        self.book.table.turn_host = self.record.turn_host
        self.book.table.forget_watchers()
        turn.save(self.record)
        self._tell_configuration("cluster_updated", turn, message.operation_id)
        turn.send("engine", m.OperationEnded(message.operation_id, True))

    def _on_end(self, message: m.EndCluster, turn: Turn) -> None:
        if len(self.book.table):
            reason = f"cannot remove cluster {self.record.name}: it still has hosts"
            turn.send("engine", m.OperationEnded(message.operation_id, False, reason, Conflict.code))
            return
        self.groups.erase_all(turn)
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
        turn.record(
            code,
            f"cluster {self.record.name}: policy {self.record.policy}",
            cluster=self.record.name,
            operation_id=operation_id,
            details=configuration_of(self.record),
        )
