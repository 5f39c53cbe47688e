"""kill -9 of silos under load: what was acknowledged happens, once, and every file agrees with its journal.

A driver thread creates, starts and stops machines with client request ids while the engine, the silo of one host
and the telemetry silo are killed at moments drawn from a printed seed.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from olvm import DataCenter
from olvm.journal.replay import verify
from olvm.model.errors import OlvmError
from tests.contracts.fault_driver import INSTANT

SEED = int(os.environ.get("OLVM_KILL_SEED", "20261123"))
KILLED = ("engine", "host-hot-own", "telemetry", "engine", "host-hot-own")
QUIET_WITHIN_S = 45.0
BACK_WITHIN_S = 30.0


class Driver(threading.Thread):
    """Creates, starts and stops machines one command after another; remembers what was acknowledged, in order."""

    def __init__(self, dc: DataCenter, seed: int) -> None:
        super().__init__(name="driver", daemon=True)
        self.dc = dc
        self.draw = random.Random(seed)
        self.ending = threading.Event()
        self.acknowledged: list[str] = []
        self.fault: BaseException | None = None
        self.names: list[str] = []

    def has_acknowledged(self, count: int) -> Callable[[], bool]:
        return lambda: len(self.acknowledged) >= count or self.fault is not None

    def run(self) -> None:
        try:
            for number in range(100_000):
                if self.ending.is_set():
                    return
                self._step(number)
        except BaseException as fault:
            self.fault = fault
            raise

    def _step(self, number: int) -> None:
        request = f"driver-{number}"
        if not self.names or self.draw.random() < 0.3:
            name = f"vm-{number}"
            accepted = self.dc.vms.create_later(
                name, vcpus=1, memory="1GiB", cluster="prod", client_request_id=request
            )
            self.names.append(name)
        else:
            vm = self.dc.vms[self.draw.choice(self.names)]
            verb = self.draw.choice([vm.start, vm.start, vm.stop])
            accepted = verb(client_request_id=request)
        self.acknowledged.append(accepted.id)


def poll(is_so: Callable[[], object], within_s: float, what: str) -> None:
    deadline = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < deadline, f"{what}: not within {within_s:g} s"
        time.sleep(0.05)


def pid_of(dc: DataCenter, silo: str) -> int:
    return next((one.pid for one in dc.status().silos if one.name == silo and one.alive), 0)


def kill(dc: DataCenter, silo: str) -> float:
    """SIGKILL its process; seconds until another one serves it."""
    pid = pid_of(dc, silo)
    assert pid not in (0, os.getpid())
    began = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    poll(lambda: pid_of(dc, silo) not in (0, pid), BACK_WITHIN_S, f"{silo} came back")
    return time.monotonic() - began


@pytest.mark.timeout(180)
def test_silos_killed_under_load_lose_nothing_acknowledged(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    draw = random.Random(SEED)
    with DataCenter.open(tmp_path, runtime="ray", host_silos=1, simulated=INSTANT) as dc:
        prod = dc.clusters.create("prod")
        prod.hosts.add("hot", cpus=64, memory="4TiB", dedicated=True)
        prod.hosts.add("cold", cpus=64, memory="4TiB")
        driver = Driver(dc, SEED)
        driver.start()
        for silo in KILLED:
            pause = draw.uniform(0.2, 1.5)
            count = len(driver.acknowledged) + 1 + int(20 * pause)
            poll(driver.has_acknowledged(count), 60, "the driver goes on")
            print(f"killed {silo} after {len(driver.acknowledged)} commands; back in {kill(dc, silo):.1f} s")
        driver.ending.set()
        driver.join(60)
        assert driver.fault is None
        _assert_quiet_and_whole(dc, driver)
        _assert_history_goes_on(dc, prod.vms)
    for path in [tmp_path / "engine.duckdb", *tmp_path.glob("host-*.duckdb")]:
        assert verify(path) == []


def _assert_quiet_and_whole(dc: DataCenter, driver: Driver) -> None:
    poll(
        lambda: dc.sql("select count(*) from operations where finished_ns is null").one() == 0,
        QUIET_WITHIN_S,
        "rest",
    )
    kept = {one.id: one for one in dc.operations.list(limit=100_000)}
    assert set(driver.acknowledged) <= set(kept)
    assert len(driver.acknowledged) == len(set(driver.acknowledged))
    assert all(one.status == "succeeded" or one.reason for one in kept.values())
    last_by_vm: dict[str, str] = {}
    for operation_id in driver.acknowledged:
        one = kept[operation_id]
        if one.status == "succeeded":
            last_by_vm[one.target_name] = one.kind
    for vm in dc.vms.list():
        wanted = "up" if last_by_vm[vm.name] == "start_vm" else "down"
        assert vm.status.value == wanted or vm.status_reason, (vm, last_by_vm[vm.name])
    assert dc.sql("select vm_id from reservations where vm_id not in (select id from vms)").rows() == []
    held = dc.sql("select vm_id, host from reservations order by vm_id").rows()
    running = dc.sql("select id, host from vms where host is not null order by id").rows()
    assert held == running
    seqs = [event["seq"] for event in dc.events()]
    assert seqs == list(range(1, len(seqs) + 1))
    assert dc.sql("select count(*) from events where code = 'turn_failed'").one() == 0
    assert [silo.note for silo in dc.status().silos if silo.note or not silo.alive] == []
    print(f"{len(kept)} operations, {len(last_by_vm)} machines, {len(seqs)} events")


def _assert_history_goes_on(dc: DataCenter, vms: object) -> None:
    """The events of the whole run are in history, those after the kill too, each once."""
    dc.vms.create("last", vcpus=1, memory="1GiB", cluster="prod")
    newest = max(event["seq"] for event in dc.events())

    def told() -> bool:
        with contextlib.suppress(OlvmError):
            return bool(dc.sql("select max(seq) from history.events").one() == newest)
        return False

    poll(told, 30, "history caught up")
    count, distinct = dc.sql("select count(*), count(distinct seq) from history.events").rows()[0]
    assert count == distinct == newest
