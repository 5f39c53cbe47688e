"""Actors without power: simulated hosts that share a silo and are switched off while it goes on.

Decides what waits for such an actor and what dies with it. Must not know why it has no power or when it has it again.
"""

from __future__ import annotations

from collections import deque

from actors.behaviour import Behaviour
from actors.wire import Envelope
from olvm.model.limits import HELD_MESSAGES_MAX
from olvm.model.messages import CallEnded, DomainHappened


class Held:
    """An actor without power, and what other actors sent to it: timers, and answers to what it asked, die with it."""

    def __init__(self, behaviour: Behaviour | None) -> None:
        self.behaviour = behaviour
        self.waiting: deque[Envelope] = deque(maxlen=HELD_MESSAGES_MAX)

    def take(self, envelope: Envelope) -> None:
        if envelope.sender and not isinstance(envelope.message, CallEnded | DomainHappened):
            self.waiting.append(envelope)


class HeldActors:
    """The actors of a silo that stand among its own no longer: each is in one place, here or there."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: dict[str, Held] = {}

    def hold(self, address: str, behaviours: dict[str, Behaviour]) -> None:
        """Take the actor out of `behaviours`. Without effect on one that is held."""
        if address not in self._held:
            self._held[address] = Held(behaviours.pop(address, None))

    def let_go(self, address: str, behaviours: dict[str, Behaviour]) -> deque[Envelope] | None:
        """Put the actor back; what waited for it. None for one that is not held."""
        held = self._held.pop(address, None)
        if held is None:
            return None
        if held.behaviour is not None:
            behaviours[address] = held.behaviour
        return held.waiting

    def hold_again(self, behaviours: dict[str, Behaviour]) -> None:
        """The silo has recovered: who was held is held, as the actor that it is now."""
        for address, held in self._held.items():
            held.behaviour = behaviours.pop(address, None)

    def take(self, address: str, envelope: Envelope) -> bool:
        """Whether the message is for one that is held: it waits then, or is lost with the power."""
        held = self._held.get(address)
        if held is None:
            return False
        held.take(envelope)
        return True
