"""Second copies of machines: where a migration or a takeover goes, and how many migrations a host takes part in.

Rules:
1. A migration is refused only with a reason that waiting does not mend; taken slots mean "wait", and the machine is
   told when one is free, in the order of asking.
2. A takeover takes no slot: its host is silent, and nothing is copied from there.
3. Asked again with the same epoch the answer is the same; an older epoch than a copy's that is there is late.
4. A migration whose source or target is lost holds no slot: nobody knows when it ends.
"""

from __future__ import annotations

import msgspec

from actors.behaviour import Turn
from actors.cluster_book import Book
from olvm.model import messages as m
from olvm.model.config import Config
from olvm.model.errors import BadInput
from olvm.model.limits import NS_PER_S
from olvm.model.migration_policies import MigrationPolicy, migration_policy_named
from olvm.model.records import CopyRecord
from olvm.scheduling.filters import MIGRATION_FEATURE
from olvm.scheduling.request import VmRequest
from olvm.scheduling.scheduler import NoPlacement, Placement, candidate_hosts, place, rejection

# A machine that waits for a target's slot remembers this many targets; any of them wakes it.
TARGETS_REMEMBERED_MAX = 64
# A machine that has not asked again for this many retry periods has given up without saying so.
RETRIES_MISSED_MAX = 3


class Waiting(msgspec.Struct, kw_only=True):
    """A machine that was deferred. `targets` empty: any host would do once its source has a slot."""

    address: str
    epoch: int  # of the copy it asks for
    source: str
    targets: tuple[str, ...]
    asked_ns: int


class Slots(msgspec.Struct, kw_only=True):
    """Migrations under way by host, in each direction."""

    outgoing: dict[str, int] = {}
    incoming: dict[str, int] = {}

    def add(self, source: str, target: str) -> None:
        self.outgoing[source] = self.outgoing.get(source, 0) + 1
        self.incoming[target] = self.incoming.get(target, 0) + 1


class Copies:
    def __init__(self, book: Book) -> None:
        self.book = book
        # Volatile, in order of asking: every machine in it asks again by itself within migration_retry_s.
        self.waiting: dict[str, Waiting] = {}

    # ------------------------------------------------------------------ slots

    def slots(self) -> Slots:
        """Rule 4. Cost: O(copies), of which there are at most some per host."""
        slots = Slots()
        for copy in self.book.copies.values():
            if copy.kind != "migration":
                continue
            if not self.book.is_lost(copy.host) and not self.book.is_lost(copy.from_host):
                slots.add(copy.from_host, copy.host)
        return slots

    def wake(self, source: str, target: str, turn: Turn) -> None:
        """A migration between these hosts is over: tell those who waited for it, first come, first served."""
        if not self.waiting:
            return
        slots, config = self.slots(), turn.config
        oldest_ns = turn.now_ns - int(RETRIES_MISSED_MAX * config.migration_retry_s * NS_PER_S)
        for vm_id, waiting in list(self.waiting.items()):
            if waiting.asked_ns < oldest_ns:
                del self.waiting[vm_id]
                continue
            targets = waiting.targets or (target,)
            if waiting.source != source and target not in targets:
                continue
            entry = _first_free(targets, slots, config) if waiting.targets else ""
            if entry is None or slots.outgoing.get(waiting.source, 0) >= config.migrations_outgoing_max:
                continue
            slots.add(waiting.source, entry)
            del self.waiting[vm_id]
            turn.send(waiting.address, m.SlotFree())
            turn.sometimes("migration_slot_freed_for_a_waiting_machine")

    def wake_machine(self, vm_id: str, turn: Turn) -> None:
        """A copy of it that stood in its own way is over."""
        waiting = self.waiting.pop(vm_id, None)
        if waiting is not None:
            turn.send(waiting.address, m.SlotFree())

    def give_up(self, vm_id: str, epoch: int) -> None:
        """The machine wants no copy of that epoch any more."""
        if vm_id in self.waiting and self.waiting[vm_id].epoch == epoch:
            del self.waiting[vm_id]

    # ------------------------------------------------------------------ placing

    def on_place_copy(self, ask: m.PlaceCopy, request: VmRequest, turn: Turn) -> None:
        """`request` carries what the cluster knows of the machine's affinity and of its other copies."""
        book = self.book
        known = book.copies.get(f"{ask.vm_id}/{ask.epoch}")
        if known is not None:
            turn.sometimes("copy_asked_for_twice")
            turn.reply(self._answer(known))
            return
        if self._is_late(ask):
            return
        held = book.reservations.get(ask.vm_id)
        if held is None or held.host != ask.current_host:
            where = f"it is on {held.host}" if held is not None else "it holds no host"
            self._refuse(ask, f"{ask.vm_name} is not on {ask.current_host}: {where}", turn)
        elif ask.kind == "takeover":
            self._place_takeover(ask, request, turn)
        else:
            self._place_migration(ask, request, turn)

    def _is_late(self, ask: m.PlaceCopy) -> bool:
        held = self.book.reservations.get(ask.vm_id)
        newest = max((copy.epoch for copy in self.book.copies_of(ask.vm_id)), default=0)
        return newest > ask.epoch or (held is not None and held.epoch >= ask.epoch)

    def _refuse(self, ask: m.PlaceCopy, reason: str, turn: Turn) -> None:
        self.waiting.pop(ask.vm_id, None)
        turn.reply(m.CopyNotPlaced(ask.epoch, reason))

    def _place_takeover(self, ask: m.PlaceCopy, request: VmRequest, turn: Turn) -> None:
        outcome = place(self.book.table, request, self.book.policy)
        if isinstance(outcome, NoPlacement):
            self._refuse(ask, outcome.reason, turn)
        else:
            self._take(ask, outcome.host, "", 0.0, turn)

    def _place_migration(self, ask: m.PlaceCopy, request: VmRequest, turn: Turn) -> None:
        if self._still_leaves(ask):
            self._defer(
                ask, (ask.to_host,), f"{ask.to_host} has not said that the copy which left it has ended", turn
            )
            return
        reason = self._preflight(ask, request)
        if reason is not None:
            self._refuse(ask, reason, turn)
            return
        migration = migration_policy_named(ask.migration_policy or self.book.record.migration_policy)
        slots, config = self.slots(), turn.config
        incoming_max = min(config.migrations_incoming_max, migration.concurrent_max)
        outgoing_max = min(config.migrations_outgoing_max, migration.concurrent_max)
        leaving = slots.outgoing.get(ask.current_host, 0)
        full = tuple(host for host, count in slots.incoming.items() if count >= incoming_max)
        target = self._target(ask, request, full)
        if isinstance(target, NoPlacement):
            self._refuse(ask, target.reason, turn)
        elif leaving >= outgoing_max:
            why = f"{leaving} migrations leave {ask.current_host} already (at most {outgoing_max})"
            self._defer(ask, (ask.to_host,) if ask.to_host else (), why, turn)
        elif target is None:
            fitting = (
                [ask.to_host] if ask.to_host else candidate_hosts(self.book.table, request, self.book.policy)
            )
            some = ", ".join(fitting[:3]) + (", …" if len(fitting) > 3 else "")
            why = f"as many migrations as may at once ({incoming_max}) go to {some} already"
            self._defer(ask, tuple(fitting[:TARGETS_REMEMBERED_MAX]), why, turn)
        else:
            self._take(ask, target, migration.name, self._bandwidth_mib_s(migration, config), turn)

    def _target(
        self, ask: m.PlaceCopy, request: VmRequest, full: tuple[str, ...]
    ) -> str | NoPlacement | None:
        """None: there are hosts for it, and each takes part in as many migrations as it may."""
        table, policy = self.book.table, self.book.policy
        if ask.to_host:
            return None if ask.to_host in full else ask.to_host
        excluded = (*request.excluded_hosts, *full)
        outcome = place(table, msgspec.structs.replace(request, excluded_hosts=excluded), policy)
        if isinstance(outcome, Placement):
            return outcome.host
        # Whether waiting for a slot would help at all.
        outcome = place(table, request, policy) if full else outcome
        return outcome if isinstance(outcome, NoPlacement) else None

    def _still_leaves(self, ask: m.PlaceCopy) -> bool:
        """It is to go back to where it has just come from, and that host has not said its end: a matter of moments."""
        return any(
            copy.host == ask.to_host and copy.kind == "source" and not self.book.is_lost(copy.host)
            for copy in self.book.copies_of(ask.vm_id)
        )

    def _preflight(self, ask: m.PlaceCopy, request: VmRequest) -> str | None:
        """Why this machine can go nowhere from its host, or not to the host that was named; None: it can."""
        book = self.book
        if not book.does(ask.current_host, MIGRATION_FEATURE):
            return f"host {ask.current_host}, where {ask.vm_name} runs, does no live migration"
        if ask.migration_policy:
            try:
                migration_policy_named(ask.migration_policy)
            except BadInput as error:
                return error.message
        if not ask.to_host:
            return None
        if ask.to_host not in book.table:
            return (
                f"host {ask.to_host} is not in cluster {book.record.name}, so {ask.vm_name} cannot go there"
            )
        rejected = rejection(book.table, request, book.policy, ask.to_host)
        if rejected is None:
            return None
        unit, reason = rejected
        return f"{ask.vm_name} cannot go to {ask.to_host}: {unit} rejects it: {reason}"

    def _defer(self, ask: m.PlaceCopy, targets: tuple[str, ...], why: str, turn: Turn) -> None:
        turn.sometimes("migration_waits_for_a_slot")
        waiting = Waiting(
            address=turn.sender,
            epoch=ask.epoch,
            source=ask.current_host,
            targets=targets,
            asked_ns=turn.now_ns,
        )
        # Assigning keeps the place of a machine that waits already.
        self.waiting[ask.vm_id] = waiting
        turn.reply(
            m.CopyNotPlaced(ask.epoch, f"{ask.vm_name} waits for a migration slot: {why}", deferred=True)
        )

    def _take(self, ask: m.PlaceCopy, target: str, policy: str, bandwidth_mib_s: float, turn: Turn) -> None:
        copy = CopyRecord(
            key=f"{ask.vm_id}/{ask.epoch}",
            vm_id=ask.vm_id,
            vm_name=ask.vm_name,
            vm_address=turn.sender,
            cluster=self.book.record.name,
            host=target,
            epoch=ask.epoch,
            vcpus=ask.vcpus,
            memory_bytes=ask.memory_bytes,
            kind=ask.kind,
            from_host=ask.current_host,
            reason=ask.reason,
            created_ns=turn.now_ns,
            boot_id=self.book.hosts[target].boot_id,
            migration_policy=policy,
            bandwidth_mib_s=bandwidth_mib_s,
            pinned_hosts=ask.pinned_hosts,
            priority=ask.priority,
            high_availability=ask.high_availability,
            leased=ask.leased,
            needs=ask.needs,
        )
        self.waiting.pop(ask.vm_id, None)
        self.book.take_copy(copy, turn)
        turn.reply(self._answer(copy))

    def _answer(self, copy: CopyRecord) -> m.CopyPlaced:
        agent = self.book.hosts[copy.host].agent
        return m.CopyPlaced(
            copy.epoch, copy.host, agent, copy.boot_id, copy.migration_policy, copy.bandwidth_mib_s
        )

    def _bandwidth_mib_s(self, migration: MigrationPolicy, config: Config) -> float:
        """A cluster's figure is a host's, shared by as many as may run at once; the configuration's is of one."""
        host_mib_s = self.book.record.migration_bandwidth_mib_s
        if not host_mib_s:
            return config.migration_bandwidth_mib_s
        return host_mib_s / min(migration.concurrent_max, config.migrations_outgoing_max)


def _first_free(targets: tuple[str, ...], slots: Slots, config: Config) -> str | None:
    for target in targets:
        if slots.incoming.get(target, 0) < config.migrations_incoming_max:
            return target
    return None
