"""The fence saga of one host: from NonResponsive to a proof that what ran on it is gone, and back into service.

It decides what counts as an answer and hands it to the table (`host_fence_steps`); what a step does stands in
`host_fence_actions`. Rules:
1. Never two flows for one host: `begin` demands that none is under way.
2. Proof is a status "off", asked after the order to switch off was taken, with the flow's present sequence number;
   or a crash dump. An order that a device took proves nothing.
3. `fence_seq` grows with each question to the cluster, and answers carry it: what belongs to an earlier attempt is
   late and changes nothing.
4. A flow ends only in an answer of the host, in a proof, or in an alert that says what a person can do.
5. An order to switch holds while the flow waits for it, and no longer: the proxy asks before it obeys
   (`host_agent_fencing`), and only the order of the present step is repeated.
"""

from __future__ import annotations

from typing import Literal

from actors.behaviour import Turn
from actors.host_core import HostCore
from actors.host_fence_actions import NOT_RESPONDING, FenceActions
from actors.host_fence_steps import (
    ASKING,
    FENCE_STEPS,
    NO_RETURN,
    PHASE_BY_STEP,
    SWITCHING,
    UNTOUCHED,
    FenceStep,
    Word,
)
from olvm.model import messages as m
from olvm.model.host_states import HostStatus

FenceIntent = Literal["not_responding", "restart", "power_on", "power_off"]
FIRST_STEP: dict[FenceIntent, FenceStep] = {
    "not_responding": FenceStep.QUIET,
    "restart": FenceStep.ASK_OFF,
    "power_off": FenceStep.ASK_OFF,
    "power_on": FenceStep.ASK_ON,
}
STEPS_BY_ACTION = {
    "off": frozenset({FenceStep.OFF}),
    "status": frozenset({FenceStep.OFF_STATUS, FenceStep.OFF_WAIT}),
    "on": frozenset({FenceStep.ON}),
}
NEEDS_ANSWER = frozenset({FenceStep.OFF, FenceStep.OFF_STATUS, FenceStep.ON})
WORD_BY_POWER = {"off": Word.IS_OFF, "on": Word.IS_ON, "unknown": Word.IS_ON}
WORD_BY_VERDICT = {"live": Word.LIVE, "dead": Word.DEAD, "unknown": Word.UNKNOWN}


class Fencing:
    def __init__(self, core: HostCore) -> None:
        self._record = core.record
        self._core = core
        self._actions = FenceActions(core)

    # ------------------------------------------------------------------ the face to the host

    @property
    def step(self) -> FenceStep:
        return FenceStep(self._record.fence_step)

    def begin(self, intent: FenceIntent, turn: Turn, step: FenceStep | None = None) -> None:
        record = self._record
        assert not record.fence_step, f"a second fence flow for host {record.name} while {record.fence_step}"
        record.fence_intent = intent
        record.fence_seq += 1
        record.fence_failures = 0
        record.fence_reason = ""
        self._actions.told_reason = ""
        self._enter(FIRST_STEP[intent] if step is None else step, Word.READY, turn)

    def drop(self, turn: Turn) -> None:
        """End a flow that can give way, without a word: something else is done with the host."""
        assert self.step not in SWITCHING, f"host {self._record.name} is being switched: {self.step}"
        if self._record.fence_step:
            self._actions.clear(turn)

    def answered(self, turn: Turn) -> bool:
        """The host answers, in the boot it was last seen in. False: it is past saving, do not believe it."""
        if not self._record.fence_step or self._hear(Word.ANSWERED, turn):
            return True
        turn.sometimes("host_answered_while_power_off_was_ordered")
        return False

    def started_anew(self, turn: Turn) -> None:
        """The host answers in a new boot; the old one was proven over before."""
        if self.step in UNTOUCHED | {FenceStep.QUIET}:
            turn.sometimes("new_boot_seen_before_the_fence")
        self._hear(Word.REBOOTED, turn)

    def on_lie(self, turn: Turn) -> None:
        """A boot that was proven over answers: what was believed of it is void, fence it again."""
        if self.step in NO_RETURN:
            return
        if self._record.fence_step:
            self._actions.clear(turn)
        if self._record.fence_devices:
            self.begin(NOT_RESPONDING, turn, FenceStep.ASK_OFF_AGAIN)

    def on_recovered(self, turn: Turn) -> None:
        """The saga goes on, but a host that was not touched yet is first given time to be heard."""
        record = self._record
        if record.fence_step:
            turn.sometimes("engine_restarted_in_a_fence_flow")
            if record.fence_intent == NOT_RESPONDING and self.step in UNTOUCHED | {FenceStep.QUIET}:
                self._enter(FenceStep.QUIET, Word.READY, turn)
            elif "fence" not in record.timers:
                self._actions.wait(turn.config.fence_retry_s, turn)
        elif record.status is HostStatus.NON_RESPONSIVE and (
            not self._core.is_proven_over or record.fence_lied_boot_id
        ):
            self.begin(NOT_RESPONDING, turn)

    def on_due(self, turn: Turn) -> None:
        if self.step in NEEDS_ANSWER:
            proxy, period_s = self._record.fence_proxy, turn.config.fence_poll_period_s
            self._record.fence_reason = f"{proxy} did not answer in {period_s:g} s"
        self._hear(Word.DUE, turn)

    def on_kdump(self, turn: Turn) -> None:
        if not self._record.fence_step:
            self.begin(NOT_RESPONDING, turn, FenceStep.DUMPING)
        else:
            self._hear(Word.DUMP, turn)

    # ------------------------------------------------------------------ answers

    def on_advice(self, advice: m.FencingAdvice, turn: Turn) -> None:
        record = self._record
        if advice.seq != record.fence_seq or self.step not in ASKING:
            return
        by_hand = record.fence_intent != NOT_RESPONDING or self.step is FenceStep.ASK_ON
        needs_proxy = self.step is not FenceStep.ASK_SOFT
        if not advice.allowed and not by_hand:
            turn.sometimes("fencing_was_held_back_by_the_cluster")
            self._actions.hold(advice.reason, turn)
        elif needs_proxy and not advice.proxies:
            self._actions.hold(
                advice.reason or "no other host of its cluster is up to fence it through", turn
            )
            if by_hand:
                record.fence_round += 1
                if record.fence_round >= turn.config.fence_proxy_retry_count_max:
                    self._hear(Word.TRIED_OUT, turn)
        else:
            self._actions.advice = advice
            self._hear(Word.ALLOWED, turn)
            self._actions.advice = None

    def on_ready(self, ready: m.FenceReady, turn: Turn) -> None:
        """Rule 5."""
        if ready.seq != self._record.fence_seq or self.step not in STEPS_BY_ACTION[ready.action]:
            turn.sometimes("fence_order_that_came_late_is_not_repeated")
            return
        self._actions.repeat(ready, turn)

    def on_result(self, result: m.FenceResult, turn: Turn) -> None:
        record = self._record
        if result.seq != record.fence_seq or self.step not in STEPS_BY_ACTION.get(result.action, ()):
            if result.ok and result.seq <= record.fence_seq:
                turn.sometimes("fence_succeeded_after_its_timeout")
            return
        if not result.ok and self.step in NEEDS_ANSWER:
            turn.sometimes("fence_device_failed")
            record.fence_reason = f"{result.action} through {record.fence_proxy}: {result.reason}"
            turn.save(record)
            self._hear(Word.FAILED, turn)
        elif not result.ok:
            pass  # said twice: the step has gone on
        elif result.action == "status":
            self._hear(WORD_BY_POWER[result.power], turn)
        else:
            self._hear(Word.TAKEN, turn)

    def on_lease_checked(self, checked: m.HostLeaseChecked, turn: Turn) -> None:
        if checked.seq == self._record.fence_seq:
            self._hear(WORD_BY_VERDICT[checked.verdict], turn)

    def on_call_ended(self, ended: m.CallEnded, turn: Turn) -> None:
        if ended.tag == f"soft/{self._record.fence_seq}" and not ended.ok:
            self._hear(Word.REFUSED, turn)

    # ------------------------------------------------------------------ the table is obeyed here

    def _hear(self, word: Word, turn: Turn) -> bool:
        step = FENCE_STEPS.get((self.step, word)) if self._record.fence_step else None
        if step is None:
            return False
        self._enter(step, word, turn)
        return True

    def _enter(self, step: FenceStep, word: Word, turn: Turn) -> None:
        record = self._record
        while True:
            if PHASE_BY_STEP.get(step) != PHASE_BY_STEP.get(self.step):
                record.fence_attempts = record.fence_round = record.fence_polls = 0
            record.fence_step = step.value
            self._actions.word = word
            turn.save(record)
            turn.cancel_timer(record, "fence")
            next_word = self._actions.on_entering[step](turn)
            if next_word is None:
                return
            step, word = FENCE_STEPS[step, next_word], next_word
