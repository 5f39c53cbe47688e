"""Which statistics there are: names of oVirt's data warehouse, units, what a roll-up makes of each, and its bound.

Decides nothing about encoding (`samples`) or storage (`schema`). Host agents load it: standard library only.

Rules:
1. A gauge is averaged, and its largest value kept beside it as `max_<name>`; of a counter the largest value is kept.
2. `maximum` is beyond what is possible. A larger value is a lie or a fault: it is clipped, and counted.
3. An object is named by its VM, or by its host where there is none, and by `device` where one VM or host has many.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

SampleKindName = Literal[
    "vm", "host", "vm_disk", "vm_interface", "host_interface", "host_core", "host_numa", "host_storage"
]

_BYTES_MAX: Final = 2**60
_RATE_MAX: Final = 2**43  # 70 Tbit/s
_MB_MAX: Final = 2**33  # 8 PiB
_COUNT_MAX: Final = 2**40
_SECONDS_MAX: Final = 2**33  # 272 years
_LATENCY_S_MAX: Final = 86_400.0


class SampleColumn(NamedTuple):
    """`code` is the type on the wire (`row_layout`): "f" or "q"."""

    name: str
    code: str
    comment: str
    maximum: float
    is_counter: bool = False


class SampleKind(NamedTuple):
    """`texts` are the columns stored as keys of the dictionary `texts`, in the order of the wire.

    `status` and `device` are each one of the texts, or empty. `has_vm`: a row is of a VM, else of the host itself.
    """

    name: SampleKindName
    table: str
    texts: tuple[tuple[str, str], ...]
    columns: tuple[SampleColumn, ...]
    has_vm: bool
    status: str = ""
    device: str = ""

    @property
    def object_keys(self) -> tuple[str, ...]:
        """The key columns that name one object."""
        return ("vm_key" if self.has_vm else "host_key", *((f"{self.device}_key",) if self.device else ()))

    @property
    def group_keys(self) -> tuple[str, ...]:
        """The key columns that name one row of an hour or a day: the object, its host, its status."""
        keys = (*(("vm_key",) if self.has_vm else ()), "host_key")
        return (*keys, *(f"{name}_key" for name in (self.device, self.status) if name))


def _percent(name: str, comment: str) -> SampleColumn:
    return SampleColumn(name, "f", comment, 100.0)


def _counter(name: str, comment: str) -> SampleColumn:
    return SampleColumn(name, "q", comment, _BYTES_MAX, is_counter=True)


_SHARED_COLUMNS: Final = (
    _percent("cpu_usage_percent", "Share of the CPUs used since the last sample, 0 to 100."),
    _percent("user_cpu_usage_percent", "Part of cpu_usage_percent spent in user mode."),
    _percent("system_cpu_usage_percent", "Part of cpu_usage_percent spent in the kernel."),
    _percent("memory_usage_percent", "Share of the memory in use, 0 to 100."),
    SampleColumn("memory_used_mb", "q", "Memory in use, MiB.", _MB_MAX),
    _counter("received_total_byte", "Bytes received by all network interfaces since start: a counter."),
    _counter("transmitted_total_byte", "Bytes sent by all network interfaces since start: a counter."),
    SampleColumn(
        "receive_rate_bytes_per_second", "q", "Bytes received per second since the last sample.", _RATE_MAX
    ),
    SampleColumn(
        "transmit_rate_bytes_per_second", "q", "Bytes sent per second since the last sample.", _RATE_MAX
    ),
    SampleColumn(
        "uptime_seconds",
        "q",
        "Seconds since power-on; a VM's goes on over a migration.",
        _SECONDS_MAX,
        is_counter=True,
    ),
)

VM_KIND: Final = SampleKind(
    "vm",
    "vm_samples",
    (
        ("vm_status", "Status at the time of the sample."),
        ("vm_ip", "First address that the guest agent told; chosen by the guest, not to be trusted."),
        ("current_user_name", "User on the guest's console; chosen by the guest, not to be trusted."),
    ),
    (
        *_SHARED_COLUMNS,
        SampleColumn("read_rate_bytes_per_second", "q", "Bytes read from all disks per second.", _RATE_MAX),
        SampleColumn("write_rate_bytes_per_second", "q", "Bytes written to all disks per second.", _RATE_MAX),
        SampleColumn(
            "guest_heartbeat_age_seconds", "q", "Seconds since the guest agent last spoke.", _SECONDS_MAX
        ),
        SampleColumn("vcpus", "q", "Virtual CPUs plugged.", 2**16),
        SampleColumn("balloon_mb", "q", "Memory that the balloon leaves the guest, MiB.", _MB_MAX),
        SampleColumn(
            "swap_in_pages_per_second", "q", "Pages that the guest swaps in per second.", _COUNT_MAX
        ),
        SampleColumn(
            "swap_out_pages_per_second", "q", "Pages that the guest swaps out per second.", _COUNT_MAX
        ),
        SampleColumn(
            "major_faults_per_second",
            "q",
            "Page faults of the guest per second that read a disk.",
            _COUNT_MAX,
        ),
        SampleColumn("minor_faults_per_second", "q", "Its other page faults per second.", _COUNT_MAX),
        SampleColumn(
            "cpu_time_total_ms",
            "q",
            "CPU time used since its start, milliseconds: a counter.",
            _BYTES_MAX,
            True,
        ),
        SampleColumn("balloon_min_mb", "q", "The least that the balloon may leave the guest, MiB.", _MB_MAX),
        SampleColumn("balloon_max_mb", "q", "The most that it may leave the guest, MiB.", _MB_MAX),
        SampleColumn("balloon_target_mb", "q", "What it was told to leave the guest, MiB.", _MB_MAX),
        SampleColumn("monitor_unresponsive", "f", "1 if its monitor did not answer, else 0.", 1.0),
        SampleColumn(
            "guest_memory_free_mb", "q", "Memory that the guest has free, MiB, as its agent tells.", _MB_MAX
        ),
        SampleColumn("guest_memory_cached_mb", "q", "Memory that the guest uses as a cache, MiB.", _MB_MAX),
        SampleColumn("guest_memory_buffers_mb", "q", "Memory that the guest uses as buffers, MiB.", _MB_MAX),
        SampleColumn("guest_swap_used_mb", "q", "Swap that the guest uses, MiB.", _MB_MAX),
        SampleColumn("guest_swap_total_mb", "q", "Swap that the guest has, MiB.", _MB_MAX),
    ),
    has_vm=True,
    status="vm_status",
)

HOST_KIND: Final = SampleKind(
    "host",
    "host_samples",
    (("host_status", "Status as the agent sees it at the time of the sample."),),
    (
        *_SHARED_COLUMNS,
        SampleColumn("cpu_load", "f", "Load average of five minutes.", 1e6),
        _percent("ksm_cpu_percent", "Share of one core used by kernel same-page merging."),
        SampleColumn("swap_used_mb", "q", "Swap in use, MiB.", _MB_MAX),
        SampleColumn("active_vms", "q", "VMs that run.", 2**31),
        SampleColumn("total_vms", "q", "VMs defined.", 2**31),
        SampleColumn("total_vms_vcpus", "q", "Virtual CPUs of all VMs.", 2**31),
        SampleColumn("memory_shared_mb", "q", "Memory shared by kernel same-page merging, MiB.", _MB_MAX),
        SampleColumn("anon_huge_pages_mb", "q", "Memory in transparent huge pages, MiB.", _MB_MAX),
        SampleColumn("ksm_pages", "q", "Pages that same-page merging scans in one go.", _COUNT_MAX),
        SampleColumn("swap_total_mb", "q", "Swap there is, MiB.", _MB_MAX),
        SampleColumn("incoming_vm_migrations", "q", "Migrations under way to this host.", 2**31),
        SampleColumn("outgoing_vm_migrations", "q", "Migrations under way from this host.", 2**31),
        _percent("idle_cpu_percent", "Share of the CPUs that was idle, or waited for I/O."),
        SampleColumn("memory_free_mb", "q", "Memory that is free or could be at once, MiB.", _MB_MAX),
        SampleColumn("ksm_active", "f", "1 if same-page merging runs, else 0.", 1.0),
        SampleColumn(
            "agent_user_cpu_percent", "f", "Share of one core that the host's agent used in user mode.", 1e6
        ),
        SampleColumn("agent_system_cpu_percent", "f", "Share of one core that it used in the kernel.", 1e6),
    ),
    has_vm=False,
    status="host_status",
)

VM_DISK_KIND: Final = SampleKind(
    "vm_disk",
    "vm_disk_samples",
    (("vm_disk_name", "Name of the disk within its VM."),),
    (
        SampleColumn(
            "vm_disk_actual_size_mb", "q", "Space that the disk takes in its storage, MiB.", _MB_MAX
        ),
        SampleColumn("vm_disk_size_mb", "q", "Size that the guest sees, MiB.", _MB_MAX),
        SampleColumn("read_rate_bytes_per_second", "q", "Bytes read per second.", _RATE_MAX),
        SampleColumn("write_rate_bytes_per_second", "q", "Bytes written per second.", _RATE_MAX),
        SampleColumn("read_latency_seconds", "f", "Mean time of a read, seconds.", _LATENCY_S_MAX),
        SampleColumn("write_latency_seconds", "f", "Mean time of a write, seconds.", _LATENCY_S_MAX),
        SampleColumn("flush_latency_seconds", "f", "Mean time of a flush, seconds.", _LATENCY_S_MAX),
        _counter("read_ops_total", "Reads since start: a counter."),
        _counter("write_ops_total", "Writes since start: a counter."),
        _counter("read_total_byte", "Bytes read since start: a counter."),
        _counter("written_total_byte", "Bytes written since start: a counter."),
    ),
    has_vm=True,
    device="vm_disk_name",
)

_INTERFACE_COLUMNS: Final = (
    _percent("receive_rate_percent", "Share of the speed of the interface used by what it receives."),
    _percent("transmit_rate_percent", "Share of the speed of the interface used by what it sends."),
    SampleColumn(
        "receive_rate_bytes_per_second", "q", "Bytes received per second since the last sample.", _RATE_MAX
    ),
    SampleColumn(
        "transmit_rate_bytes_per_second", "q", "Bytes sent per second since the last sample.", _RATE_MAX
    ),
    _counter("received_total_byte", "Bytes received since start: a counter."),
    _counter("transmitted_total_byte", "Bytes sent since start: a counter."),
    _counter("receive_errors_total", "Receive errors since start: a counter."),
    _counter("transmit_errors_total", "Transmit errors since start: a counter."),
    _counter("receive_dropped_total", "Packets dropped on arrival since start: a counter."),
    _counter("transmit_dropped_total", "Packets dropped before they left since start: a counter."),
    SampleColumn("speed_mbps", "q", "Speed of the interface, Mbit/s.", 2**31),
)

VM_INTERFACE_KIND: Final = SampleKind(
    "vm_interface",
    "vm_interface_samples",
    (
        ("vm_interface_name", "Name of the interface on the host that runs the VM."),
        ("vm_interface_state", "up or down, at the time of the sample."),
    ),
    _INTERFACE_COLUMNS,
    has_vm=True,
    device="vm_interface_name",
)

HOST_INTERFACE_KIND: Final = SampleKind(
    "host_interface",
    "host_interface_samples",
    (
        ("host_interface_name", "Name of the interface."),
        ("host_interface_state", "up or down, at the time of the sample."),
    ),
    _INTERFACE_COLUMNS,
    has_vm=False,
    device="host_interface_name",
)

HOST_CORE_KIND: Final = SampleKind(
    "host_core",
    "host_core_samples",
    (
        ("core_number", "Number of the core within its host: of the kernel's CPU."),
        ("numa_node", "Number of the NUMA node that the core belongs to."),
    ),
    (
        _percent("user_cpu_usage_percent", "Share of the core's time spent in user mode."),
        _percent("system_cpu_usage_percent", "Share of the core's time spent in the kernel."),
        _percent("idle_cpu_percent", "Share of the core's time in which it had nothing to do."),
    ),
    has_vm=False,
    device="core_number",
)

HOST_NUMA_KIND: Final = SampleKind(
    "host_numa",
    "host_numa_samples",
    (("numa_node", "Number of the NUMA node within its host."),),
    (
        _percent("user_cpu_usage_percent", "Share of the node's CPUs spent in user mode."),
        _percent("system_cpu_usage_percent", "Share of the node's CPUs spent in the kernel."),
        _percent("memory_usage_percent", "Share of the node's memory in use, 0 to 100."),
        SampleColumn("memory_free_mb", "q", "Memory of the node that is free, MiB.", _MB_MAX),
        SampleColumn("memory_size_mb", "q", "Memory that the node has, MiB.", _MB_MAX),
    ),
    has_vm=False,
    device="numa_node",
)

HOST_STORAGE_KIND: Final = SampleKind(
    "host_storage",
    "host_storage_samples",
    (("storage_name", "Name of the storage pool on its host."),),
    (
        SampleColumn("available_disk_size_mb", "q", "Room that is left, MiB.", _MB_MAX),
        SampleColumn("used_disk_size_mb", "q", "Room that is taken, MiB.", _MB_MAX),
        SampleColumn("total_disk_size_mb", "q", "Room in all, MiB.", _MB_MAX),
    ),
    has_vm=False,
    device="storage_name",
)

KINDS: Final = (
    HOST_KIND,
    VM_KIND,
    VM_DISK_KIND,
    VM_INTERFACE_KIND,
    HOST_INTERFACE_KIND,
    HOST_CORE_KIND,
    HOST_NUMA_KIND,
    HOST_STORAGE_KIND,
)
KIND_BY_NAME: Final[dict[str, SampleKind]] = {kind.name: kind for kind in KINDS}
