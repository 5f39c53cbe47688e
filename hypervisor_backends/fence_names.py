"""Which options of a fence device's agent may stand in its settings, told by their names alone.

Settings of a device are kept in journals, and come from whoever may add hosts, while agents run as root. So options are
refused that are ours to give, that write what is secret to a file, that run a program, or that hold a secret: any
option may be given as `<option>_file` instead, the path of a file on the hosts that ask the device. Must not know
processes or files: behaviours use it (docs/decisions/0021).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from olvm.model.errors import BadInput

FILE = "_file"
OURS = ("type", "name")  # of a device, and no option of its agent
# The action is ours; the others end an agent before it acts, or write what it is told, passwords too.
REFUSED = frozenset(
    {"action", "option", "help", "version", "verbose", "verbose_level", "debug", "debug_file"}
)
RUNS_A_PROGRAM = re.compile(r"(?!api_path$).*_(path|script)|exec")
SECRET = re.compile(r".*(pass|secret|token|key|community|_kg)")


def may_be_given(name: str) -> bool:
    return name not in REFUSED and not RUNS_A_PROGRAM.fullmatch(name)


def is_secret(name: str) -> bool:
    """Also of some that are none: those can be given by a file as well."""
    return SECRET.match(name) is not None and not name.endswith(FILE)


def check_names(device: Mapping[str, object]) -> None:
    """Raises `BadInput`, which has no value of the device in it."""
    what = f"fence device {device.get('type')}"
    for name in device:
        if name in OURS:
            continue
        if not may_be_given(name):
            raise BadInput(f"{what}: option {name} is not for a device's settings; leave it out")
        if is_secret(name):
            raise BadInput(
                f"{what}: option {name} would stand in journals for everybody who reads them; write it to a file of "
                f"mode 600 on each host that may ask the device, and give that file's path as {name}{FILE}"
            )
