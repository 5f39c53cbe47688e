"""`olvm host`: the hosts that machines run on."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import App, Parameter

from olvm.cli.changes import Asked, carry_out, cluster_or_only, confirm_removal, once_each
from olvm.cli.completer import host_names
from olvm.cli.connection import data_center
from olvm.cli.listing import list_records, show_record
from olvm.cli.options import CHANGING, LISTING, PRINTING, Changing, Cluster, HostNames, Listing, Printing, Yes
from olvm.model import messages as m
from olvm.model.sizes import parse_size

USUAL_COLUMNS = ("name", "status", "cluster", "cpus", "memory_bytes", "status_reason")

app = App(name="host", help="Hosts: add them, take them out of service, bring them back.")


@app.command(name="list")
def list_(*, options: Listing = LISTING) -> int:
    """List hosts."""
    with data_center(options) as dc:
        return list_records(dc.hosts, options, USUAL_COLUMNS)


@app.command
def show(
    name: Annotated[str, Parameter(help="Name.", completer=host_names)], /, *, options: Printing = PRINTING
) -> int:
    """Show everything about one host."""
    with data_center(options) as dc:
        return show_record(dc.hosts.row(name), options)


@app.command
def add(
    names: Annotated[list[str], Parameter(help="Names; several get the same size.")],
    /,
    *,
    cpus: Annotated[int, Parameter(help="Its CPUs.", metavar="N")],
    memory: Annotated[str, Parameter(help="As in 256GiB.", metavar="SIZE")],
    cluster: Cluster = None,
    dedicated: Annotated[bool, Parameter(negative=(), help="A process of its own for its agent.")] = False,
    options: Changing = CHANGING,
) -> int:
    """Add simulated hosts, and wait until they are up."""
    memory_bytes = parse_size(memory)
    with data_center(options) as dc:
        place = cluster_or_only(dc, cluster)
        asked = [
            Asked(
                command=m.AddHost(
                    name=name, cluster=place, cpus=cpus, memory_bytes=memory_bytes, dedicated=dedicated
                ),
                what=f"add host {name}",
            )
            for name in once_each(names)
        ]
        return carry_out(dc, asked, options)


@app.command
def activate(names: HostNames, /, *, options: Changing = CHANGING) -> int:
    """Put hosts into service."""
    return _command(names, "activate", options)


@app.command
def maintenance(names: HostNames, /, *, options: Changing = CHANGING) -> int:
    """Take hosts out of service; they must be empty."""
    return _command(names, "maintenance", options)


@app.command
def remove(names: HostNames, /, *, yes: Yes = False, options: Changing = CHANGING) -> int:
    """Remove hosts that are in maintenance."""
    return _command(names, "remove", options, yes)


def _command(
    names: list[str],
    action: Literal["activate", "maintenance", "remove"],
    options: Changing,
    yes: bool = True,
) -> int:
    chosen = once_each(names)
    with data_center(options) as dc:
        confirm_removal("host", chosen, yes)
        asked = [Asked(command=m.HostCommand(name, action), what=f"{action} host {name}") for name in chosen]
        return carry_out(dc, asked, options)
