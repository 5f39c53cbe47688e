"""A report as one HTML file that needs nothing else, and as a few lines of text."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from html import escape

from olvm.api.report import Report, Use
from olvm.charts import STYLE, Series, line_chart

PAGE_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --faint: #5c6470; --line: #d8dde3; --page: #fff; --accent: #2563b0;
  --mark: #b0492b; }
@media (prefers-color-scheme: dark) { :root { --ink: #e3e7ec; --faint: #98a1ad; --line: #353c45; --page: #14171b;
  --accent: #74abee; --mark: #e58a6b; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); margin: 0 auto; padding: 1rem;
  max-width: 48rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; } h3 { font-size: 1rem; }
.note { color: var(--faint); }
.wide { overflow-x: auto; margin-bottom: 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
"""
TICKS = 4
LISTED_MAX = 10


def html(report: Report, name: str) -> str:
    """The whole page. `name` is the data center's."""
    title = f"{escape(name)}: {_clock(report.start_s)} to {_clock(report.end_s)}"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{PAGE_STYLE}{STYLE}</style></head>\n<body><h1>{title}</h1>\n"
        + "\n".join(_sections(report))
        + "\n</body></html>\n"
    )


def _sections(report: Report) -> Iterable[str]:
    yield "<h2>Utilisation</h2>" + _utilisation(report)
    yield "<h2>Availability</h2><p class=note>Of the time in which it was observed, least available first.</p>"
    for kind, uses in (("host", report.hosts), ("VM", report.vms)):
        least = sorted(uses, key=lambda use: (use.up_percent, use.name))[:LISTED_MAX]
        yield _table(
            (kind, "up, %", "up", "observed, h:min:s"),
            [(use.name, use.up_percent, _duration(use.up_s), _duration(use.observed_s)) for use in least],
        )
    if report.downtime:
        yield "<h3>Hosts out of service</h3>" + _table(
            ("host", "status", "from, UTC", "until, UTC", "VMs there"), report.downtime
        )
    yield "<h2>Busiest VMs</h2>" + _table(
        ("VM", "vCPUs", "used on average", "used at most"),
        [(use.name, use.cpus, use.cpus_used, use.cpus_used_max) for use in busiest(report)],
    )
    yield "<h2>Most wasteful VMs</h2><p class=note>What not even the busiest moment used.</p>" + _table(
        ("VM", "vCPUs never used", "of vCPUs", "MiB never used", "of MiB"),
        [
            (use.name, use.cpus_never_used, use.cpus, _whole(use.mib_never_used), _whole(use.memory_mib))
            for use in most_wasteful(report)
        ],
    )
    yield "<h2>Events</h2>" + _table(("severity", "events"), report.event_counts)
    if report.notable_events:
        yield _table(("UTC", "severity", "what"), report.notable_events)


def busiest(report: Report) -> list[Use]:
    """The VMs that used most CPUs on average."""
    known = [use for use in report.vms if use.cpus_used is not None]
    return sorted(known, key=lambda use: (-(use.cpus_used or 0.0), use.name))[:LISTED_MAX]


def most_wasteful(report: Report) -> list[Use]:
    """The VMs with most memory that was never used."""
    known = [use for use in report.vms if use.mib_never_used is not None]
    return sorted(known, key=lambda use: (-(use.mib_never_used or 0.0), use.name))[:LISTED_MAX]


def _utilisation(report: Report) -> str:
    if not any(cpu is not None for cpu, _ in report.utilisation):
        return "<p>No host told anything.</p>"
    span_s = report.end_s - report.start_s
    step_s = span_s / len(report.utilisation)
    places = [report.start_s + (bucket + 0.5) * step_s for bucket in range(len(report.utilisation))]
    ticks = [report.start_s + span_s * (n + 0.5) / TICKS for n in range(TICKS)]
    chart = line_chart(
        [
            Series("CPU", [(at, row[0]) for at, row in zip(places, report.utilisation, strict=True)]),
            Series("memory", [(at, row[1]) for at, row in zip(places, report.utilisation, strict=True)]),
        ],
        x_labels=[(at, _clock(at)) for at in ticks],
        y_axis="average of hosts, %",
        y_max=100,
    )
    return chart + "<p class=note>Full line: CPU. Dashed line: memory. A gap: no host told anything.</p>"


def _table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    if not rows:
        return "<p>None.</p>"
    head = "".join(f"<th>{escape(text)}</th>" for text in headings)
    body = "".join("<tr>" + "".join(f"<td>{_cell(value)}</td>" for value in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(value: object) -> str:
    """Names and messages may be a guest's choice."""
    return f"{value:,.1f}" if isinstance(value, float) else escape("" if value is None else str(value))


def summary(report: Report) -> list[str]:
    """The report in a few lines."""
    cpu = [value for value, _ in report.utilisation if value is not None]
    memory = [value for _, value in report.utilisation if value is not None]
    lines = [f"{_clock(report.start_s)} to {_clock(report.end_s)}"]
    lines.append(f"hosts: CPU {_average(cpu)}, memory {_average(memory)} on average")
    for kind, uses in (("hosts", report.hosts), ("VMs", report.vms)):
        below = sum(use.up_percent < 100 for use in uses)
        lines.append(f"{kind}: {len(uses)} observed, {below} of them not always up")
    if report.downtime:
        lines.append(f"times that a host was out of service: {len(report.downtime)}")
    if busy := busiest(report):
        lines.append("busiest: " + ", ".join(f"{use.name} ({use.cpus_used:.1f} vCPUs)" for use in busy[:3]))
    if wasteful := most_wasteful(report):
        words = (f"{use.name} ({use.mib_never_used:,.0f} MiB never used)" for use in wasteful[:3])
        lines.append("most wasteful: " + ", ".join(words))
    counts = ", ".join(f"{count} {severity}" for severity, count in report.event_counts)
    lines.append(f"events: {counts or 'none'}")
    return lines


def _duration(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{second:02}"


def _whole(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _average(values: list[float]) -> str:
    return f"{sum(values) / len(values):.1f} %" if values else "unknown"


def _clock(at_s: float) -> str:
    return time.strftime("%m-%d %H:%M", time.localtime(at_s))
