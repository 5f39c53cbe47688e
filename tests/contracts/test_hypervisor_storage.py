"""What every backend with pools must do: pools, and volumes that stand on each other."""

from __future__ import annotations

import pytest

from hypervisor_backends.measurements import PoolStatistics
from hypervisor_backends.protocol import (
    BulkStatistics,
    CloneVolume,
    CreatePool,
    CreateVolume,
    DeletePool,
    DeleteVolume,
    ListPools,
    ListVolumes,
    PoolList,
    ResizeVolume,
    StatisticsReport,
)
from tests.unit.hypervisor_backends.task_bench import MIB, TaskBench


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


def test_room_in_a_pool_is_measured_while_the_pool_is_there(tasks: TaskBench) -> None:
    tasks.need("storage")
    tasks.do(CreatePool(name="measured", path=f"{tasks.directory}/measured"))
    (told,) = pools_measured(tasks, until_there=True)

    assert told.name == "measured"
    assert 0 < told.free_bytes <= told.capacity_bytes
    tasks.do(DeletePool(name="measured"))
    assert pools_measured(tasks, until_there=False) == []


def pools_measured(tasks: TaskBench, *, until_there: bool) -> list[PoolStatistics]:
    """What the host's statistics tell of that pool; a real host looks at its pools no more often than its period."""
    for _ in range(40):
        report = tasks.do(BulkStatistics())
        assert isinstance(report, StatisticsReport)
        found = [pool for pool in report.host.pools if pool.name == "measured"]
        if bool(found) == until_there:
            return found
        tasks.bench.scheduler.advance(0.5)
    return found


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
