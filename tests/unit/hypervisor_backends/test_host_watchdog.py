"""The watchdog's process, with processes that look like QEMU: who is ended, when, and whatever happens to the agent."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hypervisor_backends import watchdog_process
from hypervisor_backends.domain_metadata import domain_uuid
from hypervisor_backends.host_watchdog import HostWatchdog
from olvm.model.limits import NS_PER_S

WITHIN_S = 10.0


def wait_until(holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + WITHIN_S
    while not holds():
        assert time.monotonic() < deadline_s


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
    assert arm(watchdog, 2.0)
    watchdog.guard(leased)
    one, other = machines.run(leased), machines.run(free)
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


def test_machine_whose_start_hung_over_a_lapse_ends_though_the_host_renewed_since(
    watchdog: HostWatchdog, machines: Machines
) -> None:
    vm_id = str(uuid.uuid4())
    watchdog.guard(vm_id)  # its start hangs in libvirt, and the deadline has passed
    wait_until(lambda: not (watchdog.directory / "guarded" / vm_id).exists())
    assert arm(watchdog, 60.0)
    machine = machines.run(vm_id)
    assert machine.wait(timeout=WITHIN_S) == -signal.SIGKILL
    assert watchdog.armed()
    assert watchdog.has_killed(vm_id)


def test_machine_that_is_guarded_anew_runs_and_its_old_end_is_forgotten(
    watchdog: HostWatchdog, machines: Machines
) -> None:
    vm_id, other = str(uuid.uuid4()), str(uuid.uuid4())
    watchdog.guard(vm_id)
    assert machines.run(vm_id).wait(timeout=WITHIN_S) == -signal.SIGKILL
    assert arm(watchdog, 60.0)
    watchdog.guard(vm_id)
    assert not watchdog.has_killed(vm_id)
    machine = machines.run(vm_id)
    (watchdog.directory / "condemned" / other).touch()
    assert machines.run(other).wait(timeout=WITHIN_S) == -signal.SIGKILL  # it has looked since
    assert machine.poll() is None


def test_machine_that_is_condemned_and_not_gone_yet_stays_so_when_it_is_found_running(
    watchdog: HostWatchdog, machines: Machines
) -> None:
    vm_id = str(uuid.uuid4())
    assert arm(watchdog, 60.0)
    os.kill(process_of(watchdog), signal.SIGSTOP)
    machine = machines.run(vm_id)
    wait_until(lambda: "-uuid" in command_line(str(machine.pid)))
    (watchdog.directory / "condemned" / vm_id).touch()
    watchdog.guard(vm_id)
    os.kill(process_of(watchdog), signal.SIGCONT)
    assert machine.wait(timeout=WITHIN_S) == -signal.SIGKILL


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
    wait_until(lambda: not watchdog.runs())
    assert not watchdog.armed()
    assert "does not run" in watchdog.problem
    assert arm(watchdog, 60.0)
    assert process_of(watchdog) != killed
    assert watchdog.problem == ""


def test_machine_lives_on_when_the_watchdog_is_replaced_before_its_deadline(
    watchdog: HostWatchdog, machines: Machines
) -> None:
    kept, late = str(uuid.uuid4()), str(uuid.uuid4())
    assert arm(watchdog, 60.0)
    watchdog.guard(kept)
    machine = machines.run(kept)
    os.kill(process_of(watchdog), signal.SIGKILL)
    wait_until(lambda: not watchdog.runs())
    assert arm(watchdog, 1.0)  # the present deadline stays
    assert machine.poll() is None
    beat = watchdog.directory / "beat"
    before = beat.read_bytes()
    wait_until(lambda: beat.read_bytes() != before)  # the new process has looked once at least
    assert machine.poll() is None
    assert not watchdog.guards(late)


def test_machine_that_outlived_its_deadline_without_a_watchdog_ends_at_the_next_renewal(
    watchdog: HostWatchdog, machines: Machines
) -> None:
    """The watchdog was killed, then the agent stood still: others may run the machine by now."""
    vm_id = str(uuid.uuid4())
    watchdog.guard(vm_id)
    os.kill(process_of(watchdog), signal.SIGKILL)
    wait_until(lambda: not watchdog.runs())
    machine = machines.run(vm_id)
    assert arm(watchdog, 60.0)
    assert machine.wait(timeout=WITHIN_S) == -signal.SIGKILL
    assert watchdog.has_killed(vm_id)


def test_watchdog_that_stands_still_counts_as_none_and_is_replaced(
    watchdog: HostWatchdog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hypervisor_backends.host_watchdog.BEAT_WITHIN_NS", NS_PER_S)
    assert arm(watchdog, 60.0)
    stopped = process_of(watchdog)
    os.kill(stopped, signal.SIGSTOP)
    wait_until(lambda: not watchdog.armed())
    assert arm(watchdog, 60.0)
    assert process_of(watchdog) != stopped


def test_host_that_booted_anew_in_namespaces_gets_a_watchdog_of_its_own(
    watchdog: HostWatchdog, tmp_path: Path
) -> None:
    """Its process and its marks are those of a namespace that is gone."""
    assert arm(watchdog, 60.0)
    watchdog.guard("v1")
    before = process_of(watchdog)
    (watchdog.directory / "namespace").write_text("pid:[1]")
    again = HostWatchdog("kvm00", tmp_path, time.monotonic_ns)
    assert process_of(again) != before
    assert not again.armed()
    assert not again.guards("v1")


def test_deadline_of_another_boot_of_the_kernel_is_past(watchdog: HostWatchdog) -> None:
    assert arm(watchdog, 60.0)
    file = watchdog.directory / "deadline"
    file.write_bytes(file.read_bytes()[:8] + str(uuid.uuid4()).encode())
    assert watchdog_process.deadline_ns(str(watchdog.directory)) == 0
    assert not watchdog.armed()


def test_pause_while_a_deadline_is_passed_on_does_not_stretch_it(tmp_path: Path) -> None:
    def slow_clock_ns() -> int:
        now_ns = time.monotonic_ns()
        while time.monotonic_ns() < now_ns + NS_PER_S // 5:
            pass
        return time.monotonic_ns()

    one = HostWatchdog("kvm00", tmp_path, slow_clock_ns)
    latest_ns = watchdog_process.boottime_ns() + 60 * NS_PER_S
    assert one.arm(time.monotonic_ns() + 60 * NS_PER_S)
    assert watchdog_process.deadline_ns(str(one.directory)) < latest_ns
    one.stop()


def test_host_that_was_suspended_is_not_armed_again_by_the_same_agent(
    watchdog: HostWatchdog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert arm(watchdog, 60.0)
    awake = watchdog_process.boottime_ns
    with monkeypatch.context() as patch:
        patch.setattr(watchdog_process, "boottime_ns", lambda: awake() + NS_PER_S)
        assert not watchdog.armed()
        assert not arm(watchdog, 90.0)
        assert "was suspended" in watchdog.problem
    assert not watchdog.armed()
    assert arm(HostWatchdog("kvm00", tmp_path, time.monotonic_ns), 90.0)


def test_machine_ends_though_there_is_no_room_for_its_mark(
    watchdog: HostWatchdog, machines: Machines
) -> None:
    (watchdog.directory / "killed").rmdir()
    vm_id = str(uuid.uuid4())
    (watchdog.directory / "guarded" / vm_id).touch()
    assert machines.run(vm_id).wait(timeout=WITHIN_S) == -signal.SIGKILL
    assert watchdog.guards(vm_id)


def test_second_agent_at_the_same_time_starts_no_second_watchdog(tmp_path: Path) -> None:
    agents = [
        threading.Thread(target=HostWatchdog, args=("kvm00", tmp_path, time.monotonic_ns)) for _ in range(4)
    ]
    for agent in agents:
        agent.start()
    for agent in agents:
        agent.join()
    one = HostWatchdog("kvm00", tmp_path, time.monotonic_ns)
    directory = str(one.directory)

    def processes() -> list[str]:
        return [pid for pid in os.listdir("/proc") if pid.isdigit() and directory in command_line(pid)]

    wait_until(lambda: processes() == [str(process_of(one))])  # those that came too late end
    one.stop()


def test_watchdog_whose_directory_is_removed_ends(tmp_path: Path) -> None:
    one = HostWatchdog("kvm00", tmp_path, time.monotonic_ns)
    pid = process_of(one)
    shutil.rmtree(one.directory)
    wait_until(lambda: not Path(f"/proc/{pid}").exists())


def command_line(pid: str) -> list[str]:
    try:
        return Path("/proc", pid, "cmdline").read_text().split("\0")
    except OSError:
        return []


def test_hardware_is_fed_while_the_process_looks_and_disarmed_only_when_it_is_asked_to_end(
    tmp_path: Path,
) -> None:
    device = tmp_path / "watchdog"
    device.touch()
    one = HostWatchdog("kvm00", tmp_path, time.monotonic_ns, device=str(device))
    assert one.has_hardware
    wait_until(lambda: len(device.read_bytes()) > 2)
    os.kill(process_of(one), signal.SIGKILL)
    wait_until(lambda: not one.runs())
    assert set(device.read_bytes()) == {0}
    arm(one, 60.0)
    one.stop()
    assert b"V" in device.read_bytes()
    assert not HostWatchdog("kvm01", tmp_path, time.monotonic_ns, device="/nonexistent").has_hardware
    HostWatchdog("kvm01", tmp_path, time.monotonic_ns).stop()


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
    for kind in ("guarded", "condemned", "killed"):
        (tmp_path / kind).mkdir()
    (tmp_path / "guarded" / vm_id).touch()
    machine = machines.run(vm_id)
    wait_until(lambda: "-uuid" in command_line(str(machine.pid)))
    watchdog_process.condemn(str(tmp_path))
    assert watchdog_process.end_condemned(str(tmp_path), "pid:[1]") == 0
    assert machine.poll() is None
    assert watchdog_process.end_condemned(str(tmp_path), os.readlink("/proc/self/ns/pid")) == 1
    assert machine.wait(timeout=WITHIN_S) == -signal.SIGKILL
