"""Post-copy of simulated machines, and planted faults that strike migrations."""

from __future__ import annotations

import msgspec
import pytest

from hypervisor_backends.protocol import (
    CallSucceeded,
    CancelMigration,
    ContinueDomain,
    DestroyDomain,
    ExitReason,
    HypervisorRequest,
    MigrationStatistics,
    StartPostCopy,
    SuspendDomain,
)
from hypervisor_backends.simulated_faults import Fault
from olvm.model.limits import NS_PER_S
from tests.unit.hypervisor_backends.bench import migrate_of, prepare_of
from tests.unit.hypervisor_backends.migration_rig import LATENCY_NS, Rig, failure_of


@pytest.fixture
def rig() -> Rig:
    return Rig()


def final(answers: list[object]) -> MigrationStatistics:
    (answer,) = answers
    assert isinstance(answer, CallSucceeded), answer
    assert isinstance(answer.value, MigrationStatistics)
    return answer.value


# ---------------------------------------------------------------- post-copy


def test_post_copy_runs_the_target_at_once_and_then_drains(rig: Rig) -> None:
    rig.start()
    rig.h1.inject(Fault(kind="migration_never_converges", vm="v1"))
    answers = rig.migrate(post_copy=True)
    rig.advance(100)
    rig.source.succeed(StartPostCopy(vm_id="v1"), seconds=0.1)

    state = rig.source.state()
    assert state is not None
    assert (state.status, state.pause_code) == ("paused", "POSTCOPY")
    assert rig.truth.runs == {"v1": ("h2", 2)}
    assert answers == []
    assert rig.progress().post_copy
    for request in (CancelMigration(vm_id="v1"), ContinueDomain(vm_id="v1")):
        assert failure_of(rig.source.call(request)).code == "wrong_state"
    rig.advance(60)
    assert final(answers).expected_downtime_ms >= 0
    assert rig.statuses() == (None, "up")
    assert rig.source.events[-1].exit_reason == ExitReason.MIGRATION_SUCCEEDED
    rig.advance(600)
    assert rig.truth.runs == {"v1": ("h2", 2)}
    assert rig.scheduler.waiting_count == 0
    rig.check_ends()


@pytest.mark.parametrize("lost", ["source", "target", "network", "planted", "destroyed"])
def test_post_copy_that_breaks_loses_the_machine_on_both_sides(rig: Rig, lost: str) -> None:
    rig.start()
    rig.h1.inject(Fault(kind="migration_never_converges", vm="v1"))
    if lost == "planted":
        rig.h1.inject(Fault(kind="migration_fails", vm="v1", after_s=105))
    answers = rig.migrate(post_copy=True)
    rig.advance(100)
    rig.source.succeed(StartPostCopy(vm_id="v1"), seconds=0.5)
    {
        "source": rig.h1.power_off,
        "target": rig.h2.power_off,
        "network": lambda: rig.cut.update({"h1", "h2"}),
        "planted": lambda: None,
        "destroyed": lambda: rig.source.call(DestroyDomain(vm_id="v1")),
    }[lost]()
    rig.advance(120)

    assert rig.truth.runs == {}
    assert rig.source.backend.domains() == rig.target.backend.domains() == []
    reasons = {host: reason for host, _, _, reason in rig.truth.ends}
    postcopy = ExitReason.POSTCOPY_MIGRATION_FAILED
    expected = {
        "source": {"h2": postcopy},
        "target": {"h1": postcopy},
        "destroyed": {"h1": ExitReason.ADMIN_SHUTDOWN, "h2": postcopy},
    }
    assert reasons == expected.get(lost, {"h1": postcopy, "h2": postcopy})
    assert len(answers) == (0 if lost == "source" else 1)


def test_post_copy_drained_without_last_word_strands_a_source_that_may_never_run(rig: Rig) -> None:
    rig.start()
    rig.h1.inject(Fault(kind="migration_never_converges", vm="v1"))
    answers = rig.migrate(post_copy=True)
    rig.advance(100)
    rig.source.succeed(StartPostCopy(vm_id="v1"), seconds=0.5)
    # Just before the last memory is sent, so that the target is alive and the word that it has all is lost.
    rest_s = rig.progress().data_remaining_bytes / 100e6
    rig.advance(rest_s + 1.5 * LATENCY_NS / NS_PER_S)
    rig.cut.add("h2")
    rig.advance(60)

    failure = failure_of(answers)
    assert (failure.code, failure.outcome_known) == ("timed_out", False)
    state = rig.source.state()
    assert state is not None
    assert (state.status, state.pause_code) == ("paused", "POSTMIGRATE")
    assert rig.truth.runs == {"v1": ("h2", 2)}
    assert rig.source.refuse(ContinueDomain(vm_id="v1"), 0).code == "wrong_state"
    rig.source.succeed(DestroyDomain(vm_id="v1"))
    assert rig.truth.runs == {"v1": ("h2", 2)}


# ---------------------------------------------------------------- planted


def test_planted_failure_leaves_the_guest_running_at_its_source(rig: Rig) -> None:
    rig.start()
    rig.h1.inject(Fault(kind="migration_fails", vm="v1", after_s=10))
    answers = rig.migrate()
    rig.advance(9)
    assert rig.statuses() == ("migrating_from", "migrating_to")
    rig.advance(2)

    failure = failure_of(answers)
    assert (failure.code, failure.outcome_known) == ("migration_failed", True)
    assert rig.statuses() == ("up", None)
    assert rig.truth.runs == {"v1": ("h1", 1)}


def test_planted_failure_later_than_the_end_strikes_before_the_switch_over(rig: Rig) -> None:
    rig.start()
    rig.h1.inject(Fault(kind="migration_fails", vm="v1", after_s=10_000))
    answers = rig.migrate()
    rig.advance(60)

    assert failure_of(answers).code == "migration_failed"
    assert rig.truth.runs == {"v1": ("h1", 1)}


@pytest.mark.parametrize("side", ["source", "target"])
def test_lost_confirm_strands_the_source_and_runs_the_target(rig: Rig, side: str) -> None:
    rig.start()
    (rig.h1 if side == "source" else rig.h2).inject(Fault(kind="migration_loses_confirm", vm="v1"))
    answers = rig.migrate()
    rig.advance(3600)

    failure = failure_of(answers)
    assert (failure.code, failure.outcome_known) == ("timed_out", False)
    state = rig.source.state()
    assert state is not None
    assert (state.status, state.pause_code) == ("paused", "POSTMIGRATE")
    assert (rig.source.events[-1].kind, rig.source.events[-1].pause_code) == ("paused", "POSTMIGRATE")
    assert rig.truth.runs == {"v1": ("h2", 2)}
    request: HypervisorRequest
    for request in (SuspendDomain(vm_id="v1"), migrate_of("simulated://h2/x/1", to_epoch=4)):
        assert rig.source.refuse(request, 0).code == "wrong_state"
    rig.source.succeed(DestroyDomain(vm_id="v1"))
    assert rig.truth.runs == {"v1": ("h2", 2)}


def test_hung_monitor_keeps_the_migration_going_and_its_calls_waiting(rig: Rig) -> None:
    rig.start()
    answers = rig.migrate()
    rig.advance(5)
    rig.h1.inject(Fault(kind="monitor_hangs", vm="v1"))

    assert rig.source.refuse(CancelMigration(vm_id="v1"), seconds=70).code == "monitor_hung"
    assert final(answers).progress_percent == 100


@pytest.mark.parametrize(("kind", "is_there"), [("call_fails", False), ("call_times_out", True)])
def test_prepare_struck_by_a_fault_is_answered_so(rig: Rig, kind: str, is_there: bool) -> None:
    rig.h2.inject(msgspec.convert({"kind": kind, "request": "PrepareIncoming"}, Fault))
    answers = rig.target.call(prepare_of())
    assert (rig.target.status() == "migrating_to") is is_there
    rig.advance(61)

    assert failure_of(answers).outcome_known is not is_there
