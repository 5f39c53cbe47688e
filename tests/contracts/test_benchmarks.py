"""Benchmarks of data centers and of experiments run with tiny sizes and write series that can be compared."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.architecture.source import ROOT

TIMEOUT_S = 120
LOCAL = ["--runtime", "local"]
TINY = {
    "bench_starts.py": ["--vms", "20", "--alone", "3", "--hosts", "2"],
    "bench_restart.py": ["--vms", "20", "--hosts", "2"],
    "bench_idle.py": ["--vms", "10", "--hosts", "2", "--seconds", "0.5"],
    "bench_telemetry_side.py": ["--starts", "3", "--samples-per-s", "3000"],
}
# Of experiments: they have no runtime.
TINY_EXPERIMENTS = {
    "bench_replay.py": [
        *("--vms", "300", "--hosts", "10", "--repeats", "1"),
        *("--only", "placements", "numpy_scan", "others", "own", "small", "scarce"),
    ],
}
HISTORY_AT_SCALE = ["--hosts", "3", "--vms", "9", "--days", "0.1"]
FIELDS = {"benchmark", "figure", "value", "unit", "machine", "parameters", "commit"}


def run_benchmark(name: str, arguments: list[str]) -> list[dict[str, Any]]:
    result = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "benchmarks" / name), *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def check_series(name: str, lines: list[dict[str, Any]]) -> None:
    figures = [line["figure"] for line in lines]
    assert figures
    assert len(set(figures)) == len(figures)
    for line in lines:
        assert set(line) >= FIELDS
        assert line["benchmark"] == name.removeprefix("bench_").removesuffix(".py")
        assert line["machine"]["cpus"] >= 1


@pytest.mark.parametrize("name", TINY)
def test_benchmark_with_tiny_sizes_writes_a_complete_series(name: str) -> None:
    lines = run_benchmark(name, [*LOCAL, *TINY[name]])
    check_series(name, lines)
    assert all(set(line) == FIELDS for line in lines)
    assert {line["parameters"]["runtime"] for line in lines} == {"local"}


@pytest.mark.parametrize("name", TINY_EXPERIMENTS)
def test_benchmark_of_experiments_with_tiny_sizes_writes_a_complete_series(name: str) -> None:
    check_series(name, run_benchmark(name, TINY_EXPERIMENTS[name]))


def test_telemetry_benchmark_floods_history_with_what_it_says_it_sends() -> None:
    lines = run_benchmark("bench_telemetry_side.py", [*LOCAL, *TINY["bench_telemetry_side.py"]])
    value_by_figure = {line["figure"]: line["value"] for line in lines}
    for case in ("flooded", "flooded_and_questioned"):
        assert value_by_figure[f"{case}.samples_sent"] == pytest.approx(3000, rel=0.3)
        assert value_by_figure[f"{case}.samples_stored"] == 100
    assert value_by_figure["questions_answered"] > 0
    assert value_by_figure["questions_failed"] == 0


@pytest.mark.parametrize("layout", ["history", "plain"])
def test_history_at_scale_tells_sizes_rates_and_each_question(layout: str) -> None:
    lines = run_benchmark("bench_history_scale.py", [*HISTORY_AT_SCALE, "--layout", layout])
    check_series("bench_history_scale.py", lines)
    value_by_figure = {line["figure"]: line["value"] for line in lines}
    # 144 minutes: three kinds of nine machines, and of three hosts with two interfaces each.
    assert value_by_figure["samples"] == 144 * (3 * 9 + 3 + 2 * 3)
    assert value_by_figure["file"] > 0
    assert {f"question_{number:02}" for number in range(1, 31)} <= set(value_by_figure)
