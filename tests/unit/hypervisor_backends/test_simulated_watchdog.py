"""What stops guests by force: the host's watchdog, broken storage; and what the observer hears of all that."""

from __future__ import annotations

import msgspec

from hypervisor_backends.protocol import (
    ArmWatchdog,
    ContinueDomain,
    DestroyDomain,
    ExitReason,
    HypervisorRequest,
    PauseDomain,
    PrepareIncoming,
    StartDomain,
    SuspendDomain,
)
from hypervisor_backends.simulated_config import SimulatedConfig
from olvm.model.limits import NS_PER_S
from tests.unit.hypervisor_backends.bench import (
    Bench,
    OneCopy,
    address_of,
    migrate_of,
    prepare_of,
    restore_of,
    simulated_bench,
    start_of,
)
from tests.unit.hypervisor_backends.migration_rig import CALM, Rig, failure_of


def leased(request: HypervisorRequest) -> HypervisorRequest:
    assert isinstance(request, StartDomain | PrepareIncoming)
    return msgspec.structs.replace(request, spec=msgspec.structs.replace(request.spec, leased=True))


def arm(bench: Bench, seconds: float) -> None:
    bench.succeed(ArmWatchdog(deadline_ns=bench.scheduler.now_ns() + int(seconds * NS_PER_S)), seconds=0)


# ---------------------------------------------------------------- the watchdog


def test_watchdog_ends_leased_domains_alone_whatever_they_do() -> None:
    bench, hypervisor = simulated_bench(SimulatedConfig(boot_time_s_max=5))
    truth = OneCopy()
    hypervisor.set_observer(truth)
    arm(bench, 60)
    for vm_id in ("v1", "v2"):
        bench.succeed(leased(start_of(vm_id)), seconds=10)
    bench.succeed(start_of("v3"), seconds=10)
    bench.succeed(PauseDomain(vm_id="v2"), seconds=0)
    expires_ns = bench.scheduler.now_ns() + 30 * NS_PER_S
    bench.scheduler.advance(29.999)
    assert len(bench.backend.domains()) == 3
    bench.scheduler.advance(60)

    assert [domain.vm_id for domain in bench.backend.domains()] == ["v3"]
    ends = [event for event in bench.events if event.kind == "crashed"]
    assert [(event.vm_id, event.exit_reason, event.message) for event in ends] == [
        ("v1", ExitReason.GENERIC_ERROR, "its lease expired"),
        ("v2", ExitReason.GENERIC_ERROR, "its lease expired"),
    ]
    assert ends[0].at_ns == expires_ns
    assert truth.runs == {"v3": ("h1", 1)}


def test_watchdog_needs_no_agent_to_listen() -> None:
    bench, hypervisor = simulated_bench()
    truth = OneCopy()
    hypervisor.set_observer(truth)
    arm(bench, 30)
    bench.succeed(leased(start_of()), seconds=20)
    bench.backend.set_listener(None)
    bench.scheduler.advance(11)

    assert bench.backend.domains() == []
    assert truth.runs == {}


def test_watchdog_prolonged_in_time_ends_nobody_and_an_earlier_deadline_changes_nothing() -> None:
    bench, _ = simulated_bench()
    arm(bench, 30)
    bench.succeed(leased(start_of()), seconds=20)
    for _ in range(50):
        arm(bench, 30)
        arm(bench, 1)
        bench.scheduler.advance(20)
    assert bench.status() == "up"
    assert bench.scheduler.waiting_count == 1
    bench.scheduler.advance(11)
    assert bench.status() is None


def test_leased_start_is_refused_until_armed_and_again_after_expiry() -> None:
    bench, _ = simulated_bench(SimulatedConfig.instant())
    assert bench.refuse(leased(start_of()), 0).code == "lease_expired"
    arm(bench, -1)
    assert bench.refuse(leased(start_of()), 0).code == "lease_expired"
    arm(bench, 10)
    bench.succeed(leased(start_of()), seconds=10)
    assert bench.status() is None
    assert bench.refuse(leased(start_of(epoch=2)), 0).code == "lease_expired"
    restore = msgspec.structs.replace(restore_of(epoch=3), spec=leased(start_of()).spec)  # type: ignore[union-attr]
    assert bench.refuse(restore, 0).code == "lease_expired"


def test_watchdog_that_expires_during_a_launch_ends_the_start() -> None:
    bench, _ = simulated_bench(SimulatedConfig(launch_time_s_min=5, launch_time_s_max=5))
    arm(bench, 2)

    assert bench.refuse(leased(start_of()), 20).code == "domain_ended"
    assert bench.backend.domains() == []


def test_boot_begins_with_the_watchdog_expired() -> None:
    bench, hypervisor = simulated_bench()
    arm(bench, 1000)
    hypervisor.power_off()
    assert bench.scheduler.waiting_count == 0
    hypervisor.power_on()

    assert bench.refuse(leased(start_of()), 0).code == "lease_expired"


def leased_rig(config: SimulatedConfig = CALM) -> Rig:
    rig = Rig(config)
    arm(rig.source, 10_000)
    rig.source.succeed(leased(start_of()))
    return rig


def address_of_leased(rig: Rig) -> str:
    (answer,) = rig.target.call(leased(prepare_of()))
    return answer.value.uri  # type: ignore[union-attr,no-any-return]


def test_leased_machine_that_appears_at_a_target_without_lease_is_ended_there_and_goes_on_at_its_source() -> (
    None
):
    rig = leased_rig()
    answers = rig.source.call(migrate_of(address_of_leased(rig)))
    rig.advance(CALM.watchdog_poll_s + 0.01)

    failure = failure_of(answers)
    assert (failure.code, failure.outcome_known) == ("migration_failed", True)
    assert rig.truth.runs == {"v1": ("h1", 1)}
    assert rig.target.kinds() == ["stopped"]


def test_machine_that_is_handed_over_to_a_target_without_lease_runs_there_until_the_watchdog_looks() -> None:
    rig = leased_rig(msgspec.structs.replace(SimulatedConfig.instant(), watchdog_poll_s=0.1))
    answers = rig.source.call(migrate_of(address_of_leased(rig)))
    rig.advance_until(lambda: bool(answers), 0.1)
    assert rig.truth.runs == {"v1": ("h2", 2)}
    rig.advance(0.1)

    assert rig.truth.runs == {}
    assert rig.truth.ends[-1] == ("h2", "v1", 2, ExitReason.GENERIC_ERROR)
    assert rig.statuses() == (None, None)


def test_target_whose_deadline_passed_while_it_waited_is_ended_when_its_machine_comes_though_armed_again() -> (
    None
):
    rig = leased_rig()
    arm(rig.target, 10)
    uri = address_of_leased(rig)
    rig.advance(20)
    assert rig.target.status() == "migrating_to"
    arm(rig.target, 1000)
    answers = rig.source.call(migrate_of(uri))
    rig.advance(1)

    assert failure_of(answers).code == "migration_failed"
    assert rig.truth.runs == {"v1": ("h1", 1)}
    assert rig.truth.ends == [("h2", "v1", 2, ExitReason.MIGRATION_FAILED)]


def test_target_whose_deadline_passes_while_memory_comes_is_ended_at_once() -> None:
    rig = leased_rig()
    arm(rig.target, 10)
    answers = rig.source.call(migrate_of(address_of_leased(rig)))
    rig.advance(9)
    assert rig.statuses() == ("migrating_from", "migrating_to")
    rig.advance(1.1)

    assert failure_of(answers).code == "migration_failed"
    assert rig.truth.runs == {"v1": ("h1", 1)}
    assert rig.statuses() == ("up", None)


def test_source_whose_watchdog_expires_while_copying_ends_on_both_sides() -> None:
    rig = Rig()
    arm(rig.source, 130)
    rig.source.succeed(leased(start_of()), seconds=120)
    arm(rig.target, 1000)
    (answer,) = rig.target.call(leased(prepare_of()))
    answers = rig.source.call(migrate_of(answer.value.uri))  # type: ignore[union-attr]
    rig.advance(60)

    assert failure_of(answers).code == "domain_ended"
    assert rig.truth.runs == {}
    assert rig.statuses() == (None, None)


# ---------------------------------------------------------------- storage and problems


def test_broken_storage_pauses_all_that_run_and_all_that_come_to_run_until_mended() -> None:
    bench, hypervisor = simulated_bench()
    truth = OneCopy()
    hypervisor.set_observer(truth)
    bench.start("v1")
    hypervisor.set_storage_broken(True)
    bench.start("v2")
    for vm_id in ("v1", "v2"):
        state = bench.state(vm_id)
        assert state is not None
        assert (state.status, state.pause_code) == ("paused", "EIO")
    bench.succeed(ContinueDomain(vm_id="v1"), seconds=0)
    assert bench.kinds("v1")[-2:] == ["continued", "paused"]
    assert bench.events[-1].pause_code == "EIO"
    assert truth.runs == {}

    hypervisor.set_storage_broken(False)
    assert bench.status("v1") == "paused"
    bench.succeed(ContinueDomain(vm_id="v1"), seconds=0)
    assert truth.runs == {"v1": ("h1", 1)}
    bench.succeed(ContinueDomain(vm_id="v2"))
    assert bench.status("v2") == "up"


def test_machine_that_migrates_away_from_broken_storage_can_be_continued_there() -> None:
    rig = Rig()
    rig.start()
    rig.h1.set_storage_broken(True)
    rig.migrate()
    rig.advance(60)
    rig.target.succeed(ContinueDomain(vm_id="v1"))

    assert rig.truth.runs == {"v1": ("h2", 2)}


def test_machine_that_migrates_to_broken_storage_pauses_on_arrival() -> None:
    rig = Rig()
    rig.start()
    rig.h2.set_storage_broken(True)
    rig.migrate()
    rig.advance(60)

    state = rig.target.state()
    assert state is not None
    assert (state.status, state.pause_code) == ("paused", "EIO")
    assert rig.truth.runs == {}


def test_problems_show_in_the_capabilities_until_they_are_taken_back() -> None:
    bench, hypervisor = simulated_bench()
    hypervisor.set_problems(("network_unreachable",))
    hypervisor.power_off()
    hypervisor.power_on()
    assert bench.backend.capabilities.problems == ("network_unreachable",)
    hypervisor.set_problems(())
    assert bench.backend.capabilities.problems == ()


# ---------------------------------------------------------------- the observer


def test_observer_hears_each_change_of_a_life_as_it_happens() -> None:
    bench, hypervisor = simulated_bench()
    bench.start("v0")
    truth = OneCopy()
    hypervisor.set_observer(truth)
    boot_id = bench.backend.capabilities.boot_id
    assert truth.power == [("h1", True, boot_id)]
    assert truth.runs == {"v0": ("h1", 1)}
    bench.start("v1")
    bench.succeed(PauseDomain(vm_id="v1"), seconds=0)
    assert truth.runs == {"v0": ("h1", 1)}
    assert truth.statuses["h1", "v1", 1] == "paused"
    bench.succeed(SuspendDomain(vm_id="v1"))
    bench.succeed(DestroyDomain(vm_id="v0"))

    assert truth.there == {}
    assert truth.ends == [
        ("h1", "v1", 1, ExitReason.SAVE_STATE_SUCCEEDED),
        ("h1", "v0", 1, ExitReason.ADMIN_SHUTDOWN),
    ]
    assert [request for _, request, _, _ in truth.calls] == [
        "StartDomain",
        "PauseDomain",
        "SuspendDomain",
        "DestroyDomain",
    ]


def test_observer_hears_of_all_that_is_lost_with_the_power() -> None:
    rig = Rig()
    rig.start()
    rig.source.call(migrate_of(address_of(rig.target)))
    rig.advance(5)
    rig.h2.power_off()
    assert set(rig.truth.there) == {("h1", "v1", 1)}
    rig.h1.power_off()

    assert rig.truth.there == rig.truth.runs == {}
    assert rig.truth.ends == []
    assert [(host, is_on) for host, is_on, _ in rig.truth.power[2:]] == [("h2", False), ("h1", False)]
