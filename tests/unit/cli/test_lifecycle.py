"""What can be said of `up` and `down` without starting anything."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from olvm.cli import background, main
from olvm.cli.lifecycle import _settings
from olvm.cli.options import default_directory
from olvm.model.errors import BadInput


def test_settings_are_json_or_text_and_dots_reach_inside() -> None:
    assert _settings(["host_silos=4", "simulated.boot_time_s_min=0.5", "simulated.kind=fast", "x="]) == {
        "host_silos": 4,
        "simulated": {"boot_time_s_min": 0.5, "kind": "fast"},
        "x": "",
    }


@pytest.mark.parametrize("pairs", [["host_silos"], ["=4"], ["a=1", "a.b=2"]])
def test_setting_that_is_none_is_refused(pairs: list[str]) -> None:
    with pytest.raises(BadInput, match="--set"):
        _settings(pairs)


def test_unknown_setting_is_refused_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["up", "-d", str(tmp_path), "--set", "hots=4"]) == 2
    assert "hots" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_pid_file_of_another_program_is_no_daemon(tmp_path: Path) -> None:
    background.write_pid(tmp_path)
    assert background.claimed_pid(tmp_path) == os.getpid()
    assert background.running_pid(tmp_path) == 0
    assert background.stop(tmp_path, timeout_s=0) == 0  # and this process was not signalled


@pytest.mark.parametrize("text", ["", "abc", "-1", "99999999999", "\xff"])
def test_pid_file_that_is_no_number_is_no_claim(tmp_path: Path, text: str) -> None:
    (tmp_path / background.PID_FILE).write_text(text, encoding="utf-8")
    assert background.claimed_pid(tmp_path) == 0


def test_pid_file_is_for_its_owner_alone_and_taken_back(tmp_path: Path) -> None:
    background.write_pid(tmp_path)
    assert (tmp_path / background.PID_FILE).stat().st_mode & 0o777 == 0o600
    background.remove_pid(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_pid_file_of_another_process_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / background.PID_FILE).write_text("1\n")
    background.remove_pid(tmp_path)
    assert background.claimed_pid(tmp_path) == 1


def test_default_directory_follows_xdg_and_ignores_a_relative_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/var/state")
    assert default_directory() == Path("/var/state/olvm")
    monkeypatch.setenv("XDG_STATE_HOME", "state")
    assert default_directory() == Path.home() / ".local/state/olvm"
