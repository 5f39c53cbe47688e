"""A disk that holds one journal in memory, and fails as disks do.

It outlives the `MemoryJournal` that writes it, as a disk outlives a process. What was written is pending
until a sync; `power_off` decides what becomes of the pending frames. It has no clock and draws nothing:
whoever injects faults decides which, and turns `written_bytes` and `sync_count` into time if the disk is to
be slow.
"""

from __future__ import annotations

import zlib
from typing import Any


class DiskFault(Exception):
    """A write or a sync that the disk refused, with the operating system's words for it."""


class MemoryDisk:
    """A list of checked frames, of which the first `durable_count` survive the loss of power.

    Knobs, all to be changed at any time: `capacity_bytes` (None: endless); `write_error_count` and
    `sync_error_count`, how many of the next writes or syncs fail with an I/O error; `loses_syncs`, whether a
    sync returns without having done anything.
    """

    def __init__(self, *, capacity_bytes: int | None = None) -> None:
        self.capacity_bytes = capacity_bytes
        self.write_error_count = 0
        self.sync_error_count = 0
        self.loses_syncs = False
        self.durable_count = 0
        self.used_bytes = 0
        self.written_bytes = 0
        self.sync_count = 0
        self._frames: list[bytes] = []
        # What a reader has made of the first frames, and how many they were: see `keep_reading`.
        self._reading: tuple[int, Any] = (0, None)

    def __len__(self) -> int:
        return len(self._frames)

    def write(self, payload: bytes) -> None:
        """Append one frame, pending. Raises DiskFault with the disk unchanged."""
        self._check_write(len(payload) + 4)
        self._frames.append(_framed(payload))
        self.used_bytes += len(payload) + 4
        self.written_bytes += len(payload) + 4

    def sync(self) -> None:
        """Make all frames durable. After a DiskFault the pending ones are to be taken back with
        `take_back`.
        """
        if self.sync_error_count > 0:
            self.sync_error_count -= 1
            raise DiskFault("Input/output error")
        self.sync_count += 1
        if not self.loses_syncs:
            self.durable_count = len(self._frames)

    def take_back(self) -> None:
        """Remove the newest frame, which is not durable."""
        assert self.durable_count < len(self._frames), "a durable frame cannot be taken back"
        self._changed_from(len(self._frames) - 1)
        self.used_bytes -= len(self._frames.pop())

    def replace(self, payload: bytes) -> None:
        """Put one durable frame in place of all, at once (a new file, synced, renamed over the old one).

        As with a file, old and new need room together.
        """
        self._check_write(len(payload) + 4)
        self._changed_from(0)
        self._frames = [_framed(payload)]
        self.durable_count = 1
        self.used_bytes = len(payload) + 4
        self.written_bytes += len(payload) + 4
        self.sync_count += 1

    def power_off(self, *, pending_kept: int = 0, is_torn: bool = False) -> None:
        """Lose the pending frames but the first `pending_kept`; of the next one half is left if `is_torn`."""
        kept = min(len(self._frames), self.durable_count + pending_kept)
        torn = self._frames[kept : kept + 1] if is_torn else []
        self._changed_from(kept)
        self._frames = self._frames[:kept] + [frame[: len(frame) // 2] for frame in torn]
        self.durable_count = len(self._frames)
        self.used_bytes = sum(map(len, self._frames))

    def corrupt(self, index: int) -> None:
        """Flip one bit in the middle of a frame."""
        self._changed_from(range(len(self._frames))[index])
        frame = bytearray(self._frames[index])
        frame[len(frame) // 2] ^= 1
        self._frames[index] = bytes(frame)

    def wipe(self) -> None:
        """A new, empty disk in the old one's place."""
        self._changed_from(0)
        self._frames.clear()
        self.durable_count = self.used_bytes = 0

    def payloads(self, start: int = 0) -> list[bytes | None]:
        """The content of every frame from `start` on, None where its checksum does not fit."""
        return [checked(frame) for frame in self._frames[start:]]

    def keep_reading(self, count: int, what: object) -> None:
        """Keep what a reader made of the first `count` frames until one of them changes.

        A world reads its disks thousands of times, and of a disk that was read before only the end is new.
        """
        self._reading = (count, what)

    def reading(self) -> tuple[int, Any]:
        """How many frames the kept reading covers, and the reading; (0, None) if there is none."""
        return self._reading

    def _changed_from(self, index: int) -> None:
        if self._reading[0] > index:
            self._reading = (0, None)

    def cut_last(self) -> None:
        """Drop a torn last frame, as a log is cut at its first incomplete entry."""
        self._changed_from(len(self._frames) - 1)
        self.used_bytes -= len(self._frames.pop())
        self.durable_count = min(self.durable_count, len(self._frames))

    def _check_write(self, size: int) -> None:
        if self.write_error_count > 0:
            self.write_error_count -= 1
            raise DiskFault("Input/output error")
        if self.capacity_bytes is not None and self.used_bytes + size > self.capacity_bytes:
            raise DiskFault("No space left on device")


def _framed(payload: bytes) -> bytes:
    return zlib.crc32(payload).to_bytes(4, "little") + payload


def checked(frame: bytes) -> bytes | None:
    """The content of a frame; None where its checksum does not fit."""
    payload = frame[4:]
    return payload if len(frame) > 4 and zlib.crc32(payload).to_bytes(4, "little") == frame[:4] else None
