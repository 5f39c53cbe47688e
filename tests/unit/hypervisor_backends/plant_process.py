"""Processes on a shared plant that test_shared_plant.py starts and kills.

python plant_process.py take FILE HOST COUNT   raise one machine's lease COUNT times by compare-and-swap; prints wins
python plant_process.py burst FILE HOST        renew for ever, printing each counter once it was answered
python plant_process.py host FILE HOST         plug a host in and stand still
python plant_process.py stuck FILE             begin a change and stand still in it
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from hypervisor_backends.leases import (
    Holder,
    HostLease,
    LeaseFailed,
    LeaseRead,
    LeaseResult,
    ReadLease,
    RenewHostLease,
    VmLease,
    WriteVmLease,
)
from hypervisor_backends.plant_file import PlantFile
from hypervisor_backends.shared_plant import PlantLeaseStore, SharedPlant
from tests.unit.hypervisor_backends.bench import VirtualScheduler


def take(path: Path, host: str, count: int) -> None:
    store = SharedPlant(path).lease_store(host)
    won = 0
    while won < count:
        results: list[LeaseResult] = []
        store.submit(ReadLease(vm_id="v1"), results.append)
        read = results[0]
        if isinstance(read, LeaseFailed):
            continue
        assert isinstance(read, LeaseRead)
        lease = read.vm or VmLease(vm_id="v1")
        won += _swap(store, lease, host)
    print(won)


def _swap(store: PlantLeaseStore, lease: VmLease, host: str) -> bool:
    """The epoch counts the swaps: each adds one to what it read."""
    changed = VmLease(vm_id="v1", version=lease.version, epoch=lease.epoch + 1, holders=(Holder(host, "b1"),))
    results: list[LeaseResult] = []
    store.submit(WriteVmLease(lease=changed), results.append)
    return isinstance(results[0], LeaseRead)


def burst(path: Path, host: str) -> None:
    store = SharedPlant(path).lease_store(host)
    while True:
        store.submit(RenewHostLease(host=host, boot_id="b1"), _tell)


def _tell(result: LeaseResult) -> None:
    if isinstance(result, HostLease):
        print(result.counter, flush=True)


def host(path: Path, name: str) -> None:
    SharedPlant(path).power(name).plug_in(
        VirtualScheduler(), lambda on: print("on" if on else "off", flush=True)
    )
    time.sleep(600)


def stuck(path: Path) -> None:
    with PlantFile(path).changing():
        print("in", flush=True)
        time.sleep(600)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["take", path, name, count]:
            take(Path(path), name, int(count))
        case ["burst", path, name]:
            burst(Path(path), name)
        case ["host", path, name]:
            host(Path(path), name)
        case ["stuck", path]:
            stuck(Path(path))
