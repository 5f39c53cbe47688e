"""Taking, joining and leaving a machine's lease: read the row, judge it, change it from the version that was read.

Decides who is in the way and what the row becomes. An operation belongs to a keeper, which knows whether this host's
own lease stands; the rules are those of `lease_keeper.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

from hypervisor_backends.lease_watching import HostVerdict, Standstill
from hypervisor_backends.leases import (
    Holder,
    HostLease,
    LeaseFailed,
    LeaseRead,
    LeaseResult,
    ReadLease,
    VmLease,
    WriteVmLease,
)
from olvm.model.limits import LEASE_CALLS_FAILED_MAX, LEASE_WRITES_LOST_MAX

if TYPE_CHECKING:
    from hypervisor_backends.lease_keeper import LeaseKeeper


class LeaseOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """`taken` also answers a join or leave that worked. `holder` is the host that stood in the way.

    After `unreachable` a write may still come to work: `leave` until it is `taken`, or take again.
    """

    kind: Literal["taken", "held", "stale", "unreachable"]
    holder: str = ""
    message: str = ""


OutcomeDone: TypeAlias = Callable[[LeaseOutcome], None]

TAKEN = LeaseOutcome(kind="taken")


class LeaseOperation:
    """Reads the machine's lease and changes it from the version read, until that works or there is an outcome."""

    def __init__(self, keeper: LeaseKeeper, vm_id: str, epoch: int) -> None:
        self.vm_id = vm_id
        self.epoch = epoch
        self.dones: list[OutcomeDone] = []
        self._keeper = keeper
        self._line = keeper.line
        self._over = False
        self._writes_lost = 0

    def end(self, outcome: LeaseOutcome) -> None:
        self._over = True
        self._keeper.ended(self)
        for done in self.dones:
            done(outcome)

    def _read(self) -> None:
        if not self._over:
            self._line.ask(ReadLease(vm_id=self.vm_id), partial(self._on_read, self._line.now_ns()))

    def _on_read(self, asked_ns: int, result: LeaseResult) -> None:
        if self._over:
            return
        if isinstance(result, LeaseRead):
            self._judge(result.vm or VmLease(vm_id=self.vm_id), result.hosts, asked_ns)
        else:
            assert isinstance(result, LeaseFailed)
            self._on_unreachable(result)

    def _write(self, lease: VmLease, holders: tuple[Holder, ...]) -> None:
        changed = msgspec.structs.replace(
            lease, holders=holders, epoch=max(lease.epoch, self._epoch_written())
        )
        self._line.ask(WriteVmLease(lease=changed), partial(self._on_written, self._keeper.spell()))

    def _on_written(self, spell: int | None, result: LeaseResult) -> None:
        if self._over:
            return
        if isinstance(result, LeaseRead):
            self._on_changed(spell)
        elif isinstance(result, LeaseFailed) and result.code == "unreachable":
            self._on_unreachable(result)
        else:
            self._once_more(f"the lease of machine {self.vm_id} changed each time before it could be written")

    def _once_more(self, why: str) -> None:
        self._writes_lost += 1
        if self._writes_lost >= LEASE_WRITES_LOST_MAX:
            self.end(LeaseOutcome(kind="unreachable", message=why))
        else:
            self.begin()

    def begin(self) -> None:
        self._read()

    def _judge(self, lease: VmLease, hosts: tuple[HostLease, ...], asked_ns: int) -> None:
        raise NotImplementedError

    def _on_unreachable(self, failure: LeaseFailed) -> None:
        raise NotImplementedError

    def _on_changed(self, spell: int | None) -> None:
        raise NotImplementedError

    def _epoch_written(self) -> int:
        raise NotImplementedError


class TakeLease(LeaseOperation):
    """`beside` names the host that may stay a holder: the source of a migration; empty: nobody."""

    def __init__(self, keeper: LeaseKeeper, vm_id: str, epoch: int, beside: str) -> None:
        super().__init__(keeper, vm_id, epoch)
        self.beside = beside
        self._seen = Standstill(keeper.wait_ns)
        self._calls_failed = 0

    def begin(self) -> None:
        """A holder must have renewed in this boot first: others would take it for one of an earlier boot."""
        if self._keeper.armed():
            self._read()
        else:
            self._keeper.renew(self._on_renewed)

    def _on_renewed(self, worked: bool, message: str) -> None:
        if worked:
            self._read()
        elif not self._over:
            self.end(LeaseOutcome(kind="unreachable", message=message))

    def _judge(self, lease: VmLease, hosts: tuple[HostLease, ...], asked_ns: int) -> None:
        self._calls_failed = 0
        others = [holder for holder in lease.holders if holder.host != self._keeper.host]
        if refusal := self._refusal(lease, others):
            self.end(refusal)
            return
        waiting = False
        for holder in others:
            verdict = "kept" if holder.host == self.beside else self._verdict(holder, hosts, asked_ns)
            if verdict == "live":
                words = f"host {holder.host} holds the lease of machine {self.vm_id} and is alive"
                self.end(LeaseOutcome(kind="held", holder=holder.host, message=words))
                return
            waiting |= verdict == "watch"
        if waiting:
            self._line.at(self._seen.next_ns(self._line.now_ns() + self._keeper.poll_ns), self._read)
        else:
            self._become_holder(lease, tuple(holder for holder in others if holder.host == self.beside))

    def _refusal(self, lease: VmLease, others: list[Holder]) -> LeaseOutcome | None:
        if self.epoch < lease.epoch:
            words = f"machine {self.vm_id} was taken for epoch {lease.epoch}, which is above {self.epoch}"
            return LeaseOutcome(kind="stale", message=words)
        if self.beside and all(holder.host != self.beside for holder in others):
            words = f"host {self.beside} does not hold the lease of machine {self.vm_id} any more"
            return LeaseOutcome(kind="stale", message=words)
        return None

    def _verdict(self, holder: Holder, hosts: tuple[HostLease, ...], asked_ns: int) -> HostVerdict:
        lease = next((one for one in hosts if one.host == holder.host), None)
        if lease is not None and lease.boot_id != holder.boot_id:
            return "dead"
        return self._seen.judge(holder.host, lease, asked_ns, self._line.now_ns())

    def _become_holder(self, lease: VmLease, beside: tuple[Holder, ...]) -> None:
        holders = (*beside, Holder(self._keeper.host, self._keeper.boot_id, self.epoch))
        if holders == lease.holders and self._keeper.holds(self.vm_id, self.epoch):
            self.end(TAKEN)
        elif not self._keeper.armed():
            self._once_more(f"the watchdog of host {self._keeper.host} lapsed while it took {self.vm_id}")
        else:
            self._write(lease, holders)

    def _on_changed(self, spell: int | None) -> None:
        if spell is None or spell != self._keeper.spell():
            # The watchdog has lapsed since the write was submitted: others may have judged us dead meanwhile.
            self._once_more(f"the watchdog of host {self._keeper.host} lapsed while it took {self.vm_id}")
            return
        self._keeper.note_held(self.vm_id, self.epoch, spell)
        self.end(TAKEN)

    def _on_unreachable(self, failure: LeaseFailed) -> None:
        self._calls_failed += 1
        if self._calls_failed >= LEASE_CALLS_FAILED_MAX:
            self.end(LeaseOutcome(kind="unreachable", message=failure.message))
        else:
            self._line.at(self._line.now_ns() + self._keeper.poll_ns, self._read)

    def _epoch_written(self) -> int:
        return self.epoch


class LeaveLease(LeaseOperation):
    _epoch_dropped = 0  # of the write under way; `epoch` may have grown since

    def _judge(self, lease: VmLease, hosts: tuple[HostLease, ...], asked_ns: int) -> None:
        del hosts, asked_ns
        self._epoch_dropped = self.epoch
        self._write(lease, tuple(holder for holder in lease.holders if not self._is_left(holder)))

    def _is_left(self, holder: Holder) -> bool:
        if holder.host != self._keeper.host:
            return False
        return holder.boot_id != self._keeper.boot_id or holder.epoch <= self.epoch

    def _on_changed(self, spell: int | None) -> None:
        del spell
        if self._epoch_dropped < self.epoch:
            self._read()
        else:
            self.end(TAKEN)

    def _on_unreachable(self, failure: LeaseFailed) -> None:
        self.end(LeaseOutcome(kind="unreachable", message=failure.message))

    def _epoch_written(self) -> int:
        return 0
