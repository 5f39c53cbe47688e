"""QEMU's own agent in guests: what it is asked, how often, and what its answers say. No I/O.

It says nothing by itself. The periods are VDSM's: everything often while a machine is young, then each fact at its own;
a guest that fails to answer is left alone for a while.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from hypervisor_backends.guest_facts import QEMU_SOURCE
from hypervisor_backends.guest_messages import OFFSET_MINUTES_MAX
from hypervisor_backends.guest_time import is_over
from hypervisor_backends.guest_values import (
    BYTES_MAX,
    CPUS_MAX,
    Told,
    Values,
    addresses_of,
    is_address,
    known,
)
from hypervisor_backends.measurements import GuestFilesystem, GuestNic
from olvm.model.limits import GUEST_LINE_BYTES_MAX

SOURCE = QEMU_SOURCE
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
    "guest-get-disks": 300.0,
    "guest-get-vcpus": 60.0,
}
YOUNG_S, YOUNG_PERIOD_S = 120.0, 10.0
THROTTLE_S = 60.0
THROTTLE_YOUNG_S = 5.0  # a guest that boots is not deaf
VERSION_CHARS_MAX = 32
COMMANDS_MAX = 1_000


class _Guest:
    """One machine's agent; times are those of the last question, the last failure and the boot."""

    def __init__(self, born_ns: int) -> None:
        self.born_ns = born_ns
        self.asked_ns: dict[str, int] = {}
        self.failed_ns: int | None = None
        self.connected_ns: int | None = None
        self.commands: frozenset[str] | None = None  # that it knows, if it said so

    def may_be_another(self) -> None:
        """What it was asked and what it said it knows, the next one may not have been or know."""
        self.asked_ns.clear()
        self.commands = None

    def wants(self, command: str, now_ns: int) -> bool:
        if self.commands is not None and command not in self.commands:
            return False
        period_s = PERIOD_S[command]
        if self.is_young(now_ns):
            period_s = min(period_s, YOUNG_PERIOD_S)
        return command not in self.asked_ns or is_over(self.asked_ns[command], period_s, now_ns)

    def is_quiet(self, now_ns: int) -> bool:
        wait_s = THROTTLE_YOUNG_S if self.is_young(now_ns) else THROTTLE_S
        return self.failed_ns is not None and not is_over(self.failed_ns, wait_s, now_ns)

    def is_young(self, now_ns: int) -> bool:
        return not is_over(self.born_ns, YOUNG_S, now_ns)


class QemuGuestAgentPoller:
    """Which command is due for which machine. `now_ns` is the caller's clock."""

    def __init__(self) -> None:
        self._guests: dict[str, _Guest] = {}

    def begin(self, vm_id: str, now_ns: int) -> None:
        """Its machine boots; asked again while it is known: it boots anew."""
        self._guests[vm_id] = _Guest(now_ns)

    def end(self, vm_id: str) -> None:
        self._guests.pop(vm_id, None)

    def due(self, vm_id: str, now_ns: int) -> list[str]:
        """Commands to ask now; they count as asked. `guest-info` comes first."""
        guest = self._guests.get(vm_id)
        if guest is None or guest.is_quiet(now_ns):
            return []
        found = [command for command in PERIOD_S if guest.wants(command, now_ns)]
        guest.asked_ns.update(dict.fromkeys(found, now_ns))
        return found

    def supports(self, vm_id: str, commands: frozenset[str]) -> None:
        """What its agent said it knows; an agent that says nothing of the kind is asked everything."""
        guest = self._guests.get(vm_id)
        if guest is not None and "guest-info" in commands:
            guest.commands = commands

    def connected(self, vm_id: str, now_ns: int) -> None:
        """It is there: whatever it was asked, it is asked now. One that connects on and on is asked no more often."""
        guest = self._guests.get(vm_id)
        if guest is None:
            return
        if guest.connected_ns is None or is_over(guest.connected_ns, THROTTLE_YOUNG_S, now_ns):
            guest.connected_ns, guest.failed_ns = now_ns, None
            guest.may_be_another()

    def failed(self, vm_id: str, now_ns: int) -> None:
        """It did not answer: its other questions wait too, and when it is asked again it may be another agent."""
        guest = self._guests.get(vm_id)
        if guest is not None:
            guest.failed_ns = now_ns
            guest.may_be_another()


def command_json(command: str) -> str:
    return msgspec.json.encode({"execute": command}).decode()


def facts_of(command: str, answer: str, values: Values) -> tuple[Told, str]:
    """What an answer tells, and the agent's version if it says so. A hostile answer tells nothing, and is counted."""
    told = _returned(answer)
    if told is None:
        values.refuse(answer)
    if command == "guest-info":
        said = values.text(told.get("version")) if isinstance(told, dict) else None
        return {}, (said or "")[:VERSION_CHARS_MAX]
    read = _READ.get(command)
    return ({} if read is None else read(told, values)), ""


def supported_of(answer: str) -> frozenset[str]:
    """Commands that the answer to `guest-info` calls enabled."""
    told, values = _returned(answer), Values()
    listed = values.mappings(told.get("supported_commands")) if isinstance(told, dict) else []
    names = [values.text(one.get("name")) for one in listed[:COMMANDS_MAX] if one.get("enabled") is True]
    return frozenset(name for name in names if name)


def _returned(answer: str) -> Any:
    if len(answer) > GUEST_LINE_BYTES_MAX:
        return None
    try:
        said = msgspec.json.decode(answer)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return None
    return said.get("return") if isinstance(said, dict) else None


# ---------------------------------------------------------------- what each answer tells


def _host_name(told: Any, values: Values) -> Told:
    name = values.text(told.get("host-name")) if isinstance(told, dict) else None
    return {"hostname": name} if name else {}


def _osinfo(told: Any, values: Values) -> Told:
    if not isinstance(told, dict):
        return {}
    names = {
        "name": "os_name",
        "version-id": "os_version",
        "kernel-release": "kernel",
        "machine": "os_arch",
    }
    return known({ours: values.text(told.get(theirs)) or None for theirs, ours in names.items()})


def _timezone(told: Any, values: Values) -> Told:
    if not isinstance(told, dict):
        return {}
    found = known({"timezone": values.text(told.get("zone")) or None})
    offset_s = values.offset(told.get("offset"), OFFSET_MINUTES_MAX * 60)
    if offset_s is not None:
        found["timezone_offset_minutes"] = offset_s // 60
    return found


def _interfaces(told: Any, values: Values) -> Told:
    said = values.items(told)
    if said is None:
        return {}
    cards = []
    for one in values.mappings(said):
        name = values.listed(one.get("name"))
        if name and name != "lo":
            listed = [values.listed(ip.get("ip-address")) for ip in values.mappings(one.get("ip-addresses"))]
            valid = [ip for ip in listed if ip is not None and is_address(ip)]
            inet = tuple(ip for ip in valid if ":" not in ip)
            inet6 = tuple(ip for ip in valid if ":" in ip)
            mac = values.listed(one.get("hardware-address")) or ""
            cards.append(GuestNic(name=name, mac=mac, inet=inet, inet6=inet6))
    return {"interfaces": tuple(cards), "ips": addresses_of(cards)}


def _users(told: Any, values: Values) -> Told:
    said = values.items(told)
    if said is None:
        return {}
    names = [values.listed(one.get("user")) for one in values.mappings(said)]
    return {"users": tuple(dict.fromkeys(name for name in names if name))}


def _fsinfo(told: Any, values: Values) -> Told:
    """Those whose size it says; an agent before QEMU 3.1 says none."""
    found = []
    for one in values.mappings(told):
        path, total = values.listed(one.get("mountpoint")), values.number(one.get("total-bytes"), BYTES_MAX)
        used, kind = values.number(one.get("used-bytes"), BYTES_MAX), values.listed(one.get("type"))
        if path and total is not None and used is not None:
            used = values.at_most(used, total)
            found.append(GuestFilesystem(path=path, type=kind or "", total_bytes=total, used_bytes=used))
    return {"filesystems": tuple(found)} if found else {}


def _disks(told: Any, values: Values) -> Told:
    """Whole disks that have a serial."""
    names = {}
    for one in values.mappings(told):
        address = one.get("address")
        serial = values.listed(address.get("serial")) if isinstance(address, dict) else None
        name = values.listed(one.get("name"))
        if serial and name and one.get("partition") is False:
            names[serial] = name
    return {"disk_mapping": names} if names else {}


def _vcpus(told: Any, values: Values) -> Told:
    online = [one for one in values.mappings(told) if one.get("online") is True]
    return {"cpu_count": len(online)} if 0 < len(online) <= CPUS_MAX else {}


_READ: dict[str, Callable[[Any, Values], Told]] = {
    "guest-get-host-name": _host_name,
    "guest-get-osinfo": _osinfo,
    "guest-get-timezone": _timezone,
    "guest-network-get-interfaces": _interfaces,
    "guest-get-users": _users,
    "guest-get-fsinfo": _fsinfo,
    "guest-get-disks": _disks,
    "guest-get-vcpus": _vcpus,
}
