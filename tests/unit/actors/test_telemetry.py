"""Events are pulled from the history's own cursor, and asked for again when nothing comes."""

from __future__ import annotations

import msgspec
import pytest

from actors.behaviour import Turn
from actors.telemetry import (
    EVENTS_PER_PULL_MAX,
    OPERATIONS_PER_PULL_MAX,
    Flush,
    ReadCursor,
    ReportId,
    StoreEvents,
    StoreOperations,
    StoreSamples,
    Telemetry,
)
from olvm.model import messages as m
from tests.builders import turn

CURSOR = m.CallEnded("cursor", True, msgspec.msgpack.encode(41))
PULL = ("events@engine", m.PullEvents(41, EVENTS_PER_PULL_MAX), False)


def give(one: Telemetry, message: m.AnyMessage) -> Turn:
    done = turn(me="telemetry")
    one.handle(message, done)
    return done


def test_telemetry_start_reads_the_cursor_and_then_pulls_from_it() -> None:
    one = Telemetry()
    assert give(one, m.Recovered()).calls == [
        ("history", ReadCursor("engine"), "cursor"),
        ("history", ReadCursor("engine/operations"), "operations_cursor"),
    ]
    done = give(one, CURSOR)
    assert done.sent == [PULL]
    assert [name for name, _ in done.timers] == ["pull"]


def test_telemetry_pull_that_is_not_answered_is_asked_again_from_the_same_place() -> None:
    one = Telemetry()
    give(one, CURSOR)
    assert give(one, m.TimerFired("pull")).sent == [PULL]


def test_telemetry_events_move_the_cursor_only_when_history_has_them() -> None:
    one = Telemetry()
    give(one, CURSOR)
    stored = give(one, m.EventsTold("engine", b"rows", 41))
    assert (stored.calls, stored.sent) == ([("history", StoreEvents("engine", b"rows"), "events")], [])
    assert give(one, m.TimerFired("pull")).sent == [PULL]
    done = give(one, m.CallEnded("events", True, msgspec.msgpack.encode(50)))
    assert done.sent == [("events@engine", m.PullEvents(50, EVENTS_PER_PULL_MAX), False)]


@pytest.mark.parametrize("tag", ["cursor", "events"])
def test_telemetry_history_that_fails_is_tried_again_later(tag: str) -> None:
    done = give(Telemetry(), m.CallEnded(tag, False, b"full disk"))
    assert (done.sent, [name for name, _ in done.timers]) == ([], ["pull"])


def test_telemetry_samples_go_to_history_and_are_not_journalled() -> None:
    done = give(Telemetry(), m.Samples(b"batch"))
    assert (done.calls, done.saved) == ([("history", StoreSamples(b"batch"), "samples")], [])


@pytest.mark.parametrize("when", ["before the flush", "while it is under way"])
def test_telemetry_does_not_acknowledge_what_history_did_not_take(when: str) -> None:
    one = Telemetry()
    _samples(one, "agent/H1", 1, 2)
    late = m.CallEnded("samples", True, msgspec.msgpack.encode(ReportId("agent/H1", 4, 1)))
    if when == "before the flush":
        give(one, late)
    give(one, m.TimerFired("flush"))
    if when == "while it is under way":
        give(one, late)
    done = give(one, m.CallEnded("flush", True))
    assert done.sent == [("agent/H1", m.SamplesStored(4, [2]), False)]


def test_telemetry_message_of_another_actor_is_a_fault_of_the_programmer() -> None:
    with pytest.raises(AssertionError, match="cannot handle"):
        give(Telemetry(), m.HostLost("H1", ""))


def _samples(one: Telemetry, sender: str, *numbers: int) -> None:
    for number in numbers:
        done = turn(me="telemetry", sender=sender)
        one.handle(m.Samples(b"batch", 4, number), done)
        assert done.sent == []


def _told(value: int, tag: str = "operations") -> m.CallEnded:
    return m.CallEnded(tag, True, msgspec.msgpack.encode(value))


def _pull_from(ns: int) -> tuple[str, m.AnyMessage, bool]:
    return ("operations@engine", m.PullOperations(ns, OPERATIONS_PER_PULL_MAX), False)


def test_telemetry_operations_are_pulled_from_the_end_of_the_newest_that_history_has() -> None:
    one = Telemetry()
    assert give(one, _told(700, "operations_cursor")).sent == [_pull_from(700)]
    stored = give(one, m.OperationsTold("engine", b"rows", 700))
    assert stored.calls == [("history", StoreOperations("engine", b"rows"), "operations")]
    assert give(one, _told(900)).sent == [_pull_from(900)]


def test_telemetry_operations_that_bring_nothing_new_are_asked_for_later() -> None:
    one = Telemetry()
    give(one, _told(700, "operations_cursor"))
    for message in (
        _told(700),
        m.OperationsTold("engine", b"", 700),
        m.CallEnded("operations", False, b"full disk"),
    ):
        done = give(one, message)
        assert (done.sent, [name for name, _ in done.timers]) == ([], ["pull_operations"])
    assert give(one, m.TimerFired("pull_operations")).sent == [_pull_from(700)]


@pytest.mark.parametrize("asked", [40, 42])
def test_telemetry_answer_to_another_question_is_not_taken(asked: int) -> None:
    """A former life asked from further on, and died with what it had: taken, the page would leave a gap."""
    one = Telemetry()
    give(one, CURSOR)
    give(one, _told(41, "operations_cursor"))
    for message in (m.EventsTold("engine", b"rows", asked), m.OperationsTold("engine", b"rows", asked)):
        done = give(one, message)
        assert (done.calls, done.sent, done.timers) == ([], [], [])


def test_telemetry_answer_that_comes_twice_brings_one_question() -> None:
    """Else each repetition would start another series of questions, and those again: a busy engine never ends them."""
    one = Telemetry()
    give(one, CURSOR)
    give(one, _told(700, "operations_cursor"))
    for message in (m.EventsTold("engine", b"rows", 41), m.OperationsTold("engine", b"rows", 700)):
        assert len(give(one, message).calls) == 1
        assert give(one, message).calls == []


FLUSHED = m.CallEnded("flush", True)


def test_telemetry_samples_are_acknowledged_to_their_agents_after_the_flush() -> None:
    one = Telemetry()
    _samples(one, "agent/H1@host-1", 1, 2, 1)
    _samples(one, "agent/H2@host-1", 9)
    assert give(one, m.TimerFired("flush")).calls == [("history", Flush(), "flush")]
    _samples(one, "agent/H1@host-1", 3)  # after the flush began: the next one is of it
    assert give(one, FLUSHED).sent == [
        ("agent/H1@host-1", m.SamplesStored(4, [1, 2]), False),
        ("agent/H2@host-1", m.SamplesStored(4, [9]), False),
    ]
    give(one, m.TimerFired("flush"))
    assert give(one, FLUSHED).sent == [("agent/H1@host-1", m.SamplesStored(4, [3]), False)]


def test_telemetry_flush_that_fails_acknowledges_nothing_until_one_succeeds() -> None:
    one = Telemetry()
    _samples(one, "agent/H1@host-1", 1)
    give(one, m.TimerFired("flush"))
    assert give(one, m.CallEnded("flush", False, b"full disk")).sent == []
    _samples(one, "agent/H1@host-1", 2)
    give(one, m.TimerFired("flush"))
    assert give(one, FLUSHED).sent == [("agent/H1@host-1", m.SamplesStored(4, [1, 2]), False)]
