"""The simulator's world with what stories and schedules of tests are told with: short names, a tape, quick timers.

It adds no behaviour. The tape is a row of small numbers on which 0 means "normal", so that Hypothesis shrinks faults
away: one number for each frame (lost, repeated, late) and one for each batch (a death before or after its commit).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from actors.assembly import record_types
from actors.silo_ports import Records
from actors.wire import ENGINE_SILO
from hypervisor_backends.simulated import SimulatedHypervisor
from olvm.journal.memory_disk import MemoryDisk
from olvm.journal.memory_journal import MemoryJournal
from olvm.journal.replay import verify
from olvm.model import messages as m
from olvm.model.config import Config
from olvm.model.records import OperationRecord, ReservationRecord, VmRecord
from sim.network import CLIENT, Link
from sim.plan import Shape
from sim.processes import Process
from sim.silo_disk import CrashPoint
from sim.world import World as SimulatedWorld
from tests.builders import GIB

MS = 1_000_000

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

# What befalls a frame, by its number on the tape: a delay for each copy that arrives.
FATES: dict[int, tuple[int, ...]] = {
    1: (),
    2: (0, 900 * MS),
    3: (40 * MS,),
    4: (700 * MS,),
    5: (3_000 * MS,),
}
DEATHS: dict[int, CrashPoint] = {
    251: "before_commit",
    252: "in_commit",
    253: "after_commit",
    254: "in_release",
    255: "after_commit",
}


class World(SimulatedWorld):
    """`check` is asked whenever a silo has run a batch."""

    def __init__(self, *, config: Config = QUICK, tape: Iterable[int] = ()) -> None:
        super().__init__(Shape(hosts=0, vms=0), seed=7, config=config)
        # Called with (source, destination, frame); true: the frame is lost.
        self.loses: Callable[[str, str, bytes], bool] = lambda _source, _to, _frame: False
        self.check: Callable[[World], None] = check_safety
        self._tape: Iterator[int] = iter(tape)
        self._is_building = False
        self._read_at = (0, 0)
        self._read: Records = {}
        self.network.fate = self._fate_of_frame
        self.processes.fate = self._fate_of_batch
        self.after_each_batch(lambda _silo: self.check(self))

    # ------------------------------------------------------------------ the tape

    def _fate_of_frame(self, link: Link, frame: bytes) -> tuple[int, ...] | None:
        if self.loses(link.source, link.to, frame):
            return ()
        if self._is_building or CLIENT in (link.source, link.to):
            return None
        return FATES.get(next(self._tape, 0) % 8)

    def _fate_of_batch(self, _: Process) -> CrashPoint | None:
        return None if self._is_building else DEATHS.get(next(self._tape, 0))

    def end_of_tape(self) -> None:
        """Nothing fails any more, and what was planted is taken back."""
        self._tape = iter(())
        for hypervisor in self.hypervisors.values():
            hypervisor.clear_faults()

    # ------------------------------------------------------------------ short names

    @property
    def hypervisors(self) -> dict[str, SimulatedHypervisor]:
        """Those that an agent has opened."""
        found = {name: host.hypervisor for name, host in sorted(self.hosts.by_name.items())}
        return {name: hypervisor for name, hypervisor in found.items() if hypervisor is not None}

    @property
    def silo_by_host(self) -> dict[str, str]:
        return {name: host.silo for name, host in self.hosts.by_name.items()}

    @property
    def disks(self) -> dict[str, MemoryDisk]:
        return dict(self.processes.disks)

    def start_silo(self, name: str) -> None:
        self.processes.start(name)

    def crash(self, name: str, *, restart_after_s: float | None = 0.5) -> None:
        self.faults.crash_silo(name, restart_after_s)

    def partition(self, a: str, b: str, *, heal_after_s: float | None = None) -> None:
        self.faults.cut(a, b, "both", heal_after_s)

    # ------------------------------------------------------------------ a client

    def submit(self, command: m.Command, request_id: str = "") -> str:
        """The id of the accepted operation."""
        call = self.ask(command, request_id)
        assert self.run_until(lambda: call.reply is not None, within_s=5), f"no answer to {command}"
        assert isinstance(call.reply, m.OperationView), call.reply
        return call.reply.id

    def finish(self, command: m.Command, *, within_s: float = 120.0) -> OperationRecord:
        operation_id = self.submit(command)
        assert self.run_until(lambda: operation_id in self.clients.ended, within_s=within_s)
        return self.operation(operation_id)

    def wait_for(self, operation_id: str, *, within_s: float = 120.0) -> bool:
        """Whether the operation has ended in time."""
        return self.run_until(lambda: operation_id in self.clients.ended, within_s=within_s)

    def build_small(
        self, *, hosts: int = 2, vms: int = 4, memory_bytes: int = 4 * GIB, **vm_fields: Any
    ) -> None:
        """Cluster `prod`, hosts H1… each with a silo of its own, machines v1… of 1 GiB, all down; without faults."""
        self._is_building = True
        done = [self.finish(m.CreateCluster("prod"))]
        for number in range(1, hosts + 1):
            host = self.add_host(number)
            done.append(self.finish(m.AddHost(host.name, "prod", 8, memory_bytes, silo=host.silo)))
        silo = vm_fields.get("silo", "")
        if silo:
            self.start_silo(silo)
        for number in range(1, vms + 1):
            done.append(self.finish(m.CreateVm(f"v{number}", "prod", 1, GIB, **vm_fields)))
        assert all(operation.status == "succeeded" for operation in done), done
        self._is_building = False

    # ------------------------------------------------------------------ what is so

    def rows(self, kind: type[Any], silo: str = ENGINE_SILO) -> dict[str, Any]:
        """As the world's; the engine's disk is read again only when something was written on it."""
        if silo != ENGINE_SILO:
            return super().rows(kind, silo)
        disk = self.processes.disk(silo)
        if self._read_at != (id(disk), disk.written_bytes):
            self._read_at = (id(disk), disk.written_bytes)
            reader = MemoryJournal(record_types("engine"), journal_id="reader", disk=disk)
            self._read = reader.recover().records
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
        return {
            vm_id: sorted((copy.host, status) for copy, status in copies.items())
            for vm_id, copies in self.truth.copies.items()
        }

    def event_codes(self) -> list[str]:
        return [event.code for event in self.clients.events]


# ---------------------------------------------------------------------- checkers: outside the system


def check_safety(world: World) -> None:
    """What must hold at every instant."""
    for vm_id, executing in world.truth.executing.items():
        assert len(executing) == 1, (
            f"{world.now_s} s: machine {vm_id} executes {len(executing)} times: {executing}"
        )
    for host, hypervisor in world.hypervisors.items():
        used, total = world.truth.footprint_bytes_by_host.get(host, 0), hypervisor.capabilities.memory_bytes
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
    assert all(process.silo.fault_count == 0 for process in world.processes.by_name.values()), "a turn failed"


def check_replay(world: World) -> None:
    for name, process in sorted(world.processes.by_name.items()):
        differences = verify(process.journal)
        assert differences == [], f"journal of {name} and its tables differ: {differences}"
