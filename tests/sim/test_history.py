"""History in a world whose telemetry silo dies: every sampling is in it once, and hours are a function of samples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from actors.history_port import HistoryPort
from actors.sample_spool import REPORTS_IN_FLIGHT_MAX
from olvm.history import store as store_module
from olvm.history.store import HistoryStore
from olvm.journal.port import Batch
from olvm.model import messages as m
from olvm.model.config import Config
from olvm.model.records import EventRecord
from sim.plan import Knobs, Shape
from sim.processes import Process
from sim.world import World
from tests.unit.history.test_rollups import ROLLED, SAMPLES, hours_of, rows_of

SEEDS = (1, 2, 3)
HOSTS = ("H1", "H2")


class _Histories:
    """The history file of a world: a new life of the telemetry silo opens what the one before had committed."""

    def __init__(self, world: World, path: Path) -> None:
        self._world = world
        self._path = path
        self.store: HistoryStore | None = None
        world.plug_history = self.plug
        self.plug(world.processes.by_name["telemetry"])

    def plug(self, process: Process) -> None:
        self.lose()
        self.store = HistoryStore.open(self._path)
        process.silo.ports["history"] = HistoryPort(process.silo, self.store, self._world.timeline.now_ns)

    def has_buffered(self) -> bool:
        return self.store is not None and self.store._reports.row_count > 0

    def lose(self) -> None:
        """As a kill: what is buffered is gone."""
        if self.store is not None:
            self.store._drop_connection("the silo is dead")
            store_module._paths_open.discard(self.store.path)


def _run(
    path: Path, seed: int, config: Config, hear: Callable[[str, Batch], None] | None = None
) -> tuple[World, HistoryStore, _Histories]:
    knobs = Knobs(loss_per_10k=300, duplicate_per_10k=300, late_duplicate_per_10k=100, tail_per_10k=100)
    world = World(Shape(hosts=2, vms=6, telemetry=True), knobs, seed=seed, config=config)
    histories = _Histories(world, path)
    if hear is not None:
        world.processes.committed.append(hear)
    world.build()
    for down_s in (1.0, 40.0, 400.0):
        world.run(200)
        # The worst moment: history has samples in memory that are not on its disk.
        assert world.run_until(histories.has_buffered)
        assert world.faults.crash_silo("telemetry", down_s)
        world.run(down_s)
    world.faults.heal()
    world.run(120)
    assert histories.store is not None
    histories.store.commit()
    return world, histories.store, histories


@pytest.mark.parametrize("seed", SEEDS)
def test_telemetry_that_dies_loses_and_repeats_no_sampling(tmp_path: Path, seed: int) -> None:
    world, store, histories = _run(tmp_path / "history.duckdb", seed, Config())
    # Sequences are without a gap from the first sampling on, and none is there twice.
    reports = store.query(
        "select kind, host_key, host_epoch, min(seq), max(seq), count(*), count(distinct seq)"
        " from sample_reports where kind in ('vm', 'host') group by all"
    ).rows
    assert {row[0] for row in reports} == {"vm", "host"}
    for kind, _, _, first, last, count, distinct in reports:
        assert count == distinct == last - first + 1, (kind, first, last, count)
        assert first == 1 or kind == "vm"  # a host has no machine in its first samplings
    assert max(row[4] for row in reports) > 50  # 1,161 s, each 15 s
    rows = store.query("select count(*), count(distinct (vm_key, history_datetime)) from vm_samples").rows
    assert rows[0][0] == rows[0][1] > 0
    later_ns = world.timeline.time_ns + 2 * 3600 * 10**9
    store.maintain(later_ns)
    assert rows_of(store, ROLLED.format("hourly")) == hours_of(rows_of(store, SAMPLES))
    histories.lose()


def test_telemetry_away_for_longer_than_agents_buffer_is_told_with_what_is_missing(tmp_path: Path) -> None:
    config = Config(samples_buffered_rows_max=20)
    told: dict[int, EventRecord] = {}

    def hear(silo: str, batch: Batch) -> None:
        if silo == "engine":
            events = [
                one for one in batch.upserts.get(EventRecord, {}).values() if isinstance(one, EventRecord)
            ]
            told.update({event.seq: event for event in events if event.code == "samples_dropped"})

    _, store, histories = _run(tmp_path / "history.duckdb", 1, config, hear)
    said = {host: sum(one.details["reports"] for one in told.values() if one.host == host) for host in HOSTS}  # type: ignore[misc]
    missing = store.query(
        "select t.text, sum(lost) from (select host_key, max(seq) - min(seq) + 1 - count(*) as lost"
        " from sample_reports group by kind, host_key) join texts t on t.text_key = host_key group by all"
    ).rows
    # Never fewer than are missing; what was stored and could not be acknowledged in time may be among them.
    for host, lost in missing:
        assert 0 < int(str(lost)) <= said[str(host)] <= int(str(lost)) + 3 * REPORTS_IN_FLIGHT_MAX
    assert sorted(said) == sorted(str(host) for host, _ in missing)
    histories.lose()


def test_host_that_was_removed_and_is_added_again_has_its_samples_in_history(tmp_path: Path) -> None:
    """Its agent once counted its starts anew, and history knew its reports, or found them to be too late."""
    world = World(Shape(hosts=2, vms=0, telemetry=True), Knobs(), seed=1, config=Config())
    histories = _Histories(world, tmp_path / "history.duckdb")
    world.build()
    for _ in range(3):  # each restart of the agent raises what its reports are named by
        assert world.faults.crash_silo("host-2", 1.0)
        world.run(40)
    world.finish_all([m.HostCommand("H2", "maintenance")])
    world.finish_all([m.HostCommand("H2", "remove")])
    world.run(60)
    removed_ns = world.timeline.time_ns
    world.finish_all([world.host_command(2)])
    world.run(300)
    assert histories.store is not None
    histories.store.commit()
    counts = histories.store.query(
        "select text, count(*) from host_samples join texts on text_key = host_key"
        " where history_datetime > make_timestamp(?) group by all",
        (removed_ns // 1000,),
    ).rows
    assert dict(counts)["H2"] >= 300 / 15 - 2  # type: ignore[call-overload]
    histories.lose()
