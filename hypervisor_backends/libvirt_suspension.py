"""A machine's memory into a file, on the owner's thread: the guest is told, then libvirt is asked.

Decides what is said of the machine meanwhile. Rule: that its memory is saved explains its end only once libvirt has
been asked to save it; a guest that crashes while it runs its hooks has crashed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from hypervisor_backends import libvirt_lifecycle as lifecycle
from hypervisor_backends.libvirt_book import End, Life
from hypervisor_backends.libvirt_domain import Seen
from hypervisor_backends.libvirt_guests import Guests
from hypervisor_backends.libvirt_host import LibvirtHost
from hypervisor_backends.protocol import CallFailed, CallSucceeded, Done, ExitReason

AnswerWaiters: TypeAlias = Callable[[Life, CallSucceeded | CallFailed], None]
SAVED: End = ("stopped", ExitReason.SAVE_STATE_SUCCEEDED, "memory saved")


class Suspension:
    def __init__(self, host: LibvirtHost, guests: Guests, answer_waiters: AnswerWaiters) -> None:
        self._host = host
        self._book = host.book
        self._guests = guests
        self._answer_waiters = answer_waiters

    def begin(self, life: Life, done: Done) -> None:
        runs = life.status != "paused"  # one that stands still runs no hooks
        self._book.ask(life, "saving_state")
        life.waiters.append(done)
        if runs:
            self._guests.prepare(life, "before_hibernation", partial(self._save, life, runs))
        else:
            self._save(life, runs)

    def _save(self, life: Life, was_told: bool) -> None:
        if not self._book.is_present(life):
            return  # it ended meanwhile, and whoever waited was told
        if life.doom_waiters:
            words = f"{self._what(life)} was given up: the machine is being destroyed"
            self._failed(life, CallFailed(code="wrong_state", message=words), was_told)
            return
        life.ending = SAVED
        work = partial(lifecycle.save, uuid=life.uuid, settings=self._host.settings)
        budget_s = self._host.settings.migration_timeout_s
        self._host.call(life, work, budget_s, partial(self._on_saved, life, was_told))

    def _on_saved(self, life: Life, was_told: bool, result: object) -> None:
        if isinstance(result, Seen) and result.execution != "runs":
            self._answer_waiters(life, CallSucceeded())
            self._book.end(life, life.ending or SAVED)
            return
        failure = self._host.failure(result, self._what(life))
        if failure.outcome_known:
            life.ending = None
        self._failed(life, failure, was_told)

    def _failed(self, life: Life, failure: CallFailed, was_told: bool) -> None:
        self._answer_waiters(life, failure)
        if not self._book.is_present(life):
            return
        if failure.outcome_known:
            self._book.stand_again(life)
            if was_told:
                self._guests.tell_after(life, "after_hibernation", failure=True)
        self._host.look(life)

    def _what(self, life: Life) -> str:
        return self._host.what("SuspendDomain", life)
