"""Disks and interfaces have rows of their own, and rates across a reset of their counters are unknown."""

from __future__ import annotations

import msgspec

from actors.device_sampling import CounterRates
from actors.sampling import Sampler
from hypervisor_backends.measurements import DiskStatistics, NicStatistics
from olvm.history.samples import decode_batch
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
