"""What a report on the last hours tells: its questions to history, and their answers as plain values.

All names of views and columns that a report uses stand here.

Rules:
1. A short span is asked of the samples, a longer one of the hours, a very long one of the days. What has not been
   rolled up yet is asked of the finer grain, so that a report ends now and never at the last full hour.
2. Seconds are of what was observed. Where nothing told of an object, it is neither up nor down.
"""

# Statements are built from names of ours and from numbers.
# ruff: noqa: S608

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from olvm.history.bounds import HOURLY_KEPT_S, SAMPLE_HOLDS_S
from olvm.model.errors import BadInput
from olvm.model.limits import NS_PER_S

if TYPE_CHECKING:
    from olvm.api.data_center import DataCenter

BUCKETS_MAX = 96  # of a chart: 15 minutes in a day
EVENTS_LISTED_MAX = 50
SPAN_S_MAX = 5 * 366 * 86400.0
SAMPLES_SPAN_S_MAX = 6 * 3600.0  # up to here a report is worth reading every sample
ROWS_MAX = 100_000
TIMEOUT_S = 300.0

Row = tuple[Any, ...]


class _Kind(NamedTuple):
    """One kind of object, by the names of its columns; `newest` is its configuration, joined as `c` by `key`."""

    view: str
    key: str
    status: str
    memory: str
    name: str
    newest: str
    facts: str


_NEWEST = "(select * from {} qualify row_number() over (partition by {} order by valid_from desc) = 1)"
HOST = _Kind(
    "statistics_hosts_resources_usage",
    "host_name",
    "host_status",
    "memory_usage_percent",
    "u.key",
    _NEWEST.format("configuration_history_hosts", "host_name"),
    "c.number_of_cores as cpus, c.memory_size_mb as memory_mib",
)
VM = _Kind(
    "statistics_vms_resources_usage",
    "vm_id",
    "vm_status",
    "memory_used_mb",
    "coalesce(c.vm_name, u.key)",
    _NEWEST.format("configuration_history_vms", "vm_id"),
    "c.cpus as cpus, c.memory_size_mb as memory_mib",
)


class Piece(NamedTuple):
    """A part of the span in one grain: from `start` on and before `end`, in seconds since 1970."""

    grain: str
    start_s: float
    end_s: float


_GRAIN_S = {"daily": 86400, "hourly": 3600}
# The newest row that rolled-up time has; what comes after it is not rolled up.
_ROLLED_UP = "select epoch(max(history_datetime)) from {view}_{grain} where history_datetime >= $1::TIMESTAMP"
_OF_ROLLUPS = (
    "select {key} as key, {status} as status, epoch(history_datetime::TIMESTAMP) as at_s, seconds_in_status as seconds,"
    " sample_count as samples, cpu_usage_percent as cpu, max_cpu_usage_percent as max_cpu, {memory} as memory,"
    " max_{memory} as max_memory from {view}_{grain} where {span}"
)
_OF_SAMPLES = (
    "select {key} as key, {status} as status, epoch(history_datetime) as at_s, greatest(0, least(epoch(lead("
    "history_datetime, 1, make_timestamp({end_us})) over (partition by {key} order by history_datetime)"
    " - history_datetime), {holds_s})) as seconds, 1 as samples, cpu_usage_percent as cpu,"
    " cpu_usage_percent as max_cpu, {memory} as memory, {memory} as max_memory from {view}_samples where {span}"
)
_SPAN = "history_datetime >= make_timestamp({start_us}) and history_datetime < make_timestamp({end_us})"
_AVERAGE = "sum({0} * samples) / nullif(sum(samples) filter ({0} is not null), 0)"
_USES = (
    "select {name} as name, {facts}, u.* exclude (key) from (select key,"
    " coalesce(sum(seconds) filter (lower(status) = 'up'), 0)::DOUBLE as up_s, sum(seconds)::DOUBLE as observed_s,"
    f" {_AVERAGE.format('cpu')} as cpu_percent, max(max_cpu)::DOUBLE as cpu_percent_max,"
    f" {_AVERAGE.format('memory')} as memory, max(max_memory)::DOUBLE as memory_max"
    " from ({readings}) group by key) u left join {newest} c on c.{key} = u.key order by 1"
)
_UTILISATION = (
    f"select floor((at_s - $1) / $2)::INTEGER as bucket, {_AVERAGE.format('cpu')}, {_AVERAGE.format('memory')}"
    " from ({readings}) where samples > 0 group by 1 order by 1"
)
DOWNTIME = (
    "select host_name, status, down_from, down_until, affected_vms from host_downtime"
    " where down_from < $2::TIMESTAMP and (down_until is null or down_until >= $1::TIMESTAMP) order by down_from desc"
    f" limit {EVENTS_LISTED_MAX}"
)
_EVENTS = "from history.events where log_time >= $1::TIMESTAMP and log_time < $2::TIMESTAMP"
EVENT_COUNTS = f"select lower(severity), count(*) {_EVENTS} group by 1 order by 1"
NOTABLE_EVENTS = (
    f"select log_time, lower(severity), message {_EVENTS} and lower(severity) <> 'normal'"
    f" order by log_time desc limit {EVENTS_LISTED_MAX}"
)


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """Of a host or a VM over the span. CPU in percent of its CPUs; memory of a host in percent, of a VM in MiB."""

    name: str
    cpus: int | None  # None: its configuration is not known
    memory_mib: int | None
    up_s: float
    observed_s: float
    cpu_percent: float | None
    cpu_percent_max: float | None
    memory: float | None
    memory_max: float | None

    @property
    def up_percent(self) -> float:
        return 100 * self.up_s / self.observed_s if self.observed_s else 0.0

    @property
    def cpus_used(self) -> float | None:
        return _product(self.cpus, self.cpu_percent)

    @property
    def cpus_used_max(self) -> float | None:
        return _product(self.cpus, self.cpu_percent_max)

    @property
    def cpus_never_used(self) -> float | None:
        return None if self.cpus_used_max is None or self.cpus is None else self.cpus - self.cpus_used_max

    @property
    def mib_never_used(self) -> float | None:
        """Of a VM."""
        if self.memory_mib is None or self.memory_max is None:
            return None
        return max(self.memory_mib - self.memory_max, 0.0)


def _product(cpus: int | None, percent: float | None) -> float | None:
    return None if cpus is None or percent is None else cpus * percent / 100


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Times in seconds since 1970."""

    start_s: float
    end_s: float
    grain: str  # the coarsest that it was asked of: samples, hourly or daily
    # In equal steps over the span, with None where no host told: CPU and memory of hosts in percent.
    utilisation: list[tuple[float | None, float | None]]
    hosts: list[Use]
    vms: list[Use]
    downtime: list[Row]
    event_counts: list[Row]
    notable_events: list[Row]


def report(dc: DataCenter, span_s: float, end_ns: int) -> Report:
    """What the `span_s` seconds before `end_ns` were like, or a little more: hours and days are whole.

    Raises BadInput for a span that is none. Cost: reads the span's rows of hosts twice and of VMs once.
    """
    if not 1 <= span_s <= SPAN_S_MAX:
        raise BadInput(f"a report spans 1 s to {SPAN_S_MAX / 86400:g} days, not {span_s:g} s")
    end_s = end_ns / NS_PER_S
    grain = _grain(span_s)
    start_s = end_s - span_s
    start_s -= start_s % _GRAIN_S.get(grain, 1)
    span = [_timestamp(start_s), _timestamp(end_s)]
    bucket_count = max(1, min(BUCKETS_MAX, int((end_s - start_s) / _GRAIN_S.get(grain, 1))))
    bucket_s = (end_s - start_s) / bucket_count

    def ask(sql: str, parameters: list[Any]) -> list[Row]:
        return dc.sql(sql, parameters, timeout=TIMEOUT_S, limit=ROWS_MAX).rows()

    def uses(kind: _Kind, pieces: list[Piece]) -> list[Use]:
        sql = _USES.format(readings=_readings(kind, pieces), **kind._asdict())
        rows = dc.sql(sql, timeout=TIMEOUT_S, limit=ROWS_MAX).dicts()
        return [msgspec.convert(row, Use) for row in rows]

    host_pieces = _pieces(dc, HOST, grain, start_s, end_s)
    by_bucket = {
        row[0]: (row[1], row[2])
        for row in ask(_UTILISATION.format(readings=_readings(HOST, host_pieces)), [start_s, bucket_s])
    }
    return Report(
        start_s=start_s,
        end_s=end_s,
        grain=grain,
        utilisation=[by_bucket.get(bucket, (None, None)) for bucket in range(bucket_count)],
        hosts=uses(HOST, host_pieces),
        vms=uses(VM, _pieces(dc, VM, grain, start_s, end_s)),
        downtime=ask(DOWNTIME, span),
        event_counts=ask(EVENT_COUNTS, span),
        notable_events=ask(NOTABLE_EVENTS, span),
    )


def _grain(span_s: float) -> str:
    if span_s <= SAMPLES_SPAN_S_MAX:
        return "samples"
    return "hourly" if span_s <= HOURLY_KEPT_S - 86400 else "daily"


def _pieces(dc: DataCenter, kind: _Kind, grain: str, start_s: float, end_s: float) -> list[Piece]:
    """Rule 1: the span from the coarsest grain to the samples, each from where the one before ends."""
    grains = ["daily", "hourly"] if grain == "daily" else [grain] if grain == "hourly" else []
    pieces = []
    for one in grains:
        asked = dc.sql(
            _ROLLED_UP.format(view=kind.view, grain=one), [_timestamp(start_s)], timeout=TIMEOUT_S
        ).one()
        until_s = start_s if asked is None else asked + _GRAIN_S[one]
        pieces.append(Piece(one, start_s, until_s))
        start_s = until_s
    return [*pieces, Piece("samples", start_s, max(start_s, end_s))]


def _readings(kind: _Kind, pieces: list[Piece]) -> str:
    parts = []
    for piece in pieces:
        bounds = {"start_us": int(piece.start_s * 1e6), "end_us": int(piece.end_s * 1e6)}
        form = _OF_SAMPLES if piece.grain == "samples" else _OF_ROLLUPS
        span = _SPAN.format(**bounds)
        parts.append(
            form.format(**kind._asdict(), grain=piece.grain, span=span, holds_s=SAMPLE_HOLDS_S, **bounds)
        )
    return " union all ".join(parts)


def _timestamp(at_s: float) -> str:
    return dt.datetime.fromtimestamp(at_s, dt.UTC).replace(tzinfo=None).isoformat()
