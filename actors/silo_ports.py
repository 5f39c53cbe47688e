"""What stands around a silo: ports to the outer world, who hears of its commits, and who makes its actors.

Decides what a silo asks of them and when. Must not know a hypervisor, a socket or a runtime: those keep to it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from actors.behaviour import Behaviour
from olvm.model.messages import AnyMessage
from olvm.model.record import Record
from olvm.model.records import EventRecord

Records = dict[type[Record], dict[str, Record]]
Cast = Callable[[Records], list[Behaviour]]


class Port(Protocol):
    """The outer world of a silo: a hypervisor, the history file."""

    def submit(self, caller: str, request: object, tag: str) -> None:
        """Start the request; its answer is posted to `caller` as `CallEnded(tag)`, now or later."""
        ...


class SiloObserver(Protocol):
    """Who must hear of commits: the gateway that answers clients."""

    def on_reply(self, address: str, message: AnyMessage) -> None: ...

    def on_committed(self, saved: Records, events: list[EventRecord]) -> None: ...

    def on_released(self) -> None:
        """After the replies of the batch."""
