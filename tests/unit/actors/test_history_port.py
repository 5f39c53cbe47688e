"""The way to the history file: what a flush answers, and what its faults are told as."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from actors.history_port import MAINTAIN_PERIOD_NS, HistoryPort
from actors.telemetry import REPORT_ID, Flush, Notice, ReportId, StoreOperations, StoreSamples
from actors.wire import Envelope
from olvm.history.bounds import REPORT_WINDOW
from olvm.history.store import HistoryStore
from olvm.model import messages as m
from olvm.model.errors import JournalUnwritable
from tests.unit.history.building import NOW_NS, vm_report

S = 10**9
YEAR_NS = 365 * 86_400 * S


class _Silo:
    """Takes what a port posts."""

    def __init__(self) -> None:
        self.posted: list[Envelope] = []

    def post(self, envelope: Envelope) -> None:
        self.posted.append(envelope)


class _Desk:
    def __init__(self, path: Path) -> None:
        self.now_ns = NOW_NS
        self.store = HistoryStore.open(path)
        self.open_port()

    def open_port(self) -> None:
        self.silo = _Silo()
        self.port = HistoryPort(self.silo, self.store, lambda: self.now_ns)  # type: ignore[arg-type]

    def ask(self, request: object, tag: str = "flush") -> list[m.CallEnded]:
        """The answers that are no notices."""
        first = len(self.silo.posted)
        self.port.submit("telemetry", request, tag)
        answers = [one.message for one in self.silo.posted[first:]]
        assert {one.to for one in self.silo.posted} <= {"telemetry"}
        return [one for one in answers if isinstance(one, m.CallEnded) and one.tag != "notice"]

    def notices(self) -> list[Notice]:
        told = [one.message for one in self.silo.posted]
        return [
            msgspec.msgpack.decode(one.value, type=Notice)
            for one in told
            if isinstance(one, m.CallEnded) and one.tag == "notice"
        ]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[_Desk]:
    made = _Desk(tmp_path / "history.duckdb")
    yield made
    made.store.close()


def test_flush_is_answered_when_its_samples_are_on_disk(desk: _Desk) -> None:
    assert desk.ask(StoreSamples(vm_report()), "samples") == []
    (answer,) = desk.ask(Flush())
    assert (answer.tag, answer.ok) == ("flush", True)
    assert desk.store.query("select count(*) from sample_reports").rows == [(1,)]


def test_report_that_comes_too_late_is_answered_as_such_and_one_that_comes_again_is_not(desk: _Desk) -> None:
    newest, late = ReportId("agent/H1", 1, 9), ReportId("agent/H1", 1, 2)
    for _ in range(2):
        assert desk.ask(StoreSamples(vm_report(seq=200), newest), "samples") == []
    (answer,) = desk.ask(StoreSamples(vm_report(seq=200 - REPORT_WINDOW), late), "samples")
    assert (answer.tag, answer.ok, REPORT_ID.decode(answer.value)) == ("samples", True, late)


def test_samples_that_are_no_report_do_not_fail_the_flush(desk: _Desk) -> None:
    assert desk.ask(StoreSamples(b"\xff" * 2**20), "samples") == []
    assert [answer.ok for answer in desk.ask(Flush())] == [True]
    desk.now_ns += 60 * S
    desk.ask(Flush())
    (notice,) = desk.notices()
    assert (notice.code, notice.details) == ("reports_refused", {"count": 1})


def test_disk_that_is_full_fails_the_flush_and_is_told_once(
    desk: _Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> None:
        raise JournalUnwritable("no room for a commit")

    desk.ask(StoreSamples(vm_report()), "samples")
    monkeypatch.setattr(desk.store, "commit", full)
    for _ in range(2):
        (answer,) = desk.ask(Flush())
        assert (answer.ok, answer.code) == (False, JournalUnwritable.code)
    monkeypatch.undo()
    assert [answer.ok for answer in desk.ask(Flush())] == [True]
    assert [(one.code, one.severity) for one in desk.notices()] == [("history_unwritable", "error")]
    assert desk.store.query("select count(*) from sample_reports").rows == [(1,)]


def test_pass_that_fails_does_not_fail_the_flush_whose_samples_are_on_disk(
    desk: _Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise JournalUnwritable("no room for a pass")

    monkeypatch.setattr(desk.store, "maintain", full)
    desk.ask(StoreSamples(vm_report()), "samples")
    for _ in range(2):
        desk.now_ns += MAINTAIN_PERIOD_NS + 1
        assert [answer.ok for answer in desk.ask(Flush())] == [True]
    assert [one.code for one in desk.notices()] == ["history_not_maintained"]


def test_clock_ten_years_ahead_for_a_minute_erases_nothing_and_is_told(desk: _Desk) -> None:
    desk.ask(StoreSamples(vm_report()), "samples")
    desk.now_ns += MAINTAIN_PERIOD_NS + 1
    desk.ask(Flush())
    assert desk.notices() == []
    desk.now_ns += 10 * YEAR_NS  # the silo is started with a clock that is wrong
    desk.open_port()
    desk.now_ns += MAINTAIN_PERIOD_NS + 1
    desk.ask(Flush())
    (notice,) = desk.notices()
    assert notice.code == "history_clock_ahead"
    assert notice.details["seconds"] == pytest.approx(10 * YEAR_NS // S, rel=0.001)
    desk.now_ns += MAINTAIN_PERIOD_NS + 1
    desk.ask(Flush())
    assert len(desk.notices()) == 1  # told once, while it lasts
    assert desk.store.query("select count(*) from vm_samples").rows == [(1,)]


def test_operations_are_answered_with_the_end_of_the_newest(desk: _Desk) -> None:
    rows = [
        {"id": f"op-{n}", "kind": "start", "target_kind": "vm", "target_id": "v", "target_name": "web"}
        | {"status": "succeeded", "finished_ns": NOW_NS + n}
        for n in (1, 2)
    ]
    (answer,) = desk.ask(StoreOperations("engine", msgspec.msgpack.encode(rows)), "operations")
    assert msgspec.msgpack.decode(answer.value) == NOW_NS + 2
