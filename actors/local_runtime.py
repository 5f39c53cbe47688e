"""All silos in this process, a thread each, in real time: for notebooks, small labs and tests.

Frames pass between threads as the same bytes that cross Ray. Clients in this process talk to the gateway without a
socket; others may connect to it as to any data center.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from actors.engine_process import EngineProcess, SiloNames, check_private, silos_on_record
from actors.node import Node
from actors.wire import ENGINE_SILO, TELEMETRY_SILO
from olvm.model import messages as m
from olvm.model.client_protocol import Exported, ExportHistory, SiloStatus, Sql
from olvm.model.config import Config
from olvm.model.errors import NotFound, OlvmError
from olvm.model.table import QueryResult
from olvm.stopping import Stop


class LocalRuntime:
    """Implements `Infrastructure`."""

    runtime_name = "local"

    def __init__(self, directory: Path, config: Config) -> None:
        check_private(directory)
        self.directory = str(directory)
        self.config = config
        self._names = SiloNames(config)
        self._lock = threading.Lock()
        self._nodes: dict[str, Node] = {}
        engine = self._open(ENGINE_SILO)
        try:
            self.process = EngineProcess(engine, self)
            for name in [TELEMETRY_SILO, *silos_on_record(engine)]:
                self.ensure(name)
            self.process.start()
        except BaseException:
            self.close()
            raise

    @property
    def gateway(self) -> Any:
        return self.process.gateway

    def close(self) -> None:
        if hasattr(self, "process"):
            self.process.stop()
        for node in self._nodes.values():
            node.stop()

    # ------------------------------------------------------------------ silos

    def _open(self, name: str) -> Node:
        node = Node(name, self.directory, self.config, self._transmit)
        self._nodes[name] = node
        return node

    def ensure(self, name: str) -> None:
        with self._lock:
            if name not in self._nodes:
                self._open(name).start()

    def _transmit(self, silo: str, frame: bytes) -> None:
        node = self._nodes.get(silo)
        if node is not None:  # else it is lost, and sent again
            node.receive(frame)

    def crash(self, name: str) -> None:
        """Lose a silo as a kill would: what is not committed is gone. For tests and drills."""
        with self._lock:
            node = self._nodes.pop(name, None)
            if node is None:
                raise NotFound(f"silo {name} does not run")
        node.stop()

    # ------------------------------------------------------------------ Infrastructure

    def silo_for_host(self, command: m.AddHost) -> str:
        name = self._names.for_host(command)
        self.ensure(name)
        return name

    def silo_for_vm(self, command: m.CreateVm) -> str:
        name = self._names.for_vm(command)
        if name:
            self.ensure(name)
        return name

    def statuses(self) -> list[SiloStatus]:
        return [node.status() for _, node in sorted(self._nodes.items())]

    def query_history(self, ask: Sql, snapshots: dict[str, str], stop: Stop) -> QueryResult:
        return self._telemetry().query_history(ask, snapshots, stop)

    def export_history(self, ask: ExportHistory, directory: Path, stop: Stop) -> Exported:
        return self._telemetry().export_history(ask, directory, stop)

    def _telemetry(self) -> Node:
        node = self._nodes.get(TELEMETRY_SILO)
        if node is None:
            raise OlvmError("history is not available: the telemetry silo does not run")
        return node

    def inject(self, host: str, fault: bytes) -> None:
        for node in list(self._nodes.values()):
            if node.hypervisors is not None and host in node.hypervisors.backends:
                node.inject(host, fault)
                return
        raise NotFound(f"host {host} has no simulated hypervisor here")
