"""`olvm up`, `olvm down`, `olvm status`: a data center that stays up while others come and go."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any, Literal

import msgspec
from cyclopts import Parameter

from olvm.api.settings import load_config
from olvm.cli import background
from olvm.cli.connection import data_center
from olvm.cli.options import CONNECTING, PRINTING, Connecting, Duration, Printing
from olvm.cli.output import chosen_columns, write_object, write_rows
from olvm.model.client_protocol import DataCenterStatus, SiloStatus
from olvm.model.errors import BadInput, Conflict, EngineUnreachable, JournalLocked

USUAL_COLUMNS = (
    "name",
    "alive",
    "pid",
    "actors",
    "queue_length",
    "unacknowledged",
    "turns",
    "commits",
    "journal_seq",
    "journal_bytes",
    "rss_bytes",
    "note",
)
KNOWN_COLUMNS = tuple(field.name for field in msgspec.structs.fields(SiloStatus))


def up(
    *,
    runtime: Annotated[
        Literal["ray", "local"], Parameter(help="A process for each silo (ray), or one for all (local).")
    ] = "ray",
    foreground: Annotated[
        bool, Parameter(negative=(), help="Stay in this terminal; Ctrl-C ends it.")
    ] = False,
    settings: Annotated[
        list[str] | None,
        Parameter(
            name="--set",
            help="A field of the configuration, kept with the data center, as in host_silos=4; may be repeated.",
            negative=(),
            metavar="KEY=VALUE",
        ),
    ] = None,
    timeout: Annotated[Duration, Parameter(help="Stop waiting for it after this long: exit code 6.")] = 120.0,
    options: Connecting = CONNECTING,
) -> int:
    """Start a data center that stays up in the background."""
    directory = options.place()
    chosen = _settings(settings or [])
    if _tell_if_up(options):
        return 0
    background.make_private(directory)
    load_config(directory, chosen)  # a setting that is wrong is refused here, where a person sees it
    command = background.daemon_command(directory, runtime, chosen)
    if foreground:
        os.chdir(background.package_root())
        os.execv(command[0], command)  # noqa: S606 - there is nothing for a shell to read
    try:
        pid = background.start(directory, command, timeout)
    except JournalLocked:
        if _tell_if_up(options):  # another `olvm up` was quicker
            return 0
        raise
    print(
        f"data center {directory} is up (process {pid}, runtime {runtime}); `olvm status` shows it, `olvm "
        f"cluster create NAME` begins, `olvm down` ends it",
        file=sys.stderr,
    )
    return 0


def down(
    *,
    timeout: Annotated[Duration, Parameter(help="Stop waiting for it after this long: exit code 6.")] = 60.0,
    options: Connecting = CONNECTING,
) -> int:
    """Stop it in order; machines and operations are kept."""
    directory = options.place()
    pid = background.stop(directory, timeout)
    if pid:
        print(f"data center {directory} is down (process {pid} has ended)", file=sys.stderr)
        return 0
    status = _status_if_up(options)
    if status is None:
        print(f"data center {directory} is not up", file=sys.stderr)
        return 0
    owners = ", ".join(sorted({str(silo.pid) for silo in status.silos if silo.name == "engine"}))
    raise Conflict(
        f"data center {directory} was not opened by `olvm up` but by a program (process {owners}); end that program"
    )


def status(*, options: Printing = PRINTING) -> int:
    """Show its silos with processes, queues and journals."""
    columns = chosen_columns(options.columns, KNOWN_COLUMNS, USUAL_COLUMNS)
    with data_center(options) as dc:
        found = dc.status()
    if options.output == "json":
        row: dict[str, Any] = msgspec.structs.asdict(found)
        row["silos"] = [msgspec.structs.asdict(silo) for silo in found.silos]
        write_object(row, list(row), "json")
        return 0
    rows = [msgspec.structs.asdict(silo) for silo in found.silos]
    write_rows(
        rows, columns if options.output == "table" or options.columns else KNOWN_COLUMNS, options.output
    )
    print(_summary(found), file=sys.stderr)
    return 0


def _summary(status: DataCenterStatus) -> str:
    return (
        f"data center {status.directory}, runtime {status.runtime}, engine epoch {status.engine_epoch}, "
        f"olvm {status.version}"
    )


def _status_if_up(options: Connecting) -> DataCenterStatus | None:
    try:
        with data_center(options) as dc:
            return dc.status()
    except EngineUnreachable:
        return None


def _tell_if_up(options: Connecting) -> bool:
    found = _status_if_up(options)
    if found is not None:
        print(f"{_summary(found)}: already up", file=sys.stderr)
    return found is not None


def _settings(pairs: list[str]) -> dict[str, Any]:
    """Values are JSON where they are (`4`, `{"boot_s": 1}`), text where they are not; dots reach inside."""
    settings: dict[str, Any] = {}
    for pair in pairs:
        path, equals, text = pair.partition("=")
        if not (path and equals):
            raise BadInput(f"--set {pair} is not KEY=VALUE, as in host_silos=4")
        try:
            value = msgspec.json.decode(text)
        except msgspec.DecodeError:
            value = text
        *outer, last = path.split(".")
        inside = settings
        for key in outer:
            inside = inside.setdefault(key, {})
            if not isinstance(inside, dict):
                raise BadInput(f"--set {pair}: {key} has a value already")
        inside[last] = value
    return settings
