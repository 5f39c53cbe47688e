"""Simulated hosts in real time: power that is cut and given, a watchdog that keeps to real time, one process a host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.assembly import cast_of
from actors.hypervisor_port import OpenHost
from actors.silo import Silo
from actors.simulated_hosts import POWER_POLL_PERIOD_S, ScaledHypervisor, SimulatedHosts
from hypervisor_backends.fencing import FenceAnswer
from hypervisor_backends.protocol import ArmWatchdog, CallFailed, CallResult, DomainSpec, StartDomain
from olvm.journal.memory_disk import MemoryDisk
from olvm.journal.memory_journal import MemoryJournal
from olvm.model.config import Config
from olvm.model.errors import Conflict
from olvm.model.limits import NS_PER_S
from olvm.model.records import HOST_SILO_RECORDS
from tests.contracts.fault_driver import INSTANT

GIB = 1024**3


class Bench:
    """A host silo whose clock stands until it is told to go on."""

    def __init__(self, directory: Path) -> None:
        self.now_ns = 1000 * NS_PER_S
        journal = MemoryJournal(HOST_SILO_RECORDS, journal_id="host-1", disk=MemoryDisk())
        self.silo = Silo(
            "host-1",
            journal,
            cast_of("host"),
            Config(simulated=INSTANT),
            clock_ns=lambda: self.now_ns,
            transmit=lambda to, frame: None,
        )
        self.hosts = SimulatedHosts(self.silo, self.silo.config, directory)
        self.opened: list[ScaledHypervisor] = []
        self.answers: list[CallResult] = []

    def open(self, host: str = "kvm00", **settings: float) -> ScaledHypervisor:
        hypervisor = self.hosts.open(OpenHost(host, "simulated", {**settings}, 8, 16 * GIB))
        assert isinstance(hypervisor, ScaledHypervisor)
        self.opened.append(hypervisor)
        return hypervisor

    def go_on(self, duration_s: float) -> None:
        until_ns = self.now_ns + int(duration_s * NS_PER_S)
        while True:
            due_ns = self.silo.next_due_ns()
            self.now_ns = until_ns if due_ns is None else min(until_ns, max(due_ns, self.now_ns))
            self.silo.run_batch()
            if self.now_ns >= until_ns:
                return

    def start(self, hypervisor: ScaledHypervisor, *, leased: bool) -> None:
        spec = DomainSpec(name="web", vcpus=1, memory_bytes=GIB, leased=leased)
        hypervisor.submit(StartDomain(vm_id="v1", epoch=1, spec=spec), self.answers.append)

    def arm(self, hypervisor: ScaledHypervisor, after_s: float) -> None:
        """Until that time of the silo's clock has passed."""
        deadline_ns = self.now_ns + int(after_s * NS_PER_S)
        hypervisor.submit(ArmWatchdog(deadline_ns=deadline_ns), self.answers.append)

    def fence(self, action: str) -> FenceAnswer:
        told: list[FenceAnswer] = []
        self.hosts.plant.fence_devices().submit({"type": "simulated"}, "kvm00", action, told.append)  # type: ignore[arg-type]
        (answer,) = told
        return answer

    def close(self) -> None:
        for hypervisor in self.opened:
            hypervisor.close()
        self.hosts.plant.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


def test_host_whose_power_is_cut_loses_its_machines_and_boots_anew_when_it_is_given_again(
    bench: Bench,
) -> None:
    host = bench.open()
    bench.start(host, leased=False)
    boot_id = host.capabilities.boot_id
    assert len(host.domains()) == 1
    bench.fence("off")
    assert bench.fence("status").power == "on"  # the order was taken and the host has not obeyed yet
    bench.go_on(2 * POWER_POLL_PERIOD_S)
    assert (host.domains(), bench.fence("status").power) == ([], "off")
    bench.start(host, leased=False)
    refused = bench.answers[-1]
    assert isinstance(refused, CallFailed)
    assert refused.code == "host_down"
    bench.fence("on")
    bench.go_on(2 * POWER_POLL_PERIOD_S)
    assert host.capabilities.boot_id not in ("", boot_id)
    assert bench.fence("status").power == "on"


def test_host_opened_while_its_power_is_cut_stays_off(bench: Bench) -> None:
    bench.fence("off")
    host = bench.open()
    bench.start(host, leased=False)
    assert isinstance(bench.answers[-1], CallFailed)
    assert bench.fence("status").power == "off"
    bench.fence("on")
    bench.go_on(2 * POWER_POLL_PERIOD_S)
    bench.start(host, leased=False)
    assert len(host.domains()) == 1


@pytest.mark.parametrize("time_scale", [1.0, 20.0, 0.5])
def test_watchdog_strikes_at_its_deadline_in_real_time_however_fast_machines_live(
    bench: Bench, time_scale: float
) -> None:
    host = bench.open(time_scale=time_scale)
    bench.arm(host, 10.0)
    bench.start(host, leased=True)
    bench.go_on(5.0)
    bench.arm(host, 10.0)
    bench.go_on(9.9)
    assert len(host.domains()) == 1
    bench.go_on(0.2)
    assert host.domains() == []


def test_host_that_another_silo_runs_is_refused_until_that_one_lets_go(bench: Bench, tmp_path: Path) -> None:
    mine = bench.open()
    other = Bench(tmp_path)
    with pytest.raises(Conflict, match="kvm00"):
        other.open()
    mine.close()
    assert other.open().capabilities.boot_id != mine.capabilities.boot_id
    other.close()
