"""The host silo's way to the leases on shared storage: one keeper per host and boot, answers as messages.

It holds no truth: what is leased stands in the storage and in the agent's records. Of its own it knows which keeper
belongs to which boot, and it stands between every start of a leased machine and the hypervisor: what the agent
believed when it decided may be old when the start is given (`HypervisorPort.may_begin`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import assert_never

import msgspec

from actors.hypervisor_port import HypervisorPort
from actors.silo import Silo, deliver_result
from hypervisor_backends.lease_keeper import LeaseKeeper, LeaseOutcome
from hypervisor_backends.leases import LeaseStore
from hypervisor_backends.protocol import ArmWatchdog, CallResult, CallSucceeded, Scheduler
from olvm.model.messages import CallEnded


class RenewLease(msgspec.Struct, frozen=True):
    """Raise the host's counter, and arm its watchdog when that worked.

    Answered when it failed (`unreachable`, or `unarmed` when only the watchdog failed), and when it works again after
    that: the agent wants to hear of nothing else, and all hosts renew all the time.
    """

    host: str


class TakeLease(msgspec.Struct, frozen=True):
    """Become the only holder. May take as long as a dead holder must be watched."""

    host: str
    vm_id: str
    epoch: int


class JoinLease(msgspec.Struct, frozen=True):
    """Become the second holder, beside the source of a migration."""

    host: str
    vm_id: str
    epoch: int
    source_host: str


class LeaveLease(msgspec.Struct, frozen=True):
    """Hold it no longer for copies up to `epoch`."""

    host: str
    vm_id: str
    epoch: int


class CheckLease(msgspec.Struct, frozen=True):
    """Answered with `live`, `dead` or `unknown` as value."""

    host: str
    other_host: str


LeasePortRequest = RenewLease | TakeLease | JoinLease | LeaveLease | CheckLease
REQUESTS = (RenewLease, TakeLease, JoinLease, LeaveLease, CheckLease)


class LeasePort:
    """Serves all agents of one host silo. Runs in the silo's thread.

    `store_of(host)` is that host's own way to the storage, `scheduler_of(host)` its own monotonic clock: the same that
    its hypervisor's watchdog runs on.
    """

    def __init__(
        self,
        silo: Silo,
        hypervisors: HypervisorPort,
        store_of: Callable[[str], LeaseStore | None],
        scheduler_of: Callable[[str], Scheduler],
    ) -> None:
        self._silo = silo
        self._hypervisors = hypervisors
        self._store_of = store_of
        self._scheduler_of = scheduler_of
        self.keepers: dict[str, LeaseKeeper] = {}
        self._failing: set[str] = set()  # callers whose last renewal failed, as they were told
        self._unarmed: dict[str, str] = {}  # hosts whose watchdog refused the last deadline, and its words
        hypervisors.may_begin = self.may_begin

    def submit(self, caller: str, request: object, tag: str) -> None:
        assert isinstance(request, REQUESTS), f"{caller} asks the lease port for {request}"
        if request.host in self._hypervisors.backends and self._store_of(request.host) is None:
            self._answer_without_store(caller, request, tag)
            return
        keeper = self._keeper(request.host)
        if keeper is None:
            if isinstance(request, RenewLease):
                self._failing.add(caller)
            words = f"host {request.host} is not open: its leases wait until its agent has opened it"
            self._answer(caller, CallEnded(tag, False, words.encode(), "host_down"))
            return
        on_outcome = partial(self._on_outcome, caller, tag)
        match request:
            case RenewLease():
                keeper.renew(partial(self._on_renewed, caller, request.host, tag))
            case TakeLease(vm_id=vm_id, epoch=epoch):
                keeper.take(vm_id, epoch, on_outcome)
            case JoinLease(vm_id=vm_id, epoch=epoch, source_host=source_host):
                keeper.join(vm_id, epoch, source_host, on_outcome)
            case LeaveLease(vm_id=vm_id, epoch=epoch):
                keeper.leave(vm_id, epoch, on_outcome)
            case CheckLease(other_host=other_host):
                keeper.check(
                    other_host, lambda word: self._answer(caller, CallEnded(tag, True, word.encode()))
                )
            case _:
                assert_never(request)

    def _answer_without_store(self, caller: str, request: LeasePortRequest, tag: str) -> None:
        """A host that has no storage of leases is as fit as any, for machines without one: its renewals are not
        answered, and what it does not hold it can leave."""
        if isinstance(request, RenewLease):
            return
        if isinstance(request, LeaveLease):
            self._answer(caller, CallEnded(tag, True))
            return
        words = f"host {request.host} has no storage of leases; give it the setting lease_directory, on shared storage"
        self._answer(caller, CallEnded(tag, False, words.encode(), "unreachable"))

    def may_begin(self, host: str, vm_id: str, epoch: int) -> bool:
        """Whether the host holds the machine's lease for that epoch at this moment."""
        keeper = self._keeper(host)
        return keeper is not None and keeper.holds(vm_id, epoch)

    def close(self) -> None:
        for keeper in self.keepers.values():
            keeper.close()
        self.keepers.clear()

    def _keeper(self, host: str) -> LeaseKeeper | None:
        """The keeper of the host's present boot; that of an earlier one is closed with what it had under way."""
        backend = self._hypervisors.backends.get(host)
        if backend is None:
            return None
        boot_id = backend.capabilities.boot_id
        keeper = self.keepers.get(host)
        if keeper is not None and keeper.boot_id == boot_id:
            return keeper
        if keeper is not None:
            keeper.close()
            self._unarmed.pop(host, None)

        def arm(deadline_ns: int) -> None:
            backend.submit(ArmWatchdog(deadline_ns=deadline_ns), partial(self._on_armed, host))

        store = self._store_of(host)
        if store is None:
            return None
        config = self._silo.config
        keeper = self.keepers[host] = LeaseKeeper(
            host,
            boot_id,
            store,
            self._scheduler_of(host),
            arm,
            expiry_s=config.lease_expiry_s,
            drift_percent=config.clock_drift_percent_max,
        )
        return keeper

    def _on_armed(self, host: str, result: CallResult) -> None:
        """A watchdog that takes its time to refuse is told of with the next renewal. A backend that fails otherwise
        is closed, or its host is down, which is told elsewhere."""
        if isinstance(result, CallSucceeded):
            self._unarmed.pop(host, None)
        elif result.code == "lease_expired":
            self._unarmed[host] = result.message

    def _on_renewed(self, caller: str, host: str, tag: str, worked: bool, message: str) -> None:
        code = "" if worked else "unreachable"
        if worked and host in self._unarmed:
            worked, message, code = False, self._unarmed[host], "unarmed"
        if not worked:
            self._failing.add(caller)
        elif caller in self._failing:
            self._failing.discard(caller)
        else:
            return
        self._answer(caller, CallEnded(tag, worked, message.encode(), code))

    def _on_outcome(self, caller: str, tag: str, outcome: LeaseOutcome) -> None:
        worked = outcome.kind == "taken"
        self._answer(caller, CallEnded(tag, worked, outcome.message.encode(), "" if worked else outcome.kind))

    def _answer(self, caller: str, message: CallEnded) -> None:
        deliver_result(self._silo, caller, message, "leases")
