"""The options that say what a machine is made of, and how words of a command line become hardware."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from olvm.model import messages as m
from olvm.model.errors import BadInput
from olvm.model.hardware import Hardware, hardware_from
from olvm.model.sizes import scalar


def key_values(pairs: Iterable[str]) -> m.Arguments:
    """`KEY=VALUE` each. Raises `BadInput`."""
    found: m.Arguments = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise BadInput(f"{pair} is not KEY=VALUE, as in name=vdb")
        found[key] = scalar(value)
    return found


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class PartOptions:
    hardware_file: Annotated[
        Path | None,
        Parameter(name="--hardware", help="A TOML file with the fields of Hardware.", metavar="FILE"),
    ] = None
    disk: Annotated[
        list[str] | None,
        Parameter(
            help="A disk, as in name=vda,size_bytes=10GiB or name=vda,source=/images/a.qcow2; may be repeated.",
            negative=(),
            metavar="KEY=VALUE,…",
        ),
    ] = None
    nic: Annotated[
        list[str] | None,
        Parameter(
            help="A network card, as in name=eth0,network=br0; may be repeated.",
            negative=(),
            metavar="KEY=VALUE,…",
        ),
    ] = None
    firmware: Annotated[Literal["bios", "uefi"] | None, Parameter(help="What boots it.")] = None
    kernel: Annotated[str, Parameter(help="Boot this kernel of the host.", metavar="PATH")] = ""
    initrd: Annotated[str, Parameter(help="With this initial RAM disk.", metavar="PATH")] = ""
    cmdline: Annotated[str, Parameter(help="And these words.", metavar="TEXT")] = ""
    user_data: Annotated[
        Path | None, Parameter(help="A cloud-init user-data file for its first boot.", metavar="FILE")
    ] = None

    def hardware(self) -> Hardware | None:
        """None: nothing was said. Raises `BadInput`."""
        fields: dict[str, Any] = {}
        if self.hardware_file is not None:
            fields = _read_toml(self.hardware_file)
        for name, texts in (("disks", self.disk), ("nics", self.nic)):
            if texts:
                fields[name] = [*fields.get(name, []), *(key_values(text.split(",")) for text in texts)]
        for name in ("firmware", "kernel", "initrd", "cmdline"):
            if getattr(self, name):
                fields[name] = getattr(self, name)
        if self.user_data is not None:
            fields["cloud_init"] = {"user_data": _read_text(self.user_data)}
        return hardware_from(fields) if fields else None


def read_toml(path: Path | None) -> dict[str, Any] | None:
    """The fields in a TOML file; None where none is named. Raises `BadInput`."""
    return None if path is None else _read_toml(path)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read: {error}") from error


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(_read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{path} is not TOML: {error}") from error


Parts = PartOptions
NO_PARTS = PartOptions()
