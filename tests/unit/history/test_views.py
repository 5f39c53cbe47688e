"""The documented views answer, with the columns that they say, and tell what happened."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from olvm.history.bounds import EVENTS_KEPT_S
from olvm.history.catalog import markdown
from olvm.history.own_views import OWN_VIEWS
from olvm.history.rows import ConfigurationChange
from olvm.history.samples import HostSample, VmDiskSample, encode_host_sample, encode_vm_disk_samples
from olvm.history.store import HistoryStore
from olvm.history.views import STATISTICS_VIEWS, HistoryView
from olvm.model.records import EventRecord
from tests.architecture.source import ROOT
from tests.unit.history.building import NOW_NS, vm_report, vm_sample

S = 10**9
Details = dict[str, str | int | float | bool | None]


def tell(store: HistoryStore, *told: tuple[int, str, str, Details]) -> None:
    """Events of VM web: seconds after `NOW_NS`, code, host, details."""
    first = store.event_cursor("engine") + 1
    events = [
        EventRecord(
            id=f"e{seq}",
            seq=seq,
            at_ns=NOW_NS + at_s * S,
            code=code,
            severity="normal",
            message=code,
            vm_id="vm-1",
            vm_name="web",
            host=host,
            details=details,
        )
        for seq, (at_s, code, host, details) in enumerate(told, first)
    ]
    store.add_events("engine", events)
    store.commit()


def version(at_s: int, *, kind: str = "host", name: str = "kvm01", **values: object) -> ConfigurationChange:
    return ConfigurationChange(
        object_kind=kind,
        object_id=name,
        name=name,
        cluster="prod",
        valid_from_ns=NOW_NS + at_s * S,
        **values,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("view", [*STATISTICS_VIEWS, *OWN_VIEWS], ids=lambda view: view.name)
def test_view_has_the_columns_that_are_documented_each_with_its_comment(
    store: HistoryStore, view: HistoryView
) -> None:
    assert store.query(f"select * from {view.name} limit 1").columns == [
        column.name for column in view.columns
    ]
    comments = store.query(
        "select column_name, comment from duckdb_columns() where table_name = $1 order by column_index",
        [view.name],
    )
    assert comments.rows == [(column.name, column.comment) for column in view.columns]


def test_placements_say_where_and_when_and_why(store: HistoryStore) -> None:
    route: Details = {"from": "kvm01", "to": "kvm02", "reason": "maintenance"}
    tell(
        store,
        (0, "vm_up", "kvm01", {}),
        (10, "vm_migration_started", "kvm01", route),
        (20, "vm_migrated", "kvm02", route),
        (30, "vm_crashed", "kvm02", {}),
        (40, "vm_up", "kvm03", {}),
    )
    answer = store.query(
        "select host_name, reason, epoch(left_at - placed_at)::int from placements order by placed_at"
    )
    assert answer.rows == [
        ("kvm01", "start", 20),
        ("kvm02", "migration: maintenance", 10),
        ("kvm03", "start", None),
    ]


def test_migrations_are_one_row_each_with_the_reason_of_a_failure(store: HistoryStore) -> None:
    route: Details = {"from": "kvm01", "to": "kvm02", "reason": "asked"}
    tell(
        store,
        (0, "vm_migration_started", "kvm01", route),
        (5, "vm_migration_progressed", "kvm01", {**route, "progress_percent": 60, "data_processed_bytes": 7}),
        (9, "vm_migration_failed", "kvm01", {**route, "why": "it did not converge"}),
        (20, "vm_migration_failed", "kvm01", {**route, "why": "no room"}),
        (30, "vm_migration_started", "kvm01", route),
        (35, "vm_migrated", "kvm02", {**route, "bytes": 9, "downtime_ms": 40}),
        (50, "vm_migration_started", "kvm02", route),
    )
    answer = store.query(
        "select outcome, why, seconds::int, data_bytes, downtime_ms, did_not_converge from migrations"
        " order by coalesce(started_at, ended_at)"
    )
    assert answer.rows == [
        ("failed", "it did not converge", 9, 7, None, True),
        ("failed", "no room", None, None, None, False),
        ("succeeded", None, 5, 9, 40, False),
        ("running", None, None, None, None, False),
    ]


def test_host_downtime_counts_who_was_there(store: HistoryStore) -> None:
    tell(store, (0, "vm_up", "kvm01", {}))
    store.add_configuration(
        [version(0, status="up"), version(100, status="non_responsive"), version(160, status="up")]
    )
    store.commit()
    answer = store.query("select host_name, status, seconds, affected_vms from host_downtime")
    assert answer.rows == [("kvm01", "non_responsive", 60, 1)]


def test_configuration_of_a_removed_object_stays_and_its_name_begins_a_new_life(store: HistoryStore) -> None:
    store.add_configuration(
        [
            version(0, status="up", spec={"cpus": 8}),
            version(10, status="up", spec={"cpus": 16}),
            version(20, removed=True),
            version(30, status="up", spec={"cpus": 4}),
        ]
    )
    store.commit()
    answer = store.query(
        "select history_id, number_of_cores, epoch(valid_until - valid_from)::int,"
        " epoch(delete_date - create_date)::int,"
        " update_date is not null from configuration_history_hosts order by valid_from"
    )
    assert answer.rows == [(1, 8, 10, 20, False), (2, 16, 10, 20, True), (1, 4, None, None, False)]


def test_waste_is_what_not_even_the_peak_used(store: HistoryStore) -> None:
    store.add_configuration([version(0, kind="vm", name="vm-1", spec={"vcpus": 4, "memory_bytes": 2**33})])
    for seq, cpu in enumerate((10.0, 50.0), 1):
        sample = vm_sample("vm-1", vm_status="Up", cpu_usage_percent=cpu, memory_used_mb=1024 * seq)
        store.add_samples(vm_report(sample, seq=seq, at_ns=NOW_NS + seq * 60 * S))
    store.maintain(NOW_NS + 7200 * S)
    answer = store.query(
        "select used_vcpus, peak_vcpus, wasted_vcpus, used_memory_mb, peak_memory_mb, wasted_memory_mb from waste"
    )
    assert answer.rows == [(1.2, 2.0, 2.0, 1536, 2048, 6144)]


def test_waste_counts_an_hour_once_for_a_machine_that_moved_within_it(store: HistoryStore) -> None:
    store.add_configuration([version(0, kind="vm", name="vm-1", spec={"vcpus": 4, "memory_bytes": 2**33})])
    sample = vm_sample("vm-1", vm_status="Up", memory_used_mb=1024)
    for host, at_s in (("kvm01", 60), ("kvm02", 600), ("kvm02", 3700), ("kvm02", 86_460)):
        store.add_samples(vm_report(sample, host=host, seq=at_s, at_ns=NOW_NS + at_s * S))
    store.maintain(NOW_NS + 26 * 3600 * S)
    hourly = "select count(*) from statistics_vms_resources_usage_hourly"
    assert store.query(f"select hours, ({hourly}) from waste").rows == [(3, 4)]


def test_disks_of_vms_are_rolled_up_and_stay_known(store: HistoryStore) -> None:
    sample = VmDiskSample(
        vm_id="vm-1", vm_name="web", vm_disk_name="vda", vm_disk_size_mb=2048, read_latency_seconds=0.5
    )
    store.add_samples(encode_vm_disk_samples([sample], host="kvm01", at_ns=NOW_NS, host_epoch=1, seq=1))
    store.maintain(NOW_NS + 7200 * S)
    hourly = store.query(
        "select vm_disk_name, seconds_observed, read_latency_seconds from statistics_vms_disks_resources_usage_hourly"
    )
    assert hourly.rows == [("vda", 180, 0.5)]
    known = store.query("select vm_name, vm_disk_name, vm_disk_size_mb from configuration_history_vms_disks")
    assert known.rows == [("web", "vda", 2048)]


def test_value_that_cannot_be_is_clipped_and_counted(store: HistoryStore) -> None:
    lies = vm_sample(
        cpu_usage_percent=1e30, memory_usage_percent=-5.0, memory_used_mb=2**62, uptime_seconds=-7
    )
    store.add_samples(vm_report(lies))
    store.commit()
    answer = store.query(
        "select cpu_usage_percent, memory_usage_percent, memory_used_mb, uptime_seconds from vm_samples"
    )
    assert answer.rows == [(100.0, 0.0, 2**33, None)]
    assert store.counters.clipped_value_count == 4
    honest = [vm_sample(f"vm-{n}", vm_name=f"web-{n}") for n in range(2, 5)]
    again = vm_sample("vm-1", vm_name="liar", memory_used_mb=2**70, uptime_seconds=-(2**65))
    store.add_samples(vm_report(again, *honest, seq=2, at_ns=NOW_NS + S))
    store.add_samples(
        encode_host_sample(HostSample(cpu_load=-3.0), host="kvm01", at_ns=NOW_NS, host_epoch=1, seq=1)
    )
    store.commit()
    answer = store.query(
        "select vm_name, host_name, statistics, column_name, value_count, least_told, most_told, last_at"
        " from untrusted_values order by all"
    )
    at, later = "2027-01-15T08:00:00", "2027-01-15T08:00:01"
    assert answer.rows == [
        ("liar", "kvm01", "vm", "cpu_usage_percent", 1, float(np.float32(1e30)), float(np.float32(1e30)), at),
        ("liar", "kvm01", "vm", "memory_usage_percent", 1, -5.0, -5.0, at),
        ("liar", "kvm01", "vm", "memory_used_mb", 2, 2.0**62, 2.0**63, later),
        ("liar", "kvm01", "vm", "uptime_seconds", 2, -(2.0**63), -7.0, later),
        (None, "kvm01", "host", "cpu_load", 1, -3.0, -3.0, at),
    ]
    assert store.query("select vm_name, clipped_values, lines_discarded from untrusted_guests").rows == [
        ("liar", 6, 0)
    ]


def test_counts_of_what_was_clipped_are_durable_with_the_samples_and_age_as_events_do(
    store: HistoryStore, path: Path
) -> None:
    store.add_samples(vm_report(vm_sample(cpu_usage_percent=200.0)))
    store.commit()
    store.add_samples(vm_report(vm_sample(cpu_usage_percent=300.0), seq=2))
    store._drop_connection("as if killed")  # the second report was in memory
    store._reports.remove(list(store._reports))
    store.close()
    with HistoryStore.open(path) as again:
        counted = "select value_count, most_told from untrusted_values"
        assert again.query(counted).rows == [(1, 200.0)]
        again.maintain(NOW_NS + (EVENTS_KEPT_S + 60) * S)
        assert again.query(counted).rows == []


def test_time_without_samples_of_a_host_is_a_gap_and_says_whether_its_agent_began_anew(
    store: HistoryStore,
) -> None:
    told = [(0, 1, 1), (60, 1, 2), (241, 1, 3), (301, 2, 1), (900, 3, 1), (960, 3, 2)]
    for at_s, host_epoch, seq in told:
        for host in ("kvm01", "kvm02") if at_s != 241 else ("kvm01",):
            sample = HostSample(host_status="up")
            at_ns = NOW_NS + at_s * S
            store.add_samples(
                encode_host_sample(sample, host=host, at_ns=at_ns, host_epoch=host_epoch, seq=seq)
            )
    store.commit()
    answer = store.query(
        "select host_name, epoch(gap_from)::BIGINT - $1, seconds, agent_restarted from sample_gaps order by all",
        (NOW_NS // S,),
    )
    assert answer.rows == [
        ("kvm01", 60, 181.0, False),
        ("kvm01", 301, 599.0, True),
        ("kvm02", 60, 241.0, True),
        ("kvm02", 301, 599.0, True),
    ]


def test_page_of_the_views_is_what_they_say() -> None:
    assert (ROOT / "docs" / "history-schema.md").read_text(encoding="utf-8") == markdown()
