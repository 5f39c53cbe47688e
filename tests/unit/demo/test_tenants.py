"""A tenant asks for the next thing in its machine's life, and asks again when the world was in disorder."""

from __future__ import annotations

from olvm.demo.plan import PlannedVm
from olvm.demo.tenants import ATTEMPTS_MAX, RETRY_AFTER_S, Next, Tenant


def tenant(*, leave_s: float | None = 5.0, high_availability: bool = False, kept: bool = False) -> Tenant:
    vm = PlannedVm(
        name="vm",
        cluster="even",
        vcpus=1,
        memory_bytes=1 << 30,
        high_availability=high_availability,
        kept=kept,
        arrive_s=0.0,
        leave_s=leave_s,
    )
    return Tenant(vm=vm)


def running(**settings: object) -> Tenant:
    it = tenant(**settings)  # type: ignore[arg-type]
    it.answered("create", "", 0.0)
    it.answered("start", "", 1.0)
    it.heard("vm_up", 1.0)
    return it


def test_tenant_whose_requests_succeed_lives_once_through() -> None:
    it = tenant()
    assert it.answered("create", "", 0.0) == Next("start", 0.0)
    assert it.answered("start", "", 1.0) == Next("stop", 5.0)
    assert it.expected_status == "up"
    assert it.answered("stop", "", 6.0) == Next("remove", 6.0)
    assert it.answered("remove", "", 6.5) is None
    assert (it.state, it.expected_status) == ("gone", None)


def test_tenant_that_keeps_its_machine_only_stops_it() -> None:
    it = running(kept=True)
    assert it.answered("stop", "", 6.0) is None
    assert it.expected_status == "down"


def test_tenant_that_started_late_leaves_at_once() -> None:
    it = tenant(leave_s=5.0)
    it.answered("create", "", 0.0)
    assert it.answered("start", "", 9.0) == Next("stop", 9.0)


def test_tenant_whose_host_died_starts_again_and_stops_nothing_meanwhile() -> None:
    it = running()
    assert it.heard("vm_crashed", 2.0) == Next("start", 2.0)
    assert (it.restarts, it.may_ask("stop"), it.may_ask("start")) == (1, False, True)


def test_tenant_of_a_highly_available_machine_waits_for_it() -> None:
    it = running(high_availability=True)
    assert it.heard("vm_crashed", 2.0) is None
    assert not it.reported_up
    it.heard("vm_up", 4.0)
    assert it.reported_up


def test_tenant_refused_a_start_asks_again_until_it_gives_up() -> None:
    it = tenant()
    it.answered("create", "", 0.0)
    for _ in range(ATTEMPTS_MAX - 1):
        assert it.answered("start", "no_capacity", 1.0) == Next("start", 1.0 + RETRY_AFTER_S)
    assert it.answered("start", "no_capacity", 1.0) is None
    assert it.expected_status == "down"


def test_tenant_whose_start_conflicts_with_a_machine_that_is_up_takes_it_as_running() -> None:
    it = tenant()
    it.answered("create", "", 0.0)
    it.heard("vm_up", 1.0)
    assert it.answered("start", "conflict", 1.0) == Next("stop", 5.0)


def test_tenant_whose_stop_meets_a_dead_machine_goes_on_to_remove_it() -> None:
    it = running(high_availability=True)
    it.heard("vm_crashed", 2.0)
    assert it.answered("stop", "conflict", 6.0) == Next("remove", 6.0)


def test_tenant_whose_removal_meets_a_running_machine_stops_it_first() -> None:
    it = running()
    it.answered("stop", "", 6.0)
    assert it.answered("remove", "conflict", 7.0) == Next("stop", 7.0 + RETRY_AFTER_S)
    assert it.may_ask("stop")


def test_tenant_whose_create_failed_expects_no_machine() -> None:
    it = tenant()
    assert it.answered("create", "unreachable", 0.0) is None
    assert (it.state, it.expected_status) == ("refused", None)
