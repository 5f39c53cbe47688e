"""Bitbrains: a CSV of samples for each VM, whose timestamps are seconds though their column says milliseconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from olvm.experiments import import_trace
from olvm.model.errors import BadInput
from tests.unit.experiments.imports.trace_sources import (
    BITBRAINS_HEADER,
    bitbrains_file,
    bitbrains_line,
    imported,
    text_file,
)

T0 = 1376314846
COLUMNS = "vm_id, arrival_s, lifetime_s, vcpus, memory_gib, utilisation"


def samples(first: int, count: int, **values: object) -> list[str]:
    return [bitbrains_line(T0 + 300 * number, **values) for number in range(first, first + count)]


def test_folder_of_samples_imported_has_a_vm_for_each_file(tmp_path: Path) -> None:
    bitbrains_file(tmp_path / "fastStorage/1.csv", samples(0, 10))
    bitbrains_file(tmp_path / "fastStorage/2.csv", samples(2, 3, usage="10.0", cores=2, memory="4194304.0"))
    bitbrains_file(tmp_path / "fastStorage/3.csv.gz", samples(9, 1, cores=1))
    report, rows = imported("bitbrains", tmp_path / "fastStorage", tmp_path / "t.parquet", COLUMNS)
    assert rows == [
        ("1", 0.0, None, 4.0, 64.0, 0.5),
        ("2", 600.0, 900.0, 2.0, 4.0, 0.1),
        ("3", 2700.0, None, 1.0, 64.0, 0.5),
    ]
    assert (report.files, report.rows_read, report.rows_written, report.never_leave) == (3, 14, 3, 2)
    assert report.gaps == ["1 VMs were there when the trace began: how long before is not known"]
    assert report.notes == [f"0 s is {T0:,} s of Unix time; timestamps are in seconds"]


def test_times_without_samples_and_changes_of_size_are_reported(tmp_path: Path) -> None:
    lines = [*samples(0, 2, cores=2), *samples(10, 2, cores=8), *samples(20, 1, cores=0)]
    source = bitbrains_file(tmp_path / "7.csv", lines)
    report, rows = imported("bitbrains", source, tmp_path / "t.parquet", COLUMNS)
    assert rows == [("7", 0.0, None, 8.0, 64.0, 0.5)]
    assert "1 VMs have 2 times without samples, 4,800 s in all" in report.gaps
    assert "1 VMs changed their size: the largest counts" in report.notes


def test_months_of_rnd_are_named_by_their_path_and_milliseconds_are_seen(tmp_path: Path) -> None:
    for month, start in (("2013-7", 0), ("2013-8", 8)):
        bitbrains_file(
            tmp_path / "rnd" / month / "1.csv",
            [bitbrains_line((T0 + 300 * n) * 1000) for n in range(start, start + 4)],
        )
    report, rows = imported(
        "bitbrains", tmp_path / "rnd", tmp_path / "t.parquet", "vm_id, arrival_s, lifetime_s"
    )
    assert rows == [("2013-7/1", 0.0, 1200.0), ("2013-8/1", 2400.0, None)]
    assert report.notes == [f"0 s is {T0:,} s of Unix time; timestamps are in milliseconds"]


def test_vm_that_never_had_a_core_and_file_without_samples_are_left_out(tmp_path: Path) -> None:
    bitbrains_file(tmp_path / "v/off.csv", samples(0, 3, cores=0, memory="0.0"))
    bitbrains_file(tmp_path / "v/none.csv", [])
    bitbrains_file(tmp_path / "v/on.csv", samples(0, 3))
    report, rows = imported("bitbrains", tmp_path / "v", tmp_path / "t.parquet", "vm_id")
    assert rows == [("on",)]
    assert report.left_out == {"VMs that never had a core or memory": 1}
    assert "1 files have no sample that can be read" in report.gaps


def test_bad_samples_are_named_with_file_and_line_and_the_vm_stays(tmp_path: Path) -> None:
    good = samples(0, 4)
    bitbrains_file(
        tmp_path / "v/1.csv",
        [
            *good,
            bitbrains_line("soon"),
            bitbrains_line(T0, cores="many"),
            bitbrains_line(T0, usage="-1"),
            bitbrains_line(T0, memory="x"),
            good[0].replace(";", ","),
            good[0][:30],
        ],
    )
    bitbrains_file(tmp_path / "v/sub/2.csv", [bitbrains_line(-5)])
    report, rows = imported("bitbrains", tmp_path / "v", tmp_path / "t.parquet", "vm_id", on_bad="drop")
    assert rows == [("1",)]
    assert [(row.file, row.line, row.kind) for row in report.bad_rows_named] == [
        ("1.csv", 6, "not_a_number"),
        ("1.csv", 7, "not_a_number"),
        ("1.csv", 8, "negative"),
        ("1.csv", 9, "not_a_number"),
        ("1.csv", 10, "columns"),
        ("1.csv", 11, "columns"),
        ("sub/2.csv", 2, "negative"),
    ]
    assert report.bad_rows_named[0].why == "the timestamp is soon, not a number"
    assert report.rows_read == 11


def test_headers_that_are_others_and_folders_without_files_are_refused(tmp_path: Path) -> None:
    other = text_file(tmp_path / "a.csv", [BITBRAINS_HEADER.replace(";", ","), "1,2"])
    with pytest.raises(
        BadInput, match=r"columns end with ';' in this format, and here they seem to end with ','"
    ):
        import_trace("bitbrains", other, tmp_path / "t.parquet")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match=r"there is no file \*.csv or \*.csv.gz in it"):
        import_trace("bitbrains", tmp_path / "empty", tmp_path / "t.parquet")
