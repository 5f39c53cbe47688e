"""Views that tell what happened: configuration in oVirt's shape, placements, migrations, downtime, waste, a forecast.

Decides their columns and what each means. All of them are of rows that exist: events, versions, roll-ups. Where the
events of a time have been erased (`EVENTS_KEPT_S`), so are the answers for it.
"""

# Statements are built from names of our own tables.
# ruff: noqa: S608

from __future__ import annotations

from typing import Final

from olvm.history.bounds import HOURLY_KEPT_S, SAMPLE_HOLDS_S
from olvm.history.views import HistoryView, ViewColumn

C = ViewColumn

_VALID: Final = (
    C("valid_from", "valid_from", "Start of this version, UTC."),
    C("valid_until", "valid_until", "Its end: the next version, or the removal. NULL: it is valid."),
    C("create_date", "create_date", "When the object was first seen, UTC."),
    C("update_date", "update_date", "When this version came, if it is not the first."),
    C("delete_date", "delete_date", "When the object was removed; NULL while it exists."),
)


def _versions(kind: str) -> str:
    """Versions of one kind. A name that is used again after a removal begins a new life, and version 1."""
    return (
        "from (select *, lead(valid_from) over one as valid_until, min(valid_from) over whole as create_date,"
        " case when row_number() over one > 1 then valid_from end as update_date,"
        " min(valid_from) filter (removed) over whole as delete_date, row_number() over one as version"
        " from (select *, coalesce(sum(removed::INTEGER) over (partition by object_id order by valid_from"
        " rows between unbounded preceding and 1 preceding), 0) as life from configuration_history"
        f" where object_kind = '{kind}')"
        " window one as (partition by object_id, life order by valid_from), whole as (partition by object_id, life))"
        " where not removed"
    )


_CONFIGURATION_VIEWS: Final = (
    HistoryView(
        "configuration_history_hosts",
        "Every version of every host, removed ones too.",
        (
            C("history_id", "version", "Number of the version of this host, from 1."),
            C("host_id", "object_id", "Identity of the host: its name."),
            C("host_name", "name", "Its name."),
            C("cluster_name", "cluster_name", "Cluster it belongs to."),
            C("host_status", "status", "Status at the start of the version."),
            C("number_of_cores", "(spec->>'cpus')::BIGINT", "CPUs."),
            C("memory_size_mb", "(spec->>'memory_bytes')::BIGINT // 1048576", "Memory, MiB."),
            *_VALID,
        ),
        _versions("host"),
    ),
    HistoryView(
        "configuration_history_vms",
        "Every version of every VM, removed ones too.",
        (
            C("history_id", "version", "Number of the version of this VM, from 1."),
            C("vm_id", "object_id", "Identity of the VM."),
            C("vm_name", "name", "Its name in this version."),
            C("cluster_name", "cluster_name", "Cluster it belongs to."),
            C("cpus", "(spec->>'vcpus')::BIGINT", "Virtual CPUs."),
            C("memory_size_mb", "(spec->>'memory_bytes')::BIGINT // 1048576", "Memory, MiB."),
            C(
                "high_availability",
                "(spec->>'high_availability')::BOOLEAN",
                "It is restarted when its host is lost.",
            ),
            C("priority", "(spec->>'priority')::BIGINT", "1 to 100: who starts first."),
            *_VALID,
        ),
        _versions("vm"),
    ),
    HistoryView(
        "configuration_history_clusters",
        "Every version of every cluster, removed ones too.",
        (
            C("history_id", "version", "Number of the version of this cluster, from 1."),
            C("cluster_id", "object_id", "Identity of the cluster: its name."),
            C("cluster_name", "name", "Its name."),
            C("policy", "spec->>'policy'", "Scheduling policy."),
            C("spec", "spec", "Every setting, as JSON."),
            *_VALID,
        ),
        _versions("cluster"),
    ),
    HistoryView(
        "configuration_history_vms_disks",
        "Disks of VMs, as hosts have reported them; removed ones stay.",
        (
            C("vm_id", "v.vm_id", "Identity of the VM."),
            C("vm_name", "v.vm_name", "Its newest name."),
            C("vm_disk_name", "t.text", "Name of the disk within its VM."),
            C("vm_disk_size_mb", "d.size", "Size that the guest saw last, MiB."),
            C("create_date", "d.first_seen", "Start of the hour in which it was first reported, UTC."),
            C("update_date", "d.last_seen", "Start of the newest hour in which it was reported, UTC."),
        ),
        "from devices d join vm_names v on v.vm_key = d.object_key join texts t on t.text_key = d.device_key"
        " where d.kind = 'vm_disk'",
    ),
    HistoryView(
        "configuration_history_vms_interfaces",
        "Network interfaces of VMs, as hosts have reported them; removed ones stay.",
        (
            C("vm_id", "v.vm_id", "Identity of the VM."),
            C("vm_name", "v.vm_name", "Its newest name."),
            C("vm_interface_name", "t.text", "Name of the interface on the host."),
            C("speed_mbps", "d.size", "Speed told last, Mbit/s."),
            C("create_date", "d.first_seen", "Start of the hour in which it was first reported, UTC."),
            C("update_date", "d.last_seen", "Start of the newest hour in which it was reported, UTC."),
        ),
        "from devices d join vm_names v on v.vm_key = d.object_key join texts t on t.text_key = d.device_key"
        " where d.kind = 'vm_interface'",
    ),
    HistoryView(
        "configuration_history_hosts_interfaces",
        "Network interfaces of hosts, as hosts have reported them; removed ones stay.",
        (
            C("host_name", "h.text", "Name of the host."),
            C("host_interface_name", "t.text", "Name of the interface."),
            C("speed_mbps", "d.size", "Speed told last, Mbit/s."),
            C("create_date", "d.first_seen", "Start of the hour in which it was first reported, UTC."),
            C("update_date", "d.last_seen", "Start of the newest hour in which it was reported, UTC."),
        ),
        "from devices d join texts h on h.text_key = d.object_key join texts t on t.text_key = d.device_key"
        " where d.kind = 'host_interface'",
    ),
)

_CALENDAR: Final = HistoryView(
    "calendar",
    "One row per day of UTC from 2020 to 2049.",
    (
        C("the_date", "d::DATE", "The day."),
        C("the_year", "year(d)", "Its year."),
        C("the_quarter", "quarter(d)", "1 to 4."),
        C("the_month", "month(d)", "1 to 12."),
        C("month_name", "monthname(d)", "Name of the month."),
        C("week_of_year", "weekofyear(d)", "ISO week."),
        C("day_of_week", "isodow(d)", "1 is Monday."),
        C("day_name", "dayname(d)", "Name of the day."),
        C("is_weekend", "isodow(d) > 5", "Saturday or Sunday."),
    ),
    "from range(timestamp '2020-01-01', timestamp '2050-01-01', interval 1 day) r(d)",
)

# Where a machine came to be, by whichever event says so; and the events that end a stay.
_PLACEMENTS: Final = HistoryView(
    "placements",
    "Where each VM ran, from when to when, and why there.",
    (
        C("vm_id", "vm_id", "Identity of the VM."),
        C("vm_name", "vm_name", "Its name at the time."),
        C("host_name", "host_name", "The host."),
        C("cluster_name", "cluster_name", "Its cluster."),
        C("placed_at", "log_time", "When it was up there, UTC."),
        C("left_at", "left_at", "When it left or went down; NULL: it has not."),
        C("reason", "reason", "start, migration: and why, or high availability."),
        C("message", "message", "The event in words."),
    ),
    "from (select *, lead(log_time) over (partition by vm_id order by log_time, seq) as left_at,"
    " case code when 'vm_up' then 'start' when 'vm_migrated' then 'migration: '"
    " || coalesce(details->>'reason', details->>'why', 'asked') when 'vm_ha_restart' then 'high availability' end"
    " as reason from events where vm_id is not null and (code in ('vm_up', 'vm_migrated', 'vm_down', 'vm_crashed',"
    " 'vm_suspended') or code = 'vm_ha_restart' and details->>'to' is not null)) where reason is not null",
)

_SAMPLE_LOSSES: Final = HistoryView(
    "sample_losses",
    "Samples that history does not have, because nobody had room for them: one row for each time that it was told.",
    (
        C("told_at", "log_time", "When it was told, UTC."),
        C("host_name", "host_name", "The host whose samples are missing; NULL: of several."),
        C("dropped_by", "details->>'by'", "agent: history was away. history: its disk took nothing."),
        C("samples", "(details->>'samples')::BIGINT", "Rows that were dropped."),
        C(
            "lost_from",
            "make_timestamp((details->>'from_ns')::BIGINT // 1000)",
            "Time of the oldest of them, UTC.",
        ),
        C("lost_until", "make_timestamp((details->>'to_ns')::BIGINT // 1000)", "Time of the newest, UTC."),
        C("message", "message", "The event in words."),
    ),
    "from events where code = 'samples_dropped'",
)

_SAMPLE_GAPS: Final = HistoryView(
    "sample_gaps",
    f"When history has no samples of a host between two that it has, for more than {SAMPLE_HOLDS_S} s; of the time that"
    " samples are kept. What a host's agent had not handed over when it was killed is missing so, too.",
    (
        C("host_name", "h.text", "The host."),
        C("gap_from", "g.gap_from", "The last sample before it, UTC."),
        C("gap_until", "g.gap_until", "The first sample after it, UTC."),
        C("seconds", "epoch(g.gap_until - g.gap_from)", "Between the two."),
        C(
            "agent_restarted",
            "g.epoch_after is distinct from g.epoch_before",
            "Its agent began anew meanwhile: with its silo, or with the host.",
        ),
    ),
    "from (select host_key, host_epoch as epoch_after, history_datetime as gap_until,"
    " lag(history_datetime) over one_host as gap_from, lag(host_epoch) over one_host as epoch_before"
    " from sample_reports where kind = 'host'"
    " window one_host as (partition by host_key order by history_datetime, host_epoch, seq)) g"
    " join texts h on h.text_key = g.host_key"
    f" where g.gap_until - g.gap_from > interval {SAMPLE_HOLDS_S} second",
)

_UNTRUSTED_VALUES: Final = HistoryView(
    "untrusted_values",
    "Statistics that cannot be, by day: the nearest possible value is stored in their place. Kept as long as events.",
    (
        C("the_date", "c.day::DATE", "Day of UTC."),
        C("vm_id", "nullif(c.vm_id, '')", "The VM that they are of; NULL: of the host itself."),
        C("vm_name", "v.vm_name", "Its newest name."),
        C("host_name", "c.host_name", "The host that told them."),
        C("statistics", "c.kind", "vm, host, vm_disk, …: which statistics."),
        C("column_name", "c.column_name", "Which of their columns."),
        C("value_count", "c.value_count", "How many values."),
        C("least_told", "c.least_told", "The smallest of them, as it was told."),
        C("most_told", "c.most_told", "The largest."),
        C("last_at", "c.last_at", "Time of the newest, UTC."),
    ),
    "from clipped_values c left join vm_names v on v.vm_id = c.vm_id",
)

_UNTRUSTED_GUESTS: Final = HistoryView(
    "untrusted_guests",
    "VMs whose statistics or guest agents told what could not be taken as it was. Lines are counted since their host"
    " listens, as last told.",
    (
        C("vm_id", "vm_id", "Identity of the VM."),
        C("vm_name", "coalesce(vm_name, clipped_name)", "Its name."),
        C("host_name", "coalesce(host_name, clipped_host)", "The host that heard it last."),
        C(
            "clipped_values",
            "coalesce(clipped_values, 0)",
            "Statistics that cannot be; see untrusted_values.",
        ),
        C("lines_discarded", "coalesce(lines_discarded, 0)", "Lines that were no message, or too long."),
        C("messages_unknown", "coalesce(messages_unknown, 0)", "Messages that the protocol does not have."),
        C(
            "messages_delayed",
            "coalesce(messages_delayed, 0)",
            "How often it talked too fast, and had to wait.",
        ),
        C(
            "events_dropped",
            "coalesce(events_dropped, 0)",
            "Events of its sessions that were too many at once.",
        ),
        C(
            "values_refused",
            "coalesce(values_refused, 0)",
            "Values of another kind, beyond belief or too long: left out or cut.",
        ),
    ),
    "from (select * from guest_facts where lines_discarded + messages_unknown + messages_delayed + events_dropped"
    " + coalesce(values_refused, 0) > 0)"
    " full join (select vm_id, any_value(vm_name) as clipped_name, max_by(host_name, last_at) as clipped_host,"
    " sum(value_count)::BIGINT as clipped_values from untrusted_values where vm_id is not null group by vm_id)"
    " using (vm_id)",
)

_OPERATIONS: Final = HistoryView(
    "operations",
    "Operations that have ended. The engine's own table has the same name: say history.operations for this one.",
    (
        C("operation_id", "operation_id", "Identity of the operation."),
        C("kind", "kind", "What was asked for."),
        C("target_kind", "target_kind", "vm, host or cluster."),
        C("target_name", "target_name", "Name of what it changed, at the time."),
        C("status", "status", "succeeded or failed."),
        C("reason", "reason", "Why it failed, for a person."),
        C("error_code", "error_code", "Why it failed, for a program."),
        C("request_id", "request_id", "What the client called its request, where it said so."),
        C("created_at", "created_at", "When it was accepted, UTC."),
        C("started_at", "started_at", "When work began, UTC, where that is told apart."),
        C("finished_at", "finished_at", "When it ended, UTC."),
        C("seconds", "epoch(finished_at - created_at)", "From acceptance to end."),
    ),
    "from operations_history",
)

_MIGRATIONS: Final = HistoryView(
    "migrations",
    "Live migrations: one row for each that began to copy or ended, with how and why it ended.",
    (
        C("vm_id", "vm_id", "Identity of the VM."),
        C("vm_name", "vm_name", "Its name at the time."),
        C("from_host", "from_host", "Where it came from."),
        C("to_host", "to_host", "Where it was to go."),
        C("reason", "reason", "Why it was to move: asked, balancing, maintenance, …"),
        C("started_at", "started_at", "When copying began; NULL: it never did, or that event was erased."),
        C("ended_at", "ended_at", "When it ended; NULL: it has not."),
        C("seconds", "epoch(ended_at - started_at)", "From the beginning of copying to the end."),
        C("outcome", "outcome", "succeeded, failed, cancelled, in doubt or running."),
        C("why", "why", "Why it failed or was cancelled, in words."),
        C("data_bytes", "data_bytes", "What was copied, bytes, as last told."),
        C("downtime_ms", "downtime_ms", "How long the VM stood still, milliseconds, as the engine was told."),
        C("progress_percent", "progress_percent", "How far it was known to be."),
        C("did_not_converge", "did_not_converge", "It failed while it was copying."),
    ),
    "from (select vm_id, any_value(vm_name) as vm_name, any_value(details->>'from') as from_host,"
    " any_value(details->>'to') as to_host, any_value(details->>'reason') as reason,"
    " min(log_time) filter (code = 'vm_migration_started') as started_at,"
    " max(log_time) filter (code in ('vm_migrated', 'vm_migration_failed', 'vm_migration_cancelled')) as ended_at,"
    " case when bool_or(code = 'vm_migrated') then 'succeeded' when bool_or(code = 'vm_migration_failed') then 'failed'"
    " when bool_or(code = 'vm_migration_cancelled') then 'cancelled'"
    " when bool_or(code = 'vm_migration_unsettled') then 'in doubt' else 'running' end as outcome,"
    " max(coalesce(details->>'why', message))"
    " filter (code in ('vm_migration_failed', 'vm_migration_cancelled')) as why,"
    " max(coalesce(details->>'bytes', details->>'data_processed_bytes')::BIGINT) as data_bytes,"
    " max((details->>'downtime_ms')::BIGINT) filter (code = 'vm_migrated') as downtime_ms,"
    " max((details->>'progress_percent')::BIGINT) as progress_percent,"
    " bool_or(code = 'vm_migration_failed') and bool_or(code = 'vm_migration_started') as did_not_converge"
    " from (select *, coalesce(sum(ends) over (partition by vm_id order by log_time, seq"
    " rows between unbounded preceding and 1 preceding), 0) as attempt from (select *, (code in ('vm_migrated',"
    " 'vm_migration_failed', 'vm_migration_cancelled'))::INTEGER as ends from events where code in"
    " ('vm_migration_started', 'vm_migration_progressed', 'vm_migration_unsettled', 'vm_migrated',"
    " 'vm_migration_failed', 'vm_migration_cancelled'))) group by vm_id, attempt)",
)

_BAD_HOST: Final = (
    "'non_responsive', 'non_operational', 'error', 'down', 'kdumping', 'reboot', 'install_failed'"
)

_HOST_DOWNTIME: Final = HistoryView(
    "host_downtime",
    "Each time that a host was out of service, with the status and how many VMs ran there when it began.",
    (
        C("host_name", "host_name", "The host."),
        C("cluster_name", "cluster_name", "Its cluster."),
        C(
            "status",
            "status",
            "non_responsive, non_operational, error, down, kdumping, reboot or install_failed.",
        ),
        C("down_from", "valid_from", "When the status began, UTC."),
        C("down_until", "valid_until", "When it ended; NULL: it has not."),
        C("seconds", "epoch(valid_until - valid_from)::BIGINT", "How long."),
        C(
            "affected_vms",
            "(select count(distinct p.vm_id) from placements p where p.host_name = s.host_name"
            " and p.placed_at <= s.valid_from and (p.left_at is null or p.left_at >= s.valid_from))",
            "VMs that were placed there when it began.",
        ),
    ),
    "from (select name as host_name, cluster_name, status, removed, valid_from, lead(valid_from) over"
    " (partition by object_id order by valid_from) as valid_until from configuration_history"
    f" where object_kind = 'host') s where not removed and status in ({_BAD_HOST})",
)

_VM_AVAILABILITY: Final = HistoryView(
    "vm_availability",
    "How many seconds of each day of UTC each VM was observed, and up.",
    (
        C("history_datetime", "history_datetime", "The day."),
        C("vm_id", "vm_id", "Identity of the VM."),
        C("vm_name", "any_value(vm_name)", "Its newest name."),
        C(
            "up_seconds",
            "coalesce(sum(seconds_in_status) filter (lower(vm_status) = 'up'), 0)::BIGINT",
            "Seconds up.",
        ),
        C("observed_seconds", "sum(seconds_in_status)::BIGINT", "Seconds observed in any status."),
        C(
            "unobserved_seconds",
            "86400 - sum(seconds_in_status)::BIGINT",
            "Seconds of the day in which no host told of it.",
        ),
        C(
            "up_percent",
            "100.0 * coalesce(sum(seconds_in_status) filter (lower(vm_status) = 'up'), 0) / 86400",
            "Share of the whole day that it is known to have been up.",
        ),
    ),
    "from statistics_vms_resources_usage_daily group by history_datetime, vm_id",
)

_WASTE: Final = HistoryView(
    "waste",
    f"What each VM has reserved against what it used, over the hours kept ({HOURLY_KEPT_S // 86400} days).",
    (
        C("vm_id", "c.vm_id", "Identity of the VM."),
        C("vm_name", "c.vm_name", "Its name."),
        C("cluster_name", "c.cluster_name", "Its cluster."),
        C("hours", "u.hours", "Hours with samples."),
        C("reserved_vcpus", "c.cpus", "Virtual CPUs that it has."),
        C("used_vcpus", "round(c.cpus * u.cpu / 100, 3)", "Of these, used on average."),
        C("peak_vcpus", "round(c.cpus * u.max_cpu / 100, 3)", "Of these, used at the busiest sample."),
        C("reserved_memory_mb", "c.memory_size_mb", "Memory that it has, MiB."),
        C("used_memory_mb", "u.memory", "Memory used on average, MiB."),
        C("peak_memory_mb", "u.max_memory", "Memory used at most, MiB."),
        C(
            "wasted_vcpus",
            "round(c.cpus * (1 - u.max_cpu / 100), 3)",
            "Virtual CPUs that not even the peak used.",
        ),
        C(
            "wasted_memory_mb",
            "greatest(c.memory_size_mb - u.max_memory, 0)",
            "Memory that not even the peak used, MiB.",
        ),
    ),
    # Hours are bits of their day: a machine that moved within an hour has two rows of it, and counting distinct hours
    # would take as many groups as there are rows.
    "from configuration_history_vms c join (select vm_id, sum(bit_count(hours))::BIGINT as hours,"
    " sum(cpu) / sum(samples) as cpu, max(max_cpu) as max_cpu, (sum(memory) // sum(samples))::BIGINT as memory,"
    " max(max_memory) as max_memory from (select vm_id, bit_or(1 << hour(history_datetime)) as hours,"
    " sum(cpu_usage_percent * sample_count) as cpu, sum(sample_count) as samples,"
    " max(max_cpu_usage_percent) as max_cpu, sum(memory_used_mb::HUGEINT * sample_count) as memory,"
    " max(max_memory_used_mb) as max_memory from statistics_vms_resources_usage_hourly where sample_count > 0"
    " group by vm_id, history_datetime::DATE)"
    " group by vm_id) u using (vm_id) where c.valid_until is null and c.delete_date is null",
)

_CAPACITY_FORECAST: Final = HistoryView(
    "capacity_forecast",
    "When each cluster will be full at the growth of its daily averages: a straight line, no seasons.",
    (
        C("cluster_name", "cluster_name", "The cluster."),
        C("days", "days", "Days that the line is drawn through."),
        C(
            "memory_percent",
            "round(memory_now, 2)",
            "Memory in use on the newest day, by the line; of a single day, as it was.",
        ),
        C(
            "memory_percent_per_day",
            "round(memory_slope, 4)",
            "Its growth a day; NULL: fewer than two days are known.",
        ),
        C(
            "memory_full_on",
            "case when memory_slope > 1e-6 and (100 - memory_now) / memory_slope < 36500 then"
            " newest + ceil(greatest(100 - memory_now, 0) / memory_slope)::INTEGER end",
            "The day on which memory is used up; NULL: not within a hundred years, or fewer than two days are known.",
        ),
        C("cpu_percent", "round(cpu_now, 2)", "CPU in use on the newest day, likewise."),
        C("cpu_percent_per_day", "round(cpu_slope, 4)", "Its growth a day."),
        C(
            "cpu_full_on",
            "case when cpu_slope > 1e-6 and (100 - cpu_now) / cpu_slope < 36500 then"
            " newest + ceil(greatest(100 - cpu_now, 0) / cpu_slope)::INTEGER end",
            "The day on which CPU is used up; NULL as above.",
        ),
    ),
    "from (select cluster_name, count(*) as days, max(day) as newest,"
    " "
    # Of one point DuckDB gives a slope that is no number.
    " case when count(memory) > 1 then regr_slope(memory, n) end as memory_slope,"
    " coalesce(regr_intercept(memory, n) + memory_slope * max(n), max_by(memory, n)) as memory_now,"
    " case when count(cpu) > 1 then regr_slope(cpu, n) end as cpu_slope,"
    " coalesce(regr_intercept(cpu, n) + cpu_slope * max(n), max_by(cpu, n)) as cpu_now"
    " from (select c.cluster_name, d.history_datetime as day, (d.history_datetime - date '2020-01-01')::DOUBLE as n,"
    " sum(d.memory_usage_percent * d.sample_count * c.memory_size_mb)"
    " / sum(d.sample_count * c.memory_size_mb) as memory,"
    " sum(d.cpu_usage_percent * d.sample_count * c.number_of_cores) / sum(d.sample_count * c.number_of_cores) as cpu"
    " from statistics_hosts_resources_usage_daily d join (select * from configuration_history_hosts"
    " where valid_until is null and delete_date is null) c using (host_name) where d.sample_count > 0"
    " group by all) group by cluster_name)",
)

OWN_VIEWS: Final = (
    *_CONFIGURATION_VIEWS,
    _CALENDAR,
    _PLACEMENTS,
    _SAMPLE_LOSSES,
    _SAMPLE_GAPS,
    _UNTRUSTED_VALUES,
    _UNTRUSTED_GUESTS,
    _OPERATIONS,
    _MIGRATIONS,
    _HOST_DOWNTIME,
    _VM_AVAILABILITY,
    _WASTE,
    _CAPACITY_FORECAST,
)
