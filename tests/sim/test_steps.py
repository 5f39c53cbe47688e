"""Every word of the vocabulary has a hand, every hand a word, and a step that makes no sense does nothing."""

from __future__ import annotations

import msgspec
import pytest

from hypervisor_backends.simulated_faults import FAULTABLE_REQUESTS
from sim.failure_model import COMMANDS, FAULTS, TASKS
from sim.plan import Knobs, Plan, Shape, Step
from sim.runs import Run
from sim.steps import GUEST_FAULTS, HOST_ACTIONS, VERBS, Steps
from sim.swarm import CALLS, TASK_CALLS, VERB_TARGET
from sim.world import World

SHAPE = Shape(
    hosts=2,
    vms=2,
    racks=1,
    running_percent=100,
    host_memory_gib=16,
    fence_percent=100,
    telemetry=True,
    disks=True,
)
PLAN = Plan(seed=1, hours=0.02, shape=SHAPE, knobs=Knobs(quick_timers=1))
WORDS = [*FAULTS, *COMMANDS, *TASKS]
TARGETS = {
    "vm": "v1",
    "host": "H1",
    "rack": "R0",
    "silo": "host-1",
    "link": "engine|host-1",
    "none": "",
}


def target_of(word: str) -> str:
    if word in COMMANDS or word in TASKS:
        return TARGETS[VERB_TARGET.get(word, "vm")]
    return "H1|H2" if word == "cut_migration" else TARGETS[FAULTS[word].target]


@pytest.fixture
def run() -> Run:
    made = Run(PLAN)
    made.begin()
    return made


@pytest.mark.parametrize("word", WORDS)
def test_word_has_one_hand(word: str) -> None:
    hands = [hasattr(Steps, f"_do_{word}"), word in VERBS, word in GUEST_FAULTS, word in HOST_ACTIONS]
    # Maintenance has a hand of its own beside the verb, for its deadline.
    assert sum(hands) == (2 if word == "maintenance" else 1)


def test_every_hand_has_a_word() -> None:
    hands = {name.removeprefix("_do_") for name in dir(Steps) if name.startswith("_do_")}
    assert hands | VERBS.keys() | GUEST_FAULTS.keys() | HOST_ACTIONS.keys() == set(WORDS)
    assert {*CALLS, *TASK_CALLS.values()} <= FAULTABLE_REQUESTS
    assert TASK_CALLS.keys() == TASKS.keys()


@pytest.mark.parametrize("word", [word for word in FAULTS if word != "reinstall_host"])
def test_fault_on_somebody_who_is_there_is_counted_once_by_its_name(run: Run, word: str) -> None:
    run.steps.take(Step(0, word, target_of(word), 2_000, 1))
    run.world.run(5)
    assert run.world.faults.counts == {word: 1}


@pytest.mark.parametrize("word", WORDS)
def test_step_settles_after_it_was_carried_out(run: Run, word: str) -> None:
    """Each word alone, on a machine that runs: no promise is broken, and the world comes to rest."""
    run.steps.take(Step(0, word, target_of(word), 1_000 * FAULTS[word].for_s[0] if word in FAULTS else 0, 1))
    run.world.run(60)
    run.end()


NOBODY = {"vm": "v77", "host": "H77", "rack": "R7", "silo": "host-77", "link": "engine|host-77"}
STRIKES_ONE = [
    word for word, fault in FAULTS.items() if fault.target in ("vm", "host", "rack", "silo") and word != "cut"
]


@pytest.mark.parametrize("word", STRIKES_ONE)
def test_fault_on_somebody_who_is_not_there_does_nothing(run: Run, word: str) -> None:
    run.steps.take(Step(0, word, NOBODY[FAULTS[word].target], 5_000, 1))
    assert run.world.faults.counts == {}
    assert set(run.world.processes.disks) == {"engine", "host-1", "host-2", "telemetry"}
    run.world.run(30)
    run.end()


@pytest.mark.parametrize("word", [word for word, fault in FAULTS.items() if fault.history])
def test_fault_of_history_strikes_nobody_where_there_is_none(word: str) -> None:
    run = Run(msgspec.structs.replace(PLAN, shape=msgspec.structs.replace(SHAPE, telemetry=False)))
    run.begin()
    run.steps.take(Step(0, word, target_of(word), 5_000, 1))
    assert run.world.faults.counts == {}
    assert set(run.world.processes.disks) == {"engine", "host-1", "host-2"}
    run.end()


@pytest.mark.parametrize("word", [word for word, fault in FAULTS.items() if fault.target == "host"])
def test_fault_on_a_host_without_power_leaves_it_so(run: Run, word: str) -> None:
    run.world.faults.crash_host("H1", None)
    run.steps.take(Step(0, word, "H1", 5_000, 1))
    run.world.run(1)
    assert not run.world.hosts.by_name["H1"].is_on


def test_every_step_at_once_is_carried_out_and_all_comes_to_rest(run: Run) -> None:
    for word in WORDS:
        run.steps.take(Step(0, word, target_of(word), 3_000, 1))
    run.world.run(20)
    run.end()


def test_person_says_rebooted_only_when_it_is_true() -> None:
    world = World(SHAPE)
    world.build()
    asked: list[object] = []
    world.clients.asked.append(lambda client, command, request_id: asked.append(command))
    steps = Steps(world, PLAN)
    steps.take(Step(0, "confirm_rebooted", "H1"))
    assert asked == []
    world.faults.crash_host("H1", None)
    steps.take(Step(0, "confirm_rebooted", "H1"))
    assert len(asked) == 1


def test_overlapping_disk_faults_last_until_the_last_is_over(run: Run) -> None:
    world = run.world
    disk = world.processes.disk("host-1")
    run.steps.take(Step(0, "disk_errors", "host-1", 10_000))
    world.run(2)
    run.steps.take(Step(0, "disk_errors", "host-1", 30_000))
    world.run(20)
    assert disk.write_error_count > 0
    world.run(15)
    assert disk.write_error_count == 0


def test_fence_fault_that_is_over_leaves_the_others(run: Run) -> None:
    world = run.world
    run.steps.take(Step(0, "fence_fails", "H1", 5_000))
    run.steps.take(Step(0, "fence_fails", "H2", 60_000))
    world.run(10)
    answers = []
    for host in ("H1", "H2"):
        world.plant.fence.submit({"type": "simulated"}, host, "status", lambda one: answers.append(one.ok))
    assert answers == [True, False]
