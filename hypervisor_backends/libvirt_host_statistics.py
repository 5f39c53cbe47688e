"""One sample of a host, from the files of its kernel below `root`.

Decides which file says what in oVirt's words. Rates need two samples: the first tells the mean since the boot. Must not
know libvirt or the machines, which are counted by whoever asks.
"""

from __future__ import annotations

import os
import resource

import msgspec

from hypervisor_backends.libvirt_processes import boot_id_of, boot_time_ns_of, read_text
from hypervisor_backends.measurements import (
    CoreLoads,
    HostStatistics,
    NicStatistics,
    NumaNodeStatistics,
    PoolStatistics,
)
from olvm.model.limits import NS_PER_S

MIB_KIB = 1024
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
# Cards of machines and the loop-back are no uplinks.
_NOT_COUNTED = ("lo", "vnet", "tap", "virbr")
ALL_CPUS = "cpu"
NICS_MAX = 64
NUMA_NODES_MAX = 64
CORES_MAX = 4096

Ticks = tuple[int, int, int]  # user, system and idle


class NumaNodeReading(msgspec.Struct, frozen=True, kw_only=True):
    node: int
    cpu_ticks: Ticks
    total_kib: int
    free_kib: int
    cpus: tuple[int, ...] = ()


class HostReading(msgspec.Struct, frozen=True, kw_only=True):
    """What was read at one instant, in the kernel's units; `cpu_ticks` are user, system and idle."""

    at_ns: int
    boot_id: str
    boot_time_ns: int
    cpu_ticks: Ticks
    core_ticks: dict[int, Ticks] = {}  # by the kernel's number of the CPU
    load: float
    memory_kib: dict[str, int]
    ksm_pages: int
    ksm_runs: bool
    ksm_ticks: int
    nics: tuple[NicStatistics, ...]
    numa_nodes: tuple[NumaNodeReading, ...] = ()
    agent_s: tuple[float, float] = (0.0, 0.0)  # CPU seconds of this process, user and system


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    vm_count: int
    vm_active: int
    incoming: int
    outgoing: int


def read_host(root: str, now_ns: int) -> HostReading:
    ksm = f"{root}/sys/kernel/mm/ksm"
    ticks_by_cpu = _ticks_by_cpu(read_text(f"{root}/proc/stat"))
    spent = resource.getrusage(resource.RUSAGE_SELF)
    return HostReading(
        at_ns=now_ns,
        boot_id=boot_id_of(root),
        boot_time_ns=boot_time_ns_of(root),
        cpu_ticks=ticks_by_cpu.get(ALL_CPUS, (0, 0, 0)),
        core_ticks={int(name[3:]): ticks for name, ticks in ticks_by_cpu.items() if name[3:].isdigit()},
        load=_number(read_text(f"{root}/proc/loadavg").split()[1:2]),
        memory_kib=_meminfo(read_text(f"{root}/proc/meminfo")),
        ksm_pages=int(_number(read_text(f"{ksm}/pages_sharing").split())),
        ksm_runs=read_text(f"{ksm}/run").strip() == "1",
        ksm_ticks=_ksm_ticks(),
        nics=_nics(f"{root}/sys/class/net"),
        numa_nodes=_numa_nodes(f"{root}/sys/devices/system/node", ticks_by_cpu),
        agent_s=(spent.ru_utime, spent.ru_stime),
    )


def host_statistics(
    name: str,
    now: HostReading,
    before: HostReading | None,
    counts: Counts,
    pools: tuple[PoolStatistics, ...] = (),
) -> HostStatistics:
    user, system, idle = _percents(now.cpu_ticks, before.cpu_ticks if before is not None else None)
    agent = _agent_percents(now, before)
    memory = now.memory_kib
    total_kib = max(memory.get("MemTotal", 0), 1)
    free_kib = memory.get("MemAvailable", memory.get("MemFree", 0))
    return HostStatistics(
        host=name,
        sampled_ns=now.at_ns,
        boot_id=now.boot_id,
        boot_time_ns=now.boot_time_ns,
        elapsed_time_s=max(now.at_ns - now.boot_time_ns, 0) // NS_PER_S,
        cpu_user_percent=user,
        cpu_sys_percent=system,
        cpu_idle_percent=idle,
        cpu_load=now.load,
        mem_used_percent=100.0 * (total_kib - free_kib) / total_kib,
        mem_free_mb=free_kib // MIB_KIB,
        mem_shared_bytes=now.ksm_pages * PAGE_BYTES,
        swap_total_mb=memory.get("SwapTotal", 0) // MIB_KIB,
        swap_free_mb=memory.get("SwapFree", 0) // MIB_KIB,
        anon_huge_pages_mb=memory.get("AnonHugePages", 0) // MIB_KIB,
        ksm_state=now.ksm_runs,
        ksm_pages=now.ksm_pages,
        ksm_cpu_percent=_ksm_percent(now, before),
        vm_count=counts.vm_count,
        vm_active=counts.vm_active,
        incoming_vm_migrations=counts.incoming,
        outgoing_vm_migrations=counts.outgoing,
        nics=now.nics,
        numa_nodes=_of_numa_nodes(now, before),
        cores=_of_cores(now, before),
        pools=pools,
        agent_cpu_user_percent=agent[0] if agent is not None else None,
        agent_cpu_sys_percent=agent[1] if agent is not None else None,
    )


def _of_numa_nodes(now: HostReading, before: HostReading | None) -> tuple[NumaNodeStatistics, ...]:
    then = {node.node: node.cpu_ticks for node in before.numa_nodes} if before is not None else {}
    found = []
    for node in now.numa_nodes:
        user, system, _ = _percents(node.cpu_ticks, then.get(node.node))
        found.append(
            NumaNodeStatistics(
                node=node.node,
                cpu_user_percent=user,
                cpu_sys_percent=system,
                mem_total_mb=node.total_kib // MIB_KIB,
                mem_free_mb=node.free_kib // MIB_KIB,
            )
        )
    return tuple(found)


def _of_cores(now: HostReading, before: HostReading | None) -> CoreLoads:
    then = before.core_ticks if before is not None else {}
    node_of = {cpu: node.node for node in now.numa_nodes for cpu in node.cpus}
    numbers = tuple(sorted(now.core_ticks)[:CORES_MAX])
    percents = [_percents(now.core_ticks[number], then.get(number)) for number in numbers]
    return CoreLoads(
        numbers=numbers,
        numa_nodes=tuple([node_of.get(number, 0) for number in numbers]),
        user_percents=tuple([user for user, _, _ in percents]),
        sys_percents=tuple([system for _, system, _ in percents]),
    )


def _agent_percents(now: HostReading, before: HostReading | None) -> tuple[float, float] | None:
    """Of one core, user and system."""
    if before is None or now.at_ns <= before.at_ns:
        return None
    seconds = (now.at_ns - before.at_ns) / NS_PER_S
    user, system = (
        100.0 * max(new - old, 0.0) / seconds for new, old in zip(now.agent_s, before.agent_s, strict=True)
    )
    return user, system


def _percents(now: Ticks, before: Ticks | None) -> tuple[float, float, float]:
    """They sum to 100: what was measured of the time is divided by their own sum."""
    user, system, idle = (max(new - old, 0) for new, old in zip(now, before or (0, 0, 0), strict=True))
    whole = user + system + idle
    if whole == 0:
        return 0.0, 0.0, 100.0
    return 100.0 * user / whole, 100.0 * system / whole, 100.0 * idle / whole


def _ksm_percent(now: HostReading, before: HostReading | None) -> float:
    if before is None or now.at_ns <= before.at_ns:
        return 0.0
    ticks = max(now.ksm_ticks - before.ksm_ticks, 0)
    return 100.0 * ticks / _TICKS_PER_S / ((now.at_ns - before.at_ns) / NS_PER_S)


def _ticks_by_cpu(stat: str) -> dict[str, Ticks]:
    """By the name of a CPU, as in "cpu3"; a guest's time is part of user, waiting for I/O is idle, stolen is system."""
    found = {}
    for line in stat.splitlines():
        if line.startswith("cpu"):
            name, *words = line.split()
            user, nice, system, idle, *more = [int(word) for word in words]
            waiting, interrupts, soft, stolen = [*more, 0, 0, 0, 0][:4]
            found[name] = (user + nice, system + interrupts + soft + stolen, idle + waiting)
    return found


def _numa_nodes(directory: str, ticks_by_cpu: dict[str, Ticks]) -> tuple[NumaNodeReading, ...]:
    """None where the kernel tells of no nodes, as in a container."""
    try:
        names = [name for name in os.listdir(directory) if name.startswith("node") and name[4:].isdigit()]
    except OSError:
        return ()
    nodes = sorted(int(name[4:]) for name in names)
    return tuple(_numa_node(f"{directory}/node{node}", node, ticks_by_cpu) for node in nodes[:NUMA_NODES_MAX])


def _numa_node(directory: str, node: int, ticks_by_cpu: dict[str, Ticks]) -> NumaNodeReading:
    # Its lines read as in "Node 0 MemTotal: 1024 kB".
    memory = _meminfo(
        "\n".join(line.partition(str(node))[2] for line in read_text(f"{directory}/meminfo").splitlines())
    )
    cpus = cpus_of(read_text(f"{directory}/cpulist"))
    ticks = [ticks_by_cpu.get(f"cpu{cpu}", (0, 0, 0)) for cpu in cpus]
    user, system, idle = (sum(column) for column in zip(*ticks, strict=True)) if ticks else (0, 0, 0)
    return NumaNodeReading(
        node=node,
        cpu_ticks=(user, system, idle),
        total_kib=memory.get("MemTotal", 0),
        free_kib=memory.get("MemFree", 0),
        cpus=tuple(cpus),
    )


def cpus_of(text: str) -> list[int]:
    """The CPUs of a kernel's list, as in "0-3,8"."""
    cpus: list[int] = []
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first.isdigit():
            cpus += range(int(first), int(last if last.isdigit() else first) + 1)
    return cpus


def _meminfo(text: str) -> dict[str, int]:
    found = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        found[name.strip()] = int(_number(value.split()))
    return found


def _number(words: list[str]) -> float:
    try:
        return float(words[0]) if words else 0.0
    except ValueError:
        return 0.0


def _ksm_ticks() -> int:
    """CPU time of the kernel's merging thread, whose number is small; it serves all hosts of this kernel."""
    for pid in _ksm_pids:
        fields = read_text(f"/proc/{pid}/stat").rpartition(")")[2].split()
        if len(fields) > 12:
            return int(fields[11]) + int(fields[12])
    return 0


def _find_ksmd() -> list[int]:
    numbers = [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) < 4096]
    return [pid for pid in numbers if read_text(f"/proc/{pid}/comm").strip() == "ksmd"]


_ksm_pids = _find_ksmd()


def _nics(directory: str) -> tuple[NicStatistics, ...]:
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return ()
    counted = [name for name in names if not name.startswith(_NOT_COUNTED)]
    return tuple(_nic(directory, name) for name in counted[:NICS_MAX] if os.path.isdir(f"{directory}/{name}"))


def _nic(directory: str, name: str) -> NicStatistics:
    def counter(word: str) -> int:
        return int(_number(read_text(f"{directory}/{name}/statistics/{word}").split()))

    # A card without a link, and most virtual ones, give an error or -1 here.
    speed_mbps = int(_number(read_text(f"{directory}/{name}/speed").split()))
    return NicStatistics(
        name=name,
        rx_bytes=counter("rx_bytes"),
        tx_bytes=counter("tx_bytes"),
        rx_errors=counter("rx_errors"),
        tx_errors=counter("tx_errors"),
        rx_dropped=counter("rx_dropped"),
        tx_dropped=counter("tx_dropped"),
        speed_mbps=max(speed_mbps, 0),
        state="down" if read_text(f"{directory}/{name}/operstate").strip() == "down" else "up",
    )
