"""The tasks of a simulated host: which are admitted, when they are answered; screens, and the guest's agent.

How domains live is `simulated_host.py`; devices are `simulated_devices.py`, snapshots `simulated_snapshots.py`, pools,
volumes and networks `simulated_storage.py`. What is plugged goes along with a live migration; what is frozen lies on
the storage (`snapshot_store.py`).

Invariant: a task under way is answered exactly once: by its end, by the domain's, or by libvirtd's. A lost host answers
nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

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
    ExitReason,
    FreezeGuest,
    GuestAnswer,
    HostTask,
    ListSnapshots,
    PlugMemory,
    ResizeVolume,
    RevertSnapshot,
    SetBalloon,
    SetConsoleTicket,
    SetCpuQuota,
    SetNicLink,
    SetVcpus,
    ThawGuest,
    UnplugMemory,
)
from hypervisor_backends.simulated_domain import GUEST_RUNS, Finish, SimulatedDomain
from hypervisor_backends.simulated_host import SimulatedHost
from hypervisor_backends.simulated_load import draw
from hypervisor_backends.simulated_snapshots import SnapshotTasks, is_heard
from hypervisor_backends.simulated_storage import StorageRefused
from hypervisor_backends.simulated_task_frame import Plan, TaskRefused
from hypervisor_backends.task_rules import check_ticket
from olvm.model.errors import BadInput
from olvm.model.hardware import DiskSpec
from olvm.model.limits import NS_PER_S

TASKABLE = GUEST_RUNS | {"paused"}
# What can be asked while the domain migrates, as QEMU has it.
DURING_MIGRATION = (ListSnapshots,)
FIRST_CONSOLE_PORT = 5900


class Tasks(SnapshotTasks):
    """The tasks of one host. Drains nothing: whoever calls it does."""

    def __init__(self, host: SimulatedHost) -> None:
        super().__init__(host)
        self.half_reverted: list[
            SimulatedDomain
        ] = []  # by a libvirtd that ended; not empty only within its kill
        self._plans: dict[type[DomainTask], Callable[[SimulatedDomain, Any], Plan]] = {
            SetVcpus: self.set_vcpus,
            SetBalloon: self.set_balloon,
            PlugMemory: self.plug_memory,
            UnplugMemory: self.unplug_memory,
            AttachDisk: self.attach_disk,
            DetachDisk: self.detach_disk,
            ChangeMedium: self.change_medium,
            AttachNic: self.attach_nic,
            DetachNic: self.detach_nic,
            SetNicLink: self.set_nic_link,
            SetCpuQuota: self.set_cpu_quota,
            CreateSnapshot: self._create_snapshot,
            CommitSnapshot: self._commit_snapshot,
            RevertSnapshot: self._revert_snapshot,
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
            self.grow(request)
        self._host.outbox.answer(done, result)

    def run(self, request: DomainTask, domain: SimulatedDomain, done: Done) -> None:
        try:
            delay_s, finish = self._plans[type(request)](domain, request)
        except (TaskRefused, StorageRefused) as refused:
            if self._host.observer is not None:
                refusal = f"Refused:{refused.failure.code}"
                self._host.observer.called(self._host.name, refusal, domain.vm_id, domain.epoch)
            self._host.outbox.answer(done, refused.failure)
            return
        except BadInput as error:
            message = f"{type(request).__name__} of {self._who(domain)}: {error.message}"
            self._host.fail(done, "bad_request", message)
            return
        except OSError as error:
            self._host.outbox.answer(done, self._without_storage(domain, error))
            return
        if delay_s <= 0:
            self._host.outbox.answer(done, finish())
            return
        domain.task_count += 1
        number = domain.task_count
        due_ns = self._host.scheduler.now_ns() + int(delay_s * NS_PER_S)
        timer = self._host.scheduler.call_at(due_ns, partial(self._finish, domain, number, finish))
        domain.tasks[number] = (timer, done, finish)
        if isinstance(request, RevertSnapshot):
            domain.reverting = number

    def wrong_state(self, request: DomainTask, domain: SimulatedDomain) -> str | None:
        """Why the domain's present state does not admit the task."""
        if domain.status not in TASKABLE:
            return f"its status is {domain.shown_status()}; wait for another one"
        if domain.outgoing is not None and not isinstance(request, DURING_MIGRATION):
            return "it migrates; wait for the end of that, or cancel it"
        return None

    def prepared(self, vm_id: str, spec: DomainSpec) -> DomainSpec | CallFailed:
        """The spec of a start with the paths of its disks, which are made where no path is given."""
        if not spec.hardware.disks:
            return spec
        what = f"domain {spec.name} ({vm_id}) cannot start on host {self._host.name}"
        users = self._disk_users(but=vm_id)
        disks = []
        for disk in spec.hardware.disks:
            try:
                made = self.storage.disk_with_source(vm_id, disk)
            except StorageRefused as refused:
                return refused.failure
            except BadInput as error:
                return CallFailed(code="bad_request", message=f"{what}: {error.message}")
            refusal = self._refusal_of_disk(made, users, what)
            if refusal is not None:
                return refusal
            disks.append(made)
        return msgspec.structs.replace(
            spec, hardware=msgspec.structs.replace(spec.hardware, disks=tuple(disks))
        )

    def _refusal_of_disk(self, disk: DiskSpec, users: dict[str, str], what: str) -> CallFailed | None:
        """As libvirt looks for the file, and QEMU for its lock."""
        if not self.storage.exists(disk.source):
            message = (
                f"{what}: {disk.source} of disk {disk.name} is not there; create it, or choose another host"
            )
            return CallFailed(code="start_failed", message=message, can_retry=True)
        user = users.get(disk.source)
        if user and disk.device == "disk" and not disk.read_only:
            message = f"{what}: domain {user} has {disk.source} open; stop that one first"
            return CallFailed(code="lease_held", message=message, can_retry=True)
        return None

    def cut_off(self, domain: SimulatedDomain) -> bool:
        """Whoever waits hears nothing certain; some tasks have been done by now. True: there was one."""
        host, under_way, reverting = self._host, domain.tasks, domain.reverting
        domain.tasks, domain.reverting = {}, 0
        for number, (cancel, done, finish) in under_way.items():
            cancel()
            message = f"a task of {self._who(domain)}: the connection to libvirt broke before its answer"
            failure = CallFailed(code="call_failed", message=message, can_retry=True, outcome_known=False)
            host.outbox.answer(done, failure)
            part = draw(host.seed, host.name, "cut_off_task", domain.vm_id, domain.epoch, number)
            if part < 1 / 2:
                self._result_of(domain, finish)
            elif number == reverting and part < 3 / 4:
                self.half_reverted.append(domain)
        return bool(under_way)

    def end_half_reverted(self) -> None:
        """Their QEMU was ended, and libvirtd with it before there was another one."""
        domains, self.half_reverted = self.half_reverted, []
        for domain in domains:
            if self._host.domains.get(domain.vm_id) is domain:
                self._host.end(domain, "crashed", ExitReason.LOST_QEMU, "its QEMU process ended")

    def _finish(self, domain: SimulatedDomain, number: int, finish: Finish) -> None:
        _, done, _ = domain.tasks.pop(number)
        if domain.reverting == number:
            domain.reverting = 0
        self._host.outbox.answer(done, self._result_of(domain, finish))
        self._host.outbox.drain()

    def _result_of(self, domain: SimulatedDomain, finish: Finish) -> CallResult:
        try:
            return finish()
        except TaskRefused as refused:  # what it was admitted for is no more
            return refused.failure
        except OSError as error:
            return self._without_storage(domain, error)

    def _without_storage(self, domain: SimulatedDomain, error: OSError) -> CallFailed:
        message = f"a task of {self._who(domain)}: its snapshots cannot be reached now ({error}); try again"
        return CallFailed(code="call_failed", message=message, can_retry=True)

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
        if not is_heard(domain):
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
        if not self.has_qemu_agent(domain):
            failure = self._silence(domain)
            return self._config.guest_timeout_s, lambda: failure
        domain.frozen = is_frozen
        return self._soon()

    def _silence(self, domain: SimulatedDomain) -> CallFailed:
        message = f"the guest of {self._who(domain)} does not answer; is it up, and its agent running?"
        return CallFailed(code="guest_silent", message=message, can_retry=True)
