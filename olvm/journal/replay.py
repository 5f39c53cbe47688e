"""The tables again, from the journal alone, and how they differ from the tables in the file.

Rule 3 of the port made checkable: baseline plus the after-images of every turn, in order, equal the record
tables. Append-only records are left out. Both functions read a journal at rest: a path that nobody holds, or
an open journal whose writer is between two batches.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, Protocol

import msgspec

from olvm.journal.port import Change, Journal
from olvm.journal.record_table import quoted
from olvm.model.table import QueryResult

# Records as mappings, by table and key.
Image = dict[str, dict[str, dict[str, object]]]

_TURNS_AT_ONCE: Final = 20_000
_ALL_ROWS: Final = 1_000_000_000

decode_changes: Callable[[bytes], list[Change]] = msgspec.msgpack.Decoder(list[Change]).decode
_decode_record: Callable[[bytes], dict[str, object]] = msgspec.msgpack.Decoder(dict[str, object]).decode


class _Query(Protocol):
    def __call__(self, sql: str, params: tuple[object, ...] = (), *, row_count_max: int) -> QueryResult: ...


def replay(source: Path | str | Journal) -> Image:
    """Fold the whole journal; tables without records are absent. Cost: about 5 us a turn, in memory."""
    with _opened(source) as query:
        return _replay(query)


def verify(source: Path | str | Journal) -> list[str]:
    """Every difference between the journal and the tables, and every gap in the journal; empty when all is
    well.

    A column that an after-image does not know was added later and is not compared.
    """
    with _opened(source) as query:
        expected = _replay(query)
        differences = _gaps(query)
        skipped = _append_only(query)
        for table, key_column in _record_tables(query):
            if table not in skipped:
                stored = _stored(query, table, key_column)
                differences += _differences(table, expected.pop(table, {}), stored)
    differences += [f"{table}: in the journal, but there is no such table" for table in expected]
    return differences


def final_images(changes: Iterable[bytes], skipped: frozenset[str]) -> dict[tuple[str, str], bytes | None]:
    """The last after-image of each record that these turns changed, as msgpack; None where it was erased."""
    last: dict[tuple[str, str], dict[str, object] | None] = {}
    for one in changes:
        for table, key, record in decode_changes(one):
            if table not in skipped:
                last[table, key] = record
    encode = msgspec.msgpack.encode
    return {name: None if record is None else encode(record) for name, record in last.items()}


@contextlib.contextmanager
def _opened(source: Path | str | Journal) -> Iterator[_Query]:
    if not isinstance(source, Path | str):
        yield source.query
        return
    from olvm.journal.duckdb_file import connect
    from olvm.journal.read_only import ReadOnlyQueries

    connection = connect(Path(source), fsync=True, threads=1, read_only=True)
    queries = ReadOnlyQueries(connection, owns_connection=True)
    try:
        yield queries.run
    finally:
        queries.close()


def _replay(query: _Query) -> Image:
    image: Image = {}
    baseline = query("select table_name, key, record from baseline", row_count_max=_ALL_ROWS)
    for table, key, record in baseline.rows:
        assert isinstance(record, bytes)
        image.setdefault(str(table), {})[str(key)] = _decode_record(record)
    skipped = _append_only(query)
    last_seq: object = -1
    while True:
        turns = query(
            "select seq, changes from journal where seq > ? order by seq limit ?",
            (last_seq, _TURNS_AT_ONCE),
            row_count_max=_TURNS_AT_ONCE,
        ).rows
        if not turns:
            return {table: records for table, records in image.items() if records}
        last_seq = turns[-1][0]
        for _, changes in turns:
            assert isinstance(changes, bytes)
            for table, key, record in decode_changes(changes):
                if table in skipped:
                    continue
                if record is None:
                    image.setdefault(table, {}).pop(key, None)
                else:
                    image.setdefault(table, {})[key] = record


def _append_only(query: _Query) -> frozenset[str]:
    rows = query("select value from meta where key = 'append_only'", row_count_max=1).rows
    return frozenset(msgspec.json.decode(str(rows[0][0]), type=list[str])) if rows else frozenset()


def _record_tables(query: _Query) -> list[tuple[str, str]]:
    """Table and key column: a record table is one with a primary key."""
    sql = (
        "select table_name, constraint_column_names[1] from duckdb_constraints() "
        "where constraint_type = 'PRIMARY KEY' and schema_name = 'main' order by table_name"
    )
    return [(str(table), str(key)) for table, key in query(sql, row_count_max=_ALL_ROWS).rows]


def _stored(query: _Query, table: str, key_column: str) -> dict[str, dict[str, object]]:
    result = query(f"select * from {quoted(table)}", row_count_max=_ALL_ROWS)  # noqa: S608 - our own names
    json_columns = [name for name, kind in zip(result.columns, result.types, strict=True) if kind == "JSON"]
    records = result.dicts()
    for record in records:
        for name in json_columns:
            text = record[name]
            record[name] = None if text is None else msgspec.json.decode(str(text))
    return {str(record[key_column]): record for record in records}


def _gaps(query: _Query) -> list[str]:
    sql = "select count(*), coalesce(max(seq) - min(seq) + 1, 0) from journal"
    count, span = query(sql, row_count_max=1).rows[0]
    return [] if count == span else [f"journal: {count} rows in a range of {span} sequence numbers"]


def _differences(
    table: str, expected: dict[str, dict[str, object]], stored: dict[str, dict[str, object]]
) -> list[str]:
    found = [
        f"{table} {key!r}: in the journal, not in the table" for key in sorted(set(expected) - set(stored))
    ]
    found += [
        f"{table} {key!r}: in the table, not in the journal" for key in sorted(set(stored) - set(expected))
    ]
    for key in sorted(set(expected) & set(stored)):
        for field, value in expected[key].items():
            # JSON and msgpack differ in what they keep of a value (keys that are no text, bytes): compare as
            # JSON.
            as_json = msgspec.json.decode(msgspec.json.encode(value))
            if field not in stored[key]:
                found.append(f"{table} {key!r}.{field}: in the journal, but the table has no such column")
            elif as_json != stored[key][field]:
                found.append(f"{table} {key!r}.{field}: journal {as_json!r}, table {stored[key][field]!r}")
    return found
