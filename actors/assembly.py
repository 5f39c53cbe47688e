"""Puts silos together: which records and actors each kind of silo has.

This is composition only. The runtimes (local, Ray, the simulator) call it with what a journal recovered. Ports are
theirs to give: those of a silo in real time are in `node.py`.
"""

from __future__ import annotations

from typing import Literal, TypeVar, cast

from actors.behaviour import Behaviour
from actors.cluster import Cluster
from actors.engine import Engine
from actors.host import Host
from actors.host_agent import HostAgent
from actors.roster import AgentRoster, VmRoster
from actors.silo_ports import Cast, Records
from actors.telemetry import Telemetry
from actors.users import Users
from actors.vm import Vm
from actors.wire import ENGINE_SILO, TELEMETRY_SILO
from olvm.model.record import Record
from olvm.model.records import (
    ENGINE_RECORDS,
    HOST_SILO_RECORDS,
    VM_SILO_RECORDS,
    AffinityGroupRecord,
    AgentRecord,
    ClusterRecord,
    CopyRecord,
    DomainRecord,
    EngineRecord,
    HostRecord,
    InventoryRecord,
    OperationRecord,
    PeerRecord,
    ReservationRecord,
    VmRecord,
)
from olvm.model.user_records import UserRecord, UserVerifierRecord

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
    copies = _all(records, CopyRecord)
    groups = _all(records, AffinityGroupRecord)
    inventory = _all(records, InventoryRecord)
    users = Users(_all(records, UserRecord), _all(records, UserVerifierRecord))
    behaviours: list[Behaviour] = [
        Engine(engines.get("engine") or EngineRecord(), _all(records, OperationRecord), inventory, users)
    ]
    for cluster in _all(records, ClusterRecord).values():
        behaviours.append(
            Cluster(
                cluster,
                [host for host in hosts.values() if host.cluster == cluster.name],
                {key: held for key, held in reservations.items() if held.cluster == cluster.name},
                {key: copy for key, copy in copies.items() if copy.cluster == cluster.name},
                {key: group for key, group in groups.items() if group.cluster == cluster.name},
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
