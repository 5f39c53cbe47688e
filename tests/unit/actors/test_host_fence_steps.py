"""The fence flow's table: its shape, and that the behaviour obeys it in every pair of step and word."""

from __future__ import annotations

from itertools import product

import pytest

from actors.behaviour import Turn
from actors.host import Host
from actors.host_fence_steps import (
    ASKING,
    FENCE_STEPS,
    NO_RETURN,
    PASSING,
    PHASE_BY_STEP,
    SWITCHING,
    UNTOUCHED,
    FenceStep,
    Word,
)
from olvm.model import messages as m
from olvm.model.host_states import HostStatus
from tests.builders import encoded, host, turn

S, W = FenceStep, Word
WAITING = [step for step in FenceStep if step not in PASSING]
# What comes from outside; the other words are a step's own.
FROM_OUTSIDE = [
    *(W.DUE, W.ALLOWED, W.REFUSED, W.DUMP, W.LIVE, W.DEAD, W.UNKNOWN, W.TAKEN, W.FAILED),
    *(W.IS_ON, W.IS_OFF, W.ANSWERED, W.REBOOTED),
]
# Where a flow of this host (devices, crash dumps, an engine that started long ago) settles, entering a passing step.
SETTLED = {S.QUIET: S.ASK_SOFT, S.DEVICES: S.KDUMP, S.FENCED: S.ASK_ON}
STATUS_BY_STEP = {
    S.DUMPING: HostStatus.KDUMPING,
    S.ASK_ON: HostStatus.REBOOT,
    S.ON: HostStatus.REBOOT,
    S.ON_PAUSE: HostStatus.REBOOT,
    S.BOOTING: HostStatus.REBOOT,
}
ACTION_BY_STEP = {S.OFF_STATUS: "status", S.OFF_WAIT: "status", S.ON: "on"}


def standing_in(step: FenceStep) -> Host:
    proven = step in (S.DUMPING, S.DUMPED, S.ASK_ON, S.ON, S.ON_PAUSE, S.BOOTING, S.NOT_BACK)
    return host(
        status=STATUS_BY_STEP.get(step, HostStatus.NON_RESPONSIVE),
        fence_devices=[{"type": "a"}, {"type": "b"}],
        kdump=True,
        fence_step=step.value,
        fence_intent="not_responding",
        fence_seq=7,
        fence_proxy="agent/H2@host-2",
        fenced_boot_id="boot-1" if proven else "",
        timers={"fence": 1},
    )


def say(one: Host, step: FenceStep, word: Word, done: Turn) -> None:
    """The message that means `word` to a host whose flow stands in `step`."""
    fencing = one.fencing
    match word:
        case W.DUE:
            fencing.on_due(done)
        case W.ALLOWED:
            fencing.on_advice(m.FencingAdvice("H1", 7, True, "", ["agent/H2@host-2"]), done)
        case W.REFUSED:
            fencing.on_call_ended(m.CallEnded("soft/7", False), done)
        case W.DUMP:
            fencing.on_kdump(done)
        case W.LIVE | W.DEAD | W.UNKNOWN:
            fencing.on_lease_checked(m.HostLeaseChecked("H1", 7, word.value), done)  # type: ignore[arg-type]
        case W.ANSWERED:
            fencing.answered(done)
        case W.REBOOTED:
            fencing.started_anew(done)
        case _:
            action = "status" if word in (W.IS_ON, W.IS_OFF) else ACTION_BY_STEP.get(step, "off")
            power = {W.IS_ON: "on", W.IS_OFF: "off"}.get(word, "unknown")
            fencing.on_result(m.FenceResult("H1", 7, action, word is not W.FAILED, power), done)  # type: ignore[arg-type]


def applies(step: FenceStep, word: Word) -> bool:
    """ "The device took it" is a word about an order; about a status it is read as "still on"."""
    return not (word is W.TAKEN and ACTION_BY_STEP.get(step) == "status")


@pytest.mark.parametrize(("step", "word"), list(product(WAITING, FROM_OUTSIDE)))
def test_fence_flow_in_any_step_obeys_the_table_or_changes_nothing(step: FenceStep, word: Word) -> None:
    if not applies(step, word):
        return
    one, done = standing_in(step), turn(me="host/H1")
    before = encoded(one.record)
    say(one, step, word, done)
    expected = FENCE_STEPS.get((step, word))
    if expected is None:
        assert (encoded(one.record), done.sent, done.calls, done.events) == (before, [], [], [])
        return
    settled = SETTLED.get(expected, expected)
    if step is S.DUMPED and word is W.DUE:
        settled = S.ASK_CHECK  # it is proven over already: nobody waits for another dump
    assert one.record.fence_step == settled
    assert one.record in done.saved
    assert ("fence" in one.record.timers) == bool(one.record.fence_step)


def test_fence_table_every_step_that_waits_has_a_deadline() -> None:
    assert all((step, W.DUE) in FENCE_STEPS for step in WAITING)


def test_fence_table_ends_from_every_step_and_uses_every_word() -> None:
    assert {word for _, word in FENCE_STEPS} == set(Word)
    assert {step for step, _ in FENCE_STEPS} == set(FenceStep) - {S.ENDED}
    escaping = {S.ENDED}
    for _ in FenceStep:
        escaping |= {start for (start, _), to in FENCE_STEPS.items() if to in escaping}
    assert escaping == set(FenceStep)


def test_fence_table_proof_is_only_a_status_off_after_an_order_that_was_taken() -> None:
    def into(step: FenceStep) -> set[tuple[FenceStep, Word]]:
        return {pair for pair, to in FENCE_STEPS.items() if to is step}

    assert into(S.FENCED) == {(S.OFF_STATUS, W.IS_OFF), (S.OFF_WAIT, W.IS_OFF)}
    assert into(S.OFF_STATUS) == {(S.OFF, W.TAKEN), (S.OFF_WAIT, W.DUE)}
    assert into(S.OFF_WAIT) == {(S.OFF_STATUS, W.IS_ON)}
    assert into(S.OFF) == {(S.ASK_OFF, W.ALLOWED), (S.ASK_OFF_AGAIN, W.ALLOWED)}
    assert {word for _, word in into(S.DUMPING)} == {W.DUMP}


def test_fence_table_nothing_is_ordered_that_was_not_asked_in_the_step_before() -> None:
    for step in (S.SOFT, S.LEASE, S.OFF, S.ON):
        before = {start for (start, _), to in FENCE_STEPS.items() if to is step}
        assert before <= ASKING, step


def test_fence_table_after_the_first_order_only_a_new_boot_ends_it() -> None:
    for step in NO_RETURN:
        assert (step, W.ANSWERED) not in FENCE_STEPS
        assert FENCE_STEPS[step, W.REBOOTED] is S.ENDED
    for step in UNTOUCHED | {S.QUIET}:
        assert FENCE_STEPS[step, W.ANSWERED] is S.ENDED
        assert FENCE_STEPS[step, W.DUMP] is S.DUMPING
    assert not (UNTOUCHED & SWITCHING)
    assert set(WAITING) == set(UNTOUCHED) | set(SWITCHING - {S.FENCED}) | {
        *(S.QUIET, S.DUMPING, S.DUMPED, S.NOT_BACK)
    }


def test_fence_table_attempts_are_counted_within_one_phase() -> None:
    assert set(PHASE_BY_STEP.values()) == {"lease", "off", "on"}
    assert {step for step in NO_RETURN if PHASE_BY_STEP.get(step) != "off"} == set()
