"""Which planted faults wait for which domain or call, and when one is used up.

Decides only the matching; what a fault does is the affair of `simulated.py` (calls) and `simulated_host.py`
(guests). A fault waits until something matches it, the oldest first, and leaves after `count` uses.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from hypervisor_backends.protocol import FEATURE_BY_REQUEST, DomainRequest, PauseCode
from olvm.model.errors import BadInput

FaultKind = Literal[
    "call_fails",  # answered with an error, no effect
    "call_hangs",  # never answered; a start leaves its domain in WaitForLaunch, other calls have no effect
    "call_times_out",  # takes effect, but is answered "outcome unknown"
    "guest_ignores_shutdown",  # does not obey ShutdownDomain and RebootDomain
    "guest_refuses_unplug",  # of one device; it stays
    "monitor_hangs",  # calls but DestroyDomain time out without effect; stands until cleared
    "guest_crashes",
    "guest_shuts_down",  # of its own accord
    "guest_reboots",  # of its own accord
    "io_error",  # the domain pauses with `pause_code`
    "migration_fails",  # at the source, `after_s` from its begin but before its end; with post-copy both lose it
    "migration_never_converges",  # at the source: the guest dirties all its memory faster than it can be sent
    "arrival_is_late",  # at the target: it gives up when its source has just begun, which libvirt lets in
    "migration_loses_confirm",  # at either side: the target runs and its word to the source is swallowed
]
CALL_FAULTS: tuple[FaultKind, ...] = ("call_fails", "call_hangs", "call_times_out")
GUEST_FAULTS: tuple[FaultKind, ...] = ("guest_crashes", "guest_shuts_down", "guest_reboots", "io_error")
# What a call fault may name; calls about the host are never faulted, nor is the sure way out, DestroyDomain.
FAULTABLE_REQUESTS = frozenset({"StartDomain"}) | {
    request.__name__ for request in FEATURE_BY_REQUEST if issubclass(request, DomainRequest)
}


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """`vm` is a VM's name or id; empty means whichever comes first.

    A guest fault strikes `after_s` from now if it names a running domain, else from the next matching start.
    """

    kind: FaultKind
    vm: str = ""
    request: str = "StartDomain"  # of the three call faults: the request's class name
    after_s: float = 0.0
    count: int | None = 1  # None: for ever
    pause_code: PauseCode = "EIO"

    def __post_init__(self) -> None:
        if self.kind in CALL_FAULTS and self.request not in FAULTABLE_REQUESTS:
            known = ", ".join(sorted(FAULTABLE_REQUESTS))
            raise BadInput(f"fault {self.kind} cannot strike request {self.request}; use one of {known}")
        if self.after_s < 0 or (self.count is not None and self.count < 1):
            raise BadInput(f"fault {self.kind} needs after_s >= 0 and count >= 1 (or None)")


class FaultBook:
    """The faults that still wait."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Fault, int | None]] = []

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, fault: Fault) -> None:
        self._waiting.append((fault, fault.count))

    def clear(self, vm: str = "") -> None:
        """Take back what waits for `vm`, as the fault names it; without one, everything."""
        self._waiting = [entry for entry in self._waiting if vm and entry[0].vm != vm]

    def use_call_fault(self, request: str, vm_id: str, vm_name: str) -> FaultKind | None:
        """The fault that strikes this call, if any; one use of it is gone."""
        for index, (fault, _) in enumerate(self._waiting):
            if fault.kind in CALL_FAULTS and fault.request == request and fault.vm in ("", vm_id, vm_name):
                return self._use(index).kind
        return None

    def use(self, kind: FaultKind, vm_id: str, vm_name: str) -> Fault | None:
        """The oldest fault of this kind for the domain, if any; one use of it is gone."""
        for index, (fault, _) in enumerate(self._waiting):
            if fault.kind == kind and fault.vm in ("", vm_id, vm_name):
                return self._use(index)
        return None

    def stands(self, kind: FaultKind, vm_id: str, vm_name: str) -> bool:
        """Whether a fault of this kind waits for the domain; nothing is used up."""
        return any(fault.kind == kind and fault.vm in ("", vm_id, vm_name) for fault, _ in self._waiting)

    def _use(self, index: int) -> Fault:
        fault, uses_left = self._waiting[index]
        if uses_left == 1:
            del self._waiting[index]
        elif uses_left is not None:
            self._waiting[index] = (fault, uses_left - 1)
        return fault
