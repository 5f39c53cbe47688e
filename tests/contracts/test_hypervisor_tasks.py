"""What every backend that declares a task must do by it. Real libvirt joins in `tests/libvirt/test_task_contract.py`.

The fixture `tasks` gives one running machine. Where booting one takes seconds the tests share it, so each leaves it as
it found it, and takes names of its own.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hypervisor_backends.protocol import (
    AttachDisk,
    AttachNic,
    ChangeMedium,
    CloneVolume,
    CommitSnapshot,
    ConsoleAddress,
    CreateNetwork,
    CreatePool,
    CreateSnapshot,
    CreateVolume,
    DeleteNetwork,
    DeletePool,
    DeleteVolume,
    DetachDisk,
    DetachNic,
    FreezeGuest,
    HypervisorRequest,
    ListPools,
    ListSnapshots,
    ListVolumes,
    PlugMemory,
    PoolList,
    ResizeVolume,
    RevertSnapshot,
    SetBalloon,
    SetConsoleTicket,
    SetCpuQuota,
    SetNicLink,
    SetVcpus,
    SnapshotList,
    ThawGuest,
    UnplugMemory,
)
from hypervisor_backends.simulated_config import SimulatedConfig
from olvm.model.hardware import DiskSpec, NicSpec
from olvm.model.limits import NS_PER_S
from tests.unit.hypervisor_backends.task_bench import MIB, TaskBench, simulated_task_bench

BLOCK = 128 * MIB
CONFIGS = {"simulated": SimulatedConfig(), "simulated_instant": SimulatedConfig.instant()}


@pytest.fixture(params=sorted(CONFIGS))
def tasks(request: pytest.FixtureRequest) -> Iterator[TaskBench]:
    made, hypervisor = simulated_task_bench(CONFIGS[request.param])
    yield made
    hypervisor.close()


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


# ---------------------------------------------------------------- snapshots, screens, freezing


def test_snapshots_stack_and_are_committed_newest_first(tasks: TaskBench) -> None:
    tasks.need("snapshot")
    tasks.do(CreateSnapshot(vm_id=tasks.vm_id, name="s1"))
    tasks.do(CreateSnapshot(vm_id=tasks.vm_id, name="s2"))

    assert tasks.snapshots() == ["s1", "s2"]
    assert tasks.refused(CreateSnapshot(vm_id=tasks.vm_id, name="s1")) == "exists"
    assert tasks.refused(CommitSnapshot(vm_id=tasks.vm_id, name="s1")) == "in_use"
    assert tasks.refused(CommitSnapshot(vm_id=tasks.vm_id, name="s3")) == "not_found"
    tasks.do(CommitSnapshot(vm_id=tasks.vm_id, name="s2"))
    tasks.do(CommitSnapshot(vm_id=tasks.vm_id, name="s1"))
    assert tasks.snapshots() == []


def test_snapshot_with_memory_says_so_and_which_disks_it_froze(tasks: TaskBench) -> None:
    tasks.need("memory_snapshot")
    tasks.do(CreateSnapshot(vm_id=tasks.vm_id, name="m1", with_memory=True))
    value = tasks.do(ListSnapshots(vm_id=tasks.vm_id))
    tasks.do(CommitSnapshot(vm_id=tasks.vm_id, name="m1"))

    assert isinstance(value, SnapshotList)
    (snapshot,) = value.snapshots
    assert (snapshot.name, snapshot.with_memory, snapshot.disks) == ("m1", True, ("vda",))
    assert snapshot.created_ns > 0


def test_revert_goes_back_to_a_snapshot_as_often_as_it_is_asked(tasks: TaskBench) -> None:
    tasks.need("revert_snapshot")
    tasks.do(CreateSnapshot(vm_id=tasks.vm_id, name="r1"))
    tasks.bench.events.clear()
    for _ in range(2):
        tasks.do(RevertSnapshot(vm_id=tasks.vm_id, name="r1"))
        assert tasks.wait_until_up()

    kinds = [event.kind for event in tasks.bench.events if event.kind != "guest_event"]
    assert [kind for kind in kinds if kind != "guest_up"] == ["rebooted", "rebooted"]
    assert tasks.snapshots() == ["r1"]
    tasks.do(CommitSnapshot(vm_id=tasks.vm_id, name="r1"))
    assert tasks.snapshots() == []


def test_revert_past_later_snapshots_must_be_told_to_lose_them(tasks: TaskBench) -> None:
    tasks.need("revert_snapshot")
    for name in ("r1", "r2", "r3"):
        tasks.do(CreateSnapshot(vm_id=tasks.vm_id, name=name))
    failure = tasks.failure(RevertSnapshot(vm_id=tasks.vm_id, name="r1"))

    assert failure.code == "in_use"
    assert "r2, r3" in failure.message
    assert "discard_later" in failure.message
    assert tasks.snapshots() == ["r1", "r2", "r3"]
    tasks.do(RevertSnapshot(vm_id=tasks.vm_id, name="r2", discard_later=True))
    assert tasks.wait_until_up()
    assert tasks.snapshots() == ["r1", "r2"]
    for name in ("r2", "r1"):
        tasks.do(CommitSnapshot(vm_id=tasks.vm_id, name=name))


def test_revert_with_memory_goes_on_at_once(tasks: TaskBench) -> None:
    tasks.need("revert_snapshot", "memory_snapshot")
    tasks.do(CreateSnapshot(vm_id=tasks.vm_id, name="rm", with_memory=True))
    for _ in range(2):
        tasks.do(RevertSnapshot(vm_id=tasks.vm_id, name="rm", with_memory=True))
        assert tasks.bench.status(tasks.vm_id) == "up"

    assert tasks.snapshots() == ["rm"]
    tasks.do(CommitSnapshot(vm_id=tasks.vm_id, name="rm"))


def test_revert_that_cannot_be_is_refused_and_changes_nothing(tasks: TaskBench) -> None:
    tasks.need("revert_snapshot")
    unknown = tasks.failure(RevertSnapshot(vm_id=tasks.vm_id, name="r9"))
    tasks.do(CreateSnapshot(vm_id=tasks.vm_id, name="r1"))
    without = tasks.failure(RevertSnapshot(vm_id=tasks.vm_id, name="r1", with_memory=True))
    tasks.bench.events.clear()

    assert unknown.code == "not_found"
    assert "none" in unknown.message
    assert "r1" in tasks.failure(RevertSnapshot(vm_id=tasks.vm_id, name="r9")).message
    assert without.code == "bad_request"
    assert "without" in without.message
    assert [event for event in tasks.bench.events if event.kind != "guest_event"] == []
    assert tasks.snapshots() == ["r1"]
    tasks.do(CommitSnapshot(vm_id=tasks.vm_id, name="r1"))


def test_disk_that_came_after_the_snapshot_is_left_as_it_is_by_a_revert(tasks: TaskBench) -> None:
    tasks.need("revert_snapshot", "memory_snapshot", "hot_plug_disk", "storage")
    tasks.do(CreateSnapshot(vm_id=tasks.vm_id, name="r1", with_memory=True))
    tasks.do(AttachDisk(vm_id=tasks.vm_id, disk=DiskSpec(name="vdr", size_bytes=16 * MIB)))

    failure = tasks.failure(RevertSnapshot(vm_id=tasks.vm_id, name="r1", with_memory=True))
    assert failure.code == "wrong_state"
    assert "changed since" in failure.message
    tasks.do(CreateSnapshot(vm_id=tasks.vm_id, name="r2"))
    both = RevertSnapshot(vm_id=tasks.vm_id, name="r1", discard_later=True)
    assert tasks.refused(both) == "in_use"
    tasks.do(CommitSnapshot(vm_id=tasks.vm_id, name="r2"))
    tasks.do(RevertSnapshot(vm_id=tasks.vm_id, name="r1"))
    assert tasks.wait_until_up()
    tasks.do(CommitSnapshot(vm_id=tasks.vm_id, name="r1"))
    tasks.do(DetachDisk(vm_id=tasks.vm_id, name="vdr"))


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "a" * 65, "olvm-layers", "a\n"])
def test_snapshot_under_a_name_that_is_no_file_name_is_refused(tasks: TaskBench, name: str) -> None:
    tasks.need("snapshot")

    assert tasks.refused(CreateSnapshot(vm_id=tasks.vm_id, name=name)) == "bad_request"
    assert tasks.snapshots() == []


def test_console_ticket_names_where_and_until_when(tasks: TaskBench) -> None:
    tasks.need("console_ticket")
    address = tasks.do(SetConsoleTicket(vm_id=tasks.vm_id, password="open-1", valid_s=60))

    assert isinstance(address, ConsoleAddress)
    assert address.kind == "vnc"
    assert address.host
    assert address.port >= 5900
    assert abs(address.expires_ns - tasks.bench.scheduler.now_ns()) < 3600 * NS_PER_S


@pytest.mark.parametrize(
    ("password", "valid_s"), [("", 60), ("x" * 9, 60), ("é", 60), ("ok", 0), ("ok", 10**9)]
)
def test_console_ticket_that_cannot_be_is_refused_without_its_password(
    tasks: TaskBench, password: str, valid_s: int
) -> None:
    tasks.need("console_ticket")
    failure = tasks.failure(SetConsoleTicket(vm_id=tasks.vm_id, password=password, valid_s=valid_s))

    assert failure.code == "bad_request"
    assert len(password) < 3 or password not in failure.message


def test_guest_is_frozen_and_thawed_however_often_it_is_asked(tasks: TaskBench) -> None:
    tasks.need("guest_agent")
    for request in (FreezeGuest, FreezeGuest, ThawGuest, ThawGuest):
        tasks.do(request(vm_id=tasks.vm_id))


DOMAIN_TASKS: tuple[HypervisorRequest, ...] = (
    SetVcpus(vm_id="nobody", vcpus=1),
    SetBalloon(vm_id="nobody", memory_bytes=BLOCK),
    AttachDisk(vm_id="nobody", disk=DiskSpec(name="vdz", size_bytes=MIB)),
    DetachNic(vm_id="nobody", name="eth0"),
    ListSnapshots(vm_id="nobody"),
    RevertSnapshot(vm_id="nobody", name="s"),
    SetConsoleTicket(vm_id="nobody", password="x"),
)


@pytest.mark.parametrize("request_", DOMAIN_TASKS, ids=lambda request: type(request).__name__)
def test_task_of_unknown_domain_is_refused(tasks: TaskBench, request_: HypervisorRequest) -> None:
    assert tasks.refused(request_) == "unknown_domain"


# ---------------------------------------------------------------- storage


def test_pool_is_made_once_by_its_name_and_path(tasks: TaskBench) -> None:
    tasks.need("storage")
    path = f"{tasks.directory}/p1"
    for _ in range(2):
        tasks.do(CreatePool(name="p1", path=path))

    assert tasks.refused(CreatePool(name="p1", path=f"{path}-other")) == "exists"
    assert tasks.refused(CreatePool(name="p1-other", path=path)) == "exists"
    value = tasks.do(ListPools())
    assert isinstance(value, PoolList)
    (pool,) = [pool for pool in value.pools if pool.name == "p1"]
    assert (pool.path, 0 < pool.free_bytes <= pool.capacity_bytes) == (path, True)
    tasks.do(DeletePool(name="p1"))
    assert tasks.refused(DeletePool(name="p1")) == "not_found"
    assert tasks.refused(ListVolumes(pool="p1")) == "not_found"


@pytest.mark.parametrize(
    ("name", "path"), [("p/x", "/a"), ("", "/a"), ("p2", "a"), ("p2", ""), ("p2", "/a/../b")]
)
def test_pool_that_cannot_be_is_refused(tasks: TaskBench, name: str, path: str) -> None:
    tasks.need("storage")

    assert tasks.refused(CreatePool(name=name, path=path)) == "bad_request"


def test_volumes_stand_on_each_other_are_cloned_grow_and_are_deleted_from_the_top(tasks: TaskBench) -> None:
    tasks.need("storage")
    tasks.do(CreatePool(name="v", path=f"{tasks.directory}/v"))
    tasks.do(CreateVolume(pool="v", name="base", size_bytes=16 * MIB))
    tasks.do(CreateVolume(pool="v", name="child", size_bytes=0, base="v/base"))
    tasks.do(CreateVolume(pool="v", name="grand", size_bytes=32 * MIB, base=f"{tasks.directory}/v/child"))
    tasks.do(CloneVolume(pool="v", name="copy", source="grand"))

    made = tasks.volumes("v")
    assert {name: (each.size_bytes, each.base.rpartition("/")[2]) for name, each in made.items()} == {
        "base": (16 * MIB, ""),
        "child": (16 * MIB, "base"),
        "grand": (32 * MIB, "child"),
        "copy": (32 * MIB, ""),
    }
    assert tasks.refused(DeleteVolume(pool="v", name="base")) == "in_use"
    assert tasks.refused(ResizeVolume(pool="v", name="base", size_bytes=64 * MIB)) == "in_use"
    tasks.do(ResizeVolume(pool="v", name="copy", size_bytes=64 * MIB))
    assert tasks.refused(ResizeVolume(pool="v", name="copy", size_bytes=32 * MIB)) == "bad_request"
    for name in ("copy", "grand", "child", "base"):
        tasks.do(DeleteVolume(pool="v", name=name))
    assert tasks.volumes("v") == {}
    tasks.do(DeletePool(name="v"))


def test_volume_that_cannot_be_is_refused(tasks: TaskBench) -> None:
    tasks.need("storage")
    tasks.do(CreatePool(name="w", path=f"{tasks.directory}/w"))
    tasks.do(CreateVolume(pool="w", name="one", size_bytes=16 * MIB, format="raw"))
    codes = {
        "exists": CreateVolume(pool="w", name="one", size_bytes=MIB),
        "not_found": CreateVolume(pool="w", name="two", size_bytes=MIB, base="w/none"),
        "bad_request": CreateVolume(pool="w", name="two", size_bytes=MIB, base="w/one"),
    }

    assert {code: tasks.refused(request) for code, request in codes.items()} == {code: code for code in codes}
    for request in (
        CreateVolume(pool="w", name="../two", size_bytes=MIB),
        CreateVolume(pool="w", name="two", size_bytes=0),
        CreateVolume(pool="w", name="two", size_bytes=-1),
        CreateVolume(pool="w", name="two", size_bytes=0, base="w/one", format="raw"),
        CreateVolume(pool="w", name="two.olvm-layers", size_bytes=MIB),
    ):
        assert tasks.refused(request) == "bad_request"
    assert tasks.refused(CloneVolume(pool="w", name="one", source="one")) == "exists"
    assert tasks.refused(CloneVolume(pool="w", name="two", source="none")) == "not_found"
    assert tasks.refused(ResizeVolume(pool="w", name="none", size_bytes=MIB)) == "not_found"
    assert tasks.refused(DeleteVolume(pool="w", name="none")) == "not_found"
    assert tasks.refused(DeleteVolume(pool="none", name="one")) == "not_found"
    tasks.do(DeleteVolume(pool="w", name="one"))
    tasks.do(DeletePool(name="w"))


# ---------------------------------------------------------------- networks


def test_network_is_made_once_shown_and_deleted(tasks: TaskBench) -> None:
    tasks.need("networks")
    request = CreateNetwork(name="iso1", kind="isolated", address="192.168.211.1/24")
    for _ in range(2):
        tasks.do(request)

    other = CreateNetwork(name="iso1", kind="isolated", address="192.168.212.1/24")
    assert tasks.refused(other) == "exists"
    shown = tasks.networks()["iso1"]
    assert (shown.kind, shown.active) == ("isolated", True)
    tasks.do(DeleteNetwork(name="iso1"))
    assert "iso1" not in tasks.networks()
    assert tasks.refused(DeleteNetwork(name="iso1")) == "not_found"


def test_network_with_a_machine_on_it_is_not_deleted(tasks: TaskBench) -> None:
    tasks.need("networks", "hot_plug_nic")
    tasks.do(CreateNetwork(name="used1", kind="isolated"))
    tasks.do(AttachNic(vm_id=tasks.vm_id, nic=NicSpec(name="eth4", network="used1")))

    assert tasks.refused(DeleteNetwork(name="used1")) == "in_use"
    tasks.do(DetachNic(vm_id=tasks.vm_id, name="eth4"))
    tasks.do(DeleteNetwork(name="used1"))


@pytest.mark.parametrize(
    "request_",
    [
        CreateNetwork(name="n/1", kind="isolated"),
        CreateNetwork(name="n1", kind="nat"),
        CreateNetwork(name="n1", kind="bridge"),
        CreateNetwork(name="n1", kind="bridge", bridge="br0", address="10.9.0.1/24"),
        CreateNetwork(name="n1", kind="isolated", address="10.9.0.300/24"),
        CreateNetwork(name="n1", kind="isolated", address="10.9.0.0/24"),
        CreateNetwork(name="n1", kind="isolated", address="10.9.0.1/31"),
        CreateNetwork(name="n1", kind="isolated", bridge="x" * 16),
        CreateNetwork(name="n1", kind="isolated", bridge="a b"),
    ],
)
def test_network_that_cannot_be_is_refused(tasks: TaskBench, request_: CreateNetwork) -> None:
    tasks.need("networks")

    assert tasks.refused(request_) == "bad_request"


def test_network_on_a_bridge_that_is_not_there_is_refused(tasks: TaskBench) -> None:
    tasks.need("networks")

    assert tasks.refused(CreateNetwork(name="n2", kind="bridge", bridge="nobr")) == "not_found"
