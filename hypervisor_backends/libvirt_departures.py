"""Migrations from and to a libvirt host, on the owner's thread.

Decides what an end of libvirt's call means. The call's error alone does not say where the machine runs: after it the
source is looked at, and only what is seen there is answered. Rules:

1. The source runs, or stands as it stood before: the migration failed, or was cancelled.
2. It is paused by the migration: all was sent, the target's word is missing (POSTMIGRATE).
3. It is off by migration: it was handed over, whatever the error says.
4. It cannot be looked at: the answer is "unknown", and the machine stays `migrating_from` until it can be.
5. A target ends what arrives and was not prepared; what runs before it could is put on the book and told of. One that
   has waited for too long takes its definition away before it says so, and goes on waiting if something has come. Who
   destroys a machine that is on no book ends what libvirt has of it.
6. libvirt is asked once the guest has run its hooks, or had its time for them. Until then nothing has moved: a cancel
   is the end, and statistics are zero.
"""

from __future__ import annotations

from functools import partial
from typing import TypeAlias, assert_never

import msgspec

from hypervisor_backends import libvirt_migration as migration
from hypervisor_backends.domain_metadata import domain_uuid
from hypervisor_backends.libvirt_book import End, Life
from hypervisor_backends.libvirt_calls import DESTROY_BUDGET_S, GUEST_RUNS, SUCCEEDED, Calls
from hypervisor_backends.libvirt_domain import Seen, look
from hypervisor_backends.libvirt_guests import Guests
from hypervisor_backends.libvirt_host import LOOK_BUDGET_S, LibvirtHost, Work
from hypervisor_backends.libvirt_migration import Handed
from hypervisor_backends.libvirt_outgoing import Outgoing
from hypervisor_backends.libvirt_workers import TIMED_OUT
from hypervisor_backends.libvirt_xml import StartRefused, XmlMaker
from hypervisor_backends.protocol import (
    CallFailed,
    CallSucceeded,
    CancelMigration,
    ChangeMigration,
    DestroyDomain,
    DomainStatus,
    Done,
    ExitReason,
    FailureCode,
    GetMigrationStatistics,
    IncomingAddress,
    MigrateDomain,
    PrepareIncoming,
    Request,
    StartPostCopy,
)

MigrationRequest: TypeAlias = (
    MigrateDomain | ChangeMigration | StartPostCopy | CancelMigration | GetMigrationStatistics
)
MIGRATION_REQUESTS = (MigrateDomain, ChangeMigration, StartPostCopy, CancelMigration, GetMigrationStatistics)
LEAVES_FROM: frozenset[DomainStatus] = frozenset({"powering_up", "up", "paused", "reboot_in_progress"})
ENDED_ELSEWHERE: End = ("stopped", ExitReason.MIGRATION_SUCCEEDED, "migrated to another host")


class Departures:
    def __init__(self, host: LibvirtHost, calls: Calls, xml: XmlMaker, guests: Guests) -> None:
        self._host = host
        self._book = host.book
        self._calls = calls
        self._xml = xml
        self._guests = guests
        host.book.on_lost_in_post_copy = self._on_lost_in_post_copy

    # ------------------------------------------------------------ the target

    def prepare(self, request: PrepareIncoming, done: Done) -> None:
        there = self._book.lives.get(request.vm_id)
        if there is not None and there.epoch == request.epoch and there.incoming:
            if there.under_way:
                there.waiters.append(done)
            else:
                self._host.answer(done, self._address())
            return
        refusal = self._calls.refusal(request)
        if refusal is not None:
            self._host.answer(done, refusal)
            return
        life = self._calls.new_life(request, "migrating_to")
        life.incoming = life.under_way = True
        life.waiters.append(done)
        self._host.call(
            life,
            partial(self._define, life),
            self._host.settings.call_timeout_s,
            partial(self._on_prepared, life),
        )

    def _define(self, life: Life, connection: object) -> None:
        """On a worker."""
        xml = self._xml.make(connection, life.vm_id, life.epoch, life.spec, arrives=True)
        migration.prepare(connection, life.uuid, xml)

    def _on_prepared(self, life: Life, result: object) -> None:
        life.under_way = False
        if not self._book.is_present(life):
            return
        waiters, life.waiters = life.waiters, []
        if result is None:
            self._wait_for_source(life)
            answer: CallSucceeded | CallFailed = self._address()
        else:
            answer = self._prepare_failure(life, result)
            self._book.end(life, ("crashed", ExitReason.LIBVIRT_START_FAILED, answer.message))
        for done in waiters:
            self._host.answer(done, answer)
        if life.doom_waiters:
            self._calls.destroy_now(life)

    def _prepare_failure(self, life: Life, result: object) -> CallFailed:
        if isinstance(result, StartRefused):
            return result.failure
        return self._host.failure(result, self._host.what("PrepareIncoming", life))

    def _wait_for_source(self, life: Life) -> None:
        self._host.arm(life, "incoming", self._host.settings.incoming_timeout_s, partial(self._give_up, life))

    def _address(self) -> CallSucceeded:
        uri = self._host.settings.migration_uri_of(self._host.name)
        return CallSucceeded(value=IncomingAddress(uri=uri))

    def _give_up(self, life: Life) -> None:
        """What is told may be late: libvirt is asked whether the machine has come, before its end is told."""
        if not life.incoming or life.arriving:
            return

        def end(is_away: object) -> None:
            if not life.incoming or life.arriving:
                return
            if is_away is True:
                words = "nothing was heard from its source in time"
                self._book.end(life, ("stopped", ExitReason.ARRIVAL_GIVEN_UP, words))
            else:  # it has come, or nobody knows
                self._wait_for_source(life)
                self._host.look(life)

        work = partial(migration.stop_expecting, uuid=life.uuid)
        self._host.call(life, work, self._host.settings.call_timeout_s, end)

    def end_unlisted(self, request: DestroyDomain, done: Done) -> None:
        """Nothing of it is on the book. After the answer nothing of it runs here either, unless it comes yet."""
        uuid, root = domain_uuid(request.vm_id), self._host.settings.root

        def end(result: object) -> None:
            if result is None:
                self._host.fail_unknown(done, request)
            else:
                what = f"DestroyDomain of domain {request.vm_id} on host {self._host.name}"
                self._host.answer(done, self._host.failure(result, what))

        work = self._host.bound(partial(migration.end_unlisted, uuid=uuid, root=root))
        self._host.pass_by(uuid, work, DESTROY_BUDGET_S, end)

    # ------------------------------------------------------------ the source

    def carry_out(self, request: MigrationRequest, life: Life, done: Done) -> None:
        what = self._host.what(type(request).__name__, life)
        refusal = self._wrong_state(request, life)
        if refusal is not None:
            self._host.fail(done, "wrong_state", f"{what} is refused while {refusal}", can_retry=True)
            return
        if life.outgoing is not None and not life.outgoing.begun:
            self._while_guest_prepares(request, life, life.outgoing, done)
            return
        match request:
            case MigrateDomain():
                self._prepare_guest(request, life, done)
            case ChangeMigration():
                outgoing = self._outgoing(life)
                outgoing.downtime_ms = request.downtime_ms
                work = partial(migration.set_downtime, uuid=life.uuid, downtime_ms=request.downtime_ms)
                self._beside(request, life, done, work)
            case StartPostCopy():
                self._outgoing(life).no_way_back = True
                self._beside(request, life, done, partial(migration.start_post_copy, uuid=life.uuid))
            case CancelMigration():
                self._outgoing(life).cancelled = True
                self._beside(request, life, done, partial(migration.cancel, uuid=life.uuid))
            case GetMigrationStatistics():
                self._beside(request, life, done, partial(migration.job_statistics, uuid=life.uuid))
            case _:
                assert_never(request)

    def _outgoing(self, life: Life) -> Outgoing:
        assert life.outgoing is not None
        return life.outgoing

    def _wrong_state(self, request: MigrationRequest, life: Life) -> str | None:
        if isinstance(request, MigrateDomain):
            if life.outgoing is not None:
                return "it migrates already; cancel that first"
            if life.status not in LEAVES_FROM or life.pause_code in ("POSTMIGRATE", "POSTCOPY"):
                return f"its status is {life.shown()}; wait for another one"
            if not life.responds:
                return "its QEMU does not answer; look at it, or destroy it"
            return None
        if life.outgoing is None or life.outgoing.end is None:
            return "no migration of it is under way"
        if isinstance(request, StartPostCopy) and not life.outgoing.begun:
            return "its guest still prepares itself"
        if life.outgoing.no_way_back and isinstance(request, CancelMigration):
            return "its target runs already; wait for the end"
        if isinstance(request, StartPostCopy) and life.outgoing.no_way_back:
            return "its target runs already"
        if isinstance(request, StartPostCopy) and not life.outgoing.request.post_copy:
            return "its migration was begun without post-copy; begin it anew with it"
        return None

    def _prepare_guest(self, request: MigrateDomain, life: Life, done: Done) -> None:
        outgoing = Outgoing(request, done)
        outgoing.guest_told = life.status in GUEST_RUNS  # one that stands still runs no hooks
        life.outgoing = outgoing
        life.touched += 1
        if outgoing.guest_told:
            self._guests.prepare(life, "before_migration", partial(self._begin, life, outgoing))
        else:
            self._begin(life, outgoing)

    def _while_guest_prepares(
        self, request: MigrationRequest, life: Life, outgoing: Outgoing, done: Done
    ) -> None:
        if isinstance(request, CancelMigration):
            outgoing.cancelled = True
            self._host.answer(done, SUCCEEDED)
            self._failed(life, outgoing, f"{self._what(life)} was cancelled before anything was sent")
        elif isinstance(request, ChangeMigration):
            outgoing.downtime_ms = request.downtime_ms
            self._host.answer(done, SUCCEEDED)
        else:
            value = migration.statistics_of({}, outgoing.downtime_ms, post_copy=False)
            self._host.answer(done, CallSucceeded(value=value))

    def _begin(self, life: Life, outgoing: Outgoing) -> None:
        if life.outgoing is not outgoing or not self._book.is_present(life):
            return  # cancelled, or ended: it was answered
        outgoing.begun = True
        request = msgspec.structs.replace(outgoing.request, downtime_ms=outgoing.downtime_ms)
        settings, accelerator = self._host.settings, self._host.capabilities.accelerator
        work = self._host.bound(
            lambda connection: migration.migrate(connection, life.uuid, request, settings, accelerator)
        )
        # Hours may be right: whoever watches it cancels it.
        self._host.workers.run(work, None, partial(self._on_over, life, outgoing))

    def _beside(self, request: Request, life: Life, done: Done, work: Work) -> None:
        """A call about the migration under way; it must not wait for what else is asked of the machine."""
        outgoing = self._outgoing(life)
        bound = self._host.bound(work)

        def end(result: object) -> None:
            what = self._host.what(type(request).__name__, life)
            if isinstance(result, dict):
                value = migration.statistics_of(result, outgoing.downtime_ms, post_copy=outgoing.post_copy)
                self._host.answer(done, CallSucceeded(value=value))
            elif result is None:
                self._host.answer(done, SUCCEEDED)
                if isinstance(request, StartPostCopy):
                    self._host.look(life)
            else:
                if result is not TIMED_OUT:
                    outgoing.cancelled &= not isinstance(request, CancelMigration)
                    outgoing.no_way_back &= not isinstance(request, StartPostCopy)
                self._host.answer(done, self._host.failure(result, what))
            self._host.outbox.drain()

        self._host.workers.run(bound, self._host.settings.call_timeout_s, end)

    # ------------------------------------------------------------ its end

    def _on_over(self, life: Life, outgoing: Outgoing, result: object) -> None:
        life.touched += 1
        if life.outgoing is not outgoing or not self._book.is_present(life):
            self._host.outbox.drain()
            return  # the machine ended meanwhile, and the call was answered with that
        if isinstance(result, Handed):
            self._handed_over(life, outgoing, CallSucceeded(value=result.statistics))
        elif migration.was_not_begun(result):
            self._failed(life, outgoing, self._host.failure(result, self._what(life)).message)
        else:
            self._ask_source(life, outgoing, self._host.failure(result, self._what(life)))
        self._host.outbox.drain()

    def _what(self, life: Life) -> str:
        return self._host.what("MigrateDomain", life)

    def _ask_source(self, life: Life, outgoing: Outgoing, failure: CallFailed) -> None:
        work = self._host.bound(lambda connection: look(connection, life.uuid))
        self._host.workers.run(work, LOOK_BUDGET_S, partial(self._on_source, life, outgoing, failure))

    def _on_source(self, life: Life, outgoing: Outgoing, failure: CallFailed, result: object) -> None:
        life.touched += 1
        if life.outgoing is outgoing and self._book.is_present(life):
            if isinstance(result, Seen):
                self._judge(life, outgoing, failure, result)
            else:
                self._unknown(life, outgoing, failure)
        self._host.outbox.drain()

    def _judge(self, life: Life, outgoing: Outgoing, failure: CallFailed, seen: Seen) -> None:
        """The rules at the top, in the order of what is worst to get wrong."""
        ended = self._book.end_as_seen(life, seen) if seen.execution in ("off", "absent") else None
        if ended is not None and ended[1] == ExitReason.MIGRATION_SUCCEEDED:
            self._handed_over(life, outgoing, SUCCEEDED)
        elif seen.cause == "post_copy_failed":
            self._on_lost_in_post_copy(life)
        elif ended is not None:
            self._book.end(life, ended)  # its waiters are told that it ended
        elif seen.execution == "paused" and seen.cause in ("migration", "post_copy"):
            words = f"{failure.message}; the target's word is missing: ask there before it is continued here"
            unknown = CallFailed(code="timed_out", message=words, can_retry=True, outcome_known=False)
            self._answer(outgoing, unknown)
            outgoing.unknown = True
            self._book.apply(life, seen)
        else:
            self._failed(life, outgoing, failure.message)
            self._book.apply(life, seen)

    def _unknown(self, life: Life, outgoing: Outgoing, failure: CallFailed) -> None:
        words = f"{failure.message}; its source cannot be asked now"
        self._answer(
            outgoing, CallFailed(code="timed_out", message=words, can_retry=True, outcome_known=False)
        )
        outgoing.unknown = True
        self._host.look(life)

    def _handed_over(self, life: Life, outgoing: Outgoing, answer: CallSucceeded) -> None:
        self._answer(outgoing, answer)
        self._book.end(life, ENDED_ELSEWHERE)

    def _failed(self, life: Life, outgoing: Outgoing, message: str) -> None:
        code: FailureCode = "migration_cancelled" if outgoing.cancelled else "migration_failed"
        self._book.stays(life)
        self._answer(outgoing, CallFailed(code=code, message=message, can_retry=True))
        self._host.look(life)

    def _answer(self, outgoing: Outgoing, result: CallSucceeded | CallFailed) -> None:
        done, outgoing.end = outgoing.end, None
        if done is not None:
            self._host.answer(done, result)

    def answer_ended(self, life: Life) -> None:
        """The life is off the book in the middle of its migration."""
        if life.outgoing is not None:
            words = f"{self._what(life)}: the domain ended meanwhile"
            self._answer(life.outgoing, CallFailed(code="domain_ended", message=words))

    def _on_lost_in_post_copy(self, life: Life) -> None:
        """Half of its memory is on either side: nobody can run it again."""
        words = "its post-copy migration broke; its memory is lost"
        if life.outgoing is not None:
            failure = CallFailed(code="domain_ended", message=f"{self._what(life)}: {words}")
            self._answer(life.outgoing, failure)
        life.ending = ("crashed", ExitReason.POSTCOPY_MIGRATION_FAILED, words)
        self._host.held.add(life.uuid)  # libvirt 9.0 never lets go of the job of such a migration
        self._calls.end_by_force(life)
