"""A machine that ends while a snapshot is taken or committed: it was done or it was not, and the answer is true.

Its QEMU is killed. Now and then virtlockd keeps the lock of the disk for the process that is gone, and then the test
does what docs/leases.md says. Whoever has the agent end such a machine is spared that.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from hypervisor_backends.protocol import (
    CallFailed,
    CallResult,
    CallSucceeded,
    CommitSnapshot,
    CreateSnapshot,
    DestroyDomain,
    ListSnapshots,
    SnapshotList,
)
from olvm.lab.guest import GuestImage
from olvm.lab.hosts import Lab
from tests.libvirt.lab_bench import LabBench, on_one_host
from tests.unit.hypervisor_backends.bench import start_of

MOMENTS_S = (0.0, 0.01, 0.03)


@pytest.fixture
def bench(lab: Lab, guest: GuestImage) -> Iterator[LabBench]:
    """Its machine needs no operating system, and runs in a second."""
    with on_one_host(lab, guest) as made:
        yield made


def names(bench: LabBench) -> list[str]:
    value = bench.succeed(ListSnapshots(vm_id="v1")).value
    assert isinstance(value, SnapshotList)
    return [snapshot.name for snapshot in value.snapshots]


def kill_after(bench: LabBench, moment_s: float, answers: list[CallResult]) -> CallSucceeded | CallFailed:
    """QEMU is killed so long after something was asked of its machine; what was answered."""
    pid = bench.qemu_pid()
    bench.clock.pass_s(moment_s)
    os.kill(pid, signal.SIGKILL)
    return answer_of_the_ended(bench, answers)


def answer_of_the_ended(bench: LabBench, answers: list[CallResult]) -> CallSucceeded | CallFailed:
    bench.clock.wait_for(answers)
    assert bench.clock.run_until(lambda: bench.state() is None, 60)
    (answer,) = answers
    assert isinstance(answer, CallSucceeded | CallFailed)
    return answer


def start_after_a_kill(bench: LabBench, epoch: int) -> None:
    answer = bench.settle(start_of("v1", epoch))
    if isinstance(answer, CallFailed) and answer.code == "lease_held":
        assert not bench.host.pids("qemu"), "somebody does hold it"
        bench.restart_lock_daemon()
        answer = bench.settle(start_of("v1", epoch))
    assert isinstance(answer, CallSucceeded), answer


@pytest.mark.parametrize("with_memory", [False, True])
def test_answer_about_a_snapshot_is_true_whenever_its_machine_ends(
    bench: LabBench, with_memory: bool
) -> None:
    results = set()
    for number, moment_s in enumerate(MOMENTS_S):
        bench.start(epoch=2 * number + 1)
        answers = bench.call(CreateSnapshot(vm_id="v1", name=f"s{number}", with_memory=with_memory))
        answer = kill_after(bench, moment_s, answers)
        start_after_a_kill(bench, epoch=2 * number + 2)
        there = names(bench)
        if isinstance(answer, CallSucceeded) or answer.outcome_known:
            assert there == ([f"s{number}"] if isinstance(answer, CallSucceeded) else []), answer
        results.add((type(answer).__name__, *there))
        for name in there:
            bench.succeed(CommitSnapshot(vm_id="v1", name=name))
        bench.succeed(DestroyDomain(vm_id="v1"))
    if with_memory:  # which takes long enough for one of the moments to be in the middle
        assert ("CallFailed",) in results


def test_machine_that_is_destroyed_in_a_snapshot_lets_that_end_and_starts_again(bench: LabBench) -> None:
    for number, moment_s in enumerate(MOMENTS_S):
        bench.start(epoch=2 * number + 1)
        answers = bench.call(CreateSnapshot(vm_id="v1", name=f"s{number}", with_memory=True))
        bench.clock.pass_s(moment_s)
        bench.call(DestroyDomain(vm_id="v1"))
        answer = answer_of_the_ended(bench, answers)
        assert isinstance(answer, CallSucceeded) or (answer.code, answer.outcome_known) == (
            "call_failed",
            True,
        )
        bench.start(epoch=2 * number + 2)
        assert names(bench) == ([f"s{number}"] if isinstance(answer, CallSucceeded) else []), answer
        for name in names(bench):
            bench.succeed(CommitSnapshot(vm_id="v1", name=name))
        bench.succeed(DestroyDomain(vm_id="v1"))


def test_answer_about_a_commit_is_true_whenever_its_machine_ends(bench: LabBench) -> None:
    for number, moment_s in enumerate(MOMENTS_S):
        bench.start(epoch=2 * number + 1)
        if not names(bench):
            bench.succeed(CreateSnapshot(vm_id="v1", name="s1"))
        answers = bench.call(CommitSnapshot(vm_id="v1", name="s1"))
        answer = kill_after(bench, moment_s, answers)
        if isinstance(answer, CallFailed) and not answer.outcome_known:
            return  # in the very instant: a start may ask a person to compare (disk_layers.py)
        start_after_a_kill(bench, epoch=2 * number + 2)
        if isinstance(answer, CallSucceeded) or answer.outcome_known:
            assert names(bench) == ([] if isinstance(answer, CallSucceeded) else ["s1"]), answer
        bench.succeed(DestroyDomain(vm_id="v1"))
