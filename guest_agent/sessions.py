"""Who is logged on where, and whose screen is locked: from logind's records, else from utmp.

It reads; it does not lock or end anything.
"""

from __future__ import annotations

import os
import struct

LOGIND = "run/systemd/sessions"
# struct utmp of Linux: type, pid, line, id, user, host, …
UTMP = struct.Struct("<hxxi32s4s32s256s")
UTMP_BYTES = 384
USER_PROCESS = 7


class Session:
    """`line` is the terminal without /dev/, or what logind calls the session when it has none."""

    def __init__(self, user: str, line: str, number: str = "", is_locked: bool = False) -> None:
        self.user = user
        self.line = line
        self.number = number  # logind's; empty without logind
        self.is_locked = is_locked


def read_sessions(root: str = "/") -> list[Session]:
    """logind's and utmp's; what both know is said once, as logind says it."""
    found = _logind(root)
    known = {one.line for one in found}
    return found + [one for one in _utmp(root) if one.line not in known]


def _logind(root: str) -> list[Session]:
    directory = os.path.join(root, LOGIND)
    try:
        names = sorted(name for name in os.listdir(directory) if not name.endswith(".ref"))
    except OSError:
        return []
    found = []
    for name in names:
        fields = _fields(os.path.join(directory, name))
        if fields.get("CLASS", "user") == "user" and fields.get("STATE") != "closing" and "USER" in fields:
            user = _user_name(root, fields["USER"])
            line = fields.get("TTY") or fields.get("DISPLAY") or f"session-{name}"
            found.append(Session(user, line, name, fields.get("LOCKED_HINT") == "1"))
    return found


def _fields(path: str) -> dict[str, str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return dict(line.rstrip("\n").split("=", 1) for line in file if "=" in line)
    except OSError:
        return {}


def _user_name(root: str, uid: str) -> str:
    try:
        with open(os.path.join(root, "etc/passwd"), encoding="utf-8", errors="replace") as file:
            for line in file:
                words = line.split(":")
                if len(words) > 2 and words[2] == uid:
                    return words[0]
    except OSError:
        return uid
    return uid  # of a directory service


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
            found.append(Session(texts[0], texts[1]))
    return found


def owner_of(line: str) -> str:
    """Who is logged on at a terminal, or has locked it; empty: nobody."""
    return next((one.user for one in read_sessions() if one.line == line), "")
