"""Which files a disk with snapshots stands on: a record beside the disk itself.

A snapshot outlives the machine's life and moves with the storage, so neither a domain's XML nor an agent's journal is
the place to remember it. Beside `web.qcow2` lies `web.qcow2.olvm-layers`, which names every layer above it, oldest
first. It is written before something is done and again after it (`pending`, `pivoting`), so that whoever reads it after
a crash knows what may have happened. Must not know libvirt.

Rule: the newest layer is where the machine writes. A start from any other one would lose data.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

from hypervisor_backends.task_rules import LAYERS_SUFFIX

# pending: the layer is being made, and may not be there · kept: it is · pivoting: it was written back, and the disk is
# being led back to what is beneath it
LayerState = Literal["pending", "kept", "pivoting"]


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """`path` is written to since the snapshot was taken, `beneath` is what it froze. Paths are the host's own."""

    snapshot: str
    created_ns: int
    path: str
    beneath: str
    disks: tuple[str, ...]
    memory_path: str = ""  # empty: without memory
    state: LayerState = "pending"


PathHere = Callable[[str], str]


def record_path(disk: str) -> str:
    return disk + LAYERS_SUFFIX


def read_layers(disk: str, path_here: PathHere) -> tuple[Layer, ...]:
    """Raises `OSError` where the record cannot be read or makes no sense: a guess would cost data."""
    path = Path(path_here(record_path(disk)))
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return ()
    try:
        return msgspec.json.decode(content, type=tuple[Layer, ...])
    except msgspec.DecodeError as error:
        raise OSError(
            f"{record_path(disk)} is damaged ({error}); restore it before {disk} is used"
        ) from error


def write_layers(disk: str, layers: tuple[Layer, ...], path_here: PathHere) -> None:
    """Durable when it returns. Without layers there is no record."""
    path = Path(path_here(record_path(disk)))
    if not layers:
        path.unlink(missing_ok=True)
    else:
        fresh = path.with_name(path.name + ".new")
        with fresh.open("wb") as file:
            file.write(msgspec.json.encode(layers))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def remove_file(path: str, path_here: PathHere) -> None:
    Path(path_here(path)).unlink(missing_ok=True)


class Unsettled(Exception):
    """Nobody can tell from the files where a machine wrote last; the text says what a person can do."""


def writable_path(disk: str, path_here: PathHere) -> str:
    """Where the machine wrote last, for one that runs nowhere; mends the record of what a crash interrupted.

    Raises `Unsettled`, `OSError`.
    """
    layers = read_layers(disk, path_here)
    settled = tuple(
        msgspec.structs.replace(layer, state="kept")
        for layer in layers
        if _still_stands(disk, layer, path_here)
    )
    if settled != layers:
        write_layers(disk, settled, path_here)
    return settled[-1].path if settled else disk


def _still_stands(disk: str, layer: Layer, path_here: PathHere) -> bool:
    """A layer that is there is either written to or, when it was not yet, as empty as if it were."""
    is_there = _is_layer(Path(path_here(layer.path)))
    if layer.state == "kept":
        if not is_there:
            raise Unsettled(
                f"disk {disk} has snapshot {layer.snapshot} and its layer {layer.path} is not there; bring it back"
            )
        return True
    if layer.state == "pivoting" and is_there:
        raise Unsettled(
            f"the host died in the instant in which snapshot {layer.snapshot} of disk {disk} was committed: compare "
            f"{layer.path} with {layer.beneath} (qemu-img compare). Where they are equal or {layer.beneath} is newer, "
            f"remove {layer.path}; else set its state to kept in {record_path(disk)}"
        )
    return is_there


def _is_layer(path: Path) -> bool:
    """Whether it is a whole qcow2 file; one that is being made begins with nothing."""
    try:
        with path.open("rb") as file:
            return file.read(4) == b"QFI\xfb"
    except FileNotFoundError:
        return False
