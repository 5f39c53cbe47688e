"""Leases as files: what is torn, foreign, hanging or killed never reads as free."""

from __future__ import annotations

import fcntl
import os
import queue
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hypervisor_backends import file_leases
from hypervisor_backends.file_leases import FileLeaseStore
from hypervisor_backends.leases import (
    Holder,
    HostLease,
    LeaseFailed,
    LeaseRead,
    LeaseRequest,
    LeaseResult,
    ReadHostLease,
    ReadLease,
    RenewHostLease,
    VmLease,
    WriteVmLease,
)

WRITER = Path(__file__).with_name("lease_writer.py")


class Owner:
    """The thread of the store's owner, as far as a test needs it."""

    def __init__(self, directory: Path, host: str = "a") -> None:
        self.posted: queue.Queue[Callable[[], None]] = queue.Queue()
        self.store = FileLeaseStore(directory, host, self.posted.put)

    def ask(self, request: LeaseRequest) -> LeaseResult:
        results: list[LeaseResult] = []
        self.store.submit(request, results.append)
        while not results:
            self.posted.get(timeout=30)()
        return results[0]


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[Owner]:
    one = Owner(tmp_path)
    yield one
    one.store.close()


def write(version: int, host: str = "a") -> WriteVmLease:
    return WriteVmLease(
        lease=VmLease(vm_id="v/1", version=version, epoch=1, holders=(Holder(host, "b1", 1),))
    )


def failure(result: LeaseResult) -> str:
    assert isinstance(result, LeaseFailed), result
    assert result.code == "unreachable"
    return result.message


def test_row_of_a_name_with_strange_letters_is_found_again(owner: Owner) -> None:
    assert isinstance(owner.ask(write(0)), LeaseRead)
    read = owner.ask(ReadLease(vm_id="v/1"))
    assert isinstance(read, LeaseRead)
    assert read.vm is not None
    assert read.vm.version == 1


@pytest.mark.parametrize("data", [b"", b"{}", b"olvm lease 2\n1234{}", b"olvm lease 1\n\0\0\0\0{}"])
def test_file_that_is_no_row_is_unreachable_and_named(owner: Owner, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "vm-v1").write_bytes(data)
    assert "vm-v1" in failure(owner.ask(ReadLease(vm_id="v1")))
    assert (tmp_path / "vm-v1").read_bytes() == data


def test_row_that_lost_its_end_is_damaged_and_not_free(owner: Owner, tmp_path: Path) -> None:
    owner.ask(write(0))
    (file,) = tmp_path.glob("vm-*")
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        failure(owner.ask(ReadLease(vm_id="v/1")))


def test_row_that_was_renamed_by_hand_is_refused(owner: Owner, tmp_path: Path) -> None:
    owner.ask(RenewHostLease(host="a", boot_id="b1"))
    (tmp_path / "host-a").rename(tmp_path / "host-b")
    assert "about a" in failure(owner.ask(ReadHostLease(host="b")))


def test_directory_that_is_not_mounted_is_unreachable(tmp_path: Path) -> None:
    one = Owner(tmp_path / "absent")
    assert "No such file" in failure(one.ask(RenewHostLease(host="a", boot_id="b1")))
    one.store.close()


def test_lock_that_somebody_keeps_ends_in_unreachable(
    owner: Owner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_leases, "LOCK_WITHIN_S", 0.1)
    descriptor = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    assert "held its lock" in failure(owner.ask(ReadLease(vm_id="v1")))
    os.close(descriptor)
    assert isinstance(owner.ask(ReadLease(vm_id="v1")), LeaseRead)


def test_two_stores_of_one_process_lose_no_renewal(tmp_path: Path) -> None:
    first, second = Owner(tmp_path), Owner(tmp_path)
    counters = []
    for _ in range(50):
        for one in (first, second):
            lease = one.ask(RenewHostLease(host="a", boot_id="b1"))
            assert isinstance(lease, HostLease)
            counters.append(lease.counter)
    assert counters == list(range(1, 101))
    first.store.close()
    second.store.close()


def test_writers_that_are_killed_leave_whole_rows_and_lose_no_acknowledged_write(tmp_path: Path) -> None:
    """Three processes compare-and-swap one row; each is killed at some moment, and another takes its place."""
    acknowledged = 0
    for round_ in range(6):
        children = [
            subprocess.Popen([sys.executable, str(WRITER), str(tmp_path), name], stdout=subprocess.PIPE)
            for name in ("a", "b", "c")
        ]
        for number, child in enumerate(children):
            assert child.stdout is not None
            for _ in range(5 + 3 * number + round_):
                acknowledged = max(acknowledged, int(child.stdout.readline()))
            child.send_signal(signal.SIGKILL)
        for child in children:
            assert child.stdout is not None
            told = [
                int(line) for line in child.stdout.read().splitlines(keepends=True) if line.endswith(b"\n")
            ]
            acknowledged = max([acknowledged, *told])
            child.wait()
            child.stdout.close()
        reader = Owner(tmp_path)
        read = reader.ask(ReadLease(vm_id="v1"))
        reader.store.close()
        assert isinstance(read, LeaseRead), read
        assert read.vm is not None
        assert read.vm.version >= acknowledged
