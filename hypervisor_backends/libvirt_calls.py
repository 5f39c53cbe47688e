"""The requests about one machine's life, from begin to end, on the owner's thread.

Decides which request a machine's status admits, what is answered, and what the book is told. The calls to libvirt are
in `libvirt_lifecycle.py`; migrations are in `libvirt_departures.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import TypeAlias, assert_never

from hypervisor_backends import libvirt_lifecycle as lifecycle
from hypervisor_backends.domain_metadata import domain_uuid
from hypervisor_backends.libvirt_book import End, Life
from hypervisor_backends.libvirt_domain import Seen
from hypervisor_backends.libvirt_guests import Guests
from hypervisor_backends.libvirt_host import LibvirtHost
from hypervisor_backends.libvirt_lifecycle import TEST_DRIVER, Launched
from hypervisor_backends.libvirt_processes import end_qemu
from hypervisor_backends.libvirt_snapshots import break_off_snapshot
from hypervisor_backends.libvirt_suspension import Suspension
from hypervisor_backends.libvirt_task_context import TaskRefused
from hypervisor_backends.libvirt_watchdog import LeaseGuard
from hypervisor_backends.libvirt_workers import TIMED_OUT
from hypervisor_backends.libvirt_xml import StartRefused, XmlMaker
from hypervisor_backends.protocol import (
    CallFailed,
    CallSucceeded,
    ContinueDomain,
    DestroyDomain,
    DomainStatus,
    Done,
    ExitReason,
    PauseDomain,
    PrepareIncoming,
    RebootDomain,
    Request,
    ResetDomain,
    RestoreDomain,
    ShutdownDomain,
    StartDomain,
    SuspendDomain,
)
from hypervisor_backends.sanlock_leases import refuse_what_would_wait

NewDomain: TypeAlias = StartDomain | RestoreDomain | PrepareIncoming
LifeRequest: TypeAlias = (
    ShutdownDomain | DestroyDomain | RebootDomain | ResetDomain | SuspendDomain | PauseDomain | ContinueDomain
)
SUCCEEDED = CallSucceeded()
DESTROYED: End = ("stopped", ExitReason.ADMIN_SHUTDOWN, "destroyed on request")

GUEST_RUNS: frozenset[DomainStatus] = frozenset({"powering_up", "up", "powering_down", "reboot_in_progress"})
# Statuses in which a request is carried out; in any other it is refused, unless it holds already.
ADMITTED: dict[type[Request], frozenset[DomainStatus]] = {
    ShutdownDomain: frozenset({"powering_up", "up", "reboot_in_progress"}),
    RebootDomain: frozenset({"powering_up", "up"}),
    ResetDomain: GUEST_RUNS,
    SuspendDomain: GUEST_RUNS | {"paused"},
    PauseDomain: GUEST_RUNS,
    ContinueDomain: frozenset({"paused"}),
}
ALREADY: dict[type[Request], frozenset[DomainStatus]] = {
    ShutdownDomain: frozenset({"powering_down"}),
    RebootDomain: frozenset({"reboot_in_progress"}),
    PauseDomain: frozenset({"paused"}),
    ContinueDomain: GUEST_RUNS,
}
# A guest that was asked and does nothing is not powering down for ever: after this long its status says so.
OBEY_S = 60.0
DESTROY_BUDGET_S = 20.0
KILL_BUDGET_S = 10.0


class Calls:
    def __init__(self, host: LibvirtHost, xml: XmlMaker, guests: Guests, leases: LeaseGuard) -> None:
        self._host = host
        self._book = host.book
        self._xml = xml
        self._guests = guests
        self._leases = leases
        self._suspension = Suspension(host, guests, self.answer_waiters)
        host.on_late_start = self._on_begun

    # ------------------------------------------------------------ begin

    def begin(self, request: StartDomain | RestoreDomain, done: Done) -> None:
        life = self._book.lives.get(request.vm_id)
        if life is not None and life.epoch == request.epoch and not life.incoming:
            if life.started_ns is not None:
                self._host.answer(done, SUCCEEDED)
            else:
                life.waiters.append(done)
            return
        refusal = self.refusal(request)
        if refusal is not None:
            self._host.answer(done, refusal)
            return
        is_restore = isinstance(request, RestoreDomain)
        life = self.new_life(request, "restoring_state" if is_restore else "wait_for_launch")
        life.under_way = True
        life.waiters.append(done)
        settings = self._host.settings
        if is_restore:
            work = partial(self._restore, life)
            budget_s = settings.migration_timeout_s
        else:
            work = partial(self._launch, life)
            budget_s = settings.call_timeout_s
        self._host.call(life, work, budget_s, partial(self._on_begun, life))

    def new_life(self, request: NewDomain, status: DomainStatus) -> Life:
        """On the book, and guarded before anything of it is begun."""
        life = Life(request.vm_id, domain_uuid(request.vm_id), request.epoch, request.spec, status)
        self._book.add(life)
        self._leases.guard(life)
        return life

    def _launch(self, life: Life, connection: object) -> Launched:
        """On a worker."""
        xml = self._xml.make(connection, life.vm_id, life.epoch, life.spec)
        if life.spec.leased and self._host.settings.lock_manager == "sanlock":
            try:
                refuse_what_would_wait(life.vm_id, self._host.what("StartDomain", life), self._host.settings)
            except TaskRefused as refused:
                raise StartRefused(refused.failure) from refused
        return lifecycle.launch(connection, life.uuid, xml, self._host.settings)

    def _restore(self, life: Life, connection: object) -> Launched:
        """On a worker."""
        self._xml.make_seed(connection, life.vm_id, life.spec)
        now_ns, settings = self._host.timers.now_ns(), self._host.settings
        return lifecycle.restore(connection, life.uuid, life.epoch, now_ns, settings)

    def _on_begun(self, life: Life, result: object) -> None:
        if result is TIMED_OUT:  # it stays as it is: its end is told late, or found by a look
            self.answer_waiters(life, self._host.failure(result, self._host.what("Start", life)))
            return
        life.under_way = False
        if not self._book.is_present(life):
            return
        if isinstance(result, Launched):
            life.channel, life.powered_on_ns = result.channel, result.powered_on_ns
            self.answer_waiters(life, SUCCEEDED)
            was_restore = life.status == "restoring_state"
            words = "restored from saved memory" if was_restore else "booting"
            self._book.started(life, result.number, 0, words)
            if life.doom_waiters:
                self._destroy(life)
            return
        failure = self._start_failure(life, result)
        self.answer_waiters(life, failure)
        if failure.outcome_known:
            self._book.end(life, ("crashed", ExitReason.LIBVIRT_START_FAILED, failure.message))
        else:
            self._host.look_after(life, 1.0)

    def _start_failure(self, life: Life, result: object) -> CallFailed:
        verb = "RestoreDomain" if life.status == "restoring_state" else "StartDomain"
        if isinstance(result, StartRefused):
            return result.failure
        failure = self._host.failure(result, self._host.what(verb, life))
        if not failure.outcome_known:
            return failure
        code = {"call_failed": "start_failed", "wrong_state": "start_failed", "not_found": "no_saved_memory"}
        if verb == "StartDomain":
            code["not_found"] = "bad_request"
        new_code = code.get(failure.code, failure.code)
        can_retry = failure.can_retry or new_code == "start_failed"
        return CallFailed(code=new_code, message=failure.message, can_retry=can_retry)  # type: ignore[arg-type]

    def answer_waiters(self, life: Life, result: CallSucceeded | CallFailed) -> None:
        waiters, life.waiters = life.waiters, []
        for done in waiters:
            self._host.answer(done, result)

    # ------------------------------------------------------------ refusals of a begin

    def refusal(self, request: NewDomain) -> CallFailed | None:
        """Why this machine cannot come to be here. Nothing has changed yet."""
        spec = request.spec
        what = f"domain {spec.name} ({request.vm_id}) cannot start on host {self._host.name}"
        there = self._book.lives.get(request.vm_id)
        if there is not None:
            words = (
                f"{what} with epoch {request.epoch}: it is there with epoch {there.epoch}; destroy that first"
            )
            return CallFailed(code="duplicate_domain", message=words)
        other = self._book.by_name(spec.name)
        if other is not None:
            words = f"{what}: domain {other.vm_id} has that name; rename one"
            return CallFailed(code="duplicate_domain", message=words)
        if domain_uuid(request.vm_id) in self._host.held:
            words = (
                f"{what}: libvirt holds its broken migration; restart libvirtd there, or choose another host"
            )
            return CallFailed(code="start_failed", message=words, can_retry=True)
        if spec.leased and not isinstance(request, PrepareIncoming) and not self._leases.may_begin():
            words = f"{what}: it needs a lease and the host's watchdog is not armed; renew the host's lease"
            return CallFailed(code="lease_expired", message=words, can_retry=True)
        return self._refusal_of_room(request, what)

    def _refusal_of_room(self, request: NewDomain, what: str) -> CallFailed | None:
        have = self._host.capabilities.memory_bytes * self._host.settings.memory_overcommit_percent // 100
        free = have - sum(life.memory_bytes for life in self._book.lives.values())
        if request.spec.memory_bytes <= free:
            return None
        words = f"{what}: it needs {request.spec.memory_bytes} bytes of memory and {free} are free; choose another host"
        return CallFailed(code="out_of_memory", message=words, can_retry=True)

    # ------------------------------------------------------------ while it runs

    def carry_out(self, request: LifeRequest, life: Life, done: Done) -> None:
        if isinstance(request, DestroyDomain):
            self._on_destroy(life, done)
            return
        what = self._host.what(type(request).__name__, life)
        refusal = self._wrong_state(request, life)
        if refusal is not None:
            words = f"{what} is refused while {refusal}"
            self._host.fail(done, "wrong_state", words, can_retry=True)
        elif life.outgoing is None and life.status in ALREADY.get(type(request), ()):
            self._host.answer(done, SUCCEEDED)
        elif isinstance(request, SuspendDomain) and life.status == "saving_state":
            life.waiters.append(done)
        elif not life.responds:
            words = f"{what} was not begun: its QEMU does not answer; look at it, or destroy it"
            self._host.fail(done, "monitor_hung", words, can_retry=True)
        else:
            self._begin(request, life, done)

    def _wrong_state(self, request: LifeRequest, life: Life) -> str | None:
        if life.outgoing is not None and (life.outgoing.post_copy or isinstance(request, SuspendDomain)):
            return "it migrates; wait for the end of that, or cancel it"
        if life.pause_code in ("POSTMIGRATE", "POSTCOPY") and not isinstance(request, ContinueDomain):
            return "another host may run it; find out there, then continue or destroy this copy"
        holds = life.status in ALREADY.get(type(request), ()) or (
            isinstance(request, SuspendDomain) and life.status == "saving_state"
        )
        if holds or life.status in ADMITTED[type(request)]:
            return None
        return f"its status is {life.shown()}; wait for another one"

    def _begin(self, request: LifeRequest, life: Life, done: Done) -> None:
        match request:
            case PauseDomain():
                self._simple(request, life, done, lifecycle.pause)
            case ContinueDomain():
                self._simple(request, life, done, lifecycle.resume)
            case ResetDomain():
                self._simple(request, life, done, lifecycle.reset)
            case ShutdownDomain():
                self._on_shutdown(request, life, done)
            case RebootDomain():
                self._on_reboot(request, life, done)
            case SuspendDomain():
                self._suspension.begin(life, done)
            case DestroyDomain():
                raise AssertionError("it passes by the lane")
            case _:
                assert_never(request)

    def _simple(
        self, request: LifeRequest, life: Life, done: Done, work: Callable[[object, str], Seen]
    ) -> None:
        def end(result: object) -> None:
            if isinstance(result, Seen):
                if isinstance(request, ResetDomain):
                    self._book.rebooted(life)
                self._book.apply(life, result)
                self._host.answer(done, SUCCEEDED)
            else:
                self._fail(request, life, done, result)

        self._host.call(
            life, lambda connection: work(connection, life.uuid), self._host.settings.call_timeout_s, end
        )

    def _fail(self, request: Request, life: Life, done: Done, result: object) -> None:
        """An error does not say how the machine stands; a look does."""
        failure = self._host.failure(result, self._host.what(type(request).__name__, life))
        if failure.code == "unknown_domain":
            failure = CallFailed(code="domain_ended", message=failure.message)
        self._host.answer(done, failure)
        if self._book.is_present(life):
            self._host.look(life)

    # ------------------------------------------------------------ shutdown and reboot

    def _on_shutdown(self, request: ShutdownDomain, life: Life, done: Done) -> None:
        life.shutdown_asked = True
        if self._guests.speaks(life.vm_id):
            self._guests.ask_shutdown(life.vm_id, request.message, reboot=False)
            self._shutdown_asked(request, life)
            self._host.answer(done, SUCCEEDED)
            return

        def end(result: object) -> None:
            if not isinstance(result, Seen):
                life.shutdown_asked = False
                self._fail(request, life, done, result)
                return
            self._shutdown_asked(request, life)
            self._book.apply(life, result)
            self._host.answer(done, SUCCEEDED)

        work = partial(lifecycle.ask_shutdown, uuid=life.uuid)
        self._host.call(life, work, self._host.settings.call_timeout_s, end)

    def _shutdown_asked(self, request: ShutdownDomain, life: Life) -> None:
        if self._book.is_present(life):
            self._book.ask(life, "powering_down")
            self._host.arm(life, "acpi", request.acpi_after_s, partial(self._press, life))

    def _press(self, life: Life) -> None:
        """The guest still runs: its power button, and then as long again before it is taken for deaf."""
        if life.status != "powering_down":
            return
        work = partial(lifecycle.press_power_button, uuid=life.uuid)

        def end(result: object) -> None:
            if isinstance(result, Seen):
                self._book.apply(life, result)

        self._host.call(life, work, self._host.settings.call_timeout_s, end)
        self._host.arm(life, "obey", OBEY_S, partial(self._book.stand_again, life))

    def _on_reboot(self, request: RebootDomain, life: Life, done: Done) -> None:
        if self._guests.speaks(life.vm_id):
            self._guests.ask_shutdown(life.vm_id, "", reboot=True)
            self._reboot_asked(life)
            self._host.answer(done, SUCCEEDED)
            return

        def end(result: object) -> None:
            if not isinstance(result, Seen):
                self._fail(request, life, done, result)
                return
            self._reboot_asked(life)
            self._book.apply(life, result)
            self._host.answer(done, SUCCEEDED)

        work = partial(lifecycle.ask_reboot, uuid=life.uuid)
        self._host.call(life, work, self._host.settings.call_timeout_s, end)

    def _reboot_asked(self, life: Life) -> None:
        if not self._book.is_present(life):
            return
        if self._host.driver == TEST_DRIVER:
            self._book.rebooted(life)  # it has no guest that could take its time
            return
        self._book.ask(life, "reboot_in_progress")
        self._host.arm(life, "obey", 2 * OBEY_S, partial(self._book.stand_again, life))

    # ------------------------------------------------------------ end

    def _on_destroy(self, life: Life, done: Done) -> None:
        life.doom_waiters.append(done)
        if len(life.doom_waiters) == 1:
            life.ending = DESTROYED
            self._destroy(life)

    def _destroy(self, life: Life) -> None:
        """Past the lane: a machine whose calls hang can be ended."""
        root, by_force = self._host.settings.root, not life.responds
        life.touched += 1

        def work() -> None:
            link = self._host.link
            with nullcontext() if link is None else link.borrowed() as connection:
                if connection is not None and not by_force:
                    break_off_snapshot(connection, life.uuid, lambda: not life.snapshots_asked)
                lifecycle.destroy(connection, life.uuid, root, by_force=by_force)

        def end(result: object) -> None:
            life.touched += 1
            self._on_destroyed(life, result)

        self._host.pass_by(life.uuid, work, DESTROY_BUDGET_S, end)

    def destroy_now(self, life: Life) -> None:
        """The call that a destroy had to wait for has come back."""
        self._destroy(life)

    def end_by_force(self, life: Life) -> None:
        """Nobody asked for it; `life.ending` says what is told of it."""
        self._destroy(life)

    def _on_destroyed(self, life: Life, result: object) -> None:
        if result is None:
            if life.under_way or life.reverting:
                return  # the start or revert that is under way ends the machine when it comes back
            self._ended_on_request(life)
        elif result is TIMED_OUT:
            self._kill(life)
        else:
            self._answer_doom(life, self._host.failure(result, self._host.what("DestroyDomain", life)))
            if self._book.is_present(life):
                life.ending = None
                self._host.look(life)

    def _kill(self, life: Life) -> None:
        """libvirt itself does not come back: end the process without it."""
        root, uuid = self._host.settings.root, life.uuid

        def end(result: object) -> None:
            life.touched += 1
            if result is True:
                self._ended_on_request(life)
            else:
                failure = self._host.failure(TIMED_OUT, self._host.what("DestroyDomain", life))
                self._answer_doom(life, failure)

        self._host.pass_by(life.uuid, partial(end_qemu, root, uuid), KILL_BUDGET_S, end)

    def _ended_on_request(self, life: Life) -> None:
        self._answer_doom(life, SUCCEEDED)
        self._book.end(life, life.ending or DESTROYED)

    def _answer_doom(self, life: Life, result: CallSucceeded | CallFailed) -> None:
        waiters, life.doom_waiters = life.doom_waiters, []
        for done in waiters:
            self._host.answer(done, result)

    def answer_ended(self, life: Life) -> None:
        """The life is off the book: whoever still waits for it is told."""
        self._answer_doom(life, SUCCEEDED)
        words = f"domain {life.spec.name} ({life.vm_id}) ended on host {self._host.name} meanwhile"
        self.answer_waiters(life, CallFailed(code="domain_ended", message=words))
