"""What is the simulated hypervisor's own about tasks: time, refusals, room, load, and what moves with a machine."""

from __future__ import annotations

import pytest

from hypervisor_backends.protocol import (
    AttachDisk,
    AttachNic,
    CallFailed,
    CallGuest,
    CallSucceeded,
    CommitSnapshot,
    ContinueDomain,
    CreatePool,
    CreateSnapshot,
    CreateVolume,
    DestroyDomain,
    DetachDisk,
    FreezeGuest,
    GuestAnswer,
    HypervisorRequest,
    ListSnapshots,
    ListVolumes,
    PauseDomain,
    PlugMemory,
    ResizeVolume,
    RevertSnapshot,
    SetBalloon,
    SetConsoleTicket,
    SetCpuQuota,
    SetVcpus,
    SnapshotList,
    StartDomain,
    UnplugMemory,
    VolumeList,
)
from hypervisor_backends.simulated import SimulatedHypervisor
from hypervisor_backends.simulated_config import SimulatedConfig
from hypervisor_backends.simulated_fabric import MemoryFabric
from hypervisor_backends.simulated_faults import Fault
from hypervisor_backends.snapshot_store import MemorySnapshots, TakenSnapshot
from olvm.model.hardware import DiskSpec, NicSpec
from tests.unit.hypervisor_backends.bench import (
    GIB,
    Bench,
    OneCopy,
    VirtualScheduler,
    address_of,
    migrate_of,
    simulated_bench,
)
from tests.unit.hypervisor_backends.task_bench import MIB, VM, TaskBench, simulated_task_bench, spec_of

BLOCK = 128 * MIB


# ---------------------------------------------------------------- time and refusals


def test_task_is_answered_when_its_time_is_over() -> None:
    tasks, _ = simulated_task_bench(SimulatedConfig(task_time_s=0.5))
    answers = tasks.bench.call(SetVcpus(vm_id=VM, vcpus=2))
    tasks.bench.scheduler.advance(0.4)
    early = list(answers)
    tasks.bench.scheduler.advance(0.2)

    assert (early, answers) == ([], [CallSucceeded()])


def test_unwilling_guest_keeps_its_device_and_gives_it_at_the_next_try() -> None:
    tasks, hypervisor = simulated_task_bench()
    tasks.do(PlugMemory(vm_id=VM, name="m1", size_bytes=BLOCK))
    hypervisor.inject(Fault(kind="guest_refuses_unplug", vm=VM))

    failure = tasks.failure(UnplugMemory(vm_id=VM, name="m1"))
    assert (failure.code, failure.can_retry) == ("guest_refused", True)
    tasks.do(UnplugMemory(vm_id=VM, name="m1"))


def test_refusals_of_guests_are_drawn_from_the_seed() -> None:
    def refusals() -> list[bool]:
        tasks, _ = simulated_task_bench(SimulatedConfig(guest_refuses_unplug_probability=0.5))
        codes = []
        for _ in range(20):
            result = tasks.bench.settle(DetachDisk(vm_id=VM, name="vda"))
            codes.append(isinstance(result, CallFailed))
            if not codes[-1]:
                tasks.do(AttachDisk(vm_id=VM, disk=DiskSpec(name="vda", size_bytes=64 * MIB)))
        return codes

    first = refusals()
    assert first == refusals()
    assert 3 < sum(first) < 17


def test_paused_guest_lets_go_of_nothing_and_hears_nothing() -> None:
    tasks, _ = simulated_task_bench()
    tasks.do(PauseDomain(vm_id=VM))

    assert tasks.refused(DetachDisk(vm_id=VM, name="vda")) == "guest_refused"
    assert tasks.refused(FreezeGuest(vm_id=VM)) == "guest_silent"
    assert tasks.refused(CallGuest(vm_id=VM, message="lock-screen")) == "guest_silent"
    assert tasks.refused(CreateSnapshot(vm_id=VM, name="s", quiesce=True)) == "guest_refused"
    tasks.do(CreateSnapshot(vm_id=VM, name="s"))
    tasks.do(ContinueDomain(vm_id=VM))
    assert tasks.do(CallGuest(vm_id=VM, message="lock-screen")) == GuestAnswer()


def test_domain_that_ends_during_a_task_answers_it_and_leaves_no_timer() -> None:
    tasks, _ = simulated_task_bench(SimulatedConfig(task_time_s=5))
    answers = tasks.bench.call(SetVcpus(vm_id=VM, vcpus=2))
    tasks.bench.succeed(DestroyDomain(vm_id=VM), seconds=0)

    (answer,) = answers
    assert isinstance(answer, CallFailed)
    assert answer.code == "domain_ended"
    tasks.bench.scheduler.advance(60)
    assert len(answers) == 1


def test_lost_host_answers_no_task() -> None:
    tasks, hypervisor = simulated_task_bench(SimulatedConfig(task_time_s=5))
    answers = tasks.bench.call(SetVcpus(vm_id=VM, vcpus=2))
    hypervisor.power_off()
    tasks.bench.scheduler.advance(60)

    assert answers == []


def test_task_before_the_launch_is_refused() -> None:
    bench, _ = simulated_bench()
    bench.call(StartDomain(vm_id=VM, epoch=1, spec=spec_of()))

    assert bench.refuse(SetVcpus(vm_id=VM, vcpus=2), seconds=0).code == "wrong_state"


@pytest.mark.parametrize("kind", ["call_fails", "call_times_out", "call_hangs"])
def test_planted_faults_strike_tasks_as_other_calls(kind: str) -> None:
    tasks, hypervisor = simulated_task_bench()
    hypervisor.inject(Fault(kind=kind, request="SetVcpus"))  # type: ignore[arg-type]
    answers = tasks.bench.call(SetVcpus(vm_id=VM, vcpus=2))
    tasks.bench.scheduler.advance(120)

    known = [answer.outcome_known for answer in answers if isinstance(answer, CallFailed)]
    assert known == {"call_fails": [True], "call_times_out": [False], "call_hangs": []}[kind]
    state = tasks.bench.state(VM)
    assert state is not None
    assert state.vcpus == (2 if kind == "call_times_out" else 1)


# ---------------------------------------------------------------- room and load


def test_plugged_memory_takes_the_hosts_room_until_the_machine_ends() -> None:
    bench, _ = simulated_bench(memory_bytes=GIB)
    big = spec_of("big")
    bench.succeed(StartDomain(vm_id=VM, epoch=1, spec=big))
    bench.succeed(PlugMemory(vm_id=VM, name="m1", size_bytes=5 * BLOCK))

    state = bench.state(VM)
    assert state is not None
    assert state.memory_bytes == 256 * MIB + 5 * BLOCK
    assert bench.refuse(StartDomain(vm_id="v2", epoch=1, spec=spec_of("two"))).code == "out_of_memory"
    bench.succeed(DestroyDomain(vm_id=VM))
    bench.succeed(StartDomain(vm_id="v2", epoch=1, spec=spec_of("two")))
    assert bench.backend.statistics()[0].mem_used_percent < 30


def test_memory_that_the_host_has_not_is_not_plugged() -> None:
    bench, _ = simulated_bench(memory_bytes=512 * MIB)
    bench.succeed(StartDomain(vm_id=VM, epoch=1, spec=spec_of()))

    request = PlugMemory(vm_id=VM, name="m1", size_bytes=3 * BLOCK)
    failure = bench.refuse(request)
    assert (failure.code, failure.can_retry) == ("out_of_memory", True)


def test_cpus_that_the_host_has_not_are_not_plugged_where_they_are_counted() -> None:
    bench, _ = simulated_bench(SimulatedConfig(cpu_overcommit_percent=100), cpus=2)
    bench.succeed(StartDomain(vm_id=VM, epoch=1, spec=spec_of()))

    assert bench.refuse(SetVcpus(vm_id=VM, vcpus=3)).code == "out_of_cpus"
    bench.succeed(SetVcpus(vm_id=VM, vcpus=2))
    assert bench.refuse(StartDomain(vm_id="v2", epoch=1, spec=spec_of("two"))).code == "out_of_cpus"


def test_counters_never_go_back_whatever_is_plugged() -> None:
    tasks, _ = simulated_task_bench()
    requests: list[HypervisorRequest] = [
        SetVcpus(vm_id=VM, vcpus=3),
        AttachDisk(vm_id=VM, disk=DiskSpec(name="vdb", size_bytes=MIB)),
        AttachNic(vm_id=VM, nic=NicSpec(name="eth1")),
        PlugMemory(vm_id=VM, name="m1", size_bytes=BLOCK),
        SetVcpus(vm_id=VM, vcpus=1),
        DetachDisk(vm_id=VM, name="vdb"),
    ]
    _, (before,) = tasks.bench.backend.statistics()
    for request in requests:
        tasks.do(request)
        _, (after,) = tasks.bench.backend.statistics()
        assert after.cpu_usage_ns > before.cpu_usage_ns
        assert after.disks[0].written_bytes >= before.disks[0].written_bytes
        assert after.nics[0].rx_bytes >= before.nics[0].rx_bytes
        before = after
    assert (before.vcpu_count, before.mem_total_kib) == (1, (256 * MIB + BLOCK) // 1024)
    assert [nic.name for nic in before.nics] == ["eth0", "eth1"]
    assert [disk.name for disk in before.disks] == ["vda", "cd"]


def test_balloon_is_followed_by_a_guest_that_is_up() -> None:
    tasks, _ = simulated_task_bench()
    tasks.do(SetBalloon(vm_id=VM, memory_bytes=128 * MIB))
    _, (sample,) = tasks.bench.backend.statistics()

    assert (sample.balloon_cur_kib, sample.balloon_target_kib, sample.balloon_max_kib) == (
        128 * 1024,
        128 * 1024,
        256 * 1024,
    )


def test_storage_that_is_full_takes_nothing_more() -> None:
    tasks, _ = simulated_task_bench(SimulatedConfig(storage_bytes=200 * MIB))
    tasks.do(CreatePool(name="p", path="/p"))
    tasks.do(CreateVolume(pool="p", name="a", size_bytes=100 * MIB))

    failure = tasks.failure(CreateVolume(pool="p", name="b", size_bytes=37 * MIB))
    assert (failure.code, failure.can_retry) == ("no_space", True)
    assert tasks.refused(ResizeVolume(pool="p", name="a", size_bytes=137 * MIB)) == "no_space"
    tasks.do(ResizeVolume(pool="p", name="a", size_bytes=136 * MIB))
    assert tasks.refused(AttachDisk(vm_id=VM, disk=DiskSpec(name="vdb", size_bytes=1))) == "no_space"


def test_machine_whose_disk_cannot_be_made_does_not_start() -> None:
    bench, _ = simulated_bench(SimulatedConfig(storage_bytes=10 * MIB))

    assert bench.refuse(StartDomain(vm_id=VM, epoch=1, spec=spec_of())).code == "no_space"
    assert bench.backend.domains() == []


# ---------------------------------------------------------------- what stays and what moves


def test_disks_and_snapshots_outlive_the_machine_and_the_hosts_boot() -> None:
    tasks, hypervisor = simulated_task_bench()
    tasks.do(CreateSnapshot(vm_id=VM, name="s1"))
    hypervisor.power_off()
    hypervisor.power_on()
    tasks.do(StartDomain(vm_id=VM, epoch=2, spec=spec_of()))

    assert tasks.snapshots() == ["s1"]
    volumes = tasks.do(ListVolumes(pool="default"))
    assert isinstance(volumes, VolumeList)
    assert [volume.name for volume in volumes.volumes] == [f"{VM}-vda"]


def snapshots_of(bench: Bench) -> list[str]:
    value = bench.succeed(ListSnapshots(vm_id="v1")).value
    assert isinstance(value, SnapshotList)
    return [snapshot.name for snapshot in value.snapshots]


@pytest.mark.parametrize("is_shared", [True, False])
def test_snapshots_are_found_by_each_host_that_has_the_storage(is_shared: bool) -> None:
    scheduler, fabric, store = VirtualScheduler(), MemoryFabric(), MemorySnapshots()
    source, target = (
        simulated_bench(
            name=name, scheduler=scheduler, fabric=fabric, snapshots=store if is_shared else None
        )[0]
        for name in ("h1", "h2")
    )
    source.start()
    source.succeed(AttachDisk(vm_id="v1", disk=DiskSpec(name="vdb", size_bytes=MIB)))
    source.succeed(CreateSnapshot(vm_id="v1", name="s1"))
    source.succeed(migrate_of(address_of(target)), seconds=50)
    assert snapshots_of(target) == (["s1"] if is_shared else [])

    if is_shared:
        target.succeed(CommitSnapshot(vm_id="v1", name="s1"))
    target.succeed(DestroyDomain(vm_id="v1"))
    source.start(epoch=3)
    assert snapshots_of(source) == ([] if is_shared else ["s1"])


class LockedSnapshots(MemorySnapshots):
    is_locked = False

    def keep(self, vm_id: str, snapshots: tuple[TakenSnapshot, ...]) -> None:
        if self.is_locked:
            raise OSError("the storage does not answer")
        super().keep(vm_id, snapshots)


@pytest.mark.parametrize(
    "request_",
    [
        CreateSnapshot(vm_id="v1", name="s2"),
        CommitSnapshot(vm_id="v1", name="s1"),
        RevertSnapshot(vm_id="v1", name="s1"),
    ],
    ids=lambda request: type(request).__name__,
)
def test_snapshots_that_cannot_be_written_stay_as_they_were(request_: HypervisorRequest) -> None:
    store = LockedSnapshots()
    bench, _ = simulated_bench(snapshots=store)
    bench.start()
    bench.succeed(AttachDisk(vm_id="v1", disk=DiskSpec(name="vdb", size_bytes=MIB)))
    bench.succeed(CreateSnapshot(vm_id="v1", name="s1"))
    so_far = bench.kinds()
    store.is_locked = True
    failure = bench.refuse(request_)
    assert (failure.code, failure.can_retry) == ("call_failed", True)
    assert "the storage does not answer" in failure.message
    assert (snapshots_of(bench), bench.kinds()) == (["s1"], so_far)
    store.is_locked = False
    bench.succeed(request_)


@pytest.mark.parametrize("prepared_bytes", [256 * MIB, 256 * MIB + BLOCK, 256 * MIB + 3 * BLOCK])
def test_arrival_is_as_large_as_its_source_however_it_was_prepared(prepared_bytes: int) -> None:
    scheduler, fabric, truth = VirtualScheduler(), MemoryFabric(), OneCopy()
    source, here = simulated_bench(scheduler=scheduler, fabric=fabric)
    target, there = simulated_bench(name="h2", scheduler=scheduler, fabric=fabric)
    for hypervisor in (here, there):
        hypervisor.set_observer(truth)
    source.succeed(StartDomain(vm_id="v1", epoch=1, spec=spec_of()))
    source.succeed(PlugMemory(vm_id="v1", name="m1", size_bytes=BLOCK))
    before = truth.there["h1", "v1", 1]
    uri = address_of(target, memory_bytes=prepared_bytes)
    source.succeed(migrate_of(uri), seconds=50)

    state = target.state()
    assert state is not None
    assert state.memory_bytes == 256 * MIB + BLOCK
    assert truth.there["h2", "v1", 2] == before
    target.succeed(UnplugMemory(vm_id="v1", name="m1"))
    assert truth.there["h2", "v1", 2] == before - BLOCK
    target.succeed(DestroyDomain(vm_id="v1"))
    assert truth.there == {}


def test_machine_that_migrates_takes_no_tasks_but_may_be_asked() -> None:
    scheduler, fabric = VirtualScheduler(), MemoryFabric()
    source, _ = simulated_bench(scheduler=scheduler, fabric=fabric)
    target, _ = simulated_bench(name="h2", scheduler=scheduler, fabric=fabric)
    source.start()
    source.call(migrate_of(address_of(target), bandwidth_bytes_per_s=1e6))
    scheduler.advance(10)

    assert source.refuse(SetVcpus(vm_id="v1", vcpus=2), seconds=0).code == "wrong_state"
    source.succeed(ListSnapshots(vm_id="v1"), seconds=0)


def test_screens_of_machines_have_ports_of_their_own() -> None:
    tasks, _ = simulated_task_bench()
    tasks.do(StartDomain(vm_id="v2", epoch=1, spec=spec_of("two")))
    tasks.do(StartDomain(vm_id="v3", epoch=1, spec=spec_of("three", vnc=False)))
    ports = [
        getattr(tasks.do(SetConsoleTicket(vm_id=vm_id, password="x")), "port", 0) for vm_id in (VM, "v2", VM)
    ]

    assert ports == [5900, 5901, 5900]
    assert tasks.refused(SetConsoleTicket(vm_id="v3", password="x")) == "not_found"


# ---------------------------------------------------------------- reverts


REVERT = RevertSnapshot(vm_id=VM, name="s1")


def with_snapshot(config: SimulatedConfig | None = None) -> tuple[TaskBench, SimulatedHypervisor]:
    tasks, hypervisor = simulated_task_bench(config)
    tasks.do(CreateSnapshot(vm_id=VM, name="s1", with_memory=True))
    tasks.bench.events.clear()
    return tasks, hypervisor


def kinds(tasks: TaskBench) -> list[str]:
    return [event.kind for event in tasks.bench.events]


def test_nothing_else_is_done_to_a_machine_while_it_is_reverted_but_its_destruction() -> None:
    tasks, _ = with_snapshot(SimulatedConfig(task_time_s=5))
    answers = tasks.bench.call(REVERT)
    others: list[HypervisorRequest] = [REVERT, SetVcpus(vm_id=VM, vcpus=2), PauseDomain(vm_id=VM)]
    codes = [tasks.bench.refuse(request, seconds=0).code for request in others]
    tasks.bench.succeed(DestroyDomain(vm_id=VM), seconds=0)

    assert codes == ["wrong_state"] * 3
    (answer,) = answers
    assert isinstance(answer, CallFailed)
    assert answer.code == "domain_ended"
    assert kinds(tasks) == ["stopped"]


def test_machine_that_does_not_run_again_after_its_revert_has_crashed_and_keeps_its_snapshots() -> None:
    tasks, _ = with_snapshot(SimulatedConfig(start_fails_probability=0.3))
    for _ in range(40):
        tasks.bench.events.clear()
        answer = tasks.bench.settle(REVERT)
        if isinstance(answer, CallFailed):
            break
    assert isinstance(answer, CallFailed)

    assert answer.code == "start_failed"
    assert "as they were before" in answer.message
    assert kinds(tasks) == ["crashed"]
    assert tasks.bench.state(VM) is None
    while isinstance(tasks.bench.settle(StartDomain(vm_id=VM, epoch=2, spec=spec_of())), CallFailed):
        tasks.bench.scheduler.advance(1)
    assert tasks.snapshots() == ["s1"]


def test_paused_machine_continues_to_be_reverted_and_what_was_plugged_stays() -> None:
    tasks, hypervisor = with_snapshot()
    hypervisor.set_observer(OneCopy())
    tasks.do(PlugMemory(vm_id=VM, name="m1", size_bytes=BLOCK))
    tasks.do(SetVcpus(vm_id=VM, vcpus=2))
    tasks.do(PauseDomain(vm_id=VM))
    used_mb = tasks.bench.backend.statistics()[0].mem_free_mb
    tasks.bench.events.clear()
    tasks.do(REVERT)
    tasks.bench.scheduler.advance(300)

    state = tasks.bench.state(VM)
    assert state is not None
    assert (state.status, state.vcpus, state.memory_bytes) == ("up", 2, 256 * MIB + BLOCK)
    assert kinds(tasks) == ["continued", "rebooted", "guest_up"]
    assert tasks.bench.backend.statistics()[0].mem_free_mb == used_mb
    assert tasks.refused(UnplugMemory(vm_id=VM, name="m1")) == "not_found"


def test_revert_that_libvirtds_death_cuts_off_was_done_or_not_or_ended_the_machine() -> None:
    found = set()
    for number in range(24):
        tasks, hypervisor = with_snapshot(SimulatedConfig(task_time_s=5))
        for _ in range(number % 12):
            tasks.do(SetCpuQuota(vm_id=VM, percent=50))
        tasks.bench.events.clear()
        answers = tasks.bench.call(REVERT)
        hypervisor.restart_libvirtd()
        (answer,) = answers
        assert isinstance(answer, CallFailed)
        assert not answer.outcome_known
        found.add(tuple(kind for kind in kinds(tasks) if kind in ("rebooted", "crashed")))
    assert found == {(), ("rebooted",), ("crashed",)}
