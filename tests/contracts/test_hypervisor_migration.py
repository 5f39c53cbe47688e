"""What two hypervisors must do for each other, on every backend that migrates."""

from __future__ import annotations

import pytest

from hypervisor_backends.protocol import (
    CallFailed,
    CancelMigration,
    ChangeMigration,
    ContinueDomain,
    DestroyDomain,
    ExitReason,
    GetMigrationStatistics,
    MigrationStatistics,
    PauseDomain,
    StartPostCopy,
)
from tests.contracts.hypervisor_benches import PAIRS, need
from tests.unit.hypervisor_backends.bench import (
    Bench,
    address_of,
    migrate_of,
    prepare_of,
)

Pair = tuple[Bench, Bench]


def test_prepared_domain_waits_without_running_and_can_be_destroyed(pair: Pair) -> None:
    _, target = pair
    uri = address_of(target)

    assert address_of(target) == uri
    state = target.state()
    assert state is not None
    assert (state.status, state.epoch, state.started_ns) == ("migrating_to", 2, None)
    assert target.backend.statistics()[1] == []
    target.succeed(DestroyDomain(vm_id="v1"), seconds=0)
    assert target.backend.domains() == []
    assert "started" not in target.kinds()


def test_prepared_domain_of_which_nothing_is_heard_ends_by_itself(pair: Pair) -> None:
    _, target = pair
    address_of(target)
    target.scheduler.advance(24 * 3600)

    assert target.backend.domains() == []
    assert [(event.kind, event.exit_reason) for event in target.events] == [
        ("stopped", ExitReason.ARRIVAL_GIVEN_UP)
    ]


def test_prepare_beside_a_domain_of_that_id_is_refused(pair: Pair) -> None:
    source, _ = pair
    source.start()

    assert source.refuse(prepare_of(epoch=2)).code == "duplicate_domain"


def test_migrated_machine_ends_at_its_source_and_runs_at_its_target(pair: Pair) -> None:
    source, target = pair
    source.start()
    source.succeed(migrate_of(address_of(target)), seconds=600)

    assert source.backend.domains() == []
    assert (source.events[-1].kind, source.events[-1].exit_reason) == (
        "stopped",
        ExitReason.MIGRATION_SUCCEEDED,
    )
    state = target.state()
    assert state is not None
    assert (state.status, state.epoch) == ("up", 2)
    assert target.kinds() == ["started", "guest_up"]
    target.succeed(migrate_of(address_of(source, epoch=3), epoch=2, to_epoch=3), seconds=600)
    assert source.status() == "up"


def test_paused_machine_arrives_paused(pair: Pair) -> None:
    source, target = pair
    need(source, "pause")
    source.start()
    source.succeed(PauseDomain(vm_id="v1"))
    source.succeed(migrate_of(address_of(target)), seconds=600)

    state = target.state()
    assert state is not None
    assert (state.status, state.pause_code) == ("paused", "NOERR")
    target.succeed(ContinueDomain(vm_id="v1"))
    assert target.status() == "up"


def test_migration_to_a_target_that_is_gone_fails_and_the_machine_goes_on(pair: Pair) -> None:
    source, target = pair
    source.start()
    uri = address_of(target)
    target.succeed(DestroyDomain(vm_id="v1"))

    failure = source.refuse(migrate_of(uri), seconds=600)
    assert (failure.code, failure.outcome_known) == ("migration_failed", True)
    assert source.status() == "up"
    assert target.backend.domains() == []


def test_migration_under_way_tells_its_progress_and_can_be_changed_and_cancelled() -> None:
    source, target = PAIRS["simulated"]()
    source.start()
    answers = source.call(migrate_of(address_of(target), bandwidth_bytes_per_s=1e6))
    source.scheduler.advance(60)

    value = source.succeed(GetMigrationStatistics(vm_id="v1"), seconds=0).value
    assert isinstance(value, MigrationStatistics)
    assert 0 < value.data_processed_bytes <= 61_000_000
    assert source.status() == "migrating_from"
    source.succeed(ChangeMigration(vm_id="v1", downtime_ms=200), seconds=0)
    source.succeed(CancelMigration(vm_id="v1"), seconds=5)
    (answer,) = answers
    assert isinstance(answer, CallFailed)
    assert (answer.code, answer.outcome_known) == ("migration_cancelled", True)
    assert source.status() == "up"
    source.scheduler.advance(3600)
    assert target.backend.domains() == []


@pytest.mark.parametrize(
    "request_type", [CancelMigration, StartPostCopy, GetMigrationStatistics, ChangeMigration]
)
def test_request_about_a_migration_that_is_none_is_refused(pair: Pair, request_type: type) -> None:
    source, _ = pair
    need(source, "post_copy")
    source.start()
    more = {"downtime_ms": 100} if request_type is ChangeMigration else {}

    assert source.refuse(request_type(vm_id="v1", **more)).code == "wrong_state"
    assert source.status() == "up"
