"""The `agent/<host>` actor: what VDSM does on a host.

It drives the hypervisor, keeps a durable record of every machine that it was given, and reports. Rules:
1. Authority has an epoch. Of each machine the agent keeps the highest epoch it has seen and refuses a lower one.
2. A Down entry stays until the engine acknowledges it (`ForgetDomain`), so an exit reason is never lost.
3. What the hypervisor leaves unknown is asked again, never assumed.
4. Each start of the agent raises the host epoch; reports carry (host epoch, sequence), so an old one is known as old.
"""

from __future__ import annotations

import msgspec

from actors.behaviour import TimedRecord, Turn
from actors.hypervisor_port import HostOpened, OpenHost, Sampled, SampleHost
from hypervisor_backends.protocol import (
    ContinueDomain,
    DestroyDomain,
    DomainSpec,
    HypervisorRequest,
    ListDomains,
    PauseDomain,
    RebootDomain,
    ResetDomain,
    RestoreDomain,
    ShutdownDomain,
    StartDomain,
    SuspendDomain,
)
from olvm.model import messages as m
from olvm.model.limits import EPOCHS_REMEMBERED_MAX
from olvm.model.records import AgentRecord, DomainRecord
from olvm.model.vm_states import VmStatus

EXIT_START_FAILED = 3  # LibvirtStartFailed, reference: VDSM vmexitreason.py
EXIT_SAVED = 5  # SaveStateSucceeded
EXIT_ADMIN = 6  # AdminShutdown
EXIT_LOST_QEMU = 2  # LostQEMU
EXIT_HOST_SHUTDOWN = 11  # HostShutdown

NOT_STARTED = frozenset({"wait_for_launch", "restoring_state"})
LIST_AGAIN_S = 1.0

STATUS_BY_EVENT = {
    "started": VmStatus.POWERING_UP,
    "guest_up": VmStatus.UP,
    "rebooted": VmStatus.REBOOT_IN_PROGRESS,
    "paused": VmStatus.PAUSED,
    "continued": VmStatus.UP,
    "shut_down": VmStatus.DOWN,
    "stopped": VmStatus.DOWN,
    "crashed": VmStatus.DOWN,
}
STATUS_BY_VERB = {
    "shutdown": VmStatus.POWERING_DOWN,
    "reboot": VmStatus.REBOOT_IN_PROGRESS,
    "reset": VmStatus.REBOOT_IN_PROGRESS,
    "save": VmStatus.SAVING_STATE,
}
# Set when the guest was asked; a guest that does not obey says nothing, so a question goes to the hypervisor.
ASSUMED = frozenset(STATUS_BY_VERB.values())


class HostAgent:
    def __init__(self, record: AgentRecord, domains: dict[str, DomainRecord]) -> None:
        self.record = record
        self.address = f"agent/{record.host}"
        self.domains = domains
        self.is_open = False
        self.opening = False
        self.seq = 0
        self.cpu_load_percent = 0.0
        self.unreported: dict[str, None] = {}  # machines whose change is told at the end of the batch

    def timed_record(self) -> TimedRecord | None:
        return None

    @property
    def port(self) -> str:
        return "hypervisor"

    def handle(self, message: m.AnyMessage, turn: Turn) -> None:
        match message:
            case m.CreateDomain():
                self._on_create(message, turn)
            case m.CallEnded():
                self._on_call_ended(message, turn)
            case m.DomainHappened():
                self._on_happened(message, turn)
            case m.FlushReports():
                self._flush_reports(turn)
            case m.ForgetDomain():
                self._on_forget(message, turn)
            case m.CommandDomain():
                self._on_command(message, turn)
            case m.QueryDomain():
                self._on_query(message, turn)
            case m.TimerFired():
                self._on_timer(message.name, turn)
            case m.StartAgent():
                self._on_start_agent(message, turn)
            case m.StopAgent():
                self._on_stop_agent(turn)
            case m.Recovered():
                if self.record.host_epoch:
                    self._open(turn)
            case _:
                raise AssertionError(f"{self.address} cannot handle {type(message).__name__}")

    # ------------------------------------------------------------------ opening the host

    def _on_start_agent(self, message: m.StartAgent, turn: Turn) -> None:
        record = self.record
        if record.cpus == 0:
            record.cluster = message.cluster
            record.backend = message.backend
            record.backend_settings = message.backend_settings
            record.cpus = message.cpus
            record.memory_bytes = message.memory_bytes
            turn.save(record)
        if record.host_epoch < message.host_epoch_min:
            record.host_epoch = message.host_epoch_min
            turn.save(record)
        if self.is_open:
            self._say_ready(turn)
        else:
            self._open(turn)

    def _open(self, turn: Turn) -> None:
        if self.opening:
            return
        self.opening = True
        record = self.record
        request = OpenHost(
            record.host, record.backend, record.backend_settings, record.cpus, record.memory_bytes
        )
        turn.call(self.port, request, "open")

    def _on_opened(self, message: m.CallEnded, turn: Turn) -> None:
        self.opening = False
        if not message.ok:
            reason = message.value.decode()
            turn.send(f"host/{self.record.host}", m.AgentFailed(self.record.host, reason))
            return
        opened = msgspec.msgpack.decode(message.value, type=HostOpened)
        record = self.record
        rebooted = bool(record.boot_id) and record.boot_id != opened.boot_id
        record.host_epoch += 1
        record.boot_id = opened.boot_id
        record.cpus, record.memory_bytes = opened.cpus, opened.memory_bytes
        turn.save(record)
        self.is_open = True
        self.seq = 0
        self._say_ready(turn, opened.cpu_model)
        for domain in self.domains.values():
            self._adopt(domain, opened.statuses.get(domain.vm_id), rebooted, turn)
        turn.wake_each("heartbeat", turn.config.heartbeat_period_s)
        turn.wake("report", min(1.0, turn.config.report_period_s))
        turn.wake_each("sample", turn.config.sample_period_s)

    def _adopt(self, domain: DomainRecord, there: str | None, rebooted: bool, turn: Turn) -> None:
        """After a start of the agent: hold the record of a machine against what the hypervisor runs.

        What it tells now may be past an event that was lost with the agent: no other will come for it.
        """
        if domain.status is VmStatus.DOWN:
            if not domain.forgotten:
                self._report(domain, turn)
        elif domain.pending and there in NOT_STARTED:
            self._launch(domain, turn)  # the same start again: its answer was lost with the agent
        elif there is not None:
            domain.pending = ""
            domain.status = VmStatus(there)
            turn.save(domain)
            self._report(domain, turn)
        elif domain.pending in ("start", "restore"):
            # The call was lost with the agent and the hypervisor has no such machine: asking again is safe.
            self._launch(domain, turn)
        elif rebooted:
            self._down(domain, EXIT_HOST_SHUTDOWN, f"host {self.record.host} was restarted", turn)
        else:
            self._down(domain, EXIT_LOST_QEMU, "QEMU was gone when the agent started", turn)

    def _say_ready(self, turn: Turn, cpu_model: str = "") -> None:
        record = self.record
        turn.send(
            f"host/{record.host}",
            m.AgentReady(
                record.host, record.host_epoch, record.boot_id, record.cpus, record.memory_bytes, cpu_model
            ),
        )

    def _on_stop_agent(self, turn: Turn) -> None:
        for domain in self.domains.values():
            turn.erase(domain)
        turn.erase(self.record)
        turn.send(f"agents@{turn.silo}", m.StopAgent(self.record.host))
        turn.stop()

    # ------------------------------------------------------------------ periodic work

    def _on_timer(self, name: str, turn: Turn) -> None:
        record, config = self.record, turn.config
        match name:
            case "heartbeat":
                turn.tell(f"host/{record.host}", m.Heartbeat(record.host, record.host_epoch, record.boot_id))
                turn.wake_each("heartbeat", config.heartbeat_period_s)
            case "report":
                self.seq += 1
                states = [_state(domain) for domain in self.domains.values() if not domain.forgotten]
                turn.tell(
                    f"host/{record.host}",
                    m.HostReport(record.host, record.host_epoch, self.seq, self.cpu_load_percent, states),
                )
                turn.wake_each("report", config.report_period_s)
            case "sample":
                turn.call(self.port, SampleHost(record.host, record.host_epoch), "sample")
                turn.wake_each("sample", config.sample_period_s)
            case _ if name.startswith("list/"):
                turn.call(self.port, ListDomains(), name.removeprefix("list/"))
            case _:
                raise AssertionError(f"{self.address} has no timer {name}")

    def _on_sampled(self, message: m.CallEnded, turn: Turn) -> None:
        if not message.ok:
            return  # a backend that cannot say its statistics now says them at the next period
        sampled = msgspec.msgpack.decode(message.value, type=Sampled)
        self.cpu_load_percent = sampled.cpu_load_percent
        for payload in sampled.batches:
            turn.tell("telemetry@telemetry", m.Samples(payload))
        if sampled.facts:
            turn.tell("telemetry@telemetry", m.GuestFactsTold(sampled.facts))

    # ------------------------------------------------------------------ machines

    def _report(self, domain: DomainRecord, turn: Turn, absent: bool = False) -> None:
        """Tell the machine's actor how it stands; what happens to it in one batch is told once."""
        if absent:
            self._tell(domain, turn, absent=True)
            return
        if not self.unreported:
            turn.send(f"{self.address}@{turn.silo}", m.FlushReports())
        self.unreported[domain.vm_id] = None

    def _flush_reports(self, turn: Turn) -> None:
        unreported, self.unreported = self.unreported, {}
        for vm_id in unreported:
            self._tell(self.domains[vm_id], turn)

    def _tell(self, domain: DomainRecord, turn: Turn, absent: bool = False) -> None:
        self.seq += 1
        turn.send(
            domain.vm_address,
            m.DomainReported(
                self.record.host,
                f"agent/{self.record.host}@{turn.silo}",
                self.record.host_epoch,
                self.seq,
                _state(domain),
                absent,
            ),
        )

    def _down(self, domain: DomainRecord, exit_reason: int, reason: str, turn: Turn) -> None:
        domain.status = VmStatus.DOWN
        domain.pending = ""
        domain.exit_reason = exit_reason
        domain.exit_message = reason
        turn.save(domain)
        self._report(domain, turn)

    def _launch(self, domain: DomainRecord, turn: Turn) -> None:
        spec = DomainSpec(name=domain.name, vcpus=domain.vcpus, memory_bytes=domain.memory_bytes)
        request: HypervisorRequest
        if domain.pending == "restore":
            request = RestoreDomain(vm_id=domain.vm_id, epoch=domain.epoch, spec=spec)
        else:
            request = StartDomain(vm_id=domain.vm_id, epoch=domain.epoch, spec=spec)
        turn.call(self.port, request, f"start/{domain.vm_id}/{domain.epoch}")

    def _on_create(self, message: m.CreateDomain, turn: Turn) -> None:
        known = self.domains.get(message.vm_id)
        if known is not None:
            if message.epoch == known.epoch:  # asked twice: the same answer
                self._report(known, turn)
                return
            if message.epoch < known.epoch:
                self._refuse(message.vm_address, message.epoch, "create", known, turn)
                return
            if known.status is not VmStatus.DOWN:
                # The engine has moved on from a copy that still runs here: its authority is newer, the copy ends.
                turn.call(self.port, DestroyDomain(vm_id=known.vm_id), f"destroy/{known.vm_id}/{known.epoch}")
                reason = (
                    f"an older copy (epoch {known.epoch}) still ran on {self.record.host} and is being ended"
                )
                turn.send(
                    message.vm_address,
                    m.DomainRefused(self.record.host, message.epoch, "create", reason, "older_copy"),
                )
                return
        domain = DomainRecord(
            key=f"{self.record.host}/{message.vm_id}",
            host=self.record.host,
            vm_id=message.vm_id,
            vm_address=message.vm_address,
            name=message.name,
            epoch=message.epoch,
            status=VmStatus.RESTORING_STATE if message.restore else VmStatus.WAIT_FOR_LAUNCH,
            vcpus=message.vcpus,
            memory_bytes=message.memory_bytes,
            pending="restore" if message.restore else "start",
        )
        self.domains[domain.vm_id] = domain
        turn.save(domain)
        if self.is_open:  # else `_adopt` launches it
            self._launch(domain, turn)

    def _refuse(self, to: str, epoch: int, verb: str, known: DomainRecord, turn: Turn) -> None:
        reason = f"epoch {epoch} of {known.name} is over: host {self.record.host} has seen {known.epoch}"
        turn.send(to, m.DomainRefused(self.record.host, epoch, verb, reason, "stale_epoch"))

    def _on_forget(self, message: m.ForgetDomain, turn: Turn) -> None:
        domain = self.domains.get(message.vm_id)
        if domain is None or domain.epoch != message.epoch or domain.status is not VmStatus.DOWN:
            return
        domain.forgotten = True
        turn.save(domain)
        if len(self.domains) > EPOCHS_REMEMBERED_MAX:
            oldest = next(key for key, value in self.domains.items() if value.forgotten)
            turn.erase(self.domains.pop(oldest))

    def _on_command(self, message: m.CommandDomain, turn: Turn) -> None:
        domain = self.domains.get(message.vm_id)
        if domain is None or domain.status is VmStatus.DOWN:
            if domain is not None:
                self._report(domain, turn)
            else:
                reason = f"host {self.record.host} has no machine {message.vm_id}"
                turn.reply(m.DomainRefused(self.record.host, message.epoch, message.verb, reason, "absent"))
            return
        if message.epoch < domain.epoch:
            self._refuse(turn.sender, message.epoch, message.verb, domain, turn)
            return
        status = STATUS_BY_VERB.get(message.verb)
        if status is not None:
            domain.status = status
            turn.save(domain)
        turn.call(self.port, _request_of(message), f"{message.verb}/{domain.vm_id}/{domain.epoch}")

    def _on_query(self, message: m.QueryDomain, turn: Turn) -> None:
        domain = self.domains.get(message.vm_id)
        if domain is not None and not domain.forgotten:
            if domain.status in ASSUMED and self.is_open:
                turn.call(self.port, ListDomains(), f"recheck/{domain.vm_id}/{domain.epoch}")
            else:
                self._report(domain, turn)
            return
        if domain is None:
            domain = DomainRecord(
                key=f"{self.record.host}/{message.vm_id}",
                host=self.record.host,
                vm_id=message.vm_id,
                vm_address=message.vm_address,
                name="",
                epoch=message.epoch,
                status=VmStatus.DOWN,
                forgotten=True,
            )
            self.domains[domain.vm_id] = domain
        # From here on a late create of this epoch is refused, or the answer `absent` could turn false.
        domain.epoch = max(domain.epoch, message.epoch)
        turn.save(domain)
        if self.is_open:
            turn.call(self.port, ListDomains(), f"query/{domain.vm_id}/{domain.epoch}")

    # ------------------------------------------------------------------ answers of the hypervisor

    def _on_call_ended(self, message: m.CallEnded, turn: Turn) -> None:
        if message.tag == "open":
            self._on_opened(message, turn)
            return
        if message.tag == "sample":
            self._on_sampled(message, turn)
            return
        verb, vm_id, epoch = message.tag.split("/")
        domain = self.domains.get(vm_id)
        if domain is None or domain.epoch != int(epoch):
            return  # of an attempt that is over
        match verb:
            case "start":
                self._on_launched(domain, message, turn)
            case "verify" | "query" | "recheck":
                self._on_listed(domain, verb, message, turn)
            case _:
                self._on_commanded(domain, verb, message, turn)

    def _on_launched(self, domain: DomainRecord, message: m.CallEnded, turn: Turn) -> None:
        if domain.status is VmStatus.DOWN or not domain.pending:
            return
        if not message.ok and not message.outcome_known:
            turn.call(self.port, ListDomains(), f"verify/{domain.vm_id}/{domain.epoch}")
            return
        if not message.ok:
            self._down(domain, EXIT_START_FAILED, message.value.decode(), turn)
            return
        domain.pending = ""
        if domain.status is VmStatus.WAIT_FOR_LAUNCH:
            domain.status = VmStatus.POWERING_UP
            self._report(domain, turn)
        turn.save(domain)

    def _on_listed(self, domain: DomainRecord, verb: str, message: m.CallEnded, turn: Turn) -> None:
        if not message.ok:
            turn.wake(f"list/{message.tag}", LIST_AGAIN_S)
            return
        found = msgspec.msgpack.decode(message.value, type=dict[str, str]).get(domain.vm_id)
        if verb == "query":
            if found is not None:  # an agent that lost its journal finds the machine again
                domain.forgotten = False
                domain.status = VmStatus(found)
                turn.save(domain)
            self._report(domain, turn, absent=found is None)
        elif domain.status is VmStatus.DOWN:
            return
        elif verb == "verify" and found in NOT_STARTED:
            turn.wake(f"list/{message.tag}", LIST_AGAIN_S)
        elif found is not None:
            domain.pending = ""
            domain.status = VmStatus(found)
            turn.save(domain)
            self._report(domain, turn)
        elif verb == "verify":
            self._down(domain, EXIT_START_FAILED, "the start timed out and left no machine", turn)
        elif domain.status is VmStatus.SAVING_STATE:
            self._down(domain, EXIT_SAVED, "saved", turn)
        else:
            self._down(domain, EXIT_LOST_QEMU, "QEMU is gone", turn)

    def _on_commanded(self, domain: DomainRecord, verb: str, message: m.CallEnded, turn: Turn) -> None:
        if domain.status is VmStatus.DOWN:
            return
        gone = message.code == "unknown_domain"
        if verb == "destroy" and (message.ok or gone):
            self._down(domain, EXIT_ADMIN, "stopped", turn)
        elif verb == "save" and message.ok:
            self._down(domain, EXIT_SAVED, "saved", turn)
        elif gone:
            self._down(domain, EXIT_LOST_QEMU, "QEMU is gone", turn)
        elif not message.outcome_known:
            turn.call(self.port, ListDomains(), f"recheck/{domain.vm_id}/{domain.epoch}")
        elif not message.ok:
            if domain.status is STATUS_BY_VERB.get(verb):  # assumed when it was asked, and wrong
                turn.call(self.port, ListDomains(), f"recheck/{domain.vm_id}/{domain.epoch}")
            turn.send(
                domain.vm_address,
                m.DomainRefused(self.record.host, domain.epoch, verb, message.value.decode(), message.code),
            )

    def _on_happened(self, message: m.DomainHappened, turn: Turn) -> None:
        domain = self.domains.get(message.vm_id)
        if domain is None or domain.status is VmStatus.DOWN or domain.epoch != message.epoch:
            return
        status = STATUS_BY_EVENT[message.kind]
        if status is VmStatus.DOWN:
            exit_reason = EXIT_LOST_QEMU if message.exit_reason is None else message.exit_reason
            self._down(domain, exit_reason, message.message, turn)
            return
        if status is VmStatus.POWERING_UP and domain.status is not VmStatus.WAIT_FOR_LAUNCH:
            return
        if domain.status is status and not domain.pending:
            return
        domain.status = status
        domain.pending = ""
        turn.save(domain)
        self._report(domain, turn)


def _state(domain: DomainRecord) -> m.DomainState:
    return m.DomainState(
        domain.vm_id,
        domain.vm_address,
        domain.epoch,
        domain.status,
        domain.exit_reason,
        domain.exit_message,
    )


def _request_of(message: m.CommandDomain) -> HypervisorRequest:
    vm_id = message.vm_id
    match message.verb:
        case "shutdown":
            return ShutdownDomain(vm_id=vm_id)
        case "destroy":
            return DestroyDomain(vm_id=vm_id)
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
