"""What one sample of a simulated domain and of its host says.

Decides how statistics follow from a domain's load and state. Changes nothing: sampling is reading.
"""

from __future__ import annotations

import msgspec

from hypervisor_backends.measurements import (
    CoreLoads,
    DiskStatistics,
    DomainStatistics,
    GuestFacts,
    HostStatistics,
    NicStatistics,
)
from hypervisor_backends.protocol import Capabilities, DomainSpec
from hypervisor_backends.simulated_config import MIB
from hypervisor_backends.simulated_domain import SimulatedDomain
from hypervisor_backends.simulated_load import GuestIdentity
from olvm.model.hardware import DiskSpec
from olvm.model.limits import NS_PER_S


class HostFrame(msgspec.Struct, frozen=True, kw_only=True):
    """What the host adds to the sum of its domains; the bytes are those of domains since ended."""

    name: str
    capabilities: Capabilities
    booted_ns: int
    memory_used_bytes: int
    vm_count: int
    vm_active: int
    incoming_vm_migrations: int
    outgoing_vm_migrations: int
    rx_bytes_of_ended: int
    tx_bytes_of_ended: int


def sample_host(frame: HostFrame, now_ns: int, samples: list[DomainStatistics]) -> HostStatistics:
    """The host's own needs are 1 % of its CPUs and of its memory. Demand beyond the CPUs is cut off.

    It loads all its cores alike, and has one NUMA node.
    """
    cpus = frame.capabilities.cpus
    user = min(1.0 + sum([domain.cpu_user_percent for domain in samples]) / cpus, 80.0)
    system = min(sum([domain.cpu_sys_percent for domain in samples]) / cpus, 20.0)
    memory_bytes = frame.capabilities.memory_bytes
    used_bytes = min(memory_bytes // 100 + frame.memory_used_bytes, memory_bytes)
    nics = [nic for domain in samples for nic in domain.nics]
    uplink = NicStatistics(
        name="bond0",
        rx_bytes=frame.rx_bytes_of_ended + sum([nic.rx_bytes for nic in nics]),
        tx_bytes=frame.tx_bytes_of_ended + sum([nic.tx_bytes for nic in nics]),
        speed_mbps=20_000,
    )
    return HostStatistics(
        host=frame.name,
        sampled_ns=now_ns,
        boot_id=frame.capabilities.boot_id,
        boot_time_ns=frame.booted_ns,
        elapsed_time_s=(now_ns - frame.booted_ns) // NS_PER_S,
        cpu_user_percent=user,
        cpu_sys_percent=system,
        cpu_idle_percent=100.0 - user - system,
        cpu_load=(user + system) * cpus / 100.0,
        mem_used_percent=100.0 * used_bytes / memory_bytes,
        mem_free_mb=(memory_bytes - used_bytes) // MIB,
        mem_shared_bytes=0,
        swap_total_mb=0,
        swap_free_mb=0,
        anon_huge_pages_mb=0,
        ksm_state=False,
        ksm_pages=0,
        ksm_cpu_percent=0.0,
        vm_count=frame.vm_count,
        vm_active=frame.vm_active,
        incoming_vm_migrations=frame.incoming_vm_migrations,
        outgoing_vm_migrations=frame.outgoing_vm_migrations,
        nics=(uplink,),
        cores=CoreLoads(
            numbers=tuple(range(cpus)),
            numa_nodes=(0,) * cpus,
            user_percents=(user,) * cpus,
            sys_percents=(system,) * cpus,
        ),
    )


def sample(
    domain: SimulatedDomain,
    identity: GuestIdentity,
    now_ns: int,
    heard_ns: int | None,
    monitor_responds: bool,
) -> DomainStatistics:
    """`heard_ns`: when the guest agent was last heard; None leaves the guest's own word out."""
    profile = identity.profile
    cores, core_ns = domain.core_ns(now_ns, profile)
    core_s = core_ns / NS_PER_S
    spec = domain.spec
    memory_kib = identity.memory_kib
    used_share = profile.memory_share * (0.9 + 0.1 * cores / spec.vcpus)
    unused_kib = int(memory_kib * (1.0 - used_share))
    target_kib = domain.balloon_bytes // 1024 or memory_kib
    assert domain.started_ns is not None, f"domain {domain.vm_id} was sampled before it started"
    return DomainStatistics(
        vm_id=domain.vm_id,
        epoch=domain.epoch,
        name=spec.name,
        status=domain.shown_status(),
        status_ns=now_ns,
        elapsed_time_s=max(now_ns - domain.powered_on_ns, 0) // NS_PER_S,
        cpu_user_percent=100.0 * cores * (1.0 - profile.sys_share),
        cpu_sys_percent=100.0 * cores * profile.sys_share,
        cpu_usage_ns=int(core_ns),
        vcpu_count=spec.vcpus,
        mem_usage_percent=100.0 * used_share,
        mem_total_kib=memory_kib,
        mem_unused_kib=unused_kib,
        balloon_cur_kib=memory_kib if heard_ns is None else target_kib,
        balloon_max_kib=memory_kib,
        balloon_min_kib=memory_kib,
        balloon_target_kib=target_kib,
        disks=_disks(identity, cores, core_s),
        nics=_nics(identity, core_s),
        pause_code=domain.pause_code,
        monitor_response=0 if monitor_responds else -1,
        guest=None if heard_ns is None else _facts(spec, identity, unused_kib, heard_ns),
    )


def nics_of(domain: SimulatedDomain, identity: GuestIdentity, now_ns: int) -> tuple[NicStatistics, ...]:
    """The NIC counters alone: what a domain that ends has added to its host's."""
    _, core_ns = domain.core_ns(now_ns, identity.profile)
    return _nics(identity, core_ns / NS_PER_S)


def _disks(identity: GuestIdentity, cores: float, core_s: float) -> tuple[DiskStatistics, ...]:
    profile = identity.profile
    share = identity.disk_share
    read_bytes = int(profile.read_bytes_per_core_s * core_s * share)
    written_bytes = int(profile.written_bytes_per_core_s * core_s * share)
    read_rate = profile.read_bytes_per_core_s * cores * share
    write_rate = profile.written_bytes_per_core_s * cores * share
    latency_ns = 200_000 + int(100_000 * cores)
    busy = tuple(
        [
            DiskStatistics(
                name=disk.name,
                read_rate_bytes_per_s=read_rate,
                write_rate_bytes_per_s=write_rate,
                read_ops=read_bytes // 16_384,
                write_ops=written_bytes // 8_192,
                read_bytes=read_bytes,
                written_bytes=written_bytes,
                read_latency_ns=latency_ns,
                write_latency_ns=2 * latency_ns,
                flush_latency_ns=5 * latency_ns,
                true_size_bytes=min(disk.size_bytes, disk.size_bytes // 10 + written_bytes),
                apparent_size_bytes=disk.size_bytes,
            )
            for disk in identity.disks
        ]
    )
    return busy if not identity.idle_disks else busy + tuple(map(_idle_disk, identity.idle_disks))


def _idle_disk(disk: DiskSpec) -> DiskStatistics:
    return DiskStatistics(
        name=disk.name,
        read_rate_bytes_per_s=0.0,
        write_rate_bytes_per_s=0.0,
        read_ops=0,
        write_ops=0,
        read_bytes=0,
        written_bytes=0,
        read_latency_ns=0,
        write_latency_ns=0,
        flush_latency_ns=0,
        true_size_bytes=0,
        apparent_size_bytes=disk.size_bytes,
    )


def _nics(identity: GuestIdentity, core_s: float) -> tuple[NicStatistics, ...]:
    profile = identity.profile
    share = identity.nic_share
    rx_bytes = int(profile.rx_bytes_per_core_s * core_s * share)
    tx_bytes = int(profile.tx_bytes_per_core_s * core_s * share)
    busy = tuple(
        [NicStatistics(name=nic.name, rx_bytes=rx_bytes, tx_bytes=tx_bytes) for nic in identity.nics]
    )
    if not identity.idle_nics:
        return busy
    return busy + tuple(NicStatistics(name=nic.name, rx_bytes=0, tx_bytes=0) for nic in identity.idle_nics)


def _facts(spec: DomainSpec, identity: GuestIdentity, free_kib: int, heard_ns: int) -> GuestFacts:
    return GuestFacts(
        hostname=spec.name,
        fqdn=identity.fqdn,
        os_name=spec.guest_os,
        os_version="10.1",
        kernel="6.12.0",
        timezone="UTC",
        ips=identity.ips,
        applications=identity.applications,
        users=identity.users,
        memory_total_kib=identity.memory_kib,
        memory_free_kib=free_kib,
        cpu_count=spec.vcpus,
        agent_api_version=3,
        heartbeat_ns=heard_ns,
        os_type=spec.guest_os,
        agents=("simulated",),
    )
