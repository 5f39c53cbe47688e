"""One host silo with real agents and ports over simulated hosts and storage; a machine's actor only listens."""

from __future__ import annotations

from actors.assembly import host_cast
from actors.behaviour import Behaviour, TimedRecord, Turn
from actors.fence_port import FencePort
from actors.host_agent import HostAgent
from actors.hypervisor_port import HypervisorPort, OpenHost, at_once
from actors.lease_port import LeasePort
from actors.silo import Silo
from actors.silo_ports import Records
from actors.wire import Envelope
from hypervisor_backends.memory_fencing import MemoryFenceDevices
from hypervisor_backends.memory_leases import MemoryLeases, StorageFaults
from hypervisor_backends.protocol import HypervisorBackend
from hypervisor_backends.simulated import SimulatedHypervisor
from hypervisor_backends.simulated_config import SimulatedConfig, simulated_capabilities
from hypervisor_backends.simulated_fabric import MemoryFabric
from olvm.journal.memory_disk import MemoryDisk
from olvm.journal.memory_journal import MemoryJournal
from olvm.model import messages as m
from olvm.model.config import Config
from olvm.model.records import HOST_SILO_RECORDS, DomainRecord
from tests.builders import GIB
from tests.unit.hypervisor_backends.bench import VirtualScheduler

SILO = "host-1"
VM = f"vm/v1@{SILO}"
SIMULATED = SimulatedConfig(
    boot_time_s_min=2.0, boot_time_s_max=2.0, dirty_bytes_per_s_min=2e6, dirty_bytes_per_s_max=2e6
)
MEMORY_BYTES = 128 * 1024 * 1024
CONFIG = Config(sample_period_s=1e6)


class Listener:
    """Stands in for an engine's actors: hears what agents say to `address`."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.heard: list[m.AnyMessage] = []

    def timed_record(self) -> TimedRecord | None:
        return None

    def handle(self, message: m.AnyMessage, turn: Turn) -> None:
        self.heard.append(message)


class HostBench:
    """Hosts H1 and H2 with what runs on them; `restart` loses the process and keeps hosts and disk."""

    def __init__(self) -> None:
        self.time = VirtualScheduler()
        self.disk = MemoryDisk()
        self.storage_faults = StorageFaults()
        self.leases = MemoryLeases(self.time, self.storage_faults)
        self.fabric = MemoryFabric()
        self.hypervisors: dict[str, SimulatedHypervisor] = {}
        self.off: set[str] = set()
        self.vm = Listener("vm/v1")
        self.start()
        for host in ("H1", "H2"):
            self.say("agents", m.StartAgent(host, "prod", "simulated", {}, 8, 16 * GIB))
        self.run(1)

    def start(self) -> None:
        journal = MemoryJournal(HOST_SILO_RECORDS, journal_id="j", disk=self.disk)
        self.silo = Silo(
            SILO, journal, self._cast, CONFIG, clock_ns=self.time.now_ns, transmit=lambda _to, _frame: None
        )
        hypervisors = HypervisorPort(self.silo, at_once(self._open))
        self.lease_port = LeasePort(self.silo, hypervisors, self.leases.store, lambda _host: self.time)
        devices = MemoryFenceDevices(self._power, self._is_on, self.time)
        self.silo.ports = {
            "hypervisor": hypervisors,
            "leases": self.lease_port,
            "fence": FencePort(self.silo, devices),
        }

    def restart(self) -> None:
        self.lease_port.close()
        self.disk.power_off()
        self.start()

    def _cast(self, records: Records) -> list[Behaviour]:
        return [*host_cast(records), self.vm]

    def agents(self) -> list[HostAgent]:
        return [one for one in self.silo._behaviours.values() if isinstance(one, HostAgent)]

    def _open(self, request: OpenHost) -> HypervisorBackend:
        if request.host not in self.hypervisors:
            have = simulated_capabilities(cpus=request.cpus, memory_bytes=request.memory_bytes)
            seed = len(self.hypervisors)
            self.hypervisors[request.host] = SimulatedHypervisor(
                request.host, have, self.time, seed, SIMULATED, self.fabric
            )
        return self.hypervisors[request.host]

    def _power(self, host: str, on: bool) -> None:
        hypervisor = self.hypervisors[host]
        if on:
            self.off.discard(host)
            hypervisor.power_on()
        else:
            self.off.add(host)
            hypervisor.power_off()

    def _is_on(self, host: str) -> bool:
        return host not in self.off

    # ------------------------------------------------------------------ driving

    def say(self, to: str, message: m.AnyMessage) -> None:
        self.silo.post(Envelope(to, VM, "said", "", message))

    def run(self, seconds: float) -> None:
        end_ns = self.time.now_ns() + int(seconds * 1e9)
        while self.time.now_ns() < end_ns:
            while self._is_due():
                self.silo.run_batch()
            self.time.advance(min(0.1, (end_ns - self.time.now_ns()) / 1e9))

    def _is_due(self) -> bool:
        due_ns = self.silo.next_due_ns()
        return self.silo.has_work or (due_ns is not None and due_ns <= self.time.now_ns())

    # ------------------------------------------------------------------ what is so

    def started(self, *, leased: bool = True) -> None:
        """Machine v1 of epoch 3 runs on H1."""
        self.say("agent/H1", m.CreateDomain("v1", VM, 3, "web", 1, MEMORY_BYTES, leased=leased))
        self.run(5)

    def heard(self) -> list[tuple[str, int, str, int | None]]:
        """The reports: host, epoch, status and exit reason."""
        said = [one for one in self.vm.heard if isinstance(one, m.DomainReported)]
        return [(one.host, one.domain.epoch, one.domain.status.value, one.domain.exit_reason) for one in said]

    def runs(self) -> dict[str, str]:
        return {
            host: domain.status
            for host, hypervisor in self.hypervisors.items()
            for domain in hypervisor.domains()
        }

    def holders(self) -> list[str]:
        lease = self.leases.vm_lease("v1")
        return [] if lease is None else [holder.host for holder in lease.holders]

    def record(self, host: str) -> DomainRecord:
        journal = MemoryJournal(HOST_SILO_RECORDS, journal_id="reader", disk=self.disk)
        row = journal.recover().records[DomainRecord][f"{host}/v1"]
        assert isinstance(row, DomainRecord)
        return row
