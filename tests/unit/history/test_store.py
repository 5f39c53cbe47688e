"""HistoryStore: what is stored, once, and what a restart remembers."""

from __future__ import annotations

import struct
from pathlib import Path

import duckdb
import msgspec
import pytest

from olvm.history import store as store_module
from olvm.history.bounds import OPERATIONS_KEPT_S, ROWS_PER_COMMIT, SAMPLES_PER_COMMIT
from olvm.history.guest_rows import GuestFacts
from olvm.history.rows import ROW_TABLES, ConfigurationChange
from olvm.history.samples import UNKNOWN_FLOAT, HostSample, decode_batch, encode_host_sample
from olvm.history.store import HistoryStore
from olvm.model.errors import BadInput, JournalCorrupt, JournalError, JournalLocked, JournalUnwritable
from olvm.model.records import OperationRecord
from tests.unit.history.building import NOW_NS, event, vm_report, vm_sample

DAY_S = 86_400
VM_VIEW = "statistics_vms_resources_usage_samples"


def _count(store: HistoryStore, table: str) -> object:
    return store.query(f"select count(*) from {table}").rows[0][0]


# ---------------------------------------------------------------- samples


def test_vm_sample_committed_is_read_by_its_warehouse_name(store: HistoryStore) -> None:
    sample = vm_sample("vm-1", vm_name="web", vm_status="Up", vm_ip="10.0.0.1", uptime_seconds=60)
    store.add_samples(vm_report(sample))
    store.commit()
    answer = store.query(
        "select history_datetime, vm_id, vm_name, currently_running_on_host, vm_status, vm_ip,"
        " current_user_name, cpu_usage_percent, memory_usage_percent, uptime_seconds, memory_used_mb"
        f" from {VM_VIEW}"
    )
    assert answer.rows == [
        ("2027-01-15T08:00:00", "vm-1", "web", "kvm01", "Up", "10.0.0.1", None, 12.5, None, 60, None)
    ]


def test_host_sample_committed_is_read_by_its_host_name(store: HistoryStore) -> None:
    sample = HostSample(host_status="Up", active_vms=3, cpu_load=0.5)
    store.add_samples(encode_host_sample(sample, host="kvm01", at_ns=NOW_NS, host_epoch=1, seq=1))
    store.commit()
    answer = store.query(
        "select host_name, host_status, active_vms, total_vms, cpu_load, swap_used_mb"
        " from statistics_hosts_resources_usage_samples"
    )
    assert answer.rows == [("kvm01", "Up", 3, None, 0.5, None)]


def test_reports_of_many_hosts_in_one_commit_keep_their_rows_apart(store: HistoryStore) -> None:
    for host in range(20):
        samples = [vm_sample(f"vm-{host}-{n}", cpu_usage_percent=host + n / 4) for n in range(host)]
        store.add_samples(vm_report(*samples, host=f"kvm{host}") if samples else _empty_report(f"kvm{host}"))
    store.commit()
    answer = store.query(f"select currently_running_on_host, vm_id, cpu_usage_percent from {VM_VIEW}")
    assert sorted(answer.rows, key=str) == sorted(
        [(f"kvm{host}", f"vm-{host}-{n}", host + n / 4) for host in range(20) for n in range(host)], key=str
    )


def _empty_report(host: str) -> bytes:
    batch = decode_batch(vm_report(host=host))
    empty = msgspec.structs.replace(batch, row_count=0, ids="", texts="", data=b"")
    return msgspec.msgpack.encode(empty)


def test_column_that_an_older_agent_does_not_send_is_null(store: HistoryStore) -> None:
    batch = decode_batch(vm_report(vm_sample(uptime_seconds=5)))
    older = msgspec.structs.replace(batch, shape="uptime_seconds:q", data=struct.pack("<q", 5))
    store.add_samples(msgspec.msgpack.encode(older))
    store.commit()
    assert store.query("select uptime_seconds, cpu_usage_percent, memory_used_mb from vm_samples").rows == [
        (5, None, None)
    ]


def test_report_repeated_is_stored_once_also_after_restart(path: Path) -> None:
    with HistoryStore.open(path) as store:
        assert store.add_samples(vm_report(seq=3)) == "accepted"
        assert store.add_samples(vm_report(seq=3)) == "repeated"
    with HistoryStore.open(path) as store:
        assert store.add_samples(vm_report(seq=3)) == "repeated"
        assert store.add_samples(vm_report(seq=2)) == "accepted"
        assert store.add_samples(vm_report(seq=1, host_epoch=0)) == "late"
        store.commit()
        assert _count(store, "vm_samples") == 2
        assert (store.counters.repeated_report_count, store.counters.late_report_count) == (1, 1)


def test_vm_renamed_or_moved_keeps_its_key_and_shows_its_newest_name(path: Path) -> None:
    with HistoryStore.open(path) as store:
        store.add_samples(vm_report(vm_sample("vm-1", vm_name="old")))
    with HistoryStore.open(path) as store:
        store.add_samples(vm_report(vm_sample("vm-1", vm_name="new"), host="kvm02"))
        store.commit()
        answer = store.query(f"select vm_name, currently_running_on_host from {VM_VIEW} order by 2")
        assert answer.rows == [("new", "kvm01"), ("new", "kvm02")]
        assert _count(store, "vm_names") == 1


def test_reports_of_several_shapes_in_one_commit_keep_their_values_apart(store: HistoryStore) -> None:
    store.add_samples(vm_report(vm_sample("a", uptime_seconds=1), host="kvm01"))
    store.add_samples(vm_report(vm_sample("b", memory_used_mb=2), vm_sample("c", vcpus=3), host="kvm02"))
    unknown = vm_sample("d", cpu_usage_percent=UNKNOWN_FLOAT)
    store.add_samples(vm_report(unknown, host="kvm03"))
    store.add_samples(vm_report(vm_sample("e", uptime_seconds=5), host="kvm04"))
    store.commit()
    names = "vm_id, cpu_usage_percent, uptime_seconds, memory_used_mb, vcpus, balloon_mb"
    answer = store.query(f"select {names} from vm_samples join vm_names using (vm_key) order by vm_id")
    assert answer.rows == [
        ("a", 12.5, 1, None, None, None),
        ("b", 12.5, None, 2, None, None),
        ("c", 12.5, None, None, 3, None),
        ("d", None, None, None, None, None),
        ("e", 12.5, 5, None, None, None),
    ]


def test_report_with_the_texts_of_the_last_one_and_more_rows_is_refused(store: HistoryStore) -> None:
    batch = decode_batch(vm_report(seq=1))
    store.add_samples(vm_report(seq=1))
    lie = msgspec.structs.replace(batch, seq=2, row_count=2, data=2 * batch.data)
    with pytest.raises(BadInput, match="fields"):
        store.add_samples(msgspec.msgpack.encode(lie))
    store.commit()
    assert _count(store, "vm_samples") == 1


def test_report_with_misshapen_texts_is_refused_and_its_repeat_is_judged_anew(store: HistoryStore) -> None:
    batch = decode_batch(vm_report())
    broken = msgspec.structs.replace(batch, ids="only-one-field")
    with pytest.raises(BadInput, match="fields"):
        store.add_samples(msgspec.msgpack.encode(broken))
    assert store.add_samples(vm_report()) == "accepted"


def test_samples_enough_for_a_commit_are_committed_unasked(store: HistoryStore) -> None:
    samples = [vm_sample(f"vm-{n}") for n in range(5_000)]
    for seq in range(1, SAMPLES_PER_COMMIT // 5_000 + 1):
        store.add_samples(vm_report(*samples, seq=seq))
    assert _count(store, "vm_samples") == SAMPLES_PER_COMMIT
    assert store.counters.commit_count == 1


def test_text_past_the_bound_is_null_and_unused_texts_make_room(
    store: HistoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("olvm.history.dictionary.TEXTS_MAX", 3)
    monkeypatch.setattr("olvm.history.store.TEXTS_MAX", 3)
    day_ns = 24 * 3600 * 10**9
    users = ["ann", "bob", "cid", "dora"]
    store.add_samples(vm_report(*(vm_sample(user, current_user_name=user) for user in users), at_ns=NOW_NS))
    store.commit()
    answer = store.query(f"select vm_id, current_user_name from {VM_VIEW} order by 1")
    assert answer.rows == [("ann", "ann"), ("bob", "bob"), ("cid", "cid"), ("dora", None)]
    assert store.counters.refused_text_count == 1
    assert store.maintain(NOW_NS + day_ns + 1_000) == 4
    later = [vm_sample("dora", current_user_name="dora"), vm_sample("ann", current_user_name="ann")]
    store.add_samples(vm_report(*later, seq=2, at_ns=NOW_NS + day_ns + 1_000))
    store.commit()
    answer = store.query(
        f"select vm_id, current_user_name, currently_running_on_host from {VM_VIEW} order by 1"
    )
    assert answer.rows == [("ann", "ann", "kvm01"), ("dora", "dora", "kvm01")]


def test_maintain_erases_what_is_past_its_day_and_refuses_it_for_ever(path: Path) -> None:
    day_ns = 24 * 3600 * 10**9
    with HistoryStore.open(path) as store:
        store.add_samples(vm_report(seq=1, at_ns=NOW_NS - day_ns - 1_000))
        store.add_samples(vm_report(seq=2, at_ns=NOW_NS - day_ns))
        assert store.maintain(NOW_NS) == 1
        assert _count(store, "vm_samples") == 1
        assert _count(store, "sample_reports") == 1
    with HistoryStore.open(path) as store:
        assert store.add_samples(vm_report(seq=1, at_ns=NOW_NS - day_ns - 1_000)) == "expired"
        assert store.counters.expired_report_count == 1


# ---------------------------------------------------------------- events and other rows


def test_maintain_folds_the_log_once_it_is_long(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = path.with_name(f"{path.name}.wal")
    with HistoryStore.open(path) as store:
        store.add_samples(vm_report())
        store.maintain(NOW_NS)
        assert log.stat().st_size > 0
        monkeypatch.setattr("olvm.history.store.LOG_FOLDED_BYTES", log.stat().st_size)
        store.maintain(NOW_NS)
        assert not log.exists() or log.stat().st_size == 0
        assert _count(store, VM_VIEW) == 1


def test_events_in_sequence_are_stored_with_their_fields(store: HistoryStore) -> None:
    assert store.add_events("engine", [event(1), event(2, severity="alert")]) == 2
    assert store.event_cursor("engine") == 0
    store.commit()
    assert store.event_cursor("engine") == 2
    answer = store.query("select event_id, seq, severity, vm_id, correlation_id from events order by seq")
    assert answer.rows == [
        ("engine-1", 1, "NORMAL", None, "request-1"),
        ("engine-2", 2, "ALERT", None, "request-2"),
    ]


def test_events_repeated_are_stored_once_also_after_restart(path: Path) -> None:
    with HistoryStore.open(path) as store:
        store.add_events("engine", [event(1), event(2), event(2)])
    with HistoryStore.open(path) as store:
        assert store.event_cursor("engine") == 2
        assert store.add_events("engine", [event(1), event(2), event(3)]) == 3
        store.commit()
        assert store.query("select seq from events order by seq").rows == [(1,), (2,), (3,)]


def test_events_after_a_gap_are_left_until_it_is_filled(store: HistoryStore) -> None:
    assert store.add_events("engine", [event(1), event(3)]) == 1
    assert store.add_events("engine", [event(3), event(2)]) == 3
    assert store.add_events("silo-2", [event(9, event_id="other")]) == 0
    store.commit()
    assert store.query("select seq from events order by seq").rows == [(1,), (2,), (3,)]


def test_events_of_a_source_that_erased_its_oldest_begin_where_it_begins(store: HistoryStore) -> None:
    assert store.add_events("engine", [event(41), event(42)], first_kept_seq=41) == 42
    store.commit()
    assert store.event_cursor("engine") == 42


def test_event_id_met_under_two_sequences_is_stored_once(store: HistoryStore) -> None:
    store.add_events("engine", [event(1, event_id="same"), event(2, event_id="same")])
    store.commit()
    store.add_events("engine", [event(3, event_id="same")])
    store.commit()
    assert store.query("select seq from events").rows == [(1,)]
    assert store.event_cursor("engine") == 3


def test_guest_facts_keep_the_newest_told(store: HistoryStore) -> None:
    def facts(told_ns: int, user: str) -> GuestFacts:
        return GuestFacts(vm_id="vm-1", told_ns=told_ns, logged_in_users=[user])

    store.add_guest_facts([facts(NOW_NS + 2_000, "newest"), facts(NOW_NS + 1_000, "older")])
    store.add_guest_facts([facts(NOW_NS, "oldest")])
    store.commit()
    store.add_guest_facts([facts(NOW_NS + 1_000, "late")])
    store.commit()
    assert store.query("select logged_in_users->>0 from guest_facts").rows == [("newest",)]


def test_row_with_hostile_text_and_time_does_not_stop_the_commit(store: HistoryStore) -> None:
    hostile = GuestFacts(
        vm_id="vm-1", told_ns=2**63, guest_fqdn="a\udc00b\x00", applications=["\ud800"], details={"\ud800": 1}
    )
    store.add_guest_facts([hostile])
    store.commit()
    assert store.query("select applications, guest_fqdn from guest_facts").rows == [('["?"]', "a?b\x00")]


def test_configuration_versions_follow_each_other(store: HistoryStore) -> None:
    def version(vcpus: int, valid_from_ns: int) -> ConfigurationChange:
        return ConfigurationChange(
            object_kind="vm", object_id="1", name="web", spec={"vcpus": vcpus}, valid_from_ns=valid_from_ns
        )

    store.add_configuration([version(2, NOW_NS), version(4, NOW_NS + 10**9), version(2, NOW_NS)])
    store.commit()
    store.add_configuration([version(2, NOW_NS)])
    store.commit()
    answer = store.query(
        "select (spec->>'vcpus')::int, valid_until from configuration_history_versions order by valid_from"
    )
    assert answer.rows == [(2, "2027-01-15T08:00:01"), (4, None)]


def _operation(number: int, end_s: int, **fields: object) -> OperationRecord:
    values: dict[str, object] = {
        "id": f"op-{number}",
        "kind": "start_vm",
        "target_kind": "vm",
        "target_id": "vm-1",
        "target_name": "web",
        "status": "succeeded",
        "created_ns": NOW_NS,
        "finished_ns": NOW_NS + end_s * 10**9,
    }
    return OperationRecord(**(values | fields))  # type: ignore[arg-type]


def test_operation_that_ended_is_stored_once(store: HistoryStore) -> None:
    operation = _operation(1, 1, status="failed", reason="no host", client_request_id="mine")
    for _ in range(2):
        store.add_operations([operation])
        store.commit()
    answer = store.query("select * exclude (created_at) from operations")
    (row,) = answer.rows
    assert dict(zip(answer.columns, row, strict=True)) == {
        "operation_id": "op-1",
        "kind": "start_vm",
        "target_kind": "vm",
        "target_name": "web",
        "status": "failed",
        "reason": "no host",
        "error_code": None,
        "request_id": "mine",
        "started_at": None,
        "finished_at": "2027-01-15T08:00:01",
        "seconds": 1.0,
    }


def test_operations_of_one_moment_that_come_in_two_pages_are_all_stored(
    store: HistoryStore, path: Path
) -> None:
    cursor = store.add_operations([_operation(1, 1), _operation(2, 2)])
    store.commit()
    assert cursor == NOW_NS + 2 * 10**9 == store.event_cursor("engine/operations")
    store.close()
    with HistoryStore.open(path) as again:  # which knows no ids, and is told of the newest once more
        assert again.event_cursor("engine/operations") == cursor
        assert again.add_operations([_operation(2, 2), _operation(3, 2), _operation(4, 3)]) == cursor + 10**9
        again.commit()
        rows = again.query("select operation_id from operations_history order by 1").rows
        assert rows == [("op-1",), ("op-2",), ("op-3",), ("op-4",)]
        commits = again.counters.commit_count
        assert again.add_operations([_operation(4, 3)]) == cursor + 10**9
        again.commit()
        assert again.counters.commit_count == commits  # nothing new, nothing written


def test_operations_that_find_no_room_are_asked_for_again(
    store: HistoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "ROWS_BUFFERED_MAX", 2)
    operations = [_operation(n, n) for n in range(1, 5)]
    assert store.add_operations(operations) == NOW_NS + 2 * 10**9
    store.commit()
    assert store.add_operations(operations) == NOW_NS + 4 * 10**9
    store.commit()
    assert store.query("select count(*) from operations_history").rows == [(4,)]


def test_operations_are_erased_when_they_are_past_their_time(store: HistoryStore) -> None:
    store.add_operations([_operation(1, 1), _operation(2, DAY_S)])
    store.maintain(NOW_NS + (OPERATIONS_KEPT_S + 2) * 10**9)
    assert store.query("select operation_id from operations").rows == [("op-2",)]


def test_rows_enough_for_a_commit_are_committed_unasked(store: HistoryStore) -> None:
    store.add_events("engine", [event(seq) for seq in range(1, ROWS_PER_COMMIT + 1)])
    assert store.event_cursor("engine") == ROWS_PER_COMMIT


# ---------------------------------------------------------------- the file


def test_every_column_has_a_comment(store: HistoryStore) -> None:
    tables = ", ".join(f"'{table.name}'" for table in ROW_TABLES)
    answer = store.query(
        "select table_name, column_name from duckdb_columns() where comment is null"
        f" and (table_name in ('vm_samples', 'host_samples') or table_name in ({tables}))"
    )
    assert answer.rows == []
    assert _count(store, "duckdb_columns() where comment is not null") > 60  # type: ignore[operator]


def test_file_open_in_this_process_is_locked(store: HistoryStore, path: Path) -> None:
    with pytest.raises(JournalLocked, match="this process"):
        HistoryStore.open(path)


def test_file_that_is_no_database_is_corrupt_and_untouched(path: Path) -> None:
    path.write_bytes(b"this is no database" * 1000)
    with pytest.raises(JournalCorrupt, match="damaged"):
        HistoryStore.open(path)
    assert path.read_bytes() == b"this is no database" * 1000


def test_file_of_another_program_is_corrupt(path: Path) -> None:
    with duckdb.connect(str(path)) as con:
        con.execute("create table theirs (i integer)")
    with pytest.raises(JournalCorrupt, match="not olvm's"):
        HistoryStore.open(path)


def test_file_of_a_newer_schema_is_refused(path: Path) -> None:
    HistoryStore.open(path).close()
    with duckdb.connect(str(path)) as con:
        con.execute("update meta set value = '999' where key = 'schema_version'")
    with pytest.raises(JournalError, match="schema version is 999") as caught:
        HistoryStore.open(path)
    assert caught.value.code == "journal"


def test_path_where_no_file_can_be_is_unwritable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalUnwritable, match="check free space"):
        HistoryStore.open(tmp_path / "file" / "history.duckdb")
