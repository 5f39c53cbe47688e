"""Workloads of OpenDC: `tasks.parquet` with `fragments.parquet`, or the older `meta.parquet` with `trace.parquet`.

Tasks, one a row (names of the three generations of the format; the first that is there counts):
`id`; `submission_time`, `submissionTime` or `start_time` (a timestamp, or milliseconds since 1970); `duration` in
milliseconds, or `stop_time` or `endTime`; `cpu_count` or `maxCores`; `cpu_capacity` in MHz, of the whole task;
`mem_capacity` or `requiredMemory`. Fragments: `id`, `duration` in milliseconds, `cpu_usage` or `cpuUsage` in MHz.
Sources: OpenDC's documentation (site/docs/documentation/Input/Workload.md and the older Traces.md of
github.com/atlarge-research/opendc: MHz, MB, milliseconds) and its schemas (ResourceReadSupport.kt for versions 2.0 and
2.1, TaskSchemas.kt for the present one).

Memory: the documentation says MB, and OpenDC's own loader divides the number by 1,000 "from KB to MB"
(ComputeWorkloadLoader.kt), so files of both kinds are about. `memory_unit` says which; the default is the documented
one, and a report names the largest VM that comes of it. A KB is 1,024 bytes, an MB 1,024 of those.

- Times count from the first submission. A task lives for its duration; a wait is not taken over.
- The utilisation is the fragments' mean usage, weighted by their durations, over `cpu_capacity`. Fragments can be many
  GB: `fragments=False` leaves them unread. Tasks that the fragments do not cover are reported as gaps.
- GPUs, deadlines, and parents of tasks are not taken over.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from olvm.experiments.imports.checking import Check, ends_after_start, number, problem_of, quoted
from olvm.experiments.imports.importing import Importer, Importing, Options
from olvm.experiments.imports.sources import file_literal, is_parquet, the_file
from olvm.model.errors import BadInput

TASKS = ("tasks.parquet", "meta.parquet")
FRAGMENTS = {"tasks.parquet": "fragments.parquet", "meta.parquet": "trace.parquet"}
NAMES: dict[str, tuple[str, ...]] = {
    "id": ("id",),
    "submitted": ("submission_time", "submissionTime", "start_time"),
    "cpus": ("cpu_count", "maxCores"),
    "memory": ("mem_capacity", "requiredMemory"),
}
ENDS = {"duration": ("duration",), "stopped": ("stop_time", "endTime")}
KIB_BY_UNIT = {"KB": 1, "MB": 1 << 10, "GB": 1 << 20}
KIB_PER_GIB = 1 << 20


class OpendcOptions(Options, frozen=True, kw_only=True):
    """`memory_unit`: what a number in `mem_capacity` counts. `fragments`: whether the utilisation is computed."""

    memory_unit: Literal["KB", "MB", "GB"] = "MB"
    fragments: bool = True


def read(importing: Importing, options: OpendcOptions) -> None:
    path = the_file(importing.source, "opendc", TASKS)
    if not is_parquet(path):
        raise BadInput(f"cannot import {path} as opendc: it is no Parquet file")
    importing.add_file(path)
    types = importing.parquet_columns(path)
    column = {ours: _present(path, types, names) for ours, names in NAMES.items()}
    ends = {ours: name for ours, names in ENDS.items() if (name := _first(types, names))}
    if not ends:
        raise BadInput(f"cannot import {path} as opendc: it has no column duration, stop_time or endTime")
    _stage_tasks(importing, path, types, column | ends, options)
    fragments = path.parent / FRAGMENTS.get(path.name, "fragments.parquet")
    used = options.fragments and "cpu_capacity" in types and fragments.is_file()
    if used:
        _stage_usage(importing, fragments)
    _stage_vms(importing, used)
    _tell(importing, options, used)


def _stage_tasks(
    importing: Importing, path: Path, types: dict[str, str], column: dict[str, str], options: OpendcOptions
) -> None:
    capacity = "try_cast(cpu_capacity as double)" if "cpu_capacity" in types else "cast(null as double)"
    if "duration" in column:
        duration = f"try_cast({column['duration']} as double)"
    else:
        duration = f"{_milliseconds(column['stopped'], types)} - {_milliseconds(column['submitted'], types)}"
    checks = [
        Check("id is null", "not_a_number", quoted("id is missing")),
        *number(column["submitted"], "submitted_ms", "submitted_ms"),
        *(
            number("duration", "duration_ms", "duration_ms")
            if "duration" in column
            else [
                *number(column["stopped"], "duration_ms", "duration_ms", least=None),
                ends_after_start(column["submitted"], "0", column["stopped"], "duration_ms"),
            ]
        ),
        *number(column["cpus"], "cpus", "cpus", above=0),
        *number(column["memory"], "memory", "memory"),
    ]
    importing.run(
        f"""
        create table tasks as select *, {problem_of(checks)} as problem from (
            select file_row_number + 1 as line, cast({column["id"]} as varchar) as id,
                {_milliseconds(column["submitted"], types)} as submitted_ms, {duration} as duration_ms,
                try_cast({column["cpus"]} as double) as cpus, {capacity} as capacity_mhz,
                try_cast({column["memory"]} as double) * {KIB_BY_UNIT[options.memory_unit]} as memory
            from read_parquet({file_literal(path)}, file_row_number = true)
        )
        """
    )
    importing.rows_read = importing.value("select count(*) from tasks")


def _stage_usage(importing: Importing, path: Path) -> None:
    """Sums of whole milliseconds and milli-MHz·ms, so that they do not depend on the order of rows."""
    importing.add_file(path)
    types = importing.parquet_columns(path)
    usage = _present(path, types, ("cpu_usage", "cpuUsage"))
    duration = _present(path, types, ("duration",))
    importing.run(
        f"""
        create table usage as select id, sum(ms) as covered_ms,
            sum(cast(round(mhz * 1000) as hugeint) * ms) as work
        from (
            select cast(id as varchar) as id, try_cast({duration} as bigint) as ms, try_cast({usage} as double) as mhz
            from read_parquet({file_literal(path)})
        ) where ms >= 0 and mhz >= 0 and isfinite(mhz) and id is not null group by id
        """
    )
    importing.set_aside(
        f"""
        select 1 as source_file, file_row_number + 1 as source_line, 'fragment' || chr(31) ||
            'the fragment''s id, duration or usage is missing or negative' as problem
        from read_parquet({file_literal(path)}, file_row_number = true)
        where not coalesce(id is not null and try_cast({duration} as bigint) >= 0 and try_cast({usage} as double) >= 0
            and isfinite(try_cast({usage} as double)), false)
        """
    )


def _stage_vms(importing: Importing, used: bool) -> None:
    share = "work / 1000.0 / covered_ms / capacity_mhz" if used else "null"
    joined = "left join usage using (id)" if used else ""
    condition = "covered_ms > 0 and capacity_mhz > 0" if used else "false"
    importing.stage(
        f"""
        select line as source_line, (submitted_ms - first_ms) / 1000 as arrival_s, duration_ms / 1000 as lifetime_s,
            cpus as vcpus, memory / {KIB_PER_GIB} as memory_gib, id as vm_id,
            case when {condition} then {share} end as utilisation, problem
        from tasks {joined}, (select min(submitted_ms) as first_ms from tasks where problem is null)
        """
    )


def _tell(importing: Importing, options: OpendcOptions, used: bool) -> None:
    first = importing.value("select min(submitted_ms) from tasks where problem is null")
    if first is not None:
        importing.notes.append(f"0 s is {first / 1000:.3f} s of Unix time, the first submission")
    largest = importing.value(f"select max(memory) / {KIB_PER_GIB} from tasks where problem is null")
    if largest is not None:
        importing.notes.append(
            f"memory is read as {options.memory_unit}: the largest VM has {largest:,.3f} GiB. OpenDC documents MB and "
            "loads KB; --memory-unit says which"
        )
    if not used:
        importing.gaps.append(
            "there are no fragments beside the tasks, or they were not asked for: no utilisation"
        )
        return
    without = importing.value("select count(*) from tasks anti join usage using (id) where problem is null")
    short = importing.value(
        "select count(*) from tasks join usage using (id) where problem is null and covered_ms < duration_ms"
    )
    strangers = importing.value("select count(*) from usage anti join tasks using (id)")
    if without:
        importing.gaps.append(f"{without:,} tasks have no fragments")
    if short:
        importing.gaps.append(f"the fragments of {short:,} tasks cover less than their durations")
    if strangers:
        importing.gaps.append(f"{strangers:,} ids have fragments and no task")


def _milliseconds(name: str, types: dict[str, str]) -> str:
    return (
        f"cast(epoch_ms({name}) as double)"
        if types[name].startswith("TIMESTAMP")
        else f"try_cast({name} as double)"
    )


def _first(types: dict[str, str], names: tuple[str, ...]) -> str:
    return next((name for name in names if name in types), "")


def _present(path: Path, types: dict[str, str], names: tuple[str, ...]) -> str:
    found = _first(types, names)
    if not found:
        raise BadInput(
            f"cannot import {path} as opendc: it has no column {' or '.join(names)}; it has {', '.join(types)}"
        )
    return found


OPENDC = Importer(
    name="opendc",
    summary="OpenDC: tasks.parquet with fragments.parquet, or the older meta.parquet with trace.parquet.",
    row_is="tasks",
    columns=("vm_id", "utilisation"),
    units={
        "arrival_s": "s, from the first submission",
        "lifetime_s": "s, the task's duration",
        "vcpus": "CPUs",
        "memory_gib": "GiB, from the number in the file as --memory-unit says",
        "utilisation": "the fragments' mean MHz over the task's MHz",
    },
    licence="of the trace itself: see where it comes from (OpenDC's own files: MIT)",
    cite="Mastenbroek et al., OpenDC 2.0, CCGrid 2021, and the trace's own source",
    options=OpendcOptions,
    read=read,
)
