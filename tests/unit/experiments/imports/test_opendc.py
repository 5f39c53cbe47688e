"""OpenDC: three generations of column names, units that its documents and its code tell differently."""

from __future__ import annotations

from pathlib import Path

import pytest

from olvm.experiments import import_trace
from olvm.model.errors import BadInput
from tests.unit.experiments.imports.trace_sources import columns_of, imported, parquet_file

TASKS = """
    select * from (values
        (2, timestamptz '2013-08-12 13:50:46+00', 7200000::bigint, 4::int, 11704.0::double, 8192::bigint),
        (1, timestamptz '2013-08-12 13:40:46+00', 600000, 1, 2926.0, 512),
        (3, timestamptz '2013-08-12 13:50:46+00', 0, 2, 5852.0, 2048)
    ) t(id, submission_time, duration, cpu_count, cpu_capacity, mem_capacity)
"""
FRAGMENTS = """
    select * from (values (1, 300000::bigint, 1::int, 2926.0::double), (1, 300000, 1, 0.0), (2, 3600000, 4, 1170.4),
        (9, 1000, 1, 5.0)) t(id, duration, cpu_count, cpu_usage)
"""
COLUMNS = "vm_id, arrival_s, lifetime_s, vcpus, memory_gib"


def test_tasks_with_fragments_imported_have_times_sizes_and_utilisation(tmp_path: Path) -> None:
    parquet_file(tmp_path / "w/tasks.parquet", TASKS)
    parquet_file(tmp_path / "w/fragments.parquet", FRAGMENTS)
    report, rows = imported("opendc", tmp_path / "w", tmp_path / "t.parquet", COLUMNS + ", utilisation")
    assert rows == [
        ("1", 0.0, 600.0, 1.0, 0.5, 0.5),
        ("2", 600.0, 7200.0, 4.0, 8.0, 0.1),
        ("3", 600.0, 0.0, 2.0, 2.0, None),
    ]
    assert report.gaps == [
        "1 tasks have no fragments",
        "the fragments of 1 tasks cover less than their durations",
        "1 ids have fragments and no task",
    ]
    assert report.notes[0] == "0 s is 1376314846.000 s of Unix time, the first submission"
    assert "the largest VM has 8.000 GiB" in report.notes[1]
    assert (report.files, report.rows_read, report.lifetime_zero) == (2, 3, 1)


def test_memory_counts_in_the_unit_that_is_said(tmp_path: Path) -> None:
    source = parquet_file(tmp_path / "tasks.parquet", TASKS)
    for unit, largest in (("KB", 8192 / (1 << 20)), ("MB", 8.0), ("GB", 8192.0)):
        _, rows = imported("opendc", source, tmp_path / "t.parquet", "max(memory_gib)", memory_unit=unit)
        assert rows == [(largest,)]


@pytest.mark.parametrize(
    ("start", "stop", "cpus", "memory"),
    [
        ("start_time", "stop_time", "cpu_count", "mem_capacity"),
        ("submissionTime", "endTime", "maxCores", "requiredMemory"),
    ],
)
def test_older_names_and_files_mean_the_same(
    tmp_path: Path, start: str, stop: str, cpus: str, memory: str
) -> None:
    parquet_file(
        tmp_path / "meta.parquet",
        f"select '1019' as id, make_timestamp_ms(1376314846000) as {start}, "
        f"make_timestamp_ms(1376314846000 + 90000) as {stop}, "
        f"1 as {cpus}, 1000.0::double as cpu_capacity, 1024::bigint as {memory}",
    )
    parquet_file(
        tmp_path / "trace.parquet",
        "select '1019' as id, make_timestamp_ms(1376314846000) as time, 90000::bigint as duration, 1 as cores, "
        "250.0::double as cpuUsage",
    )
    report, rows = imported("opendc", tmp_path, tmp_path / "t.parquet", COLUMNS + ", utilisation")
    assert rows == [("1019", 0.0, 90.0, 1.0, 1.0, 0.25)]
    assert report.gaps == []


def test_times_as_milliseconds_and_fragments_left_unread(tmp_path: Path) -> None:
    parquet_file(
        tmp_path / "tasks.parquet",
        "select 'a' as id, 1376314846000::bigint as submission_time, 5000::bigint as duration, 2 as cpu_count, "
        "1000.0::double as cpu_capacity, 4096::bigint as mem_capacity",
    )
    parquet_file(tmp_path / "fragments.parquet", FRAGMENTS)
    report, rows = imported("opendc", tmp_path, tmp_path / "t.parquet", COLUMNS, fragments=False)
    assert rows == [("a", 0.0, 5.0, 2.0, 4.0)]
    assert "utilisation" not in columns_of(tmp_path / "t.parquet")
    assert report.files == 1


def test_bad_rows_of_each_kind_are_named_with_their_row(tmp_path: Path) -> None:
    parquet_file(
        tmp_path / "tasks.parquet",
        """
        select * from (values ('a', 1000, 5, 2, 4), (null, 1000, 5, 2, 4), ('b', null, 5, 2, 4), ('c', 1000, -5, 2, 4),
            ('d', 1000, 5, 0, 4), ('e', 1000, 5, 2, -4), ('a', 2000, 5, 2, 4))
            t(id, submission_time, duration, cpu_count, mem_capacity)
        """,
    )
    report, rows = imported("opendc", tmp_path, tmp_path / "t.parquet", "vm_id", on_bad="drop")
    assert rows == [("a",)]
    assert [(row.line, row.kind, row.why) for row in report.bad_rows_named] == [
        (2, "not_a_number", "id is missing"),
        (3, "not_a_number", "submission_time is missing"),
        (4, "negative", "duration is -5.0, below 0"),
        (5, "out_of_range", "cpu_count is 0.0 and must be above 0"),
        (6, "negative", "mem_capacity is -4096.0, below 0"),
        (7, "duplicate_id", "its id a stands on an earlier line too"),
    ]


def test_end_before_start_and_bad_fragments_are_bad_rows(tmp_path: Path) -> None:
    parquet_file(
        tmp_path / "meta.parquet",
        "select * from (values ('a', 2000, 1000), ('b', 1000, 2000)) t(id, start_time, stop_time), "
        "(select 1 as cpu_count, 1.0::double as cpu_capacity, 1 as mem_capacity)",
    )
    parquet_file(
        tmp_path / "trace.parquet",
        "select * from (values ('b', 10, 1.0), ('b', -1, 1.0), ('b', 10, null)) t(id, duration, cpu_usage)",
    )
    with pytest.raises(
        BadInput, match=r"3 rows are bad: meta.parquet line 1: stop_time .*trace.parquet line 2: the fragment"
    ):
        import_trace("opendc", tmp_path, tmp_path / "t.parquet")
    report, rows = imported("opendc", tmp_path, tmp_path / "t.parquet", "vm_id", on_bad="drop")
    assert rows == [("b",)]
    assert report.bad_rows_by_kind == {"fragment": 2, "end_before_start": 1}


def test_file_without_a_column_or_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    lacking = parquet_file(tmp_path / "tasks.parquet", "select 1 as id, 2 as duration")
    with pytest.raises(
        BadInput,
        match="it has no column submission_time or submissionTime or start_time; it has id, duration",
    ):
        import_trace("opendc", lacking, tmp_path / "t.parquet")
    text = tmp_path / "tasks.csv"
    text.write_text("id\n")
    with pytest.raises(BadInput, match="it is no Parquet file"):
        import_trace("opendc", text, tmp_path / "t.parquet")
