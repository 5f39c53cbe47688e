"""The bound of docs/leases.md, attacked: no two hosts run one leased machine, whatever befalls storage and agents.

Hypothesis draws the schedules; planted errors show that they are mean enough to find one.
"""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, Verbosity, find, given, settings
from hypothesis import strategies as st

from hypervisor_backends.memory_leases import Fate
from tests.unit.hypervisor_backends.lease_world import SOUND, Faulty, LeaseWorld

DRIFT_PERCENT = 5.0
WANT_PERIOD_S = 1.0
ACTIONS = (
    "take",
    "migrate",
    "pause",
    "cut",
    "heal",
    "hang_next",
    "lose_next",
    "late_answer",
    "slow",
    "reboot",
    "end",
)


class Step(msgspec.Struct, frozen=True, array_like=True):
    """After `gap_s` more seconds, `action` befalls a host; `seconds` is what the action makes of it."""

    gap_s: int
    action: str
    host: int
    seconds: int


class Schedule(msgspec.Struct, frozen=True, array_like=True):
    """`start_after_s`: how long the agents sit on a lease that they were given before they start the machine."""

    drifts: tuple[int, ...]
    start_after_s: int
    steps: tuple[Step, ...]


SECONDS = st.sampled_from((0, 4, 12, 34, 40, 70))
STEPS = st.builds(Step, SECONDS, st.sampled_from(ACTIONS), st.sampled_from((0, 0, 1, 2)), SECONDS)
SCHEDULES = st.builds(
    Schedule,
    st.sampled_from(((0, 0, 0), (-5, 5, 5), (5, -5, 0))),
    st.sampled_from((0, 40)),
    st.lists(STEPS, min_size=2, max_size=10).map(tuple),
)


def play(schedule: Schedule, faulty: Faulty = SOUND) -> LeaseWorld:
    world = LeaseWorld(tuple(map(float, schedule.drifts)), DRIFT_PERCENT, faulty)
    for number in range(len(world.hosts)):
        want(world, number, schedule.start_after_s)
    for step in schedule.steps:
        world.run(step.gap_s)
        if world.violations:
            return world
        befall(world, step)
    world.run(120)
    return world


def want(world: LeaseWorld, number: int, start_after_s: int) -> None:
    """Each host tries to get the machine again and again, as long as it does not run it."""
    host = world.host(number)
    if "v1" not in host.epoch_by_vm and not host.waits_for("v1"):
        host.take("v1", world.next_epoch(), start_after_s)
    world.after(WANT_PERIOD_S + number, lambda: want(world, number, start_after_s))


def befall(world: LeaseWorld, step: Step) -> None:
    host, faults = world.host(step.host), world.faults
    match step.action:
        case "take":
            host.take("v1", world.next_epoch(), start_after_s=step.seconds)
        case "migrate":
            for source in world.hosts.values():
                source.migrate("v1", host, step.seconds)
        case "pause":
            host.pause(step.seconds)
        case "cut":
            faults.cut(host.name)
        case "heal":
            faults.heal(host.name)
        case "hang_next":
            faults.hang_next(host.name, effect_after_s=step.seconds)
        case "lose_next":
            faults.lose_next_answer(host.name)
        case "late_answer":
            faults.befall_next(host.name, Fate(answer_after_s=4.5))
        case "slow":
            faults.slow(host.name, delay_s=min(step.seconds, 4))
        case "reboot":
            host.reboot()
        case "end":
            host.end("v1")


@settings(max_examples=200, derandomize=True, deadline=None)
@given(schedule=SCHEDULES)
def test_leased_machine_runs_on_one_host_at_most(schedule: Schedule) -> None:
    assert play(schedule).violations == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "faulty",
    [
        Faulty(wait_drift_percent=0.0),
        Faulty(begin_noted_after_write=True),
        Faulty(lapse_forgotten=True),
        Faulty(any_boot_replaced=True),
    ],
    ids=["wait_too_short", "begin_noted_after_write", "lapse_forgotten", "any_boot_replaced"],
)
def test_planted_error_is_found_and_shrunk(faulty: Faulty) -> None:
    search = settings(
        max_examples=20_000,
        derandomize=True,
        deadline=None,
        database=None,
        verbosity=Verbosity.quiet,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    found = find(SCHEDULES, lambda schedule: bool(play(schedule, faulty).violations), settings=search)
    assert play(found).violations == []
    assert len(found.steps) <= 8
