"""CPU time of a process and everything below it, from /proc: for benchmarks of a whole data center."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class ProcessTimes(msgspec.Struct, frozen=True):
    pid: int
    parent: int
    name: str
    cpu_s: float


def all_processes() -> dict[int, ProcessTimes]:
    found: dict[int, ProcessTimes] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            process = _read(entry)
            if process is not None:
                found[process.pid] = process
    return found


def _read(entry: Path) -> ProcessTimes | None:
    try:
        text = (entry / "stat").read_text()
    except OSError:
        return None  # it has ended
    # The name stands in parentheses and may hold anything, also parentheses.
    name, _, rest = text.partition("(")[2].rpartition(")")
    fields = rest.split()
    return ProcessTimes(int(entry.name), int(fields[1]), name, (int(fields[11]) + int(fields[12])) * TICK_S)


def family(root_pid: int) -> dict[int, ProcessTimes]:
    """A process and its descendants, living now."""
    everyone = all_processes()
    members: dict[int, ProcessTimes] = {}
    fresh = [root_pid]
    while fresh:
        pid = fresh.pop()
        if pid in everyone and pid not in members:
            members[pid] = everyone[pid]
            fresh += [other.pid for other in everyone.values() if other.parent == pid]
    return members
