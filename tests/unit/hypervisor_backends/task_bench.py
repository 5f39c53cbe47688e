"""One running machine on a bench, for the tests of tasks."""

from __future__ import annotations

import msgspec
import pytest

from hypervisor_backends.protocol import (
    CallFailed,
    CallResult,
    CallSucceeded,
    DomainSpec,
    HypervisorRequest,
    ListNetworks,
    ListSnapshots,
    ListVolumes,
    NetworkInfo,
    NetworkList,
    SnapshotList,
    StartDomain,
    VolumeInfo,
    VolumeList,
)
from hypervisor_backends.simulated import SimulatedHypervisor
from hypervisor_backends.simulated_config import SimulatedConfig
from olvm.model.hardware import DiskSpec, Hardware, NicSpec
from tests.unit.hypervisor_backends.bench import Bench, RealClock, VirtualScheduler, simulated_bench

MIB = 1024 * 1024
VM = "0b0e7a52-96f1-4d6a-8f6c-0a5b8f0f0001"
HARDWARE = Hardware(
    disks=(
        DiskSpec(name="vda", size_bytes=64 * MIB),
        DiskSpec(name="cd", device="cdrom", bus="scsi"),
    ),
    nics=(NicSpec(name="eth0"),),
    vcpus_max=3,
    memory_bytes_max=1024 * MIB,
)


def spec_of(name: str = "tasks-1", **hardware: object) -> DomainSpec:
    return DomainSpec(
        name=name,
        vcpus=1,
        memory_bytes=256 * MIB,
        hardware=msgspec.structs.replace(HARDWARE, **hardware),
    )


class TaskBench:
    """A machine that runs, `directory` of the host for pools, and files that are there to be put into a drive."""

    def __init__(self, bench: Bench, directory: str, media: tuple[str, str], vm_id: str = VM) -> None:
        self.bench = bench
        self.directory = directory
        self.media = media
        self.vm_id = vm_id

    def need(self, *features: str) -> None:
        missing = set(features) - set(self.bench.backend.capabilities.features)
        if missing:
            pytest.skip(f"this backend does not declare {sorted(missing)}")

    def do(self, request: HypervisorRequest) -> object:
        result = self._settled(request)
        assert isinstance(result, CallSucceeded), result
        return result.value

    def _settled(self, request: HypervisorRequest) -> CallResult:
        """Virtual time passes far enough for any task; real time is not wasted."""
        is_virtual = isinstance(self.bench.scheduler, VirtualScheduler)
        return self.bench.settle(request) if is_virtual else self.bench.ask(request)

    def refused(self, request: HypervisorRequest) -> str:
        """The code of the refusal."""
        return self.failure(request).code

    def failure(self, request: HypervisorRequest) -> CallFailed:
        failure = self._settled(request)
        assert isinstance(failure, CallFailed), failure
        assert failure.outcome_known, failure
        assert failure.message
        return failure

    def volumes(self, pool: str) -> dict[str, VolumeInfo]:
        value = self.do(ListVolumes(pool=pool))
        assert isinstance(value, VolumeList)
        return {volume.name: volume for volume in value.volumes}

    def snapshots(self) -> list[str]:
        value = self.do(ListSnapshots(vm_id=self.vm_id))
        assert isinstance(value, SnapshotList)
        return [snapshot.name for snapshot in value.snapshots]

    def wait_until_up(self) -> bool:
        """Whether its guest was heard in time, on a host that boots it for real too."""
        clock = self.bench.scheduler
        if isinstance(clock, RealClock):
            clock.run_until(lambda: self.bench.status(self.vm_id) in ("up", None), 120)
        else:
            clock.advance(300)
        is_up = self.bench.status(self.vm_id) == "up"
        assert is_up or self.bench.status(self.vm_id) is not None, f"it has ended: {self.bench.events[-3:]}"
        return is_up

    def networks(self) -> dict[str, NetworkInfo]:
        value = self.do(ListNetworks())
        assert isinstance(value, NetworkList)
        return {network.name: network for network in value.networks}


def simulated_task_bench(
    config: SimulatedConfig | None = None, **hardware: object
) -> tuple[TaskBench, SimulatedHypervisor]:
    bench, hypervisor = simulated_bench(config)
    bench.succeed(StartDomain(vm_id=VM, epoch=1, spec=spec_of(**hardware)))
    return TaskBench(bench, "/pools", ("/media/a.iso", "/media/b.iso")), hypervisor
