"""What Ray gives a data center: processes of their own for silos, and nothing that other users can read.

One data center serves the file; what silos cost is printed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from olvm import DataCenter
from olvm.model.client_protocol import SiloStatus
from olvm.model.errors import JournalLocked
from tests.contracts.fault_driver import INSTANT

ROOT = Path(__file__).parents[2]
IN_FLIGHT = 1000
SECOND_PROCESS = """
import json, sys
from olvm import DataCenter
with DataCenter.connect(sys.argv[1]) as dc:
    view = dc.operations.wait(sys.argv[2], 30)
    started = dc.vms["web-1"].start().wait(30)
    print(json.dumps([view.status, started.status, dc.status().runtime, "ray" in sys.modules]))
"""


@pytest.fixture(scope="module")
def dc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DataCenter]:
    began = time.monotonic()
    with DataCenter.open(
        tmp_path_factory.mktemp("dc"), runtime="ray", vm_silos=2, host_silos=1, simulated=INSTANT
    ) as opened:
        print(f"open: {time.monotonic() - began:.1f} s")
        prod = opened.clusters.create("prod")
        for n in range(4):
            prod.hosts.add(f"kvm{n:02}", cpus=64, memory="4TiB")
        yield opened


def silos(dc: DataCenter) -> dict[str, SiloStatus]:
    return {silo.name: silo for silo in dc.status().silos}


def test_vm_silos_spread_machines_over_processes_and_one_table_lists_all(dc: DataCenter) -> None:
    names = [f"spread-{n}" for n in range(6)]
    with dc.pipelined():
        created = [dc.vms.create_later(name, vcpus=1, memory="1GiB", cluster="prod") for name in names]
        started = [dc.vms[name].start() for name in names]
    for operation in [*created, *started]:
        operation.wait(60)
    rows = dc.sql("select name, silo, status from vms where name like 'spread-%' order by name").rows()
    assert rows == [(name, f"vms-{n % 2 + 1}", "up") for n, name in enumerate(names)]
    running = silos(dc)
    assert len({running[name].pid for name in ("engine", "telemetry", "vms-1", "vms-2", "host-1")}) == 5
    for silo in running.values():
        print(f"{silo.name}: {silo.rss_bytes / 2**20:.0f} MiB, {silo.actors} actors")


def test_dedicated_machine_has_a_process_of_its_own_and_lives_as_any_other(dc: DataCenter) -> None:
    before = {silo.pid for silo in silos(dc).values()}
    began = time.monotonic()
    own = dc.vms.create("own", vcpus=1, memory="1GiB", cluster="prod", dedicated=True)
    took_s = time.monotonic() - began
    for command, status in ((own.start, "up"), (own.reboot, "up"), (own.stop, "down"), (own.start, "up")):
        command().wait(30)
        assert own.status == status
    silo = silos(dc)[own.record.silo]
    assert silo.alive
    assert silo.pid not in before
    print(f"dedicated silo: {took_s:.1f} s, {silo.rss_bytes / 2**20:.0f} MiB")


def test_files_are_the_owners_alone(dc: DataCenter) -> None:
    modes = {path.name: path.stat().st_mode & 0o777 for path in dc.directory.iterdir()}
    assert dc.directory.stat().st_mode & 0o777 == 0o700
    assert modes["ray_token"] == 0o600
    assert modes["engine.sock"] == 0o600


def test_second_process_joins_waits_and_commands_without_ray(dc: DataCenter) -> None:
    created = dc.vms.create_later("web-1", vcpus=1, memory="1GiB", cluster="prod")
    answer = subprocess.run(
        [sys.executable, "-c", SECOND_PROCESS, str(dc.directory), created.id],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert json.loads(answer.stdout) == ["succeeded", "succeeded", "ray", False]
    assert dc.vms.get("web-1").status == "up"


def test_thousand_starts_in_flight_all_end(dc: DataCenter) -> None:
    names = [f"many-{n:04}" for n in range(IN_FLIGHT)]
    began = time.monotonic()
    with dc.pipelined():
        created = [dc.vms.create_later(name, vcpus=1, memory="64MiB", cluster="prod") for name in names]
        started = [dc.vms[name].start() for name in names]
    dc.wait_all([*created, *started], 120)
    took_s = time.monotonic() - began
    ends = {operation.status for operation in started}
    print(
        f"{IN_FLIGHT} machines created and started: {took_s:.1f} s, {2 * IN_FLIGHT / took_s:.0f} operations/s"
    )
    assert ends == {"succeeded"}
    assert dc.sql("select count(*) from vms where name like 'many-%' and status = 'up'").one() == IN_FLIGHT


def test_second_engine_on_the_directory_is_refused_by_the_holders_pid(dc: DataCenter) -> None:
    holder = silos(dc)["engine"].pid
    for runtime in ("ray", "local"):
        with pytest.raises(JournalLocked, match=f"process {holder}"):
            DataCenter.open(dc.directory, runtime=runtime)
    assert silos(dc)["engine"].pid == holder


def test_reopened_data_center_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """The simulated hosts are restarted with it: what ran is reported down, what is highly available comes back."""
    with DataCenter.open(tmp_path, runtime="local", host_silos=1, simulated=INSTANT) as dc:
        prod = dc.clusters.create("prod")
        prod.hosts.add("kvm00", cpus=8, memory="64GiB")
        for name, available in (("plain", False), ("ha", True)):
            prod.vms.create(name, vcpus=1, memory="1GiB", high_availability=available).start().wait(30)
        last = max(event["seq"] for event in dc.events())
    with DataCenter.open(tmp_path, runtime="ray") as dc:
        events = dc.events(last, follow=True)
        seen: set[tuple[str, str]] = set()
        while not {("vm_crashed", "plain"), ("vm_up", "ha")} <= seen:
            event = next(events)
            seen.add((event["code"], event["vm_name"]))
        plain, ha = dc.vms.row("plain"), dc.vms.row("ha")
        assert (plain.status.value, plain.status_reason) == ("down", "host kvm00 was restarted")
        assert (ha.status.value, ha.host) == ("up", "kvm00")
        assert dc.status().engine_epoch == 2
        assert [event["seq"] for event in dc.events()] == list(range(1, 1 + len(list(dc.events()))))
