"""Where the simulated hypervisor is as unkind as libvirt and QEMU: the rows of docs/simulator-and-libvirt.md."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from hypervisor_backends.measurements import GuestFacts
from hypervisor_backends.protocol import (
    AttachNic,
    CallFailed,
    CallResult,
    CallSucceeded,
    CancelMigration,
    CreatePool,
    CreateVolume,
    DestroyDomain,
    DomainSpec,
    ExitReason,
    FreezeGuest,
    HypervisorRequest,
    PauseDomain,
    RebootDomain,
    ShutdownDomain,
    StartDomain,
    StartPostCopy,
)
from hypervisor_backends.simulated_config import SimulatedConfig
from hypervisor_backends.simulated_faults import Fault
from olvm.model.hardware import CloudInit, DiskSpec, Hardware, NicSpec
from olvm.model.limits import NS_PER_S
from tests.unit.hypervisor_backends.bench import (
    GIB,
    Bench,
    address_of,
    migrate_of,
    prepare_of,
    simulated_bench,
    start_of,
)
from tests.unit.hypervisor_backends.migration_rig import CALM, Rig, failure_of

SLOW_BOOT = SimulatedConfig(boot_time_s_min=20, boot_time_s_max=20, launch_time_s_min=1, launch_time_s_max=1)

# ---------------------------------------------------------------- the power button


@pytest.mark.parametrize("button", [ShutdownDomain(vm_id="v1"), RebootDomain(vm_id="v1")])
def test_guest_that_still_boots_loses_the_power_button(button: HypervisorRequest) -> None:
    bench, _ = simulated_bench(SLOW_BOOT)
    bench.succeed(start_of(), seconds=10)
    bench.succeed(button, seconds=0)
    assert bench.status() == "powering_up"
    bench.scheduler.advance(60)

    assert bench.kinds() == ["started", "guest_up"]


def test_guest_that_boots_again_loses_it_too_and_obeys_when_it_is_up() -> None:
    bench, _ = simulated_bench(SLOW_BOOT)
    bench.start()
    bench.succeed(RebootDomain(vm_id="v1"), seconds=11)
    assert bench.kinds()[-1] == "rebooted"
    bench.succeed(ShutdownDomain(vm_id="v1"), seconds=60)
    assert bench.status() == "up"
    bench.succeed(ShutdownDomain(vm_id="v1"), seconds=60)

    assert bench.kinds()[-2:] == ["guest_up", "shut_down"]


def test_guest_may_be_told_to_obey_while_it_boots() -> None:
    obedient = SimulatedConfig(boot_time_s_min=20, boot_time_s_max=20, booting_guest_ignores_button=False)
    bench, _ = simulated_bench(obedient)
    bench.succeed(start_of(), seconds=10)
    bench.succeed(ShutdownDomain(vm_id="v1"), seconds=10)

    assert bench.kinds() == ["started", "shut_down"]


# ---------------------------------------------------------------- what the guest says


def facts_of(bench: Bench) -> GuestFacts | None:
    _, (domain,) = bench.backend.statistics()
    return domain.guest


TALKATIVE = msgspec.structs.replace(
    CALM,
    facts_after_s_min=3.0,
    facts_after_s_max=3.0,
    qemu_agent_after_s_min=8.0,
    qemu_agent_after_s_max=8.0,
)


def test_facts_come_after_the_guest_is_up_and_qemus_agent_later_still() -> None:
    rig = Rig(TALKATIVE)
    bench = rig.source
    bench.call(start_of())
    rig.advance_until(lambda: bench.kinds()[-1:] == ["guest_up"])
    assert facts_of(bench) is None
    rig.advance(3)
    assert facts_of(bench) is not None
    silent = bench.refuse(FreezeGuest(vm_id="v1"), seconds=TALKATIVE.guest_timeout_s)
    assert (silent.code, silent.can_retry) == ("guest_silent", True)
    rig.advance(1)

    bench.succeed(FreezeGuest(vm_id="v1"), seconds=1)


def test_guest_that_arrives_is_heard_anew() -> None:
    rig = Rig(TALKATIVE)
    rig.start()
    assert facts_of(rig.source) is not None
    answers = rig.migrate()
    rig.advance_until(lambda: bool(answers))
    assert facts_of(rig.target) is None
    rig.advance(3)

    assert facts_of(rig.target) is not None


def test_guest_that_is_paused_before_it_has_told_anything_tells_nothing() -> None:
    rig = Rig(TALKATIVE)
    rig.source.call(start_of())
    rig.advance_until(lambda: rig.source.kinds()[-1:] == ["guest_up"])
    rig.source.succeed(PauseDomain(vm_id="v1"), seconds=60)

    assert facts_of(rig.source) is None


# ---------------------------------------------------------------- migrations


def test_target_is_not_told_of_a_source_that_never_connected_and_waits_for_its_time() -> None:
    rig = Rig()
    rig.start()
    rig.cut = {"h2"}
    answers = rig.migrate()
    rig.advance(1)
    rig.source.succeed(CancelMigration(vm_id="v1"), seconds=0)
    rig.cut = set()
    rig.advance(CALM.incoming_timeout_s - 2)
    assert failure_of(answers).code == "migration_cancelled"
    assert rig.statuses() == ("up", "migrating_to")
    rig.advance(2.1)

    assert rig.statuses() == ("up", None)
    rig.check_ends()


def test_target_is_told_of_a_source_that_gives_up_while_it_copies() -> None:
    rig = Rig()
    rig.start()
    rig.migrate()
    rig.advance(1)
    rig.source.succeed(CancelMigration(vm_id="v1"), seconds=1)

    assert rig.statuses() == ("up", None)


LARGE = 8 * GIB  # too much to be sent within any silence


def silences_s(config: SimulatedConfig, count: int) -> list[float]:
    """How long each of so many sources, cut off while it copies, waits until it goes on."""
    rig = Rig(config)
    waited = []
    for number in range(count):
        vm_id = f"v{number}"
        rig.source.start(vm_id, memory_bytes=LARGE)
        answers = rig.source.call(migrate_of(address_of(rig.target, vm_id, memory_bytes=LARGE), vm_id))
        rig.advance(1)
        begun_ns = rig.scheduler.now_ns()
        rig.cut = {"h1", "h2"}
        rig.advance_until(lambda answers=answers: bool(answers))  # type: ignore[misc]
        waited.append((rig.scheduler.now_ns() - begun_ns) / NS_PER_S)
        rig.cut = set()
        rig.advance(200)
    return waited


def test_cut_network_is_noticed_after_half_a_minute_and_not_at_the_same_moment_each_time() -> None:
    waited = silences_s(CALM, 8)

    # The source heard of the target up to a keep-alive before the cut.
    least_s = CALM.migration_silence_s - CALM.migration_keepalive_s
    most_s = CALM.migration_silence_s * (1 + CALM.migration_silence_spread_percent / 100)
    assert all(least_s <= seconds <= most_s + 0.02 for seconds in waited)
    assert max(waited) - min(waited) > 0.5


def test_silence_without_a_spread_is_that_of_the_setting() -> None:
    exact = msgspec.structs.replace(CALM, migration_silence_s=12.0, migration_silence_spread_percent=0.0)

    assert len({round(seconds, 1) for seconds in silences_s(exact, 3)}) == 1


def broken_post_copy(config: SimulatedConfig = CALM) -> Rig:
    """The machine ran on h2, which loses its power before it has all memory; nothing is left of it on h1."""
    rig = Rig(config)
    rig.start(memory_bytes=LARGE)
    answers = rig.source.call(
        migrate_of(address_of(rig.target, memory_bytes=LARGE), bandwidth_bytes_per_s=10e6, post_copy=True)
    )
    rig.advance(1)
    rig.source.succeed(StartPostCopy(vm_id="v1"), seconds=1)
    rig.h2.power_off()
    rig.advance_until(lambda: bool(answers))
    assert rig.source.events[-1].exit_reason is ExitReason.POSTCOPY_MIGRATION_FAILED
    return rig


@pytest.mark.parametrize("request_of", [start_of, prepare_of])
def test_source_of_a_broken_post_copy_refuses_its_machine_until_libvirtd_is_restarted(
    request_of: Callable[[str, int], HypervisorRequest],
) -> None:
    rig = broken_post_copy()
    failure = rig.source.refuse(request_of("v1", 3), 0)
    assert (failure.code, failure.can_retry, failure.outcome_known) == ("start_failed", True, True)
    rig.source.succeed(start_of("v2", 1))
    rig.h1.restart_libvirtd()

    rig.source.succeed(request_of("v1", 3))


def test_power_cycle_ends_what_libvirtd_holds_and_the_setting_that_nothing_is_held() -> None:
    rig = broken_post_copy()
    rig.h1.power_off()
    rig.h1.power_on()
    rig.source.succeed(start_of("v1", 3))

    kind = broken_post_copy(msgspec.structs.replace(CALM, broken_post_copy_holds=False))
    kind.source.succeed(start_of("v1", 3))


# ---------------------------------------------------------------- what comes late


SEEN_AFTER = "hypervisor_backends.simulated_arrival.SEEN_AFTER_S_MAX"


def late_rig() -> tuple[Rig, list[CallResult]]:
    """The target has given up when its source has just begun, and lets the machine in all the same."""
    rig = Rig()
    rig.start()
    rig.h2.inject(Fault(kind="arrival_is_late"))
    answers = rig.source.call(migrate_of(address_of(rig.target)))
    rig.advance(0.1)
    assert [(event.kind, event.exit_reason) for event in rig.target.events] == [
        ("stopped", ExitReason.ARRIVAL_GIVEN_UP)
    ]
    assert (rig.statuses(), rig.target.backend.domains()) == (("migrating_from", None), [])
    return rig, answers


def test_target_that_has_given_up_lets_in_what_its_source_had_begun_and_tells_that_it_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(SEEN_AFTER, 1e6)
    rig, answers = late_rig()
    rig.advance_until(lambda: bool(answers))

    assert isinstance(answers[0], CallSucceeded)
    assert rig.statuses() == (None, "up")
    assert rig.truth.runs == {"v1": ("h2", 2)}
    assert rig.target.kinds()[1:] == ["started", "guest_up"]
    rig.check_ends()


@pytest.mark.parametrize("end", ["cancel", "destroy", "seen", "power"])
def test_latecomer_is_ended_without_a_word_there_and_goes_on_at_its_source(
    end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if end == "seen":
        monkeypatch.setattr(SEEN_AFTER, 5.0)
    rig, answers = late_rig()
    if end == "cancel":
        rig.source.succeed(CancelMigration(vm_id="v1"), seconds=1)
    elif end == "destroy":
        assert rig.target.refuse(DestroyDomain(vm_id="v1"), 1).code == "unknown_domain"
    elif end == "power":
        rig.h2.power_off()
    rig.advance(60)

    assert failure_of(answers).code == ("migration_cancelled" if end == "cancel" else "migration_failed")
    assert rig.statuses() == ("up", None)
    assert rig.truth.runs == {"v1": ("h1", 1)}
    assert rig.target.kinds() == ["stopped"]


def test_target_that_was_ended_in_between_lets_it_in_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SEEN_AFTER, 1e6)
    rig = Rig()
    rig.start()
    rig.h2.inject(Fault(kind="arrival_is_late"))
    uri = address_of(rig.target)
    rig.target.succeed(DestroyDomain(vm_id="v1"), seconds=0)
    answers = rig.source.call(migrate_of(uri))
    rig.advance_until(lambda: bool(answers))

    assert rig.statuses() == (None, "up")
    assert rig.target.kinds()[-2:] == ["started", "guest_up"]


# ---------------------------------------------------------------- statistics


def sampled_s(bench: Bench, begun_ns: int) -> tuple[float, dict[str, tuple[float, int]]]:
    """When the host was measured, and for each machine when, and whether its monitor answered."""
    host, domains = bench.backend.statistics()
    answered = {one.vm_id: ((one.status_ns - begun_ns) / NS_PER_S, one.monitor_response) for one in domains}
    return (host.sampled_ns - begun_ns) / NS_PER_S, answered


def test_hung_monitor_holds_up_the_samples_of_its_whole_host_for_a_bounded_time() -> None:
    bench, hypervisor = simulated_bench(SimulatedConfig(statistics_stall_s=10))
    for vm_id in ("v1", "v2", "v3"):
        bench.start(vm_id)
    begun_ns = bench.scheduler.now_ns()
    assert sampled_s(bench, begun_ns) == (0, {"v1": (0, 0), "v2": (0, 0), "v3": (0, 0)})
    hypervisor.inject(Fault(kind="monitor_hangs", vm="v1", count=None))
    bench.scheduler.advance(1)
    assert sampled_s(bench, begun_ns) == (0, {"v1": (0, 0), "v2": (0, 0), "v3": (0, 0)})
    bench.succeed(DestroyDomain(vm_id="v3"), seconds=5)
    assert sampled_s(bench, begun_ns) == (0, {"v1": (0, 0), "v2": (0, 0)})
    bench.scheduler.advance(5)
    assert sampled_s(bench, begun_ns) == (11, {"v1": (11, -1), "v2": (11, 0)})
    hypervisor.clear_faults("v1")
    bench.scheduler.advance(1)

    assert sampled_s(bench, begun_ns) == (12, {"v1": (12, 0), "v2": (12, 0)})


def test_hung_monitor_costs_its_own_machine_only_where_it_is_told_so() -> None:
    bench, hypervisor = simulated_bench(SimulatedConfig(statistics_stall_s=0))
    bench.start("v1")
    begun_ns = bench.scheduler.now_ns()
    sampled_s(bench, begun_ns)
    hypervisor.inject(Fault(kind="monitor_hangs", vm="v1", count=None))
    bench.scheduler.advance(1)

    assert sampled_s(bench, begun_ns) == (1, {"v1": (1, -1)})


# ---------------------------------------------------------------- disks


def with_disk(vm_id: str, source: str, *, epoch: int = 1, read_only: bool = False) -> StartDomain:
    disk = DiskSpec(name="vda", size_bytes=GIB, source=source, read_only=read_only)
    request = start_of(vm_id, epoch)
    spec = msgspec.structs.replace(request.spec, hardware=Hardware(disks=(disk,)))
    return msgspec.structs.replace(request, spec=spec)


def test_second_machine_on_one_disk_is_refused_until_the_first_is_gone() -> None:
    bench, _ = simulated_bench()
    bench.succeed(with_disk("v1", "/srv/shared.qcow2"))
    failure = bench.refuse(with_disk("v2", "/srv/shared.qcow2"))
    assert (failure.code, failure.can_retry) == ("lease_held", True)
    assert "vm-v1" in failure.message
    bench.succeed(with_disk("v3", "/srv/shared.qcow2", read_only=True))
    bench.succeed(DestroyDomain(vm_id="v3"))
    bench.succeed(DestroyDomain(vm_id="v1"))

    bench.succeed(with_disk("v2", "/srv/shared.qcow2"))


def test_qemu_that_libvirt_lost_holds_its_disk_against_others_and_not_against_its_own_machine() -> None:
    bench, hypervisor = simulated_bench()
    numbers = range(12)
    for number in numbers:
        bench.call(with_disk(f"v{number}", f"/srv/{number}.qcow2"))
    bench.scheduler.advance(0.4)
    hypervisor.restart_libvirtd()
    bench.scheduler.advance(60)
    gone = [number for number in numbers if bench.status(f"v{number}") is None]
    answers = {}
    for number in gone:
        answers[number] = bench.settle(with_disk("other", f"/srv/{number}.qcow2"))
        bench.call(DestroyDomain(vm_id="other"))
    held = [number for number, answer in answers.items() if isinstance(answer, CallFailed)]
    assert 0 < len(held) < len(gone)

    for number in held:
        bench.succeed(with_disk(f"v{number}", f"/srv/{number}.qcow2", epoch=2))


@pytest.mark.parametrize("source", ["images/missing.qcow2", "/pool/missing.qcow2"])
def test_path_in_a_pool_that_is_not_there_is_refused(source: str) -> None:
    bench, _ = simulated_bench()
    bench.succeed(CreatePool(name="images", path="/pool"))
    failure = bench.refuse(with_disk("v1", source))
    assert (failure.code, failure.can_retry) == ("start_failed", True)
    assert "/pool/missing.qcow2" in failure.message
    bench.succeed(CreateVolume(pool="images", name="missing.qcow2", size_bytes=GIB))

    bench.succeed(with_disk("v1", source))


def test_path_outside_of_pools_is_there_or_not_by_the_hosts_setting() -> None:
    bench, _ = simulated_bench(SimulatedConfig(files_outside_pools=False))

    assert bench.refuse(with_disk("v1", "/srv/any.qcow2")).code == "start_failed"


# ---------------------------------------------------------------- what a domain tells of itself


def test_list_tells_the_hardware_as_it_is_now_and_no_seed() -> None:
    bench, _ = simulated_bench()
    seeded = Hardware(vcpus_max=8, cloud_init=CloudInit(user_data="secret"))
    bench.succeed(
        StartDomain(
            vm_id="v1", epoch=1, spec=DomainSpec(name="web", vcpus=1, memory_bytes=GIB, hardware=seeded)
        ),
        seconds=30,
    )
    bench.succeed(AttachNic(vm_id="v1", nic=NicSpec(name="eth1")), seconds=5)

    (state,) = bench.backend.domains()
    assert state.hardware is not None
    assert (state.hardware.cloud_init, state.hardware.vcpus_max) == (None, 8)
    assert [nic.name for nic in state.hardware.nics] == ["eth1"]
