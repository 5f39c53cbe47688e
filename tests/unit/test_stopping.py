"""The way to end a question from another thread."""

from __future__ import annotations

import threading

import pytest

from olvm.stopping import Stop

LONG_S = 60.0


def test_end_that_is_asked_for_interrupts_again_and_again() -> None:
    stop, thrice = Stop(), threading.Semaphore(0)
    with stop.watching(thrice.release, LONG_S, repeat_s=0.001):
        stop.stop("first")
        stop.stop("second")
        for _ in range(3):
            assert thrice.acquire(timeout=LONG_S)
    assert stop.reason == "first"


def test_time_that_is_over_interrupts_and_says_so() -> None:
    stop, interrupted = Stop(), threading.Event()
    with stop.watching(interrupted.set, 0.01):
        assert interrupted.wait(LONG_S)
    assert "longer than 0.01 s" in stop.reason


def test_end_asked_for_before_the_block_interrupts_in_it() -> None:
    stop, interrupted = Stop(), threading.Event()
    stop.stop("early")
    with stop.watching(interrupted.set, LONG_S):
        assert interrupted.wait(LONG_S)


def test_block_that_ended_in_time_leaves_the_next_one_alone() -> None:
    stop, calls = Stop(), []
    for _ in range(50):
        with stop.watching(lambda: calls.append(1), LONG_S):
            pass
    assert (calls, stop.reason) == ([], "")


def test_block_that_raises_is_not_watched_any_more() -> None:
    stop = Stop()
    with pytest.raises(ZeroDivisionError), stop.watching(lambda: None, LONG_S):
        1 / 0  # noqa: B018
    stop.stop("late")
    assert not [one for one in threading.enumerate() if one.name == "question-watch"]
