"""What every backend that makes snapshots must do: stack them, commit them, go back to them."""

from __future__ import annotations

import pytest

from hypervisor_backends.protocol import (
    AttachDisk,
    CommitSnapshot,
    CreateSnapshot,
    DetachDisk,
    ListSnapshots,
    RevertSnapshot,
    SnapshotList,
)
from olvm.model.hardware import DiskSpec
from tests.unit.hypervisor_backends.task_bench import MIB, TaskBench


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
