"""One host's watchdog, as its agent sees it: a process that it starts, tells deadlines, and cannot hold back.

Rules:
1. `armed` is true only while a watchdog process looks at this host and would not strike now. A process that is there
   and does not look (stopped, or starved) counts as none, and is replaced.
2. A machine is guarded before it is started, and until it is surely gone.
3. An agent that is started anew finds the process of its predecessor and goes on with it. Where it was killed, a new
   one goes on with the deadline that stands; where nothing stands, nothing is armed until a renewal.
4. A deadline is never stretched by what happens while it is passed on: CLOCK_BOOTTIME is read first, the owner's clock
   after it.
5. A host that was suspended is never armed again by the same agent. Its renewals were answered on a clock that stood
   still, and its keeper believes in leases that others may have taken meanwhile; the agent's next process asks anew.

The bound of docs/leases.md wants that all leased machines have ended when the deadline passes: the process ends them
early by `EARLY_NS`.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from hypervisor_backends import watchdog_process
from hypervisor_backends.domain_metadata import domain_uuid
from olvm.model.errors import OlvmError

log = logging.getLogger("olvm.watchdog")

PROGRAM = Path(watchdog_process.__file__)
STARTED_WITHIN_S = 10.0
LOOK_S = 0.01
MARKS = ("guarded", "condemned", "killed")
BEAT_WITHIN_NS = 3_000_000_000  # thirty times its period; a busy computer delays it
SUSPENDED_NS_MIN = 50_000_000  # below it, two clocks were read apart


class HostWatchdog:
    """`clock_ns` is the owner's clock, on which deadlines are given; `root` is where the host's files are seen.

    `device` is the computer's own watchdog, as in /dev/watchdog, which restarts it when the process ends without being
    asked to, or cannot end a machine; empty: none.

    Raises `OlvmError` when its directory cannot be made or the process does not start. Blocks until it has.
    """

    def __init__(
        self,
        host: str,
        directory: Path,
        clock_ns: Callable[[], int],
        *,
        root: str = "/",
        device: str = "",
    ) -> None:
        self._host = host
        self.directory = directory / host
        self._clock_ns = clock_ns
        self._device = device
        self._awake_ns = _suspended_so_far_ns()[1]  # the least that it was at most, since this agent began
        self._was_suspended = False
        first = "/proc/self" if root == "/" else f"{root}/proc/1"
        try:
            self._namespace = str(Path(first, "ns/pid").readlink())
            for name in MARKS:
                (self.directory / name).mkdir(mode=0o700, parents=True, exist_ok=True)
            (self.directory / "stop").unlink(missing_ok=True)
        except OSError as error:
            raise OlvmError(f"the watchdog of host {host} cannot be set up: {error}") from error
        self._start()

    # ------------------------------------------------------------------ the process

    def _start(self) -> None:
        if self.runs():
            return
        self._end_predecessor()
        command = [
            sys.executable,
            "-I",
            "-S",
            str(PROGRAM),
            str(self.directory),
            self._namespace,
            self._device,
        ]
        subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=STARTED_WITHIN_S,
            check=False,
            cwd="/",
            env={},
        )
        deadline_s = time.monotonic() + STARTED_WITHIN_S
        while not self.runs():
            if time.monotonic() > deadline_s:
                words = f"the watchdog process of host {self._host} did not start; try {' '.join(command)}"
                raise OlvmError(words)
            time.sleep(LOOK_S)

    def _end_predecessor(self) -> None:
        """One that does not look any more, or that looks at an earlier boot of a host in namespaces."""
        pid = int(self._read("pid") or b"0")
        if self._is_locked() and pid and str(self.directory) in _command_line(pid):
            log.warning(
                "the watchdog process %d of host %s does not look any more and is replaced", pid, self._host
            )
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            deadline_s = time.monotonic() + STARTED_WITHIN_S
            while self._is_locked() and time.monotonic() < deadline_s:
                time.sleep(LOOK_S)
        looked_at = self._read("namespace").decode(errors="replace")
        if looked_at not in ("", self._namespace):
            watchdog_process.condemn(str(self.directory))
            watchdog_process.end_condemned(str(self.directory), looked_at)
            for name in MARKS:
                for path in (self.directory / name).iterdir():
                    path.unlink()
            (self.directory / "deadline").unlink(missing_ok=True)

    def runs(self) -> bool:
        """Whether a watchdog process looks at this host. Cost: some ten system calls, none of which waits."""
        if self._read("namespace").decode(errors="replace") != self._namespace or not self._is_locked():
            return False
        try:
            (beat_ns,) = watchdog_process.BEAT.unpack(self._read("beat"))
        except struct.error:
            return False
        return bool(watchdog_process.boottime_ns() - beat_ns < BEAT_WITHIN_NS)

    def _is_locked(self) -> bool:
        """Asked without taking it: a process that starts must not find it taken by a question."""
        try:
            descriptor = os.open(self.directory / "lock", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            found = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, watchdog_process.WHOLE_FILE)
        finally:
            os.close(descriptor)
        return bool(struct.unpack_from("h", found)[0] != fcntl.F_UNLCK)

    def _read(self, name: str) -> bytes:
        try:
            return (self.directory / name).read_bytes()
        except OSError:
            return b""

    # ------------------------------------------------------------------ deadlines

    def arm(self, deadline_ns: int) -> bool:
        """Raise the deadline; an earlier one than the present changes nothing. False: not armed; `problem` says why.

        A process that was killed is started again here, which blocks for as long as that takes.
        """
        until_ns = watchdog_process.boottime_ns() - self._clock_ns() + deadline_ns
        if self._has_been_suspended():
            return False
        standing_ns = watchdog_process.deadline_ns(str(self.directory))
        if watchdog_process.boottime_ns() >= standing_ns:
            # The process has done it already, unless it was killed or starved: others may have judged this host dead,
            # and no machine of before may live on under the new deadline.
            watchdog_process.condemn(str(self.directory))
        if until_ns > standing_ns:
            self._write_deadline(until_ns)
        if not self.runs():
            log.warning("the watchdog process of host %s is gone; another one is started", self._host)
            self._start()
        return self.armed()

    def armed(self) -> bool:
        if self._has_been_suspended():
            return False
        until_ns = watchdog_process.deadline_ns(str(self.directory))
        return watchdog_process.boottime_ns() + watchdog_process.EARLY_NS < until_ns and self.runs()

    @property
    def problem(self) -> str:
        """Why it is not armed; empty when it is."""
        if self.armed():
            return ""
        if self._was_suspended:
            return f"host {self._host} was suspended, which voids its leases; restart its agent, and keep it awake"
        if not self.runs():
            return (
                f"the watchdog process of host {self._host} does not run; it is started with the next renewal"
            )
        return f"no renewal of host {self._host}'s lease is young enough"

    @property
    def has_hardware(self) -> bool:
        """Whether the computer's own watchdog was asked for and is there."""
        return bool(self._device) and os.path.exists(self._device)

    def _has_been_suspended(self) -> bool:
        least_ns, most_ns = _suspended_so_far_ns()
        self._was_suspended |= least_ns > self._awake_ns + SUSPENDED_NS_MIN
        self._awake_ns = min(self._awake_ns, most_ns)
        return self._was_suspended

    def _write_deadline(self, until_ns: int) -> None:
        part = self.directory / "deadline.part"
        part.write_bytes(watchdog_process.DEADLINE.pack(until_ns, watchdog_process.boot_id()))
        part.rename(self.directory / "deadline")  # whole or not at all

    # ------------------------------------------------------------------ machines

    def guard(self, vm_id: str) -> None:
        """Before it is started, or when it is found running: then one that a deadline condemned stays condemned."""
        uuid = domain_uuid(vm_id)
        (self.directory / "guarded" / uuid).touch()
        if self._is_marked("condemned", uuid) and not any(watchdog_process.qemus({uuid}, self._namespace)):
            self._unmark("condemned", uuid)
            self._unmark("killed", uuid)

    def release(self, vm_id: str) -> None:
        """The machine is surely not here any more."""
        self._unmark("guarded", domain_uuid(vm_id))
        self._unmark("condemned", domain_uuid(vm_id))

    def guards(self, vm_id: str) -> bool:
        uuid = domain_uuid(vm_id)
        return self._is_marked("guarded", uuid) or self._is_marked("condemned", uuid)

    def has_killed(self, vm_id: str) -> bool:
        """Whether it was this watchdog that ended the machine."""
        return self._is_marked("killed", domain_uuid(vm_id))

    def _is_marked(self, kind: str, uuid: str) -> bool:
        return (self.directory / kind / uuid).exists()

    def _unmark(self, kind: str, uuid: str) -> None:
        (self.directory / kind / uuid).unlink(missing_ok=True)

    def stop(self) -> None:
        """End the process: of a host that is removed, or a test. Agents that end leave it."""
        (self.directory / "stop").touch()
        deadline_s = time.monotonic() + STARTED_WITHIN_S
        while self._is_locked() and time.monotonic() < deadline_s:
            time.sleep(LOOK_S)


def _suspended_so_far_ns() -> tuple[int, int]:
    """At least and at most how long the computer was suspended since its boot: two clocks cannot be read at once."""
    before_ns = time.monotonic_ns()
    boot_ns = watchdog_process.boottime_ns()
    after_ns = time.monotonic_ns()
    return boot_ns - after_ns, boot_ns - before_ns


def _command_line(pid: int) -> list[str]:
    try:
        data = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    return data.decode(errors="replace").split("\0")
