"""Holds the agent's records against what the hypervisor runs: when the host is opened, and now and then.

Events are lost with a crash of the agent, and a hypervisor may swallow one; both would leave a record that is wrong
for ever. Rules:
1. What the hypervisor lists is believed; how a copy that it does not list has ended is said only if it is known, and
   one that waits for its machine has not ended by that.
2. A copy that the engine was told is over, or that is older than an epoch that the engine has named, is ended.
3. Nothing is held against a list that may be older than the last thing asked about the machine.
"""

from __future__ import annotations

import msgspec

from actors.behaviour import Turn
from actors.host_agent_domains import ASSUMED, GIVEN_UP, IO_ERRORS, DomainBook, is_migrating_away
from actors.host_agent_migration import AgentMigrations
from actors.host_agent_starts import LIST_AGAIN_S, NOT_STARTED, AgentStarts, Found, found_in
from actors.hypervisor_port import FoundDomain, HostSeen
from hypervisor_backends.protocol import ContinueDomain, DestroyDomain, ExitReason, ListDomains
from olvm.model import messages as m
from olvm.model.records import DomainRecord
from olvm.model.vm_states import VmStatus

LOOKED_UP = ASSUMED | {VmStatus.MIGRATING_FROM, VmStatus.MIGRATING_TO, VmStatus.PAUSED}
_SEEN = msgspec.msgpack.Decoder(HostSeen)


class AgentRecovery:
    def __init__(self, book: DomainBook, starts: AgentStarts, migrations: AgentMigrations) -> None:
        self.book = book
        self.starts = starts
        self.migrations = migrations
        self.missing: dict[str, int] = {}  # machines that the last list did not name, with their epoch

    # ------------------------------------------------------------------ opening

    def adopt_all(self, found: Found, rebooted: bool, turn: Turn) -> None:
        """After a start of the agent. What is told now may be past an event that nobody will repeat."""
        self.missing = {}
        for domain in self.book.domains.values():
            there = self._own(domain, found.get(domain.vm_id), turn)
            if domain.status is VmStatus.DOWN:
                self._adopt_ended(domain, turn)
            elif rebooted or domain.boot_id not in ("", self.book.record.boot_id):
                self._down_with_its_host(domain, turn)
            elif there is None:
                self._adopt_missing(domain, turn)
            else:
                self._adopt_present(domain, there, turn)

    def _own(self, domain: DomainRecord, there: FoundDomain | None, turn: Turn) -> FoundDomain | None:
        """What is listed, if it is the copy that the record is about; another one is ended if it is over."""
        if there is None:
            return None
        over = domain.status is VmStatus.DOWN
        if there.epoch < domain.epoch or (over and there.epoch == domain.epoch and domain.name):
            self.book.end_stray(domain, turn)
            return None
        return there if there.epoch == domain.epoch else None

    def _adopt_ended(self, domain: DomainRecord, turn: Turn) -> None:
        if not domain.forgotten:
            self.book.report(domain, turn)
        if domain.lease_taken:
            self.book.leave_lease(domain, turn)

    def _down_with_its_host(self, domain: DomainRecord, turn: Turn) -> None:
        reason = f"host {self.book.host} was restarted"
        if is_migrating_away(domain) or domain.status is VmStatus.MIGRATING_TO:
            self.book.gone(domain, turn, reason)
            return
        if domain.pending:
            turn.sometimes("agent_host_rebooted_in_the_middle_of_a_start")
        self.book.down(domain, ExitReason.HOST_SHUTDOWN, reason, turn)

    def _adopt_missing(self, domain: DomainRecord, turn: Turn) -> None:
        if self.book.is_under_way(domain):
            self.book.report(domain, turn)
            return
        match domain.pending:
            case "lease" | "start" | "restore":
                # The call was lost with the agent and the hypervisor has no such machine: asking again is safe.
                self.starts.launch(domain, turn)
            case "join" | "incoming":
                self.migrations.receive(domain, turn)
            case "given_up":
                self.book.report(domain, turn)
            case _:
                self._not_listed(domain, turn, "QEMU was gone when the agent started")

    def _not_listed(self, domain: DomainRecord, turn: Turn, reason: str = "QEMU is gone") -> None:
        """Not listed. One that waits for its machine may be given up by the hypervisor, and come all the same."""
        if domain.status is VmStatus.MIGRATING_TO:
            self.book.given_up(domain, f"{reason} before its machine came", turn)
        else:
            self.book.gone(domain, turn, reason)

    def _adopt_present(self, domain: DomainRecord, there: FoundDomain, turn: Turn) -> None:
        self.book.found_begun[domain.vm_id] = domain.epoch
        if domain.pending and self.book.is_under_way(domain):
            self.book.report(domain, turn)
        elif domain.pending in ("lease", "start", "restore") and there.status in NOT_STARTED:
            self.starts.launch(domain, turn)  # the same start again: its answer was lost with the agent
        elif domain.pending == GIVEN_UP and there.status == "migrating_to":
            self.book.report(domain, turn)
        elif domain.pending and there.status == "migrating_to":
            self.migrations.receive(domain, turn)
        elif is_migrating_away(domain):
            turn.sometimes("agent_restarted_in_the_middle_of_a_migration")
            self.migrations.settle(domain, there, turn)
        else:
            if domain.status is VmStatus.MIGRATING_TO and there.status != "migrating_to":
                turn.sometimes("agent_was_away_when_its_machine_arrived")
            self.book.stand(domain, VmStatus(there.status), there.pause_code, turn)

    # ------------------------------------------------------------------ now and then

    def compare(self, seen: HostSeen, turn: Turn) -> None:
        """Find what an event should have told. Something missing is believed the second time."""
        before, self.missing = self.missing, {}
        for domain in self.book.domains.values():
            if domain.vm_id in self.book.asked or domain.pending not in ("", GIVEN_UP):
                continue
            there = self._own(domain, seen.found.get(domain.vm_id), turn)
            if domain.status is VmStatus.DOWN:
                continue
            if there is not None:
                self._compare_present(domain, there, turn)
            elif domain.pending == GIVEN_UP:
                continue
            elif before.get(domain.vm_id) == domain.epoch:
                turn.sometimes("agent_learns_of_an_end_that_no_event_told")
                self._not_listed(domain, turn)
            else:
                self.missing[domain.vm_id] = domain.epoch

    def _compare_present(self, domain: DomainRecord, there: FoundDomain, turn: Turn) -> None:
        if domain.status in ASSUMED:
            return  # the guest may still obey; whoever waits for it asks
        pause_code = there.pause_code if there.status == "paused" else ""
        if domain.status == there.status and domain.pause_code == pause_code:
            return
        turn.sometimes("agent_learns_of_a_change_that_no_event_told")
        if is_migrating_away(domain):
            self.migrations.settle(domain, there, turn)
        else:
            self.book.stand(domain, VmStatus(there.status), there.pause_code, turn)

    # ------------------------------------------------------------------ questions of the engine

    def on_query(self, message: m.QueryDomain, turn: Turn) -> None:
        if not self.book.is_open:
            return  # nothing is answered from memory that may be stale; the engine asks again
        domain = self.book.domains.get(message.vm_id)
        if domain is None or domain.forgotten:
            # From here on a late create of this epoch is refused, or the answer `absent` could turn false.
            domain = self.book.remember(message.vm_id, message.vm_address, message.epoch, turn)
            self.book.call(domain, ListDomains(), "query", turn)
        elif domain.status in LOOKED_UP and domain.pending in ("", GIVEN_UP):
            self.book.call(domain, ListDomains(), "recheck", turn)
        else:
            self.book.report(domain, turn)

    def on_queried(self, domain: DomainRecord, verb: str, message: m.CallEnded, turn: Turn) -> None:
        """The list, asked for because the agent has no copy of the machine. `purge`: and because it must have none."""
        if not domain.forgotten:
            return  # a new copy has begun since, and tells of itself
        found = found_in(message, domain)
        fresh = not domain.name  # the agent knew nothing at all of this machine
        own = fresh and verb == "query"
        if found is not None and (found.epoch > domain.epoch or (own and found.epoch == domain.epoch)):
            self.book.find_again(domain, found, turn)
        elif found is not None:
            self.book.end_stray(domain, turn)
            turn.wake(f"list/{message.tag}", LIST_AGAIN_S)
        else:
            if fresh and not domain.lease_taken:
                domain.lease_taken = (
                    True  # a journal that was lost may have held it; leaving what is not held works
                )
                turn.save(domain)
                self.book.leave_lease(domain, turn)
            self.book.tell(domain, turn, absent=True)

    def on_rechecked(self, domain: DomainRecord, message: m.CallEnded, turn: Turn) -> None:
        """The list, asked for because the record only assumes how the copy stands."""
        if domain.status is VmStatus.DOWN:
            return
        found = found_in(message, domain)
        if found is not None and found.epoch == domain.epoch:
            if is_migrating_away(domain):
                self.migrations.settle(domain, found, turn)
            elif domain.pending == GIVEN_UP and found.status == "migrating_to":
                self.book.report(domain, turn)
            else:
                self.book.stand(domain, VmStatus(found.status), found.pause_code, turn)
        elif domain.pending == GIVEN_UP:
            self.book.report(domain, turn)
        elif domain.status is VmStatus.SAVING_STATE:
            self.book.down(domain, ExitReason.SAVE_STATE_SUCCEEDED, "saved", turn)
        else:
            self._not_listed(domain, turn)

    # ------------------------------------------------------------------ I/O errors

    def on_io_error_timer(self, verb: str, vm_id: str, turn: Turn) -> None:
        """The machine's resume behaviour is due, if it is still paused by the error."""
        domain = self.book.domains.get(vm_id)
        if domain is None or domain.pause_code not in IO_ERRORS or domain.pending:
            return
        if verb == "resume":
            self.book.call(domain, ContinueDomain(vm_id=vm_id), "resume", turn)
            turn.wake(f"resume/{vm_id}", turn.config.io_error_resume_period_s)
        elif turn.now_ns - domain.paused_since_ns >= int(turn.config.io_error_kill_after_s * 1e9):
            domain.pending = "kill"
            turn.save(domain)
            self.book.call(domain, DestroyDomain(vm_id=vm_id), "destroy", turn)

    # ------------------------------------------------------------------ what was seen

    @staticmethod
    def seen(message: m.CallEnded) -> HostSeen | None:
        return _SEEN.decode(message.value) if message.ok else None
