"""What this guest is and does, read from its own files: no fact is kept, none is guessed.

`root` is where the file system begins, so that tests have one of their own. A file that is missing makes a fact empty,
never an error: guests differ.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from guest_agent.addresses import addresses
from guest_agent.logind import Logind
from guest_agent.sessions import Session, read_sessions

APPLICATIONS_MAX = 10_000  # all in one line, which has a bound
RATE_S_MIN = 1.0  # a rate over less says what this agent itself just did
# Files that change when what is installed changes, and only then: of RPM's own directory that is not true.
SOFTWARE_RECORDS = (
    "var/lib/dpkg/status",
    "var/lib/rpm/rpmdb.sqlite",
    "var/lib/rpm/Packages",
    "var/lib/rpm/Packages.db",
    "usr/lib/sysimage/rpm/rpmdb.sqlite",
    "usr/lib/sysimage/rpm/Packages.db",
    "lib/apk/db/installed",
    "var/lib/flatpak/app",
)
REAL_FILESYSTEMS = frozenset(
    [
        "ext2",
        "ext3",
        "ext4",
        "xfs",
        "btrfs",
        "vfat",
        "exfat",
        "ntfs",
        "ntfs3",
        "f2fs",
        "jfs",
        "reiserfs",
        "zfs",
        "iso9660",
        "udf",
        "fuseblk",
        "bcachefs",
    ]
)


class Facts:
    def __init__(self, root: str = "/", addresses: Callable[[], list[tuple[str, str]]] = addresses) -> None:
        self._root = root
        self._addresses = addresses
        self._logind = Logind() if root == "/" else None
        self._vmstat: dict[str, int] = {}
        self._vmstat_s = 0.0
        self._rates = dict.fromkeys(("pswpin", "pswpout", "pgfault", "pgmajfault"), 0)

    def _read(self, path: str) -> str:
        try:
            with open(os.path.join(self._root, path.lstrip("/")), encoding="utf-8", errors="replace") as file:
                return file.read()
        except OSError:
            return ""

    def _list(self, path: str) -> list[str]:
        try:
            return sorted(os.listdir(os.path.join(self._root, path.lstrip("/"))))
        except OSError:
            return []

    # ------------------------------------------------------------------ memory

    def _meminfo(self) -> dict[str, int]:
        """KiB."""
        found = {}
        for line in self._read("/proc/meminfo").splitlines():
            key, _, value = line.partition(":")
            words = value.split()
            if words and words[0].isdigit():
                found[key] = int(words[0])
        return found

    def memory(self) -> dict[str, int]:
        """oVirt's memory-stat; sizes in KiB, swapping and faults a second since the last question."""
        info = self._meminfo()
        self._look_at_rates()
        unused = info.get("MemFree", 0)
        buffers, cached = info.get("Buffers", 0), info.get("Cached", 0)
        return {
            "mem_total": info.get("MemTotal", 0),
            "mem_free": info.get("MemAvailable", unused + buffers + cached),
            "mem_unused": unused,
            "mem_buffers": buffers,
            "mem_cached": cached,
            "swap_total": info.get("SwapTotal", 0),
            "swap_usage": info.get("SwapTotal", 0) - info.get("SwapFree", 0),
            "swap_in": self._rates["pswpin"],
            "swap_out": self._rates["pswpout"],
            "pageflt": self._rates["pgfault"],
            "majflt": self._rates["pgmajfault"],
        }

    def _look_at_rates(self) -> None:
        now_s = time.monotonic()
        passed_s = now_s - self._vmstat_s
        if self._vmstat and passed_s < RATE_S_MIN:
            return
        counters = {}
        for line in self._read("/proc/vmstat").splitlines():
            key, _, value = line.partition(" ")
            if key in self._rates and value.isdigit():
                counters[key] = int(value)
        for key, count in counters.items():
            if key in self._vmstat:
                self._rates[key] = max(0, int((count - self._vmstat[key]) / passed_s))
        self._vmstat, self._vmstat_s = counters, now_s

    # ------------------------------------------------------------------ who it is

    def uptime_s(self) -> float:
        words = self._read("/proc/uptime").split()
        return float(words[0]) if words and words[0].replace(".", "", 1).isdigit() else 0.0

    def boot_id(self) -> str:
        return self._read("/proc/sys/kernel/random/boot_id").strip()

    def host_name(self) -> str:
        return self._read("/proc/sys/kernel/hostname").strip() or os.uname().nodename

    def fqdn(self) -> str:
        """From /etc/hosts, as `hostname -f` finds it without asking a name server that may be away."""
        name = self.host_name()
        for line in self._read("/etc/hosts").splitlines():
            words = line.split("#", 1)[0].split()[1:]
            if name in words or any(word.split(".", 1)[0] == name for word in words):
                full = next((word for word in words if "." in word and word.split(".", 1)[0] == name), "")
                if full:
                    return full
        domain = self._read("/proc/sys/kernel/domainname").strip()
        return f"{name}.{domain}" if domain not in ("", "(none)") else name

    def os_release(self) -> dict[str, str]:
        found = {}
        for line in (self._read("/etc/os-release") or self._read("/usr/lib/os-release")).splitlines():
            key, equals, value = line.partition("=")
            if equals and not key.startswith("#"):
                found[key.strip()] = value.strip().strip("\"'")
        return found

    def os_info(self) -> dict[str, str]:
        release = self.os_release()
        return {
            "version": release.get("VERSION_ID", ""),
            "distribution": release.get("NAME", "") or os.uname().sysname,
            "codename": release.get("VERSION_CODENAME", ""),
            "arch": os.uname().machine,
            "type": "linux",
            "kernel": self._read("/proc/sys/kernel/osrelease").strip() or os.uname().release,
        }

    def timezone(self) -> tuple[str, int]:
        """Name, and minutes east of Greenwich now."""
        name = self._read("/etc/timezone").strip()
        if not name:
            try:
                target = os.readlink(os.path.join(self._root, "etc/localtime"))
                name = target.split("/zoneinfo/", 1)[1] if "/zoneinfo/" in target else ""
            except OSError:
                name = ""
        time.tzset()  # the zone may be another one since the last look
        return name or time.strftime("%Z") or "UTC", time.localtime().tm_gmtoff // 60

    def cpu_count(self) -> int:
        """Those that are online."""
        total = 0
        for part in self._read("/sys/devices/system/cpu/online").strip().split(","):
            first, _, last = part.partition("-")
            if first.isdigit():
                total += int(last or first) - int(first) + 1
        return total or os.cpu_count() or 1

    # ------------------------------------------------------------------ network

    def interfaces(self) -> list[dict[str, Any]]:
        """All cards but the loopback; IPv6 addresses are those with a colon."""
        found: dict[str, dict[str, Any]] = {}
        for name in self._list("/sys/class/net"):
            hardware = self._read(f"/sys/class/net/{name}/address").strip()
            if name != "lo" and os.path.isdir(os.path.join(self._root, "sys/class/net", name)):
                found[name] = {"name": name, "hw": hardware, "inet": [], "inet6": []}
        for name, address in self._addresses():
            if name in found:
                found[name]["inet6" if ":" in address else "inet"].append(address)
        return list(found.values())

    # ------------------------------------------------------------------ users

    def sessions(self) -> list[Session]:
        """Everybody who is logged on."""
        return read_sessions(self._root, self._logind)

    def active_user(self) -> str:
        """Of the console if somebody is there, else the first of those logged on; empty: nobody."""
        sessions = self.sessions()
        local = [one.user for one in sessions if not one.is_remote]
        return (local or [one.user for one in sessions] or [""])[0]

    # ------------------------------------------------------------------ file systems

    def mounts(self) -> list[tuple[str, str]]:
        """(path, type) of file systems that hold data, each device once."""
        found, seen = [], set()
        for line in self._read("/proc/self/mounts").splitlines():
            words = line.split(" ")
            if len(words) > 3 and words[2] in REAL_FILESYSTEMS and words[0] not in seen:
                seen.add(words[0])
                found.append((words[1].encode().decode("unicode_escape"), words[2]))
        return found

    def disks_usage(self) -> list[dict[str, Any]]:
        found = []
        for path, kind in self.mounts():
            try:
                usage = os.statvfs(path)
            except OSError:
                continue
            total = usage.f_blocks * usage.f_frsize
            used = total - usage.f_bfree * usage.f_frsize
            found.append({"path": path, "fs": kind, "total": str(total), "used": str(used)})
        return found

    def disk_mapping(self) -> dict[str, dict[str, str]]:
        """By serial: what the disk is called here."""
        found = {}
        for name in self._list("/sys/block"):
            serial = self._read(f"/sys/block/{name}/serial").strip()
            serial = serial or self._read(f"/sys/block/{name}/device/serial").strip()
            if serial:
                found[serial] = {"name": "/dev/" + name}
        return found

    # ------------------------------------------------------------------ software

    def applications_changed_s(self) -> float:
        """When the records of what is installed were last written; 0: there are none."""
        return max(self._changed_s(path) for path in SOFTWARE_RECORDS)

    def applications(self) -> list[str]:
        """name-version of what is installed, whichever manager this guest has. Slow: ask when the records changed."""
        return sorted(self._dpkg() + self._rpm() + self._apk() + self._flatpak())[:APPLICATIONS_MAX]

    def _changed_s(self, path: str) -> float:
        try:
            return os.stat(os.path.join(self._root, path)).st_mtime
        except OSError:
            return 0.0

    def _dpkg(self) -> list[str]:
        found = []
        for paragraph in self._read("/var/lib/dpkg/status").split("\n\n"):
            fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if ": " in line[:40])
            if fields.get("Status", "").endswith(" installed") and "Package" in fields:
                found.append("{}-{}".format(fields["Package"], fields.get("Version", "")))
        return found

    def _rpm(self) -> list[str]:
        if not (self._list("/var/lib/rpm") or self._list("/usr/lib/sysimage/rpm")):
            return []
        from guest_agent import programs

        return programs.lines_of(["rpm", "-qa", "--qf", "%{NAME}-%{VERSION}-%{RELEASE}\\n"])

    def _apk(self) -> list[str]:
        found = []
        for paragraph in self._read("/lib/apk/db/installed").split("\n\n"):
            fields = dict(line.split(":", 1) for line in paragraph.splitlines() if line[1:2] == ":")
            if "P" in fields:
                found.append("{}-{}".format(fields["P"], fields.get("V", "")))
        return found

    def _flatpak(self) -> list[str]:
        return [f"{name}-flatpak" for name in self._list("/var/lib/flatpak/app")]

    def containers(self) -> list[dict[str, Any]]:
        """Of Podman or Docker, if one is here and answers in time."""
        from guest_agent import programs

        shape = "{{.ID}}\t{{.Names}}\t{{.Command}}\t{{.Status}}\t{{.Image}}"
        for program in ("podman", "docker"):
            if programs.is_here(program):
                found = []
                for line in programs.lines_of([program, "ps", "--all", "--format", shape]):
                    words = (line.split("\t") + [""] * 5)[:5]
                    keys = ("id", "names", "command", "status", "image")
                    one: dict[str, Any] = dict(zip(keys, words))  # noqa: B905 - Python 3.8 has no strict
                    one["names"] = [name for name in words[1].split(",") if name]
                    found.append(one)
                return found
        return []
