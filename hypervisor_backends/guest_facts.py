"""What is known of one guest, by who told it: its channel's agent and QEMU's own, merged into one `GuestFacts`.

Decides what of a guest's words is taken over: texts cleaned and cut, lists cut, numbers within their bounds. A field of
the wrong kind is left out, and the message's other fields count. QEMU's agent is preferred where both tell, as VDSM
does it; who told a field stands in `sources`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from guest_agent.protocol import clean
from hypervisor_backends.measurements import (
    GuestContainer,
    GuestFacts,
    GuestFilesystem,
    GuestNic,
    SessionState,
)
from olvm.model.hardware import is_ip_address
from olvm.model.limits import GUEST_LIST_ITEMS_MAX, GUEST_TEXT_CHARS_MAX

Told = dict[str, Any]
KIB_MAX = 64 * 1024**3  # 64 TiB: the largest machine
BYTES_MAX = 2**62
CPUS_MAX = 10_000
PREFERRED = ("qemu-ga", "olvm", "ovirt")
SESSION_BY_EVENT: dict[str, SessionState] = {
    "session-logon": "UserLoggedOn",
    "session-logoff": "LoggedOff",
    "session-lock": "Locked",
    "session-unlock": "Active",
    "session-startup": "Unknown",
    "session-shutdown": "LoggedOff",
}


def text(value: object) -> str | None:
    return clean(value, GUEST_TEXT_CHARS_MAX) if isinstance(value, str) else None


def number(value: object, highest: int) -> int | None:
    """Also of a text, as oVirt's agent writes some; None when it is none, or beyond belief."""
    if isinstance(value, str) and len(value) <= 20 and value.strip().isdecimal():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:  # noqa: PLR0124 - NaN
        return None
    return int(value) if 0 <= value <= highest else None


def items(value: object) -> list[object]:
    return value[:GUEST_LIST_ITEMS_MAX] if isinstance(value, list) else []


def texts(value: object) -> tuple[str, ...]:
    return tuple(one for one in map(text, items(value)) if one is not None)


# ---------------------------------------------------------------- from the channel's messages


def _memory(arguments: Mapping[str, object]) -> Told:
    said = arguments.get("memory-stat", arguments)
    if not isinstance(said, dict):
        return {}
    names = {
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
    return _kept({ours: number(said.get(theirs), KIB_MAX) for theirs, ours in names.items()})


def _heartbeat(arguments: Mapping[str, object]) -> Told:
    told = _memory(arguments)
    told |= _kept(
        {
            "uptime_s": number(arguments.get("uptime"), BYTES_MAX),
            "boot_id": text(arguments.get("bootId")),
        }
    )
    return told


def _os_info(arguments: Mapping[str, object]) -> Told:
    names = {
        "version": "os_version",
        "distribution": "os_name",
        "codename": "os_codename",
        "arch": "os_arch",
        "type": "os_type",
        "kernel": "kernel",
    }
    return _kept({ours: text(arguments.get(theirs)) for theirs, ours in names.items()})


def _interfaces(arguments: Mapping[str, object]) -> Told:
    found = []
    for one in items(arguments.get("interfaces")):
        if isinstance(one, dict):
            name, mac = text(one.get("name")), text(one.get("hw"))
            inet = tuple(ip for ip in texts(one.get("inet")) if is_ip_address(ip))
            inet6 = tuple(ip for ip in texts(one.get("inet6")) if is_ip_address(ip))
            if name:
                found.append(GuestNic(name=name, mac=mac or "", inet=inet, inet6=inet6))
    return {"interfaces": tuple(found), "ips": addresses(found)}


def addresses(cards: list[GuestNic]) -> tuple[str, ...]:
    """IPv4 first, then IPv6 beyond the link; each once."""
    inet = [ip for card in cards for ip in card.inet]
    inet6 = [ip for card in cards for ip in card.inet6 if not ip.lower().startswith("fe80")]
    return tuple(dict.fromkeys([*inet, *inet6]))


def _disks(arguments: Mapping[str, object]) -> Told:
    found = []
    for one in items(arguments.get("disks")):
        if isinstance(one, dict):
            path, total, used = (
                text(one.get("path")),
                number(one.get("total"), BYTES_MAX),
                number(one.get("used"), BYTES_MAX),
            )
            if path and total is not None and used is not None:
                kind = text(one.get("fs")) or ""
                found.append(
                    GuestFilesystem(path=path, type=kind, total_bytes=total, used_bytes=min(used, total))
                )
    mapping = arguments.get("mapping")
    names: dict[str, str] = {}
    for serial, one in list(mapping.items())[:GUEST_LIST_ITEMS_MAX] if isinstance(mapping, dict) else []:
        name = text(one.get("name")) if isinstance(one, dict) else None
        if name and isinstance(serial, str):
            names[clean(serial, GUEST_TEXT_CHARS_MAX)] = name
    return {"filesystems": tuple(found), "disk_mapping": names}


def _containers(arguments: Mapping[str, object]) -> Told:
    found = []
    for one in items(arguments.get("list")):
        if isinstance(one, dict) and text(one.get("id")):
            found.append(
                GuestContainer(
                    id=text(one.get("id")) or "",
                    names=texts(one.get("names")),
                    image=text(one.get("image")) or "",
                    status=text(one.get("status")) or "",
                    command=text(one.get("command")) or "",
                )
            )
    return {"containers": tuple(found)}


def _users(arguments: Mapping[str, object]) -> Told:
    """oVirt's agent says None or nothing where nobody is."""
    listed = texts(arguments.get("users"))
    name = text(arguments.get("name")) or ""
    if "users" in arguments:
        return {"users": listed}
    return {"users": (name,) if name not in ("", "None") else ()}


def _timezone(arguments: Mapping[str, object]) -> Told:
    offset = arguments.get("offset")
    told = _kept({"timezone": text(arguments.get("zone"))})
    if isinstance(offset, int) and not isinstance(offset, bool) and -900 <= offset <= 900:
        told["timezone_offset_minutes"] = offset
    return told


FACTS_OF: dict[str, Callable[[Mapping[str, object]], Told]] = {
    "heartbeat": _heartbeat,
    "memory-stats": _memory,
    "host-name": lambda said: _kept({"hostname": text(said.get("name"))}),
    "fqdn": lambda said: _kept({"fqdn": text(said.get("fqdn"))}),
    "os-version": lambda said: _kept({"os_name": text(said.get("version"))}),
    "os-info": _os_info,
    "network-interfaces": _interfaces,
    "applications": lambda said: {"applications": texts(said.get("applications"))},
    "active-user": _users,
    "disks-usage": _disks,
    "number-of-cpus": lambda said: _kept({"cpu_count": number(said.get("count"), CPUS_MAX)}),
    "timezone": _timezone,
    "containers": _containers,
}


def _kept(told: Mapping[str, object]) -> Told:
    return {name: value for name, value in told.items() if value is not None}


# ---------------------------------------------------------------- merging


class FactsBook:
    """All that one guest told, by source. Not thread-safe: one reader owns it."""

    def __init__(self) -> None:
        self._told: dict[str, Told] = {}
        self._heard_ns: dict[str, int] = {}
        self._agents: dict[str, str] = {}

    def take(self, source: str, told: Told, at_ns: int) -> bool:
        """Whether anything but the memory is news."""
        before = self._told.setdefault(source, {})
        changed = any(before.get(name) != value for name, value in told.items() if not _is_restless(name))
        before.update(told)
        self._heard_ns[source] = at_ns
        return changed

    def name_agent(self, source: str, agent: str) -> None:
        """An empty name says nothing new."""
        if agent:
            self._agents[source] = agent

    def forget(self, source: str) -> None:
        """It does not speak any more: what it said is not so any more, perhaps."""
        self._told.pop(source, None)
        self._heard_ns.pop(source, None)
        self._agents.pop(source, None)

    def facts(self, *, version: int, discarded: int, unknown: int, delayed: int) -> GuestFacts | None:
        """None: nobody has told anything yet."""
        if not self._told:
            return None
        merged: Told = {}
        sources: dict[str, str] = {}
        for source in reversed(PREFERRED):
            for name, value in self._told.get(source, {}).items():
                if value or name not in merged:
                    merged[name] = value
                    sources[name] = source
        return GuestFacts(
            **{**_EMPTY, **merged},
            agent_api_version=version,
            heartbeat_ns=max(self._heard_ns.values()),
            agents=tuple(self._agents[source] for source in PREFERRED if source in self._agents),
            sources=sources,
            lines_discarded=discarded,
            messages_unknown=unknown,
            messages_delayed=delayed,
        )


def _is_restless(name: str) -> bool:
    return name.endswith(("_kib", "_per_s", "uptime_s")) or name == "filesystems"


_EMPTY: Told = {
    "hostname": "",
    "fqdn": "",
    "os_name": "",
    "os_version": "",
    "kernel": "",
    "timezone": "",
    "ips": (),
    "applications": (),
    "users": (),
    "memory_total_kib": 0,
    "memory_free_kib": 0,
    "cpu_count": 0,
}
