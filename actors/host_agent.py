"""The `agent/<host>` actor: what VDSM does on a host.

It drives the hypervisor, keeps a durable record of every machine that it was given, and reports. Rules:
1. Authority has an epoch. Of each machine the agent keeps the highest epoch it has seen and refuses a lower one.
2. A Down entry stays until the engine acknowledges it (`ForgetDomain`), so an exit reason is never lost.
3. What the hypervisor leaves unknown is asked again, never assumed.
4. Each start of the agent raises the host epoch; reports carry (host epoch, sequence), so an old one is known as old.
5. Until its host is open the agent says that it recovers, and tells nothing of machines.

This file receives and dispatches. What it knows of machines stands in `host_agent_domains.py`; how they begin, obey,
migrate, hold leases and are found again in `host_agent_starts.py`, `_commands.py`, `_migration.py`, `_leases.py` and
`_recovery.py`; what it does for other hosts in `_fencing.py`.
"""

from __future__ import annotations

import msgspec

from actors.behaviour import TimedRecord, Turn
from actors.host_agent_commands import AgentCommands
from actors.host_agent_domains import HYPERVISOR, DomainBook, state_of
from actors.host_agent_fencing import AgentProxy
from actors.host_agent_leases import AgentLeases
from actors.host_agent_migration import AgentMigrations
from actors.host_agent_recovery import AgentRecovery
from actors.host_agent_starts import LIST_AGAIN_S, AgentStarts
from actors.host_agent_tasks import AgentTasks
from actors.hypervisor_port import CloseHost, HostOpened, LookAround, OpenHost, Sampled, SampleHost
from actors.sample_spool import TELEMETRY, SampleSpool
from hypervisor_backends.protocol import GUEST_FACTS, TERMINAL_EVENTS, ExitReason, ListDomains
from olvm.model import messages as m
from olvm.model.limits import HOST_EPOCHS_UNHEARD_MAX
from olvm.model.records import AgentRecord, DomainRecord
from olvm.model.vm_states import VmStatus

STATUS_BY_EVENT = {
    "started": VmStatus.POWERING_UP,
    "guest_up": VmStatus.UP,
    "rebooted": VmStatus.REBOOT_IN_PROGRESS,
    "paused": VmStatus.PAUSED,
    "continued": VmStatus.UP,
}
FACTS_SOON_S = 0.5  # news of several guests go into one sampling
LISTS = frozenset({"verify", "query", "purge", "recheck", "migration"})


def epoch_above(heard: int) -> int:
    """Where an agent goes on whose journal is gone, or older than what the engine has heard; 0 if it heard nothing."""
    return heard + HOST_EPOCHS_UNHEARD_MAX if heard else 0


class HostAgent:
    def __init__(self, record: AgentRecord, domains: dict[str, DomainRecord]) -> None:
        self.record = record
        self.address = f"agent/{record.host}"
        self.book = DomainBook(record, domains)
        self.leases = AgentLeases(self.book)
        self.starts = AgentStarts(self.book, self.leases)
        self.migrations = AgentMigrations(self.book, self.leases, self.starts)
        self.recovery = AgentRecovery(self.book, self.starts, self.migrations)
        self.commands = AgentCommands(self.book)
        self.proxy = AgentProxy(record.host)
        self.tasks = AgentTasks(self.book)
        self.spool = SampleSpool(record.host)
        self.opening = False
        self.asked_to_start = False  # the engine waits for the end of this opening, also if it fails
        self.opened: HostOpened | None = None  # set exactly once the host has been opened
        self.cpu_load_percent = 0.0
        self.swap_used_percent = 0

    def timed_record(self) -> TimedRecord | None:
        return None

    @property
    def domains(self) -> dict[str, DomainRecord]:
        return self.book.domains

    def handle(self, message: m.AnyMessage, turn: Turn) -> None:
        match message:
            case m.CallEnded():
                self._on_call_ended(message, turn)
            case m.DomainHappened():
                self._on_happened(message, turn)
            case m.SamplesStored():
                self.spool.on_stored(message, turn)
            case m.FlushReports():
                self.book.flush_reports(turn)
            case m.TimerFired():
                self._on_timer(message.name, turn)
            case m.StartAgent() | m.StopAgent() | m.RestartAgent() | m.Recovered():
                self._on_life(message, turn)
            case m.FenceHost() | m.CheckHostLease():
                self.proxy.ask(message, self.record.host_epoch, turn)
            case _:
                self._on_order(message, turn)

    def _on_order(self, message: m.AnyMessage, turn: Turn) -> None:
        """What the engine wants of one machine."""
        match message:
            case m.CreateDomain():
                self.starts.create(message, turn)
            case m.PrepareIncoming():
                self.migrations.prepare(message, turn)
            case m.MigrateDomain():
                self.migrations.migrate(message, turn)
            case m.CancelMigration():
                self.migrations.cancel(message, turn)
            case m.CommandDomain():
                self.commands.command(message, turn)
            case m.TaskDomain():
                self.tasks.of_domain(message, turn)
            case m.TaskWanted():
                self.tasks.on_wanted(message, turn)
            case m.MeasureDomain():
                self.tasks.measure(message, turn)
            case m.TaskOfHost():
                self.tasks.of_host(message, turn)
            case m.OpenConsole():
                self.tasks.open_console(message, turn)
            case m.QueryDomain():
                self.recovery.on_query(message, turn)
            case m.ForgetDomain():
                self.commands.forget(message, turn)
            case _:
                raise AssertionError(f"{self.address} cannot handle {type(message).__name__}")

    # ------------------------------------------------------------------ its own life

    def _on_life(self, message: m.AnyMessage, turn: Turn) -> None:
        match message:
            case m.StartAgent():
                self._on_start_agent(message, turn)
            case m.StopAgent():
                self._on_stop_agent(turn)
            case m.RestartAgent():
                self.restart(turn)
            case m.Recovered() if self.record.host_epoch:
                self._open(turn)
                turn.wake_each("heartbeat", turn.config.heartbeat_period_s)

    def restart(self, turn: Turn) -> None:
        """As a new process would begin: only the records are left, and the hypervisor is asked what runs."""
        turn.sometimes("agent_is_restarted_in_its_silo")
        self.book.restart()
        self.leases.unrenewed = 0
        self.migrations.failures = {}
        self.migrations.watched = {}
        self.tasks.restart()
        self.opening = False
        self.cpu_load_percent = 0.0
        self.swap_used_percent = 0
        self._open(turn)
        turn.wake_each("heartbeat", turn.config.heartbeat_period_s)

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
            record.host_epoch = epoch_above(message.host_epoch_min)
            turn.save(record)
        if self.book.is_open and self.opened is not None:
            self._say_ready(self.opened, turn)
        else:
            self.asked_to_start = True
            self._open(turn)

    def _on_stop_agent(self, turn: Turn) -> None:
        for domain in self.domains.values():
            turn.erase(domain)
        turn.erase(self.record)
        turn.call(HYPERVISOR, CloseHost(self.record.host), "close")
        turn.send(f"agents@{turn.silo}", m.StopAgent(self.record.host))
        turn.stop()

    def _open(self, turn: Turn) -> None:
        if self.opening:
            return
        self.opening = True
        record = self.record
        request = OpenHost(
            record.host, record.backend, record.backend_settings, record.cpus, record.memory_bytes
        )
        turn.call(HYPERVISOR, request, "open")

    def _on_opened(self, message: m.CallEnded, turn: Turn) -> None:
        if not self.opening:
            return  # answered to an earlier life
        self.opening = False
        if not message.ok:
            self._on_not_opened(message.value.decode(), turn)
            return
        self.asked_to_start = False
        opened = self.opened = msgspec.msgpack.decode(message.value, type=HostOpened)
        record, config = self.record, turn.config
        rebooted = bool(record.boot_id) and record.boot_id != opened.boot_id
        record.host_epoch += 1
        record.boot_id = opened.boot_id
        record.cpus, record.memory_bytes = opened.cpus, opened.memory_bytes
        turn.save(record)
        self.migrations.features = frozenset(opened.features)
        self.book.is_open = True
        self.book.seq = 0
        self.book.take_over(opened.under_way)
        self._say_ready(opened, turn)
        self.leases.renew(turn)  # before anything leased begins: the host's watchdog may not be armed
        self.recovery.adopt_all(opened.found, rebooted, turn)
        turn.wake_each("heartbeat", config.heartbeat_period_s)
        turn.wake("report", min(1.0, config.report_period_s))
        turn.wake_each("sample", config.sample_period_s)

    def _on_not_opened(self, reason: str, turn: Turn) -> None:
        """The engine is told if it waits for it; an agent that was whole once goes on trying (see `heartbeat`)."""
        if self.asked_to_start or not self.record.boot_id:
            self.asked_to_start = False
            turn.send(f"host/{self.record.host}", m.AgentFailed(self.record.host, reason))

    def _say_ready(self, opened: HostOpened, turn: Turn) -> None:
        record = self.record
        turn.send(
            f"host/{record.host}",
            m.AgentReady(
                record.host,
                record.host_epoch,
                record.boot_id,
                record.cpus,
                record.memory_bytes,
                opened.cpu_model,
                opened.features,
                self._problems(),
                opened.accelerator,
                opened.accelerator_reason,
                opened.profile,
            ),
        )

    def _problems(self) -> list[str]:
        found = [] if self.opened is None else self.opened.problems
        of_leases = self.leases.problems()
        return list(dict.fromkeys([*found, *of_leases])) if found or of_leases else []

    # ------------------------------------------------------------------ periodic work

    def _on_timer(self, name: str, turn: Turn) -> None:
        match name:
            case "heartbeat":
                self._beat(turn)
            case "renew":
                self.leases.renew(turn)
            case "leave":
                self.leases.leave_again(turn)
            case _ if not self.book.is_open:
                pass  # opening sets them anew
            case "report":
                self._report(turn)
            case "spool":
                self.spool.send(turn)
            case "sample":
                turn.call(HYPERVISOR, SampleHost(self.record.host, self.record.host_epoch), "sample")
                turn.wake_each("sample", turn.config.sample_period_s)
            case _:
                self._on_domain_timer(name, turn)

    def _on_domain_timer(self, name: str, turn: Turn) -> None:
        verb, _, what = name.partition("/")
        match verb:
            case "list":
                turn.call(HYPERVISOR, ListDomains(), what)
            case "monitor":
                self.migrations.look(what, turn)
            case "acquire":
                self.leases.acquire_again(what, turn)
            case "prepare":
                self.migrations.prepare_again(what, turn)
            case "resume" | "kill":
                self.recovery.on_io_error_timer(verb, what, turn)
            case _:
                raise AssertionError(f"{self.address} has no timer {name}")

    def _beat(self, turn: Turn) -> None:
        record = self.record
        turn.wake_each("heartbeat", turn.config.heartbeat_period_s)
        if self.book.is_open:
            beat = m.Heartbeat(record.host, record.host_epoch, record.boot_id, self._problems())
            turn.tell(f"host/{record.host}", beat)
        else:
            turn.sometimes("agent_recovers_for_longer_than_a_heartbeat")
            turn.tell(f"host/{record.host}", m.AgentRecovering(record.host, record.host_epoch))
            self._open(turn)

    def _report(self, turn: Turn) -> None:
        record = self.record
        self.book.seq += 1
        states = [state_of(domain) for domain in self.domains.values() if not domain.forgotten]
        turn.tell(
            f"host/{record.host}",
            m.HostReport(
                record.host,
                record.host_epoch,
                self.book.seq,
                self.cpu_load_percent,
                states,
                self.swap_used_percent,
            ),
        )
        self.book.asked.clear()
        self.migrations.watch_all(turn)
        turn.call(HYPERVISOR, LookAround(record.host), "look")
        turn.wake_each("report", turn.config.report_period_s)

    def _on_looked(self, message: m.CallEnded, turn: Turn) -> None:
        seen = self.recovery.seen(message)
        if seen is None or self.opened is None or not self.book.is_open:
            return
        if seen.boot_id != self.record.boot_id:
            self.restart(turn)  # the host was restarted and this process was not
            return
        self.opened = msgspec.structs.replace(self.opened, problems=seen.problems)
        self.recovery.compare(seen, turn)

    def _on_sampled(self, message: m.CallEnded, turn: Turn) -> None:
        if not message.ok:
            return  # a backend that cannot say its statistics now says them at the next period
        sampled = msgspec.msgpack.decode(message.value, type=Sampled)
        self.cpu_load_percent = sampled.cpu_load_percent
        self.swap_used_percent = sampled.swap_used_percent
        self.spool.put(sampled.batches, self.record.host_epoch, turn)
        if sampled.facts:
            turn.tell(TELEMETRY, m.GuestFactsTold(sampled.facts))
        for vm_id, epoch, facts in sampled.guests:
            domain = self.domains.get(vm_id)
            if domain is not None and domain.epoch == epoch:
                turn.tell(domain.vm_address, m.GuestTold(self.record.host, epoch, facts))

    # ------------------------------------------------------------------ answers of the ports

    def _on_call_ended(self, message: m.CallEnded, turn: Turn) -> None:
        verb, _, rest = message.tag.partition("/")
        self.book.answered(message.tag)
        match verb:
            case "open":
                self._on_opened(message, turn)
            case "look":
                self._on_looked(message, turn)
            case "sample":
                self._on_sampled(message, turn)
            case "renew":
                self.leases.on_renewed(message, turn)
            case "fence":
                self.proxy.on_fenced(message, turn)
            case "check":
                self.proxy.on_checked(message, turn)
            case "task":
                self.tasks.on_ended(message, turn)
            case "console":
                self.tasks.on_console(message, turn)
            case "measure":
                self.tasks.on_measured(message, turn)
            case _:
                vm_id, epoch, *attempt = rest.split("/")
                domain = self.domains.get(vm_id)
                current = domain is not None and domain.epoch == int(epoch)
                if domain is not None and current and attempt in ([], [str(domain.to_epoch)]):
                    self._on_domain_answer(domain, verb, message, turn)
                elif domain is not None and not current and verb == "leave":
                    self.leases.on_left_earlier(domain, turn)

    def _on_domain_answer(self, domain: DomainRecord, verb: str, message: m.CallEnded, turn: Turn) -> None:
        """Of the copy that is known; those of attempts that are over do not come here."""
        match verb:
            case _ if verb in LISTS:
                self._on_listed(domain, verb, message, turn)
            case "start":
                self.starts.on_launched(domain, message, turn)
            case "take":
                self.starts.on_taken(domain, message, turn)
            case "join":
                self.migrations.on_joined(domain, message, turn)
            case "leave":
                self.leases.on_left(domain, message, turn)
            case "incoming":
                self.migrations.on_prepared(domain, message, turn)
            case "migrate":
                self.migrations.on_migrated(domain, message, turn)
            case "statistics":
                self.migrations.on_statistics(domain, message, turn)
            case "stray" | "converge" | "cancel":
                pass  # what came of it is seen in a list, in the next statistics, or in the migration's own end
            case _:
                self.commands.on_ended(domain, verb, message, turn)

    def _on_listed(self, domain: DomainRecord, verb: str, message: m.CallEnded, turn: Turn) -> None:
        if not message.ok:
            turn.wake(f"list/{message.tag}", LIST_AGAIN_S)
            return
        match verb:
            case "query" | "purge":
                self.recovery.on_queried(domain, verb, message, turn)
            case "verify":
                self.starts.on_verified(domain, message, turn)
            case "migration":
                self.migrations.on_migration_listed(domain, message, turn)
            case _:
                self.recovery.on_rechecked(domain, message, turn)

    # ------------------------------------------------------------------ events of the hypervisor

    def _on_happened(self, message: m.DomainHappened, turn: Turn) -> None:
        domain = self.domains.get(message.vm_id)
        if domain is None or domain.epoch != message.epoch:
            return
        if message.kind == "guest_event":
            self._on_guest_event(domain, message, turn)
            return
        ended = message.kind in TERMINAL_EVENTS
        if domain.status is VmStatus.DOWN:
            if not ended and domain.name:  # a start that took effect after it was given up
                self.book.end_stray(domain, turn)
        elif message.exit_reason == ExitReason.ARRIVAL_GIVEN_UP:
            self.book.given_up(domain, message.message, turn)
        elif ended:
            exit_reason = ExitReason.LOST_QEMU if message.exit_reason is None else message.exit_reason
            self.book.down(domain, exit_reason, message.message, turn)
        else:
            self._on_changed(domain, message, turn)

    def _on_guest_event(self, domain: DomainRecord, message: m.DomainHappened, turn: Turn) -> None:
        """The guest's own words: facts that are news are fetched soon, what happens in its sessions is history's."""
        if message.message == GUEST_FACTS:
            turn.wake("sample", min(FACTS_SOON_S, turn.config.sample_period_s))
        else:
            turn.record(
                "vm_guest_event",
                f"guest of machine {domain.name}: {message.message}",
                vm_id=domain.vm_id,
                vm_name=domain.name,
                host=self.record.host,
            )

    def _on_changed(self, domain: DomainRecord, message: m.DomainHappened, turn: Turn) -> None:
        status = STATUS_BY_EVENT[message.kind]
        if domain.status is VmStatus.MIGRATING_FROM:
            # Its migration goes on whatever the guest does; only its own pauses are a change of status.
            if message.pause_code not in ("POSTMIGRATE", "POSTCOPY"):
                return
            turn.sometimes(f"agent_source_paused_{message.pause_code.lower()}")
        elif domain.status is VmStatus.MIGRATING_TO:
            turn.sometimes("agent_sees_its_machine_arrive")
        elif status is VmStatus.POWERING_UP and domain.status is not VmStatus.WAIT_FOR_LAUNCH:
            return
        if domain.status is status and domain.pause_code == message.pause_code and not domain.pending:
            return
        self.book.stand(domain, status, message.pause_code, turn)
