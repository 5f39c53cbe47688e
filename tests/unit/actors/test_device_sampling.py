"""Disks and interfaces have rows of their own, and rates across a reset of their counters are unknown."""

from __future__ import annotations

import msgspec

from actors.device_sampling import CounterRates
from actors.sampling import Sampler
from hypervisor_backends.measurements import (
    CoreLoads,
    DiskStatistics,
    NicStatistics,
    NumaNodeStatistics,
    PoolStatistics,
)
from olvm.history.samples import decode_batch, split_rows
from tests.unit.actors.test_sampling import GUEST, HOST, domain

S = 10**9
DISK = DiskStatistics(
    name="vda",
    read_rate_bytes_per_s=1.0,
    write_rate_bytes_per_s=2.0,
    read_ops=1,
    write_ops=2,
    read_bytes=3,
    written_bytes=4,
    read_latency_ns=5,
    write_latency_ns=6,
    flush_latency_ns=7,
    true_size_bytes=8,
    apparent_size_bytes=9,
)


def test_rate_is_unknown_at_first_and_across_a_reset_of_the_counter() -> None:
    rates = CounterRates()
    found = []
    for at_s, received, sent in ((0, 1000, 0), (10, 3000, 50), (20, 100, 60), (30, 1100, 160)):
        found.append(rates.traffic(("vm-1", 1, "vnet0"), at_s * S, received, sent))
        rates.end_sampling()
    assert found == [(-1, -1), (200, 5), (-1, -1), (100, 10)]


def test_rate_of_another_life_has_no_predecessor_and_what_was_left_out_is_forgotten() -> None:
    rates = CounterRates()
    rates.traffic(("vm-1", 1, "vnet0"), 0, 10, 10)
    rates.end_sampling()
    assert rates.traffic(("vm-1", 2, "vnet0"), S, 20, 20) == (-1, -1)
    rates.end_sampling()
    assert rates.traffic(("vm-1", 1, "vnet0"), 2 * S, 20, 20) == (-1, -1)


def test_sampling_tells_disks_and_interfaces_apart_from_their_machine() -> None:
    nic = NicStatistics(name="vnet0", rx_bytes=1000, tx_bytes=10)
    machine = msgspec.structs.replace(domain(GUEST), nics=(nic,), disks=(DISK,))
    payloads, _ = Sampler("H1").encode(S, 1, msgspec.structs.replace(HOST, nics=(nic,)), [machine])
    batches = [decode_batch(payload) for payload in payloads]
    assert [(batch.kind, batch.row_count) for batch in batches] == [
        ("host", 1),
        ("host_interface", 1),
        ("vm", 1),
        ("vm_disk", 1),
        ("vm_interface", 1),
    ]


def test_nodes_and_pools_of_a_host_have_rows_of_their_own() -> None:
    node = NumaNodeStatistics(
        node=1, cpu_user_percent=10.0, cpu_sys_percent=5.0, mem_total_mb=4000, mem_free_mb=1000
    )
    pool = PoolStatistics(name="default", capacity_bytes=10 * 2**20, free_bytes=3 * 2**20)
    host = msgspec.structs.replace(HOST, numa_nodes=(node,), pools=(pool,))
    payloads, _ = Sampler("H1").encode(S, 1, host, [])
    by_kind = {batch.kind: batch for batch in map(decode_batch, payloads)}
    numa, storage = by_kind["host_numa"], by_kind["host_storage"]
    assert (numa.texts, storage.texts) == ("1", "default")
    assert numa.column("memory_usage_percent") == (75.0,)
    assert numa.column("memory_free_mb") == (1000,)
    sizes = [storage.column(f"{what}_disk_size_mb") for what in ("available", "used", "total")]
    assert sizes == [(3,), (7,), (10,)]


def test_cores_have_rows_of_their_own_each_period_also_when_the_clock_was_ahead() -> None:
    cores = CoreLoads(numbers=(0, 3), numa_nodes=(0, 1), user_percents=(20.0, 50.0), sys_percents=(5.0, 50.0))
    host = msgspec.structs.replace(HOST, cores=cores)
    sampler = Sampler("H1", core_period_ns=150 * S)
    told = []
    for at_s in (1000, 1015, 1149, 1150, 1165, 400, 415, 550):
        payloads, _ = sampler.encode(at_s * S, 1, host, [])
        of_cores = [batch for batch in map(decode_batch, payloads) if batch.kind == "host_core"]
        told += [(at_s, batch) for batch in of_cores]
    assert [at_s for at_s, _ in told] == [1000, 1150, 400, 550]
    first = told[0][1]
    assert split_rows(first.texts, 2, 2) == [["0", "0"], ["3", "1"]]
    assert first.column("user_cpu_usage_percent") == (20.0, 50.0)
    assert first.column("idle_cpu_percent") == (75.0, 0.0)


def test_memory_of_a_guest_is_unknown_until_its_agent_has_told() -> None:
    told = msgspec.structs.replace(GUEST, memory_total_kib=4096, memory_free_kib=2048, swap_usage_kib=1024)
    for guest, expected in ((told, (2,)), (None, None)):
        (_, payload), _ = Sampler("H1").encode(S, 1, HOST, [domain(guest)])
        assert decode_batch(payload).column("guest_memory_free_mb") == expected


def test_guest_that_is_heard_while_its_host_is_measured_is_as_young_as_can_be() -> None:
    host = msgspec.structs.replace(HOST, sampled_ns=10 * S)
    for heard_s, age_s in ((13, 0), (10, 0), (7, 3)):
        guest = msgspec.structs.replace(GUEST, heartbeat_ns=heard_s * S)
        (_, payload), _ = Sampler("H1").encode(S, 1, host, [domain(guest)])
        assert decode_batch(payload).column("guest_heartbeat_age_seconds") == (age_s,)
