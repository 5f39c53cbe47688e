"""Other programs, run with a bound. The agent's children alone use it: its libraries cost memory there, not here."""

from __future__ import annotations

import os
import shutil
import subprocess

COMMAND_TIMEOUT_S = 5


def is_here(program: str) -> bool:
    return shutil.which(program) is not None


def begin(command: list[str]) -> str:
    """Start a program and leave it; empty, or why it could not be."""
    if not is_here(command[0]):
        return f"{command[0]} is not installed"
    try:
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        return str(error)
    return ""


def finish(
    command: list[str],
    data: bytes = b"",
    more: dict[str, str] | None = None,
    timeout_s: float = COMMAND_TIMEOUT_S,
) -> str:
    """Run a program to its end, `more` in its environment; empty if it was content, else what it complained of."""
    if not is_here(command[0]):
        return f"{command[0]} is not installed"
    try:
        done = subprocess.run(
            command,
            input=data,
            timeout=timeout_s,
            check=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=dict(os.environ, **(more or {})),
        )
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    said = done.stderr.decode("utf-8", "replace").strip()
    return "" if not done.returncode else said or f"{command[0]} ended with {done.returncode}"


def lines_of(command: list[str]) -> list[str]:
    """What a program prints; nothing if it fails or takes too long."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=COMMAND_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [line for line in done.stdout.decode("utf-8", "replace").splitlines() if line]
