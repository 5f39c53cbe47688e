"""QEMU's own agent in guests: what it is asked, how often, and what its answers say. No I/O.

It says nothing by itself. The periods are VDSM's: everything often while a machine is young, then each fact at its own;
a guest that fails to answer is left alone for a while.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from hypervisor_backends.guest_facts import BYTES_MAX, CPUS_MAX, Told, addresses, items, number, text
from hypervisor_backends.measurements import GuestFilesystem, GuestNic
from olvm.model.hardware import is_ip_address
from olvm.model.limits import GUEST_LINE_BYTES_MAX, NS_PER_S

SOURCE = "qemu-ga"
CHANNEL = "org.qemu.guest_agent.0"
COMMAND_TIMEOUT_S = 1
PERIOD_S: dict[str, float] = {
    "guest-info": 300.0,
    "guest-get-host-name": 120.0,
    "guest-get-osinfo": 120.0,
    "guest-get-timezone": 120.0,
    "guest-network-get-interfaces": 120.0,
    "guest-get-users": 10.0,
    "guest-get-fsinfo": 300.0,
    "guest-get-vcpus": 60.0,
}
YOUNG_S, YOUNG_PERIOD_S = 120.0, 10.0
THROTTLE_S = 60.0


class QemuGuestAgentPoller:
    """Which command is due for which machine. `now_ns` is the caller's clock."""

    def __init__(self) -> None:
        self._due_ns: dict[str, dict[str, int]] = {}
        self._born_ns: dict[str, int] = {}
        self._quiet_until_ns: dict[str, int] = {}

    def begin(self, vm_id: str, now_ns: int) -> None:
        self._born_ns[vm_id] = now_ns
        self._due_ns[vm_id] = dict.fromkeys(PERIOD_S, now_ns)
        self._quiet_until_ns.pop(vm_id, None)

    def end(self, vm_id: str) -> None:
        for table in (self._born_ns, self._due_ns, self._quiet_until_ns):
            table.pop(vm_id, None)

    def due(self, vm_id: str, now_ns: int) -> list[str]:
        """Commands to ask now; they count as asked."""
        if self._quiet_until_ns.get(vm_id, 0) > now_ns:
            return []
        due_ns = self._due_ns.get(vm_id, {})
        is_young = now_ns - self._born_ns.get(vm_id, now_ns) < YOUNG_S * NS_PER_S
        found = [command for command, at_ns in due_ns.items() if at_ns <= now_ns]
        for command in found:
            period_s = min(PERIOD_S[command], YOUNG_PERIOD_S) if is_young else PERIOD_S[command]
            due_ns[command] = now_ns + int(period_s * NS_PER_S)
        return found

    def failed(self, vm_id: str, now_ns: int) -> None:
        """It did not answer: the rest of its questions wait too."""
        if vm_id in self._due_ns:
            young = now_ns - self._born_ns[vm_id] < YOUNG_S * NS_PER_S
            wait_s = 5.0 if young else THROTTLE_S  # a guest that boots is not deaf
            self._quiet_until_ns[vm_id] = now_ns + int(wait_s * NS_PER_S)
            self._due_ns[vm_id] = dict.fromkeys(PERIOD_S, self._quiet_until_ns[vm_id])


def command_json(command: str) -> str:
    return msgspec.json.encode({"execute": command}).decode()


def facts_of(command: str, answer: str) -> tuple[Told, str]:
    """What an answer tells, and the agent's version if it says so. A hostile answer tells nothing."""
    if len(answer) > GUEST_LINE_BYTES_MAX:
        return {}, ""
    try:
        said = msgspec.json.decode(answer)
    except msgspec.DecodeError:
        return {}, ""
    told = said.get("return") if isinstance(said, dict) else None
    if command == "guest-info":
        return {}, (text(told.get("version")) or "")[:32] if isinstance(told, dict) else ""
    read = _READ.get(command)
    return (read(told) if read is not None and told is not None else {}), ""


def _host_name(told: Any) -> Told:
    name = text(told.get("host-name")) if isinstance(told, dict) else None
    return {"hostname": name} if name else {}


def _osinfo(told: Any) -> Told:
    if not isinstance(told, dict):
        return {}
    names = {
        "name": "os_name",
        "version-id": "os_version",
        "kernel-release": "kernel",
        "machine": "os_arch",
    }
    found = {ours: text(told.get(theirs)) for theirs, ours in names.items()}
    return {name: value for name, value in found.items() if value}


def _timezone(told: Any) -> Told:
    if not isinstance(told, dict):
        return {}
    found: Told = {}
    zone, offset = text(told.get("zone")), told.get("offset")
    if zone:
        found["timezone"] = zone
    if isinstance(offset, int) and not isinstance(offset, bool) and abs(offset) <= 900 * 60:
        found["timezone_offset_minutes"] = offset // 60
    return found


def _interfaces(told: Any) -> Told:
    cards = []
    for one in items(told):
        name = text(one.get("name")) if isinstance(one, dict) else None
        if not isinstance(one, dict) or not name or name == "lo":
            continue
        given = [ip for ip in items(one.get("ip-addresses")) if isinstance(ip, dict)]
        known = [text(ip.get("ip-address")) or "" for ip in given]
        valid = [ip for ip in known if is_ip_address(ip)]
        inet = tuple(ip for ip in valid if ":" not in ip)
        inet6 = tuple(ip for ip in valid if ":" in ip)
        cards.append(GuestNic(name=name, mac=text(one.get("hardware-address")) or "", inet=inet, inet6=inet6))
    return {"interfaces": tuple(cards), "ips": addresses(cards)}


def _users(told: Any) -> Told:
    names = [text(one.get("user")) for one in items(told) if isinstance(one, dict)]
    return {"users": tuple(dict.fromkeys(name for name in names if name))}


def _fsinfo(told: Any) -> Told:
    found = []
    for one in items(told):
        if isinstance(one, dict):
            path, total = text(one.get("mountpoint")), number(one.get("total-bytes"), BYTES_MAX)
            used = number(one.get("used-bytes"), BYTES_MAX)
            if path and total is not None and used is not None:
                kind = text(one.get("type")) or ""
                found.append(
                    GuestFilesystem(path=path, type=kind, total_bytes=total, used_bytes=min(used, total))
                )
    return {"filesystems": tuple(found)} if found else {}


def _vcpus(told: Any) -> Told:
    online = [one for one in items(told) if isinstance(one, dict) and one.get("online") is True]
    return {"cpu_count": len(online)} if 0 < len(online) <= CPUS_MAX else {}


_READ: dict[str, Callable[[Any], Told]] = {
    "guest-get-host-name": _host_name,
    "guest-get-osinfo": _osinfo,
    "guest-get-timezone": _timezone,
    "guest-network-get-interfaces": _interfaces,
    "guest-get-users": _users,
    "guest-get-fsinfo": _fsinfo,
    "guest-get-vcpus": _vcpus,
}
