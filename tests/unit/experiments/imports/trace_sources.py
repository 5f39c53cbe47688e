"""Sources in the true shape of each format, a few rows each, made by hand; and what an import of them gives."""

from __future__ import annotations

import gzip
import json
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import duckdb

from olvm.experiments import ImportReport, import_trace

Row = tuple[Any, ...]


def rows_of(path: Path, columns: str = "*") -> list[Row]:
    with duckdb.connect() as connection:
        return connection.execute(f"select {columns} from read_parquet('{path}')").fetchall()


def columns_of(path: Path) -> list[str]:
    with duckdb.connect() as connection:
        return [row[0] for row in connection.execute(f"describe from read_parquet('{path}')").fetchall()]


def imported(
    format_name: str, source: Path, out: Path, columns: str = "*", **options: Any
) -> tuple[ImportReport, list[Row]]:
    report = import_trace(format_name, source, out, **options)
    return report, rows_of(out, columns)


def text_file(path: Path, lines: Iterable[str], *, end: str = "\n", newline: str = "\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = (newline.join(lines) + end.replace("\n", newline)).encode("latin-1")
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    return path


def parquet_file(path: Path, select: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with duckdb.connect() as connection:
        connection.execute(f"copy ({select}) to '{path}' (format parquet)")
    return path


# ---------------------------------------------------------------- Azure


def vmtable_line(
    vm_id: str,
    created: object,
    deleted: object,
    cores: object = 2,
    memory: object = "3.5",
    avg: object = "25.0",
) -> str:
    return f"{vm_id},sub-1,dep-1,{created},{deleted},99.3,{avg},80.1,Delay-insensitive,{cores},{memory}"


VMTABLE = [
    vmtable_line("late", 600, 1200, 4, 7),
    vmtable_line("old", 0, 2591700, 1, "1.75", "3.4240942342446719"),
    vmtable_line("instant", 300, 300, 8, 56),
    vmtable_line("second", 600, 900),
]


def packing_file(path: Path, vms: Sequence[Row], types: Sequence[Row]) -> Path:
    connection = sqlite3.connect(path)
    connection.execute(
        "create table vm (vmId integer, tenantId integer, vmTypeId integer, priority integer, "
        "starttime real, endtime real)"
    )
    connection.execute(
        "create table vmType (id integer, vmTypeId integer, machineId integer, core real, memory real, hdd real, "
        "ssd real, nic real)"
    )
    connection.executemany("insert into vm values (?, ?, ?, ?, ?, ?)", vms)
    connection.executemany("insert into vmType values (?, ?, ?, ?, ?, null, 0.1, 0.1)", types)
    connection.commit()
    connection.close()
    return path


# vmTypeId 7 runs on machines 0 and 1, type 8 on machine 1 alone, type 9 on machine 0.
PACKING_TYPES: list[Row] = [
    (1, 7, 0, 0.25, 0.125),
    (2, 7, 1, 0.5, 0.25),
    (3, 8, 1, 0.1, 0.05),
    (4, 9, 0, 1.0, 1.0),
]
PACKING_VMS: list[Row] = [
    (100, 1, 7, 0, 0.5, 1.5),
    (101, 1, 9, 1, 0.25, None),
    (102, 2, 8, 0, -2.0, 0.5),
    (103, 2, 7, 1, -3.0, -1.0),
]


# ---------------------------------------------------------------- Huawei

HUAWEI_HEADER = "vmid,cpu,memory,time,type"
HUAWEI = [HUAWEI_HEADER, "0,1,2,0,0", "1,4,8,5,0", "0,1,2,60,1", "2,2,4,60,0", "2,2,4,60,1"]


# ---------------------------------------------------------------- SWF

SWF_HEADER = [
    "; Version: 2.2",
    "; Computer: IBM SP2",
    "; UnixStartTime: 893466664",
    ";      MaxNodes: 16",
    ";      MaxProcs: 128",
    "; MaxRecords: 4",
]


def swf_line(job: object, submit: object, run: object, requested: object = 8, **fields: object) -> str:
    numbers: list[object] = [-1] * 18
    numbers[0], numbers[1], numbers[3], numbers[7], numbers[10] = job, submit, run, requested, 1
    places = {
        "allocated": 4,
        "cpu": 5,
        "used_memory": 6,
        "requested_memory": 9,
        "status": 10,
        "user": 11,
        "partition": 15,
    }
    for name, value in fields.items():
        numbers[places[name]] = value
    return "  ".join(str(number) for number in numbers)


SWF = [
    *SWF_HEADER,
    swf_line(1, 0, 100, 8, cpu=50, requested_memory=524288, user=3, partition=1),
    swf_line(2, 10, 0, -1, allocated=4, used_memory=1024),
    swf_line(3, 10, -1, 8, status=5),
    swf_line(4, "12.5", 30, 20),
]


# ---------------------------------------------------------------- Bitbrains

BITBRAINS_HEADER = ";\t".join(
    [
        "Timestamp [ms]",
        "CPU cores",
        "CPU capacity provisioned [MHZ]",
        "CPU usage [MHZ]",
        "CPU usage [%]",
        "Memory capacity provisioned [KB]",
        "Memory usage [KB]",
        "Disk read throughput [KB/s]",
        "Disk write throughput [KB/s]",
        "Network received throughput [KB/s]",
        "Network transmitted throughput [KB/s]",
    ]
)


def bitbrains_line(
    time: object, cores: object = 4, usage: object = "50.0", memory: object = "67108864.0"
) -> str:
    return ";\t".join(
        str(value)
        for value in (
            time,
            cores,
            "11703.99",
            "10912.0",
            usage,
            memory,
            "6129274.4",
            "0.0",
            "20.2",
            "0.0",
            "1.2",
        )
    )


def bitbrains_file(path: Path, samples: Iterable[str]) -> Path:
    return text_file(path, [BITBRAINS_HEADER, *samples])


# ---------------------------------------------------------------- Borg


def borg_event(
    time_s: float, kind: object, collection: int, instance: int = 0, **fields: Any
) -> dict[str, Any]:
    """As the JSON of the published shards: numbers are texts, but for the request."""
    event: dict[str, Any] = {
        "time": str(int(time_s * 1_000_000)),
        "type": str(kind),
        "collection_id": str(collection),
        "scheduling_class": "2",
        "collection_type": "0",
        "priority": "200",
        "alloc_collection_id": "0",
        "instance_index": str(instance),
        "resource_request": {"cpus": 0.25, "memory": 0.125},
        "constraint": [],
    }
    return {**event, **fields}


def borg_lines(events: Iterable[dict[str, Any]]) -> list[str]:
    return [json.dumps(event) for event in events]


BORG = [
    borg_event(700, 0, 1),
    borg_event(710, 3, 1),
    borg_event(800, 6, 1),
    borg_event(650, 0, 2),
    borg_event(650, 3, 2),
    borg_event(900, 4, 2),
    borg_event(900, 0, 2),
    borg_event(950, 3, 2),
    borg_event(720, 0, 3),
    borg_event(730, 7, 3),
]
