"""Opening a DuckDB file as its only writer, and saying why when that fails.

All settings of a journal's connection stand here. Rule: a file that cannot be opened is left as it was.
"""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path
from typing import Final

import duckdb

from olvm.journal.read_only import one_line
from olvm.model.errors import JournalCorrupt, JournalError, JournalLocked, JournalUnwritable

MEMORY_LIMIT: Final = "512MB"

# DuckDB counts whole vectors touched by scattered upserts, so that its own threshold would checkpoint at
# every commit; `Journal.maintain` checkpoints by the true size of the write-ahead log instead.
CHECKPOINT_THRESHOLD: Final = "1TB"

_HOLDER: Final = re.compile(r"PID (\d+)")

# DuckDB shares one instance between connections of a process, so its file lock does not stop a second writer
# here.
_held_paths: set[str] = set()
_held_lock = threading.Lock()


def hold(path: Path) -> str:
    """Claim `path` for one writer of this process; returns the token for `release`."""
    token = str(path.resolve())
    with _held_lock:
        if token in _held_paths:
            raise JournalLocked(
                f"journal {path} is already open in this process (pid {os.getpid()}); close it there first"
            )
        _held_paths.add(token)
    return token


def release(token: str) -> None:
    with _held_lock:
        _held_paths.discard(token)


def connect(path: Path, *, fsync: bool, threads: int, read_only: bool) -> duckdb.DuckDBPyConnection:
    """Open the file with every setting of a journal.

    Raises:
        JournalLocked: another process holds it. JournalCorrupt: not a readable DuckDB file.
        JournalUnwritable: it cannot be created or written.
    """
    config: dict[str, str | bool | int | float | list[str]] = {
        "threads": threads,
        "memory_limit": MEMORY_LIMIT,
        "checkpoint_threshold": CHECKPOINT_THRESHOLD,
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "python_enable_replacements": False,
    }
    connection: duckdb.DuckDBPyConnection | None = None
    try:
        connection = duckdb.connect(str(path), read_only=read_only, config=config)
        if not fsync:
            connection.execute("set fsync_mode = 'NONE'")
        # Last, for it cannot be undone: no statement reaches a file beside this one, nor changes a setting.
        connection.execute("set enable_external_access = false")
        connection.execute("set lock_configuration = true")
    except duckdb.Error as error:
        if connection is not None:
            connection.close()
        raise _why_not_open(path, error) from error
    return connection


def _why_not_open(path: Path, error: duckdb.Error) -> JournalError:
    text = one_line(error)
    if "lock" in text and isinstance(error, duckdb.IOException):
        return JournalLocked(
            f"journal {path} is open in {_holder(path, text)}; one process writes it: stop that one"
        )
    if not path.parent.is_dir():
        return JournalUnwritable(
            f"journal {path} cannot be created: there is no directory {path.parent}; create it"
        )
    if "Cannot open file" in text or "Permission denied" in text or "Read-only file system" in text:
        return JournalUnwritable(
            f"journal {path} cannot be opened: {text}; check its owner and its file system"
        )
    if "No space left" in text or "too large" in text:
        return JournalUnwritable(f"journal {path} cannot be opened: {text}; free space on its file system")
    return JournalCorrupt(
        f"journal {path} cannot be read: {text}; it was left as it is: restore it from a backup"
    )


def _holder(path: Path, text: str) -> str:
    named = _HOLDER.search(text)
    pid = int(named.group(1)) if named else _pid_from_proc_locks(path)
    return f"process {pid}" if pid else "another process"


def _pid_from_proc_locks(path: Path) -> int | None:
    """The pid that holds a lock on the file by /proc/locks, whose sixth field ends with the inode."""
    try:
        inode = str(path.stat().st_ino)
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return None
    for fields in map(str.split, lines):
        if len(fields) > 5 and fields[5].rsplit(":", maxsplit=1)[-1] == inode and fields[4].isdigit():
            return int(fields[4])
    return None
