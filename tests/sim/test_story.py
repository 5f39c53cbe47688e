"""The story of a run: who did what and who learnt it when, and only what it is asked about."""

from __future__ import annotations

import re

import pytest

from sim.plan import Plan, Shape, Step
from sim.runs import Run

PLAN = Plan(
    seed=2,
    hours=0.03,
    shape=Shape(hosts=2, vms=2, running_percent=50, host_memory_gib=16),
    steps=(
        Step(5_000, "start", "v2"),
        Step(30_000, "migrate", "v1"),
        Step(31_000, "crash_engine", "", 2_000),
    ),
)


@pytest.fixture(scope="module")
def told() -> Run:
    run = Run(PLAN, keeps_story=True)
    assert run.go().verdict == "ok"
    return run


def lines_of(run: Run) -> list[str]:
    assert run.story is not None
    return run.story.lines


def test_story_is_in_order_of_time_and_every_line_says_whose_word_it_is(told: Run) -> None:
    times = [float(line.split()[0]) for line in lines_of(told)]
    assert times == sorted(times)
    speakers = {line[14:28].strip() for line in lines_of(told)}
    assert {"world", "truth on H1", "engine", "disk of engine"} <= speakers
    assert any(speaker.startswith("client/") for speaker in speakers)


def test_story_of_a_start_goes_from_the_client_over_the_truth_to_the_disk(told: Run) -> None:
    found = [
        next(index for index, line in enumerate(lines_of(told)) if re.search(words, line))
        for words in (
            r"world +start v2",
            r"client/\d+ +asks: VmCommand\(vm='v2', verb='start'",
            r"disk of engine +v2 is wait_for_launch on H\d",
            r"truth on H\d +StartDomain of v2",
            r"truth on H\d +v2 executes",
            r"disk of engine +event vm_up: machine v2 is up",
        )
    ]
    assert found == sorted(found)


def test_story_tells_of_faults_restarts_and_the_phases_of_a_migration(told: Run) -> None:
    text = "\n".join(lines_of(told))
    for words in (
        "crash_engine   for 2 s",
        "engine         starts from its disk",
        "faults stop",
        "migration to H",
    ):
        assert re.sub(" +", " ", words) in re.sub(" +", " ", text)


def test_story_about_one_machine_leaves_the_other_out_and_the_world_in(told: Run) -> None:
    assert told.story is not None
    about = told.story.about({"v2"})
    assert any("v2 executes" in line for line in about)
    assert any("faults stop" in line for line in about)
    assert not any("v1 executes" in line for line in about)
    assert set(about) < set(lines_of(told))


def test_run_without_a_story_tells_none() -> None:
    assert Run(PLAN).go().story == []
