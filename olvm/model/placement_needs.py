"""What a machine asks of its host beyond CPUs and memory, as the scheduler's filters and weights read it.

A person says it (`vms.create(needs=…)`), or it follows from the machine's hardware (`needs_with_hardware`). It is kept
with each reservation, because some of it is booked: host devices, mediated devices, huge pages, memory of NUMA nodes
and CPUs that nobody else may use.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from olvm.model.errors import BadInput
from olvm.model.hardware import Hardware

# oVirt's CpuPinningPolicy and NumaTuneMode.
CpuPinning = Literal["none", "manual", "resize_and_pin_numa", "dedicated", "isolate_threads"]
NumaTune = Literal["strict", "interleave", "preferred"]
EXCLUSIVE_PINNING = ("dedicated", "isolate_threads")


class VirtualNumaNode(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`host_nodes` empty: any node of the host."""

    memory_bytes: int
    host_nodes: tuple[int, ...] = ()


class PlacementNeeds(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The defaults ask for nothing. `cpu_pins`: for each vCPU the host's CPUs that it may use, empty for any."""

    compatibility_version: str = ""
    cpu_model: str = ""
    cpu_flags: tuple[str, ...] = ()
    cpu_sockets: int = 0
    cpu_cores_per_socket: int = 0
    cpu_threads_per_core: int = 0
    cpu_pinning: CpuPinning = "none"
    cpu_pins: tuple[tuple[int, ...], ...] = ()
    cpu_load_percent: int | None = None  # of one vCPU, as it was measured; None: not known, 10 is assumed
    emulated_machine: str = ""
    networks: tuple[str, ...] = ()
    display_network: str = ""
    hooks: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    invariant_tsc: bool = False
    preferred_hosts: tuple[str, ...] = ()
    high_performance: bool = False
    hosted_engine: bool = False  # it is the machine that the engine itself runs in
    numa_nodes: tuple[VirtualNumaNode, ...] = ()
    numa_tune: NumaTune = "strict"
    huge_page_bytes: int = 0
    host_devices: tuple[str, ...] = ()
    mediated_devices: tuple[str, ...] = ()  # types; a type twice asks for two
    video_bytes: int = 0
    io_threads: int = 0
    tenant: str = ""  # for policies of one's own, as is what follows
    lifetime_s: float | None = None

    def __post_init__(self) -> None:
        for name in _NOT_NEGATIVE:
            if getattr(self, name) < 0:
                raise BadInput(f"placement needs: {name} must not be negative, got {getattr(self, name)}")
        if self.cpu_pins and self.cpu_pinning in EXCLUSIVE_PINNING:
            raise BadInput(
                f"placement needs: cpu_pinning {self.cpu_pinning} chooses the CPUs itself, so leave out cpu_pins"
            )
        if self.cpu_pinning == "manual" and not self.cpu_pins:
            raise BadInput("placement needs: cpu_pinning manual needs cpu_pins, a list of CPUs for each vCPU")
        if any(node.memory_bytes < 0 for node in self.numa_nodes):
            raise BadInput("placement needs: numa_nodes has a memory_bytes below zero")


_NOT_NEGATIVE = (
    "cpu_sockets",
    "cpu_cores_per_socket",
    "cpu_threads_per_core",
    "huge_page_bytes",
    "video_bytes",
    "io_threads",
)
NO_NEEDS = PlacementNeeds()
# Of the hardware: words that name no model of QEMU's.
_ANY_CPU = ("", "host-passthrough", "host-model")


def needs_from(fields: Mapping[str, object] | PlacementNeeds | None) -> PlacementNeeds | None:
    """Build it from decoded JSON or TOML; an unknown or ill-typed field raises `BadInput`, which names it."""
    if fields is None or isinstance(fields, PlacementNeeds):
        return fields
    try:
        return msgspec.convert(fields, PlacementNeeds)
    except msgspec.ValidationError as error:
        known = ", ".join(PlacementNeeds.__struct_fields__)
        raise BadInput(f"placement needs: {error}; the fields are {known}") from error


def needs_with_hardware(needs: PlacementNeeds | None, hardware: Hardware | None) -> PlacementNeeds | None:
    """With what follows from the hardware where the needs say nothing of it; None: nothing is asked for."""
    if hardware is None:
        return needs
    base = NO_NEEDS if needs is None else needs
    networks = tuple(dict.fromkeys(nic.network for nic in hardware.nics if nic.network))
    found: dict[str, object] = {}
    if networks and not base.networks:
        found["networks"] = networks
    if hardware.huge_page_bytes and not base.huge_page_bytes:
        found["huge_page_bytes"] = hardware.huge_page_bytes
    if hardware.cpu_model not in _ANY_CPU and not base.cpu_model:
        found["cpu_model"] = hardware.cpu_model
    return msgspec.structs.replace(base, **found) if found else needs
