"""`olvm sql --schema` describes the views of history without a data center."""

from __future__ import annotations

import json

import pytest

from olvm.cli import main


def test_schema_lists_the_views(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sql", "--schema"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["VIEW", "MEANING"]
    assert any(line.startswith("statistics_vms_resources_usage_hourly ") for line in lines)
    assert any(line.startswith("capacity_forecast ") for line in lines)


def test_schema_of_a_view_says_what_each_column_means(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sql", "--schema", "statistics_vms_resources_usage_daily", "-o", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows[0]["meaning"] == "One row per day of UTC, VM and host and status."
    meanings = {row["column"]: row["meaning"] for row in rows[1:]}
    assert {"vm_name", "seconds_in_status", "cpu_usage_percent", "max_cpu_usage_percent"} <= set(meanings)
    assert all(meanings.values())


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (
            ["--schema", "capacity_forcast"],
            3,
            "there is no view capacity_forcast (did you mean capacity_forecast?)",
        ),
        ([], 2, "there is no statement"),
    ],
)
def test_what_is_not_there_is_said(
    arguments: list[str], code: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sql", *arguments]) == code
    assert sentence in capsys.readouterr().err
