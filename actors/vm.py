"""The `vm/<id>` actor: one machine's life, by the seventeen-status machine.

It decides what is asked of a host for this machine and what a host's report means. Rules:
1. `epoch` grows with each attempt to start. A placement, answer or report of another epoch is of another attempt.
2. A report counts only if its (host epoch, sequence) is newer than the last one believed.
3. A copy on a host that is not this machine's host is a ghost and is ended by its own epoch.
4. A machine that a report does not name is Unknown, and its host is asked, until a definite answer comes.
5. A Down report is acknowledged to the host before anything else is made of it.
6. Every operation ends: it has a deadline in the record's timers.
"""

from __future__ import annotations

from typing import assert_never

import msgspec

from actors.behaviour import TimedRecord, Turn
from olvm.model import messages as m
from olvm.model.errors import Conflict, NoCapacity, NotSupportedYet, OperationFailed
from olvm.model.records import Severity, VmRecord
from olvm.model.vm_actions import VmAction, vm_refusal
from olvm.model.vm_states import ON_A_HOST, VmStatus, VmTrigger, next_vm_status, returned_trigger

ACTION_BY_VERB: dict[str, VmAction] = {
    "start": VmAction.RUN,
    "resume": VmAction.RUN,
    "shutdown": VmAction.SHUTDOWN,
    "stop": VmAction.STOP,
    "reboot": VmAction.REBOOT,
    "reset": VmAction.RESET,
    "suspend": VmAction.HIBERNATE,
    "migrate": VmAction.MIGRATE,
    "remove": VmAction.REMOVE,
}
LAUNCHING = frozenset({VmStatus.WAIT_FOR_LAUNCH, VmStatus.RESTORING_STATE})
# Held by this actor's deadline; PoweringUp is not: a guest without an agent may boot for ever.
BOUNDED = LAUNCHING | {VmStatus.POWERING_DOWN, VmStatus.REBOOT_IN_PROGRESS, VmStatus.SAVING_STATE}
PAUSABLE = LAUNCHING | {
    VmStatus.UP,
    VmStatus.POWERING_UP,
    VmStatus.POWERING_DOWN,
    VmStatus.REBOOT_IN_PROGRESS,
}
ENDED_BY_UP = frozenset({"start", "resume", "reboot", "reset"})
# VDSM exit reasons that are no fault: success, saved, shut down by an administrator or from inside.
NORMAL_EXITS = frozenset({0, 4, 5, 6, 7})
EXIT_SAVED = 5
EXIT_ADMIN = 6
EXIT_DOMAIN_MISSING = 9
HA_RETRY_S = 30.0  # oVirt: every 30 s, ten times, then every 1800 s
HA_RETRY_SHORT_COUNT = 10
HA_RETRY_LONG_S = 1800.0


class Vm:
    # Tens of thousands live in one silo: what can be derived from the record is not kept beside it.
    __slots__ = ("ha_attempts", "record", "seen")

    def __init__(self, record: VmRecord) -> None:
        self.record = record
        self.ha_attempts = 0
        # Rule 2: the newest report believed. The record gets it in turns that save it, or the journal, which holds
        # what a turn saved, and the table, which is written at the end of the batch, would differ.
        self.seen = (record.seen_host_epoch, record.seen_seq)

    @property
    def address(self) -> str:
        return f"vm/{self.record.id}"

    @property
    def cluster(self) -> str:
        return f"cluster/{self.record.cluster}"

    @classmethod
    def new(cls, message: m.RegisterVm, now_ns: int) -> Vm:
        command = message.command
        return cls(
            VmRecord(
                id=message.vm_id,
                name=command.name,
                cluster=command.cluster,
                vcpus=command.vcpus,
                memory_bytes=command.memory_bytes,
                high_availability=command.high_availability,
                pinned_hosts=command.pinned_hosts,
                description=command.description,
                silo=command.silo,
                status_since_ns=now_ns,
                created_ns=now_ns,
            )
        )

    def timed_record(self) -> TimedRecord | None:
        return self.record

    def handle(self, message: m.AnyMessage, turn: Turn) -> None:
        self._dispatch(message, turn)
        if turn.saved:
            self.record.seen_host_epoch, self.record.seen_seq = self.seen
        if self.record.silo and (turn.saved or turn.erased):
            row = b"" if turn.stopped else msgspec.msgpack.encode(self.record)
            turn.send("engine", m.VmChanged(row, self.record.id))

    def _dispatch(self, message: m.AnyMessage, turn: Turn) -> None:
        match message:
            case m.DomainReported():
                self._on_reported(message, turn)
            case m.CommandVm():
                self._on_command(message, turn)
            case m.VmPlaced():
                self._on_placed(message, turn)
            case m.VmNotPlaced():
                self._on_not_placed(message, turn)
            case m.DomainMissing():
                self._on_missing(message, turn)
            case m.DomainRefused():
                self._on_refused(message, turn)
            case m.HostLost():
                self._on_host_lost(message, turn)
            case m.TimerFired():
                self._on_timer(message.name, turn)
            case m.RegisterVm():
                self._on_register(message, turn)
            case m.ChangeVm():
                self._on_change(message, turn)
            case m.ExplainFor():
                turn.tell(self.cluster, m.ExplainForVm(message.reply_to, self._request()))
            case m.Recovered():
                if self.record.status is VmStatus.UNKNOWN:
                    turn.wake("query", turn.config.query_period_s)
            case _:
                raise AssertionError(f"{self.address} cannot handle {type(message).__name__}")

    # ------------------------------------------------------------------ status and operations

    def _move(self, trigger: VmTrigger, turn: Turn, reason: str = "") -> None:
        record = self.record
        record.status = next_vm_status(record.status, trigger)
        record.status_reason = reason
        record.status_since_ns = turn.now_ns
        turn.save(record)

    def _say(self, code: str, text: str, turn: Turn, severity: Severity = "normal") -> None:
        record = self.record
        turn.record(
            code,
            f"machine {record.name} {text}",
            severity,
            vm_id=record.id,
            vm_name=record.name,
            host=record.host or "",
            cluster=record.cluster,
            operation_id=record.operation_id or "",
        )

    def _begin(self, message: m.CommandVm, deadline_s: float, turn: Turn) -> None:
        record = self.record
        if record.operation_id is not None:
            self._finish(turn, False, f"gave way to {message.verb}", Conflict.code)
        record.operation_id = message.operation_id
        record.operation_kind = message.verb
        turn.set_timer(record, "deadline", deadline_s)

    def _finish(self, turn: Turn, succeeded: bool, reason: str = "", code: str = "") -> None:
        record = self.record
        turn.cancel_timer(record, "deadline")
        if record.operation_id is not None:
            turn.send("engine", m.OperationEnded(record.operation_id, succeeded, reason, code))
            record.operation_id = None
            record.operation_kind = ""
            turn.save(record)

    # ------------------------------------------------------------------ commands

    def _on_register(self, message: m.RegisterVm, turn: Turn) -> None:
        turn.save(self.record)
        turn.record(
            "vm_created",
            f"machine {self.record.name} was created in cluster {self.record.cluster}",
            vm_id=self.record.id,
            vm_name=self.record.name,
            cluster=self.record.cluster,
            operation_id=message.operation_id,
            details=self._configuration(),
        )
        turn.send("engine", m.OperationEnded(message.operation_id, True))

    def _configuration(self) -> dict[str, str | int | float | bool | None]:
        record = self.record
        return {
            "kind": "vm",
            "vcpus": record.vcpus,
            "memory_bytes": record.memory_bytes,
            "high_availability": record.high_availability,
        }

    def _on_change(self, message: m.ChangeVm, turn: Turn) -> None:
        command, record = message.command, self.record
        resizes = command.vcpus not in (None, record.vcpus) or command.memory_bytes not in (
            None,
            record.memory_bytes,
        )
        if resizes and record.status is not VmStatus.DOWN:
            reason = (
                f"cannot resize {record.name}: it is {record.status.value}; stop it first "
                "(hot-plug comes with the libvirt backend)"
            )
            turn.send("engine", m.OperationEnded(message.operation_id, False, reason, Conflict.code))
            return
        record.vcpus = record.vcpus if command.vcpus is None else command.vcpus
        record.memory_bytes = record.memory_bytes if command.memory_bytes is None else command.memory_bytes
        if command.high_availability is not None:
            record.high_availability = command.high_availability
        if command.description is not None:
            record.description = command.description
        turn.save(record)
        turn.record(
            "vm_updated",
            f"machine {record.name} was changed",
            vm_id=record.id,
            vm_name=record.name,
            cluster=record.cluster,
            operation_id=message.operation_id,
            details=self._configuration(),
        )
        turn.send("engine", m.OperationEnded(message.operation_id, True))

    def _on_command(self, message: m.CommandVm, turn: Turn) -> None:
        record, config = self.record, turn.config
        if message.operation_id == record.operation_id:
            return  # asked twice
        refusal = vm_refusal(record.name, record.status, ACTION_BY_VERB[message.verb])
        if refusal is None and message.verb == "resume" and record.status is VmStatus.DOWN:
            refusal = f"cannot resume {record.name}: it is down, nothing was saved; start it instead"
        if refusal is not None:
            turn.send("engine", m.OperationEnded(message.operation_id, False, refusal, Conflict.code))
            return
        match message.verb:
            case "start" | "resume":
                if record.status is VmStatus.PAUSED:
                    self._begin(message, message.timeout_s or config.stop_timeout_s, turn)
                    self._tell_agent("continue", turn)
                else:
                    self._begin(message, message.timeout_s or config.launch_timeout_s, turn)
                    record.tried_hosts = []
                    self._run(turn)
            case "shutdown":
                self._begin(message, message.timeout_s or config.shutdown_timeout_s, turn)
                self._move(VmTrigger.SHUTDOWN_REQUESTED, turn)
                self._tell_agent("shutdown", turn)
            case "stop":
                self._begin(message, message.timeout_s or config.stop_timeout_s, turn)
                self._stop(turn)
            case "reboot" | "reset":
                self._begin(message, message.timeout_s or config.reboot_timeout_s, turn)
                asked = message.verb == "reboot"
                self._move(VmTrigger.REBOOT_REQUESTED if asked else VmTrigger.RESET_REQUESTED, turn)
                self._tell_agent(message.verb, turn)
            case "suspend":
                self._begin(message, message.timeout_s or config.save_timeout_s, turn)
                self._move(VmTrigger.SAVE_REQUESTED, turn)
                self._tell_agent("save", turn)
            case "migrate":
                reason = f"cannot migrate {record.name}: live migration is not supported yet"
                turn.send(
                    "engine", m.OperationEnded(message.operation_id, False, reason, NotSupportedYet.code)
                )
            case "remove":
                self._remove(message.operation_id, turn)
            case _:
                assert_never(message.verb)

    def _tell_agent(self, verb: str, turn: Turn) -> None:
        record = self.record
        assert record.agent is not None, f"{self.address} is {record.status} without a host"
        turn.send(record.agent, m.CommandDomain(record.id, record.epoch, verb))  # type: ignore[arg-type]

    def _stop(self, turn: Turn) -> None:
        record = self.record
        if record.agent is not None:
            self._tell_agent("destroy", turn)
            return
        if record.status is VmStatus.SUSPENDED:
            record.epoch += 1
            self._move(VmTrigger.STOPPED, turn, "its saved memory was discarded")
            self._finish(turn, True)
            return
        # Nothing was asked of a host yet: the attempt ends here, and its placement is given back.
        turn.send(self.cluster, m.ReleaseVm(record.id, "", record.epoch))
        record.epoch += 1
        self._move(VmTrigger.LAUNCH_FAILED, turn, "stopped before it was placed")
        self._finish(turn, True)

    def _remove(self, operation_id: str, turn: Turn) -> None:
        record = self.record
        turn.record(
            "vm_removed",
            f"machine {record.name} was removed",
            vm_id=record.id,
            vm_name=record.name,
            cluster=record.cluster,
            operation_id=operation_id,
        )
        turn.send("engine", m.EntityRemoved("vm", record.name))
        turn.send("engine", m.OperationEnded(operation_id, True))
        turn.cancel_timer(record, "ha_retry")
        turn.saved.clear()
        turn.erase(record)
        turn.stop()

    # ------------------------------------------------------------------ running

    def _request(self) -> m.PlaceVm:
        record = self.record
        return m.PlaceVm(
            record.id,
            record.name,
            record.epoch,
            record.vcpus,
            record.memory_bytes,
            record.pinned_hosts,
            record.tried_hosts,
            record.high_availability,
        )

    def _run(self, turn: Turn) -> None:
        """Begin an attempt: from Down or Suspended, or again after one that failed."""
        record = self.record
        record.epoch += 1
        # Reports of this attempt are known by its epoch; host epochs of another host do not compare.
        self.seen = (0, 0)
        record.host = record.agent = None
        record.exit_reason = None
        record.exit_message = ""
        turn.cancel_timer(record, "ha_retry")
        if record.status not in LAUNCHING:
            self._move(VmTrigger.RUN_ACCEPTED, turn)
        turn.save(record)
        if record.operation_id is None:
            turn.set_timer(record, "deadline", turn.config.launch_timeout_s)
        turn.send(self.cluster, self._request())

    def _on_placed(self, message: m.VmPlaced, turn: Turn) -> None:
        record = self.record
        if message.epoch != record.epoch or record.status not in LAUNCHING:
            turn.send(self.cluster, m.ReleaseVm(record.id, message.host, message.epoch))
            return
        if record.host is not None:
            return
        record.host, record.agent = message.host, message.agent
        turn.save(record)
        address = f"{self.address}@{record.silo}" if record.silo else self.address
        turn.send(
            message.agent,
            m.CreateDomain(
                record.id,
                address,
                record.epoch,
                record.name,
                record.vcpus,
                record.memory_bytes,
                record.status is VmStatus.RESTORING_STATE,
            ),
        )

    def _on_not_placed(self, message: m.VmNotPlaced, turn: Turn) -> None:
        record = self.record
        if message.epoch != record.epoch or record.status not in LAUNCHING or record.host is not None:
            return
        tried = f"it failed to start on {', '.join(record.tried_hosts)}; then " if record.tried_hosts else ""
        reason = f"cannot start {record.name}: {tried}{message.reason}"
        self._give_up_launch(reason, NoCapacity.code, turn)

    def _give_up_launch(self, reason: str, code: str, turn: Turn) -> None:
        record = self.record
        self._move(VmTrigger.LAUNCH_FAILED, turn, reason)
        record.host = record.agent = None
        self._say("vm_start_failed", f"did not start: {reason}", turn, "error")
        was_asked_for = record.operation_id is not None
        self._finish(turn, False, reason, code)
        if record.high_availability and not was_asked_for:
            self.ha_attempts += 1
            short = self.ha_attempts <= HA_RETRY_SHORT_COUNT
            turn.set_timer(record, "ha_retry", HA_RETRY_S if short else HA_RETRY_LONG_S)

    def _launch_failed_on_host(self, message: m.DomainReported, turn: Turn) -> None:
        """The host says that the attempt failed: try another one, at most rerun_count_max in all."""
        record = self.record
        host, reason = message.host, message.domain.exit_message
        # Whoever asked for a stop meanwhile wants no other attempt, whatever ended this one.
        stopped = message.domain.exit_reason == EXIT_ADMIN or record.operation_kind == "stop"
        turn.send(self.cluster, m.ReleaseVm(record.id, host, record.epoch, failed_start=not stopped))
        if stopped:
            self._move(VmTrigger.LAUNCH_FAILED, turn, "stopped while starting")
            record.host = record.agent = None
            self._finish(turn, record.operation_kind == "stop", "stopped while starting", Conflict.code)
            return
        record.tried_hosts = [*record.tried_hosts, host]
        if len(record.tried_hosts) >= turn.config.rerun_count_max:
            hosts = ", ".join(record.tried_hosts)
            self._give_up_launch(
                f"cannot start {record.name}: it failed on {len(record.tried_hosts)} hosts ({hosts}), "
                f"last: {reason}",
                OperationFailed.code,
                turn,
            )
            return
        self._say("vm_rerun", f"failed to start on {host} ({reason}); trying another host", turn, "warning")
        if record.operation_id is not None:
            turn.set_timer(record, "deadline", turn.config.launch_timeout_s)
        self._run(turn)

    # ------------------------------------------------------------------ reports

    def _is_news(self, host_epoch: int, seq: int) -> bool:
        """Rule 2. The mark is committed with the next change of state; until then it is kept in memory alone."""
        if (host_epoch, seq) <= self.seen:
            return False
        self.seen = (host_epoch, seq)
        return True

    def _on_reported(self, message: m.DomainReported, turn: Turn) -> None:
        record, domain = self.record, message.domain
        if message.host != record.host:
            self._end_ghost(message, turn)
            return
        if domain.epoch != record.epoch:
            if domain.status is VmStatus.DOWN:
                turn.send(message.agent, m.ForgetDomain(record.id, domain.epoch))
            return
        if not self._is_news(message.host_epoch, message.seq):
            return
        if message.absent:
            self._on_down(message, EXIT_DOMAIN_MISSING, f"{message.host} has no such machine", turn)
        elif domain.status is VmStatus.DOWN:
            turn.send(message.agent, m.ForgetDomain(record.id, domain.epoch))
            self._on_down(message, domain.exit_reason, domain.exit_message, turn)
        else:
            self._on_alive(domain.status, turn)

    def _end_ghost(self, message: m.DomainReported, turn: Turn) -> None:
        """Rule 3. A waiting copy elsewhere while this machine is Unknown is left alone: better keep Unknown."""
        record, domain = self.record, message.domain
        if message.absent or domain.epoch > record.epoch:
            return
        if domain.status is VmStatus.DOWN:
            turn.send(message.agent, m.ForgetDomain(record.id, domain.epoch))
        elif not (record.status is VmStatus.UNKNOWN and domain.status is VmStatus.WAIT_FOR_LAUNCH):
            self._say("vm_ghost", f"had a stray copy on {message.host}, which is ended", turn, "warning")
            turn.send(message.agent, m.CommandDomain(record.id, domain.epoch, "destroy"))

    def _on_alive(self, reported: VmStatus, turn: Turn) -> None:
        record = self.record
        current = record.status
        if current is VmStatus.UNKNOWN:
            self._come_back(reported, turn)
        elif reported is VmStatus.UP:
            self._on_up(current, turn)
        elif reported is VmStatus.POWERING_UP and current is VmStatus.WAIT_FOR_LAUNCH:
            self._move(VmTrigger.LAUNCHED, turn)
            if record.operation_id is not None:
                turn.set_timer(record, "deadline", turn.config.boot_timeout_s)
                boots = f"boots on {record.host}"
                turn.send("engine", m.OperationProgressed(record.operation_id, 50, boots))
        elif reported is VmStatus.PAUSED and current in PAUSABLE:
            self._move(VmTrigger.PAUSED, turn)
            self._say("vm_paused", "is paused", turn, "warning")
        elif reported is VmStatus.REBOOT_IN_PROGRESS and current is VmStatus.UP:
            self._move(VmTrigger.GUEST_REBOOTED, turn)
            self._bound(turn)

    def _on_up(self, current: VmStatus, turn: Turn) -> None:
        record = self.record
        match current:
            case VmStatus.WAIT_FOR_LAUNCH:
                self._move(VmTrigger.LAUNCHED, turn)
                self._move(VmTrigger.GUEST_UP, turn)
            case VmStatus.POWERING_UP | VmStatus.REBOOT_IN_PROGRESS | VmStatus.RESTORING_STATE:
                self._move(VmTrigger.GUEST_UP, turn)
            case VmStatus.PAUSED:
                self._move(VmTrigger.CONTINUED, turn)
            case _:
                return
        if current in LAUNCHING or current is VmStatus.POWERING_UP:
            record.started_ns = turn.now_ns
            record.tried_hosts = []
            self.ha_attempts = 0
            self._say("vm_up", f"is up on {record.host}", turn)
        if record.operation_kind in ENDED_BY_UP:
            self._finish(turn, True)
        elif record.operation_id is None:
            turn.cancel_timer(record, "deadline")

    def _come_back(self, reported: VmStatus, turn: Turn) -> None:
        """The host answers again: what it says holds."""
        record = self.record
        trigger = returned_trigger(reported)
        if trigger is None:
            return
        self._move(trigger, turn)
        self._say("vm_known_again", f"is {record.status.value} on {record.host} again", turn)
        if record.status is VmStatus.UP and record.operation_kind in ENDED_BY_UP:
            self._finish(turn, True)
        self._bound(turn)

    def _bound(self, turn: Turn) -> None:
        """Rule 6 for a transient status that no operation asked for, or whose operation has ended."""
        record = self.record
        if record.status in BOUNDED and "deadline" not in record.timers:
            turn.set_timer(record, "deadline", turn.config.reboot_timeout_s)

    def _on_down(
        self, message: m.DomainReported, exit_reason: int | None, exit_message: str, turn: Turn
    ) -> None:
        record = self.record
        if record.status in LAUNCHING:
            self._launch_failed_on_host(message, turn)
            return
        kind, before = record.operation_kind, record.status
        normal = exit_reason in NORMAL_EXITS
        turn.send(self.cluster, m.ReleaseVm(record.id, message.host, record.epoch))
        saved = before is VmStatus.SAVING_STATE and exit_reason == EXIT_SAVED
        if before is VmStatus.UNKNOWN:
            saved = exit_reason == EXIT_SAVED
            self._move(VmTrigger.RETURNED_SUSPENDED if saved else VmTrigger.RETURNED_DOWN, turn, exit_message)
        elif saved:
            self._move(VmTrigger.SAVED, turn)
        else:
            self._move(VmTrigger.STOPPED if normal else VmTrigger.CRASHED, turn, exit_message)
        record.exit_reason, record.exit_message = exit_reason, exit_message
        if saved:
            self._say("vm_suspended", "is suspended", turn)
        elif normal:
            self._say("vm_down", "is down", turn)
        else:
            self._say("vm_crashed", f"went down on {message.host}: {exit_message}", turn, "error")
        record.host = record.agent = None
        if kind in ("stop", "shutdown") or (kind == "suspend" and saved):
            self._finish(turn, True)
        else:
            self._finish(turn, False, f"{record.name} went down: {exit_message}", OperationFailed.code)
        if record.high_availability and not normal and kind not in ("stop", "shutdown"):
            # The host itself says that the machine is gone: starting it elsewhere is safe (design, rule 5).
            self._say("vm_ha_restart", "is highly available and is started again", turn, "warning")
            record.tried_hosts = []
            self._run(turn)

    def _on_missing(self, message: m.DomainMissing, turn: Turn) -> None:
        record = self.record
        if message.host != record.host or record.status in LAUNCHING:
            return
        if not self._is_news(message.host_epoch, message.seq):
            return
        if record.status is not VmStatus.UNKNOWN:
            self._move(VmTrigger.DISAPPEARED, turn, f"not in the report of {message.host}")
            self._say("vm_unknown", f"is missing from the report of {message.host}", turn, "warning")
        self._query(turn)

    def _on_host_lost(self, message: m.HostLost, turn: Turn) -> None:
        record = self.record
        if message.host != record.host or record.status not in ON_A_HOST:
            return
        if record.status not in LAUNCHING:
            self._move(VmTrigger.HOST_LOST, turn, f"host {message.host}: {message.reason}")
            self._say("vm_unknown", f"is unknown: {message.host} does not answer", turn, "error")
            turn.wake("query", turn.config.query_period_s)

    def _query(self, turn: Turn) -> None:
        self._ask_host(turn)
        turn.wake("query", turn.config.query_period_s)

    def _ask_host(self, turn: Turn) -> None:
        record = self.record
        if record.agent is not None:
            address = f"{self.address}@{record.silo}" if record.silo else self.address
            turn.tell(record.agent, m.QueryDomain(record.id, address, record.epoch))

    def _on_refused(self, message: m.DomainRefused, turn: Turn) -> None:
        record = self.record
        if message.epoch != record.epoch or message.host != record.host:
            return
        if message.verb == "create" and message.code == "older_copy":
            self._on_older_copy(message.host, turn)
        elif message.code == "absent":
            self._query(turn)
        else:
            if record.status is VmStatus.POWERING_DOWN:
                self._move(VmTrigger.SHUTDOWN_TIMED_OUT, turn, message.reason)
            elif record.status is VmStatus.REBOOT_IN_PROGRESS:
                self._move(VmTrigger.REBOOT_TIMED_OUT, turn, message.reason)
            elif record.status is VmStatus.SAVING_STATE:
                self._move(VmTrigger.SAVE_FAILED, turn, message.reason)
            reason = f"{message.verb} of {record.name} on {message.host}: {message.reason}"
            self._finish(turn, False, reason, OperationFailed.code)
            self._bound(turn)

    def _on_older_copy(self, host: str, turn: Turn) -> None:
        """The host is ending the older copy: ask again, as another attempt on any host."""
        record = self.record
        if record.status not in LAUNCHING:
            return  # Unknown since its deadline: the host is asked until it gives a definite answer
        turn.send(self.cluster, m.ReleaseVm(record.id, host, record.epoch))
        if record.operation_kind != "stop":
            self._run(turn)
            return
        self._move(VmTrigger.LAUNCH_FAILED, turn, "stopped while starting")
        record.host = record.agent = None
        self._finish(turn, True)

    # ------------------------------------------------------------------ deadlines

    def _on_timer(self, name: str, turn: Turn) -> None:
        match name:
            case "deadline":
                self._on_deadline(turn)
            case "query":
                if self.record.status is VmStatus.UNKNOWN:
                    self._query(turn)
            case "ha_retry":
                if self.record.status is VmStatus.DOWN and self.record.high_availability:
                    self.record.tried_hosts = []
                    self._run(turn)
            case _:
                raise AssertionError(f"{self.address} has no timer {name}")

    def _on_deadline(self, turn: Turn) -> None:
        record = self.record
        kind, host = record.operation_kind, record.host
        match record.status:
            case VmStatus.WAIT_FOR_LAUNCH | VmStatus.RESTORING_STATE if record.agent is not None:
                # The host did not answer: end what it may have begun, and believe nothing until it answers.
                self._tell_agent("destroy", turn)
                self._move(VmTrigger.HOST_LOST, turn, f"{host} did not answer the start")
                turn.wake("query", turn.config.query_period_s)
                reason = f"cannot start {record.name}: host {host} did not answer in time; it is unknown until then"
            case VmStatus.WAIT_FOR_LAUNCH | VmStatus.RESTORING_STATE:
                turn.send(self.cluster, m.ReleaseVm(record.id, "", record.epoch))
                record.epoch += 1
                reason = f"cannot start {record.name}: its cluster did not answer in time"
                self._move(VmTrigger.LAUNCH_FAILED, turn, reason)
            case VmStatus.POWERING_DOWN:
                reason = f"the guest of {record.name} did not shut down in time; `stop` ends it at once"
                self._move(VmTrigger.SHUTDOWN_TIMED_OUT, turn, reason)
                self._ask_host(turn)
            case VmStatus.SAVING_STATE:
                reason = f"the memory of {record.name} was not saved in time"
                self._move(VmTrigger.SAVE_FAILED, turn, reason)
                self._ask_host(turn)
            case VmStatus.REBOOT_IN_PROGRESS:
                reason = f"the guest of {record.name} did not come back from its {kind} in time"
                self._move(VmTrigger.REBOOT_TIMED_OUT, turn, reason)
                self._ask_host(turn)
            case _:
                reason = f"{kind} of {record.name} on {host} got no answer in time"
        self._say("operation_timed_out", f"{kind} timed out: {reason}", turn, "warning")
        self._finish(turn, False, reason, OperationFailed.code)
