"""The SQLite file that the processes of simulated hosts share: opening, transactions, and looking for changes."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from hypervisor_backends.protocol import Cancel, Scheduler
from olvm.model.errors import Conflict, JournalCorrupt, NotSupportedYet, OlvmError
from olvm.model.limits import NS_PER_S

SCHEMA_VERSION = 1
BUSY_TIMEOUT_S = 0.5
POLL_PERIOD_S = 0.1
OPEN_RETRY_S = 0.01
SCHEMA = """
create table if not exists host_leases (host text primary key, boot_id text, counter integer) without rowid;
create table if not exists vm_leases (
    vm_id text primary key, version integer, epoch integer, holders blob
) without rowid;
create table if not exists snapshots (vm_id text primary key, content blob) without rowid;
create table if not exists power (
    host text primary key, is_on integer, orders integer, offs integer, orders_obeyed integer
) without rowid;
create table if not exists mailboxes (host text primary key) without rowid;
create table if not exists mail (number integer primary key autoincrement, host text, data blob);
create index if not exists mail_by_host on mail (host);
"""


class PlantFile:
    def __init__(self, path: Path) -> None:
        self.path = path
        self._database = _open(path)

    @contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """A transaction, all or nothing; one at a time over all processes."""
        with self._transaction("begin immediate") as database:
            yield database

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """All is read at one instant; waits for no one."""
        with self._transaction("begin") as database:
            yield database

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        self._database.execute(begin)
        try:
            yield self._database
            self._database.execute("commit")
        except BaseException:
            if self._database.in_transaction:
                self._database.execute("rollback")
            raise

    def poll(self, scheduler: Scheduler, period_s: float, look: Callable[[], None]) -> Cancel:
        """Call `look` within a period of each change of the file, until cancelled.

        After an error of SQLite (the file stayed locked) it is called again.
        """
        return _Poll(self, scheduler, int(period_s * NS_PER_S), look).stop

    def change_mark(self) -> tuple[int, int]:
        """Differs after each change of the file, by this process or another; cheap."""
        version: int = self._database.execute("pragma data_version").fetchone()[0]
        return version, self._database.total_changes

    def lock_path(self, host: str) -> Path:
        return self.path.with_name(f"{self.path.name}.{quote(host, safe='')}.lock")

    def close(self) -> None:
        self._database.close()


class _Poll:
    def __init__(
        self, file: PlantFile, scheduler: Scheduler, period_ns: int, look: Callable[[], None]
    ) -> None:
        self._file = file
        self._scheduler = scheduler
        self._period_ns = period_ns
        self._look = look
        self._mark: tuple[int, int] | None = None
        self._stopped = False
        self._cancel = scheduler.call_at(scheduler.now_ns() + period_ns, self._due)

    def stop(self) -> None:
        self._stopped = True
        self._cancel()

    def _due(self) -> None:
        try:
            # Read before looking: a change that comes while we look is looked at next time.
            now = self._file.change_mark()
            if now != self._mark:
                self._look()
                self._mark = now
        except sqlite3.Error:
            self._mark = None
        if not self._stopped:
            self._cancel = self._scheduler.call_at(self._scheduler.now_ns() + self._period_ns, self._due)


def _open(path: Path) -> sqlite3.Connection:
    database: sqlite3.Connection | None = None
    try:
        database = sqlite3.connect(
            path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        _prepare(database, path)
    except sqlite3.OperationalError as error:
        words = f"shared plant {path} cannot be opened: {error}; is its directory there, or a process stuck in it?"
        refusal: OlvmError = Conflict(words)
    except sqlite3.DatabaseError as error:
        words = f"shared plant {path} is not readable: {error}; remove it while the data center is down"
        refusal = JournalCorrupt(words)
    except OlvmError as error:
        refusal = error
    else:
        return database
    if database is not None:
        database.close()
    raise refusal


def _prepare(database: sqlite3.Connection, path: Path) -> None:
    version: int = database.execute("pragma user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise NotSupportedYet(
            f"shared plant {path} has schema {version} and this olvm knows {SCHEMA_VERSION}; use a newer olvm"
        )
    _switch_to_wal(database)
    # Survives the death of any process; a machine that loses power loses all simulated hosts with it.
    database.execute("pragma synchronous = normal")
    database.executescript(f"begin immediate; {SCHEMA} pragma user_version = {SCHEMA_VERSION}; commit;")


def _switch_to_wal(database: sqlite3.Connection) -> None:
    """The first switch of a new file needs it alone, and SQLite does not wait for that by itself."""
    deadline_s = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            database.execute("pragma journal_mode = wal")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > deadline_s:
                raise
        time.sleep(OPEN_RETRY_S)
