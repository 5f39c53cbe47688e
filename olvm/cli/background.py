"""The process that `olvm up` leaves behind: how it is found, and how it is started and ended.

Rules:
1. A pid file is a claim. It counts only when the process of that number is a daemon of that directory.
2. That process is held by a pidfd while it is signalled and waited for, so a number that the kernel gives to
   another process meanwhile is never hit.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import msgspec

import olvm
from olvm.model.errors import JournalUnwritable, OlvmError, WaitTimeout, from_wire

PID_FILE = "olvm.pid"
LOG_FILE = "olvm.log"
MODULE = "olvm.cli.daemon"
_LOG_TAIL_BYTES = 4096


class Readiness(msgspec.Struct, kw_only=True):
    """What the daemon writes to its parent, once: an empty code says that it serves."""

    code: str = ""
    message: str = ""


# ---------------------------------------------------------------- finding it


def running_pid(directory: Path) -> int:
    """The daemon of this data center, or 0."""
    pid = claimed_pid(directory)
    return pid if pid and _is_daemon_of(pid, directory) else 0


def claimed_pid(directory: Path) -> int:
    """The number in the pid file, or 0 when there is none to read."""
    try:
        text = (directory / PID_FILE).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return 0
    return int(text) if text.isdecimal() and len(text) < 10 else 0


def _is_daemon_of(pid: int, directory: Path) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return MODULE.encode() in words and os.fsencode(directory) in words


def write_pid(directory: Path) -> None:
    descriptor = os.open(directory / PID_FILE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="ascii") as file:
        file.write(f"{os.getpid()}\n")


def remove_pid(directory: Path) -> None:
    """Take the claim back; another process's is left alone."""
    if claimed_pid(directory) == os.getpid():
        (directory / PID_FILE).unlink(missing_ok=True)


# ---------------------------------------------------------------- starting it


def make_private(directory: Path) -> None:
    """The data center's directory, for its owner alone.

    Raises:
        JournalUnwritable: it cannot be made.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise JournalUnwritable(
            f"data center directory {directory} cannot be made ({error.strerror}); name another with --directory"
        ) from error


def daemon_command(directory: Path, runtime: str, settings: dict[str, object]) -> list[str]:
    return [sys.executable, "-m", MODULE, str(directory), runtime, msgspec.json.encode(settings).decode()]


def package_root() -> Path:
    """Where `-m` finds olvm whatever the caller's directory is, and finds nothing of the caller's instead."""
    return Path(olvm.__file__).resolve().parents[1]


def start(directory: Path, command: list[str], timeout_s: float) -> int:
    """Start the daemon and wait until it serves; returns its process id.

    Raises:
        OlvmError: what it failed with.
        WaitTimeout: it is still starting.
    """
    reading, writing = os.pipe()
    with open(reading, "rb") as answer:
        try:
            process = _spawn(directory, command, writing)
        finally:
            os.close(writing)
        if not select.select([answer], [], [], timeout_s)[0]:
            raise WaitTimeout(
                f"data center {directory} does not serve after {timeout_s:g} s; it goes on starting, see "
                f"`olvm status` and {directory / LOG_FILE}"
            )
        said = answer.read()
    if not said:
        raise OlvmError(f"data center {directory} ended while starting ({_last_words(directory)})")
    readiness = msgspec.json.decode(said, type=Readiness)
    if readiness.code:
        process.wait()
        raise from_wire(readiness.code, readiness.message)
    process.returncode = 0  # it outlives this process on purpose: no warning about a child left behind
    return process.pid


def _spawn(directory: Path, command: list[str], writing: int) -> subprocess.Popen[bytes]:
    log = os.open(directory / LOG_FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        return subprocess.Popen(
            [*command, str(writing)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=package_root(),
            pass_fds=[writing],
            start_new_session=True,
        )
    finally:
        os.close(log)


def _last_words(directory: Path) -> str:
    path = directory / LOG_FILE
    tail = path.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace").strip().splitlines()
    return f"its last words: {tail[-1]}; see {path}" if tail else f"it left nothing in {path}"


# ---------------------------------------------------------------- ending it


def stop(directory: Path, timeout_s: float) -> int:
    """End the daemon in order and wait until it is gone; returns its process id, 0 when none runs.

    Raises:
        WaitTimeout: it is still closing its journals.
    """
    pid = claimed_pid(directory)
    if not pid:
        return 0
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return 0
    try:
        if not _is_daemon_of(pid, directory):
            return 0
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, signal.SIGTERM)
        if not select.select([handle], [], [], timeout_s)[0]:
            raise WaitTimeout(
                f"data center {directory} (process {pid}) still runs {timeout_s:g} s after it was asked to stop; "
                f"it goes on stopping, see {directory / LOG_FILE}"
            )
    finally:
        os.close(handle)
    return pid
