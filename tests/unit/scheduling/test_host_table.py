"""Capacity is never exceeded, and every reservation comes back whole."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olvm.model.errors import BadInput, Conflict, DuplicateName, NoCapacity, NotFound
from olvm.scheduling import HostTable, Placement, VmRequest, memory_need_bytes, place, policy_named
from olvm.scheduling.host_table import HOST_MEMORY_RESERVE_BYTES
from olvm.scheduling.request import memory_need_of

from .tables import GIB, MIB, HostFacts, host, hosts_strategy, request, table_of


def test_memory_need_counts_ram_page_tables_qemu_and_vcpus() -> None:
    need_bytes = memory_need_bytes(request(vcpus=4, memory_bytes=8 * GIB))
    assert need_bytes == 8 * GIB + 16 * MIB + 64 * MIB + 32 * MIB


def test_vm_that_fills_the_host_to_the_byte_fits_and_one_byte_more_does_not() -> None:
    need_bytes = memory_need_of(vcpus=2, memory_bytes=4 * GIB)
    exact = table_of([host("kvm01", memory_bytes=need_bytes + 256 * MIB)])
    short = table_of([host("kvm01", memory_bytes=need_bytes + 256 * MIB - 1)])
    assert exact.fits("kvm01", vcpus=2, memory_bytes=4 * GIB)
    assert not short.fits("kvm01", vcpus=2, memory_bytes=4 * GIB)
    exact.reserve("web-1", "kvm01", 2, 4 * GIB)
    assert exact.row("kvm01").memory_free_bytes == 0
    with pytest.raises(NoCapacity):
        short.reserve("web-1", "kvm01", 2, 4 * GIB)


def test_reserve_beyond_memory_raises_and_changes_nothing() -> None:
    table = table_of([host("kvm01", memory_bytes=4 * GIB)])
    before = table.rows()
    with pytest.raises(
        NoCapacity, match=r"^VM web-1 needs 4.1 GiB, host kvm01 has 3.7 GiB free: place it again$"
    ):
        table.reserve("web-1", "kvm01", 1, 4 * GIB)
    assert table.rows() == before
    assert table.reservation("web-1") is None


def test_resize_moves_the_sums_by_the_difference_and_keeps_what_is_pending() -> None:
    table = table_of([host("kvm01", cpus=8, memory_bytes=16 * GIB)])
    table.reserve("web-1", "kvm01", 2, 2 * GIB)
    table.reserve("web-2", "kvm01", 1, GIB)
    table.settle("web-2")
    table.resize("web-1", "kvm01", 4, 5 * GIB)
    table.resize("web-2", "kvm01", 3, GIB)
    row = table.row("kvm01")
    needs = memory_need_of(vcpus=4, memory_bytes=5 * GIB) + memory_need_of(vcpus=3, memory_bytes=GIB)
    assert (row.reserved_memory_bytes, row.reserved_cpus, row.pending_cpus, row.vm_count) == (needs, 7, 4, 2)


def test_resize_changes_the_host_that_is_named_alone() -> None:
    table = table_of([host("kvm01"), host("kvm02")])
    table.reserve("web-1", "kvm01", 1, GIB)
    table.reserve("web-1", "kvm02", 1, GIB)
    table.resize("web-1", "kvm01", 2, 2 * GIB)
    assert [one.vcpus for one in table.reservations("web-1")] == [2, 1]


def test_resize_to_the_last_byte_fits_and_one_byte_more_changes_nothing() -> None:
    need_bytes = memory_need_of(vcpus=1, memory_bytes=4 * GIB)
    for short, fits in ((0, True), (1, False)):
        table = table_of([host("kvm01", memory_bytes=need_bytes + HOST_MEMORY_RESERVE_BYTES - short)])
        table.reserve("web-1", "kvm01", 1, GIB)
        before = table.rows()
        if fits:
            table.resize("web-1", "kvm01", 1, 4 * GIB)
            assert table.row("kvm01").memory_free_bytes == 0
            continue
        with pytest.raises(NoCapacity, match=r"^3\.1 GiB more are needed, and host kvm01 has 3 GiB free$"):
            table.resize("web-1", "kvm01", 1, 4 * GIB)
        assert table.rows() == before


def test_resize_to_less_fits_on_an_overdrawn_host_that_is_not_up() -> None:
    table = table_of([host("kvm01", memory_bytes=8 * GIB)])
    table.reserve("web-1", "kvm01", 4, 6 * GIB)
    table.update_host("kvm01", usable=False, memory_bytes=4 * GIB, cpus=2)
    table.resize("web-1", "kvm01", 3, 5 * GIB)
    assert table.row("kvm01").reserved_cpus == 3


def test_cpu_overcommit_zero_limits_one_vm_but_not_their_sum() -> None:
    table = table_of([host("kvm01", cpus=4)])
    for number in range(3):
        table.reserve(f"vm-{number}", "kvm01", 4, GIB)
    assert table.row("kvm01").reserved_cpus == 12
    with pytest.raises(NoCapacity, match="needs 5 vCPUs, host kvm01 can take 4"):
        table.reserve("vm-3", "kvm01", 5, GIB)


def test_cpu_overcommit_percent_limits_the_sum() -> None:
    table = table_of([host("kvm01", cpus=4)], cpu_overcommit_percent=150)
    table.reserve("vm-0", "kvm01", 4, GIB)
    assert table.fits("kvm01", vcpus=2, memory_bytes=GIB)
    with pytest.raises(NoCapacity, match="needs 3 vCPUs, host kvm01 can take 2"):
        table.reserve("vm-1", "kvm01", 3, GIB)


def test_memory_overcommit_promises_more_than_there_is() -> None:
    table = table_of([host("kvm01", memory_bytes=4 * GIB)], memory_overcommit_percent=150)
    table.reserve("vm-0", "kvm01", 1, 5 * GIB)
    table.set_overcommit(memory_overcommit_percent=100, cpu_overcommit_percent=0)
    assert table.row("kvm01").memory_free_bytes < 0
    assert not table.fits("kvm01", vcpus=1, memory_bytes=1)


def test_migrating_vm_holds_both_hosts_until_one_is_released() -> None:
    table = table_of([host("kvm01"), host("kvm02")])
    table.reserve("web-1", "kvm01", 2, GIB)
    table.reserve("web-1", "kvm02", 2, GIB)
    assert [held.host for held in table.reservations("web-1")] == ["kvm01", "kvm02"]
    assert table.release("web-1", "kvm01") == 1
    newest = table.reservation("web-1")
    assert newest is not None
    assert newest.host == "kvm02"
    assert table.row("kvm01").vm_count == 0


def test_repeated_release_has_no_effect() -> None:
    table = table_of([host("kvm01")])
    table.reserve("web-1", "kvm01", 2, GIB)
    assert [table.release("web-1"), table.release("web-1")] == [1, 0]
    assert table.rows() == table_of([host("kvm01")]).rows()


def test_second_reservation_on_one_host_is_refused() -> None:
    table = table_of([host("kvm01")])
    table.reserve("web-1", "kvm01", 1, GIB)
    with pytest.raises(Conflict, match="already holds a reservation on host kvm01"):
        table.reserve("web-1", "kvm01", 1, GIB)


def test_host_that_is_not_up_takes_only_what_already_runs_there() -> None:
    table = table_of([host("kvm01", cpus=1, memory_bytes=GIB, usable=False)])
    with pytest.raises(Conflict, match="host kvm01 is not Up"):
        table.reserve("web-1", "kvm01", 1, 64 * MIB)
    table.reserve("web-1", "kvm01", 4, 8 * GIB, already_running=True)
    assert table.row("kvm01").memory_free_bytes < 0
    assert table.row("kvm01").pending_cpus == 0


def test_settled_vm_no_longer_adds_to_the_reported_load() -> None:
    table = table_of([host("kvm01", cpus=4, cpu_load_percent=25)])
    table.reserve("web-1", "kvm01", 3, GIB)
    assert table.thread_load_percent == [25 * 4 + 30]
    table.settle("web-1")
    table.settle("web-1")
    assert table.thread_load_percent == [25 * 4]
    table.release("web-1")
    assert table.row("kvm01").pending_cpus == 0


def test_removed_hosts_slot_is_handed_on_clean() -> None:
    table = table_of([host("kvm01", cpu_load_percent=90), host("kvm02")])
    table.reserve("web-1", "kvm01", 1, GIB)
    with pytest.raises(Conflict, match="host kvm01 still holds 1 VMs"):
        table.remove_host("kvm01")
    table.release("web-1")
    table.remove_host("kvm01")
    assert ("kvm01" in table, len(table)) == (False, 1)
    table.add_host("kvm00", cpus=2, memory_bytes=GIB, usable=False)
    assert len(table.name) == 2
    assert table.row("kvm00") == table_of([host("kvm00", cpus=2, memory_bytes=GIB, usable=False)]).row(
        "kvm00"
    )


def test_unknown_duplicate_and_senseless_hosts_are_refused() -> None:
    table = table_of([host("kvm01")])
    with pytest.raises(NotFound, match="host kvm09 is not in this cluster"):
        table.fits("kvm09", vcpus=1, memory_bytes=1)
    with pytest.raises(DuplicateName, match="kvm01"):
        table.add_host("kvm01", cpus=1, memory_bytes=1)
    with pytest.raises(BadInput, match="0 CPUs"):
        table.update_host("kvm01", cpus=0)
    with pytest.raises(BadInput, match="overcommit 0 %"):
        HostTable(memory_overcommit_percent=0)
    with pytest.raises(BadInput, match="0 vCPUs"):
        request(vcpus=0)


_STEP = st.one_of(
    st.tuples(st.just("place"), st.integers(0, 9), st.integers(1, 9), st.integers(1, 20)),
    st.tuples(st.just("reserve"), st.integers(0, 9), st.integers(1, 9), st.integers(1, 20)),
    st.tuples(st.just("release"), st.integers(0, 9), st.just(0), st.just(0)),
    st.tuples(st.just("settle"), st.integers(0, 9), st.just(0), st.just(0)),
)


def _take(table: HostTable, step: tuple[str, int, int, int], policy: str) -> None:
    verb, number, vcpus, half_gib = step
    vm_id = f"vm-{number}"
    if verb == "release":
        table.release(vm_id)
    elif verb == "settle":
        table.settle(vm_id)
    elif verb == "place":
        wanted = VmRequest(vm_id=vm_id, vcpus=vcpus, memory_bytes=half_gib * 512 * MIB)
        placed = place(table, wanted, policy_named(policy))
        if isinstance(placed, Placement) and table.reservation(vm_id) is None:
            table.reserve(vm_id, placed.host, wanted.vcpus, wanted.memory_bytes)
    else:
        names = [row.name for row in table.rows()]
        try:
            table.reserve(vm_id, names[vcpus % len(names)], vcpus, half_gib * 512 * MIB)
        except (NoCapacity, Conflict):
            return


@settings(max_examples=150, deadline=None)
@given(
    hosts=hosts_strategy(host_count_min=1, host_count_max=4),
    steps=st.lists(_STEP, max_size=25),
    memory_percent=st.sampled_from([100, 150]),
    cpu_percent=st.sampled_from([0, 100, 250]),
    policy=st.sampled_from(["none", "power_saving", "vm_evenly_distributed"]),
)
def test_capacity_after_any_steps_is_never_exceeded(
    hosts: list[HostFacts],
    steps: list[tuple[str, int, int, int]],
    memory_percent: int,
    cpu_percent: int,
    policy: str,
) -> None:
    table = table_of(hosts, memory_overcommit_percent=memory_percent, cpu_overcommit_percent=cpu_percent)
    empty = table.rows()
    for step in steps:
        _take(table, step, policy)
        for row in table.rows():
            limit_bytes = row.memory_bytes * memory_percent // 100 - HOST_MEMORY_RESERVE_BYTES
            assert row.reserved_memory_bytes <= max(0, limit_bytes)
            assert not cpu_percent or row.reserved_cpus <= row.cpus * cpu_percent // 100
            assert row.pending_cpus <= row.reserved_cpus
    for number in range(10):
        table.release(f"vm-{number}")
    assert table.rows() == empty
