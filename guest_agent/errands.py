"""What takes time is done in a child, so that a heartbeat is never late for it.

The child answers with one JSON value through a pipe, or is killed at its deadline. It knows nothing of messages.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable
from typing import Any

ERRANDS_MAX = 16
ANSWER_BYTES_MAX = 4 * 1024 * 1024
FAILED: dict[str, Any] = {"error": "the errand ended without an answer"}


class _Errand:
    def __init__(self, pid: int, pipe: int, deadline_s: float, done: Callable[[Any, str], None]) -> None:
        self.pid = pid
        self.pipe = pipe
        self.deadline_s = deadline_s
        self.done = done
        self.said: list[bytes] = []
        self.said_bytes = 0


class Errands:
    """`start` at any time; `look` when a pipe is readable or a deadline has come. Times are monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._running: dict[str, _Errand] = {}
        self._dying: list[int] = []  # children that answered or were killed, and may hang in the kernel still

    def start(
        self, name: str, work: Callable[[], Any], done: Callable[[Any, str], None], timeout_s: float
    ) -> str:
        """Empty: begun, and `done(value, error)` will be called. Else why not: nothing was begun."""
        if name in self._running:
            return f"{name} is still being done"
        if len(self._running) >= ERRANDS_MAX:
            return "too much is being done at once"
        pipe, other = os.pipe()
        try:
            pid = os.fork()
        except OSError as error:  # no memory, or too many processes
            os.close(pipe)
            os.close(other)
            return f"{name} cannot be begun: {error.strerror}"
        if not pid:
            _work(work, other)
        with contextlib.suppress(OSError):  # the child does it too: whoever is first
            os.setpgid(pid, pid)
        os.close(other)
        os.set_blocking(pipe, False)
        self._running[name] = _Errand(pid, pipe, self._clock() + timeout_s, done)
        return ""

    def pipes(self) -> list[int]:
        return [errand.pipe for errand in self._running.values()]

    def due_s(self) -> float | None:
        """When the first of them is late."""
        return min((errand.deadline_s for errand in self._running.values()), default=None)

    def look(self) -> None:
        self._reap()
        for name, errand in list(self._running.items()):
            if self._has_ended(errand):
                del self._running[name]
                self._finish(errand, "")
            elif errand.deadline_s <= self._clock() or errand.said_bytes > ANSWER_BYTES_MAX:
                del self._running[name]
                os.killpg(errand.pid, signal.SIGKILL)
                self._finish(errand, f"{name} took too long and was ended")

    def close(self) -> None:
        """End them all; nobody is told."""
        for errand in self._running.values():
            os.killpg(errand.pid, signal.SIGKILL)
            os.close(errand.pipe)
            self._dying.append(errand.pid)
        self._running.clear()
        self._reap()

    def _reap(self) -> None:
        """Never wait: a child whose disk hangs ends when the disk answers."""
        self._dying = [pid for pid in self._dying if os.waitpid(pid, os.WNOHANG)[0] == 0]

    def _has_ended(self, errand: _Errand) -> bool:
        while errand.said_bytes <= ANSWER_BYTES_MAX:
            try:
                data = os.read(errand.pipe, 65536)
            except BlockingIOError:
                return False
            if not data:
                return True
            errand.said.append(data)
            errand.said_bytes += len(data)
        return False

    def _finish(self, errand: _Errand, late: str) -> None:
        os.close(errand.pipe)
        self._dying.append(errand.pid)
        self._reap()
        if late:
            errand.done(None, late)
            return
        try:
            said = json.loads(b"".join(errand.said).decode())
        except ValueError:
            said = FAILED
        errand.done(said.get("value"), said.get("error", ""))


def _work(work: Callable[[], Any], pipe: int) -> None:
    """The child's life. It leads a group, so that what it starts ends with it."""
    said: dict[str, Any] = dict(FAILED)
    try:
        os.setpgid(0, 0)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        said = {"value": work()}
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        ImportError,
    ) as error:  # not every guest has all of Python
        said = {"error": str(error) or type(error).__name__}
    finally:
        _write_all(pipe, json.dumps(said).encode())
        os._exit(0)


def _write_all(pipe: int, data: bytes) -> None:
    while data:
        data = data[os.write(pipe, data) :]
