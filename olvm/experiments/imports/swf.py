"""The Standard Workload Format of the Parallel Workloads Archive, version 2.2: batch jobs of supercomputers.

A line is a job, of 18 numbers between blanks: 1 job number, 2 submit time (s from the log's beginning), 3 wait time,
4 run time (s), 5 allocated processors, 6 average CPU time used (s), 7 used memory (kilobytes a processor), 8 requested
processors, 9 requested time, 10 requested memory (kilobytes a processor), 11 status, 12 user, 13 group, 14 executable,
15 queue, 16 partition, 17 preceding job, 18 think time. -1 means unknown. Lines that begin with `;` are comments; those
at the top say `Name: value`, among them UnixStartTime, MaxProcs, MaxNodes, MaxJobs and MaxRecords. Source:
www.cs.huji.ac.il/labs/parallel/workload/swf.html.

- A job arrives when it is submitted and lives for its run time; the wait of the original machine is not taken over.
- Status 2, 3 and 4 are parts of a job that has a line of its own: left out. So are jobs that were cancelled (5) before
  they ran, and jobs whose run time or number of processors is not known.
- Users are tenants, partitions host groups. CPU time over run time is the utilisation.
- A job is one VM. Many need more than one machine has: `processors_per_vm=8` makes VMs of at most 8 processors of it,
  called `job/1`, `job/2`, …, which then are placed apart.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from olvm.experiments.imports.checking import ascii_text, column_count, number, problem_of
from olvm.experiments.imports.importing import Importer, Importing, Options
from olvm.experiments.imports.sources import header_lines, lines_of, the_file
from olvm.model.errors import BadInput

FIELD_COUNT = 18
KIB_PER_GIB = 1 << 20
_HEADER = re.compile(r";+\s*(\w+):\s*(.*)")


class SwfOptions(Options, frozen=True, kw_only=True):
    """`processors`: whose number counts first. `memory_gib_per_processor`: where the log does not know."""

    processors: Literal["requested", "allocated"] = "requested"
    processors_per_vm: int | None = None
    memory_gib_per_processor: float = 1.0


def read(importing: Importing, options: SwfOptions) -> None:
    if options.processors_per_vm is not None and options.processors_per_vm < 1:
        raise BadInput(f"--processors-per-vm must be at least 1, got {options.processors_per_vm}")
    if options.memory_gib_per_processor < 0:
        raise BadInput(
            f"--memory-gib-per-processor must not be negative, got {options.memory_gib_per_processor}"
        )
    path = the_file(importing.source, "swf")
    importing.add_file(path)
    lines = header_lines(path, ";")
    if not lines:
        raise BadInput(f"cannot import {path} as swf: it is empty")
    header = {match[1]: match[2] for line in lines if (match := _HEADER.match(line))}
    _stage_jobs(importing, path, options)
    importing.rows_read = importing.value("select count(*) from jobs")
    _stage_vms(importing, options)
    _tell(importing, header, options)


def _stage_jobs(importing: Importing, path: Path, options: SwfOptions) -> None:
    names = {1: "job", 2: "submitted", 4: "run", 5: "allocated", 6: "cpu", 7: "used_memory", 8: "requested"}
    names |= {10: "requested_memory", 11: "status"}
    casts = ", ".join(f"try_cast(p[{field}] as double) as {name}" for field, name in names.items())
    checks = [
        column_count("p", FIELD_COUNT, "blanks"),
        ascii_text("text"),
        *number("the job number", "p[1]", "job"),
        *number("the submit time", "p[2]", "submitted"),
    ]
    for field, name, what in (
        (4, "run", "the run time"),
        (5, "allocated", "the number of allocated processors"),
        (6, "cpu", "the CPU time"),
        (7, "used_memory", "the used memory"),
        (8, "requested", "the number of requested processors"),
        (10, "requested_memory", "the requested memory"),
        (11, "status", "the status"),
    ):
        checks += number(what, f"p[{field}]", name, least=-1)
    first, second = (
        ("requested", "allocated") if options.processors == "requested" else ("allocated", "requested")
    )
    importing.run(
        f"""
        create table jobs as select line, p[1] as id, p[12] as user_id, p[16] as partition_id, submitted, run, status,
            cpu, case when {first} > 0 then {first} when {second} > 0 then {second} end as processors,
            case when requested_memory > 0 then requested_memory when used_memory > 0 then used_memory end
                as memory_kib,
            {problem_of(checks)} as problem
        from (
            select *, {casts} from (
                select line, text, list_filter(string_split(translate(text, chr(9), ' '), ' '), lambda x: x <> '') as p
                from {lines_of(path)} where text is not null and not starts_with(ltrim(text), ';') and trim(text) <> ''
            )
        )
        """
    )


def _stage_vms(importing: Importing, options: SwfOptions) -> None:
    split = options.processors_per_vm
    parts = f"cast(greatest(ceil(processors / {split}), 1) as bigint)" if split else "1"
    share = f"least({split}, processors - part * {split})" if split else "processors"
    importing.stage(
        f"""
        select line as source_line, part as source_part, submitted as arrival_s, run as lifetime_s, {share} as vcpus,
            {share} * coalesce(memory_kib / {KIB_PER_GIB}, {options.memory_gib_per_processor}) as memory_gib,
            id || case when parts > 1 then '/' || (part + 1) else '' end as vm_id,
            case when user_id <> '-1' then user_id end as tenant,
            case when partition_id <> '-1' then partition_id end as host_group,
            case when cpu >= 0 and run > 0 then cpu / run end as utilisation, problem, case
                when status in (2, 3, 4) then 'parts of a job that has its own line (status 2 to 4)'
                when status = 5 and run <= 0 then 'jobs cancelled before they ran (status 5)'
                when run < 0 then 'jobs whose run time is not known'
                when processors is null then 'jobs whose number of processors is not known'
            end as left_out
        from (
            select *, unnest(case when problem is null and parts > 1 then range(parts) else [0] end) as part
            from (select *, {parts} as parts from jobs)
        )
        """
    )


def _tell(importing: Importing, header: dict[str, str], options: SwfOptions) -> None:
    stays = "problem is null and status not in (2, 3, 4) and run >= 0 and processors is not null"
    unknown = importing.value(f"select count(*) from jobs where memory_kib is null and {stays}")
    if unknown:
        importing.gaps.append(
            f"the memory of {unknown:,} jobs is not known: {options.memory_gib_per_processor:g} GiB a processor is "
            "taken (--memory-gib-per-processor)"
        )
    for name in ("MaxRecords", "MaxJobs"):
        said = header.get(name, "").strip()
        if said.isdigit() and name == "MaxRecords" and int(said) != importing.rows_read:
            importing.gaps.append(
                f"the header says {name} {said}, and there are {importing.rows_read} lines of jobs"
            )
    largest = importing.value(f"select max(processors) from jobs where {stays}")
    machine = ", ".join(
        f"{name} {header[name].strip()}" for name in ("MaxNodes", "MaxProcs") if name in header
    )
    if largest is not None and not options.processors_per_vm:
        of = f" of a machine with {machine}" if machine else ""
        importing.notes.append(
            f"the largest job is one VM of {largest:.0f} vCPUs{of}; --processors-per-vm divides jobs among hosts"
        )
    if header.get("UnixStartTime", "").strip().isdigit():
        importing.notes.append(f"0 s is {header['UnixStartTime'].strip()} s of Unix time (UnixStartTime)")


SWF = Importer(
    name="swf",
    summary="Standard Workload Format: jobs of the Parallel Workloads Archive.",
    row_is="jobs",
    columns=("vm_id", "tenant", "host_group", "utilisation"),
    units={
        "arrival_s": "s, submit time from the log's beginning",
        "lifetime_s": "s, run time",
        "vcpus": "processors",
        "memory_gib": "GiB, from kilobytes (1,024 bytes) a processor",
        "utilisation": "CPU time a processor over run time",
    },
    licence="none stated: the archive asks for an acknowledgement of the log's provider (in its header)",
    cite="Feitelson, Tsafrir and Krakov, Experience with using the Parallel Workloads Archive, JPDC 74(10), 2014",
    options=SwfOptions,
    read=read,
)
