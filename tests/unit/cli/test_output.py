"""Rows as text, without an engine."""

from __future__ import annotations

import csv
import io
import json

import pytest

from olvm.api.result import distinct
from olvm.cli.output import (
    cell,
    chosen_columns,
    heading,
    shown,
    width_of,
    write_object,
    write_rows,
)
from olvm.model.errors import BadInput

ROWS = [
    {"name": "web-1", "memory_bytes": 8 * 1024**3, "ha": True, "host": None, "pins": ["h1", "h2"]},
    {"name": "数据库", "memory_bytes": 1536 * 1024**2, "ha": False, "host": "kvm01", "pins": []},
]
COLUMNS = ["name", "memory_bytes", "ha", "host", "pins"]


class Terminal(io.StringIO):
    """A stream that says it is one."""

    def isatty(self) -> bool:
        return True


def written(output: str, columns: list[str] = COLUMNS) -> str:
    out = io.StringIO()
    write_rows(ROWS, columns, output, out)  # type: ignore[arg-type]
    return out.getvalue()


def test_table_of_rows_aligns_and_rounds_for_the_eye() -> None:
    assert written("table") == (
        "NAME    MEMORY  HA   HOST   PINS\nweb-1   8GiB    yes         h1, h2\n数据库  1.5GiB  no   kvm01\n"
    )


def test_json_of_rows_keeps_values_as_they_are() -> None:
    assert json.loads(written("json")) == ROWS


def test_jsonl_of_rows_is_one_document_a_line() -> None:
    assert [json.loads(line) for line in written("jsonl").splitlines()] == ROWS


def test_csv_of_rows_has_json_where_csv_has_no_word() -> None:
    assert list(csv.DictReader(io.StringIO(written("csv")))) == [
        {"name": "web-1", "memory_bytes": "8589934592", "ha": "true", "host": "", "pins": '["h1","h2"]'},
        {"name": "数据库", "memory_bytes": "1610612736", "ha": "false", "host": "kvm01", "pins": "[]"},
    ]


@pytest.mark.parametrize(
    ("output", "expected"), [("table", "NAME\n"), ("json", "[]\n"), ("jsonl", ""), ("csv", "name\n")]
)
def test_no_rows_are_still_a_document(output: str, expected: str) -> None:
    out = io.StringIO()
    write_rows([], ["name"], output, out)  # type: ignore[arg-type]
    assert out.getvalue() == expected


def test_object_in_a_table_has_a_line_for_each_column() -> None:
    out = io.StringIO()
    write_object(ROWS[0], ["name", "memory_bytes", "host"], "table", out)
    assert out.getvalue() == "NAME    web-1\nMEMORY  8GiB\nHOST\n"


def test_object_in_json_is_one_object() -> None:
    out = io.StringIO()
    write_object(ROWS[0], ["name", "ha"], "json", out)
    assert json.loads(out.getvalue()) == {"name": "web-1", "ha": True}


def test_heading_on_a_terminal_is_bold_unless_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    bold, plain = Terminal(), Terminal()
    write_rows([], ["name"], "table", bold)
    monkeypatch.setenv("NO_COLOR", "1")
    write_rows([], ["name"], "table", plain)
    assert (bold.getvalue(), plain.getvalue()) == ("\x1b[1mNAME\x1b[0m\n", "NAME\n")


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("memory_bytes", 0, "0B"),
        ("memory_overcommit_percent", 150, "150"),
        ("started_ns", None, ""),
        ("started_ns", 0, ""),
        ("score", 2.50, "2.5"),
        ("pid", True, "yes"),
        ("details", {"a": 1}, '{"a":1}'),
        ("seq", 7, "7"),
    ],
)
def test_cell_of_a_value_reads_well(column: str, value: object, text: str) -> None:
    assert cell(column, value) == text


def test_time_far_outside_the_calendar_is_shown_as_a_number() -> None:
    assert cell("at_ns", 10**30) == str(10**30)


def test_text_from_a_guest_cannot_write_to_the_terminal() -> None:
    assert shown("a\x1b[2Jb\nc\x07\u202e") == "a\\x1b[2Jb\\nc\\x07\\u202e"


def test_width_of_wide_and_combining_characters_is_what_the_terminal_takes() -> None:
    assert [width_of("ab"), width_of("数据"), width_of("e\u0301")] == [2, 4, 1]


def test_heading_drops_units_that_the_values_carry() -> None:
    assert [heading("memory_bytes"), heading("created_ns"), heading("progress_percent")] == [
        "MEMORY",
        "CREATED",
        "PROGRESS_PERCENT",
    ]


@pytest.mark.parametrize(
    ("asked", "columns"),
    [
        ("", ["name"]),
        ("memory,name", ["memory_bytes", "name"]),
        ("name, name ,memory_bytes,memory", ["name", "memory_bytes"]),
        ("host,all", ["host", "name", "memory_bytes"]),
        (",", ["name"]),
    ],
)
def test_columns_asked_for_are_found_with_or_without_unit(asked: str, columns: list[str]) -> None:
    assert chosen_columns(asked, ["name", "memory_bytes", "host"], ["name"]) == columns


def test_unknown_column_is_refused_with_the_nearest() -> None:
    with pytest.raises(BadInput, match=r"no column memry \(did you mean memory\?\); choose from name"):
        chosen_columns("memry", ["name", "memory_bytes"], ["name"])


def test_columns_of_one_name_in_sql_are_all_kept() -> None:
    assert distinct(["a", "b", "a", "a"]) == ["a", "b", "a_2", "a_3"]


def test_columns_that_sql_numbered_itself_stay_apart() -> None:
    names = distinct(["a", "a", "a_2"])
    assert len(set(names)) == 3
