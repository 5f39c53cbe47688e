"""A grid's results as one HTML file that needs nothing else, and as a fragment for notebooks.

Decides what is said and in which order; which policy is better is decided in `comparison`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from olvm.experiments.grids.comparison import Comparison, Pair, Scenario
from olvm.experiments.grids.plots import Row, dot_plot, shown
from olvm.experiments.grids.results import Results
from olvm.model.errors import BadInput

FAILURES_SHOWN_MAX = 20
AXIS: dict[str, str] = {
    "hosts_peak": "hosts in use at once, at most",
    "hosts_used": "hosts that ever held a VM",
    "rejected": "VMs refused",
    "wait_s_total": "seconds waited, all VMs together",
    "wait_s_max": "seconds waited, at most",
    "regret": "hosts above the bound by capacity",
    "esv": "energy in kWh times SLAV",
    "energy_kwh": "energy, kWh",
    "slav": "SLAV: SLATAH times PDM",
    "slatah_percent": "SLATAH: % of hosts' active time in which they gave less than was asked for",
    "pdm_percent": "PDM: % of what was asked for that migrations kept from their machines",
    "migrations": "migrations",
    "host_shutdowns": "times that a host was switched off",
}
_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --faint: #6b7380; --line: #d8dde3; --page: #fff; --accent: #2563b0;
  --mark: #b0492b; }
@media (prefers-color-scheme: dark) { :root { --ink: #e3e7ec; --faint: #98a1ad; --line: #353c45; --page: #14171b;
  --accent: #74abee; --mark: #e58a6b; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); margin: 0 auto; padding: 1rem;
  max-width: 60rem; }
.olvm-grid { color: var(--ink, inherit); }
.olvm-grid h1 { font-size: 1.5rem; } .olvm-grid h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.olvm-grid .wide { overflow-x: auto; }
.olvm-grid table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
.olvm-grid th, .olvm-grid td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid var(--line, #ccc); }
.olvm-grid th:first-child, .olvm-grid td:first-child, .olvm-grid .text { text-align: left; }
.olvm-grid svg { width: 100%; max-width: 760px; height: auto; display: block; margin: .6rem 0; }
.olvm-grid svg text { font: 13px system-ui, sans-serif; fill: var(--ink, currentColor); }
.olvm-grid svg .tick, .olvm-grid svg .axis { fill: var(--faint, gray); }
.olvm-grid svg .grid { stroke: var(--line, #ccc); stroke-width: 1; }
.olvm-grid svg .mark { stroke: var(--mark, #b0492b); stroke-width: 1.5; stroke-dasharray: 5 4; }
.olvm-grid svg .bar { stroke: var(--accent, #2563b0); stroke-width: 2; }
.olvm-grid svg .value { fill: var(--accent, #2563b0); }
.olvm-grid svg .dot { fill: var(--accent, #2563b0); opacity: .3; }
.olvm-grid .note { color: var(--faint, gray); }
"""


def write_report(results: Results, path: Path, comparison: Comparison) -> None:
    """Raises BadInput where the file cannot be written."""
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(_name(results))}</title><style>{_STYLE}</style></head>\n"
        f'<body class="olvm-grid">{_content(results, comparison)}</body></html>\n'
    )
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"cannot write the report {path}: {error.strerror}; give another --html") from error


def fragment(results: Results) -> str:
    """For a notebook's cell."""
    return f'<style>{_STYLE}</style><div class="olvm-grid">{_content(results, results.compare())}</div>'


def _name(results: Results) -> str:
    return results.grid.name or f"Grid {results.folder.name}"


def _content(results: Results, comparison: Comparison) -> str:
    parts = [f"<h1>{escape(_name(results))}</h1>", f"<p>{_summary(results)}</p>"]
    block = results.cells[0].BLOCK
    parts.append(
        f"<p>Policies are compared by <b>{comparison.metric}</b> ({AXIS[comparison.metric]}); less is better. Of one "
        f"{block} all of them had the same VMs, so they are compared {block} by {block}. Intervals are of 95 %, by "
        "bootstrap (BCa, 10,000 resamples); policies whose difference may be 0 share a rank.</p>"
    )
    if comparison.left_out:
        titles = escape("; ".join(comparison.left_out))
        parts.append(
            f"<p>Nothing can be compared where no {block} is finished by all policies: {titles}.</p>"
        )
    if len(comparison.scenarios) > 1:
        parts.append("<h2>All scenarios</h2>")
        parts.append(
            _table(
                ("policy", "best or tied with it", "mean rank"),
                (
                    (one.policy, f"{one.best_count} of {len(comparison.scenarios)}", f"{one.mean_rank:.2f}")
                    for one in comparison.overall
                ),
            )
        )
    for scenario in comparison.scenarios:
        parts.append(_scenario(scenario, comparison.metric))
    parts.append(_failures(results))
    return "\n".join(parts)


def _summary(results: Results) -> str:
    words = f"{len(results.done):,} of {len(results.cells):,} runs are done"
    if results.failures:
        words += f", {len(results.failures):,} failed"
    if results.missing_count:
        words += f", {results.missing_count:,} are still to come"
    return words + "."


def _scenario(scenario: Scenario, metric: str) -> str:
    parts = [f"<h2>{escape(scenario.title)}</h2>"]
    block = scenario.block
    if scenario.failed:
        names = escape(", ".join(scenario.failed))
        parts.append(f'<p class="note">Not compared, because all its runs failed: {names}.</p>')
    if len(scenario.blocks) == 1:
        parts.append(f'<p class="note">One {block}: there is no interval, and nothing is said of chance.</p>')
    elif not scenario.blocks_differ and block == "seed":
        parts.append(
            f'<p class="note">All {len(scenario.blocks)} seeds gave the same: nothing here depends on chance. With '
            "<code>window_vms</code> or <code>keep</code> of the trace, each seed sees other VMs.</p>"
        )
    marked = None if scenario.bound is None else (scenario.bound, "bound by capacity")
    parts.append(
        dot_plot(
            [Row(label=line.policy, value=line.mean, dots=line.values) for line in scenario.lines],
            f"{AXIS[metric]} (each {block}, and the mean)",
            marked=marked,
            title=f"{metric} in {scenario.title}",
        )
    )
    best = scenario.lines[0].policy
    others = [line for line in scenario.lines if line.policy != best]
    if others:
        parts.append(
            dot_plot(
                [
                    Row(label=line.policy, value=line.difference, low=line.low, high=line.high)
                    for line in others
                ],
                f"{metric} more than {best} (mean, and 95 %)",
                marked=(0.0, best),
                title=f"differences to {best} in {scenario.title}",
            )
        )
    parts.append(_lines(scenario, metric))
    parts.append(_pairs(scenario.pairs, metric))
    return "\n".join(parts)


def _lines(scenario: Scenario, metric: str) -> str:
    best = scenario.lines[0].policy
    has_regret = any(line.regret_percent is not None for line in scenario.lines)
    head = ["policy", "rank", f"mean {metric}", f"more than {best}", "95 %"]
    rows = []
    for line in scenario.lines:
        row = [line.policy, str(line.rank), shown(line.mean), "", ""]
        if line.policy != best:
            row[3:] = [shown(line.difference), interval_words(line.low, line.high)]
        if has_regret:
            row.append("" if line.regret_percent is None else f"{line.regret_percent:.2f} %")
        rows.append(row)
    if not has_regret:
        return _table(head, rows)
    note = (
        '<p class="note">Regret: hosts above the bound by capacity, which no policy can go below; of runs alone in '
        "which nobody waited or was refused.</p>"
    )
    return _table([*head, "regret"], rows) + note


def _pairs(pairs: Sequence[Pair], metric: str) -> str:
    if len(pairs) < 2:
        return ""
    rows = (
        (f"{pair.policy} less {pair.other}", shown(pair.difference), interval_words(pair.low, pair.high))
        for pair in pairs
    )
    table = _table(("pair", f"difference in {metric}", "95 %"), rows)
    return f"<details><summary>all pairs of policies</summary>{table}</details>"


def interval_words(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{shown(low)} to {shown(high)}"


def _failures(results: Results) -> str:
    failures = results.failures
    if not failures:
        return ""
    rows = [(cell.title(), error) for cell, error in failures[:FAILURES_SHOWN_MAX]]
    more = len(failures) - len(rows)
    tail = f"<p>and {more:,} more, in runs.jsonl</p>" if more else ""
    return "<h2>What failed</h2>" + _table(("run", "why"), rows, "text") + tail


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    cell = f' class="{kind}"' if kind else ""
    heads = "".join(f"<th{cell}>{escape(word)}</th>" for word in head)
    lines = "".join(
        "<tr>" + "".join(f"<td{cell}>{escape(word)}</td>" for word in row) + "</tr>\n" for row in rows
    )
    return f'<div class="wide"><table><tr>{heads}</tr>\n{lines}</table></div>'
