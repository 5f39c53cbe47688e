"""Where images are kept between runs: one directory for each digest of what an image was made of."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

KEPT_MIN = 3  # of each kind, however old
WORK_PREFIX = "build-"
KEPT_S = 24 * 3600.0  # somebody's machines may still be started from it


def directory_of(cache: Path, kind: str, digest: str) -> Path:
    """Of one image, made if need be; what has not been used for a day goes."""
    home = cache / f"{kind}-{digest}"
    home.mkdir(parents=True, exist_ok=True)
    os.utime(home)
    _prune(cache, kind)
    return home


def _prune(cache: Path, kind: str) -> None:
    def used_s(path: Path) -> float:
        try:
            return path.stat().st_mtime
        except FileNotFoundError:  # another run was quicker
            return 0.0

    old_s = time.time() - KEPT_S
    abandoned = cache.glob(f"{WORK_PREFIX}*")  # of a build that was killed
    for path in [*sorted(cache.glob(f"{kind}-*"), key=used_s, reverse=True)[KEPT_MIN:], *abandoned]:
        if used_s(path) < old_s:
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def alone(cache: Path, kind: str) -> Iterator[None]:
    """One process at a time builds images of this kind; the next finds what it built."""
    with (cache / f"{kind}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def write_whole(path: Path, data: bytes) -> None:
    """Others see all of it or nothing."""
    part = path.with_suffix(f".{os.getpid()}")
    part.write_bytes(data)
    part.rename(path)
