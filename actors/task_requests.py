"""From a task's verb and arguments to what a hypervisor is asked, and from its answer to what is told.

Both ends use it: the engine to refuse what could never be a request, the agent to make it.
"""

from __future__ import annotations

from typing import Any, cast

import msgspec

from hypervisor_backends import protocol as p
from olvm.model.errors import BadInput
from olvm.model.messages import Arguments
from olvm.model.vm_tasks import disk_of, nic_of

_DOMAIN_REQUESTS: dict[str, type[p.DomainRequest]] = {
    "detach_disk": p.DetachDisk,
    "change_medium": p.ChangeMedium,
    "detach_nic": p.DetachNic,
    "set_nic_link": p.SetNicLink,
    "set_cpu_quota": p.SetCpuQuota,
    "set_vcpus": p.SetVcpus,
    "set_balloon": p.SetBalloon,
    "plug_memory": p.PlugMemory,
    "unplug_memory": p.UnplugMemory,
    "create_snapshot": p.CreateSnapshot,
    "commit_snapshot": p.CommitSnapshot,
    "revert_snapshot": p.RevertSnapshot,
    "list_snapshots": p.ListSnapshots,
    "freeze_guest": p.FreezeGuest,
    "thaw_guest": p.ThawGuest,
}
# What is said to the guest's own agent: its word, and how our arguments are called there.
_GUEST_MESSAGES: dict[str, tuple[str, dict[str, str]]] = {
    "log_on": ("login", {"user": "username", "session": "session"}),
    "log_off": ("log-off", {"session": "session"}),
    "lock_screen": ("lock-screen", {"session": "session"}),
    "notify": ("notify", {"message": "message"}),
    "set_guest_cpus": ("set-number-of-cpus", {"count": "count"}),
    "refresh_guest": ("refresh", {}),
}
_NEEDED: dict[str, tuple[str, ...]] = {
    "log_on": ("user",),
    "notify": ("message",),
    "set_guest_cpus": ("count",),
}
_HOST_REQUESTS: dict[str, type[p.Request]] = {
    "create_pool": p.CreatePool,
    "delete_pool": p.DeletePool,
    "list_pools": p.ListPools,
    "create_volume": p.CreateVolume,
    "clone_volume": p.CloneVolume,
    "resize_volume": p.ResizeVolume,
    "delete_volume": p.DeleteVolume,
    "list_volumes": p.ListVolumes,
    "create_network": p.CreateNetwork,
    "delete_network": p.DeleteNetwork,
    "list_networks": p.ListNetworks,
}


def domain_request(vm_id: str, verb: str, arguments: Arguments) -> p.HypervisorRequest:
    """Raises `BadInput`, which names the argument."""
    if verb in _GUEST_MESSAGES:
        return _guest_call(vm_id, verb, arguments)
    if verb == "attach_disk":
        return p.AttachDisk(vm_id=vm_id, disk=disk_of(arguments))
    if verb == "attach_nic":
        return p.AttachNic(vm_id=vm_id, nic=nic_of(arguments))
    return _converted(_DOMAIN_REQUESTS[verb], verb, {**arguments, "vm_id": vm_id})


def host_request(verb: str, arguments: Arguments) -> p.HypervisorRequest:
    """Raises `BadInput`, which names the argument."""
    return _converted(_HOST_REQUESTS[verb], verb, dict(arguments))


def _converted(kind: type[p.Request], verb: str, fields: Arguments) -> p.HypervisorRequest:
    unknown = sorted(set(fields) - set(kind.__struct_fields__))
    if unknown:
        known = ", ".join(name for name in kind.__struct_fields__ if name != "vm_id") or "none"
        raise BadInput(f"{verb} takes no argument {unknown[0]}; it takes {known}")
    try:
        request: Any = msgspec.convert({**fields, "t": kind.__name__}, kind)
    except msgspec.ValidationError as error:
        raise BadInput(f"{verb}: {error}") from error
    return cast("p.HypervisorRequest", request)


def _guest_call(vm_id: str, verb: str, arguments: Arguments) -> p.CallGuest:
    message, names = _GUEST_MESSAGES[verb]
    unknown = sorted(set(arguments) - set(names))
    missing = [name for name in _NEEDED.get(verb, ()) if name not in arguments]
    if unknown or missing:
        wrong = f"takes no argument {unknown[0]}" if unknown else f"needs the argument {missing[0]}"
        raise BadInput(f"{verb} {wrong}; it takes {', '.join(names) or 'none'}")
    said = {names[name]: value for name, value in arguments.items()}
    return p.CallGuest(vm_id=vm_id, message=message, arguments=said)


def result_of(value: object) -> bytes:
    """JSON of an answer, without the tag; empty if there is none."""
    if value is None:
        return b""
    fields = msgspec.to_builtins(value)
    fields.pop("t", None)
    return msgspec.json.encode(fields)
