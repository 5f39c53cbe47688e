"""One libvirt host of a laboratory: its power, its network, its daemons, and what runs on it.

Its first process is killed and the host has lost its power: everything else in its process namespace ends with it. It
is found by its command line, so that any process can switch it off, whoever booted it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from olvm.lab import cables, cgroups, commands, lockspace
from olvm.lab.commands import command_line, kill, namespace_of, processes, program, run, runs
from olvm.lab.lockspace import LOCKSPACE
from olvm.model.errors import OlvmError

if TYPE_CHECKING:
    from olvm.lab.hosts import Lab

HOST_INIT = Path(__file__).with_name("host_init.sh")
FENCE_AGENTS = Path(__file__).with_name("fence_agents")
UP_WITHIN_S = 30.0
JOINED_WITHIN_S = 30.0
JOINING_POLL_S = 0.2
GONE_WITHIN_S = 30.0
POLL_S = 0.02
KILL_ROUNDS_MAX = 20
# What libvirtd and virtlockd are started by, so that their machines' processes are counted as the host's.
IN_CGROUP = "for f in /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/*/cgroup.procs; do [ ! -e $f ] || echo $$ > $f; done; "

Setting = str | int | float | bool


class LabHost:
    """One host. `uri` works from outside; what needs its network runs by `run` or in the fabric."""

    def __init__(self, lab: Lab, number: int) -> None:
        self._lab = lab
        self.name = f"h{number}"
        self.number = number
        self.uuid = str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{self.name}.{lab.name}.olvm"))
        self.address = f"{lab.subnet}.{number}"
        self.directory = lab.directory / self.name
        self.namespace = f"{cables.PREFIX}{lab.name}-{self.name}"
        self._cable = cables.Cable(lab.fabric, self.namespace, number, self.address)
        self._boot_script: str | None = None  # None: whatever lies in its directory
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"qemu+unix:///system?socket={self._socket}"

    @property
    def _socket(self) -> Path:
        return self.directory / "run" / "libvirt" / "libvirt-sock"

    @property
    def migration_uri(self) -> str:
        return f"qemu+tcp://{self.address}/system"

    @property
    def root(self) -> Path:
        """Where its files are seen from outside, while it is on: `/proc/<its first process>/root`."""
        return Path(f"/proc/{self.init_pid}/root")

    @property
    def settings(self) -> dict[str, Setting]:
        """What its libvirt backend is given by a process outside. Its watchdog ends with the laboratory's directory."""
        outer = {
            "uri": self.uri,
            "root": str(self.root),
            "watchdog_directory": str(self._lab.directory / "watchdog"),
        }
        return {**outer, **self.inner_settings}

    @property
    def inner_settings(self) -> dict[str, Setting]:
        """What its libvirt backend is given by a process on it."""
        shared = self._lab.shared
        return {
            "migration_uri": self.migration_uri,
            "lock_manager": self._lab.lock_manager,
            "lease_directory": str(shared / "leases"),
            "saved_memory_directory": str(shared / "saved"),
            "pool_directory": str(shared / "images"),
            "vnc_listen": "0.0.0.0",  # noqa: S104 - of a namespace that nothing else reaches
        }

    # ------------------------------------------------------------------ power

    @property
    def init_pid(self) -> int:
        """Its first process, by this machine's number. Raises `OlvmError` when it is off."""
        pid = self._find_init()
        if pid is None:
            raise OlvmError(f"laboratory host {self.name} is off; boot it first")
        return pid

    @property
    def is_on(self) -> bool:
        return self._find_init() is not None

    def _find_init(self) -> int | None:
        """By its file when that is right, else by looking at everything: whoever booted it may have been killed."""
        try:
            pid = int((self.directory / "pid").read_text())
        except (OSError, ValueError):
            pid = 0
        if self._is_init(pid):
            return pid
        return next((pid for pid in processes() if self._is_init(pid)), None)

    def _is_init(self, pid: int) -> bool:
        words = command_line(pid)
        if str(HOST_INIT) not in words or str(self.directory) not in words:
            return False
        return namespace_of(pid, "pid") not in ("", namespace_of(os.getpid(), "pid"))

    def boot(self) -> None:
        """Raises `OlvmError` when it is on already, or does not come up."""
        with self._switching():
            if self.is_on:
                raise OlvmError(f"laboratory host {self.name} is on already")
            self._reap()
            self._cable.plug()
            for stale in (self.directory / "pid", self.directory / "run" / "ready"):
                stale.unlink(missing_ok=True)
            self._write_settings()
            with (self.directory / "init.log").open("ab") as log:
                self._process = subprocess.Popen(
                    [
                        # Not by `ip netns exec`: that hides /sys/fs/cgroup, which the host enters.
                        "nsenter", f"--net=/run/netns/{self.namespace}", "unshare", "-muip", "--fork", "--kill-child",
                        "bash", str(HOST_INIT), self.name, self.uuid, self.address, str(self.directory),
                    ],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd="/", start_new_session=True,
                )  # fmt: skip
            self._wait_until_up()

    @contextmanager
    def _switching(self) -> Iterator[None]:
        """One at a time, for the power switch is another process."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / "power.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _write_settings(self) -> None:
        everyone = "\n".join(f"{host.address} {host.name}" for host in self._lab.hosts.values())
        lines = {
            "LAB": str(self._lab.directory),
            "LOCK_MANAGER": self._lab.lock_manager,
            "LOCKSPACE": str(self._lab.shared / "leases" / LOCKSPACE),
            "SANLOCK_LIMITS": str(lockspace.limits_of(self._lab.directory)),
            "SANLOCK_LOCKSPACE": lockspace.named(self._lab.shared / "leases", self.number),
            "CGROUPS": " ".join(cgroups.hierarchies()),
            "CGROUP": self.namespace,
            "FENCE_AGENTS": str(FENCE_AGENTS),
            "ALL_HOSTS": everyone,
        }
        text = "".join(f"{key}='{value}'\n" for key, value in lines.items())
        (self.directory / "settings").write_text(text)
        if self._boot_script is not None:
            script = self.directory / "boot"
            script.write_text(self._boot_script)
            script.chmod(0o755 if self._boot_script else 0o644)

    def _wait_until_up(self) -> None:
        assert self._process is not None
        deadline_s = time.monotonic() + UP_WITHIN_S
        while not ((self.directory / "run" / "ready").exists() and self._socket.exists()):
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                said = (self.directory / "init.log").read_text(errors="replace")[-800:]
                raise OlvmError(f"laboratory host {self.name} did not come up: {said}")
            time.sleep(POLL_S)
        (self.directory / "pid").write_text(str(self.init_pid))

    def wait_until_joined(self) -> None:
        """Under sanlock a host that is up takes leases only seconds later, once it has joined the lockspace."""
        if self._lab.lock_manager != "sanlock":
            return
        deadline_s = time.monotonic() + JOINED_WITHIN_S
        name = lockspace.named(self._lab.shared / "leases", self.number)
        while "done 0" not in self.run(["sanlock", "client", "inq_lockspace", "-s", name], check=False):
            if time.monotonic() > deadline_s:
                said = (self.directory / "init.log").read_text(errors="replace")[-800:]
                raise OlvmError(f"laboratory host {self.name} did not join the lockspace of sanlock: {said}")
            time.sleep(JOINING_POLL_S)

    def crash(self) -> None:
        """A power failure: every process of it ends at once. Without effect while it is off."""
        if not self.directory.exists():
            self._reap()
            return
        with self._switching():
            pid = self._find_init()
            if pid is not None:
                namespace = namespace_of(pid, "pid")
                kill([pid], GONE_WITHIN_S)
                self._wait_until_gone(namespace)
                (self.directory / "pid").unlink(missing_ok=True)
            self._reap()

    def _wait_until_gone(self, namespace: str) -> None:
        deadline_s = time.monotonic() + GONE_WITHIN_S
        while left := [one for one in processes() if namespace_of(one, "pid") == namespace and runs(one)]:
            if time.monotonic() > deadline_s:
                names = ", ".join(f"{program(one)} ({one})" for one in left)
                raise OlvmError(f"of laboratory host {self.name} are left after its power failure: {names}")
            time.sleep(POLL_S)

    def _reap(self) -> None:
        """The process that this one started it by; it ends with the host, whoever switched that off."""
        if self._process is not None:
            self._process.kill()  # it ends by itself, unless the host never came so far
            self._process.wait(timeout=GONE_WITHIN_S)
            self._process = None

    # ------------------------------------------------------------------ network

    def cut_network(self) -> None:
        self._cable.cut()

    def mend_network(self) -> None:
        self._cable.mend()

    # ------------------------------------------------------------------ inside

    def inside(self, command: Sequence[str]) -> list[str]:
        """The command that runs `command` in all its namespaces."""
        flags = ["-m", "-u", "-i", "-p", "-n"] + (["-C"] if cgroups.hierarchies() else [])
        return ["nsenter", "-t", str(self.init_pid), *flags, "--", *command]

    def run(
        self, command: Sequence[str], *, check: bool = True, timeout_s: float = commands.TIMEOUT_S
    ) -> str:
        """What it printed. Raises `OlvmError` when it failed and `check` is set, or did not end."""
        return run(self.inside(command), check=check, timeout_s=timeout_s)

    def popen(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """Started and left running, with pipes; the caller waits for it. It ends with the host at the latest."""
        pipe = subprocess.PIPE
        return subprocess.Popen(self.inside(command), stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT)

    def pids(self, name: str) -> list[int]:
        """Its processes whose program begins so, by this machine's numbers; one that has ended and waits to be asked
        for by its parent is none."""
        namespace = namespace_of(self.init_pid, "pid")
        return sorted(
            pid
            for pid in processes()
            if namespace_of(pid, "pid") == namespace and program(pid).startswith(name) and runs(pid)
        )

    def qemu_pid(self, domain_uuid: str) -> int:
        """Raises `OlvmError` when no QEMU of that machine runs here."""
        for pid in self.pids("qemu"):
            if domain_uuid in command_line(pid):
                return pid
        raise OlvmError(f"laboratory host {self.name} runs no QEMU of domain {domain_uuid}")

    def kill_libvirtd(self) -> None:
        self._kill_all("libvirtd")

    def start_libvirtd(self) -> None:
        """Answers when it can be connected to."""
        self._start_daemon("libvirtd -l -d")
        deadline_s = time.monotonic() + UP_WITHIN_S
        while not self._socket.exists():
            if time.monotonic() > deadline_s:
                raise OlvmError(f"libvirtd of laboratory host {self.name} did not come up")
            time.sleep(POLL_S)

    def kill_lock_daemon(self) -> None:
        self._kill_all("sanlock" if self._lab.lock_manager == "sanlock" else "virtlockd")

    def start_lock_daemon(self) -> None:
        """virtlockd alone; under sanlock the host boots anew."""
        self._start_daemon("virtlockd -d")

    def _kill_all(self, name: str) -> None:
        """It may be about to start a program, by a child that is called as it is itself."""
        for _ in range(KILL_ROUNDS_MAX):
            if not (pids := self.pids(name)):
                return
            kill(pids, GONE_WITHIN_S)
        raise OlvmError(f"{name} of laboratory host {self.name} cannot be killed")

    def _start_daemon(self, command: str) -> None:
        self.run(["sh", "-c", f"{IN_CGROUP}exec {command}"])

    def set_boot_script(self, text: str) -> None:
        """What it runs at each boot from now on, beside libvirt's daemons; empty: nothing."""
        self._boot_script = text

    def mend(self) -> None:
        """Give back what was taken from it: power, network, daemons. Machines are left as they are."""
        if not self.is_on:
            self.boot()
        self.mend_network()
        if self._lab.lock_manager == "sanlock" and not self.pids("sanlock"):
            self.crash()  # its daemon does not come back to machines that it has let go of
            self.boot()
        self.wait_until_joined()
        if self._lab.lock_manager == "lockd" and not self.pids("virtlockd"):
            # libvirtd tells it of its lockspace when it starts, and at no other time.
            self.kill_libvirtd()
            self.start_lock_daemon()
        if not self.pids("libvirtd"):
            self.start_libvirtd()

    def remove(self) -> None:
        """Power, cables, cgroups and files of it."""
        self.crash()
        kill(cables.processes_of(self.namespace), GONE_WITHIN_S)
        self._cable.remove()
        cgroups.remove(self.namespace)
        shutil.rmtree(self.directory, ignore_errors=True)
