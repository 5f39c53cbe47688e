"""Answers in bounded memory."""

from __future__ import annotations

from typing import Any

import pytest

from olvm.model.answers import collect
from olvm.model.errors import BadQuery
from olvm.model.limits import SQL_ANSWER_BYTES_MAX, SQL_PART_ROWS_MAX

MIB = 1 << 20


class Rows:
    """A cursor that makes rows on demand and remembers how many were ever asked for at once."""

    def __init__(self, row: tuple[Any, ...], count: int) -> None:
        self.description = [(f"c{index}", "VARCHAR") for index in range(len(row))]
        self.fetched_count = 0
        self.asked: list[int] = []
        self._row, self._count = row, count

    def fetchmany(self, size: int, /) -> list[tuple[Any, ...]]:
        self.asked.append(size)
        count = min(size, self._count - self.fetched_count)
        self.fetched_count += count
        return [self._row] * count


def test_rows_past_the_limit_are_cut_off_and_not_read() -> None:
    rows = Rows(("a",), 1_000_000)
    answer = collect(rows, 10)
    assert (len(answer), answer.truncated, rows.fetched_count) == (10, True, 11)


def test_exactly_as_many_rows_as_the_limit_are_not_truncated() -> None:
    answer = collect(Rows(("a",), 10), 10)
    assert (len(answer), answer.truncated) == (10, False)


def test_answer_comes_in_parts_that_stay_small() -> None:
    rows = Rows(("a", "b"), 50_000)
    assert len(collect(rows, 100_000)) == 50_000
    assert max(rows.asked) == SQL_PART_ROWS_MAX


def test_answer_of_large_rows_is_read_one_by_one_and_refused_when_it_is_too_large() -> None:
    rows = Rows(("x" * (8 * MIB),), 1_000_000)
    with pytest.raises(BadQuery, match="256 MiB of memory after 31 rows"):
        collect(rows, 1_000_000)
    assert (max(rows.asked), rows.fetched_count) == (1, SQL_ANSWER_BYTES_MAX // (8 * MIB))


def test_answer_of_many_small_values_is_counted_with_what_python_needs_for_them() -> None:
    with pytest.raises(BadQuery, match="fewer columns or rows"):
        collect(Rows(tuple("abcdefghij"), 1_000_000), 1_000_000)
