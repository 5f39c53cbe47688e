"""Leases on real hosts: what libvirt's lock manager refuses, what it loses, and that the agent's own lease covers that.

Keepers, stores and watchdogs are those of an agent; their times are short, so that a test does not wait half a minute.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from hypervisor_backends.domain_metadata import domain_uuid
from hypervisor_backends.file_leases import FileLeaseStore
from hypervisor_backends.host_watchdog import HostWatchdog
from hypervisor_backends.lease_keeper import LeaseKeeper, LeaseOutcome
from hypervisor_backends.leases import HostLease, LeaseFailed, LeaseResult, RenewHostLease
from hypervisor_backends.protocol import (
    ArmWatchdog,
    CallFailed,
    CallSucceeded,
    DestroyDomain,
    DomainSpec,
    PauseDomain,
    StartDomain,
)
from hypervisor_backends.real_time import RealTime
from olvm.lab.commands import run
from olvm.lab.guest import GuestImage
from olvm.lab.hosts import Lab
from olvm.model.hardware import Hardware
from tests.libvirt.lab_bench import LabBench
from tests.unit.hypervisor_backends.bench import RealClock, start_of

EXPIRY_S = 6.0
DRIFT_PERCENT = 1.0
WITHIN_S = 60.0


class Agent:
    """One host's lease keeper over the shared directory, and its backend."""

    def __init__(self, lab: Lab, bench: LabBench, directory: Path) -> None:
        self.bench = bench
        self.clock = bench.clock
        self.boot_id = f"boot of {bench.host.name}"
        self.store = FileLeaseStore(directory, bench.host.name, self.clock.post)
        self.timers = RealTime(f"lease-{bench.host.name}", self.clock.post, self.clock.now_ns)
        self.renews = False
        self.keeper = LeaseKeeper(
            bench.host.name,
            self.boot_id,
            self.store,
            self.timers,
            self._arm,
            expiry_s=EXPIRY_S,
            drift_percent=DRIFT_PERCENT,
        )

    def _arm(self, deadline_ns: int) -> None:
        self.bench.backend.submit(ArmWatchdog(deadline_ns=deadline_ns), lambda _: None)

    def keep_renewing(self) -> None:
        self.renews = True
        self._renew()

    def _renew(self) -> None:
        if self.renews:
            self.keeper.renew(lambda _worked, _why: None)
            self.timers.call_at(self.clock.now_ns() + int(EXPIRY_S / 5 * 1e9), self._renew)

    def take(self, epoch: int, within_s: float = WITHIN_S) -> LeaseOutcome:
        outcomes: list[LeaseOutcome] = []
        self.keeper.take("v1", epoch, outcomes.append)
        assert self.clock.run_until(lambda: outcomes, within_s)
        return outcomes[0]

    def start(self, epoch: int) -> object:
        """As the agent does: only with the lease."""
        assert self.keeper.holds("v1", epoch)
        return self.bench.ask(leased(epoch))

    def close(self) -> None:
        self.renews = False
        self.keeper.close()
        self.timers.close()
        self.store.close()


def leased(epoch: int = 1) -> StartDomain:
    request = start_of("v1", epoch)
    return msgspec.structs.replace(request, spec=msgspec.structs.replace(request.spec, leased=True))


@pytest.fixture
def agents(lab: Lab, guest: GuestImage) -> Iterator[tuple[Agent, Agent]]:
    clock = RealClock()
    directory = lab.shared / "agent-leases"
    directory.mkdir(exist_ok=True)
    benches = [LabBench(lab, lab.host(name), guest, clock) for name in ("h1", "h2")]
    clock.is_quiet = lambda: all(one.is_quiet() for one in benches)
    first, second = (Agent(lab, bench, directory) for bench in benches)
    yield first, second
    for agent in (first, second):
        agent.close()
        agent.bench.backend.close()
        agent.bench.host.mend()
        agent.bench.remove_all()
        # The deadline outlives the agent, as it must; the next test begins without one.
        watchdog = HostWatchdog(agent.bench.host.name, lab.directory / "watchdog", clock.now_ns)
        watchdog.stop()
        shutil.rmtree(watchdog.directory)
    for path in directory.iterdir():
        path.unlink()


@pytest.fixture
def first(agents: tuple[Agent, Agent]) -> Agent:
    return agents[0]


@pytest.fixture
def second(agents: tuple[Agent, Agent]) -> Agent:
    return agents[1]


def start_by_the_lock_manager_alone(agent: Agent, epoch: int) -> object:
    """What a host does that asks nobody but libvirt: its watchdog is armed, and its lease is not looked at."""
    agent._arm(agent.clock.now_ns() + int(WITHIN_S * 1e9))
    return agent.bench.ask(leased(epoch))


def take_disks_away(*agents: Agent) -> None:
    """Of machines that begin from now on: QEMU locks an image itself, before the lock manager is asked."""

    def bare(spec: DomainSpec) -> DomainSpec:
        return msgspec.structs.replace(spec, hardware=Hardware())

    for agent in agents:
        agent.bench.dress = bare


def begin_on(agent: Agent) -> None:
    agent.keep_renewing()
    assert agent.take(1).kind == "taken"
    assert isinstance(agent.start(1), CallSucceeded)


def runs_on(agent: Agent) -> bool:
    """Whether there is a QEMU, whatever libvirt believes."""
    uuid = domain_uuid("v1")
    return any(uuid in Path(f"/proc/{pid}/cmdline").read_text() for pid in agent.bench.host.pids("qemu"))


def wait_until(agent: Agent, holds: Callable[[], object], within_s: float = WITHIN_S) -> None:
    assert agent.clock.run_until(holds, within_s)


# ---------------------------------------------------------------- the lock manager


def test_lock_manager_refuses_the_second_start_of_a_machine(first: Agent, second: Agent) -> None:
    take_disks_away(first, second)
    begin_on(first)
    refused = start_by_the_lock_manager_alone(second, 2)
    assert isinstance(refused, CallFailed)
    assert "Lockspace resource" in refused.message
    assert runs_on(first)
    assert not runs_on(second)


def test_lock_that_a_paused_machine_loses_is_covered_by_the_lease_of_the_agent(
    first: Agent, second: Agent
) -> None:
    take_disks_away(first, second)
    begin_on(first)
    assert isinstance(first.bench.ask(PauseDomain(vm_id="v1")), CallSucceeded)
    outcome = second.take(2)
    assert (outcome.kind, outcome.holder) == ("held", "h1")
    assert not second.keeper.holds("v1", 2)
    assert isinstance(start_by_the_lock_manager_alone(second, 2), CallSucceeded)  # and this one may not go on


def test_locks_that_a_killed_daemon_loses_are_covered_by_the_lease_of_the_agent(
    lab: Lab, first: Agent, second: Agent
) -> None:
    take_disks_away(first, second)
    begin_on(first)
    lab.host("h1").kill_lock_daemon()
    outcome = second.take(2)
    assert (outcome.kind, outcome.holder) == ("held", "h1")
    assert not second.keeper.holds("v1", 2)
    assert isinstance(start_by_the_lock_manager_alone(second, 2), CallSucceeded)
    assert runs_on(first)
    assert runs_on(second)  # twice: this is what the lock manager alone is worth


def test_lock_daemon_that_is_gone_or_came_back_alone_is_named_with_what_to_do(first: Agent) -> None:
    take_disks_away(first)
    first.bench.host.kill_lock_daemon()
    gone = start_by_the_lock_manager_alone(first, 1)
    first.bench.host.start_lock_daemon()
    alone = start_by_the_lock_manager_alone(first, 2)
    first.bench.restart_lock_daemon()

    for failure, words in ((gone, "virtlockd does not run"), (alone, "restart libvirtd there")):
        assert isinstance(failure, CallFailed)
        assert (failure.code, failure.outcome_known) == ("start_failed", True)
        assert words in failure.message
    assert isinstance(start_by_the_lock_manager_alone(first, 3), CallSucceeded)


# ---------------------------------------------------------------- the agent's own lease


@pytest.mark.slow
@pytest.mark.parametrize("trouble", ["agent_silent", "libvirtd_stopped", "paused"])
def test_machine_of_a_host_that_renews_no_more_ends_before_it_starts_elsewhere(
    first: Agent, second: Agent, trouble: str
) -> None:
    begin_on(first)
    stopped = first.bench.host.pids("libvirtd") if trouble == "libvirtd_stopped" else []
    if trouble == "paused":
        assert isinstance(first.bench.ask(PauseDomain(vm_id="v1")), CallSucceeded)
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        first.renews = False
        outcomes: list[LeaseOutcome] = []
        both: list[bool] = []
        second.keep_renewing()
        second.keeper.take(
            "v1", 2, lambda outcome: (outcomes.append(outcome), both.append(runs_on(first)))[0]
        )
        wait_until(second, lambda: outcomes)
        if outcomes[0].kind == "held":  # its last renewal was on its way when the watching began
            outcomes[:] = [second.take(2)]
            both[:] = [runs_on(first)]
        assert outcomes[0].kind == "taken"
        assert both == [False], "the machine still ran when the lease was given to another host"
        assert isinstance(second.start(2), CallSucceeded)
        assert runs_on(second)
        assert not runs_on(first)
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)


def test_start_without_an_armed_watchdog_is_refused(first: Agent) -> None:
    refused = first.bench.ask(leased())
    assert isinstance(refused, CallFailed)
    assert refused.code == "lease_expired"


def test_machine_that_was_stopped_in_order_is_taken_at_once(first: Agent, second: Agent) -> None:
    begin_on(first)
    assert isinstance(first.bench.ask(DestroyDomain(vm_id="v1")), CallSucceeded)
    left: list[LeaseOutcome] = []
    first.keeper.leave("v1", 1, left.append)
    wait_until(first, lambda: left)
    second.keep_renewing()
    assert second.take(2, within_s=EXPIRY_S / 2).kind == "taken"
    assert isinstance(second.start(2), CallSucceeded)


# ---------------------------------------------------------------- storage in trouble


@pytest.fixture
def small_storage(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "small"
    place.mkdir()
    run(["mount", "-t", "tmpfs", "-o", "size=64k", "leases", str(place)])
    yield place
    run(["umount", str(place)])


def fill(path: Path) -> None:
    """Until there is no room for one byte more."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def renew(store: FileLeaseStore, clock: RealClock, host: str = "h1") -> LeaseResult:
    results: list[LeaseResult] = []
    store.submit(RenewHostLease(host=host, boot_id="b1"), results.append)
    assert clock.run_until(lambda: results, WITHIN_S)
    return results[0]


def test_storage_that_is_full_keeps_the_rows_that_are_there_and_refuses_new_ones(small_storage: Path) -> None:
    clock = RealClock()
    store = FileLeaseStore(small_storage, "h1", clock.post)
    assert isinstance(renew(store, clock), HostLease)
    fill(small_storage / "ballast")
    assert renew(store, clock) == HostLease(host="h1", boot_id="b1", counter=2)
    refused = renew(store, clock, "h2")
    assert isinstance(refused, LeaseFailed)
    assert "space" in refused.message
    (small_storage / "ballast").unlink()
    assert isinstance(renew(store, clock, "h2"), HostLease)
    assert sorted(path.name for path in small_storage.iterdir()) == ["host-h1", "host-h2"]
    store.close()


def test_storage_that_turns_read_only_is_unreachable_until_it_is_back(small_storage: Path) -> None:
    clock = RealClock()
    store = FileLeaseStore(small_storage, "h1", clock.post)
    assert isinstance(renew(store, clock), HostLease)
    run(["mount", "-o", "remount,ro", str(small_storage)])
    refused = renew(store, clock)
    assert isinstance(refused, LeaseFailed)
    assert "Read-only" in refused.message
    run(["mount", "-o", "remount,rw", str(small_storage)])
    assert renew(store, clock) == HostLease(host="h1", boot_id="b1", counter=2)
    store.close()
