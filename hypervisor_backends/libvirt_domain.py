"""One look at a domain, and what libvirt's states and reasons mean in oVirt's words.

Decides the meaning of every state and reason; what follows from a change is `libvirt_book.py`. The functions that take
a connection run on a worker and block; of them only `diskErrors` needs the domain's monitor.
"""

from __future__ import annotations

from typing import Literal
from xml.etree import ElementTree as ET

import libvirt
import msgspec

from hypervisor_backends.domain_metadata import DomainMetadata, metadata_of
from hypervisor_backends.libvirt_errors import is_missing
from hypervisor_backends.libvirt_processes import qemu_pids, started_ns_of
from hypervisor_backends.protocol import DomainEventKind, ExitReason, PauseCode

GUEST_CHANNEL = "ovirt-guest-agent.0"

Execution = Literal["absent", "off", "runs", "paused"]
# Why it is paused: by a person, by an error of a disk, on one side of a migration, or for a moment within a call.
PauseCause = Literal["user", "io_error", "migration", "post_copy", "post_copy_failed", "momentary", "other"]

PAUSE_CAUSES: dict[int, PauseCause] = {
    libvirt.VIR_DOMAIN_PAUSED_UNKNOWN: "other",
    libvirt.VIR_DOMAIN_PAUSED_USER: "user",
    libvirt.VIR_DOMAIN_PAUSED_MIGRATION: "migration",
    libvirt.VIR_DOMAIN_PAUSED_SAVE: "momentary",
    libvirt.VIR_DOMAIN_PAUSED_DUMP: "momentary",
    libvirt.VIR_DOMAIN_PAUSED_IOERROR: "io_error",
    libvirt.VIR_DOMAIN_PAUSED_WATCHDOG: "other",
    libvirt.VIR_DOMAIN_PAUSED_FROM_SNAPSHOT: "user",
    libvirt.VIR_DOMAIN_PAUSED_SHUTTING_DOWN: "momentary",
    libvirt.VIR_DOMAIN_PAUSED_SNAPSHOT: "momentary",
    libvirt.VIR_DOMAIN_PAUSED_CRASHED: "other",
    libvirt.VIR_DOMAIN_PAUSED_STARTING_UP: "momentary",
    libvirt.VIR_DOMAIN_PAUSED_POSTCOPY: "post_copy",
    libvirt.VIR_DOMAIN_PAUSED_POSTCOPY_FAILED: "post_copy_failed",
}

_OFF: dict[int, tuple[DomainEventKind, ExitReason, str]] = {
    libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN: (
        "shut_down",
        ExitReason.USER_SHUTDOWN,
        "the guest powered off by itself",
    ),
    libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED: ("stopped", ExitReason.ADMIN_SHUTDOWN, "destroyed in libvirt"),
    # Of a QEMU that died, whatever killed it; that a guest panicked is told by an event before (`Life.panicked`).
    libvirt.VIR_DOMAIN_SHUTOFF_CRASHED: ("crashed", ExitReason.LOST_QEMU, "its QEMU process ended"),
    libvirt.VIR_DOMAIN_SHUTOFF_MIGRATED: (
        "stopped",
        ExitReason.MIGRATION_SUCCEEDED,
        "migrated to another host",
    ),
    libvirt.VIR_DOMAIN_SHUTOFF_SAVED: ("stopped", ExitReason.SAVE_STATE_SUCCEEDED, "memory saved"),
    libvirt.VIR_DOMAIN_SHUTOFF_FAILED: ("crashed", ExitReason.LOST_QEMU, "its QEMU process ended"),
}
_LOST: tuple[DomainEventKind, ExitReason, str] = (
    "crashed",
    ExitReason.LOST_QEMU,
    "its QEMU process was gone, and libvirt does not know why",
)

# virDomainDiskErrorCode, and the words of VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON.
_PAUSE_CODE_BY_ERROR: dict[int, PauseCode] = {
    libvirt.VIR_DOMAIN_DISK_ERROR_UNSPEC: "EOTHER",
    libvirt.VIR_DOMAIN_DISK_ERROR_NO_SPACE: "ENOSPC",
}
_PAUSE_CODE_BY_WORD: dict[str, PauseCode] = {
    "enospc": "ENOSPC",
    "eio": "EIO",
    "eperm": "EPERM",
    "eother": "EOTHER",
}


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """A domain at one instant. `number` is libvirt's own of a running domain: another life has another one."""

    uuid: str
    execution: Execution
    number: int = -1
    cause: PauseCause = "other"  # of a paused one
    pause_code: PauseCode = "NOERR"  # of one that an I/O error has paused, as far as it is known
    off_reason: int = 0

    @property
    def is_arriving(self) -> bool:
        """It comes from another host and has not run here."""
        return self.execution == "paused" and self.cause in ("migration", "momentary")


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A domain of ours that libvirt lists. `vcpus` and `memory_bytes` as they are now."""

    seen: Seen
    metadata: DomainMetadata
    vcpus: int
    memory_bytes: int
    started_ns: int
    channel: str  # the host's path of the guest agent's socket; empty: none


def pause_code_of_word(reason: str) -> PauseCode:
    """`reason` begins with QEMU's word, as in "enospc of virtio-disk0"; an empty word is any other error."""
    return _PAUSE_CODE_BY_WORD.get(reason.split(" ", 1)[0], "EOTHER")


def end_of(off_reason: int) -> tuple[DomainEventKind, ExitReason, str]:
    return _OFF.get(off_reason, _LOST)


# ------------------------------------------------------------------------------------------------ on a worker


def look(connection: libvirt.virConnect, uuid: str) -> Seen:
    """Does not wait for the monitor, unless an I/O error has paused the domain."""
    try:
        domain = connection.lookupByUUIDString(uuid)
        return seen_of(domain)
    except libvirt.libvirtError as error:
        if is_missing(error):
            return Seen(uuid=uuid, execution="absent")
        raise


def seen_of(domain: libvirt.virDomain) -> Seen:
    """State and number of one life.

    A handle keeps the number that the domain had when it was looked up, and asks for the state anew: of a machine that
    begins in between, it has the state of the new life and the number of none. So the number is looked up again.
    Raises libvirt's error of a missing domain when it went meanwhile.
    """
    while True:
        seen = _seen_of(domain)
        if seen.execution == "off":
            return seen
        domain = domain.connect().lookupByUUIDString(seen.uuid)
        if domain.ID() == seen.number:
            return seen


def _seen_of(domain: libvirt.virDomain) -> Seen:
    state, reason = domain.state(0)
    uuid, number = domain.UUIDString(), domain.ID()
    if state == libvirt.VIR_DOMAIN_SHUTOFF:
        return Seen(uuid=uuid, execution="off", off_reason=reason)
    if state == libvirt.VIR_DOMAIN_CRASHED and number < 0:
        return Seen(uuid=uuid, execution="off", off_reason=libvirt.VIR_DOMAIN_SHUTOFF_CRASHED)
    if state != libvirt.VIR_DOMAIN_PAUSED:
        return Seen(uuid=uuid, execution="runs", number=number)
    cause = PAUSE_CAUSES.get(reason, "other")
    code: PauseCode = "NOERR"
    if cause == "io_error":
        code = _pause_code(domain)
    elif cause == "other":
        code = "EOTHER"
    return Seen(uuid=uuid, execution="paused", number=number, cause=cause, pause_code=code)


def _pause_code(domain: libvirt.virDomain) -> PauseCode:
    try:
        errors = domain.diskErrors()
    except libvirt.libvirtError:
        return "EOTHER"  # its state is known by another call; only the word for it is missing
    codes = [_PAUSE_CODE_BY_ERROR.get(error, "EOTHER") for error in errors.values()]
    return "ENOSPC" if "ENOSPC" in codes else "EOTHER"


def survey(connection: libvirt.virConnect, root: str) -> list[Found]:
    """Every domain of ours that libvirt knows, running or not."""
    pids = qemu_pids(root)
    found = []
    for domain in connection.listAllDomains(0):
        try:
            one = found_of(domain, pids)
        except libvirt.libvirtError as error:
            if not is_missing(error):
                raise
            continue  # it ended while we looked
        if one is not None:
            found.append(one)
    return found


def found_of(domain: libvirt.virDomain, pids: dict[str, int]) -> Found | None:
    xml = domain.XMLDesc(0)
    metadata = metadata_of(xml)
    if metadata is None:
        return None
    _, memory_kib, _, vcpus, _ = domain.info()
    pid = pids.get(domain.UUIDString())
    return Found(
        seen=seen_of(domain),
        metadata=metadata,
        vcpus=vcpus,
        memory_bytes=memory_kib * 1024,
        started_ns=0 if pid is None else started_ns_of(f"/proc/{pid}"),
        channel=channel_of(xml),
    )


def channel_of(xml: str) -> str:
    """Where a running domain's guest agent is reached, in live XML; libvirt chooses it anew at each start."""
    for channel in ET.fromstring(xml).iterfind("devices/channel"):  # noqa: S314 - libvirt's own words
        target, source = channel.find("target"), channel.find("source")
        if target is not None and source is not None and target.get("name") == GUEST_CHANNEL:
            return source.get("path", "")
    return ""
