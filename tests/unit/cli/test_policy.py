"""`olvm policy` needs no data center."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from olvm.cli import main
from olvm.scheduling import POLICY_BY_NAME


def test_units_are_listed_with_their_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "units", "-o", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {kind: sum(row["kind"] == kind for row in rows) for kind in ("filter", "weight", "balancer")} == {
        "filter": 25,
        "weight": 14,
        "balancer": 4,
    }
    swap = next(row for row in rows if row["name"] == "Swap")
    assert swap["parameters"] == "MaximumAllowedSwapUsage: a whole number from 0 to 199"


def test_built_in_policies_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "list", "-o", "json"]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == list(POLICY_BY_NAME)


def test_what_show_prints_is_a_policy_once_it_has_a_name_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["policy", "show", "power_saving"]) == 0
    text = capsys.readouterr().out
    mine = tmp_path / "mine.toml"
    mine.write_text(text.replace('name = "power_saving"', 'name = "mine"'))
    assert main(["policy", "show", str(mine)]) == 0
    again = capsys.readouterr().out
    assert tomllib.loads(again) == tomllib.loads(text) | {"name": "mine"}


def test_policy_that_is_none_is_one_line_and_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text('name = "bad"\n[weights]\nLuck = 1\n')
    assert main(["policy", "show", str(bad)]) == 2
    assert "policy bad names the weight Luck: choose from" in capsys.readouterr().err
    assert main(["policy", "show", "no_such_module_here:Best"]) == 2
    assert "module no_such_module_here cannot be imported here" in capsys.readouterr().err
