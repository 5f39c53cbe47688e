"""Google's Borg traces of 2019 (clusterdata-2019, format v3): the table of instance events, with that of collections.

What can be read: the shards of `instance_events`, as JSON lines, Parquet, or CSV with `resource_request` flattened,
text also with gzip; and, for the users, `collection_events` beside them in the folder. The machine tables hold no
requests: `olvm experiment replay --hosts` takes the mix of a cell. Usage tables are not read.

An instance event has `time` (µs; 0: before the trace, 2^63-1: after it; the trace begins at 600 s), `type`,
`collection_id`, `instance_index`, `collection_type` (0 job, 1 alloc set), `alloc_collection_id` (0: not in an alloc),
`priority`, and `resource_request` with `cpus` and `memory`, both as fractions of the largest machine. Types, by number
or name: 0 SUBMIT, 1 QUEUE, 2 ENABLE, 3 SCHEDULE, 4 EVICT, 5 FAIL, 6 FINISH, 7 KILL, 8 LOST, 9 UPDATE_PENDING,
10 UPDATE_RUNNING. JSON has numbers as texts. Source: clusterdata_trace_format_v3.proto and ClusterData2019.md of
github.com/google/cluster-data; the special times are in its document "Google cluster-usage traces v3".

- An instance is placed once a run: from its SUBMIT, or a SCHEDULE after an end, to the next EVICT, FAIL, FINISH, KILL
  or LOST. The run arrives when it was submitted and lives from SCHEDULE to its end; the wait is not taken over. A run
  that has no end never leaves; one that was never scheduled is left out.
- What a cluster places are alloc instances, and tasks outside of allocs: tasks inside use what it reserved, and are
  left out. `tasks="all"` counts every task and no alloc instance.
- The request is the first of the run that is known; updates are counted. The largest machine has `machine_vcpus` and
  `machine_memory_gib`, by default what `fleets.borg_mix` gives it, so that trace and fleet fit.
- Events at one time: ends first, then SUBMIT, QUEUE, ENABLE, SCHEDULE, updates.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from olvm.experiments.imports.checking import (
    Check,
    ascii_text,
    column_count,
    number,
    problem_of,
    quoted,
    said,
)
from olvm.experiments.imports.importing import Importer, Importing, Options
from olvm.experiments.imports.sources import (
    file_literal,
    files_under,
    header_lines,
    header_positions,
    is_parquet,
    lines_of,
)
from olvm.model.errors import BadInput, NotFound

US_PER_S = 1_000_000
AFTER_US = (1 << 63) - 1
TYPES = (
    "SUBMIT",
    "QUEUE",
    "ENABLE",
    "SCHEDULE",
    "EVICT",
    "FAIL",
    "FINISH",
    "KILL",
    "LOST",
    "UPDATE_PENDING",
    "UPDATE_RUNNING",
)
FIELDS = {
    "time": ("time",),
    "type": ("type",),
    "collection_id": ("collection_id",),
    "instance_index": ("instance_index",),
    "collection_type": ("collection_type",),
    "alloc": ("alloc_collection_id",),
    "priority": ("priority",),
    "cpus": ("resource_request.cpus", "resource_request_cpus", "cpus"),
    "memory": ("resource_request.memory", "resource_request_memory", "memory"),
}
OPTIONAL = ("collection_type", "alloc", "priority")
SUFFIXES = (".json", ".json.gz", ".csv", ".csv.gz", ".parquet", ".parquet.gz")


class BorgOptions(Options, frozen=True, kw_only=True):
    """`tasks`: "top" leaves out tasks inside allocs, "all" leaves out alloc instances."""

    machine_vcpus: float = 64.0
    machine_memory_gib: float = 512.0
    tasks: Literal["top", "all"] = "top"


def read(importing: Importing, options: BorgOptions) -> None:
    if options.machine_vcpus <= 0 or options.machine_memory_gib <= 0:
        raise BadInput("--machine-vcpus and --machine-memory-gib must be above 0")
    instances, collections = _shards(importing.source)
    importing.connection.execute(
        "create table events (source_file integer, line bigint, time_us bigint, type tinyint, collection_id bigint, "
        "instance_index bigint, collection_type tinyint, alloc bigint, priority integer, cpus double, memory double);"
        "create table users (collection_id bigint, user_name varchar)"
    )
    for number_, file in enumerate(instances, 1):
        _read_events(importing, file)
        importing.told(f"{number_} of {len(instances)} files of instance events")
    for file in collections:
        _read_users(importing, file)
    _stage_runs(importing, options)
    _tell(importing, options, bool(collections))


def _shards(path: Path) -> tuple[list[Path], list[Path]]:
    if not path.exists():
        raise NotFound(f"cannot import {path} as borg: there is no such folder or file")
    if path.is_file():
        if path.name.startswith(("machine_", "2019_")) or "host_resource" in path.name:
            raise BadInput(
                f"cannot import {path} as borg: it tells of machines, and a trace has requests; give instance_events "
                "(hosts in the mix of a cell are `--hosts borg-a:1000`)"
            )
        return [path], []
    files = files_under(path, "borg", SUFFIXES)
    instances = [file for file in files if file.name.startswith("instance_events")]
    if not instances:
        raise BadInput(f"cannot import {path} as borg: there is no file instance_events* in it")
    return instances, [file for file in files if file.name.startswith("collection_events")]


# ---------------------------------------------------------------- reading


def _fields_of(
    importing: Importing, file: Path, wanted: dict[str, tuple[str, ...]], optional: tuple[str, ...]
) -> tuple[str, list[Check]]:
    """An SQL source with `line` and each wanted column as text, and the checks that come before all others."""
    missing = ", ".join(f"cast(null as varchar) as {name}" for name in wanted)
    if is_parquet(file):
        types = importing.parquet_columns(file)
        nested = {name: _parquet_path(types, aliases) for name, aliases in wanted.items()}
        absent = [name for name, found in nested.items() if found is None and name not in optional]
        if absent:
            raise BadInput(
                f"cannot import {file} as borg: it has no column {wanted[absent[0]][0]}; it has {', '.join(types)}"
            )
        texts = ", ".join(f"cast({found or 'null'} as varchar) as {name}" for name, found in nested.items())
        return (
            f"(select file_row_number + 1 as line, {texts} "
            f"from read_parquet({file_literal(file)}, file_row_number = true))",
            [],
        )
    first = header_lines(file)
    if not first or not first[0].strip():
        return f"(select cast(null as bigint) as line, {missing} where false)", []
    if first[0].lstrip().startswith("{"):
        paths = ", ".join(quoted("$." + aliases[0]) for aliases in wanted.values())
        texts = ", ".join(f"v[{place}] as {name}" for place, name in enumerate(wanted, 1))
        source = (
            f"(select line, text, v is not null as valid, {texts} from (select line, text, case when json_valid(text) "
            f"then json_extract_string(text, [{paths}]) end as v from {lines_of(file)} where text is not null))"
        )
        return source, [Check("not valid", "not_json", quoted("it is no JSON object, or a part of one"))]
    positions, count = header_positions(file, "borg", ",", wanted, optional)
    texts = ", ".join(
        f"{f'p[{positions[name]}]' if name in positions else 'cast(null as varchar)'} as {name}"
        for name in wanted
    )
    source = (
        f"(select line, text, p, {texts} from (select line, text, string_split(text, ',') as p from {lines_of(file)} "
        "where line > 1 and text is not null))"
    )
    return source, [column_count("p", count, "commas"), ascii_text("text")]


def _parquet_path(types: dict[str, str], aliases: tuple[str, ...]) -> str | None:
    for alias in aliases:
        outer, _, inner = alias.partition(".")
        if not inner and alias in types:
            return alias
        if inner and outer in types and inner in types[outer]:
            return f"{outer}.{inner}"
    return None


def _read_events(importing: Importing, file: Path) -> None:
    position = importing.add_file(file)
    source, checks = _fields_of(importing, file, FIELDS, OPTIONAL)
    numbers = " ".join(f"when '{name}' then {value}" for value, name in enumerate(TYPES))
    checks += [
        *number("time", "time", "cast(time_us as double)"),
        Check(
            "kind is null or kind not between 0 and 10",
            "unknown_value",
            said("type is {}, none of the format", "type"),
        ),
        *number("collection_id", "collection_id", "cast(collection as double)"),
        *number("instance_index", "instance_index", "cast(instance as double)"),
        _share_check("cpus", "cpu_share"),
        _share_check("memory", "memory_share"),
    ]
    importing.run(
        f"""
        create or replace temp table arrived as select *, {problem_of(checks)} as problem from (
            select *, try_cast(time as bigint) as time_us,
                coalesce(try_cast(type as tinyint), case upper(type) {numbers} end) as kind,
                try_cast(collection_id as bigint) as collection, try_cast(instance_index as bigint) as instance,
                try_cast(cpus as double) as cpu_share, try_cast(memory as double) as memory_share
            from {source}
        )
        """
    )
    importing.rows_read += importing.value("select count(*) from arrived")
    importing.set_aside(
        f"select {position} as source_file, line as source_line, problem from arrived where problem is not null"
    )
    importing.connection.execute(
        f"""
        insert into events select {position}, line, time_us, kind, collection, instance,
            case upper(coalesce(collection_type, '0')) when 'JOB' then 0 when 'ALLOC_SET' then 1
                else coalesce(try_cast(collection_type as tinyint), 0) end,
            coalesce(try_cast(alloc as bigint), 0), try_cast(priority as integer), cpu_share, memory_share
        from arrived where problem is null
        """
    )


def _share_check(name: str, value: str) -> Check:
    """A request may be missing in an event; what stands there has to be a share of a machine."""
    return Check(
        f"coalesce(trim({name}), '') <> '' and ({value} is null or not isfinite({value}) or {value} < 0)",
        "not_a_number",
        said(f"resource_request.{name} is {{}}, not a share of a machine", name),
    )


def _read_users(importing: Importing, file: Path) -> None:
    position = importing.add_file(file)
    source, checks = _fields_of(
        importing, file, {"collection_id": ("collection_id",), "user_name": ("user",)}, ()
    )
    checks += number("collection_id", "collection_id", "try_cast(collection_id as double)")
    importing.run(
        f"create or replace temp table arrived as select *, {problem_of(checks)} as problem from {source}"
    )
    importing.set_aside(
        f"select {position} as source_file, line as source_line, problem from arrived where problem is not null"
    )
    importing.connection.execute(
        "insert into users select distinct try_cast(collection_id as bigint), user_name from arrived "
        "where problem is null and user_name is not null"
    )


# ---------------------------------------------------------------- runs


def _stage_runs(importing: Importing, options: BorgOptions) -> None:
    """Each event gets the number of its run, and each run becomes a VM."""
    of_instance = "partition by collection_id, instance_index order by time_us, place, source_file, line"
    importing.run(
        f"""
        create table runs as
        with placed as (
            select *, case when type between 4 and 8 then 0 when type > 8 then 5 else type + 1 end as place from events
        ),
        followed as (
            select *, lag(type) over whole as before, row_number() over whole as nth from placed
            window whole as ({of_instance})
        ),
        numbered as (
            select *, sum(case when type = 0 or (type = 3 and before between 4 and 8) then 1 else 0 end) over
                (partition by collection_id, instance_index order by nth) as run
            from followed
        )
        select collection_id, instance_index, run,
            arg_min(source_file, nth) as source_file, arg_min(line, nth) as source_line,
            max(collection_type) as collection_type,
            max(alloc) as alloc, arg_min(priority, nth) as priority,
            min(time_us) filter (type <= 3) as submitted_us, min(time_us) filter (type = 3) as scheduled_us,
            min(time_us) filter (type between 4 and 8 and time_us < {AFTER_US}) as ended_us,
            arg_min(cpus, nth) as cpus, arg_min(memory, nth) as memory,
            count(*) filter (type > 8) as updates, bool_or(type = 0) as has_submit
        from numbered group by collection_id, instance_index, run
        """
    )
    inside, counted = (
        (
            "alloc <> 0 and collection_type = 0",
            "tasks inside allocs, which use what the alloc reserved (--tasks top)",
        )
        if options.tasks == "top"
        else ("collection_type = 1", "alloc instances (--tasks all)")
    )
    importing.stage(
        f"""
        select source_file, source_line, coalesce(submitted_us, 0) / {US_PER_S} as arrival_s,
            case when ended_us >= scheduled_us then (ended_us - scheduled_us) / {US_PER_S} end as lifetime_s,
            coalesce(cpus, 0) * {options.machine_vcpus} as vcpus,
            coalesce(memory, 0) * {options.machine_memory_gib} as memory_gib,
            collection_id || '-' || instance_index || case when nth > 1 then '#' || nth else '' end as vm_id,
            coalesce(user_name, cast(collection_id as varchar)) as tenant, priority,
            case when not counts or cpus is not null and memory is not null then null
                else 'no_request' || chr(31) || 'no event of this run has a resource_request' end as problem,
            case when {inside} then '{counted}' when scheduled_us is null then 'runs that were never scheduled'
                when submitted_us = {AFTER_US} then 'runs after the trace' end as left_out
        from (
            select *, not ({inside}) and scheduled_us is not null as counts,
                row_number() over (partition by collection_id, instance_index order by run) as nth
            from runs
        ) left join (select collection_id, min(user_name) as user_name from users group by 1) using (collection_id)
        """
    )


def _tell(importing: Importing, options: BorgOptions, users: bool) -> None:
    importing.units["vcpus"] = f"shares of a machine of {options.machine_vcpus:g} vCPUs (--machine-vcpus)"
    importing.units["memory_gib"] = (
        f"shares of a machine of {options.machine_memory_gib:g} GiB (--machine-memory-gib)"
    )
    figures = importing.connection.execute(
        "select count(*) filter (not has_submit), coalesce(sum(updates), 0), count(*) filter (cpus = 0 or memory = 0), "
        "count(*) filter (submitted_us = 0) from runs where scheduled_us is not null"
    ).fetchall()[0]
    for count, gap in zip(
        figures,
        (
            "runs have no SUBMIT: they arrive at their first event",
            "updates of requests are not followed",
            "runs ask for no CPU or no memory at all",
            "runs were there before the trace (time 0)",
        ),
        strict=True,
    ):
        if count:
            importing.gaps.append(f"{count:,} {gap}")
    if not users:
        importing.gaps.append("there are no collection_events: a tenant is a collection, and not its user")


BORG = Importer(
    name="borg",
    summary="Google Borg 2019: instance_events as JSON, Parquet or CSV, with collection_events for the users.",
    row_is="events",
    columns=("vm_id", "tenant", "priority"),
    units={
        "arrival_s": "s, submission, on the trace's clock (it begins at 600 s; 0: before it)",
        "lifetime_s": "s, from scheduled to ended; null: no end in the trace",
        "priority": "Borg's, larger is more important",
    },
    licence="CC-BY 4.0",
    cite="Tirmazi et al., Borg: the Next Generation, EuroSys 2020",
    options=BorgOptions,
    read=read,
)
