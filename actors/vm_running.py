"""What a host's report means to a machine that runs there, and what follows when it ends or cannot be seen.

Rules:
1. A report counts only if its (host epoch, sequence) is newer than the last one believed of that copy.
2. A machine that a report does not name, or whose host is silent, is Unknown, and its host is asked until a definite
   answer comes. From Unknown only the host's own word or a proof leads to Down.
3. A Down report is acknowledged to the host before anything else is made of it.
4. Without a lease, a highly available machine runs again only after its host said that it is over, or after its host
   is proven dead for the boot that the machine was placed on.
5. A machine paused with POSTMIGRATE, and with no copy under way, is told to continue: every way that leaves the
   source in charge (`vm_settling.py`) has seen the copy end without having run.
"""

from __future__ import annotations

from actors.behaviour import Turn
from actors.vm_core import (
    EXIT_ADMIN,
    EXIT_DOMAIN_MISSING,
    EXIT_HOST_SHUTDOWN,
    EXIT_SAVED,
    LAUNCHING,
    NEVER_RAN_EXITS,
    NORMAL_EXITS,
)
from actors.vm_starting import VmStarting
from olvm.model import messages as m
from olvm.model.errors import OperationFailed
from olvm.model.records import Severity
from olvm.model.vm_states import ON_A_HOST, VmStatus, VmTrigger, returned_trigger

PAUSABLE = LAUNCHING | {
    VmStatus.UP,
    VmStatus.POWERING_UP,
    VmStatus.POWERING_DOWN,
    VmStatus.REBOOT_IN_PROGRESS,
}
ENDED_BY_UP = frozenset({"start", "resume", "reboot", "reset"})
ENDS_WANTED = frozenset({"stop", "shutdown"})
IO_ERROR_BY_CODE = {
    "EIO": "its storage gave an I/O error",
    "ENOSPC": "its storage is full",
    "EPERM": "its storage refused access",
    "EOTHER": "its storage failed",
}


class VmRunning(VmStarting):
    __slots__ = ()

    def _on_own_report(self, message: m.DomainReported, turn: Turn) -> None:
        """Of the copy that is the machine; the report is news."""
        domain = message.domain
        if message.absent:
            self._on_down(message.host, EXIT_DOMAIN_MISSING, f"{message.host} has no such machine", turn)
        elif domain.status is VmStatus.DOWN:
            turn.send(message.agent, m.ForgetDomain(self.record.id, domain.epoch))
            self._on_down(message.host, domain.exit_reason, domain.exit_message, turn)
        elif domain.status is VmStatus.MIGRATING_TO and domain.exit_reason is not None:
            self._on_given_up(message, turn)
        else:
            self._on_alive(domain.status, domain.pause_code, turn)

    def _on_given_up(self, message: m.DomainReported, turn: Turn) -> None:
        """It was handed over, and its host has given up waiting for it; the word may be from before it came. What has
        not come by the time that this is acknowledged never will: the agent ends it."""
        record = self.record
        if record.status in ON_A_HOST:
            self._missed(message.host, turn)
        elif record.status is VmStatus.UNKNOWN:
            turn.sometimes("machine_was_handed_over_to_a_host_that_waits_no_longer")
            turn.send(message.agent, m.ForgetDomain(record.id, record.epoch))

    # ------------------------------------------------------------------ alive

    def _on_alive(self, reported: VmStatus, pause_code: str, turn: Turn) -> None:
        record = self.record
        current = record.status
        if current is VmStatus.UNKNOWN:
            self._come_back(reported, pause_code, turn)
        elif reported is VmStatus.UP:
            self._on_up(current, turn)
        elif reported is VmStatus.POWERING_UP:
            self._on_powering_up(current, turn)
        elif reported is VmStatus.PAUSED:
            self._on_paused(current, pause_code, turn)
        elif reported is VmStatus.REBOOT_IN_PROGRESS and current is VmStatus.UP:
            self._move(VmTrigger.GUEST_REBOOTED, turn)
            self._bound(turn)

    def _on_powering_up(self, current: VmStatus, turn: Turn) -> None:
        record = self.record
        if current is VmStatus.UP:
            self._move(VmTrigger.STILL_BOOTING, turn)
        if current is not VmStatus.WAIT_FOR_LAUNCH:
            return
        self._move(VmTrigger.LAUNCHED, turn)
        if record.operation_id is not None:
            turn.set_timer(record, "deadline", turn.config.boot_timeout_s)
            self._progress(50, f"boots on {record.host}", turn)

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
            self._note_up(turn)
            self._say("vm_up", f"is up on {record.host}", turn)
        self._end_by_up(turn)

    def _note_up(self, turn: Turn) -> None:
        record = self.record
        record.started_ns = turn.now_ns
        record.tried_hosts = []
        record.ha_attempts = 0
        turn.save(record)

    def _end_by_up(self, turn: Turn) -> None:
        record = self.record
        if record.operation_kind in ENDED_BY_UP:
            self._finish(turn, True)
        elif record.operation_id is None:
            turn.cancel_timer(record, "deadline")

    def _on_paused(self, current: VmStatus, pause_code: str, turn: Turn) -> None:
        record = self.record
        if current in PAUSABLE:
            self._move(VmTrigger.PAUSED, turn)
        elif current is not VmStatus.PAUSED:
            return
        if current is not VmStatus.PAUSED or pause_code not in ("", record.pause_code):
            record.pause_code = pause_code
            turn.save(record)
            self._say_paused(turn)
        self._continue_after_migration(pause_code, turn)

    def _say_paused(self, turn: Turn) -> None:
        record = self.record
        why = IO_ERROR_BY_CODE.get(record.pause_code, "")
        severity: Severity = "error" if why else "warning"
        text = f"is paused: {why} ({record.pause_code})" if why else "is paused"
        self._say("vm_paused", text, turn, severity, {"pause_code": record.pause_code})

    def _continue_after_migration(self, pause_code: str, turn: Turn) -> None:
        """Rule 5."""
        if pause_code == "POSTMIGRATE" and not self.record.copy_phase:
            turn.sometimes("source_continued_long_after_its_migration")
            self._tell_agent("continue", turn)

    def _come_back(self, reported: VmStatus, pause_code: str, turn: Turn) -> None:
        """The host answers again: what it says holds. A migration that no copy waits for ends in Up."""
        record = self.record
        trigger = returned_trigger(reported)
        if reported is VmStatus.MIGRATING_FROM and not record.copy_phase:
            trigger = VmTrigger.RETURNED_UP
        if trigger is None:
            return
        self._move(trigger, turn)
        record.exit_reason, record.exit_message = None, ""
        turn.cancel_timer(record, "ha_retry")
        self._say("vm_known_again", f"is {record.status.value} on {record.host} again", turn)
        if record.status is VmStatus.UP and record.operation_kind in ENDED_BY_UP:
            self._finish(turn, True)
        if record.status is VmStatus.PAUSED:
            record.pause_code = pause_code
            self._continue_after_migration(pause_code, turn)
        self._bound(turn)

    # ------------------------------------------------------------------ over

    def _on_down(self, host: str, exit_reason: int | None, exit_message: str, turn: Turn) -> None:
        record = self.record
        if record.status in LAUNCHING:
            self._launch_failed(host, exit_reason, exit_message, turn, hosts_fault=True)
            return
        exit_reason, exit_message = self._end_that_counts(exit_reason, exit_message)
        self._release(turn)
        self._go_down(host, exit_reason, exit_message, turn)

    def _end_that_counts(self, exit_reason: int | None, exit_message: str) -> tuple[int | None, str]:
        """Of a copy that was taken for the machine because its source was over, and is not there: the source's end."""
        record = self.record
        unasked = exit_reason == EXIT_ADMIN and record.operation_kind not in ENDS_WANTED
        is_no_end = unasked or exit_reason in NEVER_RAN_EXITS | {EXIT_DOMAIN_MISSING}
        if record.exit_reason is not None and is_no_end:
            return record.exit_reason, record.exit_message
        return exit_reason, exit_message

    def _go_down(
        self, host: str, exit_reason: int | None, exit_message: str, turn: Turn, *, proof: bool = False
    ) -> None:
        """No copy of it runs. `proof`: nobody reported this end, it follows from the death of a host."""
        record = self.record
        kind, before = record.operation_kind, record.status
        normal = exit_reason in NORMAL_EXITS
        saved = exit_reason == EXIT_SAVED and before in (VmStatus.SAVING_STATE, VmStatus.UNKNOWN)
        self._move(_trigger_of_end(before, saved=saved, normal=normal, proof=proof), turn, exit_message)
        record.exit_reason, record.exit_message = exit_reason, exit_message
        if saved:
            self._say("vm_suspended", "is suspended", turn)
        elif normal:
            self._say("vm_down", "is down", turn)
        else:
            self._say("vm_crashed", f"went down on {host}: {exit_message}", turn, "error")
        record.host = record.agent = None
        turn.cancel_timer(record, "ha_retry")
        if kind in ENDS_WANTED or (kind == "suspend" and saved):
            self._finish(turn, True)
        else:
            self._finish(turn, False, f"{record.name} went down: {exit_message}", OperationFailed.code)
        if record.high_availability and not normal and kind not in ENDS_WANTED:
            self._restart(turn)

    def _confirmed_dead(self, host: str, reason: str, turn: Turn) -> None:
        """Rule 4: whatever ran on its host is gone for certain."""
        record = self.record
        text = f"host {host} is confirmed to be down: {reason}"
        if record.status in LAUNCHING:
            self._launch_lost(host, text, turn)
            return
        self._release(turn)
        if record.status is not VmStatus.UNKNOWN:
            turn.sometimes("host_confirmed_dead_before_it_was_lost")
            self._move(VmTrigger.HOST_LOST, turn, text)
        self._go_down(host, EXIT_HOST_SHUTDOWN, text, turn, proof=True)

    # ------------------------------------------------------------------ not seen

    def _doubt(self, trigger: VmTrigger, reason: str, text: str, turn: Turn, severity: Severity) -> None:
        """Rule 2."""
        if self.record.status in ON_A_HOST:
            self._move(trigger, turn, reason)
            self._say("vm_unknown", text, turn, severity)

    def _missed(self, host: str, turn: Turn) -> None:
        text = f"is missing from the report of {host}"
        self._doubt(VmTrigger.DISAPPEARED, f"not in the report of {host}", text, turn, "warning")
        self._query(turn)

    def _lose_host(self, host: str, reason: str, turn: Turn) -> None:
        text = f"is unknown: {host} does not answer"
        self._doubt(VmTrigger.HOST_LOST, f"host {host}: {reason}", text, turn, "error")
        turn.wake("query", turn.config.query_period_s)

    def _command_refused(self, message: m.DomainRefused, turn: Turn) -> None:
        record = self.record
        if message.verb == "create" and message.code != "absent":
            self._launch_refused(message, turn)
            return
        if message.code == "absent":
            self._query(turn)
            return
        if record.status is VmStatus.POWERING_DOWN:
            self._move(VmTrigger.SHUTDOWN_TIMED_OUT, turn, message.reason)
        elif record.status is VmStatus.REBOOT_IN_PROGRESS:
            self._move(VmTrigger.REBOOT_TIMED_OUT, turn, message.reason)
        elif record.status is VmStatus.SAVING_STATE:
            self._move(VmTrigger.SAVE_FAILED, turn, message.reason)
        reason = f"{message.verb} of {record.name} on {message.host}: {message.reason}"
        self._finish(turn, False, reason, OperationFailed.code)
        self._bound(turn)

    # ------------------------------------------------------------------ its deadline

    def _on_deadline(self, turn: Turn) -> None:
        """Every operation and every transient status ends."""
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
                record.epoch = self._issue_epoch()
                reason = f"cannot start {record.name}: its cluster did not answer in time"
                self._move(VmTrigger.LAUNCH_FAILED, turn, reason)
                if record.high_availability and record.operation_id is None:
                    self._schedule_retry(turn)
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


def _trigger_of_end(before: VmStatus, *, saved: bool, normal: bool, proof: bool) -> VmTrigger:
    if before is VmStatus.UNKNOWN:
        if proof:
            return VmTrigger.CONFIRMED_DEAD
        return VmTrigger.RETURNED_SUSPENDED if saved else VmTrigger.RETURNED_DOWN
    if saved:
        return VmTrigger.SAVED
    return VmTrigger.STOPPED if normal else VmTrigger.CRASHED
