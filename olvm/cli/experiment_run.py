"""`olvm experiment run`: a grid of replays on many workers; killed, it goes on where it stood."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from olvm.cli.compilation_note import note_compilation
from olvm.cli.experiment_progress import shown_progress
from olvm.cli.failures import CommandFailed

FAILURES_SHOWN_MAX = 10


def run(
    grid: Annotated[
        Path, Parameter(help="What to run: topologies, traces, policies, seeds.", metavar="GRID.toml")
    ],
    *,
    out: Annotated[
        Path | None,
        Parameter(help="Folder of results; by default the grid's name, here.", metavar="DIR"),
    ] = None,
    workers: Annotated[
        int | None,
        Parameter(
            help="Ray tasks at a time; 0: all in this process, without Ray. [default: CPUs]", metavar="N"
        ),
    ] = None,
    address: Annotated[
        str | None, Parameter(help="Of a Ray cluster; by default a Ray of its own.", metavar="HOST:PORT")
    ] = None,
    verbose: Annotated[
        bool, Parameter(name=["--verbose", "-v"], negative=(), help="Show the traceback of a failure.")
    ] = False,
) -> int:
    """Run what of a grid is not there yet. `olvm experiment report` compares the policies, also on the way."""
    del verbose
    if "" not in sys.path:
        sys.path.insert(0, "")  # a policy of one's own stands where the command is run, or beside the grid
    from olvm.experiments.grids.running import run_grid

    note_compilation()
    place = out or Path(grid.stem)
    with shown_progress() as on_progress:
        results = run_grid(grid, place, workers=workers, address=address, on_progress=on_progress)
    print(place)
    if results.failures:
        for cell, error in results.failures[:FAILURES_SHOWN_MAX]:
            print(f"olvm: {cell.title()}: {error}", file=sys.stderr)
        print(
            f"olvm: {len(results.failures)} of {len(results.cells)} runs failed; all others are in {place}. "
            "Mend what is wrong and run the grid again: only these are run",
            file=sys.stderr,
        )
        raise CommandFailed(1)
    return 0
