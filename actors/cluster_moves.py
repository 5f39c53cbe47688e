"""What the cluster moves of its own accord: balancing, affinity enforcement, and the check of HA reservation.

The rules are pure (`olvm.scheduling`); here is what they are fed with and who is told.

Rules:
1. A machine that the cluster moved, or tried to, stays for `balance_rest_s`: no rule passes it to another and back.
2. Balancing never makes a machine's affinity worse, and enforcement looks at nothing else, so the two agree in the
   end.
3. A move is a wish: the machine asks for its place like any other, and what has changed since counts then.
"""

from __future__ import annotations

from actors.behaviour import Turn
from actors.cluster_affinity import Groups
from actors.cluster_book import Book
from actors.cluster_copies import Copies
from actors.cluster_drain import Drains
from olvm.model import messages as m
from olvm.model.limits import NS_PER_S
from olvm.model.records import ReservationRecord
from olvm.scheduling.affinity import Affinity
from olvm.scheduling.balancing import balance
from olvm.scheduling.enforcement import enforcement_moves
from olvm.scheduling.filters import MIGRATION_FEATURE
from olvm.scheduling.ha_reservation import ha_shortfalls
from olvm.scheduling.moves import Budget, FleetView, Machine, Move
from olvm.scheduling.request import VmRequest
from olvm.scheduling.scheduler import best_of, candidate_hosts, rejection
from olvm.scheduling.units import HIGH_UTILIZATION, HIGH_UTILIZATION_FOR_SCHEDULING


class Moves:
    def __init__(self, book: Book, copies: Copies, groups: Groups, drains: Drains) -> None:
        self.book = book
        self.copies = copies
        self.groups = groups
        self.drains = drains
        self.resting_until_ns: dict[str, int] = {}  # by machine; volatile

    def begin(self, turn: Turn) -> None:
        """Start the periodic work: of a new cluster, and after each start of the silo."""
        config = turn.config
        turn.wake_each("balance", config.balance_period_s)
        turn.wake_each("affinity", config.affinity_period_s)
        turn.wake_each("ha_reservation", config.ha_reservation_period_s)

    def on_tick(self, name: str, turn: Turn) -> None:
        config = turn.config
        match name:
            case "balance":
                self._balance(turn)
                turn.wake_each(name, config.balance_period_s)
            case "affinity":
                self._enforce(turn)
                turn.wake_each(name, config.affinity_period_s)
            case "ha_reservation":
                self._check_ha_reservation(turn)
                turn.wake_each(name, config.ha_reservation_period_s)
            case _:
                raise AssertionError(f"the cluster has no timer {name}")

    def note_load(self, host: str, now_ns: int) -> None:
        """Called with each report: since when the host has been over HighUtilization without a break."""
        book = self.book
        high = dict(book.policy.parameters).get(HIGH_UTILIZATION.name, HIGH_UTILIZATION_FOR_SCHEDULING)
        slot = book.table.slot_of(host)
        over = book.table.thread_load_percent[slot] > high * book.table.cpus[slot]
        facts = book.hosts[host]
        if over or facts.over_since_ns:
            facts.over_since_ns = (facts.over_since_ns or now_ns) if over else 0
            over_s = (now_ns - facts.over_since_ns) / NS_PER_S if over else 0.0
            book.table.update_host(host, over_utilized_s=over_s)

    # ------------------------------------------------------------------ who may move

    def _movable(self, held: ReservationRecord, now_ns: int) -> bool:
        """Not while a machine that it shares a group with is on its way: where that belongs is open until it is there,
        and two rules that each move one of them would swap them for ever."""
        return (
            held.settled
            and self.book.does(held.host, MIGRATION_FEATURE)
            and not self.drains.is_leaving(held.vm_id)
            and self.resting_until_ns.get(held.vm_id, 0) <= now_ns
            and not any(self.drains.is_leaving(other) for other in self.groups.companions(held.vm_id))
        )

    def request(self, held: ReservationRecord, affinity: Affinity | None) -> VmRequest:
        table = self.book.table
        return VmRequest(
            vm_id=held.vm_id,
            name=held.vm_name,
            vcpus=held.vcpus,
            memory_bytes=held.memory_bytes,
            pinned_hosts=tuple(held.pinned_hosts),
            current_host=held.host,
            held_hosts=self.book.held_hosts(held.vm_id),
            high_availability=held.high_availability,
            live=True,
            cpu_model=table.cpu_model[table.slot_of(held.host)],
            leased=held.leased,
            affinity=affinity,
            needs=held.needs,
            priority=held.priority,
        )

    def _budget(self, turn: Turn) -> Budget:
        slots, config = self.copies.slots(), turn.config
        for told in self.drains.told.values():
            slots.add(told.from_host, told.to_host)
        return Budget(
            config.balance_moves_max,
            outgoing_max=config.migrations_outgoing_max,
            incoming_max=config.migrations_incoming_max,
            outgoing=slots.outgoing,
            incoming=slots.incoming,
        )

    def _tell(self, move: Move, reason: m.MoveReason, turn: Turn) -> None:
        held = self.book.reservations[move.vm_id]
        self.resting_until_ns[move.vm_id] = turn.now_ns + int(turn.config.balance_rest_s * NS_PER_S)
        self.drains.tell(held, reason, move.to_host, turn)
        turn.record(
            f"vm_move_{reason}",
            f"machine {held.vm_name} is to move from {move.from_host} to {move.to_host}: {move.why}",
            vm_id=held.vm_id,
            vm_name=held.vm_name,
            host=move.from_host,
            cluster=self.book.record.name,
        )

    def _forget_rested(self, turn: Turn) -> None:
        self.drains.forget_silent(turn)
        self.resting_until_ns = {
            vm_id: until_ns for vm_id, until_ns in self.resting_until_ns.items() if until_ns > turn.now_ns
        }

    # ------------------------------------------------------------------ balancing

    def _balance(self, turn: Turn) -> None:
        book = self.book
        self._forget_rested(turn)
        if book.policy.balancer == "None" or book.record.power != "running":
            return
        for move in balance(self._view(turn)):
            turn.sometimes("balancer_moves_a_machine")
            self._tell(move, "balancing", turn)

    def _view(self, turn: Turn) -> FleetView:
        book, now_ns = self.book, turn.now_ns
        machines: dict[str, list[Machine]] = {}
        for held in book.reservations.values():
            machines.setdefault(held.host, []).append(book.machine(held, movable=self._movable(held, now_ns)))
        slots = self.copies.slots()
        for told in self.drains.told.values():
            slots.add(told.from_host, told.to_host)
        busy = [*slots.outgoing, *slots.incoming, *self.drains.drains]
        over_s = {
            host: (now_ns - facts.over_since_ns) / NS_PER_S
            for host, facts in book.hosts.items()
            if facts.over_since_ns
        }
        return FleetView(
            table=book.table,
            policy=book.policy,
            machines_by_host=machines,
            budget=self._budget(turn),
            accepts=_Acceptance(self).accepts,
            over_s=over_s,
            busy_hosts=frozenset(busy),
        )

    # ------------------------------------------------------------------ affinity

    def _enforce(self, turn: Turn) -> None:
        groups, book = self.groups.groups, self.book
        if not groups:
            return
        self.groups.note_broken(turn)
        if book.record.power != "running":
            return
        members = [vm_id for group in groups for vm_id in group.name_by_vm]
        moves = enforcement_moves(
            groups,
            book.places(members),
            movable=lambda vm_id: (
                vm_id in book.reservations and self._movable(book.reservations[vm_id], turn.now_ns)
            ),
            targets_of=self._targets,
            is_up=book.is_up,
            budget=self._budget(turn),
        )
        for move in moves:
            turn.sometimes("affinity_enforcement_moves_a_machine")
            self._tell(move, "affinity", turn)

    def _targets(self, vm_id: str, affinity: Affinity) -> list[str]:
        """Every host that the filters leave, the policy's favourite first."""
        book = self.book
        held = book.reservations[vm_id]
        if held.host in self.drains.drains or not book.is_up(held.host):
            return []
        request = self.request(held, affinity)
        hosts = candidate_hosts(book.table, request, book.policy)
        return [best_of(book.table, request, book.policy, hosts), *hosts] if hosts else []

    # ------------------------------------------------------------------ HA reservation

    def _check_ha_reservation(self, turn: Turn) -> None:
        book, record = self.book, self.book.record
        if not record.ha_reservation or record.power != "running":
            return
        machines: dict[str, list[Machine]] = {}
        for held in book.reservations.values():
            if held.high_availability:
                machines.setdefault(held.host, []).append(book.machine(held, movable=False))
        short = ha_shortfalls(book.table, machines)
        if bool(short) == record.ha_reservation_broken:
            return
        record.ha_reservation_broken = bool(short)
        turn.save(record)
        if not short:
            text = f"cluster {record.name}: the machines of any one host would find room elsewhere again"
            turn.record("cluster_ha_reservation_mended", text, cluster=record.name)
            return
        turn.sometimes("ha_reservation_is_broken")
        first = short[0]
        text = (
            f"cluster {record.name}: if host {first.host} were lost, {len(first.machines)} of its highly available "
            f"machines ({', '.join(first.machines[:3])}) would find no room; {len(short)} hosts are like that. "
            "Add a host or stop machines"
        )
        turn.record("cluster_ha_reservation_broken", text, "alert", host=first.host, cluster=record.name)


class _Acceptance:
    """Rule 2 and the filters, with each machine's request worked out once a plan."""

    def __init__(self, moves: Moves) -> None:
        self._moves = moves
        self._request_by_vm: dict[str, VmRequest] = {}

    def accepts(self, vm_id: str, host: str) -> bool:
        moves = self._moves
        book = moves.book
        request = self._request_by_vm.get(vm_id)
        if request is None:
            held = book.reservations[vm_id]
            request = moves.request(held, moves.groups.affinity_for(vm_id))
            self._request_by_vm[vm_id] = request
        affinity, current = request.affinity, request.current_host
        assert current is not None, "a machine that runs has a host"
        if affinity is not None and affinity.cost(host) > affinity.cost(current):
            return False
        return rejection(book.table, request, book.policy, host) is None
