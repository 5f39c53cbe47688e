"""The search language: what text means, what is refused, and what it says of a row."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olvm.model.errors import BadQuery
from olvm.model.records import EventRecord, VmRecord
from olvm.model.search import (
    KEYWORDS,
    OPERATORS,
    QUERY_CHARS_MAX,
    QUERY_DEPTH_MAX,
    AllOf,
    AnyOf,
    Comparison,
    Expression,
    FreeText,
    Not,
    Query,
    all_of,
    any_of,
    parse,
    show,
)
from olvm.model.search_fields import Field, fields_of
from olvm.model.search_targets import predicate, to_sql

VM_FIELDS = fields_of(VmRecord)


def comparison(field: str, op: str, value: str) -> Comparison:
    return Comparison(field=field, op=op, value=value)  # type: ignore[arg-type]


# ---------------------------------------------------------------- reading


def test_search_with_everything_reads_as_ovirt_reads_it() -> None:
    text = "status=up and host=kvm1* or name != web* sortby name desc page 2"
    assert parse(text) == Query(
        where=AnyOf(
            parts=(
                AllOf(parts=(comparison("status", "=", "up"), comparison("host", "=", "kvm1*"))),
                comparison("name", "!=", "web*"),
            )
        ),
        sort_by="name",
        descending=True,
        page=2,
    )


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("", Query()),
        ("  ", Query()),
        ("Vms:", Query(kind="vms")),
        ("host : up", Query(kind="hosts", where=FreeText(value="up"))),
        ("page 3", Query(page=3)),
        ("sortby name", Query(sort_by="name")),
        ("web", Query(where=FreeText(value="web"))),
        ('"page"', Query(where=FreeText(value="page"))),
        ("NOT a", Query(where=Not(part=FreeText(value="a")))),
        ("Memory >= 8GiB", Query(where=comparison("memory", ">=", "8GiB"))),
        ("vcpus<=4", Query(where=comparison("vcpus", "<=", "4"))),
        ("name='old lab'", Query(where=comparison("name", "=", "old lab"))),
        (r'name = "a\"b\\c"', Query(where=comparison("name", "=", 'a"b\\c'))),
        (
            "(a or b) and c",
            Query(
                where=AllOf(
                    parts=(
                        AnyOf(parts=(FreeText(value="a"), FreeText(value="b"))),
                        FreeText(value="c"),
                    )
                )
            ),
        ),
        (
            "a and (b and c)",
            Query(where=AllOf(parts=tuple(FreeText(value=word) for word in "abc"))),
        ),
        ("Events: severity > normal sortby time", None),
    ],
)
def test_search_text_has_this_tree(text: str, query: Query | None) -> None:
    if query is None:
        query = Query(kind="events", where=comparison("severity", ">", "normal"), sort_by="time")
    assert parse(text) == query


@pytest.mark.parametrize(
    ("text", "character", "problem"),
    [
        ("status=", 8, "expected a value after ="),
        ("status= and host=x", 9, "expected a value after ="),
        ("= up", 1, "expected a field"),
        ("(a or b", 8, "open bracket"),
        ("a or b)", 7, "closes nothing"),
        ('name="web', 6, "not closed"),
        ("a b", 3, "expected and, or"),
        ("a and", 6, "expected a field"),
        ("not", 4, "expected a field"),
        ("name ! web", 6, "use not"),
        ("sortby", 7, "name of a field"),
        ("sortby name up", 13, "only asc, desc or page"),
        ("page zero", 6, "number of a page"),
        ("page 0", 6, "pages go from 1"),
        ("page 1 web", 8, "nothing may follow"),
        ("boxes: up", 1, "unknown kind boxes"),
        ("4x = 3", 1, "name of a field"),
        ("and = 3", 1, "name of a field"),
    ],
)
def test_search_that_is_malformed_points_at_the_character(text: str, character: int, problem: str) -> None:
    with pytest.raises(BadQuery) as caught:
        parse(text)
    message = caught.value.message
    assert f"at character {character}:" in message
    assert problem in message
    assert message.endswith(f"{text[: character - 1]}^{text[character - 1 :]}")
    assert "\n" not in message


def test_search_with_line_breaks_is_refused_in_one_line() -> None:
    with pytest.raises(BadQuery) as caught:
        parse("a\nand\n=")
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("text", ["(" * (QUERY_DEPTH_MAX + 1), "not " * (QUERY_DEPTH_MAX + 1) + "a"])
def test_search_nested_too_deep_is_refused(text: str) -> None:
    with pytest.raises(BadQuery, match="deep"):
        parse(text)


def test_search_nested_as_deep_as_allowed_is_read_and_compiled() -> None:
    query = parse("not " * QUERY_DEPTH_MAX + "web")
    assert predicate(query, VM_FIELDS)({"name": "web"})


def test_search_that_is_too_long_is_refused() -> None:
    with pytest.raises(BadQuery, match="use at most"):
        parse("a" * (QUERY_CHARS_MAX + 1))


# ---------------------------------------------------------------- there and back

values = st.text(min_size=0, max_size=8) | st.sampled_from(
    ["web*", "and", "page", "a:b", 'q"q', "\\", "8GiB"]
)
field_names = st.from_regex(r"[a-z_][a-z0-9_.]{0,6}", fullmatch=True).filter(
    lambda name: name not in KEYWORDS
)
terms: st.SearchStrategy[Expression] = st.builds(FreeText, value=values) | st.builds(
    Comparison, field=field_names, op=st.sampled_from(OPERATORS), value=values
)
trees = st.recursive(
    terms,
    lambda inner: (
        st.builds(Not, part=inner)
        | st.lists(inner, min_size=1, max_size=3).map(all_of)
        | st.lists(inner, min_size=1, max_size=3).map(any_of)
    ),
    max_leaves=8,
)


@st.composite
def queries(draw: st.DrawFn) -> Query:
    sort_by = draw(st.none() | field_names)
    return Query(
        kind=draw(st.sampled_from([None, "vms", "hosts", "events"])),
        where=draw(st.none() | trees),
        sort_by=sort_by,
        descending=draw(st.booleans()) if sort_by else False,
        page=draw(st.none() | st.integers(min_value=1, max_value=1_000_000)),
    )


@settings(max_examples=300, deadline=None)
@given(queries())
def test_search_shown_and_parsed_is_the_same_tree(query: Query) -> None:
    assert parse(show(query)) == query


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=40) | st.text(alphabet="ab ()\"'=!<>:*not", max_size=40))
def test_search_of_any_text_is_read_or_is_a_bad_query(text: str) -> None:
    message = ""
    try:
        query = parse(text)
    except BadQuery as refusal:
        message = refusal.message
    else:
        assert parse(show(query)) == query
    assert "\n" not in message  # one line; any other exception fails the test by itself


# ---------------------------------------------------------------- fields


def test_fields_of_a_record_have_the_types_of_its_annotations() -> None:
    by_name = VM_FIELDS.by_name
    assert by_name["memory"] == by_name["memory_bytes"] == Field(column="memory_bytes", type="size")
    assert by_name["created"] == Field(column="created_ns", type="time")
    assert by_name["host"] == Field(column="host")
    assert by_name["vcpus"] == Field(column="vcpus", type="number")
    assert by_name["high_availability"] == Field(column="high_availability", type="boolean")
    assert by_name["status"].type == "choice"
    assert "powering_up" in by_name["status"].choices
    assert "pinned_hosts" not in by_name
    assert "timers" not in by_name
    severity = fields_of(EventRecord, free_text="message").by_name["severity"]
    assert severity.type == "rank"
    assert severity.choices == ("normal", "warning", "error", "alert")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "statsu=up",
            r"unknown field statsu \(did you mean status\?\); known fields are agent, boot_id, cluster, ",
        ),
        ("sortby nam", r"unknown field nam \(did you mean name\?\)"),
        ("users.name=mary", "unknown field users.name"),
        ("status=upp", r"status is never upp \(did you mean up\?\); its values are unassigned, down, up"),
        ("status > up", "status has no order; use = or !="),
        ("name < web*", "name is compared with a pattern; use = or !="),
        ("memory > lots", "memory is a size, write it as in 512MiB or 8GiB"),
        ("vcpus = 4*", "vcpus is a number"),
        ("vcpus = nan", "use a number below"),
        ("vcpus = 1e400", "use a number below"),
        ("high_availability=maybe", "high_availability is true or false"),
        ("high_availability > no", "high_availability is yes or no; use = or !="),
        ("created > yesterday", "created is a time in UTC"),
    ],
)
def test_search_that_does_not_fit_the_fields_is_refused_both_ways(text: str, problem: str) -> None:
    query = parse(text)
    with pytest.raises(BadQuery, match=problem):
        to_sql(query, VM_FIELDS)
    if query.where is not None:
        with pytest.raises(BadQuery, match=problem):
            predicate(query, VM_FIELDS)


# ---------------------------------------------------------------- meaning

ROW: dict[str, object] = {
    "name": "Web-1",
    "status": "powering_up",
    "host": None,
    "memory_bytes": 8 * 1024**3,
    "vcpus": 4,
    "high_availability": True,
    "created_ns": 1_000_000_000,
}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        ("web", True),
        ("eb-", True),
        ("eb*", False),
        ("name=web", False),
        ("name=WEB-1", True),
        ("name=w*-*1", True),
        ("name=web-1*1", False),
        ("name != w*", False),
        ("status=poweringup", True),
        ("status=power*", True),
        ("status != Powering_Up", False),
        ("host=kvm1", False),
        ("host != kvm1", True),
        ("not host=kvm1", True),
        ("host=*", False),
        ("memory >= 8GiB", True),
        ("memory > 8GiB", False),
        ("memory < 8.5G", True),
        ("vcpus=4.0", True),
        ("vcpus < 4.5", True),
        ("vcpus = 4.5", False),
        ("high_availability=yes", True),
        ("high_availability != yes", False),
        ("created < 1970-01-02", True),
        ('created = "1970-01-01T01:00:01+01:00"', True),
        ("vcpus=4 and not (name=x or host=*)", True),
    ],
)
def test_search_means_this_of_a_row(text: str, matches: bool) -> None:
    assert predicate(parse(text), VM_FIELDS)(ROW) is matches


@pytest.mark.parametrize(
    ("text", "severities"),
    [
        ("severity > normal", ["warning", "error", "alert"]),
        ("severity <= warning", ["normal", "warning"]),
        ("severity = Error", ["error"]),
    ],
)
def test_search_by_severity_follows_its_order_and_not_the_alphabet(text: str, severities: list[str]) -> None:
    holds = predicate(parse(text), fields_of(EventRecord, free_text="message"))
    order = ["normal", "warning", "error", "alert"]
    assert [severity for severity in order if holds({"severity": severity})] == severities


def test_search_with_many_stars_takes_one_pass() -> None:
    holds = predicate(parse("name=" + "*a" * 2000), VM_FIELDS)
    assert not holds({"name": "a" * 1999})
    assert holds({"name": "a" * 2000})


def test_search_as_sql_keeps_what_was_typed_in_parameters() -> None:
    sql = to_sql(parse("""name="x' or 1=1 --" sortby memory desc page 3"""), VM_FIELDS, page_rows=50)
    assert sql.where == 'coalesce(lower("name") = ?, false)'
    assert sql.parameters == ("x' or 1=1 --",)
    assert sql.clauses() == (
        'where coalesce(lower("name") = ?, false) order by "memory_bytes" desc nulls last limit 50 offset 100'
    )


def test_search_without_a_page_asks_for_all_rows() -> None:
    assert to_sql(parse(""), VM_FIELDS).clauses() == "where true"
