"""A guest's end of its channel, over a real socket: as QEMU listens for the host, with the test speaking behind it."""

from __future__ import annotations

import json
import socket
from pathlib import Path

from guest_agent import protocol as g

WITHIN_S = 20.0


class Guest:
    """QEMU's listening end, and who speaks behind it."""

    def __init__(self, directory: Path, name: str) -> None:
        # Longer than an address has room for, as libvirt's are.
        place = directory / ("d" * 60) / ("e" * 60)
        place.mkdir(parents=True, exist_ok=True)
        self.path = str(place / name)
        self._listening = socket.socket(socket.AF_UNIX)
        short = directory / name
        self._listening.bind(str(short))
        short.rename(self.path)
        self._listening.listen()
        self._listening.settimeout(WITHIN_S)
        self.line: socket.socket | None = None

    def accept(self) -> Guest:
        if self.line is not None:
            self.line.close()
        self.line, _ = self._listening.accept()
        self.line.settimeout(WITHIN_S)
        return self

    def say(self, name: str, /, **arguments: object) -> None:
        assert self.line is not None
        self.line.sendall(g.encode(name, arguments))

    def hear(self) -> str:
        return str(self.hear_message()["__name__"])

    def hear_message(self) -> dict[str, object]:
        assert self.line is not None
        data = b""
        while not data.endswith(b"\n"):
            more = self.line.recv(1)
            assert more, f"the host has hung up, after {data!r}"
            data += more
        return dict(json.loads(data))

    def close(self) -> None:
        if self.line is not None:
            self.line.close()
        self._listening.close()
