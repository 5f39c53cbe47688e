"""A cluster actor with hosts, and what one says to it: shared by the tests of its parts."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from actors.behaviour import Turn
from actors.cluster import Cluster
from olvm.model import messages as m
from olvm.model.config import Config
from olvm.model.host_states import HostStatus
from olvm.model.record import Record, key_of
from olvm.model.records import AffinityGroupRecord, ClusterRecord, CopyRecord, HostRecord, ReservationRecord
from olvm.model.vm_states import VmStatus
from tests.builders import GIB, turn

FEATURES = ["migration", "watchdog"]


def joined(name: str, *, usable: bool = True, memory_gib: int = 4, **facts: object) -> m.HostJoined:
    facts = {"boot_id": f"boot-{name}", "cpu_model": "EPYC", "features": FEATURES} | facts
    return m.HostJoined(name, 8, memory_gib * GIB, agent_of(name), usable, **facts)  # type: ignore[arg-type]


def agent_of(host: str) -> str:
    return f"agent/{host}@host-{host[1:]}"


def cluster(*hosts: str, memory_gib: int = 4, **settings: object) -> Cluster:
    made = Cluster.new("prod")
    give(made, m.StartCluster("op-0", m.CreateCluster("prod", **settings)))  # type: ignore[arg-type]
    for name in hosts:
        give(made, joined(name, memory_gib=memory_gib))
    return made


def give(
    one: Cluster,
    message: m.AnyMessage,
    sender: str = "vm/v1",
    *,
    at_s: float = 100.0,
    config: Config | None = None,
) -> Turn:
    done = turn(me="cluster/prod", sender=sender, at_s=at_s, config=config)
    done.marks = []
    one.handle(message, done)
    return done


def place(vm_id: str = "v1", epoch: int = 1, **fields: object) -> m.PlaceVm:
    return m.PlaceVm(vm_id, vm_id, epoch, 1, GIB, **fields)  # type: ignore[arg-type]


def copy_ask(vm_id: str = "v1", epoch: int = 2, **fields: object) -> m.PlaceCopy:
    base = {"kind": "migration", "current_host": "H1", "vcpus": 1, "memory_bytes": GIB}
    return m.PlaceCopy(vm_id=vm_id, vm_name=vm_id, epoch=epoch, **(base | fields))  # type: ignore[arg-type]


def run(one: Cluster, vm_id: str, on: str, epoch: int = 1, **fields: object) -> None:
    """The machine holds capacity on that host and was seen Up there."""
    facts = {"pinned_hosts": [on]} | fields
    give(one, place(vm_id, epoch, **facts), f"vm/{vm_id}")
    one.book.reservations[vm_id].pinned_hosts = list(fields.get("pinned_hosts", []))  # type: ignore[call-overload]
    one.book.table.settle(vm_id, on)
    one.book.reservations[vm_id].settled = True


def usable(host: str, status: HostStatus) -> m.HostUsable:
    return m.HostUsable(host, status is HostStatus.UP, "", status.value)


def state(vm_id: str, *, epoch: int = 1, status: VmStatus = VmStatus.UP, address: str = "") -> m.DomainState:
    return m.DomainState(vm_id, address or f"vm/{vm_id}", epoch, status)


def report(host: str, *domains: m.DomainState, seq: int = 7, load: float = 10.0) -> m.HostReported:
    return m.HostReported(host, agent_of(host), 2, seq, load, list(domains))


def replies(done: Turn, to: str = "vm/v1") -> list[m.AnyMessage]:
    return [message for address, message, _ in done.sent if address == to]


class Disk:
    """What the silo's journal would hold: what a turn saved, without what it erased, in the silo's order."""

    def __init__(self) -> None:
        self.rows: dict[type[Record], dict[str, Record]] = {}

    def keep(self, done: Turn) -> None:
        for row in done.saved:
            self.rows.setdefault(type(row), {})[key_of(row)] = copy.deepcopy(row)
        for row in done.erased:
            self.rows.get(type(row), {}).pop(key_of(row), None)

    def restarted(self, hosts: Sequence[HostRecord]) -> Cluster:
        rows = copy.deepcopy(self.rows)
        (record,) = rows[ClusterRecord].values()
        return Cluster(
            record,  # type: ignore[arg-type]
            list(hosts),
            rows.get(ReservationRecord, {}),  # type: ignore[arg-type]
            rows.get(CopyRecord, {}),  # type: ignore[arg-type]
            rows.get(AffinityGroupRecord, {}),  # type: ignore[arg-type]
        )


def host_record(name: str, *, memory_gib: int = 4, status: HostStatus = HostStatus.UP) -> HostRecord:
    return HostRecord(
        name=name,
        cluster="prod",
        status=status,
        cpus=8,
        memory_bytes=memory_gib * GIB,
        cpu_model="EPYC",
        silo=f"host-{name[1:]}",
        boot_id=f"boot-{name}",
        features=FEATURES,
    )
