"""Plugging into and out of the domains of a simulated host: CPUs, memory, disks, media, network cards, quotas.

The load model knows the disks and cards that a domain started with: one that is plugged later idles. Room for memory
and CPUs is taken before the guest gets it and given back after it let go.
"""

from __future__ import annotations

import msgspec

from hypervisor_backends.protocol import (
    AttachDisk,
    AttachNic,
    ChangeMedium,
    DetachDisk,
    DetachNic,
    PlugMemory,
    ResizeVolume,
    SetBalloon,
    SetCpuQuota,
    SetNicLink,
    SetVcpus,
    UnplugMemory,
)
from hypervisor_backends.simulated_domain import SimulatedDomain
from hypervisor_backends.simulated_task_frame import Plan, TaskFrame, TaskRefused
from hypervisor_backends.task_rules import (
    check_balloon,
    check_bridge_name,
    check_plugged_memory,
    check_quota,
    check_vcpus,
)
from olvm.model.hardware import DiskSpec, NicSpec, check_disk, check_nic
from olvm.model.limits import DISKS_PER_VM_MAX, NICS_PER_VM_MAX


class DeviceTasks(TaskFrame):
    # ------------------------------------------------------------ CPUs and memory

    def set_vcpus(self, domain: SimulatedDomain, request: SetVcpus) -> Plan:
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

    def set_balloon(self, domain: SimulatedDomain, request: SetBalloon) -> Plan:
        check_balloon(request, domain.memory_bytes)
        domain.balloon_bytes = request.memory_bytes
        return self._soon()

    def set_cpu_quota(self, domain: SimulatedDomain, request: SetCpuQuota) -> Plan:
        check_quota(request)
        self._change(domain, cpu_quota_percent=request.percent)
        return self._soon()

    def plug_memory(self, domain: SimulatedDomain, request: PlugMemory) -> Plan:
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

    def unplug_memory(self, domain: SimulatedDomain, request: UnplugMemory) -> Plan:
        self._present("memory device", request.name, domain, domain.plugged)
        what = f"memory device {request.name}"
        return self._let_go(domain, what, lambda: self._host.unplug_memory(domain, request.name))

    # ------------------------------------------------------------ disks

    def attach_disk(self, domain: SimulatedDomain, request: AttachDisk) -> Plan:
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

    def detach_disk(self, domain: SimulatedDomain, request: DetachDisk) -> Plan:
        self._present("disk", request.name, domain, [one.name for one in domain.spec.hardware.disks])

        def take() -> None:
            kept = [one for one in domain.spec.hardware.disks if one.name != request.name]
            self._set_disks(domain, tuple(kept))

        return self._let_go(domain, f"disk {request.name}", take)

    def change_medium(self, domain: SimulatedDomain, request: ChangeMedium) -> Plan:
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

    def grow(self, request: ResizeVolume) -> None:
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

    def attach_nic(self, domain: SimulatedDomain, request: AttachNic) -> Plan:
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

    def detach_nic(self, domain: SimulatedDomain, request: DetachNic) -> Plan:
        self._present("network card", request.name, domain, [one.name for one in domain.spec.hardware.nics])

        def take() -> None:
            kept = [one for one in domain.spec.hardware.nics if one.name != request.name]
            self._set_nics(domain, tuple(kept))

        return self._let_go(domain, f"network card {request.name}", take)

    def set_nic_link(self, domain: SimulatedDomain, request: SetNicLink) -> Plan:
        nics = {one.name: one for one in domain.spec.hardware.nics}
        self._present("network card", request.name, domain, nics)
        nics[request.name] = msgspec.structs.replace(nics[request.name], link_up=request.up)
        self._set_nics(domain, tuple(nics.values()))
        return self._soon()

    def _set_nics(self, domain: SimulatedDomain, nics: tuple[NicSpec, ...]) -> None:
        self._change(domain, nics=nics)
        self._host.devices_changed(domain)
