"""True time orders everything; a host's clock is a view of it that never goes back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olvm.model.limits import NS_PER_S
from sim.clock import START_NS, HostClock, ProcessClock, Timeline


def test_timeline_events_of_one_instant_happen_in_the_order_they_were_put() -> None:
    timeline = Timeline()
    seen: list[str] = []
    for name in ("c", "a", "b"):
        timeline.put(START_NS + 5, lambda name, _: seen.append(name), name)
    timeline.put(START_NS + 4, lambda name, _: seen.append(name), "first")
    timeline.run_to(START_NS + 5)
    assert seen == ["first", "c", "a", "b"]


def test_timeline_event_for_the_past_is_due_now_and_time_stands() -> None:
    timeline = Timeline()
    timeline.run_to(START_NS + 100)
    seen: list[int] = []
    timeline.put(START_NS + 1, lambda _, __: seen.append(timeline.time_ns))
    timeline.run_to(START_NS + 100)
    assert seen == [START_NS + 100]


def test_timeline_event_that_was_taken_back_does_not_happen() -> None:
    timeline = Timeline()
    seen: list[int] = []
    cancel = timeline.call_at(START_NS + 1, lambda: seen.append(1))
    cancel()
    cancel()
    timeline.run_to(START_NS + 2)
    assert seen == []


def test_timeline_run_leaves_what_comes_later_and_time_at_the_end() -> None:
    timeline = Timeline()
    seen: list[int] = []
    timeline.call_at(START_NS + 20, lambda: seen.append(1))
    timeline.run_to(START_NS + 10)
    assert (seen, timeline.time_ns) == ([], START_NS + 10)
    assert timeline.step(START_NS + 30)
    assert (seen, timeline.time_ns) == ([1], START_NS + 20)
    assert not timeline.step(START_NS + 30)


@given(
    drift_ppm=st.integers(-20_000, 20_000),
    offset_ns=st.integers(-(10**12), 10**12),
    after_ns=st.integers(0, 10**15),
)
def test_host_clock_shows_what_was_waited_for_at_the_first_such_instant(
    drift_ppm: int, offset_ns: int, after_ns: int
) -> None:
    timeline = Timeline()
    clock = HostClock(timeline, drift_ppm=drift_ppm, offset_ns=offset_ns)
    due_ns = clock.now_ns() + after_ns
    timeline.time_ns = clock.true_ns(due_ns)
    assert clock.now_ns() >= due_ns
    timeline.time_ns -= 1
    assert clock.now_ns() < due_ns or timeline.time_ns < START_NS


def test_host_clock_that_runs_fast_comes_early_by_its_drift() -> None:
    timeline = Timeline()
    clock = HostClock(timeline, drift_ppm=10_000)
    seen: list[int] = []
    clock.call_at(clock.now_ns() + 101 * NS_PER_S, lambda: seen.append(timeline.time_ns))
    timeline.run_to(START_NS + 200 * NS_PER_S)
    assert seen == [START_NS + 100 * NS_PER_S]


def test_process_clock_forgets_what_it_scheduled_when_the_life_ends() -> None:
    timeline = Timeline()
    clock = ProcessClock(HostClock(timeline), step_ns=3_600 * NS_PER_S)
    seen: list[int] = []
    clock.call_at(clock.now_ns() + 10, lambda: seen.append(timeline.time_ns))
    clock.call_at(clock.now_ns() + 30, lambda: seen.append(0))
    timeline.run_to(START_NS + 20)
    clock.end()
    timeline.run_to(START_NS + 40)
    assert seen == [START_NS + 10]


@pytest.mark.parametrize(("drift_ppm", "step_ns", "is_true"), [(0, 0, True), (1, 0, False), (0, 1, False)])
def test_process_clock_knows_whether_it_shows_true_time(drift_ppm: int, step_ns: int, is_true: bool) -> None:
    clock = ProcessClock(HostClock(Timeline(), drift_ppm=drift_ppm), step_ns)
    assert clock.is_true() is is_true
