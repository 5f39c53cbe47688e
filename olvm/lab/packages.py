"""Debian packages as boxes of files: fetched by apt, opened by dpkg-deb, nothing installed."""

from __future__ import annotations

import re
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

from olvm.lab.commands import run
from olvm.model.errors import OlvmError

FETCH_TIMEOUT_S = 300.0


def kernel_package() -> str:
    """The newest small kernel of this Debian: what `linux-image-cloud-amd64` depends on."""
    said = run(["apt-cache", "depends", "linux-image-cloud-amd64"])
    found = re.search(r"Depends: (linux-image-[0-9]\S*cloud-amd64)", said)
    if found is None:
        raise OlvmError(
            "apt knows no linux-image-cloud-amd64; run apt-get update, and see that Debian is among its sources"
        )
    return found.group(1)


def fetch(names: list[str], directory: Path) -> dict[str, Path]:
    """Each package's file by its name, downloaded unless one is there. Raises `OlvmError`."""
    directory.mkdir(parents=True, exist_ok=True)
    wanted = [name for name in names if not _files(name, directory)]
    if wanted:
        # Not as apt's own user: the directory may be root's alone.
        command = [
            "sh",
            "-c",
            'cd "$1" && shift && exec apt-get -o APT::Sandbox::User=root -qq download "$@"',
            "sh",
        ]
        run([*command, str(directory), *wanted], timeout_s=FETCH_TIMEOUT_S)
    found = {name: _files(name, directory) for name in names}
    lacking = [name for name, files in found.items() if not files]
    if lacking:
        raise OlvmError(f"apt downloaded no {', '.join(lacking)}; run apt-get update and try again")
    return {name: files[-1] for name, files in found.items()}


def _files(name: str, directory: Path) -> list[Path]:
    return sorted(directory.glob(f"{name}_*.deb"))


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
