"""What a domain is on its host: what it is made of, where it stands, why it stopped, and what happened to it.

Decides the words of a domain's life and no request about it. Must not know actors, or which hypervisor runs it.
What is measured of it stands in `hypervisor_backends/measurements.py`.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Literal

import msgspec

from olvm.model.errors import BadInput
from olvm.model.hardware import Hardware

# The values of `VmStatus` that a hypervisor knows; a domain that is not listed is not there.
DomainStatus = Literal[
    "wait_for_launch",
    "powering_up",
    "up",
    "paused",
    "powering_down",
    "reboot_in_progress",
    "saving_state",
    "restoring_state",
    "migrating_from",  # the source; its vCPUs run until the switch-over
    "migrating_to",  # waits for the machine to arrive; its vCPUs do not run
]

# VmPauseStatus, and POSTMIGRATE: all was sent and the target's word is missing. Nobody may continue it but a caller
# that knows that the target never ran; the domain never continues by itself.
PauseCode = Literal["NONE", "NOERR", "EIO", "ENOSPC", "EPERM", "EOTHER", "POSTCOPY", "POSTMIGRATE"]


class ExitReason(IntEnum):
    """VDSM `vmexitreason.py`, its numbers; those from 1000 on are ours, and go no further than the agent."""

    SUCCESS = 0
    GENERIC_ERROR = 1
    LOST_QEMU = 2
    LIBVIRT_START_FAILED = 3
    MIGRATION_SUCCEEDED = 4
    SAVE_STATE_SUCCEEDED = 5
    ADMIN_SHUTDOWN = 6
    USER_SHUTDOWN = 7
    MIGRATION_FAILED = 8
    LIBVIRT_DOMAIN_MISSING = 9
    DESTROYED_ON_STARTUP = 10
    HOST_SHUTDOWN = 11
    POSTCOPY_MIGRATION_FAILED = 12
    DESTROYED_ON_REBOOT = 13
    DESTROYED_ON_PAUSE_TIMEOUT = 14
    # Nothing came to a target in its time. What its source had begun by then may arrive all the same.
    ARRIVAL_GIVEN_UP = 1000


# Of what was prepared for a machine that did not come: told, though it never began, for whoever prepared it waits.
NEVER_ARRIVED = frozenset({ExitReason.MIGRATION_FAILED, ExitReason.ARRIVAL_GIVEN_UP})


class DomainSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What is started; `name` must be unique among the domains of one host."""

    name: str
    vcpus: int
    memory_bytes: int
    hardware: Hardware = Hardware()
    guest_os: str = "linux"
    leased: bool = False  # stopped by the host's watchdog, see ArmWatchdog

    def __post_init__(self) -> None:
        if self.vcpus < 1 or self.memory_bytes < 1:
            raise BadInput(
                f"domain {self.name} needs at least one vCPU and some memory, "
                f"got vcpus={self.vcpus} and memory_bytes={self.memory_bytes}"
            )


class DomainState(msgspec.Struct, frozen=True, kw_only=True):
    """One domain as its hypervisor sees it now."""

    vm_id: str
    epoch: int
    name: str
    status: DomainStatus
    vcpus: int
    memory_bytes: int
    pause_code: PauseCode = "NONE"
    monitor_responds: bool = True
    started_ns: int | None = None  # None until the hypervisor process runs
    leased: bool = False
    # As it is now, with what was plugged; None: the backend does not say. It may lack the cloud-init seed.
    hardware: Hardware | None = None
    size_known: bool = True  # False: what came of a change of its CPUs or memory is not known yet


class DomainList(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag=True):
    domains: tuple[DomainState, ...]


DomainEventKind = Literal[
    "started",  # the hypervisor process runs
    "guest_up",  # the guest's agent was heard for the first time since the boot or restore
    "rebooted",  # the guest went through a reset
    "paused",
    "continued",
    "shut_down",  # ended: the guest powered off
    "stopped",  # ended: by the hypervisor, on request
    "crashed",  # ended: lost
    "guest_event",  # its agent spoke: `message` is GUEST_FACTS, or a word of its sessions, as "session-logon alice"
]

GUEST_FACTS = "facts"  # the message of a guest_event that says: the guest told something new
TERMINAL_EVENTS: frozenset[DomainEventKind] = frozenset({"shut_down", "stopped", "crashed"})


class DomainEvent(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag=True):
    """Something happened that no call's answer tells. `exit_reason` is set on the terminal kinds alone."""

    vm_id: str
    epoch: int
    kind: DomainEventKind
    at_ns: int
    exit_reason: ExitReason | None = None
    pause_code: PauseCode = "NONE"
    message: str = ""
