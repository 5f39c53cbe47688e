"""Samples wait for history's word: in order, again when nothing is heard, and dropped and told when too many."""

from __future__ import annotations

import itertools

import msgspec
import pytest

from actors.behaviour import Turn
from actors.sample_spool import LOSS_TOLD_EACH_S, REPORTS_IN_FLIGHT_MAX, SampleSpool
from olvm.history.samples import decode_batch
from olvm.model import messages as m
from olvm.model.config import Config
from olvm.model.errors import BadInput
from tests.builders import turn
from tests.unit.history.building import NOW_NS, vm_report, vm_sample

ROWS = 10
START_S = NOW_NS / 10**9


def report(seq: int, epoch: int = 4) -> bytes:
    samples = [vm_sample(f"vm-{n}") for n in range(ROWS)]
    return vm_report(*samples, host="H1", seq=seq, host_epoch=epoch, at_ns=NOW_NS + seq * 10**9)


def put(spool: SampleSpool, *seqs: int, epoch: int = 4, at_s: float = 0.0, rows_max: int = 50_000) -> Turn:
    done = turn(at_s=START_S + at_s, config=Config(samples_buffered_rows_max=rows_max))
    spool.put([report(seq, epoch) for seq in seqs], epoch, done)
    return done


def stored(spool: SampleSpool, *numbers: int, incarnation: int = 4, at_s: float = 0.0) -> Turn:
    done = turn(at_s=START_S + at_s)
    spool.on_stored(m.SamplesStored(incarnation, list(numbers)), done)
    return done


def sent(done: Turn) -> list[tuple[int, int]]:
    """Number and sequence of the reports of a turn."""
    found = []
    for to, message, is_durable in done.sent:
        assert (to, is_durable) == ("telemetry@telemetry", False)
        assert isinstance(message, m.Samples)
        assert message.incarnation == 4
        found.append((message.number, decode_batch(message.payload).seq))
    return found


def test_reports_are_sent_once_while_history_is_within_its_time() -> None:
    spool = SampleSpool("H1")
    assert sent(put(spool, 1, 2)) == [(1, 1), (2, 2)]
    assert sent(put(spool, 3, at_s=5)) == [(3, 3)]
    assert sent(stored(spool, 1, 2, 3, at_s=6)) == []
    done = turn(at_s=START_S + 100)
    spool.send(done)
    assert (done.sent, done.timers) == ([], [])


def test_reports_without_a_word_are_sent_again_in_order() -> None:
    spool = SampleSpool("H1")
    done = put(spool, 1, 2)
    (due_ns,) = [due for name, due in done.timers if name == "spool"]
    assert due_ns is not None
    stored(spool, 2, at_s=1)
    again = turn(at_s=due_ns / 10**9 + 1)
    spool.send(again)
    assert sent(again) == [(1, 1)]


def test_reports_on_their_way_are_fewer_than_the_window_of_history() -> None:
    spool = SampleSpool("H1")
    seqs = range(1, REPORTS_IN_FLIGHT_MAX + 11)
    assert [seq for _, seq in sent(put(spool, *seqs))] == list(seqs[:REPORTS_IN_FLIGHT_MAX])
    # However many of those after it history has: it counts from the oldest that history lacks, which is the third.
    assert sent(stored(spool, 1, 2, *range(4, 40))) == [
        (seq, seq) for seq in seqs[REPORTS_IN_FLIGHT_MAX:][:2]
    ]


def test_report_that_was_lost_is_sent_again_while_those_after_it_arrive() -> None:
    """Each of them once began its waiting anew: samplings that come sooner than its time then kept it back for ever."""
    spool = SampleSpool("H1")
    put(spool, 1)
    again = []
    for seq in range(2, 12):
        again += sent(put(spool, seq, at_s=5 * seq))
        stored(spool, seq, at_s=5 * seq + 1)
    assert [seq for _, seq in again].count(1) >= 3


def test_reports_of_a_restarted_agent_wait_for_those_before() -> None:
    spool = SampleSpool("H1")
    put(spool, 1)
    assert sent(put(spool, 2, epoch=5)) == []
    assert sent(stored(spool, 1)) == [(2, 2)]


def test_acknowledgement_of_another_life_is_nothing_to_this_one() -> None:
    spool = SampleSpool("H1")
    put(spool, 1)
    stored(spool, 1, incarnation=3)
    again = turn(at_s=START_S + 100)
    spool.send(again)
    assert sent(again) == [(1, 1)]


def test_too_many_samples_drop_the_oldest_and_say_so_when_history_is_back() -> None:
    spool = SampleSpool("H1")
    done = put(spool, 1, 2, 3, 4, 5, rows_max=3 * ROWS)
    assert (sent(done), done.events) == ([(3, 3), (4, 4), (5, 5)], [])
    (told,) = stored(spool, 3).events
    assert told.message.startswith(
        "20 samples of host H1 from 2027-01-15 08:00:01 UTC to 2027-01-15 08:00:02 UTC were dropped"
    )
    assert (told.code, told.severity, told.host) == ("samples_dropped", "warning", "H1")
    assert told.details == {
        "samples": 20,
        "reports": 2,
        "from_ns": NOW_NS + 10**9,
        "to_ns": NOW_NS + 2 * 10**9,
        "by": "agent",
    }
    assert stored(spool, 4).events == []


def test_long_loss_is_told_in_parts_that_do_not_overlap() -> None:
    spool = SampleSpool("H1")
    events = []
    for seq in range(1, 100):
        events += put(spool, seq, at_s=30 * seq, rows_max=ROWS).events
    assert 1 < len(events) <= 100 * 30 / LOSS_TOLD_EACH_S + 1
    events += stored(spool, 99, at_s=3_000).events
    assert sum(event.details["samples"] for event in events) == 98 * ROWS  # type: ignore[misc]
    for before, after in itertools.pairwise(events):
        assert before.details["to_ns"] < after.details["from_ns"]  # type: ignore[operator]


def test_newest_report_is_kept_even_when_it_is_larger_than_the_bound() -> None:
    assert sent(put(SampleSpool("H1"), 1, 2, rows_max=1)) == [(2, 2)]


def test_bound_below_one_row_is_refused() -> None:
    with pytest.raises(BadInput, match="samples_buffered_rows_max"):
        Config(samples_buffered_rows_max=0)


def test_samples_of_an_agent_that_wants_no_word_have_no_number() -> None:
    assert msgspec.structs.asdict(m.Samples(b"batch")) == {"payload": b"batch", "incarnation": 0, "number": 0}
