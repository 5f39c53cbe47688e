"""What each step of a host's fence flow does when it is entered: asks, orders, waits, or passes on at once.

It must not know which step follows: it returns a word for `FENCE_STEPS`, or None and has set the deadline `fence`.
Rules:
1. Nothing is asked or ordered through a proxy that the cluster has not named in this very turn (`advice`), but for
   the question after the order, which goes to the same proxy.
2. Whoever waits has said why in `fence_reason`; whoever gives up has said as an alert what a person can do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

from actors.behaviour import Turn
from actors.host_core import HostCore
from actors.host_fence_steps import ASKING, FenceStep, Word
from actors.runtime_port import RestartHostAgent
from olvm.model import messages as m
from olvm.model.errors import OperationFailed
from olvm.model.host_states import HostStatus, HostTrigger
from olvm.model.limits import FENCE_PROXIES_TRIED_MAX, FENCE_RETRY_S_MAX, NS_PER_S

NOT_RESPONDING: Final = "not_responding"
RESTARTING_AGENT = "its agent is being restarted"
NO_POWER_MANAGEMENT = "it has no power management"
CONFIRM = (
    "once you have seen to it that it is off or has been restarted, say so: `olvm host confirm-rebooted {}`"
)


class FenceActions:
    def __init__(self, core: HostCore) -> None:
        self.core = core
        self.record = core.record
        self.word = Word.DONE  # what led into the present step
        self.advice: m.FencingAdvice | None = None  # only within the turn that brought it
        self.told_reason = ""  # the wait that was told as an event; a restart of the engine tells it again
        self.on_entering: dict[FenceStep, Callable[[Turn], Word | None]] = {
            FenceStep.QUIET: self._enter_quiet,
            FenceStep.SOFT: self._enter_soft,
            FenceStep.DEVICES: lambda _: Word.PRESENT if self.record.fence_devices else Word.ABSENT,
            FenceStep.UNFENCED: self._enter_unfenced,
            FenceStep.KDUMP: self._enter_kdump,
            FenceStep.DUMPING: self._enter_dumping,
            FenceStep.DUMPED: self._enter_dumped,
            FenceStep.LEASE: self._enter_lease,
            FenceStep.RETRY: self._enter_retry,
            FenceStep.OFF: lambda turn: self._order("off", turn),
            FenceStep.OFF_STATUS: self._enter_off_status,
            FenceStep.OFF_WAIT: self._enter_off_wait,
            FenceStep.OFF_PAUSE: self._enter_pause,
            FenceStep.FAILED: self._enter_failed,
            FenceStep.FENCED: self._enter_fenced,
            FenceStep.ON: lambda turn: self._order("on", turn),
            FenceStep.ON_PAUSE: self._enter_pause,
            FenceStep.BOOTING: self._enter_booting,
            FenceStep.NOT_BACK: self._enter_not_back,
            FenceStep.ENDED: self._enter_ended,
            **dict.fromkeys(ASKING, self._ask),
        }

    def wait(self, after_s: float, turn: Turn) -> None:
        turn.set_timer(self.record, "fence", after_s)

    def _wait_longer(self, turn: Turn) -> None:
        """The wait after a failure doubles, up to ten minutes."""
        growth = 2.0 ** min(self.record.fence_failures, 16)
        self.record.fence_failures += 1
        self.wait(min(FENCE_RETRY_S_MAX, turn.config.fence_retry_s * growth), turn)

    def hold(self, reason: str, turn: Turn) -> None:
        """Stay in the step and ask again; nothing is dropped."""
        self.record.fence_reason = reason
        self.wait(turn.config.fence_retry_s, turn)
        if reason == self.told_reason:
            return
        self.told_reason = reason
        name = self.record.name
        text = f"host {name} is not fenced now: {reason}; it is tried again, or {CONFIRM.format(name)}"
        self.core.tell("host_fence_waits", text, turn, "alert")

    # ------------------------------------------------------------------ before anything is switched

    def _enter_quiet(self, turn: Turn) -> Word | None:
        started_ns = self.core.engine_started_ns
        left_s = turn.config.fence_quiet_at_start_s
        left_s -= float("inf") if started_ns is None else (turn.now_ns - started_ns) / NS_PER_S
        if left_s <= 0:
            return Word.READY
        turn.sometimes("quiet_time_held_a_fence_back")
        self.record.fence_reason = (
            f"the engine has just started: hosts are not fenced for another {left_s:.0f} s"
        )
        self.wait(left_s, turn)
        return None

    def _ask(self, turn: Turn) -> None:
        record = self.record
        record.fence_seq += 1
        self.wait(turn.config.fence_retry_s, turn)
        turn.send(self.core.cluster, m.AskFencing(record.name, record.fence_seq))

    def _enter_soft(self, turn: Turn) -> None:
        record = self.record
        record.fence_reason = RESTARTING_AGENT
        turn.call("runtime", RestartHostAgent(record.name, record.silo), f"soft/{record.fence_seq}")
        self.wait(turn.config.soft_fence_timeout_s, turn)
        self.core.tell("host_soft_fenced", f"the agent of host {record.name} is being restarted", turn)

    def _enter_unfenced(self, turn: Turn) -> Word:
        name, reason = self.record.name, NO_POWER_MANAGEMENT
        self.record.fence_reason = reason
        if self.core.is_proven_over:
            text = f"host {name} does not come back, and {reason}; start it by hand"
            self.core.tell("host_not_back", text, turn, "alert")
        else:
            text = f"host {name} does not answer and is not fenced: {reason}; {CONFIRM.format(name)}"
            self.core.tell("host_not_fenced", text, turn, "alert")
        return Word.DONE

    def _enter_kdump(self, turn: Turn) -> Word | None:
        if not self.record.kdump or self.core.is_proven_over:
            return Word.ABSENT
        self.record.fence_reason = "waits for a sign that it writes a crash dump"
        self.wait(turn.config.kdump_started_timeout_s, turn)
        return None

    def _enter_dumping(self, turn: Turn) -> None:
        if self.record.status is not HostStatus.KDUMPING:
            turn.sometimes("host_wrote_a_crash_dump")
            self.core.move(HostTrigger.KDUMP_SEEN, "its kernel crashed and writes a dump", turn, "error")
            self.core.prove_over("its kernel crashed and writes a dump", turn)
        self.record.fence_reason = ""
        self.wait(turn.config.kdump_silence_s, turn)

    def _enter_dumped(self, turn: Turn) -> None:
        self.core.move(HostTrigger.KDUMP_ENDED, "the crash dump has ended; it should start again", turn)
        self.wait(turn.config.host_reboot_timeout_s, turn)

    def _enter_lease(self, turn: Turn) -> Word | None:
        advice, record, config = self.advice, self.record, turn.config
        assert advice is not None, "a lease is checked through a proxy that the cluster has just named"
        if not advice.check_lease or self.core.is_proven_over:
            return Word.ABSENT
        if record.fence_attempts >= min(len(advice.proxies), FENCE_PROXIES_TRIED_MAX):
            return Word.TRIED_OUT
        record.fence_proxy = advice.proxies[record.fence_attempts]
        record.fence_attempts += 1
        record.fence_reason = f"its lease is watched by {record.fence_proxy}"
        turn.tell(record.fence_proxy, m.CheckHostLease(record.name, record.fence_seq))
        drift = config.clock_drift_percent_max / 100
        watched_s = config.lease_expiry_s * (1 + drift) / (1 - drift)
        self.wait(watched_s + config.fence_poll_period_s, turn)
        return None

    def _enter_retry(self, turn: Turn) -> None:
        turn.sometimes("fence_was_skipped_for_a_live_lease")
        self.hold(f"its lease on the shared storage is live, seen by {self.record.fence_proxy}", turn)

    # ------------------------------------------------------------------ switching

    def _order(self, action: Literal["on", "off"], turn: Turn) -> Word | None:
        """The next device and proxy of this round: first all proxies with the first device."""
        advice, record = self.advice, self.record
        assert advice is not None, "an order goes through a proxy that the cluster has just named"
        proxies = advice.proxies[:FENCE_PROXIES_TRIED_MAX]
        if record.fence_attempts >= len(proxies) * len(record.fence_devices):
            record.fence_attempts = 0
            record.fence_round += 1
            is_last = record.fence_round >= turn.config.fence_proxy_retry_count_max
            return Word.TRIED_OUT if is_last else Word.ROUND_OVER
        record.fence_device, index = divmod(record.fence_attempts, len(proxies))
        record.fence_proxy = proxies[index]
        if not record.fence_attempts and not record.fence_round:
            record.fence_reason = f"it is being powered {action}"
            text = f"host {record.name} is being powered {action} through {record.fence_proxy}"
            self.core.tell(f"host_powering_{action}", text, turn, "warning" if action == "off" else "normal")
        record.fence_attempts += 1
        device = record.fence_devices[record.fence_device]
        turn.tell(record.fence_proxy, m.FenceHost(record.name, record.fence_seq, action, device))
        self.wait(turn.config.fence_poll_period_s, turn)
        return None

    def repeat(self, ready: m.FenceReady, turn: Turn) -> None:
        """The proxy asks whether the order of this step still holds: it does."""
        record = self.record
        device = record.fence_devices[record.fence_device]
        order = m.FenceHost(
            record.name, record.fence_seq, ready.action, device, ready.host_epoch, ready.asked_ns
        )
        turn.tell(record.fence_proxy, order)

    def _enter_off_status(self, turn: Turn) -> None:
        record = self.record
        device = record.fence_devices[record.fence_device]
        turn.tell(record.fence_proxy, m.FenceHost(record.name, record.fence_seq, "status", device))
        self.wait(turn.config.fence_poll_period_s, turn)

    def _enter_off_wait(self, turn: Turn) -> Word | None:
        record = self.record
        record.fence_polls += 1
        if record.fence_polls >= turn.config.fence_poll_count_max:
            record.fence_polls = 0
            record.fence_reason = f"{record.fence_proxy} says that it is still on"
            return Word.TRIED_OUT
        self.wait(turn.config.fence_poll_period_s, turn)
        return None

    def _enter_pause(self, turn: Turn) -> None:
        self.wait(turn.config.fence_retry_s, turn)

    def _enter_failed(self, turn: Turn) -> Word | None:
        turn.sometimes("fence_flow_was_tried_out")
        record = self.record
        why = record.fence_reason or "no device and no proxy answered"
        text = (
            f"host {record.name} could not be powered off: {why}; "
            f"repair its power management, or {CONFIRM.format(record.name)}"
        )
        self.core.tell("host_fence_failed", text, turn, "alert")
        self.core.finish(turn, False, text, OperationFailed.code)
        if record.status is not HostStatus.NON_RESPONSIVE:
            return Word.DONE
        record.fence_intent = NOT_RESPONDING
        self._wait_longer(turn)
        return None

    def _enter_fenced(self, turn: Turn) -> Word:
        """Verified off: the proof, and then the way back."""
        record, core = self.record, self.core
        reason = f"powered off, as the device says through {record.fence_proxy}"
        core.prove_over(reason, turn)
        core.tell("host_fenced", f"host {record.name} is off: what ran on it is gone", turn, "warning")
        record.fence_reason = ""
        if record.fence_intent == "power_off":
            core.move(HostTrigger.POWERED_OFF, "powered off by a person", turn)
            core.finish(turn, True)
            return Word.DONE
        core.move(HostTrigger.RESTART_STARTED, reason, turn, "warning")
        return Word.CONTINUE

    def _enter_booting(self, turn: Turn) -> None:
        record = self.record
        if record.status is not HostStatus.REBOOT:
            self.core.move(HostTrigger.RESTART_STARTED, "powered on", turn)
        record.fence_reason = "it is starting"
        self.wait(turn.config.host_reboot_timeout_s, turn)

    def _enter_not_back(self, turn: Turn) -> Word | None:
        """It was switched on and does not answer. Nothing runs there: it is switched on again, later and later."""
        turn.sometimes("fenced_host_did_not_come_back")
        record, core = self.record, self.core
        timeout_s = turn.config.host_reboot_timeout_s
        booted = self.word is Word.DUE
        reason = (
            f"it did not answer {timeout_s:g} s after it was powered on"
            if booted
            else "it is not switched on"
        )
        text = f"host {record.name} is not back: {reason}; look at its console and its power management"
        core.tell("host_not_back", text, turn, "alert")
        core.finish(turn, False, text, OperationFailed.code)
        if record.status is HostStatus.REBOOT:
            core.make_non_responsive(reason, turn)
        if record.status is not HostStatus.NON_RESPONSIVE:
            return Word.DONE
        record.fence_intent = NOT_RESPONDING
        record.fence_reason = reason
        if not core.is_proven_over:
            return Word.UNPROVEN
        self._wait_longer(turn)
        return None

    # ------------------------------------------------------------------ the end

    def _enter_ended(self, turn: Turn) -> None:
        """The operation of a flow that came to an end by itself; one that waits for Up is ended by that."""
        record, word, intent = self.record, self.word, self.record.fence_intent
        if word in (Word.ANSWERED, Word.REBOOTED):
            self._end_of_an_answer(intent, word, turn)
        kept = record.fence_reason if word is Word.DONE else ""
        self.clear(turn)
        record.fence_reason = kept

    def _end_of_an_answer(self, intent: str, word: Word, turn: Turn) -> None:
        record = self.record
        if record.fence_reason == RESTARTING_AGENT:
            turn.sometimes("soft_fence_brought_the_agent_back")
        if intent == "power_off" or (intent == "restart" and word is Word.ANSWERED):
            reason = f"host {record.name} answers ({word}); it was not powered off"
            self.core.finish(turn, False, reason, OperationFailed.code)
        elif intent == "power_on" and word is Word.ANSWERED and record.status is HostStatus.NON_RESPONSIVE:
            # It was on all the time: its agent does not start anew, which would have ended this.
            self.core.finish(turn, True)
        elif intent in ("restart", "power_on") and record.status in (HostStatus.DOWN, HostStatus.MAINTENANCE):
            # What was asked for has happened before the device said so: from Reboot it goes to Up as always.
            self.core.move(HostTrigger.RESTART_STARTED, "it has started", turn)

    def clear(self, turn: Turn) -> None:
        record = self.record
        record.fence_step = record.fence_intent = record.fence_reason = record.fence_proxy = ""
        record.fence_attempts = record.fence_round = record.fence_polls = record.fence_device = 0
        turn.cancel_timer(record, "fence")
        turn.save(record)
