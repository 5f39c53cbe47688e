"""Spreads the places of a sweep over processes."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import as_completed

import msgspec

from sim.explore import MakePool
from sim.sweep import Place, SweepReport, every, places, strike_all

PLACES_PER_JOB = 20


def sweep_places(
    stride: int, offset: int, workers: int, make_pool: MakePool, say: Callable[[str], None]
) -> SweepReport:
    """Strike each `stride`-th place; the report has all failures, in the order of their places."""
    began = time.perf_counter()
    found = places()
    chosen = list(every(found, stride, offset))
    report = SweepReport(places=len(found))
    rank = {place: number for number, place in enumerate(chosen)}
    with make_pool(workers, "") as pool:
        jobs = [
            pool.submit(strike_all, msgspec.msgpack.encode(chosen[start : start + PLACES_PER_JOB]))
            for start in range(0, len(chosen), PLACES_PER_JOB)
        ]
        for job in as_completed(jobs):
            part = msgspec.msgpack.decode(job.result(), type=SweepReport)
            report.runs += part.runs
            report.messages += part.messages
            report.failures += part.failures
            say(f"{report.runs} of {len(chosen)} places, {len(report.failures)} failures")
    report.failures.sort(key=lambda failure: rank[Place(*msgspec.structs.astuple(failure.place))])
    report.wall_s = time.perf_counter() - began
    return report
