"""Why a domain cannot come to be on a simulated host: by who is there, by what holds it, by room.

Decides the answer only; nothing changes here.
"""

from __future__ import annotations

from typing import TypeAlias

from hypervisor_backends.protocol import CallFailed, PrepareIncoming, RestoreDomain, StartDomain
from hypervisor_backends.simulated_host import SimulatedHost

NewDomain: TypeAlias = StartDomain | RestoreDomain | PrepareIncoming


def refusal_of(host: SimulatedHost, request: NewDomain) -> CallFailed | None:
    """None: it may come. Nothing has changed yet."""
    return _refusal_of_identity(host, request) or _refusal_of_room(host, request)


def _refusal_of_identity(host: SimulatedHost, request: NewDomain) -> CallFailed | None:
    spec = request.spec
    what = f"domain {spec.name} ({request.vm_id}) cannot start on host {host.name}"
    if request.vm_id in host.domains:
        epoch = host.domains[request.vm_id].epoch
        message = f"{what} with epoch {request.epoch}: it is there with epoch {epoch}; destroy that one first"
        return CallFailed(code="duplicate_domain", message=message)
    if spec.name in host.vm_id_by_name:
        other = host.vm_id_by_name[spec.name]
        message = f"{what}: domain {other} has that name; rename one"
        return CallFailed(code="duplicate_domain", message=message)
    if request.vm_id in host.held_vm_ids:
        message = f"{what}: libvirt holds its broken migration; restart libvirtd, or choose another host"
        return CallFailed(code="start_failed", message=message, can_retry=True)
    if spec.leased and not isinstance(request, PrepareIncoming) and not host.watchdog.is_armed():
        message = f"{what}: it needs a lease and the host's watchdog is not armed; renew the host's lease"
        return CallFailed(code="lease_expired", message=message, can_retry=True)
    return None


def _refusal_of_room(host: SimulatedHost, request: NewDomain) -> CallFailed | None:
    spec = request.spec
    what = f"domain {spec.name} ({request.vm_id}) cannot start on host {host.name}"
    config, capabilities = host.config, host.capabilities
    needed_bytes = host.footprint_bytes(spec.memory_bytes)
    most_bytes = capabilities.memory_bytes * config.memory_overcommit_percent // 100
    free_bytes = most_bytes - host.memory_used_bytes
    if needed_bytes > free_bytes:
        need = f"it needs {needed_bytes} bytes of memory and {free_bytes} are free"
        message = f"{what}: {need}; choose another host"
        return CallFailed(code="out_of_memory", message=message, can_retry=True)
    free_vcpus = capabilities.cpus * config.cpu_overcommit_percent // 100 - host.vcpus_used
    if config.cpu_overcommit_percent and spec.vcpus > free_vcpus:
        message = f"{what}: it needs {spec.vcpus} vCPUs and {free_vcpus} are free; choose another host"
        return CallFailed(code="out_of_cpus", message=message, can_retry=True)
    restores_here = isinstance(request, RestoreDomain) and not config.saved_memory_shared
    if restores_here and request.vm_id not in host.saved_vm_ids:
        message = f"{what}: its saved memory is not here; restore it where it was saved, or start it cold"
        return CallFailed(code="no_saved_memory", message=message)
    return None
