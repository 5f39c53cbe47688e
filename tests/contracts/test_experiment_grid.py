"""`olvm experiment run` and `report` as a shell sees them, and a grid whose process is killed."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from olvm.cli import main
from tests.unit.experiments.grids.small import POLICY, write_trace

GRID = """
name = "a small grid"
seeds = 12
policies = ["first_fit", "grid_policies_of_mine:LastFit"]

[[topologies]]
name = "equal"
hosts = "40x16c64g"

[[traces]]
name = "short"
path = "trace.csv"
window_vms = 1500
"""
RUNS = 24
STARTED_WITHIN_S = 60.0


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    write_trace(tmp_path / "trace.csv", 4000)
    (tmp_path / "grid_policies_of_mine.py").write_text(POLICY, encoding="utf-8")
    path = tmp_path / "grid.toml"
    path.write_text(GRID, encoding="utf-8")
    return path


def command(grid: Path, out: Path) -> list[str]:
    return [
        sys.executable, "-m", "olvm.cli", "experiment", "run", str(grid), "--workers", "0", "--out", str(out)
    ]  # fmt: skip


def lines_of(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_grid_that_was_killed_again_and_again_ends_as_one_that_was_not(grid: Path, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert main(command(grid, whole)[3:]) == 0
    for wanted in (3, 9, 15):
        process = subprocess.Popen(command(grid, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline_s = time.monotonic() + STARTED_WITHIN_S
        while lines_of(out / "runs.jsonl") < wanted and process.poll() is None:
            assert time.monotonic() < deadline_s
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
    was_there = lines_of(out / "runs.jsonl")
    ended = subprocess.run(command(grid, out), capture_output=True, text=True, check=True)

    assert ended.stdout == f"{out}\n"
    assert 15 <= was_there <= RUNS
    assert lines_of(out / "runs.jsonl") == RUNS
    assert f"{was_there} were there" in ended.stderr
    assert (out / "runs.parquet").read_bytes() == (whole / "runs.parquet").read_bytes()


def test_report_prints_who_is_better_and_writes_one_file(
    grid: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(command(grid, out)[3:]) == 0
    capsys.readouterr()
    assert main(["experiment", "report", str(out), "-o", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert (
        main(["experiment", "report", str(out), "--html", str(tmp_path / "r.html"), "--metric", "hosts_used"])
        == 0
    )
    table = capsys.readouterr().out.splitlines()

    assert [(row["policy"], row["rank"], row["seeds"]) for row in rows] == [
        ("first_fit", 1, 12),
        ("grid_policies_of_mine:LastFit", 1, 12),
    ]
    assert table[0].split()[0] == "POLICY"
    assert "a small grid" in (out / "report.html").read_text(encoding="utf-8")
    assert "hosts that ever held a VM" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_run_that_fails_is_said_and_the_exit_code_is_1(
    grid: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid.write_text(GRID.replace("LastFit", "Picky"), encoding="utf-8")

    assert main(command(grid, tmp_path / "out")[3:]) == 1
    said = capsys.readouterr().err
    assert (
        "Picky on equal with short, fifo, seed 0: policy grid_policies_of_mine:Picky failed in choose" in said
    )
    assert "12 of 24 runs failed" in said


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["run", "missing.toml"], 3, "there is no grid missing.toml"),
        (["report", "nowhere"], 3, "there are no results of a grid in nowhere"),
    ],
)
def test_what_is_not_there_is_said(
    arguments: list[str], code: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["experiment", *arguments]) == code
    assert sentence in capsys.readouterr().err


def test_terminal_gets_a_bar_and_the_leaders(grid: Path, tmp_path: Path) -> None:
    owner, terminal = pty.openpty()
    process = subprocess.Popen(
        command(grid, tmp_path / "out"),
        stdout=subprocess.DEVNULL,
        stderr=terminal,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(terminal)
    shown = b""
    with contextlib.suppress(OSError):  # how the end of a terminal's other side is told
        while part := os.read(owner, 65536):
            shown += part
    os.close(owner)

    assert process.wait() == 0
    text = shown.decode(errors="replace")
    assert "█" in text
    assert "24 of 24 runs" in text
    assert "MEAN HOSTS_PEAK" in text
