"""Other programs, run with a bound. The agent's children alone use it: its libraries cost memory there, not here."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import IO

COMMAND_TIMEOUT_S = 5
BEGIN_S = 1.0  # how long a program has to say that it cannot
COMPLAINT_BYTES_MAX = 500


def is_here(program: str) -> bool:
    return shutil.which(program) is not None


def begin(command: list[str]) -> str:
    """Start a program and leave it; empty, or why it could not be, or what it complained of at once."""
    if not is_here(command[0]):
        return f"{command[0]} is not installed"
    try:
        with _complaints() as said:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                start_new_session=True,
            )
            process.wait(BEGIN_S)
            return _verdict(command[0], process.returncode, said)
    except subprocess.TimeoutExpired:
        return ""  # it goes on
    except OSError as error:
        return str(error)


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
        with _complaints() as said:
            done = subprocess.run(
                command,
                input=data,
                timeout=timeout_s,
                check=False,
                stdout=subprocess.DEVNULL,
                stderr=said,
                env=dict(os.environ, **(more or {})),
            )
            return _verdict(command[0], done.returncode, said)
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)


def _complaints() -> IO[bytes]:
    """A file, no pipe: what a program leaves running may keep it open, and nobody waits for that."""
    return os.fdopen(os.memfd_create("complaints"), "w+b")


def _verdict(program: str, code: int, complaints: IO[bytes]) -> str:
    if not code:
        return ""
    complaints.seek(0)
    said = complaints.read(COMPLAINT_BYTES_MAX).decode("utf-8", "replace").strip()
    return said or f"{program} ended with {code}"


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
