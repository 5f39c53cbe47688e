"""Each filter: what it lets pass, what it drops, and the sentence that says why."""

from __future__ import annotations

import msgspec
import pytest

from olvm.model.host_profile import NO_PROFILE, HostProfile
from olvm.model.placement_needs import PlacementNeeds
from olvm.scheduling import HostTable, NoPlacement, Placement, Policy, explain, place, policy_named
from olvm.scheduling.policy import (
    CAPACITY_FILTERS,
    CLUSTER_FILTERS,
    DEFAULT_FILTERS,
    MANDATORY_FILTERS,
    OPTIONAL_FILTERS,
)
from olvm.scheduling.scheduler import rejection
from olvm.scheduling.units import FILTER_BY_NAME

from .tables import GIB, MIB, host, request, table_of

NODES = [{"memory_bytes": 16 * GIB, "cpus": 4}, {"memory_bytes": 8 * GIB, "cpus": 4}]


def profile(**fields: object) -> HostProfile:
    return msgspec.convert(fields, HostProfile)


def needs(**fields: object) -> PlacementNeeds:
    return msgspec.convert(fields, PlacementNeeds)


# filter, what the VM needs, a host that has it, a host that has not, and what is said of that one
OF_PROFILE = [
    (
        "Compatibility-Version",
        {"compatibility_version": "4.7"},
        {"compatibility_versions": ["4.6", "4.7"]},
        {"compatibility_versions": ["4.6"]},
        "the VM is of version 4.7, the host knows 4.6",
    ),
    (
        "CPU-Level",
        {"cpu_flags": ["avx2", "aes"]},
        {"cpu_flags": ["aes", "avx2", "sse4_2"]},
        {"cpu_flags": ["aes"]},
        "the host's CPU lacks avx2",
    ),
    (
        "CPU-Level",
        {"cpu_model": "Skylake-Server"},
        {"cpu_models": ["Haswell", "Skylake-Server"]},
        {"cpu_models": ["Haswell"]},
        "the host cannot give it a Skylake-Server",
    ),
    (
        "CPUTopology",
        {"cpu_sockets": 2, "cpu_cores_per_socket": 4, "cpu_threads_per_core": 2},
        {"cpu_sockets": 2, "cpu_cores_per_socket": 16, "cpu_threads_per_core": 2},
        {"cpu_sockets": 2, "cpu_cores_per_socket": 2, "cpu_threads_per_core": 2},
        "the VM has 4 cores in a socket, the host has 2",
    ),
    (
        "Emulated-Machine",
        {"emulated_machine": "q35"},
        {"emulated_machines": ["pc", "q35"]},
        {"emulated_machines": ["pc"]},
        "the host does not emulate machine q35",
    ),
    (
        "Network",
        {"networks": ["lan", "dmz"]},
        {"networks": ["dmz", "lan"]},
        {"networks": ["lan"]},
        "the host has no network dmz",
    ),
    (
        "Network",
        {"display_network": "console"},
        {"networks": ["console"]},
        {"networks": ["lan"]},
        "the host has no network console for the VM's display",
    ),
    (
        "Host-hooks",
        {"hooks": ["qos"]},
        {"hooks": ["qos", "scratch"]},
        {"hooks": []},
        "the host lacks hook qos",
    ),
    (
        "VmToHostsAffinityGroups",
        {"labels": ["gold"]},
        {"labels": ["gold", "rack1"]},
        {"labels": ["rack1"]},
        "the host lacks label gold",
    ),
    (
        "HostDevice",
        {"host_devices": ["pci_0000_3b_00_0"]},
        {"host_devices": ["pci_0000_3b_00_0"]},
        {},
        "the host has no device pci_0000_3b_00_0",
    ),
    (
        "MDevice",
        {"mediated_devices": ["nvidia-35", "nvidia-35"]},
        {"mediated_devices": {"nvidia-35": 2}},
        {"mediated_devices": {"nvidia-35": 1}},
        "needs 2 of mediated device nvidia-35, 1 of 1 are free",
    ),
    (
        "HugePages",
        {"huge_page_bytes": 2 * MIB},
        {"huge_pages": [{"size_bytes": 2 * MIB, "count": 512}]},
        {"huge_pages": [{"size_bytes": 2 * MIB, "count": 511}]},
        "needs 512 huge pages of 2 MiB, 511 are free",
    ),
    (
        "NUMA",
        {"numa_nodes": [{"memory_bytes": 12 * GIB, "host_nodes": [0]}]},
        {"numa_nodes": NODES},
        {"numa_nodes": NODES[::-1]},
        "a NUMA node of 12288 MiB fits in none of the host's, 8192 MiB are free",
    ),
    (
        "CpuPinning",
        {"cpu_pinning": "manual", "cpu_pins": [[6, 7]]},
        {},
        {"offline_cpus": [7]},
        "it is pinned to CPU 7, which is not there or offline",
    ),
    (
        "CpuPinning",
        {"cpu_pinning": "dedicated"},
        {},
        {"offline_cpus": list(range(8))},
        "needs 1 CPUs of its own, 0 are free",
    ),
    (
        "HA",
        {"hosted_engine": True},
        {"hosted_engine_score": 3400},
        {"hosted_engine_score": 0},
        "its hosted-engine score is 0",
    ),
]


@pytest.mark.parametrize(
    ("unit", "wanted", "good", "bad", "reason"),
    OF_PROFILE,
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_filter_of_the_profile_passes_a_host_that_has_it_and_says_what_the_other_lacks(
    unit: str, wanted: dict[str, object], good: dict[str, object], bad: dict[str, object], reason: str
) -> None:
    table = table_of([host("kvm01", profile=profile(**good)), host("kvm02", profile=profile(**bad))])
    asked = request(needs=needs(**wanted))
    policy = policy_named("none")
    assert rejection(table, asked, policy, "kvm01") is None
    assert rejection(table, asked, policy, "kvm02") == (unit, reason)
    assert place(table, asked, policy) == Placement(vm_id="web-1", host="kvm01", candidate_count=1)
    alone = place(table_of([host("kvm02", profile=profile(**bad))]), asked, policy)
    assert isinstance(alone, NoPlacement)
    assert alone.rejected_by == {unit: 1}
    assert alone.reason.startswith("no host of 1 fits web-1: 1 ")


@pytest.mark.parametrize("name", PlacementNeeds.__struct_fields__)
def test_vm_that_needs_nothing_goes_to_a_host_of_which_nothing_is_told(name: str) -> None:
    table = table_of([host("kvm01", profile=NO_PROFILE)])
    empty = msgspec.structs.replace(PlacementNeeds(), **{name: getattr(PlacementNeeds(), name)})
    assert isinstance(place(table, request(needs=empty), policy_named("none")), Placement)


@pytest.mark.parametrize(
    "wanted",
    [
        {"compatibility_version": "4.7"},
        {"cpu_flags": ["avx2"], "cpu_model": "Haswell"},
        {"cpu_sockets": 2},
        {"emulated_machine": "q35"},
        {"networks": ["lan"], "display_network": "lan"},
        {"hooks": ["qos"]},
        {"invariant_tsc": True},
        {"numa_nodes": [{"memory_bytes": GIB}]},
    ],
)
def test_what_nobody_told_of_a_host_drops_nobody(wanted: dict[str, object]) -> None:
    table = table_of([host("kvm01"), host("kvm02")])
    asked = request(needs=needs(**wanted), current_host="kvm02", live=True)
    table.update_host("kvm01", features=["migration"])
    assert rejection(table, asked, policy_named("none"), "kvm01") is None


def test_there_are_ovirts_filters_by_name_and_each_is_used_by_some_policy() -> None:
    assert len(MANDATORY_FILTERS) == 8
    assert len((*CAPACITY_FILTERS, *OPTIONAL_FILTERS, *CLUSTER_FILTERS)) == 17
    assert sorted(FILTER_BY_NAME) == sorted((*DEFAULT_FILTERS, *CLUSTER_FILTERS))


def hot_table(minutes: float, percent: int) -> HostTable:
    table = table_of([host("kvm01", cpu_load_percent=percent)])
    table.update_host("kvm01", over_utilized_s=minutes * 60)
    return table


@pytest.mark.parametrize(
    ("minutes", "percent", "parameters", "reason"),
    [
        (1.9, 95, {}, None),
        (2.0, 80, {}, None),
        (2.0, 81, {}, "its CPUs have been over 80 % for 2 minutes (81 %)"),
        (9.0, 95, {"CpuOverCommitDurationMinutes": 10}, None),
        (9.0, 95, {"HighUtilization": 95}, None),
    ],
)
def test_overloaded_host_is_dropped_when_it_was_so_for_long_enough(
    minutes: float, percent: int, parameters: dict[str, float], reason: str | None
) -> None:
    found = rejection(hot_table(minutes, percent), request(), policy_named("none", parameters), "kvm01")
    assert found == (None if reason is None else ("CPUOverloaded", reason))


def test_host_with_the_ratio_of_vcpus_is_overloaded() -> None:
    table = table_of([host("kvm01", cpus=4, vms=[(4, GIB, True), (2, GIB, True)])])
    strict = policy_named("evenly_distributed", {"VCpuToPhysicalCpuRatio": 1.5})
    assert rejection(table, request(), strict, "kvm01") == (
        "CPUOverloaded",
        "it has 6 vCPUs on 4 CPUs, at most 1.5 each",
    )
    relaxed = policy_named("evenly_distributed", {"VCpuToPhysicalCpuRatio": 1.6})
    assert rejection(table, request(), relaxed, "kvm01") is None


def test_swap_in_use_counts_once_a_limit_is_set() -> None:
    table = table_of([host("kvm01")])
    table.update_host("kvm01", swap_used_percent=21)
    assert rejection(table, request(), policy_named("none"), "kvm01") is None
    limited = policy_named("none", {"MaximumAllowedSwapUsage": 20})
    reason = "21 % of its swap is in use, at most 20 % may be"
    assert rejection(table, request(), limited, "kvm01") == ("Swap", reason)
    assert rejection(table, request(), policy_named("none", {"MaximumAllowedSwapUsage": 21}), "kvm01") is None


@pytest.mark.parametrize(
    ("there", "passes"),
    [
        ({"tsc_frequency_hz": 2_000_000_000}, True),
        ({"tsc_frequency_hz": 2_100_000_000}, False),
        ({"tsc_frequency_hz": 2_100_000_000, "tsc_scaling": True}, True),
        ({}, True),
    ],
)
def test_running_vm_with_a_constant_clock_stays_at_its_frequency(
    there: dict[str, object], passes: bool
) -> None:
    here = profile(tsc_frequency_hz=2_000_000_000)
    table = table_of([host("kvm01", profile=here), host("kvm02", profile=profile(**there))])
    for name in ("kvm01", "kvm02"):
        table.update_host(name, features=["migration"])
    moving = request(needs=needs(invariant_tsc=True), current_host="kvm01", live=True)
    found = rejection(table, moving, policy_named("none"), "kvm02")
    assert (found is None) is passes
    assert passes or found == (
        "Migration-Tsc-Frequency",
        "its time stamp counter runs at 2100000000 Hz, the VM was started at 2000000000 Hz",
    )
    starting = request(needs=needs(invariant_tsc=True))
    assert rejection(table, starting, policy_named("none"), "kvm02") is None


def test_cluster_in_maintenance_starts_only_what_is_highly_available_and_moves_the_rest() -> None:
    table, policy = table_of([host("kvm01"), host("kvm02")]), policy_named("cluster_maintenance")
    refused = place(table, request(), policy)
    assert isinstance(refused, NoPlacement)
    assert refused.rejected_by == {"ClusterInMaintenance": 2}
    assert isinstance(place(table, request(high_availability=True), policy), Placement)
    assert isinstance(place(table, request(current_host="kvm01"), policy), Placement)


def test_upgraded_vm_does_not_go_back_to_an_older_system() -> None:
    policy = Policy(name="upgrade", filters=(*DEFAULT_FILTERS, "InClusterUpgrade"))
    versions = {"kvm01": "8.9", "kvm02": "8.10", "kvm03": "8.8", "kvm04": ""}
    table = table_of([host(name, profile=profile(os_version=text)) for name, text in versions.items()])
    asked = request(current_host="kvm01")
    found = {name: rejection(table, asked, policy, name) for name in ("kvm02", "kvm03", "kvm04")}
    assert found["kvm02"] is None
    assert found["kvm04"] is None
    assert found["kvm03"] == ("InClusterUpgrade", "the host has 8.8, older than 8.9 where the VM runs")


def test_hosts_that_the_engine_may_need_are_kept_for_it() -> None:
    scored = profile(hosted_engine_score=3400)
    hosts = [host(name, memory_bytes=9 * GIB, profile=scored) for name in ("kvm01", "kvm02")]
    table = table_of([*hosts, host("kvm03", memory_bytes=9 * GIB)])
    table.hosted_engine_need_bytes = 8 * GIB
    spares = policy_named("evenly_distributed", {"HeSparesCount": 2})
    wanted = request(memory_bytes=2 * GIB)
    assert place(table, wanted, spares) == Placement(vm_id="web-1", host="kvm03", candidate_count=1)
    reason = "the engine's machine needs 8 GiB on 2 spare hosts, and this is one of 2"
    assert rejection(table, wanted, spares, "kvm01") == ("HostedEngineSpares", reason)
    small = request(memory_bytes=100 * MIB)
    assert rejection(table, small, spares, "kvm01") is None
    one = policy_named("evenly_distributed", {"HeSparesCount": 1})
    assert rejection(table, wanted, one, "kvm01") is None
    engine = request(memory_bytes=2 * GIB, needs=needs(hosted_engine=True))
    assert rejection(table, engine, spares, "kvm01") is None


def test_measured_memory_bounds_what_may_be_promised_less_what_is_not_seen_yet() -> None:
    table = table_of([host("kvm01", memory_bytes=64 * GIB)], memory_overcommit_percent=200)
    table.update_host("kvm01", measured_free_bytes=3 * GIB)
    assert table.row("kvm01").memory_free_bytes == 3 * GIB
    held = table.reserve("a", "kvm01", 1, GIB)
    assert table.row("kvm01").memory_free_bytes == 3 * GIB - held.memory_need_bytes
    table.settle("a")
    assert table.row("kvm01").memory_free_bytes == 3 * GIB


def test_explanation_names_each_filter_of_a_demanding_vm() -> None:
    hosts = [
        host("kvm01", profile=profile(networks=["lan"])),
        host("kvm02", profile=profile(hooks=[], networks=["dmz"])),
        host("kvm03", profile=profile(hooks=[])),
    ]
    asked = request(needs=needs(networks=["lan"], hooks=["qos"]))
    verdicts = explain(table_of(hosts), asked, policy_named("none")).hosts
    assert [verdict.rejected_by for verdict in verdicts] == [None, "Network", "Host-hooks"]
    assert verdicts[2].reason == "kvm03: Host-hooks: the host lacks hook qos"
