"""libvirt holds the XML of a machine against its schema once for each shape, and again after an upgrade."""

from __future__ import annotations

import pytest

libvirt = pytest.importorskip("libvirt", reason="libvirt-python is not installed: make apt-libvirt")

from hypervisor_backends import libvirt_lifecycle  # noqa: E402
from hypervisor_backends.domain_shapes import ValidatedShapes  # noqa: E402

VALIDATE = libvirt.VIR_DOMAIN_DEFINE_VALIDATE


class _Connection:
    """A libvirt that knows no domain; it refuses XML with an element `bad` where it is to validate."""

    def __init__(self) -> None:
        self.version = 9_000_000
        self.flags: list[int] = []

    def getType(self) -> str:  # noqa: N802 - libvirt's own name
        return "QEMU"

    def getLibVersion(self) -> int:  # noqa: N802
        return self.version

    def lookupByUUIDString(self, uuid: str) -> None:  # noqa: N802
        error = libvirt.libvirtError(f"no domain {uuid}")
        error.err = (libvirt.VIR_ERR_NO_DOMAIN, 0, "", 0, "", "", "", 0, 0)
        raise error

    def defineXMLFlags(self, xml: str, flags: int) -> str:  # noqa: N802
        self.flags.append(flags)
        if flags and "<bad" in xml:
            raise libvirt.libvirtError("XML document failed to validate against schema")
        return xml


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> _Connection:
    monkeypatch.setattr(libvirt_lifecycle, "_validated", ValidatedShapes())
    return _Connection()


def test_second_machine_of_a_shape_is_not_validated(connection: _Connection) -> None:
    for name in ("a", "b"):
        libvirt_lifecycle.define(connection, "u", f"<domain><name>{name}</name></domain>")
    libvirt_lifecycle.define(connection, "u", "<domain><name>c</name><on/></domain>")
    connection.version += 1
    libvirt_lifecycle.define(connection, "u", "<domain><name>d</name></domain>")
    assert connection.flags == [VALIDATE, 0, VALIDATE, VALIDATE]


def test_shape_that_was_refused_is_validated_again(connection: _Connection) -> None:
    for _ in range(2):
        with pytest.raises(libvirt.libvirtError):
            libvirt_lifecycle.define(connection, "u", "<domain><bad/></domain>")
    assert connection.flags == [VALIDATE, VALIDATE]
