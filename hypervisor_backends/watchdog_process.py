"""The watchdog of one host: ends the leased machines when nobody has raised its deadline in time.

A program of its own, with the standard library alone, started by `host_watchdog.py` and not ended by anybody: it
outlives its agent, so that an agent that dies, hangs or stands still cannot stretch a lease. It needs no libvirt:
QEMUs are found in /proc by the UUID in their command line, within the host's own pid namespace. Started anew, it goes
on with what stands in its directory, which is below /run:

    deadline        nanoseconds of CLOCK_BOOTTIME until which leased machines may run, and the kernel's boot
    guarded/UUID    a leased machine that may be on this host
    condemned/UUID  one that was, when a deadline passed: its start may have hung in libvirt, and come to life only
                    after the next renewal. It is ended whenever it appears, until it is guarded anew
    killed/UUID     a machine that it has ended
    lock            held while it runs; `pid` is its number, `namespace` the one that it looks into
    beat            when it last looked, on CLOCK_BOOTTIME
    stop            asks it to end; so does removing the directory

CLOCK_BOOTTIME goes on while the computer is suspended, as the clocks of those who wait for this host do.

Rule: nothing that fails keeps it from looking and killing: a full disk costs a mark, and no more.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import os
import resource
import signal
import struct
import sys
import time
from collections.abc import Iterator

POLL_S = 0.1
EARLY_NS = (
    500_000_000  # a poll period until it looks, and as much again four times to look, to be late, and to kill
)
STUCK_NS = 5_000_000_000  # a QEMU that is still there so long after its deadline is a matter for the hardware
DEADLINE = struct.Struct(">q36s")
BEAT = struct.Struct(">q")
# struct flock: a lock of the whole file, of the open file and not of the process.
WHOLE_FILE = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
MCL_CURRENT, MCL_FUTURE = 1, 2
ANOTHER_WATCHES = 3


def boottime_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


@functools.cache
def boot_id() -> bytes:
    with open("/proc/sys/kernel/random/boot_id", "rb") as file:
        return file.read(36)


def deadline_ns(directory: str) -> int:
    """0, which is past, when it cannot be read or is of another boot: what is not known to be allowed is not."""
    try:
        with open(os.path.join(directory, "deadline"), "rb") as file:
            until_ns, boot = DEADLINE.unpack(file.read(DEADLINE.size))
        return int(until_ns) if boot == boot_id() else 0
    except (OSError, struct.error):
        return 0


def marks(directory: str, kind: str) -> set[str]:
    try:
        return set(os.listdir(os.path.join(directory, kind)))
    except OSError:
        return set()


def condemn(directory: str) -> None:
    """Whoever is guarded now is ended from now on."""
    for uuid in marks(directory, "guarded"):
        with contextlib.suppress(OSError):
            os.rename(os.path.join(directory, "guarded", uuid), os.path.join(directory, "condemned", uuid))


def qemus(uuids: set[str], namespace: str) -> Iterator[tuple[int, str]]:
    """(pid, uuid) of each process that runs one of these machines in that pid namespace."""
    for name in os.listdir("/proc") if uuids else ():
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


def end_condemned(directory: str, namespace: str) -> int:
    """Kill them; returns how many there were. Those of the last time that are not gone yet are among them."""
    count = 0
    for pid, uuid in qemus(marks(directory, "condemned"), namespace):
        count += 1
        mark(directory, uuid)
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            continue  # it ended meanwhile, or is another user's
    return count


def mark(directory: str, uuid: str) -> None:
    """When it was first ended. Before the kill, for whoever sees the machine end asks at once who did it."""
    try:
        descriptor = os.open(
            os.path.join(directory, "killed", uuid), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600
        )
    except OSError:
        return  # marked already, or no room
    with contextlib.suppress(OSError):  # an empty mark says it as well
        os.write(descriptor, str(boottime_ns()).encode())
    os.close(descriptor)


class Hardware:
    """The computer's own watchdog, which restarts it when nobody writes for its time. Without a device: nothing."""

    def __init__(self, device: str) -> None:
        self._descriptor = -1
        if device:
            try:
                self._descriptor = os.open(device, os.O_WRONLY)
            except OSError:
                return  # the agent says that there is none

    def write(self, data: bytes) -> None:
        if self._descriptor >= 0:
            try:
                os.write(self._descriptor, data)
            except OSError:
                return

    def disarm(self) -> None:
        self.write(b"V")


def settle_in() -> None:
    """Nothing of this computer's troubles may keep it from its work: not memory, not a busy processor.

    What is refused without privilege is done without: the watchdog is late then when the computer is.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    flags = MCL_CURRENT | (MCL_FUTURE if hard == resource.RLIM_INFINITY else 0)
    ctypes.CDLL(None, use_errno=True).mlockall(flags)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as out:
        out.write("-1000")
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))


def detach() -> None:
    """Nobody's child: whoever started it may end, and need not wait for it."""
    if os.fork():
        os._exit(0)
    os.setsid()
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)


def is_lock_of(directory: str, lock: int) -> bool:
    """False when the directory is gone, or is another one of the same name: nobody tells this process anything more."""
    try:
        return os.path.samestat(os.stat(os.path.join(directory, "lock")), os.fstat(lock))
    except OSError:
        return False


def watch(directory: str, namespace: str, device: str, lock: int) -> None:
    hardware = Hardware(device)
    beat = os.open(os.path.join(directory, "beat"), os.O_WRONLY | os.O_CREAT, 0o600)
    stop = os.path.join(directory, "stop")
    while not os.path.exists(stop) and is_lock_of(directory, lock):
        now_ns = boottime_ns()
        os.pwrite(beat, BEAT.pack(now_ns), 0)
        until_ns = deadline_ns(directory)
        if now_ns + EARLY_NS >= until_ns:
            condemn(directory)
        left = end_condemned(directory, namespace)
        if not (left and now_ns > until_ns + STUCK_NS):
            hardware.write(b"\0")
        time.sleep(POLL_S)
    hardware.disarm()


def main(directory: str, namespace: str, device: str = "") -> int:
    detach()
    lock = os.open(os.path.join(directory, "lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.fcntl(lock, fcntl.F_OFD_SETLK, WHOLE_FILE)
    except OSError:
        return ANOTHER_WATCHES
    for name, text in (("pid", str(os.getpid())), ("namespace", namespace)):
        with open(os.path.join(directory, name), "w") as file:
            file.write(text)
    settle_in()
    watch(directory, namespace, device, lock)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
