"""NILAS and LAVA, slow and obvious: every prediction and every class worked out from what is known, hour by hour."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.unit.experiments.slow_replay import Host, Vm

HOUR = 3600.0
LONGEST = {1: HOUR, 2: 10 * HOUR, 3: 100 * HOUR, 4: math.inf}
STEPS = [0.0, *(hours * HOUR for hours in (0.5, 1, 2, 4, 8, 16, 32, 64))]


@dataclass
class HostClass:
    number: int
    until: float
    is_recycling: bool = False
    residents: set[int] = field(default_factory=set)

    def age(self, now: float) -> None:
        while self.until <= now:
            self.number += 1
            self.until += LONGEST[self.number]


@dataclass
class Lives:
    now: float = -math.inf
    began: dict[int, tuple[float, float]] = field(
        default_factory=dict
    )  # of each VM: its start, its prediction
    classes: dict[int, HostClass] = field(default_factory=dict)  # by host, where a VM is

    def came(self, host: Host, number: int, vm: Vm) -> None:
        self.began[number] = (self.now, vm.predicted)
        own = class_of(vm.predicted)
        if len(host.vms) == 1:
            self.classes[host.index] = HostClass(own, math.inf)
        state = self.classes[host.index]
        state.age(self.now)
        if state.is_recycling:
            return
        if state.number == own:
            state.until = self.now + LONGEST[own]
        sizes = [size * len(host.nodes) for size in host.node_size]
        if any(100 * free <= 10 * size for free, size in zip(host.free(), sizes, strict=True)):
            state.is_recycling, state.residents = True, set(host.vms)

    def all_left(self, hosts: list[Host], time: float) -> None:
        """Everyone who leaves at that time has gone."""
        for host in hosts:
            state = self.classes.get(host.index)
            if state is not None and not host.vms:
                del self.classes[host.index]
            elif state is not None and state.is_recycling and not state.residents & host.vms:
                state.age(time)
                state.number = max(1, state.number - 1)
                state.until = time + LONGEST[state.number]
                state.residents = set(host.vms)

    def end_of(self, number: int) -> float:
        start, lifetime = self.began[number]
        while start + lifetime <= self.now:
            lifetime = max(2 * lifetime, 1.0)
        return start + lifetime

    def nilas(self, host: Host, vm: Vm) -> int:
        later = self.now + vm.predicted
        ends = max([self.now, *map(self.end_of, host.vms)])
        return 0 if later <= ends else sum(later - ends > step for step in STEPS)

    def lava(self, host: Host, vm: Vm) -> tuple[int, int]:
        own, state = class_of(vm.predicted), self.classes.get(host.index)
        if state is None:
            return 6, self.nilas(host, vm)
        state.age(self.now)
        if state.is_recycling and state.number > own:
            return state.number - own, self.nilas(host, vm)
        is_open_to_it = not state.is_recycling and state.number == own
        return 4 if is_open_to_it else 5, self.nilas(host, vm)


def class_of(lifetime: float) -> int:
    return next(number for number, longest in LONGEST.items() if lifetime <= longest)
