"""`olvm experiment planetlab`: one day of PlanetLab under one consolidation policy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter

from olvm.cli.compilation_note import note_compilation
from olvm.cli.options import OutputFormat
from olvm.cli.output import write_object


def planetlab(
    *,
    data: Annotated[
        Path | None,
        Parameter(
            help="Parquet file of days, or folder of a day's files; the bundled day if not given.",
            metavar="FILE",
        ),
    ] = None,
    day: Annotated[str, Parameter(help="Which day of it.", metavar="YYYYMMDD")] = "20110303",
    detector: Annotated[
        str, Parameter(help="When a host is overloaded: thr, iqr, mad, lr, lrr; dvfs: nothing moves.")
    ] = "lr",
    safety: Annotated[
        float | None,
        Parameter(
            help="The bound of thr, the factor of the others; 0.8, 1.5, 2.5, 1.2, 1.2 if not given.",
            metavar="S",
        ),
    ] = None,
    selector: Annotated[str, Parameter(help="Which machine leaves it: mmt, mc, mu, rs.")] = "mmt",
    seed: Annotated[int, Parameter(help="What rs draws from.", metavar="S")] = 0,
    hosts: Annotated[int, Parameter(help="How many, of two kinds in turn.", metavar="N")] = 800,
    output: Annotated[OutputFormat, Parameter(name=["--output", "-o"], help="Format of the data.")] = "table",
    verbose: Annotated[
        bool, Parameter(name=["--verbose", "-v"], negative=(), help="Show the traceback of a failure.")
    ] = False,
) -> int:
    """Live migration, consolidation and power: one day of PlanetLab under one policy."""
    del verbose
    from olvm.experiments.consolidation.experiment import planetlab as run

    note_compilation()
    result = run(data, day, detector=detector, safety=safety, selector=selector, seed=seed, hosts=hosts)
    row = msgspec.structs.asdict(result)
    write_object(row, list(row), output)
    return 0
