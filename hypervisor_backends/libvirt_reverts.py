"""Reverts of machines to their snapshots, on the owner's thread: who may be reverted, and what is told of it.

The calls themselves are `libvirt_revert.py`. The life stays: its QEMU is another one afterwards, as after a reboot. A
destroy that comes meanwhile ends what the revert leaves.
"""

from __future__ import annotations

from functools import partial

import libvirt
import msgspec

from hypervisor_backends.libvirt_book import Life
from hypervisor_backends.libvirt_calls import GUEST_RUNS, Calls
from hypervisor_backends.libvirt_guests import Guests
from hypervisor_backends.libvirt_host import LibvirtHost
from hypervisor_backends.libvirt_revert import Reverted, Stopped, revert
from hypervisor_backends.libvirt_tasks import task_budget_s
from hypervisor_backends.libvirt_watchdog import LeaseGuard
from hypervisor_backends.libvirt_workers import TIMED_OUT
from hypervisor_backends.libvirt_xml import StartRefused, XmlMaker
from hypervisor_backends.protocol import (
    CallFailed,
    CallSucceeded,
    DomainSpec,
    Done,
    ExitReason,
    RevertSnapshot,
)


class Reverts:
    def __init__(
        self, host: LibvirtHost, calls: Calls, xml: XmlMaker, guests: Guests, leases: LeaseGuard
    ) -> None:
        self._host = host
        self._book = host.book
        self._calls = calls
        self._xml = xml
        self._guests = guests
        self._leases = leases
        self._asked: dict[str, RevertSnapshot] = {}  # by vm_id, while its life is `reverting`
        host.on_late_revert = self._on_end

    def begin(self, request: RevertSnapshot, life: Life, done: Done) -> None:
        what = self._host.what("RevertSnapshot", life)
        refusal = self._refusal(life)
        if refusal is not None:
            code, why = refusal
            message = f"{what} to {request.name} is refused while {why}"
            self._host.answer(done, CallFailed(code=code, message=message, can_retry=True))  # type: ignore[arg-type]
            return
        life.reverting = True
        self._asked[life.vm_id] = request
        spec = self._spec_of(life)

        def end(result: object) -> None:
            self._host.answer(done, self._answer(result, what))
            if result is not TIMED_OUT:  # else its late end is told to `_on_end`
                self._on_end(life, result)

        work = partial(self._work, request, life, spec)
        self._host.call(life, work, task_budget_s(request, self._host.settings), end)

    def _refusal(self, life: Life) -> tuple[str, str] | None:
        if life.started_ns is None or life.status not in GUEST_RUNS | {"paused"}:
            return "wrong_state", f"its status is {life.shown()}; wait until it runs"
        if life.outgoing is not None:
            return "wrong_state", "it migrates; wait for the end of that, or cancel it"
        if life.pause_code in ("POSTMIGRATE", "POSTCOPY"):
            return (
                "wrong_state",
                "another host may run it; find out there, then continue or destroy this copy",
            )
        if life.doom_waiters:
            return "wrong_state", "it is being destroyed"
        if not life.responds:
            return "monitor_hung", "its QEMU does not answer; look at it, or destroy it"
        if life.leased and not self._leases.may_begin():
            return "lease_expired", "the host's watchdog is not armed; renew the host's lease"
        return None

    def _spec_of(self, life: Life) -> DomainSpec:
        """What was plugged is there at its next boot, which this is."""
        return msgspec.structs.replace(life.spec, vcpus=life.vcpus, memory_bytes=life.memory_bytes)

    def _work(
        self, request: RevertSnapshot, life: Life, spec: DomainSpec, connection: libvirt.virConnect
    ) -> Reverted | CallFailed:
        """On a worker."""
        make_xml = partial(self._xml.make, connection, life.vm_id, life.epoch, spec)
        now_ns = self._host.timers.now_ns()
        return revert(connection, life.uuid, request, make_xml, now_ns, self._xml.task_context)

    # ------------------------------------------------------------ end

    def _answer(self, result: object, what: str) -> CallSucceeded | CallFailed:
        match result:
            case Reverted():
                return CallSucceeded()
            case CallFailed():
                return result
            case StartRefused():
                return result.failure
            case Stopped():
                return CallFailed(code="start_failed", message=f"{what}: {result.message}")
            case _:
                return self._host.failure(result, what)

    def _on_end(self, life: Life, result: object) -> None:
        request = self._asked.pop(life.vm_id)
        life.reverting = False
        if not self._book.is_present(life):
            return
        if isinstance(result, Reverted):
            self._runs_again(life, result, boots=not request.with_memory)
        elif isinstance(result, Stopped):
            end = ("crashed", ExitReason.GENERIC_ERROR, result.message)
            if not life.doom_waiters:
                self._book.end(life, end)  # type: ignore[arg-type]
                return
        if life.doom_waiters:
            self._calls.destroy_now(life)
        else:
            self._host.look(life)

    def _runs_again(self, life: Life, result: Reverted, *, boots: bool) -> None:
        life.spec = self._spec_of(life)
        self._guests.closed(life)
        life.channel = result.launched.channel
        life.powered_on_ns = result.launched.powered_on_ns or life.powered_on_ns
        if life.channel:
            self._guests.opened(life)
        self._book.reverted(life, result.launched.number, boots=boots)
