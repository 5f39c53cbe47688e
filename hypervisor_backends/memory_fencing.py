"""Fence devices of simulated hosts, in memory: they switch through two callbacks, and can fail as real ones do.

`status` never lies: a device that lies about `off` says that it took the order and leaves the computer running, and
only asking for the status tells. Everything else of the declared failure model is in `FenceFaultKind`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

import msgspec

from hypervisor_backends.fencing import FenceAction, FenceAnswer, FenceDone, Power
from hypervisor_backends.protocol import Scheduler
from olvm.model.errors import BadInput
from olvm.model.limits import NS_PER_S

FenceFaultKind = Literal[
    "fails",  # answers ok=False at once, does nothing
    "times_out",  # works, and answers ok=False at the device's time-out
    "works_late",  # answers ok=False at the device's time-out, and works `delay_s` after the order
    "lies",  # answers ok and does nothing; `status` is not touched by it
    "slow",  # works and answers ok, `delay_s` after the order
]


class FenceFault(msgspec.Struct, frozen=True, kw_only=True):
    """`host` is the one to be switched; empty: any. `device` is the setting "name" of a device; empty: any."""

    kind: FenceFaultKind
    host: str = ""
    device: str = ""
    action: FenceAction | None = None  # None: any
    delay_s: float = 30.0
    count: int | None = 1  # None: for ever

    def __post_init__(self) -> None:
        if self.kind == "lies" and self.action == "status":
            raise BadInput(
                "fence fault lies cannot strike status: a status that lies is outside the failure model"
            )
        if self.delay_s < 0 or (self.count is not None and self.count < 1):
            raise BadInput(f"fence fault {self.kind} needs delay_s >= 0 and count >= 1 (or None)")


# Switch a computer; a repeated order changes nothing.
PowerSwitch: TypeAlias = Callable[[str, bool], None]


class MemoryFenceDevices:
    """Answers before `submit` returns, unless a fault makes it slow."""

    def __init__(
        self,
        power: PowerSwitch,
        is_on: Callable[[str], bool],
        scheduler: Scheduler,
        *,
        device_timeout_s: float = 20.0,
    ) -> None:
        self._power = power
        self._is_on = is_on
        self._scheduler = scheduler
        self._device_timeout_s = device_timeout_s
        self._faults: list[tuple[FenceFault, int | None]] = []

    def plant(self, fault: FenceFault) -> None:
        """Strikes calls that begin from now on; of several that match, the oldest."""
        self._faults.append((fault, fault.count))

    def clear(self) -> None:
        self._faults.clear()

    def submit(
        self, device: Mapping[str, str | int | float | bool], host: str, action: FenceAction, done: FenceDone
    ) -> None:
        if device.get("type") != "simulated":
            done(FenceAnswer(ok=False, message=unknown_type(device, host)))
            return
        fault = self._use_fault(str(device.get("name", "")), host, action)
        if fault is None:
            done(self._act(host, action))
        else:
            self._act_badly(fault, host, action, done)

    def _act(self, host: str, action: FenceAction) -> FenceAnswer:
        if action != "status":
            self._power(host, action == "on")
            return FenceAnswer(ok=True)
        power: Power = "on" if self._is_on(host) else "off"
        return FenceAnswer(ok=True, power=power)

    def _act_badly(self, fault: FenceFault, host: str, action: FenceAction, done: FenceDone) -> None:
        timed_out = FenceAnswer(ok=False, message=f"the fence device of host {host} did not answer in time")
        match fault.kind:
            case "fails":
                done(FenceAnswer(ok=False, message=f"the fence device of host {host} refused {action}"))
            case "lies":
                done(FenceAnswer(ok=True))
            case "times_out":
                self._act(host, action)
                self._after(self._device_timeout_s, lambda: done(timed_out))
            case "works_late":
                self._after(self._device_timeout_s, lambda: done(timed_out))
                self._after(fault.delay_s, lambda: self._act(host, action))
            case "slow":
                self._after(fault.delay_s, lambda: done(self._act(host, action)))

    def _after(self, delay_s: float, fn: Callable[[], object]) -> None:
        def due() -> None:
            fn()

        self._scheduler.call_at(self._scheduler.now_ns() + int(delay_s * NS_PER_S), due)

    def _use_fault(self, device: str, host: str, action: FenceAction) -> FenceFault | None:
        for index, (fault, uses_left) in enumerate(self._faults):
            if not _strikes(fault, device, host, action):
                continue
            if uses_left == 1:
                del self._faults[index]
            elif uses_left is not None:
                self._faults[index] = (fault, uses_left - 1)
            return fault
        return None


def _strikes(fault: FenceFault, device: str, host: str, action: FenceAction) -> bool:
    if fault.kind == "lies" and action == "status":
        return False
    return fault.host in ("", host) and fault.device in ("", device) and fault.action in (None, action)


def unknown_type(device: Mapping[str, str | int | float | bool], host: str) -> str:
    found = device.get("type", "")
    return f"fence device of host {host} has the unknown type {found!r}; use simulated"
