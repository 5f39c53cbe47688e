"""The hosts of an experiment, from one word: `1000x64c256g`, a mix, a CSV file, or the mix of a Borg cell.

    spec   := part { "," part }
    part   := [ count "x" ] cpus "c" memory_gib "g"            500x64c256g
            | "borg-" cell [ ":" count [ "x" cpus "c" memory_gib "g" ] ]   borg-a:1000, borg-a:1000x96c768g
            | path ".csv"                                      columns cpus, memory_gib and optional name, count

Rule: the order of hosts is that of the spec, and it means something: a host's index decides ties.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from olvm.experiments.fleets import borg_mix, machine_kinds
from olvm.experiments.kernels.state import GIB_KIB, MILLI, Ints
from olvm.experiments.trace import MEMORY_GIB_MAX
from olvm.model.errors import BadInput, NotFound

HOST_COUNT_MAX = 10_000_000
HOST_CPUS_MAX = 16_384
_GIB_BYTES = 1 << 30
_SHAPE = re.compile(r"(?:(\d+)x)?(\d+(?:\.\d+)?)c(\d+(?:\.\d+)?)g")
_BORG = re.compile(r"borg-(\w+?)(?::(\d+)(?:x(\d+)c(\d+)g)?)?")
_HELP = "write as in 1000x64c256g, 500x64c256g,500x32c512g, borg-a:1000, or the path of a .csv"


@dataclass(frozen=True, kw_only=True)
class HostFleet:
    """Hosts in index order. `milli_cpus` in thousandths, both arrays rounded down to whole steps."""

    spec: str
    milli_cpus: Ints
    memory_kib: Ints
    names: tuple[str, ...] | None = None  # None: host-0, host-1, …

    def __len__(self) -> int:
        return len(self.milli_cpus)

    def name_of(self, index: int) -> str:
        return f"host-{index}" if self.names is None else self.names[index]


def parse_hosts(spec: str | HostFleet) -> HostFleet:
    """The fleet that a spec describes.

    Raises:
        BadInput: a spec that cannot be read, no hosts, too many, or a host of no CPUs or memory.
        NotFound: a CSV file that is not there.
    """
    if isinstance(spec, HostFleet):
        return spec
    words = [word.strip() for word in spec.split(",")]
    parts = [_part(word, spec) for word in words]
    cpus = np.concatenate([part[0] for part in parts])
    memory = np.concatenate([part[1] for part in parts])
    if not len(cpus):
        raise BadInput(f"hosts {spec!r} are none at all: give at least one")
    if len(cpus) > HOST_COUNT_MAX:
        raise BadInput(f"hosts {spec!r} are {len(cpus)}, more than {HOST_COUNT_MAX}")
    names = tuple(name for part in parts for name in part[2]) if any(part[2] for part in parts) else None
    if names is not None and len(names) != len(cpus):
        raise BadInput(f"hosts {spec!r}: name all hosts or none")
    return HostFleet(spec=spec, milli_cpus=cpus, memory_kib=memory, names=names)


_Part = tuple[Ints, Ints, list[str]]


def _part(word: str, spec: str) -> _Part:
    if word.endswith(".csv"):
        return _from_csv(Path(word))
    if match := _BORG.fullmatch(word.lower()):
        cell, count, cpus, memory = match.groups()
        number = int(count) if count else sum(kind.machine_count for kind in machine_kinds(cell))
        _check_count(number, spec)
        shapes = borg_mix(
            number, cell, cpus_max=int(cpus or 64), memory_bytes_max=int(memory or 512) * _GIB_BYTES
        )
        return (
            np.array([shape.cpus * MILLI for shape in shapes], np.int64),
            np.array([shape.memory_bytes // 1024 for shape in shapes], np.int64),
            [],
        )
    if match := _SHAPE.fullmatch(word.lower()):
        count = int(match[1] or 1)
        _check_count(count, spec)
        cpus, memory = _whole(float(match[2]), float(match[3]), f"hosts {spec!r}")
        return np.full(count, cpus, np.int64), np.full(count, memory, np.int64), []
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
    return np.array(cpus, np.int64), np.array(memory, np.int64), names
