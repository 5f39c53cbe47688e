"""The hosts of one cluster as columns, and what is booked on each.

It decides one thing: whether a booking fits. Rule: after `reserve` returns, what is reserved on that host
is within its capacity, VMs that are still starting included. Two things can overdraw a host, because the
world is as it is: a host that shrinks (`update_host`) and a VM found already running there, or larger than
it was booked (`already_running=True`). An overdrawn host takes nothing more until enough is released.

One slot index per host; a removed host's slot is handed to the next one added. Units read the columns
directly and never write them. Columns are lists, because the interpreter reads them about a third faster
than `array`; every cell is a whole number, so a compiled kernel may copy a column into `array("q")` as it
is. `_refresh` is the only place where derived columns change: an index over free capacity hooks in there.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

import msgspec

from olvm.model.errors import BadInput, Conflict, DuplicateName, NoCapacity, NotFound
from olvm.model.host_profile import NO_PROFILE, HostProfile
from olvm.model.placement_needs import PlacementNeeds
from olvm.scheduling.request import MIB, memory_need_of
from olvm.scheduling.resources import NOTHING_TAKEN, Claims, Taken, claims_of, is_resourceful
from olvm.scheduling.room import check_growth, check_room, check_size
from olvm.scheduling.rows import HostRow, Reservation, Watcher

HOST_MEMORY_RESERVE_BYTES = 256 * MIB  # kept for the host's own system (oVirt host_mem_reserve)
PENDING_VCPU_LOAD_PERCENT = 10  # assumed load of a vCPU not yet in a report (oVirt VcpuConsumptionPercentage)


class HostTable:
    """A columnar host table with reservations.

    Args:
        memory_overcommit_percent: share of a host's memory that may be promised; 100 promises what is there.
        cpu_overcommit_percent: limit of a host's total vCPUs as a share of its threads; 0 is no limit, as in
            oVirt, whose CPU filter only asks that no single VM has more vCPUs than the host has threads.
    """

    def __init__(self, *, memory_overcommit_percent: int = 100, cpu_overcommit_percent: int = 0) -> None:
        self.name: list[str] = []
        self.usable: list[bool] = []
        self.cpus: list[int] = []
        self.memory_bytes: list[int] = []
        self.cpu_load_percent: list[int] = []
        self.cpu_model: list[str] = []
        self.features: list[frozenset[str]] = []  # of its hypervisor: migration, watchdog
        self.profile: list[HostProfile] = []
        self.swap_used_percent: list[int] = []
        self.over_utilized_s: list[float] = []  # over HighUtilization for so long without a break
        # As the host measured it, swap included; -1: not known. Memory of VMs not yet seen there is not in it.
        self.measured_free_bytes: list[int] = []
        # The sums over this host's reservations; pending_cpus is the part of reserved_cpus that is pending.
        self.reserved_cpus: list[int] = []
        self.reserved_memory_bytes: list[int] = []
        self.pending_cpus: list[int] = []
        self.pending_memory_bytes: list[int] = []
        self.vm_count: list[int] = []
        self.ha_vm_count: list[int] = []
        self.taken: list[Taken] = []  # NOTHING_TAKEN, which nobody changes, until something is claimed
        # Derived by _refresh: what the next VM may take, and load in percent of one thread.
        self.memory_free_bytes: list[int] = []
        self.vcpus_max: list[int] = []
        self.thread_load_percent: list[int] = []
        self.shared_cpus: list[int] = []  # those that no VM has alone, at least 1
        # What may be promised there at all, set by _measure.
        self._capacity_bytes: list[int] = []
        self._vcpu_limit: list[int] = []
        # Both in order of host name, parallel to each other: candidates arrive in tie-break order for free.
        self.usable_slots: list[int] = []
        self._usable_names: list[str] = []
        self._slot_by_name: dict[str, int] = {}
        self._free_slots: list[int] = []
        self._reservations_by_vm: dict[str, tuple[Reservation, ...]] = {}
        self._watchers: dict[object, Watcher] = {}
        self.ha_reservation = False  # the cluster keeps room for its highly available VMs
        self.turn_host = ""  # of the newest booking that was a choice; it may be gone
        self.hosted_engine_need_bytes = 0  # of the machine that the engine runs in; 0: there is none
        self.set_overcommit(
            memory_overcommit_percent=memory_overcommit_percent, cpu_overcommit_percent=cpu_overcommit_percent
        )

    def __len__(self) -> int:
        return len(self._slot_by_name)

    def __contains__(self, host: str) -> bool:
        return host in self._slot_by_name

    def capacity_bytes(self, slot: int) -> int:
        """Memory that may be promised there when nothing is booked."""
        return self._capacity_bytes[slot]

    def slots(self) -> list[int]:
        """Every host's slot, usable or not, in order of host name. Cost: O(n log n)."""
        return [self._slot_by_name[name] for name in sorted(self._slot_by_name)]

    def all_slots(self) -> Iterable[int]:
        """The same in no order that means anything. Cost: nothing."""
        return self._slot_by_name.values()

    def taken_cpus(self, slot: int) -> int:
        """vCPUs booked there, and CPUs that somebody has alone."""
        return self.reserved_cpus[slot] + len(self.taken[slot].exclusive_cpus)

    def row(self, host: str) -> HostRow:
        slot = self._slot(host)
        return HostRow(
            name=host,
            usable=self.usable[slot],
            cpus=self.cpus[slot],
            memory_bytes=self.memory_bytes[slot],
            reserved_cpus=self.reserved_cpus[slot],
            pending_cpus=self.pending_cpus[slot],
            reserved_memory_bytes=self.reserved_memory_bytes[slot],
            memory_free_bytes=self.memory_free_bytes[slot],
            vm_count=self.vm_count[slot],
            cpu_load_percent=self.cpu_load_percent[slot],
        )

    def rows(self) -> list[HostRow]:
        """Every host in order of name."""
        return [self.row(name) for name in sorted(self._slot_by_name)]

    # Hosts

    def set_overcommit(self, *, memory_overcommit_percent: int, cpu_overcommit_percent: int) -> None:
        """Change the cluster's limits; what is already reserved stays, even above a lowered limit."""
        if memory_overcommit_percent <= 0 or cpu_overcommit_percent < 0:
            raise BadInput(
                f"memory overcommit {memory_overcommit_percent} % with CPU overcommit "
                f"{cpu_overcommit_percent} % cannot be set: memory must be above zero, CPU at least zero"
            )
        self.memory_overcommit_percent = memory_overcommit_percent
        self.cpu_overcommit_percent = cpu_overcommit_percent
        for slot in self._slot_by_name.values():
            self._measure(slot)
            self._refresh(slot)

    def add_host(
        self,
        name: str,
        *,
        cpus: int,
        memory_bytes: int,
        usable: bool = True,
        cpu_load_percent: float = 0,
        cpu_model: str = "",
        features: Iterable[str] = (),
        profile: HostProfile | None = None,
    ) -> None:
        """Add a host with nothing reserved. `cpus` are threads; usable means its status is Up."""
        if name in self._slot_by_name:
            raise DuplicateName(f"host {name} is already in this cluster's table: update it instead")
        check_size(name, cpus, memory_bytes)
        slot = self._free_slots.pop() if self._free_slots else self._new_slot()
        self._slot_by_name[name] = slot
        self.name[slot] = name
        self.cpus[slot] = cpus
        self.memory_bytes[slot] = memory_bytes
        self.cpu_load_percent[slot] = round(cpu_load_percent)
        self.cpu_model[slot] = cpu_model
        self.features[slot] = frozenset(features)
        self.profile[slot] = NO_PROFILE if profile is None else profile
        self.swap_used_percent[slot] = 0
        self.over_utilized_s[slot] = 0.0
        self.measured_free_bytes[slot] = -1
        self._measure(slot)
        self._refresh(slot)
        self._set_usable(slot, usable=usable)

    def update_host(
        self,
        name: str,
        *,
        usable: bool | None = None,
        cpus: int | None = None,
        memory_bytes: int | None = None,
        cpu_load_percent: float | None = None,
        cpu_model: str | None = None,
        features: Iterable[str] | None = None,
        profile: HostProfile | None = None,
        swap_used_percent: int | None = None,
        over_utilized_s: float | None = None,
        measured_free_bytes: int | None = None,
    ) -> None:
        """Change what is given. Load is kept as a whole percent, as oVirt reports it."""
        slot = self._slot(name)
        new_cpus = self.cpus[slot] if cpus is None else cpus
        new_memory_bytes = self.memory_bytes[slot] if memory_bytes is None else memory_bytes
        check_size(name, new_cpus, new_memory_bytes)
        self.cpus[slot] = new_cpus
        self.memory_bytes[slot] = new_memory_bytes
        if cpu_load_percent is not None:
            self.cpu_load_percent[slot] = round(cpu_load_percent)
        if cpu_model is not None:
            self.cpu_model[slot] = cpu_model
        if features is not None:
            self.features[slot] = frozenset(features)
        if profile is not None:
            self.profile[slot] = profile
        if swap_used_percent is not None:
            self.swap_used_percent[slot] = swap_used_percent
        if over_utilized_s is not None:
            self.over_utilized_s[slot] = over_utilized_s
        if measured_free_bytes is not None:
            self.measured_free_bytes[slot] = measured_free_bytes
        self._measure(slot)
        self._refresh(slot)
        if usable is not None:
            self._set_usable(slot, usable=usable)

    def remove_host(self, name: str) -> None:
        """Forget a host on which nothing is reserved."""
        slot = self._slot(name)
        if self.vm_count[slot]:
            raise Conflict(
                f"host {name} still holds {self.vm_count[slot]} VMs: migrate or stop them, then remove it"
            )
        self._set_usable(slot, usable=False)
        del self._slot_by_name[name]
        self.name[slot] = ""
        self._free_slots.append(slot)

    # Reservations

    def fits(self, host: str, *, vcpus: int, memory_bytes: int) -> bool:
        """Whether the host has room for a VM of this size, Up or not; `memory_bytes` is the guest's RAM."""
        slot = self._slot(host)
        need_bytes = memory_need_of(vcpus=vcpus, memory_bytes=memory_bytes)
        return vcpus <= self.vcpus_max[slot] and need_bytes <= self.memory_free_bytes[slot]

    def reserve(
        self,
        vm_id: str,
        host: str,
        vcpus: int,
        memory_bytes: int,
        *,
        already_running: bool = False,
        pending: bool | None = None,
        needs: PlacementNeeds | None = None,
        high_availability: bool = False,
    ) -> Reservation:
        """Book room for a VM. A migrating VM holds two reservations, on its source and on its destination.

        `already_running` books what a report or a record shows: nothing is refused for room or status, and
        unless `pending` says otherwise nothing is pending.

        Raises:
            Conflict: the host is not Up, or this VM already holds a reservation there.
            NoCapacity: it does not fit; nothing is changed.
        """
        slot = self._slot(host)
        held = self._reservations_by_vm.get(vm_id, ())
        if held and any(reservation.host == host for reservation in held):
            raise Conflict(f"VM {vm_id} already holds a reservation on host {host}: release that one first")
        need_bytes = memory_need_of(vcpus=vcpus, memory_bytes=memory_bytes, needs=needs)
        if not already_running:
            check_room(self, vm_id, slot, vcpus, need_bytes)
        claims = None
        if needs is not None and is_resourceful(needs):
            claims = self._claims(slot, vm_id, needs, vcpus, memory_bytes, anyway=already_running)
        reservation = Reservation(
            vm_id=vm_id,
            host=host,
            vcpus=vcpus,
            memory_bytes=memory_bytes,
            memory_need_bytes=need_bytes,
            pending=not already_running if pending is None else pending,
            high_availability=high_availability,
            needs=needs,
            claims=claims,
        )
        self._reservations_by_vm[vm_id] = (*held, reservation)
        self._book(slot, reservation, 1)
        if not already_running:
            self.turn_host = host
        return reservation

    def resize(
        self, vm_id: str, host: str, vcpus: int, memory_bytes: int, *, already_running: bool = False
    ) -> None:
        """Hold so much for a VM that holds something there. What is less than before always fits.

        The host need not be Up: the VM is there already. `already_running` as for `reserve`.

        Raises:
            NoCapacity: what it has more does not fit; names the host, the need and the room. Nothing is changed.
        """
        slot = self._slot(host)
        held = self._reservations_by_vm.get(vm_id, ())
        before = next((reservation for reservation in held if reservation.host == host), None)
        assert before is not None, f"VM {vm_id} holds nothing on host {host}"
        need_bytes = memory_need_of(vcpus=vcpus, memory_bytes=memory_bytes, needs=before.needs)
        after = msgspec.structs.replace(
            before, vcpus=vcpus, memory_bytes=memory_bytes, memory_need_bytes=need_bytes
        )
        if not already_running:
            check_growth(self, slot, before, after)
        if before.claims is not None and before.needs is not None:
            after = self._claimed_anew(slot, before, after, anyway=already_running)
        self._reservations_by_vm[vm_id] = tuple(after if one is before else one for one in held)
        self._book(slot, before, -1)
        self._book(slot, after, 1)

    def settle(self, vm_id: str, host: str | None = None) -> None:
        """The VM is seen Up (on `host`): the host's reports show its load, so it is no longer added to them."""
        held = self._reservations_by_vm.get(vm_id)
        if held is None:
            return
        now = []
        for reservation in held:
            settled = reservation
            if reservation.pending and host in (None, reservation.host):
                slot = self._slot_by_name[reservation.host]
                self.pending_cpus[slot] -= reservation.vcpus
                self.pending_memory_bytes[slot] -= reservation.memory_need_bytes
                self._refresh(slot)
                settled = msgspec.structs.replace(reservation, pending=False)
            now.append(settled)
        self._reservations_by_vm[vm_id] = tuple(now)

    def release(self, vm_id: str, host: str | None = None) -> int:
        """Give back what the VM holds, on one host or everywhere; returns how many reservations went.

        Nothing held is no error: a repeated release has no effect.
        """
        held = self._reservations_by_vm.get(vm_id, ())
        leaving = [reservation for reservation in held if host is None or reservation.host == host]
        staying = tuple(reservation for reservation in held if reservation not in leaving)
        for reservation in leaving:
            self._book(self._slot_by_name[reservation.host], reservation, -1)
        if staying:
            self._reservations_by_vm[vm_id] = staying
        else:
            self._reservations_by_vm.pop(vm_id, None)
        return len(leaving)

    def reservation(self, vm_id: str) -> Reservation | None:
        """The VM's newest reservation: where it starts or migrates to, else where it runs."""
        held = self._reservations_by_vm.get(vm_id)
        return held[-1] if held else None

    def reservations(self, vm_id: str) -> tuple[Reservation, ...]:
        """All that the VM holds, oldest first."""
        return self._reservations_by_vm.get(vm_id, ())

    def slot_of(self, host: str) -> int:
        """The row of the columns that the host has as long as it is in the table."""
        return self._slot(host)

    def watcher(self, key: object) -> Watcher | None:
        return self._watchers.get(key)

    def watch(self, key: object, watcher: Watcher) -> None:
        """Tell `watcher` of all hosts that are usable now and of all that changes from now on.

        Cost: one call for each usable host now, and one for each later change of one.
        """
        self._watchers[key] = watcher
        for slot in self.usable_slots:
            watcher.entered(slot)

    def forget_watchers(self) -> None:
        """After a change of policy: whoever is needed still comes back with the next decision."""
        self._watchers.clear()

    # Inside

    def _slot(self, host: str) -> int:
        slot = self._slot_by_name.get(host)
        if slot is None:
            raise NotFound(f"host {host} is not in this cluster's table: add it, or check its name")
        return slot

    def _new_slot(self) -> int:
        for column in (self.cpus, self.memory_bytes, self.cpu_load_percent, self.reserved_cpus):
            column.append(0)
        for column in (self.reserved_memory_bytes, self.pending_cpus, self.vm_count, self.ha_vm_count):
            column.append(0)
        for column in (self.pending_memory_bytes, self.swap_used_percent, self.measured_free_bytes):
            column.append(0)
        for column in (self._capacity_bytes, self._vcpu_limit):
            column.append(0)
        self.shared_cpus.append(1)
        self.over_utilized_s.append(0.0)
        self.profile.append(NO_PROFILE)
        self.taken.append(NOTHING_TAKEN)
        for column in (self.memory_free_bytes, self.vcpus_max, self.thread_load_percent):
            column.append(0)
        self.name.append("")
        self.cpu_model.append("")
        self.features.append(frozenset())
        self.usable.append(False)
        return len(self.name) - 1

    def _set_usable(self, slot: int, *, usable: bool) -> None:
        if self.usable[slot] == usable:
            return
        self.usable[slot] = usable
        at = bisect_left(self._usable_names, self.name[slot])
        if usable:
            self._usable_names.insert(at, self.name[slot])
            self.usable_slots.insert(at, slot)
        else:
            del self._usable_names[at]
            del self.usable_slots[at]
        for watcher in self._watchers.values():
            (watcher.entered if usable else watcher.left)(slot)

    def _book(self, slot: int, reservation: Reservation, sign: int) -> None:
        self.reserved_cpus[slot] += sign * reservation.vcpus
        self.reserved_memory_bytes[slot] += sign * reservation.memory_need_bytes
        self.vm_count[slot] += sign
        if reservation.high_availability:
            self.ha_vm_count[slot] += sign
        if reservation.claims is not None:
            if self.taken[slot] is NOTHING_TAKEN:
                self.taken[slot] = Taken()
            self.taken[slot].add(reservation.claims, sign)
        if reservation.pending:
            self.pending_cpus[slot] += sign * reservation.vcpus
            self.pending_memory_bytes[slot] += sign * reservation.memory_need_bytes
        assert self.vm_count[slot] >= 0, "released more VMs than were reserved"
        assert self.reserved_memory_bytes[slot] >= 0, "released more memory than was reserved"
        self._refresh(slot)

    def _claimed_anew(
        self, slot: int, before: Reservation, after: Reservation, *, anyway: bool
    ) -> Reservation:
        assert before.claims is not None, "it holds CPUs and memory alone"
        assert after.needs is not None, "what holds more has needs"
        taken = self.taken[slot]
        taken.add(before.claims, -1)
        try:
            claims = self._claims(
                slot, after.vm_id, after.needs, after.vcpus, after.memory_bytes, anyway=anyway
            )
        finally:
            taken.add(before.claims, 1)
        return msgspec.structs.replace(after, claims=claims)

    def _claims(
        self,
        slot: int,
        vm_id: str,
        needs: PlacementNeeds,
        vcpus: int,
        memory_bytes: int,
        *,
        anyway: bool,
    ) -> Claims:
        found = claims_of(
            self.profile[slot],
            self.taken[slot],
            needs,
            vcpus=vcpus,
            memory_bytes=memory_bytes,
            cpus=self.cpus[slot],
            anyway=anyway,
        )
        if isinstance(found, str):
            raise NoCapacity(f"VM {vm_id} cannot have host {self.name[slot]}: {found}: place it again")
        return found

    def _measure(self, slot: int) -> None:
        """After a change of what the host is, or of the cluster's limits: how much may be promised there."""
        memory_bytes = self.memory_bytes[slot] - self.profile[slot].huge_page_total_bytes
        promised_bytes = max(0, memory_bytes) * self.memory_overcommit_percent // 100
        self._capacity_bytes[slot] = promised_bytes - HOST_MEMORY_RESERVE_BYTES
        self._vcpu_limit[slot] = self.cpus[slot] * self.cpu_overcommit_percent // 100

    def _refresh(self, slot: int) -> None:
        """After a change of anything: the derived columns, and whoever watches."""
        cpus = room = self.cpus[slot]
        free_bytes = self._capacity_bytes[slot] - self.reserved_memory_bytes[slot]
        measured_bytes = self.measured_free_bytes[slot]
        if measured_bytes >= 0:
            free_bytes = min(free_bytes, measured_bytes - self.pending_memory_bytes[slot])
        self.memory_free_bytes[slot] = free_bytes
        taken = self.taken[slot]
        if taken is not NOTHING_TAKEN:
            room -= len(taken.exclusive_cpus)
        self.shared_cpus[slot] = room if room > 0 else 1
        if self.cpu_overcommit_percent:
            room = min(room, self._vcpu_limit[slot] - self.reserved_cpus[slot])
        self.vcpus_max[slot] = room
        self.thread_load_percent[slot] = (
            self.cpu_load_percent[slot] * cpus + PENDING_VCPU_LOAD_PERCENT * self.pending_cpus[slot]
        )
        if self._watchers and self.usable[slot]:
            for watcher in self._watchers.values():
                watcher.changed(slot)
