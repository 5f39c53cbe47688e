"""The demo's plan is the trace's, only faster."""

from __future__ import annotations

from collections import Counter

import pytest

from hypervisor_backends.simulated_config import simulated_config_from
from olvm.demo.plan import PRIORITIES, RACK_SIZE, make_plan
from olvm.experiments.azure_trace import PERIOD_S, read_azure_trace
from olvm.model.config import config_from
from olvm.model.errors import BadInput


def test_plan_of_the_trace_keeps_order_sizes_and_periods() -> None:
    trace = read_azure_trace(3500)
    plan = make_plan(vm_count=3500, seconds=60)
    assert [(vm.name, vm.vcpus, vm.memory_bytes) for vm in plan.vms] == [
        (vm.vm_id, vm.vcpus, vm.memory_bytes) for vm in trace
    ]
    arrivals = [vm.arrive_s for vm in plan.vms]
    assert arrivals == sorted(arrivals)
    assert len(set(arrivals)) == len(arrivals)
    periods = [int(arrive_s * plan.speed // PERIOD_S) for arrive_s in arrivals]
    assert periods == [int(vm.arrival_s // PERIOD_S) for vm in trace]


def test_plan_of_departures_divides_lifetimes_and_leaves_out_what_comes_after_the_end() -> None:
    plan = make_plan(vm_count=3500, seconds=60)
    for vm, traced in zip(plan.vms, read_azure_trace(3500), strict=True):
        if vm.leave_s is not None:
            assert vm.leave_s <= plan.seconds
            assert (vm.leave_s - vm.arrive_s) * plan.speed == pytest.approx(traced.lifetime_s)
        else:
            ends_s = None if traced.lifetime_s is None else vm.arrive_s * plan.speed + traced.lifetime_s
            assert ends_s is None or ends_s > plan.workload_s
    assert sum(vm.leave_s is not None for vm in plan.vms) > 1000


def test_plan_of_hosts_halves_the_mix_and_names_one_host_to_kill() -> None:
    plan = make_plan(vm_count=1, seconds=1)
    assert Counter(host.cluster for host in plan.hosts) == {"even": 20, "saving": 20}
    assert [host.to_be_killed for host in plan.hosts].count(True) == 1


def test_plan_of_the_rack_takes_hosts_of_one_cluster_and_not_the_one_to_kill() -> None:
    plan = make_plan(vm_count=1, seconds=1)
    assert len(plan.rack) == RACK_SIZE
    assert {host.cluster for host in plan.rack} == {"even"}
    assert not any(host.to_be_killed for host in plan.rack)


def test_plan_of_highly_available_machines_has_each_priority_with_and_without_a_lease() -> None:
    plan = make_plan(vm_count=3500, seconds=60)
    kinds = Counter(
        (vm.priority, vm.lease) for vm in plan.vms if vm.high_availability and vm.cluster == "even"
    )
    assert set(kinds) == {(priority, lease) for priority in PRIORITIES for lease in (True, False)}
    assert max(kinds.values()) - min(kinds.values()) <= 1
    assert {(vm.priority, vm.lease) for vm in plan.vms if not vm.high_availability} == {(50, False)}


def test_plan_of_settings_is_a_configuration_whose_wire_keeps_real_time() -> None:
    plan = make_plan(vm_count=100, seconds=10)
    config = config_from(plan.settings())
    assert config.lease_takeover_after_s < config.lease_expiry_s
    assert config.lease_takeover_after_s < config.host_grace_s
    simulated = simulated_config_from(
        {name: value for name, value in config.simulated.items() if name != "time_scale"}
    )
    assert simulated.migration_silence_s / config.simulated["time_scale"] == pytest.approx(20.0)


@pytest.mark.parametrize(("vm_count", "seconds"), [(0, 60), (10, 0), (300_000, 60)])
def test_plan_of_nothing_is_refused(vm_count: int, seconds: float) -> None:
    with pytest.raises(BadInput):
        make_plan(vm_count=vm_count, seconds=seconds)
