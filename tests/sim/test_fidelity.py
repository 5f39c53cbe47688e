"""A replay is what the control plane would have done: one trace through both, and every VM on the same host.

The simulated world runs all of it: engine, cluster, machines, agents, hypervisors that boot at once, nothing that
fails. Who finds no room is refused there, as the replay's `reject` does. The replay is told memory as the cluster
counts it (need, not RAM) and hosts without what they keep for themselves; its CPUs are the cluster's at 100 %.
"""

from __future__ import annotations

from itertools import groupby
from typing import Any

import numpy as np
import pytest

from olvm.experiments import replay
from olvm.experiments.azure_trace import TraceVm, read_azure_trace
from olvm.model import messages as m
from olvm.model.config import Config
from olvm.model.records import VmRecord
from olvm.scheduling.host_table import HOST_MEMORY_RESERVE_BYTES
from olvm.scheduling.request import GIB, memory_need_of
from sim.plan import Shape
from sim.world import World

# So that they are in order of name, as the cluster sorts them: H10 to H19.
NUMBERS = range(10, 20)
HOSTS = {f"H{number}": (32, 96) if number % 2 else (16, 112) for number in NUMBERS}  # CPUs, GiB
AT_ONCE = Config(simulated={"boot_time_s_min": 0.0, "boot_time_s_max": 0.0})
SETTLED_S = 30.0


class BestFit:
    def choose(self, vm: Any, hosts: Any) -> int | None:
        fits = with_room(vm, hosts)
        order = np.lexsort((hosts.free_memory_gib[fits], hosts.free_vcpus[fits]))
        return int(fits[order[0]]) if len(fits) else None


def with_room(vm: Any, hosts: Any) -> Any:
    need_bytes = memory_need_of(vcpus=int(vm.vcpus), memory_bytes=int(vm.memory_gib * GIB))
    return np.flatnonzero((hosts.free_vcpus >= vm.vcpus) & (hosts.free_memory_gib >= need_bytes / GIB))


def replayed(vms: list[TraceVm], policy: str) -> dict[str, str | None]:
    needs = [memory_need_of(vcpus=vm.vcpus, memory_bytes=vm.memory_bytes) / GIB for vm in vms]
    trace = {
        "vm_id": [vm.vm_id for vm in vms],
        "arrival_s": [vm.arrival_s for vm in vms],
        "lifetime_s": [vm.lifetime_s for vm in vms],
        "vcpus": [vm.vcpus for vm in vms],
        "memory_gib": needs,
    }
    reserve_gib = HOST_MEMORY_RESERVE_BYTES / GIB
    hosts = ",".join(f"1x{cpus}c{memory_gib - reserve_gib:g}g" for cpus, memory_gib in HOSTS.values())
    result = replay(trace, hosts=hosts, policy=policy, queue="reject")
    names = list(HOSTS)
    table = result.vms
    return {
        vm_id: names[int(host)] if placed else None
        for vm_id, host, placed in zip(table["vm_id"], table["host"], table["placed"], strict=True)
    }


class Simulated:
    """The trace as a client of the simulated data center asks for it."""

    def __init__(self, policy: str) -> None:
        self.world = World(Shape(hosts=0, vms=0), config=AT_ONCE)
        self.placed: dict[str, str | None] = {}
        self.world.finish_all([m.CreateCluster("prod", policy=policy, cpu_overcommit_percent=100)])
        for number in NUMBERS:
            self.world.add_host(number)
        self.world.finish_all(
            [
                m.AddHost(f"H{number}", "prod", cpus, memory_gib * GIB, silo=f"host-{number}")
                for number, (cpus, memory_gib) in zip(NUMBERS, HOSTS.values(), strict=True)
            ]
        )
        self.world.run(SETTLED_S)
        self.began_s = self.world.now_s

    def run(self, vms: list[TraceVm]) -> dict[str, str | None]:
        """At each moment of the trace: who leaves, and then who comes, in the trace's order."""
        self.world.finish_all([m.CreateVm(vm.vm_id, "prod", vm.vcpus, vm.memory_bytes) for vm in vms])
        self.began_s = self.world.now_s
        leaving: dict[str, float] = {}
        for arrival_s, coming in groupby(vms, key=lambda vm: vm.arrival_s):
            for end_s in sorted({end_s for end_s in leaving.values() if end_s <= arrival_s}):
                self._pass_to(end_s)
                gone = [name for name, at_s in leaving.items() if at_s == end_s]
                self.world.finish_all([m.VmCommand(name, "stop") for name in gone])
                for name in gone:
                    del leaving[name]
            self._pass_to(arrival_s)
            arriving = list(coming)
            ended = self.world.finish_all([m.VmCommand(vm.vm_id, "start") for vm in arriving], may_fail=True)
            records = {record.name: record for record in self.world.rows(VmRecord).values()}
            for vm, end in zip(arriving, ended, strict=True):
                self.placed[vm.vm_id] = records[vm.vm_id].host
                assert (records[vm.vm_id].host is None) == (end.status == "failed"), end
                if end.status == "succeeded" and vm.lifetime_s is not None:
                    leaving[vm.vm_id] = arrival_s + vm.lifetime_s
        return self.placed

    def _pass_to(self, trace_s: float) -> None:
        self.world.run(max(0.0, self.began_s + trace_s - self.world.now_s))


@pytest.mark.parametrize("first_s", [0.0, 100_000.0])
@pytest.mark.parametrize(
    ("policy", "own"),
    [
        *(
            (name, name)
            for name in (
                "first_fit",
                "best_fit",
                "worst_fit",
                "round_robin",
                "dot_product",
                "cosine",
                "norm_greedy",
                "weighted_dot_product",
            )
        ),
        ("best_fit", "tests.sim.test_fidelity:BestFit"),
    ],
)
def test_trace_is_placed_alike_by_a_replay_and_by_the_whole_control_plane(
    policy: str, own: str, first_s: float
) -> None:
    vms = read_azure_trace(limit=2500, first_s=first_s)

    expected = replayed(vms, policy)
    found = Simulated(own).run(vms)

    assert found == expected
    # It is a contest: hosts filled up, VMs left, and places became free again.
    hosts = [expected[vm.vm_id] for vm in vms]
    assert set(hosts) == {*HOSTS, None}
    first_refused = hosts.index(None)
    assert sum(host is not None for host in hosts[first_refused:]) > 100
