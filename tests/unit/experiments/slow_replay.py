"""A scheduler that is slow and obvious: what replays are held to. One list of nodes for each host, no index.

Units as in the kernels: thousandths of vCPUs, KiB; a lifetime of None never ends.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass
class Host:
    index: int
    nodes: list[list[int]]  # free (vCPUs, memory) of each
    groups: frozenset[str] = frozenset()
    vms: set[int] = field(default_factory=set)

    def free(self) -> tuple[int, int]:
        return sum(node[0] for node in self.nodes), sum(node[1] for node in self.nodes)

    def room(self, vm: Vm) -> list[int]:
        """The nodes that the VM would take; empty: no room."""
        if vm.group is not None and vm.group not in self.groups:
            return []
        fitting = [k for k, (cpu, mem) in enumerate(self.nodes) if cpu >= vm.cpu and mem >= vm.mem]
        return fitting[: vm.parts] if len(fitting) >= vm.parts else []


@dataclass(frozen=True)
class Vm:
    arrival: float
    lifetime: float | None
    cpu: int  # of each node that it takes
    mem: int
    parts: int  # how many nodes it takes that of
    group: str | None = None


class Chance:
    """splitmix64, after the paper."""

    def __init__(self, seed: int) -> None:
        self.state = seed % 2**64

    def below(self, count: int) -> int:
        self.state = (self.state + 0x9E3779B97F4A7C15) % 2**64
        word = self.state
        word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) % 2**64
        return ((word ^ (word >> 31)) >> 1) % count


@dataclass
class Answer:
    host: list[int | None]
    node: list[int | None]  # None: spread, or not placed
    nodes: list[list[int]]  # all that it has; empty: not placed
    start: list[float | None]
    refused: list[bool]
    used: int = 0
    peak: int = 0
    host_seconds: list[float] = field(default_factory=list)  # with VMs, of each host


def replay_slowly(
    vms: list[Vm],
    capacities: list[tuple[int, int]],
    node_count: int,
    *,
    policy: str,
    queue: str,
    seed: int,
    groups: list[frozenset[str]] | None = None,
) -> Answer:
    groups = groups or [frozenset()] * len(capacities)
    hosts = [
        Host(index, [[cpu // node_count, mem // node_count] for _ in range(node_count)], groups[index])
        for index, (cpu, mem) in enumerate(capacities)
    ]
    empty = [Host(host.index, [list(node) for node in host.nodes], host.groups) for host in hosts]
    chance = Chance(seed)
    largest = (max(host.free()[0] for host in hosts), max(host.free()[1] for host in hosts))
    count = len(vms)
    answer = Answer([None] * count, [None] * count, [[] for _ in vms], [None] * count, [False] * count)
    ends: list[tuple[float, int]] = []
    taken: dict[int, list[int]] = {}
    ever: set[int] = set()
    last, now, last_end = -1, -math.inf, -math.inf
    line_stands = False

    def leave_until(time: float) -> None:
        nonlocal last_end
        for end, vm in sorted(ends):
            if end <= time:
                last_end = end
                ends.remove((end, vm))
                host = hosts[answer.host[vm] or 0]
                for k in taken.pop(vm):
                    host.nodes[k][0] += vms[vm].cpu
                    host.nodes[k][1] += vms[vm].mem
                host.vms.remove(vm)

    for number, vm in enumerate(vms):
        if not any(host.room(vm) for host in empty):
            answer.refused[number] = True
            continue
        if line_stands:
            continue
        time = max(vm.arrival, now)
        leave_until(time)
        host = choose(policy, vm, hosts, last, chance, largest)
        while host is None and queue == "fifo" and ends:
            time = min(ends)[0]
            leave_until(time)
            host = choose(policy, vm, hosts, last, chance, largest)
        if host is None:
            answer.refused[number] = queue == "reject"
            line_stands = queue == "fifo"
            continue
        now, last = time, host.index
        taken[number] = host.room(vm)
        for k in taken[number]:
            host.nodes[k][0] -= vm.cpu
            host.nodes[k][1] -= vm.mem
        host.vms.add(number)
        ever.add(host.index)
        answer.host[number] = host.index
        answer.node[number] = None if vm.parts > 1 else taken[number][0]
        answer.nodes[number] = taken[number]
        answer.start[number] = now
        answer.peak = max(answer.peak, sum(bool(each.vms) for each in hosts))
        if vm.lifetime is not None:
            ends.append((now + vm.lifetime, number))
    answer.used = len(ever)
    answer.host_seconds = [
        seconds_held(vms, answer, host.index, max(now, last_end, vms[-1].arrival)) for host in hosts
    ]
    return answer


def seconds_held(vms: list[Vm], answer: Answer, host: int, last: float) -> float:
    """How long a host held VMs until `last`: the length of the union of their times."""
    times = sorted(
        (start, last if vm.lifetime is None else min(last, start + vm.lifetime))
        for vm, start, place in zip(vms, answer.start, answer.host, strict=True)
        if place == host and start is not None
    )
    total, until = 0.0, -math.inf
    for start, end in times:
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def choose(
    policy: str, vm: Vm, hosts: list[Host], last: int, chance: Chance, largest: tuple[int, int]
) -> Host | None:
    fitting = [host for host in hosts if host.room(vm)]
    if not fitting:
        return None
    share = (1.0 / largest[0], 1.0 / largest[1])
    asked = (vm.cpu * vm.parts * share[0], vm.mem * vm.parts * share[1])

    def scaled(host: Host) -> tuple[float, float]:
        return host.free()[0] * share[0], host.free()[1] * share[1]

    match policy:
        case "first_fit":
            return fitting[0]
        case "best_fit":
            return min(fitting, key=lambda host: (*host.free(), host.index))
        case "worst_fit":
            return max(fitting, key=lambda host: (*host.free(), -host.index))
        case "round_robin":
            return min(fitting, key=lambda host: (host.index <= last, host.index))
        case "random":
            return fitting[chance.below(len(fitting))]
        case "two_choice":
            two = [fitting[chance.below(len(fitting))] for _ in range(2)]
            return max(two, key=lambda host: (*host.free(), -host.index))
        case "dot_product":
            return max(fitting, key=lambda host: (dot(asked, scaled(host)), -host.index))
        case "cosine":
            length = math.sqrt(dot(asked, asked))
            return max(
                fitting,
                key=lambda host: (
                    dot(asked, scaled(host)) / (length * math.sqrt(dot(scaled(host), scaled(host)))),
                    -host.index,
                ),
            )
        case _:
            assert policy == "norm_greedy"
            rests = {host.index: (scaled(host)[0] - asked[0], scaled(host)[1] - asked[1]) for host in fitting}
            return min(fitting, key=lambda host: (dot(rests[host.index], rests[host.index]), host.index))


def dot(one: tuple[float, float], other: tuple[float, float]) -> float:
    return one[0] * other[0] + one[1] * other[1]
