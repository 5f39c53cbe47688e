"""How a machine begins and ends in libvirt: the calls themselves, each a function that a worker runs.

Decides the order of libvirt's calls and what is undone when one of them fails. Must not know lives, statuses or other
calls: everything comes in as arguments, and what libvirt says comes back as a value or a `libvirtError`.

A machine is a *persistent* domain while it runs, so that libvirt remembers why it ended even when nobody listened; the
definition is taken away once its end was told (`forget`). Its UEFI variables go with it, as does a definition that a
host's crash left behind.
"""

from __future__ import annotations

import os
from xml.etree import ElementTree as ET

import libvirt
import msgspec

from hypervisor_backends.domain_metadata import (
    domain_uuid,
    metadata_element,
    metadata_of,
    new_metadata,
    with_epoch,
)
from hypervisor_backends.domain_shapes import ValidatedShapes, shape_of
from hypervisor_backends.libvirt_domain import Seen, channel_of, seen_of
from hypervisor_backends.libvirt_errors import is_connection_lost, is_missing
from hypervisor_backends.libvirt_processes import end_qemu, kill_qemu
from hypervisor_backends.libvirt_settings import LibvirtSettings
from hypervisor_backends.protocol import DomainSpec
from olvm.model.errors import Conflict, NotFound, OperationFailed

TEST_DRIVER = "TEST"
_validated = ValidatedShapes()


class Launched(msgspec.Struct, frozen=True, kw_only=True):
    """A domain that runs, as its live XML tells."""

    number: int  # libvirt's own of this life
    channel: str  # the host's path of the guest agent's socket; empty: none
    powered_on_ns: int  # since 1970; 0: not known


def lookup(connection: libvirt.virConnect, uuid: str) -> libvirt.virDomain:
    return connection.lookupByUUIDString(uuid)


# ------------------------------------------------------------------------------------------------ begin


def launch(connection: libvirt.virConnect, uuid: str, xml: str, settings: LibvirtSettings) -> Launched:
    """Define and boot. Memory saved earlier is discarded first: the disks will have moved on."""
    discard_saved(settings, uuid)
    domain = define(connection, uuid, xml)
    end_orphan(connection, uuid, settings)
    try:
        domain.create()
    except libvirt.libvirtError as error:
        _undo_definition(connection, uuid, error)
        raise
    return launched_of(domain)


def end_orphan(connection: libvirt.virConnect, uuid: str, settings: LibvirtSettings) -> None:
    """A libvirtd that is killed in the middle of a start can leave a QEMU that its successor knows nothing of.

    libvirt runs no such domain (`define` made sure), so the process is of a life that is over.
    """
    if connection.getType() != TEST_DRIVER and not end_qemu(settings.root, uuid):
        raise Conflict(
            f"a QEMU of domain {uuid} that libvirt does not know is left, and does not end; look at it"
        )


def define(connection: libvirt.virConnect, uuid: str, xml: str) -> libvirt.virDomain:
    """Replaces a definition that an earlier life left. Raises `Conflict` if that life still runs."""
    left = find(connection, uuid)
    if left is not None:
        if left.isActive():
            raise Conflict(f"domain {left.name()} ({uuid}) runs already; destroy it first")
        undefine(connection, left)
    if connection.getType() == TEST_DRIVER:
        return connection.defineXMLFlags(xml, 0)
    version, shape = connection.getLibVersion(), shape_of(xml)
    is_valid = _validated.has(version, shape)
    domain = connection.defineXMLFlags(xml, 0 if is_valid else libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
    _validated.add(version, shape)
    return domain


def launched_of(domain: libvirt.virDomain) -> Launched:
    xml = domain.XMLDesc(0)
    metadata = metadata_of(xml)
    return Launched(
        number=domain.ID(),
        channel=channel_of(xml),
        powered_on_ns=0 if metadata is None else metadata.powered_on_ns,
    )


def restore(
    connection: libvirt.virConnect, uuid: str, epoch: int, powered_on_ns: int, settings: LibvirtSettings
) -> Launched:
    """Continue from saved memory, which is gone afterwards. Raises `NotFound` where there is none."""
    path = saved_path(settings, uuid)
    if not os.path.exists(settings.path_here(path)):
        raise NotFound(
            f"no memory of domain {uuid} is saved in {path}; restore it where that is, or start it cold"
        )
    # With the password of its screen: without one, QEMU would let everybody in.
    secure = libvirt.VIR_DOMAIN_SAVE_IMAGE_XML_SECURE
    xml = with_epoch(connection.saveImageGetXMLDesc(path, secure), epoch, powered_on_ns)
    # In the file itself: drivers differ in whether a restore takes other XML, and nobody else reads this file.
    connection.saveImageDefineXML(path, xml, 0)
    define(connection, uuid, xml)
    end_orphan(connection, uuid, settings)
    try:
        flags = 0 if connection.getType() == TEST_DRIVER else libvirt.VIR_DOMAIN_SAVE_RUNNING
        connection.restoreFlags(path, None, flags)
    except libvirt.libvirtError as error:
        _undo_definition(connection, uuid, error)
        raise
    discard_saved(settings, uuid)
    return launched_of(lookup(connection, uuid))


def _undo_definition(connection: libvirt.virConnect, uuid: str, error: libvirt.libvirtError) -> None:
    """A start that failed leaves nothing; one of unknown outcome is left for the next look."""
    if not is_connection_lost(error):
        forget(connection, uuid)


def plain_xml(vm_id: str, epoch: int, spec: DomainSpec, powered_on_ns: int) -> str:
    """For libvirt's test driver, which has no hardware: what the book needs to know the machine again."""
    root = ET.Element("domain", {"type": "test"})
    ET.SubElement(root, "name").text = spec.name
    ET.SubElement(root, "uuid").text = domain_uuid(vm_id)
    metadata = new_metadata(vm_id, epoch, spec, powered_on_ns)
    ET.SubElement(root, "metadata").append(metadata_element(metadata))
    ET.SubElement(root, "memory", {"unit": "b"}).text = str(spec.memory_bytes)
    ET.SubElement(root, "vcpu").text = str(spec.vcpus)
    ET.SubElement(ET.SubElement(root, "os"), "type").text = "hvm"
    return ET.tostring(root, encoding="unicode")


# ------------------------------------------------------------------------------------------------ while it runs


def pause(connection: libvirt.virConnect, uuid: str) -> Seen:
    domain = lookup(connection, uuid)
    domain.suspend()
    return seen_of(domain)


def resume(connection: libvirt.virConnect, uuid: str) -> Seen:
    domain = lookup(connection, uuid)
    domain.resume()
    return seen_of(domain)


def reset(connection: libvirt.virConnect, uuid: str) -> Seen:
    domain = lookup(connection, uuid)
    domain.reset(0)
    return seen_of(domain)


def press_power_button(connection: libvirt.virConnect, uuid: str) -> Seen:
    domain = lookup(connection, uuid)
    if connection.getType() == TEST_DRIVER:
        domain.shutdown()
        return seen_of(lookup(connection, uuid))
    domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)
    return seen_of(domain)


def ask_shutdown(connection: libvirt.virConnect, uuid: str) -> Seen:
    """Of QEMU's agent in the guest, else by the power button."""
    domain = lookup(connection, uuid)
    if connection.getType() != TEST_DRIVER and has_qemu_agent(domain):
        try:
            domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_GUEST_AGENT)
            return seen_of(domain)
        except libvirt.libvirtError as error:
            if is_connection_lost(error):
                raise
    return press_power_button(connection, uuid)


def ask_reboot(connection: libvirt.virConnect, uuid: str) -> Seen:
    """Of QEMU's agent in the guest, else by the power button and a reset once the guest is off."""
    domain = lookup(connection, uuid)
    if connection.getType() == TEST_DRIVER:
        domain.reboot(0)
        return seen_of(domain)
    if has_qemu_agent(domain):
        try:
            domain.reboot(libvirt.VIR_DOMAIN_REBOOT_GUEST_AGENT)
            return seen_of(domain)
        except libvirt.libvirtError as error:
            if is_connection_lost(error):
                raise
    domain.reboot(libvirt.VIR_DOMAIN_REBOOT_ACPI_POWER_BTN)
    return seen_of(domain)


def has_qemu_agent(domain: libvirt.virDomain) -> bool:
    """Whether it is connected now: a call to one that is not would wait for its time-out."""
    for channel in ET.fromstring(domain.XMLDesc(0)).iterfind("devices/channel/target"):  # noqa: S314
        if channel.get("name") == "org.qemu.guest_agent.0":
            return channel.get("state") == "connected"
    return False


# ------------------------------------------------------------------------------------------------ end


def save(connection: libvirt.virConnect, uuid: str, settings: LibvirtSettings) -> Seen:
    """A file that is not whole is known as such by libvirt, and refused by a restore."""
    os.makedirs(settings.path_here(settings.saved_memory_directory), exist_ok=True)
    domain = lookup(connection, uuid)
    domain.saveFlags(saved_path(settings, uuid), None, 0)
    return seen_of(lookup(connection, uuid))


def saved_path(settings: LibvirtSettings, uuid: str) -> str:
    return f"{settings.saved_memory_directory}/{uuid}.olvm-memory"


def discard_saved(settings: LibvirtSettings, uuid: str) -> None:
    try:
        os.unlink(settings.path_here(saved_path(settings, uuid)))
    except FileNotFoundError:
        return


def destroy(connection: libvirt.virConnect | None, uuid: str, root: str, *, by_force: bool) -> None:
    """End it, whatever it does. `by_force`: its QEMU is killed first, past a monitor that hangs.

    Without a connection that is all there is to do: libvirt learns of it when it is back.
    """
    if by_force:
        kill_qemu(root, uuid)
    domain = None if connection is None else find(connection, uuid)
    if domain is not None:
        try:
            domain.destroyFlags(0)
        except libvirt.libvirtError as error:
            # It ended by itself in between; forgetting it is what is left.
            if not is_missing(error) and error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID:
                raise
        forget(connection, uuid)
    # What libvirt does not know, or cannot be asked to end: also a QEMU that it has lost.
    if (connection is None or connection.getType() != TEST_DRIVER) and not end_qemu(root, uuid):
        raise OperationFailed(f"the QEMU of domain {uuid} does not end; look at what it waits for")


def forget(connection: libvirt.virConnect, uuid: str) -> None:
    """Take away the definition of a machine that has ended, if it is ours and no other life of it runs."""
    domain = find(connection, uuid)
    if domain is None or domain.isActive() or metadata_of(domain.XMLDesc(0)) is None:
        return
    undefine(connection, domain)


def undefine(connection: libvirt.virConnect, domain: libvirt.virDomain) -> None:
    flags = libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    if connection.getType() != TEST_DRIVER:
        flags |= libvirt.VIR_DOMAIN_UNDEFINE_NVRAM | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    try:
        domain.undefineFlags(flags)
    except libvirt.libvirtError as error:
        if not is_missing(error):
            raise


def find(connection: libvirt.virConnect, uuid: str) -> libvirt.virDomain | None:
    try:
        return lookup(connection, uuid)
    except libvirt.libvirtError as error:
        if is_missing(error):
            return None
        raise
