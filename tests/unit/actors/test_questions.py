"""How many questions run, wait and are refused, and how they end before their time."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from actors.questions import Questions, checked_question
from olvm.model.client_protocol import Sql
from olvm.model.errors import BadInput, Conflict
from olvm.model.limits import SQL_ROWS_MAX, SQL_SHORT_S, SQL_WAITING_MAX
from olvm.stopping import Stop
from tests.contracts.fault_driver import poll

LONG_S = 60.0

AT_ONCE = 2


class Asked:
    """Answers that run until they are stopped, or until the test lets them."""

    def __init__(self) -> None:
        self.running: list[Stop] = []
        self.reasons: list[str] = []
        self.may_end = threading.Event()

    def answer(self, stop: Stop) -> None:
        self.running.append(stop)
        with stop.watching(self.may_end.set, 60):
            self.may_end.wait(60)
        self.reasons.append(stop.reason)


@pytest.fixture
def asked() -> Asked:
    return Asked()


@pytest.fixture
def questions(asked: Asked) -> Iterator[Questions]:
    questions = Questions(at_once=AT_ONCE)
    yield questions
    asked.may_end.set()
    questions.close()


def test_few_run_many_wait_and_one_more_is_refused(questions: Questions, asked: Asked) -> None:
    for number in range(AT_ONCE + SQL_WAITING_MAX):
        questions.submit((1, number), LONG_S, asked.answer)
    poll(lambda: len(asked.running) == AT_ONCE)
    with pytest.raises(Conflict, match="run or wait already"):
        questions.submit((1, 999), LONG_S, asked.answer)
    asked.may_end.set()
    poll(lambda: len(asked.reasons) == AT_ONCE + SQL_WAITING_MAX)
    questions.submit((1, 999), LONG_S, asked.answer)


def test_client_that_leaves_ends_its_questions_and_nobody_elses(questions: Questions, asked: Asked) -> None:
    other = Asked()
    questions.submit((1, 7), LONG_S, asked.answer)
    questions.submit((2, 7), LONG_S, other.answer)
    poll(lambda: len(asked.running) == len(other.running) == 1)
    questions.forget(1)
    poll(lambda: asked.reasons == ["its client has gone"])
    assert other.reasons == []
    other.may_end.set()
    poll(lambda: other.reasons == [""])


def test_question_that_is_cancelled_while_it_waits_ends_as_soon_as_its_turn_comes(
    questions: Questions, asked: Asked
) -> None:
    for number in range(AT_ONCE):
        questions.submit((1, number), LONG_S, asked.answer)
    waiting = Asked()
    questions.submit((1, 99), LONG_S, waiting.answer)
    questions.stop((1, 99), "its client asked for that")
    asked.may_end.set()
    poll(lambda: waiting.reasons == ["its client asked for that"])


def test_short_question_waits_for_no_long_one(questions: Questions, asked: Asked) -> None:
    for number in range(2 * AT_ONCE):
        questions.submit((1, number), LONG_S, asked.answer)
    short = Asked()
    questions.submit((1, 99), SQL_SHORT_S, short.answer)
    poll(lambda: len(short.running) == 1)
    short.may_end.set()


def test_question_with_limits_that_are_none_is_refused() -> None:
    for timeout_s in (0.0, -1.0, float("nan"), 1e9):
        with pytest.raises(BadInput, match="timeout"):
            checked_question(Sql("select 1", [], 10, timeout_s))
    with pytest.raises(BadInput, match="at least 1 row"):
        checked_question(Sql("select 1", [], 0))
    assert checked_question(Sql("select 1", [], 10**12)).row_count_max == SQL_ROWS_MAX
