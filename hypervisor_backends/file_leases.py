"""Leases as files in a directory that hosts share: NFSv4, a cluster file system, or one machine's own disk.

A row is a file. Every call holds the lock of the directory, shared to read and alone to change, so calls take effect
one after another, whichever process makes them. A change is written beside, synced and renamed: a crash at any point
leaves the old row or the new one. What is not a row of ours is never taken for a free lease: it is `unreachable`, and
the message names the file.

All of it happens on a thread of the store, because a storage that hangs must not hang the owner; answers come by
`post`. Locks are of the open file (OFD), so that two stores of one process exclude each other too. The file system
must have real locks; what a mount with `nolock` promises is worth nothing.
"""

from __future__ import annotations

import errno
import fcntl
import os
import queue
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias, TypeVar
from urllib.parse import quote

import msgspec

from hypervisor_backends.leases import (
    HostLease,
    LeaseDone,
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
from hypervisor_backends.memory_leases import renewed, written
from olvm.model.limits import LEASE_CALLS_WAITING_MAX

Post: TypeAlias = Callable[[Callable[[], None]], None]
Row = TypeVar("Row", HostLease, VmLease)

LOCK_WITHIN_S = 4.0  # below the keeper's own time-out of 5 s: the message then says why
LOCK_POLL_S = 0.005
MARK = b"olvm lease 1\n"  # the format; another number is a row of another version


class FileLeaseStore:
    """One host's way to the leases in `directory`. It must be there: making it would hide that nothing is mounted."""

    def __init__(self, directory: Path, host: str, post: Post) -> None:
        self._directory = directory
        self._host = host
        self._post = post
        self._asked: queue.Queue[tuple[LeaseRequest, LeaseDone] | None] = queue.Queue(LEASE_CALLS_WAITING_MAX)
        self._thread = threading.Thread(target=self._serve, name=f"leases-{host}", daemon=True)
        self._thread.start()

    def submit(self, request: LeaseRequest, done: LeaseDone) -> None:
        try:
            self._asked.put_nowait((request, done))
        except queue.Full:  # the thread hangs in the storage, and has for long
            done(self._unreachable("it does not answer, and too many calls wait for it"))

    def close(self) -> None:
        """Calls that wait are not answered. A thread that hangs in the storage is left to it."""
        while not self._asked.empty():
            try:
                self._asked.get_nowait()
            except queue.Empty:
                break
        self._asked.put(None)
        self._thread.join(timeout=0.5)

    # ------------------------------------------------------------------ the thread

    def _serve(self) -> None:
        while (asked := self._asked.get()) is not None:
            request, done = asked
            result = self._answer(request)
            self._post(lambda done=done, result=result: done(result))  # type: ignore[misc]

    def _answer(self, request: LeaseRequest) -> LeaseResult:
        try:
            with self._locked(alone=isinstance(request, RenewHostLease | WriteVmLease)):
                return self._apply(request)
        except OSError as error:
            return self._unreachable(str(error))
        except NotALease as error:
            return self._unreachable(str(error))

    def _unreachable(self, why: str) -> LeaseFailed:
        words = f"the leases in {self._directory} did not serve host {self._host}: {why}"
        return LeaseFailed(code="unreachable", message=words)

    def _apply(self, request: LeaseRequest) -> LeaseResult:
        match request:
            case RenewHostLease():
                lease = renewed(self._host_lease(request.host), request)
                if isinstance(lease, HostLease):
                    self._write("host", request.host, lease)
                return lease
            case WriteVmLease():
                changed = written(self._vm_lease(request.lease.vm_id), request)
                if isinstance(changed, LeaseFailed):
                    return changed
                self._write("vm", changed.vm_id, changed)
                return self._with_holders(changed)
            case ReadLease():
                return self._with_holders(self._vm_lease(request.vm_id))
            case ReadHostLease():
                found = self._host_lease(request.host)
                return LeaseRead(vm=None, hosts=() if found is None else (found,))

    def _with_holders(self, lease: VmLease | None) -> LeaseRead:
        names = () if lease is None else sorted({holder.host for holder in lease.holders})
        found = [self._host_lease(name) for name in names]
        return LeaseRead(vm=lease, hosts=tuple(one for one in found if one is not None))

    # ------------------------------------------------------------------ files

    @contextmanager
    def _locked(self, *, alone: bool) -> Iterator[None]:
        descriptor = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _lock(descriptor, fcntl.F_WRLCK if alone else fcntl.F_RDLCK)
            yield
        finally:
            os.close(descriptor)  # and with it the lock

    def _path(self, kind: str, name: str) -> Path:
        return self._directory / f"{kind}-{quote(name, safe='')}"

    def _host_lease(self, host: str) -> HostLease | None:
        lease = _read(self._path("host", host), HostLease)
        return _belonging(lease, host, "" if lease is None else lease.host)

    def _vm_lease(self, vm_id: str) -> VmLease | None:
        lease = _read(self._path("vm", vm_id), VmLease)
        return _belonging(lease, vm_id, "" if lease is None else lease.vm_id)

    def _write(self, kind: str, name: str, row: HostLease | VmLease) -> None:
        path = self._path(kind, name)
        body = msgspec.json.encode(row)
        part = path.with_name(
            f"{path.name}.part"
        )  # one writer at a time: a predecessor's that was killed is overwritten
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            _write_all(descriptor, MARK + struct.pack(">I", zlib.crc32(body)) + body)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        part.rename(path)
        _sync_directory(self._directory)


class NotALease(Exception):
    """A file that stands where a row would, and is none."""


def _lock(descriptor: int, kind: int) -> None:
    """Raises `OSError` when somebody else holds it for too long: one that stands still must not hold up all."""
    deadline_s = time.monotonic() + LOCK_WITHIN_S
    wanted = struct.pack("hhqqi4x", kind, os.SEEK_SET, 0, 0, 0)
    while True:
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, wanted)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            if time.monotonic() > deadline_s:
                raise OSError(
                    errno.ETIMEDOUT, f"another process has held its lock for {LOCK_WITHIN_S:g} s"
                ) from error
            time.sleep(LOCK_POLL_S)
        else:
            return


def _read(path: Path, kind: type[Row]) -> Row | None:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    head = len(MARK) + 4
    if not data.startswith(MARK) or len(data) < head:
        raise NotALease(f"{path} is no lease of this version; find out who wrote it before you remove it")
    (expected,) = struct.unpack(">I", data[len(MARK) : head])
    body = data[head:]
    if zlib.crc32(body) != expected:
        raise NotALease(f"{path} is damaged; see that no machine that it names runs before you remove it")
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise NotALease(f"{path} is no lease: {error}") from error


def _belonging(row: Row | None, name: str, named: str) -> Row | None:
    if row is not None and named != name:
        raise NotALease(f"the row of {name} is about {named}; a file was renamed by hand")
    return row


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
