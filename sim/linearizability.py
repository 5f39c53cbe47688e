"""Whether one order of operations explains what all clients saw: Wing and Gong's search, with Lowe's memory.

A history is a list of calls on one object, each with the time it was asked, the time its end was known (None: never),
and a step function of the object's model. A call must take effect once between the two; a call whose end is not
known, or whose failure does not say that nothing happened, is `optional`: it may take effect at any later time, or
never. Cost: exponential at worst in calls that overlap; the memory of (which are done, state) keeps it small for
what one machine sees.

Source: Wing & Gong 1993; Lowe 2017; Porcupine treats unknown results the same way (return time infinity).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

SEARCHED_MAX = 200_000


class Call(NamedTuple):
    """`step` gives the state after the call, or None if the call could not have ended so in that state."""

    name: str
    asked_ns: int
    ended_ns: int | None
    step: Callable[[str], str | None]
    optional: bool = False


def explain(calls: Sequence[Call], initial: str, *, searched_max: int = SEARCHED_MAX) -> list[int] | None:
    """An order (indices into `calls`) that explains the history, or None if there is none.

    Raises:
        OverflowError: the search went past its bound; nothing is known.
    """
    order = sorted(range(len(calls)), key=lambda index: calls[index].asked_ns)
    must = 0
    for index in order:
        if not calls[index].optional:
            must |= 1 << index
    seen: set[tuple[int, str]] = set()
    stack: list[tuple[int, str, tuple[int, ...]]] = [(0, initial, ())]
    while stack:
        done, state, path = stack.pop()
        if done & must == must:
            return list(path)
        if (done, state) in seen:
            continue
        seen.add((done, state))
        if len(seen) > searched_max:
            raise OverflowError(f"no verdict on {len(calls)} calls after {searched_max} states")
        # What was asked before the first end among those that are open may come next.
        first_end = min(
            (
                ended
                for index in order
                if not done >> index & 1
                and not calls[index].optional
                and (ended := calls[index].ended_ns) is not None
            ),
            default=None,
        )
        for index in reversed(order):
            call = calls[index]
            if done >> index & 1 or (first_end is not None and call.asked_ns > first_end):
                continue
            after = call.step(state)
            if after is not None:
                stack.append((done | 1 << index, after, (*path, index)))
    return None
