"""One host's watchdog, as its agent sees it: a process that it starts, tells deadlines, and cannot hold back.

Rules:
1. `armed` is true only while a watchdog process runs and it would not strike now.
2. A machine is guarded before it is started, and until it is surely gone.
3. An agent that is started anew finds the process of its predecessor and goes on with it; where there is none, or it
   was killed, a new one is started, and nothing is armed until a renewal.

The bound of docs/leases.md wants that all leased machines have ended when the deadline passes: the process ends them
early by `EARLY_NS`.
"""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from hypervisor_backends import watchdog_process
from hypervisor_backends.domain_metadata import domain_uuid
from olvm.model.errors import OlvmError

PROGRAM = Path(watchdog_process.__file__)
STARTED_WITHIN_S = 10.0
LOOK_S = 0.01


class HostWatchdog:
    """`clock_ns` is the owner's clock, on which deadlines are given; `root` is where the host's files are seen.

    Raises `OlvmError` when its directory cannot be made or the process does not start.
    """

    def __init__(self, host: str, directory: Path, clock_ns: Callable[[], int], *, root: str = "/") -> None:
        self._host = host
        self.directory = directory / host
        self._clock_ns = clock_ns
        first = "/proc/self" if root == "/" else f"{root}/proc/1"
        self._namespace = str(Path(first, "ns/pid").readlink())
        try:
            for name in ("guarded", "killed"):
                (self.directory / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise OlvmError(f"the watchdog of host {host} cannot be set up: {error}") from error
        (self.directory / "stop").unlink(missing_ok=True)
        self._start()

    # ------------------------------------------------------------------ the process

    def _start(self) -> None:
        if self.runs():
            return
        self._write_deadline(0)
        command = [sys.executable, "-I", "-S", str(PROGRAM), str(self.directory), self._namespace]
        subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=STARTED_WITHIN_S,
            check=False,
            cwd="/",
        )
        deadline_s = time.monotonic() + STARTED_WITHIN_S
        while not self.runs():
            if time.monotonic() > deadline_s:
                raise OlvmError(
                    f"the watchdog process of host {self._host} did not start; {' '.join(command)}"
                )
            time.sleep(LOOK_S)

    def runs(self) -> bool:
        """Whether a watchdog process holds its lock. Cost: two system calls."""
        try:
            descriptor = os.open(self.directory / "lock", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        else:
            return False
        finally:
            os.close(descriptor)

    # ------------------------------------------------------------------ deadlines

    def arm(self, deadline_ns: int) -> bool:
        """Raise the deadline; an earlier one than the present changes nothing. False: no process watches.

        A process that was killed is started again here, and then counts from this deadline on.
        """
        if not self.runs():
            self._start()
        left_ns = deadline_ns - self._clock_ns()
        until_ns = watchdog_process.boottime_ns() + left_ns
        if until_ns > watchdog_process.deadline_ns(str(self.directory)):
            self._write_deadline(until_ns)
        return self.armed()

    def armed(self) -> bool:
        until_ns = watchdog_process.deadline_ns(str(self.directory))
        return watchdog_process.boottime_ns() + watchdog_process.EARLY_NS < until_ns and self.runs()

    def _write_deadline(self, until_ns: int) -> None:
        part = self.directory / "deadline.part"
        part.write_bytes(struct.pack(">q", until_ns))
        part.rename(self.directory / "deadline")  # whole or not at all

    # ------------------------------------------------------------------ machines

    def guard(self, vm_id: str) -> None:
        uuid = domain_uuid(vm_id)
        (self.directory / "killed" / uuid).unlink(missing_ok=True)
        (self.directory / "guarded" / uuid).touch()

    def release(self, vm_id: str) -> None:
        """The machine is surely not here any more."""
        (self.directory / "guarded" / domain_uuid(vm_id)).unlink(missing_ok=True)

    def guards(self, vm_id: str) -> bool:
        return (self.directory / "guarded" / domain_uuid(vm_id)).exists()

    def has_killed(self, vm_id: str) -> bool:
        """Whether it was this watchdog that ended the machine."""
        return (self.directory / "killed" / domain_uuid(vm_id)).exists()

    def stop(self) -> None:
        """End the process: of a host that is removed, or a test. Agents that end leave it."""
        (self.directory / "stop").touch()
        deadline_s = time.monotonic() + STARTED_WITHIN_S
        while self.runs() and time.monotonic() < deadline_s:
            time.sleep(LOOK_S)
