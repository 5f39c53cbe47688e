"""S9: a running machine is ended only by a durable order that names it and its epoch.

Orders of the engine's side lie in the outbox of the silo that owns the machine before they leave it; its word that it
has taken a copy's end to heart (`ForgetDomain`) is one: nothing of that epoch may run from then on. A host ends
machines by itself in three cases, each with its own proof: its watchdog (no call at all), a machine that the
engine has moved on from (a `CreateDomain` or `PrepareIncoming` of a higher epoch came), and the resume behaviour
kill after an I/O error.
"""

from __future__ import annotations

from typing import ClassVar, cast

import msgspec

from olvm.journal.port import Batch
from olvm.model import messages as m
from olvm.model.records import DomainRecord
from sim.oracles.oracle import Oracle, Witness

_Envelope = tuple[str, str, str, str, m.AnyMessage]
_decode = msgspec.msgpack.Decoder(_Envelope).decode
_MARKS = (b"CommandDomain", b"ForgetDomain", b"CreateDomain", b"PrepareIncoming", b"StopAgent")


class DestroyedOnRecord(Oracle):
    ID: ClassVar[str] = "S9"
    PROMISE: ClassVar[str] = "a machine is destroyed only by an explicit durable order with its id and epoch"

    def __init__(self, witness: Witness) -> None:
        super().__init__(witness)
        self._ordered: dict[str, int] = {}  # the highest epoch up to which the machine may be ended
        self._killable: set[tuple[str, str]] = (
            set()
        )  # (host, machine) paused by an I/O error, kept with "kill"
        self._leaving: set[str] = set()  # hosts whose agent was told to stop

    def committed(self, silo: str, batch: Batch) -> None:
        for outgoing in batch.outgoing:
            if any(mark in outgoing.payload for mark in _MARKS):
                self._note(_decode(outgoing.payload)[4])
        for row in cast("dict[str, DomainRecord]", batch.upserts.get(DomainRecord, {})).values():
            if row.resume_behavior == "kill" and row.paused_since_ns:
                self._killable.add((row.host, row.vm_id))
        del silo

    def _note(self, message: m.AnyMessage) -> None:
        match message:
            case m.CommandDomain() if message.verb == "destroy":
                self._allow(message.vm_id, message.epoch)
            case m.CreateDomain() | m.PrepareIncoming():
                self._allow(message.vm_id, message.epoch - 1)
            case m.ForgetDomain():
                self._allow(message.vm_id, message.epoch)
            case m.StopAgent():
                self._leaving.add(message.host)
            case _:
                pass

    def _allow(self, vm_id: str, epoch: int) -> None:
        self._ordered[vm_id] = max(self._ordered.get(vm_id, 0), epoch)

    def called(self, host: str, request: str, vm_id: str, epoch: int) -> None:
        if request != "DestroyDomain" or epoch <= self._ordered.get(vm_id, 0):
            return
        if (host, vm_id) not in self._killable and host not in self._leaving:
            self.fail(f"machine {vm_id} (epoch {epoch}) was destroyed on {host} and no durable order says so")
