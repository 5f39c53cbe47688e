"""Azure's trace for packing: fractions of a kind of machine, days, and VMs older than the trace."""

from __future__ import annotations

from pathlib import Path

import pytest

from olvm.experiments import import_trace
from olvm.model.errors import BadInput
from tests.unit.experiments.imports.trace_sources import PACKING_TYPES, PACKING_VMS, imported, packing_file

COLUMNS = "vm_id, arrival_s, lifetime_s, vcpus, memory_gib, tenant, priority"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return packing_file(tmp_path / "packing_trace_zone_a_v1.sqlite", PACKING_VMS, PACKING_TYPES)


def test_packing_trace_imported_has_days_in_seconds_and_fractions_of_the_commonest_machine(
    tmp_path: Path, source: Path
) -> None:
    report, rows = imported("azure-packing", source, tmp_path / "t.parquet", COLUMNS)
    # Machine 0 offers types 7 and 9, three requests; type 8 is taken from machine 1 as 0.1 and 0.05.
    assert rows == [
        ("102", 0.0, 43200.0, 6.4, pytest.approx(12.8, abs=1e-6), "2", 1),
        ("101", 21600.0, None, 64.0, 256.0, "1", 0),
        ("100", 43200.0, 86400.0, 16.0, 32.0, "1", 1),
    ]
    assert report.left_out == {"VMs that left before 0 s": 1}
    assert report.rounded == {"memory to a KiB": 1}
    assert report.gaps == [
        "machine 0 does not offer the types of 1 VMs: their largest fraction of another is taken",
        "2 VMs were there before 0 s (--before-start clip)",
    ]
    assert (report.rows_read, report.rows_written, report.never_leave) == (4, 3, 1)


def test_packing_trace_of_another_machine_takes_its_fractions(tmp_path: Path, source: Path) -> None:
    _, rows = imported(
        "azure-packing",
        source,
        tmp_path / "t.parquet",
        "vm_id, vcpus, memory_gib",
        machine=1,
        machine_vcpus=40,
        machine_memory_gib=100,
    )
    assert rows == [("102", 4.0, 5.0), ("101", 40.0, 100.0), ("100", 20.0, 25.0)]


@pytest.mark.parametrize(
    ("before_start", "expected"),
    [
        (
            "shift",
            [
                ("103", 0.0, 172800.0),
                ("102", 86400.0, 216000.0),
                ("101", 280800.0, None),
                ("100", 302400.0, 86400.0),
            ],
        ),
        ("drop", [("101", 21600.0, None), ("100", 43200.0, 86400.0)]),
    ],
)
def test_vms_older_than_the_trace_are_shifted_or_left_out_when_asked(
    tmp_path: Path, source: Path, before_start: str, expected: list[tuple[object, ...]]
) -> None:
    _, rows = imported(
        "azure-packing",
        source,
        tmp_path / "t.parquet",
        "vm_id, arrival_s, lifetime_s",
        before_start=before_start,
    )
    assert rows == expected


def test_bad_rows_of_each_kind_are_named_with_their_row(tmp_path: Path) -> None:
    vms = [
        (1, 1, 7, 0, "soon", 1.0),
        (2, 1, 7, 0, 1.0, "late"),
        (3, 1, 7, 0, 2.0, 1.0),
        (4, 1, 7, 5, 0.0, 1.0),
        (5, 1, 99, 0, 0.0, 1.0),
        (6, 1, 6, 0, 0.0, 1.0),
        (7, 1, 7, 0, None, 1.0),
        (None, 1, 7, 0, 0.0, 1.0),
        (9, 1, 7, 0, 0.0, 1.0),
        (9, 1, 7, 0, 0.0, 1.0),
    ]
    source = packing_file(tmp_path / "p.sqlite", vms, [(1, 7, 0, 0.5, 0.5), (2, 6, 0, 1.5, 0.5)])
    report, rows = imported("azure-packing", source, tmp_path / "t.parquet", "vm_id", on_bad="drop")
    assert rows == [("9",)]
    assert [(row.line, row.kind, row.why) for row in report.bad_rows_named] == [
        (1, "not_a_number", "starttime is soon, not a number"),
        (2, "not_a_number", "endtime is late, not a number"),
        (3, "end_before_start", "endtime is 1.0, before starttime, which is 2.0"),
        (4, "unknown_value", "priority is 5, neither 0 (high) nor 1 (low)"),
        (5, "unknown_type", "its type 99 is not in vmType"),
        (6, "out_of_range", "its type 6 takes no fraction from 0 to 1 of a machine"),
        (7, "not_a_number", "starttime is missing, not a number"),
        (8, "not_a_number", "vmId is missing"),
        (10, "duplicate_id", "its id 9 stands on an earlier line too"),
    ]
    with pytest.raises(BadInput, match=r"9 rows are bad: p\.sqlite line 1: starttime is soon"):
        import_trace("azure-packing", source, tmp_path / "u.parquet")


def test_files_that_are_no_packing_trace_are_refused_by_what_they_lack(tmp_path: Path) -> None:
    text = tmp_path / "a.sqlite"
    text.write_text("vmId,tenantId\n")
    zipped = tmp_path / "a.zip"
    zipped.write_bytes(b"PK\x03\x04rest")
    cut = tmp_path / "cut.sqlite"
    whole = packing_file(tmp_path / "whole.sqlite", PACKING_VMS * 500, PACKING_TYPES)
    cut.write_bytes(whole.read_bytes()[:9000])
    empty = packing_file(tmp_path / "none.sqlite", [], PACKING_TYPES)
    for source, why in (
        (text, "it is no SQLite file"),
        (zipped, "unzip it first"),
        (cut, "broken or cut off"),
        (empty, "or there are no VMs"),
    ):
        with pytest.raises(BadInput, match=why):
            import_trace("azure-packing", source, tmp_path / "t.parquet")
    with pytest.raises(BadInput, match="no requested type runs on machine 9; there are 0"):
        import_trace("azure-packing", whole, tmp_path / "t.parquet", machine=9)
    with pytest.raises(BadInput, match="above 0"):
        import_trace("azure-packing", whole, tmp_path / "t.parquet", machine_vcpus=0.0)
