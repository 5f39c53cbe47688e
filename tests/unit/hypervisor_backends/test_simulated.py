"""What is the simulated hypervisor's own: durations, capacity, load, guest facts, settings."""

from __future__ import annotations

import msgspec
import pytest

from hypervisor_backends.protocol import (
    CallSucceeded,
    DestroyDomain,
    DomainSpec,
    HypervisorRequest,
    PauseDomain,
    RebootDomain,
    ShutdownDomain,
    StartDomain,
    SuspendDomain,
)
from hypervisor_backends.simulated_config import SimulatedConfig, simulated_config_from
from hypervisor_backends.simulated_domain import ADMITTED, ALREADY
from hypervisor_backends.simulated_load import activity, load_profile, wave
from olvm.model.errors import BadInput
from olvm.model.hardware import DiskSpec, Hardware, NicSpec
from olvm.model.limits import NS_PER_S
from olvm.model.vm_states import VmStatus
from tests.unit.hypervisor_backends.bench import GIB, restore_of, simulated_bench, start_of

# ---------------------------------------------------------------- durations


def test_instant_start_is_answered_and_up_before_submit_returns() -> None:
    bench, _ = simulated_bench(SimulatedConfig(boot_time_s_min=0, boot_time_s_max=0))
    order: list[str] = []
    bench.backend.set_listener(lambda event: order.append(event.kind))
    bench.backend.submit(start_of(), lambda _: order.append("done"))

    assert order == ["done", "started", "guest_up"]
    assert bench.scheduler.waiting_count == 0


def test_boot_times_fill_their_range_and_no_more() -> None:
    bench, _ = simulated_bench(memory_bytes=1000 * GIB)
    begun_ns = bench.scheduler.now_ns()
    for number in range(200):
        bench.call(start_of(f"v{number}", memory_bytes=GIB))
    bench.scheduler.advance(60)

    up_s = sorted((event.at_ns - begun_ns) / NS_PER_S for event in bench.events if event.kind == "guest_up")
    run_s = sorted((event.at_ns - begun_ns) / NS_PER_S for event in bench.events if event.kind == "started")
    assert len(up_s) == len(run_s) == 200
    assert 5 <= up_s[0] < 6
    assert 19 < up_s[-1] <= 20
    assert 0.5 <= run_s[0] < run_s[-1] <= 1.5


def test_shutdown_takes_its_time_as_powering_down() -> None:
    bench, _ = simulated_bench(SimulatedConfig(shutdown_time_s_min=4, shutdown_time_s_max=4))
    bench.start()
    answers = bench.call(ShutdownDomain(vm_id="v1"))
    bench.scheduler.advance(3.9)

    assert answers == [CallSucceeded()]
    assert bench.status() == "powering_down"
    bench.scheduler.advance(0.2)
    assert bench.status() is None


def test_reboot_is_told_between_shutdown_and_boot() -> None:
    bench, _ = simulated_bench(
        SimulatedConfig(shutdown_time_s_min=4, shutdown_time_s_max=4, boot_time_s_min=6, boot_time_s_max=6)
    )
    bench.start()
    asked_ns = bench.scheduler.now_ns()
    bench.succeed(RebootDomain(vm_id="v1"))

    assert [(event.kind, (event.at_ns - asked_ns) / NS_PER_S) for event in bench.events[2:]] == [
        ("rebooted", 4.0),
        ("guest_up", 10.0),
    ]


def test_save_and_restore_take_time_in_proportion_to_memory() -> None:
    bench, _ = simulated_bench(SimulatedConfig(save_bytes_per_s=GIB, restore_bytes_per_s=2 * GIB))
    bench.start("v1", memory_bytes=2 * GIB)
    bench.start("v2", memory_bytes=8 * GIB)
    begun_ns = bench.scheduler.now_ns()
    bench.call(SuspendDomain(vm_id="v1"))
    bench.call(SuspendDomain(vm_id="v2"))
    bench.scheduler.advance(60)

    stopped = {event.vm_id: event.at_ns - begun_ns for event in bench.events if event.kind == "stopped"}
    assert stopped == {"v1": 2 * NS_PER_S, "v2": 8 * NS_PER_S}
    begun_ns = bench.scheduler.now_ns()
    bench.succeed(restore_of("v1", epoch=2))
    assert bench.events[-1].at_ns - begun_ns == NS_PER_S


def test_restore_on_another_host_works_where_saved_memory_is_shared() -> None:
    bench, _ = simulated_bench(SimulatedConfig(saved_memory_shared=True))

    bench.succeed(restore_of())

    assert bench.status() == "up"


def test_pause_during_boot_stops_the_boot_until_continued() -> None:
    bench, _ = simulated_bench(SimulatedConfig(boot_time_s_min=10, boot_time_s_max=10))
    bench.call(start_of())
    bench.scheduler.advance(4)
    bench.succeed(PauseDomain(vm_id="v1"), seconds=1000)
    assert bench.kinds() == ["started", "paused"]

    from_ns = bench.scheduler.now_ns()
    bench.succeed(_continue("v1"))

    assert bench.kinds() == ["started", "paused", "continued", "guest_up"]
    assert bench.events[-1].at_ns - from_ns == 6 * NS_PER_S


def _continue(vm_id: str) -> HypervisorRequest:
    request: HypervisorRequest = msgspec.convert({"t": "ContinueDomain", "vm_id": vm_id}, HypervisorRequest)
    return request


def test_idle_domains_hold_no_timers() -> None:
    bench, _ = simulated_bench(memory_bytes=1000 * GIB)
    for number in range(100):
        bench.call(start_of(f"v{number}", memory_bytes=GIB))
    bench.scheduler.advance(60)

    assert bench.scheduler.waiting_count == 0
    assert len(bench.backend.statistics()[1]) == 100


# ---------------------------------------------------------------- capacity


def test_overcommit_lets_more_memory_start_than_there_is() -> None:
    config = SimulatedConfig(memory_overcommit_percent=150)
    bench, _ = simulated_bench(config, memory_bytes=64 * GIB)
    bench.start("v1", memory_bytes=64 * GIB)
    bench.start("v2", memory_bytes=32 * GIB)

    failure = bench.refuse(start_of("v3", memory_bytes=1))
    assert failure.code == "out_of_memory"
    assert "1 bytes" in failure.message


def test_overhead_counts_against_memory() -> None:
    bench, _ = simulated_bench(SimulatedConfig(memory_overhead_bytes=1), memory_bytes=64 * GIB)

    assert bench.refuse(start_of(memory_bytes=64 * GIB)).code == "out_of_memory"
    bench.start(memory_bytes=64 * GIB - 1)


def test_cpus_are_counted_only_when_configured() -> None:
    free, _ = simulated_bench(cpus=4)
    free.start("v1", vcpus=64)
    strict, _ = simulated_bench(SimulatedConfig(cpu_overcommit_percent=200), cpus=4)
    strict.start("v1", vcpus=6)

    assert strict.refuse(start_of("v2", vcpus=3)).code == "out_of_cpus"
    strict.start("v3", vcpus=2)


def test_capacity_returns_however_a_domain_ends() -> None:
    bench, _ = simulated_bench()
    ends: list[HypervisorRequest] = [
        DestroyDomain(vm_id="v1"),
        ShutdownDomain(vm_id="v1"),
        SuspendDomain(vm_id="v1"),
    ]
    for epoch, end in enumerate(ends, start=1):
        bench.start(epoch=epoch, memory_bytes=64 * GIB)
        bench.succeed(end, seconds=1000)

    bench.start(epoch=9, memory_bytes=64 * GIB)


# ---------------------------------------------------------------- load


def test_wave_returns_to_zero_integral_and_meets_its_peaks() -> None:
    assert wave(0, 100) == (-1.0, 0.0)
    assert wave(25, 100) == (0.0, -12.5)
    assert wave(50, 100) == (1.0, 0.0)
    assert wave(75, 100) == (0.0, 12.5)
    assert wave(100, 100) == wave(0, 100)


@pytest.mark.parametrize("vm_id", [f"v{number}" for number in range(20)])
def test_load_stays_within_the_vcpus_and_agrees_with_its_integral(vm_id: str) -> None:
    profile = load_profile(7, vm_id, 4, (2.0, 90.0))
    step_ns, at_ns, summed = NS_PER_S // 2, 1_700_000_000 * NS_PER_S, 0.0
    begun_ns, (_, waves_begun) = at_ns, activity(profile, at_ns)
    for _ in range(4000):
        cores, _ = activity(profile, at_ns + step_ns // 2)
        assert 0 < cores <= 4
        summed += cores * step_ns
        at_ns += step_ns

    _, waves_ended = activity(profile, at_ns)
    exact = profile.mean_cores * (at_ns - begun_ns) + waves_ended - waves_begun
    assert summed == pytest.approx(exact, rel=1e-4)


def test_load_depends_on_seed_and_vm_but_not_on_host_or_company() -> None:
    def usage(seed: int, company: int) -> int:
        bench, _ = simulated_bench(SimulatedConfig.instant(), seed=seed)
        for number in range(company):
            bench.start(f"a{number}", memory_bytes=GIB)
        bench.scheduler.advance(120 * (10 - company))
        bench.start("z")
        bench.scheduler.advance(1000)
        return bench.backend.statistics()[1][-1].cpu_usage_ns

    assert usage(1, 0) == usage(1, 5)
    assert usage(1, 0) != usage(2, 0)


def test_cpu_percent_between_two_samples_agrees_with_the_counter() -> None:
    bench, _ = simulated_bench(SimulatedConfig.instant())
    bench.start(vcpus=4)
    _, (first,) = bench.backend.statistics()
    bench.scheduler.advance(0.1)
    _, (second,) = bench.backend.statistics()

    percent = (second.cpu_usage_ns - first.cpu_usage_ns) / (NS_PER_S // 10) * 100
    assert percent == pytest.approx(second.cpu_user_percent + second.cpu_sys_percent, rel=0.02)


def test_uplink_keeps_the_traffic_of_domains_that_ended() -> None:
    bench, _ = simulated_bench()
    bench.start()
    bench.scheduler.advance(3600)
    before, _ = bench.backend.statistics()
    bench.succeed(DestroyDomain(vm_id="v1"), seconds=0)
    after, _ = bench.backend.statistics()

    assert after.nics == before.nics
    assert after.nics[0].rx_bytes > 0


# ---------------------------------------------------------------- guests


def test_heartbeat_is_the_last_five_second_boundary_since_the_guest_came_up() -> None:
    bench, _ = simulated_bench(SimulatedConfig.instant())
    bench.start()
    up_ns = bench.events[-1].at_ns
    bench.scheduler.advance(4.9 - (bench.scheduler.now_ns() - up_ns) % (5 * NS_PER_S) / NS_PER_S)
    before = _heartbeat_s(bench.backend.statistics()[1][0].guest, up_ns)
    bench.scheduler.advance(0.2)
    after = _heartbeat_s(bench.backend.statistics()[1][0].guest, up_ns)

    assert before % 5 == 0
    assert after == before + 5


def test_heartbeat_stands_still_while_paused() -> None:
    bench, _ = simulated_bench(SimulatedConfig.instant())
    bench.start()
    bench.succeed(PauseDomain(vm_id="v1"), seconds=0)
    paused_ns = bench.scheduler.now_ns()
    bench.scheduler.advance(1000)

    guest = bench.backend.statistics()[1][0].guest
    assert guest is not None
    assert paused_ns - 5 * NS_PER_S < guest.heartbeat_ns <= paused_ns


def _heartbeat_s(guest: object, since_ns: int) -> float:
    heard_ns = getattr(guest, "heartbeat_ns")  # noqa: B009  (None fails here, with its name)
    assert isinstance(heard_ns, int)
    return (heard_ns - since_ns) / NS_PER_S


def test_guest_facts_are_absent_until_the_guest_is_up() -> None:
    bench, _ = simulated_bench()
    bench.call(start_of())
    bench.scheduler.advance(3)
    _, (booting,) = bench.backend.statistics()
    bench.scheduler.advance(20)
    _, (up,) = bench.backend.statistics()

    assert (booting.status, booting.guest) == ("powering_up", None)
    assert up.guest is not None
    assert up.guest.ips[0].startswith("10.")


def test_disks_and_nics_of_the_spec_are_those_of_the_statistics() -> None:
    bench, _ = simulated_bench(SimulatedConfig.instant())
    spec = DomainSpec(
        name="db",
        vcpus=1,
        memory_bytes=GIB,
        hardware=Hardware(
            disks=(DiskSpec(name="vda", size_bytes=GIB), DiskSpec(name="vdb", size_bytes=2 * GIB)),
            nics=(NicSpec(name="n0"), NicSpec(name="n1"), NicSpec(name="n2")),
        ),
    )
    bench.succeed(StartDomain(vm_id="v1", epoch=1, spec=spec))
    _, (statistics,) = bench.backend.statistics()

    assert [(disk.name, disk.apparent_size_bytes) for disk in statistics.disks] == [
        ("vda", GIB),
        ("vdb", 2 * GIB),
    ]
    assert [nic.name for nic in statistics.nics] == ["n0", "n1", "n2"]
    assert statistics.guest is not None
    assert len(set(statistics.guest.ips)) == 3


# ---------------------------------------------------------------- settings and tables


def test_settings_pass_through_json_unchanged() -> None:
    config = SimulatedConfig(boot_time_s_min=1, boot_time_s_max=2, start_fails_probability=0.5)
    settings = msgspec.json.decode(msgspec.json.encode(config))

    assert simulated_config_from(settings) == config
    assert all(isinstance(value, str | int | float | bool) for value in settings.values())


@pytest.mark.parametrize(
    "settings",
    [
        {"boot_time": 3},
        {"boot_time_s_max": "long"},
        {"boot_time_s_max": 1.0},
        {"start_fails_probability": 1.5},
        {"save_bytes_per_s": -1.0},
        {"memory_overcommit_percent": 0},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(BadInput, match="simulated hypervisor setting"):
        simulated_config_from(settings)


@pytest.mark.parametrize(("vcpus", "memory_bytes"), [(0, GIB), (1, 0)])
def test_spec_without_cpu_or_memory_is_refused(vcpus: int, memory_bytes: int) -> None:
    with pytest.raises(BadInput, match="domain x needs"):
        DomainSpec(name="x", vcpus=vcpus, memory_bytes=memory_bytes)


def test_status_words_are_those_of_the_model() -> None:
    statuses = {status for table in (ADMITTED, ALREADY) for row in table.values() for status in row}

    assert len(statuses) == 9
    assert all(VmStatus(status) == status for status in statuses)


def test_no_request_is_both_admitted_and_already_done_in_one_status() -> None:
    assert all(not statuses & ADMITTED[request_type] for request_type, statuses in ALREADY.items())
