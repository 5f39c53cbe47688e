"""The Standard Workload Format: 18 numbers a line, -1 for what is not known."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olvm.experiments import import_trace
from olvm.model.errors import BadInput
from tests.unit.experiments.imports.trace_sources import (
    SWF,
    SWF_HEADER,
    imported,
    rows_of,
    swf_line,
    text_file,
)

COLUMNS = "vm_id, arrival_s, lifetime_s, vcpus, memory_gib, tenant, host_group, utilisation"


@pytest.mark.parametrize("name", ["l_sdsc.swf", "l_sdsc.swf.gz"])
def test_jobs_imported_have_their_fields_and_what_is_unknown_is_reported(tmp_path: Path, name: str) -> None:
    source = text_file(tmp_path / name, SWF)
    report, rows = imported("swf", source, tmp_path / "t.parquet", COLUMNS)
    assert rows == [
        ("1", 0.0, 100.0, 8.0, 4.0, "3", "1", 0.5),  # 8 × 512 MiB requested
        ("2", 10.0, 0.0, 4.0, 4 * 1024 / (1 << 20), None, None, None),  # allocated processors, used memory
        ("4", 12.5, 30.0, 20.0, 20.0, None, None, None),
    ]
    assert report.left_out == {"jobs cancelled before they ran (status 5)": 1}
    assert report.gaps == [
        "the memory of 1 jobs is not known: 1 GiB a processor is taken (--memory-gib-per-processor)"
    ]
    assert report.notes == [
        "the largest job is one VM of 20 vCPUs of a machine with MaxNodes 16, MaxProcs 128; "
        "--processors-per-vm divides jobs among hosts",
        "0 s is 893466664 s of Unix time (UnixStartTime)",
    ]
    assert (report.rows_read, report.rows_written, report.lifetime_zero) == (4, 3, 1)


def test_jobs_divided_among_vms_keep_their_processors_and_memory(tmp_path: Path) -> None:
    source = text_file(tmp_path / "a.swf", SWF)
    _, rows = imported("swf", source, tmp_path / "t.parquet", "vm_id, vcpus, memory_gib", processors_per_vm=8)
    assert rows == [
        ("1", 8.0, 4.0),
        ("2", 4.0, 4 * 1024 / (1 << 20)),
        ("4/1", 8.0, 8.0),
        ("4/2", 8.0, 8.0),
        ("4/3", 4.0, 4.0),
    ]


def test_parts_of_jobs_and_jobs_that_tell_too_little_are_left_out_by_reason(tmp_path: Path) -> None:
    lines = [
        swf_line(1, 0, 10),
        swf_line(1, 0, 5, status=2),
        swf_line(1, 5, 5, status=3),
        swf_line(2, 0, -1),
        swf_line(3, 0, 10, -1),
        swf_line(4, 0, 10, -1, allocated=0),
    ]
    report, rows = imported("swf", text_file(tmp_path / "a.swf", lines), tmp_path / "t.parquet", "vm_id")
    assert rows == [("1",)]
    assert report.left_out == {
        "jobs whose number of processors is not known": 2,
        "parts of a job that has its own line (status 2 to 4)": 2,
        "jobs whose run time is not known": 1,
    }


def test_allocated_processors_count_when_asked(tmp_path: Path) -> None:
    source = text_file(tmp_path / "a.swf", [swf_line(1, 0, 10, 8, allocated=6), swf_line(2, 0, 10, 8)])
    _, rows = imported(
        "swf",
        source,
        tmp_path / "t.parquet",
        "vcpus, memory_gib",
        processors="allocated",
        memory_gib_per_processor=0.5,
    )
    assert rows == [(6.0, 3.0), (8.0, 4.0)]


def test_bad_lines_are_named_with_their_line_and_the_others_stay(tmp_path: Path) -> None:
    lines = [
        *SWF_HEADER,
        swf_line(1, 0, 10),
        swf_line(2, "noon", 10),
        swf_line(3, -1, 10),
        swf_line(4, 5, -7),
        "",
        "5,0,-1,10,-1,-1,-1,8,-1,-1,1,-1,-1,-1,-1,-1,-1,-1",
        swf_line(1, 6, 10),
        "6 0 -1 10 -1",
    ]
    source = text_file(tmp_path / "a.swf", lines, end="")
    report, rows = imported("swf", source, tmp_path / "t.parquet", "vm_id", on_bad="drop")
    assert rows == [("1",)]
    assert [(row.line, row.kind, row.why) for row in report.bad_rows_named] == [
        (8, "not_a_number", "the submit time is noon, not a number"),
        (9, "negative", "the submit time is -1, below 0"),
        (10, "out_of_range", "the run time is -7, below -1"),
        (12, "columns", "it has 1 columns where 18 belong, between each two blanks"),
        (13, "duplicate_id", "its id 1 stands on an earlier line too"),
        (14, "columns", "it has 5 columns where 18 belong, between each two blanks"),
    ]
    assert "a.swf does not end with a newline: a last line may be cut off" in report.gaps
    assert "the header says MaxRecords 4, and there are 7 lines of jobs" in report.gaps


def test_log_that_is_not_sorted_comes_out_in_order_and_equal_times_in_the_files(tmp_path: Path) -> None:
    lines = [swf_line(1, 30, 1), swf_line(2, 10, 1), swf_line(3, 30, 1), swf_line(4, 10, 1)]
    _, rows = imported("swf", text_file(tmp_path / "a.swf", lines), tmp_path / "t.parquet", "vm_id")
    assert [row[0] for row in rows] == ["2", "4", "1", "3"]


def test_options_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    source = text_file(tmp_path / "a.swf", SWF)
    for options, why in (
        ({"processors_per_vm": 0}, "must be at least 1"),
        ({"memory_gib_per_processor": -1.0}, "must not be negative"),
        ({"processors": "some"}, "an option of the format swf is wrong"),
        ({"machine": 3}, "the format swf has no option machine; it has processors, processors_per_vm"),
    ):
        with pytest.raises(BadInput, match=why):
            import_trace("swf", source, tmp_path / "t.parquet", **options)


jobs = st.lists(
    st.tuples(
        st.integers(0, 10_000),
        st.integers(0, 100_000) | st.floats(0, 1000, allow_nan=False).map(lambda x: round(x, 2)),
        st.integers(1, 4096),
        st.one_of(st.just(-1), st.integers(1, 1 << 24)),
        st.one_of(st.just(-1), st.integers(0, 50)),
    ),
    max_size=25,
)


@settings(max_examples=25, deadline=None)
@given(jobs=jobs, blanks=st.sampled_from([" ", "  ", "\t", " \t "]))
def test_jobs_written_as_a_log_come_back_as_they_were(tmp_path_factory, jobs, blanks) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path_factory.mktemp("swf")
    lines = [
        blanks
        + blanks.join(swf_line(number, submit, run, processors, requested_memory=memory, user=user).split())
        for number, (submit, run, processors, memory, user) in enumerate(jobs, 1)
    ]
    source = text_file(folder / "a.swf", [*SWF_HEADER, *lines])
    import_trace("swf", source, folder / "t.parquet")
    columns = "vm_id, arrival_s, lifetime_s, vcpus, memory_gib"
    rows = sorted(rows_of(folder / "t.parquet", columns), key=lambda row: int(row[0]))
    assert rows == [
        (str(number), submit, run, processors, processors * (memory / (1 << 20) if memory > 0 else 1.0))
        for number, (submit, run, processors, memory, _) in enumerate(jobs, 1)
    ]
