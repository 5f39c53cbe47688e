"""Which files a disk with snapshots stands on: a record beside the disk itself.

A snapshot outlives the machine's life and moves with the storage, so neither a domain's XML nor an agent's journal is
the place to remember it. Beside `web.qcow2` lies `web.qcow2.olvm-layers`, which names every layer above it, oldest
first. It is written before something is done and again after it (`pending`, `pivoting`, `reverting`), so that whoever
reads it after a crash knows what may have happened. Must not know libvirt.

Rules:

1. The newest layer is where the machine writes. A start from any other one would lose data.
2. A revert of several disks has happened to all of them or to none: it has once anything was written to a fresh layer
   of one of them, or one of their records says so. Until then the fresh layers are empty and nobody misses them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from hypervisor_backends.task_rules import LAYERS_SUFFIX

# pending: the layer is being made, and may not be there · kept: it is · pivoting: it was written back, and the disk is
# being led back to what is beneath it · reverting: last in its record, a fresh layer on what a snapshot froze, which
# takes the place of that snapshot's layer and of all above it, or of none
LayerState = Literal["pending", "kept", "pivoting", "reverting"]


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """`path` is written to since the snapshot was taken, `beneath` is what it froze. Paths are the host's own."""

    snapshot: str
    created_ns: int
    path: str
    beneath: str
    disks: tuple[str, ...]
    memory_path: str = ""  # empty: without memory
    state: LayerState = "pending"
    # Of one that is `reverting`: how large its file was made (0: it was not made yet), and the fresh layer of each disk
    # that is reverted with it, by the disk's own path, this one included.
    fresh_bytes: int = 0
    siblings: dict[str, str] = {}


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
    layers = settle_revert(disk, path_here)
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


# ---------------------------------------------------------------- reverts


def revert_of(layers: tuple[Layer, ...]) -> Layer | None:
    """The fresh layer of a revert of which the record does not say yet whether it has happened."""
    return layers[-1] if layers and layers[-1].state == "reverting" else None


def after_revert(layers: tuple[Layer, ...], *, happened: bool) -> tuple[tuple[Layer, ...], tuple[str, ...]]:
    """The layers of a disk whose revert has happened or has not, and the files that nobody needs any more."""
    fresh = revert_of(layers)
    assert fresh is not None, "no revert is under way"
    if not happened:
        return layers[:-1], (fresh.path,)
    at = [layer.snapshot for layer in layers].index(fresh.snapshot)
    dropped = layers[at:-1]
    files = [layer.path for layer in dropped]
    files += [layer.memory_path for layer in dropped[1:] if layer.memory_path]
    kept = msgspec.structs.replace(fresh, state="kept", fresh_bytes=0, siblings={})
    return (*layers[:at], kept), tuple(files)


def settle_pending(path_by_disk: Mapping[str, str], path_here: PathHere) -> bool:
    """Of a machine that has ended: whether the snapshot with these new layers was taken; mends the records to say so.

    It was exactly if the files of all layers are there. Raises `OSError`.
    """
    was_taken = all(_is_layer(Path(path_here(path))) for path in path_by_disk.values())
    for disk, path in path_by_disk.items():
        layers = read_layers(disk, path_here)
        own = next((layer for layer in layers if layer.path == path and layer.state == "pending"), None)
        if own is None:
            continue  # somebody has settled it
        others = tuple(layer for layer in layers if layer is not own)
        kept = (msgspec.structs.replace(own, state="kept"),) if was_taken else ()
        write_layers(disk, (*others, *kept), path_here)
        if not was_taken:
            for file in filter(None, (path, own.memory_path)):
                remove_file(file, path_here)
    return was_taken


def settle_revert(disk: str, path_here: PathHere) -> tuple[Layer, ...]:
    """The layers of a disk of a machine that runs nowhere, once its records say whether a revert has happened.

    Raises `Unsettled`, `OSError`.
    """
    fresh = revert_of(read_layers(disk, path_here))
    if fresh is None:
        return read_layers(disk, path_here)
    happened = any(_has_begun(root, path, path_here) for root, path in fresh.siblings.items())
    needless: list[str] = []
    for root, path in fresh.siblings.items():
        layers = read_layers(root, path_here)
        own = revert_of(layers)
        if own is None or own.path != path:
            continue  # it was not begun there, or is settled already
        if happened and not _is_layer(Path(path_here(path))):
            raise Unsettled(
                f"disk {root} was reverted to snapshot {own.snapshot} and its layer {path} is not there; bring it back"
            )
        kept, files = after_revert(layers, happened=happened)
        write_layers(root, kept, path_here)
        needless += files
    for path in needless:
        remove_file(path, path_here)
    return read_layers(disk, path_here)


def _has_begun(root: str, path: str, path_here: PathHere) -> bool:
    """Whether a machine has written to this fresh layer, or its record says that one has run from it."""
    for layer in read_layers(root, path_here):
        if layer.path == path and layer.state == "reverting":
            return layer.fresh_bytes > 0 and size_of(path, path_here) > layer.fresh_bytes
        if layer.path == path:
            return True
    return False


def size_of(path: str, path_here: PathHere) -> int:
    """0 where there is no such file. A layer that is written to grows with its first block."""
    try:
        return Path(path_here(path)).stat().st_size
    except FileNotFoundError:
        return 0
