"""Each statement of docs/history-cookbook.md, run against a history in which all that it asks about has happened."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from olvm.history.store import HistoryStore
from tests.architecture.source import ROOT
from tests.unit.history.two_days import two_days

PAGE = (ROOT / "docs" / "history-cookbook.md").read_text(encoding="utf-8")
QUESTIONS = re.findall(r"\*\*(\d+)\. ([^*]+)\*\*.*?```sql\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HistoryStore]:
    with two_days(tmp_path_factory.mktemp("history")) as store:
        yield store


def test_page_asks_thirty_questions() -> None:
    assert [int(number) for number, _, _ in QUESTIONS] == list(range(1, 31))


@pytest.mark.parametrize(("number", "question", "statement"), QUESTIONS, ids=[one[0] for one in QUESTIONS])
def test_question_of_the_cookbook_is_answered(
    history: HistoryStore, number: str, question: str, statement: str
) -> None:
    answer = history.query(statement)

    assert answer.rows, f"{number}. {question}: no rows"
    assert any(value is not None for value in answer.rows[0])


def answer(history: HistoryStore, number: int) -> list[tuple[object, ...]]:
    (statement,) = (one[2] for one in QUESTIONS if one[0] == str(number))
    return history.query(statement).rows


def test_answers_are_what_happened(history: HistoryStore) -> None:
    assert [row[0] for row in answer(history, 4)] == ["idle"]
    assert [row[0] for row in answer(history, 5)] == ["web"]
    (down,) = answer(history, 16)
    assert (down[0], down[1], down[3], down[4]) == ("kvm01", "non_responsive", 1800, 1)
    assert [row[0] for row in answer(history, 17)] == ["web"]
    assert [row[3] for row in answer(history, 18)] == [100]
    assert answer(history, 23)[0][3:6] == ("failed", True, "it did not converge")
    assert answer(history, 24)[0][:2] == (1, 10.0)
    assert [row[0] for row in answer(history, 26)] == ["kvm01", "kvm02", "kvm01"]
    assert [row[1] for row in answer(history, 28)] == [4, 6]
    assert answer(history, 30)[0][1] == "openssl-3.0.11"
