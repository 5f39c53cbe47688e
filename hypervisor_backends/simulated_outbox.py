"""The one way out of the simulated hypervisor: answers, events and messages, in the order of what happened."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial

from hypervisor_backends.protocol import CallResult, DomainEvent, Done, Listener


class Outbox:
    """Callbacks wait here until the state they speak of is complete."""

    def __init__(self) -> None:
        self.listener: Listener | None = None
        self._waiting: deque[Callable[[], None]] = deque()
        self._draining = False
        self._held: list[DomainEvent] | None = None  # events that wait, while nobody passes them on

    def hold_events(self) -> None:
        """Events wait from now on, in their order; answers and messages do not."""
        self._held = []

    def release_events(self) -> None:
        held, self._held = self._held or [], None
        for event in held:
            self.tell(event)

    def forget_events(self) -> None:
        self._held = None

    def answer(self, done: Done, result: CallResult) -> None:
        self._waiting.append(partial(done, result))

    def tell(self, event: DomainEvent) -> None:
        self._waiting.append(partial(self._hand_over, event))

    def send(self, send: Callable[[], None]) -> None:
        """A message to another host leaves in its turn, as answers and events do."""
        self._waiting.append(send)

    def clear(self) -> None:
        self._waiting.clear()

    def drain(self) -> None:
        """Run what waits and what that leaves behind; within a callback this is left to the outer call."""
        if self._draining:
            return
        self._draining = True
        try:
            while self._waiting:
                self._waiting.popleft()()
        finally:
            self._draining = False

    def _hand_over(self, event: DomainEvent) -> None:
        if self._held is not None:
            self._held.append(event)
        elif self.listener is not None:
            self.listener(event)
