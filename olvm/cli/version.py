"""`olvm version`."""

from __future__ import annotations

from olvm.version import VERSION


def version() -> int:
    """Print the version."""
    print(VERSION)
    return 0
