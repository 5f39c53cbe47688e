"""`olvm sim`: the deterministic simulator. Needs no data center, neither Ray nor libvirt.

Data goes to stdout, what is under way to stderr. Exit codes beyond the common ones: 20 a safety promise is broken,
21 a liveness promise, 22 two runs of one plan differ, 23 the system crashed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec
from cyclopts import App, Parameter

from olvm.cli.options import seconds as parse_seconds
from olvm.model.errors import BadInput

app = App(
    name="sim",
    help="The simulator: years of faults in minutes, each failure replayed by one token.",
    help_epilogue="Exit codes beside the common ones: 20 a safety promise is broken, 21 a liveness promise, "
    "22 two runs of one plan differ, 23 the system crashed.",
)

Profile = Annotated[Literal["calm", "rough", "brutal"], Parameter(help="How much goes wrong at once.")]
AsJson = Annotated[bool, Parameter(name="--json", negative=(), help="Print one JSON document.")]
Hosts = Annotated[int | None, Parameter(help="Hosts; drawn from the seed if not given.", metavar="N")]
Vms = Annotated[int | None, Parameter(help="Machines; drawn from the seed if not given.", metavar="N")]
Hours = Annotated[float | None, Parameter(help="Simulated hours of faults; drawn if not given.", metavar="H")]
Workers = Annotated[
    int | None, Parameter(help="Processes that run seeds; one for each CPU if not given.", metavar="K")
]
Favour = Annotated[
    list[str],
    Parameter(
        help="A fault or command that no seed leaves out, and ten times as likely; may be given several times.",
        metavar="NAME",
        negative=(),
    ),
]
Minutes = Annotated[float | None, Parameter(help="Begin no more after this long.", metavar="M")]
Verbose = Annotated[
    bool, Parameter(name=["--verbose", "-v"], negative=(), help="Show the traceback of a failure.")
]


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)


def _print_json(value: object) -> None:
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@app.command
def run(
    *,
    seed: Annotated[int, Parameter(help="What everything is drawn from.", metavar="S")] = 1,
    hosts: Hosts = None,
    vms: Vms = None,
    hours: Hours = None,
    profile: Profile = "rough",
    favour: Favour = [],  # noqa: B006 - cyclopts copies it
    twice: Annotated[
        bool, Parameter(negative=(), help="Run it a second time and compare every entry (determinism).")
    ] = False,
    json: AsJson = False,
    verbose: Verbose = False,
) -> int:
    """Run one seed and say what happened."""
    del verbose
    from sim.reports import REPLAY, run_lines
    from sim.runs import run_plan, run_twice
    from sim.swarm import draw_plan
    from sim.token import encode_plan

    plan = draw_plan(seed, profile, hours=hours, hosts=hosts, vms=vms, favour=tuple(favour))
    outcome = run_twice(plan) if twice else run_plan(plan)
    if json:
        _print_json({**msgspec.to_builtins(outcome), "token": encode_plan(plan)})
    else:
        _print(run_lines(plan, outcome))
        if outcome.verdict != "ok":
            print(f"{REPLAY} {encode_plan(plan)}")
    return outcome.exit_code


@app.command
def explore(
    *,
    seeds: Annotated[int, Parameter(help="How many.", metavar="N")] = 100,
    first: Annotated[int, Parameter(help="The first seed; the others follow it.", metavar="S")] = 1,
    workers: Workers = None,
    minutes: Minutes = None,
    hosts: Hosts = None,
    vms: Vms = None,
    hours: Hours = None,
    profile: Profile = "rough",
    favour: Favour = [],  # noqa: B006 - cyclopts copies it
    ray: Annotated[bool, Parameter(negative=(), help="Run the seeds as Ray tasks.")] = False,
    shrink: Annotated[bool, Parameter(help="Shrink the first failure of each kind.")] = True,
    must_reach_all: Annotated[
        bool, Parameter(negative=(), help="A situation that no seed reached is a failure.")
    ] = False,
    json: AsJson = False,
    verbose: Verbose = False,
) -> int:
    """Run many seeds, each with a topology, knobs, a workload and faults of its own."""
    del verbose
    from sim.explore import explore as run_seeds
    from sim.explore import process_pool, worker_count
    from sim.reports import campaign_lines
    from sim.runs import Outcome
    from sim.swarm import check_favoured

    if seeds < 1:
        raise BadInput(f"--seeds must be at least 1, got {seeds}")
    check_favoured(favour)
    make_pool = process_pool
    if ray:
        from actors.ray_runtime import ray_pool

        make_pool = ray_pool
    progress = _Progress(seeds)

    def told(outcome: Outcome) -> None:
        progress.told(outcome.seed, outcome.verdict, f"{outcome.oracle} {outcome.sentence}")

    campaign = run_seeds(
        range(first, first + seeds),
        profile=profile,
        workers=worker_count(workers),
        minutes=minutes,
        hours=hours,
        hosts=hosts,
        vms=vms,
        favour=tuple(favour),
        shrinks=shrink,
        make_pool=make_pool,
        told=told,
    )
    if json:
        _print_json(campaign)
    else:
        _print(campaign_lines(campaign))
    if must_reach_all and campaign.unreached() and not campaign.failures:
        _say(f"olvm: never reached: {', '.join(campaign.unreached())}")
        return 1
    return campaign.exit_code


class _Progress:
    """A line each few seconds, and one for each failure at once."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._count = 0
        self._last = time.monotonic()

    def told(self, seed: int, verdict: str, words: str) -> None:
        self._count += 1
        now = time.monotonic()
        if verdict != "ok":
            _say(f"seed {seed}: {verdict} {words[:200]}")
        elif now - self._last > 5:
            self._last = now
            _say(f"{self._count} of {self._total} seeds")


@app.command
def replay(
    token: Annotated[str, Parameter(help="What a failure printed.", show_default=False)],
    /,
    *,
    about: Annotated[list[str], Parameter(help="Only the lines that name one of these.", negative=())] = [],  # noqa: B006 - cyclopts copies it
    story: Annotated[bool, Parameter(help="Tell who knew what, when.")] = True,
    json: AsJson = False,
    verbose: Verbose = False,
) -> int:
    """Run the plan of a token again and tell its story."""
    del verbose
    from sim.reports import run_lines
    from sim.runs import Run
    from sim.token import decode_plan

    plan = decode_plan(token)
    run = Run(plan, keeps_story=story or bool(about))
    outcome = run.go()
    lines = outcome.story
    if about and run.story is not None:
        lines = outcome.story = run.story.about(set(about))
    if json:
        _print_json({**msgspec.to_builtins(outcome), "plan": msgspec.to_builtins(plan)})
    else:
        _print(lines)
        _print(run_lines(plan, outcome))
    return outcome.exit_code


@app.command
def sweep(
    *,
    every: Annotated[int, Parameter(help="Strike each n-th place only.", metavar="N")] = 1,
    offset: Annotated[int, Parameter(help="Begin at this place.", metavar="N")] = 0,
    workers: Workers = None,
    json: AsJson = False,
    verbose: Verbose = False,
) -> int:
    """Perturb a scripted workload at every place, one at a time: crashes, lost and repeated frames, pauses."""
    del verbose
    from sim.explore import process_pool, worker_count
    from sim.reports import sweep_lines
    from sim.sweeping import sweep_places

    if every < 1:
        raise BadInput(f"--every must be at least 1, got {every}")
    report = sweep_places(every, offset, worker_count(workers), process_pool, _say)
    if json:
        _print_json(report)
    else:
        _print(sweep_lines(report))
    return report.exit_code


@app.command
def mutants(
    names: Annotated[list[str], Parameter(help="Only these bugs.", negative=())] = [],  # noqa: B006
    /,
    *,
    workers: Workers = None,
    seconds: Annotated[
        float, Parameter(help="Give one bug up after this long.", converter=parse_seconds, metavar="TIME")
    ] = 60.0,
    list_only: Annotated[bool, Parameter(name="--list", negative=(), help="Only name them.")] = False,
    json: AsJson = False,
    verbose: Verbose = False,
) -> int:
    """Plant bugs, one at a time, and see which oracle finds each; exit code 1 if one survives."""
    del verbose
    from sim.explore import worker_count
    from sim.mutants.catalogue import MUTANTS, mutant_named
    from sim.mutants.hunting import hunt, kill_lines

    chosen = [mutant_named(name) for name in names] or list(MUTANTS)
    if list_only:
        if json:
            _print_json(chosen)
        else:
            _print(f"{mutant.name:<40} {mutant.says}" for mutant in chosen)
        return 0
    kills = hunt(chosen, worker_count(workers), seconds, _say)
    if json:
        _print_json(kills)
    else:
        _print(kill_lines(kills))
    return 0 if all(kill.oracle for kill in kills) else 1
