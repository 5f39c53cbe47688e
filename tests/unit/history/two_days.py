"""A history in which something of everything has happened: two hosts, a busy machine and an idle one, over two days.

One host was out of service for half an hour, and one copy did not converge.
"""

from __future__ import annotations

from pathlib import Path

from olvm.history.guest_rows import GuestFacts
from olvm.history.rows import ConfigurationChange
from olvm.history.samples import (
    HostInterfaceSample,
    HostSample,
    VmDiskSample,
    VmInterfaceSample,
    VmSample,
    encode_host_interface_samples,
    encode_host_sample,
    encode_vm_disk_samples,
    encode_vm_interface_samples,
    encode_vm_samples,
)
from olvm.history.store import HistoryStore
from olvm.model.records import EventRecord, Severity
from tests.unit.history.building import NOW_NS

S = 10**9
HOUR_NS = 3600 * S
HOURS = 27
VMS = {"web": ("kvm01", 70.0, 3000), "idle": ("kvm02", 0.5, 100)}


def two_days(directory: Path) -> HistoryStore:
    """Rolled up; the caller closes it. Time begins at NOW_NS; a sample is taken every 5 minutes for HOURS hours."""
    store = HistoryStore.open(directory / "history.duckdb", samples_kept_s=1e7)
    tell_configuration(store)
    for hour in range(HOURS):
        tell_samples(store, hour)
    tell_events(store)
    store.add_guest_facts(
        [
            GuestFacts(
                vm_id="vm-web",
                vm_name="web",
                told_ns=NOW_NS,
                os_distribution="Debian",
                os_version="12",
                applications=["openssl-3.0.11", "nginx-1.22"],
                filesystems=[{"path": "/", "type": "ext4", "total": 10**10, "used": 9 * 10**9}],
            )
        ]
    )
    store.commit()
    now_ns = NOW_NS + (HOURS + 3) * HOUR_NS
    store.maintain(now_ns)
    while store.is_behind:
        store.maintain(now_ns)
    return store


def tell_configuration(store: HistoryStore) -> None:
    changes = [
        ConfigurationChange(
            object_kind="host",
            object_id=host,
            name=host,
            cluster="prod",
            status=status,
            valid_from_ns=NOW_NS + at_s * S,
            spec={"cpus": 16, "memory_bytes": 64 * 2**30},
        )
        for host, at_s, status in (
            ("kvm01", 0, "up"),
            ("kvm02", 0, "up"),
            ("kvm01", 7200, "non_responsive"),
            ("kvm01", 9000, "up"),
        )
    ]
    changes += [
        ConfigurationChange(
            object_kind="vm",
            object_id=f"vm-{name}",
            name=name,
            cluster="prod",
            valid_from_ns=NOW_NS + at_s * S,
            spec={"vcpus": vcpus, "memory_bytes": 8 * 2**30},
        )
        for name, at_s, vcpus in (("web", 0, 4), ("idle", 0, 8), ("web", 3600, 6))
    ]
    store.add_configuration(changes)


def tell_samples(store: HistoryStore, hour: int) -> None:
    for minute in range(0, 60, 5):
        at_ns, seq = NOW_NS + hour * HOUR_NS + minute * 60 * S, hour * 60 + minute + 1
        for host in ("kvm01", "kvm02"):
            report = {"host": host, "at_ns": at_ns, "host_epoch": 1, "seq": seq}
            busy = float(hour % 24)
            store.add_samples(
                encode_host_sample(
                    HostSample(
                        host_status="up",
                        cpu_usage_percent=busy + (5 if host == "kvm01" else 0),
                        memory_usage_percent=30 + hour / 4,
                        swap_used_mb=hour,
                        memory_shared_mb=1,
                    ),
                    **report,
                )
            )
            store.add_samples(
                encode_host_interface_samples(
                    [
                        HostInterfaceSample(
                            host_interface_name="eth0", receive_dropped_total=hour, transmit_dropped_total=0
                        )
                    ],
                    **report,
                )
            )
            here = {name: facts for name, facts in VMS.items() if facts[0] == host}
            identities = [{"vm_id": f"vm-{name}", "vm_name": name} for name in here]
            store.add_samples(
                encode_vm_samples(
                    [
                        VmSample(
                            **identity,
                            vm_status="up",
                            cpu_usage_percent=cpu,
                            memory_used_mb=used_mb,
                            memory_usage_percent=40,
                            vcpus=4,
                            swap_out_pages_per_second=3 if cpu > 1 else 0,
                        )
                        for identity, (_, cpu, used_mb) in zip(identities, here.values(), strict=True)
                    ],
                    **report,
                )
            )
            store.add_samples(
                encode_vm_disk_samples(
                    [
                        VmDiskSample(
                            **identity,
                            vm_disk_name="vda",
                            vm_disk_actual_size_mb=900,
                            vm_disk_size_mb=1000,
                            read_latency_seconds=0.004,
                            write_latency_seconds=0.009,
                        )
                        for identity in identities
                    ],
                    **report,
                )
            )
            store.add_samples(
                encode_vm_interface_samples(
                    [
                        VmInterfaceSample(
                            **identity,
                            vm_interface_name="vnet0",
                            transmit_rate_bytes_per_second=10**6,
                            receive_rate_bytes_per_second=10**5,
                        )
                        for identity in identities
                    ],
                    **report,
                )
            )


def tell_events(store: HistoryStore) -> None:
    there = {"from": "kvm02", "to": "kvm01", "reason": "asked"}
    told: list[tuple[int, str, Severity, str, dict[str, str | int | float | bool | None]]] = [
        (10, "vm_up", "normal", "kvm01", {}),
        (7100, "vm_migration_started", "normal", "kvm02", {**there}),
        (7150, "vm_migration_failed", "warning", "kvm02", {**there, "why": "it did not converge"}),
        (7200, "vm_crashed", "error", "kvm01", {}),
        (7300, "vm_up", "normal", "kvm02", {}),
        (9100, "vm_migration_started", "normal", "kvm02", {**there}),
        (9110, "vm_migrated", "normal", "kvm01", {**there, "bytes": 10**9, "downtime_ms": 80}),
    ]
    events = [
        EventRecord(
            id=f"e{seq}",
            seq=seq,
            at_ns=NOW_NS + at_s * S,
            code=code,
            severity=severity,
            message=code,
            vm_id="vm-web",
            vm_name="web",
            host=host,
            cluster="prod",
            details=details,
        )
        for seq, (at_s, code, severity, host, details) in enumerate(told, 1)
    ]
    store.add_events("engine", events)
