"""How many CPUs, how much memory and which devices a domain has after a task has changed them."""

from __future__ import annotations

import libvirt
import msgspec

from hypervisor_backends.domain_metadata import metadata_of
from hypervisor_backends.libvirt_lifecycle import lookup
from hypervisor_backends.protocol import DomainSpec
from olvm.model.hardware import Hardware


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    vcpus: int
    memory_bytes: int  # what was plugged included
    hardware: Hardware | None  # None: its metadata does not tell


def measured(connection: libvirt.virConnect, uuid: str) -> Measured:
    """On a worker."""
    domain = lookup(connection, uuid)
    metadata = metadata_of(domain.XMLDesc(0))
    _, memory_kib, _, vcpus, _ = domain.info()  # the first of both memories has what was plugged
    return Measured(
        vcpus=vcpus,
        memory_bytes=memory_kib * 1024,
        hardware=None if metadata is None else metadata.spec.hardware,
    )


def with_hardware(spec: DomainSpec, hardware: Hardware | None) -> DomainSpec:
    """The metadata has no cloud-init seed: the one that is known stays."""
    if hardware is None:
        return spec
    seed = spec.hardware.cloud_init
    return msgspec.structs.replace(spec, hardware=msgspec.structs.replace(hardware, cloud_init=seed))
