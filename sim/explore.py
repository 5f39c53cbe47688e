"""Runs many seeds over several processes and gathers what they say.

A campaign never stops at the first failure: it goes on, and then shrinks one failure of each kind (same oracle, same
kind of sentence). One seed in twenty is run again in another process with another hash seed: its digest must be the
same (D1). A situation that no seed reached is a finding too, once a campaign is long enough to expect all of them.
"""

from __future__ import annotations

import itertools
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from typing import Any

import msgspec

from sim.jobs import SeedJob, Trailed, plan_of, prepare, run_job, shrink_job
from sim.plan import Profile
from sim.runs import EXIT_CODE_BY_VERDICT, Outcome, Verdict
from sim.token import encode_plan

TWIN_EVERY = 20
SHRINK_RUNS_MAX = 150
SHRUNK_MAX = 6
# Worst first: what a campaign's exit code says.
SEVERITY: tuple[Verdict, ...] = ("crash", "determinism", "safety", "liveness", "ok")

# Starts the pool of processes in which seeds run; `actors.ray_runtime` has one over Ray tasks.
MakePool = Callable[[int, str], Executor]


class Failure(msgspec.Struct, kw_only=True):
    """One seed that failed, and how to see it again."""

    seed: int
    verdict: str
    oracle: str
    sentence: str
    failed_at_s: float | None
    token: str
    shrunk_token: str = ""
    steps: int = 0
    shrunk_steps: int = 0
    shrink_runs: int = 0


class Campaign(msgspec.Struct, kw_only=True):
    """What all seeds of a campaign say together."""

    seeds: int = 0
    twins: int = 0
    wall_s: float = 0.0
    simulated_s: float = 0.0
    messages: int = 0
    checks: int = 0
    fault_counts: dict[str, int] = {}
    situations: dict[str, int] = {}  # how often each was reached; 0: never
    restart_s: list[float] = []
    failures: list[Failure] = []
    seed_s_max: float = 0.0

    @property
    def verdict(self) -> Verdict:
        met = {failure.verdict for failure in self.failures} | {"ok"}
        return next(verdict for verdict in SEVERITY if verdict in met)

    @property
    def exit_code(self) -> int:
        return EXIT_CODE_BY_VERDICT[self.verdict]

    def unreached(self) -> list[str]:
        return sorted(name for name, count in self.situations.items() if count == 0)


def process_pool(workers: int, mutant: str = "") -> Executor:
    """Processes of their own; each with another hash seed, unless PYTHONHASHSEED is set for all."""
    return ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=prepare, initargs=(mutant,)
    )


def explore(
    seeds: Iterable[int],
    *,
    profile: Profile = "rough",
    workers: int = 1,
    minutes: float | None = None,
    hours: float | None = None,
    hosts: int | None = None,
    vms: int | None = None,
    favour: tuple[str, ...] = (),
    mutant: str = "",
    stops_at_first: bool = False,
    twin_every: int = TWIN_EVERY,
    shrinks: bool = True,
    make_pool: MakePool = process_pool,
    told: Callable[[Outcome], None] = lambda _: None,
) -> Campaign:
    """Run the seeds; `minutes` ends the campaign early. `told` hears each outcome as it comes."""
    from sim.situations import all_situations

    campaign = Campaign(situations=dict.fromkeys(all_situations(), 0))
    began = time.perf_counter()
    digest_by_seed: dict[int, str] = {}
    with make_pool(workers, mutant) as pool:
        asked = SeedJob(profile=profile, hours=hours, hosts=hosts, vms=vms, favour=favour)
        jobs = _jobs(seeds, asked, twin_every)
        ahead = workers if stops_at_first else 2 * workers
        for job, outcome in _run_all(pool, jobs, ahead, lambda: _is_over(began, minutes)):
            twin_of = digest_by_seed.get(job.seed)
            if twin_of is None:
                digest_by_seed[job.seed] = outcome.digest
                _count(campaign, outcome)
                told(outcome)
            else:
                campaign.twins += 1
                if twin_of != outcome.digest:
                    outcome.verdict, outcome.oracle = "determinism", "D1"
                    outcome.sentence = f"digest {twin_of} in one process, {outcome.digest} in another"
            if outcome.verdict != "ok":
                campaign.failures.append(_failure(job, outcome))
                if stops_at_first:
                    break
        if shrinks and not stops_at_first:
            _shrink_all(pool, campaign, began, minutes)
    campaign.wall_s = time.perf_counter() - began
    return campaign


def _is_over(began: float, minutes: float | None) -> bool:
    return minutes is not None and time.perf_counter() - began >= 60 * minutes


def _jobs(seeds: Iterable[int], asked: SeedJob, twin_every: int) -> Iterator[SeedJob]:
    for count, seed in enumerate(seeds):
        job = msgspec.structs.replace(asked, seed=seed)
        yield job
        if twin_every and count % twin_every == 0:
            yield job


def _run_all(
    pool: Executor, jobs: Iterator[SeedJob], ahead: int, is_over: Callable[[], bool]
) -> Iterator[tuple[SeedJob, Outcome]]:
    """Keep `ahead` jobs under way and no more than that, so that an end comes soon after it is wanted."""
    pending: dict[Future[bytes], SeedJob] = {}
    while True:
        if not is_over():
            for job in itertools.islice(jobs, ahead - len(pending)):
                pending[pool.submit(run_job, msgspec.msgpack.encode(job))] = job
        if not pending:
            return
        done, _ = wait(pending, return_when=FIRST_COMPLETED)
        for future in sorted(done, key=lambda one: pending[one].seed):
            job = pending.pop(future)
            trailed = msgspec.msgpack.decode(future.result(), type=Trailed)
            yield job, msgspec.msgpack.decode(trailed.outcome, type=Outcome)


def _count(campaign: Campaign, outcome: Outcome) -> None:
    campaign.seeds += 1
    campaign.simulated_s += outcome.simulated_s
    campaign.messages += outcome.messages
    campaign.checks += outcome.checks
    campaign.seed_s_max = max(campaign.seed_s_max, outcome.wall_s)
    campaign.fault_counts = dict(Counter(campaign.fault_counts) + Counter(outcome.fault_counts))
    for name, count in outcome.situations.items():
        campaign.situations[name] = campaign.situations.get(name, 0) + count
    campaign.restart_s += outcome.restart_s


def _failure(job: SeedJob, outcome: Outcome) -> Failure:
    plan = plan_of(job)
    return Failure(
        seed=job.seed,
        verdict=outcome.verdict,
        oracle=outcome.oracle,
        sentence=outcome.sentence,
        failed_at_s=outcome.failed_at_s,
        token=encode_plan(plan),
        steps=len(plan.steps),
    )


def kind_of_failure(failure: Failure) -> str:
    """Failures that read the same but for names and numbers are one finding."""
    return failure.oracle + re.sub(r"[0-9a-f]{8}-[0-9a-f-]+|\d+", "#", failure.sentence)[:160]


def _shrink_all(pool: Executor, campaign: Campaign, began: float, minutes: float | None) -> None:
    first_of_kind: dict[str, Failure] = {}
    for failure in campaign.failures:
        first_of_kind.setdefault(kind_of_failure(failure), failure)
    chosen = [one for one in first_of_kind.values() if one.verdict != "determinism"][:SHRUNK_MAX]
    if _is_over(began, minutes):
        chosen = chosen[:1]
    futures = [
        (one, pool.submit(shrink_job, msgspec.msgpack.encode((one.token, SHRINK_RUNS_MAX)))) for one in chosen
    ]
    for failure, future in futures:
        result: tuple[str, int, int, int] = msgspec.msgpack.decode(
            future.result(), type=tuple[str, int, int, int]
        )
        failure.shrunk_token, failure.shrink_runs, failure.steps, failure.shrunk_steps = result


def worker_count(asked: int | None) -> int:
    """As many as asked for, or one for each CPU that this process may use."""
    return asked or len(os.sched_getaffinity(0)) or 1


def describe_plan(token_or_plan: Any) -> str:
    """One line about a plan."""
    shape = token_or_plan.shape
    return (
        f"seed {token_or_plan.seed}, {token_or_plan.profile}: {shape.hosts} hosts, {shape.vms} machines, "
        f"{token_or_plan.hours:g} h, {len(token_or_plan.steps)} steps"
    )
