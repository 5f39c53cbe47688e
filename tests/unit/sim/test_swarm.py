"""Seeds are plans: each the same every time, all within the failure model, together everything that can happen."""

from __future__ import annotations

from collections import Counter
from functools import cache
from itertools import pairwise

import msgspec
import pytest

from olvm.model.errors import BadInput
from sim.failure_model import COMMANDS, FAULTS, PLUGS, SNAPSHOTS, TASKS, check
from sim.plan import Knobs, Plan, Profile, Shape
from sim.swarm import CALM_KINDS, draw_plan

SEEDS = range(1, 301)
PROFILES: tuple[Profile, ...] = ("calm", "rough", "brutal")


@cache
def plans(profile: Profile) -> list[Plan]:
    return [draw_plan(seed, profile, hours=0.1) for seed in SEEDS]


def words_of(plan: Plan) -> set[str]:
    return {step.what for step in plan.steps}


@pytest.mark.parametrize("profile", PROFILES)
def test_drawn_plans_are_within_the_failure_model_and_in_order_of_time(profile: Profile) -> None:
    for plan in plans(profile):
        check(plan)
        assert [step.at_ms for step in plan.steps] == sorted(step.at_ms for step in plan.steps)
        assert all(step.at_ms < plan.end_ms for step in plan.steps)


def test_equal_seed_draws_an_equal_plan_and_another_seed_another() -> None:
    for seed in (1, 2, 3):
        assert draw_plan(seed, "brutal") == draw_plan(seed, "brutal")
    assert len({msgspec.json.encode(plan) for plan in plans("rough")}) == len(SEEDS)


def test_what_is_given_is_not_drawn_and_changes_no_other_draw() -> None:
    for seed in (1, 2, 3):
        drawn, given = draw_plan(seed), draw_plan(seed, hosts=4, vms=9, hours=0.2)
        assert (given.shape.hosts, given.shape.vms, given.hours) == (4, 9, 0.2)
        assert given.knobs == msgspec.structs.replace(drawn.knobs, old_agents=given.knobs.old_agents)
        same = {"hosts": 0, "vms": 0, "host_memory_gib": 0}
        assert msgspec.structs.replace(given.shape, **same) == msgspec.structs.replace(drawn.shape, **same)


@pytest.mark.parametrize("profile", PROFILES)
def test_every_fault_and_command_is_drawn_that_the_profile_has(profile: Profile) -> None:
    met = {word for plan in plans(profile) for word in words_of(plan)}
    expected = {
        name
        for name, fault in FAULTS.items()
        if (profile == "brutal" or not fault.brutal) and (profile != "calm" or fault.kind in CALM_KINDS)
    }
    assert met - COMMANDS.keys() - TASKS.keys() == expected
    assert met >= COMMANDS.keys() | TASKS.keys()


@pytest.mark.parametrize(("table", "first"), [(PLUGS, "plug_memory"), (SNAPSHOTS, "take_snapshot")])
def test_some_seeds_have_tasks_of_a_table_and_all_others_are_as_they_were(
    table: dict[str, int], first: str
) -> None:
    some = [plan for plan in plans("rough") if words_of(plan) & table.keys()]
    assert 0.15 < len(some) / len(SEEDS) < 0.6
    quiet = next(plan for plan in plans("rough") if not words_of(plan) & table.keys())
    favoured = draw_plan(quiet.seed, hours=0.1, favour=(first,))
    kept = [step for step in favoured.steps if step in quiet.steps]
    assert kept == list(quiet.steps)
    assert words_of(favoured) & table.keys()


def test_each_seed_leaves_out_much_of_what_can_happen() -> None:
    """The point of a swarm: in a run without crashes, other things get far enough to go wrong."""
    for plan in plans("brutal"):
        assert len(words_of(plan) & FAULTS.keys()) <= 0.8 * len(FAULTS)
        assert words_of(plan) & COMMANDS.keys()


def test_fault_that_came_later_changes_no_plan_but_by_its_own_steps() -> None:
    """Seeds are kept in documents and in tests: a new fault must not make other plans of them."""
    with_it = [plan for plan in plans("brutal") if "kill_libvirtd" in words_of(plan)]
    assert 0.3 * len(SEEDS) < len(with_it) < 0.7 * len(SEEDS)
    favoured = draw_plan(with_it[0].seed, "brutal", hours=0.1, favour=("kill_libvirtd",))
    own = [step for step in with_it[0].steps if step.what not in ("kill_libvirtd", "start")]
    assert [step for step in favoured.steps if step.what not in ("kill_libvirtd", "start")] == own


def test_faults_of_history_come_where_there_is_history_and_change_no_other_step() -> None:
    of_history = {name for name, fault in FAULTS.items() if fault.history}
    for plan in plans("brutal"):
        assert plan.shape.telemetry or not words_of(plan) & of_history
    quiet = next(plan for plan in plans("brutal") if not plan.shape.telemetry)
    favoured = draw_plan(quiet.seed, "brutal", hours=0.1, favour=("crash_telemetry",))
    assert favoured.shape == msgspec.structs.replace(quiet.shape, telemetry=True)
    assert [step for step in favoured.steps if step.what not in of_history] == list(quiet.steps)


def test_faults_come_in_bursts_and_alone() -> None:
    gaps = [
        later.at_ms - step.at_ms
        for plan in plans("brutal")
        for faults in [[step for step in plan.steps if step.what in FAULTS]]
        for step, later in pairwise(faults)
    ]
    assert sum(gap <= 300 for gap in gaps) > len(gaps) / 10
    assert sum(gap > 5_000 for gap in gaps) > len(gaps) / 10


@pytest.mark.parametrize(
    "field",
    sorted({*Shape.__struct_fields__, *Knobs.__struct_fields__}),
)
def test_every_size_and_knob_is_drawn_in_more_than_one_way(field: str) -> None:
    part = "shape" if field in Shape.__struct_fields__ else "knobs"
    met = Counter(getattr(getattr(plan, part), field) for plan in plans("rough"))
    assert len(met) > 1
    assert max(met.values()) < 0.95 * len(SEEDS)


def test_profiles_differ_in_how_much_goes_wrong() -> None:
    faults = [
        sum(step.what in FAULTS for plan in plans(profile) for step in plan.steps) for profile in PROFILES
    ]
    assert faults[0] * 3 < faults[1]
    assert faults[1] * 2 < faults[2]
    assert not any(plan.knobs.loss_per_10k for plan in plans("calm"))


def test_world_of_one_host_without_machines_is_drawn_and_within_the_model() -> None:
    for seed in range(1, 40):
        check(draw_plan(seed, "brutal", hosts=1, vms=0, hours=0.2))


@pytest.mark.parametrize("wrong", [{"hosts": 0}, {"vms": -1}, {"hours": 0.0}, {"profile": "wild"}])
def test_world_that_cannot_be_built_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(BadInput):
        draw_plan(1, **wrong)  # type: ignore[arg-type]
