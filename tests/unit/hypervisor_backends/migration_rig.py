"""Two or more simulated hosts on one wire that loses, delays or repeats the messages it is told to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from hypervisor_backends.protocol import CallFailed, CallResult, CallSucceeded, MigrationStatistics
from hypervisor_backends.protocol import GetMigrationStatistics as Ask
from hypervisor_backends.simulated import SimulatedHypervisor
from hypervisor_backends.simulated_config import MIB, SimulatedConfig
from hypervisor_backends.simulated_fabric import MemoryFabric
from olvm.model.limits import NS_PER_S
from tests.unit.hypervisor_backends.bench import (
    Bench,
    OneCopy,
    VirtualScheduler,
    address_of,
    check_each_life_ends_once,
    migrate_of,
    simulated_bench,
    start_of,
)

Fate = Literal["drop", "delay", "repeat", "late"]  # late: when nobody waits for it any more
LATENCY_NS = 1_000_000

# Guests that dirty little: a copy of 2 GiB at 100 MB/s takes about 22 s.
CALM = SimulatedConfig(
    migration_bandwidth_bytes_per_s=100e6,
    dirty_bytes_per_s_min=5 * MIB,
    dirty_bytes_per_s_max=5 * MIB,
    cpu_load_percent_min=50,
    cpu_load_percent_max=50,
)


class Rig:
    """`fates` names messages by number, in the order of sending; `cut` loses all that leave the named hosts."""

    def __init__(
        self, config: SimulatedConfig = CALM, *, hosts: int = 2, latency_ns: int = LATENCY_NS
    ) -> None:
        self.scheduler = VirtualScheduler()
        self.truth = OneCopy()
        self.fates: dict[int, Fate] = {}
        self.cut: set[str] = set()
        self.sent: list[str] = []
        self.on_message: Callable[[int], None] = lambda _: None
        fabric = MemoryFabric(None if latency_ns == 0 else self._carry)
        self._latency_ns = latency_ns
        self.benches: list[Bench] = []
        self.hypervisors: list[SimulatedHypervisor] = []
        for number in range(1, hosts + 1):
            bench, hypervisor = simulated_bench(
                config, name=f"h{number}", scheduler=self.scheduler, fabric=fabric
            )
            hypervisor.set_observer(self.truth)
            self.benches.append(bench)
            self.hypervisors.append(hypervisor)
        self.source, self.target = self.benches[:2]
        self.h1, self.h2 = self.hypervisors[:2]

    def _carry(self, source: str, to: str, deliver: Callable[[], None]) -> None:
        number = len(self.sent)
        self.sent.append(source)
        fate = self.fates.get(number)
        self.on_message(number)
        if fate == "drop" or source in self.cut:
            return
        delays_ns = [self._latency_ns]
        if fate == "delay":
            delays_ns = [7 * NS_PER_S]
        elif fate == "late":
            delays_ns = [100 * NS_PER_S]
        elif fate == "repeat":
            delays_ns = [self._latency_ns, 2 * self._latency_ns, 5 * NS_PER_S, 15 * NS_PER_S, 3600 * NS_PER_S]
        for delay_ns in delays_ns:
            self.scheduler.call_at(self.scheduler.now_ns() + delay_ns, deliver)

    def start(self, vm_id: str = "v1", **spec: int) -> None:
        self.source.succeed(start_of(vm_id, 1, **spec))

    def migrate(self, vm_id: str = "v1", **how: float) -> list[CallResult]:
        return self.source.call(migrate_of(address_of(self.target, vm_id), vm_id, **how))

    def advance(self, seconds: float) -> None:
        self.scheduler.advance(seconds)

    def advance_until(self, holds: Callable[[], bool], seconds_max: float = 600.0) -> None:
        for _ in range(int(seconds_max * 100)):
            if holds():
                return
            self.scheduler.advance(0.01)
        raise AssertionError(f"nothing came of it within {seconds_max} s")

    def progress(self, vm_id: str = "v1") -> MigrationStatistics:
        (answer,) = self.source.call(Ask(vm_id=vm_id))
        assert isinstance(answer, CallSucceeded), answer
        assert isinstance(answer.value, MigrationStatistics)
        return answer.value

    def check_ends(self) -> None:
        for bench in self.benches:
            check_each_life_ends_once(bench.events)

    def statuses(self, vm_id: str = "v1") -> tuple[str | None, str | None]:
        return self.source.status(vm_id), self.target.status(vm_id)


def failure_of(answers: list[CallResult]) -> CallFailed:
    (answer,) = answers
    assert isinstance(answer, CallFailed), answer
    return answer
