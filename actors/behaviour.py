"""What an actor is: a plain class with one mutator, and what a turn may ask of its silo.

A behaviour decides; it never does. It imports no clock, random source, socket, thread, Ray or DuckDB: the turn
hands it the time and new ids and collects what it wants done. Nothing collected here happens before the silo has
committed it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import lru_cache
from typing import Protocol, cast

from olvm.model.config import Config
from olvm.model.messages import AnyMessage
from olvm.model.record import Record
from olvm.model.records import EventRecord, Severity


@lru_cache(maxsize=50_000)
def _rhythm(silo: str, period_s: float) -> tuple[int, int]:
    """A period, and when in it this silo's moment is."""
    period_ns = max(1, int(period_s * 1e9))
    return period_ns, zlib.crc32(silo.encode()) * 1_000 % period_ns


class TimedRecord(Protocol):
    """A record that carries its own deadlines."""

    timers: dict[str, int]


class Behaviour(Protocol):
    """One actor. `handle` is its only mutator; it may raise only for a fault of the programmer."""

    @property
    def address(self) -> str: ...

    def handle(self, message: AnyMessage, turn: Turn) -> None: ...

    def timed_record(self) -> TimedRecord | None:
        """The record whose `timers` the silo re-arms when it recovers this actor."""
        ...


class Turn:
    """One message's handling. Everything asked of it is collected in order and released after the commit.

    It is valid while its message is handled and must not be kept: the silo uses the object again.
    """

    __slots__ = (
        "calls",
        "cause_id",
        "config",
        "erased",
        "events",
        "marks",
        "me",
        "message_id",
        "new_id",
        "now_ns",
        "saved",
        "sender",
        "sent",
        "silo",
        "spawned",
        "stopped",
        "timers",
    )

    def __init__(
        self,
        me: str,
        sender: str,
        message_id: str,
        now_ns: int,
        config: Config,
        new_id: Callable[[], str],
        *,
        silo: str = "engine",
    ) -> None:
        self.me = me
        self.silo = silo
        self.sender = sender
        self.message_id = message_id
        self.now_ns = now_ns
        self.config = config
        self.new_id = new_id
        self.saved: list[Record] = []
        self.erased: list[Record] = []
        self.sent: list[tuple[str, AnyMessage, bool]] = []
        self.timers: list[tuple[str, int | None]] = []
        self.calls: list[tuple[str, object, str]] = []
        self.events: list[EventRecord] = []
        self.spawned: list[Behaviour] = []
        self.stopped = False
        self.marks: list[str] | None = None  # a list only where somebody counts situations

    def clear(self) -> None:
        """Forget what was asked, once it has been collected."""
        self.saved.clear()
        self.erased.clear()
        self.sent.clear()
        self.timers.clear()
        self.calls.clear()
        self.events.clear()
        self.spawned.clear()
        self.stopped = False

    def save(self, record: Record) -> None:
        """Commit the record as it stands at the end of this turn."""
        for saved in self.saved:
            if saved is record:
                return
        self.saved.append(record)

    def erase(self, record: Record) -> None:
        self.erased.append(record)

    def send(self, to: str, message: AnyMessage) -> None:
        """Deliver at least once, after the commit, across crashes of either side."""
        self.sent.append((to, message, True))

    def tell(self, to: str, message: AnyMessage) -> None:
        """Deliver at most once: for what is said again anyway (heartbeats, reports, samples)."""
        self.sent.append((to, message, False))

    def reply(self, message: AnyMessage) -> None:
        self.sent.append((self.sender, message, True))

    def set_timer(self, record: TimedRecord, name: str, after_s: float) -> None:
        """Fire `TimerFired(name)` at this actor after `after_s` seconds, also after a restart."""
        due_ns = self.now_ns + int(after_s * 1e9)
        record.timers[name] = due_ns
        self.timers.append((name, due_ns))
        self.save(cast(Record, record))

    def cancel_timer(self, record: TimedRecord, name: str) -> None:
        if record.timers.pop(name, None) is not None:
            self.timers.append((name, None))
            self.save(cast(Record, record))

    def wake(self, name: str, after_s: float) -> None:
        """A timer that a restart forgets: for periodic work that `Recovered` starts anew."""
        self.timers.append((name, self.now_ns + int(after_s * 1e9)))

    def wake_each(self, name: str, period_s: float) -> None:
        """As `wake`, at the next multiple of the period: the actors of a silo do periodic work together, in one
        batch and one frame, and different silos at different moments."""
        period_ns, phase_ns = _rhythm(self.silo, period_s)
        due_ns = (self.now_ns - phase_ns) // period_ns * period_ns + period_ns + phase_ns
        self.timers.append((name, due_ns))

    def call(self, port: str, request: object, tag: str) -> None:
        """Ask the outer world; the answer comes as `CallEnded(tag)`. Asked after the commit, and once per turn."""
        self.calls.append((port, request, tag))

    def spawn(self, behaviour: Behaviour) -> None:
        self.spawned.append(behaviour)

    def stop(self) -> None:
        """End this actor after the turn."""
        self.stopped = True

    def sometimes(self, situation: str) -> None:
        """Mark a situation of `olvm.model.situations` that simulations must reach. Changes nothing."""
        if self.marks is not None:
            self.marks.append(situation)

    def record(
        self,
        code: str,
        message: str,
        severity: Severity = "normal",
        *,
        vm_id: str = "",
        vm_name: str = "",
        host: str = "",
        cluster: str = "",
        operation_id: str = "",
        details: dict[str, str | int | float | bool | None] | None = None,
    ) -> None:
        """Record an event for history; it gets its sequence number from the silo at the end of the turn."""
        self.events.append(
            EventRecord(
                id="",
                seq=0,
                at_ns=self.now_ns,
                code=code,
                severity=severity,
                message=message,
                vm_id=vm_id,
                vm_name=vm_name,
                host=host,
                cluster=cluster,
                operation_id=operation_id,
                details=details or {},
            )
        )
