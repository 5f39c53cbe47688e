"""One question to logind: is the screen of a session locked? Its files do not say it; its D-Bus interface does.

The few bytes of D-Bus that this needs are written here: a library would cost more memory than the whole agent, and a
program at every look more CPU. Nobody waits long for an answer, and after a failure nobody asks for a while.
"""

from __future__ import annotations

import os
import socket
import struct
import time

BUS = "/run/dbus/system_bus_socket"
TIMEOUT_S = 1.0
AGAIN_S = 30.0
MESSAGES_MAX = 16
BODY_BYTES_MAX = 4096
METHOD_CALL, METHOD_RETURN, ERROR = 1, 2, 3
PATH, INTERFACE, MEMBER, REPLY_SERIAL, DESTINATION, SIGNATURE = 1, 2, 3, 5, 6, 8


class Logind:
    """A connection that is kept; made when the first question comes."""

    def __init__(self, bus: str = BUS) -> None:
        self._bus = bus
        self._line: socket.socket | None = None
        self._serial = 0
        self._not_before_s = 0.0

    def is_locked(self, number: str) -> bool:
        """Whether the session with logind's `number` says that its screen is locked. Unknown counts as no."""
        if time.monotonic() < self._not_before_s:
            return False
        try:
            if self._line is None:
                self._connect()
            kind, body = self._get("/org/freedesktop/login1/session/" + _escaped(number), "LockedHint")
        except (OSError, ValueError, struct.error):  # no bus here, or it does not answer as a bus does
            self.close()
            self._not_before_s = time.monotonic() + AGAIN_S
            return False
        # A variant with a boolean: its signature's length and text, padding, four bytes. Else the session has ended.
        return kind == METHOD_RETURN and body[:3] == b"\1b\0" and body[4:8] == b"\1\0\0\0"

    def close(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None

    def _connect(self) -> None:
        self._line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._line.settimeout(TIMEOUT_S)
        self._line.connect(self._bus)
        self._line.sendall(b"\0AUTH EXTERNAL " + str(os.geteuid()).encode().hex().encode() + b"\r\n")
        said = b""
        while not said.endswith(b"\r\n"):
            more = self._line.recv(256)
            if not more or len(said) > BODY_BYTES_MAX:
                raise ValueError("the bus hung up")
            said += more
        if not said.startswith(b"OK "):
            raise ValueError("the bus does not take this user")
        self._line.sendall(b"BEGIN\r\n")
        bus = "org.freedesktop.DBus"
        self._call({PATH: "/org/freedesktop/DBus", INTERFACE: bus, MEMBER: "Hello", DESTINATION: bus}, ())

    def _get(self, path: str, name: str) -> tuple[int, bytes]:
        said = {PATH: path, INTERFACE: "org.freedesktop.DBus.Properties", MEMBER: "Get"}
        said[DESTINATION] = "org.freedesktop.login1"
        return self._call(said, ("org.freedesktop.login1.Session", name))

    def _call(self, fields: dict[int, str], texts: tuple[str, ...]) -> tuple[int, bytes]:
        """Kind and body of the reply."""
        assert self._line is not None
        self._serial += 1
        self._line.sendall(message(self._serial, fields, texts))
        for _ in range(MESSAGES_MAX):
            kind, serial, body = self._receive()
            if kind in (METHOD_RETURN, ERROR) and serial == self._serial:
                return kind, body
        raise ValueError("no reply among what the bus says")

    def _receive(self) -> tuple[int, int, bytes]:
        order, kind, _, _, body_bytes, _, field_bytes = struct.unpack("<4BIII", self._exactly(16))
        if order != ord("l") or body_bytes > BODY_BYTES_MAX or field_bytes > BODY_BYTES_MAX:
            raise ValueError("that is no message of the bus")
        fields = self._exactly(-(-field_bytes // 8) * 8)
        return kind, reply_serial(fields[:field_bytes]), self._exactly(body_bytes)

    def _exactly(self, count: int) -> bytes:
        assert self._line is not None
        data = b""
        while len(data) < count:
            more = self._line.recv(count - len(data))
            if not more:
                raise ValueError("the bus hung up")
            data += more
        return data


def message(serial: int, fields: dict[int, str], texts: tuple[str, ...]) -> bytes:
    """A method call whose arguments are texts."""
    body = b""
    for text in texts:
        body += _padding(len(body), 4) + struct.pack("<I", len(text)) + text.encode() + b"\0"
    head = b""
    for number, text in fields.items():
        kind = b"o" if number == PATH else b"s"
        head += _padding(len(head), 8) + bytes([number, 1]) + kind + b"\0"
        head += struct.pack("<I", len(text)) + text.encode() + b"\0"
    if texts:
        signature = b"s" * len(texts)
        head += (
            _padding(len(head), 8) + bytes([SIGNATURE, 1]) + b"g\0" + bytes([len(texts)]) + signature + b"\0"
        )
    start = struct.pack("<4BIII", ord("l"), METHOD_CALL, 0, 1, len(body), serial, len(head))
    return start + head + _padding(len(head), 8) + body


def reply_serial(fields: bytes) -> int:
    """Which call a reply belongs to; 0: none. The only field of a number is that one."""
    at = 0
    while at + 8 <= len(fields):
        number, _, kind = fields[at : at + 3]
        (value,) = struct.unpack_from("<I", fields, at + 4)
        if kind == ord("u"):
            if number == REPLY_SERIAL:
                return int(value)
            at += 8
        elif kind == ord("g"):
            at += 4 + 2 + fields[at + 4]
        else:
            at += 8 + value + 1
        at += -at % 8
    return 0


def _padding(size: int, to: int) -> bytes:
    return b"\0" * (-size % to)


def _escaped(number: str) -> str:
    """As systemd writes a name into a path: a leading digit, and what is neither letter nor digit, in hexadecimal."""
    said = ""
    for at, char in enumerate(number):
        is_plain = char.isascii() and (char.isalpha() or (char.isdigit() and at > 0))
        said += char if is_plain else "".join(f"_{byte:02x}" for byte in char.encode())
    return said
