"""Snapshots of the domains of a simulated host: taken, listed, committed, gone back to.

There is no data in a simulated disk; a revert shows by the guest that begins anew, and by what it may not do.
"""

from __future__ import annotations

from msgspec.structs import replace

from hypervisor_backends.protocol import (
    CallFailed,
    CallResult,
    CallSucceeded,
    CommitSnapshot,
    CreateSnapshot,
    ExitReason,
    ListSnapshots,
    RevertSnapshot,
    SnapshotInfo,
    SnapshotList,
)
from hypervisor_backends.simulated_devices import DeviceTasks
from hypervisor_backends.simulated_domain import SimulatedDomain
from hypervisor_backends.simulated_machine import SUCCEEDED
from hypervisor_backends.simulated_task_frame import Plan, TaskRefused
from hypervisor_backends.snapshot_store import TakenSnapshot
from hypervisor_backends.task_rules import check_snapshot_name
from olvm.model.hardware import Hardware


class SnapshotTasks(DeviceTasks):
    def _create_snapshot(self, domain: SimulatedDomain, request: CreateSnapshot) -> Plan:
        check_snapshot_name(request.name)
        what = f"snapshot {request.name} of {self._who(domain)} cannot be taken"
        written = _written_disks(domain)
        if not written:
            raise TaskRefused("bad_request", f"{what}: it has no disk that it could write to")
        self._check_name(domain, request.name, what)
        if request.quiesce and not self.has_qemu_agent(domain):
            raise TaskRefused("guest_refused", f"{what}: no agent in the guest can freeze it", can_retry=True)
        taken = TakenSnapshot(
            name=request.name,
            created_ns=self._host.scheduler.now_ns(),
            with_memory=request.with_memory,
            disks=written,
            vcpus=domain.spec.vcpus,
            memory_bytes=domain.memory_bytes,
            hardware=_without_seed(domain),
        )

        def finish() -> CallResult:
            self._check_name(domain, request.name, what)  # another one may have been quicker
            self._host.snapshots.keep(domain.vm_id, (*self._kept(domain), taken))
            return SUCCEEDED

        delay_s = self._config.task_time_s
        if request.with_memory and self._config.save_bytes_per_s:
            delay_s += domain.memory_bytes / self._config.save_bytes_per_s
        return delay_s, finish

    def _check_name(self, domain: SimulatedDomain, name: str, what: str) -> None:
        if any(one.name == name for one in self._kept(domain)):
            raise TaskRefused("exists", f"{what}: it has one of that name; take another name")

    def _commit_snapshot(self, domain: SimulatedDomain, request: CommitSnapshot) -> Plan:
        kept = self._kept(domain)
        self._present("snapshot", request.name, domain, [one.name for one in kept])
        if kept[-1].name != request.name:
            what = f"snapshot {request.name} of {self._who(domain)} cannot be committed"
            raise TaskRefused("in_use", f"{what}: {kept[-1].name} stands on it; commit that one first")

        def finish() -> CallResult:
            left = tuple(one for one in self._kept(domain) if one.name != request.name)
            self._host.snapshots.keep(domain.vm_id, left)
            return SUCCEEDED

        return self._config.commit_time_s, finish

    def _list_snapshots(self, domain: SimulatedDomain, request: ListSnapshots) -> Plan:
        del request
        infos = tuple(
            SnapshotInfo(
                name=one.name, created_ns=one.created_ns, with_memory=one.with_memory, disks=one.disks
            )
            for one in self._kept(domain)
        )
        return 0.0, lambda: CallSucceeded(value=SnapshotList(snapshots=infos))

    # ------------------------------------------------------------ revert

    def _revert_snapshot(self, domain: SimulatedDomain, request: RevertSnapshot) -> Plan:
        what = f"{self._who(domain)} cannot be reverted to snapshot {request.name}"
        self._kept_by_revert(domain, request, what)
        delay_s = self._config.task_time_s
        if request.with_memory and self._config.restore_bytes_per_s:
            delay_s += domain.memory_bytes / self._config.restore_bytes_per_s
        fails = self._host.chance(
            domain, f"revert_fails_{domain.task_count}", self._config.start_fails_probability
        )

        def finish() -> CallResult:
            kept = self._kept_by_revert(domain, request, what)  # one may have been taken meanwhile
            if fails:
                return self._stopped(domain, what)
            self._host.snapshots.keep(domain.vm_id, kept)
            self._host.revert(domain, boots=not request.with_memory)
            return SUCCEEDED

        return delay_s, finish

    def _kept_by_revert(
        self, domain: SimulatedDomain, request: RevertSnapshot, what: str
    ) -> tuple[TakenSnapshot, ...]:
        """Those that are left after it; raises `TaskRefused`."""
        kept = self._kept(domain)
        names = [one.name for one in kept]
        self._present("snapshot", request.name, domain, names)
        at = names.index(request.name)
        self._check_revert(domain, request, kept[at], kept[at + 1 :], what)
        return kept[: at + 1]

    def _check_revert(
        self,
        domain: SimulatedDomain,
        request: RevertSnapshot,
        wanted: TakenSnapshot,
        later: tuple[TakenSnapshot, ...],
        what: str,
    ) -> None:
        written = _written_disks(domain)
        missing = [name for name in wanted.disks if name not in written]
        if missing:
            raise TaskRefused(
                "wrong_state", f"{what}: its disk {missing[0]} is not attached; attach that disk"
            )
        if later and not request.discard_later:
            names = ", ".join(one.name for one in later)
            words = (
                f"{names} was taken later and would be lost; commit it first, or ask again with discard_later"
            )
            raise TaskRefused("in_use", f"{what}: {words}")
        apart = [name for one in later for name in one.disks if name not in wanted.disks]
        if apart:
            words = f"{later[-1].name} is also of disk {apart[0]}, which came later and stays as it is"
            raise TaskRefused("in_use", f"{what}: {words}; commit {later[-1].name} first")
        if not request.with_memory:
            return
        if not wanted.with_memory:
            words = "it was taken without; ask again without with_memory"
            raise TaskRefused("bad_request", f"{what} with its memory: {words}")
        now = (domain.spec.vcpus, domain.memory_bytes, _without_seed(domain))
        if now != (wanted.vcpus, wanted.memory_bytes, wanted.hardware):
            words = "its hardware changed since; change that back, or ask again without with_memory"
            raise TaskRefused("wrong_state", f"{what} with its memory: {words}")

    def _stopped(self, domain: SimulatedDomain, what: str) -> CallFailed:
        """The old QEMU is gone, and none came in its place."""
        words = "it was stopped to be reverted and does not run again; its disks are as they were before: start it"
        self._host.end(domain, "crashed", ExitReason.GENERIC_ERROR, words)
        return CallFailed(code="start_failed", message=f"{what}: {words}")

    # ------------------------------------------------------------ what is there

    def _kept(self, domain: SimulatedDomain) -> tuple[TakenSnapshot, ...]:
        return self._host.snapshots.of(domain.vm_id)

    def has_qemu_agent(self, domain: SimulatedDomain) -> bool:
        return is_heard(domain) and self._host.scheduler.now_ns() >= domain.qemu_agent_ns


def _written_disks(domain: SimulatedDomain) -> tuple[str, ...]:
    disks = domain.spec.hardware.disks
    return tuple(one.name for one in disks if one.device == "disk" and not one.read_only)


def _without_seed(domain: SimulatedDomain) -> Hardware:
    return replace(domain.spec.hardware, cloud_init=None)


def is_heard(domain: SimulatedDomain) -> bool:
    return domain.run_ns is not None and domain.guest_since_ns is not None
