"""Samples of disks, network interfaces, cores, NUMA nodes and storage pools. Names and units only, no decision.

A rate is the difference of two counters of the same life; without a predecessor, or when a counter has gone back, it is
unknown: the counter began anew, and what was counted before is not known.
"""

from __future__ import annotations

from typing import NamedTuple, TypedDict

from hypervisor_backends.measurements import (
    CoreLoads,
    DiskStatistics,
    DomainStatistics,
    HostStatistics,
    NicStatistics,
    NumaNodeStatistics,
    PoolStatistics,
)
from olvm.history.samples import (
    UNKNOWN_FLOAT,
    UNKNOWN_INT,
    HostCoreSample,
    HostInterfaceSample,
    HostNumaSample,
    HostStorageSample,
    VmDiskSample,
    VmInterfaceSample,
)

MB = 1024 * 1024


class Traffic(NamedTuple):
    """Bytes per second since the last sample, or `UNKNOWN_INT`."""

    received: int
    sent: int


class CounterRates:
    """Rates of pairs of counters, by what counts and its life. What a sampling leaves out is forgotten."""

    def __init__(self) -> None:
        self._before: dict[tuple[object, ...], tuple[int, int, int]] = {}
        self._now: dict[tuple[object, ...], tuple[int, int, int]] = {}

    def traffic(self, life: tuple[object, ...], at_ns: int, received: int, sent: int) -> Traffic:
        self._now[life] = (at_ns, received, sent)
        before = self._before.get(life)
        if before is None or at_ns <= before[0] or received < before[1] or sent < before[2]:
            return Traffic(UNKNOWN_INT, UNKNOWN_INT)
        ns = at_ns - before[0]
        return Traffic((received - before[1]) * 10**9 // ns, (sent - before[2]) * 10**9 // ns)

    def end_sampling(self) -> None:
        self._before, self._now = self._now, {}


def total_rate(rates: list[int]) -> int:
    """Of all interfaces: unknown where one is, and 0 without any."""
    return UNKNOWN_INT if UNKNOWN_INT in rates else sum(rates)


def vm_disk_sample(disk: DiskStatistics, domain: DomainStatistics) -> VmDiskSample:
    return VmDiskSample(
        vm_id=domain.vm_id,
        vm_name=domain.name,
        vm_disk_name=disk.name,
        vm_disk_actual_size_mb=disk.true_size_bytes // MB,
        vm_disk_size_mb=disk.apparent_size_bytes // MB,
        read_rate_bytes_per_second=int(disk.read_rate_bytes_per_s),
        write_rate_bytes_per_second=int(disk.write_rate_bytes_per_s),
        read_latency_seconds=disk.read_latency_ns / 1e9,
        write_latency_seconds=disk.write_latency_ns / 1e9,
        flush_latency_seconds=disk.flush_latency_ns / 1e9,
        read_ops_total=disk.read_ops,
        write_ops_total=disk.write_ops,
        read_total_byte=disk.read_bytes,
        written_total_byte=disk.written_bytes,
    )


def vm_interface_sample(
    nic: NicStatistics, domain: DomainStatistics, rates: CounterRates
) -> VmInterfaceSample:
    life = (domain.vm_id, domain.epoch, nic.name)
    traffic = rates.traffic(life, domain.status_ns, nic.rx_bytes, nic.tx_bytes)
    return VmInterfaceSample(
        vm_id=domain.vm_id,
        vm_name=domain.name,
        vm_interface_name=nic.name,
        vm_interface_state=nic.state,
        **_figures(nic, traffic),
    )


def host_interface_sample(
    nic: NicStatistics, host: HostStatistics, rates: CounterRates
) -> HostInterfaceSample:
    traffic = rates.traffic((host.boot_id, nic.name), host.sampled_ns, nic.rx_bytes, nic.tx_bytes)
    return HostInterfaceSample(
        host_interface_name=nic.name, host_interface_state=nic.state, **_figures(nic, traffic)
    )


def host_core_samples(cores: CoreLoads) -> list[HostCoreSample]:
    return [
        HostCoreSample(
            core_number=str(number),
            numa_node=str(node),
            user_cpu_usage_percent=user,
            system_cpu_usage_percent=system,
            idle_cpu_percent=max(100.0 - user - system, 0.0),
        )
        for number, node, user, system in zip(
            cores.numbers, cores.numa_nodes, cores.user_percents, cores.sys_percents, strict=True
        )
    ]


def host_numa_sample(node: NumaNodeStatistics) -> HostNumaSample:
    used_mb = node.mem_total_mb - node.mem_free_mb
    return HostNumaSample(
        numa_node=str(node.node),
        user_cpu_usage_percent=node.cpu_user_percent,
        system_cpu_usage_percent=node.cpu_sys_percent,
        memory_usage_percent=100.0 * used_mb / node.mem_total_mb if node.mem_total_mb else UNKNOWN_FLOAT,
        memory_free_mb=node.mem_free_mb,
        memory_size_mb=node.mem_total_mb,
    )


def host_storage_sample(pool: PoolStatistics) -> HostStorageSample:
    return HostStorageSample(
        storage_name=pool.name,
        available_disk_size_mb=pool.free_bytes // MB,
        used_disk_size_mb=(pool.capacity_bytes - pool.free_bytes) // MB,
        total_disk_size_mb=pool.capacity_bytes // MB,
    )


class _Figures(TypedDict):
    receive_rate_percent: float
    transmit_rate_percent: float
    receive_rate_bytes_per_second: int
    transmit_rate_bytes_per_second: int
    received_total_byte: int
    transmitted_total_byte: int
    receive_errors_total: int
    transmit_errors_total: int
    receive_dropped_total: int
    transmit_dropped_total: int
    speed_mbps: int


def _figures(nic: NicStatistics, traffic: Traffic) -> _Figures:
    return _Figures(
        receive_rate_percent=_share(traffic.received, nic.speed_mbps),
        transmit_rate_percent=_share(traffic.sent, nic.speed_mbps),
        receive_rate_bytes_per_second=traffic.received,
        transmit_rate_bytes_per_second=traffic.sent,
        received_total_byte=nic.rx_bytes,
        transmitted_total_byte=nic.tx_bytes,
        receive_errors_total=nic.rx_errors,
        transmit_errors_total=nic.tx_errors,
        receive_dropped_total=nic.rx_dropped,
        transmit_dropped_total=nic.tx_dropped,
        speed_mbps=nic.speed_mbps,
    )


def _share(bytes_per_s: int, speed_mbps: int) -> float:
    """Percent. The speed of a virtual interface is only a name: what is faster uses all of it."""
    if bytes_per_s == UNKNOWN_INT or speed_mbps <= 0:
        return UNKNOWN_FLOAT
    return min(100.0, bytes_per_s * 8 / (speed_mbps * 1e4))
