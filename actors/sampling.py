"""From what a hypervisor measures to what history stores: names and units only, no decision.

A rate is the difference of two counters of the same life of a machine; without a predecessor it is unknown. So it is
when a counter has gone back: it began anew, and what was counted before is not known.
"""

from __future__ import annotations

from typing import TypedDict

import msgspec

from actors.device_sampling import (
    CounterRates,
    host_core_samples,
    host_interface_sample,
    host_numa_sample,
    host_storage_sample,
    total_rate,
    vm_disk_sample,
    vm_interface_sample,
)
from hypervisor_backends.measurements import DomainStatistics, GuestFacts, HostStatistics
from olvm.history.samples import (
    UNKNOWN_FLOAT,
    UNKNOWN_INT,
    HostInterfaceSample,
    HostSample,
    VmInterfaceSample,
    VmSample,
    encode_host_core_samples,
    encode_host_interface_samples,
    encode_host_numa_samples,
    encode_host_sample,
    encode_host_storage_samples,
    encode_vm_disk_samples,
    encode_vm_interface_samples,
    encode_vm_samples,
)
from olvm.model.limits import NS_PER_S

MB = 1024 * 1024
SAMPLINGS_PER_RETELLING = 40


class _Report(TypedDict):
    """What names a report, beside its kind."""

    host: str
    at_ns: int
    host_epoch: int
    seq: int


class GuestFactsBatch(msgspec.Struct, frozen=True):
    """What the guests of one host said last: JSON-able mappings, one a machine."""

    host: str
    at_ns: int
    guests: list[dict[str, object]]


class Sampler:
    """Encodes the samplings of one host; remembers what its guests said, so that only news is told.

    Cores are many and tell little that their host does not: they come each `core_period_ns`.
    """

    def __init__(self, host: str, core_period_ns: int = 0) -> None:
        self._host = host
        self._core_period_ns = core_period_ns
        self._cores_told_ns = -core_period_ns
        self._seq = 0
        self._told: dict[str, tuple[object, ...]] = {}
        self._rates = CounterRates()

    def encode(
        self, at_ns: int, host_epoch: int, of_host: HostStatistics, domains: list[DomainStatistics]
    ) -> tuple[list[bytes], bytes]:
        """Rows of the host, its machines and the devices of both; and guests' facts that changed since they were told.

        `at_ns` is the time of history, which the hypervisor's own clock need not be (it may be accelerated).
        """
        self._seq += 1
        name, seq = self._host, self._seq
        report = _Report(host=name, at_ns=at_ns, host_epoch=host_epoch, seq=seq)
        batches = self._batches(report, of_host, domains)
        if seq % SAMPLINGS_PER_RETELLING == 0:
            self._told.clear()  # what was lost on the way is told again
        guests = [_facts(domain, at_ns) for domain in domains if self._is_news(domain)]
        gone = self._told.keys() - {domain.vm_id for domain in domains}
        for vm_id in gone:
            del self._told[vm_id]
        facts = msgspec.msgpack.encode(GuestFactsBatch(name, at_ns, guests)) if guests else b""
        return batches, facts

    def _batches(
        self, report: _Report, of_host: HostStatistics, domains: list[DomainStatistics]
    ) -> list[bytes]:
        rates = self._rates
        host_nics = [host_interface_sample(nic, of_host, rates) for nic in of_host.nics]
        batches = [encode_host_sample(_host_sample(of_host, domains, host_nics), **report)]
        if host_nics:
            batches.append(encode_host_interface_samples(host_nics, **report))
        if of_host.cores.numbers and not 0 <= report["at_ns"] - self._cores_told_ns < self._core_period_ns:
            self._cores_told_ns = report["at_ns"]
            batches.append(encode_host_core_samples(host_core_samples(of_host.cores), **report))
        if of_host.numa_nodes:
            nodes = [host_numa_sample(node) for node in of_host.numa_nodes]
            batches.append(encode_host_numa_samples(nodes, **report))
        if of_host.pools:
            pools = [host_storage_sample(pool) for pool in of_host.pools]
            batches.append(encode_host_storage_samples(pools, **report))
        vms: list[VmSample] = []
        nics: list[VmInterfaceSample] = []
        for domain in domains:
            of_domain = [vm_interface_sample(nic, domain, rates) for nic in domain.nics]
            vms.append(_vm_sample(domain, of_host.sampled_ns, of_domain))
            nics += of_domain
        rates.end_sampling()
        disks = [vm_disk_sample(disk, domain) for domain in domains for disk in domain.disks]
        if vms:
            batches.append(encode_vm_samples(vms, **report))
        if disks:
            batches.append(encode_vm_disk_samples(disks, **report))
        if nics:
            batches.append(encode_vm_interface_samples(nics, **report))
        return batches

    def _is_news(self, domain: DomainStatistics) -> bool:
        guest = domain.guest
        if guest is None:
            return False
        steady = (domain.epoch, *_steady(guest))
        if self._told.get(domain.vm_id) == steady:
            return False
        self._told[domain.vm_id] = steady
        return True


def _steady(guest: GuestFacts) -> tuple[object, ...]:
    """What is news when it changes: not memory or how full a file system is; of a counter, its order of magnitude."""
    return (
        guest.hostname,
        guest.fqdn,
        guest.os_name,
        guest.os_version,
        guest.os_codename,
        guest.os_arch,
        guest.os_type,
        guest.kernel,
        guest.timezone,
        guest.timezone_offset_minutes,
        guest.ips,
        guest.interfaces,
        guest.applications,
        guest.users,
        guest.session,
        guest.containers,
        guest.disk_mapping,
        guest.cpu_count,
        guest.memory_total_kib,
        guest.boot_id,
        guest.agents,
        guest.sources,
        tuple((one.path, one.type, one.total_bytes) for one in guest.filesystems),
        guest.lines_discarded.bit_length(),
        guest.messages_unknown.bit_length(),
        guest.messages_delayed.bit_length(),
        guest.events_dropped.bit_length(),
        guest.values_refused.bit_length(),
    )


def _host_sample(
    host: HostStatistics, domains: list[DomainStatistics], nics: list[HostInterfaceSample]
) -> HostSample:
    used = host.cpu_user_percent + host.cpu_sys_percent
    free_mb = host.mem_free_mb
    share = host.mem_used_percent / 100
    total_mb = free_mb / (1 - share) if share < 1 else 0.0
    return HostSample(
        host_status="up",
        cpu_usage_percent=used,
        user_cpu_usage_percent=host.cpu_user_percent,
        system_cpu_usage_percent=host.cpu_sys_percent,
        memory_usage_percent=host.mem_used_percent,
        memory_used_mb=int(total_mb - free_mb) if share < 1 else -1,
        received_total_byte=sum(nic.rx_bytes for nic in host.nics),
        transmitted_total_byte=sum(nic.tx_bytes for nic in host.nics),
        receive_rate_bytes_per_second=total_rate([nic.receive_rate_bytes_per_second for nic in nics]),
        transmit_rate_bytes_per_second=total_rate([nic.transmit_rate_bytes_per_second for nic in nics]),
        uptime_seconds=host.elapsed_time_s,
        cpu_load=host.cpu_load,
        ksm_cpu_percent=host.ksm_cpu_percent,
        swap_used_mb=host.swap_total_mb - host.swap_free_mb,
        active_vms=host.vm_active,
        total_vms=host.vm_count,
        total_vms_vcpus=sum(domain.vcpu_count for domain in domains),
        memory_shared_mb=host.mem_shared_bytes // MB,
        anon_huge_pages_mb=host.anon_huge_pages_mb,
        ksm_pages=host.ksm_pages,
        swap_total_mb=host.swap_total_mb,
        incoming_vm_migrations=host.incoming_vm_migrations,
        outgoing_vm_migrations=host.outgoing_vm_migrations,
        idle_cpu_percent=host.cpu_idle_percent,
        memory_free_mb=free_mb,
        ksm_active=float(host.ksm_state),
        agent_user_cpu_percent=_known(host.agent_cpu_user_percent),
        agent_system_cpu_percent=_known(host.agent_cpu_sys_percent),
    )


def _known(percent: float | None) -> float:
    return UNKNOWN_FLOAT if percent is None else percent


def _vm_sample(domain: DomainStatistics, sampled_ns: int, nics: list[VmInterfaceSample]) -> VmSample:
    guest = domain.guest
    threads = max(domain.vcpu_count, 1)
    used_kib = domain.mem_total_kib - domain.mem_unused_kib
    return VmSample(
        vm_id=domain.vm_id,
        vm_name=domain.name,
        vm_status=domain.status,
        vm_ip=guest.ips[0] if guest is not None and guest.ips else "",
        current_user_name=guest.users[0] if guest is not None and guest.users else "",
        cpu_usage_percent=(domain.cpu_user_percent + domain.cpu_sys_percent) / threads,
        user_cpu_usage_percent=domain.cpu_user_percent / threads,
        system_cpu_usage_percent=domain.cpu_sys_percent / threads,
        memory_usage_percent=domain.mem_usage_percent,
        memory_used_mb=used_kib // 1024,
        received_total_byte=sum(nic.rx_bytes for nic in domain.nics),
        transmitted_total_byte=sum(nic.tx_bytes for nic in domain.nics),
        receive_rate_bytes_per_second=total_rate([nic.receive_rate_bytes_per_second for nic in nics]),
        transmit_rate_bytes_per_second=total_rate([nic.transmit_rate_bytes_per_second for nic in nics]),
        uptime_seconds=domain.elapsed_time_s,
        read_rate_bytes_per_second=int(sum(disk.read_rate_bytes_per_s for disk in domain.disks)),
        write_rate_bytes_per_second=int(sum(disk.write_rate_bytes_per_s for disk in domain.disks)),
        guest_heartbeat_age_seconds=UNKNOWN_INT if guest is None else _age_s(sampled_ns, guest.heartbeat_ns),
        vcpus=domain.vcpu_count,
        balloon_mb=domain.balloon_cur_kib // 1024,
        swap_in_pages_per_second=domain.swap_in_pages_per_s,
        swap_out_pages_per_second=domain.swap_out_pages_per_s,
        major_faults_per_second=domain.major_faults_pages_per_s,
        minor_faults_per_second=domain.minor_faults_pages_per_s,
        cpu_time_total_ms=domain.cpu_usage_ns // 1_000_000,
        balloon_min_mb=domain.balloon_min_kib // 1024,
        balloon_max_mb=domain.balloon_max_kib // 1024,
        balloon_target_mb=domain.balloon_target_kib // 1024,
        monitor_unresponsive=float(domain.monitor_response != 0),
        **_guest_memory(guest),
    )


def _age_s(sampled_ns: int, heard_ns: int) -> int:
    """Whole seconds; none for a guest that was heard while the hypervisor was still measuring."""
    return max(sampled_ns - heard_ns, 0) // NS_PER_S


class _GuestMemory(TypedDict, total=False):
    guest_memory_free_mb: int
    guest_memory_cached_mb: int
    guest_memory_buffers_mb: int
    guest_swap_used_mb: int
    guest_swap_total_mb: int


def _guest_memory(guest: GuestFacts | None) -> _GuestMemory:
    """Unknown where no agent has told of the guest's memory."""
    if guest is None or not guest.memory_total_kib:
        return _GuestMemory()
    return _GuestMemory(
        guest_memory_free_mb=guest.memory_free_kib // 1024,
        guest_memory_cached_mb=guest.memory_cached_kib // 1024,
        guest_memory_buffers_mb=guest.memory_buffers_kib // 1024,
        guest_swap_used_mb=guest.swap_usage_kib // 1024,
        guest_swap_total_mb=guest.swap_total_kib // 1024,
    )


def _facts(domain: DomainStatistics, at_ns: int) -> dict[str, object]:
    facts: dict[str, object] = msgspec.to_builtins(domain.guest)
    facts["vm_id"] = domain.vm_id
    facts["vm_name"] = domain.name
    facts["told_ns"] = at_ns
    return facts
