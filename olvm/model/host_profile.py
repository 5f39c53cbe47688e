"""What a host is and has beyond CPUs and memory, as the scheduler's filters read it.

It is said by a person (`hosts.add(profile=…)`) or learnt from the hypervisor; what is said goes before what is
learnt, field by field. Rule: a field that nobody told is None, 0 or empty and lets every machine pass, except labels
and what is counted (huge pages, host devices, mediated devices, NUMA nodes): a host has what it is known to have.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from olvm.model.errors import BadInput


class HostNumaNode(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`cpus` are the threads of this node; nodes are numbered in the order in which they are listed."""

    memory_bytes: int
    cpus: int = 0


class HostHugePages(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Pages that were set aside when the host started; nothing else can use them."""

    size_bytes: int
    count: int


class HostProfile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """docs/scheduling.md says which unit reads which field."""

    compatibility_versions: tuple[str, ...] | None = None
    cpu_models: tuple[str, ...] | None = None  # that a guest may be given here
    cpu_flags: tuple[str, ...] | None = None
    cpu_sockets: int = 0
    cpu_cores_per_socket: int = 0
    cpu_threads_per_core: int = 0
    offline_cpus: tuple[int, ...] = ()
    emulated_machines: tuple[str, ...] | None = None
    networks: tuple[str, ...] | None = None
    hooks: tuple[str, ...] | None = None
    labels: tuple[str, ...] = ()
    tsc_frequency_hz: int = 0
    tsc_scaling: bool = False
    os_version: str = ""
    storage_pool_manager: bool = False
    hosted_engine_score: int | None = None  # None: it cannot run the engine's machine
    numa_nodes: tuple[HostNumaNode, ...] = ()
    huge_pages: tuple[HostHugePages, ...] = ()
    host_devices: tuple[str, ...] = ()
    mediated_devices: dict[str, int] = {}  # how many instances, by type: vGPUs

    def __post_init__(self) -> None:
        for name in ("cpu_sockets", "cpu_cores_per_socket", "cpu_threads_per_core", "tsc_frequency_hz"):
            if getattr(self, name) < 0:
                raise BadInput(f"host profile: {name} must not be negative, got {getattr(self, name)}")
        amounts = [
            *(("numa_nodes", node.memory_bytes) for node in self.numa_nodes),
            *(("huge_pages", min(pages.size_bytes - 1, pages.count)) for pages in self.huge_pages),
            *(("mediated_devices", count) for count in self.mediated_devices.values()),
        ]
        for name, amount in amounts:
            if amount < 0:
                raise BadInput(f"host profile: {name} has an amount below zero")

    @property
    def huge_page_total_bytes(self) -> int:
        return sum(pages.size_bytes * pages.count for pages in self.huge_pages) if self.huge_pages else 0


NO_PROFILE = HostProfile()


def merged_profile(said: HostProfile | None, learnt: HostProfile | None) -> HostProfile | None:
    """Field by field, what a person said first."""
    if said is None or learnt is None:
        return said or learnt
    told = {
        field: getattr(said, field)
        for field in HostProfile.__struct_fields__
        if getattr(said, field) != getattr(NO_PROFILE, field)
    }
    return msgspec.structs.replace(learnt, **told)


def host_profile_from(fields: Mapping[str, object] | HostProfile | None) -> HostProfile | None:
    """Build it from decoded JSON or TOML; an unknown or ill-typed field raises `BadInput`, which names it."""
    if fields is None or isinstance(fields, HostProfile):
        return fields
    try:
        return msgspec.convert(fields, HostProfile)
    except msgspec.ValidationError as error:
        known = ", ".join(HostProfile.__struct_fields__)
        raise BadInput(f"host profile: {error}; the fields are {known}") from error
