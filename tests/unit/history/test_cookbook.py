"""Each statement of docs/history-cookbook.md, run against a history in which all that it asks about has happened."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from olvm.history.guest_rows import GuestFacts
from olvm.history.rows import ConfigurationChange
from olvm.history.samples import (
    HostInterfaceSample,
    HostSample,
    VmDiskSample,
    VmInterfaceSample,
    VmSample,
    encode_host_interface_samples,
    encode_host_sample,
    encode_vm_disk_samples,
    encode_vm_interface_samples,
    encode_vm_samples,
)
from olvm.history.store import HistoryStore
from olvm.model.records import EventRecord, Severity
from tests.architecture.source import ROOT
from tests.unit.history.building import NOW_NS

S = 10**9
HOUR_NS = 3600 * S
HOURS = 27
PAGE = (ROOT / "docs" / "history-cookbook.md").read_text(encoding="utf-8")
QUESTIONS = re.findall(r"\*\*(\d+)\. ([^*]+)\*\*.*?```sql\n(.*?)```", PAGE, re.DOTALL)
VMS = {"web": ("kvm01", 70.0, 3000), "idle": ("kvm02", 0.5, 100)}


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HistoryStore]:
    """Two hosts, a busy machine and an idle one, over two days: one host was lost, a copy did not converge."""
    store = HistoryStore.open(Path(tmp_path_factory.mktemp("history")) / "history.duckdb", samples_kept_s=1e7)
    tell_configuration(store)
    for hour in range(HOURS):
        tell_samples(store, hour)
    tell_events(store)
    store.add_guest_facts(
        [
            GuestFacts(
                vm_id="vm-web",
                vm_name="web",
                told_ns=NOW_NS,
                os_distribution="Debian",
                os_version="12",
                applications=["openssl-3.0.11", "nginx-1.22"],
                filesystems=[{"path": "/", "type": "ext4", "total": 10**10, "used": 9 * 10**9}],
            )
        ]
    )
    store.commit()
    now_ns = NOW_NS + (HOURS + 3) * HOUR_NS
    store.maintain(now_ns)
    while store.is_behind:
        store.maintain(now_ns)
    yield store
    store.close()


def tell_configuration(store: HistoryStore) -> None:
    changes = [
        ConfigurationChange(
            object_kind="host",
            object_id=host,
            name=host,
            cluster="prod",
            status=status,
            valid_from_ns=NOW_NS + at_s * S,
            spec={"cpus": 16, "memory_bytes": 64 * 2**30},
        )
        for host, at_s, status in (
            ("kvm01", 0, "up"),
            ("kvm02", 0, "up"),
            ("kvm01", 7200, "non_responsive"),
            ("kvm01", 9000, "up"),
        )
    ]
    changes += [
        ConfigurationChange(
            object_kind="vm",
            object_id=f"vm-{name}",
            name=name,
            cluster="prod",
            valid_from_ns=NOW_NS + at_s * S,
            spec={"vcpus": vcpus, "memory_bytes": 8 * 2**30},
        )
        for name, at_s, vcpus in (("web", 0, 4), ("idle", 0, 8), ("web", 3600, 6))
    ]
    store.add_configuration(changes)


def tell_samples(store: HistoryStore, hour: int) -> None:
    for minute in range(0, 60, 5):
        at_ns, seq = NOW_NS + hour * HOUR_NS + minute * 60 * S, hour * 60 + minute + 1
        for host in ("kvm01", "kvm02"):
            report = {"host": host, "at_ns": at_ns, "host_epoch": 1, "seq": seq}
            busy = float(hour % 24)
            store.add_samples(
                encode_host_sample(
                    HostSample(
                        host_status="up",
                        cpu_usage_percent=busy + (5 if host == "kvm01" else 0),
                        memory_usage_percent=30 + hour / 4,
                        swap_used_mb=hour,
                        memory_shared_mb=1,
                    ),
                    **report,
                )
            )
            store.add_samples(
                encode_host_interface_samples(
                    [
                        HostInterfaceSample(
                            host_interface_name="eth0", receive_dropped_total=hour, transmit_dropped_total=0
                        )
                    ],
                    **report,
                )
            )
            here = {name: facts for name, facts in VMS.items() if facts[0] == host}
            identities = [{"vm_id": f"vm-{name}", "vm_name": name} for name in here]
            store.add_samples(
                encode_vm_samples(
                    [
                        VmSample(
                            **identity,
                            vm_status="up",
                            cpu_usage_percent=cpu,
                            memory_used_mb=used_mb,
                            memory_usage_percent=40,
                            vcpus=4,
                            swap_out_pages_per_second=3 if cpu > 1 else 0,
                        )
                        for identity, (_, cpu, used_mb) in zip(identities, here.values(), strict=True)
                    ],
                    **report,
                )
            )
            store.add_samples(
                encode_vm_disk_samples(
                    [
                        VmDiskSample(
                            **identity,
                            vm_disk_name="vda",
                            vm_disk_actual_size_mb=900,
                            vm_disk_size_mb=1000,
                            read_latency_seconds=0.004,
                            write_latency_seconds=0.009,
                        )
                        for identity in identities
                    ],
                    **report,
                )
            )
            store.add_samples(
                encode_vm_interface_samples(
                    [
                        VmInterfaceSample(
                            **identity,
                            vm_interface_name="vnet0",
                            transmit_rate_bytes_per_second=10**6,
                            receive_rate_bytes_per_second=10**5,
                        )
                        for identity in identities
                    ],
                    **report,
                )
            )


def tell_events(store: HistoryStore) -> None:
    there = {"from": "kvm02", "to": "kvm01", "reason": "asked"}
    told: list[tuple[int, str, Severity, str, dict[str, str | int | float | bool | None]]] = [
        (10, "vm_up", "normal", "kvm01", {}),
        (7100, "vm_migration_started", "normal", "kvm02", {**there}),
        (7150, "vm_migration_failed", "warning", "kvm02", {**there, "why": "it did not converge"}),
        (7200, "vm_crashed", "error", "kvm01", {}),
        (7300, "vm_up", "normal", "kvm02", {}),
        (9100, "vm_migration_started", "normal", "kvm02", {**there}),
        (9110, "vm_migrated", "normal", "kvm01", {**there, "bytes": 10**9, "downtime_ms": 80}),
    ]
    events = [
        EventRecord(
            id=f"e{seq}",
            seq=seq,
            at_ns=NOW_NS + at_s * S,
            code=code,
            severity=severity,
            message=code,
            vm_id="vm-web",
            vm_name="web",
            host=host,
            cluster="prod",
            details=details,
        )
        for seq, (at_s, code, severity, host, details) in enumerate(told, 1)
    ]
    store.add_events("engine", events)


def test_page_asks_thirty_questions() -> None:
    assert [int(number) for number, _, _ in QUESTIONS] == list(range(1, 31))


@pytest.mark.parametrize(("number", "question", "statement"), QUESTIONS, ids=[one[0] for one in QUESTIONS])
def test_question_of_the_cookbook_is_answered(
    history: HistoryStore, number: str, question: str, statement: str
) -> None:
    answer = history.query(statement)

    assert answer.rows, f"{number}. {question}: no rows"
    assert any(value is not None for value in answer.rows[0])


def answer(history: HistoryStore, number: int) -> list[tuple[object, ...]]:
    (statement,) = (one[2] for one in QUESTIONS if one[0] == str(number))
    return history.query(statement).rows


def test_answers_are_what_happened(history: HistoryStore) -> None:
    assert [row[0] for row in answer(history, 4)] == ["idle"]
    assert [row[0] for row in answer(history, 5)] == ["web"]
    (down,) = answer(history, 16)
    assert (down[0], down[1], down[3], down[4]) == ("kvm01", "non_responsive", 1800, 1)
    assert [row[0] for row in answer(history, 17)] == ["web"]
    assert [row[3] for row in answer(history, 18)] == [100]
    assert answer(history, 23)[0][3:6] == ("failed", True, "it did not converge")
    assert answer(history, 24)[0][:2] == (1, 10.0)
    assert [row[0] for row in answer(history, 26)] == ["kvm01", "kvm02", "kvm01"]
    assert [row[1] for row in answer(history, 28)] == [4, 6]
    assert answer(history, 30)[0][1] == "openssl-3.0.11"
