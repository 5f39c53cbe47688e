"""The port to shared storage that holds leases: who may run which machine.

Two kinds of rows. A *host lease* is one counter per host, raised at each renewal: whoever watches it on a clock of
its own can tell whether the host is alive to the storage. A *machine lease* names the hosts (at most two: the target
of a live migration joins before it begins) that may run the machine, with the boot of each. A machine lease is free
for taking when every holder is dead: its host lease shows another boot, or has not been raised for the whole expiry
on the taker's clock. Nothing here compares clocks of two computers.

Rules that every store keeps:
1. Each call is atomic, and calls take effect one after another, also when their answers are lost or late.
2. `done` is called at most once; a storage that does not answer may never call it, and the call may still take
   effect at any later time.
3. A machine lease changes only from the `version` that the caller has read.

What the caller must add, and `lease_keeper.py` does: when a renewal *began*, and how long a counter stood still.
Source of the idea: sanlock's delta leases and resource leases; the bound is derived in docs/leases.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol, TypeAlias

import msgspec


class HostLease(msgspec.Struct, frozen=True, kw_only=True):
    host: str
    boot_id: str
    counter: int


class Holder(msgspec.Struct, frozen=True, array_like=True):
    """`epoch` is that of the copy for which the host holds it: a late `leave` of an older copy drops nothing."""

    host: str
    boot_id: str
    epoch: int = 0


class VmLease(msgspec.Struct, frozen=True, kw_only=True):
    """`version` grows with each change; 0: never written. `epoch` is the highest that ever held it."""

    vm_id: str
    version: int = 0
    epoch: int = 0
    holders: tuple[Holder, ...] = ()


class RenewHostLease(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag=True):
    """Raise the host's counter; answered with its `HostLease`. The counter never goes down.

    A new boot takes the lease over only from the boot that it names in `replaces`; from any other it is
    `version_changed`. Without this, a renewal of an earlier boot that comes to work late would make the present boot
    look dead. A host that has no lease yet gets one, whatever `replaces` says.
    """

    host: str
    boot_id: str
    replaces: str = ""


class ReadLease(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag=True):
    """Answered with `LeaseRead`: the machine's lease and the host leases of its holders, at one instant."""

    vm_id: str


class ReadHostLease(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag=True):
    """Answered with `LeaseRead` that has only this host, if it ever renewed."""

    host: str


class WriteVmLease(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag=True):
    """Replace the machine's lease if its version is still `lease.version`; `version_changed` if not.

    Answered with `LeaseRead` of what is written then.
    """

    lease: VmLease


LeaseRequest: TypeAlias = RenewHostLease | ReadLease | ReadHostLease | WriteVmLease


class LeaseRead(msgspec.Struct, frozen=True, kw_only=True):
    vm: VmLease | None
    hosts: tuple[HostLease, ...]


LeaseFailureCode = Literal["unreachable", "version_changed"]


class LeaseFailed(msgspec.Struct, frozen=True, kw_only=True):
    """`unreachable`: the storage did not answer in time; a write may have worked or may still come to work."""

    code: LeaseFailureCode
    message: str


LeaseResult: TypeAlias = HostLease | LeaseRead | LeaseFailed
LeaseDone: TypeAlias = Callable[[LeaseResult], None]


class LeaseStore(Protocol):
    """One host's way to the shared storage. Called from one thread; calls back on that thread."""

    def submit(self, request: LeaseRequest, done: LeaseDone) -> None:
        """Begin `request`; does not block for longer than one small I/O and does not raise."""
