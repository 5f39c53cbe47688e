"""High availability with a lease: a new life elsewhere while the old one's fate is unknown.

The lease on shared storage decides, not this actor: a host that starts the copy takes the machine's lease first,
and gets it only when every host that could run it has provably stopped (docs/leases.md). Rules:
1. Only a machine that was started with a lease is taken over; `lease` changes only while nothing of it can run.
2. The first report that the copy runs proves that the old one does not: then, and not before, it is the machine.
3. The old host's word that the machine lives ends the takeover; its word that it is over, or the proof of its death,
   does not: the copy goes on.
4. A takeover that fails leaves the machine Unknown, and is tried again on the schedule of `vm_starting.py` until
   something is heard of it.
5. A new host that falls silent may have started the machine: its copy is neither counted as over nor ended. It is
   the machine from then on if the old life is over, and else a stray that is adopted when it turns out to run.
6. Of several takeovers that nobody heard of the oldest is the machine first, and the next one when that is over: the
   machine is called down only when none is left. Whichever ran first had the lease, and the word of a later one that
   did not get it says nothing about an earlier one.
"""

from __future__ import annotations

from actors.behaviour import Turn
from actors.vm_copies import NOT_RUNNING_YET, VmCopies
from actors.vm_core import EXIT_HOST_SHUTDOWN, EXIT_START_FAILED, LAUNCHING, NORMAL_EXITS
from olvm.model import messages as m
from olvm.model.records import Stray
from olvm.model.vm_states import ON_A_HOST, VmStatus, VmTrigger, returned_trigger

# Whoever asked for its end, or whose memory is on one host's disk, is not started elsewhere.
NOT_WANTED = frozenset({"stop", "shutdown", "suspend"})
NOT_TAKEN_OVER = frozenset({VmStatus.SAVING_STATE, VmStatus.RESTORING_STATE, VmStatus.MIGRATING_TO})


class VmTakeover(VmCopies):
    __slots__ = ()

    def _take_over(self, reason: str, turn: Turn) -> None:
        """Begin, if the machine may be taken over at all and nothing is under way."""
        record = self.record
        if not (record.high_availability and record.lease) or record.copy_phase or record.host is None:
            return
        if record.operation_kind in NOT_WANTED or record.exit_reason in NORMAL_EXITS:
            return
        if record.status in NOT_TAKEN_OVER or record.status not in ON_A_HOST | {VmStatus.UNKNOWN}:
            return
        if record.status in LAUNCHING:
            turn.sometimes("takeover_of_a_machine_that_was_starting")
        self._lose_host(record.host, reason, turn)
        turn.cancel_timer(record, "ha_retry")
        self._say(
            "vm_takeover_started",
            f"is highly available and is tried on another host, because {record.host} is silent ({reason}); "
            "it starts there when its lease is free",
            turn,
            "warning",
        )
        self._seek_copy("takeover", "host_error", "", turn)

    def _on_takeover_placed(self, message: m.CopyPlaced, turn: Turn) -> None:
        record = self.record
        if not self._take_place(message, turn):
            return
        record.copy_phase = "starting"
        turn.set_timer(record, "copy", turn.config.launch_timeout_s)
        turn.send(
            message.agent, self._creation(record.copy_epoch, message.boot_id, self._copy_size, restore=False)
        )

    def _on_takeover_report(self, message: m.DomainReported, turn: Turn) -> None:
        """Of the copy."""
        domain, record = message.domain, self.record
        if not self._is_copy_news(message, turn):
            return
        if message.absent or domain.status is VmStatus.DOWN:
            self._acknowledge(message, turn)
            text = domain.exit_message or "it is not there"
            self._takeover_failed(text, turn, tried=record.copy_host)
        elif domain.status not in NOT_RUNNING_YET and returned_trigger(domain.status) is not None:
            self._taken_over(domain.status, domain.pause_code, turn)

    def _taken_over(self, reported: VmStatus, pause_code: str, turn: Turn) -> None:
        """Rule 2."""
        record = self.record
        old_host, seconds = record.host, (turn.now_ns - record.copy_begun_ns) / 1e9
        self._promote(turn, old_is_over=True)
        trigger = returned_trigger(reported)
        assert trigger is not None, f"{self.address} was reported {reported} by {record.host}"
        self._move(trigger, turn, f"taken over from {old_host}")
        record.exit_reason, record.exit_message = None, ""
        record.copy_tried_hosts = []
        self._say(
            "vm_ha_restart",
            f"was started again on {record.host} after {seconds:.0f} s: its lease on {old_host} is over",
            turn,
            "warning",
            {"from": old_host, "to": record.host, "seconds": round(seconds, 3)},
        )
        if reported is VmStatus.UP:
            self._note_up(turn)
            self._end_by_up(turn)
        elif reported is VmStatus.PAUSED:
            record.pause_code = pause_code
            self._say_paused(turn)
        self._bound(turn)

    def _takeover_failed(self, reason: str, turn: Turn, *, tried: str = "") -> None:
        """Rule 4: nothing of the copy is on its host. `tried`: the host to leave out next time."""
        record = self.record
        old_is_dead = record.copy_source_word == "dead"
        if record.copy_phase == "starting":
            self._release_copy(turn)
            self._clear_copy(turn)
        else:
            self._give_up_copy(turn)
        if old_is_dead:
            turn.sometimes("takeover_failed_and_the_old_host_is_dead")
            self._confirmed_dead(record.host or "", f"and it did not start elsewhere: {reason}", turn)
            return
        self._say("vm_takeover_failed", f"is still unknown: {reason}", turn, "warning")
        self._try_next(tried, turn)

    def _try_next(self, tried: str, turn: Turn) -> None:
        record = self.record
        if tried:
            record.copy_tried_hosts = [*record.copy_tried_hosts, tried]
            if len(record.copy_tried_hosts) < turn.config.rerun_count_max:
                self._seek_copy("takeover", "host_error", "", turn)
                return
        record.copy_tried_hosts = []
        self._schedule_retry(turn)

    def _takeover_unanswered(self, reason: str, turn: Turn) -> None:
        """Rule 5."""
        record = self.record
        tried = record.copy_host
        self._say("vm_takeover_unanswered", f"is still unknown: {reason}", turn, "warning")
        old_is_dead = record.copy_source_word == "dead"
        self._leave_copy(turn, may_run=True)
        first = self._first_unheard()
        if old_is_dead and first is not None:
            turn.sometimes("takeover_unanswered_and_the_old_life_is_over")
            self._become_copy_of(first, turn)
            self._promote(turn, old_is_over=True)
            record.status_reason = f"{record.host} may have started it: {reason}"
            turn.wake("query", turn.config.query_period_s)
        self._try_next(tried if record.host != tried else "", turn)

    def _on_down(self, host: str, exit_reason: int | None, exit_message: str, turn: Turn) -> None:
        if not self._goes_on_elsewhere(exit_reason, exit_message, turn):
            super()._on_down(host, exit_reason, exit_message, turn)

    def _confirmed_dead(self, host: str, reason: str, turn: Turn) -> None:
        if not self._goes_on_elsewhere(EXIT_HOST_SHUTDOWN, reason, turn):
            super()._confirmed_dead(host, reason, turn)

    def _launch_refused(self, message: m.DomainRefused, turn: Turn) -> None:
        launching = self.record.status in LAUNCHING
        if not (launching and self._goes_on_elsewhere(EXIT_START_FAILED, message.reason, turn)):
            super()._launch_refused(message, turn)

    def _first_unheard(self) -> Stray | None:
        """Rule 6: the oldest takeover that may have begun a life after the present one."""
        later = [one for one in self.record.strays if one.may_run and one.epoch > self.record.epoch]
        return min(later, key=lambda one: one.epoch, default=None)

    def _goes_on_elsewhere(self, exit_reason: int | None, reason: str, turn: Turn) -> bool:
        """Its life is over, and a takeover that nobody heard of may have begun the next one: it is that, Unknown."""
        record, stray = self.record, self._first_unheard()
        if stray is None:
            return False
        exit_reason, reason = self._end_that_counts(exit_reason, reason)
        turn.sometimes("life_goes_on_in_a_takeover_nobody_heard_of")
        if record.copy_phase:
            self._give_up_copy(turn)
        self._doubt(VmTrigger.HOST_LOST, reason, f"may run on {stray.host}: {reason}", turn, "warning")
        self._become_copy_of(stray, turn)
        self._promote(turn, old_is_over=True)
        # If that life turns out never to have been, or to be ended by an order of ours, this is how the machine ended.
        record.exit_reason, record.exit_message = exit_reason, reason
        if record.operation_kind in NOT_WANTED:
            self._tell_agent("destroy", turn)
        self._query(turn)
        return True

    def _become_copy_of(self, stray: Stray, turn: Turn) -> None:
        record = self.record
        record.strays = tuple(one for one in record.strays if one is not stray)
        record.copy_phase, record.copy_kind = "starting", "takeover"
        record.copy_host, record.copy_agent = stray.host, stray.agent
        record.copy_boot_id, record.copy_epoch = stray.boot_id, stray.epoch
        record.copy_begun_ns = turn.now_ns
        record.copy_vcpus = stray.vcpus or record.vcpus
        record.copy_memory_bytes = stray.memory_bytes or record.memory_bytes
        self.copy_seen = (stray.seen_host_epoch, stray.seen_seq)

    def _adopt(self, message: m.DomainReported, stray: Stray, turn: Turn) -> None:
        """A stray runs while the machine is Unknown: it has the lease, so nothing else of it runs (rule 2)."""
        record = self.record
        turn.sometimes("stray_of_a_takeover_is_adopted")
        if record.copy_phase:
            self._give_up_copy(turn)
        self._become_copy_of(stray, turn)
        self._on_takeover_report(message, turn)
        if stray.end_ordered:
            # The order is on its way and cannot be called back: the end that it brings is no wish of anybody's.
            record.exit_reason, record.exit_message = EXIT_HOST_SHUTDOWN, "an earlier order ended it"

    def _on_takeover_refused(self, message: m.DomainRefused, turn: Turn) -> None:
        if message.code == "lease_held":
            turn.sometimes("takeover_refused_as_the_lease_is_held")
        self._takeover_failed(f"{message.host} did not start it: {message.reason}", turn)

    def _on_other_report(self, message: m.DomainReported, turn: Turn) -> None:
        record, domain = self.record, message.domain
        stray = self._stray(message.host, domain.epoch)
        runs = domain.status not in NOT_RUNNING_YET and returned_trigger(domain.status) is not None
        if (
            stray is not None
            and record.lease
            and record.status is VmStatus.UNKNOWN
            and domain.epoch > record.epoch
            and not message.absent
            and domain.status is not VmStatus.DOWN
            and runs
            and (message.host_epoch, message.seq) > (stray.seen_host_epoch, stray.seen_seq)
        ):
            self._adopt(message, stray, turn)
        else:
            super()._on_other_report(message, turn)

    def _on_old_host_report(self, message: m.DomainReported, turn: Turn) -> None:
        """Rule 3; the report is news of the copy that is the machine."""
        record, domain = self.record, message.domain
        over = message.absent or domain.status is VmStatus.DOWN
        if over and record.copy_phase == "starting" and domain.exit_reason not in NORMAL_EXITS:
            turn.sometimes("old_host_says_down_during_a_takeover")
            self._acknowledge(message, turn)
            self._note_old_is_dead(turn)
            return
        turn.sometimes("takeover_abandoned")
        self._say(
            "vm_takeover_abandoned",
            f"is not taken over: {message.host} answers and says that it is {domain.status.value}",
            turn,
        )
        self._give_up_copy(turn)
        record.copy_tried_hosts = []
        self._on_own_report(message, turn)

    def _note_old_is_dead(self, turn: Turn) -> None:
        record = self.record
        record.copy_source_word = "dead"
        turn.cancel_timer(record, "ha_retry")
        self._release(turn)
        turn.save(record)

    def _takeover_host_confirmed_dead(self, message: m.HostConfirmedDead, turn: Turn) -> None:
        record = self.record
        if message.host == record.copy_host and record.copy_phase == "starting":
            turn.sometimes("new_host_of_a_takeover_dies")
            self._takeover_failed(f"{message.host} is dead: {message.reason}", turn, tried=message.host)
        elif record.copy_phase == "starting":
            turn.sometimes("old_host_confirmed_dead_during_a_takeover")
            self._note_old_is_dead(turn)
        else:
            self._give_up_copy(turn)
            self._confirmed_dead(message.host, message.reason, turn)

    def _on_takeover_timer(self, turn: Turn) -> None:
        record = self.record
        if record.copy_phase == "placing":
            self._ask_for_copy(turn)
            return
        self._takeover_unanswered(f"{record.copy_host} did not start it in time", turn)
