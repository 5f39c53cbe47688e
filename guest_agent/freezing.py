"""File systems held still for a consistent snapshot, and let go again.

Each function is done in a child: the kernel may keep it waiting. What is frozen stands in a file, so that whoever comes
after, also an agent that is started again, thaws that and nothing that somebody else froze.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os

FIFREEZE, FITHAW = 0xC0045877, 0xC0045878
THAW_AFTER_S = 60.0  # a host that forgets a frozen guest does not keep it so
MARK = "/run/olvm-guest-agent.frozen"
# A file system that cannot be frozen holds nobody up.
CANNOT = (errno.EOPNOTSUPP, errno.ENOTTY)


def freeze(paths: list[str], mark: str = MARK) -> str:
    """All or none; the last mounted first, for it may lie on an earlier one."""
    if is_frozen(mark):
        return ""
    frozen: list[str] = []
    for path in reversed(paths):
        try:
            _write(
                mark, [path, *frozen]
            )  # before it is done: a crash between the two must not leave it frozen
            _ioctl(path, FIFREEZE)
            frozen.insert(0, path)
        except OSError as error:
            if error.errno not in CANNOT:
                # A busy one was frozen by somebody else, who will thaw it.
                _write(mark, frozen)
                thaw(mark)
                is_frozen_already = error.errno == errno.EBUSY
                return f"{path}: {'it is frozen already' if is_frozen_already else error.strerror}"
    _write(mark, frozen)
    return ""


def thaw(mark: str = MARK) -> str:
    """The first mounted first."""
    reason = ""
    for path in _read(mark):
        try:
            _ioctl(path, FITHAW)
        except OSError as error:
            if error.errno != errno.EINVAL:  # it is not frozen
                reason = f"{path}: {error.strerror}"
    with contextlib.suppress(OSError):
        os.unlink(mark)
    return reason


def is_frozen(mark: str = MARK) -> bool:
    return os.path.exists(mark)


def _ioctl(path: str, request: int) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, request, 0)
    finally:
        os.close(descriptor)


def _write(mark: str, frozen: list[str]) -> None:
    part = mark + ".part"
    with open(part, "w") as file:
        json.dump(frozen, file)
    os.replace(part, mark)


def _read(mark: str) -> list[str]:
    try:
        with open(mark) as file:
            said = json.load(file)
    except (OSError, ValueError):
        return []
    return [str(path) for path in said] if isinstance(said, list) else []
