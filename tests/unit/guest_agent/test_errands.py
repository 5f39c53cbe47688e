"""Children that answer, fail, hang or die: the agent goes on."""

from __future__ import annotations

import os
import select
import signal
from typing import Any

import pytest

from guest_agent.errands import Errands


class Bench:
    def __init__(self) -> None:
        self.now_s = 0.0
        self.errands = Errands(lambda: self.now_s)
        self.ended: list[tuple[Any, str]] = []

    def start(self, work: Any, name: str = "work") -> str:
        return self.errands.start(name, work, lambda value, error: self.ended.append((value, error)), 10.0)

    def wait(self) -> None:
        while self.errands.pipes():
            assert select.select(self.errands.pipes(), [], [], 20)[0], "an errand hangs"
            self.errands.look()


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_errand_answers_with_its_value(bench: Bench) -> None:
    assert bench.start(lambda: {"a": "x" * 300_000}) == ""
    bench.wait()
    assert bench.ended == [({"a": "x" * 300_000}, "")]


def test_errand_that_raises_answers_why(bench: Bench) -> None:
    bench.start(lambda: os.listdir("/nowhere/at/all"))
    bench.wait()
    assert bench.ended[0][0] is None
    assert "/nowhere/at/all" in bench.ended[0][1]


def test_errand_that_is_killed_has_an_error(bench: Bench) -> None:
    bench.start(lambda: os.kill(os.getpid(), signal.SIGKILL))
    bench.wait()
    assert bench.ended == [(None, "the errand ended without an answer")]


def test_errand_past_its_deadline_is_ended_with_what_it_started(bench: Bench) -> None:
    bench.start(lambda: os.system("sleep 1000"))
    bench.errands.look()
    assert bench.ended == []
    assert bench.errands.due_s() == 10.0
    bench.now_s = 10.0
    bench.errands.look()
    assert bench.ended == [(None, "work took too long and was ended")]
    assert bench.errands.due_s() is None


def test_errand_of_a_name_that_runs_is_not_begun_again(bench: Bench) -> None:
    bench.start(signal.pause)
    assert bench.start(lambda: 1) == "work is still being done"
    bench.now_s = 10.0
    bench.errands.look()
    assert bench.start(lambda: 1) == ""
    bench.wait()
    assert bench.ended[-1] == (1, "")


def test_errands_at_once_are_bounded(bench: Bench) -> None:
    reasons = [bench.start(signal.pause, f"work {number}") for number in range(17)]
    assert reasons == [""] * 16 + ["too much is being done at once"]
    bench.now_s = 10.0
    bench.errands.look()
    assert len(bench.ended) == 16
