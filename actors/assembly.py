"""Puts silos together: which records, actors and ports each kind of silo has.

This is composition only. The runtimes (local, Ray, and later the simulator) call it with a journal and a clock.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable
from typing import Literal, TypeVar, cast

from actors.behaviour import Behaviour
from actors.cluster import Cluster
from actors.engine import Engine
from actors.host import Host
from actors.host_agent import HostAgent
from actors.hypervisor_port import BackendFactory, OpenHost
from actors.roster import AgentRoster, VmRoster
from actors.silo import Cast, Records, Silo
from actors.telemetry import Telemetry
from actors.vm import Vm
from actors.wire import ENGINE_SILO, TELEMETRY_SILO
from hypervisor_backends.protocol import HypervisorBackend, Scheduler
from hypervisor_backends.simulated import SimulatedHypervisor
from hypervisor_backends.simulated_config import simulated_capabilities, simulated_config_from
from olvm.model.config import Config
from olvm.model.errors import BadInput, NotSupportedYet
from olvm.model.record import Record
from olvm.model.records import (
    ENGINE_RECORDS,
    HOST_SILO_RECORDS,
    VM_SILO_RECORDS,
    AgentRecord,
    ClusterRecord,
    DomainRecord,
    EngineRecord,
    HostRecord,
    InventoryRecord,
    OperationRecord,
    PeerRecord,
    ReservationRecord,
    VmRecord,
)

SiloKind = Literal["engine", "host", "vm", "telemetry"]


def kind_of(silo: str) -> SiloKind:
    """The kind of a silo by its name: `engine`, `telemetry`, `host-…`, `vms-…`."""
    if silo == ENGINE_SILO:
        return "engine"
    if silo == TELEMETRY_SILO:
        return "telemetry"
    return "host" if silo.startswith("host-") else "vm"


def record_types(kind: SiloKind) -> tuple[type[Record], ...]:
    match kind:
        case "engine":
            return ENGINE_RECORDS
        case "host":
            return HOST_SILO_RECORDS
        case "vm":
            return VM_SILO_RECORDS
        case "telemetry":
            return (PeerRecord,)


def cast_of(kind: SiloKind) -> Cast:
    match kind:
        case "engine":
            return engine_cast
        case "host":
            return host_cast
        case "vm":
            return vm_cast
        case "telemetry":
            return telemetry_cast


R = TypeVar("R", bound=Record)


def _all(records: Records, kind: type[R]) -> dict[str, R]:
    return cast("dict[str, R]", records.get(kind, {}))


def engine_cast(records: Records) -> list[Behaviour]:
    engines = _all(records, EngineRecord)
    hosts = _all(records, HostRecord)
    reservations = _all(records, ReservationRecord)
    inventory = _all(records, InventoryRecord)
    behaviours: list[Behaviour] = [
        Engine(engines.get("engine") or EngineRecord(), _all(records, OperationRecord), inventory)
    ]
    for cluster in _all(records, ClusterRecord).values():
        behaviours.append(
            Cluster(
                cluster,
                [host for host in hosts.values() if host.cluster == cluster.name],
                {key: held for key, held in reservations.items() if held.cluster == cluster.name},
            )
        )
    behaviours.extend(Host(host) for host in hosts.values())
    behaviours.extend(Vm(vm) for vm in _all(records, VmRecord).values() if not vm.silo)
    return behaviours


def host_cast(records: Records) -> list[Behaviour]:
    by_host: dict[str, dict[str, DomainRecord]] = {}
    for domain in _all(records, DomainRecord).values():
        by_host.setdefault(domain.host, {})[domain.vm_id] = domain
    agents = _all(records, AgentRecord)
    behaviours: list[Behaviour] = [HostAgent(agent, by_host.get(agent.host, {})) for agent in agents.values()]
    behaviours.append(AgentRoster(set(agents)))
    return behaviours


def telemetry_cast(_: Records) -> list[Behaviour]:
    return [Telemetry()]


def vm_cast(records: Records) -> list[Behaviour]:
    return [*(Vm(vm) for vm in _all(records, VmRecord).values()), VmRoster()]


class ScaledScheduler:
    """Time for a simulated hypervisor: `scale` simulated seconds pass in one real second."""

    def __init__(self, silo: Silo, clock_ns: Callable[[], int], scale: float) -> None:
        self._silo = silo
        self._clock_ns = clock_ns
        self._scale = scale
        self._origin_ns = clock_ns()

    def now_ns(self) -> int:
        return self._origin_ns + int((self._clock_ns() - self._origin_ns) * self._scale)

    def call_at(self, due_ns: int, fn: Callable[[], None]) -> Callable[[], None]:
        real_ns = self._origin_ns + int((due_ns - self._origin_ns) / self._scale)
        return self._silo.call_at(real_ns, fn)


def backend_factory(silo: Silo, config: Config, clock_ns: Callable[[], int]) -> BackendFactory:
    """Opens the backend that a host was registered with."""

    def open_backend(request: OpenHost) -> HypervisorBackend:
        if request.backend != "simulated":
            raise NotSupportedYet(
                f"host {request.host}: backend {request.backend} is not supported yet; use simulated"
            )
        settings = {**config.simulated, **request.settings}
        scale = settings.pop("time_scale", 1.0)
        if not isinstance(scale, int | float) or not 0 < scale < math.inf:
            raise BadInput(f"host {request.host}: time_scale must be a positive number, got {scale!r}")
        scheduler: Scheduler = ScaledScheduler(silo, clock_ns, scale)
        capabilities = simulated_capabilities(cpus=request.cpus, memory_bytes=request.memory_bytes)
        # Another seed after each start: the host lost what it ran, and its boot id must say so.
        seed = secrets.randbits(48)
        return SimulatedHypervisor(
            request.host, capabilities, scheduler, seed, simulated_config_from(settings)
        )

    return open_backend
