"""What the engine orders of a machine that has begun: who may order it, and what its answer means."""

from __future__ import annotations

from actors.behaviour import Turn
from actors.host_agent_domains import GIVEN_UP, DomainBook, is_migrating_away
from hypervisor_backends.protocol import (
    ContinueDomain,
    ExitReason,
    HypervisorRequest,
    ListDomains,
    PauseDomain,
    RebootDomain,
    ResetDomain,
    ShutdownDomain,
    SuspendDomain,
)
from olvm.model import messages as m
from olvm.model.records import DomainRecord
from olvm.model.vm_states import VmStatus

STATUS_BY_VERB = {
    "shutdown": VmStatus.POWERING_DOWN,
    "reboot": VmStatus.REBOOT_IN_PROGRESS,
    "reset": VmStatus.REBOOT_IN_PROGRESS,
    "save": VmStatus.SAVING_STATE,
}


class AgentCommands:
    def __init__(self, book: DomainBook) -> None:
        self.book = book

    def forget(self, message: m.ForgetDomain, turn: Turn) -> None:
        domain = self.book.domains.get(message.vm_id)
        if domain is None or domain.epoch != message.epoch:
            return
        if domain.status is VmStatus.DOWN:
            self.book.forget(domain, turn)
        elif domain.pending == GIVEN_UP and self.book.is_open:
            self.book.end(domain, turn)

    def command(self, message: m.CommandDomain, turn: Turn) -> None:
        domain = self.book.domains.get(message.vm_id)
        if domain is None or domain.status is VmStatus.DOWN:
            self._for_nobody(domain, message, turn)
            return
        refusal = self._refusal(domain, message)
        if refusal is not None:
            self.book.refuse(turn.sender, message.epoch, message.verb, *refusal, turn)
            return
        if message.verb == "destroy":
            self.book.end(domain, turn)
            return
        status = STATUS_BY_VERB.get(message.verb)
        if status is not None:
            domain.status = status
            turn.save(domain)
        if domain.pending == "kill":
            domain.pending = ""
            turn.save(domain)
        self.book.call(domain, _request_of(message), message.verb, turn)

    def _refusal(self, domain: DomainRecord, message: m.CommandDomain) -> tuple[str, str] | None:
        """Code and reason."""
        host, name = self.book.host, domain.name
        if message.epoch < domain.epoch:
            reason = f"epoch {message.epoch} of {name} is over: host {host} has seen {domain.epoch}"
            return "stale_epoch", reason
        if not self.book.is_open:
            return "recovering", f"the agent of host {host} is still starting; try again"
        if (
            domain.pending in ("lease", "join")
            and message.verb != "destroy"
            and not self.book.is_begun(domain)
        ):
            return (
                "wrong_state",
                f"{name} waits for its lease and has not begun; wait until it is up, or stop it",
            )
        ends = message.verb in ("destroy", "continue")
        if not ends and (is_migrating_away(domain) or domain.status is VmStatus.MIGRATING_TO):
            return "wrong_state", f"{name} is migrating; cancel that first, or wait"
        return None

    def _for_nobody(self, domain: DomainRecord | None, message: m.CommandDomain, turn: Turn) -> None:
        if domain is not None and message.epoch == domain.epoch and not domain.forgotten:
            self.book.report(domain, turn)
        elif message.verb == "destroy" and domain is None and self.book.is_open:
            # A journal that was lost may have held it: nothing of this epoch may run after the answer.
            domain = self.book.remember(message.vm_id, turn.sender, message.epoch, turn)
            self.book.call(domain, ListDomains(), "purge", turn)
        else:
            if message.verb == "destroy" and domain is not None and domain.forgotten:
                self.book.remember(message.vm_id, turn.sender, message.epoch, turn)
            reason = f"host {self.book.host} has no machine {message.vm_id} of epoch {message.epoch}"
            self.book.refuse(turn.sender, message.epoch, message.verb, "absent", reason, turn)

    def on_ended(self, domain: DomainRecord, verb: str, message: m.CallEnded, turn: Turn) -> None:
        if domain.status is VmStatus.DOWN:
            return
        gone = message.code == "unknown_domain"
        if verb == "destroy" and message.ok:
            self.book.down(domain, ExitReason.ADMIN_SHUTDOWN, "stopped", turn)
        elif verb == "save" and message.ok:
            self.book.down(domain, ExitReason.SAVE_STATE_SUCCEEDED, "saved", turn)
        elif gone:
            self._found_nothing(domain, verb, turn)
        elif not message.outcome_known:
            self.book.call(domain, ListDomains(), "recheck", turn)
        elif not message.ok and verb != "resume":
            if domain.status is STATUS_BY_VERB.get(verb):  # assumed when it was asked, and wrong
                self.book.call(domain, ListDomains(), "recheck", turn)
            self.book.refuse(
                domain.vm_address, domain.epoch, verb, message.code, message.value.decode(), turn
            )

    def _found_nothing(self, domain: DomainRecord, verb: str, turn: Turn) -> None:
        migrating = is_migrating_away(domain) or domain.status is VmStatus.MIGRATING_TO
        if verb == "destroy" and not migrating:
            self.book.down(domain, ExitReason.ADMIN_SHUTDOWN, "stopped", turn)
        else:
            self.book.gone(domain, turn)


def _request_of(message: m.CommandDomain) -> HypervisorRequest:
    vm_id = message.vm_id
    match message.verb:
        case "shutdown":
            return ShutdownDomain(vm_id=vm_id)
        case "destroy":
            raise AssertionError("the book ends a machine: see DomainBook.end")
        case "reboot":
            return RebootDomain(vm_id=vm_id)
        case "reset":
            return ResetDomain(vm_id=vm_id)
        case "save":
            return SuspendDomain(vm_id=vm_id)
        case "pause":
            return PauseDomain(vm_id=vm_id)
        case "continue":
            return ContinueDomain(vm_id=vm_id)
