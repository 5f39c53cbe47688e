"""What history does not believe, has lost or cannot do becomes events: each once, and not too many."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from actors.history_notices import LOOK_EACH_S, MACHINES_TOLD_MAX, TOLD_AGAIN_S, HistoryNotices
from actors.telemetry import Notice, Telemetry
from olvm.history import store as store_module
from olvm.history.guest_rows import GuestFacts
from olvm.history.host_clocks import AHEAD_S_MAX
from olvm.history.store import HistoryStore
from olvm.model import messages as m
from tests.builders import turn
from tests.unit.history.building import NOW_NS, vm_report, vm_sample

S = 10**9


class _World:
    def __init__(self, path: Path) -> None:
        self.now_s = 0
        self.seq = 0
        self.store = HistoryStore.open(path)
        self.restart()

    def restart(self) -> None:
        self.notices = HistoryNotices(self.store, lambda: NOW_NS + self.now_s * S)

    def lie(self, *vms: str) -> None:
        self.seq += 1
        samples = [vm_sample(vm, vm_name=f"name-{vm}", memory_used_mb=2**60) for vm in vms]
        self.store.add_samples(vm_report(*samples, seq=self.seq, at_ns=NOW_NS + self.seq))
        self.store.commit()

    def take(self, after_s: int = LOOK_EACH_S) -> list[Notice]:
        self.now_s += after_s
        return self.notices.take()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[_World]:
    made = _World(tmp_path / "history.duckdb")
    yield made
    made.store.close()


def test_machine_that_lies_is_told_of_once_an_hour(world: _World) -> None:
    world.lie("vm-1")
    (told,) = world.take()
    assert (told.code, told.host, told.vm_id, told.vm_name) == (
        "values_clipped",
        "kvm01",
        "vm-1",
        "name-vm-1",
    )
    assert told.message == (
        "VM name-vm-1 on host kvm01 told 1 values that cannot be (memory_used_mb); the nearest that can be are stored"
    )
    world.lie("vm-1")
    world.lie("vm-1")
    assert world.take() == []
    (again,) = world.take(TOLD_AGAIN_S)
    assert again.details == {"count": 2}
    assert world.take(TOLD_AGAIN_S) == []


def test_machines_that_all_lie_make_a_bounded_number_of_events(world: _World) -> None:
    world.lie(*(f"vm-{n}" for n in range(MACHINES_TOLD_MAX + 5)))
    told = world.take()
    assert len(told) == MACHINES_TOLD_MAX + 1
    assert told[-1].details == {"count": 5, "machines": 5}
    assert world.take() == []


def test_restart_does_not_tell_what_was_told(world: _World) -> None:
    world.lie("vm-1")
    world.restart()
    assert world.take() == []
    world.lie("vm-1")
    (told,) = world.take()
    assert told.details == {"count": 1}


def test_guest_that_floods_is_told_of_with_what_it_said(world: _World) -> None:
    facts = GuestFacts(
        vm_id="vm-1",
        told_ns=NOW_NS,
        vm_name="web",
        host="kvm01",
        lines_discarded=3,
        messages_delayed=7,
        values_refused=2,
    )
    world.store.add_guest_facts([facts])
    world.store.commit()
    (told,) = world.take()
    assert (told.code, told.details) == ("values_discarded", {"count": 12})
    assert (
        "3 lines that were no message, 0 unknown messages, 2 values that cannot be, 7 times too fast"
        in told.message
    )
    rows = world.store.query(
        "select vm_name, host_name, lines_discarded, messages_delayed, values_refused from untrusted_guests"
    ).rows
    assert rows == [("web", "kvm01", 3, 7, 2)]
    world.store.add_guest_facts(
        [
            msgspec.structs.replace(
                facts, told_ns=NOW_NS + 1, lines_discarded=4, messages_delayed=0, values_refused=0
            )
        ]
    )
    world.store.commit()
    (after_the_host_restarted,) = world.take(TOLD_AGAIN_S)
    assert after_the_host_restarted.details == {"count": 4}


def test_refused_reports_are_counted_in_one_event_with_the_reason(world: _World) -> None:
    for n in range(3):
        world.notices.refused(f"reason {n}")
    (told,) = world.take()
    assert (told.code, told.details) == ("reports_refused", {"count": 3})
    assert told.message.endswith("because reason 2")
    assert world.take() == []


def test_fault_of_the_disk_is_told_once_until_it_is_over(world: _World) -> None:
    for _ in range(3):
        world.notices.failed("commit", "history_unwritable", "no room")
    assert [one.code for one in world.take(0)] == ["history_unwritable"]
    world.notices.failed("commit", "history_unwritable", "no room")
    assert world.take(0) == []
    world.notices.succeeded("commit")
    world.notices.failed("commit", "history_unwritable", "no room")
    assert len(world.take(0)) == 1


def test_samples_that_history_dropped_are_told_with_their_span(
    world: _World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "SAMPLES_BUFFERED_MAX", 1)
    for seq in (1, 2, 3):
        world.store.add_samples(vm_report(seq=seq, at_ns=NOW_NS + seq))
    (told,) = world.take()
    assert (told.code, told.severity) == ("samples_dropped", "error")
    assert told.details == {"samples": 2, "from_ns": NOW_NS + 1, "to_ns": NOW_NS + 2, "by": "history"}


def test_telemetry_records_a_notice_as_an_event() -> None:
    notice = Notice("values_clipped", "words", host="H1", vm_id="v1", vm_name="web", details={"count": 2})
    done = turn(me="telemetry")
    Telemetry().handle(m.CallEnded("notice", True, msgspec.msgpack.encode(notice)), done)
    (event,) = done.events
    assert (event.code, event.message, event.severity) == ("values_clipped", "words", "warning")
    assert (event.host, event.vm_id, event.vm_name, event.details) == ("H1", "v1", "web", {"count": 2})


def report_at(world: _World, host: str, ahead_s: int) -> str:
    world.seq += 1
    payload = vm_report(host=host, seq=world.seq, at_ns=NOW_NS + ahead_s * S)
    return world.store.add_samples(payload, NOW_NS)


def test_host_whose_clock_is_ahead_is_told_of_once_an_hour_and_its_samples_are_stored(world: _World) -> None:
    report_at(world, "kvm01", AHEAD_S_MAX)
    assert world.take() == [], "within what clocks differ by"
    assert [report_at(world, "kvm01", s) for s in (AHEAD_S_MAX + 1, 172_800, 900)] == ["accepted"] * 3
    (told,) = world.take()
    assert (told.code, told.host) == ("host_clock_odd", "kvm01")
    assert told.details == {"ahead": 3, "ahead_seconds": 172_800, "expired": 0, "expired_seconds": 0}
    assert "3 are stamped up to 172800 s ahead, and stored so; set its clock right" in told.message
    report_at(world, "kvm01", 900)
    assert world.take() == []
    report_at(world, "kvm01", 900)
    assert len(world.take(TOLD_AGAIN_S)) == 1
    world.store.commit()
    assert world.store.query("select count(*) from vm_samples").rows == [(6,)]


def test_hosts_whose_reports_are_older_than_what_is_kept_are_told_of_and_not_stored(world: _World) -> None:
    world.store.maintain(NOW_NS)
    assert {report_at(world, f"kvm{n:02}", -3 * 86_400) for n in range(MACHINES_TOLD_MAX + 5)} == {"expired"}
    told = world.take()
    assert len(told) == MACHINES_TOLD_MAX
    assert {notice.code for notice in told} == {"host_clock_odd"}
    assert "1 are up to 259200 s old, which is more than is kept, and not stored" in told[0].message
    assert "25 hosts are so: see whether it is the clock of history" in told[0].message
