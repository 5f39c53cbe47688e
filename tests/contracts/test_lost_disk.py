"""A host silo that lost its file is set up again by itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import olvm
from actors.local_runtime import LocalRuntime

PERIODS = {
    "heartbeat_period_s": 0.2,
    "report_period_s": 0.5,
    "host_grace_s": 1.0,
    "host_grace_per_vm_s": 0.01,
    "host_connecting_after_s": 0.6,
    "query_period_s": 0.3,
    "host_silos": 1,
    "simulated": {
        "boot_time_s_min": 0.0,
        "boot_time_s_max": 0.0,
        "launch_time_s_min": 0.0,
        "launch_time_s_max": 0.0,
    },
}


def eventually(holds: Callable[[], bool], timeout_s: float = 30.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if holds():
            return True
        time.sleep(0.05)  # polling a condition of threads in real time, bounded above
    return False


def test_host_silo_that_lost_its_file_serves_again_and_its_machines_are_known_down(tmp_path: Path) -> None:
    with olvm.DataCenter.open(tmp_path / "lab", runtime="local", **PERIODS) as dc:
        cluster = dc.clusters.create("lab")
        host = cluster.hosts.add("kvm00", cpus=8, memory="32GiB")
        vm = cluster.vms.create("web", vcpus=1, memory="1GiB")
        vm.start().wait(20)
        runtime = dc._runtime
        assert isinstance(runtime, LocalRuntime)
        runtime.crash("host-1")
        for file in (tmp_path / "lab").glob("host-1.duckdb*"):
            file.unlink()
        runtime.ensure("host-1")
        assert eventually(lambda: host.status == "up"), dc.sql("select * from hosts")
        assert eventually(lambda: vm.status == "down"), dc.sql("select * from vms")
        vm.start().wait(20)
        assert vm.status == "up"
