"""What is booked beside CPUs and memory: it fits or is refused, and comes back whole."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olvm.model.errors import BadInput, NoCapacity
from olvm.model.host_profile import HostProfile, host_profile_from, merged_profile
from olvm.model.placement_needs import PlacementNeeds, needs_from
from olvm.scheduling import HostTable, memory_need_bytes
from olvm.scheduling.request import memory_need_of
from olvm.scheduling.resources import NOTHING_TAKEN

from .tables import GIB, MIB, request

PROFILE = msgspec.convert(
    {
        "cpu_threads_per_core": 2,
        "numa_nodes": [{"memory_bytes": 4 * GIB, "cpus": 4}, {"memory_bytes": 4 * GIB, "cpus": 4}],
        "huge_pages": [{"size_bytes": 2 * MIB, "count": 1024}],
        "host_devices": ["pci_1", "pci_2"],
        "mediated_devices": {"vgpu": 2},
    },
    HostProfile,
)
NEEDS = (
    {"host_devices": ["pci_1"]},
    {"mediated_devices": ["vgpu"]},
    {"huge_page_bytes": 2 * MIB},
    {"numa_nodes": [{"memory_bytes": 3 * GIB}]},
    {"numa_nodes": [{"memory_bytes": 3 * GIB, "host_nodes": [1]}]},
    {"cpu_pinning": "dedicated"},
    {"cpu_pinning": "isolate_threads"},
    {"cpu_pins": [[0, 1], [2]]},
)


def table() -> HostTable:
    made = HostTable()
    made.add_host("kvm01", cpus=8, memory_bytes=16 * GIB, profile=PROFILE)
    return made


def needs(**fields: object) -> PlacementNeeds:
    return msgspec.convert(fields, PlacementNeeds)


def hold(made: HostTable, vm_id: str, *, vcpus: int = 1, **fields: object) -> None:
    made.reserve(vm_id, "kvm01", vcpus, GIB, needs=needs(**fields))


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        (NEEDS[0], NEEDS[0], "another VM has its device pci_1"),
        (
            {"mediated_devices": ["vgpu", "vgpu"]},
            NEEDS[1],
            "needs 1 of mediated device vgpu, 0 of 2 are free",
        ),
        ({"huge_page_bytes": 2 * MIB}, None, None),
        (NEEDS[4], NEEDS[4], "a NUMA node of 3072 MiB fits in none of the host's, 1024 MiB are free"),
        ({"cpu_pins": [[0]]}, {"cpu_pins": [[0]]}, None),
    ],
)
def test_what_one_vm_holds_another_does_not_get(
    first: dict[str, object], second: dict[str, object] | None, reason: str | None
) -> None:
    made = table()
    hold(made, "a", **first)
    if reason is None:
        hold(made, "b", **(second or {}))
        return
    with pytest.raises(NoCapacity, match=reason):
        hold(made, "b", **(second or {}))
    made.release("a")
    hold(made, "b", **(second or {}))


def test_cpus_of_its_own_are_taken_from_those_that_others_share() -> None:
    made = table()
    hold(made, "a", vcpus=2, cpu_pinning="isolate_threads")  # two whole cores
    hold(made, "b", vcpus=3, cpu_pinning="dedicated")
    row = made.slot_of("kvm01")
    assert [
        sorted(one.claims.exclusive_cpus) for vm in "ab" if (one := made.reservation(vm)) and one.claims
    ] == [
        [0, 1, 2, 3],
        [4, 5, 6],
    ]
    assert (made.vcpus_max[row], made.shared_cpus[row]) == (1, 1)
    with pytest.raises(NoCapacity, match="needs 2 vCPUs, host kvm01 can take 1"):
        made.reserve("c", "kvm01", 2, GIB)
    with pytest.raises(NoCapacity, match="CPU 0, which it is pinned to, belongs to another VM alone"):
        hold(made, "c", cpu_pins=[[0]])


def test_dedicated_vm_does_not_take_a_cpu_that_another_is_pinned_to() -> None:
    made = table()
    hold(made, "a", cpu_pins=[[0], [1]])
    hold(made, "b", vcpus=2, cpu_pinning="dedicated")
    held = made.reservation("b")
    assert held is not None
    assert held.claims is not None
    assert held.claims.exclusive_cpus == (2, 3)


def test_memory_in_huge_pages_is_not_taken_from_the_rest_and_the_rest_is_less() -> None:
    made = table()
    before = made.row("kvm01").memory_free_bytes
    assert before == 16 * GIB - 2 * GIB - 256 * MIB
    hold(made, "a", huge_page_bytes=2 * MIB)
    assert before - made.row("kvm01").memory_free_bytes == 2 * MIB + 64 * MIB + 8 * MIB
    with pytest.raises(NoCapacity, match="needs 1024 huge pages of 2 MiB, 512 are free"):
        made.reserve("b", "kvm01", 1, 2 * GIB, needs=needs(huge_page_bytes=2 * MIB))


@pytest.mark.parametrize(
    ("fields", "architecture", "overhead_bytes"),
    [
        ({}, "x86_64", 64 * MIB + 16 * MIB + 2 * 8 * MIB),
        ({"video_bytes": 16 * MIB}, "x86_64", 64 * MIB + 16 * MIB + 2 * 8 * MIB + 16 * MIB),
        ({"io_threads": 3}, "x86_64", 64 * MIB + 16 * MIB + 5 * 8 * MIB),
        ({"huge_page_bytes": 2 * MIB}, "x86_64", 64 * MIB + 16 * MIB + 2 * 8 * MIB - 8 * GIB),
        ({}, "ppc64", 100 * MIB + 128 * MIB + 2 * 8 * MIB),
    ],
)
def test_memory_need_is_computed_as_ovirt_does(
    fields: dict[str, object], architecture: str, overhead_bytes: int
) -> None:
    asked = needs(**fields)
    need = memory_need_of(vcpus=2, memory_bytes=8 * GIB, needs=asked, architecture=architecture)
    assert need == 8 * GIB + overhead_bytes
    if architecture == "x86_64":
        assert memory_need_bytes(request(vcpus=2, memory_bytes=8 * GIB, needs=asked)) == need


def test_ppc_hash_table_is_a_share_of_the_next_power_of_two() -> None:
    need = memory_need_of(vcpus=1, memory_bytes=5 * GIB, architecture="ppc64")
    assert need == 5 * GIB + 100 * MIB + 128 * MIB + 8 * MIB


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(NEEDS), st.integers(1, 3)), max_size=8), st.randoms())
def test_any_holdings_stay_within_the_host_and_come_back_whole(
    wanted: list[tuple[dict[str, object], int]], random: object
) -> None:
    made = table()
    before = made.row("kvm01")
    held = []
    for number, (fields, vcpus) in enumerate(wanted):
        try:
            hold(made, f"vm{number}", vcpus=vcpus, **fields)
            held.append(f"vm{number}")
        except NoCapacity:
            continue
    taken = made.taken[made.slot_of("kvm01")]
    assert all(count == 1 for count in taken.host_devices.values())
    assert all(count == 1 for count in taken.exclusive_cpus.values())
    assert not set(taken.exclusive_cpus) & set(taken.pinned_cpus)
    assert taken.mediated_devices["vgpu"] <= 2
    assert taken.huge_pages[2 * MIB] <= 1024
    assert all(amount <= 4 * GIB for amount in taken.numa_bytes.values())
    random.shuffle(held)  # type: ignore[attr-defined]
    for vm_id in held:
        made.release(vm_id)
    assert made.row("kvm01") == before
    for name in NOTHING_TAKEN.__dict__:
        assert not +getattr(made.taken[made.slot_of("kvm01")], name)
        assert not getattr(NOTHING_TAKEN, name)


def test_running_vm_is_booked_whatever_is_missing() -> None:
    made = table()
    for vm_id in ("a", "b"):
        made.reserve(
            vm_id, "kvm01", 1, GIB, already_running=True, needs=needs(host_devices=["pci_1"], **NEEDS[4])
        )
    taken = made.taken[made.slot_of("kvm01")]
    assert (taken.host_devices["pci_1"], taken.numa_bytes[1]) == (2, 6 * GIB)


def test_what_a_person_says_of_a_host_goes_before_what_it_says_itself() -> None:
    said, learnt = (
        HostProfile(networks=("lan",), labels=("gold",)),
        HostProfile(networks=("x",), cpu_sockets=2),
    )
    assert merged_profile(said, learnt) == HostProfile(networks=("lan",), labels=("gold",), cpu_sockets=2)
    assert merged_profile(None, learnt) is learnt
    assert merged_profile(said, None) is said


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"network": ["lan"]}, "unknown field `network`.*the fields are compatibility_version"),
        ({"cpu_pinning": "some"}, "Invalid enum value 'some'"),
        ({"cpu_pinning": "manual"}, "manual needs cpu_pins"),
        ({"cpu_pinning": "dedicated", "cpu_pins": [[1]]}, "chooses the CPUs itself"),
        ({"video_bytes": -1}, "video_bytes must not be negative"),
    ],
)
def test_needs_that_cannot_be_are_refused(fields: dict[str, object], match: str) -> None:
    with pytest.raises(BadInput, match=match):
        needs_from(fields)


def test_profile_with_an_unknown_field_is_refused() -> None:
    with pytest.raises(BadInput, match=r"unknown field `hook`.*the fields are compat.*hooks"):
        host_profile_from({"hook": ["qos"]})
