"""The demo tells its story on the local runtime, and its proof can fail."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from olvm.api.data_center import DataCenter
from olvm.cli.demo import run
from olvm.demo.plan import make_plan
from olvm.demo.proof import prove
from olvm.demo.replay import Ledger
from olvm.demo.tenants import Tenant
from olvm.model.errors import BadInput


def test_demo_told_locally_loses_nothing_and_leaves_its_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, 60, runtime="local", seconds=4) == 0
    said = capsys.readouterr().out
    assert "lost acknowledgements: 0 of" in said
    assert "machines not as expected: 0" in said
    assert "host kvm00" in said
    assert "no answer:" not in said  # each of the three queries got one
    assert (tmp_path / "engine.duckdb").exists()
    assert (tmp_path / "history.duckdb").exists()


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
    assert run(None, 5, runtime="local", seconds=1, discard=discard) == 0
    left = [str(path) for path in tmp_path.glob("olvm-demo-*")]
    assert len(left) == (0 if discard else 1)
    said = capsys.readouterr().out
    assert all(path in said for path in left)
    assert ("removed" in said) == discard
