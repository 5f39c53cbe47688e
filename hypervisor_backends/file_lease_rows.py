"""One row of the shared leases as a file: how it is found, locked, read and changed so that no crash tears it.

Layout, in blocks of 4096 bytes: a header, and two places for the row. A change goes into the place that is not in
use, is synced, and then the header is written that says so: a crash before that leaves the old row, after it the new
one. The header is 45 bytes of one sector, with a checksum of itself and of the row that it names. Nothing else is
believed: there is no falling back to the other place, which would bring an older row to life.

Why in place, and not a new file renamed over the old one: on NFS a lock counts for the reads and writes of the file
that is locked, and for nothing else. A host whose lock was lost (a partition longer than the server's patience) gets
EIO for its write, where its rename would be obeyed and undo what others wrote since. And a lock makes the client
forget what it has cached of that file, where a name may be found in its cache for a minute.

Locks are of the open file (OFD): two stores of one process exclude each other, and a lock ends with its process.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import struct
import time
import zlib
from pathlib import Path

MARK = b"olvm lease 1\n"  # the format; another number is a row of another version
BLOCK = 4096
FILE_BYTES = 3 * BLOCK
ROW_BYTES_MAX = BLOCK
# The mark, the first 16 bytes of the digest of the row's name, the place in use (0: none yet), bytes and checksum of
# the row; then a checksum of all that.
HEADER = struct.Struct(f">{len(MARK)}s16sIII")
CHECKSUM = struct.Struct(">I")
LOCK_WITHIN_S = 4.0  # below the keeper's own time-out of 5 s: the message then says why
LOCK_POLL_S_MIN, LOCK_POLL_S_MAX = 0.002, 0.05


class NotALease(Exception):
    """A file that stands where a row would, and is none."""


class RowFile:
    """Open and locked from `open_row` until `close`. Everything raises `OSError` or `NotALease`."""

    def __init__(self, path: Path, name: str, descriptor: int) -> None:
        self._path = path
        self._name = name
        self._descriptor = descriptor
        self._place = 0

    def close(self) -> None:
        os.close(self._descriptor)  # and with it the lock

    def read(self) -> bytes | None:
        """None: it was never written."""
        size = os.fstat(self._descriptor).st_size
        head = os.pread(self._descriptor, HEADER.size + CHECKSUM.size, 0)
        if size != FILE_BYTES or not head.startswith(MARK):
            raise NotALease(
                f"{self._path} is no lease of this version; find out who wrote it before you remove it"
            )
        _, digest, place, length, checksum = HEADER.unpack_from(head)
        if CHECKSUM.unpack_from(head, HEADER.size)[0] != zlib.crc32(head[: HEADER.size]) or place > 2:
            raise NotALease(f"the header of {self._path} is damaged; {ADVICE}")
        if digest != _digest(self._name):
            raise NotALease(
                f"{self._path} is not the row of {self._name}; a file was renamed or copied by hand"
            )
        self._place = place
        if place == 0:
            return None
        data = os.pread(self._descriptor, min(length, ROW_BYTES_MAX), place * BLOCK)
        if len(data) != length or zlib.crc32(data) != checksum:
            raise NotALease(f"the row in {self._path} is damaged; {ADVICE}")
        return data

    def write(self, data: bytes) -> None:
        """After a `read` under the same lock."""
        if len(data) > ROW_BYTES_MAX:
            raise NotALease(
                f"the row of {self._name} has {len(data)} bytes, and there is room for {ROW_BYTES_MAX}"
            )
        place = 2 if self._place == 1 else 1
        _write_at(self._descriptor, data, place * BLOCK)
        os.fsync(self._descriptor)
        _write_at(self._descriptor, _header(self._name, place, data), 0)
        os.fsync(self._descriptor)
        self._place = place


ADVICE = "see that no machine that it names runs anywhere before you remove it"


def open_row(path: Path, name: str, *, alone: bool) -> RowFile:
    """Made where it is not there yet, also to be read: an absent name may be an old answer from NFS's cache."""
    descriptor = _open(path, name)
    try:
        _lock(descriptor, fcntl.F_WRLCK if alone else fcntl.F_RDLCK)
    except BaseException:
        os.close(descriptor)
        raise
    return RowFile(path, name, descriptor)


def _open(path: Path, name: str) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        _make(path, name)
    return os.open(path, os.O_RDWR | os.O_CLOEXEC)


def _make(path: Path, name: str) -> None:
    """Whole or not at all, and by whoever is first: `link` takes no name that is taken."""
    part = path.with_name(f"new-{os.uname().nodename}-{os.getpid()}-{time.monotonic_ns()}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        _write_at(descriptor, _header(name, 0, b"").ljust(FILE_BYTES, b"\0"), 0)
        os.fsync(descriptor)
        with contextlib.suppress(FileExistsError):
            os.link(part, path)
    finally:
        os.close(descriptor)
        part.unlink(missing_ok=True)
    _sync_directory(path.parent)


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()[:16]


def _header(name: str, place: int, data: bytes) -> bytes:
    header = HEADER.pack(MARK, _digest(name), place, len(data), zlib.crc32(data))
    return header + CHECKSUM.pack(zlib.crc32(header))


def _write_at(descriptor: int, data: bytes, offset: int) -> None:
    while data:
        count = os.pwrite(descriptor, data, offset)
        data, offset = data[count:], offset + count


def _lock(descriptor: int, kind: int) -> None:
    """Raises `OSError` when somebody else holds it for too long: one that stands still must not hold up all."""
    deadline_s = time.monotonic() + LOCK_WITHIN_S
    wanted = struct.pack("hhqqi4x", kind, os.SEEK_SET, 0, 0, 0)
    pause_s = LOCK_POLL_S_MIN
    while True:
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, wanted)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            if time.monotonic() > deadline_s:
                words = f"another process has held its lock for {LOCK_WITHIN_S:g} s"
                raise OSError(errno.ETIMEDOUT, words) from error
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, LOCK_POLL_S_MAX)
        else:
            return


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
