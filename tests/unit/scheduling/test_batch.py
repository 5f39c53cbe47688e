"""Many machines at once: more of them find room, and the table is as it was."""

from __future__ import annotations

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from olvm.model.errors import BadInput
from olvm.scheduling import HostTable, VmRequest, place_batch, policy_named
from olvm.scheduling.batch import ORDERS, Order
from olvm.scheduling.request import GIB

from .tables import HostFacts, hosts_strategy, table_of

FIRST_FIT = policy_named("first_fit")


def table(*cpus: int) -> HostTable:
    made = HostTable(cpu_overcommit_percent=100)
    for number, count in enumerate(cpus):
        made.add_host(f"h{number}", cpus=count, memory_bytes=1024 * GIB)
    return made


def wanted(*vcpus: int, memory_gib: int = 1) -> list[VmRequest]:
    return [
        VmRequest(vm_id=f"v{at}", vcpus=count, memory_bytes=memory_gib * GIB)
        for at, count in enumerate(vcpus)
    ]


def test_largest_first_places_what_the_given_order_cannot() -> None:
    """Two hosts of ten: 6 + 4 and 7 + 3, but not when 3 and 4 come first."""
    requests = wanted(3, 4, 6, 7)
    given_ = place_batch(table(10, 10), requests, FIRST_FIT, order="given")
    sorted_ = place_batch(table(10, 10), requests, FIRST_FIT)

    assert list(given_.refused) == ["v3"]
    assert sorted_.order == ("v3", "v2", "v1", "v0")
    assert {vm: one.host for vm, one in sorted_.placed.items()} == {
        "v3": "h0",
        "v2": "h1",
        "v1": "h1",
        "v0": "h0",
    }
    assert not sorted_.refused


@pytest.mark.parametrize(
    ("order", "expected"), [("sum", ("v0", "v1")), ("largest", ("v1", "v0")), ("product", ("v0", "v1"))]
)
def test_size_is_by_shares_of_the_largest_host(order: Order, expected: tuple[str, ...]) -> None:
    made = HostTable()
    made.add_host("h0", cpus=10, memory_bytes=100 * GIB)
    requests = [
        VmRequest(vm_id="v0", vcpus=5, memory_bytes=50 * GIB),  # 0.5 and 0.5
        VmRequest(vm_id="v1", vcpus=1, memory_bytes=80 * GIB),  # 0.1 and 0.8
    ]

    assert place_batch(made, requests, FIRST_FIT, order=order).order == expected


def test_all_or_none_places_none_when_one_finds_no_host() -> None:
    outcome = place_batch(table(10), wanted(8, 3, 20), FIRST_FIT, all_or_none=True)

    assert outcome.placed == {}
    assert set(outcome.refused) == {"v0", "v1", "v2"}
    assert outcome.refused["v2"].reason.startswith("no host of 1 fits v2")
    assert outcome.refused["v0"].reason.startswith(
        "it was to be placed with others, and no host of 1 fits v2"
    )


@pytest.mark.parametrize(
    ("requests", "order", "sentence"),
    [
        (wanted(1) + wanted(1), "sum", "machine v0 is in the batch twice"),
        (wanted(1), "size", "there is no order size: choose from given, sum, product, largest"),
        ([VmRequest(vm_id="held", vcpus=1, memory_bytes=GIB)], "sum", "held holds a reservation already"),
    ],
)
def test_batch_that_makes_no_sense_is_refused(requests: list[VmRequest], order: Order, sentence: str) -> None:
    made = table(4)
    made.reserve("held", "h0", 1, GIB)

    with pytest.raises(BadInput, match=sentence):
        place_batch(made, requests, FIRST_FIT, order=order)


def test_no_hosts_and_no_requests_are_no_error() -> None:
    assert place_batch(HostTable(), wanted(1), FIRST_FIT).refused["v0"].rejected_by == {}
    assert place_batch(table(1), [], FIRST_FIT).order == ()


@settings(max_examples=200, deadline=None)
@given(
    hosts_strategy(),
    st.lists(st.tuples(st.integers(1, 16), st.integers(1, 32)), max_size=12),
    st.sampled_from(ORDERS),
    st.sampled_from(["first_fit", "best_fit", "evenly_distributed"]),
)
def test_all_that_is_answered_can_be_booked_and_the_table_is_as_it_was(
    hosts: list[HostFacts], sizes: list[tuple[int, int]], order: Order, policy: str
) -> None:
    made = table_of(hosts, cpu_overcommit_percent=100)
    requests = [
        VmRequest(vm_id=f"v{at}", vcpus=vcpus, memory_bytes=gib * GIB)
        for at, (vcpus, gib) in enumerate(sizes)
    ]
    before = made.rows()
    outcome = place_batch(made, requests, policy_named(policy), order=order)
    event(f"{order}: {len(outcome.placed)} placed, {len(outcome.refused)} refused")

    assert made.rows() == before
    assert {*outcome.placed, *outcome.refused} == {request.vm_id for request in requests}
    by_id = {request.vm_id: request for request in requests}
    for vm_id, placement in outcome.placed.items():
        made.reserve(vm_id, placement.host, by_id[vm_id].vcpus, by_id[vm_id].memory_bytes)
    for vm_id in outcome.refused:
        assert not any(
            made.usable[made.slot_of(row.name)]
            and made.fits(row.name, vcpus=by_id[vm_id].vcpus, memory_bytes=by_id[vm_id].memory_bytes)
            for row in made.rows()
        )
