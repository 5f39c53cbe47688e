"""`olvm experiment bound`: the least peak of hosts that any policy could have, by a solver that knows the future."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from olvm.cli.options import OutputFormat
from olvm.cli.output import write_object


def bound(
    *,
    trace: Annotated[
        Path, Parameter(help="As of `olvm experiment replay`; at most 2,000 VMs.", metavar="FILE")
    ],
    hosts: Annotated[str, Parameter(help="As of `olvm experiment replay`.", metavar="SPEC")],
    time_limit: Annotated[float, Parameter(help="Of the solver, in seconds.", metavar="SECONDS")] = 60.0,
    seed: Annotated[int, Parameter(help="Of the solver.", metavar="S")] = 0,
    output: Annotated[OutputFormat, Parameter(name=["--output", "-o"], help="Format of the data.")] = "table",
    verbose: Annotated[
        bool, Parameter(name=["--verbose", "-v"], negative=(), help="Show the traceback of a failure.")
    ] = False,
) -> int:
    """Say how few hosts could have been in use at once, beside what first fit and best fit need."""
    del verbose
    import msgspec

    from olvm.experiments.bounds import bound as find

    found = find(trace, hosts, time_limit_s=time_limit, seed=seed)
    row = msgspec.to_builtins(found)
    row |= {f"{name}_peak": peak for name, peak in row.pop("heuristics").items()}
    write_object(row, list(row), output)
    return 0
