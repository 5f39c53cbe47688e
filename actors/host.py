"""The `host/<name>` actor: the engine's view of one host, by the sixteen-status machine.

It decides whether the host is in service; what runs on it is the cluster's and the machines' business. Belief in
the host is a matter of heartbeats: silent for `host_connecting_after_s` it is Connecting, silent past the grace
(60 s and half a second a machine, as in oVirt) it is NonResponsive and its machines become Unknown.
"""

from __future__ import annotations

from actors.behaviour import TimedRecord, Turn
from olvm.model import messages as m
from olvm.model.errors import Conflict, OperationFailed
from olvm.model.host_states import (
    HostAction,
    HostStatus,
    HostTrigger,
    host_refusal,
    next_host_status,
)
from olvm.model.limits import NS_PER_S
from olvm.model.records import HostRecord, Severity

# Statuses in which silence means something: the host is meant to answer.
WATCHED = frozenset(
    {HostStatus.UP, HostStatus.CONNECTING, HostStatus.ERROR, HostStatus.PREPARING_FOR_MAINTENANCE}
)
ACTION_BY_NAME = {
    "activate": HostAction.ACTIVATE,
    "maintenance": HostAction.MAINTENANCE,
    "remove": HostAction.REMOVE,
}
# What an answer means to a host that fell silent in a status other than Up.
RETURN_TRIGGER = {
    HostStatus.ERROR.value: HostTrigger.RETURNED_TO_ERROR,
    HostStatus.PREPARING_FOR_MAINTENANCE.value: HostTrigger.RETURNED_TO_PREPARING,
}


class Host:
    def __init__(self, record: HostRecord) -> None:
        self.record = record
        self.address = f"host/{record.name}"
        self.last_seen_ns = 0
        self.last_seq = 0
        self.vm_count = 0

    @classmethod
    def new(cls, name: str, cluster: str, now_ns: int) -> Host:
        host = cls(HostRecord(name=name, cluster=cluster, created_ns=now_ns, status_since_ns=now_ns))
        host.last_seen_ns = now_ns
        return host

    def timed_record(self) -> TimedRecord | None:
        return self.record

    @property
    def agent(self) -> str:
        return f"agent/{self.record.name}@{self.record.silo}"

    @property
    def cluster(self) -> str:
        return f"cluster/{self.record.cluster}"

    def handle(self, message: m.AnyMessage, turn: Turn) -> None:
        match message:
            case m.Heartbeat():
                self._on_heard(message.host_epoch, turn)
            case m.HostReport():
                self._on_report(message, turn)
            case m.TimerFired():
                self._on_timer(message.name, turn)
            case m.AgentReady():
                self._on_agent_ready(message, turn)
            case m.AgentFailed():
                self._on_agent_failed(message.reason, turn)
            case m.RegisterHost():
                self._on_register(message, turn)
            case m.CommandHost():
                self._on_command(message, turn)
            case m.HostOccupancy():
                self._on_occupancy(message, turn)
            case m.HostStartFailed():
                self._on_start_failed(turn)
            case m.Recovered():
                # Quiet time: silence is counted from the engine's start, not from before it.
                self.last_seen_ns = turn.now_ns
                turn.wake_each("watch", turn.config.heartbeat_period_s)
            case _:
                raise AssertionError(f"{self.address} cannot handle {type(message).__name__}")

    # ------------------------------------------------------------------ status

    def _move(self, trigger: HostTrigger, reason: str, turn: Turn, severity: Severity = "normal") -> None:
        record = self.record
        before = record.status
        record.status = next_host_status(before, trigger)
        if trigger is HostTrigger.HEARTBEAT_MISSED:
            record.silent_from = before.value
        record.status_reason = reason
        record.status_since_ns = turn.now_ns
        turn.save(record)
        if (before is HostStatus.UP) != (record.status is HostStatus.UP):
            turn.send(self.cluster, m.HostUsable(record.name, record.status is HostStatus.UP, reason))
        turn.record(
            f"host_{record.status.value}",
            f"host {record.name} is {record.status.value}" + (f": {reason}" if reason else ""),
            severity,
            host=record.name,
            cluster=record.cluster,
            operation_id=record.operation_id or "",
            details={"kind": "host", "cpus": record.cpus, "memory_bytes": record.memory_bytes},
        )

    def _finish(self, turn: Turn, succeeded: bool, reason: str = "", code: str = "") -> None:
        record = self.record
        if record.operation_id is not None:
            turn.send("engine", m.OperationEnded(record.operation_id, succeeded, reason, code))
            record.operation_id = None
            turn.save(record)

    # ------------------------------------------------------------------ belief

    def _on_heard(self, host_epoch: int, turn: Turn) -> None:
        record = self.record
        if host_epoch < record.host_epoch:
            return  # from before the agent's last start
        self.last_seen_ns = turn.now_ns
        if record.status in (HostStatus.CONNECTING, HostStatus.NON_RESPONSIVE):
            self._answer_again(turn)

    def _answer_again(self, turn: Turn) -> None:
        """Back to what it was before it fell silent: a host in Error or on its way out does not return to service."""
        trigger = RETURN_TRIGGER.get(self.record.silent_from, HostTrigger.ANSWERED)
        self._move(trigger, "answers again", turn)
        if self.record.status is HostStatus.PREPARING_FOR_MAINTENANCE:
            turn.send(self.cluster, m.AskEmpty(self.record.name))

    def _on_report(self, report: m.HostReport, turn: Turn) -> None:
        record = self.record
        self._on_heard(report.host_epoch, turn)
        if report.host_epoch != record.host_epoch or report.seq <= self.last_seq:
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
            ),
        )

    def _on_timer(self, name: str, turn: Turn) -> None:
        match name:
            case "watch":
                self._watch(turn)
                turn.wake_each("watch", turn.config.heartbeat_period_s)
            case "init":
                self._on_agent_failed(
                    f"the agent did not answer in {turn.config.host_init_timeout_s:g} s", turn
                )
            case "forgive":
                self._forgive(turn)
            case _:
                raise AssertionError(f"{self.address} has no timer {name}")

    def _watch(self, turn: Turn) -> None:
        if self.record.status is HostStatus.NON_RESPONSIVE:
            # An agent that lost its journal does not know that it exists; to any other this changes nothing.
            turn.tell(f"agents@{self.record.silo}", self._agent_order())
        if self.record.status not in WATCHED:
            return
        silent_s = (turn.now_ns - self.last_seen_ns) / NS_PER_S
        config = turn.config
        grace_s = config.host_grace_s + config.host_grace_per_vm_s * self.vm_count
        if silent_s > grace_s:
            if self.record.status is not HostStatus.CONNECTING:
                self._move(HostTrigger.HEARTBEAT_MISSED, f"silent for {silent_s:.0f} s", turn, "warning")
            reason = f"silent for {silent_s:.0f} s, past the grace of {grace_s:g} s"
            self._move(HostTrigger.GRACE_OVER, reason, turn, "error")
            self._finish(
                turn, False, f"host {self.record.name} does not answer: {reason}", OperationFailed.code
            )
            turn.send(self.cluster, m.HostUnresponsive(self.record.name, reason))
        elif silent_s > config.host_connecting_after_s and self.record.status is not HostStatus.CONNECTING:
            self._move(HostTrigger.HEARTBEAT_MISSED, f"silent for {silent_s:.0f} s", turn, "warning")

    # ------------------------------------------------------------------ registration

    def _on_register(self, message: m.RegisterHost, turn: Turn) -> None:
        command, record = message.command, self.record
        record.backend = command.backend
        record.backend_settings = command.backend_settings
        record.silo = command.silo
        record.cpus = command.cpus
        record.memory_bytes = command.memory_bytes
        record.operation_id = message.operation_id
        turn.save(record)
        turn.record(
            "host_added",
            f"host {record.name} was added to cluster {record.cluster}",
            host=record.name,
            cluster=record.cluster,
            operation_id=message.operation_id,
        )
        self._start_agent(turn)
        turn.wake_each("watch", turn.config.heartbeat_period_s)

    def _start_agent(self, turn: Turn) -> None:
        turn.set_timer(self.record, "init", turn.config.host_init_timeout_s)
        turn.send(f"agents@{self.record.silo}", self._agent_order())

    def _agent_order(self) -> m.StartAgent:
        record = self.record
        return m.StartAgent(
            record.name,
            record.cluster,
            record.backend,
            record.backend_settings,
            record.cpus,
            record.memory_bytes,
            record.host_epoch,
        )

    def _on_agent_ready(self, message: m.AgentReady, turn: Turn) -> None:
        record = self.record
        if message.host_epoch < record.host_epoch:
            return
        rebooted = bool(record.boot_id) and record.boot_id != message.boot_id
        record.host_epoch = message.host_epoch
        record.boot_id = message.boot_id
        record.cpus = message.cpus
        record.memory_bytes = message.memory_bytes
        record.cpu_model = message.cpu_model or record.cpu_model  # told once per start of the agent
        self.last_seen_ns = turn.now_ns
        self.last_seq = 0
        turn.cancel_timer(record, "init")
        turn.save(record)
        if rebooted:
            turn.record(
                "host_rebooted",
                f"host {record.name} has been restarted; what ran on it is gone",
                "warning",
                host=record.name,
                cluster=record.cluster,
            )
        if record.status in (HostStatus.INSTALLING, HostStatus.UNASSIGNED):
            self._move(HostTrigger.CAPABILITIES_OK, "", turn)
        elif record.status in (HostStatus.CONNECTING, HostStatus.NON_RESPONSIVE):
            self._answer_again(turn)
        turn.send(
            self.cluster,
            m.HostJoined(
                record.name, record.cpus, record.memory_bytes, self.agent, record.status is HostStatus.UP
            ),
        )
        if record.status is HostStatus.UP:
            self._finish(turn, True)

    def _on_agent_failed(self, reason: str, turn: Turn) -> None:
        record = self.record
        turn.cancel_timer(record, "init")
        if record.status is HostStatus.INSTALLING:
            self._move(HostTrigger.INSTALL_FAILED, reason, turn, "error")
        elif record.status is HostStatus.UNASSIGNED:
            self._move(HostTrigger.HEARTBEAT_MISSED, reason, turn, "warning")
            self._move(HostTrigger.GRACE_OVER, reason, turn, "error")
            turn.send(self.cluster, m.HostUnresponsive(record.name, reason))
        self._finish(turn, False, f"host {record.name}: {reason}", OperationFailed.code)

    # ------------------------------------------------------------------ commands

    def _on_command(self, message: m.CommandHost, turn: Turn) -> None:
        record = self.record
        refusal = host_refusal(record.name, record.status, ACTION_BY_NAME[message.action])
        if refusal is None and record.operation_id is not None:
            refusal = (
                f"cannot {message.action} host {record.name}: operation {record.operation_id} is under way"
            )
        if refusal is not None:
            turn.send("engine", m.OperationEnded(message.operation_id, False, refusal, Conflict.code))
            return
        record.operation_id = message.operation_id
        turn.save(record)
        match message.action:
            case "activate":
                self._move(HostTrigger.ACTIVATE, "", turn)
                self._start_agent(turn)
            case "maintenance":
                self._move(HostTrigger.MAINTENANCE_REQUESTED, "asked for", turn)
                turn.send(self.cluster, m.AskEmpty(record.name))
            case "remove":
                self._remove(turn)

    def _on_occupancy(self, message: m.HostOccupancy, turn: Turn) -> None:
        record = self.record
        if record.status is not HostStatus.PREPARING_FOR_MAINTENANCE:
            return
        if not message.vm_names:
            self._move(HostTrigger.EMPTIED, "", turn)
            self._finish(turn, True)
            return
        shown = ", ".join(message.vm_names[:3]) + (", …" if len(message.vm_names) > 3 else "")
        reason = (
            f"host {record.name} still runs {len(message.vm_names)} machines ({shown}); "
            "shut them down first (moving them away comes with live migration)"
        )
        silent_s = (turn.now_ns - self.last_seen_ns) / NS_PER_S
        answers = silent_s <= turn.config.host_connecting_after_s
        trigger = HostTrigger.MAINTENANCE_CANCELLED if answers else HostTrigger.MAINTENANCE_ABANDONED
        self._move(trigger, reason, turn, "warning")
        self._finish(turn, False, reason, Conflict.code)

    def _remove(self, turn: Turn) -> None:
        record = self.record
        turn.send(self.cluster, m.HostLeft(record.name))
        turn.send(self.agent, m.StopAgent(record.name))
        turn.send("engine", m.EntityRemoved("host", record.name))
        turn.record(
            "host_removed", f"host {record.name} was removed", host=record.name, cluster=record.cluster
        )
        self._finish(turn, True)
        turn.saved.clear()
        turn.erase(record)
        turn.stop()

    # ------------------------------------------------------------------ failed starts

    def _on_start_failed(self, turn: Turn) -> None:
        record = self.record
        record.failed_starts += 1
        turn.set_timer(record, "forgive", turn.config.failed_starts_expire_s)
        if record.failed_starts >= turn.config.failed_starts_max and record.status is HostStatus.UP:
            reason = f"{record.failed_starts} machines in a row failed to start on it"
            self._move(HostTrigger.FAILED_RUNS, reason, turn, "error")

    def _forgive(self, turn: Turn) -> None:
        self.record.failed_starts = 0
        turn.save(self.record)
        if self.record.status is HostStatus.ERROR:
            self._move(HostTrigger.ERROR_EXPIRED, "", turn)
