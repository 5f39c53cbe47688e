"""Both ends of a live migration as a host sees them; the engine's machine actor owns the migration as a whole.

The target prepares (lease first), waits, and tells of the machine's arrival by reporting it as running. The source
sends, watches, keeps to the policy's schedule, and tells the end. Rules:
1. The end of a migration is what the hypervisor says or lists, never what a lost answer suggests.
2. A source that has sent everything and lacks the other side's word stays paused (POSTMIGRATE) until told.
3. `to_epoch` of the last attempt stays in the record, so that a repeated order begins nothing anew.
"""

from __future__ import annotations

import msgspec

from actors.behaviour import Turn
from actors.convergence import AllowDowntime, next_help
from actors.host_agent_domains import (
    GIVEN_UP,
    HYPERVISOR,
    MIGRATION_PAUSES,
    DomainBook,
    is_migrating_away,
)
from actors.host_agent_leases import AgentLeases
from actors.host_agent_starts import LIST_AGAIN_S, AgentStarts, found_in, spec_of
from actors.hypervisor_port import FoundDomain
from hypervisor_backends.protocol import (
    CancelMigration,
    ChangeMigration,
    ExitReason,
    GetMigrationStatistics,
    ListDomains,
    MigrateDomain,
    MigrationStatistics,
    PrepareIncoming,
    StartPostCopy,
)
from olvm.model import messages as m
from olvm.model.migration_policies import MIGRATION_POLICIES, POLICY_BY_NAME, MigrationPolicy
from olvm.model.records import DomainRecord
from olvm.model.vm_states import QUALIFIED_TO_MIGRATE, VmStatus

MIB = 1024 * 1024
STOPPED = ("migration_stopped", "it was told to send no more")
LOST_END = "the migration ended while nobody listened; the machine still runs on its source"


def policy_of(domain: DomainRecord) -> MigrationPolicy:
    """The policy that was named; an engine newer than this agent may name one that is unknown here."""
    return POLICY_BY_NAME.get(domain.policy, MIGRATION_POLICIES[0])


class AgentMigrations:
    def __init__(self, book: DomainBook, leases: AgentLeases, starts: AgentStarts) -> None:
        self.book = book
        self.leases = leases
        self.starts = starts
        self.features: frozenset[str] = frozenset()
        # Why a migration failed, by machine, until the hypervisor has been asked how the machine stands now.
        self.failures: dict[str, tuple[str, str]] = {}
        self.watched: dict[str, None] = {}  # machines whose next look is due; volatile, as the timers are

    # ------------------------------------------------------------------ the target

    def prepare(self, message: m.PrepareIncoming, turn: Turn) -> None:
        known = self.book.domains.get(message.vm_id)
        if known is not None and known.epoch == message.epoch and not known.forgotten:
            self._prepared_already(known, turn)
            return
        if not self.starts.admits(message, "incoming", turn):
            return
        pending = "join" if message.leased else "incoming"
        domain = self.book.begin(message, VmStatus.MIGRATING_TO, pending, turn)
        domain.from_host = message.source_host
        if self.book.is_open:  # else opening prepares it
            self.receive(domain, turn)

    def _prepared_already(self, domain: DomainRecord, turn: Turn) -> None:
        if domain.status is not VmStatus.MIGRATING_TO or domain.pending == GIVEN_UP:
            self.book.report(domain, turn)
        elif not domain.pending and self.book.is_open:
            self._say_ready(domain, turn)

    def receive(self, domain: DomainRecord, turn: Turn) -> None:
        """Make room, or ask for it again: the answer was lost."""
        if domain.leased:
            domain.pending = "join"
            turn.save(domain)
            self.leases.join(domain, turn)
        else:
            self._ask_for_room(domain, turn)

    def on_joined(self, domain: DomainRecord, message: m.CallEnded, turn: Turn) -> None:
        if self.leases.may_go_on(domain, "join", message, turn):
            domain.pending = "incoming"
            turn.save(domain)
            self._ask_for_room(domain, turn)

    def _ask_for_room(self, domain: DomainRecord, turn: Turn) -> None:
        request = PrepareIncoming(vm_id=domain.vm_id, epoch=domain.epoch, spec=spec_of(domain))
        self.book.call(domain, request, "incoming", turn)

    def on_prepared(self, domain: DomainRecord, message: m.CallEnded, turn: Turn) -> None:
        if domain.status is not VmStatus.MIGRATING_TO or domain.pending != "incoming":
            return
        if message.ok:
            domain.pending = ""
            domain.to_uri = message.value.decode()
            turn.save(domain)
            self._say_ready(domain, turn)
        elif not message.outcome_known:
            turn.sometimes("agent_incoming_of_unknown_outcome")
            turn.wake(f"prepare/{domain.vm_id}", LIST_AGAIN_S)
        else:
            code = "lease_unreachable" if message.code == "lease_expired" else message.code
            self.book.never_began(domain, "incoming", code, message.value.decode(), turn)

    def prepare_again(self, vm_id: str, turn: Turn) -> None:
        domain = self.book.domains.get(vm_id)
        waits = domain is not None and domain.status is VmStatus.MIGRATING_TO and domain.pending == "incoming"
        if domain is not None and waits and not self.book.is_under_way(domain):
            self._ask_for_room(domain, turn)

    def _say_ready(self, domain: DomainRecord, turn: Turn) -> None:
        turn.send(domain.vm_address, m.IncomingReady(self.book.host, domain.epoch, domain.to_uri))

    # ------------------------------------------------------------------ the source

    def migrate(self, message: m.MigrateDomain, turn: Turn) -> None:
        book, domain = self.book, self.book.domains.get(message.vm_id)
        if domain is None or domain.epoch < message.epoch or domain.forgotten:
            reason = f"host {book.host} has no machine {message.vm_id} of epoch {message.epoch}"
            book.refuse(turn.sender, message.epoch, "migrate", "absent", reason, turn)
        elif message.epoch < domain.epoch:
            reason = (
                f"epoch {message.epoch} of {domain.name} is over: host {book.host} has seen {domain.epoch}"
            )
            book.refuse(turn.sender, message.epoch, "migrate", "stale_epoch", reason, turn)
        elif domain.status is VmStatus.DOWN or (
            is_migrating_away(domain) and message.to_epoch == domain.to_epoch
        ):
            book.report(domain, turn)
        elif refusal := self._refusal(domain, message):
            self._say_failed(domain, message.to_epoch, *refusal, turn)
        else:
            self._begin(domain, message, turn)

    def _refusal(self, domain: DomainRecord, message: m.MigrateDomain) -> tuple[str, str] | None:
        what = f"machine {domain.name} cannot leave host {self.book.host}"
        if not self.book.is_open:
            return "recovering", f"{what}: its agent is still starting; try again"
        if message.to_epoch <= domain.to_epoch:
            return "stale_epoch", f"{what}: that attempt (to epoch {message.to_epoch}) is over"
        if domain.status not in QUALIFIED_TO_MIGRATE or domain.pending or is_migrating_away(domain):
            return (
                "wrong_state",
                f"{what} while it is {domain.pending or domain.status}; wait for another status",
            )
        return None

    def _begin(self, domain: DomainRecord, message: m.MigrateDomain, turn: Turn) -> None:
        self.failures.pop(domain.vm_id, None)
        domain.status = VmStatus.MIGRATING_FROM
        domain.pause_code = ""
        domain.to_host = message.to_host
        domain.to_epoch = message.to_epoch
        domain.to_uri = message.uri
        domain.policy = message.policy
        domain.bandwidth_mib_s = message.bandwidth_mib_s or turn.config.migration_bandwidth_mib_s
        domain.schedule_step = 0
        turn.save(domain)
        policy = policy_of(domain)
        request = MigrateDomain(
            vm_id=domain.vm_id,
            epoch=domain.epoch,
            to_uri=domain.to_uri,
            to_epoch=domain.to_epoch,
            bandwidth_bytes_per_s=domain.bandwidth_mib_s * MIB,
            downtime_ms=policy.initial_downtime_ms,
            auto_converge=policy.auto_converge,
            post_copy="post_copy" in policy.last and "post_copy" in self.features,
        )
        self.book.asked[domain.vm_id] = None
        turn.call(HYPERVISOR, request, self._tag("migrate", domain))
        self.book.report(domain, turn)
        self.watch(domain, turn)

    def cancel(self, message: m.CancelMigration, turn: Turn) -> None:
        domain = self.book.domains.get(message.vm_id)
        if domain is None or domain.epoch != message.epoch or domain.forgotten:
            return  # what became of it has been told, or the engine asks
        if not self.book.is_open or domain.status is VmStatus.DOWN:
            self.book.report(domain, turn)
        elif is_migrating_away(domain):
            if message.to_epoch == domain.to_epoch:
                self.failures[domain.vm_id] = STOPPED
            self.book.call(domain, CancelMigration(vm_id=domain.vm_id), "cancel", turn)
        elif message.to_epoch:
            self._bar(domain, message.to_epoch, turn)
        else:
            self.book.report(domain, turn)

    def _bar(self, domain: DomainRecord, to_epoch: int, turn: Turn) -> None:
        """The order to begin this attempt will be refused, and what became of an earlier one does not change that."""
        if to_epoch > domain.to_epoch:
            domain.to_epoch = to_epoch
            turn.save(domain)
        self._say_failed(domain, to_epoch, *STOPPED, turn)

    def on_migrated(self, domain: DomainRecord, message: m.CallEnded, turn: Turn) -> None:
        """The hypervisor's answer to the migration as a whole. What else than success it means, the list tells."""
        if message.ok and message.value:
            self._say_measured(domain, msgspec.msgpack.decode(message.value, type=MigrationStatistics), turn)
        if not is_migrating_away(domain):
            return
        if message.ok:
            self.book.down(domain, ExitReason.MIGRATION_SUCCEEDED, f"migrated to host {domain.to_host}", turn)
            return
        if message.outcome_known:
            self.failures.setdefault(domain.vm_id, (message.code, message.value.decode()))
        self.book.call(domain, ListDomains(), "migration", turn)

    def settle(self, domain: DomainRecord, found: FoundDomain, turn: Turn) -> None:
        """The hypervisor lists a copy that was on its way out."""
        if found.status == "migrating_from":
            self.book.stand(domain, VmStatus.MIGRATING_FROM, "", turn)
            self.watch(domain, turn)
            return
        if found.status == "paused" and found.pause_code in MIGRATION_PAUSES:
            self.book.stand(domain, VmStatus.PAUSED, found.pause_code, turn)
            if found.pause_code == "POSTCOPY":
                self.watch(domain, turn)
            return
        if (
            domain.pause_code != "POSTMIGRATE"
        ):  # else it was told to go on here, and nobody waits for a failure
            code, reason = self.failures.pop(domain.vm_id, ("", LOST_END))
            if reason is LOST_END:
                turn.sometimes("agent_migration_failed_while_nobody_listened")
            self._say_failed(domain, domain.to_epoch, code, reason, turn)
        self.book.stand(domain, VmStatus(found.status), found.pause_code, turn)

    def _say_measured(self, domain: DomainRecord, end: MigrationStatistics, turn: Turn) -> None:
        """How long the guest stood still, which only its source has measured."""
        turn.record(
            "vm_handed_over",
            f"machine {domain.name} stood still for {end.expected_downtime_ms} ms when {self.book.host} handed it over",
            vm_id=domain.vm_id,
            vm_name=domain.name,
            host=domain.to_host,
            details={
                "from": self.book.host,
                "to": domain.to_host,
                "downtime_ms": end.expected_downtime_ms,
                "bytes": end.data_processed_bytes,
                "iterations": end.memory_iteration,
            },
        )

    def _say_failed(self, domain: DomainRecord, to_epoch: int, code: str, reason: str, turn: Turn) -> None:
        message = m.MigrationFailed(self.book.host, domain.epoch, to_epoch, reason, code)
        turn.send(domain.vm_address, message)

    def _tag(self, verb: str, domain: DomainRecord) -> str:
        """With the attempt: what is said of an earlier one comes too late."""
        return f"{verb}/{domain.vm_id}/{domain.epoch}/{domain.to_epoch}"

    # ------------------------------------------------------------------ while it copies

    def watch(self, domain: DomainRecord, turn: Turn) -> None:
        """See to it that somebody looks; whoever looks already is not put off, however often it is asked for."""
        if domain.vm_id in self.watched:
            return
        self.watched[domain.vm_id] = None
        turn.wake(f"monitor/{domain.vm_id}", turn.config.migration_monitor_period_s)

    def watch_all(self, turn: Turn) -> None:
        """Whatever a copy was taken for in between: while it is on its way out, somebody looks after it."""
        for domain in self.book.domains.values():
            if (
                domain.vm_id not in self.watched
                and is_migrating_away(domain)
                and domain.pause_code != "POSTMIGRATE"
            ):
                turn.sometimes("agent_finds_a_migration_that_nobody_looks_after")
                self.watch(domain, turn)

    def look(self, vm_id: str, turn: Turn) -> None:
        self.watched.pop(vm_id, None)
        domain = self.book.domains.get(vm_id)
        if domain is None or not is_migrating_away(domain) or domain.pause_code == "POSTMIGRATE":
            return
        turn.call(HYPERVISOR, GetMigrationStatistics(vm_id=vm_id), self._tag("statistics", domain))
        self.watch(domain, turn)

    def on_statistics(self, domain: DomainRecord, message: m.CallEnded, turn: Turn) -> None:
        if not is_migrating_away(domain):
            return
        if not message.ok:
            if message.outcome_known:  # there is none under way: its end was not heard
                self.book.call(domain, ListDomains(), "migration", turn)
            return
        now = msgspec.msgpack.decode(message.value, type=MigrationStatistics)
        turn.tell(
            domain.vm_address,
            m.MigrationProgressed(
                self.book.host,
                domain.epoch,
                domain.to_epoch,
                now.progress_percent,
                now.data_total_bytes,
                now.data_processed_bytes,
                now.data_remaining_bytes,
                now.memory_iteration,
                now.downtime_ms,
                now.post_copy,
            ),
        )
        if not now.post_copy:  # from there on there is no way but forward
            self._help(domain, now.memory_iteration, turn)

    def _help(self, domain: DomainRecord, memory_iteration: int, turn: Turn) -> None:
        due = next_help(policy_of(domain), domain.schedule_step, memory_iteration)
        if due is None:
            return
        domain.schedule_step += 1
        turn.save(domain)
        vm_id = domain.vm_id
        if isinstance(due, AllowDowntime):
            turn.sometimes("agent_allows_a_migration_more_downtime")
            self.book.call(
                domain, ChangeMigration(vm_id=vm_id, downtime_ms=due.downtime_ms), "converge", turn
            )
        elif due == "post_copy":
            if "post_copy" in self.features:
                turn.sometimes("agent_switches_a_migration_to_post_copy")
                self.book.call(domain, StartPostCopy(vm_id=vm_id), "converge", turn)
        else:
            turn.sometimes("agent_gives_up_a_migration_that_does_not_converge")
            self.failures[vm_id] = ("not_converging", "its memory changed faster than it could be sent")
            self.book.call(domain, CancelMigration(vm_id=vm_id), "cancel", turn)

    def on_migration_listed(self, domain: DomainRecord, message: m.CallEnded, turn: Turn) -> None:
        if not is_migrating_away(domain):
            return
        found = found_in(message, domain)
        if found is None or found.epoch != domain.epoch:
            self.book.gone(domain, turn)
        else:
            self.settle(domain, found, turn)
