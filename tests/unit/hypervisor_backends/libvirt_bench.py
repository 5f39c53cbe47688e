"""libvirt's test driver on the bench: virtual time, and workers that do their work at once."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache

import libvirt

from hypervisor_backends.libvirt_backend import LibvirtHypervisor
from hypervisor_backends.libvirt_events import start_event_loop
from hypervisor_backends.libvirt_settings import LibvirtSettings
from hypervisor_backends.libvirt_workers import InlineWorkers
from tests.unit.hypervisor_backends.bench import Bench, VirtualScheduler

MIB = 1024 * 1024
URI = "test:///default"
# Of libvirt's own making: the driver's host. The domain "test" that it begins with is nobody's machine.
CPUS, MEMORY_BYTES = 16, 3072 * MIB


@cache
def saved_directory() -> str:
    directory = tempfile.mkdtemp(prefix="olvm-saved-memory-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return directory


def clear_driver() -> None:
    """It lives as long as this process: take away what an earlier test left."""
    start_event_loop()
    shutil.rmtree(saved_directory(), ignore_errors=True)
    connection = libvirt.open(URI)
    for domain in connection.listAllDomains(0):
        if domain.name() != "test":
            if domain.isActive():
                domain.destroy()
            domain.undefine()
    connection.close()


def driver_bench(name: str = "h1", scheduler: VirtualScheduler | None = None, *, clear: bool = True) -> Bench:
    """What libvirt's event thread tells is dropped: here each call's own end says all there is."""
    if clear:
        clear_driver()
    scheduler = scheduler or VirtualScheduler()
    settings = LibvirtSettings(
        uri=URI, guest_wait_timeout_s=5.0, saved_memory_directory=saved_directory(), statistics_period_s=1e6
    )
    backend = LibvirtHypervisor(
        name,
        settings,
        lambda _fn: None,
        scheduler.now_ns,
        workers=InlineWorkers(scheduler),
        timers=scheduler,
    )
    scheduler.advance(0)
    return Bench(
        backend, scheduler, cpus=CPUS, memory_bytes=MEMORY_BYTES, domain_bytes=512 * MIB, measures=False
    )
