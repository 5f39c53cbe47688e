"""What is known of one guest, by who told it: its channel's agent and QEMU's own, merged into one `GuestFacts`.

Decides who is believed. Must not know messages, sockets or clocks: what is told comes with its time.

1. QEMU's agent is preferred where both tell, as VDSM does it; but what is empty gives way to what is not.
2. A source that was silent for `STALE_S` while the other spoke is forgotten. While nobody speaks (a paused machine, a
   guest that hangs) the last word stands, and `heartbeat_ns` tells its age.
3. Who told a field stands in `sources`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from hypervisor_backends.guest_time import is_over
from hypervisor_backends.guest_values import Told
from hypervisor_backends.measurements import GuestFacts, GuestFilesystem

STALE_S = 120.0
QEMU_SOURCE = "qemu-ga"
PREFERRED = (QEMU_SOURCE, "olvm", "ovirt")
# What a reboot ends, whatever the guest says of it.
OF_ONE_BOOT = ("session", "users", "containers", "uptime_s", "boot_id")


class Counters(NamedTuple):
    """What the guest said that is no fact."""

    discarded: int = 0
    unknown: int = 0
    delayed: int = 0
    dropped: int = 0
    refused: int = 0


class FactsBook:
    """All that one guest told, by source. Not thread-safe: one reader owns it."""

    def __init__(self) -> None:
        self._told: dict[str, Told] = {}
        self._heard_ns: dict[str, int] = {}  # of the same sources
        self._agents: dict[str, str] = {}

    def take(self, source: str, told: Told, at_ns: int) -> bool:
        """Whether anything that does not change all the time is news."""
        assert source in PREFERRED, source
        before = self._told.setdefault(source, {})
        is_news = any(_steady(name, before.get(name)) != _steady(name, value) for name, value in told.items())
        before.update(told)
        self._heard_ns[source] = at_ns
        late = [one for one, heard_ns in self._heard_ns.items() if is_over(heard_ns, STALE_S, at_ns)]
        for other in late:
            self.forget(other)
            is_news = True
        return is_news

    def name_agent(self, source: str, agent: str) -> bool:
        """As in "olvm 3". Whether that is news; an empty name is none."""
        if not agent or self._agents.get(source) == agent:
            return False
        self._agents[source] = agent
        return True

    def rename(self, source: str, to: str) -> None:
        """The same agent turns out to be another than was thought."""
        for table in self._tables():
            if source in table:
                table[to] = table.pop(source)

    def forget(self, source: str) -> None:
        """It does not speak any more: what it said is not so any more, perhaps."""
        for table in self._tables():
            table.pop(source, None)

    def _tables(self) -> tuple[dict[str, Any], ...]:
        return self._told, self._heard_ns, self._agents

    def begin_boot(self) -> None:
        for told in self._told.values():
            for name in OF_ONE_BOOT:
                told.pop(name, None)

    def facts(self, *, version: int, counters: Counters) -> GuestFacts | None:
        """None: nobody has told anything yet."""
        if not self._told:
            return None
        merged: dict[str, Any] = dict(_EMPTY)
        sources: dict[str, str] = {}
        for source in reversed(PREFERRED):
            for name, value in self._told.get(source, {}).items():
                if value or name not in sources:
                    merged[name] = value
                    sources[name] = source
        return GuestFacts(
            **merged,
            agent_api_version=version,
            heartbeat_ns=max(self._heard_ns.values()),
            agents=tuple(self._agents[source] for source in PREFERRED if source in self._agents),
            sources=sources,
            lines_discarded=counters.discarded,
            messages_unknown=counters.unknown,
            messages_delayed=counters.delayed,
            events_dropped=counters.dropped,
            values_refused=counters.refused,
        )


def _steady(name: str, value: Any) -> object:
    """What of a fact is news when it changes: not memory and uptime, and of a file system not how full it is."""
    if name.endswith(("_kib", "_per_s", "uptime_s")):
        return None
    if name == "filesystems":
        mounts: tuple[GuestFilesystem, ...] = value or ()
        return tuple((one.path, one.type, one.total_bytes) for one in mounts)
    return value


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
