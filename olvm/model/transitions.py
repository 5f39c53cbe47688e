"""What every state machine here shares: a literal table, one step that obeys it, the diagram drawn from it.

Rules:
1. A pair that is not in the table raises `IllegalTransition`, and nothing has changed.
2. A table is written by trigger, because a trigger is what the reader of a log has in hand.
3. This module knows no machine; it must not import one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import TypeVar

from olvm.model.errors import ERROR_BY_CODE, OlvmError

S = TypeVar("S", bound=StrEnum)
T = TypeVar("T", bound=StrEnum)


class IllegalTransition(OlvmError):
    """A trigger that the present status does not take: the caller asked the table too late or not at all."""

    code = "illegal_transition"


# The tree in errors.py is gathered before this class exists; without this line the code would be lost on
# the wire.
ERROR_BY_CODE[IllegalTransition.code] = IllegalTransition


def every(group: Collection[S], to: S) -> dict[S, S]:
    """The rows of a trigger that leads from each status of `group` to one status, in the enum's order."""
    return {status: to for status in type(to) if status in group}


def flatten(rows: Mapping[T, Mapping[S, S]]) -> dict[tuple[S, T], S]:
    """A table by trigger as a table by (status, trigger)."""
    return {(status, trigger): to for trigger, moves in rows.items() for status, to in moves.items()}


def step(table: Mapping[tuple[S, T], S], what: str, status: S, trigger: T) -> S:
    """The status after `trigger`; `what` is the kind of object, for the message.

    Raises:
        IllegalTransition: the pair is not in the table.
    """
    to = table.get((status, trigger))
    if to is None:
        takes = ", ".join(known.value for start, known in table if start is status) or "nothing"
        raise IllegalTransition(
            f"{trigger.value} does not apply to a {what} that is {status.value}, which takes only {takes}; "
            "nothing was changed, read its status again"
        )
    return to


def mermaid(table: Mapping[tuple[S, T], S]) -> str:
    """The table as a Mermaid state diagram: one arrow for each pair of statuses, with all its triggers."""
    triggers_by_edge: dict[tuple[S, S], list[str]] = {}
    for (status, trigger), to in table.items():
        triggers_by_edge.setdefault((status, to), []).append(trigger.value)
    arrows = (
        f"    {a.value} --> {b.value}: {', '.join(names)}" for (a, b), names in triggers_by_edge.items()
    )
    return "\n".join(("stateDiagram-v2", *arrows)) + "\n"
