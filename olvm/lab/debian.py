"""The laboratory's large guest: a Debian with systemd, PAM, logins and both agents, on a disk.

It is what the small guest cannot be: a system whose sessions are real. Made by mmdebstrap from this machine's own apt
sources; the kernel and a few modules come from an initial RAM disk of ours, which is most of what makes it boot quickly
under TCG. `alice` (uid 1000) and root have the password "lab".
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from olvm.lab.commands import run
from olvm.lab.guest import BUSYBOX, PASSWORD_HASH, build_guest_agent
from olvm.lab.image_cache import WORK_PREFIX, alone, directory_of, write_whole
from olvm.lab.initrd import Tree
from olvm.lab.kernel import CMDLINE, add_kernel
from olvm.lab.packages import fetch, kernel_package
from olvm.model.errors import OlvmError

INIT = Path(__file__).with_name("debian_initrd.sh")
VERSION = 1  # of the recipe below: another one builds anew
BUILD_TIMEOUT_S = 600.0
DISK_SIZE = "2G"  # as the guest sees it; the file holds what is used
CONSOLE = "ttyS0"
PACKAGES = (
    "systemd", "systemd-sysv", "udev", "dbus", "libpam-systemd", "login", "passwd", "util-linux", "procps",
    "iproute2", "python3", "qemu-guest-agent", "e2fsprogs",
)  # fmt: skip
# What a machine of a few minutes has no use for. Under TCG each costs from a tenth of a second to several.
MASKED = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer",
    "e2scrub_reap.service", "fstrim.timer", "systemd-timesyncd.service", "systemd-journal-flush.service",
    "systemd-binfmt.service", "proc-sys-fs-binfmt_misc.automount", "proc-sys-fs-binfmt_misc.mount",
    "sys-kernel-debug.mount", "sys-kernel-tracing.mount", "sys-kernel-config.mount", "sys-fs-fuse-connections.mount",
    "dev-hugepages.mount", "dev-mqueue.mount", "modprobe@.service", "systemd-modules-load.service",
    "kmod-static-nodes.service", "systemd-pstore.service", "systemd-networkd-wait-online.service",
    "systemd-hwdb-update.service", "systemd-boot-system-token.service", "systemd-random-seed.service",
    "systemd-tmpfiles-clean.timer", "systemd-rfkill.service", "systemd-networkd.service", "systemd-networkd.socket",
    "systemd-update-utmp.service", "systemd-update-utmp-runlevel.service", "systemd-sysusers.service",
    "systemd-tmpfiles-setup-dev.service", "systemd-remount-fs.service", "systemd-sysctl.service",
    "systemd-machine-id-commit.service", "remote-fs.target", "systemd-rfkill.socket", "getty@tty1.service",
)  # fmt: skip
FILES = {
    "etc/fstab": "",  # the disk is mounted before systemd begins
    # Only what somebody waits for: of three hundred devices the others have no rule that matters here.
    "etc/systemd/system/systemd-udev-trigger.service.d/lab.conf": (
        "[Service]\nExecStart=\n"
        "ExecStart=-udevadm trigger --type=devices --action=add --subsystem-match=virtio-ports --subsystem-match=block "
        "--subsystem-match=net --subsystem-match=input\n"
        f"ExecStart=-udevadm trigger --type=devices --action=add --name-match=/dev/{CONSOLE}\n"
    ),
    "etc/hostname": "debian\n",
    "etc/hosts": "127.0.0.1 localhost debian\n",
    "etc/machine-id": "",  # each machine makes its own; were the file not there, it would think it was never set up
    "etc/securetty": f"{CONSOLE}\n",
    "etc/systemd/journald.conf.d/lab.conf": "[Journal]\nStorage=volatile\nForwardToConsole=no\n",
    "etc/systemd/system.conf.d/lab.conf": "[Manager]\nDefaultTimeoutStopSec=10s\n",
}


class DebianImage(msgspec.Struct, frozen=True, kw_only=True):
    """`disk` is a qcow2 that others read too: machines write to a copy, or to a disk with it as `base`."""

    kernel: Path
    initrd: Path
    disk: Path
    cmdline: str


def build_debian(cache: Path) -> DebianImage:
    """The image, built unless one of the same inputs is in `cache`. Needs root.

    Raises:
        OlvmError: this is no Debian, or a program failed; the message has what it said.
        Cost: 45 s and 60 MB from apt's sources; 10 s more, and alone when only the guest agent changed.
    """
    kernel = kernel_package()
    package = fetch([kernel], cache / "packages")[kernel]
    base = directory_of(cache, "base", _digest(package.name.encode(), _versions()))
    with alone(cache, "debian"), _working_directory(cache) as work:
        agent = _agent(work)
        home = directory_of(
            cache, "debian", _digest(base.name.encode(), *map(Path.read_bytes, sorted(agent.iterdir())))
        )
        image = DebianImage(
            kernel=base / "vmlinuz",
            initrd=base / "initrd",
            disk=home / "disk.qcow2",
            cmdline=f"{CMDLINE} net.ifnames=0 rw",
        )
        if not (base / "initrd").exists() or not image.kernel.exists():
            _write_kernel(image, package)
        if not (base / "root.tar").exists():
            _bootstrap(work / "root.tar")
            (work / "root.tar").rename(base / "root.tar")
        if not image.disk.exists():
            root = work / "root"
            root.mkdir()
            run(["tar", "-C", str(root), "--numeric-owner", "--xattrs", "-xpf", str(base / "root.tar")])
            _set_up(root)
            run(["sh", str(agent / "install.sh"), "--root", str(root), "--console", CONSOLE])
            _write_disk(root, work, image.disk)
    return image


def _agent(work: Path) -> Path:
    """The guest agent as a person gets it: a file, and a script that installs it."""
    directory = work / "olvm-guest-agent"
    directory.mkdir()
    build_guest_agent(directory)
    return directory


def _versions() -> bytes:
    """Of the packages that apt would install today."""
    return run(["apt-cache", "madison", *PACKAGES]).encode()


def _digest(*parts: bytes) -> str:
    recipe = repr((VERSION, MASKED, FILES, DISK_SIZE, INIT.read_bytes())).encode()
    return hashlib.sha256(b"\0".join([recipe, *parts])).hexdigest()[:16]


def _write_kernel(image: DebianImage, package: Path) -> None:
    tree = Tree()
    vmlinuz = add_kernel(tree, package)
    tree.file("bin/busybox", BUSYBOX.read_bytes(), mode=0o755)
    tree.file("init", INIT.read_bytes(), mode=0o755)
    write_whole(image.initrd, tree.archive())
    write_whole(image.kernel, vmlinuz)


@contextlib.contextmanager
def _working_directory(cache: Path) -> Iterator[Path]:
    work = Path(tempfile.mkdtemp(dir=cache, prefix=WORK_PREFIX))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _sources() -> tuple[str, list[str]]:
    """Debian's code name here, and those of this machine's apt sources that are Debian's own."""
    names = dict(
        line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line
    )
    if names.get("ID") != "debian":
        raise OlvmError(
            "the Debian guest is made of this machine's apt sources, and this machine is no Debian"
        )
    fields = "$(ORIGIN)|deb $(REPO_URI) $(RELEASE) $(COMPONENT)"
    said = run(["apt-get", "indextargets", "--format", fields, "Created-By: Packages"])
    lines = [line.partition("|")[2] for line in said.splitlines() if line.startswith("Debian|")]
    if not lines:
        raise OlvmError(
            "apt knows no source of Debian's; run apt-get update, and see that Debian is among its sources"
        )
    return names["VERSION_CODENAME"], list(dict.fromkeys(lines))


def _bootstrap(archive: Path) -> None:
    suite, sources = _sources()
    left_out = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale", "info")]
    run(
        [
            "env", f"TMPDIR={archive.parent}", "mmdebstrap", "--mode=root", "--variant=essential", "--quiet",
            f"--include={','.join(PACKAGES)}",
            '--aptopt=Apt::Install-Recommends "0"', '--aptopt=APT::Sandbox::User "root"',
            "--dpkgopt=force-unsafe-io", *left_out, suite, str(archive), *sources,
        ],
        timeout_s=BUILD_TIMEOUT_S,
    )  # fmt: skip


def _set_up(root: Path) -> None:
    for path, text in FILES.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        file.write_text(text)
    run(["chroot", str(root), "useradd", "--create-home", "--uid", "1000", "--shell", "/bin/bash", "alice"])
    for name in ("root", "alice"):
        run(["chroot", str(root), "usermod", "--password", PASSWORD_HASH, name])
    units = root / "etc/systemd/system"
    for name in MASKED:
        link = units / name
        link.unlink(missing_ok=True)
        link.symlink_to("/dev/null")


def _write_disk(root: Path, work: Path, disk: Path) -> None:
    raw, part = work / "disk.raw", disk.with_suffix(f".{os.getpid()}")
    run(["mke2fs", "-q", "-t", "ext4", "-d", str(root), "-E", "root_owner=0:0", str(raw), DISK_SIZE])
    run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(part)])
    part.rename(disk)


def main(cache: str) -> None:
    """In a process of its own; ended early, it leaves nothing half made."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    build_debian(Path(cache))


if __name__ == "__main__":
    main(sys.argv[1])
