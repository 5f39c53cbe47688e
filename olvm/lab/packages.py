"""Debian packages as boxes of files: fetched by apt, opened by dpkg-deb, nothing installed."""

from __future__ import annotations

import os
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from olvm.lab.commands import run
from olvm.model.errors import OlvmError

FETCH_TIMEOUT_S = 300.0
KERNEL = "linux-image-cloud-amd64"
_KERNEL_IMAGE = re.compile(r"Depends: (linux-image-[0-9]\S*cloud-amd64)")


def kernel_package() -> str:
    """The newest small kernel of this Debian: what `linux-image-cloud-amd64` depends on. Raises `OlvmError`."""
    found = _KERNEL_IMAGE.search(run(["apt-cache", "depends", KERNEL], check=False))
    if found is None:
        update()
        found = _KERNEL_IMAGE.search(run(["apt-cache", "depends", KERNEL], check=False))
    if found is None:
        raise OlvmError(f"apt knows no {KERNEL}; see that Debian is among its sources")
    return found.group(1)


def update() -> None:
    """What apt knows may be old, or nothing at all in a container. Raises `OlvmError`."""
    run(["apt-get", "update", "-qq"], timeout_s=FETCH_TIMEOUT_S)


def fetch(names: list[str], directory: Path) -> dict[str, Path]:
    """Each package's file by its name, downloaded unless one is there. Raises `OlvmError`."""
    directory.mkdir(parents=True, exist_ok=True)
    wanted = [name for name in names if not _files(name, directory)]
    if wanted:
        try:
            _download(wanted, directory)
        except OlvmError:
            update()  # a version that was replaced since is not to be had any more
            _download(wanted, directory)
    found = {name: _files(name, directory) for name in names}
    lacking = [name for name, files in found.items() if not files]
    if lacking:
        raise OlvmError(f"apt downloaded no {', '.join(lacking)}; run apt-get update and try again")
    return {name: files[-1] for name, files in found.items()}


def _download(names: list[str], directory: Path) -> None:
    """Beside first: another process that looks for packages sees whole ones."""
    with tempfile.TemporaryDirectory(dir=directory, prefix="part-") as part:
        # Not as apt's own user: the directory may be root's alone.
        command = ["apt-get", "-o", "APT::Sandbox::User=root", "-qq", "download", *names]
        run(["env", f"--chdir={part}", *command], timeout_s=FETCH_TIMEOUT_S)
        for file in Path(part).glob("*.deb"):
            os.replace(file, directory / file.name)


def _files(name: str, directory: Path) -> list[Path]:
    """Oldest first, by when they were fetched."""
    return sorted(directory.glob(f"{name}_*.deb"), key=lambda file: (file.stat().st_mtime_ns, file.name))


def members(package: Path, pattern: str) -> Iterator[tuple[str, tarfile.TarInfo, bytes]]:
    """Files of a package whose whole name (without a leading ./) matches, with their content."""
    wanted = re.compile(pattern)
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE) as unpacking:
        assert unpacking.stdout is not None
        with tarfile.open(fileobj=unpacking.stdout, mode="r|") as archive:
            for member in archive:
                name = member.name.lstrip(".").lstrip("/")
                if wanted.fullmatch(name):
                    file = archive.extractfile(member) if member.isfile() else None
                    yield name, member, file.read() if file is not None else b""
