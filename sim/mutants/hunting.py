"""Plants each bug in processes of its own and runs seeds until an oracle finds it, or the time is over."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import msgspec

from sim.explore import explore
from sim.mutants.planting import Mutant

SEEDS_MAX = 400


class Kill(msgspec.Struct, kw_only=True):
    """What became of one bug. `oracle` empty: it survived."""

    mutant: str
    says: str
    pair: bool
    oracle: str = ""
    sentence: str = ""
    seed: int = 0
    seeds: int = 0
    wall_s: float = 0.0
    token: str = ""


def hunt(mutants: Sequence[Mutant], workers: int, seconds: float, say: Callable[[str], None]) -> list[Kill]:
    """All bugs, `workers` at a time, each with one process. The order of the answer is that of `mutants`."""

    def one(mutant: Mutant) -> Kill:
        kill = hunt_one(mutant, seconds)
        say(f"{kill.mutant}: {kill.oracle or 'SURVIVED'} after {kill.seeds} seeds, {kill.wall_s:.1f} s")
        return kill

    with ThreadPoolExecutor(workers) as threads:
        return list(threads.map(one, mutants))


def hunt_one(mutant: Mutant, seconds: float) -> Kill:
    began = time.perf_counter()
    campaign = explore(
        range(1, SEEDS_MAX + 1),
        profile=mutant.profile,
        minutes=seconds / 60,
        mutant=mutant.name,
        stops_at_first=True,
        twin_every=0,
        shrinks=False,
    )
    kill = Kill(mutant=mutant.name, says=mutant.says, pair=mutant.pair, seeds=campaign.seeds)
    if campaign.failures:
        failure = campaign.failures[0]
        kill.oracle = failure.oracle or failure.verdict
        kill.sentence, kill.seed, kill.token = failure.sentence, failure.seed, failure.token
    kill.wall_s = time.perf_counter() - began
    return kill


def kill_lines(kills: Sequence[Kill]) -> Iterator[str]:
    width = max((len(kill.mutant) for kill in kills), default=6)
    yield f"{'bug':<{width}}  {'killed by':<9}  {'seeds':>5}  {'seconds':>7}  what it is"
    for kill in kills:
        by = kill.oracle or "SURVIVED"
        yield f"{kill.mutant:<{width}}  {by:<9}  {kill.seeds:>5}  {kill.wall_s:>7.1f}  {kill.says}"
    killed = sum(1 for kill in kills if kill.oracle)
    total_s = sum(kill.wall_s for kill in kills)
    yield f"{killed} of {len(kills)} killed in {total_s:.0f} s of one process each"
