"""Runs the programs that a laboratory is made of, and looks into /proc. An error names the program and what it said."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from olvm.model.errors import OlvmError

TIMEOUT_S = 60.0


def run(command: Sequence[str], *, check: bool = True, timeout_s: float = TIMEOUT_S) -> str:
    """What it printed, both streams. Raises `OlvmError` when it failed and `check` is set."""
    done = subprocess.run(
        list(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    if check and done.returncode != 0:
        raise OlvmError(f"{' '.join(command)} failed with {done.returncode}: {done.stdout.strip()[-800:]}")
    return done.stdout


def processes() -> Iterable[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            yield int(entry.name)


def namespace_of(pid: int, kind: str) -> str:
    """As /proc names it; empty when the process is gone."""
    try:
        return str(Path(f"/proc/{pid}/ns/{kind}").readlink())
    except OSError:
        return ""


def command_line(pid: int) -> list[str]:
    """Empty when the process is gone, or a thread of the kernel."""
    try:
        data = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    return [word.decode(errors="replace") for word in data.split(b"\0")[:-1]]


def program(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
