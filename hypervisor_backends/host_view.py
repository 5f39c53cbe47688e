"""One machine as `host_check.py` looks at it: its files below a root, its programs, who asks; and what a finding is.

Decides how a command that mends something is written: for Debian's family with apt, for Red Hat's with dnf, with sudo
where the one who asks is not root. Changes nothing on the machine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

State = Literal["ok", "warning", "missing"]
Family = Literal["debian", "rhel", ""]

PROGRAM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/libexec"
COMMAND_TIMEOUT_S = 15.0
RHEL_WORDS = frozenset({"rhel", "fedora", "centos", "ol", "rocky", "almalinux"})
DEBIAN_WORDS = frozenset({"debian", "ubuntu"})


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """`missing`: the machine cannot be a host without it. `warning`: it can, and cannot do something.

    `mend` is one command for a shell; empty: none mends it (firmware, hardware), and `says` tells what would.
    """

    what: str
    state: State
    says: str
    mend: str = ""


class HostView(msgspec.Struct, frozen=True, kw_only=True):
    root: Path = Path("/")
    user_id: int = 0
    user: str = "root"
    groups: frozenset[str] = frozenset()
    program_path: str = PROGRAM_PATH

    # ------------------------------------------------------------ looking

    def path(self, name: str) -> Path:
        return self.root / name.lstrip("/")

    def text(self, name: str) -> str:
        """Empty where it cannot be read: what the kernel does not show is not there."""
        try:
            return self.path(name).read_text(errors="replace").strip()
        except OSError:
            return ""

    def has(self, name: str) -> bool:
        try:
            return self.path(name).exists()
        except OSError:
            return False

    def program(self, *names: str) -> str:
        """The first of them that is installed; empty: none."""
        found = (shutil.which(name, path=self.program_path) for name in names)
        return next((path for path in found if path), "")

    def run(self, command: Sequence[str], timeout_s: float = COMMAND_TIMEOUT_S) -> tuple[int | None, str]:
        """Exit code and what it said; None when it did not end in time, or cannot be run."""
        try:
            ended = subprocess.run(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=timeout_s,
                check=False,
                env={**os.environ, "LC_ALL": "C"},
            )
        except subprocess.TimeoutExpired:
            return None, f"it does not answer within {timeout_s:g} s"
        except OSError as error:
            return None, f"it cannot be run: {error.strerror}"
        return ended.returncode, ended.stdout.decode(errors="replace").strip()

    # ------------------------------------------------------------ mending

    @property
    def family(self) -> Family:
        fields = dict(line.split("=", 1) for line in self.text("/etc/os-release").splitlines() if "=" in line)
        words = {word for key in ("ID", "ID_LIKE") for word in fields.get(key, "").strip("\"'").split()}
        if words & DEBIAN_WORDS:
            return "debian"
        return "rhel" if words & RHEL_WORDS else ""

    def install(self, debian: str, rhel: str) -> str:
        """The command that brings packages. Of neither family: Debian's names, which say what is meant."""
        if self.family == "rhel":
            return self.as_root(f"dnf install -y {rhel}")
        return self.as_root(f"apt-get install -y {debian}") if self.family == "debian" else ""

    def as_root(self, command: str) -> str:
        """Redirections and `&&` are root's too."""
        if self.user_id == 0:
            return command
        plain = not set(command) & set(">|&;")
        return f"sudo {command}" if plain else f"sudo sh -c '{command}'"


def this_machine() -> HostView:
    import grp
    import pwd

    def name_of(group_id: int) -> str:
        try:
            return grp.getgrgid(group_id).gr_name
        except KeyError:  # of a container, or of a directory that does not answer
            return str(group_id)

    user_id = os.geteuid()
    try:
        user = pwd.getpwuid(user_id).pw_name
    except KeyError:
        user = str(user_id)
    return HostView(
        user_id=user_id,
        user=user,
        groups=frozenset(name_of(group_id) for group_id in {*os.getgroups(), os.getegid()}),
        program_path=f"{os.environ.get('PATH', '')}:{PROGRAM_PATH}",
    )
