"""The contract suites of hypervisor backends on real libvirt and QEMU: the very tests of `tests/contracts`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from olvm.lab.guest import GuestImage
from olvm.lab.hosts import Lab
from tests.contracts.test_hypervisor_backend import *  # noqa: F403
from tests.contracts.test_hypervisor_migration import *  # noqa: F403
from tests.contracts.test_hypervisor_readings import *  # noqa: F403
from tests.libvirt.lab_bench import LabBench
from tests.unit.hypervisor_backends.bench import Bench, RealClock, check_each_life_ends_once


@pytest.fixture
def bench(lab: Lab, guest: GuestImage) -> Iterator[Bench]:
    clock = RealClock()
    # A watchdog of its own: whoever was on this host before may have left one armed for two minutes.
    made = LabBench(
        lab, lab.host("h1"), guest, clock, watchdog_directory=str(lab.directory / "watchdog-apart")
    )
    clock.is_quiet = made.is_quiet
    yield made
    check_each_life_ends_once(made.events)
    made.backend.close()
    made.remove_all()


@pytest.fixture
def pair(lab: Lab, guest: GuestImage) -> Iterator[tuple[Bench, Bench]]:
    clock = RealClock()
    made = (LabBench(lab, lab.host("h1"), guest, clock), LabBench(lab, lab.host("h2"), guest, clock))
    clock.is_quiet = lambda: all(one.is_quiet() for one in made)
    yield made
    for one in made:
        check_each_life_ends_once(one.events)
        one.backend.close()
        one.remove_all()
