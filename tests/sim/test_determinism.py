"""A plan is one run, in any process and under any hash seed; and a fault leaves the draws of others alone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import msgspec
import pytest

from sim.digest import first_difference
from sim.network import Link
from sim.plan import Knobs, Plan, Shape, Step
from sim.runs import Run
from sim.swarm import draw_plan
from sim.token import decode_plan, encode_plan

# Everything that draws is in it: lossy links, torn disks, drifting clocks, failing calls, silos of machines.
BUSY = msgspec.structs.replace(
    draw_plan(11, "brutal", hours=0.06, hosts=3, vms=6),
    knobs=Knobs(
        jitter_us=5_000,
        tail_per_10k=100,
        loss_per_10k=100,
        duplicate_per_10k=100,
        late_duplicate_per_10k=20,
        clock_drift_ppm_max=500,
        clock_step_s_max=60,
        commit_ms_max=5,
        torn_tail_percent=30,
        call_fault_per_10k=200,
        dirty_rate_percent=60,
        quick_timers=1,
    ),
)
IN_ANOTHER_PROCESS = (
    "import sys; from sim.runs import run_plan; from sim.token import decode_plan; "
    "outcome = run_plan(decode_plan(sys.argv[1])); print(outcome.digest, outcome.messages)"
)


def test_plan_run_twice_in_a_process_differs_in_no_entry() -> None:
    runs = [Run(BUSY, keeps_trail=True), Run(BUSY, keeps_trail=True)]
    one, other = (run.go() for run in runs)
    trail, twin = (run.world.digest.trail or [] for run in runs)
    index = first_difference(trail, twin)
    assert index is None, f"entry {index}: {trail[index : index + 1]} and {twin[index : index + 1]}"
    assert len(trail) > 1_000
    assert (one.digest, one.messages, one.situations) == (other.digest, other.messages, other.situations)


def test_plan_run_in_processes_of_other_hash_seeds_gives_the_same_digest() -> None:
    here = Run(BUSY).go()
    for hash_seed in ("1", "4242"):
        found = subprocess.run(
            [sys.executable, "-c", IN_ANOTHER_PROCESS, encode_plan(BUSY)],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        assert found.stdout.split() == [here.digest, str(here.messages)], f"hash seed {hash_seed}"


def test_run_with_oracles_story_and_trail_is_the_run_without_them() -> None:
    """Who watches changes nothing; so a failure's story is the story of that failure."""
    watched = Run(BUSY, keeps_story=True, keeps_trail=True).go()
    assert watched.verdict == "ok", watched.sentence
    assert watched.story
    assert Run(BUSY).go().digest == watched.digest


def test_other_seed_gives_another_digest() -> None:
    other = msgspec.structs.replace(BUSY, seed=BUSY.seed + 1)
    assert Run(BUSY).go().digest != Run(other).go().digest


def test_plan_through_its_token_is_the_same_run() -> None:
    assert Run(decode_plan(encode_plan(BUSY))).go().digest == Run(BUSY).go().digest


# ---------------------------------------------------------------------- streams keyed by their purpose

SMALL = Plan(
    seed=5,
    hours=0.02,
    shape=Shape(hosts=3, vms=3, running_percent=100),
    knobs=Knobs(loss_per_10k=500, duplicate_per_10k=500, jitter_us=2_000),
)


def with_steps(*steps: Step) -> Plan:
    return msgspec.structs.replace(SMALL, steps=steps)


BUSY_CLIENTS = tuple(
    Step(at_ms, what, f"v{vm}") for at_ms, what in ((15_000, "reset"), (35_000, "reboot")) for vm in (1, 2, 3)
)


def draws_by_link(plan: Plan) -> dict[str, list[int]]:
    """What each link drew for each of its frames, from the end of the building on."""
    found: dict[str, list[int]] = {}
    run = Run(plan, with_oracles=False)

    def listen_to(link: Link) -> None:
        drawn, draw = found.setdefault(link.key.decode(), []), link.next_draw

        def noted(bits: int) -> int:
            drawn.append(draw(bits))
            return drawn[-1]

        link.next_draw = noted

    def listen() -> None:
        for link in run.world.network.links.values():
            listen_to(link)

    run.after_build = listen
    run.go()
    return found


@pytest.mark.parametrize(
    "step",
    [
        Step(10_000, "cut", "engine|host-1", 40_000),
        Step(10_000, "clog", "engine|host-1", 30_000),
        Step(10_000, "noise", "engine|host-1", 50_000, 3),
        Step(10_000, "crash_host", "H1", 40_000),
        Step(10_000, "crash_agent", "H1", 10_000),
    ],
    ids=lambda step: step.what,
)
def test_step_left_out_leaves_the_draws_of_other_links_as_they_were(step: Step) -> None:
    """The links may carry more frames or fewer, but the n-th frame of a link meets the n-th draw of that link."""
    met, unmet = draws_by_link(with_steps(step, *BUSY_CLIENTS)), draws_by_link(with_steps(*BUSY_CLIENTS))
    assert met != unmet, f"{step.what} did nothing"
    for link, draws in unmet.items():
        count = min(len(draws), len(met[link]))
        assert count >= 3, link
        assert draws[:count] == met[link][:count], f"{step.what} on host 1 has changed the draws of {link}"


UNTOUCHING: list[Callable[[int], Step]] = [
    lambda at_ms: Step(at_ms, "cut_migration", "H1|H2", 30_000),  # nobody migrates
    lambda at_ms: Step(at_ms, "fence_fails", "H3", 30_000),  # nobody is fenced
    lambda at_ms: Step(at_ms, "migration_fails", "H1"),
    lambda at_ms: Step(at_ms, "guest_is_deaf", "v1"),  # nobody is shut down
]


@pytest.mark.parametrize("step", UNTOUCHING, ids=lambda make: make(0).what)
def test_step_that_nothing_meets_changes_no_entry_of_the_trail(step: Callable[[int], Step]) -> None:
    runs = [Run(with_steps(step(15_000)), keeps_trail=True), Run(with_steps(), keeps_trail=True)]
    for run in runs:
        assert run.go().verdict == "ok"
    one, other = (run.world.digest.trail or [] for run in runs)
    assert one
    assert first_difference(one, other) is None
