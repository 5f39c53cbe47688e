"""What a domain's XML says of the machine that it is: id, epoch, name, lease, and the spec that it was made from.

The cloud-init seed of a spec is left out: it may hold passwords, and whoever may read a domain's XML may read this. An
agent that has nothing but this knows its machine without one (docs/decisions/0020).

Decides the element in our own namespace by which an agent that lost its journal knows its machines again. Must not know
libvirt: it reads and writes text. XML that is foreign, edited by hand or garbled is nobody's machine, never an error.
"""

from __future__ import annotations

import json
import re
import uuid
from xml.etree import ElementTree as ET

import msgspec

from hypervisor_backends.protocol import DomainSpec
from olvm.model.errors import BadInput

NAMESPACE = "urn:olvm:domain:1"
PREFIX = "olvm"
_MACHINE = f"{{{NAMESPACE}}}machine"
_SPEC = f"{{{NAMESPACE}}}spec"
# Known here so that XML of libvirt that passes through keeps its own prefixes.
ET.register_namespace(PREFIX, NAMESPACE)
ET.register_namespace("qemu", "http://libvirt.org/schemas/domain/qemu/1.0")

_UUID_NAMESPACE = uuid.UUID("6f1c2f9e-5f0b-5f43-9f43-6d2f8a1c7b10")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_EPOCH = re.compile(r"[0-9]{1,18}")
_INSTANT_NS = re.compile(r"[0-9]{1,19}")


class DomainMetadata(msgspec.Struct, frozen=True, kw_only=True):
    vm_id: str
    epoch: int
    name: str
    leased: bool
    spec: DomainSpec
    powered_on_ns: int = 0  # since 1970, by the clock of the host where it was; 0: not known


def new_metadata(vm_id: str, epoch: int, spec: DomainSpec, powered_on_ns: int) -> DomainMetadata:
    return DomainMetadata(
        vm_id=vm_id,
        epoch=epoch,
        name=spec.name,
        leased=spec.leased,
        spec=spec,
        powered_on_ns=powered_on_ns,
    )


def without_seed(spec: DomainSpec) -> DomainSpec:
    return msgspec.structs.replace(spec, hardware=msgspec.structs.replace(spec.hardware, cloud_init=None))


def domain_uuid(vm_id: str) -> str:
    """libvirt's UUID of a machine: its id where that is one in form, else a digest of it."""
    return vm_id if _UUID.fullmatch(vm_id) else str(uuid.uuid5(_UUID_NAMESPACE, vm_id))


def metadata_element(metadata: DomainMetadata) -> ET.Element:
    element = ET.Element(
        _MACHINE,
        {
            "id": metadata.vm_id,
            "epoch": str(metadata.epoch),
            "name": metadata.name,
            "leased": "yes" if metadata.leased else "no",
        },
    )
    if metadata.powered_on_ns:
        element.set("poweredOn", str(metadata.powered_on_ns))
    # ASCII alone: JSON's escapes carry what XML has no characters for.
    told = msgspec.to_builtins(without_seed(metadata.spec))
    ET.SubElement(element, _SPEC).text = json.dumps(told, sort_keys=True)
    return element


def metadata_text(metadata: DomainMetadata) -> str:
    """The element alone, as libvirt's `setMetadata` takes it: it gives `NAMESPACE` to each element itself."""
    element = metadata_element(metadata)
    for part in element.iter():
        part.tag = part.tag.removeprefix(f"{{{NAMESPACE}}}")
    return ET.tostring(element, encoding="unicode")


def metadata_of(xml: str) -> DomainMetadata | None:
    """None where the XML is not that of a machine of ours, or not fit to tell."""
    root = _parsed(xml)
    if root is None or root.tag != "domain":
        return None
    elements = root.findall(f"metadata/{_MACHINE}")
    if len(elements) != 1:
        return None
    return _decoded(elements[0])


def with_epoch(xml: str, epoch: int, powered_on_ns: int = 0) -> str:
    """The same machine under another epoch, as a target or a restore takes it; 0: it was powered on when it was.

    Paths of channels are left out: libvirt chooses them anew on each host, and two hosts that share a directory would
    fight over an explicit one. Raises `BadInput` where the XML is of no machine of ours.
    """
    root = _parsed(xml)
    element = None if root is None else root.find(f"metadata/{_MACHINE}")
    if root is None or element is None or _decoded(element) is None:
        raise BadInput("the XML of this domain is not that of a machine of olvm; it cannot be given an epoch")
    element.set("epoch", str(epoch))
    if powered_on_ns:
        element.set("poweredOn", str(powered_on_ns))
    for channel in root.findall("devices/channel"):
        for source in channel.findall("source"):
            channel.remove(source)
    return ET.tostring(root, encoding="unicode")


def _parsed(xml: str) -> ET.Element | None:
    try:
        return ET.fromstring(xml)  # noqa: S314  (libvirt's own, and expat caps the growth of entities since 2.4)
    except (ET.ParseError, ValueError):  # a lone surrogate is no UTF-8, which is a ValueError
        return None


def _decoded(element: ET.Element) -> DomainMetadata | None:
    vm_id, name = element.get("id", ""), element.get("name", "")
    epoch, leased = element.get("epoch", ""), element.get("leased", "")
    if not vm_id or not name or not _EPOCH.fullmatch(epoch) or leased not in ("yes", "no"):
        return None
    try:
        spec = msgspec.json.decode(element.findtext(_SPEC, default=""), type=DomainSpec)
    except (msgspec.DecodeError, BadInput, ValueError, RecursionError):
        return None
    powered_on = element.get("poweredOn", "")
    return DomainMetadata(
        vm_id=vm_id,
        epoch=int(epoch),
        name=name,
        leased=leased == "yes",
        spec=spec,
        powered_on_ns=int(powered_on) if _INSTANT_NS.fullmatch(powered_on) else 0,
    )
