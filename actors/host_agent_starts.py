"""How a machine begins on a host: who is admitted, the lease before the start, and a start of unknown outcome."""

from __future__ import annotations

import msgspec

from actors.behaviour import Turn
from actors.host_agent_domains import DomainBook
from actors.host_agent_leases import AgentLeases
from actors.hypervisor_port import FoundDomain
from hypervisor_backends.protocol import (
    DomainSpec,
    ExitReason,
    HypervisorRequest,
    ListDomains,
    RestoreDomain,
    StartDomain,
)
from olvm.model import messages as m
from olvm.model.hardware import Hardware
from olvm.model.records import DomainRecord
from olvm.model.vm_states import VmStatus

NOT_STARTED = frozenset({"wait_for_launch", "restoring_state"})
LIST_AGAIN_S = 1.0

ORDINARY = Hardware()

Found = dict[str, FoundDomain]


def found_in(message: m.CallEnded, domain: DomainRecord) -> FoundDomain | None:
    """The machine in the answer to `ListDomains`, of whatever epoch."""
    return msgspec.msgpack.decode(message.value, type=Found).get(domain.vm_id)


def spec_of(domain: DomainRecord) -> DomainSpec:
    return DomainSpec(
        name=domain.name,
        vcpus=domain.vcpus,
        memory_bytes=domain.memory_bytes,
        hardware=domain.hardware or ORDINARY,
        leased=domain.leased,
    )


class AgentStarts:
    def __init__(self, book: DomainBook, leases: AgentLeases) -> None:
        self.book = book
        self.leases = leases

    def admits(self, message: m.CreateDomain | m.PrepareIncoming, verb: str, turn: Turn) -> bool:
        """Whether a copy of a newer epoch than any known may begin here; the refusal is told."""
        book = self.book
        known = book.domains.get(message.vm_id)
        code, reason = "", ""
        if known is not None and (
            message.epoch < known.epoch or (known.forgotten and message.epoch == known.epoch)
        ):
            code = "stale_epoch"
            reason = (
                f"epoch {message.epoch} of {message.name} is over: host {book.host} has seen {known.epoch}"
            )
        elif message.boot_id and book.record.boot_id not in ("", message.boot_id):
            turn.sometimes("agent_refuses_a_start_meant_for_another_boot")
            code = "other_boot"
            reason = f"host {book.host} was restarted since it was chosen for {message.name}; choose again"
        elif known is not None and known.status is not VmStatus.DOWN:
            # The engine has moved on from a copy that still runs here: its authority is newer, the copy ends.
            turn.sometimes("agent_ends_an_older_copy_before_a_start")
            if book.is_open:  # else nobody knows here yet what there is to end; opening tells of it
                book.end(known, turn)
            code = "older_copy"
            reason = f"an older copy (epoch {known.epoch}) still ran on {book.host} and is being ended"
        if code:
            book.refuse(message.vm_address, message.epoch, verb, code, reason, turn)
        return not code

    def create(self, message: m.CreateDomain, turn: Turn) -> None:
        known = self.book.domains.get(message.vm_id)
        if known is not None and known.epoch == message.epoch and not known.forgotten:
            self.book.report(known, turn)  # asked twice: the same answer
            return
        if not self.admits(message, "create", turn):
            return
        status = VmStatus.RESTORING_STATE if message.restore else VmStatus.WAIT_FOR_LAUNCH
        domain = self.book.begin(message, status, "lease" if message.leased else "start", turn)
        if self.book.is_open:  # else opening begins it
            self.launch(domain, turn)

    def launch(self, domain: DomainRecord, turn: Turn) -> None:
        """Begin, or begin again what was lost: with the lease if there is one, else with the hypervisor."""
        if domain.leased:
            domain.pending = "lease"
            turn.save(domain)
            self.leases.take(domain, turn)
        else:
            self._ask_hypervisor(domain, turn)

    def on_taken(self, domain: DomainRecord, message: m.CallEnded, turn: Turn) -> None:
        if self.leases.may_go_on(domain, "take", message, turn):
            domain.pending = "start"
            turn.save(domain)
            self._ask_hypervisor(domain, turn)

    def _ask_hypervisor(self, domain: DomainRecord, turn: Turn) -> None:
        request: HypervisorRequest
        if domain.status is VmStatus.RESTORING_STATE:
            request = RestoreDomain(vm_id=domain.vm_id, epoch=domain.epoch, spec=spec_of(domain))
        else:
            request = StartDomain(vm_id=domain.vm_id, epoch=domain.epoch, spec=spec_of(domain))
        self.book.call(domain, request, "start", turn)

    def on_launched(self, domain: DomainRecord, message: m.CallEnded, turn: Turn) -> None:
        if domain.status is VmStatus.DOWN or not domain.pending:
            return
        reason = message.value.decode()
        if message.ok:
            domain.pending = ""
            if domain.status is VmStatus.WAIT_FOR_LAUNCH:
                domain.status = VmStatus.POWERING_UP
                self.book.report(domain, turn)
            turn.save(domain)
        elif not message.outcome_known:
            turn.sometimes("agent_start_of_unknown_outcome")
            self.book.call(domain, ListDomains(), "verify", turn)
        elif message.code == "lease_expired":
            turn.sometimes("agent_start_comes_after_the_watchdog_expired")
            self.book.never_began(domain, "create", "lease_unreachable", reason, turn)
        else:
            self.book.down(domain, ExitReason.LIBVIRT_START_FAILED, reason, turn)

    def on_verified(self, domain: DomainRecord, message: m.CallEnded, turn: Turn) -> None:
        """What a start of unknown outcome left behind."""
        if domain.status is VmStatus.DOWN:
            return
        found = found_in(message, domain)
        if found is None or found.epoch != domain.epoch:
            reason = "the start timed out and left no machine"
            self.book.down(domain, ExitReason.LIBVIRT_START_FAILED, reason, turn)
        elif found.status in NOT_STARTED:
            turn.wake(f"list/{message.tag}", LIST_AGAIN_S)
        else:
            self.book.stand(domain, VmStatus(found.status), found.pause_code, turn)
