"""The `vm/<id>` actor: one machine's life, by the seventeen-status machine. Here: which part a message is for.

The parts stand on each other, and each says its rules at its top: `vm_core` (record, moves, operation), `vm_size`
(CPUs and memory, and what is reserved for them), `vm_starting`
(attempts, retries), `vm_running` (reports, ends, doubt), `vm_copies` (the second copy, and what is left of copies),
`vm_takeover` (a lease), `vm_outcome` and `vm_settling` (how a migration ends), `vm_migration` (how it begins),
`vm_commands` (what people and the cluster order).
Rules of the whole:
1. At most one copy of a machine executes. What may be begun beside a copy of unknown fate is either protected by its
   lease or waits for a definite word.
2. All that the next turn needs is in the record: an engine that restarts at any point goes on.
3. Every operation ends, and every phase of the second copy has a timer: "deadline" is the operation's or that of a
   transient status, "copy" the phase's.
"""

from __future__ import annotations

import msgspec

from actors.behaviour import Turn
from actors.vm_commands import new_record
from actors.vm_copies import UNRESOLVED
from actors.vm_core import LAUNCHING
from actors.vm_migration import UNDOABLE
from actors.vm_size import TASK_TIMER
from actors.vm_tasks import VmTasks
from olvm.model import messages as m
from olvm.model.vm_states import VmStatus

MOVING = frozenset({"migrate", "cancel_migration"})


class Vm(VmTasks):
    __slots__ = ()

    @classmethod
    def new(cls, message: m.RegisterVm, now_ns: int) -> Vm:
        return cls(new_record(message, now_ns))

    def handle(self, message: m.AnyMessage, turn: Turn) -> None:
        self._dispatch(message, turn)
        record = self.record
        if turn.saved:
            record.seen_host_epoch, record.seen_seq = self.seen
            record.copy_seen_host_epoch, record.copy_seen_seq = self.copy_seen
        if record.silo and (turn.saved or turn.erased):
            row = b"" if turn.stopped else msgspec.msgpack.encode(record)
            turn.send("engine", m.VmChanged(row, record.id))

    def _dispatch(self, message: m.AnyMessage, turn: Turn) -> None:  # noqa: C901, PLR0912 - one case a message
        match message:
            case m.DomainReported():
                self._on_reported(message, turn)
            case m.CommandVm():
                self._on_command(message, turn)
            case m.VmPlaced():
                self._on_placed(message, turn)
            case m.VmNotPlaced():
                self._on_not_placed(message, turn)
            case m.CopyPlaced():
                self._on_copy_placed(message, turn)
            case m.CopyNotPlaced():
                self._on_copy_not_placed(message, turn)
            case m.SlotFree():
                if self.record.copy_phase == "placing":
                    self._ask_for_copy(turn)
            case m.IncomingReady():
                self._on_incoming_ready(message, turn)
            case m.MigrationProgressed():
                self._on_progressed(message, turn)
            case m.MigrationFailed():
                self._on_migration_failed(message, turn)
            case m.DomainMissing():
                self._on_missing(message, turn)
            case m.DomainRefused():
                self._on_refused(message, turn)
            case m.HostLost():
                self._on_host_lost(message, turn)
            case m.HostSilent():
                self._on_host_silent(message, turn)
            case m.HostConfirmedDead():
                self._on_host_confirmed_dead(message, turn)
            case m.MoveVm():
                self._on_move(message, turn)
            case m.StayVm():
                self._on_stay(message, turn)
            case m.PowerVm():
                self._on_power(message, turn)
            case m.TimerFired():
                self._on_timer(message.name, turn)
            case (
                m.TaskVm()
                | m.TaskEnded()
                | m.AskTask()
                | m.VmResized()
                | m.DomainMeasured()
                | m.GuestTold()
                | m.AskConsole()
            ):
                self._on_task_message(message, turn)
            case m.RegisterVm():
                self._on_register(message, turn)
            case m.ChangeVm():
                self._on_change(message, turn)
            case m.ExplainFor():
                turn.tell(self.cluster, m.ExplainForVm(message.reply_to, self._request()))
            case m.Recovered():
                self._on_recovered(turn)
            case _:
                raise AssertionError(f"{self.address} cannot handle {type(message).__name__}")

    # ------------------------------------------------------------------ which copy, which phase

    def _on_reported(self, message: m.DomainReported, turn: Turn) -> None:
        record, domain = self.record, message.domain
        self._drop_overtaken_strays(message.host, domain.epoch, turn)
        place = (message.host, domain.epoch)
        if record.copy_phase and place == (record.copy_host, record.copy_epoch):
            if record.copy_phase == "starting":
                self._on_takeover_report(message, turn)
            elif record.copy_phase == "preparing":
                self._on_preparing_report(message, turn)
            else:
                self._on_target_report(message, turn)
        elif place != (record.host, record.epoch):
            self._on_other_report(message, turn)
        elif self._is_news(message.host_epoch, message.seq, turn):
            self._on_report_of_machine(message, turn)

    def _on_report_of_machine(self, message: m.DomainReported, turn: Turn) -> None:
        record = self.record
        if record.copy_phase in UNRESOLVED:
            self._on_source_report(message, turn)
        elif record.copy_kind == "takeover":
            self._on_old_host_report(message, turn)
        else:
            if record.copy_phase and (message.absent or message.domain.status is VmStatus.DOWN):
                self._fail_migration("it went down", turn)
            self._on_own_report(message, turn)

    def _on_copy_placed(self, message: m.CopyPlaced, turn: Turn) -> None:
        if self.record.copy_kind == "takeover":
            self._on_takeover_placed(message, turn)
        else:
            self._on_migration_placed(message, turn)

    def _on_missing(self, message: m.DomainMissing, turn: Turn) -> None:
        record = self.record
        if message.host == record.host and message.epoch in (0, record.epoch):
            # A question makes the agent refuse a start that is still on its way, so a starting machine is not asked.
            if record.status in LAUNCHING or not self._is_news(message.host_epoch, message.seq, turn):
                return
            if record.copy_phase in UNDOABLE and record.copy_kind == "migration":
                self._fail_migration(f"it is missing from the report of {message.host}", turn)
            self._missed(message.host, turn)
            if record.copy_phase == "copying":
                self._settle(f"{message.host} does not name it in its report", turn)
        elif message.host == record.copy_host and message.epoch in (0, record.copy_epoch):
            if record.copy_phase == "copying":
                turn.sometimes("target_missing_while_copying")
                self._ask_copy(turn)
        else:
            self._ask_stray(message.host, message.epoch, turn)

    def _on_refused(self, message: m.DomainRefused, turn: Turn) -> None:
        record = self.record
        place = (message.host, message.epoch)
        stray = self._stray(*place)
        if stray is not None:
            if message.code in ("absent", "stale_epoch") or message.verb in ("create", "incoming"):
                self._drop_stray(stray, turn)
        elif record.copy_phase and place == (record.copy_host, record.copy_epoch):
            self._on_copy_refused(message, turn)
        elif place != (record.host, record.epoch):
            return
        elif record.copy_phase in UNRESOLVED:
            self._on_source_refused(message, turn)
        else:
            self._command_refused(message, turn)

    def _on_copy_refused(self, message: m.DomainRefused, turn: Turn) -> None:
        phase = self.record.copy_phase
        if phase == "starting" and message.verb == "create":
            self._on_takeover_refused(message, turn)
        elif phase == "preparing" and message.verb == "incoming":
            turn.sometimes("target_refused_to_prepare")
            self._target_refused(message.host, message.reason, turn, is_over=True)
        elif phase == "settling":
            self._ask_copy(turn)

    def _on_source_refused(self, message: m.DomainRefused, turn: Turn) -> None:
        if message.code == "absent":
            self._settle(f"{message.host} says that it has no such machine", turn)
            self._ask_host(turn)
        elif message.verb == "migrate":
            self._source_said("running", turn, message.reason)
        elif message.verb == "destroy":
            self._command_refused(message, turn)

    # ------------------------------------------------------------------ hosts

    def _on_host_lost(self, message: m.HostLost | m.HostSilent, turn: Turn) -> None:
        record, host, reason = self.record, message.host, message.reason
        if isinstance(message, m.HostLost) and message.again:
            # What is in doubt already has a clock of its own.
            if host != record.host or record.status is VmStatus.UNKNOWN:
                return
            turn.sometimes("machine_known_again_on_a_host_that_stays_silent")
        if host == record.host:
            if record.copy_phase in UNRESOLVED:
                self._source_lost(host, reason, turn)
                return
            if record.copy_kind == "migration":
                self._fail_migration(f"{host} does not answer", turn)
            self._take_over(reason, turn)
            if record.status not in LAUNCHING and isinstance(message, m.HostLost):
                self._lose_host(host, reason, turn)
        elif record.copy_phase and host == record.copy_host:
            self._on_copy_host_lost(host, turn)

    def _on_copy_host_lost(self, host: str, turn: Turn) -> None:
        phase = self.record.copy_phase
        if phase == "preparing":
            self._target_refused(host, "it does not answer", turn, is_over=False)
        elif phase == "starting":
            turn.sometimes("new_host_of_a_takeover_is_lost")
            self._takeover_unanswered(f"{host} does not answer either", turn)
        elif phase in UNRESOLVED:
            self._target_lost(host, turn)

    def _on_host_silent(self, message: m.HostSilent, turn: Turn) -> None:
        """Told to leased, highly available machines, long before the host counts as lost."""
        if self.record.high_availability and self.record.lease:
            self._on_host_lost(message, turn)

    def _on_host_confirmed_dead(self, message: m.HostConfirmedDead, turn: Turn) -> None:
        record, host = self.record, message.host
        self._drop_dead_strays(host, message.boot_id, turn)
        is_copys = record.copy_phase not in ("", "placing") and host == record.copy_host
        boot_id = record.copy_boot_id if is_copys else record.boot_id
        if host not in (record.host, record.copy_host) or boot_id not in ("", message.boot_id):
            return
        if record.copy_phase in UNRESOLVED:
            self._side_confirmed_dead(message, turn)
        elif record.copy_kind == "takeover":
            self._takeover_host_confirmed_dead(message, turn)
        elif is_copys:
            self._target_refused(host, f"it is dead: {message.reason}", turn, is_over=True)
        else:
            if record.copy_kind == "migration":
                self._fail_migration(f"{host} is dead", turn)
            self._confirmed_dead(host, message.reason, turn)

    # ------------------------------------------------------------------ time

    def _on_recovered(self, turn: Turn) -> None:
        if self.record.status is VmStatus.UNKNOWN:
            turn.wake("query", turn.config.query_period_s)
        if self.record.copy_phase == "settling":
            turn.sometimes("engine_restarted_while_settling")
            self._ask_sides(turn)
        elif self.record.copy_phase == "placing":
            self._ask_for_copy(turn)

    def _on_timer(self, name: str, turn: Turn) -> None:
        record = self.record
        match name:
            case _ if name.startswith(TASK_TIMER):
                self._on_task_deadline(name.removeprefix(TASK_TIMER), turn)
            case "deadline" if record.operation_kind in MOVING:
                self._on_migration_deadline(turn)
            case "deadline":
                self._on_deadline(turn)
            case "copy" if record.copy_kind == "takeover":
                self._on_takeover_timer(turn)
            case "copy" if record.copy_kind == "migration":
                self._on_migration_timer(turn)
            case "copy":
                pass
            case "query":
                if record.status is VmStatus.UNKNOWN:
                    self._query(turn)
            case "size":
                self._ask_size(turn)
            case "place":
                self._place_again(turn)
            case "ha_retry" if record.status is VmStatus.UNKNOWN:
                self._take_over("it still does not answer", turn)
            case "ha_retry":
                self._retry(turn)
            case _:
                raise AssertionError(f"{self.address} has no timer {name}")
