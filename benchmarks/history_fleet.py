"""A data center for benchmarks of history: what its agents report each minute, and what its engine tells.

Figures move as real ones do: loads follow the hour of the day, counters grow, machines move, crash and are resized,
hosts are lost. Everything follows from the seed. Reports are the bytes that agents send; columns are made for the whole
fleet at once, so that making them costs less than storing them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from olvm.history.guest_rows import GuestFacts
from olvm.history.kinds import KIND_BY_NAME, SampleKind
from olvm.history.row_layout import layout_of, shape_of
from olvm.history.rows import ConfigurationChange
from olvm.history.samples import FIELD_SEPARATOR, ROW_SEPARATOR, SampleBatch
from olvm.model.records import EventRecord, OperationRecord, OperationStatus, Severity

NS_PER_S: Final = 10**9
MINUTES_PER_DAY: Final = 1440
HOSTS_PER_CLUSTER: Final = 100
NICS_PER_HOST: Final = 2
DISK_MB: Final = 40 * 1024
MEMORY_MB: Final = (2048, 4096, 8192, 16384)

# A day of 10,000 machines and 1,000 hosts; a smaller fleet has fewer in proportion, and one of each at least.
MIGRATIONS_PER_DAY: Final = 1000
CRASHES_PER_DAY: Final = 20
LOST_HOSTS_PER_DAY: Final = 4
RESIZES_PER_DAY: Final = 200
OTHER_EVENTS_PER_DAY: Final = 20_000
LOST_MINUTES: Final = 10

CODES: Final = {"f": "f", "i": "q"}  # of a report, by numpy's kinds

Details = dict[str, str | int | float | bool | None]


class KindReports(NamedTuple):
    """One kind at one minute. Rows of host h are `bounds[h]` to `bounds[h + 1]`; a lost host has none."""

    kind: SampleKind
    bounds: list[int]
    ids: list[str]  # vm_id, FIELD_SEPARATOR, vm_name of each row; empty for hosts
    texts: list[str]
    columns: dict[str, Any]


class Told(NamedTuple):
    """What the engine tells of one minute."""

    events: list[EventRecord]
    configuration: list[ConfigurationChange]
    operations: list[OperationRecord]


class Fleet:
    """Call `minute` for rising times; it is the only one that changes anything."""

    def __init__(self, host_count: int, vm_count: int, *, start_ns: int, seed: int = 1) -> None:
        self.host_count, self.vm_count = host_count, vm_count
        self._draw = np.random.default_rng(seed)
        self._start_ns = start_ns
        self.hosts = [f"kvm{number:02}" for number in range(1, host_count + 1)]
        self.vm_names = ["web", *(f"vm-{number}" for number in range(1, vm_count))]
        self._host_of = np.arange(vm_count) % host_count
        self._vcpus = 2 ** self._draw.integers(0, 4, vm_count)
        self._memory_mb = self._draw.choice(MEMORY_MB, vm_count)
        self._base_cpu = self._draw.gamma(2.0, 8.0, vm_count).clip(0.2, 80)
        self._base_memory = self._draw.uniform(20, 90, vm_count)
        self._swaps = self._draw.random(vm_count) < 0.01
        self._users = [""] * vm_count
        self._lost_until: dict[int, int] = {}  # host -> minute
        self._counters = self._draw.integers(10**9, 10**12, (4, vm_count))
        self._ops = self._draw.integers(10**5, 10**8, (2, vm_count))
        self._nic_counters = self._draw.integers(10**9, 10**12, (2, host_count * NICS_PER_HOST))
        self._nic_drops = np.zeros(host_count * NICS_PER_HOST, dtype=np.int64)
        self._event_seq = self._operation_seq = 0
        self._report_seq = 0
        self._ids = [f"{self.id_of(vm)}{FIELD_SEPARATOR}{name}" for vm, name in enumerate(self.vm_names)]
        self._ips = [f"10.{vm >> 16}.{vm >> 8 & 255}.{vm & 255}" for vm in range(vm_count)]
        self._sort()

    def id_of(self, vm: int) -> str:
        return f"{vm:08x}-0000-4000-8000-{vm:012x}"

    def cluster_of(self, host: int) -> str:
        number = host // HOSTS_PER_CLUSTER
        return "prod" if number == 0 else f"cluster-{number}"

    def reports(self, minute: int, period_minutes: int) -> list[bytes]:
        """What all agents send at this minute, each at its own second, encoded."""
        self._report_seq += 1
        payloads = []
        for of_kind in self.columns(minute, period_minutes):
            code_by_name = {name: CODES[values.dtype.kind] for name, values in of_kind.columns.items()}
            shape = shape_of(tuple(code_by_name.items()))
            layout = layout_of(shape)
            records = np.empty(of_kind.bounds[-1], dtype=layout.record)
            for name, values in of_kind.columns.items():
                records[name] = values
            rows, row_bytes = records.tobytes(), layout.packer.size
            for host, (begins, ends) in enumerate(zip(of_kind.bounds[:-1], of_kind.bounds[1:], strict=True)):
                if begins == ends:
                    continue
                batch = SampleBatch(
                    kind=of_kind.kind.name,
                    host=self.hosts[host],
                    at_ns=self.at_ns(minute, host),
                    host_epoch=1,
                    seq=self._report_seq,
                    row_count=ends - begins,
                    ids=ROW_SEPARATOR.join(of_kind.ids[begins:ends]),
                    texts=ROW_SEPARATOR.join(of_kind.texts[begins:ends]),
                    shape=shape,
                    data=rows[begins * row_bytes : ends * row_bytes],
                )
                payloads.append(msgspec.msgpack.encode(batch))
        return payloads

    def at_ns(self, minute: int, host: int) -> int:
        return self._start_ns + (minute * 60 + host % 60) * NS_PER_S

    def columns(self, minute: int, period_minutes: int) -> Iterator[KindReports]:
        """The samples of all kinds at this minute; counters have grown by `period_minutes`."""
        draw, order, seconds = self._draw, self._order, 60 * period_minutes
        count = self.vm_count
        hour = minute % MINUTES_PER_DAY / 60
        day_wave = 1 + 0.5 * np.sin((hour - 9) / 24 * 2 * np.pi)
        cpu = (
            (self._base_cpu * day_wave * draw.uniform(0.8, 1.2, count))
            .clip(0, 100)
            .astype(np.float32)
            .round(2)
        )
        memory = (self._base_memory + draw.uniform(-2, 2, count) + minute / MINUTES_PER_DAY * 0.2).clip(
            1, 100
        )
        memory = memory.astype(np.float32).round(2)
        used_mb = (memory * self._memory_mb / 100).astype(np.int64)
        rates = (draw.random((4, count)) * cpu * 20_000).astype(np.int64)
        self._counters += rates * seconds
        self._ops += rates[2:] // 4096 * seconds
        for vm in draw.integers(0, count, max(1, count // 500)):
            self._users[vm] = "" if self._users[vm] else f"user{vm % 997}"
        bounds = self._edges
        names = [self._ids[vm] for vm in order]
        yield from self._host_reports(cpu, memory, minute, seconds)
        yield KindReports(
            KIND_BY_NAME["vm"],
            bounds,
            names,
            [f"up{FIELD_SEPARATOR}{self._ips[vm]}{FIELD_SEPARATOR}{self._users[vm]}" for vm in order],
            self._in_order(
                cpu_usage_percent=cpu,
                user_cpu_usage_percent=(cpu * np.float32(0.7)).round(2),
                system_cpu_usage_percent=(cpu * np.float32(0.3)).round(2),
                memory_usage_percent=memory,
                memory_used_mb=used_mb,
                received_total_byte=self._counters[0],
                transmitted_total_byte=self._counters[1],
                receive_rate_bytes_per_second=rates[0],
                transmit_rate_bytes_per_second=rates[1],
                uptime_seconds=np.full(count, minute * 60 + 10**6),
                read_rate_bytes_per_second=rates[2],
                write_rate_bytes_per_second=rates[3],
                guest_heartbeat_age_seconds=draw.integers(0, 6, count),
                vcpus=self._vcpus,
                balloon_mb=self._memory_mb,
                swap_in_pages_per_second=self._swaps * draw.integers(0, 50, count),
                swap_out_pages_per_second=self._swaps * draw.integers(0, 50, count),
                major_faults_per_second=draw.integers(0, 3, count),
                minor_faults_per_second=(cpu * 20).astype(np.int64),
            ),
        )
        actual_mb = np.minimum(DISK_MB, DISK_MB * self._base_memory // 100 + minute // 30).astype(np.int64)
        latency = draw.gamma(2.0, 0.001, (3, count)).astype(np.float32)
        yield KindReports(
            KIND_BY_NAME["vm_disk"],
            bounds,
            names,
            ["vda"] * count,
            self._in_order(
                vm_disk_actual_size_mb=actual_mb,
                vm_disk_size_mb=np.full(count, DISK_MB),
                read_rate_bytes_per_second=rates[2],
                write_rate_bytes_per_second=rates[3],
                read_latency_seconds=latency[0],
                write_latency_seconds=latency[1],
                flush_latency_seconds=latency[2],
                read_ops_total=self._ops[0],
                write_ops_total=self._ops[1],
                read_total_byte=self._counters[2],
                written_total_byte=self._counters[3],
            ),
        )
        yield KindReports(
            KIND_BY_NAME["vm_interface"],
            bounds,
            names,
            [f"vnet{vm}{FIELD_SEPARATOR}up" for vm in order],
            self._in_order(**_interface_columns(rates[:2], self._counters[:2], 0, 10_000)),
        )

    def first_told(self) -> tuple[Told, list[GuestFacts]]:
        """What there is when the story begins."""
        at_ns = self._start_ns
        configuration = [
            ConfigurationChange(
                object_kind="cluster",
                object_id=name,
                name=name,
                cluster=name,
                valid_from_ns=at_ns,
                spec={"policy": "evenly_distributed"},
            )
            for name in sorted({self.cluster_of(host) for host in range(self.host_count)})
        ]
        configuration += [self._host_version(host, "up", at_ns) for host in range(self.host_count)]
        configuration += [self._vm_version(vm, at_ns) for vm in range(self.vm_count)]
        events = [
            self._event(at_ns, "vm_up", "normal", vm, int(self._host_of[vm])) for vm in range(self.vm_count)
        ]
        facts = [
            GuestFacts(
                vm_id=self.id_of(vm),
                told_ns=at_ns,
                vm_name=self.vm_names[vm],
                os_distribution=("Debian", "Rocky Linux", "Ubuntu")[vm % 3],
                os_version=("12", "9.4", "24.04")[vm % 3],
                os_type="linux",
                applications=[
                    f"openssl-3.0.{vm % 16}",
                    *(f"package-{number}-1.{vm % 7}" for number in range(50)),
                ],
                filesystems=[
                    {
                        "path": path,
                        "type": "ext4",
                        "total": DISK_MB << 20,
                        "used": (vm * 37 % 100) * (DISK_MB << 20) // 100,
                    }
                    for path in ("/", "/var")
                ],
            )
            for vm in range(self.vm_count)
        ]
        return Told(events, configuration, []), facts

    def told(self, minute: int) -> Told:
        """What the engine tells of this minute, and what comes of it."""
        told = Told([], [], [])
        for host, until in list(self._lost_until.items()):
            if until <= minute:
                del self._lost_until[host]
                told.configuration.append(self._host_version(host, "up", self.at_ns(minute, host)))
        for _ in range(self._times(MIGRATIONS_PER_DAY)):
            self._migrate(minute, int(self._draw.integers(self.vm_count)), told)
        if minute % MINUTES_PER_DAY == 600:
            self._migrate(minute, 0, told)
        for _ in range(self._times(CRASHES_PER_DAY)):
            vm = int(self._draw.integers(self.vm_count))
            at_ns, host = self.at_ns(minute, 0), int(self._host_of[vm])
            told.events.append(self._event(at_ns, "vm_crashed", "error", vm, host))
            told.events.append(self._event(at_ns + 20 * NS_PER_S, "vm_up", "normal", vm, host))
        for _ in range(self._times(LOST_HOSTS_PER_DAY)):
            self._lose(minute, int(self._draw.integers(self.host_count)), told)
        if minute % MINUTES_PER_DAY == 300:
            self._lose(minute, 0, told)
        for _ in range(self._times(RESIZES_PER_DAY)):
            vm = int(self._draw.integers(self.vm_count))
            self._vcpus[vm] = self._vcpus[vm] % 8 + 1
            told.configuration.append(self._vm_version(vm, self.at_ns(minute, 1)))
            told.operations.append(self._operation("vm.resize", vm, self.at_ns(minute, 0), 1))
        for _ in range(self._times(OTHER_EVENTS_PER_DAY)):
            vm = int(self._draw.integers(self.vm_count))
            told.events.append(
                self._event(self.at_ns(minute, 59), "user_logged_on", "normal", vm, int(self._host_of[vm]))
            )
        return told

    # ------------------------------------------------------------ inside

    def _sort(self) -> None:
        """Rows of reports are in order of hosts."""
        self._order = np.argsort(self._host_of, kind="stable")
        edges = np.searchsorted(self._host_of[self._order], np.arange(self.host_count + 1))
        self._edges = [int(edge) for edge in edges]

    def _in_order(self, **by_vm: Any) -> dict[str, Any]:
        return {name: values[self._order] for name, values in by_vm.items()}

    def _times(self, per_day: int) -> int:
        """How often something happens in this minute, as chance has it."""
        share = self.vm_count / 10_000
        return int(self._draw.poisson(per_day * share / MINUTES_PER_DAY))

    def _host_reports(self, cpu: Any, memory: Any, minute: int, seconds: int) -> Iterator[KindReports]:
        draw, count = self._draw, self.host_count
        vms_here = np.bincount(self._host_of, minlength=count)
        mean_cpu = np.bincount(self._host_of, cpu, count) / np.maximum(vms_here, 1)
        mean_memory = np.bincount(self._host_of, memory, count) / np.maximum(vms_here, 1)
        host_cpu, host_memory = mean_cpu.astype(np.float32), mean_memory.astype(np.float32)
        rates = draw.integers(0, 10**8, (2, count * NICS_PER_HOST))
        self._nic_counters += rates * seconds
        self._nic_drops += draw.random(count * NICS_PER_HOST) < 0.001
        totals = self._nic_counters.reshape(2, count, NICS_PER_HOST).sum(axis=2)
        rate_sums = rates.reshape(2, count, NICS_PER_HOST).sum(axis=2)
        there = np.array([host not in self._lost_until for host in range(count)])
        figures = {
            "cpu_usage_percent": host_cpu,
            "user_cpu_usage_percent": host_cpu * np.float32(0.7),
            "system_cpu_usage_percent": host_cpu * np.float32(0.3),
            "memory_usage_percent": host_memory,
            "memory_used_mb": (host_memory * 2621).astype(np.int64),
            "received_total_byte": totals[0],
            "transmitted_total_byte": totals[1],
            "receive_rate_bytes_per_second": rate_sums[0],
            "transmit_rate_bytes_per_second": rate_sums[1],
            "uptime_seconds": np.full(count, minute * 60 + 10**7),
            "cpu_load": host_cpu / np.float32(3),
            "ksm_cpu_percent": np.zeros(count, dtype=np.float32),
            "swap_used_mb": np.where(host_memory > 70, 100, 0),
            "active_vms": vms_here,
            "total_vms": vms_here,
            "total_vms_vcpus": vms_here * 4,
            "memory_shared_mb": vms_here * 10,
            "anon_huge_pages_mb": vms_here * 1000,
            "ksm_pages": np.full(count, 100),
            "swap_total_mb": np.full(count, 8192),
            "incoming_vm_migrations": np.zeros(count, dtype=np.int64),
            "outgoing_vm_migrations": np.zeros(count, dtype=np.int64),
        }
        yield KindReports(
            KIND_BY_NAME["host"],
            _edges(there, 1),
            [""] * int(there.sum()),
            ["up"] * int(there.sum()),
            {name: values[there] for name, values in figures.items()},
        )
        nics_there = np.repeat(there, NICS_PER_HOST)
        nic_count = int(nics_there.sum())
        yield KindReports(
            KIND_BY_NAME["host_interface"],
            _edges(there, NICS_PER_HOST),
            [""] * nic_count,
            [f"eno{number % NICS_PER_HOST}{FIELD_SEPARATOR}up" for number in range(nic_count)],
            _interface_columns(
                rates[:, nics_there], self._nic_counters[:, nics_there], self._nic_drops[nics_there], 25_000
            ),
        )

    def _migrate(self, minute: int, vm: int, told: Told) -> None:
        """A minute's migration, to a host of the same cluster; one of twenty fails while it copies."""
        source = int(self._host_of[vm])
        target = self._other_host(source)
        if target is None:
            return
        at_ns, seconds = self.at_ns(minute, 1), int(self._draw.integers(3, 40))
        ends_ns = at_ns + seconds * NS_PER_S
        there: Details = {"from": self.hosts[source], "to": self.hosts[target], "reason": "balancing"}
        told.events.append(self._event(at_ns, "vm_migration_started", "normal", vm, source, there))
        status: OperationStatus = "succeeded"
        if self._draw.random() < 0.05:
            status = "failed"
            why = {**there, "why": "it did not converge", "progress_percent": 70}
            told.events.append(self._event(ends_ns, "vm_migration_failed", "warning", vm, source, why))
        else:
            how = {**there, "bytes": int(self._memory_mb[vm]) << 20, "downtime_ms": 10 * seconds}
            told.events.append(self._event(ends_ns, "vm_migrated", "normal", vm, target, how))
            self._host_of[vm] = target
            self._sort()
        told.operations.append(self._operation("vm.migrate", vm, at_ns, seconds, status))

    def _lose(self, minute: int, host: int, told: Told) -> None:
        """The host is lost and its machines start on others of its cluster; it is back after LOST_MINUTES."""
        if host in self._lost_until or self._other_host(host) is None:
            return
        self._lost_until[host] = minute + LOST_MINUTES
        at_ns = self.at_ns(minute, 2)
        told.configuration.append(self._host_version(host, "non_responsive", at_ns))
        for vm in np.flatnonzero(self._host_of == host).tolist():
            target = self._other_host(host)
            assert target is not None, "a host of the cluster was there a moment ago"
            told.events.append(self._event(at_ns, "vm_crashed", "error", vm, host))
            details: Details = {"from": self.hosts[host], "to": self.hosts[target]}
            restarted_ns = at_ns + 90 * NS_PER_S
            told.events.append(self._event(restarted_ns, "vm_ha_restart", "warning", vm, target, details))
            self._host_of[vm] = target
        self._sort()

    def _other_host(self, host: int) -> int | None:
        """Another of its cluster that is there."""
        first = host - host % HOSTS_PER_CLUSTER
        others = [
            other
            for other in range(first, min(first + HOSTS_PER_CLUSTER, self.host_count))
            if other != host and other not in self._lost_until
        ]
        return int(self._draw.choice(others)) if others else None

    def _event(
        self,
        at_ns: int,
        code: str,
        severity: Severity,
        vm: int,
        host: int,
        details: Details | None = None,
    ) -> EventRecord:
        self._event_seq += 1
        return EventRecord(
            id=f"engine-{self._event_seq}",
            seq=self._event_seq,
            at_ns=at_ns,
            code=code,
            severity=severity,
            message=f"VM {self.vm_names[vm]}: {code.replace('_', ' ')} on host {self.hosts[host]}",
            vm_id=self.id_of(vm),
            vm_name=self.vm_names[vm],
            host=self.hosts[host],
            cluster=self.cluster_of(host),
            details=dict(details or {}),
        )

    def _operation(
        self, kind: str, vm: int, at_ns: int, seconds: int, status: OperationStatus = "succeeded"
    ) -> OperationRecord:
        self._operation_seq += 1
        return OperationRecord(
            id=f"operation-{self._operation_seq}",
            kind=kind,
            target_kind="vm",
            target_id=self.id_of(vm),
            target_name=self.vm_names[vm],
            status=status,
            reason="it did not converge" if status == "failed" else "",
            created_ns=at_ns,
            started_ns=at_ns,
            finished_ns=at_ns + seconds * NS_PER_S,
        )

    def _host_version(self, host: int, status: str, at_ns: int) -> ConfigurationChange:
        return ConfigurationChange(
            object_kind="host",
            object_id=self.hosts[host],
            name=self.hosts[host],
            cluster=self.cluster_of(host),
            status=status,
            valid_from_ns=at_ns,
            spec={"cpus": 64, "memory_bytes": 256 << 30},
        )

    def _vm_version(self, vm: int, at_ns: int) -> ConfigurationChange:
        return ConfigurationChange(
            object_kind="vm",
            object_id=self.id_of(vm),
            name=self.vm_names[vm],
            cluster=self.cluster_of(int(self._host_of[vm])),
            valid_from_ns=at_ns,
            spec={"vcpus": int(self._vcpus[vm]), "memory_bytes": int(self._memory_mb[vm]) << 20},
        )


def _edges(there: Any, rows_each: int) -> list[int]:
    return [0, *(int(edge) for edge in np.cumsum(there * rows_each))]


def _interface_columns(rates: Any, totals: Any, drops: Any, speed_mbps: int) -> dict[str, Any]:
    count = rates.shape[1]
    nothing = np.zeros(count, dtype=np.int64)
    shares = (rates * 8 / (speed_mbps * 10**4)).clip(0, 100).astype(np.float32)
    return {
        "receive_rate_percent": shares[0],
        "transmit_rate_percent": shares[1],
        "receive_rate_bytes_per_second": rates[0],
        "transmit_rate_bytes_per_second": rates[1],
        "received_total_byte": totals[0],
        "transmitted_total_byte": totals[1],
        "receive_errors_total": nothing,
        "transmit_errors_total": nothing,
        "receive_dropped_total": nothing + drops,
        "transmit_dropped_total": nothing,
        "speed_mbps": np.full(count, speed_mbps),
    }
