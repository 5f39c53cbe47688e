"""Hosts with clocks of their own on one storage: their keepers, watchdogs and machines, and what is true of them.

True time is one `VirtualScheduler`. Each host's clock runs at its own rate. A process that is paused issues nothing
and is told nothing; its host's watchdog goes on. `copies_at_once` is what the whole protocol is about.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from hypervisor_backends.lease_keeper import LeaseKeeper, LeaseOutcome
from hypervisor_backends.leases import LeaseDone, LeaseRequest, LeaseResult, LeaseStore, RenewHostLease
from hypervisor_backends.memory_leases import MemoryLeases, StorageFaults
from hypervisor_backends.protocol import Cancel
from olvm.model.limits import NS_PER_S
from tests.unit.hypervisor_backends.bench import VirtualScheduler

EXPIRY_S = 30.0
RENEW_PERIOD_S = 5.0


class HostClock:
    """A monotonic clock that runs `drift_percent` fast; paused callbacks wait until `resume`."""

    def __init__(self, true_time: VirtualScheduler, drift_percent: float, started_ns: int) -> None:
        self._true_time = true_time
        self._rate = 1 + drift_percent / 100
        self._origin_ns = true_time.now_ns()
        self._started_ns = started_ns

    def now_ns(self) -> int:
        return self._started_ns + int((self._true_time.now_ns() - self._origin_ns) * self._rate)

    def call_at(self, due_ns: int, fn: Callable[[], None]) -> Cancel:
        # Two nanoseconds for what floats round off: a timer must not come before its time.
        true_ns = self._origin_ns + int((due_ns - self._started_ns) / self._rate) + 2
        return self._true_time.call_at(true_ns, fn)


class Process:
    """The agent's process: a `Scheduler` and a `LeaseStore` that stand still while it is paused."""

    def __init__(self, clock: HostClock, store: LeaseStore) -> None:
        self._clock = clock
        self._store = store
        self._waiting: list[Callable[[], None]] = []
        self.paused = False
        self.dead = False

    def now_ns(self) -> int:
        return self._clock.now_ns()

    def run(self, fn: Callable[[], None]) -> None:
        if self.paused:
            self._waiting.append(fn)
        elif not self.dead:
            fn()

    def call_at(self, due_ns: int, fn: Callable[[], None]) -> Cancel:
        cancelled = False

        def cancel() -> None:
            nonlocal cancelled
            cancelled = True

        self._clock.call_at(due_ns, lambda: self.run(lambda: None if cancelled else fn()))
        return cancel

    def submit(self, request: LeaseRequest, done: LeaseDone) -> None:
        self._store.submit(request, lambda result: self.run(lambda: done(result)))

    def resume(self) -> None:
        self.paused = False
        waiting, self._waiting = self._waiting, []
        for fn in waiting:
            self.run(fn)


class Faulty(msgspec.Struct, frozen=True):
    """Planted errors; the protocol as it is meant has none."""

    wait_drift_percent: float | None = None  # what the keepers believe of drift
    begin_noted_after_write: bool = False
    lapse_forgotten: bool = False  # a lease counts as held although the watchdog lapsed since
    any_boot_replaced: bool = False  # a renewal takes over from whatever boot stands there


SOUND = Faulty()


class ForgetfulKeeper(LeaseKeeper):
    def holds(self, vm_id: str, epoch: int) -> bool:
        return self.armed() and self._held.get(vm_id, (0, 0))[0] == epoch


class LaxLeases(MemoryLeases):
    """Renewals as they would be without `replaces`: each takes over from whatever boot stands there by then."""

    def _apply(self, request: LeaseRequest) -> LeaseResult:
        if isinstance(request, RenewHostLease) and (current := self.host_lease(request.host)) is not None:
            request = msgspec.structs.replace(request, replaces=current.boot_id)
        return super()._apply(request)


class LeasedHost:
    """One computer: its boot, its watchdog and the machines that run on it, each with its epoch."""

    def __init__(self, world: LeaseWorld, name: str, drift_percent: float) -> None:
        self.world = world
        self.name = name
        self.clock = HostClock(world.true_time, drift_percent, started_ns=len(world.hosts) * 10**12)
        self.epoch_by_vm: dict[str, int] = {}  # copies whose vCPUs run
        self.incoming_by_vm: dict[str, int] = {}  # copies that wait for their machine to arrive
        self.outcomes: list[tuple[str, int, LeaseOutcome]] = []
        self._asked_by_vm: dict[str, int] = {}  # takes of this boot that have not led to a start or a refusal
        self._starting: set[str] = set()  # the lease was taken, the start has not been given yet
        self._boots = 0
        self._deadline_ns = 0
        self._watchdog: Cancel = lambda: None
        self._boot()

    def _boot(self) -> None:
        self._boots += 1
        self._deadline_ns = 0
        self._asked_by_vm.clear()
        self._starting.clear()
        self.process = Process(self.clock, self.world.leases.store(self.name))
        believed = self.world.faulty.wait_drift_percent
        keeper_class = ForgetfulKeeper if self.world.faulty.lapse_forgotten else LeaseKeeper
        self.keeper = keeper_class(
            self.name,
            f"{self.name}-boot{self._boots}",
            self.process,
            self.process,
            self._arm,
            expiry_s=EXPIRY_S,
            drift_percent=self.world.drift_percent if believed is None else believed,
        )
        self._renew()

    def _renew(self) -> None:
        self.keeper.renew(lambda worked, message: None)
        self.process.call_at(self.clock.now_ns() + int(RENEW_PERIOD_S * NS_PER_S), self._renew)

    # ------------------------------------------------------------ the watchdog, which no process pauses

    def _arm(self, deadline_ns: int) -> None:
        if self.world.faulty.begin_noted_after_write:
            deadline_ns = self.clock.now_ns() + int(EXPIRY_S * NS_PER_S)
        if deadline_ns > self._deadline_ns:
            self._deadline_ns = deadline_ns
            self._watchdog()
            self._watchdog = self.clock.call_at(deadline_ns, self._strike)

    def _strike(self) -> None:
        self.epoch_by_vm.clear()
        self.incoming_by_vm.clear()

    @property
    def watchdog_armed(self) -> bool:
        return self.clock.now_ns() < self._deadline_ns

    # ------------------------------------------------------------ what happens to it

    def take(self, vm_id: str, epoch: int, start_after_s: float = 0.0) -> None:
        """The agent takes the lease and, when it has it, gives the start to the hypervisor after a while."""

        def start() -> None:
            self._asked_by_vm[vm_id] -= 1
            self._starting.discard(vm_id)
            if self.keeper.holds(vm_id, epoch) and self.watchdog_armed:
                assert vm_id not in self.epoch_by_vm
                self.epoch_by_vm[vm_id] = epoch
                self.world.check()

        def then(outcome: LeaseOutcome) -> None:
            self.outcomes.append((vm_id, epoch, outcome))
            if outcome.kind == "taken":
                self._starting.add(vm_id)
                self.process.call_at(self.clock.now_ns() + int(start_after_s * NS_PER_S), start)
            else:
                self._asked_by_vm[vm_id] -= 1

        if vm_id in self.epoch_by_vm or vm_id in self.incoming_by_vm or vm_id in self._starting:
            return  # an agent refuses to start a machine of which it has a copy
        self._asked_by_vm[vm_id] = self._asked_by_vm.get(vm_id, 0) + 1
        self.process.run(lambda: self.keeper.take(vm_id, epoch, then))

    def waits_for(self, vm_id: str) -> bool:
        return self._asked_by_vm.get(vm_id, 0) > 0

    def end(self, vm_id: str) -> None:
        """The agent ends the machine and leaves its lease."""

        def now() -> None:
            epoch = self.epoch_by_vm.pop(vm_id, 0)
            self.keeper.leave(vm_id, epoch, lambda outcome: None)

        self.process.run(now)

    def migrate(self, vm_id: str, target: LeasedHost, seconds: float) -> None:
        """The target joins and prepares; after a while the hypervisors hand over, if both copies still stand."""
        epoch, copy_epoch = self.epoch_by_vm.get(vm_id, 0), self.world.next_epoch()

        def prepare(outcome: LeaseOutcome) -> None:
            target.outcomes.append((vm_id, copy_epoch, outcome))
            if outcome.kind == "taken" and target.keeper.holds(vm_id, copy_epoch):
                target.incoming_by_vm[vm_id] = copy_epoch
                self.world.after(seconds, hand_over)

        def hand_over() -> None:
            if self.epoch_by_vm.get(vm_id) != epoch or target.incoming_by_vm.get(vm_id) != copy_epoch:
                target.incoming_by_vm.pop(vm_id, None)
            elif target.watchdog_armed:
                del self.epoch_by_vm[vm_id], target.incoming_by_vm[vm_id]
                target.epoch_by_vm[vm_id] = copy_epoch
                self.world.hand_overs += 1
                self.world.check()
                self.process.run(lambda: self.keeper.leave(vm_id, epoch, lambda outcome: None))

        if (
            epoch
            and target is not self
            and vm_id not in target.incoming_by_vm
            and vm_id not in target._starting
        ):
            target.process.run(lambda: target.keeper.join(vm_id, copy_epoch, self.name, prepare))

    def pause(self, seconds: float) -> None:
        process = self.process
        process.paused = True
        self.world.after(seconds, process.resume)

    def reboot(self) -> None:
        """Power off and on. What is under way to the storage stays under way."""
        self._strike()
        self._watchdog()
        self.process.dead = True
        self.keeper.close()
        self._boot()


class LeaseWorld:
    def __init__(self, drifts: tuple[float, ...], drift_percent: float = 1.0, faulty: Faulty = SOUND) -> None:
        self.true_time = VirtualScheduler()
        self.faults = StorageFaults()
        leases_class = LaxLeases if faulty.any_boot_replaced else MemoryLeases
        self.leases = leases_class(self.true_time, self.faults)
        self.drift_percent = drift_percent
        self.faulty = faulty
        self.epoch_issued = 0
        self.starts = 0
        self.hand_overs = 0
        self.violations: list[str] = []
        self.hosts: dict[str, LeasedHost] = {}
        for number, drift in enumerate(drifts):
            self.hosts[f"h{number}"] = LeasedHost(self, f"h{number}", drift)

    def host(self, number: int) -> LeasedHost:
        return self.hosts[f"h{number % len(self.hosts)}"]

    def next_epoch(self) -> int:
        self.epoch_issued += 1
        return self.epoch_issued

    def after(self, seconds: float, fn: Callable[[], None]) -> None:
        self.true_time.call_at(self.true_time.now_ns() + int(seconds * NS_PER_S), fn)

    def run(self, seconds: float) -> None:
        self.true_time.advance(seconds)

    def check(self) -> None:
        """Called after each start: nothing else can make two of one."""
        self.starts += 1
        for vm_id in sorted({vm_id for host in self.hosts.values() for vm_id in host.epoch_by_vm}):
            runs = [host.name for host in self.hosts.values() if vm_id in host.epoch_by_vm]
            if len(runs) > 1:
                self.violations.append(f"machine {vm_id} runs on {' and '.join(runs)}")
