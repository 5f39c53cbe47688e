"""Live migration, its way to the hand-over: one two-sided machine whose owner is the Vm, durable in `copy_phase`.

    placing ──CopyPlaced──► preparing ──IncomingReady──► copying ──► hand-over, or failed
       │ deferred: asks again   │ refused, late: another host    │ anything uncertain
       └── gives up ────────────┴── gives up                     └──► settling ──► what `SETTLEMENT` says

Rules:
1. Until the order to send has left (placing, preparing) nothing has happened to the machine: it is undone at once.
2. Every reason against it is said before anything is reserved; a machine is told to move once, not queued.
3. From `copying` on `vm_outcome.py` owns it.
"""

from __future__ import annotations

from actors.behaviour import Turn
from actors.vm_outcome import VmOutcome
from olvm.model import messages as m
from olvm.model.errors import Conflict, NoCapacity, OperationFailed
from olvm.model.vm_actions import VmAction, vm_refusal
from olvm.model.vm_states import QUALIFIED_TO_MIGRATE, VmStatus, VmTrigger

UNDOABLE = frozenset({"placing", "preparing"})
IO_ERRORS = frozenset({"EIO", "ENOSPC", "EPERM", "EOTHER"})


class VmMigration(VmOutcome):
    __slots__ = ()

    # ------------------------------------------------------------------ before it begins

    def _migration_refusal(self, to_host: str) -> str | None:
        """Why it cannot be moved, as far as the machine itself knows; the cluster knows the hosts."""
        record = self.record
        name = record.name
        refusal = vm_refusal(name, record.status, VmAction.MIGRATE)
        if refusal is not None:
            return refusal
        if not record.migratable:
            return (
                f"cannot migrate {name}: it is marked as not migratable; change that first, or shut it down"
            )
        if record.resize is not None and record.resize.phase != "unknown":
            return f"cannot migrate {name}: {self._resize_refusal()}"
        if record.status is VmStatus.PAUSED and record.pause_code in IO_ERRORS:
            return (
                f"cannot migrate {name}: it is paused on an I/O error ({record.pause_code}); "
                "repair its storage and resume it first"
            )
        if to_host and to_host == record.host:
            return f"cannot migrate {name} to {to_host}: it is there already"
        pinned = record.pinned_hosts
        if to_host and pinned and to_host not in pinned:
            return f"cannot migrate {name} to {to_host}: it is pinned to {', '.join(pinned)}"
        if pinned and all(host == record.host for host in pinned):
            return f"cannot migrate {name}: it is pinned to {record.host}, where it runs; change that first"
        return None

    def _on_move(self, message: m.MoveVm, turn: Turn) -> None:
        record = self.record
        if message.from_host != record.host or record.copy_kind == "migration":
            return
        refusal = self._migration_refusal(message.to_host)
        if refusal is None and record.operation_id is not None:
            refusal = f"cannot migrate {record.name} now: its {record.operation_kind} is under way; it is asked again"
        if refusal is not None:
            turn.send(self.cluster, m.VmMoveRefused(record.id, record.name, message.from_host, refusal))
            return
        self._start_moving(message.reason, message.to_host, turn)

    def _on_stay(self, message: m.StayVm, turn: Turn) -> None:
        record = self.record
        unasked = record.copy_kind == "migration" and record.copy_reason != "asked"
        if unasked and record.copy_phase in UNDOABLE and message.from_host == record.host:
            turn.sometimes("move_given_up_as_its_reason_is_gone")
            self._give_up_copy(turn)

    def _start_moving(self, reason: m.MoveReason, to_host: str, turn: Turn) -> None:
        self.record.copy_tried_hosts = []
        self._seek_copy("migration", reason, to_host, turn)

    def _on_migration_placed(self, message: m.CopyPlaced, turn: Turn) -> None:
        record, size = self.record, self._copy_size
        if not self._take_place(message, turn):
            return
        record.copy_phase = "preparing"
        turn.set_timer(record, "copy", turn.config.migration_prepare_timeout_s)
        self._progress(5, f"prepares {message.host}", turn)
        turn.send(
            message.agent,
            m.PrepareIncoming(
                record.id,
                self.full_address,
                record.copy_epoch,
                record.name,
                size.vcpus,
                size.memory_bytes,
                record.host or "",
                message.boot_id,
                record.lease,
                record.resume_behavior,
                record.hardware,
            ),
        )

    def _on_copy_not_placed(self, message: m.CopyNotPlaced, turn: Turn) -> None:
        record = self.record
        if message.epoch != record.copy_epoch or record.copy_phase != "placing":
            return
        if message.deferred:
            turn.sometimes("machine_waits_for_a_migration_slot")
            self._progress(1, f"waits for a migration slot: {message.reason}", turn)
            turn.set_timer(record, "copy", turn.config.migration_retry_s)
        elif record.copy_kind == "takeover":
            self._takeover_failed(f"no other host takes it: {message.reason}", turn)
        else:
            tried = ", ".join(record.copy_tried_hosts)
            reason = f"{tried} did not take it, and then {message.reason}" if tried else message.reason
            self._fail_migration(reason, turn, NoCapacity.code)

    def _on_incoming_ready(self, message: m.IncomingReady, turn: Turn) -> None:
        record = self.record
        if message.epoch != record.copy_epoch or record.copy_phase != "preparing":
            turn.sometimes("incoming_ready_too_late")
            return
        if record.status not in QUALIFIED_TO_MIGRATE:
            self._fail_migration(f"it is {record.status.value} meanwhile", turn)
            return
        self._move(VmTrigger.MIGRATE_STARTED, turn, f"to {record.copy_host}")
        record.copy_phase = "copying"
        record.copy_source_word, record.copy_target_word = "", "waiting"
        record.copy_begun_ns = turn.now_ns
        if record.operation_id is None:
            turn.cancel_timer(record, "deadline")
        turn.set_timer(record, "copy", turn.config.migration_timeout_s)
        self._say(
            "vm_migration_started",
            f"migrates from {record.host} to {record.copy_host} ({record.copy_reason})",
            turn,
            details=self._route(),
        )
        self._progress(10, f"copies its memory to {record.copy_host}", turn)
        assert record.agent is not None
        turn.send(
            record.agent,
            m.MigrateDomain(
                record.id,
                record.epoch,
                record.copy_host,
                record.copy_epoch,
                message.uri,
                record.copy_policy,
                record.copy_bandwidth_mib_s,
            ),
        )

    def _target_refused(self, host: str, reason: str, turn: Turn, *, is_over: bool) -> None:
        """It could not get ready: try another host, if none was named."""
        record = self.record
        tried = [*record.copy_tried_hosts, host]
        why = record.copy_reason
        if is_over:
            self._release_copy(turn)
        if record.copy_to_host or len(tried) >= turn.config.rerun_count_max:
            self._fail_migration(
                f"{', '.join(tried)} could not take it, last: {reason}", turn, is_over=is_over
            )
            return
        turn.sometimes("migration_tries_another_target")
        if is_over:
            self._clear_copy(turn)
        else:
            self._give_up_copy(turn)
        record.copy_tried_hosts = tried
        self._seek_copy("migration", why, "", turn)  # type: ignore[arg-type]

    def _on_preparing_report(self, message: m.DomainReported, turn: Turn) -> None:
        """Of the copy, before it is ready: only its end means anything."""
        domain = message.domain
        if not self._is_copy_news(message, turn):
            return
        if message.absent or domain.status is VmStatus.DOWN:
            self._acknowledge(message, turn)
            self._target_refused(message.host, domain.exit_message or "it is gone", turn, is_over=True)

    def _on_cancel(self, message: m.CommandVm, turn: Turn) -> None:
        """Accepted: something is under way that can be given up, or too late to be."""
        record = self.record
        if record.copy_phase in UNDOABLE:
            turn.sometimes("migration_cancelled_before_it_copied")
            self._fail_migration("it was cancelled", turn, Conflict.code, cancelled=True)
            self._answer(message.operation_id, turn, True)
            return
        self._begin(message, message.timeout_s or turn.config.stop_timeout_s, turn)
        self._cancel_at_source(turn)

    def _gives_way(self, verb: str, turn: Turn) -> None:
        """Another command was accepted for a machine whose move has copied nothing yet."""
        if self.record.copy_kind == "migration" and self.record.copy_phase in UNDOABLE:
            turn.sometimes("migration_gave_way_to_a_command")
            self._fail_migration(f"it gave way to {verb}", turn, Conflict.code, cancelled=True)

    def _on_migration_timer(self, turn: Turn) -> None:
        """The phase's own deadline."""
        record = self.record
        match record.copy_phase:
            case "placing":
                self._ask_for_copy(turn)
            case "preparing":
                self._target_refused(record.copy_host, "it did not get ready in time", turn, is_over=False)
            case "copying":
                self._cancel_at_source(turn)
                self._settle("it did not end in time and is cancelled", turn)
            case _:
                self._ask_sides(turn)

    def _on_migration_deadline(self, turn: Turn) -> None:
        """The operation's deadline: it fails, and what is under way is given up as far as it can be."""
        record = self.record
        reason = f"the migration of {record.name} did not end in time"
        if record.copy_phase in UNDOABLE:
            self._fail_migration("it did not begin to copy in time", turn)
            return
        if record.copy_phase == "copying" and record.operation_kind == "migrate":
            self._cancel_at_source(turn)
            reason += " and is cancelled"
        elif record.copy_phase:
            reason += f": {record.status_reason or 'both hosts are asked'}"
        self._say("operation_timed_out", f"{record.operation_kind} timed out: {reason}", turn, "warning")
        self._finish(turn, False, reason, OperationFailed.code)
