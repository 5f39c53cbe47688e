"""`olvm sql --schema` describes the views of history without a data center."""

from __future__ import annotations

import json
from pathlib import Path

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


def test_schema_goes_into_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "schema.csv"
    assert main(["sql", "--schema", "capacity_forecast", "-o", "csv", "--out", str(out)]) == 0
    assert capsys.readouterr().out == ""
    assert out.read_text().splitlines()[0] == "view,column,meaning"
    assert [path.name for path in tmp_path.iterdir()] == ["schema.csv"]


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (
            ["--schema", "capacity_forcast"],
            3,
            "there is no view capacity_forcast (did you mean capacity_forecast?)",
        ),
        ([], 2, "there is no statement"),
        (["select 1", "-o", "parquet"], 2, "say where with --out FILE"),
        (["--schema", "-o", "parquet", "--out", "schema.parquet"], 2, "with --schema choose table"),
    ],
)
def test_what_is_not_there_is_said(
    arguments: list[str], code: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sql", *arguments]) == code
    assert sentence in capsys.readouterr().err
