"""Files that appear under their name whole, or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yields another name beside `path` to write to; when the block ends well it is on disk and takes the name.

    After a failure nothing is left; after a kill, a hidden file that ends in `.part`.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        sync(part)
        os.replace(part, path)
        sync(path.parent)
    finally:
        with contextlib.suppress(FileNotFoundError):
            part.unlink()


def sync(path: Path) -> None:
    """Have the system write a file, or a directory's names, to its disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
