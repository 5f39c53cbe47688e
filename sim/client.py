"""The clients of the data center: what they asked, what they heard, and when.

A request crosses the network to the engine and its answer crosses it back; either may be lost, and then the client
does not know what became of it. This is the history that linearizability is judged by. It also hears the engine's
commits, as the gateway does: how operations ended, and the events.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable

import msgspec

from actors.silo_ports import Records
from actors.wire import ENGINE_SILO, Envelope, decode_envelope, encode
from olvm.journal.port import Batch
from olvm.model import messages as m
from olvm.model.records import EventRecord, OperationRecord
from sim.clock import Timeline
from sim.network import CLIENT, Link, Network
from sim.processes import Processes

EVENTS_KEPT_MAX = 20_000


class Call(msgspec.Struct, kw_only=True):
    """One request. `answered_ns` None: nothing was heard; it may have taken effect, and may still."""

    client: str
    message: m.AnyMessage
    request_id: str
    asked_ns: int
    answered_ns: int | None = None
    reply: m.AnyMessage | None = None


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """An operation that the engine has committed the end of."""

    operation_id: str
    kind: str
    status: str
    reason: str
    error_code: str
    at_ns: int


class Clients:
    """All clients of a run. Implements the silo's `SiloObserver` for every life of the engine."""

    def __init__(self, timeline: Timeline, network: Network, processes: Processes) -> None:
        self.calls: dict[str, Call] = {}
        self.open_calls: dict[str, Call] = {}
        self.ended: dict[str, Ended] = {}
        self.events: deque[EventRecord] = deque(maxlen=EVENTS_KEPT_MAX)
        self.event_counts: Counter[str] = Counter()
        self._timeline = timeline
        self._network = network
        self._processes = processes
        self._requests = network.link(CLIENT, ENGINE_SILO, self._arrive)
        self._replies = network.link(ENGINE_SILO, CLIENT, self._hear)
        self._count = 0
        # Told of what clients ask, and of what they hear.
        self.asked: list[Callable[[str, m.Command, str], None]] = []
        self.answered: list[Callable[[str, m.AnyMessage], None]] = []
        # Told of the engine's commits as its gateway is.
        self.follower: Callable[[Records, list[EventRecord]], None] | None = None

    def ask(self, command: m.Command, request_id: str = "") -> Call:
        """Submit without waiting."""
        call = self.say(m.Submit(command, request_id), request_id)
        for asked in self.asked:
            asked(call.client, command, request_id)
        return call

    def say(self, message: m.AnyMessage, request_id: str = "") -> Call:
        """Any question to the engine."""
        self._count += 1
        client = f"client/{self._count}"
        call = Call(client=client, message=message, request_id=request_id, asked_ns=self._timeline.time_ns)
        self.calls[client] = self.open_calls[client] = call
        self._network.send(self._requests, encode((ENGINE_SILO, client, client, "", message)))
        return call

    def _arrive(self, _: Link, data: bytes) -> None:
        self._processes.post(ENGINE_SILO, decode_envelope(data))

    def _hear(self, _: Link, data: bytes) -> None:
        envelope: Envelope = decode_envelope(data)
        call = self.open_calls.pop(envelope.to, None)
        if call is not None:
            call.answered_ns = self._timeline.time_ns
            call.reply = envelope.message
            for answered in self.answered:
                answered(call.client, envelope.message)

    def committed(self, silo: str, batch: Batch) -> None:
        """What the gateway of the engine's silo would tell whoever waits or listens."""
        if silo != ENGINE_SILO:
            return
        for row in batch.upserts.get(OperationRecord, {}).values():
            if isinstance(row, OperationRecord) and row.finished_ns is not None:
                self._note_end(row)
        for event in batch.upserts.get(EventRecord, {}).values():
            if isinstance(event, EventRecord):
                self.events.append(event)
                self.event_counts[event.code] += 1

    def _note_end(self, row: OperationRecord) -> None:
        self.ended.setdefault(
            row.id,
            Ended(
                operation_id=row.id,
                kind=row.kind,
                status=row.status,
                reason=row.reason,
                error_code=row.error_code,
                at_ns=self._timeline.time_ns,
            ),
        )

    # ------------------------------------------------------------------ the engine's observer

    def on_reply(self, address: str, message: m.AnyMessage) -> None:
        process = self._processes.by_name.get(ENGINE_SILO)
        delay_ns = 0 if process is None else process.batch_delay_ns
        self._network.send(self._replies, encode((address, ENGINE_SILO, "", "", message)), delay_ns)

    def on_committed(self, saved: Records, events: list[EventRecord]) -> None:
        """Heard from the journal already: also of what an engine commits and dies before it tells."""
        if self.follower is not None:
            self.follower(saved, events)

    def on_released(self) -> None:
        """Nothing is gathered: each reply has gone its own way."""
