"""Policies that are Python objects, in a replay: the same loop as `kernels/events.py`, with the object asked each time.

What such a class may have, and what becomes of its errors, is `olvm.scheduling.user_policies`; the same class goes into
a live cluster. Here a policy is made anew for each replay, so that what it remembers is of this replay alone.

Rules:
1. With `choose`, the policy sees all hosts as columns, those without room too, and what it chooses must have room. With
   `filter` beside it, only hosts with room that passed. With `score` or `filter` alone it is asked host by host, those
   with room only.
2. A policy that chooses none is no error: the VM waits or is refused, as with any other.
3. Columns are read-only views of the loop's own arrays: they cost nothing, and say what is so now, not what was.
"""

from __future__ import annotations

import heapq
import importlib
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from olvm.experiments.host_specs import HostFleet
from olvm.experiments.kernels.events import World
from olvm.experiments.kernels.samples import mark_changed, sample_before
from olvm.experiments.kernels.state import (
    ACTIVE,
    GIB_KIB,
    HANDLED,
    LAST_END,
    MILLI,
    NO_ROOM,
    NOW,
    PEAK,
    PLACED,
    REFUSED,
    RUNNING,
    SOME_NODES,
    SPREAD,
    USED,
    WAIT_MAX,
    WAIT_TOTAL,
    WAITING,
    Ask,
)
from olvm.experiments.trace import Trace
from olvm.model.errors import BadInput
from olvm.scheduling.user_policies import LoadedPolicy, UserHost, UserHosts, UserVm, load_user_policy

PIECE = 4096  # VMs between two looks of the caller


@dataclass(frozen=True)
class ObjectPolicy:
    loaded: LoadedPolicy

    @property
    def name(self) -> str:
        return self.loaded.name


def is_object_policy(policy: object) -> bool:
    return not isinstance(policy, str) or ":" in policy


def loaded_policy(policy: str | object) -> ObjectPolicy:
    """A policy of one's own, made anew where it is named.

    Raises:
        BadInput: there is no such module or class, or it has none of the methods.
    """
    if isinstance(policy, str):
        load_user_policy(policy)  # says what is wrong with the name
        module_name, _, class_name = policy.partition(":")
        policy = getattr(importlib.import_module(module_name), class_name)
    if policy is None:
        raise BadInput("there is no policy None: name one, as in policy='first_fit'")
    return ObjectPolicy(load_user_policy(policy))


class ReplayHosts:
    """Hosts as columns in index order, as `olvm.scheduling.user_policies.UserHosts`. Arrays cannot be written to.

    `fits` is true where the VM that is being placed may be and has room, host group and NUMA nodes included.
    """

    def __init__(self, world: World, hosts: HostFleet) -> None:
        self._hosts = hosts
        self._world = world
        self._name: Sequence[str] | None = None
        self.ask: Ask | None = None
        fleet = world.fleet
        self.cpus = _frozen(fleet.cpu_capacity / MILLI)
        self.memory_gib = _frozen(fleet.mem_capacity / GIB_KIB)
        self._free_vcpus = fleet.host_cpu / MILLI
        self._free_memory_gib = fleet.host_mem / GIB_KIB
        self.free_vcpus = _frozen(self._free_vcpus.view())
        self.free_memory_gib = _frozen(self._free_memory_gib.view())
        self.vm_count = _frozen(fleet.vm_count.view())

    @property
    def name(self) -> Sequence[str]:
        if self._name is None:
            self._name = [self._hosts.name_of(index) for index in range(len(self))]
        return self._name

    @property
    def fits(self) -> npt.NDArray[np.bool_]:
        ask = self.ask
        assert ask is not None
        fleet = self._world.fleet
        is_enough = (fleet.node_cpu >= ask.cpu) & (fleet.node_mem >= ask.mem)
        by_host = is_enough.reshape(-1, ask.node_count)
        fits = by_host.any(axis=1) if ask.parts == 1 else by_host.sum(axis=1) >= ask.parts
        return np.asarray(fits & (fleet.group & ask.group == ask.group) if ask.group else fits)

    def __len__(self) -> int:
        return len(self.cpus)

    def row(self, index: int) -> UserHost:
        return UserHost(
            name=self._hosts.name_of(index),
            cpus=float(self.cpus[index]),
            memory_gib=float(self.memory_gib[index]),
            free_vcpus=float(self.free_vcpus[index]),
            free_memory_gib=float(self.free_memory_gib[index]),
            vm_count=int(self.vm_count[index]),
        )

    def changed(self, index: int) -> None:
        self._free_vcpus[index] = self._world.fleet.host_cpu[index] / MILLI
        self._free_memory_gib[index] = self._world.fleet.host_mem[index] / GIB_KIB


class SomeHosts:
    """The hosts that passed a policy's filter, as columns in index order."""

    def __init__(self, hosts: ReplayHosts, indexes: Sequence[int]) -> None:
        picked = np.array(indexes, np.int64)
        self.name = [hosts.row(index).name for index in indexes]
        self.cpus = hosts.cpus[picked]
        self.memory_gib = hosts.memory_gib[picked]
        self.free_vcpus = hosts.free_vcpus[picked]
        self.free_memory_gib = hosts.free_memory_gib[picked]
        self.vm_count = hosts.vm_count[picked]
        self.fits = np.ones(len(picked), np.bool_)

    def __len__(self) -> int:
        return len(self.cpus)


def _as_int64(bits: int) -> int:
    """With 64 nodes, the last bit is the sign."""
    return bits - (1 << 64) if bits >> 63 else bits


def _frozen(array: Any) -> Any:
    array.flags.writeable = False
    return array


class ObjectLoop:
    """One replay whose decisions are an object's."""

    def __init__(
        self, world: World, trace: Trace, hosts: HostFleet, policy: ObjectPolicy, node_count: int
    ) -> None:
        self._world = world
        self._policy = policy.loaded
        self._node_count = node_count
        self.hosts = ReplayHosts(world, hosts)
        self._ends: list[tuple[float, int]] = []
        self._is_sampled = bool(world.samples.period_s[0] < np.inf)
        self._vcpus = trace.milli_vcpus / MILLI
        self._memory_gib = trace.memory_kib / GIB_KIB
        self._ids, self._tenants, self._priorities = map(trace.column, ("vm_id", "tenant", "priority"))

    def steps(self, *, is_fifo: bool) -> Iterator[None]:
        """The whole replay; each step ends where a signal may be seen."""
        decisions = self.decisions(is_fifo=is_fifo)
        host: int | None = None
        while True:
            try:
                vm = decisions.send(host)
            except StopIteration:
                return
            host = None
            if vm is None:
                yield
            else:
                host = self._chosen(vm)

    def decisions(self, *, is_fifo: bool) -> Generator[int | None, int | None, None]:
        """The replay turned inside out: it yields each VM that looks for a host, and is sent the host, or None.

        It also yields None, now and then, and pays no heed to what it is sent then. The first is sent None.
        """
        requests, counts = self._world.requests, self._world.progress.counts
        clock = self._world.progress.clock
        for vm in range(len(requests.status)):
            if vm % PIECE == PIECE - 1:
                yield None
            if requests.status[vm] != WAITING:
                continue
            now_s = max(requests.arrival_s[vm], clock[NOW])
            while True:
                for _ in self._until(now_s):
                    yield None
                host = yield vm
                if host is not None or not is_fifo or not self._ends:
                    break
                now_s = self._ends[0][0]
            if host is not None:
                clock[NOW] = now_s
                self._place(vm, host)
            elif is_fifo:
                break
            else:
                requests.status[vm] = NO_ROOM
                counts[REFUSED] += 1
        last_s = max(requests.arrival_s[-1], clock[NOW])
        for _ in self._until(last_s):
            yield None
        for _ in self._sampled(np.nextafter(last_s, np.inf)):
            yield None
        yield None

    def _until(self, now_s: float) -> Iterator[None]:
        """Everything that ends by `now_s`, and the samples before it."""
        while self._ends and self._ends[0][0] <= now_s:
            yield from self._sampled(self._ends[0][0])
            self._leave(heapq.heappop(self._ends)[1])
        yield from self._sampled(now_s)

    # The two that follow are `take_place` and `take_end` of `kernels/events.py`: handing sixty arrays to a compiled
    # function costs more than what it would do.

    def _place(self, vm: int, host: int) -> None:
        requests, fleet = self._world.requests, self._world.fleet
        counts, clock = self._world.progress.counts, self._world.progress.clock
        node = SPREAD
        if requests.parts[vm] < self._node_count or self._node_count == 1:
            nodes = range(host * self._node_count, (host + 1) * self._node_count)
            fits = [
                number
                for number, at in enumerate(nodes)
                if fleet.node_cpu[at] >= requests.cpu[vm] and fleet.node_mem[at] >= requests.mem[vm]
            ]
            node = fits[0]
            if requests.parts[vm] > 1:
                node = SOME_NODES
                requests.nodes[vm] = _as_int64(sum(1 << number for number in fits[: requests.parts[vm]]))
        now_s = clock[NOW]
        requests.status[vm] = PLACED
        requests.host[vm] = host
        requests.node[vm] = node
        requests.start_s[vm] = now_s
        self._change(vm, -1)
        counts[HANDLED] += 1
        counts[RUNNING] += 1
        if fleet.vm_count[host] == 0:
            counts[ACTIVE] += 1
            counts[PEAK] = max(counts[PEAK], counts[ACTIVE])
            if not fleet.was_used[host]:
                fleet.was_used[host] = 1
                counts[USED] += 1
            fleet.since_s[host] = now_s
        fleet.vm_count[host] += 1
        wait_s = now_s - requests.arrival_s[vm]
        clock[WAIT_TOTAL] += wait_s
        clock[WAIT_MAX] = max(clock[WAIT_MAX], wait_s)
        end_s = float(now_s + requests.lifetime_s[vm])
        if end_s < np.inf:
            heapq.heappush(self._ends, (end_s, vm))

    def _leave(self, vm: int) -> None:
        self._change(vm, 1)
        requests, fleet, progress = self._world.requests, self._world.fleet, self._world.progress
        counts, host = progress.counts, requests.host[vm]
        end_s = requests.start_s[vm] + requests.lifetime_s[vm]
        progress.clock[LAST_END] = end_s
        fleet.vm_count[host] -= 1
        counts[RUNNING] -= 1
        if fleet.vm_count[host] == 0:
            counts[ACTIVE] -= 1
            fleet.held_s[host] += end_s - fleet.since_s[host]

    def _change(self, vm: int, sign: int) -> None:
        requests, fleet = self._world.requests, self._world.fleet
        host, node = int(requests.host[vm]), int(requests.node[vm])
        cpu, mem = sign * requests.cpu[vm], sign * requests.mem[vm]
        first = host * self._node_count
        nodes: Iterable[int] = (first + node,)
        if node < 0:
            bits = int(requests.nodes[vm]) if node == SOME_NODES else -1
            nodes = [first + number for number in range(self._node_count) if bits >> number & 1]
        for at in nodes:
            fleet.node_cpu[at] += cpu
            fleet.node_mem[at] += mem
            fleet.host_cpu[host] += cpu
            fleet.host_mem[host] += mem
        if self._is_sampled:
            mark_changed(self._world.samples, host)
        self.hosts.changed(host)

    def _sampled(self, until_s: float) -> Iterator[None]:
        world = self._world
        if not self._is_sampled:
            return
        while not sample_before(
            world.samples, world.requests, world.fleet, world.progress, until_s, self._node_count
        ):
            yield

    def ask_of(self, vm: int) -> Ask:
        """What the VM asks of one node; `hosts.fits` is about it from now on."""
        requests = self._world.requests
        group = int(requests.group[vm]) if len(requests.group) else 0
        ask = Ask(
            int(requests.cpu[vm]), int(requests.mem[vm]), int(requests.parts[vm]), self._node_count, group
        )
        self.hosts.ask = ask
        return ask

    def _chosen(self, vm: int) -> int | None:
        policy, hosts, ask = self._policy, self.hosts, self.ask_of(vm)
        seen = self._vm(vm)
        if policy.chooses and not policy.filters:
            index = policy.choose(seen, cast(UserHosts, hosts))
            if index is not None and not self._has_room(index, ask):
                raise policy.without_room(seen, hosts.row(index).name, self._lack(index, ask))
            return index
        open_ = [
            index
            for index in np.flatnonzero(hosts.fits).tolist()
            if policy.why_not(seen, hosts.row(index)) is None
        ]
        if not open_:
            return None
        if policy.chooses:
            at = policy.choose(seen, cast(UserHosts, SomeHosts(hosts, open_)))
            return None if at is None else open_[at]
        if not policy.scores:
            return int(open_[0])
        scores = [policy.score(seen, hosts.row(index)) for index in open_]
        return int(open_[scores.index(max(scores))])

    def _has_room(self, index: int, ask: Ask) -> bool:
        fleet, nodes = self._world.fleet, range(index * ask.node_count, (index + 1) * ask.node_count)
        fits = [fleet.node_cpu[at] >= ask.cpu and fleet.node_mem[at] >= ask.mem for at in nodes]
        return sum(fits) >= ask.parts and self._is_in_group(index, ask)

    def _is_in_group(self, index: int, ask: Ask) -> bool:
        return not ask.group or int(self._world.fleet.group[index]) & ask.group == ask.group

    def _vm(self, vm: int) -> UserVm:
        requests = self._world.requests
        lifetime_s = float(requests.lifetime_s[vm])
        return UserVm(
            id=f"vm-{vm}" if self._ids is None else str(self._ids[vm]),
            vcpus=float(self._vcpus[vm]),
            memory_gib=float(self._memory_gib[vm]),
            tenant="" if self._tenants is None else str(self._tenants[vm]),
            priority=50 if self._priorities is None else int(self._priorities[vm]),
            lifetime_s=None if lifetime_s == np.inf else lifetime_s,
            arrival_s=float(requests.arrival_s[vm]),
        )

    def _lack(self, index: int, ask: Ask) -> str:
        host = self.hosts.row(index)
        if not self._is_in_group(index, ask):
            return "it is not in the host group that the VM asks for"
        where = ""
        if ask.parts > 1:
            where = f" in each of {ask.parts} NUMA nodes"
        elif ask.node_count > 1:
            where = " in one NUMA node"
        return (
            f"it has {host.free_vcpus:g} vCPUs and {host.free_memory_gib:g} GiB free in all, and "
            f"{ask.cpu / MILLI:g} and {ask.mem / GIB_KIB:g} are needed{where}"
        )
