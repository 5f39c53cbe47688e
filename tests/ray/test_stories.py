"""The stories of tests/contracts/survival.py with a process for each host, and a process that is killed for good."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from olvm import DataCenter
from tests.contracts import survival


@pytest.fixture(scope="module")
def dc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DataCenter]:
    with survival.lab(tmp_path_factory.mktemp("dc"), "ray") as opened:
        yield opened


@pytest.mark.timeout(180)
@pytest.mark.parametrize("story", survival.STORIES, ids=lambda story: story.__name__)
def test_data_center_on_ray_goes_through(dc: DataCenter, story: Callable[[DataCenter], None]) -> None:
    story(dc)


def pid_of(dc: DataCenter, silo: str) -> int:
    return next((one.pid for one in dc.status().silos if one.name == silo and one.alive), 0)


@pytest.mark.timeout(180)
def test_host_killed_with_its_machines_boots_anew_and_what_is_highly_available_runs_again(
    dc: DataCenter,
) -> None:
    """Ray starts the process again within seconds: the new boot is the proof that the old one is over."""
    vm = dc.vms.create("phoenix", vcpus=1, memory="1GiB", cluster="prod", high_availability=True, lease=False)
    vm.start().wait(survival.WITHIN_S)
    if vm.host != "kvm01":
        vm.migrate(to="kvm01").wait(survival.WITHIN_S)
    epoch, boot_id = vm.record.epoch, dc.hosts.row("kvm01").boot_id
    pid = pid_of(dc, survival.silo_of("kvm01"))
    assert pid not in (0, os.getpid())
    os.kill(pid, signal.SIGKILL)
    survival.poll("it runs again", lambda: vm.record.epoch > epoch and vm.status == "up")
    survival.poll("the host is up", lambda: dc.hosts.row("kvm01").status.value == "up")
    assert dc.hosts.row("kvm01").boot_id not in ("", boot_id)
    vm.stop().wait(survival.WITHIN_S)
    vm.remove().wait(survival.WITHIN_S)
    survival.assert_whole(dc)


@pytest.mark.timeout(180)
def test_host_whose_process_is_gone_for_good_is_fenced(dc: DataCenter) -> None:
    runtime: Any = dc._runtime

    def lose(silo: str) -> None:
        import ray

        ray.kill(runtime._peers.find(silo), no_restart=True)

    survival.lost_host_is_fenced_and_its_machines_start_elsewhere(dc, lose)
