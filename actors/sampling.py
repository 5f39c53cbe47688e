"""From what a hypervisor measures to what history stores: names and units only, no decision.

A rate is the difference of two counters of the same life of a machine; without a predecessor it is unknown.
"""

from __future__ import annotations

import msgspec

from hypervisor_backends.measurements import DomainStatistics, HostStatistics
from olvm.history.samples import HostSample, VmSample, encode_host_sample, encode_vm_samples

MB = 1024 * 1024


class GuestFactsBatch(msgspec.Struct, frozen=True):
    """What the guests of one host said last: JSON-able mappings, one a machine."""

    host: str
    at_ns: int
    guests: list[dict[str, object]]


def encode_samples(
    host: str, host_epoch: int, seq: int, of_host: HostStatistics, domains: list[DomainStatistics]
) -> tuple[list[bytes], bytes]:
    """Encode one sampling of a host: its own row, its machines' rows, and the guests' facts."""
    at_ns = of_host.sampled_ns
    batches = [
        encode_host_sample(
            _host_sample(of_host, domains), host=host, at_ns=at_ns, host_epoch=host_epoch, seq=seq
        )
    ]
    if domains:
        samples = [_vm_sample(domain, at_ns) for domain in domains]
        batches.append(encode_vm_samples(samples, host=host, at_ns=at_ns, host_epoch=host_epoch, seq=seq))
    guests = [_facts(domain) for domain in domains if domain.guest is not None]
    facts = msgspec.msgpack.encode(GuestFactsBatch(host, at_ns, guests)) if guests else b""
    return batches, facts


def _host_sample(host: HostStatistics, domains: list[DomainStatistics]) -> HostSample:
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
        uptime_seconds=host.elapsed_time_s,
        cpu_load=host.cpu_load,
        ksm_cpu_percent=host.ksm_cpu_percent,
        swap_used_mb=host.swap_total_mb - host.swap_free_mb,
        active_vms=host.vm_active,
        total_vms=host.vm_count,
        total_vms_vcpus=sum(domain.vcpu_count for domain in domains),
    )


def _vm_sample(domain: DomainStatistics, at_ns: int) -> VmSample:
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
        uptime_seconds=domain.elapsed_time_s,
        read_rate_bytes_per_second=int(sum(disk.read_rate_bytes_per_s for disk in domain.disks)),
        write_rate_bytes_per_second=int(sum(disk.write_rate_bytes_per_s for disk in domain.disks)),
        guest_heartbeat_age_seconds=-1 if guest is None else (at_ns - guest.heartbeat_ns) // 1_000_000_000,
    )


def _facts(domain: DomainStatistics) -> dict[str, object]:
    facts: dict[str, object] = msgspec.to_builtins(domain.guest)
    facts["vm_id"] = domain.vm_id
    facts["vm_name"] = domain.name
    return facts
