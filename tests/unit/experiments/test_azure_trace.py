"""The bundled Azure trace says what the published one says, and windows of it agree with the whole."""

from __future__ import annotations

from itertools import accumulate, pairwise

import pytest

from olvm.experiments.azure_trace import GIB_BYTES, PERIOD_S, TRACE_SPAN_S, TraceVm, read_azure_trace
from olvm.model.errors import BadInput


@pytest.fixture(scope="module")
def trace() -> list[TraceVm]:
    return read_azure_trace()


def peak_demand(vms: list[TraceVm]) -> tuple[int, int, int]:
    """The largest number of VMs, of vCPUs and of GiB at one time; leaving comes before arriving."""
    changes = [(vm.arrival_s, 1, vm) for vm in vms]
    changes += [(vm.arrival_s + vm.lifetime_s, -1, vm) for vm in vms if vm.lifetime_s is not None]
    changes.sort(key=lambda change: change[:2])
    vm_counts = accumulate(sign for _, sign, _ in changes)
    vcpus = accumulate(sign * vm.vcpus for _, sign, vm in changes)
    memory_bytes = accumulate(sign * vm.memory_bytes for _, sign, vm in changes)
    return max(vm_counts), max(vcpus), max(memory_bytes) // GIB_BYTES


def test_trace_read_whole_has_the_published_counts(trace: list[TraceVm]) -> None:
    assert len(trace) == 259_159
    assert sum(vm.lifetime_s is None for vm in trace) == 14_317
    assert len({vm.tenant for vm in trace}) == 53_109
    assert len({(vm.vcpus, vm.memory_bytes) for vm in trace}) == 16


def test_trace_read_whole_has_the_published_peak(trace: list[TraceVm]) -> None:
    # The peak pins both choices about lifetimes: the upper edge of a bin, and never less than one period.
    assert peak_demand(trace) == (21_236, 48_041, 117_664)


def test_trace_read_whole_is_in_arrival_order_from_zero(trace: list[TraceVm]) -> None:
    assert trace[0].arrival_s == 0.0
    assert all(earlier.arrival_s <= later.arrival_s for earlier, later in pairwise(trace))
    assert trace[-1].arrival_s == TRACE_SPAN_S - PERIOD_S


def test_trace_first_vm_has_the_files_values(trace: list[TraceVm]) -> None:
    assert trace[0] == TraceVm(
        vm_id="azure-000000",
        arrival_s=0.0,
        lifetime_s=300.0,
        vcpus=8,
        memory_bytes=14 * GIB_BYTES,
        tenant="batch-1",
    )


def test_trace_lifetime_in_a_wide_bin_is_its_upper_edge(trace: list[TraceVm]) -> None:
    # Bin 13 is 3,900 to 7,200 s: no VM may report anything between one hour and two.
    assert {vm.lifetime_s for vm in trace if vm.lifetime_s and 3_600 < vm.lifetime_s < 10_000} == {7_200.0}


def test_trace_lifetime_within_one_period_counts_as_one_period(trace: list[TraceVm]) -> None:
    assert min(vm.lifetime_s for vm in trace if vm.lifetime_s is not None) == PERIOD_S


def test_trace_limited_is_a_prefix_of_the_whole(trace: list[TraceVm]) -> None:
    assert read_azure_trace(limit=1_000) == trace[:1_000]
    assert read_azure_trace(limit=0) == []


def test_trace_from_a_later_second_keeps_ids_and_counts_time_from_there(trace: list[TraceVm]) -> None:
    window = read_azure_trace(limit=10, first_s=3_000.0)
    expected = [vm for vm in trace if vm.arrival_s >= 3_000.0][:10]
    assert [vm.vm_id for vm in window] == [vm.vm_id for vm in expected]
    assert [vm.arrival_s for vm in window] == [vm.arrival_s - 3_000.0 for vm in expected]


@pytest.mark.parametrize(
    ("limit", "first_s"), [(-1, 0.0), (None, -1.0), (None, TRACE_SPAN_S), (None, float("nan"))]
)
def test_trace_asked_for_the_impossible_refuses(limit: int | None, first_s: float) -> None:
    with pytest.raises(BadInput):
        read_azure_trace(limit=limit, first_s=first_s)
