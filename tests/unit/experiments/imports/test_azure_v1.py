"""Azure v1: the published table and the processed files."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from olvm.experiments import import_trace
from olvm.experiments.azure_trace import TRACE_PATH, read_azure_trace
from olvm.model.errors import BadInput
from tests.unit.experiments.imports.trace_sources import (
    VMTABLE,
    columns_of,
    imported,
    parquet_file,
    rows_of,
    text_file,
    vmtable_line,
)


@pytest.mark.parametrize("name", ["vmtable.csv", "vmtable.csv.gz"])
def test_vmtable_imported_is_in_order_of_arrival_with_its_units(tmp_path: Path, name: str) -> None:
    source = text_file(tmp_path / name, VMTABLE)
    report, rows = imported("azure-v1", source, tmp_path / "t.parquet")
    assert columns_of(tmp_path / "t.parquet") == [
        "arrival_s",
        "lifetime_s",
        "vcpus",
        "memory_gib",
        "vm_id",
        "tenant",
        "utilisation",
    ]
    assert rows == [
        (0.0, None, 1.0, 1.75, "old", "sub-1", pytest.approx(0.034240942)),
        (300.0, 300.0, 8.0, 56.0, "instant", "sub-1", 0.25),
        (600.0, 600.0, 4.0, 7.0, "late", "sub-1", 0.25),
        (600.0, 300.0, 2.0, 3.5, "second", "sub-1", 0.25),
    ]
    assert (report.rows_read, report.rows_written, report.bad_rows, report.never_leave) == (4, 4, 0, 1)
    assert report.rounded == {"lifetime to the shortest that the source can see": 1}
    assert report.gaps == ["1 VMs were there at 0 s: how long before is not known"]
    assert report.longest_gap_s == 300.0


def test_vmtable_with_an_earlier_end_has_more_vms_that_never_leave(tmp_path: Path) -> None:
    source = text_file(tmp_path / "vmtable.csv", VMTABLE)
    _, rows = imported("azure-v1", source, tmp_path / "t.parquet", "vm_id, lifetime_s", end_s=1200)
    assert rows == [("old", None), ("instant", 300.0), ("late", None), ("second", 300.0)]


def test_vmtable_in_its_folder_and_with_a_header_is_found_and_read(tmp_path: Path) -> None:
    header = (
        "vmid,subscriptionid,deploymentid,vmcreated,vmdeleted,maxcpu,avgcpu,p95maxcpu,vmcategory,cores,memory"
    )
    text_file(tmp_path / "trace_data/vmtable/vmtable.csv.gz", [header, *VMTABLE])
    report, rows = imported("azure-v1", tmp_path, tmp_path / "t.parquet", "vm_id")
    assert [row[0] for row in rows] == ["old", "instant", "late", "second"]
    assert report.rows_read == 4


def test_vmtable_of_the_second_version_is_refused_for_its_buckets(tmp_path: Path) -> None:
    source = text_file(tmp_path / "vmtable.csv", [vmtable_line("a", 0, 300, ">24", ">64")])
    with pytest.raises(BadInput, match=r"vmtable.csv line 1: its size is a bucket, >24 cores and >64 GB"):
        import_trace("azure-v1", source, tmp_path / "t.parquet")


def test_processed_file_imported_agrees_with_the_reader_of_the_bundled_one(tmp_path: Path) -> None:
    report, rows = imported("azure-v1", TRACE_PATH, tmp_path / "t.parquet")
    expected = [
        (vm.arrival_s, vm.lifetime_s, float(vm.vcpus), vm.memory_bytes / (1 << 30), vm.vm_id, vm.tenant)
        for vm in read_azure_trace()
    ]
    assert rows == expected
    assert (report.rows_written, report.never_leave, report.bad_rows) == (259_159, 14_317, 0)


def test_lifetimes_drawn_lie_in_their_bins_and_are_the_same_for_the_same_seed(tmp_path: Path) -> None:
    outs = [tmp_path / f"{name}.parquet" for name in "abc"]
    for out, seed in zip(outs, (1, 1, 2), strict=True):
        import_trace("azure-v1", TRACE_PATH, out, duration="draw", seed=seed)
    assert outs[0].read_bytes() == outs[1].read_bytes() != outs[2].read_bytes()
    with duckdb.connect() as connection:
        outside = connection.execute(
            f"""
            select count(*) from read_parquet('{outs[0]}') as t join
                (select *, printf('azure-%06d', file_row_number) as vm_id
                    from read_parquet('{TRACE_PATH}', file_row_number = true)) as s
                using (vm_id)
            where t.lifetime_s is not null
                and not t.lifetime_s between greatest(s.duration_lo_s, 300) and greatest(s.duration_hi_s, 300)
            """
        ).fetchall()
    assert outside == [(0,)]


def test_processed_file_without_lifetimes_says_that_no_vm_leaves(tmp_path: Path) -> None:
    source = parquet_file(
        tmp_path / "train.parquet", "select 300 as arrival_s, 1 as batch_id, 2 as vcpu, 3.5 as mem_gb"
    )
    report, rows = imported("azure-v1", source, tmp_path / "t.parquet", "arrival_s, lifetime_s, vcpus")
    assert rows == [(0.0, None, 2.0)]
    assert report.gaps == ["the file has no lifetimes: no VM leaves"]


def test_processed_file_with_a_bad_row_names_the_row(tmp_path: Path) -> None:
    source = parquet_file(
        tmp_path / "p.parquet",
        "select * from (values (300, 1, 2, 3.5), (300, 1, null, 3.5), (300, 1, 2, -1)) "
        "t(arrival_s, batch_id, vcpu, mem_gb)",
    )
    with pytest.raises(
        BadInput, match=r"2 rows are bad: p.parquet line 2: vcpu is missing; p.parquet line 3: mem_gb is -1"
    ):
        import_trace("azure-v1", source, tmp_path / "t.parquet")
    import_trace("azure-v1", source, tmp_path / "t.parquet", on_bad="drop")
    assert len(rows_of(tmp_path / "t.parquet")) == 1
