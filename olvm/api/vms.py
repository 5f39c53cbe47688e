"""Machines of a data center: handles on them, and the collection that defines and finds them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, get_args

from olvm.api.operation import Operation
from olvm.api.tables import Table
from olvm.api.vm_devices import HardwareLike, VmDevices, hardware_of
from olvm.api.words import checked_word
from olvm.model import client_protocol as p
from olvm.model import messages as m
from olvm.model.errors import NotFound
from olvm.model.messages import PlacementExplanation
from olvm.model.placement_needs import PlacementNeeds, needs_from
from olvm.model.records import VmRecord
from olvm.model.sizes import parse_size

if TYPE_CHECKING:
    from olvm.api.data_center import DataCenter

CREATE_WAIT_S = 120.0
RESUME_BEHAVIORS: tuple[m.ResumeBehavior, ...] = get_args(m.ResumeBehavior)


class Vm(VmDevices):
    """One machine, by name. Commands return durable operations."""

    def __init__(self, dc: DataCenter, name: str) -> None:
        self._dc = dc
        self.name = name

    def _do(self, verb: m.VmVerb, timeout: float | None, to: str | None, request_id: str | None) -> Operation:
        command = m.VmCommand(self.name, verb, timeout, to)
        return self._dc.submit(command, f"{verb} {self.name}", request_id)

    def start(self, *, timeout: float | None = None, client_request_id: str | None = None) -> Operation:
        """Run it; a suspended one goes on from its saved memory. `timeout`: the operation's deadline, seconds."""
        return self._do("start", timeout, None, client_request_id)

    def shutdown(self, *, timeout: float | None = None, client_request_id: str | None = None) -> Operation:
        """Ask the guest to shut down; fails, and the machine runs on, when it has not within the deadline."""
        return self._do("shutdown", timeout, None, client_request_id)

    def stop(self, *, timeout: float | None = None, client_request_id: str | None = None) -> Operation:
        """End it at once, as by pulling the plug."""
        return self._do("stop", timeout, None, client_request_id)

    def reboot(self, *, timeout: float | None = None, client_request_id: str | None = None) -> Operation:
        return self._do("reboot", timeout, None, client_request_id)

    def reset(self, *, timeout: float | None = None, client_request_id: str | None = None) -> Operation:
        return self._do("reset", timeout, None, client_request_id)

    def suspend(self, *, timeout: float | None = None, client_request_id: str | None = None) -> Operation:
        """Save its memory to disk and end it; `start` or `resume` goes on from there."""
        return self._do("suspend", timeout, None, client_request_id)

    def resume(self, *, timeout: float | None = None, client_request_id: str | None = None) -> Operation:
        return self._do("resume", timeout, None, client_request_id)

    def migrate(self, to: str | None = None, *, client_request_id: str | None = None) -> Operation:
        """Move it to another host while it runs. It waits its turn when its hosts have no migration slot free.

        Args:
            to: name of the host; None: the cluster chooses.

        Raises:
            NotFound: there is no such host.
            Conflict, NoCapacity: from `wait`; the machine runs on where it was, and the reason says why.
        """
        return self._do("migrate", None, to, client_request_id)

    def cancel_migration(self, *, client_request_id: str | None = None) -> Operation:
        """Give up the migration under way; it runs on where it was, and the migration's own operation fails.

        Raises:
            Conflict: from `wait`; there is no migration, or it was too late and the machine has been handed over.
        """
        return self._do("cancel_migration", None, None, client_request_id)

    def remove(self, *, client_request_id: str | None = None) -> Operation:
        return self._do("remove", None, None, client_request_id)

    def update(
        self,
        *,
        vcpus: int | None = None,
        memory: str | int | None = None,
        high_availability: bool | None = None,
        description: str | None = None,
        priority: int | None = None,
        lease: bool | None = None,
        resume_behavior: str | None = None,
        migration_policy: str | None = None,
        migratable: bool | None = None,
        hardware: HardwareLike | None = None,
        needs: PlacementNeeds | Mapping[str, object] | None = None,
        client_request_id: str | None = None,
    ) -> Operation:
        """Change what is given; `Vms.create` says what each is. What runs gets another size at its next start."""
        command = m.UpdateVm(
            vm=self.name,
            vcpus=vcpus,
            memory_bytes=None if memory is None else parse_size(memory),
            high_availability=high_availability,
            description=description,
            priority=priority,
            lease=lease,
            resume_behavior=None if resume_behavior is None else _resume_behavior(resume_behavior),
            migration_policy=migration_policy,
            migratable=migratable,
            hardware=hardware_of(hardware),
            needs=needs_from(needs),
        )
        return self._dc.submit(command, f"update {self.name}", client_request_id)

    def explain(self) -> PlacementExplanation:
        """Why each host would or would not take it now."""
        explanation: PlacementExplanation = self._dc.ask(p.Explain(self.name), f"explain {self.name}")
        return explanation

    @property
    def record(self) -> VmRecord:
        """Its committed state."""
        return self._dc.vms.row(self.name)

    @property
    def status(self) -> str:
        return self.record.status.value

    @property
    def host(self) -> str | None:
        return self.record.host

    def __repr__(self) -> str:
        return f"<Vm {self.name}>"


class Vms(Table[VmRecord]):
    record = VmRecord

    def create(
        self,
        name: str,
        *,
        vcpus: int,
        memory: str | int,
        cluster: str | None = None,
        high_availability: bool = False,
        priority: int = 50,
        lease: bool | None = None,
        resume_behavior: str = "",
        migration_policy: str = "",
        migratable: bool = True,
        pinned_hosts: Iterable[str] = (),
        description: str = "",
        dedicated: bool = False,
        hardware: HardwareLike | None = None,
        needs: PlacementNeeds | Mapping[str, object] | None = None,
        client_request_id: str | None = None,
    ) -> Vm:
        """Define a machine; it is down until `start`.

        Args:
            memory: bytes, or text as "8GiB".
            high_availability: start it again, on another host if need be, once it is certain that it is gone.
            priority: 1 to 100; machines of higher priority are started again first.
            lease: a lease on shared storage lets it be started elsewhere without power management; None: as
                `high_availability`.
            resume_behavior: what an I/O error that paused it leads to: "auto_resume" (it goes on when the storage
                is back), "leave_paused" or "kill". Empty: kill with a lease, which allows nothing else.
            migration_policy: "minimal_downtime", "post_copy", "suspend_workload" or "legacy"; empty: the cluster's.
            migratable: False keeps it from being moved, by anybody.
            pinned_hosts: run on these only.
            dedicated: a silo (on Ray: a process) of its own for this machine's actor.
            hardware: disks, network cards, firmware, …: an `olvm.model.hardware.Hardware` or its fields.
            needs: what it asks of its host beyond CPUs and memory: CPU pinning, huge pages, NUMA nodes, host devices,
                vGPUs, hooks, labels, preferred hosts, …: an `olvm.model.placement_needs.PlacementNeeds` or its fields.

        Raises:
            DuplicateName, NotFound, BadInput: refused; nothing has changed.
        """
        operation = self.create_later(
            name,
            vcpus=vcpus,
            memory=memory,
            cluster=cluster,
            high_availability=high_availability,
            priority=priority,
            lease=lease,
            resume_behavior=resume_behavior,
            migration_policy=migration_policy,
            migratable=migratable,
            pinned_hosts=pinned_hosts,
            description=description,
            dedicated=dedicated,
            hardware=hardware,
            needs=needs,
            client_request_id=client_request_id,
        )
        operation.wait(CREATE_WAIT_S)
        return Vm(self._dc, name)

    def create_later(
        self,
        name: str,
        *,
        vcpus: int,
        memory: str | int,
        cluster: str | None = None,
        high_availability: bool = False,
        priority: int = 50,
        lease: bool | None = None,
        resume_behavior: str = "",
        migration_policy: str = "",
        migratable: bool = True,
        pinned_hosts: Iterable[str] = (),
        description: str = "",
        dedicated: bool = False,
        hardware: HardwareLike | None = None,
        needs: PlacementNeeds | Mapping[str, object] | None = None,
        client_request_id: str | None = None,
    ) -> Operation:
        """As `create`, returning the operation: for many at once, inside `dc.pipelined()`."""
        chosen = cluster or self._restriction
        if not chosen:
            raise NotFound("no cluster was named; use `dc.clusters.get(name).vms.create(…)` or cluster=…")
        command = m.CreateVm(
            name=name,
            cluster=chosen,
            vcpus=vcpus,
            memory_bytes=parse_size(memory),
            high_availability=high_availability,
            pinned_hosts=list(pinned_hosts),
            description=description,
            dedicated=dedicated,
            priority=priority,
            lease=lease,
            resume_behavior=_resume_behavior(resume_behavior) if resume_behavior else "",
            migration_policy=migration_policy,
            migratable=migratable,
            hardware=hardware_of(hardware),
            needs=needs_from(needs),
        )
        return self._dc.submit(command, f"create {name}", client_request_id)

    def row(self, name: str) -> VmRecord:
        """By name or id."""
        return self._one("vm", name, "name", "id")

    def get(self, name: str) -> Vm:
        """The machine of that name or id; `NotFound` when there is none."""
        return Vm(self._dc, self.row(name).name)

    def __getitem__(self, name: str) -> Vm:
        """A handle without asking whether it exists."""
        return Vm(self._dc, name)

    def list(self, where: str = "") -> list[VmRecord]:
        return self.rows(where)


def _resume_behavior(word: str) -> m.ResumeBehavior:
    return checked_word("resume behavior", word, RESUME_BEHAVIORS)
