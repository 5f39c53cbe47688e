"""Stories of CPUs and memory that are plugged into a machine, in a world in which something goes wrong meanwhile.

After every batch of every silo, and at the end, no copy has more than is durably reserved for it.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hypervisor_backends.simulated_faults import Fault
from olvm.model import messages as m
from olvm.model.hardware import Hardware
from olvm.model.records import CopyRecord, ReservationRecord
from sim.silo_disk import CrashPoint
from tests.builders import GIB
from tests.world import World, check_replay, check_safety, check_settled

ROOM = Hardware(vcpus_max=4, memory_bytes_max=8 * GIB)
PLUG: tuple[str, m.Arguments] = ("plug_memory", {"name": "m0", "size_bytes": GIB})
UNPLUG: tuple[str, m.Arguments] = ("unplug_memory", {"name": "m0"})
CPUS: tuple[str, m.Arguments] = ("set_vcpus", {"vcpus": 3})
REQUEST_BY_VERB = {"plug_memory": "PlugMemory", "unplug_memory": "UnplugMemory", "set_vcpus": "SetVcpus"}
POINTS: tuple[CrashPoint, ...] = ("before_commit", "in_commit", "after_commit", "in_release")

Held = dict[tuple[str, int], tuple[str, int, int]]


def held(world: World) -> Held:
    """By machine and epoch: where, and how much is reserved."""
    rows: list[ReservationRecord | CopyRecord] = [
        *world.rows(ReservationRecord).values(),
        *world.rows(CopyRecord).values(),
    ]
    return {(row.vm_id, row.epoch): (row.host, row.vcpus, row.memory_bytes) for row in rows}


def taken(world: World) -> Held:
    return {
        (domain.vm_id, domain.epoch): (host, domain.vcpus, domain.memory_bytes)
        for host, hypervisor in world.hypervisors.items()
        for domain in hypervisor.domains()
    }


def check_room(world: World) -> None:
    check_safety(world)
    rows = held(world)
    for copy, (host, vcpus, memory_bytes) in taken(world).items():
        assert copy in rows, f"{copy} runs on {host} and nothing is reserved for it"
        _, most_vcpus, most_bytes = rows[copy]
        assert (vcpus <= most_vcpus, memory_bytes <= most_bytes) == (True, True), f"{copy}: {rows[copy]}"


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    made.build_small(memory_bytes=5 * GIB, hardware=ROOM)
    made.check = check_room
    assert made.finish(m.VmCommand("v1", "start")).status == "succeeded"
    yield made
    made.run(240)
    assert made.vm("v1").resize is None
    assert held(made) == taken(made)
    check_settled(made)
    check_replay(made)


def task(verb: str, arguments: m.Arguments, name: str = "v1") -> m.VmTask:
    return m.VmTask(name, verb, arguments)


def submit_at_last(world: World, command: m.Command) -> str:
    """As a client does whose engine may die before it answers: the same request again, until there is an answer."""
    for _ in range(20):
        call = world.ask(command, f"request-{command}")
        if world.run_until(lambda call=call: call.reply is not None, within_s=3):  # type: ignore[misc]
            assert isinstance(call.reply, m.OperationView), call.reply
            return call.reply.id
    raise AssertionError(f"no answer to {command}")


def plug(world: World) -> None:
    assert world.finish(task(*PLUG)).status == "succeeded"


def size(world: World, name: str = "v1") -> tuple[int, int]:
    """Of what truly runs: vCPUs and GiB."""
    vm_id = world.vm(name).id
    ((_, vcpus, memory_bytes),) = [found for (other, _), found in taken(world).items() if other == vm_id]
    return vcpus, memory_bytes // GIB


# ---------------------------------------------------------------- room


def test_plug_beyond_the_hosts_room_is_refused_and_the_host_is_not_asked(world: World) -> None:
    refused = world.finish(task("plug_memory", {"name": "m0", "size_bytes": 6 * GIB}))
    assert (refused.status, refused.error_code) == ("failed", "no_capacity")
    host = world.vm("v1").host
    assert f"6.1 GiB more are needed, and host {host} has 3.6 GiB free" in refused.reason
    assert world.truth.counts["PlugMemory"] == world.truth.counts["domain_resized"] == 0


def test_two_plugs_that_fit_one_at_a_time_do_not_both_get_the_room(world: World) -> None:
    host = world.vm("v1").host
    world.finish(m.UpdateVm("v1", description="the first"))
    other = next(
        name
        for name in ("v2", "v3", "v4")
        if world.finish(m.VmCommand(name, "start")).status == "succeeded" and world.vm(name).host == host
    )
    arguments: m.Arguments = {"name": "m0", "size_bytes": 2 * GIB}
    operations = [world.submit(task("plug_memory", arguments, name)) for name in ("v1", other)]
    assert all(world.wait_for(operation) for operation in operations)
    ends = sorted(world.operation(operation).error_code for operation in operations)
    assert ends == ["", "no_capacity"]


def test_unplugged_memory_is_room_for_others(world: World) -> None:
    assert world.finish(task("plug_memory", {"name": "m0", "size_bytes": 3 * GIB})).status == "succeeded"
    host = world.vm("v1").host or ""
    assert world.finish(m.VmCommand("v2", "migrate", None, host)).status == "failed", "it is down"
    assert world.finish(m.VmCommand("v2", "start")).status == "succeeded"
    assert world.vm("v2").host != host
    refused = world.finish(m.VmCommand("v2", "migrate", None, host))
    assert "Memory rejects it" in refused.reason
    assert world.finish(task(*UNPLUG)).status == "succeeded"
    assert world.finish(m.VmCommand("v2", "migrate", None, host)).status == "succeeded"


# ---------------------------------------------------------------- what stays


def test_what_was_plugged_is_there_after_a_restart_and_a_migration(world: World) -> None:
    plug(world)
    assert world.finish(task(*CPUS)).status == "succeeded"
    assert size(world) == (3, 2)
    assert world.finish(m.VmCommand("v1", "migrate")).status == "succeeded"
    assert size(world) == (3, 2)
    assert world.finish(task(*UNPLUG)).status == "succeeded"
    assert size(world) == (3, 1)
    plug(world)
    for verb in ("stop", "start"):
        assert world.finish(m.VmCommand("v1", verb)).status == "succeeded"  # type: ignore[arg-type]
    assert size(world) == (3, 2)


def test_suspended_machine_goes_on_with_what_was_plugged(world: World) -> None:
    plug(world)
    for verb in ("suspend", "resume"):
        assert world.finish(m.VmCommand("v1", verb)).status == "succeeded"  # type: ignore[arg-type]
    assert size(world) == (1, 2)


def test_machine_whose_host_dies_starts_elsewhere_with_what_was_plugged() -> None:
    world = World()
    world.build_small(memory_bytes=5 * GIB, hardware=ROOM, high_availability=True)
    world.check = check_room
    assert world.finish(m.VmCommand("v1", "start")).status == "succeeded"
    plug(world)
    host = world.vm("v1").host or ""
    world.faults.crash_host(host, 5.0)
    assert world.run_until(lambda: world.vm("v1").epoch > 1 and world.status("v1") == "up")
    assert size(world) == (1, 2)


def test_change_of_a_machine_that_runs_waits_for_its_next_start(world: World) -> None:
    assert world.finish(m.UpdateVm("v1", vcpus=2, memory_bytes=3 * GIB)).status == "succeeded"
    assert size(world) == (1, 1)
    assert world.finish(m.VmCommand("v1", "migrate")).status == "succeeded"
    assert size(world) == (1, 1)
    for verb in ("stop", "start"):
        assert world.finish(m.VmCommand("v1", verb)).status == "succeeded"  # type: ignore[arg-type]
    assert size(world) == (2, 3)


# ---------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize("fault", ["call_fails", "call_hangs", "call_times_out"])
@pytest.mark.parametrize("change", [PLUG, UNPLUG, CPUS], ids=lambda change: change[0])
def test_call_that_goes_wrong_leaves_the_size_that_is_true(
    world: World, change: tuple[str, m.Arguments], fault: str
) -> None:
    verb = change[0]
    if verb == "unplug_memory":
        plug(world)
    for hypervisor in world.hypervisors.values():
        hypervisor.inject(Fault(kind=fault, request=REQUEST_BY_VERB[verb]))  # type: ignore[arg-type]
    assert world.finish(task(*change)).status == "failed"
    world.run(240)
    record = world.vm("v1")
    assert (record.now_vcpus, record.now_memory_bytes // GIB) == size(world)
    was_done = fault == "call_times_out"
    expected = {"plug_memory": (1, 1 + was_done), "unplug_memory": (1, 2 - was_done)}
    assert size(world) == expected.get(verb, (1 + 2 * was_done, 1))


@pytest.mark.parametrize("number", range(8))
@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("victim", ["engine", "host-1", "host-2"])
def test_silo_killed_at_any_commit_of_changes_leaves_the_size_that_is_true(
    world: World, victim: str, point: CrashPoint, number: int
) -> None:
    """Each of the three changes begins while the victim is about to die at its next, second, … commit."""
    for change in (PLUG, CPUS, UNPLUG):
        world.faults.die_soon(victim, point, number)
        operation_id = submit_at_last(world, task(*change))
        assert world.wait_for(operation_id, within_s=300)
        world.run(130)  # what it left open is known by then
        record = world.vm("v1")
        assert (record.now_vcpus, record.now_memory_bytes // GIB) == size(world), change


@pytest.mark.parametrize("after_ms", [0, 1, 2, 3, 10, 200, 1000])
def test_machine_that_is_ended_in_the_middle_of_a_plug_gives_all_of_it_back(
    world: World, after_ms: int
) -> None:
    operation_id = world.submit(task(*PLUG))
    world.run(after_ms / 1000)
    assert world.finish(m.VmCommand("v1", "stop")).status == "succeeded"
    assert world.wait_for(operation_id)
    assert held(world) == {}


@pytest.mark.parametrize("after_ms", [0, 1, 2, 3, 10, 200])
def test_host_cut_off_in_the_middle_of_a_plug_keeps_the_larger_size_reserved(
    world: World, after_ms: int
) -> None:
    host = world.vm("v1").host or ""
    operation_id = world.submit(task(*PLUG))
    world.run(after_ms / 1000)
    world.partition("engine", world.silo_by_host[host], heal_after_s=100)
    assert world.wait_for(operation_id)
    if world.operation(operation_id).status == "failed" and world.vm("v1").resize is not None:
        ((_, _, reserved_bytes),) = held(world).values()
        assert reserved_bytes == 2 * GIB
    world.run(240)
    assert world.vm("v1").now_memory_bytes // GIB == size(world)[1]
