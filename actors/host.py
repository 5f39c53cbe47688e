"""The `host/<name>` actor: the engine's view of one host, by the sixteen-status machine.

It decides whether the host is in service and whether its agent is believed; what runs on it is the cluster's and the
machines' business. Rules:
1. Belief is a matter of heartbeats: silent for `host_connecting_after_s` it is Connecting, silent past the grace
   (60 s and half a second a machine, as in oVirt) it is NonResponsive, its machines become Unknown and a fence flow
   begins (`host_fencing`).
2. Only the agent that said it is ready is believed, and never one of a boot that is proven over.
3. That an earlier boot is over is told to the cluster before the host joins it with a new one.
"""

from __future__ import annotations

from actors.behaviour import TimedRecord, Turn
from actors.host_commands import HostCommands
from actors.host_core import HostCore
from actors.host_fencing import Fencing
from actors.host_maintenance import Maintenance
from actors.host_requirements import Requirements
from actors.host_tasks import TIMER, HostTasks
from olvm.model import messages as m
from olvm.model.errors import OperationFailed
from olvm.model.host_profile import merged_profile
from olvm.model.host_states import HostStatus, HostTrigger
from olvm.model.records import HostRecord

S = HostStatus

# Statuses in which silence means something: the host is meant to answer. Unassigned has a deadline of its own.
WATCHED = frozenset(
    {S.UP, S.CONNECTING, S.ERROR, S.PREPARING_FOR_MAINTENANCE, S.NON_OPERATIONAL, S.INITIALIZING}
)
# An agent that was replaced or lost its journal is asked for its word; one that runs says again that it is ready.
ASKED_FOR = frozenset({S.NON_RESPONSIVE, S.REBOOT, S.KDUMPING})
# What a report says of the machines there is not passed on.
UNBELIEVED = frozenset({S.NON_RESPONSIVE, S.REBOOT, S.KDUMPING, S.DOWN, S.INITIALIZING})
# What an answer means to a host that fell silent in a status other than Up.
RETURN_TRIGGER = {
    S.ERROR.value: HostTrigger.RETURNED_TO_ERROR,
    S.PREPARING_FOR_MAINTENANCE.value: HostTrigger.RETURNED_TO_PREPARING,
    S.NON_OPERATIONAL.value: HostTrigger.RETURNED_TO_NON_OPERATIONAL,
    S.INITIALIZING.value: HostTrigger.RETURNED_TO_INITIALIZING,
}


class Host(HostCore):
    def __init__(self, record: HostRecord) -> None:
        super().__init__(record)
        self.fencing = Fencing(self)
        self.maintenance = Maintenance(self, self.fencing)
        self.requirements = Requirements(self)
        self.commands = HostCommands(self, self.fencing, self.maintenance)
        self.tasks = HostTasks(self)

    @classmethod
    def new(cls, name: str, cluster: str, now_ns: int, host_epoch: int = 0) -> Host:
        """`host_epoch`: those of an earlier host of this name, if there was one, were not above it."""
        record = HostRecord(
            name=name, cluster=cluster, created_ns=now_ns, status_since_ns=now_ns, host_epoch=host_epoch
        )
        host = cls(record)
        host.last_seen_ns = now_ns
        return host

    def timed_record(self) -> TimedRecord | None:
        return self.record

    def handle(self, message: m.AnyMessage, turn: Turn) -> None:
        match message:
            case m.Heartbeat():
                if self._is_believed(message.host_epoch, turn):
                    self.requirements.heard(message.problems, turn)
            case m.HostReport():
                self._on_report(message, turn)
            case m.TimerFired():
                self._on_timer(message.name, turn)
            case m.AgentReady():
                self._on_agent_ready(message, turn)
            case m.AgentRecovering():
                self._on_agent_recovering(message, turn)
            case m.AgentFailed():
                self._on_agent_failed(message.reason, turn)
            case m.RegisterHost():
                self.commands.register(message, turn)
            case m.CommandHost():
                self.commands.command(message, turn)
            case m.HostOccupancy():
                self.maintenance.on_occupancy(message, turn)
            case m.HostStartFailed():
                self._on_start_failed(turn)
            case m.Recovered():
                self._on_recovered(turn)
            case _:
                self._on_other(message, turn)

    def _on_other(self, message: m.AnyMessage, turn: Turn) -> None:
        match message:
            case m.TaskHost():
                self.tasks.begin(message, turn)
            case m.TaskEnded():
                self.tasks.on_ended(message, turn)
            case m.FencingAdvice():
                self.fencing.on_advice(message, turn)
            case m.FenceReady():
                self.fencing.on_ready(message, turn)
            case m.FenceResult():
                self.fencing.on_result(message, turn)
            case m.HostLeaseChecked():
                self.fencing.on_lease_checked(message, turn)
            case m.CallEnded():
                self.fencing.on_call_ended(message, turn)
            case m.KdumpSeen():
                self._on_kdump(message, turn)
            case _:
                raise AssertionError(f"{self.address} cannot handle {type(message).__name__}")

    def _on_recovered(self, turn: Turn) -> None:
        """Silence is counted from the engine's start, not from before it; what the cluster must know is said again."""
        record = self.record
        self.engine_started_ns = self.last_seen_ns = turn.now_ns
        turn.wake_each("watch", turn.config.heartbeat_period_s)
        if record.status is S.NON_RESPONSIVE:
            self.loss_told_ns = turn.now_ns
            turn.send(self.cluster, m.HostUnresponsive(record.name, record.status_reason))
        self.maintenance.push(turn)
        self.requirements.push(turn)
        self.fencing.on_recovered(turn)

    def _on_timer(self, name: str, turn: Turn) -> None:
        match name:
            case _ if name.startswith(TIMER):
                self.tasks.on_deadline(name.removeprefix(TIMER), turn)
            case "watch":
                self._watch(turn)
                turn.wake_each("watch", turn.config.heartbeat_period_s)
            case "init":
                self._on_agent_failed(
                    f"the agent did not answer in {turn.config.host_init_timeout_s:g} s", turn
                )
            case "forgive":
                self._forgive(turn)
            case "recovery":
                self._on_recovery_timed_out(turn)
            case "recover":
                self.requirements.on_due(turn)
            case "maintenance":
                self.maintenance.on_deadline(turn)
            case "drain":
                self.maintenance.push(turn)
            case "fence":
                self.fencing.on_due(turn)
            case "power_quiet":
                pass  # only how long it stands counts: see HostCommands
            case _:
                raise AssertionError(f"{self.address} has no timer {name}")

    # ------------------------------------------------------------------ silence

    def _watch(self, turn: Turn) -> None:
        status, silent_s = self.record.status, self.silent_s(turn)
        if status in ASKED_FOR:
            self.ask_agent(turn)
        if status not in WATCHED and status is not S.NON_RESPONSIVE:
            return
        if silent_s > turn.config.lease_takeover_after_s and not self.silence_told:
            self.silence_told = True
            turn.send(self.cluster, m.HostSilent(self.record.name, f"silent for {silent_s:.0f} s"))
        if status is S.NON_RESPONSIVE:
            self.tell_loss_again(turn)
            return
        is_over = silent_s > self.grace_s(turn)
        if silent_s > turn.config.host_connecting_after_s and status is not S.CONNECTING:
            self.move(HostTrigger.HEARTBEAT_MISSED, f"silent for {silent_s:.0f} s", turn, "warning")
        if is_over:
            self._on_grace_over(silent_s, turn)

    def _on_grace_over(self, silent_s: float, turn: Turn) -> None:
        record = self.record
        reason = f"silent for {silent_s:.0f} s, past the grace of {self.grace_s(turn):g} s"
        self.make_non_responsive(reason, turn)
        self.maintenance.lost(turn)
        self.finish(turn, False, f"host {record.name} does not answer: {reason}", OperationFailed.code)
        self.fencing.begin("not_responding", turn)

    # ------------------------------------------------------------------ belief

    def _is_believed(self, host_epoch: int, turn: Turn) -> bool:
        """Take note that the agent speaks; true if what it says counts."""
        record = self.record
        if host_epoch < record.host_epoch or self.is_proven_over:
            return False
        self.heard(turn)
        if host_epoch > record.host_epoch:
            return False  # a new start of the agent, whose AgentReady is on its way
        silent = record.status is S.CONNECTING
        if silent or (record.status is S.NON_RESPONSIVE and self.fencing.answered(turn)):
            self._answer_again(turn)
        return record.status not in UNBELIEVED

    def _answer_again(self, turn: Turn) -> None:
        """Back to what it was before it fell silent: a host in Error or on its way out does not return to service."""
        if self.record.status is S.KDUMPING:
            trigger = HostTrigger.ANSWERED
        else:
            trigger = RETURN_TRIGGER.get(self.record.silent_from, HostTrigger.ANSWERED)
        self.move(trigger, "answers again", turn)
        self.maintenance.push(turn)
        if self.record.status is S.INITIALIZING:
            turn.set_timer(self.record, "recovery", turn.config.host_recovery_timeout_s)

    def _on_report(self, report: m.HostReport, turn: Turn) -> None:
        record = self.record
        believed = self._is_believed(report.host_epoch, turn)
        if not believed or report.seq <= self.last_seq:
            return
        self.last_seq = report.seq
        self.vm_count = len(report.domains)
        turn.tell(
            self.cluster,
            m.HostReported(
                record.name,
                self.agent,
                report.host_epoch,
                report.seq,
                report.cpu_load_percent,
                report.domains,
                report.swap_used_percent,
            ),
        )

    # ------------------------------------------------------------------ the agent's start

    def _on_agent_ready(self, message: m.AgentReady, turn: Turn) -> None:
        record = self.record
        if message.host_epoch < record.host_epoch:
            return
        if message.boot_id and message.boot_id == record.fenced_boot_id:
            self._on_lie(turn)
            return
        if record.boot_id and record.boot_id != message.boot_id:
            self._on_new_boot(turn)
        elif record.status in (S.NON_RESPONSIVE, S.REBOOT) and not self.fencing.answered(turn):
            return
        self._take_capabilities(message, turn)
        self._come_back(message.problems, turn)
        turn.send(
            self.cluster,
            m.HostJoined(
                record.name,
                record.cpus,
                record.memory_bytes,
                self.agent,
                record.status is S.UP,
                record.boot_id,
                record.cpu_model,
                record.features,
                bool(record.fence_devices),
                merged_profile(record.profile, record.learnt_profile),
            ),
        )
        # Error: it stood there when it fell silent, and what was asked for since has been done.
        if record.status in (S.UP, S.ERROR):
            self.finish(turn, True)
        elif record.status is S.NON_OPERATIONAL:
            reason = f"host {record.name} is non_operational: {record.status_reason}"
            self.finish(turn, False, reason, OperationFailed.code)

    def _on_new_boot(self, turn: Turn) -> None:
        """What ran in the boot before is gone: the cluster hears it before the host joins again (rule 3)."""
        if not self.is_proven_over:
            self.prove_over("it has been restarted", turn)
        text = f"host {self.record.name} has been restarted; what ran on it is gone"
        self.tell("host_rebooted", text, turn, "warning")
        self.fencing.started_anew(turn)

    def _on_lie(self, turn: Turn) -> None:
        """The agent of a boot that was proven over speaks: the device or the person was wrong, or the word is late.

        Its machines may run elsewhere by now, so it is not believed; it is fenced again, as it may still run them.
        """
        record = self.record
        if record.fence_lied_boot_id == record.fenced_boot_id:
            return
        turn.sometimes("boot_that_was_proven_over_answers")
        record.fence_lied_boot_id = record.fenced_boot_id
        turn.save(record)
        reason = f"boot {record.fenced_boot_id} was proven over and answers"
        text = (
            f"host {record.name} is not believed: {reason}; its machines may run twice, "
            "see to it that it is restarted and look at its power management"
        )
        self.tell("host_fence_lied", text, turn, "alert")
        if record.boot_id != record.fenced_boot_id:
            return  # a late word of a boot before the one that runs
        self.maintenance.lost(turn)
        if self.make_non_responsive(reason, turn) or record.status is S.NON_RESPONSIVE:
            self.finish(turn, False, text, OperationFailed.code)
            self.fencing.on_lie(turn)

    def _take_capabilities(self, message: m.AgentReady, turn: Turn) -> None:
        record = self.record
        record.host_epoch = message.host_epoch
        record.boot_id = message.boot_id
        record.cpus = message.cpus
        record.memory_bytes = message.memory_bytes
        record.cpu_model = message.cpu_model or record.cpu_model  # told once per start of the agent
        record.features = message.features or record.features
        record.learnt_profile = message.profile or record.learnt_profile
        record.accelerator = message.accelerator or record.accelerator
        record.accelerator_reason = message.accelerator_reason or record.accelerator_reason
        self.heard(turn)
        self.last_seq = 0
        turn.cancel_timer(record, "init")
        turn.cancel_timer(record, "recovery")
        turn.save(record)

    def _come_back(self, problems: list[str], turn: Turn) -> None:
        """The agent is whole: on in the host's life, by the status it stands in."""
        status = self.record.status
        if status in (S.CONNECTING, S.NON_RESPONSIVE, S.KDUMPING):
            self._answer_again(turn)
            status = self.record.status
        elif status is S.REBOOT:
            self.move(HostTrigger.ANSWERED, "it has started", turn)
            status = self.record.status
        if status in (S.INSTALLING, S.UNASSIGNED, S.INITIALIZING):
            self.requirements.begin_service(problems, turn)
        else:
            self.requirements.whole_again(problems, turn)

    def _on_agent_recovering(self, message: m.AgentRecovering, turn: Turn) -> None:
        """Alive, and not to be believed until it is whole (VDSM's error 99)."""
        record = self.record
        if message.host_epoch < record.host_epoch:
            return  # overtaken by the AgentReady of that start
        if self.is_proven_over or record.status in (S.REBOOT, S.KDUMPING):
            return  # it says nothing of its boot: only AgentReady does
        self.heard(turn)
        if record.status is S.NON_RESPONSIVE and not self.fencing.answered(turn):
            return
        if record.status in (S.CONNECTING, S.NON_RESPONSIVE) and record.silent_from in RETURN_TRIGGER:
            self._answer_again(turn)
        elif record.status in (S.UP, S.UNASSIGNED, S.CONNECTING, S.NON_RESPONSIVE):
            turn.cancel_timer(record, "init")
            self.move(HostTrigger.AGENT_RECOVERING, "its agent is recovering", turn)
            turn.set_timer(record, "recovery", turn.config.host_recovery_timeout_s)

    def _on_recovery_timed_out(self, turn: Turn) -> None:
        if self.record.status is S.INITIALIZING:
            turn.sometimes("agent_recovered_for_too_long")
            self.requirements.never_whole(turn)
            reason = f"host {self.record.name}: {self.record.status_reason}"
            self.finish(turn, False, reason, OperationFailed.code)

    def _on_agent_failed(self, reason: str, turn: Turn) -> None:
        record, status = self.record, self.record.status
        if status not in (S.INSTALLING, S.UNASSIGNED):
            return
        turn.cancel_timer(record, "init")
        if status is S.INSTALLING:
            self.move(HostTrigger.INSTALL_FAILED, reason, turn, "error")
        else:
            self.make_non_responsive(reason, turn)
        self.finish(turn, False, f"host {record.name}: {reason}", OperationFailed.code)
        if status is S.UNASSIGNED:
            self.fencing.begin("not_responding", turn)

    def _on_kdump(self, message: m.KdumpSeen, turn: Turn) -> None:
        """Proof that the boot is over, if it can be no other's: one without a boot id counts only past the grace."""
        record = self.record
        late = message.boot_id not in ("", record.boot_id)
        if not record.kdump or late or (self.is_proven_over and not record.fence_step):
            return
        if record.status in WATCHED and message.boot_id:
            self.make_non_responsive("its kernel crashed", turn)
            self.maintenance.lost(turn)
            text = f"host {record.name}: its kernel crashed"
            self.finish(turn, False, text, OperationFailed.code)
        if record.status in (S.NON_RESPONSIVE, S.KDUMPING):
            self.fencing.on_kdump(turn)

    # ------------------------------------------------------------------ failed starts

    def _on_start_failed(self, turn: Turn) -> None:
        record = self.record
        record.failed_starts += 1
        turn.set_timer(record, "forgive", turn.config.failed_starts_expire_s)
        if record.failed_starts >= turn.config.failed_starts_max and record.status is S.UP:
            reason = f"{record.failed_starts} machines in a row failed to start on it"
            self.move(HostTrigger.FAILED_RUNS, reason, turn, "error")

    def _forgive(self, turn: Turn) -> None:
        record = self.record
        record.failed_starts = 0
        if record.silent_from == S.ERROR.value:
            record.silent_from = S.UP.value  # it is silent now, or was: it does not return to Error
        turn.save(record)
        if record.status is S.ERROR:
            self.move(HostTrigger.ERROR_EXPIRED, "", turn)
