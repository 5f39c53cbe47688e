"""Fleets have the cell's mix, the same each time, and halves that are alike."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olvm.experiments.fleets import GIB_BYTES, HostShape, apportion, borg_mix, machine_kinds
from olvm.model.errors import BadInput


def shapes(hosts: list[HostShape]) -> Counter[tuple[int, int]]:
    return Counter((host.cpus, host.memory_bytes // GIB_BYTES) for host in hosts)


def test_cells_have_the_published_machine_counts() -> None:
    machines = {cell: sum(kind.machine_count for kind in machine_kinds(cell)) for cell in "abcdefgh"}
    assert machines == {
        "a": 10_002,
        "b": 10_047,
        "c": 13_245,
        "d": 12_578,
        "e": 14_123,
        "f": 12_204,
        "g": 12_800,
        "h": 11_592,
    }


def test_fleet_of_forty_has_the_mix_of_cell_a() -> None:
    fleet = borg_mix(40, cell="a", cpus_max=64, memory_bytes_max=256 * GIB_BYTES)
    # 40 × share: 13.4 of 3346, 6.7 of 1672, 5.7 of 1417, 4.4 of 1104, 2.7, 2.6, 1.9, 1.5, 0.7, 0.3, 0.2.
    assert shapes(fleet) == {
        (38, 85): 13,
        (64, 128): 7,
        (45, 85): 6,
        (25, 85): 4,
        (25, 43): 3,
        (64, 256): 3,
        (45, 171): 2,
        (38, 43): 1,
        (61, 128): 1,
    }


def test_fleet_asked_for_twice_is_the_same() -> None:
    assert borg_mix(40, cell="g") == borg_mix(40, cell="g")


def test_fleet_names_are_unique_and_sort_in_fleet_order() -> None:
    names = [host.name for host in borg_mix(120)]
    assert names == sorted(set(names))
    assert borg_mix(1)[0].name == "kvm00"


def test_fleet_cut_in_half_gives_halves_alike() -> None:
    fleet = borg_mix(40, cell="a")
    first, second = shapes(fleet[:20]), shapes(fleet[20:])
    assert all(abs(first[shape] - second[shape]) <= 2 for shape in first | second)


@pytest.mark.parametrize(
    ("count", "cell", "cpus_max", "memory_bytes_max"),
    [(0, "a", 64, GIB_BYTES), (1, "z", 64, GIB_BYTES), (1, "a", 0, GIB_BYTES), (1, "a", 64, 0)],
)
def test_fleet_asked_for_the_impossible_refuses(
    count: int, cell: str, cpus_max: int, memory_bytes_max: int
) -> None:
    with pytest.raises(BadInput):
        borg_mix(count, cell=cell, cpus_max=cpus_max, memory_bytes_max=memory_bytes_max)


@given(
    weights=st.lists(st.integers(min_value=1, max_value=10_000), min_size=1, max_size=16),
    seat_count=st.integers(min_value=0, max_value=1_000),
)
def test_apportionment_of_any_weights_gives_all_seats_within_one_of_the_quota(
    weights: list[int], seat_count: int
) -> None:
    seats = apportion(weights, seat_count)
    assert sum(seats) == seat_count
    assert all(
        abs(seat - weight * seat_count / sum(weights)) < 1
        for seat, weight in zip(seats, weights, strict=True)
    )
