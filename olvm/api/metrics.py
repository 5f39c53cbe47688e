"""The data center as Prometheus metrics, text format 0.0.4: names, types, units and labels.

Names are Prometheus's way: base units (bytes, seconds, ratios of 1), `_total` for counters, the unit last.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Literal, TypeVar

from olvm.api import live
from olvm.api.live import Live
from olvm.model.client_protocol import SiloStatus
from olvm.model.limits import SQL_SHORT_S

if TYPE_CHECKING:
    from olvm.api.data_center import DataCenter

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Kind = Literal["gauge", "counter"]
T = TypeVar("T")
Family = tuple[str, Kind, str, Callable[[T], float | int | None]]
Sample = tuple[Mapping[str, str], float | int | None]

OPERATIONS = "select kind, status, count(*) from operations group by all order by all"
EVENTS = "select severity, count(*) from events group by all order by all"
NEWEST_EVENT = "select coalesce(max(seq), 0) from events"

_LIVE: tuple[Family[Live], ...] = (
    ("cpus", "gauge", "CPUs: threads of a host, vCPUs of a machine.", lambda one: one.cpus),
    ("memory_bytes", "gauge", "Memory that it has.", lambda one: one.memory_bytes),
    ("memory_used_bytes", "gauge", "Memory in use, by the newest sample.", lambda one: one.memory_used_bytes),
    (
        "cpu_usage_ratio",
        "gauge",
        "Share of its CPUs in use, 0 to 1, by the newest sample.",
        lambda one: None if one.cpu_percent is None else one.cpu_percent / 100,
    ),
    ("network_received_bytes_total", "counter", "Received since its start.", lambda one: one.received_bytes),
    ("network_sent_bytes_total", "counter", "Sent since its start.", lambda one: one.sent_bytes),
    ("sample_timestamp_seconds", "gauge", "When the newest sample was taken.", lambda one: one.sampled_s),
)
_SILO: tuple[Family[SiloStatus], ...] = (
    ("up", "gauge", "1 if it answers.", lambda silo: int(silo.alive)),
    ("actors", "gauge", "Actors in it.", lambda silo: silo.actors),
    ("queue_length", "gauge", "Messages that wait for their turn.", lambda silo: silo.queue_length),
    (
        "unacknowledged",
        "gauge",
        "Messages that other silos have not taken.",
        lambda silo: silo.unacknowledged,
    ),
    ("turns_total", "counter", "Messages handled since its start.", lambda silo: silo.turns),
    ("commits_total", "counter", "Commits since its start.", lambda silo: silo.commits),
    ("faults_total", "counter", "Handlers that raised since its start.", lambda silo: silo.faults),
    ("journal_bytes", "gauge", "Size of its journal.", lambda silo: silo.journal_bytes),
    ("resident_memory_bytes", "gauge", "Resident memory of its process.", lambda silo: silo.rss_bytes),
)


def exposition(dc: DataCenter) -> str:
    """All metrics as text. Cost: two looks at history, five at the engine, one at every silo."""
    now_s = time.time()
    lines: list[str] = []
    hosts, vms = live.hosts(dc, now_s), live.vms(dc, now_s)
    _add_live(lines, "host", hosts)
    _add(
        lines,
        "olvm_host_vms_running",
        "gauge",
        "Machines that run on it.",
        ((_labels("host", host), host.vms_running) for host in hosts),
    )
    _add_live(lines, "vm", vms)
    operations = dc.sql(OPERATIONS, timeout=SQL_SHORT_S).rows()
    _add(
        lines,
        "olvm_operations",
        "gauge",
        "Operations on record.",
        (({"kind": kind, "status": status}, count) for kind, status, count in operations),
    )
    events = dc.sql(EVENTS, timeout=SQL_SHORT_S).rows()
    _add(
        lines,
        "olvm_events_kept",
        "gauge",
        "Events that the engine keeps.",
        (({"severity": severity}, count) for severity, count in events),
    )
    newest = dc.sql(NEWEST_EVENT, timeout=SQL_SHORT_S).one()
    _add(lines, "olvm_events_total", "counter", "Events ever, which is the newest one's seq.", [({}, newest)])
    _add_silos(lines, dc.status().silos)
    return "\n".join(lines) + "\n"


def _add_live(lines: list[str], kind: str, found: list[Live]) -> None:
    statuses = (({**_labels(kind, one), "status": one.status}, 1) for one in found)
    _add(lines, f"olvm_{kind}_status", "gauge", "1 with its status as a label.", statuses)
    for name, metric_type, about, value in _LIVE:
        samples = ((_labels(kind, one), value(one)) for one in found)
        _add(lines, f"olvm_{kind}_{name}", metric_type, about, samples)


def _labels(kind: str, one: Live) -> dict[str, str]:
    if kind == "host":
        return {"host": one.name, "cluster": one.cluster}
    return {"vm": one.name, "cluster": one.cluster, "host": one.host}


def _add_silos(lines: list[str], silos: list[SiloStatus]) -> None:
    for name, metric_type, about, value in _SILO:
        samples = (({"silo": silo.name}, value(silo)) for silo in silos)
        _add(lines, f"olvm_silo_{name}", metric_type, about, samples)
    for silo in silos:
        for counter, count in silo.counters.items():
            name = f"olvm_history_{counter.removesuffix('_count')}s_total"
            _add(lines, name, "counter", "By history since its silo's start.", [({}, count)])


def _add(
    lines: list[str],
    name: str,
    metric_type: Kind,
    about: str,
    samples: Iterable[Sample],
) -> None:
    """A family; what is unknown is left out, and so is a family of which nothing is known."""
    known = [f"{name}{_label_text(labels)} {value}" for labels, value in samples if value is not None]
    if known:
        lines += [f"# HELP {name} {about}", f"# TYPE {name} {metric_type}", *known]


def _label_text(labels: Mapping[str, str]) -> str:
    inner = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{inner}}}" if inner else ""


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
