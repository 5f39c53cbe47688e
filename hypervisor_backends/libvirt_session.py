"""From one connection to libvirt to the next: connect, find out what runs, lose it, come back.

Decides what a survey of all domains means for the book: what is adopted, what ended while nobody listened, and which
definitions are left over. Owner's thread; what blocks runs on a worker.

libvirt tells of changes before the survey is done and this side knows of the connection. What was told meanwhile may be
newer than the survey, so those machines are looked at once more.

A definition that is off and whose reason libvirt does not know was left by a host that lost its power: nobody is told,
as the protocol says. One whose reason is known ended while this backend was away; it is told when somebody listens.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

import libvirt
import msgspec

from hypervisor_backends.libvirt_book import Life
from hypervisor_backends.libvirt_connection import Link, open_link
from hypervisor_backends.libvirt_domain import Found, Seen, end_of, survey
from hypervisor_backends.libvirt_events import LibvirtEvent
from hypervisor_backends.libvirt_host import LibvirtHost
from hypervisor_backends.libvirt_migration import end_unprepared
from hypervisor_backends.libvirt_seeds import forget_with_seed, sweep_seeds
from hypervisor_backends.libvirt_workers import TIMED_OUT
from hypervisor_backends.protocol import Cancel, Capabilities, DomainEvent
from hypervisor_backends.real_time import Post
from olvm.model.errors import OlvmError, OperationFailed
from olvm.model.limits import NS_PER_S

log = logging.getLogger("olvm.libvirt")

RETRY_S_MIN = 0.2
RETRY_S_MAX = 5.0
# A restart of libvirtd takes a second; a host whose libvirt is away for longer is unfit for new machines.
UNREACHABLE_S_MAX = 10.0
FORGET_BUDGET_S = 30.0
INTRUDER_BUDGET_S = 30.0


class Connected(msgspec.Struct, frozen=True):
    link: Link
    found: list[Found]
    capabilities: Capabilities


class Session:
    def __init__(self, host: LibvirtHost, post: Post, on_event: Callable[[LibvirtEvent], None]) -> None:
        self._host = host
        self._post = post
        self._on_event = on_event
        # Told on each connect, before what was found is applied; and once of how the first attempt went.
        self.on_connected: Callable[[Capabilities], None] = lambda _capabilities: None
        self.on_first: Callable[[OlvmError | None], None] = lambda _error: None
        self.measure_host: Callable[[libvirt.virConnect], Capabilities] = _not_set
        self.untold: list[DomainEvent] = []  # ends of machines that this backend has not known alive
        self._lost_ns: int | None = None
        self._retry_s = RETRY_S_MIN
        self._timer: Cancel | None = None
        self._is_first = True
        self._closed = False
        self._changed_unmet: set[str] = set()  # not on the book, and told of while there was no link

    # ------------------------------------------------------------ connect

    def connect(self) -> None:
        self._timer = None
        # Without a link nothing new begins meanwhile: whatever needs its files is on the book now, or is found.
        lives = frozenset(life.uuid for life in self._host.book.lives.values())
        self._host.workers.run(
            partial(self._open, lives),
            2 * self._host.settings.call_timeout_s,
            self._on_opened,
            self._on_opened_late,
        )

    def _open(self, lives: frozenset[str]) -> Connected:
        """On a worker."""
        settings = self._host.settings
        link = open_link(settings, self._tell, self._tell_closed)
        try:
            with link.borrowed() as connection:
                found = survey(connection, settings.root)
                capabilities = self.measure_host(connection)
            sweep_seeds(lives | {one.seen.uuid for one in found}, self._host.name, settings)
        except (libvirt.libvirtError, OlvmError, OSError):
            link.close()
            raise
        return Connected(link, found, capabilities)

    def _tell(self, event: LibvirtEvent) -> None:
        """On libvirt's event thread."""
        self._post(partial(self._on_event, event))

    def _tell_closed(self, link: Link) -> None:
        """On libvirt's event thread."""
        self._post(partial(self._on_closed, link))

    def _on_opened(self, result: object) -> None:
        if self._closed:
            self._on_opened_late(result)
        elif isinstance(result, Connected):
            self._on_connected(result)
        else:
            self._on_refused(result)
        self._host.outbox.drain()

    def _on_opened_late(self, result: object) -> None:
        if isinstance(result, Connected):  # another attempt has taken its place
            result.link.close()

    def _on_refused(self, result: object) -> None:
        words = self._words(result)
        if self._is_first:
            self._is_first = False
            self.on_first(OperationFailed(words))
            if self._closed:
                return
        log.log(logging.INFO if self._lost_ns is not None else logging.WARNING, "%s", words)
        self._lose()

    def _words(self, result: object) -> str:
        if isinstance(result, OlvmError):
            return result.message
        settings = self._host.settings
        if result is TIMED_OUT:
            return f"libvirt at {settings.uri} does not answer; look whether libvirtd hangs"
        return f"libvirt at {settings.uri} failed while it was asked what runs: {result}; look at its log"

    def _on_connected(self, connected: Connected) -> None:
        host = self._host
        host.link = connected.link
        host.held.clear()  # jobs end with the libvirtd that had them
        host.driver = connected.link.driver
        self._lost_ns = None
        self._retry_s = RETRY_S_MIN
        self.on_connected(connected.capabilities)
        self._reconcile(connected.found)
        if self._is_first:
            self._is_first = False
            self.on_first(None)

    # ------------------------------------------------------------ lose

    def _on_closed(self, link: Link) -> None:
        if self._closed or self._host.link is not link:
            return
        link.close()
        self._lose()

    def _lose(self) -> None:
        host = self._host
        host.link = None
        if self._lost_ns is None:
            self._lost_ns = host.timers.now_ns()
        due_ns = host.timers.now_ns() + int(self._retry_s * NS_PER_S)
        self._retry_s = min(2 * self._retry_s, RETRY_S_MAX)
        self._timer = host.timers.call_at(due_ns, self.connect)

    def is_unreachable(self) -> bool:
        """For so long that it is a problem of the host, and no restart."""
        if self._lost_ns is None:
            return False
        return self._host.timers.now_ns() - self._lost_ns > UNREACHABLE_S_MAX * NS_PER_S

    def close(self) -> None:
        self._closed = True
        if self._timer is not None:
            self._timer()
            self._timer = None
        link, self._host.link = self._host.link, None
        if link is not None:
            link.close()

    # ------------------------------------------------------------ what runs

    def _reconcile(self, found: list[Found]) -> None:
        book, lanes = self._host.book, self._host.lanes
        listed = {one.metadata.vm_id for one in found}
        for life in list(book.lives.values()):
            if life.vm_id in listed:
                continue
            if lanes.is_busy(life.uuid):
                life.look_wanted = True  # when the call ends
            elif not life.look_wanted:
                book.apply(life, Seen(uuid=life.uuid, execution="absent"))
        for one in found:
            life_there = book.lives.get(one.metadata.vm_id)
            if life_there is None:
                self._meet_stranger(one)
            elif lanes.is_busy(life_there.uuid):
                life_there.look_wanted = True
            elif life_there.epoch != one.metadata.epoch:
                book.end(life_there, life_there.ending or end_of(-1))
                self._meet_stranger(one)
            elif not life_there.look_wanted:
                book.apply(life_there, one.seen)
        changed, self._changed_unmet = self._changed_unmet, set()
        for life in list(book.lives.values()):
            if life.look_wanted or life.uuid in changed:
                self._host.look(life)

    def _meet_stranger(self, one: Found) -> None:
        """A machine of ours that is not on the book: it runs, or it is what is left of one."""
        metadata, seen = one.metadata, one.seen
        if seen.execution == "off":
            self._tell_end(one)
            host = self._host
            work = partial(forget_with_seed, uuid=seen.uuid, host=host.name, settings=host.settings)
            host.lanes.run(seen.uuid, host.bound(work), FORGET_BUDGET_S, lambda _result: None)
            return
        life = Life(metadata.vm_id, seen.uuid, metadata.epoch, metadata.spec, "up")
        life.channel = one.channel
        if seen.is_arriving:
            life.status, life.incoming, life.arriving, life.number = "migrating_to", True, True, seen.number
            self._host.book.add(life)
            return
        self._host.book.adopt(life, one)

    def meet(self, event: LibvirtEvent) -> None:
        """Something of a machine that is not on the book: if it is one of ours, it came without being asked for.

        It is ended while it arrives. One that runs already is put on the book: whoever listens knows whether it may.
        Or the connection is so new that nothing is on the book yet.
        """
        if self._host.link is None:
            self._changed_unmet.add(event.uuid)
            return
        arrives = (event.event, event.detail) == (
            libvirt.VIR_DOMAIN_EVENT_STARTED,
            libvirt.VIR_DOMAIN_EVENT_STARTED_MIGRATED,
        )
        if not arrives:
            return

        def end(result: object) -> None:
            if result is True:
                log.warning(
                    "machine %s came to host %s unprepared, and was ended", event.uuid, self._host.name
                )
            elif isinstance(result, Found):
                self._take_in(result)

        work = self._host.bound(lambda connection: end_unprepared(connection, event.uuid))
        self._host.pass_by(event.uuid, work, INTRUDER_BUDGET_S, end)

    def _take_in(self, one: Found) -> None:
        """It came unprepared and runs; what has changed since it was found, a look tells."""
        book = self._host.book
        if self._closed or self._host.link is None:
            return  # the next connect finds it
        life = book.lives.get(one.metadata.vm_id)
        if life is None:
            log.warning("machine %s came to host %s unprepared, and runs", one.seen.uuid, self._host.name)
            self._meet_stranger(one)
            life = book.lives[one.metadata.vm_id]
            book.tell(life, "started", "arrived by live migration, unprepared")
            if life.status == "paused":
                book.tell(life, "paused", "arrived paused")
        self._host.look(life)

    def _tell_end(self, one: Found) -> None:
        if one.seen.off_reason == libvirt.VIR_DOMAIN_SHUTOFF_UNKNOWN:
            return
        kind, reason, message = end_of(one.seen.off_reason)
        event = DomainEvent(
            vm_id=one.metadata.vm_id,
            epoch=one.metadata.epoch,
            kind=kind,
            at_ns=self._host.timers.now_ns(),
            exit_reason=reason,
            message=f"{message}, while nobody listened",
        )
        self.untold.append(event)


def _not_set(_connection: libvirt.virConnect) -> Capabilities:
    raise AssertionError("measure_host is set before the first connect")
