"""One host's side of the leases: when its watchdog may be armed, and when another host's lease is free.

Everything is measured on this host's own monotonic clock. Four rules carry the proof in docs/leases.md:

1. A renewal arms the watchdog until `expiry` after the moment *before* its write was submitted.
2. A counter has stood still from the *answer* of the first reading to the *question* of the last, and the host is
   dead when that is at least `wait`, the expiry stretched by the worst drift of both clocks.
3. A machine's lease is held (`holds`) only within the spell of the watchdog in which it was written. After a lapse it
   is written again before it counts, even if the row already names this host: a slow write of another host, which
   judged by what stood there before, then finds another version.
4. Leaving always writes, for the same reason: an earlier write of this host may still come to work.

A keeper belongs to one boot of one host and must not know actors or hypervisors. Whoever starts a leased domain asks
`holds` first, on the thread of the keeper.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Literal, TypeAlias

from hypervisor_backends.lease_operations import (
    LeaseOperation,
    LeaseOutcome,
    LeaveLease,
    OutcomeDone,
    TakeLease,
)
from hypervisor_backends.lease_watching import Standstill, TimedStore
from hypervisor_backends.leases import (
    HostLease,
    LeaseFailed,
    LeaseRead,
    LeaseResult,
    LeaseStore,
    ReadHostLease,
    RenewHostLease,
)
from hypervisor_backends.protocol import Scheduler
from olvm.model.errors import BadInput
from olvm.model.limits import LEASE_CALLS_FAILED_MAX, LEASE_WRITES_LOST_MAX, NS_PER_S

__all__ = ["LeaseKeeper", "LeaseOutcome", "wait_of"]

POLLS_PER_EXPIRY = 6  # how often a watched counter is read
CLOCK_GRAIN_NS = 1_000_000  # clocks are read in whole ticks, and drift is calculated in floats


RenewDone: TypeAlias = Callable[[bool, str], None]
CheckDone: TypeAlias = Callable[[Literal["live", "dead", "unknown"]], None]


def wait_of(expiry_ns: int, drift_percent: float) -> int:
    """How long a counter must stand still on a watcher's clock before its host's watchdog surely has struck."""
    drift = drift_percent / 100
    return math.ceil(expiry_ns * (1 + drift) / (1 - drift)) + CLOCK_GRAIN_NS


class LeaseKeeper:
    """`arm` is given the watchdog's new deadline, on `scheduler`'s clock; the watchdog must run on the same clock."""

    def __init__(
        self,
        host: str,
        boot_id: str,
        store: LeaseStore,
        scheduler: Scheduler,
        arm: Callable[[int], None],
        *,
        expiry_s: float,
        drift_percent: float,
        call_timeout_s: float = 5.0,
    ) -> None:
        if expiry_s <= 0 or call_timeout_s <= 0 or not 0 <= drift_percent < 100:
            raise BadInput(
                f"leases of host {host} need expiry_s > 0, call_timeout_s > 0 and 0 <= drift_percent < 100, "
                f"got {expiry_s}, {call_timeout_s} and {drift_percent}"
            )
        self.host = host
        self.boot_id = boot_id
        self.line = TimedStore(host, store, scheduler, timeout_ns=int(call_timeout_s * NS_PER_S))
        self.expiry_ns = int(expiry_s * NS_PER_S)
        self.wait_ns = wait_of(self.expiry_ns, drift_percent)
        self.poll_ns = self.expiry_ns // POLLS_PER_EXPIRY
        self._arm = arm
        self._begun = False  # a renewal of this boot has worked
        self._armed_until_ns = 0
        self._spell = 0  # grows with each arming that comes after a lapse
        self._held: dict[str, tuple[int, int]] = {}  # vm_id -> epoch, and the spell in which it was written
        self._takes: dict[str, TakeLease] = {}
        self._leaves: dict[str, LeaveLease] = {}

    # ------------------------------------------------------------ the host's own lease

    def armed(self) -> bool:
        return self.line.now_ns() < self._armed_until_ns

    def spell(self) -> int | None:
        """Names the present unbroken time of an armed watchdog; None while it is not armed."""
        return self._spell if self.armed() else None

    def holds(self, vm_id: str, epoch: int) -> bool:
        """Whether this host may begin to run the machine now.

        True only if this keeper took or joined the lease for `epoch` and the watchdog has been armed ever since. Ask
        it in the same step that gives the start to the hypervisor: what was true before a pause may not be true after.
        """
        return self.armed() and self._held.get(vm_id) == (epoch, self._spell)

    def renew(self, done: RenewDone) -> None:
        """Raise this host's counter and, when that is answered, arm the watchdog from before the question."""
        self._renew("", LEASE_WRITES_LOST_MAX, done)

    def _renew(self, replaces: str, tries_left: int, done: RenewDone) -> None:
        begun_ns = self.line.now_ns()
        request = RenewHostLease(host=self.host, boot_id=self.boot_id, replaces=replaces)
        self.line.ask(request, partial(self._on_renewed, begun_ns, tries_left, done))

    def _on_renewed(self, begun_ns: int, tries_left: int, done: RenewDone, result: LeaseResult) -> None:
        if isinstance(result, HostLease):
            self._arm_until(begun_ns + self.expiry_ns, done)
            return
        assert isinstance(result, LeaseFailed)
        if result.code == "version_changed" and not self._begun and tries_left > 0:
            self.line.ask(ReadHostLease(host=self.host), partial(self._on_own_lease, tries_left - 1, done))
        else:
            done(False, result.message)

    def _on_own_lease(self, tries_left: int, done: RenewDone, result: LeaseResult) -> None:
        if isinstance(result, LeaseFailed):
            done(False, result.message)
            return
        assert isinstance(result, LeaseRead)
        self._renew(result.hosts[0].boot_id if result.hosts else "", tries_left, done)

    def _arm_until(self, deadline_ns: int, done: RenewDone) -> None:
        self._begun = True
        if deadline_ns <= self.line.now_ns():
            done(False, f"the renewal of host {self.host} was answered only after its expiry")
            return
        if not self.armed():
            self._spell += 1
        self._armed_until_ns = max(self._armed_until_ns, deadline_ns)
        self._arm(deadline_ns)
        done(True, "")

    # ------------------------------------------------------------ machines' leases

    def take(self, vm_id: str, epoch: int, done: OutcomeDone) -> None:
        """Become the only holder. `held` as soon as a holder shows life, else after `wait` at the latest."""
        self._acquire(vm_id, epoch, "", done)

    def join(self, vm_id: str, epoch: int, source_host: str, done: OutcomeDone) -> None:
        """Become the second holder beside `source_host`, before the machine migrates here."""
        self._acquire(vm_id, epoch, source_host, done)

    def _acquire(self, vm_id: str, epoch: int, beside: str, done: OutcomeDone) -> None:
        running = self._takes.get(vm_id)
        if running is not None and (running.epoch, running.beside) == (epoch, beside):
            running.dones.append(done)
            return
        if running is not None and running.epoch > epoch:
            done(
                LeaseOutcome(
                    kind="stale", message=f"machine {vm_id} is being taken for epoch {running.epoch}"
                )
            )
            return
        self._supersede(running, f"epoch {epoch} is taken instead")
        leaving = self._leaves.get(vm_id)
        if leaving is not None and leaving.epoch >= epoch:
            self._supersede(leaving, f"epoch {epoch} is taken again")
        self._takes[vm_id] = take = TakeLease(self, vm_id, epoch, beside)
        take.dones.append(done)
        take.begin()

    def leave(self, vm_id: str, epoch: int, done: OutcomeDone) -> None:
        """Hold the lease no longer for copies up to `epoch`; `taken` when no write of them can come to work any more.

        `unreachable` must be asked again. Leaving what is not held works.
        """
        taking = self._takes.get(vm_id)
        if taking is not None and taking.epoch <= epoch:
            self._supersede(taking, f"epoch {epoch} was left")
        if vm_id in self._held and self._held[vm_id][0] <= epoch:
            del self._held[vm_id]
        running = self._leaves.get(vm_id)
        if running is not None:
            running.epoch = max(running.epoch, epoch)
            running.dones.append(done)
            return
        self._leaves[vm_id] = leave = LeaveLease(self, vm_id, epoch)
        leave.dones.append(done)
        leave.begin()

    def _supersede(self, operation: LeaseOperation | None, reason: str) -> None:
        if operation is not None:
            operation.end(LeaseOutcome(kind="stale", message=f"machine {operation.vm_id}: {reason}"))

    def ended(self, operation: LeaseOperation) -> None:
        """Called by an operation as the last thing before it tells its outcome."""
        table = self._takes if isinstance(operation, TakeLease) else self._leaves
        del table[operation.vm_id]

    def note_held(self, vm_id: str, epoch: int, spell: int) -> None:
        self._held[vm_id] = (epoch, spell)

    # ------------------------------------------------------------ another host's lease

    def check(self, host: str, done: CheckDone) -> None:
        """Watch another host: `live` at its first sign of life, `dead` after the full wait."""
        self._check(host, Standstill(self.wait_ns), LEASE_CALLS_FAILED_MAX, done)

    def _check(self, host: str, seen: Standstill, tries_left: int, done: CheckDone) -> None:
        asked_ns = self.line.now_ns()

        def then(result: LeaseResult) -> None:
            if isinstance(result, LeaseRead):
                verdict = seen.judge(
                    host, result.hosts[0] if result.hosts else None, asked_ns, self.line.now_ns()
                )
                if verdict == "watch":
                    self.line.at(
                        seen.next_ns(self.line.now_ns() + self.poll_ns), again(LEASE_CALLS_FAILED_MAX)
                    )
                else:
                    done(verdict)
            elif tries_left > 1:
                self.line.at(self.line.now_ns() + self.poll_ns, again(tries_left - 1))
            else:
                done("unknown")

        def again(tries: int) -> Callable[[], None]:
            return lambda: self._check(host, seen, tries, done)

        self.line.ask(ReadHostLease(host=host), then)

    def close(self) -> None:
        """The boot is over or the agent ends: nothing is called back any more. What is in the storage stays."""
        self.line.close()
        self._armed_until_ns = 0
