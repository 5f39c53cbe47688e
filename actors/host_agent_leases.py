"""The agent's share in leases: when the host renews, and when a machine's lease is taken, joined and left.

How long a lease holds is decided on the host's own clock by the lease keeper and the watchdog, never here: a pause of
this actor delays a start or a report and cannot stretch a lease. Rules:
1. A leased copy asks the hypervisor for nothing before its lease is taken or joined.
2. That a copy never began is said only if nothing of it can be there. One that a former life of this agent had begun
   is there: it waits for its lease again, until the engine orders its end or the watchdog ends it.
3. A lease that could not be left stays noted (`lease_taken`, durable) and is left later, forgotten machine or not.
"""

from __future__ import annotations

from actors.behaviour import Turn
from actors.host_agent_domains import LEASES, DomainBook
from actors.lease_port import JoinLease, RenewLease, TakeLease
from olvm.model import messages as m
from olvm.model.records import DomainRecord
from olvm.model.vm_states import VmStatus

# Renewals in a row that may fail. Each is answered within the time-out of the storage if it fails.
RENEWALS_MISSED_MAX = 2
REFUSAL_BY_OUTCOME = {"held": "lease_held", "stale": "stale_epoch"}


class AgentLeases:
    def __init__(self, book: DomainBook) -> None:
        self.book = book
        self.unrenewed = (
            0  # renewals that failed since the last one that worked; those that work are not answered
        )
        self.problem = ""  # what the last of them failed by

    def problems(self) -> list[str]:
        return [self.problem] if self.unrenewed > RENEWALS_MISSED_MAX else []

    # ------------------------------------------------------------------ the host's own lease

    def renew(self, turn: Turn) -> None:
        turn.call(LEASES, RenewLease(self.book.host), "renew")
        turn.wake_each("renew", turn.config.lease_renew_period_s)

    def on_renewed(self, message: m.CallEnded, turn: Turn) -> None:
        if not message.ok:
            self.unrenewed += 1
            self.problem = "watchdog_not_armed" if message.code == "unarmed" else "storage_domain_unreachable"
            return
        if self.unrenewed > RENEWALS_MISSED_MAX:
            turn.sometimes("agent_renews_again_after_the_storage_was_away")
        self.unrenewed = 0

    # ------------------------------------------------------------------ machines' leases

    def take(self, domain: DomainRecord, turn: Turn) -> None:
        """Before a start; the answer is as late as a dead holder must be watched."""
        request = TakeLease(self.book.host, domain.vm_id, domain.epoch)
        turn.call(LEASES, request, f"take/{domain.vm_id}/{domain.epoch}")

    def join(self, domain: DomainRecord, turn: Turn) -> None:
        """Before a machine may arrive: the source holds it too until the machine is handed over."""
        request = JoinLease(self.book.host, domain.vm_id, domain.epoch, domain.from_host)
        turn.call(LEASES, request, f"join/{domain.vm_id}/{domain.epoch}")

    def may_go_on(self, domain: DomainRecord, verb: str, message: m.CallEnded, turn: Turn) -> bool:
        """The answer to `take` and `join`: whether the hypervisor may be asked now. A refusal is told."""
        awaited = "lease" if verb == "take" else "join"
        if domain.pending != awaited or not self.book.is_open:
            return False  # it was stopped meanwhile, or opening asks again
        if message.ok:
            return True
        if self.book.is_begun(domain):
            turn.sometimes("agent_waits_for_the_lease_of_a_copy_that_is_there")
            turn.wake(f"acquire/{domain.vm_id}", turn.config.lease_renew_period_s)
            return False
        code = REFUSAL_BY_OUTCOME.get(message.code, "lease_unreachable")
        turn.sometimes(f"agent_start_refused_{code}")
        reason = message.value.decode() or "the storage of leases does not answer"
        refused = "create" if verb == "take" else "incoming"
        self.book.never_began(domain, refused, code, f"host {self.book.host}: {reason}", turn)
        return False

    def acquire_again(self, vm_id: str, turn: Turn) -> None:
        domain = self.book.domains.get(vm_id)
        if domain is None or not self.book.is_begun(domain):
            return
        if domain.pending == "lease":
            self.take(domain, turn)
        elif domain.pending == "join":
            self.join(domain, turn)

    def on_left(self, domain: DomainRecord, message: m.CallEnded, turn: Turn) -> None:
        if domain.status is not VmStatus.DOWN:
            return
        if message.ok:
            domain.lease_taken = False
            turn.save(domain)
        else:
            turn.sometimes("agent_cannot_leave_a_lease_and_tries_later")
            turn.wake("leave", turn.config.lease_renew_period_s)
        if domain.vm_id in self.book.untold:
            del self.book.untold[domain.vm_id]
            if not domain.forgotten:
                self.book.report(domain, turn)

    def on_left_earlier(self, domain: DomainRecord, turn: Turn) -> None:
        """Meanwhile the engine has spoken of a newer epoch: whatever the answer, the lease is left up to that one."""
        if domain.status is VmStatus.DOWN and domain.lease_taken:
            self.book.leave_lease(domain, turn)

    def leave_again(self, turn: Turn) -> None:
        """Give back what is still noted for copies that are no more."""
        for domain in self.book.domains.values():
            if domain.lease_taken and domain.status is VmStatus.DOWN:
                self.book.leave_lease(domain, turn)
