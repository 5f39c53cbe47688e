"""Huawei-East-1: creations and deletions that pair, and those that do not."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olvm.experiments import import_trace
from olvm.model.errors import BadInput
from tests.unit.experiments.imports.trace_sources import HUAWEI, HUAWEI_HEADER, imported, text_file

COLUMNS = "vm_id, arrival_s, lifetime_s, vcpus, memory_gib"


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_events_imported_are_paired_by_id(tmp_path: Path, newline: str) -> None:
    source = text_file(tmp_path / "Huawei-East-1.csv", HUAWEI, newline=newline)
    report, rows = imported("huawei", tmp_path, tmp_path / "t.parquet", COLUMNS)
    assert source.exists()
    assert rows == [("0", 0.0, 60.0, 1.0, 2.0), ("1", 5.0, None, 4.0, 8.0), ("2", 60.0, 0.0, 2.0, 4.0)]
    assert (report.rows_read, report.rows_written, report.never_leave, report.lifetime_zero) == (5, 3, 1, 1)


def test_columns_in_another_order_are_found_by_their_names(tmp_path: Path) -> None:
    source = text_file(
        tmp_path / "h.csv", ["\xef\xbb\xbftype,time,memory,cpu,vmid", "0,7,16,8,5", "1,17,16,8,5"]
    )
    _, rows = imported("huawei", source, tmp_path / "t.parquet", COLUMNS)
    assert rows == [("5", 7.0, 10.0, 8.0, 16.0)]


def test_events_out_of_order_are_paired_by_time(tmp_path: Path) -> None:
    source = text_file(tmp_path / "h.csv", [HUAWEI_HEADER, "1,1,1,50,1", "2,1,1,3,0", "1,1,1,20,0"])
    _, rows = imported("huawei", source, tmp_path / "t.parquet", COLUMNS)
    assert rows == [("2", 3.0, None, 1.0, 1.0), ("1", 20.0, 30.0, 1.0, 1.0)]


def test_id_that_comes_again_after_its_deletion_is_a_second_vm(tmp_path: Path) -> None:
    source = text_file(
        tmp_path / "h.csv", [HUAWEI_HEADER, "1,1,1,0,0", "1,1,1,5,1", "1,2,2,7,0", "1,1,2,9,1"]
    )
    report, rows = imported("huawei", source, tmp_path / "t.parquet", COLUMNS)
    assert rows == [("1", 0.0, 5.0, 1.0, 1.0), ("1#2", 7.0, 2.0, 2.0, 2.0)]
    assert "1 deletions name another size than the creation, whose size counts" in report.notes


def test_bad_rows_of_each_kind_are_named_with_their_line(tmp_path: Path) -> None:
    lines = [
        HUAWEI_HEADER,
        "1,1,2,0,0",
        "1,1,2,3,0",
        "9,1,2,3,1",
        "1,1,2,9,1",
        "1,1,2,10,1",
        "2,x,2,0,0",
        "3,-1,2,0,0",
        "4,1,2,-5,0",
        "5,1,2,0,2",
        "6,1,2,0",
        "7;1;2;0;0",
        ",1,2,0,0",
        "8,1,,0,0",
        "8\xe9,1,1,0,0",
    ]
    source = text_file(tmp_path / "h.csv", lines)
    with pytest.raises(
        BadInput, match=r"12 rows are bad: h.csv line 3: .*; and 2 more; mend the file"
    ) as refused:
        import_trace("huawei", source, tmp_path / "t.parquet")
    assert not (tmp_path / "t.parquet").exists()
    assert "h.csv line 4: VM 9 is deleted and was not created before" in refused.value.message
    report, rows = imported("huawei", source, tmp_path / "t.parquet", COLUMNS, on_bad="drop")
    assert rows == [("1", 0.0, 9.0, 1.0, 2.0)]
    assert [(row.line, row.kind, row.why) for row in report.bad_rows_named] == [
        (3, "duplicate_create", "VM 1 is created while it lives"),
        (4, "delete_without_create", "VM 9 is deleted and was not created before"),
        (6, "duplicate_delete", "VM 1 is deleted again"),
        (7, "not_a_number", "cpu is x, not a number"),
        (8, "out_of_range", "cpu is -1 and must be above 0"),
        (9, "negative", "time is -5, below 0"),
        (10, "unknown_value", "type is 2, neither 0 (creation) nor 1 (deletion)"),
        (11, "columns", "it has 4 columns where 5 belong, between each two commas"),
        (12, "columns", "it has 1 columns where 5 belong, between each two commas"),
        (13, "not_a_number", "vmid is missing"),
    ]
    assert report.bad_rows == 12
    assert report.rows_read == 14
    assert sum(report.bad_rows_by_kind.values()) == 12


def test_header_with_another_delimiter_or_without_a_column_is_refused(tmp_path: Path) -> None:
    semicolons = text_file(tmp_path / "a.csv", [HUAWEI_HEADER.replace(",", ";"), "1;1;1;0;0"])
    with pytest.raises(
        BadInput, match=r"columns end with ',' in this format, and here they seem to end with ';'"
    ):
        import_trace("huawei", semicolons, tmp_path / "t.parquet")
    lacking = text_file(tmp_path / "b.csv", ["vmid,cpu,time,type", "1,1,0,0"])
    with pytest.raises(BadInput, match="line 1 has no column 'memory'; it has vmid, cpu, time, type"):
        import_trace("huawei", lacking, tmp_path / "t.parquet")


vm_lists = st.lists(
    st.tuples(
        st.integers(0, 1000),
        st.one_of(st.none(), st.integers(0, 1000)),
        st.integers(1, 64),
        st.integers(1, 512),
    ),
    max_size=30,
)


@settings(max_examples=25, deadline=None)
@given(vms=vm_lists, shuffled=st.randoms(use_true_random=False))
def test_vms_written_as_events_come_back_as_they_were(tmp_path_factory, vms, shuffled) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path_factory.mktemp("huawei")
    # Creation before deletion in the file, where both are at one time.
    events = [
        (arrival, 0, f"{vm_id},{cpu},{memory},{arrival},0")
        for vm_id, (arrival, _, cpu, memory) in enumerate(vms)
    ]
    events += [
        (arrival + lifetime, 1, f"{vm_id},{cpu},{memory},{arrival + lifetime},1")
        for vm_id, (arrival, lifetime, cpu, memory) in enumerate(vms)
        if lifetime is not None
    ]
    shuffled.shuffle(events)
    events.sort(key=lambda event: event[:2])
    source = text_file(folder / "h.csv", [HUAWEI_HEADER, *(event[2] for event in events)])
    _, rows = imported("huawei", source, folder / "t.parquet", COLUMNS)
    expected = [(str(vm_id), *vm) for vm_id, vm in enumerate(vms)]
    assert sorted(rows, key=lambda row: int(row[0])) == expected
    assert [row[1] for row in rows] == sorted(row[1] for row in rows)
