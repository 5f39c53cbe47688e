"""What every hypervisor backend must do. A new backend joins by a line in `BENCHES`, and one in `PAIRS` if it migrates.

A bench's time passes by `advance`; 120 s must be enough for any single step of any backend here. Real libvirt runs the
same tests from `tests/libvirt/test_backend_contract.py`, with benches of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec
import pytest

from hypervisor_backends.measurements import DomainStatistics
from hypervisor_backends.protocol import (
    FEATURE_BY_REQUEST,
    ArmWatchdog,
    BulkStatistics,
    CallFailed,
    CallResult,
    CallSucceeded,
    CancelMigration,
    Capabilities,
    ChangeMigration,
    ContinueDomain,
    DestroyDomain,
    DomainEvent,
    DomainList,
    DomainRequest,
    ExitReason,
    GetCapabilities,
    GetMigrationStatistics,
    HypervisorRequest,
    ListDomains,
    MigrationStatistics,
    PauseDomain,
    RebootDomain,
    ResetDomain,
    ShutdownDomain,
    StartPostCopy,
    StatisticsReport,
    SuspendDomain,
)
from hypervisor_backends.simulated import SimulatedHypervisor
from hypervisor_backends.simulated_config import SimulatedConfig
from hypervisor_backends.simulated_fabric import MemoryFabric
from olvm.model.limits import NS_PER_S
from tests.unit.hypervisor_backends.bench import (
    GIB,
    Bench,
    VirtualScheduler,
    address_of,
    check_each_life_ends_once,
    migrate_of,
    prepare_of,
    restore_of,
    simulated_bench,
    start_of,
)


def simulated() -> Bench:
    return simulated_bench(SimulatedConfig(saved_memory_shared=False))[0]


def simulated_instant() -> Bench:
    config = msgspec.structs.replace(SimulatedConfig.instant(), saved_memory_shared=False)
    return simulated_bench(config)[0]


def simulated_bare() -> Bench:
    """Can do nothing that may be left out."""
    capabilities = Capabilities(cpus=16, memory_bytes=64 * GIB)
    scheduler = VirtualScheduler()
    return Bench(SimulatedHypervisor("h1", capabilities, scheduler, 1), scheduler)


def libvirt_test_driver() -> Bench:
    """libvirt's own driver for tests: one in this process, so each bench leaves it as it found it."""
    pytest.importorskip("libvirt", reason="libvirt-python is not installed (`make apt-libvirt`)")
    from tests.unit.hypervisor_backends.libvirt_bench import driver_bench

    return driver_bench()


BENCHES: dict[str, Callable[[], Bench]] = {
    "libvirt_test_driver": libvirt_test_driver,
    "simulated": simulated,
    "simulated_instant": simulated_instant,
    "simulated_bare": simulated_bare,
}


def simulated_pair(config: SimulatedConfig) -> tuple[Bench, Bench]:
    scheduler, fabric = VirtualScheduler(), MemoryFabric()
    first, _ = simulated_bench(config, scheduler=scheduler, fabric=fabric)
    second, _ = simulated_bench(config, name="h2", scheduler=scheduler, fabric=fabric)
    return first, second


# Two hosts that can migrate to each other, on one scheduler.
PAIRS: dict[str, Callable[[], tuple[Bench, Bench]]] = {
    "simulated": lambda: simulated_pair(SimulatedConfig()),
    "simulated_instant": lambda: simulated_pair(SimulatedConfig.instant()),
}
DOMAIN_REQUESTS: tuple[type[DomainRequest], ...] = (
    ShutdownDomain,
    DestroyDomain,
    RebootDomain,
    ResetDomain,
    SuspendDomain,
    PauseDomain,
    ContinueDomain,
    StartPostCopy,
    CancelMigration,
    GetMigrationStatistics,
)


@pytest.fixture(params=sorted(PAIRS))
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Bench, Bench]]:
    made = PAIRS[request.param]()
    yield made
    for bench in made:
        check_each_life_ends_once(bench.events)
        bench.backend.close()


@pytest.fixture(params=sorted(BENCHES))
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    made = BENCHES[request.param]()
    yield made
    check_each_life_ends_once(made.events)
    made.backend.close()


def need(bench: Bench, *features: str) -> None:
    missing = set(features) - set(bench.backend.capabilities.features)
    if missing:
        pytest.skip(f"this backend does not declare {sorted(missing)}")


def need_measures(bench: Bench) -> None:
    if not bench.measures:
        pytest.skip("this backend measures nothing")


def sample_of(bench: Bench, vm_id: str = "v1") -> DomainStatistics:
    """A sample that was begun after this."""
    report = bench.ask(BulkStatistics())
    assert isinstance(report, CallSucceeded)
    assert isinstance(report.value, StatisticsReport)
    return next(domain for domain in report.value.domains if domain.vm_id == vm_id)


# ---------------------------------------------------------------- start and end


def test_start_of_new_domain_runs_it_and_tells_it(bench: Bench) -> None:
    bench.start()

    state = bench.state()
    assert state is not None
    assert (state.status, state.epoch, state.name, state.vcpus) == ("up", 1, "vm-v1", 2)
    assert state.started_ns is not None
    assert bench.kinds() == ["started", "guest_up"]


def test_start_repeated_with_same_epoch_succeeds_without_second_life(bench: Bench) -> None:
    bench.start()
    bench.start()

    assert bench.kinds() == ["started", "guest_up"]
    assert len(bench.backend.domains()) == 1


def test_start_repeated_before_the_answer_answers_both(bench: Bench) -> None:
    first, second = bench.call(start_of()), bench.call(start_of())
    bench.scheduler.advance(120)

    assert first == second == [CallSucceeded()]
    assert bench.kinds() == ["started", "guest_up"]


@pytest.mark.parametrize("epoch", [1, 3])
def test_start_of_running_domain_with_other_epoch_is_refused(bench: Bench, epoch: int) -> None:
    bench.start(epoch=2)

    failure = bench.refuse(start_of(epoch=epoch))

    assert (failure.code, failure.outcome_known) == ("duplicate_domain", True)
    assert "vm-v1" in failure.message
    state = bench.state()
    assert state is not None
    assert state.epoch == 2


def test_start_under_name_of_another_domain_is_refused(bench: Bench) -> None:
    bench.start("v1")
    request = msgspec.structs.replace(start_of("v2"), spec=start_of("v1").spec)

    assert bench.refuse(request).code == "duplicate_domain"
    assert [domain.vm_id for domain in bench.backend.domains()] == ["v1"]


def test_start_beyond_memory_is_refused_and_takes_nothing(bench: Bench) -> None:
    failure = bench.refuse(start_of(memory_bytes=bench.memory_bytes + GIB))

    assert (failure.code, failure.outcome_known) == ("out_of_memory", True)
    assert bench.backend.domains() == []
    bench.start("v2", memory_bytes=bench.memory_bytes * 15 // 16)


def test_destroy_of_running_domain_stops_it_and_frees_its_memory(bench: Bench) -> None:
    bench.start(memory_bytes=bench.memory_bytes * 15 // 16)

    bench.succeed(DestroyDomain(vm_id="v1"))

    assert bench.backend.domains() == []
    assert bench.kinds() == ["started", "guest_up", "stopped"]
    assert bench.events[-1].exit_reason == ExitReason.ADMIN_SHUTDOWN
    bench.start("v2", memory_bytes=bench.memory_bytes * 15 // 16)


def test_destroy_during_launch_leaves_no_domain_and_answers_both(bench: Bench) -> None:
    starting = bench.call(start_of())
    bench.succeed(DestroyDomain(vm_id="v1"))

    assert len(starting) == 1
    assert bench.backend.domains() == []


def test_second_life_after_destroy_has_its_own_epoch_in_events(bench: Bench) -> None:
    bench.start(epoch=1)
    bench.succeed(DestroyDomain(vm_id="v1"))
    bench.start(epoch=2)

    told = [(event.epoch, event.kind) for event in bench.events]
    assert told == [(1, "started"), (1, "guest_up"), (1, "stopped"), (2, "started"), (2, "guest_up")]


def test_shutdown_of_willing_guest_ends_it_as_asked(bench: Bench) -> None:
    need(bench, "graceful_shutdown")
    bench.willing_guest = True
    bench.start()

    bench.succeed(ShutdownDomain(vm_id="v1"))

    assert bench.backend.domains() == []
    assert bench.kinds() == ["started", "guest_up", "shut_down"]
    assert bench.events[-1].exit_reason == ExitReason.ADMIN_SHUTDOWN


# ---------------------------------------------------------------- reboot, reset, pause, suspend


@pytest.mark.parametrize(("request_type", "feature"), [(RebootDomain, "reboot"), (ResetDomain, "reset")])
def test_reboot_of_running_guest_boots_it_again_in_the_same_life(
    bench: Bench, request_type: type[RebootDomain | ResetDomain], feature: str
) -> None:
    need(bench, feature)
    bench.willing_guest = True
    bench.start()
    before = bench.state()

    bench.succeed(request_type(vm_id="v1"))

    assert bench.kinds() == ["started", "guest_up", "rebooted", "guest_up"]
    assert bench.state() == before


def test_pause_and_continue_stop_and_resume_the_guest(bench: Bench) -> None:
    need(bench, "pause")
    bench.start()

    bench.succeed(PauseDomain(vm_id="v1"))
    paused = bench.state()
    bench.succeed(ContinueDomain(vm_id="v1"))

    assert paused is not None
    assert (paused.status, paused.pause_code) == ("paused", "NOERR")
    assert bench.status() == "up"
    assert bench.kinds() == ["started", "guest_up", "paused", "continued"]


def test_pause_and_continue_repeated_succeed_without_further_event(bench: Bench) -> None:
    need(bench, "pause")
    bench.start()
    for request in (PauseDomain(vm_id="v1"), ContinueDomain(vm_id="v1")):
        bench.succeed(request)
        bench.succeed(request)

    assert bench.kinds() == ["started", "guest_up", "paused", "continued"]


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


def test_suspend_then_restore_brings_the_guest_back_without_boot(bench: Bench) -> None:
    need(bench, "suspend")
    bench.start()

    bench.succeed(SuspendDomain(vm_id="v1"))
    assert bench.backend.domains() == []
    assert bench.events[-1].exit_reason == ExitReason.SAVE_STATE_SUCCEEDED
    bench.succeed(restore_of(epoch=2))

    state = bench.state()
    assert state is not None
    assert (state.status, state.epoch) == ("up", 2)
    assert bench.kinds() == ["started", "guest_up", "stopped", "started", "guest_up"]


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


def test_restore_without_saved_memory_is_refused(bench: Bench) -> None:
    need(bench, "suspend")

    assert bench.refuse(restore_of()).code == "no_saved_memory"
    assert bench.backend.domains() == []


def test_restore_after_cold_start_is_refused_because_the_disks_moved_on(bench: Bench) -> None:
    need(bench, "suspend")
    bench.start(epoch=1)
    bench.succeed(SuspendDomain(vm_id="v1"))
    bench.start(epoch=2)
    bench.succeed(DestroyDomain(vm_id="v1"))

    assert bench.refuse(restore_of(epoch=3)).code == "no_saved_memory"


def test_suspend_of_paused_domain_is_done_and_reboot_of_it_is_refused(bench: Bench) -> None:
    need(bench, "suspend", "pause", "reboot")
    bench.start()
    bench.succeed(PauseDomain(vm_id="v1"))

    failure = bench.refuse(RebootDomain(vm_id="v1"))
    assert (failure.code, failure.outcome_known) == ("wrong_state", True)
    bench.succeed(SuspendDomain(vm_id="v1"))
    assert bench.backend.domains() == []


# ---------------------------------------------------------------- live migration

Pair = tuple[Bench, Bench]


def test_prepared_domain_waits_without_running_and_can_be_destroyed(pair: Pair) -> None:
    _, target = pair
    uri = address_of(target)

    assert address_of(target) == uri
    state = target.state()
    assert state is not None
    assert (state.status, state.epoch, state.started_ns) == ("migrating_to", 2, None)
    assert target.backend.statistics()[1] == []
    target.succeed(DestroyDomain(vm_id="v1"), seconds=0)
    assert target.backend.domains() == []
    assert "started" not in target.kinds()


def test_prepared_domain_of_which_nothing_is_heard_ends_by_itself(pair: Pair) -> None:
    _, target = pair
    address_of(target)
    target.scheduler.advance(24 * 3600)

    assert target.backend.domains() == []
    assert [(event.kind, event.exit_reason) for event in target.events] == [
        ("stopped", ExitReason.MIGRATION_FAILED)
    ]


def test_prepare_beside_a_domain_of_that_id_is_refused(pair: Pair) -> None:
    source, _ = pair
    source.start()

    assert source.refuse(prepare_of(epoch=2)).code == "duplicate_domain"


def test_migrated_machine_ends_at_its_source_and_runs_at_its_target(pair: Pair) -> None:
    source, target = pair
    source.start()
    source.succeed(migrate_of(address_of(target)), seconds=600)

    assert source.backend.domains() == []
    assert (source.events[-1].kind, source.events[-1].exit_reason) == (
        "stopped",
        ExitReason.MIGRATION_SUCCEEDED,
    )
    state = target.state()
    assert state is not None
    assert (state.status, state.epoch) == ("up", 2)
    assert target.kinds() == ["started", "guest_up"]
    target.succeed(migrate_of(address_of(source, epoch=3), epoch=2, to_epoch=3), seconds=600)
    assert source.status() == "up"


def test_paused_machine_arrives_paused(pair: Pair) -> None:
    source, target = pair
    need(source, "pause")
    source.start()
    source.succeed(PauseDomain(vm_id="v1"))
    source.succeed(migrate_of(address_of(target)), seconds=600)

    state = target.state()
    assert state is not None
    assert (state.status, state.pause_code) == ("paused", "NOERR")
    target.succeed(ContinueDomain(vm_id="v1"))
    assert target.status() == "up"


def test_migration_to_a_target_that_is_gone_fails_and_the_machine_goes_on(pair: Pair) -> None:
    source, target = pair
    source.start()
    uri = address_of(target)
    target.succeed(DestroyDomain(vm_id="v1"))

    failure = source.refuse(migrate_of(uri), seconds=600)
    assert (failure.code, failure.outcome_known) == ("migration_failed", True)
    assert source.status() == "up"
    assert target.backend.domains() == []


def test_migration_under_way_tells_its_progress_and_can_be_changed_and_cancelled() -> None:
    source, target = PAIRS["simulated"]()
    source.start()
    answers = source.call(migrate_of(address_of(target), bandwidth_bytes_per_s=1e6))
    source.scheduler.advance(60)

    value = source.succeed(GetMigrationStatistics(vm_id="v1"), seconds=0).value
    assert isinstance(value, MigrationStatistics)
    assert 0 < value.data_processed_bytes <= 61_000_000
    assert source.status() == "migrating_from"
    source.succeed(ChangeMigration(vm_id="v1", downtime_ms=200), seconds=0)
    source.succeed(CancelMigration(vm_id="v1"), seconds=5)
    (answer,) = answers
    assert isinstance(answer, CallFailed)
    assert (answer.code, answer.outcome_known) == ("migration_cancelled", True)
    assert source.status() == "up"
    source.scheduler.advance(3600)
    assert target.backend.domains() == []


@pytest.mark.parametrize(
    "request_type", [CancelMigration, StartPostCopy, GetMigrationStatistics, ChangeMigration]
)
def test_request_about_a_migration_that_is_none_is_refused(pair: Pair, request_type: type) -> None:
    source, _ = pair
    need(source, "post_copy")
    source.start()
    more = {"downtime_ms": 100} if request_type is ChangeMigration else {}

    assert source.refuse(request_type(vm_id="v1", **more)).code == "wrong_state"
    assert source.status() == "up"


# ---------------------------------------------------------------- the watchdog


def test_leased_domain_runs_only_while_the_watchdog_is_armed(bench: Bench) -> None:
    need(bench, "watchdog")
    request = start_of()
    request = msgspec.structs.replace(request, spec=msgspec.structs.replace(request.spec, leased=True))
    assert bench.refuse(request, seconds=0).code == "lease_expired"
    deadline_ns = bench.scheduler.now_ns() + bench.lease_s * NS_PER_S
    bench.succeed(ArmWatchdog(deadline_ns=deadline_ns), seconds=0)
    bench.succeed(request)
    bench.start("v2")
    assert bench.status() == "up"
    bench.scheduler.pass_s(bench.lease_s + 1)

    assert bench.status() is None
    assert (bench.events[-1].kind, bench.events[-1].exit_reason) == ("crashed", ExitReason.GENERIC_ERROR)
    assert bench.status("v2") == "up"


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize("request_type", DOMAIN_REQUESTS)
def test_request_about_unknown_domain_is_refused_by_name(
    bench: Bench, request_type: type[DomainRequest]
) -> None:
    feature = FEATURE_BY_REQUEST.get(request_type)
    request: HypervisorRequest = request_type(vm_id="nobody")  # type: ignore[assignment]

    failure = bench.refuse(request)

    supported = feature is None or feature in bench.backend.capabilities.features
    assert failure.code == ("unknown_domain" if supported else "not_supported")
    assert failure.outcome_known
    assert not failure.can_retry
    assert bench.events == []


def test_request_after_close_is_refused_and_close_is_idempotent(bench: Bench) -> None:
    bench.start()
    bench.succeed(DestroyDomain(vm_id="v1"))
    bench.backend.close()
    bench.backend.close()

    assert bench.refuse(start_of("v2")).code == "closed"


def test_close_during_start_answers_nothing_more_and_leaves_no_timer(bench: Bench) -> None:
    starting = bench.call(start_of())
    answered, told = list(starting), list(bench.events)
    bench.backend.close()
    waiting_count = bench.scheduler.waiting_count
    bench.scheduler.advance(120)

    assert (starting, bench.events, waiting_count) == (answered, told, 0)


# ---------------------------------------------------------------- what can be read


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


def test_statistics_of_running_domains_have_sane_shape(bench: Bench) -> None:
    need_measures(bench)
    bench.start("v1", vcpus=4)
    bench.start("v2")
    bench.ask(BulkStatistics())
    bench.scheduler.advance(60)

    report = bench.ask(BulkStatistics())

    assert isinstance(report, CallSucceeded)
    assert isinstance(report.value, StatisticsReport)
    host, domains = report.value.host, report.value.domains
    assert host.cpu_user_percent + host.cpu_sys_percent + host.cpu_idle_percent == pytest.approx(100)
    assert 0 < host.mem_used_percent < 100
    assert host.sampled_ns <= bench.scheduler.now_ns()
    for domain in domains:
        # The emulator's own threads come on top of the vCPUs.
        assert 0 < domain.cpu_user_percent + domain.cpu_sys_percent <= 100 * domain.vcpu_count + 100
        assert 0 < domain.mem_usage_percent <= 100
        assert 0 < domain.mem_unused_kib < domain.mem_total_kib == bench.domain_bytes // 1024
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


# ---------------------------------------------------------------- callbacks


def test_request_from_within_a_callback_keeps_events_in_order(bench: Bench) -> None:
    answers: list[CallResult] = []

    def destroy_at_once(result: CallResult) -> None:
        answers.append(result)
        bench.backend.submit(DestroyDomain(vm_id="v1"), answers.append)

    bench.backend.submit(start_of(), destroy_at_once)
    bench.scheduler.advance(120)

    assert answers == [CallSucceeded(), CallSucceeded()]
    assert bench.backend.domains() == []
    assert bench.kinds()[0] == "started"
    assert bench.kinds()[-1] == "stopped"


def test_long_chain_of_requests_from_callbacks_does_not_grow_the_stack(bench: Bench) -> None:
    left = 3000

    def ask_again(_: CallResult) -> None:
        nonlocal left
        left -= 1
        if left:
            bench.backend.submit(GetCapabilities(), ask_again)

    bench.backend.submit(GetCapabilities(), ask_again)
    bench.scheduler.advance(120)

    assert left == 0


def test_without_listener_domains_go_on(bench: Bench) -> None:
    bench.backend.set_listener(None)
    bench.start()
    bench.backend.set_listener(bench.events.append)

    assert bench.events == []
    assert bench.status() == "up"
    bench.backend.set_listener(None)


# ---------------------------------------------------------------- determinism


def _story(made: Bench) -> tuple[list[DomainEvent], list[list[CallResult]], object]:
    answers = []
    for number in range(12):
        answers.append(made.call(start_of(f"v{number}", memory_bytes=6 * GIB)))
        made.scheduler.advance(1.3)
    for request_type in DOMAIN_REQUESTS:
        for number in range(0, 12, 3):
            request: HypervisorRequest = request_type(vm_id=f"v{number}")  # type: ignore[assignment]
            answers.append(made.call(request))
        made.scheduler.advance(7.7)
    made.scheduler.advance(30)
    return made.events, answers, made.backend.statistics()


@pytest.mark.parametrize("name", [name for name in sorted(BENCHES) if name.startswith("simulated")])
def test_same_seed_and_calls_give_same_events_answers_and_statistics(name: str) -> None:
    events, answers, statistics = _story(BENCHES[name]())

    assert (events, answers, statistics) == _story(BENCHES[name]())
    assert len(events) > 20
