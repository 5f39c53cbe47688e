"""The way to end a question that runs in another thread or process: by its client, its time, or whoever needs room.

Rule: an interrupt that comes before the database has begun has no effect, so it is repeated until the question ends.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from olvm.model.errors import BadQuery

REPEAT_S = 0.05


class Stop:
    """One question's. May be used from any thread; the first reason stays."""

    def __init__(self) -> None:
        self.reason = ""  # empty: nobody has asked for its end
        self._changed = threading.Condition()

    def stop(self, reason: str) -> None:
        """Ask for the end. `reason` completes "the query was stopped: …"."""
        with self._changed:
            self.reason = self.reason or reason
            self._changed.notify_all()

    def check(self, what: str) -> None:
        """Between two steps, where no interrupt arrives: raises BadQuery if the end was asked for."""
        if self.reason:
            raise BadQuery(f"{what} was stopped: {self.reason}")

    @contextlib.contextmanager
    def watching(
        self, interrupt: Callable[[], object], timeout_s: float, *, repeat_s: float = REPEAT_S
    ) -> Iterator[None]:
        """Inside, `interrupt` is called, again and again, once the end is asked for or the time is over.

        It is not called after the block, and there may be several blocks, one after the other. Cost: a thread.
        """
        ended = threading.Event()

        def watch() -> None:
            with self._changed:
                self._changed.wait_for(lambda: self.reason or ended.is_set(), timeout_s)
            if not ended.is_set():
                self.stop(f"it took longer than {timeout_s:g} s; narrow it, for example with where or limit")
            while not ended.is_set():
                interrupt()
                ended.wait(repeat_s)

        watcher = threading.Thread(target=watch, name="question-watch", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            with self._changed:
                ended.set()
                self._changed.notify_all()
            watcher.join()
