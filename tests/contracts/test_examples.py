"""Every example runs as a person would run it, on the local runtime, and says what it promises."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.source import ROOT

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
TIMEOUT_S = 120


def run_example(name: str, *arguments: str) -> str:
    result = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "examples" / name), *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_examples_are_all_run_here() -> None:
    assert [path.name for path in EXAMPLES] == [
        "burst.py",
        "compare_policies.py",
        "first_steps.py",
        "rolling_restart.py",
    ]


@pytest.mark.slow
def test_first_steps_of_the_design_end_with_a_machine_that_has_moved(tmp_path: Path) -> None:
    said = run_example("first_steps.py", "local", "--directory", str(tmp_path))
    assert re.search(r"^web-1 +up +kvm0[34]$", said, re.MULTILINE)


@pytest.mark.slow
def test_rolling_restart_takes_each_host_through_maintenance_and_loses_no_machine(tmp_path: Path) -> None:
    arguments = ("--runtime", "local", "--hosts", "2", "--vms", "4", "--directory", str(tmp_path))
    said = run_example("rolling_restart.py", *arguments)
    for host in ("kvm00", "kvm01"):
        steps = re.findall(rf"host {host} is (\w+)", said)
        assert steps == ["preparing_for_maintenance", "maintenance", "unassigned", "up"]
    assert sum(int(count) for count in re.findall(r"^kvm\d\d +(\d+)$", said, re.MULTILINE)) == 4


def test_burst_of_starts_all_succeed_and_another_process_sees_the_last_end(tmp_path: Path) -> None:
    arguments = ("--runtime", "local", "--vms", "100", "--directory", str(tmp_path))
    said = run_example("burst.py", *arguments)
    assert "another process saw start_vm of web-0099 end: succeeded" in said
    assert re.search(r"^100 +succeeded +\d", said, re.MULTILINE)


def test_comparison_of_policies_ranks_seven_on_two_fleets_and_draws_them(tmp_path: Path) -> None:
    arguments = ("--vms", "400", "--seeds", "3", "--workers", "0", "--out", str(tmp_path / "results"))
    said = run_example("compare_policies.py", *arguments)
    ranked = re.findall(r"^  (\d)  (\S+) +[\d.]+ hosts  \+", said, re.MULTILINE)
    assert len(ranked) == 14
    assert {name for _, name in ranked} >= {"first_fit", "compare_policies:BalancedFit"}
    assert "<svg" in (tmp_path / "results" / "report.html").read_text(encoding="utf-8")
