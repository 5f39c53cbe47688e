"""Shared storage in memory: the leases of all hosts, and what may befall a call on its way there.

Also holds the two rules by which every lease store changes its rows (`renewed`, `written`). Faults are decided by one
function, asked at each call (`Befall`): a simulator puts its own there; `StorageFaults` is the one for tests and
laboratories. What a call does to the storage and whether its host hears of it are apart, as in life.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, assert_never

import msgspec

from hypervisor_backends.leases import (
    HostLease,
    LeaseDone,
    LeaseFailed,
    LeaseRead,
    LeaseRequest,
    LeaseResult,
    ReadHostLease,
    ReadLease,
    RenewHostLease,
    VmLease,
    WriteVmLease,
)
from hypervisor_backends.protocol import Scheduler
from olvm.model.errors import BadInput
from olvm.model.limits import NS_PER_S


def renewed(current: HostLease | None, request: RenewHostLease) -> HostLease | LeaseFailed:
    """What a host's lease becomes; `current` is what stands there."""
    if current is not None and current.boot_id not in (request.boot_id, request.replaces):
        words = f"host {request.host} holds its lease as boot {current.boot_id}, not {request.boot_id}"
        return LeaseFailed(code="version_changed", message=words)
    counter = 1 if current is None else current.counter + 1
    return HostLease(host=request.host, boot_id=request.boot_id, counter=counter)


def written(current: VmLease | None, request: WriteVmLease) -> VmLease | LeaseFailed:
    """What a machine's lease becomes; `current` is what stands there."""
    version = 0 if current is None else current.version
    if request.lease.version != version:
        words = (
            f"the lease of machine {request.lease.vm_id} is at version {version}, not {request.lease.version}"
        )
        return LeaseFailed(code="version_changed", message=words)
    return msgspec.structs.replace(request.lease, version=version + 1)


class Fate(msgspec.Struct, frozen=True, kw_only=True):
    """What befalls one call, counted from its beginning. None: never.

    An answer that comes before the effect is `unreachable`; one that comes at the same time is the result.
    """

    effect_after_s: float | None = 0.0
    answer_after_s: float | None = 0.0

    def __post_init__(self) -> None:
        if min(self.effect_after_s or 0.0, self.answer_after_s or 0.0) < 0:
            raise BadInput(f"a call cannot end before it began: {self}")


NORMAL = Fate()
NOTHING_HAPPENS = Fate(effect_after_s=None, answer_after_s=None)

Befall: TypeAlias = Callable[[str, LeaseRequest], Fate]


class StorageFaults:
    """Faults that are set by host. A fate that is queued for a host goes before what else is set for it."""

    def __init__(self) -> None:
        self._cut: set[str] = set()
        self._delay_s_by_host: dict[str, float] = {}
        self._next_by_host: dict[str, list[Fate]] = {}

    def __call__(self, host: str, request: LeaseRequest) -> Fate:
        del request
        if self._next_by_host.get(host):
            return self._next_by_host[host].pop(0)
        if host in self._cut:
            return NOTHING_HAPPENS
        delay_s = self._delay_s_by_host.get(host, 0.0)
        return Fate(effect_after_s=delay_s / 2, answer_after_s=delay_s) if delay_s else NORMAL

    def cut(self, host: str) -> None:
        """The storage hears nothing of the host, and the host nothing of the storage."""
        self._cut.add(host)

    def heal(self, host: str) -> None:
        """Takes back `cut` and `slow`; calls that hang go on hanging."""
        self._cut.discard(host)
        self._delay_s_by_host.pop(host, None)

    def slow(self, host: str, delay_s: float) -> None:
        """Each call is answered after `delay_s`, and takes effect half-way."""
        self._delay_s_by_host[host] = delay_s

    def hang_next(self, host: str, effect_after_s: float) -> None:
        """The host's next call is not answered, and comes to work that much later."""
        self.befall_next(host, Fate(effect_after_s=effect_after_s, answer_after_s=None))

    def lose_next_answer(self, host: str) -> None:
        """The host's next call works, and the host does not hear of it."""
        self.befall_next(host, Fate(answer_after_s=None))

    def befall_next(self, host: str, fate: Fate) -> None:
        self._next_by_host.setdefault(host, []).append(fate)


class MemoryLeases:
    """One shared storage; `store` gives each host its way to it. `scheduler` is the storage's own time.

    A call without delay takes effect and is answered before `submit` returns. Calls that are under way when their
    host dies still come to work.
    """

    def __init__(self, scheduler: Scheduler, befall: Befall | None = None) -> None:
        self._scheduler = scheduler
        self._befall: Befall = befall if befall is not None else StorageFaults()
        self._host_leases: dict[str, HostLease] = {}
        self._vm_leases: dict[str, VmLease] = {}

    def store(self, host: str) -> MemoryLeaseStore:
        return MemoryLeaseStore(self, host)

    def vm_lease(self, vm_id: str) -> VmLease | None:
        """What stands there now; for observers."""
        return self._vm_leases.get(vm_id)

    def host_lease(self, host: str) -> HostLease | None:
        """What stands there now; for observers."""
        return self._host_leases.get(host)

    def begin(self, host: str, request: LeaseRequest, done: LeaseDone) -> None:
        fate = self._befall(host, request)
        results: list[LeaseResult] = []

        def answer() -> None:
            if results:
                done(results[0])
            else:
                words = f"the shared storage did not answer host {host}"
                done(LeaseFailed(code="unreachable", message=words))

        def work() -> None:
            results.append(self._apply(request))
            if fate.answer_after_s == fate.effect_after_s:
                answer()

        self._after(fate.effect_after_s, work)
        if fate.answer_after_s != fate.effect_after_s:
            self._after(fate.answer_after_s, answer)

    def _after(self, delay_s: float | None, fn: Callable[[], None]) -> None:
        if delay_s is None:
            return
        if delay_s == 0:
            fn()
        else:
            self._scheduler.call_at(self._scheduler.now_ns() + int(delay_s * NS_PER_S), fn)

    def _apply(self, request: LeaseRequest) -> LeaseResult:
        match request:
            case RenewHostLease():
                lease = renewed(self._host_leases.get(request.host), request)
                if isinstance(lease, HostLease):
                    self._host_leases[request.host] = lease
                return lease
            case WriteVmLease():
                changed = written(self._vm_leases.get(request.lease.vm_id), request)
                if isinstance(changed, LeaseFailed):
                    return changed
                self._vm_leases[changed.vm_id] = changed
                return self._read(changed.vm_id)
            case ReadLease():
                return self._read(request.vm_id)
            case ReadHostLease():
                found = self._host_leases.get(request.host)
                return LeaseRead(vm=None, hosts=() if found is None else (found,))
            case _:
                assert_never(request)

    def _read(self, vm_id: str) -> LeaseRead:
        lease = self._vm_leases.get(vm_id)
        names = sorted({holder.host for holder in lease.holders}) if lease is not None else []
        return LeaseRead(
            vm=lease, hosts=tuple(self._host_leases[name] for name in names if name in self._host_leases)
        )


class MemoryLeaseStore:
    """One host's way to a `MemoryLeases`."""

    def __init__(self, leases: MemoryLeases, host: str) -> None:
        self._leases = leases
        self._host = host

    def submit(self, request: LeaseRequest, done: LeaseDone) -> None:
        self._leases.begin(self._host, request, done)
