"""A turn is a transaction: what raises changes nothing, what is not committed never left."""

from __future__ import annotations

import logging

import pytest

from actors.behaviour import Behaviour, TimedRecord, Turn
from actors.silo import Silo
from actors.silo_ports import Records
from actors.wire import Envelope
from olvm.journal.memory_disk import MemoryDisk
from olvm.journal.memory_journal import MemoryJournal
from olvm.journal.replay import verify
from olvm.model import messages as m
from olvm.model.config import Config
from olvm.model.errors import JournalUnwritable
from olvm.model.limits import NS_PER_S
from olvm.model.records import ENGINE_RECORDS, EventRecord, HostRecord

ROGUES = ("recovered", "turn", "timer")


class Counter:
    """Counts heartbeats in `cpus`, asks for nothing else, and fails where it is told to."""

    address = "counter"

    def __init__(self, record: HostRecord, fails_on: str) -> None:
        self.record = record
        self.fails_on = fails_on

    def timed_record(self) -> TimedRecord | None:
        return self.record

    def handle(self, message: m.AnyMessage, turn: Turn) -> None:
        if isinstance(message, m.Recovered):
            assert self.fails_on != "recovered", "planted"
            return
        self.record.cpus += 1
        turn.save(self.record)
        turn.send("peer@host-9", m.StopAgent("told"))
        turn.reply(m.Refusal("done", str(self.record.cpus)))
        if isinstance(message, m.TimerFired):
            assert self.fails_on != "timer", "planted"
        elif isinstance(message, m.Heartbeat) and message.host == "arm":
            turn.set_timer(self.record, "lunch", 1.0)
        elif isinstance(message, m.Heartbeat):
            assert message.host != "bad", "planted"


class Heard:
    def __init__(self) -> None:
        self.replies: list[tuple[str, m.AnyMessage]] = []
        self.events: list[EventRecord] = []

    def on_reply(self, address: str, message: m.AnyMessage) -> None:
        self.replies.append((address, message))

    def on_committed(self, saved: Records, events: list[EventRecord]) -> None:
        self.events += events

    def on_released(self) -> None:
        pass


class Bench:
    def __init__(self, *, fails_on: str = "", disk: MemoryDisk | None = None) -> None:
        self.now_ns = NS_PER_S
        self.frames: list[tuple[str, bytes]] = []
        self.heard = Heard()
        self.disk = disk or MemoryDisk()
        self.journal = MemoryJournal(ENGINE_RECORDS, journal_id="engine-0", disk=self.disk)

        def cast(records: Records) -> list[Behaviour]:
            row = records.get(HostRecord, {}).get("counter") or HostRecord(name="counter", cluster="c")
            assert isinstance(row, HostRecord)
            return [Counter(row, fails_on)]

        self.silo = Silo(
            "engine",
            self.journal,
            cast,
            Config(),
            clock_ns=lambda: self.now_ns,
            transmit=lambda to, frame: self.frames.append((to, frame)),
        )
        self.silo.observer = self.heard

    def post(self, *hosts: str) -> None:
        for host in hosts:
            self.silo.post(Envelope("counter", "client/1", host, "", m.Heartbeat(host, 1, "b")))

    def stored(self) -> int:
        rows = MemoryJournal(ENGINE_RECORDS, journal_id="x", disk=self.disk).recover().records[HostRecord]
        row = rows.get("counter")
        return row.cpus if isinstance(row, HostRecord) else 0


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "olvm.silo")


def test_silo_turn_that_raises_changes_nothing_and_the_rest_of_its_batch_survives() -> None:
    bench = Bench()
    bench.post("good", "bad", "good")
    bench.silo.run_batch()
    assert bench.stored() == 2
    assert [reply.reason for _, reply in bench.heard.replies if isinstance(reply, m.Refusal)] == ["1", "2"]
    assert bench.silo.fault_count == 1
    assert len(bench.silo.links.outboxes["host-9"].waiting) == 2
    assert verify(bench.journal) == []


def test_silo_turn_that_raises_is_recorded_and_not_handled_again() -> None:
    bench = Bench()
    bench.post("bad")
    bench.silo.run_batch()
    bench.silo.run_batch()
    assert bench.silo.fault_count == 1
    (event,) = bench.heard.events
    assert (event.code, event.severity) == ("turn_failed", "alert")
    assert "counter could not handle Heartbeat" in event.message


def test_silo_timer_whose_turn_raises_does_not_fire_again() -> None:
    bench = Bench(fails_on="timer")
    bench.post("arm")
    bench.silo.run_batch()
    for _ in range(3):
        bench.now_ns += 2 * NS_PER_S
        bench.silo.run_batch()
    assert bench.silo.fault_count == 1
    assert bench.stored() == 1
    again = Bench(fails_on="timer", disk=bench.disk)
    again.now_ns = bench.now_ns
    again.silo.run_batch()
    assert again.silo.fault_count == 0


def test_silo_recovery_whose_turn_raises_ends() -> None:
    bench = Bench(fails_on="recovered")
    bench.post("good")
    bench.silo.run_batch()
    assert bench.silo.fault_count == 1
    assert bench.stored() == 1


@pytest.mark.parametrize("fault", ["write", "sync", "full"])
def test_silo_journal_unwritable_releases_nothing_and_later_goes_on(fault: str) -> None:
    bench = Bench()
    bench.post("good")
    bench.silo.run_batch()
    bench.frames.clear()
    bench.heard.replies.clear()
    bench.disk.write_error_count = fault == "write"
    bench.disk.sync_error_count = fault == "sync"
    bench.disk.capacity_bytes = bench.disk.used_bytes if fault == "full" else None
    bench.post("good", "good")
    with pytest.raises(JournalUnwritable):
        bench.silo.run_batch()
    assert (bench.frames, bench.heard.replies, bench.stored()) == ([], [], 1)
    bench.silo.give_up_batch("the disk is full")
    told = [reply for _, reply in bench.heard.replies]
    assert told == [m.Refusal("journal_unwritable", "the disk is full")] * 2
    assert bench.stored() == 1
    bench.disk.capacity_bytes = None
    bench.post("good")
    bench.silo.run_batch()
    assert bench.stored() == 2
    assert len(bench.silo.links.outboxes["host-9"].waiting) == 2


def test_silo_that_crashes_before_its_commit_leaves_no_trace() -> None:
    bench = Bench()
    bench.post("good")
    assert len(bench.disk) == 1
    again = Bench(disk=bench.disk)
    again.silo.run_batch()
    assert (again.stored(), again.frames, again.silo.links.outboxes) == (0, [], {})


def test_silo_that_crashes_after_its_commit_sends_again() -> None:
    bench = Bench()
    bench.post("good")
    bench.silo.run_batch()
    again = Bench(disk=bench.disk)
    again.silo.run_batch()
    assert [to for to, _ in again.frames] == ["host-9"]


def test_silo_timer_survives_a_restart() -> None:
    bench = Bench()
    bench.post("arm")
    bench.silo.run_batch()
    again = Bench(disk=bench.disk)
    again.now_ns += 2 * NS_PER_S
    again.silo.run_batch()
    assert again.stored() == 2


@pytest.mark.parametrize(
    "command", [m.CommandVm("op-1", "start"), m.TaskVm("op-1", m.VmTask("gone", "list_snapshots"))]
)
def test_silo_late_command_for_a_removed_actor_ends_its_operation(command: m.AnyMessage) -> None:
    bench = Bench()
    bench.silo.post(Envelope("vm/gone", "engine", "1", "", command))
    ended: list[m.AnyMessage] = []
    bench.silo.services["engine"] = lambda envelope: ended.append(envelope.message)
    bench.silo.run_batch()
    assert ended == [
        m.OperationEnded(
            "op-1", False, "vm/gone was removed before it could carry out the command", "not_found"
        )
    ]


def test_silo_actor_without_power_hears_first_that_it_is_back_and_then_what_others_said() -> None:
    bench = Bench()
    bench.post("arm")
    bench.silo.run_batch()
    bench.silo.hold("counter")
    bench.post("early")
    bench.silo.post(Envelope("counter", "hypervisor", "answer", "", m.CallEnded("open", True)))
    bench.now_ns += 2 * NS_PER_S  # its timer is due, and fires for nobody
    bench.silo.run_batch()
    assert (bench.stored(), len(bench.heard.replies)) == (1, 1)
    bench.silo.let_go("counter", m.Heartbeat("back", 1, "b"))
    bench.post("late")
    bench.silo.run_batch()
    assert bench.stored() == 4
    assert [to for to, _ in bench.heard.replies] == ["client/1"] * 3


def test_silo_actor_without_power_stays_so_when_the_silo_recovers() -> None:
    bench = Bench()
    bench.silo.hold("counter")
    bench.post("waits")
    bench.silo.give_up_batch("disk is full")
    bench.silo.run_batch()
    assert bench.stored() == 0
    bench.silo.let_go("counter", m.Heartbeat("back", 1, "b"))
    bench.silo.run_batch()
    assert bench.stored() == 2


def test_silo_actor_with_power_is_let_go_without_effect() -> None:
    bench = Bench()
    bench.silo.let_go("counter", m.Heartbeat("back", 1, "b"))
    bench.silo.run_batch()
    assert bench.stored() == 0


def test_silo_whose_computer_set_its_clock_back_keeps_its_deadlines() -> None:
    """Found by a campaign: a host stayed out of service for an hour longer than its deadline said."""
    bench = Bench()
    bench.now_ns = 4_000 * NS_PER_S
    bench.post("arm")
    bench.silo.run_batch()
    again = Bench(disk=bench.disk)  # at one second
    again.silo.run_batch()
    assert again.stored() == 1
    again.now_ns += NS_PER_S  # the timer's second has passed
    again.silo.run_batch()
    assert again.stored() == 2
    assert again.silo.now_ns() == 4_001 * NS_PER_S
