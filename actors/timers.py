"""When the actors of a silo are woken, and when its ports are called: what is due, in one heap.

Decides the order: by time, and at one instant in the order of asking. Must not know what an actor does about it, nor
which timers are durable: a record carries those, and the silo arms them again when it recovers.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator


class Timers:
    """One due time for each (address, name), and actions."""

    __slots__ = ("_asked_count", "_due_by_timer", "_heap")

    def __init__(self) -> None:
        # An entry of an actor's timer that was armed anew or disarmed since stays, and is passed over when it is due.
        self._heap: list[tuple[int, int, str, str, Callable[[], None] | None]] = []
        self._asked_count = 0
        self._due_by_timer: dict[tuple[str, str], int] = {}

    def arm(self, address: str, name: str, due_ns: int) -> None:
        """In place of an earlier time of the same name."""
        self._due_by_timer[address, name] = due_ns
        self._asked_count += 1
        heapq.heappush(self._heap, (due_ns, self._asked_count, address, name, None))

    def disarm(self, address: str, name: str) -> None:
        """One that is not armed is no error."""
        self._due_by_timer.pop((address, name), None)

    def call_at(self, due_ns: int, action: Callable[[], None]) -> Callable[[], None]:
        """Run `action` when it is due, unless the returned cancel is called."""
        cancelled: list[bool] = []

        def run() -> None:
            if not cancelled:
                action()

        self._asked_count += 1
        heapq.heappush(self._heap, (due_ns, self._asked_count, "", "", run))
        return lambda: cancelled.append(True)

    def forget_actors(self) -> None:
        """The silo recovers, and arms actors again from their records. Actions stay: nobody would ask for one again."""
        self._due_by_timer.clear()
        self._heap = [entry for entry in self._heap if entry[4] is not None]
        heapq.heapify(self._heap)

    @property
    def next_ns(self) -> int | None:
        """When something may be due; never too late, at most too early."""
        return self._heap[0][0] if self._heap else None

    def take_due(self, now_ns: int) -> Iterator[tuple[str, str]]:
        """Address and name of each timer that is due; actions among them are run in passing, in their turn."""
        while self._heap and self._heap[0][0] <= now_ns:
            due_ns, _, address, name, action = heapq.heappop(self._heap)
            if action is not None:
                action()
            elif self._due_by_timer.get((address, name)) == due_ns:
                del self._due_by_timer[address, name]
                yield address, name
