"""Huawei-East-1 (2021): creations and deletions of VMs over 30 days, one CSV with a header.

Columns, in any order: `vmid`, `cpu` (cores), `memory` (GB, whole), `time` (seconds from the beginning), `type`
(0 creation, 1 deletion). Sources: the data set's own README (github.com/huaweicloud/VM-placement-dataset,
Huawei-East-1/README.md: 125,430 creations, 116,313 deletions), the same table in VMAgent's documentation
(github.com/mail-ecnu/VMAgent), and DSLab's reader (huawei_dataset_reader.rs), which pairs them by id.

- A creation and the next deletion of the same id, in order of time and then of lines, are one VM; without a deletion
  it never leaves. An id may come again after its deletion: that VM is called `id#2`.
- A creation while the id lives, a deletion while it does not, are bad rows. Of sizes the creation's counts.
- VMAgent's documentation says that some small flavours share their CPUs, between 1/4 and 1/2 of a core each. The file
  does not say which VMs do; sizes are taken as they stand.
"""

from __future__ import annotations

from olvm.experiments.imports.checking import (
    SEPARATOR,
    Check,
    ascii_text,
    column_count,
    number,
    problem_of,
    quoted,
    said,
)
from olvm.experiments.imports.importing import Importer, Importing, Options
from olvm.experiments.imports.sources import header_positions, lines_of, the_file

COLUMNS = {
    "vmid": ("vmid", "vm_id"),
    "cpu": ("cpu",),
    "memory": ("memory", "mem"),
    "time": ("time",),
    "type": ("type",),
}
NAMES = ("Huawei-East-1.csv", "data/Huawei-East-1.csv", "Huawei-East-1.csv.gz")


class HuaweiOptions(Options, frozen=True, kw_only=True):
    """None."""


def read(importing: Importing, options: HuaweiOptions) -> None:
    del options
    path = the_file(importing.source, "huawei", NAMES)
    positions, count = header_positions(path, "huawei", ",", COLUMNS)
    importing.add_file(path)
    at = {name: f"p[{position}]" for name, position in positions.items()}
    checks = [
        column_count("p", count, "commas"),
        ascii_text("text"),
        Check("trim(id) = ''", "not_a_number", quoted("vmid is missing")),
        *number("cpu", at["cpu"], "vcpus", above=0),
        *number("memory", at["memory"], "memory_gib", above=0),
        *number("time", at["time"], "time_s"),
        Check(
            "kind is null or kind not in (0, 1)",
            "unknown_value",
            said("type is {}, neither 0 (creation) nor 1 (deletion)", at["type"]),
        ),
    ]
    importing.run(
        f"""
        create table events as select line, id, vcpus, memory_gib, time_s, kind, {problem_of(checks)} as problem from (
            select *, trim({at["vmid"]}) as id, try_cast({at["cpu"]} as double) as vcpus,
                try_cast({at["memory"]} as double) as memory_gib, try_cast({at["time"]} as double) as time_s,
                try_cast({at["type"]} as double) as kind
            from (
                select line, text, string_split(text, ',') as p from {lines_of(path)}
                where line > 1 and text is not null
            )
        )
        """
    )
    importing.rows_read = importing.value("select count(*) from events")
    importing.set_aside(
        "select 0 as source_file, line as source_line, problem from events where problem is not null"
    )
    _pair(importing)


def _pair(importing: Importing) -> None:
    """Creations and deletions of an id have to alternate; those that do not are bad, and the rest are pairs."""
    bad = {
        "duplicate_create": ("kind = 0 and before = 0", "VM {} is created while it lives"),
        "duplicate_delete": ("kind = 1 and before = 1", "VM {} is deleted again"),
        "delete_without_create": (
            "kind = 1 and before is null",
            "VM {} is deleted and was not created before",
        ),
    }
    whens = " ".join(
        f"when {fails} then {quoted(kind + SEPARATOR)} || {said(sentence, 'id')}"
        for kind, (fails, sentence) in bad.items()
    )
    importing.run(
        f"""
        create table judged as select *, case {whens} end as fault from (
            select line, id, vcpus, memory_gib, time_s, kind,
                lag(kind) over (partition by id order by time_s, line) as before
            from events where problem is null
        );
        drop table events
        """
    )
    importing.set_aside(
        "select 0 as source_file, line as source_line, fault as problem from judged where fault is not null"
    )
    importing.run(
        """
        create table paired as select *,
            lead(time_s) over whole as end_s, lead(vcpus) over whole as end_vcpus,
            lead(memory_gib) over whole as end_memory,
            row_number() over (partition by id, kind order by time_s, line) as nth
        from judged where fault is null window whole as (partition by id order by time_s, line);
        drop table judged
        """
    )
    other = importing.value(
        "select count(*) from paired where kind = 0 and (end_vcpus <> vcpus or end_memory <> memory_gib)"
    )
    if other:
        importing.notes.append(f"{other:,} deletions name another size than the creation, whose size counts")
    importing.stage(
        """
        select line as source_line, time_s as arrival_s, end_s - time_s as lifetime_s, vcpus, memory_gib,
            id || case when nth > 1 then '#' || nth else '' end as vm_id
        from paired where kind = 0
        """
    )


HUAWEI = Importer(
    name="huawei",
    summary="Huawei-East-1: creations and deletions of VMs in one CSV.",
    row_is="events",
    columns=("vm_id",),
    units={
        "arrival_s": "s, from the source's own zero",
        "lifetime_s": "s; null: not deleted within the trace",
        "vcpus": "cores",
        "memory_gib": "GiB (the source says GB)",
    },
    licence="CC-BY-NC (its README links CC-BY-NC-SA): not for commercial use",
    cite="Sheng et al., VMAgent: Scheduling Simulator for Reinforcement Learning, arXiv 2112.04785, 2021",
    options=HuaweiOptions,
    read=read,
)
