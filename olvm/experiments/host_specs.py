"""The hosts of an experiment, from one word: `1000x64c256g`, a mix, a CSV file, or the mix of a Borg cell.

    spec   := part { "," part }
    part   := kind { ":" ( "group=" name { "+" name } | "price=" price ) }   500x64c256g:group=gpu:price=0.9
    kind   := [ count "x" ] cpus "c" memory_gib "g"            500x64c256g
            | "borg-" cell [ ":" count [ "x" cpus "c" memory_gib "g" ] ]   borg-a:1000, borg-a:1000x96c768g
            | path ".csv"            columns cpus, memory_gib and optional name, count, group, price_per_hour

Rule: the order of hosts is that of the spec, and it means something: a host's index decides ties.
"""

from __future__ import annotations

import csv
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from olvm.experiments.fleets import borg_mix, machine_kinds
from olvm.experiments.kernels.state import GIB_KIB, MILLI, Floats, Ints
from olvm.experiments.trace import MEMORY_GIB_MAX
from olvm.experiments.trace_groups import numbered_groups
from olvm.model.errors import BadInput, NotFound

HOST_COUNT_MAX = 10_000_000
HOST_CPUS_MAX = 16_384
PRICE_MAX = 1e9
_GIB_BYTES = 1 << 30
_SAID = re.compile(r"(.+):(group|price)=([^:]*)")
_SHAPE = re.compile(r"(?:(\d+)x)?(\d+(?:\.\d+)?)c(\d+(?:\.\d+)?)g")
_BORG = re.compile(r"borg-(\w+?)(?::(\d+)(?:x(\d+)c(\d+)g)?)?")
_HELP = (
    "write as in 1000x64c256g, 500x64c256g,500x32c512g, borg-a:1000, or the path of a .csv; "
    "behind it may stand :group=NAME and :price=MONEY-AN-HOUR"
)


@dataclass(frozen=True, kw_only=True)
class HostFleet:
    """Hosts in index order. `milli_cpus` in thousandths, both arrays rounded down to whole steps."""

    spec: str
    milli_cpus: Ints
    memory_kib: Ints
    names: tuple[str, ...] | None = None  # None: host-0, host-1, …
    groups: tuple[tuple[str, ...], ...] | None = None  # of each host; None: no host is in any
    price_per_hour: Floats | None = None  # in whatever money; None: not said

    def __len__(self) -> int:
        return len(self.milli_cpus)

    def digest(self) -> str:
        """SHA-256 of all that a replay's figures depend on: names and the spec's words are not."""
        digest = hashlib.sha256(self.milli_cpus.tobytes() + self.memory_kib.tobytes())
        if self.groups is not None:
            digest.update("\n".join("+".join(names) for names in self.groups).encode())
        if self.price_per_hour is not None:
            digest.update(self.price_per_hour.tobytes())
        return digest.hexdigest()

    def name_of(self, index: int) -> str:
        return f"host-{index}" if self.names is None else self.names[index]


def parse_hosts(spec: str | HostFleet) -> HostFleet:
    """The fleet that a spec describes.

    Raises:
        BadInput: a spec that cannot be read, no hosts, too many, a host of no CPUs or memory, or a price for some hosts
            and not for others.
        NotFound: a CSV file that is not there.
    """
    if isinstance(spec, HostFleet):
        return spec
    words = [word.strip() for word in spec.split(",")]
    parts = [_part(word, spec) for word in words]
    cpus = np.concatenate([part.milli_cpus for part in parts])
    memory = np.concatenate([part.memory_kib for part in parts])
    if not len(cpus):
        raise BadInput(f"hosts {spec!r} are none at all: give at least one")
    if len(cpus) > HOST_COUNT_MAX:
        raise BadInput(f"hosts {spec!r} are {len(cpus)}, more than {HOST_COUNT_MAX}")
    names = tuple(name for part in parts for name in part.names)
    if names and len(names) != len(cpus):
        raise BadInput(f"hosts {spec!r}: name all hosts or none")
    groups = tuple(group for part in parts for group in part.groups)
    prices = np.concatenate([part.prices for part in parts])
    is_priced = ~np.isnan(prices)
    if is_priced.any() and not is_priced.all():
        raise BadInput(
            f"hosts {spec!r}: {int(is_priced.sum())} of {len(cpus)} hosts have a price: give all of them one, or none"
        )
    fleet = HostFleet(
        spec=spec,
        milli_cpus=cpus,
        memory_kib=memory,
        names=names or None,
        groups=groups if any(groups) else None,
        price_per_hour=prices if is_priced.any() else None,
    )
    numbered_groups(tuple(name for group in groups for name in group))
    return fleet


class _Part(NamedTuple):
    milli_cpus: Ints
    memory_kib: Ints
    names: list[str]
    groups: list[tuple[str, ...]]
    prices: Floats  # nan: none


def _part(word: str, spec: str) -> _Part:
    kind, said = word, {}
    while (found := _SAID.fullmatch(kind)) and found[2] not in said:
        kind = found[1]
        said[found[2]] = found[3]
    part = _kind(kind, spec)
    if "group" in said:
        part = part._replace(groups=[_group_names(said["group"], f"hosts {spec!r}")] * len(part.milli_cpus))
    if "price" in said:
        price = _price(said["price"], f"hosts {spec!r}")
        part = part._replace(prices=np.full(len(part.milli_cpus), price))
    return part


def _group_names(text: str, where: str) -> tuple[str, ...]:
    names = [name.strip() for name in text.split("+")]
    if not all(names):
        raise BadInput(f"{where}: group {text!r} is no name, nor several joined by +")
    return tuple(dict.fromkeys(names))


def _price(text: str, where: str) -> float:
    try:
        price = float(text)
    except ValueError:
        price = -1.0
    if not 0 <= price < PRICE_MAX:
        raise BadInput(f"{where}: {text!r} is no price of an hour: give a number from 0 to {PRICE_MAX:g}")
    return price


def _plain(milli_cpus: Ints, memory_kib: Ints) -> _Part:
    count = len(milli_cpus)
    return _Part(milli_cpus, memory_kib, [], [()] * count, np.full(count, np.nan))


def _kind(word: str, spec: str) -> _Part:
    if word.endswith(".csv"):
        return _from_csv(Path(word))
    if match := _BORG.fullmatch(word.lower()):
        cell, count, cpus, memory = match.groups()
        number = int(count) if count else sum(kind.machine_count for kind in machine_kinds(cell))
        _check_count(number, spec)
        shapes = borg_mix(
            number, cell, cpus_max=int(cpus or 64), memory_bytes_max=int(memory or 512) * _GIB_BYTES
        )
        return _plain(
            np.array([shape.cpus * MILLI for shape in shapes], np.int64),
            np.array([shape.memory_bytes // 1024 for shape in shapes], np.int64),
        )
    if match := _SHAPE.fullmatch(word.lower()):
        count = int(match[1] or 1)
        _check_count(count, spec)
        cpus, memory = _whole(float(match[2]), float(match[3]), f"hosts {spec!r}")
        return _plain(np.full(count, cpus, np.int64), np.full(count, memory, np.int64))
    raise BadInput(f"cannot read {word!r} in hosts {spec!r}: {_HELP}")


def _check_count(count: int, spec: str) -> None:
    if not 1 <= count <= HOST_COUNT_MAX:
        raise BadInput(f"hosts {spec!r} ask for {count} hosts: give 1 to {HOST_COUNT_MAX}")


def _whole(cpus: float, memory_gib: float, where: str) -> tuple[int, int]:
    if not (0 < cpus <= HOST_CPUS_MAX and 0 < memory_gib <= MEMORY_GIB_MAX):
        raise BadInput(
            f"{where}: a host has more than 0 and at most {HOST_CPUS_MAX} CPUs and "
            f"{MEMORY_GIB_MAX:g} GiB, got {cpus:g} and {memory_gib:g}"
        )
    # 1.1 * 1000 is 1100.0000000000002: what is a whole step but for that stays one.
    return int(round(cpus * MILLI, 6)), int(round(memory_gib * GIB_KIB, 6))


def _from_csv(path: Path) -> _Part:
    if not path.is_file():
        raise NotFound(f"there is no file of hosts {path}: {_HELP}")
    cpus: list[int] = []
    memory: list[int] = []
    names: list[str] = []
    groups: list[tuple[str, ...]] = []
    prices: list[float] = []
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = {"cpus", "memory_gib"} - set(reader.fieldnames or ())
        if missing:
            raise BadInput(
                f"{path} lacks the column {', '.join(sorted(missing))}: hosts have cpus and memory_gib"
            )
        for line, row in enumerate(reader, start=2):
            where = f"{path}, line {line}"
            try:
                shape = _whole(float(row["cpus"]), float(row["memory_gib"]), where)
                count = int(row.get("count") or 1)
            except (TypeError, ValueError) as error:
                raise BadInput(
                    f"{where}: {error}; cpus and memory_gib are numbers, count is whole"
                ) from error
            _check_count(count, str(path))
            name = row.get("name") or ""
            if name:
                names += [name] if count == 1 else [f"{name}-{number}" for number in range(count)]
            cpus += [shape[0]] * count
            memory += [shape[1]] * count
            group, price = row.get("group") or "", row.get("price_per_hour") or ""
            groups += [_group_names(group, where) if group else ()] * count
            prices += [_price(price, where) if price else float("nan")] * count
    return _Part(
        np.array(cpus, np.int64), np.array(memory, np.int64), names, groups, np.array(prices, np.float64)
    )
