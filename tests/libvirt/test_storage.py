"""Volumes as guests see them: bases, clones and growth, disks that the backend makes, and what is never taken away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hypervisor_backends.libvirt_tasks import PreparedStart
from hypervisor_backends.protocol import (
    CallFailed,
    CloneVolume,
    CreatePool,
    CreateVolume,
    DeletePool,
    DeleteVolume,
    ListPools,
    ListVolumes,
    PoolList,
    ResizeVolume,
    VolumeList,
)
from olvm.lab.guest import GuestImage
from olvm.lab.hosts import Lab
from olvm.model.hardware import DiskSpec
from tests.libvirt.machine import MIB, TaskHost, eventually, running, spec_of


@pytest.fixture(scope="module")
def task_host(lab: Lab) -> Iterator[TaskHost]:
    host = TaskHost(lab.host("h1"))
    yield host
    host.close()


@pytest.fixture(scope="module")
def pool(task_host: TaskHost, lab: Lab) -> str:
    task_host.do(CreatePool(name="tests", path=str(lab.shared / "images" / "tests")))
    return "tests"


def test_machines_on_one_base_write_apart_clones_keep_what_was_and_disks_grow(
    task_host: TaskHost, guest: GuestImage, pool: str, lab: Lab
) -> None:
    directory = lab.shared / "images" / "tests"
    raw = lab.shared / "images" / "golden.raw"
    raw.write_bytes((b"\0" * 4096 + b"golden").ljust(32 * MIB, b"\0"))
    lab.host("h1").run(["qemu-img", "convert", "-O", "qcow2", str(raw), f"{directory}/golden"])
    task_host.do(CreateVolume(pool=pool, name="one", size_bytes=0, base=f"{pool}/golden"))
    task_host.do(CloneVolume(pool=pool, name="copy", source="golden"))
    disks = (
        DiskSpec(name="vda", source=f"{pool}/one"),
        DiskSpec(name="vdb", source=f"{pool}/copy"),
        DiskSpec(name="vdc", base=f"{pool}/golden"),
    )
    with running(task_host, spec_of(guest, "writer-1", memory_mib=192, disks=disks)) as machine:
        assert [machine.read(name, 6) for name in ("vda", "vdb", "vdc")] == ["golden"] * 3
        machine.write("vda", "mine-1")
        assert [machine.read(name, 6) for name in ("vda", "vdb", "vdc")] == ["mine-1", "golden", "golden"]
        assert task_host.refused(DeleteVolume(pool=pool, name="golden")).code == "in_use"
        task_host.do(ResizeVolume(pool=pool, name="one", size_bytes=48 * MIB))
        assert eventually(lambda: machine.sh("cat /sys/block/vda/size") == str(48 * MIB // 512))
        assert machine.read("vda", 6) == "mine-1"
        assert (
            task_host.refused(ResizeVolume(pool=pool, name="one", size_bytes=16 * MIB)).code == "bad_request"
        )
        made = f"{machine.vm_id}-vdc"
    # Nobody deletes a machine's disk unasked: it is there after the machine's end.
    pools = task_host.do(ListPools())
    assert isinstance(pools, PoolList)
    assert any(made in volume_names(task_host, each.name) for each in pools.pools)


def volume_names(task_host: TaskHost, pool: str) -> list[str]:
    value = task_host.do(ListVolumes(pool=pool))
    assert isinstance(value, VolumeList)
    return [volume.name for volume in value.volumes]


def test_volume_that_another_host_has_open_does_not_grow_from_here(
    task_host: TaskHost, guest: GuestImage, pool: str, lab: Lab
) -> None:
    task_host.do(CreateVolume(pool=pool, name="far", size_bytes=16 * MIB))
    other = TaskHost(lab.host("h2"))
    path = f"{lab.shared}/images/tests/far"
    try:
        with running(
            other, spec_of(guest, "far-1", memory_mib=192, disks=(DiskSpec(name="vda", source=path),))
        ):
            failure = task_host.refused(ResizeVolume(pool=pool, name="far", size_bytes=32 * MIB))
            assert (failure.code, failure.can_retry) == ("in_use", True)
    finally:
        other.close()


def test_volume_on_a_full_file_system_is_refused_and_not_left_half(task_host: TaskHost, lab: Lab) -> None:
    small = lab.shared / "small"
    small.mkdir(exist_ok=True)
    host = lab.host("h1")
    host.run(["mount", "-t", "tmpfs", "-o", "size=1m", "small", str(small)])
    try:
        task_host.do(CreatePool(name="small", path=str(small)))
        host.run(["sh", "-c", f"dd if=/dev/zero of={small}/fill bs=4k 2>/dev/null; true"])
        import libvirt

        from hypervisor_backends.libvirt_errors import failure_of

        with pytest.raises(libvirt.libvirtError) as caught:
            task_host.ask(CreateVolume(pool="small", name="v", size_bytes=64 * MIB))
        assert failure_of(caught.value, "x").code == "no_space"
        assert volume_names(task_host, "small") == ["fill"]
        task_host.do(DeletePool(name="small"))
    finally:
        host.run(["umount", "-l", str(small)])


def test_pool_that_is_forgotten_keeps_its_volumes_and_is_found_again(task_host: TaskHost, lab: Lab) -> None:
    path = str(lab.shared / "images" / "again")
    task_host.do(CreatePool(name="again", path=path))
    task_host.do(CreateVolume(pool="again", name="kept", size_bytes=MIB))
    task_host.do(DeletePool(name="again"))
    assert Path(path, "kept").exists()
    task_host.do(CreatePool(name="other-name", path=path))
    assert volume_names(task_host, "other-name") == ["kept"]
    task_host.do(DeletePool(name="other-name"))


def test_base_outside_of_all_pools_is_looked_into_and_no_pool_is_left(
    task_host: TaskHost, pool: str, lab: Lab
) -> None:
    outside = lab.shared / "outside"
    outside.mkdir(exist_ok=True)
    lab.host("h1").run(["qemu-img", "create", "-q", "-f", "qcow2", f"{outside}/base", "24M"])
    before = [each.name() for each in task_host.connection.listAllStoragePools()]
    task_host.do(CreateVolume(pool=pool, name="on-outside", size_bytes=0, base=f"{outside}/base"))

    value = task_host.do(ListVolumes(pool=pool))
    assert isinstance(value, VolumeList)
    (made,) = [volume for volume in value.volumes if volume.name == "on-outside"]
    assert (made.size_bytes, made.base, made.format) == (24 * MIB, f"{outside}/base", "qcow2")
    assert [each.name() for each in task_host.connection.listAllStoragePools()] == before


@pytest.mark.parametrize(
    ("disk", "code"),
    [
        (DiskSpec(name="vda", source="nopool/x"), "not_found"),
        (DiskSpec(name="vda", source="word"), "bad_request"),
        (DiskSpec(name="vda", base="/no/such/base"), "not_found"),
        (DiskSpec(name="vda", size_bytes=MIB, format="raw", base="tests/golden"), "bad_request"),
    ],
)
def test_machine_whose_disk_cannot_be_had_is_refused_before_its_start(
    task_host: TaskHost, guest: GuestImage, disk: DiskSpec, code: str, pool: str
) -> None:
    prepared = task_host.prepare(
        "0b0e7a52-96f1-4d6a-8f6c-00000000beef", spec_of(guest, "diskless", disks=(disk,))
    )

    assert isinstance(prepared, CallFailed)
    assert prepared.code == code


def test_first_pool_is_made_in_the_directory_of_the_settings(lab: Lab, guest: GuestImage) -> None:
    directory = str(lab.shared / "images" / "first")
    host = TaskHost(lab.host("h2"), pool_directory=directory)
    try:
        vm_id = "0b0e7a52-96f1-4d6a-8f6c-00000000cafe"
        spec = spec_of(guest, "first", disks=(DiskSpec(name="vda", size_bytes=MIB),))
        prepared = host.prepare(vm_id, spec)
        assert isinstance(prepared, PreparedStart)
        assert prepared.spec.hardware.disks[0].source == f"{directory}/{vm_id}-vda"
    finally:
        host.close()
