"""What a view of history is; and those with the shape and the names of oVirt's data warehouse.

Decides names, columns and what each means: DDL, comments in the file and docs/history-schema.md (`catalog`)
are made from this. The other views are in `own_views`. Knows no connection.
"""

# Statements are built from names of our own tables.

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from olvm.history.kinds import (
    HOST_CORE_KIND,
    HOST_INTERFACE_KIND,
    HOST_KIND,
    HOST_NUMA_KIND,
    HOST_STORAGE_KIND,
    KINDS,
    VM_DISK_KIND,
    VM_INTERFACE_KIND,
    VM_KIND,
    SampleKind,
)
from olvm.history.rollups import rollup_table, seconds_comment

Period = Literal["samples", "hourly", "daily"]

NAME_BY_KIND: Final[dict[str, str]] = {
    HOST_KIND.name: "statistics_hosts_resources_usage",
    VM_KIND.name: "statistics_vms_resources_usage",
    VM_DISK_KIND.name: "statistics_vms_disks_resources_usage",
    VM_INTERFACE_KIND.name: "statistics_vms_interfaces_resources_usage",
    HOST_INTERFACE_KIND.name: "statistics_hosts_interfaces_resources_usage",
    HOST_CORE_KIND.name: "statistics_hosts_cores_resources_usage",
    HOST_NUMA_KIND.name: "statistics_hosts_numa_nodes_resources_usage",
    HOST_STORAGE_KIND.name: "statistics_storage_domains_resources_usage",
}
_WHAT_BY_KIND: Final[dict[str, str]] = {
    HOST_KIND.name: "host",
    VM_KIND.name: "VM",
    VM_DISK_KIND.name: "disk",
    VM_INTERFACE_KIND.name: "interface",
    HOST_INTERFACE_KIND.name: "interface",
    HOST_CORE_KIND.name: "core",
    HOST_NUMA_KIND.name: "NUMA node",
    HOST_STORAGE_KIND.name: "storage pool",
}


class ViewColumn(NamedTuple):
    name: str
    expression: str
    comment: str


class HistoryView(NamedTuple):
    """`source` is everything from FROM on."""

    name: str
    comment: str
    columns: tuple[ViewColumn, ...]
    source: str

    @property
    def select(self) -> str:
        columns = ", ".join(
            column.name if column.expression == column.name else f"{column.expression} as {column.name}"
            for column in self.columns
        )
        return f"select {columns} {self.source}"


def statistics_view(kind: SampleKind, period: Period) -> HistoryView:
    """The view over one table of samples or roll-ups, with names instead of keys."""
    columns = [_time_column(period), *_identity_columns(kind)]
    joins = "left join texts h on h.text_key = s.host_key"
    if kind.has_vm:
        joins += " left join vm_names v on v.vm_key = s.vm_key"
    for name, comment in kind.texts:
        if period == "samples" or name in (kind.device, kind.status):
            columns.append(ViewColumn(name, f"t_{name}.text", comment))
            joins += f" left join texts t_{name} on t_{name}.text_key = s.{name}_key"
    if period != "samples":
        columns += _rollup_facts(kind, period)
    columns += _figures(kind, period)
    table = kind.table if period == "samples" else rollup_table(kind, period)
    of = {"samples": "One row per sample", "hourly": "One row per hour", "daily": "One row per day of UTC"}[
        period
    ]
    what = _WHAT_BY_KIND[kind.name]
    by = [what, *(["host"] if kind is not HOST_KIND else []), *(["status"] if kind.status else [])]
    comment = f"{of} and {what}." if period == "samples" else f"{of}, {' and '.join(by)}."
    return HistoryView(
        f"{NAME_BY_KIND[kind.name]}_{period}", comment, tuple(columns), f"from {table} s {joins}"
    )


def _time_column(period: Period) -> ViewColumn:
    if period == "samples":
        return ViewColumn(
            "history_datetime", "s.history_datetime", "When the sample was taken by the host's clock, UTC."
        )
    if period == "hourly":
        return ViewColumn("history_datetime", "s.history_datetime", "Start of the hour, UTC.")
    return ViewColumn("history_datetime", "s.history_datetime::DATE", "The day, of UTC: always 24 hours.")


def _identity_columns(kind: SampleKind) -> list[ViewColumn]:
    if not kind.has_vm:
        return [ViewColumn("host_name", "h.text", "Name of the host, which is its identity.")]
    return [
        ViewColumn("vm_id", "v.vm_id", "Identity of the VM."),
        ViewColumn("vm_name", "v.vm_name", "Its newest name."),
        ViewColumn("currently_running_on_host", "h.text", "Host that it ran on at the time."),
    ]


def _rollup_facts(kind: SampleKind, period: Period) -> list[ViewColumn]:
    of = "hour" if period == "hourly" else "day"
    seconds = "seconds_in_status" if kind.status else "seconds_observed"
    facts = [ViewColumn(seconds, "s.seconds_in_status", seconds_comment(kind, of))]
    if kind.status:
        facts.append(
            ViewColumn(
                "minutes_in_status", "s.seconds_in_status / 60.0", "The same in minutes, as oVirt has it."
            )
        )
    return [
        *facts,
        ViewColumn("sample_count", "s.sample_count", f"Samples taken in the {of}; 0 if one held on into it."),
    ]


def _figures(kind: SampleKind, period: Period) -> list[ViewColumn]:
    columns = []
    of = "hour" if period == "hourly" else "day"
    for column in kind.columns:
        of_samples = ViewColumn(column.name, f"s.{column.name}", column.comment)
        if period == "samples":
            columns.append(of_samples)
        elif column.is_counter:
            columns.append(of_samples._replace(comment=f"{column.comment} The largest of the {of}."))
        else:
            largest = f"max_{column.name}"
            columns.append(of_samples._replace(comment=f"{column.comment} The average of the {of}."))
            columns.append(ViewColumn(largest, f"s.{largest}", f"The largest {column.name} of the {of}."))
    return columns


STATISTICS_VIEWS: Final = tuple(
    statistics_view(kind, period) for kind in KINDS for period in ("samples", "hourly", "daily")
)
