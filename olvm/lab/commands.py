"""Runs the programs that a laboratory is made of, and looks into /proc. An error names the program and what it said."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from olvm.model.errors import OlvmError

TIMEOUT_S = 60.0
POLL_S = 0.01


def run(command: Sequence[str], *, check: bool = True, timeout_s: float = TIMEOUT_S) -> str:
    """What it printed, both streams.

    Raises:
        OlvmError: it failed and `check` is set, is not installed, or did not end.
    """
    try:
        done = subprocess.run(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise OlvmError(f"{' '.join(command)} did not end within {timeout_s:g} s") from error
    except FileNotFoundError as error:
        raise OlvmError(f"{command[0]} is not installed; olvm.lab.requirements names its package") from error
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


def kill(pids: Sequence[int], within_s: float) -> None:
    """By SIGKILL; returns when they have ended, or `within_s` has passed."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    deadline_s = time.monotonic() + within_s
    while any(runs(pid) for pid in pids) and time.monotonic() < deadline_s:
        time.sleep(POLL_S)


def runs(pid: int) -> bool:
    """A process that ended and whose parent has not asked for it runs no more."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in ("Z", "X")
    except OSError:
        return False
