"""Hosts and machines as they are now: the engine's rows, each with its newest sample.

All names of tables and columns of history that the live faces use stand here.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import msgspec

from olvm.model.limits import SQL_SHORT_S

if TYPE_CHECKING:
    from olvm.api.data_center import DataCenter

# A sample older than this tells nothing of now; samples are taken every 15 s.
SAMPLE_AGE_S_MAX = 60.0
MIB = 1 << 20
ROWS_MAX = 100_000

_SAMPLES = """
select {key}, epoch(history_datetime) as at_s, cpu_usage_percent, memory_used_mb,
    receive_rate_bytes_per_second, transmit_rate_bytes_per_second, received_total_byte, transmitted_total_byte{more}
from {view} where history_datetime >= ?
qualify row_number() over (partition by {key} order by history_datetime desc) = 1
"""
HOST_SAMPLES = _SAMPLES.format(
    key="host_name", view="statistics_hosts_resources_usage_samples", more=", active_vms"
)
VM_SAMPLES = _SAMPLES.format(key="vm_id", view="statistics_vms_resources_usage_samples", more="")
HOSTS = "select name as key, name, cluster, status, '' as host, cpus, memory_bytes from hosts order by name"
VMS = (
    "select id as key, name, cluster, status, coalesce(host, '') as host, vcpus as cpus, memory_bytes"
    " from vms order by name"
)


class Live(msgspec.Struct, frozen=True, kw_only=True):
    """A host or a machine. What no sample of the last minute tells is None."""

    key: str
    name: str
    cluster: str
    status: str
    host: str  # of a machine
    cpus: int
    memory_bytes: int
    sampled_s: float | None = None
    cpu_percent: float | None = None
    memory_used_bytes: int | None = None
    received_bytes_per_s: int | None = None
    sent_bytes_per_s: int | None = None
    received_bytes: int | None = None
    sent_bytes: int | None = None
    vms_running: int | None = None  # on a host


def hosts(dc: DataCenter, now_s: float) -> list[Live]:
    return _joined(dc, HOSTS, HOST_SAMPLES, now_s)


def vms(dc: DataCenter, now_s: float) -> list[Live]:
    return _joined(dc, VMS, VM_SAMPLES, now_s)


def _joined(dc: DataCenter, engine_sql: str, history_sql: str, now_s: float) -> list[Live]:
    """Joined here: a join in SQL would copy the engine's table to history for every look."""
    since = dt.datetime.fromtimestamp(now_s - SAMPLE_AGE_S_MAX, dt.UTC).replace(tzinfo=None).isoformat()
    sampled = dc.sql(history_sql, [since], timeout=SQL_SHORT_S, limit=ROWS_MAX)
    sample_by_key = {row[0]: row[1:] for row in sampled.rows()}
    rows = dc.sql(engine_sql, timeout=SQL_SHORT_S, limit=ROWS_MAX).dicts()
    return [_live(row, sample_by_key.get(row["key"])) for row in rows]


def _live(row: dict[str, Any], sample: tuple[Any, ...] | None) -> Live:
    if sample is None:
        return Live(**row)
    at_s, cpu, memory_mb, received_rate, sent_rate, received, sent, *active = sample
    return Live(
        **row,
        sampled_s=at_s,
        cpu_percent=cpu,
        memory_used_bytes=None if memory_mb is None else memory_mb * MIB,
        received_bytes_per_s=received_rate,
        sent_bytes_per_s=sent_rate,
        received_bytes=received,
        sent_bytes=sent,
        vms_running=active[0] if active else None,
    )
