"""The laboratory's small guest: Debian's kernel, busybox, Python, QEMU's agent and ours, in one initial RAM disk.

Nothing of Debian is installed to make it; its packages are fetched and opened. It boots in about five seconds under
TCG and wants 192 MiB.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec

from olvm.lab.image_cache import directory_of, write_whole
from olvm.lab.initrd import Tree
from olvm.lab.kernel import CMDLINE, add_kernel
from olvm.lab.packages import fetch, kernel_package, members
from olvm.model.errors import OlvmError

INIT = Path(__file__).with_name("guest_init.sh")
BUSYBOX = Path("/bin/busybox")
VERSION = 1  # of the recipe below: another one builds anew
ARCHITECTURE = "x86_64-linux-gnu"
PYTHON = "usr/lib/python3.11"
PACKAGES = (
    "python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib", "libc6", "libexpat1", "zlib1g", "libffi8",
    "qemu-guest-agent", "libglib2.0-0", "libpcre2-8-0", "liburing2", "libudev1", "libnuma1",
)  # fmt: skip
COMPILE = ("-S", "-m", "compileall", "-q", "-b", "--invalidation-mode", "unchecked-hash")
PASSWORD_HASH = "$5$olvm$dflQeHl8EKyncnO8fdXoCWU9GHt1YUTbPBjDqHgFAGB"  # noqa: S105 - of "lab"
FILES = {
    # busybox knows nobody whose second field is empty. The password of both is "lab".
    "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000:Alice:/home/alice:/bin/sh\n",
    "etc/shadow": "".join(f"{name}:{PASSWORD_HASH}:19000:0:99999:7:::\n" for name in ("root", "alice")).encode(),
    "etc/group": b"root:x:0:\ntty:x:5:\nalice:x:1000:\n",
    "etc/os-release": b'ID=tiny\nNAME="Tiny"\nVERSION_ID=1\nVERSION="1"\nVERSION_CODENAME=bean\nPRETTY_NAME="Tiny 1"\n',
    "etc/hosts": b"127.0.0.1 localhost\n",
    "var/lib/dpkg/status": (
        b"Package: tiny-base\nStatus: install ok installed\nVersion: 1.0\n\n"
        b"Package: tiny-gone\nStatus: deinstall ok config-files\nVersion: 0.9\n"
    ),
}  # fmt: skip
SCRIPTS = {
    "etc/acpi/PWRF/00000080": b"#!/bin/sh\npoweroff -f\n",
    "usr/share/udhcpc/default.script": (
        b'#!/bin/sh\n[ "$1" = bound ] || [ "$1" = renew ] || exit 0\nip addr flush dev $interface\n'
        b"ip addr add $ip/$mask dev $interface\n[ -z \"$router\" ] || ip route replace default via ${router%% *}\n"
    ),
}  # fmt: skip
EMPTY = (
    "bin",
    "sbin",
    "dev",
    "proc",
    "sys",
    "run",
    "tmp",
    "var/log",
    "root",
    "home/alice",
    "mnt",
    "usr/sbin",
)


class GuestImage(msgspec.Struct, frozen=True, kw_only=True):
    kernel: Path
    initrd: Path
    cmdline: str

    def without_our_agent(self) -> GuestImage:
        """A third less to boot: under TCG a Python that starts costs half of what a kernel does."""
        return msgspec.structs.replace(self, cmdline=f"{self.cmdline} olvm.agent=off")


def build_guest(cache: Path) -> GuestImage:
    """The image, built unless one of the same inputs is in `cache`.

    Raises:
        OlvmError: a package could not be had, or busybox is missing.
        Cost: 2 s and 36 MB for the packages the first time, 4 s for a build.
    """
    if not BUSYBOX.exists():
        raise OlvmError(f"{BUSYBOX} is missing; install Debian's busybox-static")
    kernel = kernel_package()
    packages = fetch([kernel, *PACKAGES], cache / "packages")
    agent = _agent()
    home = directory_of(cache, "guest", _digest(packages, agent))
    image = GuestImage(kernel=home / "vmlinuz", initrd=home / "initrd", cmdline=CMDLINE)
    if image.kernel.exists() and image.initrd.exists():
        return image
    tree = Tree()
    vmlinuz = add_kernel(tree, packages[kernel])
    _add_programs(tree, packages)
    _add_own(tree, agent)
    write_whole(image.initrd, tree.archive())
    write_whole(image.kernel, vmlinuz)
    return image


def build_guest_agent(directory: Path) -> Path:
    """Our guest agent as one file, and beside it what installs it: the same bytes for the same sources."""
    command = [sys.executable, "-m", "guest_agent.build", str(directory)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    if done.returncode != 0:
        raise OlvmError(f"the guest agent cannot be built: {done.stderr[-800:]}")
    return directory / "olvm-guest-agent.pyz"


def _agent() -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        return build_guest_agent(Path(directory)).read_bytes()


def _digest(packages: dict[str, Path], agent: bytes) -> str:
    parts = [str(VERSION), *(path.name for _, path in sorted(packages.items())), INIT.read_text()]
    parts += [repr(FILES), repr(SCRIPTS), hashlib.sha256(agent).hexdigest()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


# ---------------------------------------------------------------- programs


def _add_programs(tree: Tree, packages: dict[str, Path]) -> None:
    def libraries(*names: str) -> str:
        return rf"(usr/)?lib/{ARCHITECTURE}/({'|'.join(names)})"

    loader = libraries(r"ld-linux-x86-64\.so\.2", r"lib(c|m|pthread|dl|rt|util|nss_files|resolv)\.so\.[0-9]+")
    _add(tree, packages["libc6"], loader + r"|lib64/ld-linux.*")
    _add(tree, packages["libexpat1"], libraries(r"libexpat.*"))
    _add(tree, packages["zlib1g"], libraries(r"libz\..*"))
    _add(tree, packages["libffi8"], libraries(r"libffi.*"))
    _add(tree, packages["python3.11-minimal"], r"usr/bin/python3\.11")
    tree.link("usr/bin/python3", "python3.11")
    _add(tree, packages["libpython3.11-minimal"], rf"(?!.*/(_hashlib|_ssl)\.){PYTHON}/(?!ensurepip).*")
    left_out = (
        r"lib2to3|idlelib|turtledemo|distutils|ensurepip|pydoc_data|unittest|.*/_codecs_|.*test|.*curses"
    )
    _add(tree, packages["libpython3.11-stdlib"], rf"{PYTHON}/(?!{left_out}).*")
    _compile(tree)
    _add(tree, packages["qemu-guest-agent"], r"usr/sbin/qemu-ga")
    _add(tree, packages["libglib2.0-0"], libraries(r"libglib-2\.0.*", r"libgmodule-2\.0.*"))
    for name, file in (
        ("libpcre2-8-0", "libpcre2"),
        ("liburing2", "liburing"),
        ("libudev1", "libudev"),
        ("libnuma1", "libnuma"),
    ):
        _add(tree, packages[name], libraries(rf"{file}.*"))


def _add(tree: Tree, package: Path, pattern: str) -> None:
    for name, member, data in members(package, pattern):
        if member.isdir():
            tree.directory(name)
        elif member.issym():
            tree.link(name, member.linkname)
        else:
            tree.file(name, data, mode=member.mode & 0o777)


def _compile(tree: Tree) -> None:
    """Compiled modules in place of sources, by the guest's Python: under TCG compiling is most of an import."""
    sources = [path for path in tree.paths() if path.startswith(f"{PYTHON}/") and path.endswith(".py")]
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        for path in sources:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(tree.data(path))
        interpreter = root / "python"
        interpreter.write_bytes(tree.data("usr/bin/python3.11"))
        interpreter.chmod(0o755)
        subprocess.run(
            [str(interpreter), *COMPILE, "-s", directory, str(root / PYTHON)],
            check=False,  # a few files of the library are not meant to compile
            env={"PYTHONHOME": f"{directory}/usr", "PATH": os.environ.get("PATH", "")},
            capture_output=True,
        )
        for path in sources:
            compiled = root / f"{path}c"
            if compiled.exists():
                tree.remove(path)
                tree.file(f"{path}c", compiled.read_bytes())


def _add_own(tree: Tree, agent: bytes) -> None:
    for path in EMPTY:
        tree.directory(path)
    tree.file("bin/busybox", BUSYBOX.read_bytes(), mode=0o755)
    tree.file("init", INIT.read_bytes(), mode=0o755)
    tree.file("olvm-guest-agent.pyz", agent, mode=0o755)
    for path, data in FILES.items():
        tree.file(path, data)
    for path, data in SCRIPTS.items():
        tree.file(path, data, mode=0o755)
