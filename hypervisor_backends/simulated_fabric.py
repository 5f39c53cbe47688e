"""The wire between simulated hypervisors, on which a live migration's messages travel.

Decides nothing but the order of delivery. Best effort: a carrier may delay, drop, repeat or reorder what is sent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeAlias

Receive: TypeAlias = Callable[[str, bytes], None]
Carry: TypeAlias = Callable[[str, str, Callable[[], None]], None]


class Fabric(Protocol):
    """What one simulated hypervisor needs of its migration network."""

    def attach(self, host: str, receive: Receive) -> None:
        """Deliver what is sent to `host` by `receive(source_host, data)`; replaces an earlier receiver."""

    def detach(self, host: str) -> None:
        """Deliver nothing more to `host`; without effect when it is not attached."""

    def send(self, source_host: str, to_host: str, data: bytes) -> None:
        """Best effort; does not raise, and tells nobody whether it arrived."""


class MemoryFabric:
    """Hosts of one process. `carry(source, to, deliver)` decides when `deliver` is called, how often, or never.

    Without `carry` a message is delivered at once, but after what its sender is doing: deliveries are queued and
    never nested.
    """

    def __init__(self, carry: Carry | None = None) -> None:
        self._carry = carry
        self._receive_by_host: dict[str, Receive] = {}
        self._waiting: deque[Callable[[], None]] = deque()
        self._delivering = False

    def attach(self, host: str, receive: Receive) -> None:
        self._receive_by_host[host] = receive

    def detach(self, host: str) -> None:
        self._receive_by_host.pop(host, None)

    def send(self, source_host: str, to_host: str, data: bytes) -> None:
        deliver = partial(self._deliver, source_host, to_host, data)
        if self._carry is not None:
            self._carry(source_host, to_host, deliver)
            return
        deliver()

    def _deliver(self, source_host: str, to_host: str, data: bytes) -> None:
        self._waiting.append(partial(self._hand_over, source_host, to_host, data))
        if self._delivering:
            return
        self._delivering = True
        try:
            while self._waiting:
                self._waiting.popleft()()
        finally:
            self._delivering = False

    def _hand_over(self, source_host: str, to_host: str, data: bytes) -> None:
        receive = self._receive_by_host.get(to_host)
        if receive is not None:
            receive(source_host, data)
