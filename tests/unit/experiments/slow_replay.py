"""A scheduler that is slow and obvious: what replays are held to. One list of nodes for each host, no index.

Units as in the kernels: thousandths of vCPUs, KiB; a lifetime of None never ends.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from tests.unit.experiments.slow_lifetimes import Lives


@dataclass
class Host:
    index: int
    nodes: list[list[int]]  # free (vCPUs, memory) of each
    node_size: tuple[int, int]
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
    predicted: float = math.inf  # its lifetime, as it is told when the VM comes


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
class Scene:
    """What a policy may look at."""

    vms: list[Vm]
    hosts: list[Host]
    largest: tuple[int, int]  # what the largest host has, empty
    chance: Chance
    lives: Lives
    last: int = -1  # the host that was taken last


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
        Host(
            index,
            [[cpu // node_count, mem // node_count] for _ in range(node_count)],
            (cpu // node_count, mem // node_count),
            groups[index],
        )
        for index, (cpu, mem) in enumerate(capacities)
    ]
    empty = [
        Host(host.index, [list(node) for node in host.nodes], host.node_size, host.groups) for host in hosts
    ]
    largest = (max(host.free()[0] for host in hosts), max(host.free()[1] for host in hosts))
    scene = Scene(vms, hosts, largest, Chance(seed), Lives())
    count = len(vms)
    answer = Answer([None] * count, [None] * count, [[] for _ in vms], [None] * count, [False] * count)
    ends: list[tuple[float, int]] = []
    taken: dict[int, list[int]] = {}
    ever: set[int] = set()
    now, last_end = -math.inf, -math.inf
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
                if all(other > end for other, _ in ends):
                    scene.lives.all_left(hosts, end)
        scene.lives.now = time

    for number, vm in enumerate(vms):
        if not any(host.room(vm) for host in empty):
            answer.refused[number] = True
            continue
        if line_stands:
            continue
        time = max(vm.arrival, now)
        leave_until(time)
        host = choose(policy, vm, scene)
        while host is None and queue == "fifo" and ends:
            time = min(ends)[0]
            leave_until(time)
            host = choose(policy, vm, scene)
        if host is None:
            answer.refused[number] = queue == "reject"
            line_stands = queue == "fifo"
            continue
        now, scene.last = time, host.index
        taken[number] = most_even(host, vm)[1] if policy == "numa_balance" else host.room(vm)
        for k in taken[number]:
            host.nodes[k][0] -= vm.cpu
            host.nodes[k][1] -= vm.mem
        host.vms.add(number)
        scene.lives.came(host, number, vm)
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


def choose(policy: str, vm: Vm, scene: Scene) -> Host | None:
    hosts = scene.hosts
    fitting = [host for host in hosts if host.room(vm)]
    if not fitting:
        return None
    match policy:
        case "first_fit":
            return fitting[0]
        case "best_fit":
            return min(fitting, key=lambda host: (*host.free(), host.index))
        case "worst_fit":
            return max(fitting, key=lambda host: (*host.free(), -host.index))
        case "round_robin":
            return min(fitting, key=lambda host: (host.index <= scene.last, host.index))
        case "random":
            return fitting[scene.chance.below(len(fitting))]
        case "two_choice":
            two = [fitting[scene.chance.below(len(fitting))] for _ in range(2)]
            return max(two, key=lambda host: (*host.free(), -host.index))
        case "nilas" | "lava":
            rank = scene.lives.nilas if policy == "nilas" else scene.lives.lava
            return min(fitting, key=lambda host: (rank(host, vm), *host.free(), host.index))
        case "numa_balance":
            return min(fitting, key=lambda host: (most_even(host, vm)[0], *host.free(), host.index))
        case _:
            return max(fitting, key=lambda host: (score(policy, vm, host, scene), -host.index))


def most_even(host: Host, vm: Vm) -> tuple[float, list[int]]:
    """How uneven the host would be with the VM there, and its nodes: of one node, that leaves it most even."""
    ways = [host.room(vm)]
    if vm.parts == 1:
        ways = [[k] for k, (cpu, mem) in enumerate(host.nodes) if cpu >= vm.cpu and mem >= vm.mem]
    outcomes = []
    for way in ways:
        after = [list(node) for node in host.nodes]
        for each in way:
            after[each][0] -= vm.cpu
            after[each][1] -= vm.mem
        spreads = [max(free) - min(free) for free in zip(*after, strict=True)]
        outcomes.append((spreads[0] / host.node_size[0] + spreads[1] / host.node_size[1], way))
    return min(outcomes)


def score(policy: str, vm: Vm, host: Host, scene: Scene) -> float:
    """vCPUs and memory as shares of the largest host; the highest wins."""
    share = (1.0 / scene.largest[0], 1.0 / scene.largest[1])

    def asked_of(one: Vm) -> tuple[int, int]:
        return one.cpu * one.parts, one.mem * one.parts

    asked = (asked_of(vm)[0] * share[0], asked_of(vm)[1] * share[1])
    free = (host.free()[0] * share[0], host.free()[1] * share[1])
    match policy:
        case "dot_product":
            return dot(asked, free)
        case "weighted_dot_product":
            running = [scene.vms[number] for each in scene.hosts for number in each.vms]
            cpus, memories = zip(*map(asked_of, [*running, vm]), strict=True)
            return dot((sum(cpus) * share[0] * asked[0], sum(memories) * share[1] * asked[1]), free)
        case "cosine":
            return dot(asked, free) / (math.sqrt(dot(asked, asked)) * math.sqrt(dot(free, free)))
        case _:
            assert policy == "norm_greedy"
            rest = (free[0] - asked[0], free[1] - asked[1])
            return -dot(rest, rest)


def dot(one: tuple[float, float], other: tuple[float, float]) -> float:
    return one[0] * other[0] + one[1] * other[1]
