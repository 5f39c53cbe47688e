"""Hypothesis writes the guest's lines: nothing raises, nothing grows, and nobody else is touched."""

from __future__ import annotations

import json

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from guest_agent import protocol as g
from hypervisor_backends.measurements import GuestFacts
from olvm.model.limits import GUEST_LINE_BYTES_MAX, GUEST_LIST_ITEMS_MAX, GUEST_TEXT_CHARS_MAX
from tests.unit.hypervisor_backends.guest_talk import Talk
from tests.unit.hypervisor_backends.guest_words import LINES, MESSAGES

GOOD = g.encode("host-name", {"name": "web"})


def check_bounds(facts: GuestFacts) -> None:
    """What was believed can be stored, shown and sent."""
    text = msgspec.json.encode(facts).decode()
    assert g.clean(text) == text
    assert msgspec.json.decode(text, type=GuestFacts) == facts
    check_value(msgspec.to_builtins(facts))
    for name in ("memory_total_kib", "cpu_count", "uptime_s", "swap_in_pages_per_s"):
        assert 0 <= getattr(facts, name) < 2**63
    assert abs(facts.timezone_offset_minutes) <= 900
    assert all(one.used_bytes <= one.total_bytes for one in facts.filesystems)


def check_value(value: object) -> None:
    if isinstance(value, str):
        assert len(value) <= GUEST_TEXT_CHARS_MAX
    elif isinstance(value, dict):
        for key, one in value.items():
            check_value(key)
            check_value(one)
    elif isinstance(value, list | tuple):
        assert len(value) <= GUEST_LIST_ITEMS_MAX
        for one in value:
            check_value(one)


@settings(max_examples=300, deadline=None)
@given(LINES, st.integers(1, 50))
def test_guest_may_say_anything_split_anywhere(lines: list[bytes], size: int) -> None:
    one, other = Talk(), Talk()
    other.talk.feed(GOOD, other.now_ns)
    untouched = other.facts
    data = b"".join(lines)
    for at in range(0, len(data), size):
        one.talk.feed(data[at : at + size], one.now_ns)
        one.pass_s(0.1)
    one.talk.feed(b"\n" + GOOD, one.now_ns)  # what was half said has an end
    assert one.facts.hostname == "web"
    check_bounds(one.facts)
    assert other.facts == untouched


@settings(max_examples=150, deadline=None)
@given(LINES, st.integers(1, 50))
def test_where_lines_are_split_makes_no_difference(lines: list[bytes], size: int) -> None:
    whole, split = Talk(), Talk()
    data = b"".join(lines) + b"\n" + GOOD
    whole.talk.feed(data, whole.now_ns)
    for at in range(0, len(data), size):
        split.talk.feed(data[at : at + size], split.now_ns)
    assert msgspec.json.encode(whole.facts) == msgspec.json.encode(split.facts)
    assert whole.said == split.said


@settings(max_examples=150, deadline=None)
@given(LINES)
def test_each_line_is_understood_or_counted_once(lines: list[bytes]) -> None:
    one = Talk()
    expected_discarded = expected_unknown = 0
    data = b"".join(lines) + b"\n"
    for line in data.split(b"\n"):
        try:
            message = json.loads(line.decode("utf-8", "replace")) if line.strip() else {"__name__": "echo"}
        except (ValueError, RecursionError):
            message = None
        name = message.get("__name__") if isinstance(message, dict) else None
        expected_discarded += not isinstance(name, str)
        expected_unknown += isinstance(name, str) and name not in g.FROM_GUEST
    one.talk.feed(data, one.now_ns)
    assert (one.talk.decoder.discarded, one.talk.unknown) == (expected_discarded, expected_unknown)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(MESSAGES, max_size=8),
    st.lists(st.sampled_from(["thaw", "echo", "login", "refresh"]), max_size=5),
)
def test_each_call_is_answered_once_whatever_the_guest_says(lines: list[bytes], calls: list[str]) -> None:
    one = Talk()
    one.beat()
    asked = [one.call(message) for message in calls]
    for line in lines:
        one.talk.feed(line, one.now_ns)
    one.pass_s(11)
    one.talk.close()
    assert [len(results) for results in asked] == [1] * len(calls)


def test_line_that_never_ends_takes_the_room_of_one_line() -> None:
    one = Talk()
    for _ in range(100):
        one.talk.feed(b"x" * 65536, one.now_ns)
        assert len(one.talk.decoder._rest) <= GUEST_LINE_BYTES_MAX
    one.talk.feed(b"\n" + GOOD, one.now_ns)
    assert (one.facts.hostname, one.facts.lines_discarded) == ("web", 1)
