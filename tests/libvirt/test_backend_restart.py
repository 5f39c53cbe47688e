"""libvirtd ends, hangs or is restarted beneath the backend, and the backend is restarted above it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from hypervisor_backends.libvirt_session import UNREACHABLE_S_MAX
from hypervisor_backends.protocol import (
    TERMINAL_EVENTS,
    BulkStatistics,
    CallFailed,
    CallSucceeded,
    DestroyDomain,
    ExitReason,
    PauseDomain,
    StatisticsReport,
    SuspendDomain,
)
from olvm.lab.guest import GuestImage
from olvm.lab.hosts import Lab
from tests.libvirt.lab_bench import LabBench
from tests.unit.hypervisor_backends.bench import RealClock, start_of


@pytest.fixture
def bench(lab: Lab, guest: GuestImage) -> Iterator[LabBench]:
    clock = RealClock()
    made = LabBench(lab, lab.host("h1"), guest, clock)
    clock.is_quiet = made.is_quiet
    yield made
    if not made.host.pids("libvirtd"):
        made.host.start_libvirtd()
    made.backend.close()
    made.host.mend()
    made.remove_all()


def restart(bench: LabBench) -> None:
    wait_lost(bench)
    bench.host.start_libvirtd()
    bench.wait_connected()


def wait_lost(bench: LabBench) -> None:
    assert bench.clock.run_until(lambda: not bench.hypervisor.is_connected, 30)


def test_machine_survives_the_death_of_libvirtd_and_is_managed_again(bench: LabBench) -> None:
    bench.start()
    before = bench.state()
    bench.host.kill_libvirtd()
    wait_lost(bench)

    assert bench.state() == before
    failure = bench.ask(PauseDomain(vm_id="v1"))
    assert isinstance(failure, CallFailed)
    assert (failure.outcome_known, failure.can_retry) == (True, True)
    assert isinstance(bench.ask(BulkStatistics()), CallSucceeded)
    restart(bench)
    assert bench.state() == before
    bench.succeed(PauseDomain(vm_id="v1"))
    assert bench.kinds() == ["started", "guest_up", "paused"]


def test_machine_that_ended_while_libvirtd_was_dead_is_told_once(bench: LabBench) -> None:
    bench.start()
    pid = bench.qemu_pid()
    bench.host.kill_libvirtd()
    wait_lost(bench)
    os.kill(pid, signal.SIGKILL)
    restart(bench)

    # One that was not quite dead when libvirtd came back is told of by nobody: a sample finds it.
    assert bench.clock.run_until(lambda: bench.backend.domains() == [], 30)
    assert bench.kinds() == ["started", "guest_up", "crashed"]
    assert bench.events[-1].exit_reason == ExitReason.LOST_QEMU
    bench.start(epoch=2)


def test_machine_that_ends_before_libvirtd_has_its_monitor_back_is_told(bench: LabBench) -> None:
    """libvirtd gives it up then, and sends no event."""
    bench.start()
    pid = bench.qemu_pid()
    os.kill(pid, signal.SIGSTOP)
    bench.host.kill_libvirtd()
    restart(bench)
    assert bench.kinds() == ["started", "guest_up"]
    os.kill(pid, signal.SIGKILL)

    assert bench.clock.run_until(lambda: bench.backend.domains() == [], 30)
    assert bench.kinds() == ["started", "guest_up", "crashed"]
    bench.start(epoch=2)


def test_machine_is_destroyed_without_libvirtd(bench: LabBench) -> None:
    bench.start()
    bench.host.kill_libvirtd()
    wait_lost(bench)
    answer = bench.ask(DestroyDomain(vm_id="v1"))

    assert isinstance(answer, CallSucceeded)
    assert bench.clock.run_until(lambda: bench.host.pids("qemu") == [], 5)
    assert bench.backend.domains() == []
    restart(bench)
    assert bench.kinds() == ["started", "guest_up", "stopped"]
    bench.start(epoch=2)


def test_start_that_libvirtds_death_interrupts_is_unknown_and_then_found_out(bench: LabBench) -> None:
    answers = bench.call(start_of())
    bench.clock.run_until(lambda: bench.host.pids("qemu") or answers, 10)
    bench.host.kill_libvirtd()
    bench.clock.wait_for(answers)
    restart(bench)

    def agrees() -> bool:
        return (bench.status() in ("powering_up", "up")) == bool(bench.host.pids("qemu"))

    assert bench.clock.run_until(agrees, 20), (bench.backend.domains(), bench.host.pids("qemu"))
    ran = bench.status() is not None
    answer = answers[0]
    if isinstance(answer, CallFailed):
        assert not answer.outcome_known or not ran
    if ran:
        assert bench.kinds()[:1] == ["started"], (bench.backend.domains(), answer)
    else:
        assert bench.kinds() == [] or bench.kinds()[-1] in TERMINAL_EVENTS


def test_save_that_libvirtds_death_interrupts_loses_no_machine(bench: LabBench) -> None:
    bench.start()
    answers = bench.call(SuspendDomain(vm_id="v1"))
    bench.clock.pass_s(0.1)
    bench.host.kill_libvirtd()
    bench.clock.wait_for(answers)
    restart(bench)
    bench.clock.run_until(lambda: bench.status() in (None, "up", "paused"), 20)

    assert bench.clock.run_until(lambda: (bench.status() is None) == (bench.host.pids("qemu") == []), 10)


def test_libvirtd_that_hangs_is_noticed_named_as_a_problem_and_forgiven(bench: LabBench) -> None:
    bench.start()
    (daemon,) = bench.host.pids("libvirtd")
    os.kill(daemon, signal.SIGSTOP)
    try:
        wait_lost(bench)
        bench.clock.pass_s(UNREACHABLE_S_MAX + 1)
        assert bench.backend.capabilities.problems == ("kvm_not_running",)
        assert isinstance(bench.ask(DestroyDomain(vm_id="v1")), CallSucceeded)
        assert bench.clock.run_until(lambda: bench.host.pids("qemu") == [], 30)
    finally:
        os.kill(daemon, signal.SIGCONT)
    bench.wait_connected()
    assert bench.backend.capabilities.problems == ()
    # That QEMU has gone is libvirtd's to tell, and it has slept.
    assert bench.clock.run_until(lambda: bench.backend.domains() == [], 30)
    bench.start(epoch=2)


def test_backend_that_comes_back_adopts_what_runs_and_tells_what_ended(bench: LabBench) -> None:
    bench.start("v1", epoch=3)
    bench.start("v2", epoch=4)
    bench.start("v3", epoch=5)
    bench.succeed(PauseDomain(vm_id="v2"))
    before = {state.vm_id: state for state in bench.backend.domains()}
    bench.backend.close()
    os.kill(bench.qemu_pid("v3"), signal.SIGKILL)
    bench.clock.pass_s(0.5)
    told_count = len(bench.events)
    bench.reopen()

    after = {state.vm_id: state for state in bench.backend.domains()}
    assert set(after) == {"v1", "v2"}
    for vm_id, state in after.items():
        then = before[vm_id]
        assert (state.epoch, state.status, state.pause_code) == (then.epoch, then.status, then.pause_code)
        assert state.started_ns is not None
        assert then.started_ns is not None
        assert abs(state.started_ns - then.started_ns) < 3 * 10**9
    assert [(event.vm_id, event.epoch, event.kind) for event in bench.events[told_count:]] == [
        ("v3", 5, "crashed")
    ]
    answer = bench.ask(BulkStatistics())
    assert isinstance(answer, CallSucceeded)
    assert isinstance(answer.value, StatisticsReport)
    assert [domain.vm_id for domain in answer.value.domains] == ["v1", "v2"]


def test_host_that_lost_its_power_boots_empty_under_another_boot_id(lab: Lab, guest: GuestImage) -> None:
    clock = RealClock()
    host = lab.host("h2")
    before = LabBench(lab, host, guest, clock)
    clock.is_quiet = before.is_quiet
    before.start()
    boot_id = before.backend.capabilities.boot_id
    host.crash()
    assert clock.run_until(lambda: not before.hypervisor.is_connected, 30)
    assert "crashed" not in before.kinds()
    before.backend.close()
    host.boot()

    after = LabBench(lab, host, guest, clock)
    clock.is_quiet = after.is_quiet
    try:
        assert after.backend.capabilities.boot_id != boot_id
        assert after.backend.domains() == []
        assert after.events == []  # of what a lost host ran nobody is told
        after.start(epoch=2)
    finally:
        after.backend.close()
        after.remove_all()
