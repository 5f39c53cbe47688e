"""The whole small world under schedules of commands and faults from a tape: what holds always, and at the end.

A schedule is a list of steps; each waits a moment, then commands a machine or plants a fault. The tape says what
befalls each frame (lost, repeated, late) and each batch (crash before or after its commit); 0 is "normal".
"""

from __future__ import annotations

import random
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hypervisor_backends.simulated_faults import Fault
from olvm.model import messages as m
from tests.world import World, check_replay, check_settled

VERBS: Final[tuple[m.VmVerb, ...]] = (
    "start",
    "stop",
    "shutdown",
    "suspend",
    "resume",
    "reboot",
    "reset",
    "remove",
)
FAULTS: Final = (
    "crash engine",
    "crash agent",
    "crash host",
    "cut",
    "call_fails",
    "call_hangs",
    "call_times_out",
    "save_times_out",
    "guest_ignores_shutdown",
    "guest_crashes",
    "guest_reboots",
    "io_error",
)
VM_COUNT: Final = 4

Step = tuple[
    int, int, int
]  # what: a verb, or past them a fault; which machine or host; seconds to wait before


def take(world: World, step: Step) -> None:
    what, which, gap_s = step
    world.run(gap_s)
    vm, host = f"v{which % VM_COUNT + 1}", f"H{which % 2 + 1}"
    if what < len(VERBS):
        world.ask(m.VmCommand(vm, VERBS[what]))
        return
    fault = FAULTS[(what - len(VERBS)) % len(FAULTS)]
    hypervisor = world.hypervisors[host]
    match fault:
        case "crash engine":
            world.crash("engine")
        case "crash agent":
            world.crash(world.silo_by_host[host], restart_after_s=1 + gap_s)
        case "crash host":
            world.faults.crash_host(host, restart_after_s=1 + 2 * gap_s)
        case "cut":
            world.partition("engine", world.silo_by_host[host], heal_after_s=1 + 4 * gap_s)
        case "save_times_out":
            hypervisor.inject(Fault(kind="call_times_out", request="SuspendDomain"))
        case _:
            hypervisor.inject(Fault(kind=fault, vm=vm if fault.startswith(("guest", "io")) else ""))  # type: ignore[arg-type]


def run_schedule(steps: list[Step], tape: bytes, *, high_availability: bool = False) -> World:
    world = World(tape=tape)
    world.build_small(vms=VM_COUNT, high_availability=high_availability)
    for step in steps:
        take(world, step)
    # Faults stop: the tape ends, what was planted is taken back, everything is running again.
    world.run(10)
    world.end_of_tape()
    world.run(200)
    check_settled(world)
    return world


STEPS = st.lists(
    st.tuples(st.integers(0, len(VERBS) + len(FAULTS) - 1), st.integers(0, VM_COUNT - 1), st.integers(0, 6)),
    max_size=14,
)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(steps=STEPS, tape=st.binary(max_size=120), high_availability=st.booleans())
def test_world_any_schedule_settles(steps: list[Step], tape: bytes, high_availability: bool) -> None:
    run_schedule(steps, tape, high_availability=high_availability)


def seeded(seed: int, *, step_count: int = 25) -> tuple[list[Step], bytes]:
    rng = random.Random(seed)
    steps = []
    for _ in range(step_count):
        what = rng.randrange(len(VERBS)) if rng.random() < 0.65 else len(VERBS) + rng.randrange(len(FAULTS))
        if what == VERBS.index("remove") and rng.random() < 0.7:
            what = 0
        steps.append((what, rng.randrange(VM_COUNT), rng.choice((0, 0, 1, 2, 5, 9))))
    tape = bytes(0 if rng.random() < 0.7 else rng.randrange(256) for _ in range(600))
    return steps, tape


@pytest.mark.parametrize("seed", range(20))
def test_world_seeded_schedule_settles(seed: int) -> None:
    steps, tape = seeded(seed)
    world = run_schedule(steps, tape, high_availability=bool(seed % 2))
    if seed < 4:
        check_replay(world)


def test_world_same_schedule_gives_the_same_disks() -> None:
    steps, tape = seeded(3)
    first, second = run_schedule(steps, tape), run_schedule(steps, tape)
    assert {name: disk.payloads() for name, disk in first.disks.items()} == {
        name: disk.payloads() for name, disk in second.disks.items()
    }
