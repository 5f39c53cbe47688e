"""The PlanetLab experiment: CPU seconds of a day under each policy, and of all days under all policies.

One line for each day and policy with its CPU seconds and its answers; then the sum over them and the wall time with
`workers` processes. Compiling is a line of its own: it happens once for each installation, `--compile` makes it happen.
With only the bundled day where no other data is named. JSON lines.

python benchmarks/bench_planetlab.py [--data FILE] [--days 20110303 …] [--workers 2] [--compile]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from measuring import Teller

from olvm.experiments import PlanetlabResult, planetlab
from olvm.experiments.consolidation.experiment import SAFETY_BY_DETECTOR, SELECTORS

Job = tuple[str | None, str, str, str, int]
FIGURES = ("energy_kwh", "migrations", "slatah_percent", "pdm_percent", "host_shutdowns")
PROGRAM = "from olvm.experiments import planetlab; print(planetlab(detector='dvfs').compile_cpu_s)"


def run(job: Job) -> PlanetlabResult:
    data, day, detector, selector, hosts = job
    return planetlab(data, day, detector=detector, selector=selector, hosts=hosts)


def compile_afresh(teller: Teller) -> None:
    """In a process of its own, with an empty folder for machine code."""
    with tempfile.TemporaryDirectory() as folder:
        for figure in ("compile_cpu", "load_cpu"):
            result = subprocess.run(
                [sys.executable, "-c", PROGRAM],
                env={**os.environ, "NUMBA_CACHE_DIR": folder},
                capture_output=True,
                text=True,
                check=True,
            )
            teller.tell(figure, float(result.stdout), "s")


def main() -> None:
    parser = argparse.ArgumentParser(description="How fast the PlanetLab experiment is.")
    parser.add_argument("--data", default=None, help="a Parquet file of days; the bundled day if not given")
    parser.add_argument("--days", nargs="+", default=["20110303"])
    parser.add_argument("--detectors", nargs="+", default=list(SAFETY_BY_DETECTOR))
    parser.add_argument("--selectors", nargs="+", default=list(SELECTORS))
    parser.add_argument("--hosts", type=int, default=800)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--compile", action="store_true", help="measure what a first call costs, too")
    arguments = parser.parse_args()
    teller = Teller("planetlab", vars(arguments))
    if arguments.compile:
        compile_afresh(teller)
    policies = [(detector, selector) for detector in arguments.detectors for selector in arguments.selectors]
    jobs: list[Job] = [
        (arguments.data, day, detector, selector, arguments.hosts)
        for day in arguments.days
        for detector, selector in [("dvfs", "mmt"), *policies]
    ]
    began = time.perf_counter()
    with ProcessPoolExecutor(arguments.workers, mp_context=get_context("spawn")) as workers:
        results = list(workers.map(run, jobs))
    wall_s = time.perf_counter() - began
    for result in results:
        policy = f"{result.detector}_{result.selector}" if result.selector else result.detector
        answers = {name: getattr(result, name) for name in FIGURES}
        teller.tell(f"{policy}_cpu", result.cpu_s, "s", day=result.day, vms=result.vms, **answers)
    cpu_s = sum(result.cpu_s for result in results)
    teller.tell("all_cpu", cpu_s, "s", runs=len(results))
    teller.tell("all_wall", wall_s, "s", runs=len(results), workers=arguments.workers)


if __name__ == "__main__":
    main()
