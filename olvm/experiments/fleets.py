"""Makes fleets of mixed hosts in the proportions of a real Google cell (`olvm/data/borg2019_hosts.csv`).

Decides how many hosts of each shape a fleet of a given size has, and in which order; it is deterministic.
Shapes in the data are fractions of the largest machine, so the caller says how large that is.

Rule: any prefix of a fleet has nearly the mix of the whole, so that cutting one list into clusters gives
clusters that are alike.
"""

from __future__ import annotations

import csv
from pathlib import Path

import msgspec

from olvm.model.errors import BadInput

HOSTS_PATH = Path(__file__).resolve().parents[1] / "data" / "borg2019_hosts.csv"
GIB_BYTES = 1 << 30


class HostShape(msgspec.Struct, frozen=True, kw_only=True):
    """A host to create: `cpus` in whole threads, `memory_bytes` a whole number of GiB."""

    name: str
    cpus: int
    memory_bytes: int


class MachineKind(msgspec.Struct, frozen=True, kw_only=True):
    """One row of a cell: both fractions are of the largest machine of all cells, in (0, 1]."""

    cpus_fraction: float
    memory_fraction: float
    machine_count: int


def borg_mix(
    count: int, cell: str = "a", *, cpus_max: int = 64, memory_bytes_max: int = 512 * GIB_BYTES
) -> list[HostShape]:
    """A fleet of `count` hosts with the machine mix of one Borg cell.

    Args:
        count: hosts wanted, 1 or more.
        cell: `a` to `h`.
        cpus_max: CPUs of a machine whose fraction is 1.0.
        memory_bytes_max: memory of a machine whose fraction is 1.0; at least 1 GiB.

    Raises:
        BadInput: an unknown cell, or a bound below 1.

    Source: largest remainder (Hamilton); ties go to the kind with more machines, then to the larger one.
    """
    if count < 1 or cpus_max < 1 or memory_bytes_max < GIB_BYTES:
        raise BadInput(
            f"cannot make a fleet of {count} hosts of up to {cpus_max} CPUs and {memory_bytes_max} bytes: "
            "give at least one host, one CPU and 1 GiB"
        )
    kinds = machine_kinds(cell)
    order = _interleaved(apportion([kind.machine_count for kind in kinds], count))
    width = max(2, len(str(count - 1)))
    return [
        HostShape(
            name=f"kvm{number:0{width}}",
            cpus=max(1, round(kinds[index].cpus_fraction * cpus_max)),
            memory_bytes=max(1, round(kinds[index].memory_fraction * memory_bytes_max / GIB_BYTES))
            * GIB_BYTES,
        )
        for number, index in enumerate(order)
    ]


def machine_kinds(cell: str) -> list[MachineKind]:
    """The kinds of machine in one cell, the commonest first."""
    with HOSTS_PATH.open(newline="", encoding="ascii") as file:
        rows = list(csv.DictReader(file))
    kinds = [
        MachineKind(
            cpus_fraction=float(row["cpus"]),
            memory_fraction=float(row["ram"]),
            machine_count=int(row["machine_count"]),
        )
        for row in rows
        if row["cell"] == cell
    ]
    if not kinds:
        known = ", ".join(sorted({row["cell"] for row in rows}))
        raise BadInput(f"there is no Borg cell {cell!r} in the bundled data: choose one of {known}")
    return sorted(kinds, key=lambda kind: (-kind.machine_count, -kind.cpus_fraction, -kind.memory_fraction))


def apportion(weights: list[int], seat_count: int) -> list[int]:
    """Share seats in proportion to `weights` by largest remainder; ties go to the earlier weight."""
    total = sum(weights)
    seats = [weight * seat_count // total for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda index: -(weights[index] * seat_count % total))
    for index in by_remainder[: seat_count - sum(seats)]:
        seats[index] += 1
    return seats


def _interleaved(seats: list[int]) -> list[int]:
    """Spread each index evenly over the list: the k-th of n stands at (2k + 1) / 2n of the way."""
    places = [((2 * k + 1) / (2 * n), index) for index, n in enumerate(seats) for k in range(n)]
    return [index for _, index in sorted(places)]
