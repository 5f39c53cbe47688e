"""How simulated machines move: convergence, bandwidth, cancel, guests that do things meanwhile."""

from __future__ import annotations

import msgspec
import pytest

from hypervisor_backends.protocol import (
    CallSucceeded,
    CancelMigration,
    ChangeMigration,
    ContinueDomain,
    DestroyDomain,
    ExitReason,
    MigrationStatistics,
    PauseDomain,
    RebootDomain,
    ShutdownDomain,
    StartPostCopy,
    SuspendDomain,
)
from hypervisor_backends.simulated_config import MIB, SimulatedConfig
from hypervisor_backends.simulated_faults import Fault
from olvm.model.limits import NS_PER_S
from tests.unit.hypervisor_backends.bench import GIB, Bench, address_of, migrate_of, prepare_of, start_of
from tests.unit.hypervisor_backends.migration_rig import CALM, Rig, failure_of


@pytest.fixture
def rig() -> Rig:
    return Rig()


def final(answers: list[object]) -> MigrationStatistics:
    (answer,) = answers
    assert isinstance(answer, CallSucceeded), answer
    assert isinstance(answer.value, MigrationStatistics)
    return answer.value


# ---------------------------------------------------------------- convergence


def test_migration_of_calm_guest_takes_its_memory_over_bandwidth_and_little_downtime(rig: Rig) -> None:
    rig.start(memory_bytes=2 * GIB)
    begun_ns = rig.scheduler.now_ns()
    answers = rig.migrate()
    rig.advance(120)

    statistics = final(answers)
    (arrived,) = [event for event in rig.target.events if event.kind == "started"]
    assert 2 * GIB / 100e6 < (arrived.at_ns - begun_ns) / NS_PER_S < 1.2 * 2 * GIB / 100e6
    assert statistics.progress_percent == 100
    assert statistics.data_remaining_bytes == 0
    assert 2 * GIB < statistics.data_processed_bytes < 2.4 * GIB
    assert 0 < statistics.expected_downtime_ms <= 100 + 5
    assert rig.truth.runs == {"v1": ("h2", 2)}
    assert rig.statuses() == (None, "up")
    rig.check_ends()


def test_statistics_of_each_moment_agree_with_each_other(rig: Rig) -> None:
    rig.start()
    rig.migrate()
    processed, iteration = 0, 0
    for _ in range(20):
        rig.advance(1)
        now = rig.progress()
        assert now.data_processed_bytes > processed
        assert now.memory_iteration >= iteration >= 0
        assert 0 <= now.data_remaining_bytes <= now.data_total_bytes == 2 * GIB
        assert now.progress_percent == pytest.approx(100 * (1 - now.data_remaining_bytes / 2 / GIB), abs=1)
        assert (now.bandwidth_bytes_per_s, now.downtime_ms, now.post_copy) == (100e6, 100, False)
        assert now.dirty_bytes_per_s > 0
        processed, iteration = now.data_processed_bytes, now.memory_iteration


def test_guest_that_never_converges_goes_on_until_its_downtime_is_raised(rig: Rig) -> None:
    rig.start()
    rig.h1.inject(Fault(kind="migration_never_converges", vm="v1"))
    answers = rig.migrate()
    rig.advance(3600)

    assert answers == []
    stuck = rig.progress()
    assert stuck.memory_iteration > 50
    assert stuck.dirty_bytes_per_s > stuck.bandwidth_bytes_per_s
    assert stuck.expected_downtime_ms > stuck.downtime_ms
    rig.source.call(ChangeMigration(vm_id="v1", downtime_ms=30_000))
    rig.advance(60)
    assert 1_000 < final(answers).expected_downtime_ms <= 30_005
    assert rig.truth.runs == {"v1": ("h2", 2)}


def test_busy_guest_converges_with_auto_converge_and_not_without() -> None:
    busy = msgspec.structs.replace(CALM, dirty_bytes_per_s_min=4000 * MIB, dirty_bytes_per_s_max=4000 * MIB)
    helped, alone = Rig(busy), Rig(busy)
    for rig in (helped, alone):
        rig.start(memory_bytes=8 * GIB)
    with_help, without = helped.migrate(auto_converge=True), alone.migrate(auto_converge=False)
    helped.advance(3600)
    alone.advance(3600)

    assert final(with_help).memory_iteration > 5
    assert without == []
    assert alone.progress().memory_iteration > 20


def test_paused_guest_dirties_nothing_and_arrives_paused(rig: Rig) -> None:
    rig.start()
    rig.source.succeed(PauseDomain(vm_id="v1"), seconds=0)
    answers = rig.migrate()
    rig.advance(120)

    assert final(answers).data_processed_bytes == 2 * GIB
    state = rig.target.state()
    assert state is not None
    assert (state.status, state.pause_code) == ("paused", "NOERR")
    assert rig.truth.runs == {}
    assert rig.target.kinds() == ["started", "guest_up", "paused"]
    rig.target.succeed(ContinueDomain(vm_id="v1"))
    assert rig.truth.runs == {"v1": ("h2", 2)}


def test_migration_of_instant_hosts_is_over_before_submit_returns() -> None:
    rig = Rig(SimulatedConfig.instant(), latency_ns=0)
    rig.source.backend.submit(start_of(), lambda _: None)
    answers = rig.migrate()

    assert final(answers).progress_percent == 100
    assert rig.truth.runs == {"v1": ("h2", 2)}
    assert rig.scheduler.waiting_count == 0


def uptime_s(bench: Bench) -> int:
    (domain,) = bench.backend.statistics()[1]
    return domain.elapsed_time_s


def test_uptime_goes_on_at_the_target(rig: Rig) -> None:
    rig.start()
    rig.advance(100)
    before_s, begun_ns = uptime_s(rig.source), rig.scheduler.now_ns()
    rig.migrate()
    rig.advance(60)

    assert before_s >= 100
    assert rig.statuses() == (None, "up")
    passed_s = (rig.scheduler.now_ns() - begun_ns) // NS_PER_S
    assert uptime_s(rig.target) == before_s + passed_s


def test_load_of_a_guest_moves_with_it(rig: Rig) -> None:
    rig.start()
    before = rig.source.backend.statistics()[1][0].guest
    rig.migrate()
    rig.advance(120)
    after = rig.target.backend.statistics()[1][0].guest

    assert before is not None
    assert after is not None
    assert before.ips == after.ips


# ---------------------------------------------------------------- bandwidth


def test_bandwidth_is_shared_while_two_migrate_and_given_back_after(rig: Rig) -> None:
    rig.start("v1", memory_bytes=2 * GIB)
    rig.start("v2", memory_bytes=1 * GIB)
    first = rig.migrate("v1")
    rig.advance(1)
    assert rig.progress("v1").bandwidth_bytes_per_s == 100e6
    answers = rig.source.call(migrate_of(address_of(rig.target, "v2", 2, memory_bytes=GIB), "v2"))
    rig.advance(1)
    shared = [rig.progress(vm_id).bandwidth_bytes_per_s for vm_id in ("v1", "v2")]
    assert shared == [50e6, 50e6]
    rig.advance_until(lambda: len(answers) == 1)
    rig.advance(1)
    assert rig.progress("v1").bandwidth_bytes_per_s == 100e6
    rig.advance(60)
    assert len(first) == 1


def test_bandwidth_of_the_target_counts_as_well() -> None:
    rig = Rig(hosts=3)
    third = rig.benches[2]
    rig.start("v1")
    third.succeed(start_of("v2"))
    rig.migrate("v1")
    third.call(migrate_of(address_of(rig.target, "v2"), "v2"))
    rig.advance(1)

    assert rig.progress("v1").bandwidth_bytes_per_s == 50e6
    third.call(CancelMigration(vm_id="v2"))
    rig.advance(1)
    assert rig.progress("v1").bandwidth_bytes_per_s == 100e6


def test_bandwidth_asked_for_is_not_exceeded(rig: Rig) -> None:
    rig.start()
    rig.migrate(bandwidth_bytes_per_s=10e6)
    rig.advance(10)

    assert rig.progress().bandwidth_bytes_per_s == 10e6
    assert rig.progress().data_processed_bytes == pytest.approx(100e6, rel=0.01)


def test_one_migration_holds_one_timer_on_each_side(rig: Rig) -> None:
    rig.start()
    rig.advance(30)
    rig.migrate()
    rig.advance(3)

    assert rig.scheduler.waiting_count == 2


# ---------------------------------------------------------------- cancel and refusals


def test_cancel_while_copying_leaves_the_guest_running_at_its_source(rig: Rig) -> None:
    rig.start()
    answers = rig.migrate()
    rig.advance(5)
    rig.source.succeed(CancelMigration(vm_id="v1"), seconds=1)

    assert failure_of(answers).code == "migration_cancelled"
    assert rig.statuses() == ("up", None)
    assert rig.truth.runs == {"v1": ("h1", 1)}
    assert [event.exit_reason for event in rig.target.events] == [ExitReason.MIGRATION_FAILED]
    again = rig.source.call(migrate_of(address_of(rig.target, epoch=3), to_epoch=3))
    rig.advance(60)
    assert final(again).progress_percent == 100


def test_cancel_before_the_target_answered_takes_it_back(rig: Rig) -> None:
    rig.start()
    rig.cut.add("h2")
    answers = rig.migrate()
    rig.source.succeed(CancelMigration(vm_id="v1"), seconds=1)

    assert failure_of(answers).code == "migration_cancelled"
    assert rig.truth.runs == {"v1": ("h1", 1)}


@pytest.mark.parametrize("past", ["stopping", "finishing"])
def test_cancel_after_the_switch_over_is_refused_and_the_machine_moves(rig: Rig, past: str) -> None:
    rig.start()
    answers = rig.migrate()
    rig.advance_until(lambda: "v1" not in rig.truth.runs)
    if past == "finishing":
        rig.cut.add("h2")
        rig.advance(1)
    for request in (CancelMigration(vm_id="v1"), StartPostCopy(vm_id="v1"), PauseDomain(vm_id="v1")):
        assert failure_of(rig.source.call(request)).code == "wrong_state"
    rig.cut.clear()
    rig.advance(60)

    assert final(answers).progress_percent == 100
    assert rig.truth.runs == {"v1": ("h2", 2)}


def test_cancel_when_nothing_migrates_is_refused(rig: Rig) -> None:
    rig.start()

    for request in (CancelMigration(vm_id="v1"), ChangeMigration(vm_id="v1", downtime_ms=1)):
        assert rig.source.refuse(request, 0).code == "wrong_state"


def test_post_copy_that_was_not_allowed_is_refused(rig: Rig) -> None:
    rig.start()
    rig.migrate()
    rig.advance(2)

    assert rig.source.refuse(StartPostCopy(vm_id="v1"), 0).code == "wrong_state"
    assert rig.truth.runs == {"v1": ("h1", 1)}


def test_migration_of_another_epoch_or_to_nowhere_is_refused(rig: Rig) -> None:
    rig.start()
    uri = address_of(rig.target)

    assert rig.source.refuse(migrate_of(uri, epoch=7), 0).code == "wrong_state"
    assert rig.source.refuse(migrate_of("tcp://h2"), 0).code == "migration_failed"
    assert rig.source.refuse(SuspendDomain(vm_id="nobody"), 0).code == "unknown_domain"
    assert rig.source.status() == "up"


def test_migration_asked_twice_is_one_and_answers_both(rig: Rig) -> None:
    rig.start()
    uri = address_of(rig.target)
    first, second = rig.source.call(migrate_of(uri)), rig.source.call(migrate_of(uri))
    other = rig.source.call(migrate_of(uri, to_epoch=3))
    rig.advance(60)

    assert final(first) == final(second)
    assert failure_of(other).code == "wrong_state"
    assert rig.target.kinds() == ["started", "guest_up"]


def test_migration_to_a_prepared_domain_that_is_gone_fails_at_once(rig: Rig) -> None:
    rig.start()
    uri = address_of(rig.target)
    rig.target.succeed(DestroyDomain(vm_id="v1"), seconds=0)
    answers = rig.source.call(migrate_of(uri))
    rig.advance(1)

    assert failure_of(answers).code == "migration_failed"
    assert rig.statuses() == ("up", None)


def test_prepared_domain_takes_room_until_it_ends_by_itself(rig: Rig) -> None:
    uri = address_of(rig.target, memory_bytes=60 * GIB)
    assert rig.target.refuse(prepare_of("v2", memory_bytes=60 * GIB), 0).code == "out_of_memory"
    assert address_of(rig.target, memory_bytes=60 * GIB) == uri
    rig.advance(61)

    assert rig.target.backend.domains() == []
    assert [(event.kind, event.exit_reason) for event in rig.target.events] == [
        ("stopped", ExitReason.ARRIVAL_GIVEN_UP)
    ]
    rig.start()
    assert rig.source.refuse(migrate_of(uri), 1).code == "migration_failed"


def test_suspend_during_migration_is_refused_and_destroy_ends_both(rig: Rig) -> None:
    rig.start()
    answers = rig.migrate()
    rig.advance(3)

    assert rig.source.refuse(SuspendDomain(vm_id="v1"), 0).code == "wrong_state"
    rig.source.succeed(DestroyDomain(vm_id="v1"), seconds=1)
    assert failure_of(answers).code == "domain_ended"
    assert rig.statuses() == (None, None)
    rig.check_ends()


# ---------------------------------------------------------------- guests meanwhile


def test_guest_crash_while_copying_ends_the_migration_on_both_sides(rig: Rig) -> None:
    rig.start()
    answers = rig.migrate()
    rig.h1.inject(Fault(kind="guest_crashes", vm="v1", after_s=5))
    rig.advance(30)

    assert failure_of(answers).code == "domain_ended"
    assert rig.source.kinds()[-1] == "crashed"
    assert rig.statuses() == (None, None)
    assert rig.truth.runs == {}


def test_guest_that_boots_arrives_booting_and_comes_up_when_it_would_have() -> None:
    slow = msgspec.structs.replace(CALM, boot_time_s_min=100, boot_time_s_max=100, launch_time_s_min=1.5)
    rig = Rig(slow)
    rig.source.succeed(start_of(), seconds=2)
    begun_ns = rig.scheduler.now_ns() - 2 * NS_PER_S
    answers = rig.migrate()
    rig.advance(60)

    final(answers)
    assert rig.target.kinds() == ["started"]
    assert rig.target.status() == "powering_up"
    rig.advance(60)
    assert rig.target.kinds() == ["started", "guest_up"]
    assert 100 <= (rig.target.events[-1].at_ns - begun_ns) / NS_PER_S < 100.2


@pytest.mark.parametrize("request_type", [RebootDomain, ShutdownDomain])
def test_guest_asked_during_migration_obeys_there_or_here(
    rig: Rig, request_type: type[RebootDomain | ShutdownDomain]
) -> None:
    rig.start()
    answers = rig.migrate()
    rig.advance(rig.progress().data_total_bytes / 100e6)
    rig.source.succeed(request_type(vm_id="v1"), seconds=0)
    rig.advance(120)

    assert len(answers) == 1
    if request_type is RebootDomain:
        assert rig.target.status() == "up"
        assert "rebooted" in rig.source.kinds() + rig.target.kinds()
    else:
        assert rig.statuses() == (None, None)
        ends = [e.exit_reason for e in rig.source.events + rig.target.events if e.kind == "shut_down"]
        assert ends == [ExitReason.ADMIN_SHUTDOWN]
    rig.check_ends()


def test_io_error_during_migration_arrives_paused_with_its_code(rig: Rig) -> None:
    rig.start()
    answers = rig.migrate()
    rig.h1.inject(Fault(kind="io_error", vm="v1", after_s=3, pause_code="ENOSPC"))
    rig.advance(4)
    here = rig.source.state()
    rig.advance(60)

    final(answers)
    assert here is not None
    assert (here.status, here.pause_code) == ("migrating_from", "ENOSPC")
    there = rig.target.state()
    assert there is not None
    assert (there.status, there.pause_code) == ("paused", "ENOSPC")
