"""`olvm experiment replay` as a shell sees it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from olvm.cli import main

TRACE = "arrival_s,lifetime_s,vcpus,memory_gib\n0,10,4,8\n0,,4,8\n5,10,2,4\n"
POLICY = """
class LastFit:
    def choose(self, vm, hosts):
        fitting = [index for index in range(len(hosts)) if hosts.fits[index]]
        return fitting[-1] if fitting else None
"""


@pytest.fixture
def trace(tmp_path: Path) -> str:
    path = tmp_path / "trace.csv"
    path.write_text(TRACE, encoding="utf-8")
    return str(path)


def run(*arguments: str) -> int:
    return main(["experiment", "replay", *arguments])


def test_replay_as_json_prints_one_object_with_the_figures(
    trace: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert (
        run("--trace", trace, "--hosts", "2x8c16g", "--policy", "best_fit", "--out", str(out), "-o", "json")
        == 0
    )
    printed = json.loads(capsys.readouterr().out)
    expected = {"placed": 3, "rejected": 0, "hosts_used": 2, "hosts_peak": 2, "bound_hosts": 2, "seed": 0}
    assert {name: printed[name] for name in expected} == expected
    assert {"wait_s_total", "placements_per_s", "kernel_placements_per_s", "digest"} <= set(printed)
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["figures"]["digest"] == printed["digest"]
    assert manifest["trace"]["name"] == "trace.csv"


def test_replay_as_table_prints_a_line_for_each_figure(
    trace: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--trace", trace, "--hosts", "1x8c16g", "--queue", "reject") == 0
    lines = dict(
        line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if " " in line.strip()
    )
    assert (lines["PLACED"].strip(), lines["REJECTED"].strip()) == ("2", "1")


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--hosts", "2x8c16g", "--policy", "bestfit"], 2, "did you mean best_fit?"),
        (["--hosts", "two"], 2, "cannot read 'two'"),
        (["--hosts", "2x8c16g", "--trace", "nowhere.csv"], 3, "there is no trace nowhere.csv"),
        (["--hosts", "2x8c16g", "--policy", "nowhere:Nobody"], 2, "nowhere"),
    ],
)
def test_replay_of_nonsense_ends_with_one_line_and_its_exit_code(
    trace: str, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, sentence: str
) -> None:
    given = arguments if "--trace" in arguments else ["--trace", trace, *arguments]
    assert run(*given) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert sentence in captured.err
    assert captured.err.count("\n") == 1


def test_replay_with_bad_rows_dropped_names_them_on_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(TRACE + "6,1,0,1\n", encoding="utf-8")
    assert run("--trace", str(path), "--hosts", "2x8c16g") == 2
    assert "line 5, vcpus is 0" in capsys.readouterr().err
    assert run("--trace", str(path), "--hosts", "2x8c16g", "--on-bad", "drop", "-o", "json") == 0
    captured = capsys.readouterr()
    assert "dropped line 5, vcpus is 0" in captured.err
    assert json.loads(captured.out)["dropped"] == 1


def test_replay_with_a_policy_of_ones_own_finds_it_where_it_runs(
    trace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "last_fit_policy.py").write_text(POLICY, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert (
        run("--trace", trace, "--hosts", "9x8c16g", "--policy", "last_fit_policy:LastFit", "-o", "json") == 0
    )
    assert json.loads(capsys.readouterr().out)["hosts_used"] == 2


def test_replay_interrupted_exits_130_and_leaves_no_folder(tmp_path: Path) -> None:
    rows = "".join(f"{second},100,1,1\n" for second in range(20_000))
    (tmp_path / "trace.csv").write_text(TRACE.splitlines(keepends=True)[0] + rows, encoding="utf-8")
    (tmp_path / "slow_policy.py").write_text(
        "import sys\n\n\nclass Slow:\n    def choose(self, vm, hosts):\n"
        "        print('asked', file=sys.stderr, flush=True)\n        return 0\n",
        encoding="utf-8",
    )
    command = "experiment replay --trace trace.csv --hosts 5x900c900g --policy slow_policy:Slow --out out"
    with subprocess.Popen(
        [sys.executable, "-m", "olvm.cli", *command.split()], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "asked\n"
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == 130, rest[-2000:]
    assert rest.endswith("olvm: interrupted\n")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "__pycache__") == [
        "slow_policy.py",
        "trace.csv",
    ]
