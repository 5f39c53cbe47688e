"""Whether a start would have to wait in sanlock for the lease of its machine, and for whom.

sanlock lets whoever wants a lease wait until its holder has shown that it lives, or is surely dead; that takes minutes.
libvirt waits with it, inside the start, and lists no domain of the host meanwhile. So a start that would wait is
refused before libvirt is asked. This is a courtesy and no guard: between the look and the start the lease may change
hands, and then sanlock itself refuses, or lets it wait. What cannot be found out is left to sanlock.
"""

from __future__ import annotations

import re
import time

import msgspec

from hypervisor_backends.domain_metadata import domain_uuid
from hypervisor_backends.libvirt_settings import LibvirtSettings, sanlock_escaped
from hypervisor_backends.libvirt_task_context import TaskRefused
from hypervisor_backends.sanlock_program import own_id_in, run_sanlock

# A host is dead for sanlock when it has not renewed for eight times the time of one I/O, and its watchdog has had its.
DEAD_AFTER_IOS = 8
WATCHDOG_S = 60
IO_TIMEOUT_S = 10  # sanlock's default


class Leader(msgspec.Struct, frozen=True, kw_only=True):
    """What stands in the file of a lease. `timestamp` 0: it is free."""

    owner_id: int
    owner_generation: int
    timestamp: int


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """A host as this host's daemon has seen it renew. Times are seconds of this host's monotonic clock."""

    owner_id: int
    owner_generation: int
    owner_name: str
    timestamp: int  # 0: it has left
    last_live: int
    io_timeout: int

    @property
    def dead_at_s(self) -> int:
        return self.last_live + DEAD_AFTER_IOS * (self.io_timeout or IO_TIMEOUT_S) + WATCHDOG_S


def refuse_what_would_wait(vm_id: str, what: str, settings: LibvirtSettings) -> None:
    """Raises `TaskRefused` with `lease_held`. `what` begins its sentence. Cost: two processes, and one read."""
    path = f"{settings.path_here(settings.lockspace_directory)}/{domain_uuid(vm_id)}"
    resource = f"{settings.lockspace}:{domain_uuid(vm_id)}:{sanlock_escaped(path)}:0"
    code, said = run_sanlock(("direct", "read_leader", "-r", resource), settings)
    leader = leader_in(said) if code == 0 else None
    if leader is None or not leader.timestamp:
        return
    code, joined = run_sanlock(("client", "gets"), settings)
    if code != 0 or own_id_in(joined, settings) in (None, leader.owner_id):
        return
    code, said = run_sanlock(("client", "host_status", "-s", settings.lockspace, "-D"), settings)
    holder = holder_of(leader, said, time.monotonic()) if code == 0 else None
    if holder is None:
        return
    last_s, left_s = int(time.monotonic()) - holder.last_live, holder.dead_at_s - int(time.monotonic())
    raise TaskRefused(
        "lease_held",
        f"{what}: sanlock keeps its lease for host {holder.owner_name} (number {holder.owner_id}), which was seen "
        f"{last_s} s ago; end the machine there first, or wait {left_s} s if that host stays silent",
        can_retry=True,
    )


def holder_of(leader: Leader, host_status: str, now_s: float) -> Seen | None:
    """The host that holds the lease and may be alive; None: it is surely not, or nothing is known of it."""
    for host in hosts_in(host_status):
        if host.owner_id == leader.owner_id:
            is_same = host.timestamp != 0 and host.owner_generation == leader.owner_generation
            return host if is_same and now_s < host.dead_at_s else None
    return None


# ---------------------------------------------------------------- what sanlock prints


def leader_in(said: str) -> Leader | None:
    """Of `direct read_leader`: a line for each field, its name and its value."""
    fields = dict(line.split(None, 1) for line in said.splitlines() if len(line.split(None, 1)) == 2)
    try:
        return msgspec.convert(fields, Leader, strict=False)
    except msgspec.ValidationError:
        return None


def hosts_in(said: str) -> list[Seen]:
    """Of `client host_status -D`: a line for each host, and below it `field=value` lines."""
    found = []
    for part in re.split(r"^(?=\d+ timestamp )", said, flags=re.MULTILINE):
        fields = dict(line.strip().split("=", 1) for line in part.splitlines() if "=" in line)
        try:
            found.append(msgspec.convert(fields, Seen, strict=False))
        except msgspec.ValidationError:
            continue  # what stands before the first host, or a host of which little is said
    return found
