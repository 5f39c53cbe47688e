"""One fence agent as a child that cannot hang, flood or outlive its time.

Decides nothing about fencing. Options go in on stdin, so that no list of processes shows them; the environment is
ours and empty but for the search path, so that nothing of this process's own settings reaches the agent. Blocks its
caller for `timeout_s` at most.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

OUTPUT_BYTES_MAX = 64 * 1024  # of each stream; what comes after it is thrown away
INPUT_BYTES_MAX = 32 * 1024  # below what a pipe holds: writing it never waits for the agent
READ_BYTES = 16 * 1024
REAPED_WITHIN_S = 2.0
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C", "LC_ALL": "C"}


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """`code` is None when the agent did not end in time and was killed (`timed_out`), or could not be run at all."""

    code: int | None
    timed_out: bool = False
    said: str = ""  # on stdout
    complained: str = ""  # on stderr


def run_agent(
    program: Path,
    lines: str,
    timeout_s: float,
    *,
    words: tuple[str, ...] = (),
    started: Callable[[int], None] = lambda _: None,
) -> Ended:
    """`started` is told the process group, for whoever wants to end it sooner."""
    data = lines.encode()
    assert len(data) <= INPUT_BYTES_MAX, f"options of {program} were not checked for their size"
    try:
        child = subprocess.Popen(
            [str(program), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            env=ENVIRONMENT,
            start_new_session=True,
        )
    except OSError as error:
        return Ended(code=None, complained=f"it cannot be run: {error.strerror}")
    started(child.pid)
    assert child.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it ended without reading; its exit code says more
        child.stdin.write(data)
    with contextlib.suppress(BrokenPipeError):
        child.stdin.close()
    return _collect(child, timeout_s)


def _collect(child: subprocess.Popen[bytes], timeout_s: float) -> Ended:
    """Until the child itself has ended: what it left behind may keep the pipes open for ever."""
    assert child.stdout is not None
    assert child.stderr is not None
    deadline_s = time.monotonic() + timeout_s
    kept = {child.stdout.fileno(): bytearray(), child.stderr.fileno(): bytearray()}
    ended = os.pidfd_open(child.pid)
    try:
        with selectors.DefaultSelector() as selector:
            for descriptor in (*kept, ended):
                selector.register(descriptor, selectors.EVENT_READ)
            while (left_s := deadline_s - time.monotonic()) > 0:
                ready = [key.fd for key, _ in selector.select(left_s)]
                for descriptor in ready:
                    if descriptor in kept and not _read(descriptor, kept[descriptor]):
                        selector.unregister(descriptor)
                if ready == [ended]:  # nothing more was waiting in the pipes
                    break
        code = _reap(child)
    finally:
        os.close(ended)
        child.stdout.close()
        child.stderr.close()
    said, complained = (bytes(data).decode(errors="replace") for data in kept.values())
    return Ended(code=code, timed_out=code is None, said=said, complained=complained)


def _read(descriptor: int, into: bytearray) -> bool:
    """False at the end of the stream."""
    data = os.read(descriptor, READ_BYTES)
    into += data[: OUTPUT_BYTES_MAX - len(into)]
    return bool(data)


def _reap(child: subprocess.Popen[bytes]) -> int | None:
    """Its exit code, or None if it had to be killed. What it started ends too; not even then is it waited for long.

    Its number is its group's, and stays that until it is waited for: so the group is killed first.
    """
    has_ended = os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(timeout=REAPED_WITHIN_S)
    return child.returncode if has_ended else None
