"""When a libvirt host and its machines are measured, and what is kept: on the owner's thread.

Decides the rhythm, and that one QEMU that does not answer costs the others nothing: a bulk call that does not come back
in time is given up, those who held it up are found, listed as not responding and left out until they answer again.

A machine that a sample does not have is looked at: libvirt tells nobody of one whose QEMU was dying while libvirtd came
back, and whose monitor it then could not open.
"""

from __future__ import annotations

import msgspec

from hypervisor_backends.libvirt_book import Life
from hypervisor_backends.libvirt_guests import Guests
from hypervisor_backends.libvirt_host import LibvirtHost
from hypervisor_backends.libvirt_host_statistics import Counts, HostReading, host_statistics, read_host
from hypervisor_backends.libvirt_pools import pool_statistics
from hypervisor_backends.libvirt_statistics import Reading, domain_statistics, hung_uuids, read_all
from hypervisor_backends.libvirt_workers import TIMED_OUT
from hypervisor_backends.measurements import DomainStatistics, HostStatistics, PoolStatistics
from hypervisor_backends.protocol import CallFailed, CallSucceeded, Cancel, Done, StatisticsReport
from olvm.model.limits import NS_PER_S

BULK_BUDGET_S = 5.0
# Room in storage changes slowly, and reading it reads directories: a pool that hangs holds up no other figure.
POOLS_BUDGET_S = 20.0
# How often those that hang are asked whether they answer again.
SUSPECTS_PERIOD_S = 2.0
VCPUS_RUN = frozenset({"powering_up", "up", "powering_down", "reboot_in_progress", "migrating_from"})


class Raw(msgspec.Struct, frozen=True):
    host: HostReading
    domains: dict[str, dict[str, int | str]]  # by UUID


class Sampling:
    def __init__(self, host: LibvirtHost, guests: Guests) -> None:
        self._host = host
        self._guests = guests
        self._reading: HostReading | None = None
        self._reading_before: HostReading | None = None
        self._now: dict[tuple[str, int], Reading] = {}  # by machine and epoch
        self._before: dict[tuple[str, int], Reading] = {}
        self._suspects: frozenset[str] = frozenset()  # UUIDs of those that do not answer
        self._pools: tuple[PoolStatistics, ...] = ()
        self._pools_due_ns = 0
        self._pools_under_way = False
        self._waiters: list[Done] = []
        self._under_way = False
        self._timer: Cancel | None = None
        self._suspects_timer: Cancel | None = None
        self._closed = False

    # ------------------------------------------------------------ asking

    def start(self, first: HostReading) -> None:
        self._reading = self._reading or first
        self._sample()

    def ask(self, done: Done) -> None:
        """Answer with a sample that was begun after this; at once with the newest where libvirt is away."""
        self._waiters.append(done)
        self._sample()

    def close(self) -> None:
        self._closed = True
        for timer in (self._timer, self._suspects_timer):
            if timer is not None:
                timer()
        self._timer = self._suspects_timer = None

    def newest(self) -> tuple[HostStatistics, list[DomainStatistics]]:
        host, book = self._host, self._host.book
        lives = [life for _, life in sorted(book.lives.items()) if life.started_ns is not None]
        reading = self._reading or read_host(host.settings.root, host.timers.now_ns())
        counts = Counts(
            vm_count=len(book.lives),
            vm_active=sum(life.shown() in VCPUS_RUN for life in lives),
            incoming=sum(life.incoming for life in book.lives.values()),
            outgoing=sum(life.outgoing is not None for life in lives),
        )
        of_host = host_statistics(host.name, reading, self._reading_before, counts, self._pools)
        return of_host, [self._of(life) for life in lives]

    def _of(self, life: Life) -> DomainStatistics:
        key = life.vm_id, life.epoch
        now = self._now.get(key) or Reading(at_ns=self._host.timers.now_ns(), numbers={})
        return domain_statistics(life, now, self._before.get(key), self._guests.facts(life.vm_id))

    # ------------------------------------------------------------ one sample

    def _sample(self) -> None:
        if self._under_way or self._closed:
            return
        if self._timer is not None:
            self._timer()
            self._timer = None
        self._under_way = True
        self._read_pools()
        left_out, root, now_ns = self._suspects, self._host.settings.root, self._host.timers.now_ns
        read = self._host.bound(lambda connection: read_all(connection, left_out))
        waiters, self._waiters = self._waiters, []

        def work() -> Raw:
            domains = read()
            assert isinstance(domains, dict)
            return Raw(read_host(root, now_ns()), domains)

        self._host.workers.run(work, BULK_BUDGET_S, lambda result: self._on_sample(waiters, result))

    def _read_pools(self) -> None:
        now_ns = self._host.timers.now_ns()
        if self._pools_under_way or now_ns < self._pools_due_ns:
            return
        self._pools_under_way = True
        self._pools_due_ns = now_ns + int(self._host.settings.pools_period_s * NS_PER_S)

        def found(result: object) -> None:
            self._pools_under_way = False
            self._pools = result if isinstance(result, tuple) else ()  # what could not be read is not known

        self._host.workers.run(self._host.bound(pool_statistics), POOLS_BUDGET_S, found)

    def _on_sample(self, waiters: list[Done], result: object) -> None:
        self._under_way = False
        if isinstance(result, Raw):
            self._keep(result)
        if result is TIMED_OUT:
            self._find_suspects(waiters)
        else:
            self._answer(waiters)
            self._again()
        self._host.outbox.drain()

    def _answer(self, waiters: list[Done]) -> None:
        if not waiters:
            return
        host, domains = self.newest()
        for done in waiters:
            answer: CallSucceeded | CallFailed = CallSucceeded(
                value=StatisticsReport(host=host, domains=tuple(domains))
            )
            self._host.answer(done, answer)

    def _again(self) -> None:
        if self._closed:
            return
        if self._waiters:
            self._sample()
            return
        due_ns = self._host.timers.now_ns() + int(self._host.settings.statistics_period_s * NS_PER_S)
        self._timer = self._host.timers.call_at(due_ns, self._sample)

    def _keep(self, raw: Raw) -> None:
        self._reading_before, self._reading = self._reading, raw.host
        present = set()
        for life in self._host.book.lives.values():
            key = life.vm_id, life.epoch
            present.add(key)
            numbers = raw.domains.get(life.uuid)
            if life.started_ns is None:
                continue
            if numbers is None:
                if life.uuid not in self._suspects:
                    self._host.look(life)
                continue
            if key in self._now:
                self._before[key] = self._now[key]
            self._now[key] = Reading(at_ns=raw.host.at_ns, numbers=numbers)
        for readings in (self._now, self._before):
            for key in readings.keys() - present:
                del readings[key]

    # ------------------------------------------------------------ those that do not answer

    def _find_suspects(self, waiters: list[Done] | None = None) -> None:
        work = self._host.bound(hung_uuids)
        self._suspects_timer = None

        def found(result: object) -> None:
            if isinstance(result, frozenset):
                self._suspects = result
                self._host.set_suspects(result)
            if waiters is not None:
                self._waiters = waiters + self._waiters
                # Without those that are known to hang the next sample comes back; and if none is, a moment later.
                if self._suspects and not self._closed:
                    self._sample()
                else:
                    self._answer(self._waiters)
                    self._waiters = []
                    self._again()
            if self._suspects and self._suspects_timer is None and not self._closed:
                due_ns = self._host.timers.now_ns() + int(SUSPECTS_PERIOD_S * NS_PER_S)
                self._suspects_timer = self._host.timers.call_at(due_ns, self._find_suspects)
            self._host.outbox.drain()

        self._host.workers.run(work, BULK_BUDGET_S, found)
