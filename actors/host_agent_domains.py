"""The agent's book of machines: each copy's durable record, what is told of it, and how it ends.

Everything that any part of the agent says about a machine goes through here, so that these hold everywhere:
1. A Down entry stays until the engine acknowledges it.
2. A copy that vanished in the middle of a migration is Down with LIBVIRT_DOMAIN_MISSING: whether it was handed over
   is not known here, and the engine asks the other side.
3. A copy that waited for a machine to arrive and surely never ran is Down with MIGRATION_FAILED, and only such a one.
4. A leased copy that ends gives its lease back before its end is told, unless the storage does not answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from actors.behaviour import Turn
from actors.hypervisor_port import FoundDomain
from actors.lease_port import LeaveLease
from hypervisor_backends.protocol import DestroyDomain, ExitReason, HypervisorRequest
from olvm.model import messages as m
from olvm.model.limits import EPOCHS_REMEMBERED_MAX, NS_PER_S
from olvm.model.records import AgentRecord, DomainRecord
from olvm.model.vm_states import VmStatus

HYPERVISOR = "hypervisor"
LEASES = "leases"
# What begins or ends a copy at the hypervisor: asked again after a restart, it could come after what was asked since.
ORDERS = ("start", "incoming", "destroy")
IO_ERRORS = frozenset({"EIO", "ENOSPC", "EPERM", "EOTHER"})
# What a waiting copy that its hypervisor has given up has pending: it is over when the engine says so.
GIVEN_UP = "given_up"
MIGRATION_PAUSES = frozenset({"POSTMIGRATE", "POSTCOPY"})
# Set when the guest was asked; a guest that does not obey says nothing, so a question goes to the hypervisor.
ASSUMED = frozenset({VmStatus.POWERING_DOWN, VmStatus.REBOOT_IN_PROGRESS, VmStatus.SAVING_STATE})


def is_migrating_away(domain: DomainRecord) -> bool:
    """A migration of this copy has begun and its end has not been told."""
    return (
        bool(domain.to_host)
        or domain.status is VmStatus.MIGRATING_FROM  # found again by an agent that lost its journal
        or domain.pause_code in MIGRATION_PAUSES
    )


class DomainBook:
    """The records of one agent. `domains` are by machine id; each machine has one copy at most here."""

    def __init__(self, record: AgentRecord, domains: dict[str, DomainRecord]) -> None:
        self.record = record
        self.host = record.host
        self.address = f"agent/{record.host}"
        self.domains = domains
        self.is_open = False
        self.seq = 0
        self.unreported: dict[str, None] = {}  # machines whose change is told at the end of the batch
        self.untold: dict[str, None] = {}  # machines whose end is told once their lease is given back
        # Machines that something was asked about since the hypervisor was last looked at: that look is old for them.
        self.asked: dict[str, None] = {}
        # Copies that the hypervisor had when the agent opened, with their epoch: whatever `pending` says, they began.
        self.found_begun: dict[str, int] = {}
        # Orders to begin or end a copy whose answer has not come, by tag; also those of an earlier life of the agent in
        # the same process.
        self.under_way: Counter[str] = Counter()

    def restart(self) -> None:
        """Forget what is not durable."""
        self.is_open = False
        self.seq = 0
        self.unreported = {}
        self.untold = {}
        self.asked = {}
        self.found_begun = {}

    def is_begun(self, domain: DomainRecord) -> bool:
        return self.found_begun.get(domain.vm_id) == domain.epoch

    # ------------------------------------------------------------------ asking

    def call(self, domain: DomainRecord, request: HypervisorRequest, verb: str, turn: Turn) -> None:
        self.asked[domain.vm_id] = None
        tag = f"{verb}/{domain.vm_id}/{domain.epoch}"
        if verb in ORDERS:
            self.under_way[tag] += 1
        turn.call(HYPERVISOR, request, tag)

    def take_over(self, under_way: Iterable[str]) -> None:
        """What the hypervisor port has not answered when the host is opened is all that is under way."""
        self.under_way = Counter(tag for tag in under_way if tag.partition("/")[0] in ORDERS)

    def answered(self, tag: str) -> None:
        if self.under_way[tag] > 1:
            self.under_way[tag] -= 1
        else:
            del self.under_way[tag]

    def is_under_way(self, domain: DomainRecord) -> bool:
        """Its beginning or end was ordered, and the answer comes."""
        return any(f"{verb}/{domain.vm_id}/{domain.epoch}" in self.under_way for verb in ORDERS)

    def end(self, domain: DomainRecord, turn: Turn) -> None:
        """Whoever wants the end of a copy that may be there: what waits for its lease does not begin after this."""
        if domain.pending in ("lease", "join"):
            turn.sometimes("agent_stops_a_machine_that_waits_for_its_lease")
            if not self.is_begun(domain):
                self.down(domain, ExitReason.ADMIN_SHUTDOWN, "stopped before it was started", turn)
                return
        if domain.pending in ("lease", "join", "kill"):
            domain.pending = ""
            turn.save(domain)
        self.call(domain, DestroyDomain(vm_id=domain.vm_id), "destroy", turn)

    def leave_lease(self, domain: DomainRecord, turn: Turn) -> None:
        request = LeaveLease(self.host, domain.vm_id, domain.epoch)
        turn.call(LEASES, request, f"leave/{domain.vm_id}/{domain.epoch}")

    def end_stray(self, domain: DomainRecord, turn: Turn) -> None:
        """The hypervisor runs what the engine was told is over, or an older copy than it has spoken of."""
        turn.sometimes("agent_ends_a_stray_copy")
        self.call(domain, DestroyDomain(vm_id=domain.vm_id), "stray", turn)

    # ------------------------------------------------------------------ telling

    def report(self, domain: DomainRecord, turn: Turn) -> None:
        """Tell the machine's actor how it stands; what happens to it in one batch is told once."""
        if not self.is_open:
            return  # opening tells all of it, when it is not stale any more
        if not self.unreported:
            turn.send(f"{self.address}@{turn.silo}", m.FlushReports())
        self.unreported[domain.vm_id] = None

    def flush_reports(self, turn: Turn) -> None:
        unreported, self.unreported = self.unreported, {}
        for vm_id in unreported:
            self.tell(self.domains[vm_id], turn)

    def tell_now(self, domain: DomainRecord, turn: Turn) -> None:
        """Do not let what comes next in the batch stand in for what is waiting to be told."""
        if domain.vm_id in self.unreported:
            self.tell(domain, turn)

    def tell(self, domain: DomainRecord, turn: Turn, *, absent: bool = False) -> None:
        self.seq += 1
        turn.send(
            domain.vm_address,
            m.DomainReported(
                self.host,
                f"{self.address}@{turn.silo}",
                self.record.host_epoch,
                self.seq,
                state_of(domain),
                absent,
            ),
        )

    def refuse(self, to: str, epoch: int, verb: str, code: str, reason: str, turn: Turn) -> None:
        turn.send(to, m.DomainRefused(self.host, epoch, verb, reason, code))

    # ------------------------------------------------------------------ how a copy stands

    def stand(self, domain: DomainRecord, status: VmStatus, pause_code: str, turn: Turn) -> None:
        """The copy is there and stands like this; nothing about it is awaited any more."""
        pause_code = pause_code if status is VmStatus.PAUSED else ""
        if pause_code != domain.pause_code:
            domain.paused_since_ns = turn.now_ns if pause_code else 0
        domain.status = status
        domain.pause_code = pause_code
        if domain.pending == GIVEN_UP:
            turn.sometimes("agent_sees_a_machine_arrive_that_was_given_up")
            domain.exit_reason, domain.exit_message = None, ""
        domain.pending = ""
        if status is not VmStatus.MIGRATING_FROM and pause_code not in MIGRATION_PAUSES:
            domain.to_host = ""
        turn.save(domain)
        self.report(domain, turn)
        if pause_code in IO_ERRORS:
            watch_io_error(domain, turn)

    def down(self, domain: DomainRecord, exit_reason: int, reason: str, turn: Turn) -> None:
        """The copy is gone. If it is leased, its end is told once the lease is given back."""
        if domain.from_host and domain.status is not VmStatus.MIGRATING_TO:
            self.tell_now(domain, turn)  # that it arrived counts, also when it ended in the same breath
        exit_reason, reason = _ended_as(domain, exit_reason, reason, turn)
        domain.status = VmStatus.DOWN
        domain.pending = ""
        domain.pause_code = ""
        domain.paused_since_ns = 0
        domain.to_host = ""
        domain.exit_reason = exit_reason
        domain.exit_message = reason
        turn.save(domain)
        if domain.lease_taken:
            self.untold[domain.vm_id] = None
            self.leave_lease(domain, turn)
        else:
            self.report(domain, turn)

    def gone(self, domain: DomainRecord, turn: Turn, reason: str = "QEMU is gone") -> None:
        """The hypervisor has no such machine, and did not say how it ended."""
        if is_migrating_away(domain) or domain.status is VmStatus.MIGRATING_TO:
            turn.sometimes("agent_migrating_copy_vanished_without_a_word")
            words = f"{reason} in the middle of a migration; how that ended is not known on this host"
            self.down(domain, ExitReason.LIBVIRT_DOMAIN_MISSING, words, turn)
        else:
            self.down(domain, ExitReason.LOST_QEMU, reason, turn)

    def given_up(self, domain: DomainRecord, reason: str, turn: Turn) -> None:
        """The hypervisor waits for it no longer, but what its source had begun by then may still come and run: nothing
        is over before the engine, which hears of the source, has ordered its end."""
        turn.sometimes("agent_hears_that_nothing_came_in_time")
        domain.pending = GIVEN_UP
        domain.exit_reason, domain.exit_message = ExitReason.MIGRATION_FAILED, reason
        turn.save(domain)
        self.report(domain, turn)

    def never_began(self, domain: DomainRecord, verb: str, code: str, reason: str, turn: Turn) -> None:
        """A copy that was refused: no Down entry, but its epoch is remembered."""
        failed = ExitReason.MIGRATION_FAILED if verb == "incoming" else ExitReason.LIBVIRT_START_FAILED
        domain.status = VmStatus.DOWN
        domain.pending = ""
        domain.exit_reason = failed
        domain.exit_message = reason
        turn.save(domain)
        if domain.lease_taken:
            self.leave_lease(domain, turn)
        self.forget(domain, turn)
        self.refuse(domain.vm_address, domain.epoch, verb, code, reason, turn)

    # ------------------------------------------------------------------ what is remembered

    def forget(self, domain: DomainRecord, turn: Turn) -> None:
        """Drop a Down entry. Its epoch stays known, as far back as there is room."""
        domain.forgotten = True
        turn.save(domain)
        if len(self.domains) > EPOCHS_REMEMBERED_MAX:
            idle = (one for one in self.domains.values() if one.forgotten and not one.lease_taken)
            oldest = next(idle, None)
            if oldest is not None:
                turn.erase(self.domains.pop(oldest.vm_id))

    def remember(self, vm_id: str, vm_address: str, epoch: int, turn: Turn) -> DomainRecord:
        """Note that the engine has spoken of this epoch: nothing of it can begin here from now on."""
        domain = self.domains.get(vm_id)
        if domain is None:
            domain = DomainRecord(
                key=f"{self.host}/{vm_id}",
                host=self.host,
                vm_id=vm_id,
                vm_address=vm_address,
                name="",
                epoch=epoch,
                status=VmStatus.DOWN,
                forgotten=True,
            )
            self.domains[vm_id] = domain
        domain.epoch = max(domain.epoch, epoch)
        turn.save(domain)
        return domain

    def begin(
        self,
        message: m.CreateDomain | m.PrepareIncoming,
        status: VmStatus,
        pending: str,
        turn: Turn,
    ) -> DomainRecord:
        """A new copy, in place of what was known of the machine here."""
        before = self.domains.get(message.vm_id)
        domain = DomainRecord(
            key=f"{self.host}/{message.vm_id}",
            host=self.host,
            vm_id=message.vm_id,
            vm_address=message.vm_address,
            name=message.name,
            epoch=message.epoch,
            status=status,
            vcpus=message.vcpus,
            memory_bytes=message.memory_bytes,
            pending=pending,
            leased=message.leased,
            # Named in the lease from the moment it is asked for, or still for an older copy.
            lease_taken=message.leased or (before is not None and before.lease_taken),
            resume_behavior=message.resume_behavior,
            boot_id=message.boot_id or self.record.boot_id,
            hardware=message.hardware,
        )
        self.domains[domain.vm_id] = domain
        self.untold.pop(domain.vm_id, None)
        turn.save(domain)
        return domain

    def find_again(self, domain: DomainRecord, found: FoundDomain, turn: Turn) -> None:
        """A machine that runs here and that the agent, having lost its journal, knew nothing of."""
        turn.sometimes("agent_without_memory_finds_a_machine_again")
        domain.forgotten = False
        domain.epoch = found.epoch
        domain.name = found.name or domain.vm_id
        domain.lease_taken = True  # if it has one; leaving what is not held works
        domain.leased = found.leased
        domain.vcpus, domain.memory_bytes = found.vcpus, found.memory_bytes
        domain.hardware = found.hardware or domain.hardware  # a backend may not say
        domain.boot_id = self.record.boot_id
        self.stand(domain, VmStatus(found.status), found.pause_code, turn)


def _ended_as(domain: DomainRecord, exit_reason: int, reason: str, turn: Turn) -> tuple[int, str]:
    """What the end means, given what the copy was doing."""
    if domain.pending == "kill":
        turn.sometimes("agent_kills_a_machine_after_an_io_error")
        return (
            ExitReason.DESTROYED_ON_PAUSE_TIMEOUT,
            "ended as its resume behaviour says: an I/O error did not pass",
        )
    known = (ExitReason.MIGRATION_SUCCEEDED, ExitReason.ADMIN_SHUTDOWN, ExitReason.LIBVIRT_DOMAIN_MISSING)
    if domain.pause_code == "POSTMIGRATE" and exit_reason not in known:
        words = (
            f"{reason}; all of it had been sent, and whether the other side runs is not known on this host"
        )
        return ExitReason.LIBVIRT_DOMAIN_MISSING, words
    if domain.status is VmStatus.MIGRATING_TO and exit_reason == ExitReason.ADMIN_SHUTDOWN:
        turn.sometimes("agent_ends_a_copy_that_waited_for_its_machine")
        return ExitReason.MIGRATION_FAILED, "ended before the machine arrived"
    return exit_reason, reason


def watch_io_error(domain: DomainRecord, turn: Turn) -> None:
    """Set the clock by which the machine's resume behaviour goes; `paused_since_ns` is durable."""
    config = turn.config
    match domain.resume_behavior:
        case "auto_resume":
            turn.wake(f"resume/{domain.vm_id}", config.io_error_resume_period_s)
        case "kill":
            left_s = config.io_error_kill_after_s - (turn.now_ns - domain.paused_since_ns) / NS_PER_S
            turn.wake(f"kill/{domain.vm_id}", max(0.0, left_s))


def state_of(domain: DomainRecord) -> m.DomainState:
    return m.DomainState(
        domain.vm_id,
        domain.vm_address,
        domain.epoch,
        domain.status,
        domain.exit_reason,
        domain.exit_message,
        domain.pause_code,
    )
