"""The watchdog of one host: ends the leased machines when nobody has raised its deadline in time.

A program of its own, with the standard library alone, started by `host_watchdog.py` and not ended by anybody: it
outlives its agent, so that an agent that dies, hangs or stands still cannot stretch a lease. It needs no libvirt: QEMUs
are found in /proc by the UUID in their command line, within the host's own pid namespace. What it reads and writes lies
in its directory (below /run: a reboot forgets it):

    deadline        eight bytes, big-endian: nanoseconds of CLOCK_BOOTTIME until which leased machines may run
    guarded/UUID    a leased machine that may be on this host
    killed/UUID     a machine that it has ended
    lock            held while it runs; `pid` is its number

CLOCK_BOOTTIME goes on while the computer is suspended, as the clocks of those who wait for this host do.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import struct
import sys
import time
from collections.abc import Iterator

POLL_S = 0.1
EARLY_NS = int(
    3 * POLL_S * 1e9
)  # a poll period until it looks again, and as much again to look and to end them
MCL_CURRENT, MCL_FUTURE = 1, 2


def boottime_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def deadline_ns(directory: str) -> int:
    """0, which is past, when it cannot be read: what is not known to be allowed is not."""
    try:
        with open(os.path.join(directory, "deadline"), "rb") as file:
            return int(struct.unpack(">q", file.read(8))[0])
    except (OSError, struct.error):
        return 0


def guarded(directory: str) -> set[str]:
    try:
        return set(os.listdir(os.path.join(directory, "guarded")))
    except OSError:
        return set()


def qemus(uuids: set[str], namespace: str) -> Iterator[tuple[int, str]]:
    """(pid, uuid) of each process that runs one of these machines in that pid namespace."""
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open("/proc/" + name + "/cmdline", "rb") as file:
                words = file.read().split(b"\0")
            if b"-uuid" not in words:
                continue
            uuid = words[words.index(b"-uuid") + 1].decode("ascii", "replace")
            if uuid in uuids and os.readlink("/proc/" + name + "/ns/pid") == namespace:
                yield int(name), uuid
        except (OSError, IndexError):
            continue  # it ended meanwhile


def end_leased(directory: str, namespace: str) -> None:
    for pid, uuid in qemus(guarded(directory), namespace):
        mark = os.path.join(directory, "killed", uuid)
        with open(mark, "w") as file:
            file.write(str(boottime_ns()))
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def settle_in() -> None:
    """Nothing of this computer's troubles may keep it from its work: not memory, not a busy processor."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mlockall(MCL_CURRENT | MCL_FUTURE)  # refused without the privilege; it works without, too
    for file, text in (("/proc/self/oom_score_adj", "-1000"),):
        try:
            with open(file, "w") as out:
                out.write(text)
        except OSError:
            continue
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except OSError:
        return


def detach() -> None:
    """Nobody's child: whoever started it may end, and need not wait for it."""
    if os.fork():
        os._exit(0)
    os.setsid()


def main(directory: str, namespace: str) -> int:
    detach()
    lock = os.open(os.path.join(directory, "lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return 3  # another one watches already
    with open(os.path.join(directory, "pid"), "w") as file:
        file.write(str(os.getpid()))
    settle_in()
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    while not os.path.exists(os.path.join(directory, "stop")):
        if boottime_ns() + EARLY_NS >= deadline_ns(directory):
            end_leased(directory, namespace)
        time.sleep(POLL_S)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
