"""Hosts of a data center: handles on them, and the collection that registers and finds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from olvm.api.operation import Operation
from olvm.api.tables import Table
from olvm.model import messages as m
from olvm.model.errors import NotFound
from olvm.model.host_profile import HostProfile, host_profile_from
from olvm.model.records import HostRecord
from olvm.model.sizes import parse_size

if TYPE_CHECKING:
    from olvm.api.data_center import DataCenter

ADD_WAIT_S = 120.0
SIMULATED_FENCE_DEVICE: m.Settings = {"type": "simulated"}


class Host:
    """One host, by name."""

    def __init__(self, dc: DataCenter, name: str) -> None:
        self._dc = dc
        self.name = name

    def _do(self, action: m.HostVerb, request_id: str | None, timeout: float | None = None) -> Operation:
        command = m.HostCommand(self.name, action, timeout)
        return self._dc.submit(command, f"{action} {self.name}", request_id)

    def activate(self, *, client_request_id: str | None = None) -> Operation:
        """Put it into service."""
        return self._do("activate", client_request_id)

    def maintenance(self, *, timeout: float | None = None, client_request_id: str | None = None) -> Operation:
        """Move its machines away and take it out of service.

        Args:
            timeout: seconds that its machines may take to leave; None: the configuration's
                `maintenance_timeout_s`. When it is over the host goes on in service.

        Raises:
            Conflict: from `wait`; the reason names each machine that stayed, and why.
        """
        return self._do("maintenance", client_request_id, timeout)

    def cancel_maintenance(self, *, client_request_id: str | None = None) -> Operation:
        """Stop moving machines away and keep it in service; those that have left stay where they are."""
        return self._do("cancel_maintenance", client_request_id)

    def confirm_rebooted(self, *, client_request_id: str | None = None) -> Operation:
        """Give your word that this host, which does not answer, was powered off or restarted.

        Its machines are then started elsewhere. If it still runs, they run twice and destroy their disks: look at
        the machine itself before you say so.
        """
        return self._do("confirm_rebooted", client_request_id)

    def restart(self, *, client_request_id: str | None = None) -> Operation:
        """Cut its power and give it again, by its fence devices. It must be in maintenance or not answer.

        Raises:
            Conflict: from `wait`; it has no fence device, or no other host can reach it.
        """
        return self._do("restart", client_request_id)

    def power_on(self, *, client_request_id: str | None = None) -> Operation:
        """Give it power, by its fence devices."""
        return self._do("power_on", client_request_id)

    def power_off(self, *, client_request_id: str | None = None) -> Operation:
        """Cut its power, by its fence devices, and leave it off. It must be in maintenance or not answer."""
        return self._do("power_off", client_request_id)

    def task(
        self,
        verb: str,
        arguments: Mapping[str, str | int | float | bool] | None = None,
        *,
        timeout: float | None = None,
        client_request_id: str | None = None,
    ) -> Operation:
        """A task on its storage or networks, of `olvm.model.host_tasks`; its answer is `operation.result` after `wait`.

        For example `host.task("create_volume", {"pool": "images", "name": "web", "size_bytes": 10 * 2**30})`.

        Raises:
            NotFound, BadInput: there is no such task, or its arguments are wrong; nothing has changed.
            Conflict, OperationFailed: from `wait`; the reason says why.
        """
        command = m.HostTask(self.name, verb, dict(arguments or {}), timeout)
        return self._dc.submit(command, f"{verb} {self.name}", client_request_id)

    def remove(self, *, client_request_id: str | None = None) -> Operation:
        """Forget it; it must be in maintenance."""
        return self._do("remove", client_request_id)

    @property
    def record(self) -> HostRecord:
        return self._dc.hosts.row(self.name)

    @property
    def status(self) -> str:
        return self.record.status.value

    def __repr__(self) -> str:
        return f"<Host {self.name}>"


class Hosts(Table[HostRecord]):
    record = HostRecord

    def add(
        self,
        name: str,
        *,
        cpus: int = 0,
        memory: str | int = 0,
        cluster: str | None = None,
        dedicated: bool = False,
        backend: str = "",
        uri: str = "",
        backend_settings: m.Settings | None = None,
        power_management: bool = False,
        fence_devices: Sequence[m.Settings] = (),
        kdump: bool = False,
        profile: HostProfile | Mapping[str, object] | None = None,
        client_request_id: str | None = None,
        wait: bool = True,
    ) -> Host:
        """Register a host and wait until it is Up.

        A host with `backend="libvirt"` is this machine, or what `uri` reaches; on a Ray cluster that has a node with
        the label `olvm-host=NAME`, its agent runs there. Its CPUs and memory are what libvirt says.

        Args:
            cpus, memory: of a simulated host; memory in bytes, or text as "256GiB".
            dedicated: its agent gets a silo (on Ray: a process) of its own; real hosts always have one.
            backend: "simulated" or "libvirt"; empty: what the data center was opened with.
            uri: of libvirt; empty: qemu:///system.
            backend_settings: of `SimulatedConfig` or `LibvirtSettings`.
            power_management: the simulated fence device can switch it, so that it can be fenced.
            fence_devices: what else can switch it, tried in order; each has a "type". They go before
                `power_management`. A secret of a real one stands in a file of mode 600 on the hosts that may ask it,
                as in `password_file="/etc/olvm/kvm01"`.
            kdump: its kernel tells when it crashed and writes a dump, which is waited for before fencing.
            profile: what the scheduler is to know of it, an `olvm.model.host_profile.HostProfile` or its fields:
                networks, hooks, labels, host devices, … It goes before what libvirt tells.
            wait: False returns when the registration is durable.

        Raises:
            DuplicateName, NotFound, BadInput: refused; nothing has changed.
        """
        devices = list(fence_devices)
        if power_management and not devices:
            devices = [SIMULATED_FENCE_DEVICE]
        settings = dict(backend_settings or {})
        if uri:
            settings["uri"] = uri
        command = m.AddHost(
            name=name,
            cluster=self._cluster(cluster),
            cpus=cpus,
            memory_bytes=parse_size(memory) if memory else 0,
            backend=backend or self._dc.backend,
            backend_settings=settings,
            dedicated=dedicated,
            fence_devices=devices,
            kdump=kdump,
            profile=host_profile_from(profile),
        )
        operation = self._dc.submit(command, f"add host {name}", client_request_id)
        if wait:
            operation.wait(ADD_WAIT_S)
        return Host(self._dc, name)

    def _cluster(self, cluster: str | None) -> str:
        chosen = cluster or self._restriction
        if not chosen:
            raise NotFound("no cluster was named; use `dc.clusters.get(name).hosts.add(…)` or cluster=…")
        return chosen

    def row(self, name: str) -> HostRecord:
        return self._one("host", name, "name")

    def get(self, name: str) -> Host:
        return Host(self._dc, self.row(name).name)

    def list(self, where: str = "") -> list[HostRecord]:
        return self.rows(where)
