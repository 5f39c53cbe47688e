"""What the three parts of a host's behaviour share: its record, its changes of status, the end of its operation.

It must not know why a status changes; `host`, `host_fencing` and `host_maintenance` do. Rules:
1. A change of status is saved, told to the cluster and recorded as an event, here and nowhere else.
2. That a boot is over is told to the cluster in the turn that remembers it (`fenced_boot_id`), so neither is lost.
"""

from __future__ import annotations

from actors.behaviour import Turn
from olvm.model import messages as m
from olvm.model.host_states import MONITORED, HostStatus, HostTrigger, next_host_status
from olvm.model.limits import NS_PER_S
from olvm.model.records import HostRecord, Severity

# How a host that does not answer comes to NonResponsive, by the status it stands in.
SILENCE_TRIGGER = {
    HostStatus.CONNECTING: HostTrigger.GRACE_OVER,
    HostStatus.REBOOT: HostTrigger.RESTART_TIMED_OUT,
    HostStatus.KDUMPING: HostTrigger.KDUMP_ENDED,
    HostStatus.PREPARING_FOR_MAINTENANCE: HostTrigger.MAINTENANCE_ABANDONED,
}


class HostCore:
    def __init__(self, record: HostRecord) -> None:
        self.record = record
        self.address = f"host/{record.name}"
        # Forgotten by a restart of the engine, on purpose: silence is counted from then on.
        self.last_seen_ns = 0
        self.last_seq = 0
        self.vm_count = 0
        self.silence_told = False
        self.loss_told_ns: int | None = None  # while it is NonResponsive: when its machines were last told
        self.engine_started_ns: int | None = None  # None: this host was added after that

    @property
    def agent(self) -> str:
        return f"agent/{self.record.name}@{self.record.silo}"

    @property
    def cluster(self) -> str:
        return f"cluster/{self.record.cluster}"

    @property
    def is_proven_over(self) -> bool:
        """Nothing of the boot that the host was last seen in runs any more; whoever speaks for it is late or lies."""
        return bool(self.record.boot_id) and self.record.boot_id == self.record.fenced_boot_id

    def silent_s(self, turn: Turn) -> float:
        return (turn.now_ns - self.last_seen_ns) / NS_PER_S

    def answers(self, turn: Turn) -> bool:
        return self.silent_s(turn) <= turn.config.host_connecting_after_s

    def grace_s(self, turn: Turn) -> float:
        return turn.config.host_grace_s + turn.config.host_grace_per_vm_s * self.vm_count

    def heard(self, turn: Turn) -> None:
        self.last_seen_ns = turn.now_ns
        self.silence_told = False

    # ------------------------------------------------------------------ status

    def move(self, trigger: HostTrigger, reason: str, turn: Turn, severity: Severity = "normal") -> None:
        record = self.record
        before = record.status
        record.status = next_host_status(before, trigger)
        if trigger is HostTrigger.HEARTBEAT_MISSED:
            record.silent_from = before.value
        record.status_reason = reason
        record.status_since_ns = turn.now_ns
        turn.save(record)
        usable = record.status is HostStatus.UP
        turn.send(self.cluster, m.HostUsable(record.name, usable, reason, record.status.value))
        text = f"host {record.name} is {record.status.value}" + (f": {reason}" if reason else "")
        details: dict[str, str | int | float | bool | None] = {
            "kind": "host",
            "cpus": record.cpus,
            "memory_bytes": record.memory_bytes,
        }
        self.tell(f"host_{record.status.value}", text, turn, severity, details=details)

    def make_non_responsive(self, reason: str, turn: Turn) -> bool:
        """Stop believing the host, by the rows its status has; false (and no change) if it has none."""
        status = self.record.status
        if status in MONITORED - {HostStatus.CONNECTING, HostStatus.NON_RESPONSIVE} - set(SILENCE_TRIGGER):
            self.move(HostTrigger.HEARTBEAT_MISSED, reason, turn, "warning")
            status = self.record.status
        if status in SILENCE_TRIGGER:
            self.move(SILENCE_TRIGGER[status], reason, turn, "error")
            self.loss_told_ns = turn.now_ns
            turn.send(self.cluster, m.HostUnresponsive(self.record.name, reason))
            return True
        return False

    def tell_loss_again(self, turn: Turn) -> None:
        """Once a grace. A word of one of its machines may have come through when none of the host's own did: that
        machine is known again, and nobody else would ever tell it that its host is silent."""
        if self.loss_told_ns is None:
            self.loss_told_ns = turn.now_ns
        grace_s = self.grace_s(turn)
        told_s = (turn.now_ns - self.loss_told_ns) / NS_PER_S
        if min(told_s, self.silent_s(turn)) <= grace_s or self.is_proven_over:
            return
        self.loss_told_ns = turn.now_ns
        reason = f"silent for {self.silent_s(turn):.0f} s"
        turn.send(self.cluster, m.HostUnresponsive(self.record.name, reason, again=True))

    def prove_over(self, reason: str, turn: Turn) -> None:
        """Tell the cluster that whatever ran in the boot last seen is gone. Only for proof, never for a guess."""
        record = self.record
        record.fenced_boot_id = record.boot_id
        record.fence_lied_boot_id = ""
        self.vm_count = 0
        turn.save(record)
        turn.send(self.cluster, m.HostFenced(record.name, record.boot_id, reason))

    def finish(self, turn: Turn, succeeded: bool, reason: str = "", code: str = "") -> None:
        """End the operation under way, if there is one."""
        record = self.record
        if record.operation_id is not None:
            turn.send("engine", m.OperationEnded(record.operation_id, succeeded, reason, code))
            record.operation_id = None
            turn.save(record)

    # ------------------------------------------------------------------ telling

    def tell(
        self,
        code: str,
        text: str,
        turn: Turn,
        severity: Severity = "normal",
        *,
        details: dict[str, str | int | float | bool | None] | None = None,
    ) -> None:
        """Record an event of this host."""
        turn.record(
            code,
            text,
            severity,
            host=self.record.name,
            cluster=self.record.cluster,
            operation_id=self.record.operation_id or "",
            details=details,
        )

    def ask_agent(self, turn: Turn) -> None:
        """An agent that lost its journal does not know that it exists; another one answers with what it is."""
        turn.tell(f"agents@{self.record.silo}", self.agent_order())

    def agent_order(self) -> m.StartAgent:
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
