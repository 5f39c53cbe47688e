"""Each fault that a simulated hypervisor can have, one at a time."""

from __future__ import annotations

import msgspec
import pytest

from hypervisor_backends.protocol import (
    BulkStatistics,
    CallFailed,
    CallSucceeded,
    ContinueDomain,
    DestroyDomain,
    ExitReason,
    GetCapabilities,
    PauseDomain,
    RebootDomain,
    ResetDomain,
    ShutdownDomain,
    SuspendDomain,
)
from hypervisor_backends.simulated import SimulatedHypervisor
from hypervisor_backends.simulated_config import SimulatedConfig
from hypervisor_backends.simulated_faults import Fault
from olvm.model.errors import BadInput
from tests.unit.hypervisor_backends.bench import (
    GIB,
    Bench,
    check_each_life_ends_once,
    restore_of,
    simulated_bench,
    start_of,
)


@pytest.fixture
def rig() -> tuple[Bench, SimulatedHypervisor]:
    return simulated_bench()


Rig = tuple[Bench, SimulatedHypervisor]


# ---------------------------------------------------------------- calls


def test_start_that_fails_is_answered_so_and_leaves_nothing(rig: Rig) -> None:
    bench, hypervisor = rig
    hypervisor.inject(Fault(kind="call_fails"))

    failure = bench.refuse(start_of(memory_bytes=60 * GIB))

    assert (failure.code, failure.can_retry, failure.outcome_known) == ("start_failed", True, True)
    assert bench.events == []
    bench.start(epoch=2, memory_bytes=60 * GIB)


def test_start_that_hangs_is_never_answered_and_holds_its_memory_until_destroyed(rig: Rig) -> None:
    bench, hypervisor = rig
    hypervisor.inject(Fault(kind="call_hangs", vm="vm-v1"))

    hung, repeated = bench.call(start_of(memory_bytes=60 * GIB)), bench.call(start_of(memory_bytes=60 * GIB))
    bench.scheduler.advance(86_400)
    assert hung == repeated == []
    assert bench.status() == "wait_for_launch"
    assert bench.refuse(start_of("v2", memory_bytes=8 * GIB)).code == "out_of_memory"

    bench.succeed(DestroyDomain(vm_id="v1"))
    assert bench.backend.domains() == []
    assert hung == repeated == []
    assert bench.events == []
    bench.start("v2", memory_bytes=60 * GIB)


def test_start_that_times_out_runs_although_its_outcome_is_unknown(rig: Rig) -> None:
    bench, hypervisor = rig
    hypervisor.inject(Fault(kind="call_times_out"))

    answers = bench.call(start_of())
    bench.scheduler.advance(59.9)
    assert answers == []
    assert bench.kinds() == ["started", "guest_up"]
    bench.scheduler.advance(0.2)

    (failure,) = answers
    assert isinstance(failure, CallFailed)
    assert (failure.code, failure.can_retry, failure.outcome_known) == ("timed_out", True, False)
    assert bench.status() == "up"
    assert bench.succeed(start_of()) == CallSucceeded()


def test_suspend_that_times_out_has_saved_the_memory(rig: Rig) -> None:
    bench, hypervisor = rig
    bench.start()
    hypervisor.inject(Fault(kind="call_times_out", vm="v1", request="SuspendDomain"))

    failure = bench.refuse(SuspendDomain(vm_id="v1"))

    assert not failure.outcome_known
    assert bench.events[-1].exit_reason == ExitReason.SAVE_STATE_SUCCEEDED
    bench.succeed(restore_of(epoch=2))


def test_restore_that_fails_keeps_the_saved_memory() -> None:
    bench, hypervisor = simulated_bench(SimulatedConfig(saved_memory_shared=False))
    bench.start()
    bench.succeed(SuspendDomain(vm_id="v1"))
    hypervisor.inject(Fault(kind="call_fails", request="RestoreDomain"))

    assert bench.refuse(restore_of(epoch=2)).code == "start_failed"
    bench.succeed(restore_of(epoch=3))


@pytest.mark.parametrize(("kind", "answered"), [("call_fails", "call_failed"), ("call_hangs", None)])
def test_pause_that_fails_or_hangs_has_no_effect(rig: Rig, kind: str, answered: str | None) -> None:
    bench, hypervisor = rig
    bench.start()
    hypervisor.inject(msgspec.convert({"kind": kind, "request": "PauseDomain"}, Fault))

    answers = bench.call(PauseDomain(vm_id="v1"))
    bench.scheduler.advance(3600)

    assert [answer.code for answer in answers if isinstance(answer, CallFailed)] == (
        [answered] if answered else []
    )
    assert bench.status() == "up"
    assert bench.kinds() == ["started", "guest_up"]
    bench.succeed(PauseDomain(vm_id="v1"))


def test_fault_with_count_strikes_that_often_and_only_the_vm_it_names(rig: Rig) -> None:
    bench, hypervisor = rig
    hypervisor.inject(Fault(kind="call_fails", vm="vm-v1", count=2))

    bench.start("v2")
    assert bench.refuse(start_of(epoch=1)).code == "start_failed"
    assert bench.refuse(start_of(epoch=2)).code == "start_failed"
    bench.start(epoch=3)


def test_fault_without_count_strikes_until_cleared(rig: Rig) -> None:
    bench, hypervisor = rig
    hypervisor.inject(Fault(kind="call_fails", vm="v1", count=None))
    for epoch in range(1, 5):
        bench.refuse(start_of(epoch=epoch))

    hypervisor.clear_faults("v1")

    bench.start(epoch=5)


def test_clearing_one_vm_leaves_the_faults_of_others(rig: Rig) -> None:
    bench, hypervisor = rig
    hypervisor.inject(Fault(kind="call_fails", vm="v1"))
    hypervisor.inject(Fault(kind="call_fails", vm="v2"))
    hypervisor.clear_faults("v1")

    bench.start("v1")
    bench.refuse(start_of("v2"))


@pytest.mark.parametrize(
    "setting", [{"request": "DestroyDomain"}, {"request": "Stop"}, {"after_s": -1.0}, {"count": 0}]
)
def test_fault_outside_the_model_is_refused(setting: dict[str, object]) -> None:
    with pytest.raises(BadInput):
        Fault(kind="call_fails", **setting)  # type: ignore[arg-type]


# ---------------------------------------------------------------- monitors


def test_hung_monitor_times_out_calls_without_effect_and_marks_statistics(rig: Rig) -> None:
    bench, hypervisor = rig
    bench.start("v1")
    bench.start("v2")
    hypervisor.inject(Fault(kind="monitor_hangs", vm="v1"))

    failure = bench.refuse(PauseDomain(vm_id="v1"))
    _, statistics = bench.backend.statistics()

    assert (failure.code, failure.outcome_known) == ("monitor_hung", False)
    assert [domain.monitor_response for domain in statistics] == [-1, 0]
    assert [domain.monitor_responds for domain in bench.backend.domains()] == [False, True]
    assert bench.status("v1") == "up"
    bench.succeed(PauseDomain(vm_id="v2"))


def test_hung_monitor_does_not_keep_destroy_from_working(rig: Rig) -> None:
    bench, hypervisor = rig
    bench.start()
    hypervisor.inject(Fault(kind="monitor_hangs", vm="v1"))

    bench.succeed(DestroyDomain(vm_id="v1"))

    assert bench.backend.domains() == []


def test_hung_monitor_once_cleared_answers_again(rig: Rig) -> None:
    bench, hypervisor = rig
    bench.start()
    hypervisor.inject(Fault(kind="monitor_hangs", vm="v1"))
    hypervisor.clear_faults()

    bench.succeed(PauseDomain(vm_id="v1"))
    assert bench.status() == "paused"


# ---------------------------------------------------------------- guests


def test_guest_crash_after_time_ends_the_running_domain(rig: Rig) -> None:
    bench, hypervisor = rig
    bench.start()
    hypervisor.inject(Fault(kind="guest_crashes", vm="vm-v1", after_s=30))

    bench.scheduler.advance(29)
    assert bench.status() == "up"
    bench.scheduler.advance(2)

    assert bench.backend.domains() == []
    assert bench.kinds() == ["started", "guest_up", "crashed"]
    assert bench.events[-1].exit_reason == ExitReason.LOST_QEMU


def test_guest_crash_planted_before_the_start_counts_from_the_start(rig: Rig) -> None:
    bench, hypervisor = rig
    hypervisor.inject(Fault(kind="guest_crashes", after_s=100))
    bench.scheduler.advance(500)

    bench.succeed(start_of(), seconds=90)
    assert bench.status() == "up"
    bench.scheduler.advance(15)
    assert bench.kinds() == ["started", "guest_up", "crashed"]


def test_guest_crash_of_a_life_that_ended_spares_the_next_one(rig: Rig) -> None:
    bench, hypervisor = rig
    bench.start(epoch=1)
    hypervisor.inject(Fault(kind="guest_crashes", vm="v1", after_s=300))
    bench.succeed(DestroyDomain(vm_id="v1"))
    bench.start(epoch=2)
    bench.scheduler.advance(1000)

    assert bench.status() == "up"
    check_each_life_ends_once(bench.events)


def test_guest_crash_during_suspend_fails_the_call_and_saves_nothing() -> None:
    config = SimulatedConfig(saved_memory_shared=False, save_bytes_per_s=GIB / 10)
    bench, hypervisor = simulated_bench(config)
    bench.start()
    hypervisor.inject(Fault(kind="guest_crashes", vm="v1", after_s=5))

    failure = bench.refuse(SuspendDomain(vm_id="v1"))

    assert (failure.code, failure.outcome_known) == ("domain_ended", True)
    assert bench.kinds()[-1] == "crashed"
    assert bench.refuse(restore_of(epoch=2)).code == "no_saved_memory"


def test_guest_that_ignores_shutdown_goes_on_and_obeys_the_next_ask(rig: Rig) -> None:
    bench, hypervisor = rig
    bench.start()
    hypervisor.inject(Fault(kind="guest_ignores_shutdown", vm="v1"))

    bench.succeed(ShutdownDomain(vm_id="v1"))
    assert bench.status() == "up"
    assert bench.kinds() == ["started", "guest_up"]
    bench.succeed(ShutdownDomain(vm_id="v1"))
    assert bench.backend.domains() == []


def test_guest_that_ignores_reboot_can_still_be_reset(rig: Rig) -> None:
    bench, hypervisor = rig
    bench.start()
    hypervisor.inject(Fault(kind="guest_ignores_shutdown", vm="v1", count=None))

    bench.succeed(RebootDomain(vm_id="v1"))
    assert bench.kinds() == ["started", "guest_up"]
    bench.succeed(ResetDomain(vm_id="v1"))
    assert bench.kinds() == ["started", "guest_up", "rebooted", "guest_up"]


def test_guest_that_powers_off_by_itself_says_so_in_its_exit_reason(rig: Rig) -> None:
    bench, hypervisor = rig
    bench.start()
    hypervisor.inject(Fault(kind="guest_shuts_down", vm="v1", after_s=1))
    bench.scheduler.advance(2)

    assert bench.kinds()[-1] == "shut_down"
    assert bench.events[-1].exit_reason == ExitReason.USER_SHUTDOWN


def test_guest_that_reboots_by_itself_comes_up_again(rig: Rig) -> None:
    bench, hypervisor = rig
    bench.start()
    hypervisor.inject(Fault(kind="guest_reboots", vm="v1", after_s=1))
    bench.scheduler.advance(1.5)
    assert bench.status() == "reboot_in_progress"
    _, (statistics,) = bench.backend.statistics()
    assert statistics.guest is None
    bench.scheduler.advance(60)

    assert bench.kinds() == ["started", "guest_up", "rebooted", "guest_up"]


def test_io_error_pauses_with_its_code_until_continued(rig: Rig) -> None:
    bench, hypervisor = rig
    bench.start()
    hypervisor.inject(Fault(kind="io_error", vm="v1", pause_code="ENOSPC"))
    bench.scheduler.advance(1)

    state = bench.state()
    assert state is not None
    assert (state.status, state.pause_code) == ("paused", "ENOSPC")
    assert (bench.events[-1].kind, bench.events[-1].pause_code) == ("paused", "ENOSPC")
    bench.succeed(ContinueDomain(vm_id="v1"))
    state = bench.state()
    assert state is not None
    assert (state.status, state.pause_code) == ("up", "NONE")


# ---------------------------------------------------------------- the host


def test_power_off_loses_every_domain_and_tells_nobody(rig: Rig) -> None:
    bench, hypervisor = rig
    bench.start("v1")
    starting = bench.call(start_of("v2"))
    told = list(bench.events)
    boot_id = bench.backend.capabilities.boot_id

    hypervisor.power_off()
    assert bench.scheduler.waiting_count == 0
    bench.scheduler.advance(600)
    assert bench.refuse(start_of("v3")).code == "host_down"
    hypervisor.power_on()

    assert (starting, bench.events, bench.backend.domains()) == ([], told, [])
    assert bench.backend.capabilities.boot_id != boot_id
    bench.start("v4", memory_bytes=64 * GIB)


def test_power_off_leaves_a_timed_out_call_unanswered_for_ever(rig: Rig) -> None:
    bench, hypervisor = rig
    hypervisor.inject(Fault(kind="call_times_out"))
    answers = bench.call(start_of())
    bench.scheduler.advance(5)
    hypervisor.power_off()
    hypervisor.power_on()
    bench.scheduler.advance(600)

    assert answers == []


def test_close_leaves_a_timed_out_call_unanswered_for_ever(rig: Rig) -> None:
    bench, hypervisor = rig
    hypervisor.inject(Fault(kind="call_times_out"))
    answers = bench.call(start_of())
    hypervisor.close()
    bench.scheduler.advance(600)

    assert answers == []


def test_power_on_of_a_running_host_changes_nothing(rig: Rig) -> None:
    bench, hypervisor = rig
    bench.start()
    before = bench.backend.capabilities
    hypervisor.power_on()

    assert bench.status() == "up"
    assert bench.backend.capabilities == before


def test_statistics_of_a_host_begin_anew_with_its_boot(rig: Rig) -> None:
    bench, hypervisor = rig
    bench.start()
    bench.scheduler.advance(3600)
    first, _ = bench.backend.statistics()
    hypervisor.power_off()
    hypervisor.power_on()
    second, domains = bench.backend.statistics()

    assert first.nics[0].rx_bytes > 0
    assert (second.nics[0].rx_bytes, second.elapsed_time_s, second.vm_count, domains) == (0, 0, 0, [])


def test_calls_about_the_host_are_answered_while_a_monitor_hangs(rig: Rig) -> None:
    bench, hypervisor = rig
    bench.start()
    hypervisor.inject(Fault(kind="monitor_hangs", vm="v1"))

    assert isinstance(bench.call(BulkStatistics())[0], CallSucceeded)
    assert isinstance(bench.call(GetCapabilities())[0], CallSucceeded)


# ---------------------------------------------------------------- by chance


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("start_fails_probability", "start_failed"),
        ("start_times_out_probability", "timed_out"),
        ("start_hangs_probability", "never"),
    ],
)
def test_probability_strikes_about_its_share_of_starts(setting: str, expected: str) -> None:
    config = msgspec.convert({setting: 0.3}, SimulatedConfig)
    bench, _ = simulated_bench(config, memory_bytes=1000 * GIB)
    answers = [bench.call(start_of(f"v{number}", memory_bytes=GIB)) for number in range(300)]
    bench.scheduler.advance(120)

    codes = [getattr(answer[0], "code", "ok") if answer else "never" for answer in answers]
    assert 60 <= codes.count(expected) <= 120
    assert codes.count("ok") == 300 - codes.count(expected)


def test_probability_of_crash_ends_domains_within_the_configured_time() -> None:
    config = SimulatedConfig(guest_crashes_probability=1.0, guest_crash_after_s_max=100.0)
    bench, _ = simulated_bench(config)
    bench.call(start_of("v1"))
    bench.call(start_of("v2"))
    bench.scheduler.advance(130)

    assert bench.backend.domains() == []
    assert {bench.kinds("v1")[-1], bench.kinds("v2")[-1]} == {"crashed"}
    assert bench.events[-1].at_ns != bench.events[-2].at_ns


def test_probability_of_deaf_guest_makes_it_ignore_every_ask() -> None:
    bench, _ = simulated_bench(SimulatedConfig(guest_ignores_shutdown_probability=1.0))
    bench.start()
    for _ in range(3):
        bench.succeed(ShutdownDomain(vm_id="v1"))

    assert bench.status() == "up"
