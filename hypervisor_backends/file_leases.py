"""Leases as files in a directory that hosts share: NFSv4, a cluster file system, or one machine's own disk.

A row is a file (`file_lease_rows.py`), locked while a call works on it: shared to read, alone to change. What a call
reads of several rows stays locked until it has read all, so that it has seen them at one instant. What is not a row of
ours is never taken for a free lease: it is `unreachable`, and the message names the file.

All of it happens on a thread of the store, because a storage that hangs must not hang the owner; answers come by
`post`. The file system must have real locks; what a mount with `nolock` promises is worth nothing.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TypeAlias, TypeVar
from urllib.parse import quote

import msgspec

from hypervisor_backends.file_lease_rows import NotALease, RowFile, open_row
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

NAME_BYTES_MAX = 200  # of a file, with a prefix and room for what makes it new


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
        with contextlib.suppress(queue.Empty):
            while True:
                self._asked.get_nowait()
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
            with ExitStack() as locks:
                return self._apply(request, locks)
        except (OSError, NotALease) as error:
            return self._unreachable(str(error))

    def _unreachable(self, why: str) -> LeaseFailed:
        words = f"the leases in {self._directory} did not serve host {self._host}: {why}"
        return LeaseFailed(code="unreachable", message=words)

    def _apply(self, request: LeaseRequest, locks: ExitStack) -> LeaseResult:
        """A machine's row is always locked before those of hosts: no two calls wait for each other."""
        match request:
            case RenewHostLease():
                row = self._row("host", request.host, locks, alone=True)
                lease = renewed(self._host_lease(row, request.host), request)
                if isinstance(lease, HostLease):
                    row.write(msgspec.json.encode(lease))
                return lease
            case WriteVmLease():
                row = self._row("vm", request.lease.vm_id, locks, alone=True)
                changed = written(self._vm_lease(row, request.lease.vm_id), request)
                if isinstance(changed, LeaseFailed):
                    return changed
                hosts = self._holders(
                    changed, locks
                )  # before the write: what fails here must not look like no effect
                row.write(msgspec.json.encode(changed))
                return LeaseRead(vm=changed, hosts=hosts)
            case ReadLease():
                found = self._vm_lease(self._row("vm", request.vm_id, locks), request.vm_id)
                return LeaseRead(vm=found, hosts=self._holders(found, locks))
            case ReadHostLease():
                host = self._host_lease(self._row("host", request.host, locks), request.host)
                return LeaseRead(vm=None, hosts=() if host is None else (host,))

    def _holders(self, lease: VmLease | None, locks: ExitStack) -> tuple[HostLease, ...]:
        names = () if lease is None else sorted({holder.host for holder in lease.holders})
        found = [self._host_lease(self._row("host", name, locks), name) for name in names]
        return tuple(one for one in found if one is not None)

    # ------------------------------------------------------------------ rows

    def _row(self, kind: str, name: str, locks: ExitStack, *, alone: bool = False) -> RowFile:
        file = f"{kind}-{quote(name, safe='')}"
        if len(file) > NAME_BYTES_MAX:
            raise NotALease(f"the name {name[:40]}… is too long for a file")
        row = open_row(self._directory / file, f"{kind} {name}", alone=alone)
        locks.callback(row.close)
        return row

    def _host_lease(self, row: RowFile, host: str) -> HostLease | None:
        lease = _decoded(row, HostLease)
        return _about(lease, host, "" if lease is None else lease.host)

    def _vm_lease(self, row: RowFile, vm_id: str) -> VmLease | None:
        lease = _decoded(row, VmLease)
        return _about(lease, vm_id, "" if lease is None else lease.vm_id)


def _decoded(row: RowFile, kind: type[Row]) -> Row | None:
    data = row.read()
    try:
        return None if data is None else msgspec.json.decode(data, type=kind)
    except msgspec.DecodeError as error:
        raise NotALease(f"what stands in the place of a {kind.__name__} is none: {error}") from error


def _about(row: Row | None, name: str, named: str) -> Row | None:
    if row is not None and named != name:
        raise NotALease(f"the row of {name} is about {named}; a file was renamed by hand")
    return row
