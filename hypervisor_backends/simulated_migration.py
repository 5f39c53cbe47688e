"""Live migration of a simulated host: what may be asked, who is meant by a message, and how bandwidth is shared.

The two sides are `simulated_departure.py` and `simulated_arrival.py`; the order of their messages stands in
`simulated_moving.py`. A host's bandwidth is shared evenly by all its migrations, in both directions, and each runs at
the least of what its two hosts and its own limit allow.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TypeAlias, assert_never

import msgspec

from hypervisor_backends.protocol import (
    CallSucceeded,
    CancelMigration,
    ChangeMigration,
    Done,
    GetMigrationStatistics,
    IncomingAddress,
    MigrateDomain,
    PrepareIncoming,
    StartPostCopy,
)
from hypervisor_backends.simulated_arrival import Arrivals, target_of
from hypervisor_backends.simulated_departure import Departures
from hypervisor_backends.simulated_domain import ADMITTED, SimulatedDomain
from hypervisor_backends.simulated_fabric import Fabric
from hypervisor_backends.simulated_host import SimulatedHost
from hypervisor_backends.simulated_machine import SUCCEEDED
from hypervisor_backends.simulated_moving import (
    Abandon,
    Alive,
    Begin,
    Finish,
    Incoming,
    Last,
    Message,
    ToSource,
    ToTarget,
)

MigrationRequest: TypeAlias = (
    MigrateDomain | ChangeMigration | StartPostCopy | CancelMigration | GetMigrationStatistics
)
MIGRATION_REQUESTS = (MigrateDomain, ChangeMigration, StartPostCopy, CancelMigration, GetMigrationStatistics)
_TO_TARGET = (Begin, Alive, Last, Finish, Abandon)
_DECODER: msgspec.msgpack.Decoder[ToTarget | ToSource] = msgspec.msgpack.Decoder(ToTarget | ToSource)
_ENCODER = msgspec.msgpack.Encoder()


class Migrations:
    """All migrations of one host, in both directions."""

    def __init__(self, host: SimulatedHost, fabric: Fabric | None) -> None:
        self._host = host
        self._fabric = fabric
        self._departures = Departures(host, self._send, self._on_changed, self._share_bytes_per_s)
        self._arrivals = Arrivals(host, self._send, self._on_changed, self._share_bytes_per_s)
        host.on_moving_ended = self._on_ended
        if fabric is not None:
            fabric.attach(host.name, self._receive)

    def close(self) -> None:
        if self._fabric is not None:
            self._fabric.detach(self._host.name)

    def on_power_off(self) -> None:
        self._arrivals.on_power_off()

    # ------------------------------------------------------------ what is asked

    def prepare(self, request: PrepareIncoming, done: Done) -> None:
        self._arrivals.prepare(request, done)

    def end_latecomer(self, vm_id: str) -> None:
        """What arrives and is on no list, if there is such a thing: it will not run here."""
        self._arrivals.end_latecomer(vm_id)

    def repeat_address(self, incoming: Incoming, done: Done) -> None:
        self._host.outbox.answer(done, CallSucceeded(value=IncomingAddress(uri=incoming.uri)))

    def wrong_state(self, request: MigrationRequest, domain: SimulatedDomain) -> str | None:
        """Why the request does not fit now. Nothing has changed yet."""
        out = domain.outgoing
        if isinstance(request, MigrateDomain):
            return self._wrong_state_to_leave(request, domain)
        if out is None:
            return "it does not migrate from here"
        if isinstance(request, GetMigrationStatistics):
            return None
        if out.is_past_switch_over:
            return "it is past the switch-over; wait for the end of its migration"
        if isinstance(request, StartPostCopy) and not (out.may_post_copy and out.phase == "copying"):
            return "its memory is not being copied yet, or post-copy was not allowed; ask again later"
        return None

    def _wrong_state_to_leave(self, request: MigrateDomain, domain: SimulatedDomain) -> str | None:
        out = domain.outgoing
        if request.epoch != domain.epoch:
            return f"its epoch here is {domain.epoch} and not {request.epoch}; list the domains"
        if out is not None:
            # The same request again waits for the end with the first.
            is_same = out.to_epoch == request.to_epoch and out.target == target_of(request.to_uri)
            return None if is_same else f"it migrates to host {out.target} already; cancel that first"
        if domain.incoming is not None:
            return "it has not arrived whole; wait for that"
        if domain.pause_code == "POSTMIGRATE":
            return "another host may run it; find out there"
        if domain.status not in ADMITTED[MigrateDomain]:
            return f"its status is {domain.shown_status()}; wait for another one"
        return None

    def carry_out(self, request: MigrationRequest, domain: SimulatedDomain, done: Done) -> None:
        if isinstance(request, MigrateDomain):
            self._leave(request, domain, done)
            return
        out = domain.outgoing
        assert out is not None, f"domain {domain.vm_id} is not the source of a migration"
        match request:
            case ChangeMigration():
                out.copying.downtime_ms = request.downtime_ms
                self._host.outbox.answer(done, SUCCEEDED)
            case StartPostCopy():
                self._host.outbox.answer(done, SUCCEEDED)
                self._departures.start_post_copy(domain)
            case CancelMigration():
                self._host.outbox.answer(done, SUCCEEDED)
                self._departures.cancel(domain)
            case GetMigrationStatistics():
                self._host.outbox.answer(done, CallSucceeded(value=self._departures.statistics(domain)))
            case _:
                assert_never(request)

    def _leave(self, request: MigrateDomain, domain: SimulatedDomain, done: Done) -> None:
        if domain.outgoing is not None:
            domain.outgoing.waiters.append(done)
            return
        target = target_of(request.to_uri)
        if target is None:
            message = (
                f"domain {domain.spec.name} ({domain.vm_id}) cannot leave host {self._host.name}: "
                f"{request.to_uri!r} is not an address that a simulated host gave out; prepare the target first"
            )
            self._host.fail(done, "migration_failed", message)
            return
        self._departures.begin(domain, request, target, done)

    def break_off(self, domain: SimulatedDomain, reason: str) -> None:
        """The source's side is gone. What has been handed over, or may have been, is left to its time limits."""
        if domain.outgoing is not None and not domain.outgoing.is_past_switch_over:
            self._departures.break_off(domain, reason)

    # ------------------------------------------------------------ messages

    def _send(self, to_host: str, message: Message) -> None:
        if self._fabric is not None:
            data = _ENCODER.encode(message)
            self._host.outbox.send(partial(self._fabric.send, self._host.name, to_host, data))

    def _receive(self, source: str, data: bytes) -> None:
        if not self._host.is_on:
            return
        message = _DECODER.decode(data)
        if isinstance(message, _TO_TARGET):
            self._arrivals.on_message(source, message)
        else:
            domain = self._host.domains.get(message.vm_id)
            out = None if domain is None else domain.outgoing
            if domain is not None and out is not None and out.attempt == message.attempt:
                self._departures.on_message(domain, out, message)
        self._host.outbox.drain()

    # ------------------------------------------------------------ what both sides share

    def _on_ended(self, domain: SimulatedDomain) -> None:
        if domain.outgoing is not None:
            self._departures.on_ended(domain, domain.outgoing)
        if domain.incoming is not None:
            self._arrivals.on_ended(domain, domain.incoming)

    def _on_changed(self) -> None:
        """A migration began or ended here: each of the others gets another share."""
        self._departures.replan()
        self._arrivals.announce()

    def _share_bytes_per_s(self) -> float:
        total = self._host.config.migration_bandwidth_bytes_per_s
        if total == 0:
            return math.inf
        domains = self._host.domains.values()
        count = sum(
            domain.outgoing is not None or (domain.incoming is not None and domain.incoming.attempt != "")
            for domain in domains
        )
        return total / max(count, 1)
