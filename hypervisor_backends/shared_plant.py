"""What simulated hosts of several processes share, in one SQLite file: a storage, power and a wire.

Decides nothing about machines. One `SharedPlant` per thread; any number of processes on one machine. Every change is
one transaction, so a process that dies leaves nothing half done; a file that stays locked for longer than
`plant_file.BUSY_TIMEOUT_S` answers `unreachable`, as a storage does. There is no thread: the file is looked at
through `Scheduler.call_at`, and only while a power order or mail is awaited.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from hypervisor_backends.leases import (
    Holder,
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
from hypervisor_backends.plant_file import POLL_PERIOD_S, PlantFile
from hypervisor_backends.plant_power import PlantFenceDevices, PlantPower
from hypervisor_backends.protocol import Cancel, Scheduler
from hypervisor_backends.snapshot_store import TakenSnapshot
from olvm.model.limits import PLANT_MAIL_PER_HOST_MAX

__all__ = [
    "PlantFabric",
    "PlantFenceDevices",
    "PlantLeaseStore",
    "PlantPower",
    "PlantSnapshots",
    "SharedPlant",
]

Receive = Callable[[str, bytes], None]
_holders = msgspec.msgpack.Decoder(tuple[Holder, ...])
_snapshots = msgspec.msgpack.Decoder(tuple[TakenSnapshot, ...])


class SharedPlant:
    """Raises `Conflict`, `JournalCorrupt` or `NotSupportedYet` when the file cannot be opened."""

    def __init__(self, path: Path) -> None:
        self._file = PlantFile(Path(path))

    def lease_store(self, host: str) -> PlantLeaseStore:
        return PlantLeaseStore(self._file, host)

    def fence_devices(self) -> PlantFenceDevices:
        return PlantFenceDevices(self._file)

    def power(self, host: str) -> PlantPower:
        return PlantPower(self._file, host)

    def fabric(self, scheduler: Scheduler, *, poll_period_s: float = POLL_PERIOD_S) -> PlantFabric:
        return PlantFabric(self._file, scheduler, poll_period_s)

    def snapshots(self) -> PlantSnapshots:
        return PlantSnapshots(self._file)

    def close(self) -> None:
        """Unplug hosts and detach from the fabric first: both look at the file."""
        self._file.close()


class PlantLeaseStore:
    """One host's way to the leases in the file. Answers before `submit` returns."""

    def __init__(self, file: PlantFile, host: str) -> None:
        self._file = file
        self._host = host

    def submit(self, request: LeaseRequest, done: LeaseDone) -> None:
        try:
            is_change = isinstance(request, RenewHostLease | WriteVmLease)
            with self._file.changing() if is_change else self._file.reading() as database:
                result = _apply(database, request)
        except sqlite3.Error as error:
            words = f"the shared plant {self._file.path} did not serve host {self._host}: {error}"
            result = LeaseFailed(code="unreachable", message=words)
        done(result)


def _apply(database: sqlite3.Connection, request: LeaseRequest) -> LeaseResult:
    match request:
        case RenewHostLease():
            lease = renewed(_host_lease(database, request.host), request)
            if isinstance(lease, HostLease):
                row = (lease.host, lease.boot_id, lease.counter)
                database.execute("insert or replace into host_leases values (?, ?, ?)", row)
            return lease
        case WriteVmLease():
            changed = written(_vm_lease(database, request.lease.vm_id), request)
            if isinstance(changed, LeaseFailed):
                return changed
            holders = msgspec.msgpack.encode(changed.holders)
            columns = (changed.vm_id, changed.version, changed.epoch, holders)
            database.execute("insert or replace into vm_leases values (?, ?, ?, ?)", columns)
            return _read(database, changed.vm_id)
        case ReadLease():
            return _read(database, request.vm_id)
        case ReadHostLease():
            found = _host_lease(database, request.host)
            return LeaseRead(vm=None, hosts=() if found is None else (found,))


def _host_lease(database: sqlite3.Connection, host: str) -> HostLease | None:
    row = database.execute("select boot_id, counter from host_leases where host = ?", (host,)).fetchone()
    return None if row is None else HostLease(host=host, boot_id=row[0], counter=row[1])


def _vm_lease(database: sqlite3.Connection, vm_id: str) -> VmLease | None:
    row = database.execute(
        "select version, epoch, holders from vm_leases where vm_id = ?", (vm_id,)
    ).fetchone()
    if row is None:
        return None
    return VmLease(vm_id=vm_id, version=row[0], epoch=row[1], holders=_holders.decode(row[2]))


def _read(database: sqlite3.Connection, vm_id: str) -> LeaseRead:
    lease = _vm_lease(database, vm_id)
    names = sorted({holder.host for holder in lease.holders}) if lease is not None else []
    found = [_host_lease(database, name) for name in names]
    return LeaseRead(vm=lease, hosts=tuple(one for one in found if one is not None))


class PlantSnapshots:
    """A `SnapshotStore`."""

    def __init__(self, file: PlantFile) -> None:
        self._file = file

    def of(self, vm_id: str) -> tuple[TakenSnapshot, ...]:
        with self._answering(), self._file.reading() as database:
            row = database.execute("select content from snapshots where vm_id = ?", (vm_id,)).fetchone()
        return () if row is None else _snapshots.decode(row[0])

    def keep(self, vm_id: str, snapshots: tuple[TakenSnapshot, ...]) -> None:
        with self._answering(), self._file.changing() as database:
            if snapshots:
                row = (vm_id, msgspec.msgpack.encode(snapshots))
                database.execute("insert or replace into snapshots values (?, ?)", row)
            else:
                database.execute("delete from snapshots where vm_id = ?", (vm_id,))

    @contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise OSError(f"the shared plant {self._file.path}: {error}") from error


class PlantFabric:
    """Carries bytes between simulated hosts. Best effort: what is sent to a host that is not attached is lost."""

    def __init__(self, file: PlantFile, scheduler: Scheduler, poll_period_s: float) -> None:
        self._file = file
        self._scheduler = scheduler
        self._poll_period_s = poll_period_s
        self._receive_by_host: dict[str, Receive] = {}
        self._stop: Cancel | None = None

    def attach(self, host: str, receive: Receive) -> None:
        """Mail for an earlier boot of the host is thrown away."""
        self._receive_by_host[host] = receive
        self._change("delete from mail where host = ?", "insert or ignore into mailboxes values (?)", host)
        if self._stop is None:
            self._stop = self._file.poll(self._scheduler, self._poll_period_s, self._collect)

    def detach(self, host: str) -> None:
        self._receive_by_host.pop(host, None)
        self._change("delete from mail where host = ?", "delete from mailboxes where host = ?", host)
        if not self._receive_by_host and self._stop is not None:
            self._stop()
            self._stop = None

    def send(self, source_host: str, to_host: str, data: bytes) -> None:
        try:
            with self._file.changing() as database:
                database.execute(
                    "insert into mail (host, data) select host, ? from mailboxes where host = ? and "
                    "(select count(*) from mail where mail.host = mailboxes.host) < ?",
                    (msgspec.msgpack.encode((source_host, data)), to_host, PLANT_MAIL_PER_HOST_MAX),
                )
        except sqlite3.Error:
            return  # lost, as the port allows

    def _change(self, first: str, second: str, host: str) -> None:
        with self._file.changing() as database:
            database.execute(first, (host,))
            database.execute(second, (host,))

    def _collect(self) -> None:
        """Mail leaves the file before it is delivered: a message comes once or not at all."""
        with self._file.reading() as database:
            if not any(_has_mail(database, host) for host in self._receive_by_host):
                return
        with self._file.changing() as database:
            rows = [row for host in self._receive_by_host for row in _take_mail(database, host)]
        for _, host, data in sorted(rows):
            source, content = msgspec.msgpack.decode(data, type=tuple[str, bytes])
            receive = self._receive_by_host.get(host)
            if receive is not None:
                receive(source, content)


def _take_mail(database: sqlite3.Connection, host: str) -> list[tuple[int, str, bytes]]:
    rows = database.execute("delete from mail where host = ? returning number, host, data", (host,))
    return rows.fetchall()


def _has_mail(database: sqlite3.Connection, host: str) -> bool:
    return database.execute("select 1 from mail where host = ? limit 1", (host,)).fetchone() is not None
