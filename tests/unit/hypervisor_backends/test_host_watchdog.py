"""The watchdog's process, with processes that look like QEMU: who is ended, when, and whatever happens to the agent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from hypervisor_backends import watchdog_process
from hypervisor_backends.domain_metadata import domain_uuid
from hypervisor_backends.host_watchdog import HostWatchdog
from olvm.model.limits import NS_PER_S

WITHIN_S = 10.0
pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root may look into the namespaces of process 1"
)


class Machines:
    """Processes that carry a machine's UUID as QEMU does."""

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[bytes]] = []

    def run(self, vm_id: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-S", "-c", "import time; time.sleep(600)", "-uuid", domain_uuid(vm_id)]
        self.processes.append(subprocess.Popen(command))
        return self.processes[-1]


@pytest.fixture
def machines() -> Iterator[Machines]:
    made = Machines()
    yield made
    for process in made.processes:
        process.kill()
        process.wait()


@pytest.fixture
def watchdog(tmp_path: Path) -> Iterator[HostWatchdog]:
    one = HostWatchdog("kvm00", tmp_path, time.monotonic_ns)
    yield one
    one.stop()


def arm(watchdog: HostWatchdog, seconds: float) -> bool:
    return watchdog.arm(time.monotonic_ns() + int(seconds * NS_PER_S))


def process_of(watchdog: HostWatchdog) -> int:
    return int((watchdog.directory / "pid").read_text())


def test_guarded_machine_ends_by_its_deadline_and_others_do_not(
    watchdog: HostWatchdog, machines: Machines
) -> None:
    leased, free = str(uuid.uuid4()), str(uuid.uuid4())
    watchdog.guard(leased)
    one, other = machines.run(leased), machines.run(free)
    assert arm(watchdog, 1.0)
    deadline_ns = watchdog_process.deadline_ns(str(watchdog.directory))
    assert one.wait(timeout=WITHIN_S) == -signal.SIGKILL
    struck_ns = int((watchdog.directory / "killed" / domain_uuid(leased)).read_text())
    assert struck_ns < deadline_ns
    assert other.poll() is None
    assert watchdog.has_killed(leased)
    assert not watchdog.has_killed(free)
    assert not watchdog.armed()


def test_machine_that_appears_after_the_deadline_ends_too(watchdog: HostWatchdog, machines: Machines) -> None:
    vm_id = str(uuid.uuid4())
    watchdog.guard(vm_id)
    assert machines.run(vm_id).wait(timeout=WITHIN_S) == -signal.SIGKILL


def test_machine_that_was_released_is_left_alone(watchdog: HostWatchdog, machines: Machines) -> None:
    first, second = str(uuid.uuid4()), str(uuid.uuid4())
    watchdog.guard(first)
    watchdog.guard(second)
    watchdog.release(first)
    spared, ended = machines.run(first), machines.run(second)
    assert ended.wait(timeout=WITHIN_S) == -signal.SIGKILL
    assert spared.poll() is None


def test_earlier_deadline_changes_nothing(watchdog: HostWatchdog) -> None:
    assert arm(watchdog, 60.0)
    before = watchdog_process.deadline_ns(str(watchdog.directory))
    assert arm(watchdog, 1.0)
    assert watchdog_process.deadline_ns(str(watchdog.directory)) == before


def test_next_agent_finds_the_process_of_the_one_before(watchdog: HostWatchdog, tmp_path: Path) -> None:
    assert arm(watchdog, 60.0)
    watchdog.guard("v1")
    again = HostWatchdog("kvm00", tmp_path, time.monotonic_ns)
    assert process_of(again) == process_of(watchdog)
    assert again.armed()
    assert again.guards("v1")


def test_watchdog_that_is_killed_is_noticed_and_replaced(watchdog: HostWatchdog) -> None:
    assert arm(watchdog, 60.0)
    killed = process_of(watchdog)
    os.kill(killed, signal.SIGKILL)
    deadline_s = time.monotonic() + WITHIN_S
    while watchdog.runs():
        assert time.monotonic() < deadline_s
    assert not watchdog.armed()
    assert arm(watchdog, 60.0)
    assert process_of(watchdog) != killed


def test_watchdog_outlives_the_agent_that_is_killed(tmp_path: Path, machines: Machines) -> None:
    vm_id = str(uuid.uuid4())
    script = (
        "import sys, time; from pathlib import Path; from hypervisor_backends.host_watchdog import HostWatchdog\n"
        f"one = HostWatchdog('kvm00', Path({str(tmp_path)!r}), time.monotonic_ns); one.guard({vm_id!r})\n"
        "one.arm(time.monotonic_ns() + 2 * 10**9); print('armed', flush=True); time.sleep(600)\n"
    )
    agent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert agent.stdout is not None
    assert agent.stdout.readline() == b"armed\n"
    machine = machines.run(vm_id)
    agent.send_signal(signal.SIGKILL)
    agent.wait()
    agent.stdout.close()
    assert machine.wait(timeout=WITHIN_S) == -signal.SIGKILL
    HostWatchdog("kvm00", tmp_path, time.monotonic_ns).stop()


def test_machine_of_another_namespace_is_spared(tmp_path: Path, machines: Machines) -> None:
    """Two laboratory hosts share one kernel; each ends its own."""
    vm_id = str(uuid.uuid4())
    (tmp_path / "guarded").mkdir()
    (tmp_path / "killed").mkdir()
    (tmp_path / "guarded" / vm_id).touch()
    machine = machines.run(vm_id)
    watchdog_process.end_leased(str(tmp_path), "pid:[1]")
    assert machine.poll() is None
    watchdog_process.end_leased(str(tmp_path), os.readlink("/proc/self/ns/pid"))
    assert machine.wait(timeout=WITHIN_S) == -signal.SIGKILL
