"""Snapshots of a running machine: what is in them is read in the guest, and half-done ones are put right."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import libvirt
import msgspec
import pytest

from hypervisor_backends.disk_layers import Layer, read_layers, write_layers
from hypervisor_backends.domain_xml import QEMU_AGENT_CHANNEL
from hypervisor_backends.protocol import (
    CommitSnapshot,
    CreateSnapshot,
    DeleteVolume,
    FreezeGuest,
    ListSnapshots,
    ResizeVolume,
    SnapshotList,
    ThawGuest,
)
from olvm.lab.guest import GuestImage
from olvm.lab.hosts import Lab
from olvm.model.hardware import DiskSpec
from tests.libvirt.machine import MIB, Machine, TaskHost, eventually, running, spec_of

DISKS = (
    DiskSpec(name="vda", size_bytes=64 * MIB),
    DiskSpec(name="vdb", size_bytes=32 * MIB, format="raw"),
    DiskSpec(name="cd", device="cdrom", bus="scsi"),
)


@pytest.fixture(scope="module")
def task_host(lab: Lab) -> Iterator[TaskHost]:
    host = TaskHost(lab.host("h1"))
    yield host
    host.close()


@pytest.fixture(scope="module")
def shared_machine(task_host: TaskHost, guest: GuestImage) -> Iterator[Machine]:
    with running(task_host, spec_of(guest, "snapshots-1", memory_mib=192, disks=DISKS)) as made:
        yield made


@pytest.fixture
def machine(shared_machine: Machine) -> Iterator[Machine]:
    """Given back without snapshots and without file systems in use."""
    yield shared_machine
    shared_machine.sh("umount /mnt; rm -f /tmp/written")
    for name in reversed(names(shared_machine)):
        shared_machine.do(CommitSnapshot(vm_id="", name=name))


def names(machine: Machine) -> list[str]:
    value = machine.do(ListSnapshots(vm_id=""))
    assert isinstance(value, SnapshotList)
    return [snapshot.name for snapshot in value.snapshots]


def files(machine: Machine, lab: Lab) -> list[str]:
    """What lies beside the machine's disks, without its id."""
    found = sorted((lab.shared / "images").glob(f"{machine.vm_id}*"))
    return [path.name.removeprefix(machine.vm_id) for path in found]


def path_of(machine: Machine, lab: Lab, suffix: str) -> str:
    return str(lab.shared / "images" / f"{machine.vm_id}{suffix}")


def test_snapshots_hold_what_was_and_their_commit_leaves_what_is(machine: Machine, lab: Lab) -> None:
    for device, word in (("vda", "first"), ("vdb", "FIRST")):
        machine.write(device, word)
    machine.do(CreateSnapshot(vm_id="", name="s1"))
    machine.write("vda", "later")
    machine.do(CreateSnapshot(vm_id="", name="s2", with_memory=True))
    machine.write("vdb", "LATER")

    assert names(machine) == ["s1", "s2"]
    assert b"first" in Path(path_of(machine, lab, "-vda")).read_bytes()
    assert b"later" in Path(path_of(machine, lab, "-vda.s1")).read_bytes()
    assert Path(path_of(machine, lab, "-vda.s2.olvm-memory")).stat().st_size > MIB
    assert machine.refused(CommitSnapshot(vm_id="", name="s1")).code == "in_use"
    for name in ("s2", "s1"):
        machine.do(CommitSnapshot(vm_id="", name=name))
    assert files(machine, lab) == ["-vda", "-vdb"]
    assert (machine.read("vda", 5), machine.read("vdb", 5)) == ("later", "LATER")
    assert machine.domain.blockInfo("vda")[0] == 64 * MIB


def test_quiesced_snapshot_freezes_the_guests_files_for_that_moment(machine: Machine) -> None:
    machine.sh("mke2fs -F /dev/vda && mount -t ext4 /dev/vda /mnt && echo written > /mnt/file")
    machine.do(CreateSnapshot(vm_id="", name="quiet", quiesce=True))

    assert machine.sh("echo more >> /mnt/file; cat /mnt/file").split() == ["written", "more"]
    machine.do(CommitSnapshot(vm_id="", name="quiet"))
    assert machine.sh("cat /mnt/file").split() == ["written", "more"]


def test_frozen_guest_writes_nothing_until_it_is_thawed(machine: Machine) -> None:
    machine.sh("mke2fs -F /dev/vda && mount -t ext4 /dev/vda /mnt")
    machine.sh("(sleep 3; echo more > /mnt/file; sync; echo done > /tmp/written) > /dev/null 2>&1 &")
    machine.do(FreezeGuest(vm_id=""))
    before = written_bytes(machine)
    time.sleep(5)
    assert written_bytes(machine) == before
    machine.do(ThawGuest(vm_id=""))
    assert eventually(lambda: machine.sh("cat /tmp/written") == "done")
    assert written_bytes(machine) > before


def written_bytes(machine: Machine) -> int:
    return int(machine.domain.blockStats("vda")[3])


def test_quiesce_without_an_agent_is_refused_and_leaves_nothing(
    task_host: TaskHost, guest: GuestImage, lab: Lab
) -> None:
    with running(task_host, spec_of(guest, "mute", memory_mib=192, disks=DISKS[:1])) as machine:
        machine.sh("(sleep 1; killall qemu-ga) > /dev/null 2>&1 &")
        assert eventually(lambda: not _agent_is_there(machine))
        failure = machine.refused(CreateSnapshot(vm_id="", name="s1", quiesce=True))

        assert (failure.code, failure.can_retry) == ("guest_refused", True)
        assert files(machine, lab) == ["-vda"]
        assert names(machine) == []
        machine.do(CreateSnapshot(vm_id="", name="s1"))


def _agent_is_there(machine: Machine) -> bool:
    return any(
        target.get("name") == QEMU_AGENT_CHANNEL and target.get("state") == "connected"
        for target in machine.xml().findall("devices/channel/target")
    )


def test_file_that_is_in_the_way_stops_a_snapshot_before_it_begins(machine: Machine, lab: Lab) -> None:
    Path(path_of(machine, lab, "-vdb.s1")).write_bytes(b"somebody's")

    assert machine.refused(CreateSnapshot(vm_id="", name="s1")).code == "exists"
    assert files(machine, lab) == ["-vda", "-vdb", "-vdb.s1"]
    assert names(machine) == []
    Path(path_of(machine, lab, "-vdb.s1")).unlink()


@pytest.fixture
def small(lab: Lab) -> Iterator[Path]:
    """A file system of 6 MiB on the host; what is mounted after its begin is mounted inside it."""
    path = lab.shared / "small"
    path.mkdir(exist_ok=True)
    host = lab.host("h1")
    host.run(["mount", "-t", "tmpfs", "-o", "size=6m", "small", str(path)])
    yield path
    host.run(["umount", "-l", str(path)])


def test_snapshot_of_which_one_disk_has_no_room_is_none_at_all(
    task_host: TaskHost, guest: GuestImage, lab: Lab, small: Path
) -> None:
    host = lab.host("h1")
    host.run(["truncate", "-s", "1M", f"{small}/raw"])
    disks = (DISKS[0], DiskSpec(name="vdb", source=f"{small}/raw", format="raw"))
    with running(task_host, spec_of(guest, "roomless", memory_mib=192, disks=disks)) as machine:
        machine.write("vda", "alive")
        # What is left is enough for the record, and too little for a layer.
        host.run(
            ["sh", "-c", f"dd if=/dev/zero of={small}/fill bs=4k 2>/dev/null; truncate -s -32k {small}/fill"]
        )
        with pytest.raises(libvirt.libvirtError):
            machine.ask(CreateSnapshot(vm_id="", name="s1"))

        assert names(machine) == []
        assert files(machine, lab) == ["-vda"]
        assert sorted(host.run(["ls", str(small)]).split()) == ["fill", "raw"]
        host.run(["rm", f"{small}/fill"])
        machine.do(CreateSnapshot(vm_id="", name="s1"))
        machine.write("vda", "after")
        machine.do(CommitSnapshot(vm_id="", name="s1"))
        assert machine.read("vda", 5) == "after"


def test_record_of_a_snapshot_that_never_came_is_forgotten(machine: Machine, lab: Lab) -> None:
    """As an agent leaves it that died between the word and the deed."""
    disk = path_of(machine, lab, "-vda")
    layer = Layer(snapshot="s1", created_ns=1, path=f"{disk}.s1", beneath=disk, disks=("vda",))
    write_layers(disk, (layer,), str)

    assert names(machine) == []
    assert read_layers(disk, str) == ()
    machine.do(CreateSnapshot(vm_id="", name="s1"))


def test_record_of_a_snapshot_that_came_and_was_not_written_down_is_mended(
    machine: Machine, lab: Lab
) -> None:
    machine.do(CreateSnapshot(vm_id="", name="s1"))
    for suffix in ("-vda", "-vdb"):
        disk = path_of(machine, lab, suffix)
        pending = tuple(msgspec.structs.replace(layer, state="pending") for layer in read_layers(disk, str))
        write_layers(disk, pending, str)

    assert names(machine) == ["s1"]
    machine.do(CommitSnapshot(vm_id="", name="s1"))
    assert files(machine, lab) == ["-vda", "-vdb"]


def test_commit_that_was_broken_off_is_finished_by_the_next(machine: Machine, lab: Lab) -> None:
    """As an agent leaves it that died when the data were copied and the disk not yet led back."""
    machine.do(CreateSnapshot(vm_id="", name="s1"))
    machine.write("vda", "whole")
    flags = libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE | libvirt.VIR_DOMAIN_BLOCK_COMMIT_SHALLOW
    machine.domain.blockCommit("vda", None, None, 0, flags)

    machine.do(CommitSnapshot(vm_id="", name="s1"))
    assert machine.read("vda", 5) == "whole"
    assert files(machine, lab) == ["-vda", "-vdb"]


def test_machine_with_snapshots_keeps_its_layers_and_starts_again_from_the_newest(
    task_host: TaskHost, guest: GuestImage, lab: Lab
) -> None:
    spec = spec_of(guest, "snapshots-2", memory_mib=192, disks=DISKS)
    with running(task_host, spec) as machine:
        machine.write("vda", "older")
        machine.do(CreateSnapshot(vm_id="", name="s1"))
        machine.write("vda", "newer")
        volume = task_host.connection.storageVolLookupByPath(source_beneath(machine))
        pool = volume.storagePoolLookupByVolume().name()
        grow = ResizeVolume(pool=pool, name=f"{machine.vm_id}-vda", size_bytes=128 * MIB)
        assert task_host.refused(grow).code == "in_use"
        layer = DeleteVolume(pool=pool, name=f"{machine.vm_id}-vda.s1")
        base = DeleteVolume(pool=pool, name=f"{machine.vm_id}-vda")
        assert [task_host.refused(request).code for request in (layer, base)] == ["in_use", "in_use"]
        machine.end()
        assert [task_host.refused(request).code for request in (layer, base)] == ["in_use", "in_use"]
    again = Machine(task_host, spec, machine.vm_id, 2)
    try:
        again.wait_until_up()
        assert again.read("vda", 5) == "newer"
        assert names(again) == ["s1"]
        again.do(CommitSnapshot(vm_id="", name="s1"))
        assert again.read("vda", 5) == "newer"
        assert files(again, lab) == ["-vda", "-vdb"]
    finally:
        again.end()


def source_beneath(machine: Machine) -> str:
    source = machine.xml().find("devices/disk/backingStore/source")
    assert source is not None
    return source.get("file", "")
