"""The suite of tasks that every backend keeps, on real libvirt and QEMU: one machine for all of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hypervisor_backends.cloud_init import seed_iso
from hypervisor_backends.libvirt_backend import LibvirtHypervisor
from hypervisor_backends.libvirt_settings import libvirt_settings_from
from hypervisor_backends.protocol import DestroyDomain, StartDomain
from olvm.lab.guest import GuestImage
from olvm.lab.hosts import Lab
from olvm.model.hardware import CloudInit
from tests.contracts.test_hypervisor_devices import *  # noqa: F403
from tests.contracts.test_hypervisor_networks import *  # noqa: F403
from tests.contracts.test_hypervisor_snapshots import *  # noqa: F403
from tests.contracts.test_hypervisor_storage import *  # noqa: F403
from tests.contracts.test_hypervisor_tasks import *  # noqa: F403
from tests.unit.hypervisor_backends.bench import Bench, RealClock
from tests.unit.hypervisor_backends.task_bench import VM, TaskBench, spec_of


@pytest.fixture(scope="module")
def tasks(lab: Lab, guest: GuestImage) -> Iterator[TaskBench]:
    clock, opened = RealClock(), []  # type: ignore[var-annotated]
    settings = libvirt_settings_from({**lab.host("h1").settings, "pools_period_s": 1.0})
    LibvirtHypervisor.open("h1", settings, clock.post, clock.now_ns, opened.append)
    assert clock.run_until(lambda: opened, 60)
    (backend,) = opened
    assert isinstance(backend, LibvirtHypervisor), backend
    clock.is_quiet = lambda: backend.busy_count == 0
    bench = Bench(backend, clock)
    media = []
    for word in ("one", "two"):
        path = lab.shared / "images" / f"{word}.iso"
        path.write_bytes(seed_iso(word, word, CloudInit(user_data=word)))
        media.append(str(path))
    guest = guest.without_our_agent()
    kernel = {"kernel": str(guest.kernel), "initrd": str(guest.initrd), "cmdline": guest.cmdline}
    bench.succeed(StartDomain(vm_id=VM, epoch=1, spec=spec_of(**kernel)))
    assert clock.run_until(lambda: bench.status(VM) == "up", 90)
    yield TaskBench(bench, str(lab.shared / "pools"), (media[0], media[1]))
    bench.succeed(DestroyDomain(vm_id=VM))
    backend.close()
