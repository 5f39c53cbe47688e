"""What each message of a channel's agent tells, as fields of `GuestFacts`.

Decides nothing of who is believed. A field of the wrong kind is left out and the message's others count, so that no
guest can wipe what it said before by saying it wrongly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from guest_agent.protocol import clean
from hypervisor_backends.guest_values import (
    BYTES_MAX,
    CPUS_MAX,
    KIB_MAX,
    Told,
    Values,
    addresses_of,
    known,
)
from hypervisor_backends.measurements import GuestContainer, GuestFilesystem, GuestNic, SessionState
from olvm.model.limits import GUEST_LIST_ITEMS_MAX, GUEST_TEXT_CHARS_MAX

Arguments = Mapping[str, object]
OFFSET_MINUTES_MAX = 900
SESSION_BY_EVENT: dict[str, SessionState] = {
    "session-logon": "UserLoggedOn",
    "session-logoff": "LoggedOff",
    "session-lock": "Locked",
    "session-unlock": "Active",
    "session-startup": "Unknown",
    "session-shutdown": "LoggedOff",
}
_MEMORY = {
    "mem_total": "memory_total_kib",
    "mem_free": "memory_free_kib",
    "mem_unused": "memory_unused_kib",
    "mem_buffers": "memory_buffers_kib",
    "mem_cached": "memory_cached_kib",
    "swap_total": "swap_total_kib",
    "swap_usage": "swap_usage_kib",
    "swap_in": "swap_in_pages_per_s",
    "swap_out": "swap_out_pages_per_s",
    "majflt": "major_faults_pages_per_s",
    "pageflt": "page_faults_per_s",
}
_OS = {
    "version": "os_version",
    "distribution": "os_name",
    "codename": "os_codename",
    "arch": "os_arch",
    "type": "os_type",
    "kernel": "kernel",
}


def _memory(arguments: Arguments, values: Values) -> Told:
    said = arguments.get("memory-stat", arguments)
    if not isinstance(said, dict):
        values.refuse(said)
        return {}
    return known({ours: values.number(said.get(theirs), KIB_MAX) for theirs, ours in _MEMORY.items()})


def _heartbeat(arguments: Arguments, values: Values) -> Told:
    """The oldest agents say `free-ram`, in MB, and no statistics."""
    free_mb = values.number(arguments.get("free-ram"), KIB_MAX // 1024)
    told = known(
        {
            "memory_free_kib": None if free_mb is None else free_mb * 1024,
            "uptime_s": values.number(arguments.get("uptime"), BYTES_MAX),
            "boot_id": values.text(arguments.get("bootId")),
        }
    )
    return told | (_memory(arguments, values) if "memory-stat" in arguments else {})


def _os_info(arguments: Arguments, values: Values) -> Told:
    return known({ours: values.text(arguments.get(theirs)) for theirs, ours in _OS.items()})


def _interfaces(arguments: Arguments, values: Values) -> Told:
    said = values.items(arguments.get("interfaces"))
    if said is None:
        return {}
    found = []
    for one in values.mappings(said):
        name, mac = values.listed(one.get("name")), values.listed(one.get("hw"))
        if name:
            inet, inet6 = values.addresses(one.get("inet")), values.addresses(one.get("inet6"))
            found.append(GuestNic(name=name, mac=mac or "", inet=inet, inet6=inet6))
    return {"interfaces": tuple(found), "ips": addresses_of(found)}


def _applications(arguments: Arguments, values: Values) -> Told:
    said = values.items(arguments.get("applications"))
    return {} if said is None else {"applications": values.all(said)}


def _disks(arguments: Arguments, values: Values) -> Told:
    told: Told = {}
    said = values.items(arguments.get("disks"))
    if said is not None:
        found = [_filesystem(one, values) for one in values.mappings(said)]
        told["filesystems"] = tuple(one for one in found if one is not None)
    mapping = arguments.get("mapping")
    if isinstance(mapping, dict):
        told["disk_mapping"] = _disk_names(mapping, values)
    else:
        values.refuse(mapping)
    return told


def _filesystem(said: Arguments, values: Values) -> GuestFilesystem | None:
    path, total = values.listed(said.get("path")), values.number(said.get("total"), BYTES_MAX)
    used, kind = values.number(said.get("used"), BYTES_MAX), values.listed(said.get("fs"))
    if not path or total is None or used is None:
        return None
    return GuestFilesystem(
        path=path, type=kind or "", total_bytes=total, used_bytes=values.at_most(used, total)
    )


def _disk_names(mapping: Arguments, values: Values) -> dict[str, str]:
    names = {}
    for serial, one in list(mapping.items())[:GUEST_LIST_ITEMS_MAX]:
        name = values.listed(one.get("name")) if isinstance(one, dict) else None
        if name:
            names[clean(serial, GUEST_TEXT_CHARS_MAX)] = name
    return names


def _containers(arguments: Arguments, values: Values) -> Told:
    said = values.items(arguments.get("list"))
    if said is None:
        return {}
    found = []
    for one in values.mappings(said):
        identity = values.listed(one.get("id"))
        if identity:
            found.append(
                GuestContainer(
                    id=identity,
                    names=values.all(one.get("names")),
                    image=values.listed(one.get("image")) or "",
                    status=values.listed(one.get("status")) or "",
                    command=values.listed(one.get("command")) or "",
                )
            )
    return {"containers": tuple(found)}


def _users(arguments: Arguments, values: Values) -> Told:
    """Ours says all of them; oVirt's the one at the console, or None where nobody is."""
    said = values.items(arguments.get("users"))
    if said is not None:
        return {"users": values.all(said)}
    name = values.text(arguments.get("name"))
    if name is None:
        return {}
    return {"users": () if name in ("", "None", "Unknown") else (name,)}


def _timezone(arguments: Arguments, values: Values) -> Told:
    return known(
        {
            "timezone": values.text(arguments.get("zone")),
            "timezone_offset_minutes": values.offset(arguments.get("offset"), OFFSET_MINUTES_MAX),
        }
    )


FACTS_OF: dict[str, Callable[[Arguments, Values], Told]] = {
    "heartbeat": _heartbeat,
    "memory-stats": _memory,
    "host-name": lambda said, values: known({"hostname": values.text(said.get("name"))}),
    "fqdn": lambda said, values: known({"fqdn": values.text(said.get("fqdn"))}),
    "os-version": lambda said, values: known({"os_name": values.text(said.get("version"))}),
    "os-info": _os_info,
    "network-interfaces": _interfaces,
    "applications": _applications,
    "active-user": _users,
    "disks-usage": _disks,
    "number-of-cpus": lambda said, values: known({"cpu_count": values.number(said.get("count"), CPUS_MAX)}),
    "timezone": _timezone,
    "containers": _containers,
}
