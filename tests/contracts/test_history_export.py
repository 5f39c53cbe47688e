"""`olvm history export` against a running data center: what stands under the name is whole, or nothing does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from olvm import DataCenter
from olvm.model.errors import BadInput, Conflict
from tests.contracts.fault_driver import INSTANT, poll

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def dc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DataCenter]:
    with DataCenter.open(
        tmp_path_factory.mktemp("dc"), runtime="local", host_silos=1, simulated=INSTANT, sample_period_s=0.2
    ) as opened:
        prod = opened.clusters.create("prod")
        prod.hosts.add("kvm00", cpus=8, memory="16GiB")
        prod.vms.create("web-1", vcpus=1, memory="1GiB").start().wait(30)
        poll(lambda: opened.sql("select count(*) from history.events where code = 'vm_up'").one() == 1)
        yield opened


def olvm(dc: DataCenter, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "olvm.cli", "history", "export", *arguments, "-d", str(dc.directory)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_copy_by_the_command_line_is_a_file_or_a_directory_that_duckdb_opens(
    dc: DataCenter, tmp_path: Path
) -> None:
    for kind, name in (("duckdb", "h.duckdb"), ("parquet", "h")):
        with olvm(
            dc, "--format", kind, "--out", str(tmp_path / name), "--from", "1h", "-o", "jsonl"
        ) as process:
            told, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
        assert '{"table":"events","rows":' in told
    with duckdb.connect(str(tmp_path / "h.duckdb"), read_only=True) as con:
        assert con.execute("select count(*) from events where code = 'vm_up'").fetchall() == [(1,)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["h", "h.duckdb"]
    poll(lambda: not any((dc.directory / "snapshots").iterdir()))


def test_copy_to_a_place_that_is_taken_or_of_no_time_is_refused(dc: DataCenter, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.write_text("mine")
    with pytest.raises(Conflict, match="is there already"):
        dc.history.export(taken)
    with pytest.raises(BadInput, match="no directory"):
        dc.history.export(tmp_path / "no" / "such.duckdb")
    with pytest.raises(BadInput, match="ends before it begins"):
        dc.history.export(tmp_path / "h.duckdb", start_ns=2, end_ns=1)
    assert taken.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [taken]


def test_killed_export_leaves_nothing_that_looks_whole(dc: DataCenter, tmp_path: Path) -> None:
    """Killed at moments spread over its life; what stands under the name afterwards opens and is complete."""
    out = tmp_path / "h.duckdb"
    for delay_s in (0.2, 0.3, 0.4, 0.5, 0.6):
        with olvm(dc, "--out", str(out)) as process:
            time.sleep(delay_s)
            os.kill(process.pid, signal.SIGKILL)
        if out.exists():
            with duckdb.connect(str(out), read_only=True) as con:
                assert con.execute("select count(*) from events where code = 'vm_up'").fetchall() == [(1,)]
            out.unlink()
    poll(lambda: not any((dc.directory / "snapshots").iterdir()))
    dc.history.export(out)
    assert out.exists()
