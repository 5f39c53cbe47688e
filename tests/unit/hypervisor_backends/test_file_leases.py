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

from hypervisor_backends import file_lease_rows
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


@pytest.mark.parametrize("data", [b"", b"{}", b"\0" * 12_288, b"olvm lease 2\n".ljust(12_288, b"\0")])
def test_file_that_is_no_row_is_unreachable_and_named(owner: Owner, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "vm-v1").write_bytes(data)
    assert "vm-v1" in failure(owner.ask(ReadLease(vm_id="v1")))
    assert (tmp_path / "vm-v1").read_bytes() == data


def test_row_that_lost_its_end_is_damaged_and_not_free(owner: Owner, tmp_path: Path) -> None:
    owner.ask(write(0))
    (file,) = tmp_path.glob("vm-*")
    whole = file.read_bytes()
    for length in range(0, len(whole), 61):
        file.write_bytes(whole[:length])
        failure(owner.ask(ReadLease(vm_id="v/1")))


def test_bit_that_flips_in_what_counts_is_noticed_and_never_brings_back_the_row_before(
    owner: Owner, tmp_path: Path
) -> None:
    owner.ask(write(0))
    owner.ask(write(1, "b"))
    (file,) = tmp_path.glob("vm-*")
    whole = file.read_bytes()
    header, row = file_lease_rows.HEADER.size + 4, 2 * file_lease_rows.BLOCK
    end = row + len(whole[row:].rstrip(b"\0"))
    noticed = 0
    for at in (*range(header), *range(row, end)):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        result = owner.ask(ReadLease(vm_id="v/1"))
        if isinstance(result, LeaseFailed):
            noticed += 1
        else:
            assert isinstance(result, LeaseRead)
            assert result.vm is not None
            assert result.vm.version == 2
    assert noticed == header + end - row


@pytest.mark.parametrize("step", range(1, 5))
def test_crash_in_the_middle_of_a_write_leaves_the_old_row_or_the_new(
    owner: Owner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """A write is two writes and two syncs; the process ends after so many of them, or within the next."""
    owner.ask(write(0))
    owner.ask(ReadHostLease(host="b"))  # its row is made by this, and not by the write
    steps = 0
    write_at, sync = file_lease_rows._write_at, os.fsync

    def count() -> None:
        nonlocal steps
        steps += 1
        if steps == step:
            raise OSError(5, "the power is gone")

    def torn(descriptor: int, data: bytes, offset: int) -> None:
        if offset:  # a row may be torn; the header is smaller than a sector
            write_at(descriptor, data[: len(data) // 2], offset)
        count()
        write_at(descriptor, data, offset)

    def synced(descriptor: int) -> None:
        count()
        sync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(file_lease_rows, "_write_at", torn)
        patch.setattr(os, "fsync", synced)
        failure(owner.ask(write(1, "b")))
    read = owner.ask(ReadLease(vm_id="v/1"))
    assert isinstance(read, LeaseRead)
    assert read.vm is not None
    assert (read.vm.version, read.vm.holders[0].host) == ((1, "a") if step < 4 else (2, "b"))
    assert isinstance(owner.ask(write(read.vm.version, "c")), LeaseRead)


@pytest.mark.parametrize("was_written", [True, False])
def test_row_that_was_renamed_by_hand_is_refused(owner: Owner, tmp_path: Path, was_written: bool) -> None:
    owner.ask(RenewHostLease(host="a", boot_id="b1") if was_written else ReadHostLease(host="a"))
    (tmp_path / "host-a").rename(tmp_path / "host-b")
    assert "not the row of host b" in failure(owner.ask(ReadHostLease(host="b")))


def test_name_that_no_file_can_have_is_refused(owner: Owner) -> None:
    assert "too long" in failure(owner.ask(ReadLease(vm_id="v" * 300)))


def test_row_that_needs_more_room_than_there_is_changes_nothing(owner: Owner) -> None:
    holders = tuple(Holder("h" * 90, "b" * 90, n) for n in range(30))
    huge = WriteVmLease(lease=VmLease(vm_id="v/1", version=0, holders=holders))
    assert "there is room for" in failure(owner.ask(huge))
    assert owner.ask(ReadLease(vm_id="v/1")) == LeaseRead(vm=None, hosts=())


def test_directory_that_vanishes_is_unreachable_and_works_when_it_is_back(
    owner: Owner, tmp_path: Path
) -> None:
    home, away = tmp_path / "leases", tmp_path / "away"
    home.mkdir()
    one = Owner(home)
    assert isinstance(one.ask(RenewHostLease(host="a", boot_id="b1")), HostLease)
    home.rename(away)
    assert "No such file" in failure(one.ask(RenewHostLease(host="a", boot_id="b1")))
    away.rename(home)
    assert one.ask(RenewHostLease(host="a", boot_id="b1")) == HostLease(host="a", boot_id="b1", counter=2)
    one.store.close()


def test_directory_that_is_not_mounted_is_unreachable(tmp_path: Path) -> None:
    one = Owner(tmp_path / "absent")
    assert "No such file" in failure(one.ask(RenewHostLease(host="a", boot_id="b1")))
    one.store.close()


def test_lock_that_somebody_keeps_ends_in_unreachable(
    owner: Owner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_lease_rows, "LOCK_WITHIN_S", 0.1)
    owner.ask(ReadLease(vm_id="v1"))
    descriptor = os.open(tmp_path / "vm-v1", os.O_RDWR)
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    assert "held its lock" in failure(owner.ask(ReadLease(vm_id="v1")))
    assert isinstance(owner.ask(ReadLease(vm_id="v2")), LeaseRead)
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
    acknowledged: list[int] = []
    for round_ in range(4):
        children = [
            subprocess.Popen([sys.executable, str(WRITER), str(tmp_path), name], stdout=subprocess.PIPE)
            for name in ("a", "b", "c")
        ]
        for number, child in enumerate(children):
            assert child.stdout is not None
            for _ in range(5 + 3 * number + round_):
                acknowledged.append(int(child.stdout.readline()))
            child.send_signal(signal.SIGKILL)
        for child in children:
            assert child.stdout is not None
            rest = child.stdout.read().splitlines(keepends=True)
            acknowledged += [int(line) for line in rest if line.endswith(b"\n")]
            child.wait()
            child.stdout.close()
        reader = Owner(tmp_path)
        read = reader.ask(ReadLease(vm_id="v1"))
        reader.store.close()
        assert isinstance(read, LeaseRead), read
        assert read.vm is not None
        assert read.vm.version >= max(acknowledged)
    assert len(set(acknowledged)) == len(acknowledged), (
        "two writers were told that they wrote the same version"
    )
