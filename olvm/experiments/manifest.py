"""`manifest.json`: what a result was made from, and nothing that differs between equal runs."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from pathlib import Path
from typing import Any

import msgspec

from olvm.experiments.host_specs import HostFleet
from olvm.experiments.trace import Trace
from olvm.version import VERSION

FORMAT = 1
_BAD_ROWS_MAX = 20


def manifest_of(
    trace: Trace,
    hosts: HostFleet,
    parameters: dict[str, Any],
    figures: dict[str, Any],
    file_digests: dict[str, str],
) -> dict[str, Any]:
    """Versions, commit, inputs with their SHA-256, parameters, figures, and the SHA-256 of the other files."""
    return {
        "format": FORMAT,
        "kind": "replay",
        "versions": {
            "olvm": VERSION,
            "python": platform.python_version(),
            **{name: _version(name) for name in ("numpy", "duckdb", "numba")},
        },
        "commit": commit(),
        "trace": {
            "name": Path(trace.source.name).name,
            "sha256": trace.digest,
            "vm_count": len(trace),
            "rounded": trace.rounded_count,
            "dropped": trace.dropped_count,
            "dropped_rows": [str(bad) for bad in trace.bad_rows[:_BAD_ROWS_MAX]],
        },
        "hosts": {"spec": hosts.spec, "count": len(hosts), "sha256": hosts.digest()},
        "parameters": parameters,
        "figures": figures,
        "files": file_digests,
    }


def write_manifest(path: Path, manifest: dict[str, Any]) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def commit() -> str | None:
    """What HEAD of the checkout that this module runs from names; None outside of one."""
    git = Path(__file__).resolve().parents[2] / ".git"
    try:
        head = (git / "HEAD").read_text(encoding="ascii").strip()
        if not head.startswith("ref: "):
            return head
        reference = head.removeprefix("ref: ")
        if (git / reference).exists():
            return (git / reference).read_text(encoding="ascii").strip()
        packed = (git / "packed-refs").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((line.split()[0] for line in packed if line.endswith(f" {reference}")), None)
