"""What a report on the last hours tells: its questions to history and the engine, and their answers as plain values.

All names of tables and columns that a report uses stand here.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import msgspec

from olvm.model.errors import BadInput
from olvm.model.limits import NS_PER_S

if TYPE_CHECKING:
    from olvm.api.data_center import DataCenter

BUCKETS = 96  # of 15 minutes in a day
LISTED_MAX = 10
EVENTS_LISTED_MAX = 50
SPAN_S_MAX = 366 * 86400.0
TIMEOUT_S = 300.0

Row = tuple[Any, ...]

_HOSTS = "statistics_hosts_resources_usage_samples"
_VMS = "statistics_vms_resources_usage_samples"
_SPAN = "history_datetime >= $1::TIMESTAMP and history_datetime < $2::TIMESTAMP"

UTILISATION = f"""
select floor((epoch(history_datetime) - $3) / $4)::INTEGER as bucket, avg(cpu_usage_percent), avg(memory_usage_percent)
from {_HOSTS} where {_SPAN} group by 1 order by 1
"""  # noqa: S608 - names of ours
_AVAILABILITY = """
select {name}, 100.0 * count(*) filter (lower({status}) = 'up') / count(*) as up_percent, count(*) as samples
from {view} where {span} group by 1 order by 2, 1
"""
HOST_AVAILABILITY = _AVAILABILITY.format(name="host_name", status="host_status", view=_HOSTS, span=_SPAN)
VM_AVAILABILITY = _AVAILABILITY.format(name="vm_name", status="vm_status", view=_VMS, span=_SPAN)
BUSIEST = f"""
select v.name, v.vcpus, v.vcpus * avg(s.cpu_usage_percent) / 100 as used,
    v.vcpus * max(s.cpu_usage_percent) / 100 as peak
from vms v join {_VMS} s on s.vm_id = v.id where {_SPAN} group by v.id, v.name, v.vcpus
having used is not null order by used desc, v.name limit {LISTED_MAX}
"""  # noqa: S608
WASTEFUL = f"""
select v.name, v.vcpus * (1 - max(s.cpu_usage_percent) / 100) as vcpus_never_used, v.vcpus,
    greatest(v.memory_bytes / 1048576 - max(s.memory_used_mb), 0) as mib_never_used, v.memory_bytes / 1048576 as mib
from vms v join {_VMS} s on s.vm_id = v.id where {_SPAN} group by v.id, v.name, v.vcpus, v.memory_bytes
having mib_never_used is not null order by mib_never_used desc, v.name limit {LISTED_MAX}
"""  # noqa: S608
_EVENTS = "from history.events where log_time >= $1::TIMESTAMP and log_time < $2::TIMESTAMP"
EVENT_COUNTS = f"select severity, count(*) {_EVENTS} group by 1 order by 1"
NOTABLE_EVENTS = (
    f"select log_time, severity, message {_EVENTS} and severity <> 'normal'"
    f" order by log_time desc limit {EVENTS_LISTED_MAX}"
)


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Times in seconds since 1970. Rows are as the questions above give them."""

    start_s: float
    end_s: float
    # One for each of BUCKETS, with None where no host told: CPU and memory of hosts in percent.
    utilisation: list[tuple[float | None, float | None]]
    host_availability: list[Row]
    vm_availability: list[Row]
    busiest: list[Row]
    wasteful: list[Row]
    event_counts: list[Row]
    notable_events: list[Row]


def report(dc: DataCenter, span_s: float, end_ns: int) -> Report:
    """What the `span_s` seconds before `end_ns` were like. Raises BadInput for a span that is none."""
    if not 1 <= span_s <= SPAN_S_MAX:
        raise BadInput(f"a report spans 1 s to 366 days, not {span_s:g} s")
    end_s = end_ns / NS_PER_S
    start_s = end_s - span_s
    span = [_timestamp(start_s), _timestamp(end_s)]

    def ask(sql: str, *more: object) -> list[Row]:
        return dc.sql(sql, [*span, *more], timeout=TIMEOUT_S).rows()

    by_bucket = {row[0]: (row[1], row[2]) for row in ask(UTILISATION, start_s, span_s / BUCKETS)}
    return Report(
        start_s=start_s,
        end_s=end_s,
        utilisation=[by_bucket.get(bucket, (None, None)) for bucket in range(BUCKETS)],
        host_availability=ask(HOST_AVAILABILITY),
        vm_availability=ask(VM_AVAILABILITY),
        busiest=ask(BUSIEST),
        wasteful=ask(WASTEFUL),
        event_counts=ask(EVENT_COUNTS),
        notable_events=ask(NOTABLE_EVENTS),
    )


def _timestamp(at_s: float) -> str:
    return dt.datetime.fromtimestamp(at_s, dt.UTC).replace(tzinfo=None).isoformat()
