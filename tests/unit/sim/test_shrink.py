"""Shrinking, with a plain function for the failure: what is left fails still, and is small."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.plan import Knobs, Plan, Shape, Step
from sim.shrink import AFTER_MS, shrink


def plan_of(*numbers: int, **fields: object) -> Plan:
    """A step each second; its value is its number."""
    steps = tuple(
        Step(1_000 * index, "cut", "engine|host-1", 8_000, number) for index, number in enumerate(numbers)
    )
    return msgspec.structs.replace(Plan(seed=1, hours=1.0, steps=steps), **fields)


def values(plan: Plan) -> list[int]:
    return [step.value for step in plan.steps]


class Counted:
    """The predicate, and how often it was asked."""

    def __init__(self, fails: Callable[[Plan], bool]) -> None:
        self.fails = fails
        self.count = 0

    def __call__(self, plan: Plan) -> bool:
        self.count += 1
        return self.fails(plan)


@settings(deadline=None)
@given(
    count=st.integers(2, 60),
    data=st.data(),
)
def test_failure_of_two_steps_shrinks_to_these_two(count: int, data: st.DataObject) -> None:
    pair = data.draw(st.lists(st.integers(0, count - 1), min_size=2, max_size=2, unique=True))
    fails = Counted(lambda plan: set(pair) <= set(values(plan)))
    report = shrink(plan_of(*range(count)), fails, failed_at_ms=None, runs_max=1_000)
    assert values(report.plan) == sorted(pair)
    assert (report.steps_before, report.runs) == (count, fails.count)


@given(numbers=st.lists(st.integers(0, 9), max_size=40), runs_max=st.integers(0, 30), data=st.data())
def test_shrinking_keeps_the_failure_and_the_bound_whatever_the_failure_is(
    numbers: list[int], runs_max: int, data: st.DataObject
) -> None:
    """Also for a failure that is not monotonic: with fewer steps it may go away and come again."""
    modulus = data.draw(st.integers(1, 5))

    def fails(plan: Plan) -> bool:
        return sum(values(plan)) % modulus == sum(numbers) % modulus

    counted = Counted(fails)
    report = shrink(plan_of(*numbers), counted, failed_at_ms=None, runs_max=runs_max)
    assert fails(report.plan)
    assert counted.count == report.runs <= runs_max
    left = iter(numbers)
    assert all(number in left for number in values(report.plan)), "steps keep their order"


def test_safety_failure_is_cut_off_after_its_moment() -> None:
    report = shrink(plan_of(*range(100)), lambda plan: 5 in values(plan), failed_at_ms=6_000)
    assert report.plan.end_ms == 6_000 + AFTER_MS
    assert values(report.plan) == [5]


def test_knobs_that_do_not_matter_go_back_to_0_and_steps_get_short() -> None:
    knobs = Knobs(loss_per_10k=100, jitter_us=5, commit_ms_max=3, quick_timers=1)
    plan = plan_of(7, knobs=knobs)
    report = shrink(plan, lambda plan: plan.knobs.jitter_us == 5 and len(plan.steps) == 1, failed_at_ms=None)
    assert report.plan.knobs == Knobs(jitter_us=5)
    assert [step.for_ms for step in report.plan.steps] == [2_000]


def test_world_shrinks_to_the_machines_that_steps_name() -> None:
    steps = (Step(0, "start", "v3"), Step(1, "migrate", "v2", 0, 0, "H2"))
    plan = Plan(seed=1, shape=Shape(vms=40, vm_silos=2), steps=steps)
    report = shrink(plan, lambda plan: len(plan.steps) == 2, failed_at_ms=None)
    assert (report.plan.shape.vms, report.plan.shape.vm_silos) == (3, 0)


def test_failure_that_needs_everything_is_left_as_it_is() -> None:
    plan = plan_of(1, 2, 3)
    report = shrink(plan, lambda candidate: candidate == plan, failed_at_ms=None)
    assert report.plan == plan
