"""Borg 2019: runs of instances out of their events."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from olvm.experiments import import_trace
from olvm.model.errors import BadInput
from tests.unit.experiments.imports.trace_sources import (
    BORG,
    borg_event,
    borg_lines,
    imported,
    parquet_file,
    text_file,
)

COLUMNS = "vm_id, arrival_s, lifetime_s, vcpus, memory_gib, tenant, priority"
RUNS = [
    ("2-0", 650.0, 250.0, 16.0, 64.0, "2", 200),
    ("1-0", 700.0, 90.0, 16.0, 64.0, "1", 200),
    ("2-0#2", 900.0, None, 16.0, 64.0, "2", 200),
]


@pytest.mark.parametrize(
    "name", ["instance_events-000000000000.json", "instance_events-000000000000.json.gz"]
)
def test_json_events_imported_become_a_vm_for_each_run(tmp_path: Path, name: str) -> None:
    text_file(tmp_path / "cell" / name, borg_lines(BORG))
    report, rows = imported("borg", tmp_path / "cell", tmp_path / "t.parquet", COLUMNS)
    assert rows == RUNS
    assert report.left_out == {"runs that were never scheduled": 1}
    assert (report.rows_read, report.rows_written, report.never_leave) == (10, 3, 1)
    assert report.gaps == ["there are no collection_events: a tenant is a collection, and not its user"]


def test_events_in_shards_in_any_order_give_the_same_runs(tmp_path: Path) -> None:
    backwards = BORG[::-1]
    text_file(tmp_path / "c/instance_events-000000000000.json.gz", borg_lines(backwards[:4]))
    text_file(tmp_path / "c/instance_events-000000000001.json.gz", borg_lines(backwards[4:]))
    _, rows = imported("borg", tmp_path / "c", tmp_path / "t.parquet", COLUMNS)
    assert rows == RUNS


def test_csv_and_parquet_exports_mean_the_same(tmp_path: Path) -> None:
    header = (
        "time,type,collection_id,collection_type,priority,alloc_collection_id,instance_index,"
        "resource_request_cpus,resource_request_memory"
    )
    lines = [
        ",".join(
            str(value)
            for value in (
                event["time"],
                ["SUBMIT", "QUEUE", "ENABLE", "SCHEDULE", "EVICT", "FAIL", "FINISH", "KILL"][
                    int(event["type"])
                ],
                event["collection_id"],
                "JOB",
                event["priority"],
                event["alloc_collection_id"],
                event["instance_index"],
                0.25,
                0.125,
            )
        )
        for event in BORG
    ]
    text = text_file(tmp_path / "instance_events.csv", [header, *lines])
    values = ", ".join(
        f"({event['time']}, {event['type']}, {event['collection_id']}, {event['instance_index']})"
        for event in BORG
    )
    table = parquet_file(
        tmp_path / "p/instance_events-000000000000.parquet.gz",
        "select *, 0 as collection_type, 0 as alloc_collection_id, 200 as priority, "
        "{'cpus': 0.25, 'memory': 0.125} as resource_request "
        f"from (values {values}) t(time, type, collection_id, instance_index)",
    )
    for source in (text, table, table.parent):
        _, rows = imported("borg", source, tmp_path / "t.parquet", COLUMNS)
        assert rows == RUNS


def test_users_of_collections_are_tenants(tmp_path: Path) -> None:
    text_file(tmp_path / "c/instance_events-000000000000.json", borg_lines(BORG))
    users = [
        {"time": "0", "type": "0", "collection_id": "1", "user": "hash/A="},
        {"collection_id": "2"},
        {"user": "x"},
    ]
    text_file(tmp_path / "c/collection_events-000000000000.json", borg_lines(users))
    report, rows = imported("borg", tmp_path / "c", tmp_path / "t.parquet", "vm_id, tenant", on_bad="drop")
    assert rows == [("2-0", "2"), ("1-0", "hash/A="), ("2-0#2", "2")]
    assert [(row.file, row.line) for row in report.bad_rows_named] == [
        ("collection_events-000000000000.json", 3)
    ]


def test_tasks_inside_allocs_are_left_out_or_allocs_when_asked(tmp_path: Path) -> None:
    events = [
        borg_event(700, kind, collection, collection_type=form, alloc_collection_id=alloc)
        for collection, form, alloc in ((1, "1", "0"), (2, "0", "1"), (3, "0", "0"))
        for kind in (0, 3)
    ]
    source = text_file(tmp_path / "instance_events.json", borg_lines(events))
    report, rows = imported("borg", source, tmp_path / "t.parquet", "vm_id")
    assert rows == [("1-0",), ("3-0",)]
    assert report.left_out == {"tasks inside allocs, which use what the alloc reserved (--tasks top)": 1}
    _, rows = imported("borg", source, tmp_path / "t.parquet", "vm_id", tasks="all")
    assert rows == [("2-0",), ("3-0",)]


def test_scale_of_the_largest_machine_and_what_is_missing_is_reported(tmp_path: Path) -> None:
    events = [
        borg_event(0, 0, 1),
        borg_event(0, 3, 1, resource_request={"cpus": 0.5, "memory": 0.5}),
        borg_event(640, 10, 1),
        borg_event(650, 3, 2, resource_request={"cpus": 0, "memory": 0.5}),
        borg_event(9223372036854.775807, 6, 2) | {"time": str((1 << 63) - 1)},
    ]
    source = text_file(tmp_path / "instance_events.json", borg_lines(events))
    report, rows = imported(
        "borg", source, tmp_path / "t.parquet", COLUMNS, machine_vcpus=100.0, machine_memory_gib=1000.0
    )
    assert rows == [("1-0", 0.0, None, 25.0, 125.0, "1", 200), ("2-0", 650.0, None, 0.0, 500.0, "2", 200)]
    assert report.gaps[:4] == [
        "1 runs have no SUBMIT: they arrive at their first event",
        "1 updates of requests are not followed",
        "1 runs ask for no CPU or no memory at all",
        "1 runs were there before the trace (time 0)",
    ]


def test_instance_that_ran_before_its_first_submission_has_two_runs(tmp_path: Path) -> None:
    events = [borg_event(0, 3, 1), borg_event(700, 4, 1), borg_event(710, 0, 1), borg_event(720, 3, 1)]
    source = text_file(tmp_path / "instance_events.json", borg_lines(events))
    _, rows = imported("borg", source, tmp_path / "t.parquet", "vm_id, arrival_s, lifetime_s")
    assert rows == [("1-0", 0.0, 700.0), ("1-0#2", 710.0, None)]


def test_bad_events_are_named_with_file_and_line(tmp_path: Path) -> None:
    def broken(**fields: Any) -> dict[str, Any]:
        return borg_event(700, 0, 1) | fields

    lines = [
        *borg_lines([borg_event(700, 0, 1), borg_event(710, 3, 1)]),
        '{"time": "700", "type"',
        *borg_lines(
            [
                broken(time="noon"),
                broken(time="-5"),
                broken(type="PAUSE"),
                broken(type="99"),
                broken(collection_id=None),
                broken(instance_index="x"),
                broken(resource_request={"cpus": "much", "memory": 0.1}),
                broken(resource_request={"cpus": 0.1, "memory": -0.1}),
            ]
        ),
        "[1, 2]",
        *borg_lines([borg_event(700, kind, 5, resource_request=None) for kind in (0, 3)]),
    ]
    source = text_file(tmp_path / "instance_events.json", lines)
    report, rows = imported("borg", source, tmp_path / "t.parquet", "vm_id", on_bad="drop")
    assert rows == [("1-0",)]
    assert [(row.line, row.kind) for row in report.bad_rows_named] == [
        (3, "not_json"),
        (4, "not_a_number"),
        (5, "negative"),
        (6, "unknown_value"),
        (7, "unknown_value"),
        (8, "not_a_number"),
        (9, "not_a_number"),
        (10, "not_a_number"),
        (11, "not_a_number"),
        (12, "not_a_number"),
    ]
    assert report.bad_rows_by_kind["no_request"] == 1
    assert report.bad_rows == 11


def test_machine_tables_and_folders_without_events_are_refused(tmp_path: Path) -> None:
    mix = text_file(tmp_path / "2019_a_host_resource.csv", ["cpus,ram,machine_count", "1.0,0.5,1672"])
    with pytest.raises(
        BadInput, match=r"it tells of machines, and a trace has requests; give instance_events"
    ):
        import_trace("borg", mix, tmp_path / "t.parquet")
    with pytest.raises(BadInput, match=r"there is no file instance_events\* in it"):
        import_trace("borg", tmp_path, tmp_path / "t.parquet")
    lacking = text_file(tmp_path / "instance_events.csv", ["time,type,collection_id", "0,0,1"])
    with pytest.raises(BadInput, match="line 1 has no column 'instance_index'"):
        import_trace("borg", lacking, tmp_path / "t.parquet")
