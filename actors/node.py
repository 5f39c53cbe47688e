"""One silo in one process, in real time: its files, its thread, its ports and what it tells of itself.

Both runtimes host nodes; they differ only in what carries a frame from one node to another.
"""

from __future__ import annotations

import os
import resource
import secrets
from collections.abc import Callable
from pathlib import Path

import msgspec

from actors.assembly import cast_of, kind_of, record_types
from actors.fence_port import FencePort
from actors.history_port import HistoryPort
from actors.hosts import Hosts
from actors.hypervisor_port import HypervisorPort
from actors.lease_port import LeasePort
from actors.runner import SiloRunner, clock_ns
from actors.runtime_port import RuntimePort, restart_order
from actors.silo import Silo
from hypervisor_backends.simulated import SimulatedHypervisor
from hypervisor_backends.simulated_faults import Fault
from olvm.history.store import HistoryStore
from olvm.journal.duckdb_journal import DuckDbJournal
from olvm.journal.memory_journal import MemoryJournal
from olvm.journal.port import Journal
from olvm.model.client_protocol import Exported, ExportHistory, SiloStatus, Sql
from olvm.model.config import Config
from olvm.model.errors import BadInput, NotFound
from olvm.model.table import QueryResult
from olvm.stopping import Stop

TICKET_BYTES = 12
TICKET_CHARS = 8  # a VNC password has no more
SNAPSHOTS = "snapshots"  # directory for tables of the engine on their way to history

Transmit = Callable[[str, bytes], None]


class Node:
    """Open a silo's files and run it."""

    def __init__(self, name: str, directory: str, config: Config, transmit: Transmit) -> None:
        self.name = name
        self.kind = kind_of(name)
        self.directory = Path(directory)
        self.config = config
        self.started_ns = clock_ns()
        self.history: HistoryStore | None = None
        self.hosts: Hosts | None = None
        self.hypervisors: HypervisorPort | None = None
        self.leases: LeasePort | None = None
        self._journal = self._open_journal()
        try:
            self.runner = SiloRunner(name, lambda wake: self._make_silo(transmit, wake))
        except BaseException:
            self._journal.close()
            raise

    def _open_journal(self) -> Journal:
        if self.kind == "telemetry":
            # Its truth is history.duckdb; the channels to other silos begin anew with each start.
            return MemoryJournal(record_types(self.kind), journal_id=secrets.token_hex(8))
        return DuckDbJournal.open(
            self.directory / f"{self.name}.duckdb",
            record_types(self.kind),
            journal_id=secrets.token_hex(8),
            now_ns=clock_ns,
        )

    def _make_silo(self, transmit: Transmit, wake: Callable[[], None]) -> Silo:
        silo = Silo(
            self.name,
            self._journal,
            cast_of(self.kind),
            self.config,
            clock_ns=clock_ns,
            transmit=transmit,
            wake=wake,
        )
        if self.kind == "host":
            self._equip_host_silo(silo)
        elif self.kind == "engine":
            silo.ports["runtime"] = RuntimePort(silo, self.restart_agent)
        elif self.kind == "telemetry":
            # SQL may read files of that one directory: not of this one, which holds journals and Ray's token.
            self.history = HistoryStore.open(
                self.directory / "history.duckdb", snapshot_directory=self.directory / SNAPSHOTS
            )
            silo.ports["history"] = HistoryPort(silo, self.history)
        return silo

    def _equip_host_silo(self, silo: Silo) -> None:
        hosts = self.hosts = Hosts(silo, self.config, self.directory)
        self.hypervisors = HypervisorPort(silo, hosts.open)
        self.hypervisors.make_ticket = lambda: secrets.token_urlsafe(TICKET_BYTES)[:TICKET_CHARS]
        self.leases = LeasePort(silo, self.hypervisors, hosts.lease_store, lambda _: hosts.scheduler)
        silo.ports["hypervisor"] = self.hypervisors
        silo.ports["leases"] = self.leases
        silo.ports["fence"] = FencePort(silo, hosts.fence_devices())

    def restart_agent(self, host: str, silo: str) -> bool:
        """Soft fence, from the engine's silo: have a host's agent forget what it holds in memory and begin again.

        Simulated hosts share the process of their silo, so it is the agent alone that is restarted, by a message that
        its roster gets: where the whole process hangs this changes nothing, and its runtime restarts one that died.
        True says that the message is on its way.
        """
        self.runner.silo.post(restart_order(host, silo))
        return True

    def start(self) -> None:
        self.runner.start()

    def stop(self) -> None:
        self.runner.stop()
        if self.leases is not None:
            self.leases.close()
        if self.hypervisors is not None:
            self.hypervisors.close()
        if self.hosts is not None:
            self.hosts.close()
        if self.history is not None:
            self.history.close()

    def receive(self, frame: bytes) -> None:
        self.runner.silo.receive(frame)

    # ------------------------------------------------------------------ what it tells

    def status(self) -> SiloStatus:
        silo = self.runner.silo
        position = silo.journal.position()
        note = self.runner.unwritable or (repr(self.runner.fault) if self.runner.fault else "")
        return SiloStatus(
            name=self.name,
            alive=self.runner.is_alive,
            pid=os.getpid(),
            actors=silo.actor_count(),
            queue_length=silo.queue_length,
            unacknowledged=silo.links.unacknowledged_count(),
            turns=silo.turn_count,
            commits=silo.commit_count,
            faults=silo.fault_count,
            journal_seq=position.seq,
            journal_rows=position.journal_rows,
            journal_bytes=position.file_bytes,
            started_ns=self.started_ns,
            rss_bytes=_rss_bytes(),
            note=note,
            counters=msgspec.structs.asdict(self.history.counters) if self.history is not None else {},
        )

    def query_history(self, ask: Sql, snapshots: dict[str, str], stop: Stop) -> QueryResult:
        assert self.history is not None, f"{self.name} keeps no history"
        return self.history.query(
            ask.sql,
            ask.params,
            snapshots,
            row_count_max=ask.row_count_max,
            timeout_s=ask.timeout_s,
            stop=stop,
        )

    def export_history(self, ask: ExportHistory, directory: Path, stop: Stop) -> Exported:
        assert self.history is not None, f"{self.name} keeps no history"
        return self.history.export(ask, directory, stop)

    def inject(self, host: str, fault: bytes) -> None:
        """Plant a fault (JSON of Fault) in a simulated host of this silo."""
        backend = self.hypervisors.backends.get(host) if self.hypervisors is not None else None
        if not isinstance(backend, SimulatedHypervisor):
            raise NotFound(f"host {host} is not a simulated host of silo {self.name}")
        try:
            planted = msgspec.json.decode(fault, type=Fault)
        except msgspec.DecodeError as error:
            raise BadInput(
                f"fault for host {host}: {error}; see simulated_faults.Fault for its fields"
            ) from error
        self.runner.silo.run_soon(lambda: backend.inject(planted))


def _rss_bytes() -> int:
    """Resident memory now, Linux; the peak elsewhere."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return pages * os.sysconf("SC_PAGE_SIZE")
