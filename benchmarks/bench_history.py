"""What history costs: JSON lines, one figure each; nothing is asserted.

Samples are timed from encoded bytes to committed rows, and once more with the checkpoint that folds the log
into the file; the encoder is timed as agents run it. `rows_per_cpu_s`
counts all threads of this process.

    python benchmarks/bench_history.py [--hosts 1000] [--vms-per-host 75] [--rounds 8]
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from pathlib import Path

from measuring import commit, machine

from olvm.history.samples import VmSample, encode_vm_samples
from olvm.history.store import HistoryStore
from olvm.model.records import EventRecord

START_NS = 1_700_000_000 * 10**9
PERIOD_NS = 15 * 10**9


class Fleet:
    """VMs whose figures move as real ones do: loads that drift, counters that grow, users that log on."""

    def __init__(self, host_count: int, vms_per_host: int, seed: int) -> None:
        self.draw = random.Random(seed)
        self.vms = [[self._vm(host, number) for number in range(vms_per_host)] for host in range(host_count)]

    def _vm(self, host: int, number: int) -> VmSample:
        return VmSample(
            vm_id=f"{host:08x}-0000-4000-8000-{number:012x}",
            vm_name=f"vm-{host}-{number}",
            vm_status="Up",
            vm_ip=f"10.{host // 256}.{host % 256}.{number}",
            cpu_usage_percent=self.draw.uniform(1, 90),
            memory_usage_percent=self.draw.uniform(10, 95),
            memory_used_mb=self.draw.randrange(256, 65536),
            received_total_byte=self.draw.randrange(10**12),
            transmitted_total_byte=self.draw.randrange(10**12),
            uptime_seconds=self.draw.randrange(10**6),
        )

    def step(self, churn: float) -> None:
        """One sampling period; `churn` is the share of hosts on which a user logs on or off."""
        uniform, randrange = self.draw.uniform, self.draw.randrange
        for vms in self.vms:
            for vm in vms:
                cpu = min(100.0, max(0.0, vm.cpu_usage_percent + uniform(-5, 5)))
                vm.cpu_usage_percent = round(cpu, 2)
                vm.user_cpu_usage_percent = round(cpu * 0.7, 2)
                vm.system_cpu_usage_percent = round(cpu * 0.3, 2)
                vm.memory_usage_percent = round(
                    min(100.0, max(1.0, vm.memory_usage_percent + uniform(-1, 1))), 2
                )
                vm.memory_used_mb = max(64, vm.memory_used_mb + randrange(-32, 33))
                vm.receive_rate_bytes_per_second = randrange(10**6)
                vm.transmit_rate_bytes_per_second = randrange(10**6)
                vm.received_total_byte += vm.receive_rate_bytes_per_second * 15
                vm.transmitted_total_byte += vm.transmit_rate_bytes_per_second * 15
                vm.read_rate_bytes_per_second = randrange(10**6)
                vm.write_rate_bytes_per_second = randrange(10**6)
                vm.uptime_seconds += 15
                vm.guest_heartbeat_age_seconds = randrange(6)
            if vms and self.draw.random() < churn:
                vms[randrange(len(vms))].current_user_name = f"user{randrange(1000)}"

    def encoded(self, round_number: int, start_ns: int = START_NS) -> list[bytes]:
        return [
            encode_vm_samples(
                vms,
                host=f"kvm{host:04}",
                at_ns=start_ns + round_number * PERIOD_NS,
                host_epoch=1,
                seq=round_number + 1,
            )
            for host, vms in enumerate(self.vms)
        ]


def tell(name: str, **figures: object) -> None:
    line = {"benchmark": name, **figures, "machine": machine(), "commit": commit()}
    print(json.dumps(line), flush=True)


def bench_samples(arguments: argparse.Namespace, churn: float) -> None:
    fleet = Fleet(arguments.hosts, arguments.vms_per_host, seed=1)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "history.duckdb"
        store = HistoryStore.open(path)
        empty_bytes = path.stat().st_size
        wall_s = process_s = encode_s = 0.0
        wire_byte_count = 0
        for round_number in range(arguments.rounds):
            fleet.step(churn)
            began_s = time.process_time()
            payloads = fleet.encoded(round_number)
            encode_s += time.process_time() - began_s
            wire_byte_count += sum(map(len, payloads))
            began_s, began_process_s = time.perf_counter(), time.process_time()
            for payload in payloads:
                store.add_samples(payload)
            store.commit()
            wall_s += time.perf_counter() - began_s
            process_s += time.process_time() - began_process_s
        row_count = store.counters.sample_count
        began_s = time.perf_counter()
        store.maintain(START_NS)
        store.close()  # which folds the log, however short
        checkpoint_s = time.perf_counter() - began_s
        stored_byte_count = path.stat().st_size - empty_bytes
    tell(
        "history.samples",
        churn=churn,
        rows=row_count,
        rows_per_report=arguments.vms_per_host,
        rows_per_s=round(row_count / wall_s),
        rows_per_cpu_s=round(row_count / process_s),
        rows_per_s_with_checkpoint=round(row_count / (wall_s + checkpoint_s)),
        stored_bytes_per_row=round(stored_byte_count / row_count, 1),
        wire_bytes_per_row=round(wire_byte_count / row_count, 1),
        encode_us_per_row=round(encode_s / row_count * 1e6, 2),
    )


def bench_rollup(arguments: argparse.Namespace) -> None:
    """One hour at oVirt's sampling interval of 60 s: stored, rolled up, folded into the file."""
    fleet = Fleet(arguments.rollup_hosts, arguments.vms_per_host, seed=1)
    rounds_per_minute = 60 * 10**9 // PERIOD_NS
    hour_start_ns = START_NS - START_NS % (3600 * 10**9)
    with (
        tempfile.TemporaryDirectory() as directory,
        HistoryStore.open(Path(directory) / "history.duckdb") as store,
    ):
        ingest_s = 0.0
        for minute in range(60):
            fleet.step(0.0)
            payloads = fleet.encoded(minute * rounds_per_minute, hour_start_ns)
            began_s = time.perf_counter()
            for payload in payloads:
                store.add_samples(payload)
            store.commit()
            ingest_s += time.perf_counter() - began_s
        began_s = time.perf_counter()
        store.maintain(hour_start_ns + 2 * 3600 * 10**9)
        store.close()  # which folds the log
        maintain_s = time.perf_counter() - began_s
        row_count = store.counters.sample_count
    tell(
        "history.rollup",
        hosts=arguments.rollup_hosts,
        vms=arguments.rollup_hosts * arguments.vms_per_host,
        rows=row_count,
        rows_per_s=round(row_count / ingest_s),
        rollup_and_checkpoint_s=round(maintain_s, 3),
        rows_per_s_with_rollup=round(row_count / (ingest_s + maintain_s)),
    )


def bench_events(event_count: int) -> None:
    with (
        tempfile.TemporaryDirectory() as directory,
        HistoryStore.open(Path(directory) / "history.duckdb") as store,
    ):
        events = [
            EventRecord(
                id=f"engine-{seq}",
                seq=seq,
                at_ns=START_NS + seq,
                code="vm_started",
                severity="normal",
                message=f"VM web-{seq} started on host kvm01",
                vm_id=f"vm-{seq}",
                host="kvm01",
            )
            for seq in range(1, event_count + 1)
        ]
        began_s = time.perf_counter()
        for start in range(0, event_count, 500):
            store.add_events("engine", events[start : start + 500])
        store.commit()
        wall_s = time.perf_counter() - began_s
    tell("history.events", rows=event_count, rows_per_s=round(event_count / wall_s))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--vms-per-host", type=int, default=75)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--rollup-hosts", type=int, default=100)
    arguments = parser.parse_args()
    for churn in (0.0, 0.05, 1.0):
        bench_samples(arguments, churn)
    bench_rollup(arguments)
    bench_events(20_000)


if __name__ == "__main__":
    main()
