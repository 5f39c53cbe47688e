"""Power of simulated hosts in the shared file: the fence devices, and the host's own end of the cable.

A host is *plugged in* while a process holds the lock of its lock file. The operating system frees it when that
process dies, and then nothing of the host runs: this is how a fence device knows that a host is off that nobody is
left to switch off. A process that stands still keeps the lock, so its hosts are not proven off.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from hypervisor_backends.fencing import FenceAction, FenceAnswer, FenceDone
from hypervisor_backends.memory_fencing import unknown_type
from hypervisor_backends.plant_file import POLL_PERIOD_S, PlantFile
from hypervisor_backends.protocol import Cancel, Scheduler
from olvm.model.errors import Conflict


class PowerOrders(msgspec.Struct, frozen=True, kw_only=True):
    """What was ordered of a host so far; `offs` counts the orders to switch off, so that off-and-on is seen."""

    is_on: bool = True
    orders: int = 0
    offs: int = 0
    orders_obeyed: int = 0


def _orders(database: sqlite3.Connection, host: str) -> PowerOrders:
    row = database.execute(
        "select is_on, orders, offs, orders_obeyed from power where host = ?", (host,)
    ).fetchone()
    if row is None:
        return PowerOrders()
    return PowerOrders(is_on=bool(row[0]), orders=row[1], offs=row[2], orders_obeyed=row[3])


class PlantFenceDevices:
    """Devices of type "simulated". `off` is proven by `status` once the host obeyed, or nobody is left to run it."""

    def __init__(self, file: PlantFile) -> None:
        self._file = file

    def submit(
        self, device: Mapping[str, str | int | float | bool], host: str, action: FenceAction, done: FenceDone
    ) -> None:
        if device.get("type") != "simulated":
            done(FenceAnswer(ok=False, message=unknown_type(device, host)))
            return
        try:
            answer = self._status(host) if action == "status" else self._order(host, action == "on")
        except (sqlite3.Error, OSError) as error:
            answer = FenceAnswer(
                ok=False, message=f"the fence device of host {host} does not answer: {error}"
            )
        done(answer)

    def _order(self, host: str, on: bool) -> FenceAnswer:
        with self._file.changing() as database:
            orders = _orders(database, host)
            row = (host, on, orders.orders + 1, orders.offs + (not on), orders.orders_obeyed)
            database.execute("insert or replace into power values (?, ?, ?, ?, ?)", row)
        return FenceAnswer(ok=True)

    def _status(self, host: str) -> FenceAnswer:
        # As a change, though nothing is changed: nobody plugs in meanwhile, who would find the lock taken by us.
        # Whoever plugs in later reads the order before it runs anything.
        with self._file.changing() as database:
            orders = _orders(database, host)
            obeyed = orders.orders_obeyed >= orders.orders
            is_on = orders.is_on or (not obeyed and _is_locked(self._file.lock_path(host)))
        return FenceAnswer(ok=True, power="on" if is_on else "off")


def _is_locked(path: Path) -> bool:
    if not path.exists():
        return False
    handle = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


class PlantPower:
    """A simulated host's own end of its power cable, held by the process that simulates it."""

    def __init__(self, file: PlantFile, host: str) -> None:
        self._file = file
        self._host = host
        self._lock: int | None = None
        self._stop: Cancel | None = None
        self._seen = PowerOrders()

    def is_on(self) -> bool:
        """What was ordered last. A host of which nothing was ordered is on."""
        with self._file.reading() as database:
            return _orders(database, self._host).is_on

    def plug_in(
        self, scheduler: Scheduler, obey: Callable[[bool], None], *, poll_period_s: float = POLL_PERIOD_S
    ) -> None:
        """From now on this process is the host. `obey` is called with the order that stands now, and with each later
        one; off and on again within one period are both told. When `obey(False)` returns, nothing of the host may
        run: that is then the proof of its fencing.

        Raises `Conflict` while another process, or another plant of this one, is the host.
        """
        try:
            with self._file.changing() as database:
                self._lock = _lock(self._file.lock_path(self._host), self._host)
                self._seen = _orders(database, self._host)
        except sqlite3.Error as error:
            self.unplug()
            words = f"simulated host {self._host} cannot be plugged in: {self._file.path}: {error}; try again"
            raise Conflict(words) from error
        obey(self._seen.is_on)
        # The first look notes what was obeyed, unless it was noted already.
        self._stop = self._file.poll(scheduler, poll_period_s, lambda: self._look(obey))
        with suppress(sqlite3.Error):
            self._note_obeyed()

    def _look(self, obey: Callable[[bool], None]) -> None:
        with self._file.reading() as database:
            now = _orders(database, self._host)
        before, self._seen = self._seen, now
        if now.offs > before.offs:
            obey(False)
        if now.is_on and now.orders > before.orders:
            obey(True)
        if now.orders_obeyed < now.orders:
            self._note_obeyed()

    def _note_obeyed(self) -> None:
        row = (self._seen.orders, self._host)
        with self._file.changing() as database:
            database.execute("update power set orders_obeyed = ? where host = ?", row)

    def unplug(self) -> None:
        """This process is the host no longer. Idempotent."""
        if self._stop is not None:
            self._stop()
        if self._lock is not None:
            os.close(self._lock)
        self._stop = self._lock = None


def _lock(path: Path, host: str) -> int:
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise Conflict(
            f"simulated host {host} runs in another process already; end that one first"
        ) from error
    return handle
