"""What every hypervisor backend must do with a domain's life, and how it calls back.

`hypervisor_benches.py` says who joins. A bench's time passes by `advance`; 120 s must be enough for any single step of
any backend here. Real libvirt runs the same tests, and those of `test_hypervisor_migration.py` and
`test_hypervisor_readings.py`, from `tests/libvirt/test_backend_contract.py` with benches of its own.
"""

from __future__ import annotations

import msgspec
import pytest

from hypervisor_backends.protocol import (
    FEATURE_BY_REQUEST,
    ArmWatchdog,
    CallResult,
    CallSucceeded,
    ContinueDomain,
    DestroyDomain,
    DomainEvent,
    DomainRequest,
    ExitReason,
    GetCapabilities,
    HypervisorRequest,
    PauseDomain,
    RebootDomain,
    ResetDomain,
    ShutdownDomain,
    SuspendDomain,
)
from olvm.model.limits import NS_PER_S
from tests.contracts.hypervisor_benches import BENCHES, DOMAIN_REQUESTS, need
from tests.unit.hypervisor_backends.bench import (
    GIB,
    Bench,
    restore_of,
    start_of,
)

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
