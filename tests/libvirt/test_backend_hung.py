"""One QEMU that stands still, and what its neighbours notice of it: nothing."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from hypervisor_backends.protocol import (
    BulkStatistics,
    CallFailed,
    CallSucceeded,
    ContinueDomain,
    DestroyDomain,
    ExitReason,
    PauseDomain,
    StatisticsReport,
)
from olvm.lab.guest import GuestImage
from olvm.lab.hosts import Lab
from tests.libvirt.lab_bench import LabBench
from tests.unit.hypervisor_backends.bench import RealClock

# Far above what a call takes on a busy machine, far below what waiting for the one that hangs would.
PROMPT_S = 4.0
CALL_TIMEOUT_S = 6.0  # a start beside two other laboratories took more than 2


@pytest.fixture
def bench(lab: Lab, guest: GuestImage) -> Iterator[LabBench]:
    clock = RealClock()
    made = LabBench(lab, lab.host("h1"), guest, clock, call_timeout_s=CALL_TIMEOUT_S)
    clock.is_quiet = made.is_quiet
    made.start("v1")
    made.start("v2")
    yield made
    for pid in made.host.pids("qemu"):
        os.kill(pid, signal.SIGCONT)
    made.backend.close()
    made.remove_all()


def monitor_responses(bench: LabBench) -> dict[str, int]:
    answer = bench.ask(BulkStatistics())
    assert isinstance(answer, CallSucceeded)
    assert isinstance(answer.value, StatisticsReport)
    return {domain.vm_id: domain.monitor_response for domain in answer.value.domains}


def test_stopped_qemu_delays_no_other_machine_and_statistics_go_on(bench: LabBench) -> None:
    os.kill(bench.qemu_pid("v1"), signal.SIGSTOP)
    assert monitor_responses(bench) == {"v1": -1, "v2": 0}  # the first sample finds out who does not answer

    for _ in range(3):
        began_s = time.monotonic()
        bench.ask(PauseDomain(vm_id="v2"))
        bench.ask(ContinueDomain(vm_id="v2"))
        assert monitor_responses(bench) == {"v1": -1, "v2": 0}
        assert time.monotonic() - began_s < PROMPT_S
    failure = bench.ask(PauseDomain(vm_id="v1"))
    assert isinstance(failure, CallFailed)
    assert (failure.code, failure.outcome_known) == ("monitor_hung", True)
    assert [state.monitor_responds for state in bench.backend.domains()] == [False, True]

    os.kill(bench.qemu_pid("v1"), signal.SIGCONT)
    assert bench.clock.run_until(lambda: all(one.monitor_responds for one in bench.backend.domains()), 10)
    bench.succeed(PauseDomain(vm_id="v1"))


def test_call_that_meets_a_stopped_qemu_is_answered_as_unknown_and_its_late_end_is_believed(
    bench: LabBench,
) -> None:
    os.kill(bench.qemu_pid("v1"), signal.SIGSTOP)
    began_s = time.monotonic()
    failure = bench.ask(PauseDomain(vm_id="v1"))

    assert isinstance(failure, CallFailed)
    assert (failure.code, failure.outcome_known) in (("timed_out", False), ("monitor_hung", True))
    assert time.monotonic() - began_s < CALL_TIMEOUT_S + PROMPT_S
    os.kill(bench.qemu_pid("v1"), signal.SIGCONT)
    if not failure.outcome_known:  # it was begun, and it works in the end
        bench.wait("paused")
        assert bench.status("v1") == "paused"


def test_stopped_qemu_is_destroyed_all_the_same(bench: LabBench) -> None:
    os.kill(bench.qemu_pid("v1"), signal.SIGSTOP)
    assert monitor_responses(bench)["v1"] == -1
    began_s = time.monotonic()

    bench.succeed(DestroyDomain(vm_id="v1"))

    assert time.monotonic() - began_s < PROMPT_S
    assert bench.events[-1].exit_reason == ExitReason.ADMIN_SHUTDOWN
    assert len(bench.host.pids("qemu")) == 1
    bench.start("v1", epoch=2)


def test_stopped_qemu_holds_up_neither_a_start_nor_a_close(bench: LabBench) -> None:
    os.kill(bench.qemu_pid("v1"), signal.SIGSTOP)
    bench.call(PauseDomain(vm_id="v1"))
    began_s = time.monotonic()
    bench.succeed(DestroyDomain(vm_id="v2"))
    bench.start("v2", epoch=2)
    bench.backend.close()

    assert time.monotonic() - began_s < CALL_TIMEOUT_S + 2 * PROMPT_S  # the first of them ends by its time
