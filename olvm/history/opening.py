"""Opening history.duckdb, and DuckDB's faults in our words.

Decides how the connection is configured and which `JournalError` a fault is. One process owns the file, and
one store in it. Nothing that a question says can change the configuration: file access is off except for
the directories of snapshots and of old rows, and the configuration is locked.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import duckdb

from olvm.history.migrations import migration_statements
from olvm.history.schema import SCHEMA_VERSION, creation_statements, quoted
from olvm.model.errors import JournalCorrupt, JournalError, JournalLocked, JournalUnwritable

# The default of 16 MB would write a checkpoint inside a commit every few seconds of a large data center.
_CHECKPOINT_THRESHOLD: Final = "1GB"

# Of the silo's process, writer and questions together; what one operator of a question may hold before it goes on on
# disk; and what all of them may take of the disk.
MEMORY_LIMIT: Final = "1GB"
QUESTION_OPERATOR_MEMORY: Final = "256MB"
SPILL_MAX: Final = "3GB"

# Questions are stopped when all of them together hold this much that cannot go on on disk (a median has all values), or
# have put this much there: a commit that finds no memory would stop them all and cost the writer its connection, and
# gigabytes on their way to the disk hold up the fsync of every journal of the machine.
QUESTIONS_MEMORY_MAX: Final = 640 * 1000**2
QUESTIONS_SPILL_MAX: Final = 1000 * 1000**2

_LOCK_HOLDER: Final = re.compile(r"\(PID (\d+)\)")
_LOCK_WORDS: Final = ("could not set lock", "conflicting lock")
_CORRUPT_WORDS: Final = ("not a valid duckdb", "corrupt", "checksum", "deserializ", "wal file")
_NEWER_WORDS: Final = ("newer version of duckdb", "can only read version", "storage version")


def connect(path: Path, directories: Sequence[Path], *, thread_count: int) -> duckdb.DuckDBPyConnection:
    """A connection to an existing or new file of our schema version, or a `JournalError`.

    `directories` are the only ones whose files it may touch, but for its own file.
    """
    try:
        con = duckdb.connect(str(path), config={"threads": thread_count})
    except duckdb.Error as error:
        raise typed_error(error, path, "opened") from error
    try:
        _create_or_migrate(con, path)
        _configure(con, directories)
    except duckdb.Error as error:
        con.close()
        raise typed_error(error, path, "opened") from error
    except JournalError:
        con.close()
        raise
    return con


def typed_error(error: duckdb.Error | OSError, path: Path, verb: str) -> JournalError:
    """The `JournalError` that says what DuckDB's error means for the history file at `path`."""
    text = " ".join(str(error).split())
    lower = text.lower()
    subject = f"history file {path} cannot be {verb}"
    if any(word in lower for word in _LOCK_WORDS):
        holder = _LOCK_HOLDER.search(text)
        process = f"process {holder.group(1)}" if holder else "another process"
        return JournalLocked(f"{subject}: {process} holds it; stop that process, or ask it instead")
    if any(word in lower for word in _NEWER_WORDS):
        return JournalError(f"{subject}: it was written by a newer DuckDB; upgrade olvm ({text[:200]})")
    if any(word in lower for word in _CORRUPT_WORDS) or isinstance(error, duckdb.SerializationException):
        return JournalCorrupt(
            f"{subject}: its content is damaged; move it away and restore a copy ({text[:200]})"
        )
    return JournalUnwritable(
        f"{subject}: {text[:200]}; check free space and permissions of {path.parent}, then try again"
    )


def _create_or_migrate(con: duckdb.DuckDBPyConnection, path: Path) -> None:
    tables = {name for (name,) in con.execute("select table_name from duckdb_tables()").fetchall()}
    if not tables:
        _execute_all(con, creation_statements())
        return
    row = None
    if "meta" in tables:
        row = con.execute("select value from meta where key = 'schema_version'").fetchone()
    if row is None or not row[0].isdigit():
        raise JournalCorrupt(
            f"history file {path} cannot be opened: it is a DuckDB file, but not olvm's; move it away"
        )
    if int(row[0]) > SCHEMA_VERSION:
        raise JournalError(
            f"history file {path} cannot be opened: its schema version is {row[0]} and this olvm knows"
            f" {SCHEMA_VERSION}; upgrade olvm"
        )
    _execute_all(con, migration_statements(int(row[0])))


def _execute_all(con: duckdb.DuckDBPyConnection, statements: list[str]) -> None:
    """All or none; a file that needs none is not written to."""
    if statements:
        con.execute("begin")
        for statement in statements:
            con.execute(statement)
        con.execute("commit")


def _configure(con: duckdb.DuckDBPyConnection, directories: Sequence[Path]) -> None:
    allowed = ", ".join(quoted(os.fspath(one)) for one in directories)
    con.execute(f"set checkpoint_threshold = '{_CHECKPOINT_THRESHOLD}'")
    con.execute(f"set memory_limit = '{MEMORY_LIMIT}'")
    con.execute(f"set max_temp_directory_size = '{SPILL_MAX}'")
    con.execute("set autoinstall_known_extensions = false")
    con.execute("set autoload_known_extensions = false")
    con.execute("set python_enable_replacements = false")
    # The one setting that stays open: for `bound_question`; a question itself cannot say `set`.
    con.execute("set allowed_configs = ['operator_memory_limit']")
    con.execute(f"set allowed_directories = [{allowed}]")
    con.execute("set enable_external_access = false")
    con.execute("set lock_configuration = true")


def take_too_much(cursor: duckdb.DuckDBPyConnection) -> bool:
    """Whether the statements under way do, all together. Cost: a few milliseconds."""
    cursor.execute(
        "select coalesce(sum(memory_usage_bytes) filter (tag = 'ALLOCATOR'), 0),"
        " coalesce(sum(temporary_storage_bytes), 0) from duckdb_memory()"
    )
    held, spilled = cursor.fetchone() or (0, 0)
    return bool(held > QUESTIONS_MEMORY_MAX or spilled > QUESTIONS_SPILL_MAX)


def bound_question(cursor: duckdb.DuckDBPyConnection) -> None:
    """Have the sorts, joins and groups of this cursor go on on disk before they crowd out the writer."""
    cursor.execute(f"set operator_memory_limit = '{QUESTION_OPERATOR_MEMORY}'")
