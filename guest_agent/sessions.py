"""Who is logged on where, and whose screen is locked: from logind's records, else from utmp; and from locks of our own.

It reads; it does not lock or end anything.
"""

from __future__ import annotations

import json
import os
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guest_agent.logind import Logind

LOGIND = "run/systemd/sessions"
LOCKS = "run/olvm-locks"  # of text consoles; who writes them is `text_lock`
# struct utmp of Linux: type, pid, line, id, user, host, …
UTMP = struct.Struct("<hxxi32s4s32s256s")
UTMP_BYTES = 384
USER_PROCESS = 7
DESKTOPS = ("x11", "wayland", "mir")


class Session:
    """`line` is the terminal without /dev/, or what logind calls the session when it has none."""

    def __init__(
        self, user: str, line: str, number: str = "", is_locked: bool = False, is_desktop: bool = False
    ) -> None:
        self.user = user
        self.line = line
        self.number = number  # logind's; empty without logind
        self.began = number  # tells it from the session before at the same terminal
        self.is_locked = is_locked
        self.is_desktop = is_desktop  # something there obeys logind's signal to lock
        self.is_remote = line.startswith("pts/")


def read_sessions(root: str = "/", logind: Logind | None = None) -> list[Session]:
    """logind's and utmp's; what both know is said once, as logind says it."""
    found = _logind(root)
    known = {one.line for one in found}
    found += [one for one in _utmp(root) if one.line not in known]
    for one in found:
        one.is_locked = one.is_locked or bool(lock_of(one.line, root))
        if logind is not None and one.number and not one.is_locked:
            one.is_locked = logind.is_locked(one.number)
    return found


def lock_file(line: str, root: str = "/") -> str:
    return os.path.join(root, LOCKS, line.replace("/", "_"))


def lock_of(line: str, root: str = "/") -> dict[str, Any]:
    """Our lock of a terminal, while the session that it locks is there; empty: none."""
    said = read_lock(line, root)
    if said and root == "/" and not os.path.exists("/proc/{}".format(said["leader"][0])):
        return {}
    return said


def read_lock(line: str, root: str = "/") -> dict[str, Any]:
    """What our lock of a terminal says: its user and what ends it; empty: none."""
    try:
        with open(lock_file(line, root)) as file:
            said = json.load(file)
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def _logind(root: str) -> list[Session]:
    directory = os.path.join(root, LOGIND)
    try:
        names = sorted(name for name in os.listdir(directory) if not name.endswith(".ref"))
    except OSError:
        return []
    found = []
    for name in names:
        fields = _fields(os.path.join(directory, name))
        is_users = fields.get("CLASS", "user").startswith("user")
        if is_users and fields.get("STATE") != "closing" and "USER" in fields:
            line = fields.get("TTY") or fields.get("DISPLAY") or f"session-{name}"
            one = Session(fields["USER"], line, name, is_desktop=fields.get("TYPE") in DESKTOPS)
            one.is_remote = one.is_remote or fields.get("REMOTE") == "1"
            found.append(one)
    return found


def _fields(path: str) -> dict[str, str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return dict(line.rstrip("\n").split("=", 1) for line in file if "=" in line)
    except OSError:
        return {}


def _utmp(root: str) -> list[Session]:
    try:
        with open(os.path.join(root, "run/utmp"), "rb") as file:
            data = file.read()
    except OSError:
        return []
    found = []
    for at in range(0, len(data) - UTMP_BYTES + 1, UTMP_BYTES):
        kind, pid, line, _, user, _ = UTMP.unpack_from(data, at)
        is_alive = root != "/" or os.path.exists(f"/proc/{pid}")  # a crash leaves entries behind
        if kind == USER_PROCESS and is_alive:
            texts = [one.split(b"\0", 1)[0].decode("utf-8", "replace") for one in (user, line)]
            one = Session(texts[0], texts[1])
            one.began = str(pid)
            found.append(one)
    return found


def owner_of(line: str) -> str:
    """Who is logged on at a terminal, or has locked it; empty: nobody."""
    return next((one.user for one in read_sessions() if one.line == line), "")
