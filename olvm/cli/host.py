"""`olvm host`: the hosts that machines run on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from olvm.api.hosts import SIMULATED_FENCE_DEVICE
from olvm.cli.changes import Asked, carry_out, cluster_or_only, confirm, confirm_removal, once_each
from olvm.cli.completer import host_names
from olvm.cli.connection import data_center
from olvm.cli.hardware_options import read_toml
from olvm.cli.host_check import check
from olvm.cli.listing import list_records, show_record
from olvm.cli.options import (
    CHANGING,
    LISTING,
    PRINTING,
    Changing,
    Cluster,
    Deadline,
    HostNames,
    Listing,
    Printing,
    Yes,
)
from olvm.model import messages as m
from olvm.model.errors import BadInput
from olvm.model.host_profile import host_profile_from
from olvm.model.sizes import parse_size, scalar

USUAL_COLUMNS = (
    "name",
    "status",
    "cluster",
    "cpus",
    "memory_bytes",
    "fence_step",
    "fence_reason",
    "problems",
    "status_reason",
)
ACTION_BY_POWER: dict[str, m.HostVerb] = {"restart": "restart", "on": "power_on", "off": "power_off"}
HostName = Annotated[str, Parameter(help="Name.", completer=host_names)]

app = App(name="host", help="Hosts: add them, take them out of service, bring them back.")
app.command(check)


@app.command(name="list")
def list_(*, options: Listing = LISTING) -> int:
    """List hosts."""
    with data_center(options) as dc:
        return list_records(dc.hosts, options, USUAL_COLUMNS)


@app.command
def show(name: HostName, /, *, options: Printing = PRINTING) -> int:
    """Show everything about one host."""
    with data_center(options) as dc:
        return show_record(dc.hosts.row(name), options)


@app.command
def add(
    names: Annotated[list[str], Parameter(help="Names; several get the same size.")],
    /,
    *,
    cpus: Annotated[int, Parameter(help="CPUs of a simulated host.", metavar="N")] = 0,
    memory: Annotated[str, Parameter(help="Of a simulated host, as in 256GiB.", metavar="SIZE")] = "",
    cluster: Cluster = None,
    backend: Annotated[
        Literal["simulated", "libvirt"],
        Parameter(help="What it is made of; libvirt's say themselves what CPUs and memory they have."),
    ] = "simulated",
    uri: Annotated[str, Parameter(help="Of libvirt; if not said, qemu:///system.", metavar="URI")] = "",
    setting: Annotated[
        list[str] | None,
        Parameter(help="One of its backend's; may be repeated.", negative=(), metavar="KEY=VALUE"),
    ] = None,
    dedicated: Annotated[bool, Parameter(negative=(), help="A process of its own for its agent.")] = False,
    power_management: Annotated[
        bool, Parameter(negative=(), help="The simulated fence device can switch it.")
    ] = False,
    fence_device: Annotated[
        list[str] | None,
        Parameter(
            help="What can switch its power, tried in order; may be repeated.",
            negative=(),
            metavar="type=T,KEY=VALUE,…",
        ),
    ] = None,
    kdump: Annotated[
        bool, Parameter(negative=(), help="Its kernel tells when it crashed and writes a dump.")
    ] = False,
    profile: Annotated[
        Path | None,
        Parameter(help="A TOML file with what the scheduler is to know: networks, hooks, …", metavar="FILE"),
    ] = None,
    options: Changing = CHANGING,
) -> int:
    """Add hosts, and wait until they are up."""
    if backend == "simulated" and not (cpus and memory):
        raise BadInput("a simulated host needs --cpus and --memory; a real one needs --backend libvirt")
    memory_bytes = parse_size(memory) if memory else 0
    told = host_profile_from(read_toml(profile))
    settings = _settings(setting or ())
    if uri:
        settings["uri"] = uri
    devices = [_fence_device(text) for text in fence_device or ()]
    if power_management and not devices:
        devices = [SIMULATED_FENCE_DEVICE]
    with data_center(options) as dc:
        place = cluster_or_only(dc, cluster)
        asked = [
            Asked(
                command=m.AddHost(
                    name=name,
                    cluster=place,
                    cpus=cpus,
                    memory_bytes=memory_bytes,
                    backend=backend,
                    backend_settings=settings,
                    dedicated=dedicated,
                    fence_devices=devices,
                    kdump=kdump,
                    profile=told,
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
def maintenance(names: HostNames, /, *, deadline: Deadline = None, options: Changing = CHANGING) -> int:
    """Move the machines of hosts away and take the hosts out of service."""
    return _command(names, "maintenance", options, deadline)


@app.command
def cancel_maintenance(names: HostNames, /, *, options: Changing = CHANGING) -> int:
    """Stop moving machines away and keep the hosts in service."""
    return _command(names, "cancel_maintenance", options)


@app.command
def confirm_rebooted(names: HostNames, /, *, yes: Yes = False, options: Changing = CHANGING) -> int:
    """Give your word that hosts that do not answer were powered off or restarted; their machines start elsewhere."""
    listed = ", ".join(once_each(names))
    confirm(
        f"Was host {listed} powered off or restarted? If not, its machines will run twice.",
        f"confirming that host {listed} was restarted",
        yes,
    )
    return _command(names, "confirm_rebooted", options)


@app.command
def fence(
    name: HostName,
    power: Annotated[Literal["restart", "on", "off"], Parameter(help="What to do with its power.")],
    /,
    *,
    options: Changing = CHANGING,
) -> int:
    """Switch a host's power by its fence devices; to cut it, it must be in maintenance or not answer."""
    return _command([name], ACTION_BY_POWER[power], options)


@app.command
def remove(names: HostNames, /, *, yes: Yes = False, options: Changing = CHANGING) -> int:
    """Remove hosts that are in maintenance."""
    confirm_removal("host", once_each(names), yes)
    return _command(names, "remove", options)


def _command(names: list[str], action: m.HostVerb, options: Changing, deadline_s: float | None = None) -> int:
    what = action.replace("_", " ")
    with data_center(options) as dc:
        asked = [
            Asked(command=m.HostCommand(name, action, deadline_s), what=f"{what} host {name}")
            for name in once_each(names)
        ]
        return carry_out(dc, asked, options)


@app.command
def task(
    name: HostName,
    verb: Annotated[str, Parameter(help="As in create_volume.", metavar="VERB")],
    arguments: Annotated[list[str] | None, Parameter(help="As in pool=images.", metavar="KEY=VALUE")] = None,
    /,
    *,
    options: Changing = CHANGING,
) -> int:
    """Do something to a host's storage or networks: create_pool, list_volumes, create_network, …"""
    command = m.HostTask(name, verb, _settings(arguments or ()))
    with data_center(options) as dc:
        return carry_out(dc, [Asked(command=command, what=f"{verb} on host {name}")], options)


def _settings(pairs: Iterable[str]) -> m.Settings:
    """`KEY=VALUE` each; see `scalar` for what a value becomes."""
    settings: m.Settings = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise BadInput(f"{pair} is not KEY=VALUE, as in pool=images")
        settings[key] = scalar(value)
    return settings


def _fence_device(text: str) -> m.Settings:
    """`type=simulated,port=3`: whole numbers become numbers, everything else stays text."""
    device: m.Settings = {}
    for pair in text.split(","):
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise BadInput(f"--fence-device {text}: {pair} is not KEY=VALUE, as in type=simulated")
        device[key] = int(value) if value.isdecimal() else value
    return device
