"""SQL that clients ask: how many at once, how many in line, for how long, and how one is ended before its time.

It must not know what a question says or who answers it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import msgspec

from olvm.model.client_protocol import ExportHistory, Sql
from olvm.model.errors import BadInput, Conflict
from olvm.model.limits import SQL_AT_ONCE_MAX, SQL_ROWS_MAX, SQL_SHORT_S, SQL_TIMEOUT_S_MAX, SQL_WAITING_MAX
from olvm.stopping import Stop

# Long ones: a question takes a processor whole, and one is left for those who do not ask.
AT_ONCE = max(1, min(SQL_AT_ONCE_MAX, (os.cpu_count() or 1) - 1))

QuestionKey = tuple[int, int]  # a connection's number, and its number for the request


def checked_question(ask: Sql) -> Sql:
    """The question, with no more rows than one answer may hold.

    Raises:
        BadInput: a limit that is none.
    """
    if not 0 < ask.timeout_s <= SQL_TIMEOUT_S_MAX:
        raise BadInput(
            f"sql: timeout must be above 0 and at most {SQL_TIMEOUT_S_MAX:g} s, got {ask.timeout_s:g}"
        )
    if ask.row_count_max < 1:
        raise BadInput(f"sql: limit must be at least 1 row, got {ask.row_count_max}")
    return msgspec.structs.replace(ask, row_count_max=min(ask.row_count_max, SQL_ROWS_MAX))


def checked_times(ask: ExportHistory) -> None:
    """Raises BadInput for times that hold nothing, or a time-out that is none."""
    if not 0 < ask.timeout_s <= SQL_TIMEOUT_S_MAX:
        raise BadInput(
            f"export: timeout must be above 0 and at most {SQL_TIMEOUT_S_MAX:g} s, got {ask.timeout_s:g}"
        )
    if ask.from_ns is not None and ask.to_ns is not None and ask.from_ns >= ask.to_ns:
        raise BadInput("export: it ends before it begins; exchange --from and --to")


class Questions:
    """Runs them in threads of its own. May be used from any thread."""

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self._at_once = at_once
        self._long = ThreadPoolExecutor(at_once, thread_name_prefix="question")
        self._short = ThreadPoolExecutor(SQL_AT_ONCE_MAX, thread_name_prefix="lookup")
        self._lock = threading.Lock()
        self._stop_by_key: dict[QuestionKey, Stop] = {}

    def submit(self, key: QuestionKey, timeout_s: float, answer: Callable[[Stop], None]) -> None:
        """Have `answer` called in its turn; one that was stopped meanwhile is called too, and refuses at once.

        Raises:
            Conflict: too many wait.
        """
        stop = Stop()
        with self._lock:
            if len(self._stop_by_key) >= self._at_once + SQL_WAITING_MAX:
                raise Conflict(
                    f"sql: {len(self._stop_by_key)} questions run or wait already; ask again later"
                )
            self._stop_by_key[key] = stop
        threads = self._short if timeout_s <= SQL_SHORT_S else self._long
        threads.submit(self._run, key, answer, stop)

    def _run(self, key: QuestionKey, answer: Callable[[Stop], None], stop: Stop) -> None:
        try:
            answer(stop)
        finally:
            with self._lock:
                del self._stop_by_key[key]

    def stop(self, key: QuestionKey, reason: str) -> None:
        """An unknown key is one that has ended."""
        with self._lock:
            stop = self._stop_by_key.get(key)
        if stop is not None:
            stop.stop(reason)

    def forget(self, connection_number: int) -> None:
        """Its client has gone: nobody waits for its answers."""
        with self._lock:
            stops = [stop for key, stop in self._stop_by_key.items() if key[0] == connection_number]
        for stop in stops:
            stop.stop("its client has gone")

    def close(self) -> None:
        with self._lock:
            stops = list(self._stop_by_key.values())
        for stop in stops:
            stop.stop("the engine is being closed")
        self._long.shutdown(wait=False)
        self._short.shutdown(wait=False)
