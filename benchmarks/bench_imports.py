"""How many rows a second each importer reads, and how much memory it takes at most.

Sources are made up in the formats' true shape, out of order, with ids of the true length. Every import is a process of
its own, so that its memory is its own. Seconds are of the import alone, without the start of the process.

    python benchmarks/bench_imports.py [ROWS] [FORMAT …]
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import duckdb
from measuring import Teller

ROWS = 2_000_000
CHILD = """
import json, resource, sys, time
from olvm.experiments import import_trace
import duckdb
began = time.perf_counter()
report = import_trace(*sys.argv[1:4])
spent = time.perf_counter() - began
used = resource.getrusage(resource.RUSAGE_SELF)
cpu = used.ru_utime + used.ru_stime
# Not ru_maxrss: that begins with what the parent had.
(peak,) = (line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([spent, cpu, int(peak) * 1024, report.rows_read, report.rows_written]))
"""


def _copied(select: str, out: Path, options: str) -> Path:
    with duckdb.connect() as connection:
        connection.execute("set threads = 2; set enable_progress_bar = false")
        connection.execute(f"copy ({select}) to '{out}' ({options})")
    return out


def _azure_v1(folder: Path, rows: int) -> Path:
    select = (
        "select md5(n::varchar) || md5((n + 1)::varchar), md5((n % 6000)::varchar), md5((n % 90000)::varchar), "
        "hash(n) % 2000000 // 300 * 300, 2000100 + n % 2000 * 300, 99.37, 12.25, 80.5, 'Unknown', 2, 3.5 "
        f"from range({rows}) t(n)"
    )
    return _copied(select, folder / "vmtable.csv.gz", "format csv, header false, compression gzip")


def _azure_packing(folder: Path, rows: int) -> Path:
    path = folder / "p.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("create table vm (vmId, tenantId, vmTypeId, priority, starttime real, endtime real)")
    connection.execute("create table vmType (id, vmTypeId, machineId, core real, memory real)")
    connection.executemany(
        "insert into vmType values (?, ?, ?, ?, ?)", ((n, n % 50, n // 50, 0.1, 0.05) for n in range(500))
    )
    connection.executemany(
        "insert into vm values (?, ?, ?, ?, ?, ?)",
        ((n, n % 3000, n % 50, n % 2, n * 7919 % rows / rows * 14, 15.0 + n % 70) for n in range(rows)),
    )
    connection.commit()
    connection.close()
    return path


def _huawei(folder: Path, rows: int) -> Path:
    half = rows // 2
    select = (
        f"select n % {half} as vmid, 2 as cpu, 4 as memory, "
        f"case when n < {half} then hash(n) % 1000000 else 1000000 + n end as time, "
        f"n // {half} as type from range({2 * half}) t(n)"
    )
    return _copied(select, folder / "h.csv", "format csv, header true")


def _opendc(folder: Path, rows: int) -> Path:
    """As many fragments as rows, of a hundredth as many tasks; the figure counts tasks."""
    tasks = max(1, rows // 100)
    _copied(
        f"select n % {tasks} as id, 300000 as duration, 2 as cpu_count, (n % 5000)::double as cpu_usage "
        f"from range({rows}) t(n)",
        folder / "fragments.parquet",
        "format parquet",
    )
    return _copied(
        "select n as id, make_timestamp_ms(1376314846000 + (hash(n) % 1000000000)::bigint) as submission_time, "
        "30000000 as duration, "
        f"2 as cpu_count, 5000.0::double as cpu_capacity, 4096 as mem_capacity from range({tasks}) t(n)",
        folder / "tasks.parquet",
        "format parquet",
    )


def _planetlab(folder: Path, rows: int) -> Path:
    """A row is a VM here: a day has a thousand."""
    for vm in range(min(20_000, max(1, rows // 288))):
        day = folder / "days" / f"{20110301 + vm // 1000}"
        day.mkdir(parents=True, exist_ok=True)
        (day / f"vm_{vm:06}").write_text("".join(f"{(vm * 7 + sample) % 101}\n" for sample in range(288)))
    return folder / "days"


def _bitbrains(folder: Path, rows: int) -> Path:
    header = (
        "Timestamp [ms];\tCPU cores;\tCPU capacity provisioned [MHZ];\tCPU usage [MHZ];\tCPU usage [%];\t"
        "Memory capacity provisioned [KB];\tMemory usage [KB];\tDisk read throughput [KB/s];\t"
        "Disk write throughput [KB/s];\tNetwork received throughput [KB/s];\tNetwork transmitted throughput [KB/s]\n"
    )
    (folder / "fastStorage").mkdir()
    samples = 8600
    body = "".join(
        f"{1376314846 + 300 * n};\t4;\t11703.99;\t10912.0{n % 9};\t93.2{n % 9};\t67108864.0;\t6129274.4;\t"
        "0.0;\t20.2;\t0.0;\t1.2\n"
        for n in range(samples)
    )
    for vm in range(max(1, rows // samples)):
        (folder / "fastStorage" / f"{vm}.csv").write_text(header + body)
    return folder / "fastStorage"


def _borg(folder: Path, rows: int) -> Path:
    (folder / "cell").mkdir()
    per_shard = 500_000
    for shard in range(max(1, rows // per_shard)):
        first = shard * per_shard
        _copied(
            "select ((n // 3 * 1000 + n % 3 * 60) * 1000000)::varchar as time, "
            "([0, 3, 6])[1 + n % 3]::varchar as type, (330587160469 + n // 30)::varchar as collection_id, "
            "(n // 3 % 10)::varchar as instance_index, '2' as scheduling_class, '0' as collection_type, "
            "'200' as priority, '0' as alloc_collection_id, '23624491139' as machine_id, "
            "{'cpus': 0.008392333984375, 'memory': 0.0094757080078125} as resource_request "
            f"from range({first}, {first + per_shard}) t(n)",
            folder / "cell" / f"instance_events-{shard:012}.json.gz",
            "format json, compression gzip",
        )
    return folder / "cell"


def _swf(folder: Path, rows: int) -> Path:
    select = (
        "select printf('%6d %9d     -1 %7d   16 -1 -1   16 3600 524288 1 %d 1 1 1 %d -1 -1', n + 1, "
        f"(hash(n) % 100000000)::bigint, n % 5000, n % 99, n % 4) as line from range({rows}) t(n)"
    )
    return _copied(select, folder / "a.swf", "format csv, header false, quote '', escape '', delim '|'")


SOURCES: dict[str, Callable[[Path, int], Path]] = {
    "azure-v1": _azure_v1,
    "azure-packing": _azure_packing,
    "huawei": _huawei,
    "opendc": _opendc,
    "planetlab": _planetlab,
    "bitbrains": _bitbrains,
    "borg": _borg,
    "swf": _swf,
}


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    for name in sys.argv[2:] or SOURCES:
        folder = Path(tempfile.mkdtemp(prefix="bench-imports-"))
        try:
            source = SOURCES[name](folder, rows)
            ran = subprocess.run(
                [sys.executable, "-c", CHILD, name, str(source), str(folder / "t.parquet")],
                check=True,
                stdout=subprocess.PIPE,
            )
        finally:
            shutil.rmtree(folder)
        spent_s, cpu_s, peak_bytes, rows_read, rows_written = json.loads(ran.stdout)
        teller = Teller("imports", {"format": name, "rows": rows})
        teller.tell(
            "import_rows", rows_read / spent_s, "rows/s", rows_read=rows_read, rows_written=rows_written
        )
        teller.tell("import_rows_per_cpu_second", rows_read / cpu_s, "rows/s")
        teller.tell("import_memory_peak", peak_bytes / (1 << 20), "MiB")


if __name__ == "__main__":
    main()
