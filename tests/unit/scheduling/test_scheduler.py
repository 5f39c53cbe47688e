"""Where VMs go, and what is said about the hosts they do not go to."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from olvm.scheduling import (
    HostTable,
    NoPlacement,
    Placement,
    Policy,
    VmRequest,
    explain,
    memory_need_bytes,
    place,
    policy_named,
)

from .reference import ranks, reference_place, rejecting_filter, weights
from .tables import (
    GIB,
    MIB,
    HostFacts,
    host,
    hosts_strategy,
    policies_strategy,
    request,
    requests_strategy,
    table_of,
)

OVERCOMMIT = st.sampled_from([(100, 0), (150, 0), (100, 200), (100, 100)])


def host_of(table: HostTable, wanted: VmRequest, policy: Policy) -> str | None:
    outcome = place(table, wanted, policy)
    return outcome.host if isinstance(outcome, Placement) else None


@settings(max_examples=600, deadline=None)
@given(hosts_strategy(), requests_strategy(), policies_strategy(), OVERCOMMIT)
def test_place_on_any_table_equals_the_slow_reference(
    hosts: list[HostFacts], wanted: VmRequest, policy: Policy, overcommit: tuple[int, int]
) -> None:
    table = table_of(hosts, memory_overcommit_percent=overcommit[0], cpu_overcommit_percent=overcommit[1])
    chosen = reference_place(table, wanted, policy)
    event(f"{policy.name}: {'placed' if chosen else 'no host'}")
    assert host_of(table, wanted, policy) == chosen


@settings(max_examples=200, deadline=None)
@given(hosts_strategy(), requests_strategy(), policies_strategy(), OVERCOMMIT)
def test_explain_on_any_table_agrees_with_place_and_names_the_first_filter(
    hosts: list[HostFacts], wanted: VmRequest, policy: Policy, overcommit: tuple[int, int]
) -> None:
    table = table_of(hosts, memory_overcommit_percent=overcommit[0], cpu_overcommit_percent=overcommit[1])
    explanation = explain(table, wanted, policy)
    outcome = place(table, wanted, policy)
    assert explanation.outcome == outcome
    assert [(v.host, v.rejected_by) for v in explanation.hosts] == [
        (row.name, rejecting_filter(table, row, wanted, policy)) for row in table.rows()
    ]
    chosen = [verdict.host for verdict in explanation.hosts if verdict.chosen]
    assert chosen == ([outcome.host] if isinstance(outcome, Placement) else [])
    best = max((v.score for v in explanation.hosts if v.rejected_by is None), default=0)
    assert all(verdict.score == best for verdict in explanation.hosts if verdict.chosen)


@settings(max_examples=300, deadline=None)
@given(hosts_strategy(host_count_min=2), policies_strategy().filter(lambda policy: bool(policy.weights)))
def test_every_weight_and_rank_on_any_table_equals_the_slow_reference(
    hosts: list[HostFacts], policy: Policy
) -> None:
    table, wanted = table_of(hosts), request(memory_bytes=200 * MIB)
    candidates = [row for row in table.rows() if rejecting_filter(table, row, wanted, policy) is None]
    event(f"{policy.name}: {min(2, len(candidates))} candidates or more")
    weighed = [verdict for verdict in explain(table, wanted, policy).hosts if verdict.weights]
    assert len(weighed) == (len(candidates) if len(candidates) > 1 else 0)
    for unit, _ in policy.weights if weighed else ():
        expected = weights(unit, table, candidates, wanted, policy)
        assert {verdict.host: verdict.weights[unit] for verdict in weighed} == expected
        assert {verdict.host: verdict.ranks[unit] for verdict in weighed} == ranks(expected)


@settings(max_examples=200, deadline=None)
@given(
    hosts_strategy(host_count_min=2),
    requests_strategy(),
    policies_strategy(),
    st.randoms(use_true_random=False),
)
def test_order_in_which_hosts_were_added_is_irrelevant(
    hosts: list[HostFacts], wanted: VmRequest, policy: Policy, random: Random
) -> None:
    shuffled = list(hosts)
    random.shuffle(shuffled)
    table = table_of(hosts)
    other = table_of([host("aaa"), *shuffled])
    other.remove_host("aaa")
    assert explain(table, wanted, policy) == explain(other, wanted, policy)


@settings(max_examples=200, deadline=None)
@given(
    hosts_strategy(host_count_min=1),
    requests_strategy(),
    policies_strategy(),
    OVERCOMMIT,
    st.tuples(st.integers(0, 5), st.integers(0, 8), st.integers(0, 16)),
)
def test_adding_capacity_never_makes_a_placeable_vm_unplaceable(
    hosts: list[HostFacts],
    wanted: VmRequest,
    policy: Policy,
    overcommit: tuple[int, int],
    growth: tuple[int, int, int],
) -> None:
    table = table_of(hosts, memory_overcommit_percent=overcommit[0], cpu_overcommit_percent=overcommit[1])
    before = host_of(table, wanted, policy)
    which, more_cpus, more_gib = growth
    grown = hosts[which % len(hosts)]
    table.update_host(
        grown.name, cpus=grown.cpus + more_cpus, memory_bytes=grown.memory_bytes + more_gib * GIB
    )
    assert before is None or host_of(table, wanted, policy) is not None


def test_memory_left_at_the_over_utilization_limit_is_not_yet_too_little() -> None:
    wanted = request(vcpus=1, memory_bytes=GIB)
    used_bytes = memory_need_bytes(wanted) + 256 * MIB
    at_limit = host("kvm01", memory_bytes=used_bytes + 2 * GIB)
    below_limit = host("kvm02", memory_bytes=used_bytes + 2 * GIB - 1)
    roomy = host("kvm03", memory_bytes=used_bytes + 40 * GIB)
    policy = policy_named("power_saving", {"MaxFreeMemoryForOverUtilized": 2048})
    hosts = explain(table_of([at_limit, below_limit, roomy]), wanted, policy).hosts
    # The ceiling is 1.1 times what `roomy` has free before the VM: 40 GiB and the VM's need.
    assert [verdict.weights["OptimalForMemoryPowerSaving"] for verdict in hosts] == [45, 1000, 885]


def test_vm_that_fills_a_host_to_the_byte_is_placed_there_and_one_byte_more_is_not() -> None:
    exact_bytes = memory_need_bytes(request()) + 256 * MIB
    assert host_of(table_of([host("kvm01", memory_bytes=exact_bytes)]), request(), policy_named("none"))
    assert not host_of(
        table_of([host("kvm01", memory_bytes=exact_bytes - 1)]), request(), policy_named("none")
    )


def test_equal_hosts_tie_to_the_smallest_name() -> None:
    table = table_of([host("kvm10"), host("kvm02"), host("kvm09")])
    assert place(table, request(), policy_named("none")) == Placement(
        vm_id="web-1", host="kvm02", candidate_count=3
    )


@pytest.mark.parametrize(
    ("policy", "spread"),
    [("none", [4, 4, 4]), ("evenly_distributed", [4, 4, 4]), ("power_saving", [12, 0, 0])],
)
def test_twelve_equal_starts_spread_or_pack_as_the_policy_says(policy: str, spread: list[int]) -> None:
    table = table_of([host(f"kvm{n:02}", cpus=64, memory_bytes=64 * GIB) for n in range(3)])
    for number in range(12):
        wanted = request(vm_id=f"vm-{number}", vcpus=2, memory_bytes=2 * GIB)
        chosen = host_of(table, wanted, policy_named(policy))
        assert chosen is not None
        table.reserve(wanted.vm_id, chosen, wanted.vcpus, wanted.memory_bytes)
    assert [row.vm_count for row in table.rows()] == spread


def test_vm_evenly_distributed_counts_vms_and_not_their_size() -> None:
    many = host("kvm01", vms=[(1, 64 * MIB, True)] * 2)
    large = host("kvm02", vms=[(8, 20 * GIB, True)], cpu_load_percent=90)
    assert host_of(table_of([many, large]), request(), policy_named("vm_evenly_distributed")) == "kvm02"


def test_power_saving_avoids_a_host_over_high_utilization() -> None:
    one_vm = [(1, 64 * MIB, True)]
    hosts = [
        host("kvm01", cpu_load_percent=85, vms=one_vm),
        host("kvm02", cpu_load_percent=60, vms=one_vm),
        host("kvm03", cpu_load_percent=5, vms=one_vm),
        host("kvm04", cpu_load_percent=70),  # empty: the last to be woken
    ]
    assert host_of(table_of(hosts), request(), policy_named("power_saving")) == "kvm02"
    relaxed = policy_named("power_saving", {"HighUtilization": 95})
    assert host_of(table_of(hosts), request(), relaxed) == "kvm01"


def test_vcpu_ratio_turns_away_from_a_host_that_would_reach_it() -> None:
    crowded = host("kvm01", cpus=4, vms=[(4, GIB, True)], memory_bytes=64 * GIB)
    busy = host("kvm02", cpus=4, cpu_load_percent=70)
    table = table_of([crowded, busy])
    assert host_of(table, request(), policy_named("evenly_distributed")) == "kvm01"
    strict = policy_named("evenly_distributed", {"VCpuToPhysicalCpuRatio": 1.25})
    assert host_of(table, request(), strict) == "kvm02"


def reason_on_kvm01(facts: HostFacts, wanted: VmRequest, cpu_overcommit_percent: int = 0) -> str | None:
    table = table_of([facts, host("kvm02")], cpu_overcommit_percent=cpu_overcommit_percent)
    return explain(table, wanted, policy_named("none")).hosts[0].reason


def test_each_filter_says_in_one_sentence_why_it_rejects_a_host() -> None:
    small = host("kvm01", memory_bytes=62 * GIB, vms=[(1, 58 * GIB, True)])
    need_8_gib = request(vcpus=4, memory_bytes=8 * GIB)
    assert reason_on_kvm01(small, need_8_gib) == "kvm01: Memory: needs 8.2 GiB, 3.5 GiB free of 62 GiB"
    assert reason_on_kvm01(host("kvm01", cpus=2), need_8_gib) == "kvm01: CPU: needs 4 CPUs, the host has 2"
    full = host("kvm01", cpus=4, vms=[(3, GIB, True)])
    assert (
        reason_on_kvm01(full, need_8_gib, 100) == "kvm01: CPU: needs 4 CPUs, 3 of at most 4 vCPUs are taken"
    )
    pinned = request(pinned_hosts=("kvm02", "kvm03"))
    assert reason_on_kvm01(host("kvm01"), pinned) == "kvm01: PinToHost: the VM is pinned to kvm02, kvm03"
    runs_here = request(current_host="kvm01")
    assert reason_on_kvm01(host("kvm01"), runs_here) == "kvm01: Migration: the VM runs here already"
    down = host("kvm01", usable=False)
    assert reason_on_kvm01(down, request()) == "kvm01: Status: the host is not Up"
    tried = request(excluded_hosts=("kvm01",))
    assert reason_on_kvm01(host("kvm01"), tried) == "kvm01: Excluded: already tried for this start"
    assert reason_on_kvm01(host("kvm01"), request()) is None


def test_no_placement_reason_counts_the_hosts_by_cause() -> None:
    hosts = [host(f"kvm{n:02}", memory_bytes=4 * GIB) for n in range(6)]
    hosts += [host("kvm06", usable=False), host("kvm07", usable=False), host("kvm08", cpus=2)]
    wanted = request(vm_id="42", name="web-1", vcpus=4, memory_bytes=8 * GIB, excluded_hosts=("kvm05",))
    outcome = place(table_of(hosts), wanted, policy_named("none"))
    assert outcome == NoPlacement(
        vm_id="42",
        reason=(
            "no host of 9 fits web-1: 5 lack memory (largest free 3.7 GiB, needs 8.2 GiB), 2 are not Up, "
            "1 was already tried, 1 lacks CPUs (most left 2, needs 4)"
        ),
        rejected_by={"Memory": 5, "Status": 2, "Excluded": 1, "CPU": 1},
    )


def test_no_placement_of_a_pinned_running_vm_names_where_it_may_not_go() -> None:
    wanted = request(pinned_hosts=("kvm02",), current_host="kvm02")
    outcome = place(table_of([host("kvm01"), host("kvm02")]), wanted, policy_named("none"))
    assert isinstance(outcome, NoPlacement)
    assert outcome.reason == (
        "no host of 2 fits web-1: 1 is not where it is pinned (kvm02), 1 is where it runs already"
    )


def test_no_placement_in_an_empty_cluster_says_what_to_do() -> None:
    outcome = place(HostTable(), request(), policy_named("none"))
    assert isinstance(outcome, NoPlacement)
    assert outcome.reason == "no host of 0 fits web-1: add a host to the cluster"


def test_explanation_shows_weights_ranks_and_score_of_each_candidate() -> None:
    hosts = [
        host("kvm01", cpu_load_percent=50),
        host("kvm02", cpu_load_percent=10),
        host("kvm03", usable=False),
    ]
    explanation = explain(table_of(hosts), request(), policy_named("none"))
    first, second, third = explanation.hosts
    assert first.weights["OptimalForCpuEvenDistribution"] == 1000
    all_alike = dict.fromkeys(list(explanation.factors)[2:], 1)
    assert first.ranks == {
        "OptimalForCpuEvenDistribution": 0,
        "OptimalForMemoryEvenDistribution": 1,
        **all_alike,
    }
    assert second.weights["OptimalForCpuEvenDistribution"] == 1
    assert second.ranks == {
        "OptimalForCpuEvenDistribution": 1,
        "OptimalForMemoryEvenDistribution": 1,
        **all_alike,
    }
    # 131 of it for what it does not wish: equal weights give equal points.
    assert [v.score for v in explanation.hosts] == [132, 134, 0]
    assert (explanation.selector, sum(explanation.factors.values())) == ("RankSelector", 134)
    assert [v.chosen for v in explanation.hosts] == [False, True, False]
    assert third.rejected_by == "Status"
