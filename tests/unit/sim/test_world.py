"""The world does to the system what it says, and the same again for the same arguments."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from olvm.model import messages as m
from olvm.model.records import HostRecord, OperationRecord, VmRecord
from sim.network import Noise
from sim.plan import Knobs, Shape
from sim.silo_disk import CrashPoint
from sim.world import World

SMALL = Shape(hosts=3, vms=6, running_percent=50, host_memory_gib=16, ha_percent=100, lease_percent=0)
FENCED = Shape(
    hosts=3, vms=3, running_percent=100, ha_percent=100, lease_percent=0, fence_percent=100, kdump_percent=100
)


def built(shape: Shape = SMALL, knobs: Knobs | None = None, *, seed: int = 1) -> World:
    world = World(shape, knobs, seed=seed)
    # Guests that write little: what migrates comes to an end.
    world.hosts.settings |= {"dirty_bytes_per_s_min": 1e6, "dirty_bytes_per_s_max": 1e6}
    world.build()
    return world


def status(world: World, vm: str) -> str:
    return str(next(row.status.value for row in world.rows(VmRecord).values() if row.name == vm))


def host_of(world: World, vm: str) -> str:
    """Where it truly executes."""
    vm_id = next(row.id for row in world.rows(VmRecord).values() if row.name == vm)
    (copy,) = world.truth.executing[vm_id]
    return copy.host


def executes(world: World, vm: str) -> bool:
    vm_id = next(row.id for row in world.rows(VmRecord).values() if row.name == vm)
    return world.truth.executing_count(vm_id) == 1


def runs_until(world: World, condition: Callable[[], bool], *, within_s: int) -> bool:
    """As `run_until`, but looks only each second: for conditions that read a disk."""
    for _ in range(within_s):
        if condition():
            return True
        world.run(1)
    return condition()


def ended(world: World, command: m.Command, within_s: float = 300.0) -> str:
    call = world.ask(command, "request-1")
    assert world.run_until(lambda: world.end_of(call) is not None, within_s=within_s)
    end = world.end_of(call)
    assert end is not None
    return end.status


# ---------------------------------------------------------------- building, and determinism


def test_build_makes_the_shape_and_truth_agrees() -> None:
    world = built()
    assert len(world.rows(HostRecord)) == 3
    assert len(world.rows(VmRecord)) == 6
    assert len(world.truth.executing) == 3
    assert sorted(world.truth.boot_id_by_host) == ["H1", "H2", "H3"]
    assert sum(world.truth.footprint_bytes_by_host.values()) == 3 * 2 * 1024**3
    assert all(row.status == "succeeded" for row in world.rows(OperationRecord).values())


def test_machines_may_live_in_silos_of_their_own() -> None:
    world = built(Shape(hosts=2, vms=4, vm_silos=2, running_percent=100))
    assert {"vms-1", "vms-2"} <= set(world.processes.by_name)
    assert len(world.truth.executing) == 4


def story(seed: int) -> World:
    """Everything that draws, draws."""
    knobs = Knobs(
        loss_per_10k=200,
        duplicate_per_10k=200,
        tail_per_10k=100,
        jitter_us=5_000,
        clock_drift_ppm_max=500,
        clock_step_s_max=60,
        commit_ms_max=20,
        torn_tail_percent=50,
    )
    world = built(knobs=knobs, seed=seed)
    world.faults.crash_silo("engine")
    world.ask(m.VmCommand("v5", "start"))
    world.run(20)
    world.faults.cut("engine", "host-1", "both", 30)
    world.faults.crash_host("H2", 20)
    world.faults.noise("engine", "host-3", Noise(loss_per_10k=3_000), 30)
    world.run(120)
    return world


def test_same_seed_gives_the_same_digest_and_another_seed_another() -> None:
    one, twin, other = story(3), story(3), story(4)
    assert one.digest.hexdigest() == twin.digest.hexdigest() != other.digest.hexdigest()
    assert one.counts() == twin.counts()
    assert one.all_situations() == twin.all_situations()


def test_digest_does_not_depend_on_the_hash_seed_of_the_process() -> None:
    script = "from tests.unit.sim.test_world import story; print(story(5).digest.hexdigest())"
    digests = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.getcwd()},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout
        for seed in ("1", "2")
    }
    assert digests == {story(5).digest.hexdigest() + "\n"}


def test_simulator_loads_neither_ray_nor_duckdb_nor_libvirt() -> None:
    script = "import sim.world, sys; print([n for n in ('ray', 'duckdb', 'libvirt') if n in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[]\n"


# ---------------------------------------------------------------- processes


@pytest.mark.parametrize("point", ["before_commit", "in_commit", "after_commit", "in_release"])
@pytest.mark.parametrize("silo", ["engine", "host-1", "host-2", "host-3"])
@pytest.mark.parametrize("after_commits", [0, 1, 3])
def test_process_that_dies_at_any_point_of_a_start_does_not_lose_the_start(
    point: CrashPoint, silo: str, after_commits: int
) -> None:
    world = built()
    call = world.ask(m.VmCommand("v5", "start"), "request-1")
    world.run(0.001)
    world.faults.die_soon(silo, point, after_commits)
    world.run(10)
    if call.reply is None:  # the client does not know, and asks again with the same name
        call = world.ask(m.VmCommand("v5", "start"), "request-1")
    assert world.run_until(lambda: world.end_of(call) is not None, within_s=300)
    assert world.end_of(call).status == "succeeded"  # type: ignore[union-attr]
    starts = [row for row in world.rows(OperationRecord).values() if row.client_request_id == "request-1"]
    assert len(starts) == 1


def test_crash_loses_the_process_and_the_disk_stays() -> None:
    world = built()
    rows = world.rows(VmRecord)
    assert world.faults.crash_silo("engine", None)
    assert not world.faults.crash_silo("engine", None)
    world.run(30)
    assert not world.processes.is_up("engine")
    world.processes.start("engine")
    world.run(10)
    assert [row.name for row in world.rows(VmRecord).values()] == [row.name for row in rows.values()]
    assert ended(world, m.VmCommand("v5", "start")) == "succeeded"


def test_crash_with_a_torn_tail_recovers_what_was_durable() -> None:
    world = built()
    world.processes.torn_tail_percent = 100
    before = len(world.rows(VmRecord))
    world.faults.crash_silo("engine", 1)
    world.run(5)
    assert world.all_situations()["torn_tail_recovered"] == 1
    assert len(world.rows(VmRecord)) == before


def test_paused_process_hears_later_what_came_meanwhile() -> None:
    world = built()
    world.faults.pause_silo("engine", 20)
    call = world.ask(m.VmCommand("v5", "start"))
    before = world.processes.by_name["engine"].silo.turn_count
    world.run(19)
    assert call.reply is None
    assert world.processes.by_name["engine"].silo.turn_count == before
    world.run(2)
    assert isinstance(call.reply, m.OperationView)


def test_pause_without_end_lasts_until_the_process_is_killed() -> None:
    world = built()
    world.faults.pause_silo("host-1", None)
    world.run(100)
    assert world.processes.is_up("host-1")
    world.faults.crash_silo("host-1", 1)
    world.run(2)
    turns = world.processes.by_name["host-1"].silo.turn_count
    world.run(10)
    assert world.processes.by_name["host-1"].silo.turn_count > turns


def test_machines_go_on_while_their_agent_stands_still() -> None:
    world = built()
    running = {vm_id: set(copies) for vm_id, copies in world.truth.executing.items()}
    for host in world.hosts.by_name.values():
        world.faults.pause_silo(host.silo, 15)
    world.run(15)
    assert world.truth.executing == running


def test_zombie_engine_ends_at_its_next_commit_and_the_new_one_serves() -> None:
    world = built()
    old = world.processes.by_name["engine"]
    world.faults.zombie_engine()
    assert old.is_alive
    assert world.processes.by_name["engine"] is not old
    # Nobody sends it heartbeats any more: it will find that its hosts are silent, and want to write it down.
    assert world.run_until(lambda: not old.is_alive, within_s=120)
    assert world.processes.zombies == []
    assert ended(world, m.VmCommand("v5", "start")) == "succeeded"
    assert world.all_situations()["two_engines_alive"] == 1


def test_wiped_silo_begins_with_another_journal() -> None:
    world = built()
    before = world.processes.by_name["host-1"].silo.journal_id
    forgotten: list[str] = []
    world.processes.wiped.append(forgotten.append)
    world.faults.wipe_silo("host-1")
    assert world.processes.by_name["host-1"].silo.journal_id != before
    assert forgotten == ["host-1"]


@pytest.mark.parametrize("is_full", [False, True])
def test_broken_disk_refuses_and_later_everything_goes_on(is_full: bool) -> None:
    world = built()
    world.faults.break_disk("engine", 20, is_full=is_full)
    call = world.ask(m.VmCommand("v5", "start"), "request-1")
    world.run(10)
    assert isinstance(call.reply, m.Refusal)
    world.run(20)
    assert ended(world, m.VmCommand("v5", "start")) == "succeeded"
    assert world.all_situations()["journal_refused"] >= 1


def test_slow_disk_delays_the_answer() -> None:
    def answered_s(slow: bool) -> float:
        world = built()
        if slow:
            world.faults.slow_disk("engine", 500, 60)
        call = world.ask(m.VmCommand("v5", "start"))
        world.run(10)
        assert call.answered_ns is not None
        return (call.answered_ns - call.asked_ns) / 1e9

    assert answered_s(slow=True) >= 0.5 > answered_s(slow=False)


def test_clock_step_at_a_restart_shows_in_the_process_and_not_in_true_time() -> None:
    world = built(knobs=Knobs(clock_step_s_max=3_600))
    world.faults.crash_silo("engine", 1)
    world.run(2)
    clock = world.processes.by_name["engine"].clock
    assert 0 < abs(clock.now_ns() - world.now_ns) <= 3_600 * 10**9
    world.run(120)
    assert status(world, "v1") == "up"


def test_replies_are_lost_in_a_cut_and_the_client_does_not_know() -> None:
    world = built()
    world.faults.cut("client", "engine", "b_to_a", 30)
    call = world.ask(m.VmCommand("v5", "start"), "request-1")
    world.run(60)
    assert call.reply is None
    assert status(world, "v5") == "up"
    assert ended(world, m.VmCommand("v5", "start")) == "succeeded"


# ---------------------------------------------------------------- computers


def test_host_that_loses_its_power_runs_nothing_and_boots_anew() -> None:
    world = built()
    name = host_of(world, "v1")
    boot_id = world.truth.boot_id_by_host[name]
    world.faults.crash_host(name, 30)
    assert name not in {copy.host for copies in world.truth.executing.values() for copy in copies}
    assert name not in world.truth.boot_id_by_host
    assert not world.processes.is_up(world.hosts.by_name[name].silo)
    world.run(40)
    assert world.truth.boot_id_by_host[name] != boot_id


def test_host_without_an_answer_is_switched_off_and_its_machine_restarts_elsewhere() -> None:
    world = built(FENCED)
    name = host_of(world, "v1")
    boot_id = world.truth.boot_id_by_host[name]
    world.run(400)  # past the engine's quiet time
    world.faults.isolate(name, 600, keeps_storage=False)  # a live lease would spare it

    def elsewhere() -> bool:
        return executes(world, "v1") and host_of(world, "v1") != name

    assert runs_until(world, elsewhere, within_s=600)
    assert world.all_situations()["fence_device_switched_off"] == 1
    world.run(700)
    assert world.truth.boot_id_by_host[name] != boot_id


def test_host_that_a_fence_device_switched_off_is_not_brought_back_by_anything_else() -> None:
    world = built(FENCED)
    world.faults.crash_host("H1", 30)
    assert not world.hosts.power_off("H1")  # as a device does: it was off already
    world.run(60)
    assert not world.hosts.by_name["H1"].is_on


def test_kdump_is_heard_by_the_engine_and_ends_in_a_reboot() -> None:
    world = built(FENCED)
    world.run(400)
    world.faults.kdump_host("H1", 200)
    assert runs_until(world, lambda: world.rows(HostRecord)["H1"].status.value == "kdumping", within_s=200)
    world.run(600)
    assert world.hosts.by_name["H1"].is_on
    assert world.rows(HostRecord)["H1"].status.value == "up"


def test_host_cut_from_the_storage_stops_its_leased_machines() -> None:
    world = built(Shape(hosts=3, vms=3, running_percent=100, ha_percent=100, lease_percent=100))
    name = host_of(world, "v1")
    world.run(60)
    world.faults.isolate(name, 300, keeps_storage=False)
    world.run(world.config.lease_expiry_s + 1)
    assert name not in {copy.host for copies in world.truth.executing.values() for copy in copies}
    assert world.all_situations()["watchdog_ends_machines"] >= 1


def test_guest_disks_break_for_a_while_and_machines_go_on() -> None:
    world = built()
    name = host_of(world, "v1")
    world.faults.break_guest_disks(name, 20)
    world.run(5)
    assert not executes(world, "v1")
    world.run(120)
    assert status(world, "v1") == "up"


def test_host_with_a_problem_leaves_service_and_comes_back() -> None:
    world = built(Shape(hosts=3, vms=0))
    world.faults.host_problem("H1", "network_unreachable", 60)
    world.run(30)
    assert world.rows(HostRecord)["H1"].status.value == "non_operational"
    world.run(400)
    assert world.rows(HostRecord)["H1"].status.value == "up"


def test_machine_migrates_over_the_network_and_a_cut_path_keeps_it() -> None:
    world = built()
    name = host_of(world, "v1")
    assert ended(world, m.VmCommand("v1", "migrate")) == "succeeded"
    there = host_of(world, "v1")
    assert there != name
    for other in world.hosts.by_name:
        if other != there:
            world.faults.cut(there, other, "both", None)
    call = world.ask(m.VmCommand("v1", "migrate"), "request-2")
    world.run(400)
    assert host_of(world, "v1") == there
    world.faults.heal()
    assert world.run_until(lambda: world.end_of(call) is not None, within_s=3_600)


# ---------------------------------------------------------------- who listens, and healing


class Listener:
    def __init__(self) -> None:
        self.heard: list[str] = []

    def vcpus_started(self, host: str, vm_id: str, epoch: int) -> None:
        self.heard.append("vcpus_started")

    def committed(self, silo: str, batch: object) -> None:
        self.heard.append(f"committed {silo}")

    def recovered(self, silo: str, records: object, next_event_seq: int) -> None:
        self.heard.append(f"recovered {silo}")

    def asked(self, client: str, command: m.Command, request_id: str) -> None:
        self.heard.append("asked")

    def answered(self, client: str, reply: m.AnyMessage) -> None:
        self.heard.append("answered")


def test_observer_hears_what_it_has_methods_for() -> None:
    world = built()
    listener = Listener()
    world.watch(listener)
    world.ask(m.VmCommand("v5", "start"))
    world.run(60)
    world.faults.crash_silo("engine", 1)
    world.run(5)
    assert {"vcpus_started", "committed engine", "recovered engine", "asked", "answered"} <= set(
        listener.heard
    )
    assert listener.heard.index("asked") < listener.heard.index("answered")


def test_what_an_engine_commits_and_dies_with_is_known_to_be_durable() -> None:
    world = built()
    listener = Listener()
    world.watch(listener)
    world.ask(m.VmCommand("v5", "start"))
    world.faults.die_soon("engine", "after_commit")
    world.run(0.5)
    assert listener.heard.count("committed engine") == 1
    assert "answered" not in listener.heard


def test_heal_ends_every_fault_and_all_is_well_again() -> None:
    world = built(knobs=Knobs(loss_per_10k=2_000, commit_ms_max=200))
    world.faults.cut("engine", "host-1")
    world.faults.pause_silo("host-2", None)
    world.faults.crash_host("H3", None)
    world.faults.break_disk("engine", 1e6)
    world.run(30)
    world.faults.crash_silo("engine", None)
    world.run(30)
    world.faults.heal()
    world.run(1_200)
    assert {row.status.value for row in world.rows(HostRecord).values()} == {"up"}
    assert all(status(world, f"v{number}") == "up" for number in (1, 2, 3))


def test_counts_grow_with_what_happens() -> None:
    world = built()
    before = world.counts()
    world.run(60)
    world.faults.crash_silo("host-1")
    after = world.counts()
    assert after.simulated_s == pytest.approx(before.simulated_s + 60)
    assert after.turns > before.turns
    assert after.faults == before.faults + 1


def test_memory_of_a_journal_is_bounded_over_days() -> None:
    world = built(Shape(hosts=1, vms=1, running_percent=100))
    world.processes.journal_rows_max = 100
    world.faults.crash_silo("engine")
    for number in range(150):
        call = world.ask(m.VmCommand("v1", "reboot"), f"request-{number}")
        world.run(30)
        assert number == 0 or call.reply is not None
    position = world.processes.by_name["engine"].journal.position()
    assert position.seq > 600
    assert position.journal_rows < 500
    assert len(world.processes.disk("engine")) < 400
