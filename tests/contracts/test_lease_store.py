"""What every lease store must do. A new store joins by a line in `SITES`."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hypervisor_backends.file_leases import FileLeaseStore
from hypervisor_backends.leases import (
    Holder,
    HostLease,
    LeaseDone,
    LeaseFailed,
    LeaseRead,
    LeaseRequest,
    LeaseResult,
    LeaseStore,
    ReadHostLease,
    ReadLease,
    RenewHostLease,
    VmLease,
    WriteVmLease,
)
from hypervisor_backends.memory_leases import MemoryLeases
from hypervisor_backends.shared_plant import SharedPlant
from tests.unit.hypervisor_backends.bench import VirtualScheduler

ANSWER_WITHIN_S = 30.0
StoreOf = Callable[[str], LeaseStore]


def memory(_: Path) -> Iterator[StoreOf]:
    yield MemoryLeases(VirtualScheduler()).store


def shared_plant(directory: Path) -> Iterator[StoreOf]:
    """Each host has the file open for itself, as hosts of several processes have."""
    plants: dict[str, SharedPlant] = {}

    def store_of(host: str) -> LeaseStore:
        if host not in plants:
            plants[host] = SharedPlant(directory / "plant.sqlite")
        return plants[host].lease_store(host)

    yield store_of
    for plant in plants.values():
        plant.close()


class PatientStore:
    """A store that answers on another thread, as its owner hears of it: by waiting for what is posted."""

    def __init__(self, directory: Path, host: str) -> None:
        self._posted: queue.Queue[Callable[[], None]] = queue.Queue()
        self.store = FileLeaseStore(directory, host, self._posted.put)

    def submit(self, request: LeaseRequest, done: LeaseDone) -> None:
        self.store.submit(request, done)
        self._posted.get(timeout=ANSWER_WITHIN_S)()


def files(directory: Path) -> Iterator[StoreOf]:
    stores: dict[str, PatientStore] = {}

    def store_of(host: str) -> LeaseStore:
        if host not in stores:
            stores[host] = PatientStore(directory, host)
        return stores[host]

    yield store_of
    for one in stores.values():
        one.store.close()


SITES: dict[str, Callable[[Path], Iterator[StoreOf]]] = {
    "memory": memory,
    "shared_plant": shared_plant,
    "files": files,
}


@pytest.fixture(params=sorted(SITES))
def store_of(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreOf]:
    yield from SITES[request.param](tmp_path)


def ask(store: LeaseStore, request: LeaseRequest) -> LeaseResult:
    results: list[LeaseResult] = []
    store.submit(request, results.append)
    assert len(results) == 1
    return results[0]


def code(result: LeaseResult) -> str:
    assert isinstance(result, LeaseFailed), result
    return result.code


def write(version: int, *holders: Holder, epoch: int = 1) -> WriteVmLease:
    return WriteVmLease(lease=VmLease(vm_id="v1", version=version, epoch=epoch, holders=holders))


def test_renewal_raises_the_counter_that_others_read(store_of: StoreOf) -> None:
    renewal = RenewHostLease(host="a", boot_id="b1")
    assert ask(store_of("a"), renewal) == HostLease(host="a", boot_id="b1", counter=1)
    assert ask(store_of("a"), renewal) == HostLease(host="a", boot_id="b1", counter=2)
    assert ask(store_of("b"), ReadHostLease(host="a")) == LeaseRead(
        vm=None, hosts=(HostLease(host="a", boot_id="b1", counter=2),)
    )


def test_renewal_of_another_boot_is_refused_unless_it_names_the_one_that_stands(store_of: StoreOf) -> None:
    store = store_of("a")
    ask(store, RenewHostLease(host="a", boot_id="b1"))

    assert code(ask(store, RenewHostLease(host="a", boot_id="b2"))) == "version_changed"
    assert code(ask(store, RenewHostLease(host="a", boot_id="b2", replaces="b0"))) == "version_changed"
    assert ask(store, RenewHostLease(host="a", boot_id="b2", replaces="b1")) == HostLease(
        host="a", boot_id="b2", counter=2
    )
    assert code(ask(store, RenewHostLease(host="a", boot_id="b1"))) == "version_changed"


def test_host_that_never_renewed_has_no_lease(store_of: StoreOf) -> None:
    assert ask(store_of("a"), ReadHostLease(host="z")) == LeaseRead(vm=None, hosts=())


def test_machine_that_was_never_written_has_no_lease(store_of: StoreOf) -> None:
    assert ask(store_of("a"), ReadLease(vm_id="v1")) == LeaseRead(vm=None, hosts=())


def test_write_shows_the_lease_and_its_holders_hosts_in_order(store_of: StoreOf) -> None:
    for host in ("b", "a", "c"):
        ask(store_of(host), RenewHostLease(host=host, boot_id=f"{host}1"))
    holders = (Holder("b", "b1", 1), Holder("a", "a1", 2))
    expected = LeaseRead(
        vm=VmLease(vm_id="v1", version=1, epoch=2, holders=holders),
        hosts=(HostLease(host="a", boot_id="a1", counter=1), HostLease(host="b", boot_id="b1", counter=1)),
    )

    assert ask(store_of("a"), write(0, *holders, epoch=2)) == expected
    assert ask(store_of("c"), ReadLease(vm_id="v1")) == expected


def test_write_from_another_version_changes_nothing(store_of: StoreOf) -> None:
    ask(store_of("a"), write(0, Holder("a", "a1")))
    assert code(ask(store_of("b"), write(0, Holder("b", "b1")))) == "version_changed"
    assert code(ask(store_of("b"), write(2, Holder("b", "b1")))) == "version_changed"

    read = ask(store_of("b"), ReadLease(vm_id="v1"))
    assert isinstance(read, LeaseRead)
    assert read.vm == VmLease(vm_id="v1", version=1, epoch=1, holders=(Holder("a", "a1"),))


def test_freed_lease_keeps_its_version_and_epoch(store_of: StoreOf) -> None:
    ask(store_of("a"), write(0, Holder("a", "a1"), epoch=7))
    ask(store_of("a"), write(1, epoch=7))
    read = ask(store_of("b"), ReadLease(vm_id="v1"))
    assert read == LeaseRead(vm=VmLease(vm_id="v1", version=2, epoch=7), hosts=())


def test_machines_do_not_touch_each_other(store_of: StoreOf) -> None:
    ask(store_of("a"), write(0, Holder("a", "a1")))
    other = WriteVmLease(lease=VmLease(vm_id="v2", version=0, epoch=1, holders=(Holder("b", "b1"),)))
    assert isinstance(ask(store_of("b"), other), LeaseRead)
    assert code(ask(store_of("b"), write(0, Holder("b", "b1")))) == "version_changed"
