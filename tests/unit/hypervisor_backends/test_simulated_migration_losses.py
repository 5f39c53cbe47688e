"""A migration whose messages and hosts are lost, one at a time, at every step: never two running copies.

`OneCopy` raises at the instant of a second running copy; what is asserted here is how each case ends.
"""

from __future__ import annotations

import msgspec
import pytest

from hypervisor_backends.protocol import (
    CallFailed,
    CallResult,
    CallSucceeded,
    ContinueDomain,
    DestroyDomain,
    ExitReason,
    StartPostCopy,
)
from hypervisor_backends.simulated_faults import Fault
from tests.unit.hypervisor_backends.bench import address_of, migrate_of
from tests.unit.hypervisor_backends.migration_rig import CALM, Fate, Rig, failure_of

# A short copy, so that no keep-alive stands between the messages that matter: Begin, Accepted, Last, Got, Finish,
# Confirm; and with post-copy Begin, Accepted, Finish, Confirm, Alive, Accepted, Last, Got.
SHORT = msgspec.structs.replace(CALM, migration_bandwidth_bytes_per_s=1e9, migration_confirm_timeout_s=10.0)
FINISH, COUNT, COUNT_POST_COPY = 4, 6, 8
EACH_MESSAGE = [(False, number) for number in range(COUNT)] + [
    (True, number) for number in range(COUNT_POST_COPY)
]


def after(rig: Rig, answers: list[CallResult]) -> str:
    """Let all time limits pass, and name what became of the machine."""
    rig.advance(7200)
    runs = rig.truth.runs.get("v1", ("nowhere", 0))[0]
    state = rig.source.state()
    code = state.pause_code if state is not None else "gone"
    rig.check_ends()
    if not answers:
        return f"unanswered, runs at {runs}"
    (answer,) = answers
    if isinstance(answer, CallSucceeded):
        return f"moved, runs at {runs}, source {code}"
    assert isinstance(answer, CallFailed)
    return f"{answer.code}, known {answer.outcome_known}, runs at {runs}, source {code}"


def count_of_messages(*, post_copy: bool) -> int:
    rig = Rig(SHORT)
    begin(rig, post_copy=post_copy)
    rig.advance(7200)
    return len(rig.sent)


def begin(rig: Rig, *, post_copy: bool) -> list[CallResult]:
    rig.start()
    if post_copy:
        rig.h1.inject(Fault(kind="migration_never_converges", vm="v1"))
    rig.sent.clear()
    answers = rig.migrate(post_copy=post_copy, bandwidth_bytes_per_s=0)
    if post_copy:
        rig.scheduler.call_at(rig.scheduler.now_ns() + 10**9, lambda: switch_to_post_copy(rig))
    return answers


def switch_to_post_copy(rig: Rig) -> None:
    """As soon as memory is being copied."""
    (answer,) = rig.source.call(StartPostCopy(vm_id="v1"))
    if rig.source.status() == "migrating_from" and not isinstance(answer, CallSucceeded):
        rig.scheduler.call_at(rig.scheduler.now_ns() + 10**9, lambda: switch_to_post_copy(rig))


def test_messages_of_an_undisturbed_migration_are_all_covered_below() -> None:
    assert count_of_messages(post_copy=False) == COUNT
    assert count_of_messages(post_copy=True) == COUNT_POST_COPY


@pytest.mark.parametrize("fate", ["drop", "delay", "repeat"])
@pytest.mark.parametrize(("post_copy", "number"), EACH_MESSAGE)
def test_one_message_dropped_late_or_repeated_does_not_keep_the_machine_from_moving(
    number: int, fate: Fate, post_copy: bool
) -> None:
    rig = Rig(SHORT)
    rig.fates[number] = fate
    answers = begin(rig, post_copy=post_copy)

    assert after(rig, answers) == "moved, runs at h2, source gone"
    assert [reason for host, _, _, reason in rig.truth.ends] == [ExitReason.MIGRATION_SUCCEEDED]
    assert rig.target.kinds() == ["started", "guest_up"]


@pytest.mark.parametrize("first", ["drop", "delay", "repeat"])
@pytest.mark.parametrize("number", range(COUNT - 1))
def test_two_messages_struck_in_turn_still_leave_one_copy(number: int, first: Fate) -> None:
    rig = Rig(SHORT)
    rig.fates = {number: first, number + 1: "delay"}
    answers = begin(rig, post_copy=False)
    outcome = after(rig, answers)

    assert rig.truth.runs["v1"] in {("h1", 1), ("h2", 2)}
    assert outcome in {
        "moved, runs at h2, source gone",
        "migration_failed, known True, runs at h1, source NONE",
    }


@pytest.mark.parametrize("side", ["h1", "h2"])
@pytest.mark.parametrize("number", range(COUNT))
def test_wire_cut_from_any_message_on_ends_definite_or_stranded(number: int, side: str) -> None:
    rig = Rig(SHORT)
    rig.on_message = lambda at: rig.cut.add(side) if at == number else None
    answers = begin(rig, post_copy=False)
    outcome = after(rig, answers)

    assert outcome in {
        "moved, runs at h2, source gone",
        "migration_failed, known True, runs at h1, source NONE",
        "timed_out, known False, runs at h2, source POSTMIGRATE",
        "timed_out, known False, runs at nowhere, source POSTMIGRATE",
    }
    if rig.truth.runs.get("v1") != ("h2", 2):
        assert rig.target.backend.domains() == []  # ended by itself: nobody will ever run it


def test_wire_cuts_meet_each_kind_of_end() -> None:
    outcomes = set()
    for number in range(COUNT):
        for side in ("h1", "h2"):
            rig = Rig(SHORT)
            rig.on_message = lambda at, rig=rig, side=side, number=number: (  # type: ignore[misc]
                rig.cut.add(side) if at == number else None
            )
            outcomes.add(after(rig, begin(rig, post_copy=False)))
    assert len(outcomes) == 4


@pytest.mark.parametrize("boots_again", [False, True])
@pytest.mark.parametrize("side", ["source", "target"])
@pytest.mark.parametrize(("post_copy", "number"), EACH_MESSAGE)
def test_host_lost_at_any_message_leaves_at_most_one_copy(
    number: int, side: str, boots_again: bool, post_copy: bool
) -> None:
    rig = Rig(SHORT)
    victim = rig.h1 if side == "source" else rig.h2

    def strike(at: int) -> None:
        if at == number:
            rig.scheduler.call_at(rig.scheduler.now_ns() + 1, victim.power_off)
            if boots_again:
                rig.scheduler.call_at(rig.scheduler.now_ns() + 10**9, victim.power_on)

    rig.on_message = strike
    answers = begin(rig, post_copy=post_copy)
    rig.advance(7200)

    runs = rig.truth.runs.get("v1")
    if side == "source":
        assert runs in {None, ("h2", 2)}
        assert rig.source.backend.domains() == []  # a booted source brings nothing back
        assert runs is not None or rig.target.backend.domains() == []
    else:
        assert runs in {None, ("h1", 1)}
        assert runs == ("h1", 1) or rig.statuses()[0] in {None, "paused"}
    assert len(answers) <= 1


def test_confirm_that_comes_after_the_source_gave_up_changes_nothing() -> None:
    rig = Rig(SHORT)
    answers = begin(rig, post_copy=False)
    rig.fates[FINISH + 1] = "late"
    rig.on_message = lambda at: rig.cut.add("h2") if at > FINISH + 1 else None
    rig.advance(30)
    assert not failure_of(answers).outcome_known
    rig.advance(3600)

    assert rig.statuses() == ("paused", "up")


def test_stranded_source_runs_again_when_the_target_surely_never_ran() -> None:
    rig = Rig(SHORT)
    answers = begin(rig, post_copy=False)
    rig.on_message = lambda at: rig.cut.add("h1") if at == FINISH else None
    rig.advance(15)
    assert not failure_of(answers).outcome_known
    assert rig.truth.runs == {}
    rig.target.succeed(DestroyDomain(vm_id="v1"), seconds=1)
    rig.cut.clear()
    rig.on_message = lambda _: None
    rig.source.succeed(ContinueDomain(vm_id="v1"), seconds=3600)

    assert rig.truth.runs == {"v1": ("h1", 1)}
    assert rig.statuses() == ("up", None)


def test_finish_that_arrives_after_the_target_gave_up_is_refused_and_the_source_goes_on() -> None:
    rig = Rig(SHORT)
    answers = begin(rig, post_copy=False)

    def destroy_at_finish(at: int) -> None:
        if at == FINISH:
            rig.scheduler.call_at(
                rig.scheduler.now_ns(), lambda: rig.target.succeed(DestroyDomain(vm_id="v1"), 0) and None
            )

    rig.on_message = destroy_at_finish
    rig.advance(60)

    assert failure_of(answers).outcome_known
    assert rig.truth.runs == {"v1": ("h1", 1)}


def test_target_that_forgot_the_attempt_does_not_send_a_source_back_that_asked_it_to_run() -> None:
    rig = Rig(SHORT)
    rig.h2.inject(Fault(kind="migration_loses_confirm", vm="v1"))
    rig.fates[FINISH - 2] = "repeat"  # Last comes again while Finish waits for its answer
    answers = begin(rig, post_copy=False)

    assert after(rig, answers) == "timed_out, known False, runs at h2, source POSTMIGRATE"


def test_begin_of_an_attempt_given_up_does_not_bind_a_domain_prepared_since() -> None:
    rig = Rig(SHORT)
    rig.fates[0] = "late"
    rig.on_message = lambda at: rig.cut.add("h1") if at > 0 else None
    answers = begin(rig, post_copy=False)
    rig.advance(90)
    assert failure_of(answers).outcome_known
    assert rig.target.status() is None
    rig.on_message = lambda _: None
    rig.cut.clear()
    uri = address_of(rig.target)
    rig.advance(20)  # the late message arrives
    again = rig.source.call(migrate_of(uri))

    assert after(rig, again) == "moved, runs at h2, source gone"
