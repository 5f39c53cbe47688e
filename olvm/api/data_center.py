"""`DataCenter`: the face for driver scripts.

    with olvm.DataCenter.open("lab", runtime="local") as dc:
        prod = dc.clusters.create("prod", policy="evenly_distributed")
        prod.hosts.add("kvm00", cpus=32, memory="256GiB")
        prod.vms.create("web-1", vcpus=4, memory="8GiB").start().wait(timeout=60)

Everything goes through the engine's gateway as typed messages; the same calls work on a data center that this
process opened and on one that it joined.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol

from olvm.api.affinity_groups import AffinityGroups
from olvm.api.clusters import Clusters
from olvm.api.history import History
from olvm.api.hosts import Hosts
from olvm.api.link import Link, LocalLink, SocketLink, result_of
from olvm.api.operation import ACCEPT_TIMEOUT_S, Operation, OperationClient
from olvm.api.operations import Events, Operations
from olvm.api.result import Result
from olvm.api.settings import load_config, store_config
from olvm.api.users import Users
from olvm.api.vms import Vms
from olvm.model import client_protocol as p
from olvm.model import messages as m
from olvm.model.errors import BadInput, WaitTimeout
from olvm.model.records import ClusterRecord, HostRecord, OperationRecord, VmRecord

SQL_MARGIN_S = 10.0


class _Runtime(Protocol):
    def close(self) -> None: ...


class DataCenter:
    """A data center: open one with `open`, join a running one with `connect`."""

    def __init__(self, directory: Path, link: Link, runtime: _Runtime | None) -> None:
        self.directory = directory
        self.backend = "simulated"  # what hosts are made of unless they say otherwise
        self._link = link
        self._runtime = runtime
        self._client = OperationClient(link)
        self._pipelined = False
        self._closed = False
        self.clusters = Clusters(self)
        self.hosts = Hosts(self)
        self.vms = Vms(self)
        self.affinity_groups = AffinityGroups(self)
        self.users = Users(self)
        self.operations = Operations(self)
        self.history = History(self)

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        backend: Literal["simulated", "libvirt"] = "simulated",
        runtime: Literal["ray", "local"] = "ray",
        **settings: Any,
    ) -> DataCenter:
        """Open the data center in a directory, creating it when it is not there, and go on where it stopped.

        Args:
            path: directory of its journals; made with mode 0700.
            backend: what hosts are made of unless they say otherwise.
            runtime: `ray`: silos are Ray actors (first start takes about 15 s); `local`: threads of this process.
            settings: fields of `olvm.model.config.Config`; they are kept with the data center.

        Raises:
            JournalLocked: another engine has this data center open; the message names its process.
        """
        if backend not in ("simulated", "libvirt"):
            raise BadInput(f"backend {backend!r} is not known; this version has: simulated, libvirt")
        directory = Path(path).absolute()
        config, kept = load_config(directory, settings)
        opened: _Runtime
        reach: Callable[[], Link]
        if runtime == "local":
            from actors.local_runtime import LocalRuntime

            opened = local = LocalRuntime(directory, config)
            reach = functools.partial(LocalLink, local.gateway)
        elif runtime == "ray":
            from actors.ray_runtime import RayRuntime

            opened = RayRuntime(directory, config)
            reach = functools.partial(SocketLink, directory, connect_timeout_s=60)
        else:
            raise BadInput(f"runtime {runtime!r} is not known; choose ray or local")
        try:
            store_config(directory, kept)
            dc = cls(directory, reach(), opened)
            dc.backend = backend
            return dc
        except BaseException:
            opened.close()
            raise

    @classmethod
    def connect(
        cls, path: str | Path, *, connect_timeout: float = 5.0, reconnect: float = 30.0
    ) -> DataCenter:
        """Join a data center that another process keeps running.

        Raises:
            EngineUnreachable: no engine answers there within `connect_timeout` seconds.
        """
        directory = Path(path).absolute()
        link = SocketLink(directory, connect_timeout_s=connect_timeout, reconnect_s=reconnect)
        dc = cls(directory, link, None)
        try:
            dc.ask(p.Hello(p.PROTOCOL_VERSION), "greeting")
        except BaseException:
            dc.close()
            raise
        return dc

    def close(self) -> None:
        """Leave; a data center that this process opened is stopped in order. Nothing accepted is lost."""
        if self._closed:
            return
        self._closed = True
        self._link.close()
        if self._runtime is not None:
            self._runtime.close()

    def __enter__(self) -> DataCenter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ------------------------------------------------------------------ commands

    def submit(self, command: m.Command, what: str, client_request_id: str | None = None) -> Operation:
        """Send a command; returns when it is durable (or at once inside `pipelined`).

        A retry with the same `client_request_id` gets the first one's operation and changes nothing more.
        """
        return self.submit_ask(p.Do(command, client_request_id or os.urandom(16).hex()), what)

    def submit_ask(self, ask: p.Do | p.SetPassword | p.LogOn, what: str) -> Operation:
        """As `submit`, of an ask that leads to a command."""
        accepted: Future[Any] = self._link.ask(ask)
        operation = Operation(self._client, accepted, what)
        if not self._pipelined:
            operation.accepted()
        return operation

    @contextlib.contextmanager
    def pipelined(self) -> Iterator[None]:
        """Inside, commands do not wait for their acceptance, so that thousands can be on their way at once.

        `operation.accepted()` or `.wait()` raises what a command was refused with.
        """
        before, self._pipelined = self._pipelined, True
        try:
            yield
        finally:
            self._pipelined = before

    def wait_all(self, operations: list[Operation], timeout: float | None = None) -> None:
        """Wait until all have ended, whatever their end; raises `WaitTimeout` naming how many go on."""
        import time

        deadline = None if timeout is None else time.monotonic() + timeout
        for operation in operations:
            with contextlib.suppress(Exception):
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                operation.wait(left)
        open_count = sum(
            not operation.done and (not operation._accepted.done() or operation._accepted.exception() is None)
            for operation in operations
        )
        if open_count:
            raise WaitTimeout(f"{open_count} of {len(operations)} operations go on after {timeout} s")

    # ------------------------------------------------------------------ reads

    def ask(self, ask: Any, what: str, timeout_s: float = ACCEPT_TIMEOUT_S) -> Any:
        return result_of(self._link.ask(ask), timeout_s, what)

    def sql(
        self,
        sql: str,
        params: list[Any] | tuple[Any, ...] = (),
        *,
        timeout: float = 60.0,
        limit: int = 100_000,
    ) -> Result:
        """Run one reading statement over the engine's tables and history.

        Ctrl-C, or leaving the data center, ends it there too. Its bounds are in `olvm.model.limits`: SQL_…

        Raises:
            BadQuery: malformed, not a reading statement, slower than `timeout` seconds, or too large an answer;
                nothing was changed.
            Conflict: too many questions wait already.
        """
        asked = self._link.ask(p.Sql(sql, list(params), limit, timeout))
        try:
            rows: p.Rows = result_of(asked, timeout + SQL_MARGIN_S, "sql")
        except BaseException:  # Ctrl-C too: nobody waits for it, so it must not run on
            self._link.cancel(asked)
            raise
        return Result(rows.table)

    def events(
        self, after: int = 0, *, follow: bool = False, page_rows: int = 1000
    ) -> Iterator[dict[str, Any]]:
        """Committed events after a cursor (an event's `seq`), in order, without a gap.

        `follow=True` goes on for ever with new ones.
        """
        return Events(self).read(after, follow=follow, page_rows=page_rows)

    def status(self) -> p.DataCenterStatus:
        """Silos with their process ids, queue lengths and journal positions."""
        status: p.DataCenterStatus = self.ask(p.Status(), "status")
        return status

    def inject(self, host: str, fault: dict[str, Any]) -> None:
        """Plant a fault in a simulated host; see hypervisor_backends.simulated_faults.Fault."""
        import msgspec

        self.ask(p.Inject(host, msgspec.json.encode(fault)), f"fault in {host}")

    def __repr__(self) -> str:
        return f"<DataCenter {self.directory}>"


__all__ = ["ClusterRecord", "DataCenter", "HostRecord", "OperationRecord", "VmRecord"]
