"""Azure's trace for packing (2020): an SQLite file with the tables `vm` and `vmType`.

`vm`: vmId, tenantId, vmTypeId, priority (0 high, 1 low), starttime and endtime in fractional days from the beginning
of the collection; endtime is NULL for a VM that still lived 90 days later, and starttime is negative for one that was
there before. `vmType`: id, vmTypeId, machineId, core, memory, hdd, ssd, nic: what a VM of this type takes of that kind
of machine, as a fraction of it. Source: AzureTracesForPacking2020.md of github.com/Azure/AzurePublicDataset;
a
`machineId` is read as a kind of machine: VMs that live at one time take more than one of it (issue 29 there).

- The fractions are of one kind of machine, `machine`; the default is the kind that offers the types of most requests,
  the lowest id of several. A type that it does not offer takes its largest fraction of any other kind: demand is then
  over-stated rather than under-stated, and counted as a gap.
- That machine has `machine_vcpus` and `machine_memory_gib`: the trace does not say, so replay it on such hosts.
- Priorities are turned around: larger is more important in a trace of ours, so high is 1 and low is 0. A VM of low
  priority may have been evicted, so that its lifetime depends on the placement of that time.
- `before_start`: VMs that were there before arrive at 0 s with what is left of their life (`clip`), or all times are
  shifted so that the oldest arrives at 0 s (`shift`), or they are left out (`drop`). VMs that left before 0 s are no
  requests: left out under `clip`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from olvm.experiments.imports.bounds import ROWS_PER_BATCH, TEXT_SHOWN_MAX
from olvm.experiments.imports.checking import SEPARATOR
from olvm.experiments.imports.importing import Importer, Importing, Options
from olvm.experiments.imports.sources import starts_with, the_file
from olvm.model.errors import BadInput

DAY_S = 86_400
NAMES = ("packing_trace_zone_a_v1.sqlite",)
_MAGIC = b"SQLite format 3\x00"
_TABLES = {
    "vm": ("vmId", "tenantId", "vmTypeId", "priority", "starttime", "endtime"),
    "vmType": ("id", "vmTypeId", "machineId", "core", "memory"),
}


class AzurePackingOptions(Options, frozen=True, kw_only=True):
    """`machine`: a machineId of vmType. See the module for the others."""

    machine: int | None = None
    machine_vcpus: float = 64.0
    machine_memory_gib: float = 256.0
    before_start: Literal["clip", "shift", "drop"] = "clip"


def read(importing: Importing, options: AzurePackingOptions) -> None:
    if options.machine_vcpus <= 0 or options.machine_memory_gib <= 0:
        raise BadInput("--machine-vcpus and --machine-memory-gib must be above 0")
    path = the_file(importing.source, "azure-packing", NAMES)
    importing.files.append(path)
    if starts_with(path, len(_MAGIC)) != _MAGIC:
        zipped = "; unzip it first" if starts_with(path, 2) == b"PK" else ""
        raise BadInput(f"cannot import {path} as azure-packing: it is no SQLite file{zipped}")
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
    try:
        _check_tables(connection, path)
        machine = _chosen_machine(connection, path, options)
        for batch in _batches(connection, machine):
            _stage_batch(importing, batch)
    except sqlite3.DatabaseError as error:
        raise BadInput(
            f"cannot import {path} as azure-packing: the file is broken or cut off ({error})"
        ) from error
    finally:
        connection.close()
    _place_in_time(importing, options)
    _tell(importing, options, machine)


def _check_tables(connection: sqlite3.Connection, path: Path) -> None:
    for table, wanted in _TABLES.items():
        present = {row[1].lower() for row in connection.execute(f'pragma table_info("{table}")')}
        missing = [name for name in wanted if name.lower() not in present]
        if missing:
            has = (
                f"its table {table} has no column {', '.join(missing)}"
                if present
                else f"it has no table {table}"
            )
            raise BadInput(f"cannot import {path} as azure-packing: {has}")


def _chosen_machine(connection: sqlite3.Connection, path: Path, options: AzurePackingOptions) -> int:
    rows = connection.execute(
        "select machineId, sum(requests) from (select distinct machineId, vmTypeId from vmType) "
        "join (select vmTypeId, count(*) as requests from vm group by vmTypeId) using (vmTypeId) "
        "where machineId is not null group by machineId order by 2 desc, machineId"
    ).fetchall()
    machines = [row[0] for row in rows]
    if options.machine is not None and options.machine not in machines:
        raise BadInput(
            f"cannot import {path} as azure-packing: no requested type runs on machine {options.machine}; "
            f"there are {', '.join(map(str, sorted(machines)[:20]))}"
        )
    if not machines:
        raise BadInput(
            f"cannot import {path} as azure-packing: no VM has a type of the table vmType, or there are no VMs"
        )
    return int(options.machine if options.machine is not None else machines[0])


def _batches(connection: sqlite3.Connection, machine: int) -> Iterator[list[tuple[Any, ...]]]:
    """Rows of `vm` with the fractions of their types; SQLite itself says what is no number."""
    cursor = connection.execute(
        f"""
        with sizes as (
            select vmTypeId,
                coalesce(max(case when machineId = ? then core end), max(core)) as core,
                coalesce(max(case when machineId = ? then memory end), max(memory)) as memory,
                max(machineId = ?) as offered,
                max(not ({_is_number("core")} and {_is_number("memory")}) or min(core, memory) < 0
                    or max(core, memory) > 1) as wrong
            from vmType group by vmTypeId
        )
        select vm.rowid, cast(vmId as text), cast(tenantId as text),
            case when {_is_number("priority")} then 1 - priority end,
            case when {_is_number("starttime")} then starttime end,
            case when {_is_number("endtime")} then endtime end,
            core, memory, coalesce(offered, 0), {_problem()}
        from vm left join sizes using (vmTypeId) order by vm.rowid
        """,
        (machine, machine, machine),
    )
    while rows := cursor.fetchmany(ROWS_PER_BATCH):
        yield rows


def _is_number(column: str) -> str:
    return f"typeof({column}) in ('integer', 'real')"


def _problem() -> str:
    """As `problem_of`, in SQLite's words: a column may hold values of any type there."""

    def shown(column: str) -> str:
        return f"coalesce(substr({column}, 1, {TEXT_SHOWN_MAX}), 'missing')"

    cases = [
        ("vmId is null", "not_a_number", "'vmId is missing'"),
        (
            f"not {_is_number('starttime')}",
            "not_a_number",
            f"'starttime is ' || {shown('starttime')} || ', not a number'",
        ),
        (
            f"endtime is not null and not {_is_number('endtime')}",
            "not_a_number",
            f"'endtime is ' || {shown('endtime')} || ', not a number'",
        ),
        (
            "endtime < starttime",
            "end_before_start",
            "'endtime is ' || endtime || ', before starttime, which is ' || starttime",
        ),
        (
            "coalesce(priority, -1) not in (0, 1)",
            "unknown_value",
            f"'priority is ' || {shown('priority')} || ', neither 0 (high) nor 1 (low)'",
        ),
        ("core is null", "unknown_type", f"'its type ' || {shown('vm.vmTypeId')} || ' is not in vmType'"),
        (
            "wrong",
            "out_of_range",
            "'its type ' || vm.vmTypeId || ' takes no fraction from 0 to 1 of a machine'",
        ),
    ]
    whens = " ".join(f"when {fails} then '{kind}{SEPARATOR}' || {why}" for fails, kind, why in cases)
    return f"case {whens} end"


def _stage_batch(importing: Importing, rows: list[tuple[Any, ...]]) -> None:
    import numpy as np

    importing.rows_read += len(rows)
    line, vm_id, tenant, priority, start, end, core, memory, offered, problem = zip(*rows, strict=True)
    numbers = {"start_day": start, "end_day": end, "core": core, "memory": memory}
    texts = {"vm_id": vm_id, "tenant": tenant, "priority": priority, "problem": problem}
    arrays: dict[str, Any] = {name: np.array(column, dtype=float) for name, column in numbers.items()}
    arrays |= {name: np.array(column, dtype=object) for name, column in texts.items()}
    arrays |= {"line": np.array(line, dtype=np.int64), "offered": np.array(offered, dtype=bool)}
    importing.connection.register("arriving", arrays)
    first = importing.rows_read == len(rows)
    select = (
        "select line, vm_id, tenant, try_cast(priority as integer) as priority, start_day, end_day, "
        "core, memory, offered, "
        "cast(problem as varchar) as problem from arriving"
    )
    importing.connection.execute(
        f"{'create table requests as' if first else 'insert into requests'} {select}"
    )
    importing.connection.unregister("arriving")


def _place_in_time(importing: Importing, options: AzurePackingOptions) -> None:
    lived_from, arrives, why, reason = {
        "clip": (
            "greatest(start_day, 0)",
            "greatest(start_day, 0)",
            "end_day <= 0 and start_day < 0",
            "VMs that left before 0 s",
        ),
        "drop": (
            "start_day",
            "start_day",
            "start_day < 0",
            "VMs that were there before 0 s (--before-start drop)",
        ),
        "shift": ("start_day", "(start_day - first_day)", "false", ""),
    }[options.before_start]
    importing.stage(
        f"""
        select line as source_line, case when {why} then 0 else {arrives} end * {DAY_S} as arrival_s,
            (end_day - {lived_from}) * {DAY_S} as lifetime_s, core * {options.machine_vcpus} as vcpus,
            memory * {options.machine_memory_gib} as memory_gib, vm_id, tenant, priority, problem,
            case when {why} then '{reason}' end as left_out
        from requests, (select least(min(start_day), 0) as first_day from requests where problem is null)
        """
    )


def _tell(importing: Importing, options: AzurePackingOptions, machine: int) -> None:
    good = "from requests where problem is null"
    older = importing.value(f"select count(*) {good} and start_day < 0")
    elsewhere = importing.value(f"select count(*) {good} and not offered")
    importing.units["vcpus"] = f"fractions of a machine of {options.machine_vcpus:g} vCPUs (--machine-vcpus)"
    importing.units["memory_gib"] = (
        f"fractions of a machine of {options.machine_memory_gib:g} GiB (--machine-memory-gib)"
    )
    importing.notes.append(f"fractions are of machine {machine} of vmType (--machine)")
    if elsewhere:
        importing.gaps.append(
            f"machine {machine} does not offer the types of {elsewhere:,} VMs: "
            "their largest fraction of another is taken"
        )
    if older:
        importing.gaps.append(f"{older:,} VMs were there before 0 s (--before-start {options.before_start})")
    importing.notes.append("priority: 1 is high and 0 is low here; the source has it the other way round")


AZURE_PACKING = Importer(
    name="azure-packing",
    summary="Azure trace for packing 2020: SQLite with the tables vm and vmType.",
    row_is="VMs",
    columns=("vm_id", "tenant", "priority"),
    units={
        "arrival_s": "s, from fractional days since the collection began",
        "lifetime_s": "s; null: alive 90 days later",
        "priority": "1 high, 0 low",
    },
    licence="CC-BY 4.0",
    cite="Hadary et al., Protean: VM Allocation Service at Scale, OSDI 2020",
    options=AzurePackingOptions,
    read=read,
)
