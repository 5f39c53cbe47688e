"""Two or more libvirt hosts on one machine, each in namespaces of its own, with a network and a storage between them.

A host is a process tree (`host.py`): what survives the loss of its power is what lies in its directory, as on a disk.
The laboratory is root's and leaves nothing: namespaces, processes, mounts, cgroups, files.

What it is stands in its directory (`lab.json`, and each host's process by its command line), so that another process
can switch its hosts or clear it away: `Lab.found`. Its power switch (`power_switch.py`) is such a process; it clears
the laboratory away when the one that made it ends, however that ends.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import msgspec

from olvm.lab import cables, cgroups, commands, lockspace, power_switch
from olvm.lab.commands import command_line, kill, processes, program, run
from olvm.lab.host import GONE_WITHIN_S, HOST_INIT, UP_WITHIN_S, LabHost, Setting
from olvm.lab.lockspace import LOCKSPACE
from olvm.model.errors import BadInput, OlvmError

__all__ = ["Lab", "LabHost"]

DESCRIPTION = "lab.json"
HOSTS_MAX = 8


class Description(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    hosts: int
    subnet: str
    lock_manager: str


class Lab:
    """A context, or `up` and `close`. `name` is at most eight small letters and digits and differs from those of other
    laboratories on this machine; `subnet` is three numbers, as in 10.99.7.

    `lock_manager` is "lockd", "sanlock" (without a watchdog device; a host joins in 3 s) or empty. Raises `BadInput`,
    and `OlvmError` when the machine does not let it be made.
    """

    def __init__(
        self,
        name: str,
        directory: Path,
        *,
        hosts: int = 2,
        subnet: str = "10.99.7",
        lock_manager: str = "lockd",
    ) -> None:
        if not re.fullmatch(r"[a-z0-9]{1,8}", name):
            raise BadInput(f"laboratory {name!r}: its name is at most eight small letters and digits")
        if not 1 <= hosts <= HOSTS_MAX:
            raise BadInput(f"laboratory {name}: 1 to {HOSTS_MAX} hosts, got {hosts}")
        if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,3}){2}", subnet):
            raise BadInput(f"laboratory {name}: a subnet is three numbers as in 10.99.7, got {subnet!r}")
        if lock_manager not in ("", "lockd", "sanlock"):
            raise BadInput(
                f"laboratory {name}: lock_manager is lockd, sanlock or empty, got {lock_manager!r}"
            )
        self.name = name
        self.directory = directory.absolute()
        if re.search(r"[\s'\"$`\\]", str(self.directory)):
            raise BadInput(f"laboratory {name}: its directory {self.directory} must need no quoting")
        self.subnet = subnet
        self.address = f"{subnet}.254"  # of this machine, in the fabric
        self.lock_manager = lock_manager
        self.fabric = f"{cables.PREFIX}{name}-fab"
        self.shared = self.directory / "shared"
        self.hosts = {host.name: host for host in (LabHost(self, n) for n in range(1, hosts + 1))}
        self._switch: subprocess.Popen[bytes] | None = None

    @classmethod
    def found(cls, directory: Path) -> Lab:
        """The one that somebody made there. Raises `OlvmError`."""
        try:
            said = msgspec.json.decode((directory / DESCRIPTION).read_bytes(), type=Description)
        except (OSError, msgspec.MsgspecError) as error:
            raise OlvmError(f"there is no laboratory in {directory}: {error}") from error
        return cls(said.name, directory, hosts=said.hosts, subnet=said.subnet, lock_manager=said.lock_manager)

    def host(self, name: str) -> LabHost:
        """Raises `BadInput` for a name that it has not."""
        if name not in self.hosts:
            raise BadInput(f"laboratory {self.name} has no host {name!r}; there are {', '.join(self.hosts)}")
        return self.hosts[name]

    def up(self) -> None:
        """Boot all hosts. What a killed predecessor of the same name and directory left is removed first.

        Raises:
            BadInput: the directory holds something else.
            OlvmError: the machine refused something; the message says what.
        """
        if (
            self.directory.is_dir()
            and not (self.directory / DESCRIPTION).exists()
            and any(self.directory.iterdir())
        ):
            raise BadInput(f"{self.directory} holds something that is no laboratory; name another directory")
        self.close()
        self.directory.mkdir(parents=True)
        description = Description(
            name=self.name, hosts=len(self.hosts), subnet=self.subnet, lock_manager=self.lock_manager
        )
        (self.directory / DESCRIPTION).write_bytes(msgspec.json.encode(description))
        self._switch = power_switch.start(self.directory)
        self._share()
        cables.weave(self.fabric, self.address)
        for host in self.hosts.values():
            host.boot()
        for host in self.hosts.values():
            host.wait_until_joined()
        power_switch.wait_for(self.directory, UP_WITHIN_S)

    def _share(self) -> None:
        """A directory that libvirt takes for a shared file system: FUSE that calls itself GlusterFS."""
        real = self.directory / "storage"
        for name in (f"leases/{LOCKSPACE}", "images", "saved"):
            (real / name).mkdir(parents=True, exist_ok=True)
        self.shared.mkdir(exist_ok=True)
        run(["bindfs", "-o", "subtype=glusterfs,allow_other", str(real), str(self.shared)])
        if self.lock_manager == "sanlock":
            lockspace.make(self.shared / "leases")
            lockspace.build_limits(self.directory)

    def run_in_fabric(
        self, command: Sequence[str], *, check: bool = True, timeout_s: float = commands.TIMEOUT_S
    ) -> str:
        return run(["ip", "netns", "exec", self.fabric, *command], check=check, timeout_s=timeout_s)

    def fence_device(self, host: str) -> dict[str, Setting]:
        """What switches that host's power, for `hosts.add(fence_devices=…)`. Its agent is in each host's /usr/sbin."""
        return {"type": "fence_olvm_lab", "plug": host, "ip": str(power_switch.socket_of(self.directory))}

    def leftovers(self) -> list[str]:
        """What of it is still there; empty after `close`."""
        prefix = f"{cables.PREFIX}{self.name}-"
        found = [f"namespace {name}" for name in cables.namespaces() if name.startswith(prefix)]
        found += [f"mount {path}" for path in self._mounts()]
        found += [f"process {pid} ({program(pid)})" for pid in self._processes()]
        found += [f"cgroup {path}" for path in cgroups.directories_of(f"{prefix}*")]
        return found + ([f"directory {self.directory}"] if self.directory.exists() else [])

    def _mounts(self) -> list[str]:
        points = (line.split()[1] for line in Path("/proc/mounts").read_text().splitlines())
        return [point for point in points if Path(point).is_relative_to(self.directory)]

    def _processes(self) -> list[int]:
        """That were started for it, by what stands in their command lines, and not those that merely name it."""
        ours = ("bindfs", str(HOST_INIT), power_switch.MODULE)
        directories = {
            str(self.directory),
            str(self.shared),
            *(str(host.directory) for host in self.hosts.values()),
        }
        return [
            pid
            for pid in processes()
            if (words := command_line(pid))
            and any(word in words for word in ours)
            and directories.intersection(words)
        ]

    def close(self) -> None:
        """Leave nothing. Idempotent; another process may do the same at the same time."""
        for host in self.hosts.values():
            host.remove()
        kill(cables.processes_of(self.fabric), GONE_WITHIN_S)
        run(["ip", "netns", "del", self.fabric], check=False)
        for point in self._mounts():
            run(["umount", point], check=False)
            if os.path.ismount(point):  # somebody stands in it
                run(["umount", "-l", point], check=False)
        # The switch last: whatever ends this process before, the switch goes on with it.
        if (self.directory / DESCRIPTION).exists():
            shutil.rmtree(self.directory, ignore_errors=True)
        kill([pid for pid in self._processes() if pid != os.getpid()], GONE_WITHIN_S)
        if self._switch is not None:
            self._switch.wait(timeout=GONE_WITHIN_S)
            self._switch = None

    def __enter__(self) -> Lab:
        try:
            self.up()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
