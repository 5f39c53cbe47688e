"""What no backend can do, whatever its state: the bounds and forms of tasks.

Decides which requests are refused with `bad_request`, by the same rule on every backend, so that what the simulator
takes a real host takes too. Pure. Every function raises `BadInput` with the reason; the caller says of which object.
"""

from __future__ import annotations

import ipaddress
import re

from hypervisor_backends.protocol import (
    CreateNetwork,
    CreatePool,
    PlugMemory,
    SetBalloon,
    SetConsoleTicket,
    SetCpuQuota,
)
from olvm.model.errors import BadInput
from olvm.model.limits import VM_MEMORY_BYTES_MIN

# A guest of x86 takes memory in blocks of this size, and silently ignores what is no multiple of it.
MEMORY_BLOCK_BYTES = 128 * 1024 * 1024
# The protocol's own (RFC 6143, 7.2.2): what comes after is ignored, which would weaken a longer one in silence.
VNC_PASSWORD_CHARS_MAX = 8
TICKET_VALID_S_MAX = 24 * 3600
# Files of ours beside a disk: the record of its layers, and the memory of a snapshot.
LAYERS_SUFFIX = ".olvm-layers"
MEMORY_SUFFIX = ".olvm-memory"

_DEVICE = re.compile(r"[a-z][a-z0-9_-]{0,31}")  # as `olvm.model.hardware` holds those in a spec
_SNAPSHOT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_VOLUME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_NETWORK = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
_BRIDGE = re.compile(
    r"[A-Za-z0-9_][A-Za-z0-9._-]{0,14}"
)  # a network interface of Linux has 15 characters at most


def check_vcpus(vcpus: int, vcpus_max: int) -> None:
    if not 1 <= vcpus <= vcpus_max:
        raise BadInput(f"1 to {vcpus_max} vCPUs fit; start it with a larger vcpus_max")


def check_quota(request: SetCpuQuota) -> None:
    if request.percent < 0:
        raise BadInput(f"{request.percent} % makes no sense; 0 is no limit, 100 one CPU")


def check_balloon(request: SetBalloon, memory_bytes: int) -> None:
    if not VM_MEMORY_BYTES_MIN <= request.memory_bytes <= memory_bytes:
        raise BadInput(
            f"it cannot keep to {request.memory_bytes} bytes: it has {memory_bytes}, and {VM_MEMORY_BYTES_MIN} is "
            "the least"
        )


def check_plugged_memory(request: PlugMemory, free_bytes: int, nodes: int) -> None:
    """`free_bytes`: what is left of the machine's memory_bytes_max. `nodes` is 0 where it has none."""
    if not _DEVICE.fullmatch(request.name):
        raise BadInput("write its name as a small letter, then up to 31 of a-z, 0-9, _ and -")
    if request.size_bytes <= 0 or request.size_bytes % MEMORY_BLOCK_BYTES:
        raise BadInput(f"a guest takes multiples of {MEMORY_BLOCK_BYTES} bytes alone")
    if request.size_bytes > free_bytes:
        raise BadInput(f"{free_bytes} bytes are left of its memory_bytes_max; start it with a larger one")
    if not 0 <= request.node < nodes:
        raise BadInput(f"there is no NUMA node {request.node}; it has {nodes}")


def check_snapshot_name(name: str) -> None:
    if not _SNAPSHOT.fullmatch(name) or f".{name}".endswith((LAYERS_SUFFIX, MEMORY_SUFFIX)):
        raise BadInput("use letters, digits, _, - and . in its name, 64 characters at most")


def check_ticket(request: SetConsoleTicket) -> None:
    """The message never holds the password."""
    password = request.password
    if not 1 <= len(password) <= VNC_PASSWORD_CHARS_MAX or not (
        password.isascii() and password.isprintable()
    ):
        raise BadInput(f"a ticket has 1 to {VNC_PASSWORD_CHARS_MAX} printable characters of ASCII")
    if not 1 <= request.valid_s <= TICKET_VALID_S_MAX:
        raise BadInput(f"a ticket is valid for 1 to {TICKET_VALID_S_MAX} s, not {request.valid_s}")


def check_volume_name(name: str) -> None:
    """Also of pools, whose names stand before the `/` of `pool/volume`."""
    if not _VOLUME.fullmatch(name) or name.endswith(LAYERS_SUFFIX):
        raise BadInput(f"{name!r} is no usable name; use letters, digits, _, - and ., 128 at most")


def check_pool(request: CreatePool) -> None:
    check_volume_name(request.name)
    if not request.path.startswith("/") or ".." in request.path.split("/") or "\n" in request.path:
        raise BadInput(f"{request.path!r} is no absolute path")


def check_volume_size(size_bytes: int, base_bytes: int) -> None:
    """`base_bytes` is 0 without a base."""
    if size_bytes < 1:
        raise BadInput(f"it needs a size of at least 1 byte, got {size_bytes}")
    if size_bytes < base_bytes:
        raise BadInput(f"its base has {base_bytes} bytes, which is more than {size_bytes}")


def check_growth(size_bytes: int, present_bytes: int) -> None:
    if size_bytes < present_bytes:
        raise BadInput(f"it cannot shrink from {present_bytes} to {size_bytes} bytes: data would be lost")


def check_bridge_name(name: str) -> None:
    if not _BRIDGE.fullmatch(name):
        raise BadInput(f"{name!r} is no name of a bridge; use letters, digits, _, - and ., 15 at most")


def check_network(request: CreateNetwork) -> None:
    if not _NETWORK.fullmatch(request.name):
        raise BadInput("use letters, digits, _, - and . in its name, 64 at most")
    if request.bridge:
        check_bridge_name(request.bridge)
    if request.kind == "bridge":
        if not request.bridge or request.address:
            raise BadInput("a bridge network needs the name of a bridge, and takes no address")
        return
    if request.kind == "nat" and not request.address:
        raise BadInput("nat needs an address of the host in it, as in 192.168.100.1/24")
    if request.address:
        host_interface(request.address)


def host_interface(text: str) -> ipaddress.IPv4Interface | ipaddress.IPv6Interface:
    """The host's own address in a network, which must leave room for guests."""
    try:
        own = ipaddress.ip_interface(text)
    except ValueError as error:
        raise BadInput(f"address {text!r} is none; write it as 192.168.100.1/24") from error
    first, last = int(own.network.network_address) + 1, int(own.network.broadcast_address) - 1
    if last - first < 1 or not first <= int(own.ip) <= last:
        raise BadInput(f"address {text} leaves no room for guests, or is not that of a host")
    return own
