"""The search finds an order exactly when there is one: held against trying all of them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from sim.linearizability import Call, explain

MOVES = ({"a": "b"}, {"b": "a"}, {"a": "a", "b": "b"}, {"b": "c", "c": "a"}, {"c": "c"})


@st.composite
def calls(draw: st.DrawFn) -> Call:
    move = draw(st.integers(0, len(MOVES) - 1))
    asked_ns = draw(st.integers(0, 12))
    optional = draw(st.booleans())
    ended_ns = None if optional else asked_ns + draw(st.integers(0, 6))
    return Call(f"move {move}", asked_ns, ended_ns, MOVES[move].get, optional)


def is_explained_by(calls: Sequence[Call], order: Sequence[int], initial: str) -> bool:
    """The definition: each call once at most, all that are not optional, no call before one that had ended."""
    if len(set(order)) != len(order) or any(
        not call.optional and index not in order for index, call in enumerate(calls)
    ):
        return False
    state: str | None = initial
    for position, index in enumerate(order):
        for later in order[position + 1 :]:
            ended_ns = calls[later].ended_ns
            if ended_ns is not None and ended_ns < calls[index].asked_ns:
                return False
        assert state is not None
        state = calls[index].step(state)
        if state is None:
            return False
    return True


def by_trying_all(calls: Sequence[Call], initial: str) -> bool:
    return any(
        is_explained_by(calls, order, initial)
        for count in range(len(calls) + 1)
        for order in itertools.permutations(range(len(calls)), count)
    )


@settings(max_examples=400, deadline=None)
@given(history=st.lists(calls(), max_size=5))
def test_search_agrees_with_trying_every_order(history: list[Call]) -> None:
    found = explain(history, "a")
    event("explained" if found is not None else "not explained")
    if found is None:
        assert not by_trying_all(history, "a")
    else:
        assert is_explained_by(history, found, "a")


def read(state: str, asked_ns: int, ended_ns: int) -> Call:
    return Call(f"sees {state}", asked_ns, ended_ns, {state: state}.get)


def write(before: str, after: str, asked_ns: int, ended_ns: int | None) -> Call:
    return Call("writes", asked_ns, ended_ns, {before: after}.get, optional=ended_ns is None)


def test_write_of_unknown_end_may_take_effect_long_after() -> None:
    history = [write("a", "b", 0, None), read("a", 10, 11), read("b", 20, 21)]
    assert explain(history, "a") == [1, 0, 2]


def test_stale_read_after_a_write_that_ended_is_not_explained() -> None:
    assert explain([write("a", "b", 0, 5), read("a", 6, 7)], "a") is None
    assert explain([write("a", "b", 0, 6), read("a", 6, 7)], "a") == [1, 0]


def test_search_past_its_bound_gives_no_verdict() -> None:
    stays = {"a": "a"}.get
    history = [Call("stays", 0, None, stays, optional=True) for _ in range(12)] + [read("b", 0, 1)]
    with pytest.raises(OverflowError, match="no verdict on 13 calls"):
        explain(history, "a", searched_max=50)


def test_memory_keeps_many_overlapping_calls_cheap() -> None:
    """Twenty calls at once have 20! orders; in one state all orders of the same calls are one."""
    stays = {"a": "a"}.get
    history = [Call("stays", 0, 100, stays) for _ in range(12)] + [read("b", 0, 100)]
    assert explain(history, "a") is None
