"""What every backend that plugs and unplugs must do: CPUs, memory, disks, media, network cards."""

from __future__ import annotations

import pytest

from hypervisor_backends.protocol import (
    AttachDisk,
    AttachNic,
    ChangeMedium,
    CloneVolume,
    CreatePool,
    CreateVolume,
    DeletePool,
    DeleteVolume,
    DetachDisk,
    DetachNic,
    ListPools,
    PlugMemory,
    PoolList,
    ResizeVolume,
    SetBalloon,
    SetCpuQuota,
    SetNicLink,
    SetVcpus,
    UnplugMemory,
)
from olvm.model.hardware import DiskSpec, NicSpec
from tests.unit.hypervisor_backends.task_bench import MIB, TaskBench

BLOCK = 128 * MIB

# ---------------------------------------------------------------- CPUs and memory


def test_vcpus_within_their_maximum_are_plugged_and_shown(tasks: TaskBench) -> None:
    tasks.need("hot_plug_vcpu")
    for _ in range(2):
        tasks.do(SetVcpus(vm_id=tasks.vm_id, vcpus=2))

    for count in (0, -1, 4):
        assert tasks.refused(SetVcpus(vm_id=tasks.vm_id, vcpus=count)) == "bad_request"
    if "hot_unplug_vcpu" in tasks.bench.backend.capabilities.features:
        tasks.do(SetVcpus(vm_id=tasks.vm_id, vcpus=1))
    else:
        assert tasks.refused(SetVcpus(vm_id=tasks.vm_id, vcpus=1)) == "not_supported"


def test_memory_device_is_plugged_once_by_its_name_and_taken_back(tasks: TaskBench) -> None:
    tasks.need("hot_plug_memory", "hot_unplug_memory")
    for _ in range(2):
        tasks.do(PlugMemory(vm_id=tasks.vm_id, name="m1", size_bytes=BLOCK))

    assert tasks.refused(PlugMemory(vm_id=tasks.vm_id, name="m1", size_bytes=2 * BLOCK)) == "exists"
    tasks.do(UnplugMemory(vm_id=tasks.vm_id, name="m1"))
    assert tasks.refused(UnplugMemory(vm_id=tasks.vm_id, name="m1")) == "not_found"


@pytest.mark.parametrize(
    ("name", "size_bytes", "node"),
    [
        ("m2", 0, 0),
        ("m2", -BLOCK, 0),
        ("m2", BLOCK // 2, 0),
        ("m2", 8 * BLOCK, 0),
        ("m2", BLOCK, 1),
        ("m2", BLOCK, -1),
        ("", BLOCK, 0),
        ("M/2", BLOCK, 0),
    ],
)
def test_memory_device_that_cannot_be_is_refused(
    tasks: TaskBench, name: str, size_bytes: int, node: int
) -> None:
    tasks.need("hot_plug_memory")
    request = PlugMemory(vm_id=tasks.vm_id, name=name, size_bytes=size_bytes, node=node)

    assert tasks.refused(request) == "bad_request"


def test_balloon_keeps_within_what_the_machine_has(tasks: TaskBench) -> None:
    tasks.need("balloon")
    tasks.do(SetBalloon(vm_id=tasks.vm_id, memory_bytes=200 * MIB))
    tasks.do(SetBalloon(vm_id=tasks.vm_id, memory_bytes=256 * MIB))

    for size_bytes in (0, -1, 257 * MIB):
        assert tasks.refused(SetBalloon(vm_id=tasks.vm_id, memory_bytes=size_bytes)) == "bad_request"


def test_cpu_quota_is_set_and_lifted(tasks: TaskBench) -> None:
    tasks.need("cpu_quota")
    tasks.do(SetCpuQuota(vm_id=tasks.vm_id, percent=20))
    tasks.do(SetCpuQuota(vm_id=tasks.vm_id, percent=0))

    assert tasks.refused(SetCpuQuota(vm_id=tasks.vm_id, percent=-5)) == "bad_request"


# ---------------------------------------------------------------- disks and media


def test_disk_without_source_is_made_attached_once_and_kept_when_detached(tasks: TaskBench) -> None:
    tasks.need("hot_plug_disk", "storage")
    disk = DiskSpec(name="vdb", size_bytes=16 * MIB)
    for _ in range(2):
        tasks.do(AttachDisk(vm_id=tasks.vm_id, disk=disk))
    other = DiskSpec(name="vdb", source=tasks.media[0], format="raw")

    assert tasks.refused(AttachDisk(vm_id=tasks.vm_id, disk=other)) == "exists"
    tasks.do(DetachDisk(vm_id=tasks.vm_id, name="vdb"))
    assert tasks.refused(DetachDisk(vm_id=tasks.vm_id, name="vdb")) == "not_found"
    pools = tasks.do(ListPools())
    assert isinstance(pools, PoolList)
    made = [tasks.volumes(pool.name).get(f"{tasks.vm_id}-vdb") for pool in pools.pools]
    assert [volume.size_bytes for volume in made if volume is not None] == [16 * MIB]


def test_disk_that_cannot_be_plugged_is_refused(tasks: TaskBench) -> None:
    tasks.need("hot_plug_disk", "storage")
    tasks.do(CreatePool(name="plug", path=f"{tasks.directory}/plug"))
    sata = DiskSpec(name="sdx", size_bytes=MIB, bus="sata")
    missing = DiskSpec(name="vdx", source="plug/missing")
    no_pool = DiskSpec(name="vdx", source="nowhere/missing")
    odd = DiskSpec(name="vdx", source="odd")

    assert tasks.refused(AttachDisk(vm_id=tasks.vm_id, disk=sata)) == "bad_request"
    assert tasks.refused(AttachDisk(vm_id=tasks.vm_id, disk=missing)) == "not_found"
    assert tasks.refused(AttachDisk(vm_id=tasks.vm_id, disk=no_pool)) == "not_found"
    assert tasks.refused(AttachDisk(vm_id=tasks.vm_id, disk=odd)) == "bad_request"
    tasks.do(DeletePool(name="plug"))


def test_volume_in_use_is_neither_attached_again_nor_cloned_nor_deleted(tasks: TaskBench) -> None:
    tasks.need("hot_plug_disk", "storage")
    tasks.do(CreatePool(name="busy", path=f"{tasks.directory}/busy"))
    tasks.do(CreateVolume(pool="busy", name="d1", size_bytes=16 * MIB))
    tasks.do(AttachDisk(vm_id=tasks.vm_id, disk=DiskSpec(name="vdc", source="busy/d1")))
    again = AttachDisk(vm_id=tasks.vm_id, disk=DiskSpec(name="vdd", source="busy/d1"))

    assert tasks.refused(again) == "in_use"
    assert tasks.refused(CloneVolume(pool="busy", name="d2", source="d1")) == "in_use"
    assert tasks.refused(DeleteVolume(pool="busy", name="d1")) == "in_use"
    tasks.do(ResizeVolume(pool="busy", name="d1", size_bytes=32 * MIB))
    assert tasks.volumes("busy")["d1"].size_bytes == 32 * MIB
    tasks.do(DetachDisk(vm_id=tasks.vm_id, name="vdc"))
    tasks.do(DeleteVolume(pool="busy", name="d1"))
    tasks.do(DeletePool(name="busy"))


def test_medium_is_put_in_changed_and_taken_out(tasks: TaskBench) -> None:
    tasks.need("hot_plug_disk")
    for source in (tasks.media[0], tasks.media[0], tasks.media[1], "", ""):
        tasks.do(ChangeMedium(vm_id=tasks.vm_id, name="cd", source=source))

    assert tasks.refused(ChangeMedium(vm_id=tasks.vm_id, name="vda")) == "bad_request"
    assert tasks.refused(ChangeMedium(vm_id=tasks.vm_id, name="other")) == "not_found"


# ---------------------------------------------------------------- network cards


def test_network_card_is_attached_once_unplugged_from_its_cable_and_detached(tasks: TaskBench) -> None:
    tasks.need("hot_plug_nic")
    for _ in range(2):
        tasks.do(AttachNic(vm_id=tasks.vm_id, nic=NicSpec(name="eth1", mac="52:54:00:00:00:11")))
    taken = NicSpec(name="eth2", mac="52:54:00:00:00:11")
    other = NicSpec(name="eth1", mac="52:54:00:00:00:12")

    assert tasks.refused(AttachNic(vm_id=tasks.vm_id, nic=taken)) == "in_use"
    assert tasks.refused(AttachNic(vm_id=tasks.vm_id, nic=other)) == "exists"
    for up in (False, True):
        tasks.do(SetNicLink(vm_id=tasks.vm_id, name="eth1", up=up))
    tasks.do(DetachNic(vm_id=tasks.vm_id, name="eth1"))
    assert tasks.refused(DetachNic(vm_id=tasks.vm_id, name="eth1")) == "not_found"
    assert tasks.refused(SetNicLink(vm_id=tasks.vm_id, name="eth1", up=True)) == "not_found"


def test_network_card_on_a_network_that_is_not_there_is_refused(tasks: TaskBench) -> None:
    tasks.need("hot_plug_nic")
    nic = NicSpec(name="eth3", network="no-such-net")

    assert tasks.refused(AttachNic(vm_id=tasks.vm_id, nic=nic)) == "not_found"
    odd = NicSpec(name="eth3", network="a <b>")
    assert tasks.refused(AttachNic(vm_id=tasks.vm_id, nic=odd)) == "bad_request"
