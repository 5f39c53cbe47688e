"""What the tables of a journal file are, and how a file of an older release becomes one of this.

    journal     one row a turn; append-only, its oldest rows fold into `baseline`
    baseline    after-images at the point up to which the journal was compacted
    outbox      messages for other silos; a row without a payload says that all up to `seq` are acknowledged
    meta        schema_version, journal_id, olvm_version, created_at_ns, append_only
    <records>   one table for each record type

Fields that were added to a record need no migration: their columns are added when the file is opened, with
the field's default. Everything else that changes on disk is a step in `MIGRATIONS`, from the first version
on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

import duckdb
import msgspec

from olvm.journal.record_table import RecordTable
from olvm.model.errors import JournalCorrupt, JournalError

SCHEMA_VERSION: Final = 1

# MIGRATIONS[n] turns a file of version n into one of version n + 1, inside the transaction that opens it.
MIGRATIONS: dict[int, Callable[[duckdb.DuckDBPyConnection], None]] = {}

TURN_COLUMNS: Final = ["seq", "at_ns", "actor", "kind", "message_id", "cause_id", "message", "changes"]
OUTBOX_COLUMNS: Final = ["destination", "seq", "payload"]
BASELINE_COLUMNS: Final = ["table_name", "key", "record"]

_SYSTEM_TABLES: Final = {
    "meta": "key varchar, value varchar",
    "journal": "seq bigint, at_ns bigint, actor varchar, kind varchar, message_id varchar, cause_id varchar, "
    "message blob, changes blob",
    "outbox": "destination varchar, seq bigint, payload blob",
    "baseline": "table_name varchar, key varchar, record blob",
}


class Identity(NamedTuple):
    """What a file says of itself when it is created."""

    journal_id: str
    olvm_version: str
    created_at_ns: int


def create_tables(connection: duckdb.DuckDBPyConnection, tables: Sequence[RecordTable]) -> None:
    """All tables, empty. A record's table may not take the name of one of the journal's own."""
    for name, columns in _SYSTEM_TABLES.items():
        connection.execute(f"create table {name} ({columns})")
    for table in tables:
        assert table.name not in _SYSTEM_TABLES, (
            f"{table.record_type.__name__} takes the journal's table name"
        )
        connection.execute(table.create_sql())


def write_identity(connection: duckdb.DuckDBPyConnection, identity: Identity) -> None:
    rows = {
        "schema_version": str(SCHEMA_VERSION),
        "journal_id": identity.journal_id,
        "olvm_version": identity.olvm_version,
        "created_at_ns": str(identity.created_at_ns),
    }
    for key, value in rows.items():
        write_meta(connection, key, value)


def write_meta(connection: duckdb.DuckDBPyConnection, key: str, value: str) -> None:
    connection.execute("delete from meta where key = ?", [key])
    connection.execute("insert into meta values (?, ?)", [key, value])


def read_meta(connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
    return dict(connection.execute("select key, value from meta").fetchall())


def open_schema(
    connection: duckdb.DuckDBPyConnection, path: str, tables: Sequence[RecordTable], identity: Identity
) -> str:
    """Create or migrate the tables in one transaction; returns the journal's id.

    Raises:
        JournalError: the file is of a newer release, or a column has another type than its field.
        JournalCorrupt: a DuckDB file that is no journal.
    """
    connection.begin()
    try:
        if _is_empty(connection):
            create_tables(connection, tables)
            write_identity(connection, identity)
        else:
            check_version(connection, path)
            _migrate(connection)
            _fit_tables(connection, path, tables)
        append_only = sorted(table.name for table in tables if table.is_append_only)
        _write_when_new(connection, "append_only", msgspec.json.encode(append_only).decode())
        _write_when_new(connection, "olvm_version", identity.olvm_version)
        connection.commit()
    except BaseException:
        connection.rollback()
        raise
    return read_meta(connection)["journal_id"]


def check_version(connection: duckdb.DuckDBPyConnection, path: str) -> int:
    """The file's schema version, if this release can work with it."""
    try:
        meta = read_meta(connection)
        version = int(meta["schema_version"])
    except (duckdb.CatalogException, duckdb.BinderException, KeyError, ValueError) as error:
        raise JournalCorrupt(
            f"{path} is a DuckDB file but no journal of olvm; it was left as it is: move it "
            "away, or name another"
        ) from error
    if version > SCHEMA_VERSION:
        raise JournalError(
            f"{path} has schema version {version}, written by olvm {meta.get('olvm_version', '?')}; this "
            f"release knows versions up to {SCHEMA_VERSION}: start the newer release, or restore an "
            "older copy of the file"
        )
    return version


def _is_empty(connection: duckdb.DuckDBPyConnection) -> bool:
    return not connection.execute("select 1 from duckdb_tables() limit 1").fetchall()


def _write_when_new(connection: duckdb.DuckDBPyConnection, key: str, value: str) -> None:
    # An unchanged file is opened without a write, so that a full disk does not keep a silo from recovering.
    if read_meta(connection).get(key) != value:
        write_meta(connection, key, value)


def _migrate(connection: duckdb.DuckDBPyConnection) -> None:
    version = int(read_meta(connection)["schema_version"])
    for step in range(version, SCHEMA_VERSION):
        MIGRATIONS[step](connection)
        write_meta(connection, "schema_version", str(step + 1))


def _fit_tables(connection: duckdb.DuckDBPyConnection, path: str, tables: Sequence[RecordTable]) -> None:
    found: dict[str, dict[str, str]] = {}
    query = "select table_name, column_name, data_type from duckdb_columns() where schema_name = 'main'"
    for table_name, column_name, data_type in connection.execute(query).fetchall():
        found.setdefault(table_name, {})[column_name] = data_type
    for table in tables:
        if table.name in found:
            _fit_columns(connection, path, table, found[table.name])
        else:
            connection.execute(table.create_sql())


def _fit_columns(
    connection: duckdb.DuckDBPyConnection, path: str, table: RecordTable, type_by_column: Mapping[str, str]
) -> None:
    for column in table.columns:
        stored = type_by_column.get(column.name)
        if stored is None:
            connection.execute(table.add_column_sql(column))
        elif stored != column.sql_type:
            raise JournalError(
                f"{path}: column {table.name}.{column.name} is {stored} and this release needs "
                f"{column.sql_type}; a step for it is missing in olvm.journal.migrations: start the "
                "release that wrote the file"
            )
