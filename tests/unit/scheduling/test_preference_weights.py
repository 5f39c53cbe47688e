"""Each weight of what a VM would rather have, and the two selectors."""

from __future__ import annotations

import msgspec
import pytest

from olvm.model.host_profile import HostProfile
from olvm.model.placement_needs import PlacementNeeds
from olvm.scheduling import HostTable, Placement, Policy, VmRequest, explain, place, policy_named
from olvm.scheduling.ranking import sums_of
from olvm.scheduling.units import WEIGHT_BY_NAME

from .tables import GIB, host, request, table_of

TOPOLOGY = {"cpu_sockets": 2, "cpu_cores_per_socket": 8, "cpu_threads_per_core": 2}
NODE = {"memory_bytes": 8 * GIB, "cpus": 4}
# weight, what the VM wishes, and the profiles of hosts in the order in which it likes them
LIKED = [
    ("PreferredHosts", {"preferred_hosts": ["kvm01"]}, [{}, {}]),
    ("HA", {"hosted_engine": True}, [{"hosted_engine_score": 3400}, {"hosted_engine_score": 2400}]),
    (
        "CPU for high performance VMs",
        {"high_performance": True, **TOPOLOGY},
        [TOPOLOGY, TOPOLOGY | {"cpu_cores_per_socket": 4}],
    ),
    ("CPU and NUMA pinning compatibility", {"cpu_pins": [[7]]}, [{}, {"offline_cpus": [7]}]),
    (
        "CPU and NUMA pinning compatibility",
        {"numa_nodes": [{"memory_bytes": GIB, "host_nodes": [1]}]},
        [{"numa_nodes": [NODE, NODE]}, {"numa_nodes": [NODE]}],
    ),
    ("Fit VM to single host NUMA node", {}, [{"numa_nodes": [NODE]}, {"numa_nodes": [NODE | {"cpus": 1}]}]),
    ("InClusterUpgrade", {}, [{"os_version": "8.10"}, {"os_version": "8.9"}]),
]


def weighed(unit: str, table: HostTable, asked: VmRequest) -> list[int]:
    return WEIGHT_BY_NAME[unit].make({}).weigh(table, asked, table.slots())


@pytest.mark.parametrize(("unit", "wish", "profiles"), LIKED)
def test_weight_of_a_wish_is_lower_where_it_is_granted(
    unit: str, wish: dict[str, object], profiles: list[dict[str, object]]
) -> None:
    hosts = [
        host(f"kvm{number:02}", profile=msgspec.convert(fields, HostProfile))
        for number, fields in enumerate(profiles, 1)
    ]
    asked = request(vcpus=2, needs=msgspec.convert(wish, PlacementNeeds))
    weights = weighed(unit, table_of(hosts), asked)
    assert weights == sorted(weights)
    assert weights[0] < weights[-1]


@pytest.mark.parametrize("unit", sorted(WEIGHT_BY_NAME))
def test_equal_hosts_are_alike_to_every_weight(unit: str) -> None:
    weights = weighed(unit, table_of([host("kvm01"), host("kvm02")]), request(high_availability=True))
    assert len(set(weights)) <= 1


def test_there_are_ovirts_fourteen_weights() -> None:
    assert len(WEIGHT_BY_NAME) == 14


def test_ha_reservation_counts_highly_available_vms_where_the_cluster_keeps_room() -> None:
    table = table_of([host("kvm01"), host("kvm02"), host("kvm03")])
    for vm_id, where in (("a", "kvm01"), ("b", "kvm01"), ("c", "kvm02")):
        table.reserve(vm_id, where, 1, GIB, high_availability=True)
    asked = request(high_availability=True)
    assert weighed("OptimalForHaReservation", table, asked) == []
    table.ha_reservation = True
    assert weighed("OptimalForHaReservation", table, asked) == [1000, 500, 0]
    assert weighed("OptimalForHaReservation", table, request()) == []
    scaled = WEIGHT_BY_NAME["OptimalForHaReservation"].make({"ScaleDown": 2})
    assert scaled.weigh(table, asked, table.slots()) == [500, 250, 0]
    table.release("a")
    assert weighed("OptimalForHaReservation", table, asked) == [1000, 1000, 0]


def test_storage_pool_manager_counts_as_if_it_had_more_vms() -> None:
    spm = HostProfile(storage_pool_manager=True)
    table = table_of([host("kvm01", profile=spm), host("kvm02", vms=[(1, GIB, True)] * 4)])
    assert place(table, request(), policy_named("vm_evenly_distributed")) == Placement(
        vm_id="web-1", host="kvm02", candidate_count=2
    )
    small_grace = policy_named("vm_evenly_distributed", {"SpmVmGrace": 3})
    assert place(table, request(), small_grace) == Placement(vm_id="web-1", host="kvm01", candidate_count=2)


def test_known_load_of_a_vm_counts_instead_of_a_guess() -> None:
    table = table_of([host("kvm01", cpus=4, cpu_load_percent=0), host("kvm02", cpus=16, cpu_load_percent=20)])
    assert weighed("OptimalForCpuEvenDistribution", table, request(vcpus=4)) == [1, 1000]
    busy = request(vcpus=4, needs=PlacementNeeds(cpu_load_percent=90))
    assert weighed("OptimalForCpuEvenDistribution", table, busy) == [1000, 1]


def test_basic_weighting_adds_weights_and_rank_selector_their_order() -> None:
    names = (("OptimalForEvenGuestDistribution", 1), ("PreferredHosts", 1))
    hosts = [host("kvm01"), host("kvm02", vms=[(1, GIB, True)]), host("kvm03", vms=[(1, GIB, True)] * 2)]
    asked = request(needs=PlacementNeeds(preferred_hosts=("kvm03",)))
    rank = Policy(name="rank", weights=names)
    basic = Policy(name="basic", weights=names, selector="BasicWeighting")
    table = table_of(hosts)
    # By rank kvm01 gets 2 + 1 points and kvm03 0 + 2; by weight kvm03 has 2 + 1 and kvm01 0 + 1000.
    assert place(table, asked, rank).host == "kvm01"  # type: ignore[union-attr]
    explanation = explain(table, asked, basic)
    assert explanation.outcome == Placement(vm_id="web-1", host="kvm03", candidate_count=3)
    assert [verdict.score for verdict in explanation.hosts] == [1000, 1001, 3]
    assert explanation.selector == "BasicWeighting"


def test_sums_leave_out_units_that_see_no_difference() -> None:
    assert sums_of([[1, 2], [], [5, 0]], [2, 99, 1]) == [7, 4]
