"""What a run was, in one number: two runs of a plan must have the same.

Everything that crosses the network and everything that reaches a disk is folded in, each with its time; a draw
shows in both. Where two runs differ, `trail` (kept when asked for) names the first entry that does.
"""

from __future__ import annotations

import zlib
from hashlib import blake2b
from typing import NamedTuple

_PIECES_PER_FOLD = 3_000


class Mark(NamedTuple):
    """One entry of a trail: when, on which link or disk, how many bytes, and their checksum."""

    at_ns: int
    where: str
    byte_count: int
    checksum: int


class Digest:
    __slots__ = ("_hash", "_pieces", "entry_count", "trail")

    def __init__(self, *, keeps_trail: bool = False) -> None:
        self._hash = blake2b(digest_size=16)
        self._pieces: list[bytes] = []
        self.entry_count = 0
        self.trail: list[Mark] | None = [] if keeps_trail else None

    def note(self, at_ns: int, where: bytes, payload: bytes) -> None:
        """`where` names a link or a disk and is the same text in every run."""
        pieces = self._pieces
        pieces += (at_ns.to_bytes(8, "big"), where, payload)
        if len(pieces) >= _PIECES_PER_FOLD:
            self._fold()
        if self.trail is not None:
            self.trail.append(Mark(at_ns, where.decode(), len(payload), zlib.crc32(payload)))

    def _fold(self) -> None:
        self.entry_count += len(self._pieces) // 3
        self._hash.update(b"".join(self._pieces))
        self._pieces.clear()

    def hexdigest(self) -> str:
        """Of everything noted so far."""
        self._fold()
        return self._hash.hexdigest()


def first_difference(one: list[Mark], other: list[Mark]) -> int | None:
    """The index of the first entry in which two trails differ; None: they are the same."""
    for index, (mark, twin) in enumerate(zip(one, other, strict=False)):
        if mark != twin:
            return index
    return None if len(one) == len(other) else min(len(one), len(other))
