"""`olvm demo`: registers the story that `olvm.cli.demo` tells, which is imported when it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def demo(
    *,
    directory: Annotated[
        Path | None,
        Parameter(name=["--directory", "-d"], help="Keep its data center here.", metavar="DIR", show_default=False),
    ] = None,
    vms: Annotated[int, Parameter(help="Machines to start.", metavar="N")] = 1000,
    verbose: Annotated[
        bool, Parameter(name=["--verbose", "-v"], negative=(), help="Show the traceback of a failure.")
    ] = False,
) -> int:
    """Show the whole story on this machine: start, fail, recover."""
    del verbose  # `application.run` reads it
    from olvm.cli.demo import run

    return run(directory, vms)
