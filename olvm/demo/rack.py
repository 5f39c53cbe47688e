"""A rack loses its power: several hosts at once, and what ran there comes back elsewhere or is known to be down.

Two proofs that an old copy is over are shown side by side: machines with a lease wait until it has expired, the others
until fencing has seen their host without power. Fencing then switches the hosts on again.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import msgspec

from olvm.api.data_center import DataCenter
from olvm.demo.plan import LABORATORY, RACK_SILO, Plan, RuntimeName
from olvm.demo.power import cut_power, kill_silo, running_silo
from olvm.model.errors import WaitTimeout

BACK_WITHIN_S = 100.0
HIT_QUERY = """
    select v.id, v.name, v.high_availability, v.priority from vms v join hosts h on h.name = v.host
    where h.silo = ? and v.status = 'up' order by v.id
"""
UP_AGAIN_QUERY = "select id, started_ns from vms where status = 'up' and started_ns > ?"
# A takeover by lease knows where the machine ran before; a start after a proven death begins from nothing.
RESTARTS_QUERY = """
    select vm_id, details like '%"from"%' from events where code = 'vm_ha_restart' and at_ns > ? order by seq
"""
HOSTS_QUERY = "select name, status, boot_id from hosts where silo = ?"
# Unknown machines, and copies whose end nobody has heard yet.
UNSETTLED_QUERY = "select (select count(*) from vms where status = 'unknown') + (select count(*) from copies)"


class Comeback(msgspec.Struct, kw_only=True):
    """A highly available machine that runs again, `seconds` after the power was cut."""

    vm: str
    priority: int
    by_lease: bool
    seconds: float


class RackLoss:
    """`pause` waits a moment, or raises when all is to end."""

    def __init__(
        self,
        dc: DataCenter,
        plan: Plan,
        runtime: RuntimeName,
        say: Callable[[str], None],
        pause: Callable[[], None],
    ) -> None:
        self._dc = dc
        self._runtime = runtime
        self._say = say
        self._pause = pause
        self._awaited: dict[str, tuple[str, int]] = {}  # id -> name, priority
        self.hosts = [host.shape.name for host in plan.rack]
        self._told_statuses = f"{len(self.hosts)} up"
        self._old_boots: set[str] = set()
        self.at_ns = 0
        self.pid = 0
        self.vms_hit = 0
        self.vms_hit_ha = 0
        self.hosts_back_s: float | None = None
        self.comebacks: list[Comeback] = []

    @property
    def seconds(self) -> float:
        return (time.time_ns() - self.at_ns) / 1e9

    def go_through(self) -> None:
        """Raises `WaitTimeout` naming what is not back."""
        hit = self._dc.sql(HIT_QUERY, [RACK_SILO]).rows()
        self._awaited = {vm_id: (name, priority) for vm_id, name, available, priority in hit if available}
        self.vms_hit, self.vms_hit_ha = len(hit), len(self._awaited)
        self._old_boots = {boot_id for _, _, boot_id in self._dc.sql(HOSTS_QUERY, [RACK_SILO])}
        silo = running_silo(self._dc, RACK_SILO)
        self.pid, self.at_ns = silo.pid, time.time_ns()
        cut_power(self._dc.directory, self.hosts)
        kill_silo(self._dc, self._runtime, silo)
        self._say(
            f"  3. a rack loses its power: {', '.join(self.hosts)} are dead at once, with {self.vms_hit} machines, "
            f"{self.vms_hit_ha} of them highly available"
        )
        self._say(
            f"     watch: leases run out after {LABORATORY['lease_expiry_s']:g} s; machines without one wait until "
            "fencing has proven their host off, and start by priority"
        )
        while not self._is_over():
            if self.seconds > BACK_WITHIN_S:
                raise WaitTimeout(self._what_is_missing())
            self._pause()

    def _is_over(self) -> bool:
        back = [vm_id for vm_id, _ in self._dc.sql(UP_AGAIN_QUERY, [self.at_ns]) if vm_id in self._awaited]
        if len(back) > len(self.comebacks):
            self._note_comebacks()
        hosts = self._dc.sql(HOSTS_QUERY, [RACK_SILO]).rows()
        self._tell_statuses(Counter(status for _, status, _ in hosts))
        booted = [
            name for name, status, boot_id in hosts if status == "up" and boot_id not in self._old_boots
        ]
        if self.hosts_back_s is None and len(booted) == len(self.hosts):
            self.hosts_back_s = self.seconds
        complete = len(self.comebacks) == len(self._awaited) and self.hosts_back_s is not None
        return complete and self._dc.sql(UNSETTLED_QUERY).one() == 0

    def _note_comebacks(self) -> None:
        by_lease = dict(self._dc.sql(RESTARTS_QUERY, [self.at_ns]).rows())
        before = Counter(self._group(one) for one in self.comebacks)
        self.comebacks = sorted(
            (
                Comeback(
                    vm=self._awaited[vm_id][0],
                    priority=self._awaited[vm_id][1],
                    by_lease=bool(by_lease.get(vm_id)),
                    seconds=(started_ns - self.at_ns) / 1e9,
                )
                for vm_id, started_ns in self._dc.sql(UP_AGAIN_QUERY, [self.at_ns])
                if vm_id in self._awaited
            ),
            key=lambda one: one.seconds,
        )
        now = Counter(self._group(one) for one in self.comebacks)
        news = ", ".join(
            f"{count - before[group]} {group}"
            for group, count in sorted(now.items())
            if count > before[group]
        )
        self._say(
            f"     +{self.seconds:4.1f} s  up elsewhere: {news}; {len(self._awaited) - len(self.comebacks)} to come"
        )

    @staticmethod
    def _group(one: Comeback) -> str:
        return "by lease" if one.by_lease else f"after fencing with priority {one.priority}"

    def _tell_statuses(self, statuses: Counter[str]) -> None:
        text = ", ".join(f"{count} {status}" for status, count in sorted(statuses.items()))
        if text != self._told_statuses:
            self._told_statuses = text
            self._say(f"     +{self.seconds:4.1f} s  hosts of the rack: {text}")

    def _what_is_missing(self) -> str:
        back = {one.vm for one in self.comebacks}
        missing = [name for name, _ in self._awaited.values() if name not in back]
        return (
            f"after {BACK_WITHIN_S:g} s {len(missing)} highly available machines are not up again "
            f"({', '.join(missing[:3]) or 'none'}), and the hosts are: {self._told_statuses}"
        )
