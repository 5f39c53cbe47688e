"""Where what runs on a laboratory host is counted and bounded: one directory in each of the kernel's hierarchies.

A host enters them itself (`host_init.sh`); here stands which hierarchies there are, and how a host's are removed.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
CONTROLLERS = ("cpu", "cpuacct", "cpuset", "memory", "blkio", "freezer", "devices", "pids")
UNIFIED = "v2"


def hierarchies() -> tuple[str, ...]:
    """Those of version 1 by their names, or `UNIFIED`. Empty where hosts can have none: no quota is enforced there."""
    if (ROOT / "cgroup.controllers").exists():
        return (UNIFIED,) if os.access(ROOT, os.W_OK) else ()
    present = all((ROOT / one).is_dir() and os.access(ROOT / one, os.W_OK) for one in CONTROLLERS)
    return CONTROLLERS if present else ()


def directories_of(name: str) -> list[Path]:
    """What there is of a host or, with a pattern, of several."""
    return sorted([*ROOT.glob(name), *ROOT.glob(f"*/{name}")])


def remove(name: str) -> None:
    """The processes in them must have ended."""
    for path in directories_of(name):
        for directory in sorted(path.glob("**/"), key=lambda one: -len(one.parts)):
            with contextlib.suppress(OSError):
                directory.rmdir()
