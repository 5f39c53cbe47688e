"""GWA-T-12 Bitbrains (2013): `fastStorage` and `rnd`, a CSV for each VM with a sample every 300 s.

The first line names the columns, which end with `;` and a tab: Timestamp [ms], CPU cores, CPU capacity provisioned
[MHZ], CPU usage [MHZ], CPU usage [%], Memory capacity provisioned [KB], Memory usage [KB], and throughputs of disk and
network, which are not taken over. Sources: the archive's page (gwa.ewi.tudelft.nl/datasets/gwa-t-12-bitbrains), and
OpenDC's reader, which takes the timestamps for *seconds* (BitbrainsResourceStateTableReader.kt: ofEpochSecond), against
their name: the files say 1376314846 for August 2013. Numbers above 10^11 are taken for milliseconds.

- A VM arrives at its first sample and leaves one period after its last. One that is still sampled when the trace ends
  (within a period of the latest sample of all) never leaves. Times count from the first sample of all.
- VMs that are there at the first moment were there before; how long is not known.
- Its size is the largest that was provisioned. A KB is 1,024 bytes. Samples without cores (a VM that is off) count in
  its life. VMs that never had a core or memory are left out.
- The utilisation is the mean of `CPU usage [%]`. Times without samples are reported as gaps.
- `rnd` has a folder for each month with the same names: a VM is named by its path (`2013-7/12`), as nothing says that
  it is the same one.
"""

from __future__ import annotations

from pathlib import Path

from olvm.experiments.imports.checking import ascii_text, column_count, number, problem_of
from olvm.experiments.imports.importing import Importer, Importing, Options
from olvm.experiments.imports.sources import files_under, header_positions, lines_of
from olvm.model.errors import NotFound

PERIOD_S = 300
KIB_PER_GIB = 1 << 20
MILLISECONDS_FROM = 1e11
COLUMNS = {
    "time": ("timestamp [ms]", "timestamp [s]", "timestamp"),
    "cores": ("cpu cores",),
    "usage": ("cpu usage [%]",),
    "memory": ("memory capacity provisioned [kb]",),
}


class BitbrainsOptions(Options, frozen=True, kw_only=True):
    """None."""


def read(importing: Importing, options: BitbrainsOptions) -> None:
    del options
    path = importing.source
    if not path.exists():
        raise NotFound(f"cannot import {path} as bitbrains: there is no such folder or file")
    files = files_under(path, "bitbrains", (".csv", ".csv.gz")) if path.is_dir() else [path]
    importing.connection.execute(
        "create table machines (source_file integer, vm_id varchar, samples bigint, first_s double, last_s double, "
        "milliseconds boolean, cores double, memory_kib double, usage_sum hugeint, sizes bigint, gap_count bigint, "
        "gap_s double)"
    )
    for file in files:
        _read_machine(importing, file)
        if len(importing.files) % 100 == 0:
            importing.told(f"{len(importing.files)} of {len(files)} files")
    _stage_vms(importing)


def _read_machine(importing: Importing, file: Path) -> None:
    positions, count = header_positions(file, "bitbrains", ";", COLUMNS)
    position = importing.add_file(file)
    root = importing.source if importing.source.is_dir() else file.parent
    vm_id = str(file.relative_to(root)).removesuffix(".gz").removesuffix(".csv")
    at = {name: f"p[{place}]" for name, place in positions.items()}
    checks = [
        column_count("p", count, "';'"),
        ascii_text("text"),
        *number("the timestamp", at["time"], "stamp"),
        *number("CPU cores", at["cores"], "cores"),
        *number("CPU usage [%]", at["usage"], "usage"),
        *number("the memory provisioned", at["memory"], "memory_kib"),
    ]
    casts = ", ".join(
        f"try_cast(trim({at[name]}, ' ' || chr(9)) as double) as {value}"
        for name, value in {
            "time": "stamp",
            "cores": "cores",
            "usage": "usage",
            "memory": "memory_kib",
        }.items()
    )
    importing.run(
        f"""
        create or replace temp table samples as select *, {problem_of(checks)} as problem from (
            select line, p, text, {casts} from (
                select line, text, string_split(text, ';') as p from {lines_of(file)}
                where line > 1 and text is not null
            )
        )
        """
    )
    importing.rows_read += importing.value("select count(*) from samples")
    importing.set_aside(
        f"select {position} as source_file, line as source_line, problem from samples "
        "where problem is not null"
    )
    importing.connection.execute(
        f"""
        insert into machines
        select {position}, ?, count(*), min(time_s), max(time_s), bool_or(stamp >= {MILLISECONDS_FROM}), max(cores),
            max(memory_kib), sum(cast(round(usage * 1000000) as hugeint)),
            count(distinct (cores, memory_kib)) filter (cores > 0),
            count(*) filter (step_s > {1.5 * PERIOD_S}), sum(step_s - {PERIOD_S}) filter (step_s > {1.5 * PERIOD_S})
        from (
            select *, time_s - lag(time_s) over (order by time_s) as step_s from (
                select *, case when stamp >= {MILLISECONDS_FROM} then stamp / 1000 else stamp end as time_s
                from samples where problem is null
            )
        ) having count(*) > 0
        """,
        [vm_id],
    )


def _stage_vms(importing: Importing) -> None:
    importing.stage(
        f"""
        select source_file, 1 as source_line, first_s - begins_s as arrival_s,
            case when last_s + {PERIOD_S} < ends_s then last_s - first_s + {PERIOD_S} end as lifetime_s, cores as vcpus,
            memory_kib / {KIB_PER_GIB} as memory_gib, vm_id, usage_sum / 1000000.0 / samples / 100 as utilisation,
            case when cores = 0 or memory_kib = 0 then 'VMs that never had a core or memory' end as left_out
        from machines, (select min(first_s) as begins_s, max(last_s) as ends_s from machines)
        """
    )
    machines = importing.value("select count(*) from machines")
    empty = len(importing.files) - machines
    figures = importing.connection.execute(
        f"""
        select min(first_s), bool_or(milliseconds), count(*) filter (sizes > 1),
            coalesce(sum(gap_count), 0), coalesce(sum(gap_s), 0),
            count(*) filter (gap_count > 0), count(*) filter (first_s < begins_s + {PERIOD_S})
        from machines, (select min(first_s) as begins_s from machines)
        """
    ).fetchall()[0]
    begins_s, milliseconds, resized, gap_count, gap_s, gapped, older = figures
    if empty:
        importing.gaps.append(f"{empty:,} files have no sample that can be read")
    if not machines:
        return
    if gap_count:
        importing.gaps.append(
            f"{gapped:,} VMs have {gap_count:,} times without samples, {gap_s:,.0f} s in all"
        )
    importing.gaps.append(f"{older:,} VMs were there when the trace began: how long before is not known")
    importing.notes.append(
        f"0 s is {begins_s:,.0f} s of Unix time; timestamps are in {'milliseconds' if milliseconds else 'seconds'}"
    )
    if resized:
        importing.notes.append(f"{resized:,} VMs changed their size: the largest counts")


BITBRAINS = Importer(
    name="bitbrains",
    summary="GWA-T-12 Bitbrains: a folder with a CSV of samples for each VM.",
    row_is="samples",
    columns=("vm_id", "utilisation"),
    units={
        "arrival_s": "s, the VM's first sample, from the first of all",
        "lifetime_s": "s, to one period (300 s) after its last sample; null: sampled until the trace ends",
        "vcpus": "CPU cores, the most that it had",
        "memory_gib": "GiB, from KB of 1,024 bytes, the most that it had",
        "utilisation": "mean CPU usage, 0 to 1",
    },
    licence="none stated: the archive asks for a citation",
    cite="Shen, van Beek & Iosup, Statistical Characterization of Business-Critical Workloads, CCGrid 2015",
    options=BitbrainsOptions,
    read=read,
)
