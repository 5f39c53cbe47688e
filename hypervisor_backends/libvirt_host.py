"""What the parts of the libvirt backend share: the book, the workers, and the link while there is one.

Decides how a call reaches libvirt, what an end without a result means, and when a machine is looked at. Owner's thread
alone. Must not know which request is carried out (`libvirt_calls.py`, `libvirt_departures.py`).
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import libvirt

from hypervisor_backends.libvirt_book import Book, Life
from hypervisor_backends.libvirt_connection import Link
from hypervisor_backends.libvirt_domain import Seen, look
from hypervisor_backends.libvirt_errors import failure_of
from hypervisor_backends.libvirt_measuring import Measured, measured, with_hardware
from hypervisor_backends.libvirt_seeds import forget_with_seed
from hypervisor_backends.libvirt_settings import LibvirtSettings
from hypervisor_backends.libvirt_workers import REFUSED, TIMED_OUT, Lanes, Then, Workers
from hypervisor_backends.protocol import (
    CallFailed,
    CallSucceeded,
    Capabilities,
    DomainRequest,
    Done,
    FailureCode,
    Scheduler,
)
from hypervisor_backends.simulated_outbox import Outbox
from olvm.model.errors import BadInput, Conflict, NotFound, OlvmError
from olvm.model.limits import NS_PER_S

log = logging.getLogger("olvm.libvirt")

Work: TypeAlias = Callable[[libvirt.virConnect], object]

LOOK_BUDGET_S = 10.0
LOOK_AGAIN_S = 2.0


class LibvirtHost:
    def __init__(self, name: str, settings: LibvirtSettings, timers: Scheduler, workers: Workers) -> None:
        self.name = name
        self.settings = settings
        self.timers = timers
        self.workers = workers
        self.lanes = Lanes(workers)  # by UUID: libvirt tells of machines that are on no book by that alone
        self.lanes.on_late = self._on_late
        self.lanes.on_late_pass = self._on_late_pass
        self.outbox = Outbox()
        self.book = Book(name, timers.now_ns, self.outbox)
        self.link: Link | None = None
        self.capabilities = Capabilities(cpus=0, memory_bytes=0)
        self.driver = ""
        # Told what a call brought that came back after its time: a start may have worked.
        self.on_late_start: Callable[[Life, object], None] = lambda _life, _result: None
        self.on_late_revert: Callable[[Life, object], None] = lambda _life, _result: None
        self._suspects: frozenset[str] = frozenset()
        # Machines of ended lives that this libvirt still holds a job of: it can neither define nor forget them.
        self.held: set[str] = set()

    # ------------------------------------------------------------ calls

    def call(self, life: Life, work: Work, budget_s: float, then: Then) -> None:
        """Run `work` on the machine's lane; every end of it counts as a change that a look must not overtake."""
        life.touched += 1

        def end(result: object) -> None:
            life.touched += 1
            if result is TIMED_OUT:
                life.responds = False  # until that call returns
            then(result)
            if life.look_wanted:
                self.look(life)
            self.outbox.drain()

        self.lanes.run(life.uuid, self.bound(work), budget_s, end)

    def pass_by(self, uuid: str, fn: Callable[[], object], budget_s: float, then: Then) -> None:
        """Past the lane of a machine that may be on no book, to end it; who wanted a look meanwhile has it then."""

        def end(result: object) -> None:
            then(result)
            life = self.book.by_uuid(uuid)
            if life is not None and life.look_wanted:
                self.look(life)
            self.outbox.drain()

        self.lanes.pass_by(uuid, fn, budget_s, end)

    def fail_unknown(self, done: Done, request: DomainRequest) -> None:
        what = f"{type(request).__name__} found no domain {request.vm_id} on host {self.name}"
        self.fail(done, "unknown_domain", f"{what}; list the domains")

    def bound(self, work: Work) -> Callable[[], object]:
        """`work` with a connection of its own, of the link that stands when it is begun."""

        def run() -> object:
            link = self.link
            if link is None:
                raise NotConnected(f"libvirt of host {self.name} cannot be reached now; try again later")
            with link.borrowed() as connection:
                return work(connection)

        return run

    def set_suspects(self, uuids: frozenset[str]) -> None:
        """Machines whose monitor has been seen not to answer, by whoever measures."""
        self._suspects = uuids
        for life in self.book.lives.values():
            life.responds = self._responds(life)

    def _responds(self, life: Life) -> bool:
        return life.uuid not in self._suspects and not self.lanes.is_blocked(life.uuid)

    def _on_late(self, uuid: str, result: object) -> None:
        life = self.book.by_uuid(uuid)
        if life is None:
            return
        self._heard_again(life)
        if life.under_way:
            self.on_late_start(life, result)
        elif life.reverting:
            self.on_late_revert(life, result)
        else:
            self.look(life)
        self.outbox.drain()

    def _on_late_pass(self, uuid: str) -> None:
        life = self.book.by_uuid(uuid)
        if life is not None:
            self._heard_again(life)
            self.look(life)
            self.outbox.drain()

    def _heard_again(self, life: Life) -> None:
        life.responds = self._responds(life)
        life.touched += 1

    def forget(self, life: Life, budget_s: float) -> None:
        """Take away the definition and the seed of a life that has ended; `held` tells whether libvirt let go of it."""

        def end(result: object) -> None:
            if result is True:
                self.held.discard(life.uuid)
            elif life.uuid in self.held:
                words = "libvirt still holds the migration that broke, and cannot start this machine again"
                log.warning("%s: %s; restart libvirtd, its machines go on", self.what("The end", life), words)
            elif result is not False:
                log.info("%s", self.failure(result, self.what("Clearing away", life)).message)

        work = partial(forget_with_seed, uuid=life.uuid, host=self.name, settings=self.settings)
        self.lanes.run(life.uuid, self.bound(work), budget_s, end)

    # ------------------------------------------------------------ looks

    def look(self, life: Life) -> None:
        """Find out how the machine stands and let the book follow. Cheap to ask for: looks do not pile up."""
        life.touched += 1
        life.look_wanted = True
        if life.looking or self.link is None or self.lanes.is_busy(life.uuid):
            return  # the look that comes back, the reconnect or the end of the call sees to it
        life.looking, life.look_wanted = True, False
        mark, uuid = life.touched, life.uuid
        work = self.bound(lambda connection: look(connection, uuid))
        self.workers.run(work, LOOK_BUDGET_S, lambda result: self._on_look(life, mark, result))

    def _on_look(self, life: Life, mark: int, result: object) -> None:
        life.looking = False
        if not self.book.is_present(life):
            return
        if not isinstance(result, Seen):
            log.info("%s; looking again", self.failure(result, self.what("A look", life)).message)
            self.look_after(life, LOOK_AGAIN_S)
        elif life.touched != mark or self.lanes.is_busy(life.uuid):
            self.look(life)
        else:
            self.book.apply(life, result)
        self.outbox.drain()

    def look_after(self, life: Life, seconds: float) -> None:
        self.arm(life, "look", seconds, lambda: self.look(life))

    def measure(self, life: Life) -> None:
        """Learn how many CPUs, how much memory and which devices it has now; again until that is known."""

        def end(result: object) -> None:
            if isinstance(result, Measured):
                life.vcpus, life.memory_bytes = result.vcpus, result.memory_bytes
                life.spec = with_hardware(life.spec, result.hardware)
                life.size_known = life.size_known or life.responds  # a QEMU that hangs may do it later
            if not life.size_known:
                self.arm(life, "measure", LOOK_AGAIN_S, lambda: self.measure(life))

        self.workers.run(self.bound(partial(measured, uuid=life.uuid)), LOOK_BUDGET_S, end)

    # ------------------------------------------------------------ timers and answers

    def arm(self, life: Life, name: str, seconds: float, fn: Callable[[], None]) -> None:
        """One timer of each name for a life; an earlier one is taken back."""
        life.cancel_timer(name)

        def due() -> None:
            life.timers.pop(name, None)
            if self.book.is_present(life):
                fn()
                self.outbox.drain()

        life.timers[name] = self.timers.call_at(self.timers.now_ns() + int(seconds * NS_PER_S), due)

    def answer(self, done: Done, value: CallSucceeded | CallFailed) -> None:
        self.outbox.answer(done, value)

    def fail(self, done: Done, code: FailureCode, message: str, *, can_retry: bool = False) -> None:
        self.outbox.answer(done, CallFailed(code=code, message=message, can_retry=can_retry))

    def failure(self, result: object, what: str) -> CallFailed:
        """What an end of a worker that brought no result means to whoever asked."""
        if isinstance(result, libvirt.libvirtError):
            return failure_of(result, what)
        if isinstance(result, NotConnected):
            return CallFailed(code="call_failed", message=f"{what}: {result.message}", can_retry=True)
        if isinstance(result, OlvmError):
            return CallFailed(code=_code_of(result), message=f"{what}: {result.message}")
        if isinstance(result, OSError):
            code: FailureCode = "no_space" if result.errno == errno.ENOSPC else "call_failed"
            return CallFailed(code=code, message=f"{what}: {result}; see to that file", can_retry=True)
        if result is REFUSED:
            words = (
                f"{what} was not begun: an earlier call still waits for its QEMU; look at it, or destroy it"
            )
            return CallFailed(code="monitor_hung", message=words, can_retry=True)
        if result is TIMED_OUT:
            words = f"{what} was not answered within its time; it may have worked: list the domains"
            return CallFailed(code="timed_out", message=words, can_retry=True, outcome_known=False)
        words = f"{what} met a fault of the backend, which its log names; list the domains"
        return CallFailed(code="call_failed", message=words, outcome_known=False)

    def what(self, verb: str, life: Life) -> str:
        return f"{verb} of domain {life.spec.name} ({life.vm_id}) on host {self.name}"


class NotConnected(OlvmError):
    """Nothing was begun."""

    code = "not_connected"


def _code_of(error: OlvmError) -> FailureCode:
    if isinstance(error, BadInput):
        return "bad_request"
    if isinstance(error, NotFound):
        return "not_found"
    if isinstance(error, Conflict):
        return "duplicate_domain"
    return "call_failed"
