"""What machines hold of a host that is counted or named: devices, huge pages, memory of NUMA nodes, CPUs of their own.

It decides whether a need fits beside what is taken, and what exactly is then taken. Rule: the filters and the table
ask the same functions, so what a filter lets through can be booked in the same turn. Each function answers what to
take, or a sentence that says what is missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from olvm.model.host_profile import HostProfile
from olvm.model.placement_needs import EXCLUSIVE_PINNING, PlacementNeeds, VirtualNumaNode

MIB = 2**20


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """What one machine holds on one host. `numa`: pairs of node and bytes. `pinned_cpus`: shared with others."""

    host_devices: tuple[str, ...] = ()
    mediated_devices: tuple[str, ...] = ()
    huge_page_bytes: int = 0
    huge_pages: int = 0
    numa: tuple[tuple[int, int], ...] = ()
    exclusive_cpus: tuple[int, ...] = ()
    pinned_cpus: tuple[int, ...] = ()


class Taken:
    """The sum of all claims on one host. A key whose count is zero is not there."""

    def __init__(self) -> None:
        self.host_devices: Counter[str] = Counter()
        self.mediated_devices: Counter[str] = Counter()
        self.huge_pages: Counter[int] = Counter()
        self.numa_bytes: Counter[int] = Counter()
        self.exclusive_cpus: Counter[int] = Counter()
        self.pinned_cpus: Counter[int] = Counter()

    def add(self, claims: Claims, sign: int) -> None:
        _count(self.host_devices, ((name, sign) for name in claims.host_devices))
        _count(self.mediated_devices, ((name, sign) for name in claims.mediated_devices))
        _count(self.huge_pages, [(claims.huge_page_bytes, sign * claims.huge_pages)])
        _count(self.numa_bytes, ((node, sign * amount) for node, amount in claims.numa))
        _count(self.exclusive_cpus, ((cpu, sign) for cpu in claims.exclusive_cpus))
        _count(self.pinned_cpus, ((cpu, sign) for cpu in claims.pinned_cpus))


def _count(counter: Counter[str] | Counter[int], amounts: Iterable[tuple[str | int, int]]) -> None:
    for key, amount in amounts:
        total = counter[key] + amount  # type: ignore[index]
        if total:
            counter[key] = total  # type: ignore[index]
        else:
            counter.pop(key, None)  # type: ignore[arg-type]


NOTHING_TAKEN = Taken()


def missing_devices(profile: HostProfile, taken: Taken, needs: PlacementNeeds) -> str | None:
    absent = [name for name in needs.host_devices if name not in profile.host_devices]
    if absent:
        return f"the host has no device {', '.join(absent)}"
    busy = [name for name in needs.host_devices if name in taken.host_devices]
    return f"another VM has its device {', '.join(busy)}" if busy else None


def missing_mediated(profile: HostProfile, taken: Taken, needs: PlacementNeeds) -> str | None:
    for name, wanted in Counter(needs.mediated_devices).items():
        total = profile.mediated_devices.get(name, 0)
        left = total - taken.mediated_devices[name]
        if wanted > left:
            return f"needs {wanted} of mediated device {name}, {max(0, left)} of {total} are free"
    return None


def huge_pages_needed(memory_bytes: int, needs: PlacementNeeds | None) -> int:
    if needs is None or not needs.huge_page_bytes:
        return 0
    return -(-memory_bytes // needs.huge_page_bytes)


def missing_huge_pages(
    profile: HostProfile, taken: Taken, needs: PlacementNeeds, memory_bytes: int
) -> str | None:
    size = needs.huge_page_bytes
    wanted = huge_pages_needed(memory_bytes, needs)
    total = sum(pages.count for pages in profile.huge_pages if pages.size_bytes == size)
    left = total - taken.huge_pages[size]
    if wanted <= left:
        return None
    return f"needs {wanted} huge pages of {size // MIB or size} {'MiB' if size >= MIB else 'bytes'}, {left} are free"


def numa_fit(profile: HostProfile, taken: Taken, needs: PlacementNeeds) -> tuple[tuple[int, int], ...] | str:
    """A host's node for each virtual one, the largest first, each on the freest node that it may use.

    Only `strict` can fail; otherwise memory that does not fit is taken from the freest node all the same.
    """
    nodes = profile.numa_nodes
    if not nodes:
        pinned = any(node.host_nodes for node in needs.numa_nodes)
        return "the host's NUMA nodes are not known" if pinned and needs.numa_tune == "strict" else ()
    free = {at: node.memory_bytes - taken.numa_bytes[at] for at, node in enumerate(nodes)}
    chosen: list[tuple[int, int]] = []
    for virtual in sorted(needs.numa_nodes, key=lambda one: (len(one.host_nodes) or 999, -one.memory_bytes)):
        allowed = [at for at in virtual.host_nodes or range(len(nodes)) if at in free]
        node = max(allowed, key=lambda at: (free[at], -at), default=None)
        if node is None or (needs.numa_tune == "strict" and free[node] < virtual.memory_bytes):
            return _numa_sentence(virtual, node, free)
        free[node] -= virtual.memory_bytes
        chosen.append((node, virtual.memory_bytes))
    return tuple(chosen)


def numa_unevenness(profile: HostProfile, taken: Taken, needs: PlacementNeeds | None) -> int | None:
    """How far apart the host's nodes would be in free memory with the machine there, in millionths of a node.

    The difference between the freest node and the fullest, each as a share of its own memory. None: the host's nodes
    are not known, and the machine wants some.
    """
    wanted = needs is not None and bool(needs.numa_nodes)
    if not profile.numa_nodes:
        return None if wanted else 0
    found = numa_fit(profile, taken, needs) if needs is not None and wanted else ()
    claimed = taken.numa_bytes
    if found and not isinstance(found, str):
        claimed = Counter(claimed)
        for node, amount in found:
            claimed[node] += amount
    free = [
        1_000_000 * (node.memory_bytes - claimed[at]) // node.memory_bytes
        for at, node in enumerate(profile.numa_nodes)
        if node.memory_bytes
    ]
    return max(free, default=0) - min(free, default=0)


def _numa_sentence(virtual: VirtualNumaNode, node: int | None, free: dict[int, int]) -> str:
    if node is None:
        return f"the host has no NUMA node {', '.join(map(str, virtual.host_nodes))}"
    need_mib = -(-virtual.memory_bytes // MIB)
    return (
        f"a NUMA node of {need_mib} MiB fits in none of the host's, {max(0, free[node]) // MIB} MiB are free"
    )


def fits_one_node(profile: HostProfile, taken: Taken, vcpus: int, memory_bytes: int) -> bool:
    return any(
        node.cpus >= vcpus and node.memory_bytes - taken.numa_bytes[at] >= memory_bytes
        for at, node in enumerate(profile.numa_nodes)
    )


def cpu_fit(
    profile: HostProfile, taken: Taken, needs: PlacementNeeds, vcpus: int, cpus: int
) -> tuple[int, ...] | str:
    """The host's CPUs that the machine is to have or share; a sentence: why its pinning does not hold here.

    `dedicated` takes the first free CPUs, `isolate_threads` the first cores of which every thread is free, one for
    each vCPU. CPU n is thread n mod threads-per-core of core n div threads-per-core.
    """
    online = [cpu for cpu in range(cpus) if cpu not in profile.offline_cpus]
    if needs.cpu_pinning in EXCLUSIVE_PINNING:
        free = {cpu for cpu in online if cpu not in taken.exclusive_cpus and cpu not in taken.pinned_cpus}
        threads = max(1, profile.cpu_threads_per_core) if needs.cpu_pinning == "isolate_threads" else 1
        cores = [range(first, first + threads) for first in range(0, cpus, threads)]
        whole = [core for core in cores if all(cpu in free for cpu in core)]
        if len(whole) < vcpus:
            what = "whole cores" if threads > 1 else "CPUs"
            return f"needs {vcpus} {what} of its own, {len(whole)} are free"
        return tuple(cpu for core in whole[:vcpus] for cpu in core)
    pins = tuple(sorted({cpu for pin in needs.cpu_pins for cpu in pin}))
    absent = [cpu for cpu in pins if cpu not in online]
    if absent:
        return f"it is pinned to CPU {', '.join(map(str, absent))}, which is not there or offline"
    taken_alone = [cpu for cpu in pins if cpu in taken.exclusive_cpus]
    if taken_alone:
        return f"CPU {', '.join(map(str, taken_alone))}, which it is pinned to, belongs to another VM alone"
    if needs.cpu_pinning == "resize_and_pin_numa" and taken.exclusive_cpus:
        return f"it wants all CPUs, and {len(taken.exclusive_cpus)} belong to other VMs alone"
    return pins


def is_resourceful(needs: PlacementNeeds | None) -> bool:
    """Whether anything of it is booked beside CPUs and memory."""
    return needs is not None and bool(
        needs.host_devices
        or needs.mediated_devices
        or needs.huge_page_bytes
        or needs.numa_nodes
        or needs.cpu_pinning != "none"
        or needs.cpu_pins
    )


def claims_of(
    profile: HostProfile,
    taken: Taken,
    needs: PlacementNeeds,
    *,
    vcpus: int,
    memory_bytes: int,
    cpus: int,
    anyway: bool = False,
) -> Claims | str:
    """All that the needs take on this host, or the first thing that is missing.

    `anyway`: the machine runs there already, so what is missing is left out and the rest is taken.
    """
    found_numa, found_cpus = (
        numa_fit(profile, taken, needs),
        cpu_fit(profile, taken, needs, vcpus, cpus),
    )
    problems = (
        missing_devices(profile, taken, needs),
        missing_mediated(profile, taken, needs),
        missing_huge_pages(profile, taken, needs, memory_bytes) if needs.huge_page_bytes else None,
        found_numa if isinstance(found_numa, str) else None,
        found_cpus if isinstance(found_cpus, str) else None,
    )
    first = next((problem for problem in problems if problem), None)
    if first is not None and not anyway:
        return first
    if isinstance(found_numa, str):
        found_numa = numa_fit(profile, taken, msgspec.structs.replace(needs, numa_tune="preferred"))
    exclusive = needs.cpu_pinning in EXCLUSIVE_PINNING
    if isinstance(found_cpus, str):
        wanted = range(cpus) if exclusive else [cpu for pin in needs.cpu_pins for cpu in pin if cpu < cpus]
        found_cpus = tuple(cpu for cpu in wanted if cpu not in taken.exclusive_cpus)[:vcpus]
    return Claims(
        host_devices=needs.host_devices,
        mediated_devices=needs.mediated_devices,
        huge_page_bytes=needs.huge_page_bytes,
        huge_pages=huge_pages_needed(memory_bytes, needs),
        numa=() if isinstance(found_numa, str) else found_numa,
        exclusive_cpus=found_cpus if exclusive else (),
        pinned_cpus=() if exclusive else found_cpus,
    )
