"""`olvm experiment report`: policies of a grid against each other, as tables and as one HTML file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from olvm.cli.options import OutputFormat
from olvm.cli.output import write_rows

if TYPE_CHECKING:
    from olvm.experiments.grids.comparison import Comparison

# After what the compared runs have in common; the last is how many seeds or days were compared.
COLUMNS = ("policy", "rank", "mean", "difference", "low", "high", "regret_percent")


def report(
    directory: Annotated[Path, Parameter(help="What `olvm experiment run` has written.", metavar="DIR")],
    *,
    metric: Annotated[
        str | None,
        Parameter(
            help="What the policies are ranked by; by default the grid's. Of replays hosts_peak, hosts_used, rejected, "
            "wait_s_total, wait_s_max, regret; of PlanetLab esv, energy_kwh, slav, slatah_percent, pdm_percent, "
            "migrations, host_shutdowns.",
            metavar="NAME",
        ),
    ] = None,
    html: Annotated[
        Path | None, Parameter(help="The report; by default report.html in the folder.", metavar="FILE")
    ] = None,
    output: Annotated[OutputFormat, Parameter(name=["--output", "-o"], help="Format of the data.")] = "table",
    verbose: Annotated[
        bool, Parameter(name=["--verbose", "-v"], negative=(), help="Show the traceback of a failure.")
    ] = False,
) -> int:
    """Compare the policies of a grid in each scenario, with 95 % intervals of their differences; print and draw it."""
    del verbose
    from olvm.experiments.grids.report import write_report
    from olvm.experiments.grids.results import load_results

    results = load_results(directory)
    comparison = results.compare(metric)
    path = html or directory / "report.html"
    write_report(results, path, comparison)
    rows = _rows(comparison)
    block = results.cells[0].BLOCK
    columns = [*results.cells[0].scenario, *COLUMNS, f"{block}s"]
    # A column that has one value says nothing in a table; programs get all.
    said = [
        name for name in columns if name in ("policy", "rank", "mean") or len({row[name] for row in rows}) > 1
    ]
    write_rows(rows, said if output == "table" else columns, output)
    for scenario in comparison.scenarios:
        for policy in scenario.failed:
            print(f"olvm: {policy} is not compared in {scenario.title}: all its runs failed", file=sys.stderr)
    for title in comparison.left_out:
        print(f"olvm: nothing to compare in {title}: no {block} is finished by all policies", file=sys.stderr)
    if results.failures or results.missing_count:
        print(
            f"olvm: {len(results.failures)} runs failed and {results.missing_count} are still to come; a {block} "
            "counts once all policies have finished it",
            file=sys.stderr,
        )
    print(f"olvm: wrote {path}", file=sys.stderr)
    return 0


def _rows(comparison: Comparison) -> list[dict[str, Any]]:
    """`difference` to the scenario's best with the ends of its interval."""
    return [
        {
            **scenario.keys,
            "policy": line.policy,
            "rank": line.rank,
            "mean": line.mean,
            "difference": line.difference,
            "low": line.low,
            "high": line.high,
            "regret_percent": line.regret_percent,
            f"{scenario.block}s": len(scenario.blocks),
        }
        for scenario in comparison.scenarios
        for line in scenario.lines
    ]
