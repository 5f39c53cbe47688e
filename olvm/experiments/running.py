"""What the loop of a replay needs, from a trace and a fleet; and the loop, in pieces short enough for Ctrl-C."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from olvm.experiments.compilation import IS_COMPILED
from olvm.experiments.host_specs import HostFleet
from olvm.experiments.hours import hours_of
from olvm.experiments.kernels.best_fit import new_best_fit
from olvm.experiments.kernels.events import Indexes, World, advance
from olvm.experiments.kernels.first_fit import new_first_fit
from olvm.experiments.kernels.lifetimes import new_lifetimes, no_lifetimes
from olvm.experiments.kernels.requests import peaks, prepare
from olvm.experiments.kernels.samples import Samples, new_samples, no_samples
from olvm.experiments.kernels.state import (
    BEST_FIT,
    FIRST_FIT,
    LAVA,
    NEXT,
    NILAS,
    NO_GROUP,
    NO_ROOM,
    PEAK,
    PLACED,
    ROUND_ROBIN,
    STATUS_COUNT,
    TOO_MANY_VCPUS,
    USED,
    WAIT_MAX,
    WAIT_TOTAL,
    Bytes,
    Demand,
    Fleet,
    Floats,
    Ints,
    new_ends,
    new_fleet,
    new_progress,
    new_requests,
)
from olvm.experiments.object_policies import ObjectLoop, ObjectPolicy
from olvm.experiments.policies import POLICIES, NamedPolicy
from olvm.experiments.result import digest_of
from olvm.experiments.trace import Trace
from olvm.experiments.trace_groups import numbered_groups

SERIES_ROWS_MAX = 1 << 18  # of each buffer: 40 MB at most for 100,000 hosts
STEPS_MAX = 1 << 26  # hosts looked at between two chances for Ctrl-C: a tenth of a second or so
INDEXED_HOSTS = 64  # what a decision of an indexed policy counts as
NEVER_SPLIT = int(np.iinfo(np.int64).max)
OWN_POLICY = -1  # decides in Python, so that no index is built


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A trace and a fleet in the kernels' arrays, before the first event."""

    trace: Trace
    hosts: HostFleet
    node_count: int
    demand: Demand
    lifetime_s: Floats  # inf: never leaves
    level_cpu: int
    fleet: Fleet
    unheeded: tuple[str, ...]  # columns of the trace about what these hosts say nothing of

    @staticmethod
    def of(trace: Trace, hosts: HostFleet, node_count: int, split_above: int) -> Prepared:
        unheeded = _unheeded(trace, hosts, node_count)
        trace = trace.without(unheeded)
        n = len(trace)
        status = np.zeros(n, np.int8)
        asked, has = _groups(trace, hosts, status)
        fleet = new_fleet(hosts.milli_cpus, hosts.memory_kib, node_count, has)
        parts = np.zeros(n, np.int8) if trace.numa_nodes is None else trace.numa_nodes.copy()
        demand = Demand(trace.milli_vcpus.copy(), trace.memory_kib.copy(), parts, asked, status)
        kinds, step = _kinds(fleet)
        step = int(prepare(demand, split_above, node_count, kinds, step))
        lifetime_s = np.where(np.isnan(trace.lifetime_s), np.inf, trace.lifetime_s)
        return Prepared(
            trace=trace,
            hosts=hosts,
            node_count=node_count,
            demand=demand,
            lifetime_s=lifetime_s,
            level_cpu=step,
            fleet=fleet,
            unheeded=unheeded,
        )

    def samples(self, period_s: float, power_mw: Ints) -> Samples:
        """Sampling each `period_s`; the typical VM has the lower median of vCPUs and that of memory."""
        middle = (len(self.trace) - 1) // 2
        typical = (
            int(np.partition(self.trace.milli_vcpus, middle)[middle]),
            int(np.partition(self.trace.memory_kib, middle)[middle]),
        )
        first_s = float(self.trace.arrival_s[0])
        rows_max = min(SERIES_ROWS_MAX, 2 * len(self.trace) + len(self.hosts) + 1024)
        return new_samples(self.fleet, period_s, first_s, typical, power_mw, rows_max)

    def world(self, kernel: int, seed: int, samples: Samples, *, prediction_error: float = 0.0) -> World:
        """The state at the beginning. A prepared replay is run once: the fleet is part of it.

        `prediction_error`: of lifetimes, as `predicted_lifetimes` takes it.
        """
        lifetimes = no_lifetimes()
        if kernel in (NILAS, LAVA):
            predicted_s = predicted_lifetimes(self.lifetime_s, prediction_error, seed)
            lifetimes = new_lifetimes(predicted_s, len(self.hosts))
        indexes = Indexes(
            new_first_fit(
                self.fleet, self.demand, self.node_count, is_used=kernel in (FIRST_FIT, ROUND_ROBIN)
            ),
            new_best_fit(self.fleet, self.node_count, self.level_cpu, is_used=kernel == BEST_FIT),
            np.zeros(len(self.hosts), np.int32),
            lifetimes,
        )
        parts = self.demand.parts
        is_parted = self.trace.numa_nodes is not None and bool(
            ((parts > 1) & (parts < self.node_count)).any()
        )
        requests = new_requests(self.trace.arrival_s, self.lifetime_s, self.demand, is_parted=is_parted)
        return World(requests, self.fleet, new_ends(len(self.trace)), new_progress(seed), indexes, samples)

    def figures(self, world: World) -> dict[str, Any]:
        counts, clock = world.progress.counts, world.progress.clock
        by_status = np.bincount(world.requests.status, minlength=STATUS_COUNT)
        placed = int(by_status[PLACED])
        rejected = int(by_status[NO_ROOM:].sum())
        return {
            "vm_count": len(self.trace),
            "placed": placed,
            "rejected": rejected,
            "waiting": len(self.trace) - placed - rejected,
            "rejected_no_group": int(by_status[NO_GROUP]),
            "hosts_used": int(counts[USED]),
            "hosts_peak": int(counts[PEAK]),
            "bound_hosts": self.bound(),
            "wait_s_total": float(clock[WAIT_TOTAL]),
            "wait_s_max": float(clock[WAIT_MAX]),
            **hours_of(world, self.trace, self.hosts),
            "digest": digest_of(world.requests),
        }

    def bound(self) -> int:
        """The least number of hosts that could hold the peak of the demand as it was offered, by capacity alone.

        For each resource: as many of the fleet's largest hosts as the peak needs; more than the fleet has count as
        hosts of the largest kind. The larger of both. VMs that fit no empty host are not in the demand.
        """
        end_s = self.trace.arrival_s + self.lifetime_s
        has_instants = bool((end_s <= self.trace.arrival_s).any())
        by_end = np.argsort(end_s, kind="stable" if has_instants else None)
        _, cpu, mem = peaks(self.trace.arrival_s, end_s, by_end, self.demand)
        cpu_capacity, mem_capacity = self.fleet.cpu_capacity, self.fleet.mem_capacity
        return max(_hosts_for(int(cpu), cpu_capacity), _hosts_for(int(mem), mem_capacity))


def predicted_lifetimes(lifetime_s: Floats, error: float, seed: int) -> Floats:
    """What is told of each VM when it comes: its lifetime, times ten to the power of a normal error.

    `error` is the standard deviation, in powers of ten: with 0.3 two thirds are wrong by a factor of 2 at most. The
    stream is NumPy's frozen one (MT19937, legacy normals), so that a seed means the same in every version.
    """
    if error == 0:
        return lifetime_s.copy()
    drawn = np.random.RandomState(seed % (1 << 32)).standard_normal(len(lifetime_s))
    return np.asarray(lifetime_s * 10.0 ** (error * drawn))


def _hosts_for(amount: int, capacity: Ints) -> int:
    if amount <= 0:
        return 0
    largest_first = np.sort(capacity)[::-1]
    held = np.cumsum(largest_first)
    enough = int(np.searchsorted(held, amount))
    if enough < len(held):
        return enough + 1
    return len(held) + -(-(amount - int(held[-1])) // int(largest_first[0]))


def _unheeded(trace: Trace, hosts: HostFleet, node_count: int) -> tuple[str, ...]:
    """Hosts of one node and hosts without groups are no statement: who does not model them cannot refuse for them."""
    unheeded = []
    if trace.numa_nodes is not None and node_count == 1:
        unheeded.append("numa_nodes")
    if trace.groups is not None and hosts.groups is None:
        unheeded.append("host_group")
    return tuple(unheeded)


def _kinds(fleet: Fleet) -> tuple[Ints, int]:
    """A node of each kind of host, as rows (vCPUs, memory, groups); and what divides the vCPUs of all nodes.

    Where no VM asks for a group, kinds that another contains are left out.
    """
    node_count = len(fleet.node_cpu) // len(fleet.host_cpu)
    groups = fleet.group if len(fleet.group) else np.zeros(len(fleet.host_cpu), np.int64)
    nodes = np.stack([fleet.node_cpu[::node_count], fleet.node_mem[::node_count], groups], axis=1)
    # Most vCPUs first. Sorting 100,000 rows takes longer than seeing that they are equal.
    distinct = nodes[:1] if (nodes == nodes[0]).all() else np.unique(nodes, axis=0)[::-1]
    step = int(np.gcd.reduce(distinct[:, 0]))
    if len(fleet.group):
        return np.ascontiguousarray(distinct), step
    best_mem = np.maximum.accumulate(distinct[:, 1])
    is_largest = np.r_[True, distinct[1:, 1] > best_mem[:-1]]
    return np.ascontiguousarray(distinct[is_largest]), step


def _groups(trace: Trace, hosts: HostFleet, status: Bytes) -> tuple[Ints, Ints]:
    """The groups that VMs ask for and those that hosts are in, as bits; both empty if no VM asks for one.

    Marks VMs that ask for a group that no host is in.
    """
    if trace.groups is None:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    bits = numbered_groups(tuple(name for names in hosts.groups or () for name in names))
    by_code = np.array([*(bits.get(name, -1) for name in trace.groups.names), 0], np.int64)
    asked = by_code[trace.groups.code]  # -1, nothing, is the last
    status[asked < 0] = NO_GROUP
    has = [sum(bits[name] for name in names) for names in hosts.groups or ((),) * len(hosts)]
    return np.maximum(asked, 0), np.array(has, np.int64)


def steps(
    world: World, prepared: Prepared, policy: NamedPolicy | ObjectPolicy, *, is_fifo: bool
) -> Iterator[None]:
    """Run to the end. Each step ends where the series must be taken, or a signal may be seen."""
    if not isinstance(policy, NamedPolicy):
        yield from ObjectLoop(world, prepared.trace, prepared.hosts, policy, prepared.node_count).steps(
            is_fifo=is_fifo
        )
        return
    n = len(prepared.trace)
    is_indexed = policy.kernel in (FIRST_FIT, BEST_FIT, ROUND_ROBIN)
    piece = max(16, STEPS_MAX // (INDEXED_HOSTS if is_indexed else len(prepared.hosts)))
    # Without numba, words of 64 bits run over with a warning instead of silently.
    with np.errstate(over="ignore"):
        stop = min(piece, n)
        while not advance(policy.kernel, is_fifo, prepared.node_count, stop, world) or stop < n:
            yield
            if world.progress.counts[NEXT] >= stop:
                stop = min(stop + piece, n)
        yield


@cache
def load_kernels() -> None:
    """Load or compile everything that a replay calls, by one that is as small as can be; once in a process."""
    if not IS_COMPILED:
        return
    one = np.ones(1)
    from olvm.experiments.host_specs import parse_hosts
    from olvm.experiments.trace import read_trace

    trace = read_trace({"arrival_s": one, "lifetime_s": one, "vcpus": one, "memory_gib": one})
    for name in ("first_fit", "best_fit"):
        prepared = Prepared.of(trace, parse_hosts("1x1c1g"), 1, NEVER_SPLIT)
        world = prepared.world(POLICIES[name].kernel, 0, no_samples())
        for _ in steps(world, prepared, POLICIES[name], is_fifo=True):
            pass
        prepared.figures(world)


assert TOO_MANY_VCPUS > NO_ROOM
