"""How many hosts a second are chosen, and how long one placement takes a live Cluster actor: JSON lines.

One thread, CPU time of this process. A decision is `place` and the booking of what it answered; where VMs also leave,
their leaving is in the time. Arrivals are the flavours of the bundled Azure trace, drawn by a fixed seed; hosts have
64 CPUs and 256 GiB, vCPUs up to the number of threads, and are filled to 60 % before anything is measured: by the
policy itself, or unevenly. The classic policies, which look at every host, start from equal uneven fleets of hosts with
two NUMA nodes.

python benchmarks/bench_scheduling.py [--hosts 10000] [--decisions 20000] [--slow-decisions 50]
                                      [--classic-decisions 1000] [--only classic]
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Iterator

from measuring import GIB_BYTES, Teller

from actors.behaviour import Turn
from actors.cluster import Cluster
from olvm.model import messages as m
from olvm.model.config import Config
from olvm.model.host_profile import HostNumaNode, HostProfile
from olvm.model.limits import NS_PER_S
from olvm.scheduling import (
    HostTable,
    Placement,
    Policy,
    UserHosts,
    UserVm,
    VmRequest,
    fast_placement,
    place,
    policy_named,
)
from olvm.scheduling.affinity import AffinityGroup, affinity_of
from olvm.scheduling.host_selectors import HOST_SELECTORS

HOST_CPUS = 64
HOST_MEMORY_BYTES = 256 * GIB_BYTES
FILLED_SHARE = 0.6
# vCPUs, GiB and how often, as in the trace.
FLAVOURS = (
    (1, 1.75, 40),
    (2, 3.5, 27),
    (1, 0.75, 12),
    (4, 7, 9),
    (2, 14, 5),
    (8, 14, 4),
    (4, 28, 2),
    (16, 112, 1),
)
GROUP_SIZE = 10
TWO_NODES = HostProfile(
    numa_nodes=(HostNumaNode(memory_bytes=HOST_MEMORY_BYTES // 2, cpus=HOST_CPUS // 2),) * 2
)


class BestFit:
    """Ten lines of a user's: least free memory, then least free vCPUs."""

    def choose(self, vm: UserVm, hosts: UserHosts) -> int | None:
        import numpy as np

        fits = (hosts.free_vcpus >= vm.vcpus) & (hosts.free_memory_gib >= vm.memory_gib * 1.01 + 0.25)
        if not fits.any():
            return None
        return int(np.where(fits, hosts.free_memory_gib * 1024 + hosts.free_vcpus, np.inf).argmin())


def main() -> None:
    parser = argparse.ArgumentParser(description="How many hosts a second are chosen.")
    parser.add_argument("--hosts", type=int, default=10_000)
    parser.add_argument("--decisions", type=int, default=20_000)
    parser.add_argument("--slow-decisions", type=int, default=50)
    parser.add_argument("--classic-decisions", type=int, default=1000)
    parser.add_argument("--only", choices=["classic"])
    arguments = parser.parse_args()
    teller = Teller("scheduling", vars(arguments))
    hosts, count, few = arguments.hosts, arguments.decisions, arguments.slow_decisions
    _tell_classic(teller, hosts, arguments.classic_decisions)
    if arguments.only == "classic":
        return
    even = policy_named("evenly_distributed")
    teller.tell("even_arrivals", _arrivals(Fleet(hosts, filled_by=even), even, count), "1/s")
    teller.tell("even_place_alone", _places(Fleet(hosts, filled_by=even), even, count), "1/s")
    teller.tell("even_arrivals_uneven_fleet", _arrivals(Fleet(hosts), even, count), "1/s")
    teller.tell("even_place_alone_uneven_fleet", _places(Fleet(hosts), even, count), "1/s")
    turnover = _turnover(Fleet(hosts, filled_by=even), even, count)
    teller.tell("even_departure_and_arrival", turnover, "1/s")
    tenth = _affinity(Fleet(hosts, filled_by=even), even, count)
    teller.tell("even_affinity_on_a_tenth", tenth, "1/s", group_size=GROUP_SIZE)
    teller.tell("even_looking_at_every_host", _slowly(Fleet(hosts), even, few), "1/s")
    for name in ("power_saving", "vm_evenly_distributed"):
        teller.tell(name, _arrivals(Fleet(hosts), policy_named(name), few), "1/s")
    mine = policy_named(f"{BestFit.__module__}:BestFit")
    teller.tell("user_class_choosing_by_columns", _arrivals(Fleet(hosts), mine, count), "1/s")
    for figure, seconds in _live(hosts, count).items():
        teller.tell_percentiles(figure, seconds)


def _tell_classic(teller: Teller, host_count: int, count: int) -> None:
    """Each decision with the booking of what it chose; `evenly_distributed`, which has an index, beside them."""
    for name in (*(one.policy for one in HOST_SELECTORS.values()), "evenly_distributed"):
        policy, fleet = policy_named(name), Fleet(host_count, profile=TWO_NODES)
        requests = fleet.arriving(count + 1)
        _decide(fleet, requests[0], policy)  # warms up
        seconds = []
        for request in requests[1:]:
            began_s = time.process_time()
            _decide(fleet, request, policy)
            seconds.append(time.process_time() - began_s)
        teller.tell(f"classic_{name}", count / sum(seconds), "1/s")
        teller.tell_percentiles(f"classic_{name}", seconds)


class Fleet:
    """A table with VMs on it, and the VMs that come next."""

    def __init__(
        self, host_count: int, *, filled_by: Policy | None = None, profile: HostProfile | None = None
    ) -> None:
        self.random = random.Random(20260727)
        self.table = HostTable(cpu_overcommit_percent=100)
        for number in range(host_count):
            self.table.add_host(
                f"kvm{number:06}", cpus=HOST_CPUS, memory_bytes=HOST_MEMORY_BYTES, profile=profile
            )
        self.running: list[str] = []
        self.vm_count = 0
        vcpus_wanted = int(FILLED_SHARE * HOST_CPUS * host_count)
        if filled_by is None:
            self._fill_in_rounds(vcpus_wanted)
        else:
            self._fill_by(filled_by, vcpus_wanted)

    def _fill_by(self, policy: Policy, vcpus_wanted: int) -> None:
        held = 0
        while held < vcpus_wanted:
            [request] = self.arriving(1)
            _decide(self, request, policy)
            held += request.vcpus

    def _fill_in_rounds(self, vcpus_wanted: int) -> None:
        """Host after host in any order, a VM each: uneven, as after many have left."""
        names = list(self.table.name)
        held = 0
        while held < vcpus_wanted:
            self.random.shuffle(names)
            for name in names:
                vcpus, memory_bytes = self.flavour()
                if held < vcpus_wanted and self.table.fits(name, vcpus=vcpus, memory_bytes=memory_bytes):
                    self.book(self.new_id(), name, vcpus, memory_bytes)
                    held += vcpus

    def new_id(self) -> str:
        self.vm_count += 1
        return f"vm-{self.vm_count:07}"

    def flavour(self) -> tuple[int, int]:
        [(vcpus, gib, _)] = self.random.choices(FLAVOURS, [often for _, _, often in FLAVOURS])
        return vcpus, int(gib * GIB_BYTES)

    def book(self, vm_id: str, host: str, vcpus: int, memory_bytes: int) -> None:
        self.table.reserve(vm_id, host, vcpus, memory_bytes)
        self.running.append(vm_id)

    def leave(self) -> None:
        at = self.random.randrange(len(self.running))
        self.running[at], self.running[-1] = self.running[-1], self.running[at]
        self.table.release(self.running.pop())

    def arriving(self, count: int) -> list[VmRequest]:
        return [
            VmRequest(vm_id=self.new_id(), vcpus=vcpus, memory_bytes=memory_bytes)
            for vcpus, memory_bytes in (self.flavour() for _ in range(count))
        ]


def _decide(fleet: Fleet, request: VmRequest, policy: Policy) -> None:
    outcome = place(fleet.table, request, policy)
    if isinstance(outcome, Placement):
        fleet.book(request.vm_id, outcome.host, request.vcpus, request.memory_bytes)


def _rate(steps: Iterator[Callable[[], object]]) -> float:
    """Steps a second of CPU time; making the steps is not in it, and the first one warms up."""
    made = list(steps)
    made[0]()
    began_s = time.process_time()
    for step in made[1:]:
        step()
    return (len(made) - 1) / (time.process_time() - began_s)


def _arrivals(fleet: Fleet, policy: Policy, count: int) -> float:
    requests = fleet.arriving(count)
    return _rate(lambda request=request: _decide(fleet, request, policy) for request in requests)  # type: ignore[misc]


def _places(fleet: Fleet, policy: Policy, count: int) -> float:
    """Without booking."""
    requests = fleet.arriving(count)
    return _rate(lambda request=request: place(fleet.table, request, policy) for request in requests)  # type: ignore[misc]


def _turnover(fleet: Fleet, policy: Policy, count: int) -> float:
    def step(request: VmRequest) -> None:
        fleet.leave()
        _decide(fleet, request, policy)

    return _rate(lambda request=request: step(request) for request in fleet.arriving(count))  # type: ignore[misc]


def _affinity(fleet: Fleet, policy: Policy, count: int) -> float:
    """Each tenth VM is in a group of GROUP_SIZE that must be apart; what its group says is worked out in the time."""
    is_up = fleet.table.__contains__
    places: dict[str, tuple[str, ...]] = {}
    requests = fleet.arriving(count)
    chosen = requests[::10]
    group_by_vm: dict[str, AffinityGroup] = {}
    for first in range(0, len(chosen), GROUP_SIZE):
        names = {request.vm_id: request.vm_id for request in chosen[first : first + GROUP_SIZE]}
        group = AffinityGroup(name=f"g{first}", name_by_vm=names, vms_rule="negative", vms_enforcing=True)
        group_by_vm |= dict.fromkeys(names, group)

    def step(request: VmRequest) -> None:
        group = group_by_vm.get(request.vm_id)
        if group is None:
            _decide(fleet, request, policy)
            return
        affinity = affinity_of(request.vm_id, [group], places, is_up)
        asked = VmRequest(
            vm_id=request.vm_id, vcpus=request.vcpus, memory_bytes=request.memory_bytes, affinity=affinity
        )
        outcome = place(fleet.table, asked, policy)
        if isinstance(outcome, Placement):
            fleet.book(request.vm_id, outcome.host, request.vcpus, request.memory_bytes)
            places[request.vm_id] = (outcome.host,)

    return _rate(lambda request=request: step(request) for request in requests)  # type: ignore[misc]


def _slowly(fleet: Fleet, policy: Policy, count: int) -> float:
    before = fast_placement.INDEXED_HOSTS_MIN
    fast_placement.INDEXED_HOSTS_MIN = 1 << 60
    try:
        return _arrivals(fleet, policy, count)
    finally:
        fast_placement.INDEXED_HOSTS_MIN = before


# ------------------------------------------------------------------ the live actor


def _live(host_count: int, count: int) -> dict[str, list[float]]:
    """Seconds of one `PlaceVm` by a Cluster whose hosts report loads of 5 to 70 %; every tenth VM is in a group."""
    chance = random.Random(20260727)
    one = Cluster.new("prod")
    create = m.CreateCluster("prod", policy="evenly_distributed", ha_reservation=False)
    _give(one, m.StartCluster("op", create), "engine")
    for number in range(host_count):
        name = f"kvm{number:06}"
        joined = m.HostJoined(
            name,
            HOST_CPUS,
            HOST_MEMORY_BYTES,
            f"agent/{name}@h",
            True,
            "boot",
            "EPYC",
            ["migration", "watchdog"],
        )
        _give(one, joined, f"host/{name}")
        _report(one, name, chance.uniform(5, 70))
    vms = [f"vm-{number:06}" for number in range(count)]
    for first in range(0, count, 10 * GROUP_SIZE):
        members = vms[first : first + 10 * GROUP_SIZE : 10]
        if len(members) > 1:
            group = m.SetAffinityGroup(
                f"g{first}", "prod", vms=members, vms_rule="negative", vms_enforcing=True
            )
            _give(one, m.ChangeAffinity("op", group, members), "engine")
    seconds: dict[str, list[float]] = {"live_place_vm": [], "live_place_vm_in_a_group": []}
    for number, vm_id in enumerate(vms):
        if number % 4 == 0:
            _report(one, f"kvm{chance.randrange(host_count):06}", chance.uniform(5, 70))
        [(vcpus, gib, _)] = chance.choices(FLAVOURS, [often for _, _, often in FLAVOURS])
        ask = m.PlaceVm(vm_id, vm_id, 1, vcpus, int(gib * GIB_BYTES), leased=number % 3 == 0)
        turn = _turn(f"vm/{vm_id}")
        began_s = time.process_time()
        one.handle(ask, turn)
        spent_s = time.process_time() - began_s
        if number >= count // 10:  # the first ones fill and warm up
            seconds["live_place_vm_in_a_group" if number % 10 == 0 else "live_place_vm"].append(spent_s)
    return seconds


def _report(one: Cluster, host: str, load_percent: float) -> None:
    _give(one, m.HostReported(host, f"agent/{host}@h", 1, 1, load_percent, []), f"host/{host}")


def _give(one: Cluster, message: m.AnyMessage, sender: str) -> None:
    one.handle(message, _turn(sender))


def _turn(sender: str) -> Turn:
    return Turn("cluster/prod", sender, "message-1", 100 * NS_PER_S, CONFIG, lambda: "id")


CONFIG = Config()

if __name__ == "__main__":
    main()
