"""Hypothesis drives the control plane: any commands, in any order, with any faults of the model in between.

The invariants are the oracles, which watch every event. When Hypothesis has had enough, the faults stop and what
must hold at rest is judged. The same examples each time (`derandomize`): fresh ones are the campaign's business.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from sim.failure_model import COMMANDS, FAULTS, TASKS, check
from sim.plan import Knobs, Plan, Shape, Step
from sim.runs import Run
from sim.swarm import VERB_TARGET
from tests.sim.fault_tape import BYTES_PER_FAULT, NAMES, faults_on

SHAPE: Final = Shape(
    hosts=3,
    vms=4,
    racks=2,
    host_memory_gib=12,
    running_percent=50,
    ha_percent=50,
    fence_percent=60,
    disks=True,
)
PLAN: Final = Plan(seed=3, hours=1.0, shape=SHAPE, knobs=Knobs(quick_timers=1))
FAULTS_AT_ONCE_MAX: Final = 3
# Those first that Hypothesis shall end up with when it shrinks.
WEIGHTS: Final = {**COMMANDS, **TASKS}
VERBS: Final = sorted(WEIGHTS, key=lambda name: -WEIGHTS[name])


def test_tape_of_zeros_is_no_fault_and_every_fault_is_on_the_tape() -> None:
    assert list(faults_on(bytes(30), SHAPE)) == []
    tape = bytes(byte for which in range(1, len(NAMES) + 1) for byte in (which, 5, 7))
    steps = tuple(faults_on(tape, SHAPE))
    assert [step.what for step in steps] == list(FAULTS)
    check(Plan(seed=1, steps=steps))


class ControlPlane(RuleBasedStateMachine):
    """One small data center, and its clients' and its fate's next move."""

    def __init__(self) -> None:
        super().__init__()
        self.run = Run(PLAN)
        self.is_over = False
        self.run.begin()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """A violation strikes in the middle of a commit: a world that met one cannot go on."""
        try:
            yield
        except BaseException:
            self.is_over = True
            raise

    @rule(
        verb=st.sampled_from(VERBS),
        vm=st.integers(1, SHAPE.vms),
        host=st.integers(0, SHAPE.hosts),
        value=st.integers(0, 40),
    )
    def ask(self, verb: str, vm: int, host: int, value: int) -> None:
        target = {"vm": f"v{vm}", "host": f"H{max(1, host)}", "none": ""}[VERB_TARGET.get(verb, "vm")]
        detail = f"H{host}" if verb == "migrate" and host else ""
        with self.watched():
            self.run.steps.take(Step(0, verb, target, 0, value, detail))

    @rule(seconds=st.sampled_from((1.0, 0.001, 0.03, 0.3, 5.0, 20.0, 90.0)))
    def wait(self, seconds: float) -> None:
        with self.watched():
            self.run.world.run(seconds)

    @precondition(lambda self: self.run.world.now_s < 3_000)
    @rule(tape=st.binary(max_size=FAULTS_AT_ONCE_MAX * BYTES_PER_FAULT))
    def strike(self, tape: bytes) -> None:
        with self.watched():
            for step in faults_on(tape, SHAPE):
                self.run.steps.take(step)

    def teardown(self) -> None:
        if not self.is_over:
            self.run.end()


# About 0.05 s of CPU an example.
ControlPlane.TestCase.settings = settings(
    max_examples=300,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
# A failure is shrunk for up to five minutes.
ControlPlane.TestCase.pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # type: ignore[attr-defined]
test_control_plane_under_any_commands_and_faults_keeps_every_promise = ControlPlane.TestCase
