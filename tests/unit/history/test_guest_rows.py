"""What guests told last, in SQL; and a file from before most of it was kept."""

from __future__ import annotations

from pathlib import Path

import duckdb

from olvm.history.guest_rows import SINCE_VERSION_2, SINCE_VERSION_7, VIEWS, GuestFacts
from olvm.history.schema import SCHEMA_VERSION
from olvm.history.store import HistoryStore
from tests.unit.history.building import NOW_NS

CARD = {"name": "eth0", "mac": "52:54:00:00:00:01", "inet": ["192.0.2.7"], "inet6": []}


def _full() -> GuestFacts:
    return GuestFacts(
        vm_id="vm-1",
        vm_name="web",
        told_ns=NOW_NS,
        session="Locked",
        applications=["bash-5.2", "vim-9.0"],
        interfaces=[CARD, {**CARD, "name": "eth1", "inet": []}],
        filesystems=[{"path": "/", "type": "ext4", "total_bytes": 2**40, "used_bytes": 2**39}],
        disk_mapping={"serial-1": "/dev/vda"},
        containers=[{"id": "c1", "names": ["db"], "image": "pg:16", "status": "Up", "command": "postgres"}],
        agents=["qemu-ga 7.2", "olvm 3"],
        sources={"hostname": "qemu-ga"},
        cpu_count=4,
        boot_id="b-1",
        messages_unknown=3,
        events_dropped=1,
    )


def _asked(store: HistoryStore, sql: str) -> list[tuple[object, ...]]:
    return list(store.query(sql).rows)


def test_guest_facts_are_columns_and_their_lists_are_rows(store: HistoryStore) -> None:
    store.add_guest_facts([_full(), GuestFacts(vm_id="vm-2", told_ns=NOW_NS)])
    store.commit()
    assert _asked(
        store,
        "select session, cpu_count, boot_id, agents->>0, sources->>'hostname', disk_mapping->>'serial-1',"
        " messages_unknown, events_dropped, lines_discarded from guest_facts where vm_id = 'vm-1'",
    ) == [("Locked", 4, "b-1", "qemu-ga 7.2", "qemu-ga", "/dev/vda", 3, 1, 0)]
    assert _asked(store, "select vm_name, name, inet->>0 from guest_interfaces order by name") == [
        ("web", "eth0", "192.0.2.7"),
        ("web", "eth1", None),
    ]
    assert _asked(store, "select path, used_bytes * 2 = total_bytes from guest_filesystems") == [("/", True)]
    assert _asked(store, "select container_id, names->>0, image from guest_containers") == [
        ("c1", "db", "pg:16")
    ]
    assert _asked(store, "select application from guest_applications order by all") == [
        ("bash-5.2",),
        ("vim-9.0",),
    ]


def test_file_of_the_first_version_is_migrated_and_keeps_its_rows(store: HistoryStore, path: Path) -> None:
    store.add_guest_facts([_full()])
    store.close()
    with duckdb.connect(str(path)) as connection:
        for view in VIEWS:
            connection.execute(f"drop view {view.name}")
        for column in (*SINCE_VERSION_2, *SINCE_VERSION_7):
            connection.execute(f"alter table guest_facts drop column {column.name}")
        connection.execute("drop table clipped_values")
        connection.execute("drop table host_core_samples")
        connection.execute("drop view operations")
        connection.execute("alter table operations_history drop column request_id")
        connection.execute("update meta set value = '1' where key = 'schema_version'")
    migrated = HistoryStore.open(path)
    assert _asked(migrated, "select vm_name, session, applications->>1 from guest_facts") == [
        ("web", None, "vim-9.0")
    ]
    assert _asked(migrated, "select name from guest_interfaces") == []
    assert _asked(migrated, "select request_id from operations") == []
    assert _asked(migrated, "select value_count from untrusted_values") == []
    assert _asked(migrated, "select values_refused from untrusted_guests") == []
    assert _asked(migrated, "select * from statistics_hosts_cores_resources_usage_samples") == []
    migrated.add_guest_facts([_full()])
    migrated.commit()
    assert _asked(migrated, "select name from guest_interfaces order by name") == [("eth0",), ("eth1",)]
    migrated.close()
    again = HistoryStore.open(path)
    assert _asked(again, "select value from meta where key = 'schema_version'") == [(str(SCHEMA_VERSION),)]
    again.close()
