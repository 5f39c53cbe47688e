"""What the death of a simulated host's libvirtd costs, and what goes on without it."""

from __future__ import annotations

import pytest

from hypervisor_backends.protocol import (
    CallFailed,
    CallResult,
    CallSucceeded,
    DestroyDomain,
    DomainList,
    DomainSpec,
    DomainState,
    ExitReason,
    ListDomains,
    PauseDomain,
    PlugMemory,
    StartDomain,
    UnplugMemory,
)
from hypervisor_backends.simulated import SimulatedHypervisor
from hypervisor_backends.simulated_faults import Fault
from hypervisor_backends.simulated_libvirtd import LibvirtAway
from olvm.model.hardware import Hardware
from tests.unit.hypervisor_backends.bench import GIB, Bench, OneCopy, simulated_bench, start_of
from tests.unit.hypervisor_backends.migration_rig import Rig, failure_of
from tests.unit.hypervisor_backends.test_simulated_watchdog import arm, leased

STARTS = 30


def cut_off_starts() -> tuple[Bench, SimulatedHypervisor, list[list[CallResult]]]:
    """So many starts, all of which libvirtd's death meets on their way."""
    bench, hypervisor = simulated_bench()
    hypervisor.set_observer(OneCopy())
    answers = [bench.call(start_of(f"v{number}", memory_bytes=GIB)) for number in range(STARTS)]
    bench.scheduler.advance(0.4)
    hypervisor.kill_libvirtd()
    return bench, hypervisor, answers


def states(bench: Bench) -> tuple[DomainState, ...]:
    answer = bench.ask(ListDomains())
    assert isinstance(answer, CallSucceeded)
    assert isinstance(answer.value, DomainList)
    return answer.value.domains


def listed(bench: Bench) -> set[str]:
    return {domain.vm_id for domain in states(bench)}


def memory_used_mb(bench: Bench) -> int:
    host, _ = bench.backend.statistics()
    return bench.memory_bytes // 1024**2 - host.mem_free_mb


def test_start_that_is_cut_off_has_an_unknown_outcome_and_may_run_or_not() -> None:
    bench, hypervisor, answers = cut_off_starts()
    failures = [failure_of(each) for each in answers]
    assert {(one.code, one.can_retry, one.outcome_known) for one in failures} == {
        ("call_failed", True, False)
    }
    bench.scheduler.advance(30)
    assert bench.events == []
    hypervisor.start_libvirtd()

    runs = listed(bench)
    assert 0 < len(runs) < STARTS
    assert {event.vm_id for event in bench.events if event.kind == "started"} == runs


def test_qemu_that_libvirt_does_not_know_holds_memory_until_its_machine_is_started_there_again() -> None:
    bench, hypervisor, _ = cut_off_starts()
    hypervisor.start_libvirtd()
    bench.scheduler.advance(60)
    runs = listed(bench)
    empty_mb = memory_used_mb(simulated_bench()[0])
    lost = (memory_used_mb(bench) - empty_mb) // 1024 - len(runs)
    assert 0 < lost < STARTS - len(runs)
    for number in range(STARTS):
        if f"v{number}" not in runs:
            bench.succeed(start_of(f"v{number}", epoch=2, memory_bytes=GIB))

    assert (memory_used_mb(bench) - empty_mb) // 1024 == STARTS


def test_qemu_that_libvirt_does_not_know_is_gone_with_the_power() -> None:
    bench, hypervisor, _ = cut_off_starts()
    hypervisor.power_off()
    hypervisor.power_on()

    assert memory_used_mb(bench) == memory_used_mb(simulated_bench()[0])
    bench.start()


def test_calls_fail_and_lists_are_old_while_libvirtd_is_away_and_events_come_late_and_in_order() -> None:
    bench, hypervisor = simulated_bench()
    bench.start("v1")
    bench.start("v2")
    told = len(bench.events)
    hypervisor.kill_libvirtd()
    failure = bench.ask(DestroyDomain(vm_id="v2"))
    assert isinstance(failure, CallFailed)
    assert (failure.code, failure.can_retry, failure.outcome_known) == ("call_failed", True, True)
    hypervisor.inject(Fault(kind="guest_crashes", vm="v1"))
    bench.scheduler.advance(10)
    hypervisor.inject(Fault(kind="guest_reboots", vm="v2"))
    bench.scheduler.advance(1)
    assert listed(bench) == {"v1", "v2"}
    assert bench.status("v1") == "up"
    assert len(bench.events) == told
    hypervisor.start_libvirtd()

    assert [(event.vm_id, event.kind) for event in bench.events[told:]] == [
        ("v1", "crashed"),
        ("v2", "rebooted"),
    ]
    assert listed(bench) == {"v2"}
    bench.succeed(DestroyDomain(vm_id="v2"))


def test_unplug_that_is_cut_off_was_done_or_not_and_its_size_is_not_known_until_libvirtd_is_back() -> None:
    bench, hypervisor = simulated_bench()
    names = [f"v{number}" for number in range(STARTS)]
    for name in names:
        room = Hardware(memory_bytes_max=4 * GIB)
        spec = DomainSpec(name=name, vcpus=1, memory_bytes=GIB, hardware=room)
        bench.succeed(StartDomain(vm_id=name, epoch=1, spec=spec), seconds=30)
        bench.succeed(PlugMemory(vm_id=name, name="m0", size_bytes=GIB), seconds=1)
    answers = [bench.call(UnplugMemory(vm_id=name, name="m0")) for name in names[1:]]
    hypervisor.kill_libvirtd()
    failures = [failure_of(each) for each in answers]
    assert {(one.code, one.outcome_known) for one in failures} == {("call_failed", False)}
    bench.scheduler.advance(30)
    before = {state.vm_id: (state.memory_bytes, state.size_known) for state in states(bench)}
    assert before == {name: (2 * GIB, name == names[0]) for name in names}
    hypervisor.start_libvirtd()

    after = states(bench)
    assert {state.memory_bytes for state in after if state.vm_id != names[0]} == {GIB, 2 * GIB}
    assert all(state.size_known for state in after)


def test_watchdog_is_armed_and_ends_machines_without_libvirtd_and_that_is_told_late() -> None:
    bench, hypervisor = simulated_bench()
    truth = OneCopy()
    hypervisor.set_observer(truth)
    arm(bench, 30)
    bench.succeed(leased(start_of()), seconds=25)
    hypervisor.kill_libvirtd()
    arm(bench, 30)
    bench.scheduler.advance(29)
    assert truth.runs == {"v1": ("h1", 1)}
    bench.scheduler.advance(2)
    assert truth.runs == {}
    assert listed(bench) == {"v1"}
    hypervisor.start_libvirtd()

    assert listed(bench) == set()
    assert bench.events[-1].exit_reason is ExitReason.GENERIC_ERROR


def test_migration_that_has_not_handed_over_breaks_off_with_its_sources_libvirtd() -> None:
    rig = Rig()
    rig.start()
    answers = rig.migrate()
    rig.advance(2)
    rig.h1.kill_libvirtd()
    rig.advance(1)
    rig.h1.start_libvirtd()

    assert failure_of(answers).code == "migration_failed"
    assert rig.truth.runs == {"v1": ("h1", 1)}
    assert rig.statuses() == ("up", None)


def test_same_start_again_joins_the_first_while_libvirtd_is_away_and_nobody_opens_the_host() -> None:
    bench, hypervisor, _ = cut_off_starts()
    with pytest.raises(LibvirtAway, match="h1"):
        hypervisor.check_reachable()
    again = {number: bench.call(start_of(f"v{number}", memory_bytes=GIB)) for number in range(STARTS)}
    bench.scheduler.advance(30)
    hypervisor.start_libvirtd()
    hypervisor.check_reachable()

    runs = listed(bench)
    for number, answers in again.items():
        (answer,) = answers
        assert isinstance(answer, CallSucceeded) == (f"v{number}" in runs)


def test_libvirtd_that_is_killed_twice_or_started_twice_is_as_once() -> None:
    bench, hypervisor = simulated_bench()
    bench.start()
    hypervisor.start_libvirtd()
    hypervisor.kill_libvirtd()
    hypervisor.inject(Fault(kind="guest_crashes", vm="v1"))
    bench.scheduler.advance(1)
    hypervisor.kill_libvirtd()
    hypervisor.start_libvirtd()

    assert bench.kinds()[-1] == "crashed"
    hypervisor.power_off()
    hypervisor.kill_libvirtd()
    hypervisor.power_on()
    bench.succeed(start_of(epoch=2))
    bench.succeed(PauseDomain(vm_id="v1"), seconds=0)
