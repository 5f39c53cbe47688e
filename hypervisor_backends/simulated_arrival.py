"""The target's side of a simulated live migration.

Decides which attempt a prepared domain belongs to, and when it runs. It runs on `Finish` of the attempt that it is
bound to, once, and never after it said that it will not. It does not ask whether its host may run leased machines: as
under libvirt, the watchdog ends what appears too late, within a poll period.

libvirt itself takes in whatever comes: a source that has asked whether its machine is expected, and begins when the
target has just given it up or ended it, is taken in all the same (the fault `arrival_is_late`). Such a *latecomer* is
on nobody's list while its memory comes, and is ended as soon as it is seen; one that runs before that is a domain like
any other, of which nobody knows until its `started` is told.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, assert_never

from hypervisor_backends.protocol import (
    CallSucceeded,
    Done,
    ExitReason,
    IncomingAddress,
    PrepareIncoming,
)
from hypervisor_backends.simulated_departure import Send
from hypervisor_backends.simulated_domain import SimulatedDomain
from hypervisor_backends.simulated_host import SimulatedHost
from hypervisor_backends.simulated_load import draw
from hypervisor_backends.simulated_moving import (
    Abandon,
    Accepted,
    Alive,
    Begin,
    Confirm,
    Finish,
    Gone,
    Got,
    Incoming,
    Last,
    Refused,
    ToTarget,
)
from olvm.model.limits import NS_PER_S

SCHEME = "simulated://"
OVER_MAX = 256  # attempts that are remembered after they are over
NOTHING_CAME = "nothing was heard from its source"
SEEN_AFTER_S_MAX = 60.0  # how long a latecomer may be there before it is ended: its agent may be away


def target_of(uri: str) -> str | None:
    """The host that gave the address out."""
    host, _, rest = uri.removeprefix(SCHEME).partition("/")
    return host if uri.startswith(SCHEME) and host and rest else None


class Arrivals:
    """All domains that come to one host. `changed` is called when a migration began or ended here."""

    def __init__(
        self,
        host: SimulatedHost,
        send: Send,
        changed: Callable[[], None],
        share_bytes_per_s: Callable[[], float],
    ) -> None:
        self._host = host
        self._send = send
        self._changed = changed
        self._share_bytes_per_s = share_bytes_per_s
        self._prepared_count = 0
        # What became of attempts that no waiting domain is bound to; `never` is a promise.
        self._over: dict[str, Literal["arrived", "never"]] = {}
        self._latecomers: dict[str, SimulatedDomain] = {}  # that arrive and do not run yet, by vm_id
        # Ended before a source was bound to them, by their address.
        self._withdrawn: dict[str, SimulatedDomain] = {}

    def prepare(self, request: PrepareIncoming, done: Done) -> None:
        host = self._host
        domain = SimulatedDomain(request.vm_id, request.epoch, request.spec, "migrating_to")
        self._prepared_count += 1
        uri = f"{SCHEME}{host.name}/{host.capabilities.boot_id}/{self._prepared_count}"
        domain.incoming = Incoming(uri, host.scheduler.now_ns())
        domain.incoming.condemned = request.spec.leased and not host.watchdog.is_armed()
        host.add(domain)
        self._watch(domain, domain.incoming)
        host.outbox.answer(done, CallSucceeded(value=IncomingAddress(uri=uri)))

    def announce(self) -> None:
        """Tell each source what it may send now."""
        for domain in self._host.domains.values():
            if domain.incoming is not None and domain.incoming.attempt:
                self._accept(domain, domain.incoming)

    def on_power_off(self) -> None:
        self._over.clear()
        self._withdrawn.clear()
        for domain in self._latecomers.values():
            domain.cancel_timers()
        self._latecomers.clear()

    def on_ended(self, domain: SimulatedDomain, incoming: Incoming) -> None:
        """The domain is gone from this host before it had arrived whole."""
        domain.incoming = None
        if incoming.attempt:
            self._remember(incoming.attempt, "arrived" if incoming.runs else "never")
            if not incoming.runs:
                self._gone(incoming.source, incoming.attempt, domain.vm_id)
            self._changed()
        else:
            self._withdrawn[incoming.uri] = domain
            _keep_newest(self._withdrawn)

    # ------------------------------------------------------------ what the source says

    def on_message(self, source: str, message: ToTarget) -> None:
        domain = self._host.domains.get(message.vm_id) or self._latecomers.get(message.vm_id)
        incoming = None if domain is None else domain.incoming
        if domain is None or incoming is None:
            if not isinstance(message, Begin) or not self._takes_in_late(source, message):
                self._on_unbound(source, message)
            return
        if isinstance(message, Begin) and self._binds(domain, incoming, source, message):
            return
        if incoming.attempt != message.attempt:
            self._on_unbound(source, message)
            return
        incoming.heard_ns = self._host.scheduler.now_ns()
        match message:
            case Begin() | Alive():
                self._accept(domain, incoming)
            case Last():
                if incoming.runs:
                    self._become_whole(domain, incoming)
                self._send(source, Got(attempt=message.attempt, vm_id=message.vm_id))
            case Finish():
                self._on_finish(domain, incoming, message)
            case Abandon() if self._latecomers.get(domain.vm_id) is domain:
                self.end_latecomer(domain.vm_id)
            case Abandon():
                self._lose(domain, incoming, f"its source gave it up: {message.reason}")
            case _:
                assert_never(message)

    def _binds(self, domain: SimulatedDomain, incoming: Incoming, source: str, message: Begin) -> bool:
        """The first source that knows the address; its uri tells it from one that knew an earlier domain here."""
        is_meant = message.uri == incoming.uri and message.to_epoch == domain.epoch
        if not is_meant or incoming.attempt or message.attempt in self._over:
            return False
        if self._is_late(domain):
            self._lose(domain, incoming, NOTHING_CAME)
            self._come_late(domain, source, message)
            return True
        incoming.attempt, incoming.source = message.attempt, source
        incoming.heard_ns = self._host.scheduler.now_ns()
        self._changed()  # which tells the source its share, and with it that it is accepted
        self._meet_watchdog(domain, incoming)
        return True

    def _meet_watchdog(self, domain: SimulatedDomain, incoming: Incoming) -> None:
        is_late = domain.spec.leased and not self._host.watchdog.is_armed()
        if (incoming.condemned or is_late) and domain.incoming is incoming:
            self._host.end_condemned(domain)

    def _on_unbound(self, source: str, message: ToTarget) -> None:
        fate = self._over.get(message.attempt)
        if isinstance(message, Finish):
            # An attempt of which nothing is known may have run here, before a boot.
            if fate == "arrived":
                self._send(source, Confirm(attempt=message.attempt, vm_id=message.vm_id))
            elif fate == "never":
                self._refuse(source, message, "the prepared domain is gone")
        elif isinstance(message, Last) and fate == "arrived":
            self._send(source, Got(attempt=message.attempt, vm_id=message.vm_id))
        elif isinstance(message, Begin | Alive | Last) and fate != "arrived":
            self._gone(source, message.attempt, message.vm_id)

    def _on_finish(self, domain: SimulatedDomain, incoming: Incoming, message: Finish) -> None:
        host = self._host
        if not incoming.runs:
            incoming.runs = True
            if host.faults:
                fault = host.faults.use("migration_loses_confirm", domain.vm_id, domain.spec.name)
                incoming.confirm_is_lost = fault is not None
            if self._latecomers.pop(domain.vm_id, None) is not None:
                host.add(domain)
                self._meet_watchdog(domain, incoming)
            self._watch(domain, incoming)
            host.arrive(domain, message.state)
        source, is_silent = incoming.source, incoming.confirm_is_lost
        if not message.post_copy and domain.incoming is incoming:
            self._become_whole(domain, incoming)
        if not is_silent:
            self._send(source, Confirm(attempt=message.attempt, vm_id=message.vm_id))

    def _become_whole(self, domain: SimulatedDomain, incoming: Incoming) -> None:
        """Nothing of the machine is anywhere else any more."""
        if incoming.timer is not None:
            incoming.timer()
            incoming.timer = None
        domain.incoming = None
        if not incoming.confirm_is_lost:
            self._remember(incoming.attempt, "arrived")
        self._changed()

    # ------------------------------------------------------------ latecomers

    def _is_late(self, domain: SimulatedDomain) -> bool:
        faults = self._host.faults
        return bool(faults) and faults.use("arrival_is_late", domain.vm_id, domain.spec.name) is not None

    def _takes_in_late(self, source: str, begin: Begin) -> bool:
        """What was to come has been ended here in between, and libvirt lets it in."""
        withdrawn = self._withdrawn.get(begin.uri)
        is_meant = (
            withdrawn is not None and withdrawn.epoch == begin.to_epoch and begin.attempt not in self._over
        )
        if withdrawn is None or not is_meant or not self._is_late(withdrawn):
            return False
        self._come_late(withdrawn, source, begin)
        return True

    def _come_late(self, waiting: SimulatedDomain, source: str, begin: Begin) -> None:
        """Its source has begun already when the domain is given up, and libvirt lets it in."""
        host, now_ns = self._host, self._host.scheduler.now_ns()
        self.end_latecomer(waiting.vm_id)  # of an earlier attempt
        domain = SimulatedDomain(waiting.vm_id, waiting.epoch, waiting.spec, "migrating_to")
        domain.incoming = incoming = Incoming(begin.uri, now_ns)
        incoming.attempt, incoming.source = begin.attempt, source
        self._latecomers[domain.vm_id] = domain
        seen_ns = now_ns + int(SEEN_AFTER_S_MAX * NS_PER_S * draw(host.seed, "seen", begin.attempt))
        incoming.timer = host.scheduler.call_at(seen_ns, partial(self._on_seen, domain.vm_id))
        self._accept(domain, incoming)

    def _on_seen(self, vm_id: str) -> None:
        self.end_latecomer(vm_id)
        self._host.outbox.drain()

    def end_latecomer(self, vm_id: str) -> None:
        """Nobody is told but its source: nobody here knew of it. Without effect if there is none."""
        domain = self._latecomers.pop(vm_id, None)
        if domain is None:
            return
        incoming = domain.incoming
        assert incoming is not None, f"domain {vm_id} does not arrive"
        domain.cancel_timers()
        self._remember(incoming.attempt, "never")
        self._gone(incoming.source, incoming.attempt, vm_id)

    # ------------------------------------------------------------ as time passes

    def _watch(self, domain: SimulatedDomain, incoming: Incoming) -> None:
        if incoming.timer is not None:
            incoming.timer()
        due_ns = self._due_ns(incoming)
        incoming.timer = self._host.scheduler.call_at(due_ns, partial(self._on_timer, domain, incoming))

    def _due_ns(self, incoming: Incoming) -> int:
        if incoming.runs:
            return incoming.heard_ns + self._host.silence_ns(incoming.attempt)
        return incoming.heard_ns + int(self._host.config.incoming_timeout_s * NS_PER_S)

    def _on_timer(self, domain: SimulatedDomain, incoming: Incoming) -> None:
        incoming.timer = None
        if self._host.scheduler.now_ns() < self._due_ns(incoming):
            self._watch(domain, incoming)
            return
        self._lose(domain, incoming, NOTHING_CAME)
        self._host.outbox.drain()

    def _lose(self, domain: SimulatedDomain, incoming: Incoming, reason: str) -> None:
        if incoming.runs:
            text = f"lost during post-copy: {reason}"
            self._host.end(domain, "crashed", ExitReason.POSTCOPY_MIGRATION_FAILED, text)
        else:
            ended = ExitReason.MIGRATION_FAILED if incoming.attempt else ExitReason.ARRIVAL_GIVEN_UP
            self._host.end(domain, "stopped", ended, reason)

    # ------------------------------------------------------------ words

    def _accept(self, domain: SimulatedDomain, incoming: Incoming) -> None:
        share = self._share_bytes_per_s()
        self._send(
            incoming.source, Accepted(attempt=incoming.attempt, vm_id=domain.vm_id, share_bytes_per_s=share)
        )

    def _gone(self, source: str, attempt: str, vm_id: str) -> None:
        reason = f"host {self._host.name} does not wait for it"
        self._send(source, Gone(attempt=attempt, vm_id=vm_id, reason=reason))

    def _refuse(self, source: str, message: Finish, reason: str) -> None:
        self._send(source, Refused(attempt=message.attempt, vm_id=message.vm_id, reason=reason))

    def _remember(self, attempt: str, fate: Literal["arrived", "never"]) -> None:
        self._over[attempt] = fate
        _keep_newest(self._over)


def _keep_newest(remembered: dict[str, Any]) -> None:
    if len(remembered) > OVER_MAX:
        del remembered[next(iter(remembered))]
