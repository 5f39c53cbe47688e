"""What a script makes of the rows that SQL gave."""

from __future__ import annotations

import pytest

from olvm.api.result import Result
from olvm.model.table import QueryResult


def result() -> Result:
    return Result(
        QueryResult(columns=["name", "vcpus"], types=["VARCHAR", "BIGINT"], rows=[("web", 4), ("db", None)])
    )


def test_result_gives_rows_mappings_and_text() -> None:
    assert result().rows() == [("web", 4), ("db", None)]
    assert result().dicts()[1] == {"name": "db", "vcpus": None}
    assert str(result()).splitlines() == ["name  vcpus", "web   4", "db"]
    assert len(result()) == 2


def test_result_is_an_arrow_stream_without_further_packages() -> None:
    assert "arrow_array_stream" in repr(result().__arrow_c_stream__())


def test_result_html_escapes_what_a_guest_may_have_chosen() -> None:
    hostile = Result(QueryResult(columns=["name"], types=["VARCHAR"], rows=[("<script>",)]))
    assert "<script>" not in hostile._repr_html_()
    assert "&lt;script&gt;" in hostile._repr_html_()


def test_result_single_value_is_refused_when_there_are_more() -> None:
    with pytest.raises(ValueError, match="unpack"):
        result().one()
