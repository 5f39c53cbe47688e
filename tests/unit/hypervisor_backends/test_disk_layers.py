"""The record of a disk's layers: what a crash at each step leaves, and where the machine is started from then."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from hypervisor_backends.disk_layers import (
    Layer,
    LayerState,
    Unsettled,
    read_layers,
    record_path,
    writable_path,
    write_layers,
)

QCOW2 = b"QFI\xfb" + bytes(100)


def here(path: str) -> str:
    return path


def disk_of(directory: Path) -> str:
    disk = directory / "web.qcow2"
    disk.write_bytes(QCOW2)
    return str(disk)


def layer(disk: str, name: str, beneath: str, state: LayerState = "kept") -> Layer:
    return Layer(
        snapshot=name, created_ns=1, path=f"{disk}.{name}", beneath=beneath, disks=("vda",), state=state
    )


def test_disk_without_a_record_is_written_to_itself(tmp_path: Path) -> None:
    disk = disk_of(tmp_path)

    assert writable_path(disk, here) == disk
    assert read_layers(disk, here) == ()


def test_newest_of_kept_layers_is_written_to(tmp_path: Path) -> None:
    disk = disk_of(tmp_path)
    layers = (layer(disk, "s1", disk), layer(disk, "s2", f"{disk}.s1"))
    for each in layers:
        Path(each.path).write_bytes(QCOW2)
    write_layers(disk, layers, here)

    assert writable_path(disk, here) == f"{disk}.s2"
    assert read_layers(disk, here) == layers


@pytest.mark.parametrize("content", [None, b"", bytes(100)])
def test_layer_that_was_never_made_is_forgotten(tmp_path: Path, content: bytes | None) -> None:
    disk = disk_of(tmp_path)
    pending = layer(disk, "s1", disk, "pending")
    if content is not None:
        Path(pending.path).write_bytes(content)
    write_layers(disk, (pending,), here)

    assert writable_path(disk, here) == disk
    assert not Path(record_path(disk)).exists()


def test_layer_that_was_made_and_not_yet_recorded_is_taken(tmp_path: Path) -> None:
    disk = disk_of(tmp_path)
    pending = layer(disk, "s1", disk, "pending")
    Path(pending.path).write_bytes(QCOW2)
    write_layers(disk, (pending,), here)

    assert writable_path(disk, here) == pending.path
    assert [each.state for each in read_layers(disk, here)] == ["kept"]


def test_layer_that_was_written_back_and_removed_is_forgotten(tmp_path: Path) -> None:
    disk = disk_of(tmp_path)
    write_layers(disk, (layer(disk, "s1", disk, "pivoting"),), here)

    assert writable_path(disk, here) == disk


def test_crash_in_the_instant_of_the_pivot_asks_a_person(tmp_path: Path) -> None:
    disk = disk_of(tmp_path)
    pivoting = layer(disk, "s1", disk, "pivoting")
    Path(pivoting.path).write_bytes(QCOW2)
    write_layers(disk, (pivoting,), here)

    with pytest.raises(Unsettled, match="qemu-img compare"):
        writable_path(disk, here)
    assert read_layers(disk, here) == (pivoting,)


def test_kept_layer_that_is_gone_stops_the_start(tmp_path: Path) -> None:
    disk = disk_of(tmp_path)
    write_layers(disk, (layer(disk, "s1", disk),), here)

    with pytest.raises(Unsettled, match="bring it back"):
        writable_path(disk, here)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'[{"snapshot": 1}]'])
def test_damaged_record_is_an_error_and_no_guess(tmp_path: Path, content: bytes) -> None:
    disk = disk_of(tmp_path)
    Path(record_path(disk)).write_bytes(content)

    with pytest.raises(OSError, match="damaged"):
        writable_path(disk, here)


def test_record_is_read_where_the_hosts_files_are_seen_from_here(tmp_path: Path) -> None:
    disk = "/images/web.qcow2"
    (tmp_path / "images").mkdir()

    def mapped(path: str) -> str:
        return f"{tmp_path}{path}"

    kept = msgspec.structs.replace(layer(disk, "s1", disk))
    (tmp_path / "images/web.qcow2.s1").write_bytes(QCOW2)
    write_layers(disk, (kept,), mapped)

    assert writable_path(disk, mapped) == "/images/web.qcow2.s1"
