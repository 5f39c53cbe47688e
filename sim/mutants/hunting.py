"""Plants each bug in processes of its own and runs seeds until an oracle finds it, or the time is over.

A kill counts only if the same seed is green without the bug: else what was found is another bug.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor

import msgspec

from sim.explore import Failure, explore, process_pool
from sim.jobs import SeedJob, Trailed, run_job
from sim.mutants.planting import Mutant
from sim.runs import Outcome

SEEDS_MAX = 400


class Kill(msgspec.Struct, kw_only=True):
    """What became of one bug. `oracle` empty: it survived."""

    mutant: str
    module: str
    says: str
    pair: bool
    oracle: str = ""
    sentence: str = ""
    seed: int = 0
    seeds: int = 0
    wall_s: float = 0.0
    token: str = ""
    red_seeds: list[int] = []  # failed without the bug too: no kill, and a finding of its own


def hunt(mutants: Sequence[Mutant], workers: int, seconds: float, say: Callable[[str], None]) -> list[Kill]:
    """All bugs, `workers` at a time, each with one process. The order of the answer is that of `mutants`."""

    # Seeds that killed are run again here, without a bug. Its processes start when they are needed.
    with process_pool(workers) as clean:

        def one(mutant: Mutant) -> Kill:
            kill = hunt_one(mutant, seconds, clean)
            say(f"{kill.mutant}: {kill.oracle or 'SURVIVED'} after {kill.seeds} seeds, {kill.wall_s:.1f} s")
            return kill

        with ThreadPoolExecutor(workers) as threads:
            return list(threads.map(one, mutants))


def hunt_one(mutant: Mutant, seconds: float, clean: Executor) -> Kill:
    """`clean` runs seeds without any bug."""
    began = time.perf_counter()
    kill = Kill(mutant=mutant.name, module=mutant.module, says=mutant.says, pair=mutant.pair)
    first = 1
    while first <= SEEDS_MAX and (left_s := seconds - (time.perf_counter() - began)) > 0:
        campaign = explore(
            range(first, SEEDS_MAX + 1),
            profile=mutant.profile,
            minutes=left_s / 60,
            hosts=mutant.hosts,
            vms=mutant.vms,
            hours=mutant.hours,
            favour=mutant.favour,
            mutant=mutant.name,
            stops_at_first=True,
            twin_every=0,
            shrinks=False,
        )
        kill.seeds += campaign.seeds
        if not campaign.failures:
            break
        failure = campaign.failures[0]
        if _is_green_without(failure, clean):
            kill.oracle = failure.oracle or failure.verdict
            kill.sentence, kill.seed, kill.token = failure.sentence, failure.seed, failure.token
            break
        kill.red_seeds.append(failure.seed)
        first = failure.seed + 1
    kill.wall_s = time.perf_counter() - began
    return kill


def _is_green_without(failure: Failure, clean: Executor) -> bool:
    job = msgspec.msgpack.encode(SeedJob(token=failure.token))
    trailed = msgspec.msgpack.decode(clean.submit(run_job, job).result(), type=Trailed)
    return msgspec.msgpack.decode(trailed.outcome, type=Outcome).verdict == "ok"


def kill_lines(kills: Sequence[Kill]) -> Iterator[str]:
    width = max((len(kill.mutant) for kill in kills), default=6)
    yield f"{'bug':<{width}}  {'killed by':<9}  {'seeds':>5}  {'seconds':>7}  what it is"
    for kill in kills:
        by = kill.oracle or "SURVIVED"
        yield f"{kill.mutant:<{width}}  {by:<9}  {kill.seeds:>5}  {kill.wall_s:>7.1f}  {kill.says}"
        if kill.red_seeds:
            yield f"  failed without the bug too: seeds {', '.join(map(str, kill.red_seeds))}"
    killed = sum(1 for kill in kills if kill.oracle)
    total_s = sum(kill.wall_s for kill in kills)
    yield f"{killed} of {len(kills)} killed in {total_s:.0f} s of one process each"
