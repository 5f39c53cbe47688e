"""Simulated hosts in real time: the clock that their machines live by, their power, their storage and their wire.

Several hosts share one silo, and hosts of several silos share one plant (`plant.sqlite` beside the journals). A host
lives in the process of its silo: when that ends, so does what the host ran, and the next process boots it anew.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable
from pathlib import Path

from actors.hypervisor_port import OpenHost
from actors.silo import Silo
from hypervisor_backends.protocol import ArmWatchdog, Done, HypervisorBackend, HypervisorRequest
from hypervisor_backends.shared_plant import PlantPower, SharedPlant
from hypervisor_backends.simulated import SimulatedHypervisor
from hypervisor_backends.simulated_config import simulated_capabilities, simulated_config_from
from olvm.model import messages as m
from olvm.model.config import Config
from olvm.model.errors import BadInput, NotSupportedYet

PLANT_FILE = "plant.sqlite"
POWER_POLL_PERIOD_S = 0.5


class ScaledScheduler:
    """Time for a simulated hypervisor: `scale` simulated seconds pass in one second of its silo."""

    def __init__(self, silo: Silo, scale: float = 1.0) -> None:
        self._silo = silo
        self._scale = scale
        self._origin_ns = silo.now_ns()

    def now_ns(self) -> int:
        return self.scaled_ns(self._silo.now_ns())

    def scaled_ns(self, at_ns: int) -> int:
        """A moment of the silo's clock on this one."""
        return self._origin_ns + int((at_ns - self._origin_ns) * self._scale)

    def call_at(self, due_ns: int, fn: Callable[[], None]) -> Callable[[], None]:
        due_in_silo_ns = self._origin_ns + int((due_ns - self._origin_ns) / self._scale)
        return self._silo.call_at(due_in_silo_ns, fn)


class ScaledHypervisor(SimulatedHypervisor):
    """A simulated hypervisor in scaled time, whose watchdog keeps to the silo's clock.

    Leases are renewed and watched in real time, by agents whose periods nobody scales; so a deadline that stands on
    their clock strikes at that moment, however fast this host's machines live.
    """

    clock: ScaledScheduler
    power: PlantPower | None = None

    def submit(self, request: HypervisorRequest, done: Done) -> None:
        if isinstance(request, ArmWatchdog):
            request = ArmWatchdog(deadline_ns=self.clock.scaled_ns(request.deadline_ns))
        super().submit(request, done)

    def close(self) -> None:
        """The host is nobody's now; the next process that opens it boots it."""
        super().close()
        if self.power is not None:
            self.power.unplug()
            self.power = None


class SimulatedHosts:
    """Those of one silo. Runs in the silo's thread."""

    def __init__(self, silo: Silo, config: Config, directory: Path) -> None:
        self._silo = silo
        self._config = config
        self.plant = SharedPlant(directory / PLANT_FILE)
        self.scheduler = ScaledScheduler(silo)
        self._fabric = self.plant.fabric(self.scheduler)

    def open(self, request: OpenHost) -> HypervisorBackend:
        """The hypervisor of a host, switched on unless its power was cut; a `BackendFactory`.

        Raises:
            Conflict: another process runs this host.
        """
        if request.backend != "simulated":
            raise NotSupportedYet(
                f"host {request.host}: backend {request.backend} is not supported yet; use simulated"
            )
        settings = {**self._config.simulated, **request.settings}
        scale = settings.pop("time_scale", 1.0)
        if not isinstance(scale, int | float) or not 0 < scale < math.inf:
            raise BadInput(f"host {request.host}: time_scale must be a positive number, got {scale!r}")
        clock = ScaledScheduler(self._silo, scale)
        hypervisor = ScaledHypervisor(
            request.host,
            simulated_capabilities(cpus=request.cpus, memory_bytes=request.memory_bytes),
            clock,
            secrets.randbits(
                48
            ),  # another after each start: the host lost what it ran, its boot id must say so
            simulated_config_from(settings),
            fabric=self._fabric,
            snapshots=self.plant.snapshots(),
        )
        hypervisor.clock = clock
        self._plug_in(request.host, hypervisor)
        return hypervisor

    def _plug_in(self, host: str, hypervisor: ScaledHypervisor) -> None:
        """A host without power runs nothing, and its agent hears and says nothing; with power it boots anew."""
        power, agent = self.plant.power(host), f"agent/{host}"

        def obey(on: bool) -> None:
            if on:
                hypervisor.power_on()
                self._silo.let_go(agent, m.RestartAgent(host))
            else:
                hypervisor.power_off()
                self._silo.hold(agent)

        power.plug_in(self.scheduler, obey, poll_period_s=POWER_POLL_PERIOD_S)
        hypervisor.power = power
