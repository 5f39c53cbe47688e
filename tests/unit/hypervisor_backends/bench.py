"""A backend on the bench: time that passes when asked to, what was answered, and what was told."""

from __future__ import annotations

import heapq
import queue
import time
from collections.abc import Callable
from typing import Protocol

import msgspec

from hypervisor_backends.protocol import (
    NEVER_ARRIVED,
    TERMINAL_EVENTS,
    CallFailed,
    CallResult,
    CallSucceeded,
    DomainEvent,
    DomainSpec,
    DomainState,
    DomainStatus,
    ExitReason,
    HypervisorBackend,
    HypervisorRequest,
    IncomingAddress,
    MigrateDomain,
    PrepareIncoming,
    RestoreDomain,
    StartDomain,
)
from hypervisor_backends.simulated import SimulatedHypervisor
from hypervisor_backends.simulated_config import SimulatedConfig, simulated_capabilities
from hypervisor_backends.simulated_fabric import Fabric, MemoryFabric
from hypervisor_backends.snapshot_store import SnapshotStore
from olvm.model.limits import NS_PER_S

GIB = 1024**3
DOMAIN_BYTES = 2 * GIB  # of a test that does not care


class VirtualScheduler:
    """Time that passes only when asked to. Calls due at one instant run in the order they were asked for."""

    def __init__(self, now_ns: int = 1_700_000_000 * NS_PER_S) -> None:
        self._now_ns = now_ns
        self._queue: list[tuple[int, int]] = []
        self._calls: dict[int, Callable[[], None]] = {}
        self._asked = 0

    def now_ns(self) -> int:
        return self._now_ns

    def call_at(self, due_ns: int, fn: Callable[[], None]) -> Callable[[], None]:
        self._asked += 1
        number = self._asked
        self._calls[number] = fn
        heapq.heappush(self._queue, (max(due_ns, self._now_ns), number))
        return lambda: self._calls.pop(number, None) and None

    @property
    def waiting_count(self) -> int:
        return len(self._calls)

    def wait_for(self, answers: list[CallResult]) -> None:
        self.advance(0)

    def pass_s(self, seconds: float) -> None:
        self.advance(seconds)

    def close(self) -> None:
        """Whoever made it goes on using it."""

    def advance(self, seconds: float) -> None:
        end_ns = self._now_ns + int(seconds * NS_PER_S)
        while self._queue and self._queue[0][0] <= end_ns:
            self._now_ns, number = heapq.heappop(self._queue)
            call = self._calls.pop(number, None)
            if call is not None:
                call()
        self._now_ns = end_ns


class BenchTime(Protocol):
    @property
    def waiting_count(self) -> int: ...

    def now_ns(self) -> int: ...

    def advance(self, seconds: float) -> None:
        """Let so much time pass; real time stops earlier, when nothing is under way any more."""

    def wait_for(self, answers: list[CallResult]) -> None:
        """Let time pass until there is one; as little as possible."""

    def pass_s(self, seconds: float) -> None:
        """So much time and not less, in real time too."""


class RealClock:
    """Real time, and the owner's thread: what is posted runs within `advance` and `wait_for`."""

    def __init__(self) -> None:
        self._posted: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._began_ns = time.time_ns() - time.monotonic_ns()
        self.is_quiet: Callable[[], bool] = lambda: True
        self.waiting_count = 0  # what a backend leaves behind in real time is its threads' affair

    def post(self, fn: Callable[[], None]) -> None:
        self._posted.put(fn)

    def now_ns(self) -> int:
        return self._began_ns + time.monotonic_ns()

    def advance(self, seconds: float, quiet_s: float = 0.15) -> None:
        """A real hypervisor needs its time even where a virtual one needs none."""
        end_s = time.monotonic() + min(max(seconds, 10.0), 60.0)
        quiet_since_s = time.monotonic()
        while (now_s := time.monotonic()) < end_s and now_s - quiet_since_s < quiet_s:
            if self._run_one(0.02) or not self.is_quiet():
                quiet_since_s = time.monotonic()

    def wait_for(self, answers: list[CallResult]) -> None:
        self.run_until(lambda: bool(answers), 120.0)

    def run_until(self, holds: Callable[[], object], timeout_s: float) -> bool:
        end_s = time.monotonic() + timeout_s
        while not holds():
            if time.monotonic() > end_s:
                return False
            self._run_one(0.02)
        return True

    def pass_s(self, seconds: float) -> None:
        self.run_until(lambda: False, seconds)

    def _run_one(self, wait_s: float) -> bool:
        try:
            fn = self._posted.get(timeout=wait_s)
        except queue.Empty:
            return False
        fn()
        return True


class Bench:
    """`call` returns the list that the call's answers go to: empty until it is answered.

    `cpus` and `memory_bytes` are the host's; `domain_bytes` is what a domain gets where a test does not say. A bench
    may dress the specs of the tests for its hypervisor. `measures`: its statistics are of something.
    """

    def __init__(
        self,
        backend: HypervisorBackend,
        scheduler: BenchTime,
        *,
        cpus: int = 16,
        memory_bytes: int = 64 * GIB,
        domain_bytes: int = 2 * GIB,
        measures: bool = True,
    ) -> None:
        self.backend = backend
        self.scheduler = scheduler
        self.cpus = cpus
        self.memory_bytes = memory_bytes
        self.domain_bytes = domain_bytes
        self.measures = measures
        self.lease_s = 300
        self.willing_guest = False  # asked for by tests whose guest must obey
        self.dress: Callable[[DomainSpec], DomainSpec] = lambda spec: spec
        self.events: list[DomainEvent] = []
        backend.set_listener(self.events.append)

    def call(self, request: HypervisorRequest) -> list[CallResult]:
        answers: list[CallResult] = []
        self.backend.submit(self._dressed(request), answers.append)
        return answers

    def _dressed(self, request: HypervisorRequest) -> HypervisorRequest:
        if not isinstance(request, StartDomain | RestoreDomain | PrepareIncoming):
            return request
        spec = request.spec
        if spec.memory_bytes == DOMAIN_BYTES:
            spec = msgspec.structs.replace(spec, memory_bytes=self.domain_bytes)
        return msgspec.structs.replace(request, spec=self.dress(spec))

    def ask(self, request: HypervisorRequest) -> CallResult:
        """Submit and return the answer; no more time passes than that takes."""
        answers = self.call(request)
        if not answers:
            self.scheduler.wait_for(answers)
        assert len(answers) == 1, f"{request} was answered {len(answers)} times: {answers}"
        return answers[0]

    def settle(self, request: HypervisorRequest, seconds: float = 120.0) -> CallResult:
        """Submit, let time pass, and return the one answer."""
        answers = self.call(request)
        self.scheduler.advance(seconds)
        assert len(answers) == 1, f"{request} was answered {len(answers)} times: {answers}"
        return answers[0]

    def succeed(self, request: HypervisorRequest, seconds: float = 120.0) -> CallSucceeded:
        result = self.settle(request, seconds)
        assert isinstance(result, CallSucceeded), result
        return result

    def refuse(self, request: HypervisorRequest, seconds: float = 120.0) -> CallFailed:
        result = self.settle(request, seconds)
        assert isinstance(result, CallFailed), result
        return result

    def start(self, vm_id: str = "v1", epoch: int = 1, **spec: int) -> CallSucceeded:
        return self.succeed(start_of(vm_id, epoch, **spec))

    def kinds(self, vm_id: str = "v1") -> list[str]:
        return [event.kind for event in self.events if event.vm_id == vm_id]

    def state(self, vm_id: str = "v1") -> DomainState | None:
        return next((domain for domain in self.backend.domains() if domain.vm_id == vm_id), None)

    def status(self, vm_id: str = "v1") -> str | None:
        state = self.state(vm_id)
        return None if state is None else state.status


def spec_of(vm_id: str, *, vcpus: int = 2, memory_bytes: int = DOMAIN_BYTES) -> DomainSpec:
    return DomainSpec(name=f"vm-{vm_id}", vcpus=vcpus, memory_bytes=memory_bytes)


def start_of(vm_id: str = "v1", epoch: int = 1, **spec: int) -> StartDomain:
    return StartDomain(vm_id=vm_id, epoch=epoch, spec=spec_of(vm_id, **spec))


def restore_of(vm_id: str = "v1", epoch: int = 1) -> RestoreDomain:
    return RestoreDomain(vm_id=vm_id, epoch=epoch, spec=spec_of(vm_id))


def check_each_life_ends_once(events: list[DomainEvent]) -> None:
    """Rule 4 of the protocol, for a host that was not lost."""
    live: set[tuple[str, int]] = set()
    for event in events:
        life = (event.vm_id, event.epoch)
        if event.kind == "started":
            assert life not in live, f"{life} started twice"
            live.add(life)
            continue
        if event.exit_reason in NEVER_ARRIVED:
            assert life not in live, f"{event} about a domain that had arrived"
            continue
        assert life in live, f"{event} about a domain that does not live"
        if event.kind in TERMINAL_EVENTS:
            assert event.exit_reason is not None, event
            live.remove(life)


class OneCopy:
    """The truth about which copies execute; raises at the very call that makes two of one machine."""

    def __init__(self) -> None:
        self.runs: dict[str, tuple[str, int]] = {}
        self.there: dict[tuple[str, str, int], int] = {}
        self.statuses: dict[tuple[str, str, int], DomainStatus] = {}
        self.ends: list[tuple[str, str, int, ExitReason]] = []
        self.calls: list[tuple[str, str, str, int]] = []
        self.power: list[tuple[str, bool, str]] = []

    def domain_added(self, host: str, vm_id: str, epoch: int, footprint_bytes: int) -> None:
        assert (host, vm_id, epoch) not in self.there
        self.there[host, vm_id, epoch] = footprint_bytes

    def domain_removed(self, host: str, vm_id: str, epoch: int, footprint_bytes: int) -> None:
        assert self.runs.get(vm_id) != (host, epoch), f"{vm_id} was removed from {host} while it ran"
        assert self.there.pop((host, vm_id, epoch)) == footprint_bytes

    def domain_resized(self, host: str, vm_id: str, epoch: int, more_bytes: int) -> None:
        self.there[host, vm_id, epoch] += more_bytes

    def vcpus_started(self, host: str, vm_id: str, epoch: int) -> None:
        assert vm_id not in self.runs, f"{vm_id} runs on {self.runs[vm_id]} and now on {host} too"
        assert (host, vm_id, epoch) in self.there
        self.runs[vm_id] = (host, epoch)

    def vcpus_stopped(self, host: str, vm_id: str, epoch: int) -> None:
        assert self.runs.pop(vm_id) == (host, epoch)

    def status_changed(self, host: str, vm_id: str, epoch: int, status: DomainStatus) -> None:
        assert (host, vm_id, epoch) in self.there
        self.statuses[host, vm_id, epoch] = status

    def ended(self, host: str, vm_id: str, epoch: int, exit_reason: ExitReason) -> None:
        self.ends.append((host, vm_id, epoch, exit_reason))

    def called(self, host: str, request: str, vm_id: str, epoch: int) -> None:
        self.calls.append((host, request, vm_id, epoch))

    def power_changed(self, host: str, is_on: bool, boot_id: str) -> None:
        self.power.append((host, is_on, boot_id))


def simulated_bench(
    config: SimulatedConfig | None = None,
    *,
    seed: int = 1,
    cpus: int = 16,
    memory_bytes: int = 64 * GIB,
    name: str = "h1",
    scheduler: VirtualScheduler | None = None,
    fabric: Fabric | None = None,
    snapshots: SnapshotStore | None = None,
) -> tuple[Bench, SimulatedHypervisor]:
    scheduler = scheduler or VirtualScheduler()
    capabilities = simulated_capabilities(cpus=cpus, memory_bytes=memory_bytes)
    fabric = fabric or MemoryFabric()
    hypervisor = SimulatedHypervisor(name, capabilities, scheduler, seed, config, fabric, snapshots=snapshots)
    return Bench(hypervisor, scheduler), hypervisor


def prepare_of(vm_id: str = "v1", epoch: int = 2, **spec: int) -> PrepareIncoming:
    return PrepareIncoming(vm_id=vm_id, epoch=epoch, spec=spec_of(vm_id, **spec))


def migrate_of(
    uri: str, vm_id: str = "v1", *, epoch: int = 1, to_epoch: int = 2, **how: float
) -> MigrateDomain:
    """At most 200 MB/s and 100 ms of downtime, unless `how` says otherwise."""
    settings = {"bandwidth_bytes_per_s": 200e6, "downtime_ms": 100, **how}
    return msgspec.convert(
        {
            "t": "MigrateDomain",
            "vm_id": vm_id,
            "epoch": epoch,
            "to_uri": uri,
            "to_epoch": to_epoch,
            **settings,
        },
        MigrateDomain,
    )


def address_of(target: Bench, vm_id: str = "v1", epoch: int = 2, **spec: int) -> str:
    """Prepare the target and return where it waits; takes no time."""
    answer = target.ask(prepare_of(vm_id, epoch, **spec))
    assert isinstance(answer, CallSucceeded), answer
    assert isinstance(answer.value, IncomingAddress)
    return answer.value.uri
