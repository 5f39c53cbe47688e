"""The hypervisor backends that the contract suites run on, and what a test asks before it begins.

A new backend joins by a line in `BENCHES`, and one in `PAIRS` if it migrates.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from hypervisor_backends.measurements import DomainStatistics
from hypervisor_backends.protocol import (
    BulkStatistics,
    CallSucceeded,
    CancelMigration,
    Capabilities,
    ContinueDomain,
    DestroyDomain,
    DomainRequest,
    GetMigrationStatistics,
    PauseDomain,
    RebootDomain,
    ResetDomain,
    ShutdownDomain,
    StartPostCopy,
    StatisticsReport,
    SuspendDomain,
)
from hypervisor_backends.simulated import SimulatedHypervisor
from hypervisor_backends.simulated_config import SimulatedConfig
from hypervisor_backends.simulated_fabric import MemoryFabric
from tests.unit.hypervisor_backends.bench import (
    GIB,
    Bench,
    VirtualScheduler,
    simulated_bench,
)


def simulated() -> Bench:
    return simulated_bench(SimulatedConfig(saved_memory_shared=False))[0]


def simulated_instant() -> Bench:
    config = msgspec.structs.replace(SimulatedConfig.instant(), saved_memory_shared=False)
    return simulated_bench(config)[0]


def simulated_bare() -> Bench:
    """Can do nothing that may be left out."""
    capabilities = Capabilities(cpus=16, memory_bytes=64 * GIB)
    scheduler = VirtualScheduler()
    return Bench(SimulatedHypervisor("h1", capabilities, scheduler, 1), scheduler)


def libvirt_test_driver() -> Bench:
    """libvirt's own driver for tests: one in this process, so each bench leaves it as it found it."""
    pytest.importorskip("libvirt", reason="libvirt-python is not installed (`make apt-libvirt`)")
    from tests.unit.hypervisor_backends.libvirt_bench import driver_bench

    return driver_bench()


BENCHES: dict[str, Callable[[], Bench]] = {
    "libvirt_test_driver": libvirt_test_driver,
    "simulated": simulated,
    "simulated_instant": simulated_instant,
    "simulated_bare": simulated_bare,
}


def simulated_pair(config: SimulatedConfig) -> tuple[Bench, Bench]:
    scheduler, fabric = VirtualScheduler(), MemoryFabric()
    first, _ = simulated_bench(config, scheduler=scheduler, fabric=fabric)
    second, _ = simulated_bench(config, name="h2", scheduler=scheduler, fabric=fabric)
    return first, second


# Two hosts that can migrate to each other, on one scheduler.
PAIRS: dict[str, Callable[[], tuple[Bench, Bench]]] = {
    "simulated": lambda: simulated_pair(SimulatedConfig()),
    "simulated_instant": lambda: simulated_pair(SimulatedConfig.instant()),
}
DOMAIN_REQUESTS: tuple[type[DomainRequest], ...] = (
    ShutdownDomain,
    DestroyDomain,
    RebootDomain,
    ResetDomain,
    SuspendDomain,
    PauseDomain,
    ContinueDomain,
    StartPostCopy,
    CancelMigration,
    GetMigrationStatistics,
)


def need(bench: Bench, *features: str) -> None:
    missing = set(features) - set(bench.backend.capabilities.features)
    if missing:
        pytest.skip(f"this backend does not declare {sorted(missing)}")


def need_measures(bench: Bench) -> None:
    if not bench.measures:
        pytest.skip("this backend measures nothing")


def sample_of(bench: Bench, vm_id: str = "v1") -> DomainStatistics:
    """A sample that was begun after this."""
    report = bench.ask(BulkStatistics())
    assert isinstance(report, CallSucceeded)
    assert isinstance(report.value, StatisticsReport)
    return next(domain for domain in report.value.domains if domain.vm_id == vm_id)
