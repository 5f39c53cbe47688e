"""Addresses of Unix sockets: the kernel takes 107 bytes, directories may be longer."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

PATH_BYTES_MAX = 107
SOCKET_NAME = "engine.sock"


@contextlib.contextmanager
def bound_path(path: Path) -> Iterator[str]:
    """An address for `path` that fits: itself, or by way of its open directory."""
    if len(os.fsencode(path)) <= PATH_BYTES_MAX:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
