"""Joins the data center that a command names, quickly or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from olvm.api.data_center import DataCenter
from olvm.cli.background import running_pid
from olvm.cli.options import Connecting
from olvm.model.errors import Denied
from olvm.model.socket_path import SOCKET_NAME

# An engine that is starting or restarting is back within seconds; where none runs, nobody should wait for it.
RESTART_WAIT_S = 15.0


@contextlib.contextmanager
def data_center(options: Connecting) -> Iterator[DataCenter]:
    """The running data center, left again when the block ends.

    Raises:
        EngineUnreachable: none runs there.
        Denied: it is another user's.
    """
    directory = options.place()
    _check_access(directory)
    wait_s = RESTART_WAIT_S if running_pid(directory) else 0.0
    with DataCenter.connect(directory, connect_timeout=wait_s) as dc:
        yield dc


def _check_access(directory: Path) -> None:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        try:
            (directory / SOCKET_NAME).stat()
        except PermissionError as error:
            raise Denied(
                f"data center {directory} belongs to another user; run olvm as that user, or name your own "
                "with --directory"
            ) from error
