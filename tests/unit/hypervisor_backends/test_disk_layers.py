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
    revert_of,
    settle_pending,
    settle_revert,
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


@pytest.mark.parametrize("made", [(), ("vda",), ("vda", "vdb")], ids=len)
def test_snapshot_of_a_machine_that_ended_was_taken_if_all_its_layers_are_there(
    tmp_path: Path, made: tuple[str, ...]
) -> None:
    paths = {}
    memory = tmp_path / "memory"
    memory.write_bytes(b"all of it")
    for name in ("vda", "vdb"):
        disk = str(tmp_path / name)
        before = layer(disk, "s1", disk)
        new = msgspec.structs.replace(layer(disk, "s2", before.path, "pending"), memory_path=str(memory))
        Path(before.path).write_bytes(QCOW2)
        if name in made:
            Path(new.path).write_bytes(QCOW2)
        write_layers(disk, (before, new), here)
        paths[disk] = new.path

    for _ in range(2):  # the second time there is nothing to mend
        assert settle_pending(paths, here) == (len(made) == 2)
    for disk, path in paths.items():
        snapshots = [(one.snapshot, one.state) for one in read_layers(disk, here)]
        kept = [("s2", "kept")] if len(made) == 2 else []
        assert snapshots == [("s1", "kept"), *kept]
        assert Path(path).exists() == (len(made) == 2)
    assert memory.exists() == (len(made) == 2)


def test_record_that_another_has_settled_meanwhile_is_left_alone(tmp_path: Path) -> None:
    disk = disk_of(tmp_path)
    layers = (layer(disk, "s2", disk, "pending"),)
    write_layers(disk, layers, here)

    assert not settle_pending({disk: f"{disk}.s1"}, here)
    assert read_layers(disk, here) == layers


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


# ---------------------------------------------------------------- a revert of two disks, broken off at each step


class Reverted:
    """Two disks with snapshots s1 and s2, and a revert of both to s1 that has gone so far."""

    def __init__(self, directory: Path) -> None:
        self.disks = [str(directory / name) for name in ("vda", "vdb")]
        self.fresh = {disk: f"{disk}.s1.revert-1" for disk in self.disks}
        self.memory = directory / "vda.s2.olvm-memory"
        self.memory.write_bytes(b"memory")
        for disk in self.disks:
            Path(disk).write_bytes(QCOW2)
            kept = self.old(disk)
            for each in kept:
                Path(each.path).write_bytes(QCOW2)
            write_layers(disk, kept, here)

    def old(self, disk: str) -> tuple[Layer, ...]:
        second = layer(disk, "s2", f"{disk}.s1")
        return layer(disk, "s1", disk), msgspec.structs.replace(second, memory_path=str(self.memory))

    def new(self, disk: str) -> tuple[Layer, ...]:
        return (msgspec.structs.replace(layer(disk, "s1", disk), path=self.fresh[disk]),)

    def mark(self, disk: str, fresh_bytes: int = 0) -> None:
        (kept,) = self.new(disk)
        fresh = msgspec.structs.replace(
            kept, state="reverting", fresh_bytes=fresh_bytes, siblings=dict(self.fresh)
        )
        write_layers(disk, (*self.old(disk), fresh), here)

    def make(self, disk: str) -> None:
        Path(self.fresh[disk]).write_bytes(QCOW2)
        self.mark(disk, len(QCOW2))

    def run(self, disk: str) -> None:
        with Path(self.fresh[disk]).open("ab") as file:
            file.write(b"data")

    def settle(self, disk: str) -> None:
        write_layers(disk, self.new(disk), here)

    def starts_from(self) -> list[str]:
        return [writable_path(disk, here).rpartition("/")[2] for disk in self.disks]

    def files(self) -> list[str]:
        directory = Path(self.disks[0]).parent
        return sorted(path.name for path in directory.iterdir() if not path.name.endswith(".olvm-layers"))


OLD_FILES = ["vda", "vda.s1", "vda.s2", "vda.s2.olvm-memory", "vdb", "vdb.s1", "vdb.s2"]
NEW_FILES = ["vda", "vda.s1.revert-1", "vdb", "vdb.s1.revert-1"]
BEFORE_IT_RAN = [
    [],
    [("mark", 0)],
    [("mark", 0), ("mark", 1)],
    [("mark", 0), ("mark", 1), ("make", 0)],
    [("mark", 0), ("mark", 1), ("make", 0), ("make", 1)],
]
RAN = BEFORE_IT_RAN[-1]


@pytest.mark.parametrize("steps", BEFORE_IT_RAN, ids=len)
@pytest.mark.parametrize("asked_first", [0, 1])
def test_revert_that_was_broken_off_before_it_ran_has_not_happened(
    tmp_path: Path, steps: list[tuple[str, int]], asked_first: int
) -> None:
    world = Reverted(tmp_path)
    for verb, disk in steps:
        getattr(world, verb)(world.disks[disk])
    settle_revert(world.disks[asked_first], here)

    assert world.starts_from() == ["vda.s2", "vdb.s2"]
    assert [read_layers(disk, here) for disk in world.disks] == [world.old(disk) for disk in world.disks]
    assert world.files() == OLD_FILES


@pytest.mark.parametrize(
    "steps",
    [
        [("run", 0)],
        [("run", 1)],
        [("run", 0), ("run", 1)],
        [("settle", 0)],
        [("run", 1), ("settle", 0)],
        [("settle", 1)],
    ],
)
@pytest.mark.parametrize("asked_first", [0, 1])
def test_revert_that_ran_has_happened_to_all_disks(
    tmp_path: Path, steps: list[tuple[str, int]], asked_first: int
) -> None:
    world = Reverted(tmp_path)
    for verb, disk in [*RAN, *steps]:
        getattr(world, verb)(world.disks[disk])
    settle_revert(world.disks[asked_first], here)

    assert world.starts_from() == ["vda.s1.revert-1", "vdb.s1.revert-1"]
    assert [read_layers(disk, here) for disk in world.disks] == [world.new(disk) for disk in world.disks]
    settled_by_hand = {world.disks[disk] for verb, disk in steps if verb == "settle"}
    left = {name for name in world.files() if name not in NEW_FILES}
    assert all(
        any(f"/{name}".startswith(f"/{Path(disk).name}.s") for disk in settled_by_hand) for name in left
    )


def test_settling_that_is_itself_broken_off_goes_on_the_same_way(tmp_path: Path) -> None:
    """Back: the first record is clean again, the second is not. Forward: the other way round."""
    back = Reverted(tmp_path)
    back.make(back.disks[0])
    back.make(back.disks[1])
    write_layers(back.disks[0], back.old(back.disks[0]), here)
    assert back.starts_from() == ["vda.s2", "vdb.s2"]


def test_fresh_layer_that_ran_and_is_gone_stops_the_start(tmp_path: Path) -> None:
    world = Reverted(tmp_path)
    for disk in world.disks:
        world.make(disk)
    world.run(world.disks[0])
    Path(world.fresh[world.disks[1]]).unlink()

    with pytest.raises(Unsettled, match="vdb was reverted to snapshot s1"):
        writable_path(world.disks[0], here)
    assert revert_of(read_layers(world.disks[1], here)) is not None


def test_memory_of_the_snapshot_that_was_reverted_to_stays(tmp_path: Path) -> None:
    world = Reverted(tmp_path)
    own = tmp_path / "vda.s1.olvm-memory"
    own.write_bytes(b"memory")
    for disk in world.disks:
        world.make(disk)
        world.run(disk)
        first, second, fresh = read_layers(disk, here)
        memory = {"memory_path": str(own)}
        layers = (msgspec.structs.replace(first, **memory), second, msgspec.structs.replace(fresh, **memory))
        write_layers(disk, layers, here)

    assert world.starts_from() == ["vda.s1.revert-1", "vdb.s1.revert-1"]
    assert (own.exists(), world.memory.exists()) == (True, False)
