"""Hosts that are to be emptied: which machines are told to leave, a few at a time, and why one stays.

Rule: no more machines are told than the host has free migration slots, the next one when a slot is free; one that
refused is told again after a pause. So a host of a hundred machines costs the cluster two migrations at a time.
What is here is volatile: the host asks again while it wants to be empty, and its status says so after a restart.
"""

from __future__ import annotations

import msgspec

from actors.behaviour import Turn
from actors.cluster_book import Book
from actors.cluster_copies import Copies
from olvm.model import messages as m
from olvm.model.config import Config
from olvm.model.host_states import HostStatus
from olvm.model.limits import NS_PER_S
from olvm.model.records import ReservationRecord

# A machine that refused to move is told again after this many retry periods; one that was told and said nothing, too.
PAUSE_RETRIES = 3
# What a host wants whose status is found after a restart.
REASON_BY_STATUS: dict[str, m.MoveReason] = {
    HostStatus.PREPARING_FOR_MAINTENANCE.value: "maintenance",
    HostStatus.NON_OPERATIONAL.value: "host_error",
}


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    reason: str
    again_ns: int


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """A machine that was told to move and holds no second copy yet; `to_host` empty: anywhere."""

    from_host: str
    to_host: str
    told_ns: int


class Drain(msgspec.Struct, kw_only=True):
    reason: m.MoveReason
    refused: dict[str, Refused] = {}


class Drains:
    def __init__(self, book: Book, copies: Copies) -> None:
        self.book = book
        self.copies = copies
        self.drains: dict[str, Drain] = {}
        self.told: dict[str, Told] = {}  # by machine; the cluster's own moves (balancing, affinity) included

    def recover(self, turn: Turn) -> None:
        for host in sorted(self.book.hosts):
            reason = REASON_BY_STATUS.get(self.book.hosts[host].status)
            if reason is not None:
                self.start(host, reason, turn)

    def start(self, host: str, reason: m.MoveReason, turn: Turn) -> None:
        if host not in self.book.hosts:
            return
        if not self.drains:
            turn.wake_each("drain", turn.config.migration_retry_s)
        drain = self.drains.setdefault(host, Drain(reason=reason))
        drain.reason = reason
        self.push(host, turn)

    def stop(self, host: str, turn: Turn) -> None:
        """The host may keep its machines: those that copy nothing yet stay."""
        if self.drains.pop(host, None) is None:
            return
        for held in self._machines(host):
            told = self.told.get(held.vm_id)
            leaving = any(
                copy.kind == "migration" and copy.reason != "asked"
                for copy in self.book.copies_of(held.vm_id)
            )
            if leaving or (told is not None and told.from_host == host):
                self.told.pop(held.vm_id, None)
                turn.send(held.vm_address, m.StayVm(host))

    def forget_silent(self, turn: Turn) -> None:
        """Who was told and said nothing ignored it, or waits for a slot and is known there."""
        oldest_ns = turn.now_ns - _pause_ns(turn.config)
        self.told = {vm_id: told for vm_id, told in self.told.items() if told.told_ns > oldest_ns}

    def tick(self, turn: Turn) -> None:
        self.forget_silent(turn)
        for host in sorted(self.drains):
            self.push(host, turn)
        if self.drains:
            turn.wake_each("drain", turn.config.migration_retry_s)

    def tell(self, held: ReservationRecord, reason: m.MoveReason, to_host: str, turn: Turn) -> None:
        self.told[held.vm_id] = Told(from_host=held.host, to_host=to_host, told_ns=turn.now_ns)
        turn.send(held.vm_address, m.MoveVm(held.host, reason, to_host))

    def push(self, host: str, turn: Turn) -> None:
        """Tell as many machines to leave as there is room for."""
        drain = self.drains.get(host)
        if drain is None or self.book.is_lost(host) or not self.book.vm_ids_by_host[host]:
            return
        leaving = self.copies.slots().outgoing.get(host, 0)
        leaving += sum(1 for told in self.told.values() if told.from_host == host)
        room = turn.config.migrations_outgoing_max - leaving
        for held in self._machines(host):
            if room <= 0:
                return
            refused = drain.refused.get(held.vm_id)
            if refused is not None and turn.now_ns < refused.again_ns:
                continue
            if self.is_leaving(held.vm_id):
                continue
            self.tell(held, drain.reason, "", turn)
            room -= 1

    def is_leaving(self, vm_id: str) -> bool:
        """It was told to move, waits for a slot, or has a copy that has not ended."""
        return vm_id in self.told or vm_id in self.copies.waiting or vm_id in self.book.copy_keys_by_vm

    def _machines(self, host: str) -> list[ReservationRecord]:
        held = [self.book.reservations[vm_id] for vm_id in self.book.vm_ids_by_host.get(host, {})]
        return sorted(held, key=lambda item: (-item.priority, item.vm_name, item.vm_id))

    # ------------------------------------------------------------------ what is heard

    def on_refused(self, message: m.VmMoveRefused, turn: Turn) -> None:
        self.told.pop(message.vm_id, None)
        drain = self.drains.get(message.host)
        if drain is not None:
            turn.sometimes("drained_machine_refuses_to_move")
            again_ns = turn.now_ns + _pause_ns(turn.config)
            drain.refused[message.vm_id] = Refused(reason=message.reason, again_ns=again_ns)
            self.push(message.host, turn)

    def on_leaving(self, vm_id: str, host: str) -> None:
        """It has a second copy: its slot is counted there from now on."""
        self.told.pop(vm_id, None)
        if host in self.drains:
            self.drains[host].refused.pop(vm_id, None)

    def on_left(self, vm_id: str, host: str, turn: Turn) -> None:
        """A row of the host is gone, or a migration from it is over."""
        told = self.told.get(vm_id)
        if told is not None and vm_id not in self.book.reservations:
            del self.told[vm_id]
        if host in self.drains:
            self.drains[host].refused.pop(vm_id, None)
            self.push(host, turn)

    def forget(self, host: str) -> None:
        self.drains.pop(host, None)

    def occupancy(self, host: str) -> m.HostOccupancy:
        """Names in order, and what each waits for."""
        reason_by_vm: dict[str, str] = {}
        drain = self.drains.get(host)
        for vm_id in self.book.vm_ids_by_host.get(host, {}):
            held = self.book.reservations[vm_id]
            refused = None if drain is None else drain.refused.get(vm_id)
            if any(copy.kind == "migration" for copy in self.book.copies_of(vm_id)):
                reason_by_vm[held.vm_name] = "is migrating"
            elif vm_id in self.copies.waiting:
                reason_by_vm[held.vm_name] = "waits for a migration slot"
            elif refused is not None:
                reason_by_vm[held.vm_name] = refused.reason
        for copy in self.book.copies_on(host):
            left = "has left, and the host has not said that its copy ended"
            reason_by_vm[copy.vm_name] = left if copy.kind == "source" else "is on its way to this host"
        names = sorted({row.vm_name for row in self.book.rows_on(host)})
        return m.HostOccupancy(host, names, reason_by_vm)


def _pause_ns(config: Config) -> int:
    return int(PAUSE_RETRIES * config.migration_retry_s * NS_PER_S)
