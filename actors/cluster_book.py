"""The cluster's book: its hosts, and what is held on each of them for which copy of which machine.

It decides nothing but whether a row may be written. Rule (S6): a row is written in the turn that promises capacity,
before any command leaves, and goes only when its epoch is given back; so the sum of all rows of a host is within
its capacity at any time, copies included. A machine has at most one row on a host, because its agent has at most
one record of it. A copy is known by (machine, epoch).
A row is never smaller than what its copy can have: room for what is to be plugged is taken before its host is asked,
and is given back when its host has said that it failed or that something was unplugged (`actors/vm_size.py`).
"""

from __future__ import annotations

import msgspec

from actors.behaviour import Turn
from olvm.model import messages as m
from olvm.model.errors import NoCapacity
from olvm.model.host_profile import merged_profile
from olvm.model.host_states import HostStatus
from olvm.model.records import ClusterRecord, CopyRecord, HostRecord, ReservationRecord
from olvm.scheduling.affinity import Places
from olvm.scheduling.host_table import HostTable
from olvm.scheduling.moves import Machine
from olvm.scheduling.policy import Policy, policy_named
from olvm.scheduling.request import memory_need_of

# Whoever is on such a host cannot be reached: migrations with it get nowhere and hold nobody else up.
LOST_STATUSES = frozenset(
    {
        HostStatus.NON_RESPONSIVE.value,
        HostStatus.REBOOT.value,
        HostStatus.KDUMPING.value,
        HostStatus.DOWN.value,
    }
)


class HostFacts(msgspec.Struct, kw_only=True):
    """What the cluster knows of a host beside its row in the table."""

    agent: str
    boot_id: str = ""
    status: str = ""
    over_since_ns: int = (
        0  # over HighUtilization in every report since then; 0: it is not. Forgotten by a restart
    )


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One holding of capacity, whichever record it is kept in."""

    vm_id: str
    vm_name: str
    vm_address: str
    host: str
    epoch: int
    priority: int


class Book:
    def __init__(
        self,
        record: ClusterRecord,
        reservations: dict[str, ReservationRecord],
        copies: dict[str, CopyRecord],
    ) -> None:
        self.record = record
        self.reservations = reservations
        self.copies = copies
        self.hosts: dict[str, HostFacts] = {}
        # Derived from the records; each holds exactly the rows that they hold, in order of writing.
        self.vm_ids_by_host: dict[str, dict[str, None]] = {}
        self.copy_keys_by_host: dict[str, dict[str, None]] = {}
        self.copy_keys_by_vm: dict[str, dict[str, None]] = {}
        self.policy: Policy
        self.table: HostTable
        self.apply_record()

    def apply_record(self) -> None:
        """A table without hosts, with the cluster's limits."""
        record = self.record
        self.policy = policy_named(record.policy, record.policy_parameters, record.policy_definition)
        self.table = HostTable(
            memory_overcommit_percent=record.memory_overcommit_percent,
            cpu_overcommit_percent=record.cpu_overcommit_percent,
        )
        self.table.ha_reservation = record.ha_reservation
        self.table.turn_host = record.turn_host

    def recover(self, hosts: list[HostRecord]) -> None:
        for host in sorted(hosts, key=lambda item: item.name):
            if host.cpus:
                joined = m.HostJoined(
                    host.name,
                    host.cpus,
                    host.memory_bytes,
                    f"agent/{host.name}@{host.silo}",
                    host.status is HostStatus.UP,
                    host.boot_id,
                    host.cpu_model,
                    host.features,
                    profile=merged_profile(host.profile, host.learnt_profile),
                )
                self.join(joined, host.status.value)
        for held in sorted(self.reservations.values(), key=lambda item: item.vm_id):
            self.table.reserve(
                held.vm_id,
                held.host,
                held.vcpus,
                held.memory_bytes,
                already_running=True,
                pending=not held.settled,
                needs=held.needs,
                high_availability=held.high_availability,
            )
            self.vm_ids_by_host[held.host][held.vm_id] = None
        for copy in sorted(self.copies.values(), key=lambda item: item.key):
            self._book_copy(copy, already_held=True)

    # ------------------------------------------------------------------ hosts

    def join(self, joined: m.HostJoined, status: str) -> None:
        name = joined.host
        facts = self.hosts.setdefault(name, HostFacts(agent=joined.agent))
        facts.agent, facts.boot_id = joined.agent, joined.boot_id
        facts.status = status or facts.status
        self.vm_ids_by_host.setdefault(name, {})
        self.copy_keys_by_host.setdefault(name, {})
        if name not in self.table:
            self.table.add_host(
                name, cpus=joined.cpus, memory_bytes=joined.memory_bytes, usable=joined.usable
            )
        self.table.update_host(
            name,
            usable=joined.usable,
            cpus=joined.cpus,
            memory_bytes=joined.memory_bytes,
            cpu_model=joined.cpu_model,
            features=joined.features,
            profile=joined.profile,
        )

    def leave(self, host: str) -> None:
        self.table.remove_host(host)
        del self.hosts[host], self.vm_ids_by_host[host], self.copy_keys_by_host[host]

    def is_up(self, host: str) -> bool:
        return host in self.table and self.table.usable[self.table.slot_of(host)]

    def is_lost(self, host: str) -> bool:
        facts = self.hosts.get(host)
        return facts is None or facts.status in LOST_STATUSES

    def does(self, host: str, feature: str) -> bool:
        return host in self.table and feature in self.table.features[self.table.slot_of(host)]

    # ------------------------------------------------------------------ rows

    def rows_on(self, host: str) -> list[Row]:
        """Everything that is held on the host, machines before copies."""
        held = [self.reservations[vm_id] for vm_id in self.vm_ids_by_host.get(host, {})]
        return [*map(_row, held), *(_row(copy) for copy in self.copies_on(host))]

    def copies_on(self, host: str) -> list[CopyRecord]:
        return [self.copies[key] for key in self.copy_keys_by_host.get(host, {})]

    def copies_of(self, vm_id: str) -> list[CopyRecord]:
        return [self.copies[key] for key in self.copy_keys_by_vm.get(vm_id, {})]

    def is_empty(self, host: str) -> bool:
        return not self.vm_ids_by_host.get(host) and not self.copy_keys_by_host.get(host)

    def held_hosts(self, vm_id: str) -> tuple[str, ...]:
        """The hosts on which a copy that is not the machine has not ended."""
        return tuple(copy.host for copy in self.copies_of(vm_id)) if vm_id in self.copy_keys_by_vm else ()

    def take(self, held: ReservationRecord, turn: Turn) -> None:
        """Promise capacity for the machine itself."""
        assert held.vm_id not in self.reservations, f"{held.vm_id} holds capacity already"
        self.table.reserve(
            held.vm_id,
            held.host,
            held.vcpus,
            held.memory_bytes,
            needs=held.needs,
            high_availability=held.high_availability,
        )
        self.reservations[held.vm_id] = held
        self.vm_ids_by_host[held.host][held.vm_id] = None
        # The row of an earlier attempt has the same key: a turn that writes a key must not erase it too.
        turn.erased[:] = [row for row in turn.erased if getattr(row, "vm_id", "") != held.vm_id]
        turn.save(held)
        self._keep_turn(turn)

    def take_copy(self, copy: CopyRecord, turn: Turn) -> None:
        self._book_copy(copy, already_held=False)
        self.copies[copy.key] = copy
        turn.save(copy)
        self._keep_turn(turn)

    def _keep_turn(self, turn: Turn) -> None:
        """Of a policy that needs it, as each of these costs the cluster's own record."""
        if self.policy.selector == "RoundRobin":
            self.record.turn_host = self.table.turn_host
            turn.save(self.record)

    def _book_copy(self, copy: CopyRecord, *, already_held: bool) -> None:
        self.table.reserve(
            copy.vm_id,
            copy.host,
            copy.vcpus,
            copy.memory_bytes,
            already_running=already_held,
            needs=copy.needs,
            high_availability=copy.high_availability,
        )
        self._index_copy(copy)

    def _index_copy(self, copy: CopyRecord) -> None:
        self.copy_keys_by_host[copy.host][copy.key] = None
        self.copy_keys_by_vm.setdefault(copy.vm_id, {})[copy.key] = None

    def release(self, vm_id: str, epoch: int, turn: Turn) -> Row | None:
        """Give back whichever row has that epoch; None: there is none, it was given back before."""
        held = self.reservations.get(vm_id)
        if held is not None and held.epoch == epoch:
            self.table.release(vm_id, held.host)
            del self.reservations[vm_id]
            del self.vm_ids_by_host[held.host][vm_id]
            turn.erase(held)
            return _row(held)
        copy = self.copies.get(f"{vm_id}/{epoch}")
        if copy is None:
            return None
        self.table.release(vm_id, copy.host)
        self._drop_copy(copy, turn)
        return _row(copy)

    def resize(self, message: m.ResizeVm, turn: Turn) -> str | None:
        """Hold as much for the copy of that epoch as is said; why not, if it was asked and does not fit."""
        held = self.reservations.get(message.vm_id)
        row: ReservationRecord | CopyRecord | None = held
        if held is None or held.epoch != message.epoch:
            row = self.copies.get(f"{message.vm_id}/{message.epoch}")
        if row is None:
            return "it holds no host any more"
        is_told = not message.operation_id
        try:
            self.table.resize(
                row.vm_id, row.host, message.vcpus, message.memory_bytes, already_running=is_told
            )
        except NoCapacity as error:
            return error.message
        row.vcpus, row.memory_bytes = message.vcpus, message.memory_bytes
        turn.save(row)
        return None

    def _drop_copy(self, copy: CopyRecord, turn: Turn) -> None:
        del self.copies[copy.key]
        del self.copy_keys_by_host[copy.host][copy.key]
        keys = self.copy_keys_by_vm[copy.vm_id]
        del keys[copy.key]
        if not keys:
            del self.copy_keys_by_vm[copy.vm_id]
        turn.erase(copy)

    def promote(self, copy: CopyRecord, turn: Turn) -> CopyRecord | None:
        """The copy becomes the machine; what was the machine becomes a copy that waits for its release.

        No capacity moves: both rows stay in the table. The answer is the new copy, None if there was no machine.
        """
        old = self.reservations.get(copy.vm_id)
        self._drop_copy(copy, turn)
        source = None if old is None else _source_of(old, turn.now_ns)
        if old is not None and source is not None:
            del self.vm_ids_by_host[old.host][old.vm_id]
            self.copies[source.key] = source
            self._index_copy(source)
            turn.save(source)
        held = _machine_of(copy, turn.now_ns)
        self.reservations[copy.vm_id] = held
        self.vm_ids_by_host[held.host][held.vm_id] = None
        turn.save(held)
        return source

    # ------------------------------------------------------------------ views for planners

    def place_of(self, vm_id: str) -> tuple[str, ...]:
        """Where the machine is or will be, that first; a copy that has handed over is nowhere."""
        held = self.reservations.get(vm_id)
        hosts = [held.host] if held is not None else []
        for copy in self.copies_of(vm_id) if vm_id in self.copy_keys_by_vm else ():
            if copy.kind != "source":
                hosts.insert(0, copy.host)
        return tuple(hosts)

    def places(self, vm_ids: list[str]) -> Places:
        return {vm_id: hosts for vm_id in vm_ids if (hosts := self.place_of(vm_id))}

    def machine(self, held: ReservationRecord, *, movable: bool) -> Machine:
        """Reports carry no load per machine: each has its part of its host's by its vCPUs."""
        table = self.table
        slot = table.slot_of(held.host)
        load = table.thread_load_percent[slot] * held.vcpus // max(1, table.reserved_cpus[slot])
        return Machine(
            vm_id=held.vm_id,
            name=held.vm_name,
            host=held.host,
            vcpus=held.vcpus,
            memory_need_bytes=memory_need_of(
                vcpus=held.vcpus, memory_bytes=held.memory_bytes, needs=held.needs
            ),
            load=load,
            movable=movable,
        )


def _row(record: ReservationRecord | CopyRecord) -> Row:
    return Row(
        vm_id=record.vm_id,
        vm_name=record.vm_name,
        vm_address=record.vm_address,
        host=record.host,
        epoch=record.epoch,
        priority=record.priority,
    )


def _source_of(old: ReservationRecord, now_ns: int) -> CopyRecord:
    return CopyRecord(
        key=f"{old.vm_id}/{old.epoch}",
        vm_id=old.vm_id,
        vm_name=old.vm_name,
        vm_address=old.vm_address,
        cluster=old.cluster,
        host=old.host,
        epoch=old.epoch,
        vcpus=old.vcpus,
        memory_bytes=old.memory_bytes,
        kind="source",
        created_ns=now_ns,
        boot_id=old.boot_id,
        priority=old.priority,
        high_availability=old.high_availability,
        leased=old.leased,
        needs=old.needs,
    )


def _machine_of(copy: CopyRecord, now_ns: int) -> ReservationRecord:
    return ReservationRecord(
        vm_id=copy.vm_id,
        vm_name=copy.vm_name,
        vm_address=copy.vm_address,
        cluster=copy.cluster,
        host=copy.host,
        epoch=copy.epoch,
        vcpus=copy.vcpus,
        memory_bytes=copy.memory_bytes,
        created_ns=now_ns,
        priority=copy.priority,
        high_availability=copy.high_availability,
        leased=copy.leased,
        boot_id=copy.boot_id,
        pinned_hosts=copy.pinned_hosts,
        needs=copy.needs,
    )
