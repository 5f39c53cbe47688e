"""Stories of the small world: one thing goes wrong, and what becomes of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from actors.wire import Envelope
from hypervisor_backends.simulated_faults import Fault
from olvm.model import messages as m
from olvm.model.records import DomainRecord, OperationRecord, ReservationRecord
from tests.builders import GIB
from tests.world import World, check_replay, check_settled


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    made.build_small()
    yield made
    made.run(120)
    check_settled(made)
    check_replay(made)


def start(name: str = "v1", timeout_s: float | None = None) -> m.VmCommand:
    return m.VmCommand(name, "start", timeout_s)


def test_machine_whole_life_succeeds_step_by_step(world: World) -> None:
    for verb, status in (("start", "up"), ("reboot", "up"), ("reset", "up"), ("suspend", "suspended")):
        assert world.finish(m.VmCommand("v1", verb)).status == "succeeded"  # type: ignore[arg-type]
        assert world.status("v1") == status
    for verb, status in (("resume", "up"), ("shutdown", "down"), ("start", "up"), ("stop", "down")):
        assert world.finish(m.VmCommand("v1", verb)).status == "succeeded"  # type: ignore[arg-type]
        assert world.status("v1") == status
    assert world.finish(m.VmCommand("v1", "remove")).status == "succeeded"
    assert len(world.rows(ReservationRecord)) == 0


def test_request_repeated_gives_the_same_operation_also_after_a_restart(world: World) -> None:
    first = world.submit(start(), "request-1")
    assert world.submit(start(), "request-1") == first
    world.crash("engine")
    world.run(1)
    assert world.submit(start(), "request-1") == first
    assert sum(row.kind == "start_vm" for row in world.rows(OperationRecord).values()) == 1


@pytest.mark.parametrize("after_ms", [0, 1, 2, 3, 4, 5, 500, 1000, 2000, 4000])
@pytest.mark.parametrize("victim", ["engine", "host-1"])
def test_silo_lost_at_any_step_of_a_start_the_start_succeeds(
    world: World, after_ms: int, victim: str
) -> None:
    operation_id = world.submit(start())
    world.run(after_ms / 1000)
    world.crash(victim)
    assert world.wait_for(operation_id)
    assert world.operation(operation_id).status == "succeeded"
    world.run(10)
    assert world.status("v1") == "up"


@pytest.mark.parametrize("verb", ["shutdown", "suspend", "reboot", "stop"])
@pytest.mark.parametrize("victim", ["engine", "host-1", "host-2"])
@pytest.mark.parametrize("after_ms", [1, 3, 1500])
def test_silo_lost_in_the_middle_of_a_command_the_operation_ends(
    world: World, verb: m.VmVerb, victim: str, after_ms: int
) -> None:
    world.finish(start())
    operation_id = world.submit(m.VmCommand("v1", verb))
    world.run(after_ms / 1000)
    world.crash(victim)
    assert world.wait_for(operation_id)


def test_host_lost_while_highly_available_machine_runs_restarts_it_once_the_host_speaks() -> None:
    world = World()
    world.build_small(high_availability=True)
    world.finish(start())
    host = world.vm("v1").host
    assert host is not None
    world.faults.crash_host(host, restart_after_s=40)
    world.run(30)
    assert world.status("v1") == "unknown"
    assert world.run_until(lambda: world.status("v1") == "up")
    assert "vm_ha_restart" in world.event_codes()
    world.run(60)
    check_settled(world)


def test_host_silent_makes_machines_unknown_and_an_answer_makes_them_known(world: World) -> None:
    world.finish(start())
    silo = world.silo_by_host[world.vm("v1").host or ""]
    world.partition("engine", silo, heal_after_s=60)
    assert world.run_until(lambda: world.status("v1") == "unknown")
    assert world.run_until(lambda: world.status("v1") == "up")


def test_start_that_fails_everywhere_ends_with_all_hosts_named(world: World) -> None:
    for hypervisor in world.hypervisors.values():
        hypervisor.inject(Fault(kind="call_fails", count=None))
    ended = world.finish(start())
    assert ended.status == "failed"
    assert "H1" in ended.reason
    assert "H2" in ended.reason
    assert world.event_codes().count("vm_rerun") == 2


def test_start_that_hangs_is_given_up_and_its_copy_is_ended(world: World) -> None:
    for hypervisor in world.hypervisors.values():
        hypervisor.inject(Fault(kind="call_hangs"))
    ended = world.finish(start())
    assert (ended.status, ended.error_code) == ("failed", "operation_failed")
    assert "did not answer in time" in ended.reason
    assert world.run_until(lambda: world.status("v1") == "down")
    assert world.running() == {}


def test_start_that_times_out_after_having_worked_succeeds(world: World) -> None:
    for hypervisor in world.hypervisors.values():
        hypervisor.inject(Fault(kind="call_times_out"))
    assert world.finish(start()).status == "succeeded"


def test_save_that_times_out_after_having_worked_suspends(world: World) -> None:
    world.finish(start())
    for hypervisor in world.hypervisors.values():
        hypervisor.inject(Fault(kind="call_times_out", request="SuspendDomain"))
    assert world.finish(m.VmCommand("v1", "suspend")).status == "succeeded"
    assert world.status("v1") == "suspended"


def test_reboot_of_a_deaf_guest_fails_and_the_machine_is_up() -> None:
    """Found by a schedule: the agent went on to say "reboot_in_progress" for ever."""
    world = World()
    world.build_small()
    world.finish(start())
    for hypervisor in world.hypervisors.values():
        hypervisor.inject(Fault(kind="guest_ignores_shutdown", count=None))
    assert world.finish(m.VmCommand("v1", "reboot")).status == "failed"
    world.run(60)
    check_settled(world)


def test_agent_away_while_the_guest_comes_up_tells_the_truth_afterwards(world: World) -> None:
    world.submit(start())
    world.run(1.5)
    host = next(iter(world.running().values()))[0][0]
    world.crash(world.silo_by_host[host], restart_after_s=6)
    assert world.run_until(lambda: world.status("v1") == "up")


def test_capacity_full_refuses_with_a_reason_and_a_stop_makes_room() -> None:
    world = World()
    world.build_small(hosts=1, vms=3, memory_bytes=3 * GIB)
    outcomes = [world.finish(start(f"v{number}")) for number in (1, 2, 3)]
    refused = [ended for ended in outcomes if ended.status == "failed"]
    assert refused
    assert [ended.error_code for ended in refused] == ["no_capacity"] * len(refused)
    world.finish(m.VmCommand("v1", "stop"))
    assert world.finish(start(refused[0].target_name)).status == "succeeded"
    check_settled(world)


def test_machine_in_a_silo_of_its_own_removed_under_a_command_ends_every_operation() -> None:
    world = World()
    world.build_small(vms=2, silo="vms-1")
    first = world.submit(m.VmCommand("v1", "remove"))
    second = world.submit(start())
    world.run(30)
    assert world.operation(first).status == "succeeded"
    assert world.operation(second).status == "failed"
    assert world.finish(start("v2")).status == "succeeded"
    world.crash("vms-1")
    assert world.finish(m.VmCommand("v2", "stop")).status == "succeeded"
    check_settled(world)


def test_agent_refuses_the_create_of_an_epoch_that_is_over(world: World) -> None:
    world.finish(start())
    vm = world.vm("v1")
    silo = world.processes.by_name[world.silo_by_host[vm.host or ""]].silo
    late = m.CreateDomain(vm.id, "vm/" + vm.id, vm.epoch - 1, "v1", 1, GIB)
    silo.post(Envelope(f"agent/{vm.host}", "vm/" + vm.id, "late", "", late))
    world.run(5)
    assert world.status("v1") == "up"
    rows = world.rows(DomainRecord, silo.name)
    assert [row.epoch for row in rows.values()] == [vm.epoch]
