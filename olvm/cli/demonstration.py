"""`olvm demo`: registers the story that `olvm.cli.demo` tells, which is imported when it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter


def demo(
    *,
    runtime: Annotated[
        Literal["ray", "local"], Parameter(help="A process for each silo (ray), or one for all (local).")
    ] = "ray",
    vms: Annotated[int, Parameter(help="Machines in the story.", metavar="N")] = 3500,
    seconds: Annotated[float, Parameter(help="How long its busy part lasts.", metavar="N")] = 50.0,
    directory: Annotated[
        Path | None,
        Parameter(name=["--directory", "-d"], help="Directory of its data center.", show_default=False),
    ] = None,
    discard: Annotated[
        bool, Parameter(negative=(), help="Without --directory: remove its files afterwards.")
    ] = False,
    trials: Annotated[
        bool,
        Parameter(help="Then migrate a machine, empty a host and lose a rack; or stop after the crashes."),
    ] = True,
    kvm: Annotated[
        bool,
        Parameter(
            negative=(),
            help="Real machines instead: two KVM hosts on this machine, by libvirt and QEMU. Needs root and a Debian.",
        ),
    ] = False,
    verbose: Annotated[
        bool, Parameter(name=["--verbose", "-v"], negative=(), help="Show the traceback of a failure.")
    ] = False,
) -> int:
    """Show the whole story on this machine: start, fail, recover, move."""
    del verbose  # `application.run` has read it
    if kvm:
        from olvm.demo.kvm_story import tell_kvm_story

        return tell_kvm_story(directory=directory, cache=None, keep=not discard and directory is not None)
    from olvm.cli.demo import run

    return run(runtime=runtime, vms=vms, directory=directory, seconds=seconds, discard=discard, trials=trials)
