"""What a hypervisor backend measures: one sample of a host, of a domain, and what a guest says of itself.

Decides names and units. The words are oVirt's (`vdsm-api.yml` HostStats and VmStats) in snake case with the
unit last; the comment names the original where it is not plain. Counters grow from 0 at the start of the
domain (or boot of the host) and never go back within one life. oVirt's "MB" is 2**20 bytes.

Structs here are `gc=False` where they hold scalars alone: thousands are made a second, none can form a cycle.
"""

from __future__ import annotations

from typing import Literal

import msgspec


class NicStatistics(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    name: str
    rx_bytes: int
    tx_bytes: int
    rx_errors: int = 0
    tx_errors: int = 0
    rx_dropped: int = 0
    tx_dropped: int = 0
    speed_mbps: int = 1000
    state: str = "up"


class DiskStatistics(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    name: str
    read_rate_bytes_per_s: float
    write_rate_bytes_per_s: float
    read_ops: int
    write_ops: int
    read_bytes: int
    written_bytes: int
    read_latency_ns: int
    write_latency_ns: int
    flush_latency_ns: int
    true_size_bytes: int  # truesize: allocated
    apparent_size_bytes: int  # apparentsize: as the guest sees it


class GuestNic(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    mac: str = ""
    inet: tuple[str, ...] = ()
    inet6: tuple[str, ...] = ()


class GuestFilesystem(msgspec.Struct, frozen=True, kw_only=True):
    path: str
    type: str
    total_bytes: int
    used_bytes: int


class GuestContainer(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    names: tuple[str, ...] = ()
    image: str = ""
    status: str = ""
    command: str = ""


SessionState = Literal["Unknown", "UserLoggedOn", "Locked", "Active", "LoggedOff"]


class GuestFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the guest said last, by whichever agent; see `guest_agent.protocol` for the messages.

    Nothing here is to be trusted: a guest says what it likes. It has been cut to size and cleaned of characters that
    XML and terminals do not take. `sources` says who told what: "olvm", "ovirt" or "qemu-ga" by name of a field.
    """

    hostname: str
    fqdn: str
    os_name: str
    os_version: str
    kernel: str
    timezone: str
    ips: tuple[str, ...]
    applications: tuple[str, ...]
    users: tuple[str, ...]  # logged on
    memory_total_kib: int
    memory_free_kib: int
    cpu_count: int
    agent_api_version: int
    heartbeat_ns: int  # when the guest was last heard
    os_codename: str = ""
    os_arch: str = ""
    os_type: str = ""  # linux, windows
    timezone_offset_minutes: int = 0
    interfaces: tuple[GuestNic, ...] = ()
    filesystems: tuple[GuestFilesystem, ...] = ()
    disk_mapping: dict[str, str] = {}  # by serial: what the guest calls the disk
    containers: tuple[GuestContainer, ...] = ()
    session: SessionState = "Unknown"
    memory_unused_kib: int = 0
    memory_buffers_kib: int = 0
    memory_cached_kib: int = 0
    swap_total_kib: int = 0
    swap_usage_kib: int = 0
    swap_in_pages_per_s: int = 0
    swap_out_pages_per_s: int = 0
    major_faults_pages_per_s: int = 0
    page_faults_per_s: int = 0
    uptime_s: int = 0  # of the guest's own clock; goes on over a migration
    boot_id: str = ""
    agents: tuple[str, ...] = ()  # who speaks for the guest, as in "olvm 3" and "qemu-ga 7.2.22"
    sources: dict[str, str] = {}
    lines_discarded: int = 0  # too long, no JSON, or no message of the protocol
    messages_unknown: int = 0
    messages_delayed: int = 0  # how often the guest talked too fast, and was left to wait
    events_dropped: int = 0  # of its sessions, too many at once
    values_refused: int = 0  # of another kind, beyond belief or too long: left out or cut


class DomainStatistics(msgspec.Struct, frozen=True, kw_only=True):
    vm_id: str
    epoch: int
    name: str
    status: str  # a DomainStatus
    status_ns: int  # statusTime: when this was measured
    elapsed_time_s: int  # since it was powered on or restored; goes on over a migration
    cpu_user_percent: float  # of one core: a busy domain of 4 vCPUs has 400 in user + sys
    cpu_sys_percent: float
    cpu_usage_ns: int  # counter, user + sys
    vcpu_count: int
    mem_usage_percent: float
    mem_total_kib: int
    mem_unused_kib: int
    swap_in_pages_per_s: int = 0
    swap_out_pages_per_s: int = 0
    major_faults_pages_per_s: int = 0
    minor_faults_pages_per_s: int = 0
    balloon_cur_kib: int
    balloon_max_kib: int
    balloon_min_kib: int
    balloon_target_kib: int
    disks: tuple[DiskStatistics, ...]
    nics: tuple[NicStatistics, ...]
    pause_code: str = "NONE"
    monitor_response: int = 0  # 0 answers, -1 does not
    guest: GuestFacts | None = None


class NumaNodeStatistics(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    node: int
    cpu_user_percent: float  # of the node's CPUs
    cpu_sys_percent: float
    mem_total_mb: int
    mem_free_mb: int


class CoreLoads(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """cpuStatistics: of each CPU of the kernel's that is online; all four are of equal length. What is left is idle."""

    numbers: tuple[int, ...] = ()
    numa_nodes: tuple[int, ...] = ()  # nodeIndex
    user_percents: tuple[float, ...] = ()
    sys_percents: tuple[float, ...] = ()


class PoolStatistics(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    name: str
    capacity_bytes: int
    free_bytes: int


class HostStatistics(msgspec.Struct, frozen=True, kw_only=True):
    host: str
    sampled_ns: int
    boot_id: str
    boot_time_ns: int
    elapsed_time_s: int
    cpu_user_percent: float  # of the whole host: the three sum to 100
    cpu_sys_percent: float
    cpu_idle_percent: float
    cpu_load: float  # 5-minute load average
    mem_used_percent: float
    mem_free_mb: int
    mem_shared_bytes: int
    swap_total_mb: int
    swap_free_mb: int
    anon_huge_pages_mb: int
    ksm_state: bool
    ksm_pages: int
    ksm_cpu_percent: float
    vm_count: int
    vm_active: int  # whose vCPUs may run
    incoming_vm_migrations: int
    outgoing_vm_migrations: int
    nics: tuple[NicStatistics, ...]
    numa_nodes: tuple[NumaNodeStatistics, ...] = ()
    cores: CoreLoads = CoreLoads()
    pools: tuple[PoolStatistics, ...] = ()  # storage pools whose room could be read
    agent_cpu_user_percent: float | None = (
        None  # cpuUserVdsmd: of one core, of the process that asks; None: unknown
    )
    agent_cpu_sys_percent: float | None = None
