"""What a host has, can do and runs, and the deadline until which it may run leased domains.

Decides what a host says of itself, and the names of what a hypervisor may lack. Must not know what a cluster requires
of a host, or which request needs which feature (`catalogue.py`).
"""

from __future__ import annotations

from typing import Literal

import msgspec

from hypervisor_backends.measurements import DomainStatistics, HostStatistics
from hypervisor_backends.protocol.request import Request

Feature = Literal[
    "graceful_shutdown",
    "reboot",
    "reset",
    "suspend",
    "pause",
    "guest_facts",
    "migration",
    "managed_migration",  # driven by the source's agent through connections to both hosts
    "storage_copy",  # live migration of disks that are not shared
    "post_copy",
    "watchdog",
    "hot_plug_vcpu",
    "hot_unplug_vcpu",
    "hot_plug_memory",
    "hot_unplug_memory",
    "hot_plug_disk",
    "hot_plug_nic",
    "balloon",
    "cpu_quota",
    "snapshot",
    "memory_snapshot",
    "revert_snapshot",
    "console_ticket",
    "storage",
    "networks",
    "cloud_init",
    "guest_channel",  # olvm's or oVirt's guest agent can be spoken to
    "guest_agent",  # QEMU's own can
    "tpm",
    "uefi",
]


class NumaNode(msgspec.Struct, frozen=True, kw_only=True):
    index: int
    cpus: int
    memory_bytes: int


class HugePages(msgspec.Struct, frozen=True, kw_only=True):
    size_bytes: int
    total: int
    free: int


class Capabilities(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag=True):
    """What a host has. `cpus` counts logical CPUs; `boot_id` differs after each boot of the host."""

    cpus: int
    memory_bytes: int
    cpu_model: str = ""
    numa_nodes: tuple[NumaNode, ...] = ()
    hypervisor: str = ""
    hypervisor_version: str = ""
    features: tuple[Feature, ...] = ()
    boot_id: str = ""
    problems: tuple[str, ...] = ()  # what makes the host unfit now, by `olvm.model.host_problems`
    accelerator: str = ""  # kvm, tcg, or empty where there is no such thing
    accelerator_reason: str = ""  # why this one: what was probed, or that it was said
    cpu_sockets: int = 0  # 0: not known
    cpu_cores_per_socket: int = 0
    cpu_threads_per_core: int = 0
    huge_pages: tuple[HugePages, ...] = ()
    emulated_machines: tuple[str, ...] = ()


class GetCapabilities(Request, frozen=True, kw_only=True):
    """Answered with `Capabilities`."""


class ListDomains(Request, frozen=True, kw_only=True):
    """Answered with a `DomainList`."""


class BulkStatistics(Request, frozen=True, kw_only=True):
    """Answered with a `StatisticsReport`."""


class StatisticsReport(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag=True):
    host: HostStatistics
    domains: tuple[DomainStatistics, ...]


class ArmWatchdog(Request, frozen=True, kw_only=True):
    """Until `deadline_ns` of the host's own monotonic clock this host may run its leased domains.

    When that moment passes without a later deadline, the host ends all domains whose spec says `leased`, at once and
    by itself, whatever its agent does: `crashed`, GENERIC_ERROR, "its lease expired". A leased domain can be started,
    and an incoming one can begin to run, only while the watchdog is armed; else `lease_expired`. An earlier deadline
    than the present one changes nothing. A host boots with the watchdog expired. A watchdog that is not armed
    afterwards answers `lease_expired`.
    """

    deadline_ns: int
