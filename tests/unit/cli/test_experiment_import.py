"""`olvm experiment import`: what stands on stdout and stderr, and the exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from olvm.cli.application import run
from olvm.experiments import IMPORTERS
from tests.unit.experiments.imports.trace_sources import (
    PACKING_TYPES,
    PACKING_VMS,
    SWF,
    packing_file,
    rows_of,
    text_file,
)

IMPORT = ["experiment", "import"]


def test_import_prints_the_files_name_and_reports_on_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = text_file(tmp_path / "a.swf", SWF), tmp_path / "t.parquet"
    assert run([*IMPORT, "swf", str(source), "--out", str(out), "--processors-per-vm", "8"]) == 0
    told = capsys.readouterr()
    assert told.out == f"{out}\n"
    assert "swf: 5 VMs from 4 jobs in 1 file" in told.err
    assert "unit of memory_gib: GiB" in told.err
    assert "gap: the memory of 1 jobs is not known" in told.err
    assert "left out: 1: jobs cancelled before they ran (status 5)" in told.err


def test_import_with_json_prints_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = text_file(tmp_path / "a.swf", [*SWF, "bad"]), tmp_path / "t.parquet"
    assert run([*IMPORT, "swf", str(source), "--out", str(out), "--on-bad", "drop", "-o", "json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["format"], report["rows_written"], report["bad_rows"]) == ("swf", 3, 1)
    assert report["bad_rows_named"] == [
        {
            "file": "a.swf",
            "line": 11,
            "kind": "columns",
            "why": "it has 1 columns where 18 belong, between each two blanks",
        }
    ]


def test_import_of_bad_rows_fails_with_their_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = text_file(tmp_path / "a.swf", [*SWF, "bad"])
    assert run([*IMPORT, "swf", str(source), "--out", str(tmp_path / "t.parquet")]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert "1 row is bad: a.swf line 11: it has 1 columns where 18 belong" in told.err
    assert run([*IMPORT, "swf", str(tmp_path / "none"), "--out", str(tmp_path / "t.parquet")]) == 3
    assert run([*IMPORT, "tape", str(source)]) == 2
    assert not (tmp_path / "t.parquet").exists()


def test_options_of_a_format_reach_it(tmp_path: Path) -> None:
    source, out = packing_file(tmp_path / "p.sqlite", PACKING_VMS, PACKING_TYPES), tmp_path / "t.parquet"
    options = [
        "--machine",
        "1",
        "--machine-vcpus",
        "40",
        "--machine-memory-gib",
        "100",
        "--before-start",
        "drop",
    ]
    assert run([*IMPORT, "azure-packing", str(source), "--out", str(out), *options]) == 0
    assert rows_of(out, "vm_id, vcpus, memory_gib") == [("101", 40.0, 100.0), ("100", 20.0, 25.0)]


@pytest.mark.parametrize("name", IMPORTERS)
def test_every_format_has_a_command_with_its_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*IMPORT, name, "--help"]) == 0
    told = capsys.readouterr().out
    assert IMPORTERS[name].summary.split()[0] in told
    for option in IMPORTERS[name].options.__struct_fields__:
        assert f"--{option.replace('_', '-')}" in told
