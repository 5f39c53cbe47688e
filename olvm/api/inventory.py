"""Clusters, hosts, machines, operations and events of a data center, as driver scripts handle them.

Handles (`Cluster`, `Host`, `Vm`) name an object and ask for its state when they are asked; nothing is cached that
could grow stale unseen.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from olvm.api.operation import Operation
from olvm.model import client_protocol as p
from olvm.model import messages as m
from olvm.model.errors import NotFound
from olvm.model.messages import OperationView, PlacementExplanation
from olvm.model.record import Record
from olvm.model.records import ClusterRecord, HostRecord, OperationRecord, VmRecord
from olvm.model.search import parse
from olvm.model.search_fields import fields_of
from olvm.model.search_targets import to_sql
from olvm.model.sizes import parse_size

if TYPE_CHECKING:
    from olvm.api.data_center import DataCenter

R = TypeVar("R", bound=Record)
HOST_WAIT_S = 120.0
FOLLOW_WAIT_S = 20.0


class _Table(Generic[R]):
    """Reads rows of one table by oVirt's search language."""

    record: type[R]
    free_text = "name"  # where a word alone is looked for

    def __init__(self, dc: DataCenter, restriction: str = "") -> None:
        self._dc = dc
        self._restriction = restriction  # value of the column `cluster`

    def rows(self, where: str = "", limit: int = 100_000) -> list[R]:
        """Rows that match a search such as `status=up and host=kvm1* sortby name`; all, by name, without one."""
        search = to_sql(parse(where), fields_of(self.record, self.free_text), page_rows=limit)
        table = self.record.TABLE
        condition = f"({search.where})" if search.where else "true"
        params: list[Any] = list(search.parameters)
        if self._restriction:
            condition += " and cluster = ?"
            params.append(self._restriction)
        order = search.order_by or self._order()
        sql = f"select * from {table} where {condition} order by {order} limit {search.limit_rows or limit}"  # noqa: S608
        if search.offset_rows:
            sql += f" offset {search.offset_rows}"
        return [self._decode(row) for row in self._dc.sql(sql, params, limit=limit).dicts()]

    def _order(self) -> str:
        return "name"

    def _one(self, kind: str, name: str, *columns: str) -> R:
        """The row whose key is `name`; `NotFound` when there is none."""
        condition = " or ".join(f"{column} = ?" for column in columns)
        sql = f"select * from {self.record.TABLE} where {condition}"  # noqa: S608 - names of ours
        rows = self._dc.sql(sql, [name] * len(columns)).dicts()
        if not rows:
            raise NotFound(f"{kind} {name} does not exist; `olvm {kind} list` shows those that do")
        return self._decode(rows[0])

    def _decode(self, row: dict[str, Any]) -> R:
        return decode_row(self.record, row)


def decode_row(record: type[R], row: dict[str, Any]) -> R:
    """A SQL row as the typed record; JSON columns are parsed."""
    fields = _fields_by_name(record)
    values: dict[str, Any] = {}
    for name, value in row.items():
        field = fields.get(name)
        if field is None or value is None:
            if field is not None:
                values[name] = None
            continue
        text_like = isinstance(value, str) and value[:1] in "[{" and _is_container(field.type)
        values[name] = msgspec.json.decode(value) if text_like else value
    return msgspec.convert(values, record)


@functools.cache
def _fields_by_name(record: type[Record]) -> dict[str, msgspec.structs.FieldInfo]:
    """Kept: msgspec evaluates every annotation anew each time it is asked, 0.25 ms a row."""
    return {field.name: field for field in msgspec.structs.fields(record)}


def _is_container(annotation: object) -> bool:
    return getattr(annotation, "__origin__", annotation) in (list, dict, tuple)


# ---------------------------------------------------------------- handles


class Vm:
    """One machine, by name. Commands return durable operations."""

    def __init__(self, dc: DataCenter, name: str) -> None:
        self._dc = dc
        self.name = name

    def _do(self, verb: m.VmVerb, timeout: float | None, to: str | None, request_id: str | None) -> Operation:
        command = m.VmCommand(self.name, verb, timeout, to)
        return self._dc.submit(command, f"{verb} {self.name}", request_id)

    def start(self, *, timeout: float | None = None, client_request_id: str | None = None) -> Operation:
        """Run it; a suspended one goes on from its saved memory. `timeout`: the operation's deadline, seconds."""
        return self._do("start", timeout, None, client_request_id)

    def shutdown(self, *, timeout: float | None = None, client_request_id: str | None = None) -> Operation:
        """Ask the guest to shut down; fails, and the machine runs on, when it has not within the deadline."""
        return self._do("shutdown", timeout, None, client_request_id)

    def stop(self, *, timeout: float | None = None, client_request_id: str | None = None) -> Operation:
        """End it at once, as by pulling the plug."""
        return self._do("stop", timeout, None, client_request_id)

    def reboot(self, *, timeout: float | None = None, client_request_id: str | None = None) -> Operation:
        return self._do("reboot", timeout, None, client_request_id)

    def reset(self, *, timeout: float | None = None, client_request_id: str | None = None) -> Operation:
        return self._do("reset", timeout, None, client_request_id)

    def suspend(self, *, timeout: float | None = None, client_request_id: str | None = None) -> Operation:
        """Save its memory to disk and end it; `start` or `resume` goes on from there."""
        return self._do("suspend", timeout, None, client_request_id)

    def resume(self, *, timeout: float | None = None, client_request_id: str | None = None) -> Operation:
        return self._do("resume", timeout, None, client_request_id)

    def migrate(self, to: str | None = None, *, client_request_id: str | None = None) -> Operation:
        """Not supported yet: the operation fails with `NotSupportedYet`."""
        return self._do("migrate", None, to, client_request_id)

    def remove(self, *, client_request_id: str | None = None) -> Operation:
        return self._do("remove", None, None, client_request_id)

    def update(
        self,
        *,
        vcpus: int | None = None,
        memory: str | int | None = None,
        high_availability: bool | None = None,
        description: str | None = None,
        client_request_id: str | None = None,
    ) -> Operation:
        """Change what is given; size only while it is down."""
        command = m.UpdateVm(
            self.name, vcpus, None if memory is None else parse_size(memory), high_availability, description
        )
        return self._dc.submit(command, f"update {self.name}", client_request_id)

    def explain(self) -> PlacementExplanation:
        """Why each host would or would not take it now."""
        explanation: PlacementExplanation = self._dc.ask(p.Explain(self.name), f"explain {self.name}")
        return explanation

    @property
    def record(self) -> VmRecord:
        """Its committed state."""
        return self._dc.vms.row(self.name)

    @property
    def status(self) -> str:
        return self.record.status.value

    @property
    def host(self) -> str | None:
        return self.record.host

    def __repr__(self) -> str:
        return f"<Vm {self.name}>"


class Host:
    """One host, by name."""

    def __init__(self, dc: DataCenter, name: str) -> None:
        self._dc = dc
        self.name = name

    def _do(self, action: Any, request_id: str | None) -> Operation:
        return self._dc.submit(m.HostCommand(self.name, action), f"{action} {self.name}", request_id)

    def activate(self, *, client_request_id: str | None = None) -> Operation:
        return self._do("activate", client_request_id)

    def maintenance(self, *, client_request_id: str | None = None) -> Operation:
        """Take it out of service; it must be empty until live migration comes."""
        return self._do("maintenance", client_request_id)

    def remove(self, *, client_request_id: str | None = None) -> Operation:
        return self._do("remove", client_request_id)

    @property
    def record(self) -> HostRecord:
        return self._dc.hosts.row(self.name)

    @property
    def status(self) -> str:
        return self.record.status.value

    def __repr__(self) -> str:
        return f"<Host {self.name}>"


class Cluster:
    """One cluster, by name, with its hosts and machines."""

    def __init__(self, dc: DataCenter, name: str) -> None:
        self._dc = dc
        self.name = name
        self.hosts = Hosts(dc, name)
        self.vms = Vms(dc, name)

    def update(
        self,
        *,
        policy: str | None = None,
        policy_parameters: dict[str, float] | None = None,
        memory_overcommit_percent: int | None = None,
        cpu_overcommit_percent: int | None = None,
    ) -> Operation:
        command = m.UpdateCluster(
            self.name, policy, policy_parameters, memory_overcommit_percent, cpu_overcommit_percent
        )
        return self._dc.submit(command, f"update cluster {self.name}")

    def remove(self) -> Operation:
        return self._dc.submit(m.RemoveCluster(self.name), f"remove cluster {self.name}")

    @property
    def record(self) -> ClusterRecord:
        return self._dc.clusters.row(self.name)

    def __repr__(self) -> str:
        return f"<Cluster {self.name}>"


# ---------------------------------------------------------------- collections


class Clusters(_Table[ClusterRecord]):
    record = ClusterRecord

    def create(
        self,
        name: str,
        *,
        policy: str = "none",
        policy_parameters: dict[str, float] | None = None,
        memory_overcommit_percent: int = 100,
        cpu_overcommit_percent: int = 0,
        client_request_id: str | None = None,
    ) -> Cluster:
        command = m.CreateCluster(
            name, policy, policy_parameters or {}, memory_overcommit_percent, cpu_overcommit_percent
        )
        self._dc.submit(command, f"create cluster {name}", client_request_id).wait(HOST_WAIT_S)
        return Cluster(self._dc, name)

    def row(self, name: str) -> ClusterRecord:
        return self._one("cluster", name, "name")

    def get(self, name: str) -> Cluster:
        """The cluster of that name; `NotFound` when there is none."""
        return Cluster(self._dc, self.row(name).name)

    def list(self, where: str = "") -> list[ClusterRecord]:
        return self.rows(where)


class Hosts(_Table[HostRecord]):
    record = HostRecord

    def add(
        self,
        name: str,
        *,
        cpus: int,
        memory: str | int,
        cluster: str | None = None,
        dedicated: bool = False,
        backend_settings: dict[str, str | int | float | bool] | None = None,
        client_request_id: str | None = None,
        wait: bool = True,
    ) -> Host:
        """Register a simulated host and wait until it is Up.

        Args:
            memory: bytes, or text as "256GiB".
            dedicated: its agent gets a silo (on Ray: a process) of its own.
            wait: False returns when the registration is durable.
        """
        command = m.AddHost(
            name,
            self._cluster(cluster),
            cpus,
            parse_size(memory),
            "",
            "simulated",
            backend_settings or {},
            dedicated,
        )
        operation = self._dc.submit(command, f"add host {name}", client_request_id)
        if wait:
            operation.wait(HOST_WAIT_S)
        return Host(self._dc, name)

    def _cluster(self, cluster: str | None) -> str:
        chosen = cluster or self._restriction
        if not chosen:
            raise NotFound("no cluster was named; use `dc.clusters.get(name).hosts.add(…)` or cluster=…")
        return chosen

    def row(self, name: str) -> HostRecord:
        return self._one("host", name, "name")

    def get(self, name: str) -> Host:
        return Host(self._dc, self.row(name).name)

    def list(self, where: str = "") -> list[HostRecord]:
        return self.rows(where)


class Vms(_Table[VmRecord]):
    record = VmRecord

    def create(
        self,
        name: str,
        *,
        vcpus: int,
        memory: str | int,
        cluster: str | None = None,
        high_availability: bool = False,
        pinned_hosts: Iterable[str] = (),
        description: str = "",
        dedicated: bool = False,
        client_request_id: str | None = None,
    ) -> Vm:
        """Define a machine; it is down until `start`.

        Args:
            memory: bytes, or text as "8GiB".
            dedicated: a silo (on Ray: a process) of its own for this machine's actor.
        """
        operation = self.create_later(
            name,
            vcpus=vcpus,
            memory=memory,
            cluster=cluster,
            high_availability=high_availability,
            pinned_hosts=pinned_hosts,
            description=description,
            dedicated=dedicated,
            client_request_id=client_request_id,
        )
        operation.wait(HOST_WAIT_S)
        return Vm(self._dc, name)

    def create_later(
        self,
        name: str,
        *,
        vcpus: int,
        memory: str | int,
        cluster: str | None = None,
        high_availability: bool = False,
        pinned_hosts: Iterable[str] = (),
        description: str = "",
        dedicated: bool = False,
        client_request_id: str | None = None,
    ) -> Operation:
        """As `create`, returning the operation: for many at once, inside `dc.pipelined()`."""
        chosen = cluster or self._restriction
        if not chosen:
            raise NotFound("no cluster was named; use `dc.clusters.get(name).vms.create(…)` or cluster=…")
        command = m.CreateVm(
            name,
            chosen,
            vcpus,
            parse_size(memory),
            high_availability,
            list(pinned_hosts),
            description,
            "",
            dedicated,
        )
        return self._dc.submit(command, f"create {name}", client_request_id)

    def row(self, name: str) -> VmRecord:
        """By name or id."""
        return self._one("vm", name, "name", "id")

    def get(self, name: str) -> Vm:
        """The machine of that name or id; `NotFound` when there is none."""
        return Vm(self._dc, self.row(name).name)

    def __getitem__(self, name: str) -> Vm:
        """A handle without asking whether it exists."""
        return Vm(self._dc, name)

    def list(self, where: str = "") -> list[VmRecord]:
        return self.rows(where)


class Operations(_Table[OperationRecord]):
    record = OperationRecord
    free_text = "target_name"

    def _order(self) -> str:
        return "created_ns desc"

    def row(self, operation_id: str) -> OperationRecord:
        return self._one("operation", operation_id, "id")

    def list(self, where: str = "", limit: int = 1000) -> list[OperationRecord]:
        """Newest first."""
        return self.rows(where, limit)

    def wait(self, operation_id: str, timeout: float | None = None) -> OperationView:
        """Wait for an operation that any process began; raises what it failed with, or `WaitTimeout`."""
        return self.follow(operation_id).wait(timeout).view

    def follow(self, operation_id: str) -> Operation:
        """The operation that any process began, to be waited for here; `NotFound` when there is none."""
        accepted = self._dc._link.ask(p.Watch(operation_id))
        return Operation(self._dc._client, accepted, f"operation {operation_id}").accepted()


class Events:
    """The stream of committed events."""

    def __init__(self, dc: DataCenter, sleep: Callable[[float], None] = time.sleep) -> None:
        self._dc = dc
        self._sleep = sleep

    def read(self, after: int, *, follow: bool, page_rows: int) -> Iterator[dict[str, Any]]:
        cursor = after
        while True:
            wait_s = FOLLOW_WAIT_S if follow else 0.0
            page: p.EventPage = self._dc.ask(p.Events(cursor, page_rows, wait_s), "events", wait_s + 60)
            yield from page.events
            if not page.events and not follow:
                return
            cursor = page.cursor
