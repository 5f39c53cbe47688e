"""The demo tells its story on the local runtime, and its proofs can fail."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

import duckdb
import pytest

from olvm.api.data_center import DataCenter
from olvm.cli.demo import run
from olvm.demo.copies import prove_copies
from olvm.demo.plan import RACK_SIZE, make_plan
from olvm.demo.proof import prove
from olvm.demo.replay import Ledger
from olvm.demo.tenants import Tenant
from olvm.demo.trials import Trials
from olvm.model.errors import BadInput
from tests.contracts.fault_driver import INSTANT


def test_demo_told_locally_migrates_survives_a_lost_rack_and_loses_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, 600, runtime="local", seconds=8) == 0
    captured = capsys.readouterr()
    said, shown = captured.out, captured.err
    assert "lost acknowledgements: 0 of" in said
    assert "machines not as expected: 0" in said
    assert "on two hosts: 0; other than the engine says: 0" in said
    assert "host kvm00" in said
    assert "no answer:" not in said  # each of the three queries got one
    assert "with laboratory periods" in said
    assert "FAILED" not in said
    assert re.search(r"live migration of azure-\d+ \(\d+ GiB\) from kvm\d+ to kvm\d+: [\d.]+ s", said)
    assert re.search(r"maintenance of kvm\d+: [1-9]\d* machines left in", said)
    assert re.search(r"migrations: [1-9]\d* \(median [\d.]+ s, max [\d.]+ s\)", said)
    restarts = re.search(r"restarts: (\d+) of (\d+) \(median", said)
    assert restarts is not None
    assert restarts[1] == restarts[2] != "0"
    # Which machines the lost rack had, with leases and without, is a matter of timing.
    assert "    by lease: " in said or "    after fencing, priority " in said
    assert f"hosts of the rack: {RACK_SIZE} non_responsive" in shown
    assert "powered on by fencing, up after" in said
    assert (tmp_path / "engine.duckdb").exists()
    assert (tmp_path / "history.duckdb").exists()


def test_demo_without_trials_ends_after_the_crashes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, 60, runtime="local", seconds=4, trials=False) == 0
    said = capsys.readouterr().out
    assert "host kvm00" in said
    assert "Trials" not in said


def test_trials_of_a_fleet_without_its_rack_end_with_the_step_that_failed(tmp_path: Path) -> None:
    plan = make_plan(vm_count=1, seconds=1)
    with DataCenter.open(tmp_path, runtime="local") as dc:
        trials = Trials(dc, plan, "local")
        with trials:
            trials.join()
    assert trials.is_over
    assert trials.failed.startswith("loss of a rack: silo host-rack does not run")
    assert (trials.move, trials.drain) == (None, None)
    assert [line for line in trials.news if "left out" in line] == list(trials.news)


def test_demo_that_breaks_off_says_at_what_and_stops_the_data_center(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "telemetry.duckdb").mkdir()
    (tmp_path / "history.duckdb").mkdir()  # no file can be opened there
    with pytest.raises(Exception, match="history"):
        run(tmp_path, 5, runtime="local", seconds=1)
    said = capsys.readouterr().out
    assert "The story broke off at: opening the data center. The data center is stopped" in said
    duckdb.connect(str(tmp_path / "engine.duckdb")).close()  # nobody holds it


def test_copies_in_the_journals_of_hosts_are_held_against_each_other_and_the_engine(tmp_path: Path) -> None:
    with DataCenter.open(tmp_path, runtime="local", simulated=INSTANT) as dc:
        prod = dc.clusters.create("prod")
        prod.hosts.add("kvm00", cpus=8, memory="16GiB")
        vm = prod.vms.create("web", vcpus=1, memory="1GiB")
        vm.start().wait(30)
        prod.vms.create("idle", vcpus=1, memory="1GiB")
        epoch = vm.record.epoch
    proof = prove_copies(tmp_path)
    assert (proof.hosts_asked, proof.running, proof.twice, proof.otherwise) == (1, 1, [], [])

    with duckdb.connect(str(tmp_path / "engine.duckdb")) as engine:
        engine.execute("update vms set epoch = epoch + 1 where name = 'web'")
        engine.execute("update vms set status = 'up' where name = 'idle'")
    shown = f"web: ('kvm00', {epoch}) by its host, ('kvm00', {epoch + 1}) by the engine"
    assert prove_copies(tmp_path).otherwise == [shown, "idle: up by the engine, on no host"]

    shutil.copy(tmp_path / "host-1.duckdb", tmp_path / "host-2.duckdb")
    with duckdb.connect(str(tmp_path / "host-2.duckdb")) as other:
        other.execute("update domains set host = 'kvm01'")
    proof = prove_copies(tmp_path)
    assert (proof.hosts_asked, proof.twice) == (2, ["web on kvm00 and kvm01"])


def test_demo_in_a_directory_with_a_data_center_is_refused(tmp_path: Path) -> None:
    (tmp_path / "engine.duckdb").touch()
    with pytest.raises(BadInput, match="holds a data center already"):
        run(tmp_path, 10, runtime="local", seconds=1)


def test_proof_of_a_journal_that_says_otherwise_counts_every_difference(tmp_path: Path) -> None:
    plan = make_plan(vm_count=2, seconds=1)
    tenants = {vm.name: Tenant(vm=vm, state="running", exists=True) for vm in plan.vms}
    with DataCenter.open(tmp_path, runtime="local") as dc:
        dc.clusters.create("even")
        operation = dc.vms.create_later("azure-000000", cluster="even", vcpus=1, memory="1GiB").wait(30)
        ledger = Ledger(
            acknowledged={operation.id, "never-written"},
            ends={operation.id: "failed", "never-written": "succeeded"},
        )
        proof = prove(dc, ledger, tenants)
    assert proof.missing == ["never-written"]
    assert proof.ended_otherwise == [operation.id]
    assert proof.lost == 2
    assert proof.vms_otherwise == [
        "azure-000000: expected up, is down",
        "azure-000001: expected up, is none",
    ]


@pytest.mark.parametrize("discard", [False, True])
def test_demo_without_a_directory_leaves_its_files_unless_told_to_discard_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, discard: bool
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert run(None, 5, runtime="local", seconds=1, discard=discard, trials=False) == 0
    left = [str(path) for path in tmp_path.glob("olvm-demo-*")]
    assert len(left) == (0 if discard else 1)
    said = capsys.readouterr().out
    assert all(path in said for path in left)
    assert ("removed" in said) == discard
