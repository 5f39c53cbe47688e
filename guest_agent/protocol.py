"""What a guest and its host say to each other: one JSON object a line, in the words of the oVirt guest agent.

Both sides use it. Neither trusts the other's lines: a line may be too long, no JSON, no object or no message, and each
of these costs that line alone. Source of the vocabulary: oVirt's guest agent, API versions 0 to 3.

Ours beyond oVirt's, which an original side does not see or ignores: `olvm` and what follows it in a heartbeat;
`reply_id` on any message to the guest, answered by `completion`; `notify`, `freeze` and `thaw`; `session` of `login`,
`lock-screen` and `log-off`.
"""

from __future__ import annotations

import json
import re

API_VERSION_MAX = 3
API_VERSION_UNTOLD = 0  # of a heartbeat without a version: an agent from before there were any
PORT = "ovirt-guest-agent.0"
PORT_LEGACY = "com.redhat.rhevm.vdsm"
LINE_BYTES_MAX = 1024 * 1024
NAME = "__name__"

# From the guest, by the least version that has the message.
FROM_GUEST = {
    "heartbeat": 0,
    "host-name": 0,
    "os-version": 0,
    "network-interfaces": 0,
    "applications": 0,
    "active-user": 0,
    "disks-usage": 0,
    "fqdn": 0,
    "memory-stats": 0,
    "session-startup": 0,
    "session-shutdown": 0,
    "session-logon": 0,
    "session-logoff": 0,
    "session-lock": 0,
    "session-unlock": 0,
    "echo": 0,
    "uninstalled": 0,
    "number-of-cpus": 1,
    "os-info": 2,
    "timezone": 2,
    "containers": 3,
    "completion": 3,
}
TO_GUEST = {
    "refresh": 0,
    "lock-screen": 0,
    "log-off": 0,
    "login": 0,
    "shutdown": 0,
    "hibernate": 0,
    "echo": 0,
    "api-version": 1,
    "set-number-of-cpus": 1,
    "lifecycle-event": 3,
}
# To a guest that says `olvm` in its heartbeat.
TO_OLVM_GUEST = {"notify", "freeze", "thaw"}
SESSION_EVENTS = frozenset(name for name in FROM_GUEST if name.startswith("session-"))
LIFECYCLE_EVENTS = ("before_migration", "after_migration", "before_hibernation", "after_hibernation")

# What XML 1.0 has no place for, and with it what a terminal would obey.
_UNCLEAN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


def clean(text: str, chars_max: int | None = None) -> str:
    """Without characters that XML forbids; each becomes U+FFFD, as VDSM and oVirt's agent do it."""
    cut = text if chars_max is None else text[:chars_max]
    return _UNCLEAN.sub("\ufffd", cut)


def cleaned(value: object) -> object:
    """The same value with every text in it clean."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {clean(str(key)): cleaned(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [cleaned(one) for one in value]
    return value


def effective_version(mine: int, theirs: int) -> int:
    """What both speak: the lower of the two, within what there is."""
    return max(API_VERSION_UNTOLD, min(mine, theirs, API_VERSION_MAX))


def encode(name: str, arguments: dict[str, object] | None = None) -> bytes:
    """One line. ASCII alone: whatever reads it, and in whatever encoding, reads the same."""
    message = dict(arguments or {})
    message[NAME] = name
    return json.dumps(message, separators=(",", ":")).encode("ascii") + b"\n"


class LineDecoder:
    """From bytes to messages. `discarded` counts lines that were none; memory is bounded by one line."""

    def __init__(self, line_bytes_max: int = LINE_BYTES_MAX) -> None:
        self._line_bytes_max = line_bytes_max
        self._rest = b""
        self._is_too_long = False
        self.discarded = 0

    def feed(self, data: bytes) -> list[tuple[str, dict[str, object]]]:
        """The messages whose lines are complete now: name and arguments."""
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        found = []
        for line in lines:
            if self._is_too_long:
                self._is_too_long = False  # its end; it was counted when it grew too long
            elif len(line) > self._line_bytes_max:
                self.discarded += 1
            elif line.strip():
                message = self._decoded(line)
                if message is not None:
                    found.append(message)
        if len(self._rest) > self._line_bytes_max or self._is_too_long:
            if not self._is_too_long:
                self.discarded += 1
            self._is_too_long = True
            self._rest = b""
        return found

    def reset(self) -> None:
        """The line is a new one: what was half said on the old one is lost."""
        self._rest = b""
        self._is_too_long = False

    def _decoded(self, line: bytes) -> tuple[str, dict[str, object]] | None:
        try:
            message = json.loads(line.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            self.discarded += 1
            return None
        if not isinstance(message, dict) or not isinstance(message.get(NAME), str):
            self.discarded += 1
            return None
        return message.pop(NAME), message
