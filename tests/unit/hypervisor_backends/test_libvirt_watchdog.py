"""The watchdog behind the libvirt backend, with its real process: what an order to arm it is answered with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("libvirt", reason="libvirt-python is not installed (`make apt-libvirt`)")

from hypervisor_backends.libvirt_host import LibvirtHost
from hypervisor_backends.libvirt_settings import LibvirtSettings
from hypervisor_backends.libvirt_watchdog import LeaseGuard
from hypervisor_backends.libvirt_workers import InlineWorkers
from hypervisor_backends.protocol import CallFailed, CallResult, CallSucceeded
from olvm.model.limits import NS_PER_S
from tests.unit.hypervisor_backends.bench import VirtualScheduler


class Guard:
    def __init__(self, directory: Path) -> None:
        self.time = VirtualScheduler()
        settings = LibvirtSettings(watchdog_directory=str(directory))
        host = LibvirtHost("kvm00", settings, self.time, InlineWorkers(self.time))
        self.leases = LeaseGuard(host)
        self._host = host

    def arm(self, seconds: float) -> CallResult:
        answers: list[CallResult] = []
        self.leases.arm(self.time.now_ns() + int(seconds * NS_PER_S), answers.append)
        self._host.outbox.drain()
        self.time.advance(0)
        return answers[0]

    def end_process(self) -> None:
        assert self.leases.watchdog is not None
        self.leases.watchdog.stop()
        (self.leases.watchdog.directory / "stop").unlink()


@pytest.fixture
def guard(tmp_path: Path) -> Iterator[Guard]:
    made = Guard(tmp_path)
    made.leases.open()
    yield made
    made.end_process()


def test_watchdog_that_is_armed_answers_so(guard: Guard) -> None:
    assert isinstance(guard.arm(60.0), CallSucceeded)
    assert guard.leases.may_begin()


@pytest.mark.parametrize("has_process", [True, False])
def test_watchdog_that_is_not_armed_afterwards_answers_why(guard: Guard, has_process: bool) -> None:
    if not has_process:
        guard.end_process()
    answer = guard.arm(0.0)
    assert isinstance(answer, CallFailed)
    assert (answer.code, answer.can_retry) == ("lease_expired", True)
    assert "kvm00" in answer.message
    assert "no renewal" in answer.message
    assert not guard.leases.may_begin()


@pytest.mark.parametrize("has_process", [True, False])
def test_watchdog_whose_deadline_cannot_be_written_answers_why(guard: Guard, has_process: bool) -> None:
    if not has_process:
        guard.end_process()
    assert guard.leases.watchdog is not None
    in_the_way = guard.leases.watchdog.directory / "deadline.part"
    in_the_way.mkdir()
    answer = guard.arm(60.0)
    assert isinstance(answer, CallFailed)
    assert answer.code == "lease_expired"
    assert str(in_the_way) in answer.message
    in_the_way.rmdir()
    assert isinstance(guard.arm(60.0), CallSucceeded)


def test_watchdog_is_armed_again_by_the_next_order(guard: Guard) -> None:
    assert isinstance(guard.arm(0.0), CallFailed)
    assert isinstance(guard.arm(60.0), CallSucceeded)
