"""Who must wait how long after how many failures."""

from __future__ import annotations

import pytest

from actors.back_off import BackOff
from olvm.model.limits import (
    LOGON_FAILURES_FREE,
    LOGON_FAILURES_REMEMBERED_MAX,
    LOGON_WAIT_S_MAX,
    LOGON_WAIT_S_MIN,
)


def waits(count: int) -> list[float]:
    """After each of so many failures in a row, each as soon as it may be."""
    back_off, now_s, found = BackOff(), 0.0, []
    for _ in range(count):
        back_off.charge("alice", now_s)
        found.append(back_off.wait_s("alice", now_s))
        now_s += found[-1]
    return found


def test_back_off_first_failures_are_free_then_the_wait_doubles_up_to_its_bound() -> None:
    free = [0.0] * (LOGON_FAILURES_FREE - 1)
    assert waits(LOGON_FAILURES_FREE + 3) == [*free, *(LOGON_WAIT_S_MIN * 2**n for n in range(4))]
    assert waits(5_000)[-1] == LOGON_WAIT_S_MAX


def test_back_off_wait_runs_out_with_the_time() -> None:
    back_off = BackOff()
    for _ in range(LOGON_FAILURES_FREE):
        back_off.charge("alice", 10.0)
    assert back_off.wait_s("alice", 10.25) == pytest.approx(LOGON_WAIT_S_MIN - 0.25)
    assert back_off.wait_s("alice", 11.0) == 0.0


def test_back_off_of_one_user_is_not_felt_by_another() -> None:
    back_off = BackOff()
    for _ in range(20):
        back_off.charge("alice", 0.0)
    assert back_off.wait_s("bob", 0.0) == 0.0


def test_back_off_cleared_begins_anew() -> None:
    back_off = BackOff()
    for _ in range(20):
        back_off.charge("alice", 0.0)
    back_off.clear("alice")
    assert (back_off.wait_s("alice", 0.0), back_off.charge("alice", 0.0)) == (0.0, 1)


def test_back_off_attempt_that_could_not_be_checked_counts_for_nothing() -> None:
    back_off = BackOff()
    back_off.charge("alice", 0.0)
    back_off.charge("alice", 0.0)
    back_off.take_back("alice", 0.0)
    assert back_off.charge("alice", 0.0) == 2
    back_off.take_back("bob", 0.0)
    assert back_off.charge("bob", 0.0) == 1


def test_back_off_remembers_so_many_names_and_forgets_the_oldest() -> None:
    back_off = BackOff()
    for _ in range(9):
        back_off.charge("alice", 0.0)
    for number in range(LOGON_FAILURES_REMEMBERED_MAX - 1):
        back_off.charge(f"user-{number}", 0.0)
    assert back_off.wait_s("alice", 0.0) > 0
    back_off.charge("one-more", 0.0)
    assert back_off.wait_s("alice", 0.0) == 0.0
