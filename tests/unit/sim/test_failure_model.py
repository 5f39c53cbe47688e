"""What lies beyond the failure model is refused with a sentence that names it; everything within it is a plan."""

from __future__ import annotations

import msgspec
import pytest

from olvm.model.errors import BadInput
from sim.failure_model import _FORBIDDEN, COMMANDS, FAULTS, LIMITS, PLUGS, SNAPSHOTS, TASKS, check
from sim.plan import Knobs, Plan, Step

LIMIT_BY_NAME = {limit.name: limit for limit in LIMITS}
KNOBS = sorted(LIMIT_BY_NAME.keys() & set(Knobs.__struct_fields__))
OFFLIMITS = sorted(LIMIT_BY_NAME.keys() - {*KNOBS, "steps"})


def refusal(plan: Plan) -> str:
    with pytest.raises(BadInput) as caught:
        check(plan)
    return caught.value.message


@pytest.mark.parametrize("knob", KNOBS)
def test_knob_at_its_limit_is_taken_and_beyond_it_refused(knob: str) -> None:
    most = int(LIMIT_BY_NAME[knob].most)
    check(Plan(seed=1, knobs=msgspec.structs.replace(Knobs(), **{knob: most})))
    for value in (most + 1, -1):
        words = refusal(Plan(seed=1, knobs=msgspec.structs.replace(Knobs(), **{knob: value})))
        assert knob in words
        assert str(value) in words


@pytest.mark.parametrize("what", sorted(_FORBIDDEN))
def test_forbidden_fault_is_refused_by_the_limit_that_forbids_it(what: str) -> None:
    limit = LIMIT_BY_NAME[_FORBIDDEN[what]]
    words = refusal(Plan(seed=1, steps=(Step(5_000, what, "H1"),)))
    assert f"step {what} at 5000 ms" in words
    assert limit.name in words
    assert limit.promise in words


def test_every_limit_forbids_something() -> None:
    """A line of the model's table that no plan can meet would promise nothing."""
    assert sorted(_FORBIDDEN.values()) == OFFLIMITS
    assert {limit.name for limit in LIMITS} == {*KNOBS, *OFFLIMITS, "steps"}


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (Step(0, "earthquake"), "neither a fault nor a command"),
        (Step(-1, "cut", "engine|host-1"), "lies outside of the run"),
        (Step(0, "cut", "engine|host-1", -1), "lies outside of the run"),
        (Step(3_600_001, "start", "v1"), "lies outside of the run of 3600000 ms"),
        (Step(0, "cut", "engine|host-1", 3_000_001), "the model has at most 3000 s of it"),
    ],
)
def test_step_outside_of_the_model_is_refused(step: Step, words: str) -> None:
    assert words in refusal(Plan(seed=1, hours=1.0, steps=(step,)))


def test_plan_with_too_many_steps_is_refused() -> None:
    most = int(LIMIT_BY_NAME["steps"].most)
    step = Step(0, "start", "v1")
    assert str(most + 1) in refusal(Plan(seed=1, steps=(step,) * (most + 1)))


@pytest.mark.parametrize("what", [*FAULTS, *COMMANDS, *TASKS])
def test_every_word_of_the_vocabulary_is_within_the_model_at_both_ends_of_its_length(what: str) -> None:
    least, most = FAULTS[what].for_s if what in FAULTS else (0, 0)
    steps = (Step(0, what, "x", 1_000 * least), Step(3_600_000, what, "x", 1_000 * most))
    check(Plan(seed=1, hours=1.0, steps=steps))


def test_no_word_is_both_fault_and_command_or_forbidden() -> None:
    assert not FAULTS.keys() & (COMMANDS.keys() | TASKS.keys())
    assert not COMMANDS.keys() & TASKS.keys()
    assert not PLUGS.keys() & SNAPSHOTS.keys()
    assert not (FAULTS.keys() | COMMANDS.keys() | TASKS.keys()) & _FORBIDDEN.keys()
    assert all(fault.for_s[0] <= fault.for_s[1] for fault in FAULTS.values())
    assert all(fault.for_s == (0, 0) or fault.for_s[0] > 0 for fault in FAULTS.values())
