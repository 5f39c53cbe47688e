"""A host's processes and boot, read from its files below `root`, without libvirt.

Decides which process is a machine's QEMU and which boot this is. `root` may be another host's on this machine, in
namespaces of its own (/proc/<its init>/root): then the processes of that host alone are seen, and a signal reaches them
under the number that they have here.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from olvm.model.limits import NS_PER_S

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def read_text(path: str | Path) -> str:
    """Empty if it is not there: what a kernel does not tell is not known."""
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def boot_id_of(root: str) -> str:
    """The kernel's boot and the start of the first process: a host in namespaces boots without a kernel."""
    kernel = read_text(f"{root}/proc/sys/kernel/random/boot_id").strip()
    return f"{kernel}-{_start_ticks(f'{root}/proc/1')}"


def boot_time_ns_of(root: str) -> int:
    """When the host's first process started, in nanoseconds since the epoch; 0 if that is not known."""
    return started_ns_of(f"{root}/proc/1")


def started_ns_of(process: str) -> int:
    """When a process (its directory in /proc) started, to the tick; 0 if it is gone."""
    ticks = _start_ticks(process)
    kernel_ns = _kernel_boot_ns()
    return kernel_ns + ticks * NS_PER_S // _TICKS_PER_S if ticks and kernel_ns else 0


def cpu_ns_of(pid: int) -> tuple[int, int]:
    """CPU time of a process in user and system mode; zeros if it is gone."""
    fields = _stat_fields(f"/proc/{pid}")
    if len(fields) < 13:
        return 0, 0
    return int(fields[11]) * NS_PER_S // _TICKS_PER_S, int(fields[12]) * NS_PER_S // _TICKS_PER_S


def qemu_pids(root: str) -> dict[str, int]:
    """The host's QEMU processes: by the machine's UUID, the number under which we can signal it.

    Raises `OSError` when the host's processes cannot be told from others', as when another host's `root` is gone.
    """
    namespace = os.readlink("/proc/self/ns/pid" if root == "/" else f"{root}/proc/1/ns/pid")
    found: dict[str, int] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and (uuid := _uuid_of(entry.path)) and _namespace(entry.path) == namespace:
            found[uuid] = int(entry.name)
    return found


def kill_qemu(root: str, uuid: str) -> bool:
    """SIGKILL; whether there was one. Not held up by a monitor or a libvirtd that hangs."""
    pid = qemu_pids(root).get(uuid)
    return pid is not None and _kill(pid)


def end_qemu(root: str, uuid: str, timeout_s: float = 5.0) -> bool:
    """SIGKILL, and wait until the process is gone; False if it is not by then. True also if there was none."""
    pid = qemu_pids(root).get(uuid)
    if pid is None:
        return True
    end_s = time.monotonic() + timeout_s
    _kill(pid)
    # Its command line is gone before its files are closed and their locks released: so its state is asked.
    while _stat_fields(f"/proc/{pid}")[:1] not in ([], ["Z"], ["X"]):
        if time.monotonic() > end_s:
            return False
        time.sleep(0.02)
    return True


def _kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _uuid_of(process: str) -> str:
    try:
        with open(f"{process}/cmdline", "rb", buffering=0) as file:
            line = file.read()
    except OSError:
        return ""
    # Each process of the host is looked at, at every start: nearly all are told by their bytes.
    if b"-uuid" not in line:
        return ""
    words = line.decode(errors="replace").split("\0")
    if not words or "qemu" not in words[0] or "-uuid" not in words:
        return ""
    at = words.index("-uuid") + 1
    return words[at] if at < len(words) else ""


def _namespace(process: str) -> str:
    try:
        return os.readlink(f"{process}/ns/pid")
    except OSError:
        return ""


def _stat_fields(process: str) -> list[str]:
    """From the state on: a program's name may hold anything, so it is cut off."""
    return read_text(f"{process}/stat").rpartition(")")[2].split()


def _start_ticks(process: str) -> int:
    fields = _stat_fields(process)
    return int(fields[19]) if len(fields) > 19 else 0


def _kernel_boot_ns() -> int:
    for line in read_text("/proc/stat").splitlines():
        if line.startswith("btime "):
            return int(line.split()[1]) * NS_PER_S
    return 0
