"""The file that processes of simulated hosts share: many at once, killed ones, stuck ones, power and mail."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec
import pytest

from hypervisor_backends.fencing import FenceAction, FenceAnswer, FenceDevices
from hypervisor_backends.leases import (
    HostLease,
    LeaseFailed,
    LeaseRead,
    LeaseResult,
    ReadHostLease,
    ReadLease,
    RenewHostLease,
)
from hypervisor_backends.shared_plant import SharedPlant
from hypervisor_backends.snapshot_store import TakenSnapshot
from olvm.model.errors import Conflict, JournalCorrupt, NotSupportedYet
from olvm.model.hardware import Hardware
from olvm.model.limits import PLANT_MAIL_PER_HOST_MAX
from tests.unit.hypervisor_backends.bench import GIB, VirtualScheduler

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = "tests.unit.hypervisor_backends.plant_process"
RENEWAL = RenewHostLease(host="a", boot_id="b1")
SNAPSHOT = TakenSnapshot(
    name="s1", created_ns=7, with_memory=False, disks=("vda",), vcpus=2, memory_bytes=GIB, hardware=Hardware()
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "plant.sqlite"


@pytest.fixture
def open_plant(path: Path) -> Iterator[Callable[[], SharedPlant]]:
    plants: list[SharedPlant] = []

    def open_one() -> SharedPlant:
        plants.append(SharedPlant(path))
        return plants[-1]

    yield open_one
    for plant in plants:
        plant.close()


@contextmanager
def process(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", PROGRAM, *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as running:
        try:
            yield running
        finally:
            running.kill()


def line(running: subprocess.Popen[str]) -> str:
    assert running.stdout is not None
    return running.stdout.readline().strip()


def renew(plant: SharedPlant) -> LeaseResult:
    results: list[LeaseResult] = []
    plant.lease_store("a").submit(RENEWAL, results.append)
    return results[0]


def fence(devices: FenceDevices, action: FenceAction, host: str = "h1") -> FenceAnswer:
    answers: list[FenceAnswer] = []
    devices.submit({"type": "simulated"}, host, action, answers.append)
    return answers[0]


# ---------------------------------------------------------------- the file


def test_processes_that_swap_one_lease_at_once_lose_no_swap(
    path: Path, open_plant: Callable[[], SharedPlant]
) -> None:
    with process("take", str(path), "a", "100") as a, process("take", str(path), "b", "100") as b:
        assert [line(a), line(b)] == ["100", "100"]
    results: list[LeaseResult] = []
    open_plant().lease_store("c").submit(ReadLease(vm_id="v1"), results.append)

    assert isinstance(results[0], LeaseRead)
    assert results[0].vm is not None
    assert (results[0].vm.version, results[0].vm.epoch) == (200, 200)


def test_killed_process_loses_no_answered_renewal_and_leaves_no_lock(
    path: Path, open_plant: Callable[[], SharedPlant]
) -> None:
    with process("burst", str(path), "a") as writer:
        told = [int(line(writer)) for _ in range(50)][-1]
        writer.kill()
    results: list[LeaseResult] = []
    plant = open_plant()
    plant.lease_store("a").submit(ReadHostLease(host="a"), results.append)

    assert isinstance(results[0], LeaseRead)
    assert results[0].hosts[0].counter >= told
    assert isinstance(renew(plant), HostLease)


def test_process_stuck_in_a_change_makes_changes_unreachable_and_readings_go_on(
    path: Path, open_plant: Callable[[], SharedPlant]
) -> None:
    plant = open_plant()
    renew(plant)
    with process("stuck", str(path)) as stuck:
        assert line(stuck) == "in"
        refused = renew(plant)
        assert isinstance(refused, LeaseFailed)
        assert refused.code == "unreachable"
        assert "did not serve host a" in refused.message
        results: list[LeaseResult] = []
        plant.lease_store("a").submit(ReadHostLease(host="a"), results.append)
        assert isinstance(results[0], LeaseRead)
        assert not fence(plant.fence_devices(), "off").ok
        with pytest.raises(Conflict, match="cannot be plugged in"):
            plant.power("h1").plug_in(VirtualScheduler(), lambda on: None)
        with pytest.raises(OSError, match="shared plant"):
            plant.snapshots().keep("v1", (SNAPSHOT,))
        assert plant.snapshots().of("v1") == ()
    assert renew(plant) == HostLease(host="a", boot_id="b1", counter=2)


def test_snapshots_are_those_that_any_process_kept_last(open_plant: Callable[[], SharedPlant]) -> None:
    one, other = open_plant().snapshots(), open_plant().snapshots()
    later = msgspec.structs.replace(SNAPSHOT, name="s2", with_memory=True)
    one.keep("v1", (SNAPSHOT, later))
    one.keep("v2", (SNAPSHOT,))
    assert other.of("v1") == (SNAPSHOT, later)
    other.keep("v1", ())
    assert (one.of("v1"), one.of("v2"), one.of("v3")) == ((), (SNAPSHOT,), ())


def test_closed_plant_is_unreachable(path: Path) -> None:
    plant = SharedPlant(path)
    plant.close()
    refused = renew(plant)
    assert isinstance(refused, LeaseFailed)


def test_file_of_a_newer_olvm_is_refused(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("pragma user_version = 99")
    with pytest.raises(NotSupportedYet, match="has schema 99 and this olvm knows 1; use a newer olvm"):
        SharedPlant(path)


def test_file_that_is_no_database_is_refused(path: Path) -> None:
    path.write_bytes(b"not a database, and longer than the header of one" * 100)
    with pytest.raises(JournalCorrupt, match=r"plant.sqlite is not readable"):
        SharedPlant(path)


def test_directory_that_is_missing_is_refused(path: Path) -> None:
    with pytest.raises(Conflict, match="cannot be opened"):
        SharedPlant(path / "missing")


# ---------------------------------------------------------------- power


def test_off_is_not_proven_before_the_host_obeyed(open_plant: Callable[[], SharedPlant]) -> None:
    scheduler, heard = VirtualScheduler(), list[bool]()
    plant, devices = open_plant(), open_plant().fence_devices()
    socket = plant.power("h1")
    socket.plug_in(scheduler, heard.append)
    assert fence(devices, "off").ok
    assert fence(devices, "status").power == "on"
    scheduler.advance(1)

    assert heard == [True, False]
    assert not socket.is_on()
    assert fence(devices, "status").power == "off"
    socket.unplug()


def test_off_and_on_within_one_period_is_a_power_cycle(open_plant: Callable[[], SharedPlant]) -> None:
    scheduler, heard = VirtualScheduler(), list[bool]()
    devices = open_plant().fence_devices()
    socket = open_plant().power("h1")
    socket.plug_in(scheduler, heard.append)
    scheduler.advance(1)
    fence(devices, "off")
    fence(devices, "on")
    scheduler.advance(1)

    assert heard == [True, False, True]
    assert fence(devices, "status").power == "on"
    socket.unplug()


def test_killed_process_proves_off_what_it_never_obeyed(
    path: Path, open_plant: Callable[[], SharedPlant]
) -> None:
    devices = open_plant().fence_devices()
    with process("host", str(path), "h1") as running:
        assert line(running) == "on"
        fence(devices, "off")
        assert fence(devices, "status").power == "on"
        running.kill()
        running.wait()
    assert fence(devices, "status").power == "off"


def test_host_that_is_plugged_in_while_ordered_off_obeys_that_first(
    open_plant: Callable[[], SharedPlant],
) -> None:
    fence(open_plant().fence_devices(), "off")
    heard: list[bool] = []
    socket = open_plant().power("h1")
    socket.plug_in(VirtualScheduler(), heard.append)
    assert heard == [False]
    socket.unplug()


def test_second_process_for_one_host_is_refused_until_the_first_unplugs(
    open_plant: Callable[[], SharedPlant],
) -> None:
    first, second = open_plant().power("h/1 ü"), open_plant().power("h/1 ü")
    first.plug_in(VirtualScheduler(), lambda on: None)
    with pytest.raises(Conflict, match="runs in another process already"):
        second.plug_in(VirtualScheduler(), lambda on: None)
    first.unplug()
    first.unplug()
    second.plug_in(VirtualScheduler(), lambda on: None)
    second.unplug()


def test_unplugged_host_hears_nothing_and_nothing_is_polled(open_plant: Callable[[], SharedPlant]) -> None:
    scheduler, heard = VirtualScheduler(), list[bool]()
    socket = open_plant().power("h1")
    socket.plug_in(scheduler, heard.append)
    socket.unplug()
    fence(open_plant().fence_devices(), "off")
    scheduler.advance(10)

    assert heard == [True]
    assert scheduler.waiting_count == 0


# ---------------------------------------------------------------- the wire


def test_mail_crosses_from_one_plant_to_another_once_and_in_order(
    open_plant: Callable[[], SharedPlant],
) -> None:
    scheduler, heard = VirtualScheduler(), list[tuple[str, bytes]]()
    here, there = open_plant().fabric(scheduler), open_plant().fabric(scheduler)
    there.attach("b", lambda source, data: heard.append((source, data)))
    for number in range(3):
        here.send("a", "b", bytes([number]))
    scheduler.advance(1)
    assert heard == [("a", b"\0"), ("a", b"\1"), ("a", b"\2")]
    scheduler.advance(10)
    assert len(heard) == 3
    there.detach("b")


def test_mail_between_hosts_of_one_plant_may_be_answered_from_the_callback(
    open_plant: Callable[[], SharedPlant],
) -> None:
    scheduler, heard = VirtualScheduler(), list[bytes]()
    fabric = open_plant().fabric(scheduler)
    fabric.attach("a", lambda source, data: heard.append(data))
    fabric.attach("b", lambda source, data: fabric.send("b", source, data + b"!"))
    fabric.send("a", "b", b"ping")
    scheduler.advance(1)
    assert heard == [b"ping!"]
    fabric.detach("a")
    fabric.detach("b")


def test_mail_for_nobody_or_for_an_earlier_boot_is_lost(open_plant: Callable[[], SharedPlant]) -> None:
    scheduler, heard = VirtualScheduler(), list[bytes]()
    here, there = open_plant().fabric(scheduler), open_plant().fabric(scheduler)
    here.send("a", "b", b"too early")
    there.attach("b", lambda source, data: heard.append(data))
    here.send("a", "b", b"for the old boot")
    there.attach("b", lambda source, data: heard.append(data))
    here.send("a", "b", b"for the new boot")
    scheduler.advance(1)
    assert heard == [b"for the new boot"]
    there.detach("b")
    here.send("a", "b", b"too late")
    scheduler.advance(1)
    assert heard == [b"for the new boot"]
    assert scheduler.waiting_count == 0


def test_mailbox_that_nobody_empties_has_a_bound(open_plant: Callable[[], SharedPlant], path: Path) -> None:
    scheduler = VirtualScheduler()
    here, there = open_plant().fabric(scheduler), open_plant().fabric(scheduler)
    there.attach("b", lambda source, data: None)
    with closing(sqlite3.connect(path)) as database, database:
        rows = [("b", b"")] * (PLANT_MAIL_PER_HOST_MAX - 1)
        database.executemany("insert into mail (host, data) values (?, ?)", rows)
    here.send("a", "b", b"the last that fits")
    here.send("a", "b", b"lost")
    with closing(sqlite3.connect(path)) as database:
        count = database.execute("select count(*) from mail").fetchone()[0]
    assert count == PLANT_MAIL_PER_HOST_MAX
    there.detach("b")
