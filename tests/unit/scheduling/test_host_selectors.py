"""The classic algorithms in a live cluster's table: the same choices as in a replay, and each within its rule."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from olvm.experiments import replay
from olvm.experiments.policies import POLICIES, PREDICTING
from olvm.model.host_profile import HostNumaNode, HostProfile
from olvm.model.placement_needs import PlacementNeeds, VirtualNumaNode
from olvm.scheduling import HostTable, Placement, explain, place, place_batch, policy_named
from olvm.scheduling.host_selectors import HOST_SELECTORS
from olvm.scheduling.host_table import HOST_MEMORY_RESERVE_BYTES
from olvm.scheduling.request import GIB, MIB, VmRequest, memory_need_of
from olvm.scheduling.scheduler import candidate_hosts

from .selector_reference import KEY_BY_POLICY
from .tables import HostFacts, host, request, table_of

CERTAIN = (
    "first_fit",
    "best_fit",
    "worst_fit",
    "round_robin",
    "dot_product",
    "cosine",
    "norm_greedy",
    "weighted_dot_product",
)
Vm = tuple[int, int, int, int]  # arrival, lifetime, vCPUs, GiB
VMS = st.lists(
    st.tuples(st.integers(0, 30), st.integers(1, 20), st.integers(1, 8), st.integers(1, 12)),
    min_size=1,
    max_size=40,
).map(sorted)
HOSTS = st.lists(st.tuples(st.integers(1, 16), st.integers(1, 32)), min_size=1, max_size=8)


def live(vms: list[Vm], hosts: list[tuple[int, int]], policy: str) -> list[int | None]:
    """Host of each VM by its number, as the table of a cluster says with a CPU overcommit of 100 %."""
    table = HostTable(cpu_overcommit_percent=100)
    for number, (cpus, memory_gib) in enumerate(hosts):
        table.add_host(f"h{number}", cpus=cpus, memory_bytes=memory_gib * GIB)
    chosen: list[int | None] = []
    ends: list[tuple[int, int]] = []
    for number, (arrival, lifetime, vcpus, memory_gib) in enumerate(vms):
        for _, gone in [one for one in sorted(ends) if one[0] <= arrival]:
            table.release(f"v{gone}")
        ends = [one for one in ends if one[0] > arrival]
        wanted = VmRequest(vm_id=f"v{number}", vcpus=vcpus, memory_bytes=memory_gib * GIB)
        found = place(table, wanted, policy_named(policy))
        if not isinstance(found, Placement):
            chosen.append(None)
            continue
        table.reserve(wanted.vm_id, found.host, vcpus, wanted.memory_bytes)
        ends.append((arrival + lifetime, number))
        chosen.append(int(found.host.removeprefix("h")))
    return chosen


def replayed(vms: list[Vm], hosts: list[tuple[int, int]], policy: str) -> list[int | None]:
    reserve_gib = HOST_MEMORY_RESERVE_BYTES / GIB
    trace = {
        "arrival_s": [vm[0] for vm in vms],
        "lifetime_s": [vm[1] for vm in vms],
        "vcpus": [vm[2] for vm in vms],
        "memory_gib": [memory_need_of(vcpus=vm[2], memory_bytes=vm[3] * GIB) / GIB for vm in vms],
    }
    spec = ",".join(f"1x{cpus}c{memory_gib - reserve_gib:g}g" for cpus, memory_gib in hosts)
    table = replay(trace, spec, policy=policy, queue="reject").vms
    return [
        int(number) if placed else None for number, placed in zip(table["host"], table["placed"], strict=True)
    ]


@pytest.mark.parametrize("policy", CERTAIN)
@settings(max_examples=60, deadline=None)
@given(vms=VMS, hosts=HOSTS)
def test_cluster_and_replay_choose_alike(policy: str, vms: list[Vm], hosts: list[tuple[int, int]]) -> None:
    found = live(vms, hosts, policy)
    event(f"{policy}: {'some' if None in found else 'none'} refused, {len(set(found))} hosts")

    assert found == replayed(vms, hosts, policy)


def test_names_are_those_of_replays() -> None:
    names = {one.policy for one in HOST_SELECTORS.values()}

    assert names == set(POLICIES) - set(PREDICTING)  # a cluster knows no lifetimes
    for selector in HOST_SELECTORS.values():
        assert selector.source.split(",")[0] in POLICIES[selector.policy].source


@pytest.mark.parametrize("policy", ["random", "two_choice"])
def test_chance_is_of_the_machine_and_spreads(policy: str) -> None:
    table = table_of([host(f"kvm{number:02}") for number in range(10)])
    chosen = Counter()
    for number in range(1000):
        wanted = request(vm_id=f"web-{number}")
        outcome = place(table, wanted, policy_named(policy))
        assert outcome == place(table, wanted, policy_named(policy))
        assert isinstance(outcome, Placement)
        chosen[outcome.host] += 1

    assert len(chosen) == 10
    # Of equal hosts two choices take the first of the two.
    assert max(chosen.values()) < (150 if policy == "random" else 260)


def test_two_choices_take_the_emptier_host() -> None:
    table = table_of([host("kvm01", vms=[(2, 4 * GIB, False)]), host("kvm02")])
    counts = Counter(
        outcome.host
        for number in range(400)
        if isinstance(
            outcome := place(table, request(vm_id=f"web-{number}"), policy_named("two_choice")), Placement
        )
    )

    assert 0.15 < counts["kvm01"] / 400 < 0.35  # both draws must hit it


def test_turn_goes_on_after_a_host_that_is_gone_and_asking_does_not_move_it() -> None:
    table = table_of([host("kvm01"), host("kvm02"), host("kvm04")])
    policy = policy_named("round_robin")
    table.reserve("a", "kvm02", 1, GIB)
    table.release("a")
    table.remove_host("kvm02")

    for _ in range(2):  # asked twice, answered alike
        assert place(table, request(), policy) == Placement(vm_id="web-1", host="kvm04", candidate_count=2)
    table.reserve("b", "kvm04", 1, GIB)
    table.reserve("c", "kvm04", 1, GIB, already_running=True)  # found there: nobody chose it
    assert place(table, request(), policy) == Placement(vm_id="web-1", host="kvm01", candidate_count=2)


def test_batch_leaves_the_turn_where_it_was() -> None:
    table = table_of([host("kvm01"), host("kvm02"), host("kvm03")])
    requests = [request(vm_id="a"), request(vm_id="b")]
    hosts = [place_batch(table, requests, policy_named("round_robin")).placed["b"].host for _ in range(2)]

    assert hosts == ["kvm02", "kvm02"]


def numa_host(name: str) -> HostFacts:
    """Two nodes of 8 GiB."""
    return host(name, profile={"numa_nodes": [{"memory_bytes": 8 * GIB, "cpus": 4}] * 2})


def with_nodes(vm_id: str, *memory_gib: int, tune: str = "strict") -> VmRequest:
    nodes = tuple(VirtualNumaNode(memory_bytes=gib * GIB) for gib in memory_gib)
    needs = PlacementNeeds(numa_nodes=nodes, numa_tune=tune)
    return request(vm_id=vm_id, memory_bytes=(sum(memory_gib) or 1) * GIB, needs=needs)


def test_numa_balance_takes_the_host_whose_nodes_stay_even() -> None:
    """After 4 GiB on one node of kvm01, 4 more even it out; kvm02 would have 4 and 8 free, and kvm00 says nothing."""
    table = table_of([host("kvm00"), numa_host("kvm01"), numa_host("kvm02")])
    policy = policy_named("numa_balance")

    def booked(wanted: VmRequest) -> str:
        found = place(table, wanted, policy)
        assert isinstance(found, Placement)
        table.reserve(wanted.vm_id, found.host, wanted.vcpus, wanted.memory_bytes, needs=wanted.needs)
        return found.host

    assert booked(with_nodes("a", 4)) == "kvm01"
    assert booked(with_nodes("b", 4)) == "kvm01"
    assert booked(with_nodes("c", 4, 4)) == "kvm01"  # even either way, and fuller
    assert table.taken[table.slot_of("kvm01")].numa_bytes == {0: 8 * GIB, 1: 8 * GIB}
    assert booked(with_nodes("d", 3, 2)) == "kvm02"  # what is left of kvm01 is in none of its nodes
    # Without nodes of its own it moves none: kvm02 is 1 GiB apart, of the other two kvm01 is the fuller.
    assert booked(request(vm_id="e")) == "kvm01"


NODES = st.lists(st.integers(1, 8), max_size=3)  # GiB of each


@settings(max_examples=150, deadline=None)
@given(
    hosts=st.lists(NODES, min_size=2, max_size=5),
    vms=st.lists(NODES, min_size=1, max_size=8),
    tune=st.sampled_from(["strict", "preferred"]),
)
def test_numa_balance_is_as_even_as_what_is_then_booked(
    hosts: list[list[int]], vms: list[list[int]], tune: str
) -> None:
    """Each host that may take the machine is tried: booked, its nodes looked at, and given back."""
    table = table_of(
        host(f"kvm{at}", profile={"numa_nodes": [{"memory_bytes": gib * GIB} for gib in nodes]})
        for at, nodes in enumerate(hosts)
    )
    policy = policy_named("numa_balance")

    def book(wanted: VmRequest, name: str) -> None:
        table.reserve(wanted.vm_id, name, wanted.vcpus, wanted.memory_bytes, needs=wanted.needs)

    def tried(wanted: VmRequest, name: str) -> tuple[bool, int, int, int, str]:
        slot = table.slot_of(name)
        free = table.cpus[slot] - table.reserved_cpus[slot], table.memory_free_bytes[slot]
        book(wanted, name)
        nodes, taken = table.profile[slot].numa_nodes, table.taken[slot].numa_bytes
        shares = [
            1_000_000 * (node.memory_bytes - taken[at]) // node.memory_bytes for at, node in enumerate(nodes)
        ]
        table.release(wanted.vm_id)
        assert wanted.needs is not None
        is_unknown = bool(wanted.needs.numa_nodes) and not nodes
        return is_unknown, max(shares, default=0) - min(shares, default=0), *free, name

    for number, memory_gib in enumerate(vms):
        wanted = with_nodes(f"v{number}", *memory_gib, tune=tune)
        expected = min((tried(wanted, name) for name in candidate_hosts(table, wanted, policy)), default=None)
        found = place(table, wanted, policy)
        assert (found.host if isinstance(found, Placement) else None) == (expected and expected[-1])
        event("refused" if expected is None else f"{expected[1] // 250_000} quarters apart")
        if isinstance(found, Placement):
            book(wanted, found.host)


# A VM that comes or leaves, or a host that changes, and three numbers that say which and how large.
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["come", "come", "come", "leave", "usable", "profile", "replace", "cpus", "limit"]),
        st.integers(0, 30),
        st.integers(1, 6),
        NODES,
    ),
    min_size=1,
    max_size=25,
)


def change(table: HostTable, step: tuple[str, int, int, list[int]]) -> None:
    """A change of one host or of the cluster that every selector must see."""
    what, which, size, nodes = step
    names = sorted(row.name for row in table.rows())
    name = names[which % len(names)]
    profile = HostProfile(numa_nodes=tuple(HostNumaNode(memory_bytes=gib * GIB, cpus=2) for gib in nodes))
    if what == "usable":
        table.update_host(name, usable=not table.row(name).usable)
    elif what == "profile":
        table.update_host(name, profile=profile)
    elif what == "cpus":
        table.update_host(name, cpus=2 * size)
    elif what == "limit":
        table.set_overcommit(memory_overcommit_percent=100, cpu_overcommit_percent=50 * (which % 5))
    elif what == "replace" and not table.row(name).vm_count:
        table.remove_host(name)
        table.add_host(f"{name}x", cpus=size, memory_bytes=24 * GIB, profile=profile)


@pytest.mark.parametrize("policy", KEY_BY_POLICY)
@settings(max_examples=100, deadline=None)
@given(hosts=st.lists(NODES, min_size=2, max_size=6), steps=STEPS)
def test_each_selector_takes_the_first_host_of_the_least_key(
    policy: str, hosts: list[list[int]], steps: list[tuple[str, int, int, list[int]]]
) -> None:
    table = table_of(
        host(f"kvm{at}", profile={"numa_nodes": [{"memory_bytes": gib * GIB} for gib in nodes]})
        for at, nodes in enumerate(hosts)
    )
    running: list[str] = []
    key = KEY_BY_POLICY[policy]
    for number, step in enumerate(steps):
        what, which, size, nodes = step
        if what == "leave" and running:
            table.release(running.pop(which % len(running)))
        change(table, step)
        wanted = with_nodes(f"v{number}", *nodes) if which % 2 else request(vm_id=f"v{number}", vcpus=size)
        slots = [table.slot_of(name) for name in candidate_hosts(table, wanted, policy_named(policy))]
        expected = min(slots, key=lambda slot: key(table, wanted, slot), default=None)
        found = place(table, wanted, policy_named(policy))
        told = explain(table, wanted, policy_named(policy))

        assert told.outcome == found
        event("refused" if expected is None else "placed")
        if not isinstance(found, Placement):
            assert expected is None
            continue
        assert expected is not None
        assert found.host == table.name[expected]
        assert [one.host for one in told.hosts if one.chosen] == [found.host]
        if what == "come":
            table.reserve(wanted.vm_id, found.host, wanted.vcpus, wanted.memory_bytes, needs=wanted.needs)
            running.append(wanted.vm_id)


def test_explanation_names_the_selector_and_the_choice() -> None:
    table = table_of([host("kvm01"), host("kvm02", vms=[(1, 512 * MIB, False)])])
    told = explain(table, request(), policy_named("best_fit"))

    assert told.selector == "BestFit"
    assert [(one.host, one.chosen) for one in told.hosts] == [("kvm01", False), ("kvm02", True)]
