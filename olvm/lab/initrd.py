"""A tree of files as an initial RAM disk: the kernel's own `newc` archive, written here."""

from __future__ import annotations

import io
from pathlib import PurePosixPath

DIRECTORY, FILE, LINK, CHARACTER = 0o040000, 0o100000, 0o120000, 0o020000


class Tree:
    """Paths without a leading slash; parents come by themselves."""

    def __init__(self) -> None:
        self._entries: dict[str, tuple[int, bytes]] = {}

    def file(self, path: str, data: bytes, *, mode: int = 0o644) -> None:
        self._entries[path] = (FILE | mode, data)

    def directory(self, path: str, *, mode: int = 0o755) -> None:
        self._entries.setdefault(path, (DIRECTORY | mode, b""))

    def link(self, path: str, target: str) -> None:
        self._entries[path] = (LINK | 0o777, target.encode())

    def paths(self) -> list[str]:
        return list(self._entries)

    def data(self, path: str) -> bytes:
        return self._entries[path][1]

    def remove(self, path: str) -> None:
        del self._entries[path]

    def archive(self) -> bytes:
        """Parents before children, in the order of names: the same tree is the same bytes."""
        for path in list(self._entries):
            for parent in PurePosixPath(path).parents:
                if str(parent) != ".":
                    self.directory(str(parent))
        out = io.BytesIO()
        ordered = sorted(self._entries, key=lambda path: (path.count("/"), path))
        for number, path in enumerate(ordered, 300):
            mode, data = self._entries[path]
            _write(out, number, path, mode, data)
        _write(out, 299, "dev/console", CHARACTER | 0o600, b"", device=(5, 1))
        _write(out, 0, "TRAILER!!!", 0, b"")
        return out.getvalue()


def _write(
    out: io.BytesIO, number: int, path: str, mode: int, data: bytes, device: tuple[int, int] = (0, 0)
) -> None:
    name = path.encode() + b"\0"
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(name), 0)
    out.write(b"070701" + b"".join(b"%08X" % field for field in fields) + name)
    out.write(b"\0" * (-out.tell() % 4))
    out.write(data)
    out.write(b"\0" * (-out.tell() % 4))
