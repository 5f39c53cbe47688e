"""Two or more libvirt hosts on one machine, each in namespaces of its own, with a network and a storage between them.

A host is a process tree: its first process is killed and the host has lost its power. What survives is what lies in its
directory, as on a disk. The laboratory is root's and leaves nothing: namespaces, processes, mounts, cgroups, files.

The uplink's and the bridge's hardware addresses are pinned. A bridge takes the lowest address of its ports, and a
migrating machine's tap has the same one on both hosts: they would answer each other's packets themselves.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from olvm.lab import commands
from olvm.lab.commands import command_line, namespace_of, processes, program, run
from olvm.model.errors import BadInput, OlvmError

HOST_INIT = Path(__file__).with_name("host_init.sh")
CGROUP_ROOT = Path("/sys/fs/cgroup")
CGROUPS = ("cpu", "cpuacct", "cpuset", "memory", "blkio", "freezer", "devices", "pids")
UP_WITHIN_S = 30.0
GONE_WITHIN_S = 15.0
POLL_S = 0.02
HOSTS_MAX = 8
LOCKSPACE = "area"


class LabHost:
    """One host. `uri` works from outside; what needs its network runs by `run` or in the fabric."""

    def __init__(self, lab: Lab, number: int) -> None:
        self._lab = lab
        self.name = f"h{number}"
        self.address = f"{lab.subnet}.{number}"
        self.directory = lab.directory / self.name
        self.namespace = f"olvm-{lab.name}-{self.name}"
        self._link = f"ov{lab.tag}{number}"
        self._mac = f"02:6f:{int(lab.tag[:2], 16):02x}:{int(lab.tag[2:], 16):02x}:00:{number:02x}"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"qemu+unix:///system?socket={self.directory}/run/libvirt/libvirt-sock"

    @property
    def migration_uri(self) -> str:
        return f"qemu+tcp://{self.address}/system"

    @property
    def root(self) -> Path:
        """Where its files are seen from outside, while it is on."""
        return Path(f"/proc/{self.init_pid}/root")

    @property
    def settings(self) -> dict[str, str | int | float | bool]:
        """What its libvirt backend is given by a process outside."""
        return {"uri": self.uri, "root": str(self.root), **self.inner_settings}

    @property
    def inner_settings(self) -> dict[str, str | int | float | bool]:
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
        pid = self._recorded_pid()
        if pid is None:
            raise OlvmError(f"laboratory host {self.name} is off; boot it first")
        return pid

    @property
    def is_on(self) -> bool:
        return self._recorded_pid() is not None

    def _recorded_pid(self) -> int | None:
        try:
            pid = int((self.directory / "pid").read_text())
        except (OSError, ValueError):
            return None
        return pid if str(self.directory) in command_line(pid) and namespace_of(pid, "pid") else None

    def boot(self) -> None:
        """Raises `OlvmError` when it is on already, or does not come up."""
        if self.is_on:
            raise OlvmError(f"laboratory host {self.name} is on already")
        self.directory.mkdir(parents=True, exist_ok=True)
        self._wire()
        for stale in (self.directory / "pid", self.directory / "run" / "ready"):
            stale.unlink(missing_ok=True)
        self._write_settings()
        flags = "-muipC" if self._lab.cgroups else "-muip"
        number = uuid.uuid5(uuid.NAMESPACE_DNS, f"{self.name}.{self._lab.name}.olvm")
        with (self.directory / "init.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    "ip", "netns", "exec", self.namespace, "unshare", flags, "--fork", "--kill-child",
                    str(HOST_INIT), self.name, str(number), self.address, str(self.directory),
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                preexec_fn=self._enter_cgroups if self._lab.cgroups else None,  # noqa: PLW1509 - no thread holds a lock here
            )  # fmt: skip
        self._wait_until_up()

    def _write_settings(self) -> None:
        everyone = "\n".join(f"{self._lab.subnet}.{n} h{n}" for n in range(1, self._lab.count + 1))
        lines = {
            "LOCK_MANAGER": self._lab.lock_manager,
            "LOCKSPACE": str(self._lab.shared / "leases" / LOCKSPACE),
            "CGROUPS": " ".join(self._lab.cgroups),
            "ALL_HOSTS": everyone,
        }
        text = "".join(f"{key}='{value}'\n" for key, value in lines.items())
        (self.directory / "settings").write_text(text)

    def _enter_cgroups(self) -> None:
        """In the child, before it gets namespaces: what it is in then is the root of its own."""
        for path in self._cgroup_paths():
            path.mkdir(parents=True, exist_ok=True)
            if path.parent.name == "cpuset":
                for name in ("cpuset.cpus", "cpuset.mems"):
                    (path / name).write_text((path.parent / name).read_text())
            (path / "cgroup.procs").write_text(str(os.getpid()))

    def _cgroup_paths(self) -> list[Path]:
        return [CGROUP_ROOT / controller / self.namespace for controller in self._lab.cgroups]

    def _wait_until_up(self) -> None:
        assert self._process is not None
        deadline_s = time.monotonic() + UP_WITHIN_S
        socket = self.directory / "run" / "libvirt" / "libvirt-sock"
        while not ((self.directory / "run" / "ready").exists() and socket.exists()):
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                said = (self.directory / "init.log").read_text(errors="replace")[-800:]
                raise OlvmError(f"laboratory host {self.name} did not come up: {said}")
            time.sleep(POLL_S)
        pid = next(pid for pid in processes() if self._is_init(pid))
        (self.directory / "pid").write_text(str(pid))

    def _is_init(self, pid: int) -> bool:
        words = command_line(pid)
        inside = namespace_of(pid, "pid") not in ("", namespace_of(os.getpid(), "pid"))
        return inside and str(HOST_INIT) in words and str(self.directory) in words

    def crash(self) -> None:
        """A power failure: every process of it ends at once. Without effect while it is off."""
        pid = self._recorded_pid()
        if pid is None:
            return
        namespace = namespace_of(pid, "pid")
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        if self._process is not None:
            self._process.wait(timeout=GONE_WITHIN_S)
            self._process = None
        deadline_s = time.monotonic() + GONE_WITHIN_S
        while any(namespace_of(one, "pid") == namespace for one in processes()):
            if time.monotonic() > deadline_s:
                raise OlvmError(f"processes of laboratory host {self.name} are left after its power failure")
            time.sleep(POLL_S)
        (self.directory / "pid").unlink(missing_ok=True)

    # ------------------------------------------------------------------ network

    def _wire(self) -> None:
        if self.namespace in run(["ip", "netns", "list"]).split():
            return
        fabric, host = ["ip", "-n", self._lab.fabric], ["ip", "-n", self.namespace]
        run(["ip", "netns", "add", self.namespace])
        run(
            [
                *fabric,
                "link",
                "add",
                self._link,
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                self.namespace,
            ]
        )
        run([*fabric, "link", "set", self._link, "master", "br0", "up"])
        run([*host, "link", "set", "eth0", "address", self._mac])
        run([*host, "link", "add", "br0", "address", self._mac, "type", "bridge", "forward_delay", "0"])
        run([*host, "link", "set", "eth0", "master", "br0", "up"])
        run([*host, "link", "set", "br0", "up"])
        run([*host, "link", "set", "lo", "up"])
        run([*host, "addr", "add", f"{self.address}/24", "dev", "br0"])

    def cut_network(self) -> None:
        run(["ip", "-n", self._lab.fabric, "link", "set", self._link, "down"])

    def mend_network(self) -> None:
        run(["ip", "-n", self._lab.fabric, "link", "set", self._link, "up"])

    # ------------------------------------------------------------------ inside

    def inside(self, command: Sequence[str]) -> list[str]:
        """The command that runs `command` in all its namespaces."""
        flags = ["-m", "-u", "-i", "-p", "-n"] + (["-C"] if self._lab.cgroups else [])
        return ["nsenter", "-t", str(self.init_pid), *flags, *command]

    def run(
        self, command: Sequence[str], *, check: bool = True, timeout_s: float = commands.TIMEOUT_S
    ) -> str:
        return run(self.inside(command), check=check, timeout_s=timeout_s)

    def pids(self, name: str) -> list[int]:
        """Its processes whose program begins so, by this machine's numbers."""
        namespace = namespace_of(self.init_pid, "pid")
        return sorted(
            pid
            for pid in processes()
            if namespace_of(pid, "pid") == namespace and program(pid).startswith(name)
        )

    def qemu_pid(self, domain_uuid: str) -> int:
        """Raises `OlvmError` when no QEMU of that machine runs here."""
        for pid in self.pids("qemu"):
            if domain_uuid in command_line(pid):
                return pid
        raise OlvmError(f"laboratory host {self.name} runs no QEMU of domain {domain_uuid}")

    def kill_libvirtd(self) -> None:
        _kill(self.pids("libvirtd"))

    def start_libvirtd(self) -> None:
        self.run(["libvirtd", "-l", "-d"])

    def kill_lock_daemon(self) -> None:
        _kill(self.pids("virtlockd"))

    def start_lock_daemon(self) -> None:
        self.run(["virtlockd", "-d"])

    def set_boot_script(self, text: str) -> None:
        """What it runs at each boot from now on, beside libvirt's daemons."""
        self.directory.mkdir(parents=True, exist_ok=True)
        script = self.directory / "boot"
        script.write_text(text)
        script.chmod(0o755)

    def remove(self) -> None:
        """Power, cables, cgroups and files of it."""
        self.crash()
        run(
            ["ip", "-n", self._lab.fabric, "link", "del", self._link], check=False
        )  # its end would be asynchronous
        run(["ip", "netns", "del", self.namespace], check=False)
        for path in self._cgroup_paths():
            for directory in sorted(path.glob("**/"), key=lambda one: -len(one.parts)):
                with contextlib.suppress(OSError):
                    directory.rmdir()
        shutil.rmtree(self.directory, ignore_errors=True)


class Lab:
    """A context, or `up` and `close`. `name` is at most eight small letters and digits; `subnet` three numbers, as in
    10.99.7: both must differ from those of other laboratories on this machine.

    `lock_manager` is "lockd" or empty. Raises `BadInput`, and `OlvmError` when the machine does not let it be made.
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
        if not (name.isalnum() and name.islower() and len(name) <= 8):
            raise BadInput(f"laboratory {name!r}: its name is at most eight small letters and digits")
        if not 1 <= hosts <= HOSTS_MAX:
            raise BadInput(f"laboratory {name}: 1 to {HOSTS_MAX} hosts, got {hosts}")
        self.name = name
        self.tag = f"{uuid.uuid5(uuid.NAMESPACE_DNS, name).int & 0xFFFF:04x}"
        self.directory = directory.absolute()
        self.subnet = subnet
        self.count = hosts
        self.lock_manager = lock_manager
        self.fabric = f"olvm-{name}-fab"
        self.shared = self.directory / "shared"
        self.cgroups = CGROUPS if all((CGROUP_ROOT / one).is_dir() for one in CGROUPS) else ()
        self.hosts = {host.name: host for host in (LabHost(self, n) for n in range(1, hosts + 1))}

    def host(self, name: str) -> LabHost:
        return self.hosts[name]

    def up(self) -> None:
        """Boot all hosts. What a killed predecessor of the same name and directory left is removed first."""
        self.close()
        self.directory.mkdir(parents=True, exist_ok=True)
        self._share()
        self._weave()
        for host in self.hosts.values():
            host.boot()

    def _share(self) -> None:
        """A directory that libvirt takes for a shared file system: FUSE that calls itself GlusterFS."""
        real = self.directory / "storage"
        for name in (f"leases/{LOCKSPACE}", "images", "saved"):
            (real / name).mkdir(parents=True, exist_ok=True)
        self.shared.mkdir(exist_ok=True)
        run(["bindfs", "-o", "subtype=glusterfs,allow_other", str(real), str(self.shared)])

    def _weave(self) -> None:
        fabric = ["ip", "-n", self.fabric]
        run(["ip", "netns", "add", self.fabric])
        run([*fabric, "link", "set", "lo", "up"])
        run([*fabric, "link", "add", "br0", "type", "bridge", "forward_delay", "0"])
        run([*fabric, "addr", "add", f"{self.subnet}.254/24", "dev", "br0"])
        run([*fabric, "link", "set", "br0", "up"])

    def run_in_fabric(self, command: Sequence[str], *, check: bool = True) -> str:
        return run(["ip", "netns", "exec", self.fabric, *command], check=check)

    def fence_device(self, host: str) -> dict[str, str | int | float | bool]:
        """What switches that host's power, for `hosts.add(fence_devices=…)`."""
        return {"type": "fence_olvm_lab", "plug": host, "ip": str(self.directory / "power.sock")}

    def leftovers(self) -> list[str]:
        """What of it is still there; empty after `close`."""
        found = [
            name for name in run(["ip", "netns", "list"]).split() if name.startswith(f"olvm-{self.name}-")
        ]
        found += [
            line.split()[1]
            for line in Path("/proc/mounts").read_text().splitlines()
            if str(self.directory) in line
        ]
        found += [
            f"process {pid} ({program(pid)})" for pid in processes() if str(HOST_INIT) in command_line(pid)
            and any(str(self.directory) in word for word in command_line(pid))
        ]  # fmt: skip
        found += [str(path) for path in CGROUP_ROOT.glob(f"*/olvm-{self.name}-*")]
        return found

    def close(self) -> None:
        """Leave nothing. Idempotent."""
        for host in self.hosts.values():
            host.remove()
        _kill(_of_namespace(self.fabric))
        run(["ip", "netns", "del", self.fabric], check=False)
        if os.path.ismount(self.shared):
            run(["umount", str(self.shared)], check=False)
            if os.path.ismount(self.shared):
                run(["umount", "-l", str(self.shared)], check=False)
        shutil.rmtree(self.directory, ignore_errors=True)

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


def _of_namespace(name: str) -> list[int]:
    said = run(["ip", "netns", "pids", name], check=False)
    return [int(word) for word in said.split() if word.isdecimal() and int(word) != os.getpid()]


def _kill(pids: Sequence[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    deadline_s = time.monotonic() + GONE_WITHIN_S
    while any(_runs(pid) for pid in pids) and time.monotonic() < deadline_s:
        time.sleep(POLL_S)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
