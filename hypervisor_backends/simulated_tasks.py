"""The tasks of a simulated host: what is plugged, set and frozen in its domains, how long that takes, and who refuses.

Decides what each task changes and when. How domains live is `simulated_host.py`; pools, volumes and networks are
`simulated_storage.py`. The load model knows the disks and cards that a domain started with: one that is plugged later
idles. What is plugged and frozen goes along with a live migration.

Invariants:

1. A task that is under way is answered exactly once: by its end, or by the domain's. A lost host answers nobody.
2. Room for memory and CPUs is taken before the guest gets it and given back after it let go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeAlias

import msgspec

from hypervisor_backends.protocol import (
    AttachDisk,
    AttachNic,
    CallFailed,
    CallGuest,
    CallResult,
    CallSucceeded,
    ChangeMedium,
    CommitSnapshot,
    ConsoleAddress,
    CreateSnapshot,
    DetachDisk,
    DetachNic,
    DomainSpec,
    DomainTask,
    Done,
    FailureCode,
    FreezeGuest,
    GuestAnswer,
    HostTask,
    ListSnapshots,
    PlugMemory,
    ResizeVolume,
    SetBalloon,
    SetConsoleTicket,
    SetCpuQuota,
    SetNicLink,
    SetVcpus,
    SnapshotInfo,
    SnapshotList,
    ThawGuest,
    UnplugMemory,
)
from hypervisor_backends.simulated_domain import GUEST_RUNS, SimulatedDomain
from hypervisor_backends.simulated_host import SimulatedHost
from hypervisor_backends.simulated_machine import SUCCEEDED
from hypervisor_backends.simulated_storage import SimulatedStorage, StorageRefused
from hypervisor_backends.task_rules import (
    check_balloon,
    check_bridge_name,
    check_plugged_memory,
    check_quota,
    check_snapshot_name,
    check_ticket,
    check_vcpus,
)
from olvm.model.errors import BadInput
from olvm.model.hardware import DiskSpec, NicSpec, check_disk, check_nic
from olvm.model.limits import DISKS_PER_VM_MAX, NICS_PER_VM_MAX, NS_PER_S

TASKABLE = GUEST_RUNS | {"paused"}
# What can be asked while the domain migrates, as QEMU has it.
DURING_MIGRATION = (ListSnapshots,)
FIRST_CONSOLE_PORT = 5900

# How long the task takes, and what is then done and answered.
Plan: TypeAlias = tuple[float, Callable[[], CallResult]]


class TaskRefused(Exception):
    """Ends a task with this answer; never leaves this module."""

    def __init__(self, code: FailureCode, message: str, *, can_retry: bool = False) -> None:
        super().__init__(message)
        self.failure = CallFailed(code=code, message=message, can_retry=can_retry)


class Tasks:
    """The tasks of one host. Drains nothing: whoever calls it does."""

    def __init__(self, host: SimulatedHost) -> None:
        self._host = host
        self._config = host.config
        self.storage = SimulatedStorage(
            host.name, host.config.storage_bytes, self._disk_users, self._network_users
        )
        self._plans: dict[type[DomainTask], Callable[[SimulatedDomain, Any], Plan]] = {
            SetVcpus: self._set_vcpus,
            SetBalloon: self._set_balloon,
            PlugMemory: self._plug_memory,
            UnplugMemory: self._unplug_memory,
            AttachDisk: self._attach_disk,
            DetachDisk: self._detach_disk,
            ChangeMedium: self._change_medium,
            AttachNic: self._attach_nic,
            DetachNic: self._detach_nic,
            SetNicLink: self._set_nic_link,
            SetCpuQuota: self._set_cpu_quota,
            CreateSnapshot: self._create_snapshot,
            CommitSnapshot: self._commit_snapshot,
            ListSnapshots: self._list_snapshots,
            SetConsoleTicket: self._set_console_ticket,
            CallGuest: self._call_guest,
            FreezeGuest: self._freeze,
            ThawGuest: self._thaw,
        }

    # ------------------------------------------------------------ how a task goes

    def run_on_host(self, request: HostTask, done: Done) -> None:
        result = self.storage.run(request)
        if isinstance(result, CallSucceeded) and isinstance(request, ResizeVolume):
            self._grow(request)
        self._host.outbox.answer(done, result)

    def run(self, request: DomainTask, domain: SimulatedDomain, done: Done) -> None:
        try:
            delay_s, finish = self._plans[type(request)](domain, request)
        except (TaskRefused, StorageRefused) as refused:
            self._host.outbox.answer(done, refused.failure)
            return
        except BadInput as error:
            message = f"{type(request).__name__} of {self._who(domain)}: {error.message}"
            self._host.fail(done, "bad_request", message)
            return
        if delay_s <= 0:
            self._host.outbox.answer(done, finish())
            return
        domain.task_count += 1
        number = domain.task_count
        due_ns = self._host.scheduler.now_ns() + int(delay_s * NS_PER_S)
        timer = self._host.scheduler.call_at(due_ns, partial(self._finish, domain, number, finish))
        domain.tasks[number] = (timer, done)

    def wrong_state(self, request: DomainTask, domain: SimulatedDomain) -> str | None:
        """Why the domain's present state does not admit the task."""
        if domain.status not in TASKABLE:
            return f"its status is {domain.shown_status()}; wait for another one"
        if domain.outgoing is not None and not isinstance(request, DURING_MIGRATION):
            return "it migrates; wait for the end of that, or cancel it"
        return None

    def prepared(self, vm_id: str, spec: DomainSpec) -> DomainSpec | CallFailed:
        """The spec of a start with the paths of its disks, which are made where they are missing."""
        what = f"domain {spec.name} ({vm_id}) cannot start on host {self._host.name}"
        disks = []
        for disk in spec.hardware.disks:
            try:
                disks.append(self.storage.disk_with_source(vm_id, disk))
            except StorageRefused as refused:
                return refused.failure
            except BadInput as error:
                return CallFailed(code="bad_request", message=f"{what}: {error.message}")
        if not disks:
            return spec
        return msgspec.structs.replace(
            spec, hardware=msgspec.structs.replace(spec.hardware, disks=tuple(disks))
        )

    def _finish(self, domain: SimulatedDomain, number: int, finish: Callable[[], CallResult]) -> None:
        _, done = domain.tasks.pop(number)
        self._host.outbox.answer(done, finish())
        self._host.outbox.drain()

    def _soon(self, result: CallResult = SUCCEEDED) -> Plan:
        """All is done already, and it takes a moment to be told."""
        return self._config.task_time_s, lambda: result

    def _let_go(self, domain: SimulatedDomain, what: str, take: Callable[[], None]) -> Plan:
        """The guest must do its part: it does, or the time is up and all stays as it was."""
        willing = domain.run_ns is not None and domain.guest_since_ns is not None
        purpose = f"refuses_unplug_{domain.task_count}"
        if self._host.faults.use("guest_refuses_unplug", domain.vm_id, domain.spec.name) or self._host.chance(
            domain, purpose, self._config.guest_refuses_unplug_probability
        ):
            willing = False
        if not willing:
            failure = CallFailed(
                code="guest_refused",
                message=f"{what} of {self._who(domain)} stays: the guest did not let go of it; try again later",
                can_retry=True,
            )
            return self._config.unplug_timeout_s, lambda: failure

        def finish() -> CallResult:
            take()
            return SUCCEEDED

        return self._config.task_time_s, finish

    def _who(self, domain: SimulatedDomain) -> str:
        return f"domain {domain.spec.name} on host {self._host.name}"

    # ------------------------------------------------------------ CPUs and memory

    def _set_vcpus(self, domain: SimulatedDomain, request: SetVcpus) -> Plan:
        check_vcpus(request.vcpus, domain.vcpus_max)
        more = request.vcpus - domain.spec.vcpus
        if more < 0:
            if "hot_unplug_vcpu" not in self._host.capabilities.features:
                raise TaskRefused(
                    "not_supported", f"host {self._host.name} cannot unplug a CPU; restart the machine"
                )
            return self._let_go(domain, "a CPU", lambda: self._host.set_vcpus(domain, request.vcpus))
        percent = self._config.cpu_overcommit_percent
        room = self._host.capabilities.cpus * percent // 100 - self._host.vcpus_used
        if percent and more > room:
            message = (
                f"{self._who(domain)} cannot have {more} more vCPUs: {room} are free; migrate something away"
            )
            raise TaskRefused("out_of_cpus", message, can_retry=True)
        if more:
            self._host.set_vcpus(domain, request.vcpus)
        return self._soon()

    def _set_balloon(self, domain: SimulatedDomain, request: SetBalloon) -> Plan:
        check_balloon(request, domain.memory_bytes)
        domain.balloon_bytes = request.memory_bytes
        return self._soon()

    def _set_cpu_quota(self, domain: SimulatedDomain, request: SetCpuQuota) -> Plan:
        check_quota(request)
        self._change(domain, cpu_quota_percent=request.percent)
        return self._soon()

    def _plug_memory(self, domain: SimulatedDomain, request: PlugMemory) -> Plan:
        present = domain.plugged.get(request.name)
        what = f"memory device {request.name} cannot be plugged into {self._who(domain)}"
        if present is not None:
            if present != (request.size_bytes, request.node):
                raise TaskRefused("exists", f"{what}: it has one of that name; take another name")
            return self._soon()
        hardware = domain.spec.hardware
        if hardware.memory_bytes_max <= domain.spec.memory_bytes:
            raise TaskRefused(
                "bad_request", f"{what}: it has no room; start it with a larger memory_bytes_max"
            )
        check_plugged_memory(request, hardware.memory_bytes_max - domain.memory_bytes, hardware.numa_nodes)
        memory_bytes_max = (
            self._host.capabilities.memory_bytes * self._config.memory_overcommit_percent // 100
        )
        free_bytes = memory_bytes_max - self._host.memory_used_bytes
        if request.size_bytes > free_bytes:
            raise TaskRefused(
                "out_of_memory", f"{what}: {free_bytes} bytes are free on the host", can_retry=True
            )
        self._host.plug_memory(domain, request.name, (request.size_bytes, request.node))
        return self._soon()

    def _unplug_memory(self, domain: SimulatedDomain, request: UnplugMemory) -> Plan:
        self._present("memory device", request.name, domain, domain.plugged)
        what = f"memory device {request.name}"
        return self._let_go(domain, what, lambda: self._host.unplug_memory(domain, request.name))

    # ------------------------------------------------------------ disks

    def _attach_disk(self, domain: SimulatedDomain, request: AttachDisk) -> Plan:
        disk = request.disk
        check_disk(disk)
        what = f"disk {disk.name} cannot be attached to {self._who(domain)}"
        if disk.bus == "sata":
            raise TaskRefused("bad_request", f"{what}: a sata disk cannot be plugged; use bus virtio or scsi")
        disks = {one.name: one for one in domain.spec.hardware.disks}
        if disk.name in disks:
            if disk.source and self.storage.resolved(disk.source) != disks[disk.name].source:
                raise TaskRefused("exists", f"{what}: it has a disk of that name; take another name")
            return self._soon()
        if len(disks) >= DISKS_PER_VM_MAX:
            raise TaskRefused(
                "bad_request", f"{what}: {DISKS_PER_VM_MAX} disks are the most that it can have"
            )
        made = self.storage.disk_with_source(domain.vm_id, disk)
        if not self.storage.exists(made.source):
            raise TaskRefused("not_found", f"{what}: {made.source} is not there; create it first")
        user = self._disk_users().get(made.source)
        if user and not made.read_only and made.device == "disk":
            raise TaskRefused("in_use", f"{what}: domain {user} has it open", can_retry=True)
        self._set_disks(domain, (*disks.values(), made))
        return self._soon()

    def _detach_disk(self, domain: SimulatedDomain, request: DetachDisk) -> Plan:
        self._present("disk", request.name, domain, [one.name for one in domain.spec.hardware.disks])

        def take() -> None:
            kept = [one for one in domain.spec.hardware.disks if one.name != request.name]
            self._set_disks(domain, tuple(kept))

        return self._let_go(domain, f"disk {request.name}", take)

    def _change_medium(self, domain: SimulatedDomain, request: ChangeMedium) -> Plan:
        disks = {one.name: one for one in domain.spec.hardware.disks}
        self._present("disk", request.name, domain, disks)
        disk = disks[request.name]
        what = f"the medium of {request.name} of {self._who(domain)} cannot be changed"
        if disk.device != "cdrom":
            raise TaskRefused("bad_request", f"{what}: it is a disk; detach it and attach another one")
        source = self.storage.resolved(request.source) if request.source else ""
        if not self.storage.exists(source):
            raise TaskRefused("not_found", f"{what}: {source} is not there")
        disks[request.name] = msgspec.structs.replace(disk, source=source)
        self._set_disks(domain, tuple(disks.values()))
        return self._soon()

    def _set_disks(self, domain: SimulatedDomain, disks: tuple[DiskSpec, ...]) -> None:
        self._change(domain, disks=disks)
        self._host.devices_changed(domain)

    def _grow(self, request: ResizeVolume) -> None:
        path = self.storage.resolved(f"{request.pool}/{request.name}")
        for domain in self._host.domains.values():
            disks = domain.spec.hardware.disks
            if any(one.source == path for one in disks):
                grown = [
                    msgspec.structs.replace(one, size_bytes=request.size_bytes) if one.source == path else one
                    for one in disks
                ]
                self._set_disks(domain, tuple(grown))

    # ------------------------------------------------------------ network cards

    def _attach_nic(self, domain: SimulatedDomain, request: AttachNic) -> Plan:
        nic = request.nic
        check_nic(nic)
        what = f"network card {nic.name} cannot be attached to {self._who(domain)}"
        nics = {one.name: one for one in domain.spec.hardware.nics}
        if nic.name in nics:
            present = nics[nic.name]
            if (present.network, present.mac) != (nic.network, nic.mac):
                raise TaskRefused("exists", f"{what}: it has a card of that name; take another name")
            return self._soon()
        if len(nics) >= NICS_PER_VM_MAX:
            raise TaskRefused("bad_request", f"{what}: {NICS_PER_VM_MAX} cards are the most that it can have")
        if not self.storage.has_network(nic.network):
            check_bridge_name(nic.network)
            raise TaskRefused(
                "not_found", f"{what}: the host has no network or bridge {nic.network}; make it first"
            )
        if nic.mac and any(one.mac == nic.mac for one in nics.values()):
            raise TaskRefused("in_use", f"{what}: another card of it has the address {nic.mac}")
        self._set_nics(domain, (*nics.values(), nic))
        return self._soon()

    def _detach_nic(self, domain: SimulatedDomain, request: DetachNic) -> Plan:
        self._present("network card", request.name, domain, [one.name for one in domain.spec.hardware.nics])

        def take() -> None:
            kept = [one for one in domain.spec.hardware.nics if one.name != request.name]
            self._set_nics(domain, tuple(kept))

        return self._let_go(domain, f"network card {request.name}", take)

    def _set_nic_link(self, domain: SimulatedDomain, request: SetNicLink) -> Plan:
        nics = {one.name: one for one in domain.spec.hardware.nics}
        self._present("network card", request.name, domain, nics)
        nics[request.name] = msgspec.structs.replace(nics[request.name], link_up=request.up)
        self._set_nics(domain, tuple(nics.values()))
        return self._soon()

    def _set_nics(self, domain: SimulatedDomain, nics: tuple[NicSpec, ...]) -> None:
        self._change(domain, nics=nics)
        self._host.devices_changed(domain)

    # ------------------------------------------------------------ snapshots

    def _create_snapshot(self, domain: SimulatedDomain, request: CreateSnapshot) -> Plan:
        check_snapshot_name(request.name)
        what = f"snapshot {request.name} of {self._who(domain)} cannot be taken"
        kept = self._host.snapshots_by_vm_id.get(domain.vm_id, ())
        written = tuple(
            one.name for one in domain.spec.hardware.disks if one.device == "disk" and not one.read_only
        )
        if not written:
            raise TaskRefused("bad_request", f"{what}: it has no disk that it could write to")
        if any(one.name == request.name for one in kept):
            raise TaskRefused("exists", f"{what}: it has one of that name; take another name")
        if request.quiesce and not _is_heard(domain):
            raise TaskRefused("guest_refused", f"{what}: no agent in the guest can freeze it", can_retry=True)
        taken = SnapshotInfo(
            name=request.name,
            created_ns=self._host.scheduler.now_ns(),
            with_memory=request.with_memory,
            disks=written,
        )
        self._host.snapshots_by_vm_id[domain.vm_id] = (*kept, taken)
        delay_s = self._config.task_time_s
        if request.with_memory and self._config.save_bytes_per_s:
            delay_s += domain.memory_bytes / self._config.save_bytes_per_s
        return delay_s, lambda: SUCCEEDED

    def _commit_snapshot(self, domain: SimulatedDomain, request: CommitSnapshot) -> Plan:
        kept = self._host.snapshots_by_vm_id.get(domain.vm_id, ())
        self._present("snapshot", request.name, domain, [one.name for one in kept])
        if kept[-1].name != request.name:
            what = f"snapshot {request.name} of {self._who(domain)} cannot be committed"
            raise TaskRefused("in_use", f"{what}: {kept[-1].name} stands on it; commit that one first")

        def finish() -> CallResult:
            left = [one for one in self._host.snapshots_by_vm_id[domain.vm_id] if one.name != request.name]
            self._host.snapshots_by_vm_id[domain.vm_id] = tuple(left)
            return SUCCEEDED

        return self._config.commit_time_s, finish

    def _list_snapshots(self, domain: SimulatedDomain, request: ListSnapshots) -> Plan:
        del request
        kept = self._host.snapshots_by_vm_id.get(domain.vm_id, ())
        return 0.0, lambda: CallSucceeded(value=SnapshotList(snapshots=kept))

    # ------------------------------------------------------------ console and guest

    def _set_console_ticket(self, domain: SimulatedDomain, request: SetConsoleTicket) -> Plan:
        check_ticket(request)
        if not domain.spec.hardware.vnc:
            raise TaskRefused("not_found", f"{self._who(domain)} has no VNC screen; start it with vnc")
        if not domain.console_port:
            taken = {other.console_port for other in self._host.domains.values()}
            ports = range(FIRST_CONSOLE_PORT, FIRST_CONSOLE_PORT + len(taken) + 1)
            domain.console_port = next(port for port in ports if port not in taken)
        expires_ns = self._host.scheduler.now_ns() + request.valid_s * NS_PER_S
        address = ConsoleAddress(
            kind="vnc", host=self._host.name, port=domain.console_port, expires_ns=expires_ns
        )
        return self._soon(CallSucceeded(value=address))

    def _call_guest(self, domain: SimulatedDomain, request: CallGuest) -> Plan:
        """An agent that takes every word and has nothing to say."""
        if not _is_heard(domain):
            failure = self._silence(domain)
            return request.timeout_s, lambda: failure
        return self._soon(CallSucceeded(value=GuestAnswer()))

    def _freeze(self, domain: SimulatedDomain, request: FreezeGuest) -> Plan:
        del request
        return self._set_frozen(domain, is_frozen=True)

    def _thaw(self, domain: SimulatedDomain, request: ThawGuest) -> Plan:
        del request
        return self._set_frozen(domain, is_frozen=False)

    def _set_frozen(self, domain: SimulatedDomain, *, is_frozen: bool) -> Plan:
        if not _is_heard(domain):
            failure = self._silence(domain)
            return self._config.guest_timeout_s, lambda: failure
        domain.frozen = is_frozen
        return self._soon()

    def _silence(self, domain: SimulatedDomain) -> CallFailed:
        message = f"the guest of {self._who(domain)} does not answer; is it up, and its agent running?"
        return CallFailed(code="guest_silent", message=message, can_retry=True)

    # ------------------------------------------------------------ what is there

    def _present(self, kind: str, name: str, domain: SimulatedDomain, names: Iterable[str]) -> None:
        known = sorted(names)
        if name not in known:
            have = ", ".join(known) or "none"
            raise TaskRefused("not_found", f"{self._who(domain)} has no {kind} {name}; it has {have}")

    def _change(self, domain: SimulatedDomain, **changes: object) -> None:
        hardware = msgspec.structs.replace(domain.spec.hardware, **changes)
        domain.spec = msgspec.structs.replace(domain.spec, hardware=hardware)

    def _disk_users(self) -> dict[str, str]:
        return {
            disk.source: domain.spec.name
            for _, domain in sorted(self._host.domains.items())
            for disk in domain.spec.hardware.disks
            if disk.source
        }

    def _network_users(self) -> dict[str, str]:
        return {
            nic.network: domain.spec.name
            for _, domain in sorted(self._host.domains.items())
            for nic in domain.spec.hardware.nics
        }


def _is_heard(domain: SimulatedDomain) -> bool:
    return domain.run_ns is not None and domain.guest_since_ns is not None
