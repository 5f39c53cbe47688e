"""The telemetry silo of a local data center is lost for a while: what agents held comes after it, or is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.local_runtime import LocalRuntime
from olvm import DataCenter
from olvm.model.errors import NoCapacity
from tests.contracts.fault_driver import INSTANT, poll

REPORTS = (
    "select count(*), count(distinct seq), max(seq) - min(seq) + 1 from history.sample_reports"
    " where kind = 'host'"
)


def _lose_telemetry(dc: DataCenter, agent_samplings: int) -> None:
    """Until the host has sampled so many times without it."""
    runtime = dc._runtime
    assert isinstance(runtime, LocalRuntime)
    runtime.crash("telemetry")
    hypervisors = runtime._nodes["host-1"].hypervisors
    assert hypervisors is not None
    sampler = hypervisors._samplers["kvm00"]
    begun = sampler._seq
    poll(lambda: sampler._seq >= begun + agent_samplings)
    runtime.ensure("telemetry")


def _open(directory: Path, rows_max: int) -> DataCenter:
    return DataCenter.open(
        directory,
        runtime="local",
        host_silos=1,
        simulated=INSTANT,
        sample_period_s=0.1,
        history_flush_period_s=0.2,
        samples_buffered_rows_max=rows_max,
    )


def _count(dc: DataCenter) -> int:
    return int(dc.sql("select count(*) from history.sample_reports where kind = 'host'").one())


def test_samples_of_the_time_without_telemetry_come_after_it_once(tmp_path: Path) -> None:
    with _open(tmp_path, 50_000) as dc:
        dc.clusters.create("prod").hosts.add("kvm00", cpus=8, memory="16GiB")
        poll(lambda: _count(dc) > 3)
        before = _count(dc)
        _lose_telemetry(dc, 80)  # more than may be on their way at once
        poll(lambda: _count(dc) > before + 80)
        ((count, distinct, span),) = dc.sql(REPORTS).rows()
        assert count == distinct == span
        assert dc.sql("select count(*) from history.sample_losses").one() == 0


def test_samples_that_found_no_room_are_counted_in_history(tmp_path: Path) -> None:
    with _open(tmp_path, 10) as dc:
        dc.clusters.create("prod").hosts.add("kvm00", cpus=8, memory="16GiB")
        poll(lambda: _count(dc) > 3)
        _lose_telemetry(dc, 40)
        # Told in one piece or in more, by when the agent hears that there is somebody again.
        poll(lambda: dc.sql("select coalesce(sum(samples), 0) from history.sample_losses").one() >= 30)
        span = "min(lost_from) < max(lost_until)"
        losses = f"select host_name, dropped_by, {span} from history.sample_losses group by 1, 2"
        assert dc.sql(losses).rows() == [("kvm00", "agent", True)]


ENGINE = "select id, kind, target_name, status, reason, created_ns, finished_ns from operations order by id"
HISTORY = (
    "select operation_id, kind, target_name, status, coalesce(reason, ''), epoch_us(created_at), epoch_us(finished_at)"
    " from history.operations order by 1"
)


def _operations(dc: DataCenter) -> list[tuple[object, ...]]:
    return [(*row[:5], row[5] // 1000, row[6] // 1000) for row in dc.sql(ENGINE).rows()]


def test_operations_reach_history_once_whichever_silo_is_lost(tmp_path: Path) -> None:
    def agree(dc: DataCenter, count_min: int) -> None:
        poll(lambda: dc.sql(HISTORY).rows() == _operations(dc))
        assert len(_operations(dc)) >= count_min

    with _open(tmp_path, 50_000) as dc:
        prod = dc.clusters.create("prod")
        prod.hosts.add("kvm00", cpus=8, memory="16GiB")
        prod.vms.create("web", vcpus=1, memory="1GiB").start().wait(30)
        runtime = dc._runtime
        assert isinstance(runtime, LocalRuntime)
        agree(dc, 4)
        runtime.crash("telemetry")
        dc.vms["web"].stop().wait(30)
        runtime.ensure("telemetry")
        agree(dc, 5)
    with _open(tmp_path, 50_000) as dc:
        agree(dc, 5)
        assert {row[3] for row in dc.sql(HISTORY).rows()} == {"succeeded"}
        with pytest.raises(NoCapacity):
            dc.clusters.get("prod").vms.create("big", vcpus=64, memory="1GiB").start().wait(30)
        agree(dc, 7)
        ((reason,),) = dc.sql("select reason from history.operations where status = 'failed'").rows()
        assert "big" in reason
