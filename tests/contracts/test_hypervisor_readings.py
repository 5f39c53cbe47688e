"""What every hypervisor backend must say of its host and domains: lists, capabilities, measures, and their bytes."""

from __future__ import annotations

import msgspec
import pytest

from hypervisor_backends.protocol import (
    BulkStatistics,
    CallFailed,
    CallSucceeded,
    Capabilities,
    DestroyDomain,
    DomainEvent,
    DomainList,
    GetCapabilities,
    HypervisorRequest,
    ListDomains,
    PauseDomain,
    StatisticsReport,
    SuspendDomain,
)
from olvm.model.limits import NS_PER_S
from tests.contracts.hypervisor_benches import need, need_measures, sample_of
from tests.unit.hypervisor_backends.bench import (
    Bench,
    VirtualScheduler,
    restore_of,
)


def test_lists_of_domains_agree_and_are_in_order_of_id(bench: Bench) -> None:
    for vm_id in ("v3", "v1", "v2"):
        bench.start(vm_id)
    bench.succeed(DestroyDomain(vm_id="v2"))

    value = bench.succeed(ListDomains()).value
    host, domains = bench.backend.statistics()

    assert isinstance(value, DomainList)
    assert list(value.domains) == bench.backend.domains()
    assert [domain.vm_id for domain in value.domains] == ["v1", "v3"]
    assert [domain.vm_id for domain in domains] == ["v1", "v3"]
    assert (host.vm_count, host.vm_active) == (2, 2)


def test_capabilities_asked_and_read_are_the_same(bench: Bench) -> None:
    value = bench.succeed(GetCapabilities()).value

    assert value == bench.backend.capabilities
    assert isinstance(value, Capabilities)
    assert value.boot_id
    assert (value.cpus, value.memory_bytes) == (bench.cpus, bench.memory_bytes)


GUEST_BOOTS_WITHIN_S = 60


def read(bench: Bench) -> StatisticsReport:
    report = bench.ask(BulkStatistics())
    assert isinstance(report, CallSucceeded)
    assert isinstance(report.value, StatisticsReport)
    return report.value


def read_of_busy_guests(bench: Bench) -> StatisticsReport:
    """Once all have used CPU since the reading before."""
    report = read(bench)
    for _ in range(GUEST_BOOTS_WITHIN_S):
        if all(one.cpu_user_percent + one.cpu_sys_percent for one in report.domains):
            break
        bench.scheduler.pass_s(1)
        report = read(bench)
    return report


def test_statistics_of_running_domains_have_sane_shape(bench: Bench) -> None:
    need_measures(bench)
    bench.start("v1", vcpus=4)
    bench.start("v2")
    read(bench)
    bench.scheduler.advance(60)
    report = read_of_busy_guests(bench)

    host, domains = report.host, report.domains
    assert host.cpu_user_percent + host.cpu_sys_percent + host.cpu_idle_percent == pytest.approx(100)
    assert 0 < host.mem_used_percent < 100
    assert host.sampled_ns <= bench.scheduler.now_ns()
    for domain in domains:
        # The emulator's own threads come on top of the vCPUs.
        assert 0 < domain.cpu_user_percent + domain.cpu_sys_percent <= 100 * domain.vcpu_count + 100
        assert 0 < domain.mem_usage_percent <= 100
        # The emulator's own memory counts too, and may make up for all that a small guest leaves unused.
        assert 0 <= domain.mem_unused_kib < domain.mem_total_kib == bench.domain_bytes // 1024
        assert domain.monitor_response == 0
        assert domain.elapsed_time_s >= 0
        assert domain.disks
        assert domain.nics


def test_guest_facts_are_told_exactly_when_declared(bench: Bench) -> None:
    bench.start()
    _, (domain,) = bench.backend.statistics()

    if "guest_facts" not in bench.backend.capabilities.features:
        assert domain.guest is None
        return
    if not isinstance(bench.scheduler, VirtualScheduler):
        pytest.skip("what real guests say is tested in tests/libvirt/test_guest_facts.py")
    assert domain.guest is not None
    assert domain.guest.hostname == "vm-v1"
    assert domain.guest.cpu_count == 2
    assert domain.guest.ips
    assert domain.guest.heartbeat_ns <= bench.scheduler.now_ns()


def test_counters_never_go_back_within_one_life(bench: Bench) -> None:
    need_measures(bench)
    bench.start()
    previous: list[int] = []
    for _ in range(200 if isinstance(bench.scheduler, VirtualScheduler) else 5):
        bench.scheduler.advance(3.7)
        domain = sample_of(bench)
        host, _ = bench.backend.statistics()
        (disk, *_), (nic, *_), (uplink, *_) = domain.disks, domain.nics, host.nics
        counters = [domain.cpu_usage_ns, disk.read_bytes, disk.written_bytes, disk.read_ops, disk.write_ops]
        counters += [nic.rx_bytes, nic.tx_bytes, uplink.rx_bytes, uplink.tx_bytes]
        assert all(now >= then for now, then in zip(counters, previous, strict=False))
        previous = counters
    assert min(previous[:3]) > 0


def test_requests_and_answers_survive_the_wire(bench: Bench) -> None:
    bench.start()
    decoder = msgspec.msgpack.Decoder(CallSucceeded | CallFailed)
    for request in (ListDomains(), GetCapabilities(), BulkStatistics(), DestroyDomain(vm_id="x")):
        sent: HypervisorRequest = msgspec.msgpack.decode(
            msgspec.msgpack.encode(request), type=HypervisorRequest
        )
        answer = bench.ask(sent)
        assert sent == request
        assert decoder.decode(msgspec.msgpack.encode(answer)) == answer
    for event in bench.events:
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(event), type=DomainEvent) == event


def test_paused_domain_uses_no_cpu(bench: Bench) -> None:
    need(bench, "pause")
    need_measures(bench)
    bench.start()
    bench.succeed(PauseDomain(vm_id="v1"))

    bench.succeed(BulkStatistics(), seconds=0)
    before = sample_of(bench)
    bench.scheduler.advance(60)
    after = sample_of(bench)

    # A real emulator still answers questions: that is little, and none of it is the guest's.
    slack_ns = 0 if isinstance(bench.scheduler, VirtualScheduler) else NS_PER_S // 20
    assert 0 < before.cpu_usage_ns <= after.cpu_usage_ns <= before.cpu_usage_ns + slack_ns
    assert after.cpu_user_percent + after.cpu_sys_percent <= 100 * slack_ns / NS_PER_S * 10


def test_uptime_begins_anew_with_a_restore(bench: Bench) -> None:
    need(bench, "suspend")
    bench.start()
    bench.scheduler.pass_s(5.0)
    before = sample_of(bench)
    bench.succeed(SuspendDomain(vm_id="v1"))
    bench.succeed(restore_of(epoch=2))
    after, state = sample_of(bench), bench.state()

    assert before.elapsed_time_s >= 5
    assert state is not None
    assert state.started_ns is not None
    assert after.elapsed_time_s - (bench.scheduler.now_ns() - state.started_ns) // NS_PER_S <= 2
