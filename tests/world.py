"""A small deterministic world: several silos over journals in memory, a virtual clock, a network that can fail.

It decides when things happen and what the network and the process table do to the silos; what the system then
makes of it is not its business. Faults come from a tape of small numbers on which 0 means "normal", so that
Hypothesis shrinks faults away. A crash drops the `Silo` object and every frame in flight from it or to it; the
disk and the hypervisor stay. Only `crash_host` loses what runs on a host.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from actors.assembly import cast_of, kind_of, record_types
from actors.hypervisor_port import HypervisorPort, OpenHost
from actors.silo import Records, Silo
from actors.wire import ENGINE_SILO, Envelope
from hypervisor_backends.protocol import HypervisorBackend
from hypervisor_backends.simulated import SimulatedHypervisor
from hypervisor_backends.simulated_config import simulated_capabilities, simulated_config_from
from olvm.journal.memory_disk import MemoryDisk
from olvm.journal.memory_journal import MemoryJournal
from olvm.journal.replay import verify
from olvm.model import messages as m
from olvm.model.config import Config
from olvm.model.errors import JournalUnwritable
from olvm.model.limits import NS_PER_S
from olvm.model.records import EventRecord, OperationRecord, ReservationRecord, VmRecord
from tests.builders import GIB

LATENCY_NS = NS_PER_S // 1000
STEPS_MAX = 400_000

# Times short enough that a test sees every deadline pass within a few virtual minutes.
QUICK = Config(
    heartbeat_period_s=3,
    report_period_s=6,
    sample_period_s=1e6,
    host_grace_s=20,
    host_connecting_after_s=8,
    host_init_timeout_s=20,
    failed_starts_expire_s=60,
    launch_timeout_s=15,
    boot_timeout_s=30,
    shutdown_timeout_s=20,
    stop_timeout_s=15,
    reboot_timeout_s=30,
    save_timeout_s=30,
    query_period_s=4,
    simulated={
        "boot_time_s_min": 2.0,
        "boot_time_s_max": 4.0,
        "shutdown_time_s_min": 1.0,
        "shutdown_time_s_max": 3.0,
        "call_timeout_s": 6.0,
    },
)


class Clock:
    """Virtual time, and what is due in it. Implements the hypervisors' `Scheduler`."""

    def __init__(self) -> None:
        self.time_ns = NS_PER_S
        self._heap: list[tuple[int, int, list[Callable[[], None]]]] = []
        self._count = 0

    def now_ns(self) -> int:
        return self.time_ns

    def call_at(self, due_ns: int, fn: Callable[[], None]) -> Callable[[], None]:
        self._count += 1
        entry = [fn]
        heapq.heappush(self._heap, (due_ns, self._count, entry))
        return entry.clear

    def next_due_ns(self) -> int | None:
        while self._heap and not self._heap[0][2]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def run_due(self) -> None:
        while (due_ns := self.next_due_ns()) is not None and due_ns <= self.time_ns:
            heapq.heappop(self._heap)[2][0]()


class Gateway:
    """What clients heard."""

    def __init__(self) -> None:
        self.replies: dict[str, m.AnyMessage] = {}
        self.events: list[EventRecord] = []

    def on_reply(self, address: str, message: m.AnyMessage) -> None:
        self.replies[address] = message

    def on_committed(self, saved: Records, events: list[EventRecord]) -> None:
        self.events += events

    def on_released(self) -> None:
        pass


class World:
    """`tape` feeds `_draw`: what befalls each frame and each batch, until it ends; then nothing fails any more."""

    def __init__(self, *, config: Config = QUICK, tape: Iterable[int] = ()) -> None:
        self.clock = Clock()
        self.config = config
        self.gateway = Gateway()
        self.silos: dict[str, Silo] = {}
        self.disks: dict[str, MemoryDisk] = {}
        self.hypervisors: dict[str, SimulatedHypervisor] = {}
        self.silo_by_host: dict[str, str] = {}
        self.cut: set[frozenset[str]] = set()
        # Called with (source, destination, frame); true: the frame is lost.
        self.loses: Callable[[str, str, bytes], bool] = lambda _source, _to, _frame: False
        self.check: Callable[[World], None] = check_safety
        self._tape: Iterator[int] = iter(tape)
        self._life_by_silo: dict[str, int] = {}
        self._wipe_count = 0
        self._read_at = (0, 0, 0)
        self._read: Records = {}
        self._client_count = 0
        self.start_silo(ENGINE_SILO)

    # ------------------------------------------------------------------ silos

    def start_silo(self, name: str) -> None:
        if name in self.silos:
            return
        kind = kind_of(name)
        disk = self.disks.setdefault(name, MemoryDisk())
        journal = MemoryJournal(record_types(kind), journal_id=f"{name}-{self._wipe_count}", disk=disk)
        life = self._life_by_silo[name] = self._life_by_silo.get(name, 0) + 1

        def transmit(to: str, frame: bytes) -> None:
            if self._life_by_silo[name] == life:
                self._carry(name, to, frame)

        silo = Silo(name, journal, cast_of(kind), self.config, clock_ns=self.clock.now_ns, transmit=transmit)
        if kind == "host":
            silo.ports["hypervisor"] = HypervisorPort(silo, self._open_hypervisor)
        if kind == "engine":
            silo.observer = self.gateway
        self.silos[name] = silo

    def crash(self, name: str, *, restart_after_s: float | None = 0.5) -> None:
        """Lose the process; what is not committed is gone, and the frames on the wire with it."""
        if self.silos.pop(name, None) is None:
            return
        self._life_by_silo[name] += 1
        self.disks[name].power_off()
        if restart_after_s is not None:
            self.after(restart_after_s, lambda: self.start_silo(name))

    def wipe(self, name: str) -> None:
        """The silo loses its disk and starts anew."""
        self.crash(name, restart_after_s=None)
        self._wipe_count += 1
        self.disks[name] = MemoryDisk()
        self.start_silo(name)

    def crash_host(self, host: str, *, restart_after_s: float | None = 5.0) -> None:
        """Power off a host: its agent and its machines are gone at once."""
        silo = self.silo_by_host[host]
        self.crash(silo, restart_after_s=None)
        self.hypervisors[host].power_off()
        if restart_after_s is not None:
            self.after(restart_after_s, lambda: self._power_on(host, silo))

    def _power_on(self, host: str, silo: str) -> None:
        self.hypervisors[host].power_on()
        self.start_silo(silo)

    def _open_hypervisor(self, request: OpenHost) -> HypervisorBackend:
        hypervisor = self.hypervisors.get(request.host)
        if hypervisor is None:
            capabilities = simulated_capabilities(cpus=request.cpus, memory_bytes=request.memory_bytes)
            settings = simulated_config_from({**self.config.simulated, **request.settings})
            hypervisor = SimulatedHypervisor(request.host, capabilities, self.clock, 7, settings)
            self.hypervisors[request.host] = hypervisor
        return hypervisor

    # ------------------------------------------------------------------ the network

    def _draw(self) -> int:
        return next(self._tape, 0)

    def _carry(self, source: str, to: str, frame: bytes) -> None:
        if frozenset((source, to)) in self.cut or self.loses(source, to, frame):
            return
        fate = self._draw() % 8
        if fate == 1:
            return
        lives = (self._life_by_silo[source], self._life_by_silo.get(to, 0))

        def deliver() -> None:
            if (self._life_by_silo[source], self._life_by_silo.get(to, 0)) == lives and to in self.silos:
                self.silos[to].receive(frame)

        late_ns = {3: 40, 4: 700, 5: 3_000}.get(fate, 0) * LATENCY_NS
        self.clock.call_at(self.clock.time_ns + LATENCY_NS + late_ns, deliver)
        if fate == 2:
            self.clock.call_at(self.clock.time_ns + 900 * LATENCY_NS, deliver)

    def partition(self, a: str, b: str, *, heal_after_s: float | None = None) -> None:
        pair = frozenset((a, b))
        self.cut.add(pair)
        if heal_after_s is not None:
            self.after(heal_after_s, lambda: self.cut.discard(pair))

    # ------------------------------------------------------------------ time

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        self.clock.call_at(self.clock.time_ns + int(seconds * NS_PER_S), action)

    @property
    def now_s(self) -> float:
        return self.clock.time_ns / NS_PER_S

    def _run_silos(self) -> bool:
        """One batch of each silo that has work now; a fault of the tape strikes before or after the commit."""
        ran = False
        for name in sorted(self.silos):
            silo = self.silos.get(name)
            if silo is None:
                continue
            due_ns = silo.next_due_ns()
            if not silo.has_work and (due_ns is None or due_ns > self.clock.time_ns):
                continue
            ran = True
            fate = self._draw()
            if fate in (251, 252):
                self.crash(name)  # before anything of the batch was committed
                continue
            try:
                silo.run_batch()
            except JournalUnwritable:
                silo.give_up_batch("the journal cannot be written")
            if fate in (253, 254, 255) and name in self.silos:
                self.crash(name)
            self.check(self)
        return ran

    def run_until(self, condition: Callable[[], bool], *, within_s: float = 120.0) -> bool:
        """Whether the condition came true in time."""
        end_ns = self.clock.time_ns + int(within_s * NS_PER_S)
        for _ in range(STEPS_MAX):
            if condition():
                return True
            if self._run_silos():
                continue
            dues = [silo.next_due_ns() for silo in self.silos.values()] + [self.clock.next_due_ns()]
            due_ns = min((due for due in dues if due is not None), default=end_ns)
            if due_ns > end_ns:
                self.clock.time_ns = end_ns
                return condition()
            self.clock.time_ns = max(self.clock.time_ns, due_ns)
            self.clock.run_due()
            self.check(self)
        raise AssertionError(f"time stands still at {self.now_s} s: a silo never runs out of work")

    def run(self, seconds: float) -> None:
        self.run_until(lambda: False, within_s=seconds)

    # ------------------------------------------------------------------ a client

    def ask(self, command: m.Command, request_id: str = "") -> str:
        """Submit without waiting; the name under which the answer will be known."""
        self._client_count += 1
        client = f"client/{self._client_count}"
        if ENGINE_SILO in self.silos:
            self.silos[ENGINE_SILO].post(
                Envelope("engine", client, client, "", m.Submit(command, request_id))
            )
        return client

    def submit(self, command: m.Command, request_id: str = "") -> str:
        """The id of the accepted operation."""
        client = self.ask(command, request_id)
        assert self.run_until(lambda: client in self.gateway.replies, within_s=5)
        reply = self.gateway.replies[client]
        assert isinstance(reply, m.OperationView), reply
        return reply.id

    def finish(self, command: m.Command, *, within_s: float = 120.0) -> OperationRecord:
        operation_id = self.submit(command)
        assert self.run_until(lambda: self.operation(operation_id).finished_ns is not None, within_s=within_s)
        return self.operation(operation_id)

    def build(self, *, hosts: int = 2, vms: int = 4, memory_bytes: int = 4 * GIB, **vm_fields: Any) -> None:
        """Cluster `prod`, hosts H1… each with a silo of its own, machines v1… of 1 GiB; without faults."""
        tape, self._tape = self._tape, iter(())
        done = [self.finish(m.CreateCluster("prod"))]
        for number in range(1, hosts + 1):
            name, silo = f"H{number}", f"host-{number}"
            self.silo_by_host[name] = silo
            self.start_silo(silo)
            done.append(self.finish(m.AddHost(name, "prod", 8, memory_bytes, silo=silo)))
        for number in range(1, vms + 1):
            silo = vm_fields.get("silo", "")
            if silo:
                self.start_silo(silo)
            done.append(self.finish(m.CreateVm(f"v{number}", "prod", 1, GIB, **vm_fields)))
        assert all(operation.status == "succeeded" for operation in done), done
        self._tape = tape

    # ------------------------------------------------------------------ what is so

    def rows(self, kind: type[Any]) -> dict[str, Any]:
        """The durable records, read from the engine's disk."""
        disk = self.disks[ENGINE_SILO]
        if self._read_at != (id(disk), disk.written_bytes, len(disk)):
            self._read_at = (id(disk), disk.written_bytes, len(disk))
            journal = MemoryJournal(record_types("engine"), journal_id="reader", disk=disk)
            self._read = journal.recover().records
        return dict(self._read[kind])

    def operation(self, operation_id: str) -> OperationRecord:
        row: OperationRecord = self.rows(OperationRecord)[operation_id]
        return row

    def vm(self, name: str) -> VmRecord:
        row: VmRecord = next(row for row in self.rows(VmRecord).values() if row.name == name)
        return row

    def status(self, name: str) -> str:
        return str(self.vm(name).status.value)

    def running(self) -> dict[str, list[tuple[str, str]]]:
        """By machine id: every (host, status) where a hypervisor holds a copy."""
        found: dict[str, list[tuple[str, str]]] = {}
        for host, hypervisor in sorted(self.hypervisors.items()):
            for domain in hypervisor.domains():
                found.setdefault(domain.vm_id, []).append((host, domain.status))
        return found

    def event_codes(self) -> list[str]:
        return [event.code for event in self.gateway.events]


# ---------------------------------------------------------------------- checkers: outside the system


def check_safety(world: World) -> None:
    """What must hold at every instant."""
    for vm_id, copies in world.running().items():
        assert len(copies) == 1, f"{world.now_s} s: machine {vm_id} runs {len(copies)} times: {copies}"
    for host, hypervisor in world.hypervisors.items():
        used = sum(domain.memory_bytes for domain in hypervisor.domains())
        total = hypervisor.capabilities.memory_bytes
        assert used <= total, f"{world.now_s} s: host {host} holds {used} of {total} bytes"


def check_settled(world: World) -> None:
    """What must hold once faults have stopped and time has passed."""
    open_ones = [row for row in world.rows(OperationRecord).values() if row.finished_ns is None]
    assert not open_ones, f"never ended: {open_ones}"
    for row in world.rows(OperationRecord).values():
        assert row.status == "succeeded" or (row.reason and row.error_code), f"failed without a reason: {row}"
    running = world.running()
    vms = world.rows(VmRecord)
    for vm_id, record in vms.items():
        copies = running.pop(vm_id, [])
        where, status = copies[0] if copies else (None, record.status.value)
        assert record.host == where, f"{record.name} is {record.status} on {record.host}, truly {copies}"
        assert record.status.value == status, f"{record.name} is {record.status}, truly {copies}"
        assert bool(copies) == (record.status.value not in ("down", "suspended")), (record, copies)
    assert not running, f"strays: {running}"
    held = {row.vm_id: row.host for row in world.rows(ReservationRecord).values()}
    assert held == {vm_id: row.host for vm_id, row in vms.items() if row.host is not None}
    assert all(silo.fault_count == 0 for silo in world.silos.values()), "a turn failed"


def check_replay(world: World) -> None:
    for name, silo in sorted(world.silos.items()):
        differences = verify(silo.journal)
        assert differences == [], f"journal of {name} and its tables differ: {differences}"
