"""`olvm event`: what happened, in order, and as it happens.

Rule: `seq` has no gaps, so `--after` the last seq that was read loses nothing and repeats nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import App, Parameter

from olvm.api.data_center import DataCenter
from olvm.cli.connection import data_center
from olvm.cli.listing import checked_limit, fields_of_record
from olvm.cli.options import CONNECTING, LISTING, Connecting, Listing
from olvm.cli.output import cell, chosen_columns, heading, line, plain, write_rows
from olvm.model.errors import BadInput, BadQuery
from olvm.model.limits import SQL_SHORT_S
from olvm.model.records import EventRecord
from olvm.model.search import Query, parse
from olvm.model.search_fields import fields_of
from olvm.model.search_targets import predicate, to_sql

USUAL_COLUMNS = ("seq", "at_ns", "severity", "code", "message")
NEWEST_USUALLY = 100
PAGE_ROWS = 1000

FIELDS = fields_of(EventRecord, free_text="message")
KNOWN_COLUMNS = fields_of_record(EventRecord)

app = App(name="event", help="Events: what happened, in order.")


@app.command(name="list")
def list_(
    *,
    after: Annotated[
        int | None, Parameter(help="From the one after this `seq` on, oldest first.", metavar="N")
    ] = None,
    follow: Annotated[
        bool, Parameter(name=["--follow", "-f"], negative=(), help="Go on with new ones until Ctrl-C.")
    ] = False,
    options: Listing = LISTING,
) -> int:
    """List events, oldest first: the newest 100, or all after a `seq`."""
    query = _query(options.where)
    limit = checked_limit(options.limit)
    columns = chosen_columns(options.columns, KNOWN_COLUMNS, _usual(options))
    if follow and options.output == "json":
        raise BadInput("-o json is one document and --follow never ends; use -o jsonl")
    with data_center(options) as dc:
        if follow:
            events = _following(dc, after, query, limit)
            _stream(events, columns, options.output)
        elif after is None:
            write_rows(_newest(dc, query, limit or NEWEST_USUALLY), columns, options.output)
        else:
            found = filter(predicate(query, FIELDS), dc.events(after, page_rows=PAGE_ROWS))
            write_rows(islice(found, limit), columns, options.output)
    return 0


def _usual(options: Listing) -> tuple[str, ...]:
    return USUAL_COLUMNS if options.output == "table" else KNOWN_COLUMNS


def _query(where: str) -> Query:
    query = parse(where)
    if query.sort_by is not None or query.page is not None:
        raise BadQuery("events come in the order of seq; leave out sortby and page, use --after and --limit")
    to_sql(query, FIELDS)  # a field that does not exist is refused before anything is read
    return query


def _newest(dc: DataCenter, query: Query, limit: int) -> list[dict[str, Any]]:
    search = to_sql(query, FIELDS)
    sql = f"select * from events where {search.where} order by seq desc limit {limit}"  # noqa: S608
    rows = dc.sql(sql, list(search.parameters), limit=limit).dicts()
    for row in rows:
        row["details"] = msgspec.json.decode(row["details"] or "{}")
    return rows[::-1]


def _following(
    dc: DataCenter, after: int | None, query: Query, limit: int | None
) -> Iterator[dict[str, Any]]:
    """What there is, then what comes. Without a cursor the newest begin; with `limit`, so many in all."""
    matches: Callable[[dict[str, Any]], bool] = predicate(query, FIELDS)
    begin: list[dict[str, Any]] = []
    if after is None:
        after = int(dc.sql("select coalesce(max(seq), 0) from events").one())
        if limit is None:
            begin = [event for event in _newest(dc, query, NEWEST_USUALLY) if event["seq"] <= after]
    coming = filter(matches, dc.events(after, follow=True, page_rows=PAGE_ROWS))
    yield from begin
    yield from islice(coming, limit)


def _stream(events: Iterable[dict[str, Any]], columns: list[str], output: str) -> None:
    """A line for each event as it comes. A table cannot know its widths, so columns have the usual ones."""
    widths = [
        {"seq": 6, "at_ns": 19, "severity": 8, "code": 22, "message": 0}.get(name, 12) for name in columns
    ]
    out = sys.stdout
    if output == "table":
        print(_fitted([heading(column) for column in columns], widths), flush=True)
    elif output == "csv":
        write_rows([], columns, "csv")
        out.flush()
    for event in events:
        if output == "table":
            print(_fitted([cell(column, event.get(column)) for column in columns], widths), flush=True)
        elif output == "csv":
            _write_csv_row(event, columns)
        else:
            write_rows([event], columns, "jsonl")
        out.flush()


def _fitted(cells: list[str], widths: list[int]) -> str:
    return line(cells, [max(width, len(text)) for text, width in zip(cells, widths, strict=True)])


def _write_csv_row(event: dict[str, Any], columns: list[str]) -> None:
    import csv

    csv.writer(sys.stdout, lineterminator="\n").writerow([plain(event.get(column)) for column in columns])


@app.command
def follow(
    *,
    after: Annotated[
        int | None, Parameter(help="From the one after this `seq` on; else from now on.", metavar="CURSOR")
    ] = None,
    cursor_file: Annotated[
        Path | None,
        Parameter(help="Keep the cursor here, and go on from it the next time.", metavar="FILE"),
    ] = None,
    options: Connecting = CONNECTING,
) -> int:
    """Print events as JSON lines until Ctrl-C. A line's `seq` is the cursor that goes on after it.

    With --cursor-file a line is printed before the cursor moves: after a kill some may come again, and none is lost.
    """
    kept = _kept_cursor(cursor_file)
    with data_center(options) as dc:
        newest = int(dc.sql("select coalesce(max(seq), 0) from events", timeout=SQL_SHORT_S).one())
        cursor = kept if kept is not None else newest if after is None else after
        if not 0 <= cursor <= newest:
            raise BadInput(
                f"cursor {cursor} is not of these events, which end at {newest}; is it another data center's?"
            )
        for event in dc.events(cursor, follow=True, page_rows=PAGE_ROWS):
            write_rows([event], KNOWN_COLUMNS, "jsonl")
            sys.stdout.flush()
            if cursor_file is not None:
                _keep_cursor(cursor_file, int(event["seq"]))
    return 0


def _kept_cursor(path: Path | None) -> int | None:
    """None without a file: the first time."""
    if path is None or not path.exists():
        return None
    text = path.read_text(errors="replace").strip()
    if not (text.isascii() and text.isdigit()):
        raise BadInput(f"{path} holds no cursor; remove it to begin anew")
    return int(text)


def _keep_cursor(path: Path, seq: int) -> None:
    """Takes the name in one step, so that a kill leaves the old cursor or the new one."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(f"{seq}\n")
    os.replace(part, path)
