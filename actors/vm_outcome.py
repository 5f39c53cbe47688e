"""How a live migration ends: the words of both sides, the doubt, the decision, and what each decision does.

Rules:
1. Only `vm_settling.SETTLEMENT` decides who is the machine, from words that the hosts' own reports or proofs give.
   Its docstring says why at most one copy executes.
2. While the source copies, a decision that would end or continue a copy waits for fresh words: `settling` comes first.
3. Doubt is a phase with a clock: both sides are asked each query_period_s, also after a restart of the engine.
4. Each migration ends once: as an operation, as `PromoteCopy`, or as `VmMoveRefused` to a cluster that ordered it.
"""

from __future__ import annotations

from typing import assert_never

from actors.behaviour import Turn
from actors.vm_copies import NOT_RUNNING_YET, UNRESOLVED
from actors.vm_core import (
    EXIT_ERROR,
    EXIT_HANDED_OVER,
    EXIT_HOST_SHUTDOWN,
    NEVER_RAN_EXITS,
    Details,
)
from actors.vm_settling import SETTLEMENT, SOURCE_OVER, TARGET_OVER, Settlement, SourceWord, TargetWord
from actors.vm_takeover import VmTakeover
from olvm.model import messages as m
from olvm.model.errors import Conflict, OperationFailed
from olvm.model.vm_states import VmStatus, VmTrigger, returned_trigger

CANCELLED = "migration_cancelled"
STOPPED = "migration_stopped"  # a source that was told to stop sending; the engine knows why
# Nothing in these asks for a decision while the source copies.
CALM = frozenset({("", "waiting"), ("migrating", "waiting")})
# All was sent to a host that does not answer: the machine runs there or stands here, and only that host can say which.
SENT_TO_SILENCE = ("post_migrate", "lost")
SETTLED_AT_ONCE = frozenset({Settlement.HAND_OVER, Settlement.STAY, Settlement.DOWN})


class VmOutcome(VmTakeover):
    __slots__ = ()

    # ------------------------------------------------------------------ words

    def _on_progressed(self, message: m.MigrationProgressed, turn: Turn) -> None:
        record = self.record
        if (message.epoch, message.to_epoch) != (record.epoch, record.copy_epoch):
            return
        if record.copy_phase != "copying":
            return
        if record.copy_source_word in ("", "silent"):
            record.copy_source_word = "migrating"
        record.copy_data_bytes, record.copy_downtime_ms = message.data_processed_bytes, message.downtime_ms
        turn.save(record)
        percent = min(max(message.progress_percent, 0), 100)
        phase = "post-copy" if message.post_copy else f"iteration {message.memory_iteration}"
        text = (
            f"{percent} % copied to {record.copy_host}, {phase}, downtime of {message.downtime_ms} ms allowed"
        )
        self._progress(10 + percent * 8 // 10, text, turn)
        self._say(
            "vm_migration_progressed",
            f"migrates: {text}",
            turn,
            details={
                **self._route(),
                "progress_percent": percent,
                "data_total_bytes": message.data_total_bytes,
                "data_processed_bytes": message.data_processed_bytes,
                "data_remaining_bytes": message.data_remaining_bytes,
                "downtime_ms": message.downtime_ms,
                "post_copy": message.post_copy,
            },
        )

    def _on_source_report(self, message: m.DomainReported, turn: Turn) -> None:
        """Of the machine, while the outcome is open; the report is news."""
        domain = message.domain
        if message.absent or domain.status is VmStatus.DOWN:
            self._acknowledge(message, turn)
            handed_over = not message.absent and domain.exit_reason == EXIT_HANDED_OVER
            if not handed_over:
                self._keep_end(_exit_of(domain), domain.exit_message or f"{message.host} has no such machine")
            self._source_said("handed_over" if handed_over else "gone", turn)
            return
        word = self._word_of_source(domain)
        if self.record.status is VmStatus.UNKNOWN and (word, self.record.copy_target_word) != SENT_TO_SILENCE:
            self._move(VmTrigger.RETURNED_MIGRATING_FROM, turn)
            self._say("vm_known_again", f"is seen on {message.host} again", turn)
        if word is not None:
            self._source_said(word, turn)
        settled_here = not self.record.copy_phase and message.host == self.record.host
        if settled_here and domain.pause_code != "POSTMIGRATE":  # else it has just been told to continue
            self._on_alive(domain.status, domain.pause_code, turn)

    def _word_of_source(self, domain: m.DomainState) -> SourceWord | None:
        """None: the report says nothing, for it may be from before the order to send came there."""
        if domain.pause_code == "POSTMIGRATE":
            return "post_migrate"
        if domain.status is VmStatus.MIGRATING_FROM or domain.pause_code == "POSTCOPY":
            return "migrating"
        settling = self.record.copy_phase == "settling"
        if settling or (self.record.copy_source_word == "migrating" and domain.status is not VmStatus.PAUSED):
            return "alive"
        return None

    def _on_migration_failed(self, message: m.MigrationFailed, turn: Turn) -> None:
        record = self.record
        ours = (message.host, message.epoch, message.to_epoch) == (
            record.host,
            record.epoch,
            record.copy_epoch,
        )
        if ours and record.copy_phase in UNRESOLVED:
            reason = record.status_reason if message.code == STOPPED else message.reason
            self._source_said("running", turn, reason, cancelled=message.code == CANCELLED)

    def _source_said(
        self, word: SourceWord, turn: Turn, reason: str = "", *, cancelled: bool = False
    ) -> None:
        record = self.record
        if record.copy_source_word in SOURCE_OVER:
            return  # an end is final
        record.copy_source_word = word
        turn.save(record)
        self._weigh(turn, reason, cancelled=cancelled)

    def _on_target_report(self, message: m.DomainReported, turn: Turn) -> None:
        """Of the copy, while the outcome is open."""
        record, domain = self.record, message.domain
        if not self._is_copy_news(message, turn):
            return
        if message.absent or domain.status is VmStatus.DOWN:
            self._acknowledge(message, turn)
            if record.copy_target_word in TARGET_OVER:
                return
            self._release_copy(turn)
            # An agent that got it ready and has no such machine now has lost its memory: it may have run.
            never_ran = not message.absent and domain.exit_reason in NEVER_RAN_EXITS
            if not never_ran:
                turn.sometimes("target_ended_after_it_may_have_run")
                record.exit_reason, record.exit_message = _exit_of(domain), domain.exit_message
            text = f"{message.host}: {domain.exit_message or 'it is gone'}"
            self._target_said("gone" if never_ran else "dead", turn, text)
        elif domain.status not in NOT_RUNNING_YET:
            self._target_said("arrived", turn, reported=domain)
        elif domain.exit_reason is not None and record.copy_phase == "copying":
            turn.sometimes("target_waits_no_longer")
            self._settle(f"{message.host}: {domain.exit_message}", turn)
        elif record.copy_target_word in ("", "lost") or record.copy_phase == "settling":
            self._target_said("waiting", turn)  # again: the order to end it may have failed

    def _target_said(
        self, word: TargetWord, turn: Turn, reason: str = "", reported: m.DomainState | None = None
    ) -> None:
        record = self.record
        if record.copy_target_word in TARGET_OVER:
            return
        record.copy_target_word = word
        if word == "dead" and record.copy_source_word == "alive":
            record.copy_source_word = ""  # to be heard anew: it may be from before the target ran
        turn.save(record)
        self._weigh(turn, reason, reported)

    def _keep_end(self, exit_reason: int, text: str) -> None:
        """How the machine ended, until both sides are known to be over; the first word counts."""
        if self.record.exit_reason is None:
            self.record.exit_reason, self.record.exit_message = exit_reason, text

    # ------------------------------------------------------------------ doubt

    def _settle(self, reason: str, turn: Turn) -> None:
        """Rule 2 and 3. What a live side said before is no word on how it stands now."""
        record = self.record
        if record.copy_phase == "settling":
            return
        record.copy_phase = "settling"
        if record.copy_target_word == "waiting":
            record.copy_target_word = ""
        record.status_reason = reason
        turn.sometimes("migration_outcome_open")
        self._say(
            "vm_migration_unsettled",
            f"is asked about on {record.host} and {record.copy_host}, for its migration is in doubt: {reason}",
            turn,
            "warning",
            self._route(),
        )
        self._ask_sides(turn)

    def _ask_sides(self, turn: Turn) -> None:
        record = self.record
        turn.set_timer(record, "copy", turn.config.query_period_s)
        if record.copy_source_word not in SOURCE_OVER:
            self._ask_host(turn)
            if record.copy_cancelled and record.agent is not None:
                turn.tell(record.agent, m.CancelMigration(record.id, record.epoch))
        if record.copy_target_word not in TARGET_OVER:
            self._ask_copy(turn)

    def _cancel_at_source(self, turn: Turn) -> None:
        record = self.record
        record.copy_cancelled = True
        turn.save(record)
        assert record.agent is not None
        turn.send(record.agent, m.CancelMigration(record.id, record.epoch))

    def _source_lost(self, host: str, reason: str, turn: Turn) -> None:
        turn.sometimes("source_host_lost_while_copying")
        self._lose_host(host, reason, turn)
        self._settle(f"{host} does not answer", turn)
        if self.record.copy_source_word in ("", "alive", "migrating"):
            self._source_said("silent", turn, f"{host} does not answer")

    def _target_lost(self, host: str, turn: Turn) -> None:
        turn.sometimes("target_host_lost_while_copying")
        self._settle(f"{host} does not answer", turn)
        if self.record.copy_target_word in ("", "waiting"):
            self._target_said("lost", turn)

    def _side_confirmed_dead(self, message: m.HostConfirmedDead, turn: Turn) -> None:
        record = self.record
        if message.host == record.host:
            turn.sometimes("source_host_dead_while_the_outcome_is_open")
            self._keep_end(
                EXIT_HOST_SHUTDOWN, f"host {message.host} is confirmed to be down: {message.reason}"
            )
            self._source_said("dead", turn)
            return
        turn.sometimes("target_host_dead_while_the_outcome_is_open")
        self._release_copy(turn)
        self._keep_end(EXIT_HOST_SHUTDOWN, f"it was lost with {message.host} while it moved there")
        self._target_said("dead", turn, f"{message.host} is dead: {message.reason}")

    # ------------------------------------------------------------------ decision

    def _weigh(
        self, turn: Turn, reason: str = "", reported: m.DomainState | None = None, *, cancelled: bool = False
    ) -> None:
        """Rule 1."""
        record = self.record
        words = (record.copy_source_word, record.copy_target_word)
        decision = SETTLEMENT[words]
        if record.copy_phase == "copying":
            if words in CALM:
                return
            if decision not in SETTLED_AT_ONCE:
                self._settle(reason or f"{record.host} said {words[0] or 'nothing'}", turn)
                return
        elif decision is not Settlement.WAIT:
            turn.sometimes(f"settled_by_{decision.value}")
        match decision:
            case Settlement.WAIT:
                if words == SENT_TO_SILENCE:
                    turn.sometimes("machine_was_sent_to_a_host_that_does_not_answer")
                    text = f"is unknown: all of it was sent to {record.copy_host}, which does not answer"
                    why = f"host {record.copy_host} does not answer"
                    self._doubt(VmTrigger.HOST_LOST, why, text, turn, "error")
            case Settlement.HAND_OVER | Settlement.ADOPT:
                self._hand_over(reported, turn, is_lost=decision is Settlement.ADOPT)
            case Settlement.STAY:
                self._stay(reason, turn, cancelled=cancelled)
            case Settlement.STOP_SENDING:
                self._stop_sending(reason, turn)
            case Settlement.CONTINUE:
                self._tell_agent("continue", turn)
                self._stay(reason or f"{record.copy_host} never had it", turn, cancelled=cancelled)
            case Settlement.END_TARGET:
                self._command_copy("destroy", turn)
            case Settlement.END_SOURCE:
                self._tell_agent("destroy", turn)
            case Settlement.DOWN:
                self._lose_both(turn)
            case _:
                assert_never(decision)

    def _hand_over(self, reported: m.DomainState | None, turn: Turn, *, is_lost: bool) -> None:
        """The copy is the machine. `is_lost`: nobody knows how it stands there."""
        record = self.record
        route, old_is_over = self._route(), record.copy_source_word in SOURCE_OVER
        if not old_is_over:
            turn.sometimes("hand_over_first_heard_from_the_target")
        if record.copy_source_word == "dead":
            turn.sometimes("source_dead_after_the_hand_over")
        seconds = (turn.now_ns - record.copy_begun_ns) / 1e9
        adopted = is_lost and record.copy_source_word != "handed_over"
        facts: Details = {"bytes": record.copy_data_bytes, "downtime_ms": record.copy_downtime_ms}
        self._promote(turn, old_is_over=old_is_over)
        if is_lost:
            self._lose_host(
                record.host or "", "it did not answer when the machine was handed over to it", turn
            )
        else:
            self._move(_trigger_of_arrival(record.status, reported), turn)
            record.exit_reason, record.exit_message = None, ""
        details = {**route, **facts, "seconds": round(seconds, 3)}
        if adopted:
            text = f"is over on {route['from']}; whether it arrived on {route['to']} is unknown until that answers"
            self._say("vm_unknown", text, turn, "error", details)
            self._end_of_moving(turn, f"{record.name} {text}")
        else:
            self._say("vm_migrated", f"moved from {route['from']} to {route['to']}", turn, details=details)
            self._end_of_moving(turn)
        if reported is not None:
            self._on_alive(reported.status, reported.pause_code, turn)
        self._bound(turn)
        if is_lost:
            self._take_over(f"{record.host} does not answer", turn)

    def _end_of_moving(self, turn: Turn, failure: str = "") -> None:
        """The copy is the machine: what becomes of the operation that is under way."""
        record = self.record
        match record.operation_kind:
            case "migrate":
                self._finish(turn, not failure, failure, OperationFailed.code if failure else "")
            case "cancel_migration":
                turn.sometimes("migration_cancelled_after_the_hand_over")
                reason = f"cannot cancel the migration of {record.name}: it was already handed over to {record.host}"
                self._finish(turn, False, reason, Conflict.code)
            case "stop":
                turn.sometimes("stopped_machine_was_handed_over")
                self._tell_agent("destroy", turn)

    def _stay(self, reason: str, turn: Turn, *, cancelled: bool) -> None:
        """The source is the machine, and runs unless its host is lost."""
        record = self.record
        record.exit_reason, record.exit_message = None, ""
        if record.status is VmStatus.MIGRATING_FROM:
            self._move(VmTrigger.MIGRATION_FAILED, turn, reason)
        is_over = record.copy_target_word in TARGET_OVER
        has_spoken = record.copy_source_word in ("running", "post_migrate")
        self._fail_migration(
            reason or f"{record.copy_host} did not take it",
            turn,
            CANCELLED if cancelled else OperationFailed.code,
            cancelled=cancelled or record.copy_cancelled,
            is_over=is_over,
        )
        self._ask_host(turn)
        if record.status is VmStatus.UNKNOWN and not has_spoken:
            self._take_over("it does not answer after a migration that failed", turn)
        elif record.status is VmStatus.UNKNOWN and record.high_availability and record.lease:
            self._schedule_retry(turn)  # its host has spoken and is probably back

    def _stop_sending(self, reason: str, turn: Turn) -> None:
        record = self.record
        if reason:
            record.status_reason = reason
            turn.save(record)
        if record.agent is not None:
            turn.send(record.agent, m.CancelMigration(record.id, record.epoch, record.copy_epoch))

    def _lose_both(self, turn: Turn) -> None:
        """Both copies are over: the machine is Down."""
        record = self.record
        host, exit_reason, text = record.host or "", record.exit_reason, record.exit_message
        if exit_reason is None:
            exit_reason = EXIT_ERROR
            text = f"it was handed over to {record.copy_host} and is not there"
        turn.sometimes("both_sides_of_a_migration_over")
        self._release(turn)
        moved = record.copy_reason != "asked"
        self._clear_copy(turn)
        if moved:
            turn.send(self.cluster, m.VmMoveRefused(record.id, record.name, host, text))
        if not self._goes_on_elsewhere(exit_reason, text, turn):
            self._go_down(host, exit_reason, text, turn, proof=True)

    # ------------------------------------------------------------------ failure

    def _route(self) -> Details:
        record = self.record
        return {"from": record.host, "to": record.copy_host, "reason": record.copy_reason}

    def _fail_migration(
        self,
        reason: str,
        turn: Turn,
        code: str = OperationFailed.code,
        *,
        cancelled: bool = False,
        is_over: bool = False,
    ) -> None:
        """Rule 4, where the source is the machine. `is_over`: nothing of the copy is left."""
        record = self.record
        details, moved = self._route(), record.copy_reason != "asked"
        to = f" to {record.copy_host}" if record.copy_host else ""
        text = f"cannot migrate {record.name}{to}: {reason}"
        if is_over:
            self._clear_copy(turn)
        else:
            self._give_up_copy(turn)
        if cancelled:
            self._say("vm_migration_cancelled", f"stays on {record.host}: {reason}", turn, details=details)
        else:
            stays = f"stays on {record.host}, its migration failed: {reason}"
            self._say("vm_migration_failed", stays, turn, "warning", {**details, "why": reason})
        if record.operation_kind == "migrate":
            self._finish(turn, False, text, Conflict.code if code == CANCELLED else code)
            self._bound(
                turn
            )  # a reboot that gave way to it goes on, and its deadline went with its operation
        elif record.operation_kind == "cancel_migration":
            self._finish(turn, True)
        if moved:
            turn.send(self.cluster, m.VmMoveRefused(record.id, record.name, record.host or "", text))


def _trigger_of_arrival(status: VmStatus, reported: m.DomainState | None) -> VmTrigger:
    if status is not VmStatus.UNKNOWN:
        return VmTrigger.MIGRATED
    trigger = returned_trigger(reported.status) if reported is not None else None
    return trigger or VmTrigger.RETURNED_UP


def _exit_of(domain: m.DomainState) -> int:
    return EXIT_ERROR if domain.exit_reason is None else domain.exit_reason
