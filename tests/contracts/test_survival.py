"""The stories of survival.py on the local runtime, and what of them needs its hands on a silo."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from olvm import DataCenter
from tests.contracts import survival


@pytest.fixture(scope="module")
def dc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DataCenter]:
    with survival.lab(tmp_path_factory.mktemp("dc"), "local") as opened:
        yield opened


@pytest.mark.parametrize("story", survival.STORIES, ids=lambda story: story.__name__)
def test_data_center_in_threads_goes_through(dc: DataCenter, story: Callable[[DataCenter], None]) -> None:
    story(dc)


def test_host_whose_silo_is_gone_is_fenced_and_comes_back_empty(dc: DataCenter) -> None:
    runtime: Any = dc._runtime
    survival.lost_host_is_fenced_and_its_machines_start_elsewhere(dc, runtime.crash)
    # Its power is on again by the same fence flow; now there is somebody to be the host.
    runtime.ensure(survival.silo_of("kvm02"))
    survival.poll("the host is up", lambda: dc.hosts.row("kvm02").status.value == "up")
    assert dc.vms.list("host=kvm02") == []
    survival.assert_whole(dc)


def test_affinity_groups_are_a_table_like_any_other(dc: DataCenter) -> None:
    prod = dc.clusters.get("prod")
    for name in ("left", "right"):
        prod.vms.create(name, vcpus=1, memory="1GiB")
    groups = prod.affinity_groups
    groups.set("apart", vms=["left", "right"], vms_rule="negative", vms_enforcing=True).wait(30)
    rows = dc.sql("select name, cluster, vms_rule, vms_enforcing, vm_names from affinity_groups").rows()
    assert rows == [("apart", "prod", "negative", True, '["left","right"]')]
    assert groups.row("apart").vm_names == ["left", "right"]
    for name in ("left", "right"):
        dc.vms[name].start().wait(30)
    assert dc.vms["left"].host != dc.vms["right"].host
    groups.remove("apart").wait(30)
    assert dc.affinity_groups.list() == []
