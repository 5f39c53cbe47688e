"""The options that many commands share, each written once: where the data center is, what to print, how to wait.

Rule: an option means the same wherever it stands.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter, Token

from olvm.cli.completer import host_names, vm_names
from olvm.model.sizes import parse_duration

OutputFormat = Literal["table", "json", "jsonl", "csv"]

SHARED = Group.create_ordered("Shared options")


def default_directory() -> Path:
    """`$XDG_STATE_HOME/olvm`, or `~/.local/state/olvm`: state that a person would not edit."""
    state = os.environ.get("XDG_STATE_HOME", "")
    # The XDG specification has relative paths ignored.
    return (Path(state) if state.startswith("/") else Path.home() / ".local" / "state") / "olvm"


def seconds(_annotation: object, tokens: Sequence[Token]) -> float:
    """Cyclopts converter: `60s`, `5m`, `1h30m` or a number of seconds."""
    (token,) = tokens
    return parse_duration(token.value)


Duration = Annotated[float, Parameter(converter=seconds, n_tokens=1, metavar="TIME")]
Deadline = Annotated[
    Duration | None, Parameter(help="The operation fails when it has not ended after this long.")
]
Yes = Annotated[bool, Parameter(name=["--yes", "-y"], negative=(), help="Do not ask.")]
Cluster = Annotated[
    str | None,
    Parameter(name="--cluster", help="Its cluster; needed when there are several.", metavar="NAME"),
]
VmNames = Annotated[
    list[str], Parameter(help="Names or ids; several are commanded at once.", completer=vm_names)
]
HostNames = Annotated[
    list[str], Parameter(help="Names; several are commanded at once.", completer=host_names)
]


@Parameter(name="*", group=SHARED)
@dataclass(frozen=True, kw_only=True)
class Connecting:
    """Which data center, and how much to say when something fails."""

    directory: Annotated[
        Path,
        Parameter(
            name=["--directory", "-d"],
            env_var="OLVM_DIRECTORY",
            help="Directory of the data center.",
            show_default=lambda _: "$XDG_STATE_HOME/olvm",
            metavar="DIR",
        ),
    ] = field(default_factory=default_directory)
    verbose: Annotated[
        bool, Parameter(name=["--verbose", "-v"], negative=(), help="Show the traceback of a failure.")
    ] = False

    def place(self) -> Path:
        """The directory by its one true name, which pid files and messages use."""
        return self.directory.expanduser().resolve()


@Parameter(name="*", group=SHARED)
@dataclass(frozen=True, kw_only=True)
class Printing(Connecting):
    """As which text the data is printed."""

    output: Annotated[OutputFormat, Parameter(name=["--output", "-o"], help="Format of the data.")] = "table"
    columns: Annotated[
        str,
        Parameter(
            name=["--columns", "-c"],
            help="Columns, with commas between; `all` for every one.",
            metavar="COL,…",
        ),
    ] = ""


@Parameter(name="*", group=SHARED)
@dataclass(frozen=True, kw_only=True)
class Listing(Printing):
    """Which rows are listed."""

    where: Annotated[
        str,
        Parameter(
            name="--where",
            help="oVirt's search language, as in 'status=up and host=kvm1* sortby name desc'.",
            metavar="SEARCH",
        ),
    ] = ""
    limit: Annotated[int | None, Parameter(name="--limit", help="At most so many rows.", metavar="N")] = None


@Parameter(name="*", group=SHARED)
@dataclass(frozen=True, kw_only=True)
class Changing(Printing):
    """Whether a command's end is waited for. It goes on in any case."""

    wait: Annotated[
        bool,
        Parameter(
            name="--wait", negative="--no-wait", help="Wait until it has ended, or only until it is accepted."
        ),
    ] = True
    timeout: Annotated[
        Duration | None,
        Parameter(name="--timeout", help="Stop waiting after this long, as in 60s or 5m: exit code 6."),
    ] = None


CONNECTING = Connecting()
PRINTING = Printing()
LISTING = Listing()
CHANGING = Changing()
