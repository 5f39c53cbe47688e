"""What the world and the user do wrong to a data center: full disks, kills, interrupts, damaged files.

Rule of every test: what was acknowledged is there afterwards and has ended, and what was refused left no trace.
The runtime is `local`, in a process of its own where that process must suffer.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from olvm import DataCenter
from olvm.journal.replay import verify
from olvm.model.errors import JournalCorrupt, JournalError, JournalLocked, JournalUnwritable
from tests.contracts.fault_driver import lab

DRIVER = Path(__file__).with_name("fault_driver.py")
ROOT = DRIVER.parents[2]
PROCESS_TIMEOUT_S = 90
ACKNOWLEDGED_BEFORE_KILL = 150


@contextlib.contextmanager
def start_driver(mode: str, directory: Path) -> Iterator[subprocess.Popen[str]]:
    """The driver's process; it does not outlive the block."""
    with subprocess.Popen(
        [sys.executable, str(DRIVER), mode, str(directory)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as driver:
        try:
            yield driver
        finally:
            driver.kill()


def outcome(mode: str, directory: Path) -> dict[str, object]:
    """Run the driver to its end; the JSON that it printed."""
    with start_driver(mode, directory) as driver:
        told, complaints = driver.communicate(timeout=PROCESS_TIMEOUT_S)
    assert driver.returncode == 0, complaints
    answer: dict[str, object] = json.loads(told)
    return answer


def assert_all_ended(dc: DataCenter, operation_ids: list[str]) -> None:
    """Every acknowledged operation is there with an end, and with a reason where it failed."""
    kept = {one.id: one for one in dc.operations.list(limit=100_000)}
    missing = set(operation_ids) - set(kept)
    assert not missing, f"{len(missing)} acknowledged operations are gone"
    for one in operation_ids:
        assert kept[one].finished_ns is not None, kept[one]
        assert kept[one].status == "succeeded" or kept[one].reason, kept[one]


def assert_files_agree(directory: Path) -> None:
    for path in sorted([directory / "engine.duckdb", *directory.glob("host-*.duckdb")]):
        assert verify(path) == []


# ------------------------------------------------------------------ disks


def test_full_disk_refuses_with_a_reason_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    told = outcome("full", tmp_path / "dc")
    refusals, notes, ids, vms = told["refusals"], told["notes"], told["ids"], told["vms"]
    assert isinstance(refusals, list)
    assert isinstance(notes, list)
    assert isinstance(ids, list)
    assert isinstance(vms, dict)
    assert all(one.startswith("journal_unwritable: ") and "free space" in one for one in refusals)
    assert any("cannot be written" in one for one in notes)
    assert vms["after"] == ["up", ""]
    assert_files_agree(tmp_path / "dc")
    with lab(tmp_path / "dc") as dc:
        assert_all_ended(dc, ids)
        assert {one.name for one in dc.vms.list()} == set(vms)


def test_guest_that_comes_up_while_its_host_cannot_write_is_up_afterwards(tmp_path: Path) -> None:
    assert outcome("boot", tmp_path / "dc") == {"status": "down", "started": "succeeded"}
    assert_files_agree(tmp_path / "dc")


@pytest.mark.parametrize("runtime", ["local", "ray"])
def test_directory_that_cannot_be_made_is_refused_in_one_line(tmp_path: Path, runtime: str) -> None:
    (tmp_path / "file").write_text("not a directory")
    for directory in (tmp_path / "file", tmp_path / "file" / "dc", Path("/proc/olvm-dc")):
        with pytest.raises(JournalUnwritable) as refusal:
            DataCenter.open(directory, runtime=runtime)  # type: ignore[arg-type]
        assert str(directory) in refusal.value.message
        assert "\n" not in refusal.value.message
    assert (tmp_path / "file").read_text() == "not a directory"


@pytest.mark.parametrize("runtime", ["local", "ray"])
def test_corrupt_journal_is_refused_and_left_as_it_was(tmp_path: Path, runtime: str) -> None:
    damaged = b"this is no database" * 1000
    (tmp_path / "engine.duckdb").write_bytes(damaged)
    with pytest.raises(JournalCorrupt, match=r"engine\.duckdb"):
        DataCenter.open(tmp_path, runtime=runtime)  # type: ignore[arg-type]
    assert (tmp_path / "engine.duckdb").read_bytes() == damaged
    assert not (tmp_path / "engine.duckdb.wal").exists()


@pytest.mark.parametrize("runtime", ["local", "ray"])
def test_journal_of_a_newer_release_is_refused_by_version_and_left_as_it_was(
    tmp_path: Path, runtime: str
) -> None:
    with lab(tmp_path) as dc:
        dc.clusters.create("prod")
    with duckdb.connect(str(tmp_path / "engine.duckdb")) as con:
        con.execute("update meta set value = '999' where key = 'schema_version'")
    before = (tmp_path / "engine.duckdb").read_bytes()
    with pytest.raises(JournalError, match=r"schema version 999.*knows versions up to \d+"):
        DataCenter.open(tmp_path, runtime=runtime)  # type: ignore[arg-type]
    assert (tmp_path / "engine.duckdb").read_bytes() == before


def test_corrupt_history_is_refused_and_lets_go_of_the_engine(tmp_path: Path) -> None:
    with lab(tmp_path) as dc:
        dc.clusters.create("prod")
    history = (tmp_path / "history.duckdb").read_bytes()
    (tmp_path / "history.duckdb").write_bytes(b"x" * 10_000)
    with pytest.raises(JournalError, match=r"history\.duckdb"):
        lab(tmp_path)
    (tmp_path / "history.duckdb").write_bytes(history)
    with lab(tmp_path) as dc:
        assert [one.name for one in dc.clusters.list()] == ["prod"]


# ------------------------------------------------------------------ processes


def test_process_killed_in_a_burst_loses_no_acknowledged_operation(tmp_path: Path) -> None:
    with start_driver("burst", tmp_path / "dc") as driver:
        assert driver.stdout is not None
        told = [driver.stdout.readline().strip() for _ in range(ACKNOWLEDGED_BEFORE_KILL)]
        driver.kill()
        told += driver.stdout.read().split("\n")[:-1]  # what follows the last line break was cut off
    with lab(tmp_path / "dc") as dc:
        for one in dc.operations.list("", limit=100_000):
            if one.finished_ns is None:
                dc.wait_all([dc.operations.follow(one.id)], 60)
        assert_all_ended(dc, told)
        for vm in dc.vms.list():
            assert vm.status.value in ("up", "down"), vm
        reserved = dc.sql("select vm_id from reservations").rows()
        running = dc.sql("select id from vms where status = 'up'").rows()
        assert sorted(reserved) == sorted(running)
        seqs = [event["seq"] for event in dc.events()]
        assert seqs == list(range(1, len(seqs) + 1))
    assert_files_agree(tmp_path / "dc")


def test_interrupted_driver_closes_in_order_and_what_it_waited_for_goes_on(tmp_path: Path) -> None:
    directory = tmp_path / "dc"
    with start_driver("interrupt", directory) as driver:
        assert driver.stdout is not None
        started = driver.stdout.readline().strip()
        driver.send_signal(signal.SIGINT)
        _, complaints = driver.communicate(timeout=PROCESS_TIMEOUT_S)
    assert driver.returncode == -signal.SIGINT, complaints
    assert complaints.rstrip().endswith("KeyboardInterrupt")
    assert complaints.count("Traceback") == 1, complaints
    assert not list(directory.glob("*.sock"))
    assert_files_agree(directory)
    with lab(directory) as dc:
        view = dc.operations.row(started)
        assert view.status in ("running", "succeeded", "failed")
        assert dc.vms.get("slow").record.operation_id in (started, None)


def test_second_engine_on_a_directory_is_refused_by_the_holders_pid(tmp_path: Path) -> None:
    with lab(tmp_path) as dc, pytest.raises(JournalLocked, match=str(os.getpid())):
        lab(tmp_path, time_scale=7.0)
    with start_driver("interrupt", tmp_path / "other") as driver:
        assert driver.stdout is not None
        driver.stdout.readline()
        config = (tmp_path / "other" / "config.json").read_bytes()
        for runtime in ("local", "ray"):
            with pytest.raises(JournalLocked, match=f"process {driver.pid}"):
                DataCenter.open(tmp_path / "other", runtime=runtime, heartbeat_period_s=9.0)
        assert (tmp_path / "other" / "config.json").read_bytes() == config, "a refused open changed it"
        with DataCenter.connect(tmp_path / "other") as dc:
            assert dc.status().silos[0].pid == driver.pid
