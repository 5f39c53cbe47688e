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
    Texts,
    Told,
    addresses_of,
    items,
    known,
    mappings,
    number,
    offset,
    text,
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


def _memory(arguments: Arguments) -> Told:
    said = arguments.get("memory-stat", arguments)
    if not isinstance(said, dict):
        return {}
    return known({ours: number(said.get(theirs), KIB_MAX) for theirs, ours in _MEMORY.items()})


def _heartbeat(arguments: Arguments) -> Told:
    """The oldest agents say `free-ram`, in MB, and no statistics."""
    free_mb = number(arguments.get("free-ram"), KIB_MAX // 1024)
    told = known(
        {
            "memory_free_kib": None if free_mb is None else free_mb * 1024,
            "uptime_s": number(arguments.get("uptime"), BYTES_MAX),
            "boot_id": text(arguments.get("bootId")),
        }
    )
    return told | (_memory(arguments) if "memory-stat" in arguments else {})


def _os_info(arguments: Arguments) -> Told:
    return known({ours: text(arguments.get(theirs)) for theirs, ours in _OS.items()})


def _interfaces(arguments: Arguments) -> Told:
    if items(arguments.get("interfaces")) is None:
        return {}
    found, texts = [], Texts()
    for one in mappings(arguments.get("interfaces")):
        name, mac = texts.text(one.get("name")), texts.text(one.get("hw"))
        if name:
            inet, inet6 = texts.addresses(one.get("inet")), texts.addresses(one.get("inet6"))
            found.append(GuestNic(name=name, mac=mac or "", inet=inet, inet6=inet6))
    return {"interfaces": tuple(found), "ips": addresses_of(found)}


def _applications(arguments: Arguments) -> Told:
    said = arguments.get("applications")
    return {} if items(said) is None else {"applications": Texts().all(said)}


def _disks(arguments: Arguments) -> Told:
    told: Told = {}
    texts = Texts()
    if items(arguments.get("disks")) is not None:
        found = [_filesystem(one, texts) for one in mappings(arguments.get("disks"))]
        told["filesystems"] = tuple(one for one in found if one is not None)
    mapping = arguments.get("mapping")
    if isinstance(mapping, dict):
        told["disk_mapping"] = _disk_names(mapping, texts)
    return told


def _filesystem(said: Arguments, texts: Texts) -> GuestFilesystem | None:
    path, total = texts.text(said.get("path")), number(said.get("total"), BYTES_MAX)
    used, kind = number(said.get("used"), BYTES_MAX), texts.text(said.get("fs"))
    if not path or total is None or used is None:
        return None
    return GuestFilesystem(path=path, type=kind or "", total_bytes=total, used_bytes=min(used, total))


def _disk_names(mapping: Arguments, texts: Texts) -> dict[str, str]:
    names = {}
    for serial, one in list(mapping.items())[:GUEST_LIST_ITEMS_MAX]:
        name = texts.text(one.get("name")) if isinstance(one, dict) else None
        if name:
            names[clean(serial, GUEST_TEXT_CHARS_MAX)] = name
    return names


def _containers(arguments: Arguments) -> Told:
    if items(arguments.get("list")) is None:
        return {}
    found, texts = [], Texts()
    for one in mappings(arguments.get("list")):
        identity = texts.text(one.get("id"))
        if identity:
            found.append(
                GuestContainer(
                    id=identity,
                    names=texts.all(one.get("names")),
                    image=texts.text(one.get("image")) or "",
                    status=texts.text(one.get("status")) or "",
                    command=texts.text(one.get("command")) or "",
                )
            )
    return {"containers": tuple(found)}


def _users(arguments: Arguments) -> Told:
    """Ours says all of them; oVirt's the one at the console, or None where nobody is."""
    if items(arguments.get("users")) is not None:
        return {"users": Texts().all(arguments.get("users"))}
    name = text(arguments.get("name"))
    if name is None:
        return {}
    return {"users": () if name in ("", "None", "Unknown") else (name,)}


def _timezone(arguments: Arguments) -> Told:
    return known(
        {
            "timezone": text(arguments.get("zone")),
            "timezone_offset_minutes": offset(arguments.get("offset"), OFFSET_MINUTES_MAX),
        }
    )


FACTS_OF: dict[str, Callable[[Arguments], Told]] = {
    "heartbeat": _heartbeat,
    "memory-stats": _memory,
    "host-name": lambda said: known({"hostname": text(said.get("name"))}),
    "fqdn": lambda said: known({"fqdn": text(said.get("fqdn"))}),
    "os-version": lambda said: known({"os_name": text(said.get("version"))}),
    "os-info": _os_info,
    "network-interfaces": _interfaces,
    "applications": _applications,
    "active-user": _users,
    "disks-usage": _disks,
    "number-of-cpus": lambda said: known({"cpu_count": number(said.get("count"), CPUS_MAX)}),
    "timezone": _timezone,
    "containers": _containers,
}
