"""Networks of a libvirt host: bridges that are there, and isolated or NAT networks that libvirt makes.

Decides the XML of a network and which addresses its guests get. Nothing is changed in a network that is there: the same
request again succeeds, another one under its name is refused.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv6Interface
from pathlib import Path
from xml.etree import ElementTree as ET

import libvirt

from hypervisor_backends.device_xml import child, text_of
from hypervisor_backends.libvirt_task_context import TaskContext, TaskRefused, bad_request_of, live_xml
from hypervisor_backends.protocol import CreateNetwork, DeleteNetwork, NetworkInfo, NetworkList
from hypervisor_backends.task_rules import check_network, host_interface


def create_network(connection: libvirt.virConnect, request: CreateNetwork, context: TaskContext) -> None:
    what = f"network {request.name} cannot be made on host {context.host}"
    bad_request_of(lambda: check_network(request), what)
    root = network_xml(request)
    if request.kind == "bridge" and not _is_bridge(request.bridge, context):
        raise TaskRefused("not_found", f"{what}: the host has no bridge {request.bridge}; make it first")
    present = _network_or_none(connection, request.name)
    if present is None:
        network = connection.networkDefineXML(text_of(root))
    elif _facts(_xml(present)) == _facts(root):
        network = present
    else:
        raise TaskRefused("exists", f"{what}: there is another one of that name; delete it first")
    try:
        network.setAutostart(1)
        if not network.isActive():
            network.create()
    except libvirt.libvirtError as error:
        if present is None:
            network.undefine()
        if "already in use" in str(error):
            raise TaskRefused("in_use", f"{what}: {error}; choose another address or bridge") from error
        raise


def delete_network(connection: libvirt.virConnect, request: DeleteNetwork, context: TaskContext) -> None:
    network = _network_or_none(connection, request.name)
    if network is None:
        known = ", ".join(network_names(connection)) or "none"
        raise TaskRefused("not_found", f"host {context.host} has no network {request.name}; it has {known}")
    for domain in connection.listAllDomains(0):
        used = [source.get("network") for source in live_xml(domain).findall("devices/interface/source")]
        if request.name in used:
            raise TaskRefused(
                "in_use",
                f"network {request.name} cannot be deleted on host {context.host}: domain {domain.name()} is on it",
            )
    if network.isActive():
        network.destroy()
    network.undefine()


def list_networks(connection: libvirt.virConnect) -> NetworkList:
    networks = sorted(connection.listAllNetworks(0), key=lambda network: network.name())
    return NetworkList(networks=tuple(_info(network) for network in networks))


def network_names(connection: libvirt.virConnect) -> tuple[str, ...]:
    return tuple(sorted(network.name() for network in connection.listAllNetworks(0)))


def _info(network: libvirt.virNetwork) -> NetworkInfo:
    root = _xml(network)
    bridge = root.find("bridge")
    return NetworkInfo(
        name=network.name(),
        kind=_kind(root),
        bridge="" if bridge is None else bridge.get("name", ""),
        active=bool(network.isActive()),
    )


def _xml(network: libvirt.virNetwork) -> ET.Element:
    return ET.fromstring(network.XMLDesc(0))  # noqa: S314  (libvirt's own words)


def _kind(root: ET.Element) -> str:
    forward = root.find("forward")
    return "isolated" if forward is None else forward.get("mode", "nat")


def _network_or_none(connection: libvirt.virConnect, name: str) -> libvirt.virNetwork | None:
    return next((network for network in connection.listAllNetworks(0) if network.name() == name), None)


def _is_bridge(name: str, context: TaskContext) -> bool:
    return Path(context.settings.path_here(f"/sys/class/net/{name}/bridge")).is_dir()


# ---------------------------------------------------------------- XML


def network_xml(request: CreateNetwork) -> ET.Element:
    """Of a request that `check_network` has passed."""
    root = ET.Element("network")
    child(root, "name", request.name)
    if request.kind == "bridge":
        child(root, "forward", mode="bridge")
        child(root, "bridge", name=request.bridge)
        return root
    if request.kind == "nat":
        child(root, "forward", mode="nat")
    bridge = child(root, "bridge", stp="on", delay="0")
    if request.bridge:
        bridge.set("name", request.bridge)
    if request.address:
        _add_address(root, host_interface(request.address))
    return root


def _add_address(root: ET.Element, own: IPv4Interface | IPv6Interface) -> None:
    """The host's own address, and DHCP for the others of IPv4."""
    if isinstance(own, IPv6Interface):
        child(root, "ip", family="ipv6", address=str(own.ip), prefix=str(own.network.prefixlen))
        return
    first, last = int(own.network.network_address) + 1, int(own.network.broadcast_address) - 1
    number = int(own.ip)
    element = child(root, "ip", address=str(own.ip), netmask=str(own.network.netmask))
    # The larger side of the host's own address: libvirt refuses a range that holds it.
    start, end = (first, number - 1) if number - first > last - number else (number + 1, last)
    child(child(element, "dhcp"), "range", start=str(IPv4Address(start)), end=str(IPv4Address(end)))


def _facts(root: ET.Element) -> tuple[str, str, tuple[str, ...]]:
    """What makes two networks the same; the name of a bridge that libvirt chose does not."""
    kind = _kind(root)
    bridge = root.find("bridge")
    name = "" if bridge is None or kind != "bridge" else bridge.get("name", "")
    addresses = tuple(element.get("address", "") for element in root.findall("ip"))
    return kind, name, addresses
