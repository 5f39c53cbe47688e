"""The addresses of this guest's network cards, from the kernel itself: one question over netlink, nothing guessed.

Where the kernel does not answer there are none: guests differ.
"""

from __future__ import annotations

import socket
import struct

RTM_GETADDR, RTM_NEWADDR, NLMSG_ERROR, NLMSG_DONE = 22, 20, 2, 3
NLM_F_REQUEST_DUMP = 0x301
IFA_ADDRESS, IFA_LOCAL = 1, 2
HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
ABOUT = struct.Struct("=BBBBI")  # family, prefix, flags, scope, card
ATTRIBUTE = struct.Struct("=HH")  # length, type
READ_BYTES = 65536
READS_MAX = 256
TIMEOUT_S = 1.0


def addresses() -> list[tuple[str, str]]:
    """(card, address) of both families, as the kernel lists them."""
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as line:
            line.settimeout(TIMEOUT_S)
            size = HEADER.size + ABOUT.size
            line.send(HEADER.pack(size, RTM_GETADDR, NLM_F_REQUEST_DUMP, 1, 0) + ABOUT.pack(0, 0, 0, 0, 0))
            return _read(line)
    except (OSError, AttributeError):  # AttributeError: a Python that was built without netlink
        return []


def _read(line: socket.socket) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for _ in range(READS_MAX):
        data = line.recv(READ_BYTES)
        while len(data) >= HEADER.size:
            size, kind, _, _, _ = HEADER.unpack_from(data)
            if kind in (NLMSG_DONE, NLMSG_ERROR) or size < HEADER.size:
                return found
            if kind == RTM_NEWADDR:
                found += parsed(data[HEADER.size : size])
            data = data[_aligned(size) :]
    return found


def parsed(data: bytes) -> list[tuple[str, str]]:
    """One address and its card, of the body of one message; nothing if it is of another family."""
    if len(data) < ABOUT.size:
        return []
    family, _, _, _, card = ABOUT.unpack_from(data)
    found: dict[int, bytes] = {}
    data = data[ABOUT.size :]
    while len(data) >= ATTRIBUTE.size:
        size, kind = ATTRIBUTE.unpack_from(data)
        if size < ATTRIBUTE.size:
            break
        found[kind] = data[ATTRIBUTE.size : size]
        data = data[_aligned(size) :]
    # Of a point-to-point link IFA_ADDRESS is the other end.
    raw = found.get(IFA_LOCAL) or found.get(IFA_ADDRESS, b"")
    if (family, len(raw)) not in ((socket.AF_INET, 4), (socket.AF_INET6, 16)):
        return []
    try:
        return [(socket.if_indextoname(card), socket.inet_ntop(family, raw))]
    except OSError:  # the card has gone
        return []


def _aligned(size: int) -> int:
    return (size + 3) & ~3
