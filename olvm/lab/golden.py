"""Another machine out of a saved one, in about a second in place of the five to seven of a boot.

A file that libvirt saved a machine to begins with a header and the machine's XML; the memory follows. `clone` copies it
with another XML: another name, UUID, disks. What the guest itself knows stays as it was: its boot id, the UUID that its
firmware told it, and the addresses of its network cards, which the caller changes where clones share a bridge.

A path of a channel's socket must not stand in the XML: it would be the first machine's.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO
from xml.etree import ElementTree as ET

import msgspec

from olvm.model.errors import OlvmError

MAGIC = b"LibvirtQemudSave"
# Version, length of what is before the memory, was it running, compression, where the cookie begins; then nothing.
FIELDS = struct.Struct("<5I56x")
VERSION = 2
COPY_BYTES = 4 * 1024**2


class Header(msgspec.Struct, frozen=True, kw_only=True):
    xml: str
    cookie: bytes  # what QEMU's driver remembers beside the XML; copied as it is
    data_bytes: int
    was_running: int
    compression: int


def read_header(path: Path) -> Header:
    """Raises `OlvmError` when it is no such file, or of a libvirt that writes another form."""
    with path.open("rb") as file:
        return _read(file, path)


def _read(file: BinaryIO, path: Path) -> Header:
    begin = file.read(len(MAGIC) + FIELDS.size)
    if len(begin) < len(MAGIC) + FIELDS.size or not begin.startswith(MAGIC):
        raise OlvmError(f"{path} is no machine that libvirt saved")
    version, length, was_running, compression, cookie_at = FIELDS.unpack(begin[len(MAGIC) :])
    if version != VERSION:
        raise OlvmError(f"{path} was saved in form {version}; only form {VERSION} is known here")
    data = file.read(length)
    if len(data) < length or cookie_at > length:
        raise OlvmError(f"{path} is cut off in its header")
    return Header(
        xml=data[: cookie_at or None].rstrip(b"\0").decode(),
        cookie=data[cookie_at:].rstrip(b"\0") if cookie_at else b"",
        data_bytes=length,
        was_running=was_running,
        compression=compression,
    )


def clone(source: Path, target: Path, edit: Callable[[str], str]) -> None:
    """Write `target`, whose XML is what `edit` makes of that of `source`.

    Cost: one copy of the memory; put both on a file system in memory, or one that shares blocks.

    Raises:
        OlvmError: `source` is no saved machine, or the new XML has no room (libvirt leaves 64 KiB).
    """
    with source.open("rb") as reading:
        header = _read(reading, source)
        xml = edit(header.xml).encode() + b"\0"
        data = xml + (header.cookie + b"\0" if header.cookie else b"")
        if len(data) > header.data_bytes:
            raise OlvmError(
                f"the new XML needs {len(data)} bytes and {source} has room for {header.data_bytes}"
            )
        cookie_at = len(xml) if header.cookie else 0
        fields = FIELDS.pack(VERSION, header.data_bytes, header.was_running, header.compression, cookie_at)
        with target.open("wb") as writing:
            writing.write(MAGIC + fields + data.ljust(header.data_bytes, b"\0"))
            shutil.copyfileobj(reading, writing, COPY_BYTES)


def renamed(xml: str, name: str, domain_uuid: str) -> str:
    """An `edit` for `clone`: another name and UUID, and no path or lease of the first machine."""
    root = ET.fromstring(xml)  # noqa: S314 - libvirt wrote it, on a host of ours
    domain = root if root.tag == "domain" else root.find("domain")
    if domain is None:
        raise OlvmError("the saved XML has no domain")
    for tag, text in (("name", name), ("uuid", domain_uuid)):
        for element in domain.findall(tag):
            element.text = text
    for entry in domain.findall("sysinfo/system/entry[@name='uuid']"):
        entry.text = domain_uuid
    devices = domain.find("devices")
    for lease in domain.findall("devices/lease"):
        assert devices is not None
        devices.remove(lease)
    for channel in domain.findall("devices/channel[@type='unix']"):
        for source in channel.findall("source"):
            channel.remove(source)
    return ET.tostring(root, encoding="unicode")
