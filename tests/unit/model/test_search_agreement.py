"""The search language: predicate and SQL find the same rows, for terms and values at every odd corner."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olvm.model.search import (
    OPERATORS,
    Comparison,
    Expression,
    FreeText,
    Not,
    Query,
    all_of,
    any_of,
    show,
)
from olvm.model.search_fields import Field, Fields, folded
from olvm.model.search_targets import predicate, to_sql


def comparison(field: str, op: str, value: str) -> Comparison:
    return Comparison(field=field, op=op, value=value)  # type: ignore[arg-type]


LAB = Fields(
    by_name={
        "name": Field(column="name"),
        "note": Field(column="note"),
        "status": Field(column="status", type="choice", choices=("up", "down", "powering_up")),
        "severity": Field(column="severity", type="rank", choices=("normal", "warning", "error")),
        "memory": Field(column="memory_bytes", type="size"),
        "load": Field(column="load", type="number"),
        "ha": Field(column="ha", type="boolean"),
    }
)
LAB_COLUMNS = tuple(field.column for field in LAB.by_name.values())
# Few letters, so that values meet; with what LIKE and regular expressions find special, and letters whose
# case is odd: dotted and dotless i, sharp s, both small sigmas.
words = st.text(alphabet="abAB%_\\*.[ßİıΣςσÄä", max_size=4)
whole = st.integers(min_value=-8, max_value=8) | st.sampled_from([1024, 2**40, 2**52])
rows = st.fixed_dictionaries(
    {
        "name": words,
        "note": st.none() | words,
        "status": st.none() | st.sampled_from(["up", "down", "powering_up"]),
        "severity": st.none() | st.sampled_from(["normal", "warning", "error", "of a newer version"]),
        "memory_bytes": st.none() | whole.map(abs),
        "load": st.none() | st.floats(min_value=-8, max_value=8, width=32),
        "ha": st.none() | st.booleans(),
    }
)


def lab_terms() -> st.SearchStrategy[Expression]:
    equality = st.sampled_from(["=", "!="])
    order = st.sampled_from(OPERATORS)
    plain = words.map(lambda word: word.replace("*", ""))
    statuses = st.sampled_from(["up", "DOWN", "poweringup", "*p*"])
    severities = st.sampled_from(["normal", "Warning", "error"])
    sizes = whole.map(abs).map(str) | st.sampled_from(["1K", "1KB", "0.5TiB"])
    loads = st.integers(-8, 8).map(str) | st.floats(-8, 8, width=16).map(repr)
    return st.one_of(
        st.builds(FreeText, value=words),
        st.builds(Comparison, field=st.sampled_from(["name", "note"]), op=equality, value=words),
        st.builds(Comparison, field=st.sampled_from(["name", "note"]), op=order, value=plain),
        st.builds(Comparison, field=st.just("status"), op=equality, value=statuses),
        st.builds(Comparison, field=st.just("severity"), op=order, value=severities),
        st.builds(Comparison, field=st.just("memory"), op=order, value=sizes),
        st.builds(Comparison, field=st.just("load"), op=order, value=loads),
        st.builds(Comparison, field=st.just("ha"), op=equality, value=st.sampled_from(["yes", "false"])),
    )


lab_trees = st.recursive(
    lab_terms(),
    lambda inner: (
        st.builds(Not, part=inner)
        | st.lists(inner, min_size=2, max_size=3).map(all_of)
        | st.lists(inner, min_size=2, max_size=3).map(any_of)
    ),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def lab() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute(
            "create table lab (id integer, name varchar, note varchar, status varchar, severity varchar,"
            " memory_bytes bigint, load double, ha boolean)"
        )
        yield connection


def insert(lab: duckdb.DuckDBPyConnection, table: list[dict[str, Any]]) -> None:
    lab.execute("delete from lab")
    one_row = f"({', '.join('?' * (1 + len(LAB_COLUMNS)))})"
    cells = [cell for number, row in enumerate(table) for cell in (number, *(row[c] for c in LAB_COLUMNS))]
    lab.execute(f"insert into lab values {', '.join([one_row] * len(table))}", cells)


def assert_agreement(lab: duckdb.DuckDBPyConnection, table: list[dict[str, Any]], query: Query) -> int:
    """Returns how many rows were found."""
    sql = to_sql(query, LAB)
    answer = lab.execute(f"select id from lab {sql.clauses()}", list(sql.parameters)).fetchall()
    holds = predicate(query, LAB)
    found = sorted(number for (number,) in answer)
    assert found == [number for number, row in enumerate(table) if holds(row)], show(query)
    return len(found)


@settings(max_examples=150, deadline=None)
@given(table=st.lists(rows, min_size=1, max_size=6), tree=lab_trees)
def test_search_as_predicate_and_as_sql_finds_the_same_rows(
    lab: duckdb.DuckDBPyConnection, table: list[dict[str, Any]], tree: Expression
) -> None:
    insert(lab, table)
    assert_agreement(lab, table, Query(where=tree))


# Random trees seldom hit the odd corner of a single term, so here each term meets each value.
ODD_TEXTS = [
    "",
    "a",
    "A",
    "ab",
    "aab",
    "a%b",
    "axb",
    "a_b",
    "a\\b",
    "%",
    "_",
    "\\",
    "x",
    "[a]",
    "ß",
    "İ",
    "aΣ",
    "aς",
]
ODD_PATTERNS = [*ODD_TEXTS, "*", "**", "a*", "*b", "a*b", "ab*b", "a*a*b", "*%*", "*_*", "a_*", "*\\*", "*Σ"]
EMPTY = dict.fromkeys(LAB_COLUMNS)
EVERY_VALUE: list[dict[str, Any]] = [
    {**EMPTY, "name": ""},
    *({**EMPTY, "name": text, "note": text} for text in ODD_TEXTS),
    *({**EMPTY, "name": "", "status": status} for status in ("up", "down", "powering_up")),
    *(
        {**EMPTY, "name": "", "severity": word}
        for word in ("normal", "Warning", "error", "of a newer version")
    ),
    *({**EMPTY, "name": "", "memory_bytes": size} for size in (0, 1, 1000, 1024, 2**52)),
    *({**EMPTY, "name": "", "load": load} for load in (-1.5, -0.0, 0.0, 0.1, 2.0)),
    *({**EMPTY, "name": "", "ha": ha} for ha in (True, False)),
]
EVERY_TERM: list[Expression] = [
    *(FreeText(value=text) for text in ODD_PATTERNS),
    *(
        comparison(field, op, text)
        for field in ("name", "note")
        for op in ("=", "!=")
        for text in ODD_PATTERNS
    ),
    *(comparison("note", op, text) for op in OPERATORS for text in ODD_TEXTS),
    *(comparison("status", op, word) for op in ("=", "!=") for word in ("UP", "poweringup", "*p*", "*")),
    *(comparison("severity", op, word) for op in OPERATORS for word in ("normal", "Warning", "error")),
    *(comparison("memory", op, size) for op in OPERATORS for size in ("0", "1KB", "1K", "4096T")),
    *(comparison("load", op, load) for op in OPERATORS for load in ("-1.5", "0", "0.1", "2")),
    *(comparison("ha", op, word) for op in ("=", "!=") for word in ("yes", "false")),
]


def test_search_of_every_term_finds_the_same_rows_as_predicate_and_as_sql(
    lab: duckdb.DuckDBPyConnection,
) -> None:
    insert(lab, EVERY_VALUE)
    counts = [assert_agreement(lab, EVERY_VALUE, Query(where=term)) for term in EVERY_TERM]
    mixed = sum(0 < count < len(EVERY_VALUE) for count in counts)
    assert mixed > 0.8 * len(EVERY_TERM)  # else the comparison would say little


def test_folded_text_is_duckdbs_lower_for_every_character(lab: duckdb.DuckDBPyConnection) -> None:
    codes = "select code, lower(chr(code::integer)) from range(1, 1114112) t(code)"
    answers = lab.execute(f"{codes} where code not between 55296 and 57343").fetchall()
    assert len(answers) == 1_112_063
    assert [code for code, lowered in answers if folded(chr(code)) != lowered] == []
