"""What no policy can go below: the solver answers what trying everything does, and may be stopped at any time."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

pytest.importorskip("ortools", reason="the extra `solver` is not installed")

from olvm.cli import main
from olvm.experiments import replay
from olvm.experiments.bounds import bound
from olvm.model.errors import BadInput
from tests.unit.experiments.grids.small import write_trace

Vm = tuple[int, int, int, int]  # arrival, lifetime, vCPUs, GiB


def trace_of(vms: list[Vm]) -> dict[str, Any]:
    return {
        "arrival_s": [vm[0] for vm in vms],
        "lifetime_s": [vm[1] for vm in vms],
        "vcpus": [vm[2] for vm in vms],
        "memory_gib": [vm[3] for vm in vms],
    }


def least_peak(vms: list[Vm], hosts: list[tuple[int, int]]) -> int | None:
    """By trying every placement; None: none serves all that fit anywhere."""
    vms = [vm for vm in vms if any(vm[2] <= cpus and vm[3] <= memory for cpus, memory in hosts)]
    best: int | None = None
    for chosen in product(range(len(hosts)), repeat=len(vms)):
        peak = 0
        for now in range(len(vms)):
            there = [at for at in range(now + 1) if at == now or vms[at][0] + vms[at][1] > vms[now][0]]
            free = [list(host) for host in hosts]
            for at in there:
                free[chosen[at]][0] -= vms[at][2]
                free[chosen[at]][1] -= vms[at][3]
            if min(min(one) for one in free) < 0:
                break
            peak = max(peak, len({chosen[at] for at in there}))
        else:
            best = peak if best is None else min(best, peak)
    return best


@pytest.mark.slow  # each example is a process that loads OR-Tools
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(st.integers(0, 8), st.integers(0, 6), st.integers(1, 6), st.integers(1, 8)),
        min_size=1,
        max_size=5,
    ).map(sorted),
    st.lists(st.tuples(st.integers(2, 8), st.integers(2, 8)), min_size=1, max_size=3),
)
def test_solver_finds_what_trying_everything_finds(vms: list[Vm], hosts: list[tuple[int, int]]) -> None:
    spec = ",".join(f"1x{cpus}c{memory}g" for cpus, memory in hosts)
    expected = least_peak(vms, hosts)
    found = bound(trace_of(vms), spec, time_limit_s=30)
    event(f"{found.status}, {expected} hosts")

    if expected is None:
        assert (found.status, found.solver_best) == ("infeasible", None)
        return
    assert (found.status, found.solver_bound, found.solver_best) == ("optimal", expected, expected)
    assert found.capacity_bound <= expected
    assert all(peak is None or peak >= expected for peak in found.heuristics.values())


def test_solver_beats_first_fit_and_the_capacity_where_they_are_wrong() -> None:
    """Three of 6 and three of 4 vCPUs in hosts of ten: three hosts; first fit puts the fours together."""
    vms: list[Vm] = [(0, 10, 4, 1)] * 3 + [(0, 10, 6, 1)] * 3
    found = bound(trace_of(vms), "6x10c64g")

    assert (found.solver_best, found.status, found.heuristics["first_fit"]) == (3, "optimal", 4)
    vms = [(0, 10, 6, 1)] * 3
    found = bound(trace_of(vms), "6x10c64g")
    assert (found.capacity_bound, found.solver_bound, found.status) == (2, 3, "optimal")


def test_time_limit_leaves_a_bound_below_and_a_placement_above(tmp_path: Path) -> None:
    write_trace(tmp_path / "trace.csv", 250)
    found = bound(tmp_path / "trace.csv", "60x16c64g", time_limit_s=2)

    assert found.status in ("optimal", "feasible", "unknown")
    assert found.capacity_bound <= found.solver_bound
    peak = replay(tmp_path / "trace.csv", "60x16c64g", policy="first_fit").hosts_peak
    assert found.solver_bound <= (found.solver_best or peak) <= peak


def test_solver_that_is_killed_leaves_what_it_had_proven(tmp_path: Path) -> None:
    write_trace(tmp_path / "trace.csv", 400)
    killed: list[int] = []

    def kill() -> None:
        deadline_s = time.monotonic() + 30
        while not killed and time.monotonic() < deadline_s:
            for child in Path(f"/proc/{os.getpid()}/task").glob("*/children"):
                for pid in map(int, child.read_text().split()):
                    if b"solver_process" in Path(f"/proc/{pid}/cmdline").read_bytes():
                        time.sleep(0.5)
                        os.kill(pid, signal.SIGKILL)
                        killed.append(pid)
            time.sleep(0.01)

    thread = threading.Thread(target=kill)
    thread.start()
    found = bound(tmp_path / "trace.csv", "60x16c64g", time_limit_s=60)
    thread.join()

    assert killed
    assert found.status in ("feasible", "unknown")
    assert found.solver_bound >= found.capacity_bound > 0


@pytest.mark.parametrize(
    ("count", "limit_s", "sentence"), [(2001, 1.0, "2001 VMs, more than 2000"), (3, 0.0, "cannot have 0.0 s")]
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, count: int, limit_s: float, sentence: str) -> None:
    write_trace(tmp_path / "trace.csv", count)

    with pytest.raises(BadInput, match=sentence):
        bound(tmp_path / "trace.csv", "2x16c64g", time_limit_s=limit_s)


def test_command_prints_bounds_and_heuristics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_trace(tmp_path / "trace.csv", 20)
    arguments = [
        "--trace",
        str(tmp_path / "trace.csv"),
        "--hosts",
        "9x16c64g",
        "--time-limit",
        "20",
        "-o",
        "json",
    ]
    assert main(["experiment", "bound", *arguments]) == 0
    printed = json.loads(capsys.readouterr().out)

    assert printed["status"] == "optimal"
    assert printed["capacity_bound"] <= printed["solver_best"] <= printed["first_fit_peak"]
