"""What hosts say to their cluster: that they are there, silent, dead, what they run, and that they want to be empty.

It passes on what concerns machines. Rules:
1. A host that is proven dead is told to the machine of every row on it, the most important first: they ask for new
   places in this order.
2. A full report is compared with every row of its host, copies included: a row that it does not name is named to
   its machine, with its epoch, until the machine gives it back. So no row is forgotten.
3. A line of a full report is passed on unless its machine surely knows it: see `cluster_lines`.
"""

from __future__ import annotations

from actors.behaviour import Turn
from actors.cluster_book import Book, Row
from actors.cluster_copies import Copies
from actors.cluster_drain import Drains
from actors.cluster_fencing import advice
from actors.cluster_lines import Lines
from actors.cluster_moves import Moves
from actors.cluster_power import Power
from actors.cluster_priority import PriorityGate
from olvm.model import messages as m
from olvm.model.host_states import HostStatus
from olvm.model.vm_states import WAITING_TO_COME_UP, VmStatus

# After any of these a machine may believe other things of itself than its host's last line.
TOLD_TO_MACHINES = (m.HostUsable, m.HostJoined, m.HostLeft, m.HostSilent, m.HostUnresponsive, m.HostFenced)
# A restart that has come as far as this no longer holds others up: its host runs it.
STARTED = frozenset({VmStatus.UP, *WAITING_TO_COME_UP}) - {VmStatus.WAIT_FOR_LAUNCH}


class Hosts:
    def __init__(
        self,
        book: Book,
        copies: Copies,
        drains: Drains,
        moves: Moves,
        gate: PriorityGate,
        power: Power,
    ) -> None:
        self.book = book
        self.copies = copies
        self.drains = drains
        self.moves = moves
        self.gate = gate
        self.power = power
        self.lines = Lines(book)

    def handle(self, message: m.AnyMessage, turn: Turn) -> bool:
        """False: the message is no host's."""
        if isinstance(message, TOLD_TO_MACHINES):
            self.lines.forget(message.host)
        match message:
            case m.HostReported():
                self._on_host_reported(message, turn)
            case m.HostUsable():
                self._on_host_usable(message, turn)
            case m.HostJoined():
                self.book.join(message, HostStatus.UP.value if message.usable else "")
                self._count_hosts(turn)
                self.power.advance(turn)
            case m.HostLeft():
                self._on_host_left(message, turn)
            case m.HostSilent():
                self._on_host_silent(message, turn)
            case m.HostUnresponsive():
                self._on_host_unresponsive(message, turn)
            case m.HostFenced():
                self._on_host_fenced(message, turn)
            case m.AskEmpty():
                turn.reply(self.drains.occupancy(message.host))
            case m.DrainHost():
                self.drains.start(message.host, message.reason, turn)
            case m.StopDrain():
                self.drains.stop(message.host, turn)
            case m.AskFencing():
                answer = advice(message, self.book.record, self.book.hosts)
                if not answer.allowed and self.book.record.fencing:
                    turn.sometimes("fencing_waits_because_too_many_hosts_are_silent")
                turn.reply(answer)
            case _:
                return False
        return True

    def _on_host_usable(self, message: m.HostUsable, turn: Turn) -> None:
        facts = self.book.hosts.get(message.host)
        if facts is None:
            return
        # An older host actor names no status.
        unnamed = HostStatus.UP.value if message.usable else facts.status.replace(HostStatus.UP.value, "")
        facts.status = message.status or unnamed
        self.book.table.update_host(message.host, usable=message.usable)
        if message.usable:
            # Whatever it was to be emptied for is over, also if nobody said so: it may have been restarted since.
            self.drains.stop(message.host, turn)
        if self.book.is_lost(message.host):
            self._free_slots_of(message.host, turn)
        self.power.advance(turn)

    def _free_slots_of(self, host: str, turn: Turn) -> None:
        """Its migrations hold no slot any more, neither here nor at their other side."""
        for copy in list(self.book.copies.values()):
            if copy.kind == "migration" and host in (copy.host, copy.from_host):
                self.copies.wake(copy.from_host, copy.host, turn)
                self.drains.push(copy.from_host, turn)

    def _on_host_left(self, message: m.HostLeft, turn: Turn) -> None:
        if message.host in self.book.hosts:
            self.book.leave(message.host)
            self.drains.forget(message.host)
            self._count_hosts(turn)

    def _count_hosts(self, turn: Turn) -> None:
        if self.book.record.host_count != len(self.book.table):
            self.book.record.host_count = len(self.book.table)
            turn.save(self.book.record)

    def _rows_by_priority(self, host: str) -> list[Row]:
        """One row a machine, the most important first: they ask for new places in this order."""
        rows = {row.vm_id: row for row in reversed(self.book.rows_on(host))}
        return sorted(rows.values(), key=lambda row: (-row.priority, row.vm_name, row.vm_id))

    def _on_host_silent(self, message: m.HostSilent, turn: Turn) -> None:
        for row in self._rows_by_priority(message.host):
            held = self.book.reservations.get(row.vm_id)
            if held is not None and held.host == message.host and held.leased and held.high_availability:
                turn.send(row.vm_address, message)

    def _on_host_unresponsive(self, message: m.HostUnresponsive, turn: Turn) -> None:
        facts = self.book.hosts.get(message.host)
        if facts is not None and not message.again:
            facts.status = HostStatus.NON_RESPONSIVE.value
            self._free_slots_of(message.host, turn)
        for row in self._rows_by_priority(message.host):
            turn.send(row.vm_address, m.HostLost(message.host, message.reason, message.again))

    def _on_host_fenced(self, message: m.HostFenced, turn: Turn) -> None:
        for row in self._rows_by_priority(message.host):
            held = self.book.reservations.get(row.vm_id)
            if held is not None and held.host == message.host and held.high_availability:
                self.gate.expect(row.vm_id, row.vm_name, row.priority, turn.now_ns)
            turn.send(row.vm_address, m.HostConfirmedDead(message.host, message.boot_id, message.reason))

    def _on_host_reported(self, report: m.HostReported, turn: Turn) -> None:
        """Pass the lines of a full report to their machines, and name the rows that are missing from it."""
        book, host = self.book, report.host
        if host in book.table:
            book.table.update_host(
                host, cpu_load_percent=report.cpu_load_percent, swap_used_percent=report.swap_used_percent
            )
        seen = {domain.vm_id: domain.epoch for domain in report.domains}
        for domain in self.lines.to_pass(report):
            self._note_running(domain, host, turn)
            line = m.DomainReported(host, report.agent, report.host_epoch, report.seq, domain)
            turn.tell(domain.vm_address, line)
        if host in book.table:
            self.moves.note_load(host, turn.now_ns)
        for vm_id in book.vm_ids_by_host.get(host, {}):
            if vm_id not in seen:
                held = book.reservations[vm_id]
                missing = m.DomainMissing(host, report.host_epoch, report.seq, held.epoch)
                turn.tell(held.vm_address, missing)
        for copy in book.copies_on(host):
            if seen.get(copy.vm_id) != copy.epoch:
                turn.sometimes("copy_is_missing_from_a_full_report")
                missing = m.DomainMissing(host, report.host_epoch, report.seq, copy.epoch)
                turn.tell(copy.vm_address, missing)

    def _note_running(self, domain: m.DomainState, host: str, turn: Turn) -> None:
        held = self.book.reservations.get(domain.vm_id)
        if held is None or held.host != host or held.epoch != domain.epoch:
            return
        if domain.status is VmStatus.UP and not held.settled:
            self.book.table.settle(domain.vm_id, host)
            held.settled = True
            turn.save(held)
        if self.gate and domain.status in STARTED:
            self.gate.forget(domain.vm_id)
