"""Samples of one host that history has not yet said it has: kept, sent, sent again, and dropped when too many.

Decides which reports are on their way and which go when there is no room. Rules:
1. A report leaves only when the telemetry silo says that it is on disk there, or when it is dropped.
2. They are sent in order, at most `REPORTS_IN_FLIGHT_MAX` ahead of the oldest that is not acknowledged, and of one host
   epoch at a time: history knows a repetition by a window of that many reports (`olvm.history.reports`), so none comes
   too late. The oldest is sent again when it was not acknowledged in time, however those after it fare.
3. What is dropped is the oldest, and it is told as an event: how many samples, from when to when. That is never too
   few; a report that history had stored when it died, and had no time to acknowledge, may be among them.

It lives in memory: what a host silo that dies has not handed over is lost with it.
"""

from __future__ import annotations

import datetime as dt
from collections import deque

import msgspec

from actors.behaviour import Turn
from olvm.history.bounds import REPORT_WINDOW
from olvm.history.samples import BatchHeading, heading_of
from olvm.model import messages as m
from olvm.model.limits import NS_PER_S

TELEMETRY = "telemetry@telemetry"
TIMER = "spool"
REPORTS_IN_FLIGHT_MAX = 48
# History says what it has after each flush; after so many flushes without a word, it is sent again.
FLUSHES_WAITED_FOR = 5
LOSS_TOLD_EACH_S = 600

assert REPORTS_IN_FLIGHT_MAX < REPORT_WINDOW  # rule 2


class _Waiting(msgspec.Struct):
    number: int
    heading: BatchHeading
    payload: bytes
    sent_ns: int = 0  # last; 0: not yet


class _Loss(msgspec.Struct):
    """What was dropped and not yet told."""

    sample_count: int = 0
    report_count: int = 0
    from_ns: int = 0
    to_ns: int = 0
    told_ns: int = 0  # when a loss was told last, or this one began


class SampleSpool:
    def __init__(self, host: str) -> None:
        self._host = host
        self._waiting: deque[_Waiting] = deque()  # oldest first; the first `_sent_count` are in flight
        self._sent_count = 0
        self._row_count = 0
        self._number = 0
        # The host epoch of the first report names this object: numbers begin anew in a new process, which has a
        # higher one.
        self._incarnation = 0
        self._loss = _Loss()

    def put(self, payloads: list[bytes], host_epoch: int, turn: Turn) -> None:
        """Keep and send the reports of one sampling."""
        self._incarnation = self._incarnation or host_epoch
        for payload in payloads:
            self._number += 1
            heading = heading_of(payload)
            self._waiting.append(_Waiting(self._number, heading, payload))
            self._row_count += heading.row_count
        while self._row_count > turn.config.samples_buffered_rows_max and len(self._waiting) > 1:
            self._drop_oldest(turn)
        if turn.now_ns - self._loss.told_ns >= LOSS_TOLD_EACH_S * NS_PER_S:
            self._tell_loss(turn)
        self.send(turn)

    def send(self, turn: Turn) -> None:
        """Send what may be on its way and is not, and again what was not acknowledged in time."""
        waited_s = FLUSHES_WAITED_FOR * turn.config.history_flush_period_s
        if self._sent_count and turn.now_ns - self._waiting[0].sent_ns >= int(waited_s * NS_PER_S):
            self._sent_count = 0
        while self._sent_count < len(self._waiting):
            oldest, one = self._waiting[0], self._waiting[self._sent_count]
            if one.number - oldest.number >= REPORTS_IN_FLIGHT_MAX:
                break
            if one.heading.host_epoch != oldest.heading.host_epoch:
                break
            one.sent_ns = turn.now_ns
            turn.tell(TELEMETRY, m.Samples(one.payload, self._incarnation, one.number))
            self._sent_count += 1
        if self._waiting:
            turn.wake(TIMER, waited_s)

    def on_stored(self, message: m.SamplesStored, turn: Turn) -> None:
        """Forget what history has; an acknowledgement of another life is nothing to this one."""
        if message.incarnation != self._incarnation:
            return
        stored = frozenset(message.numbers)
        in_flight = [self._waiting.popleft() for _ in range(self._sent_count)]
        kept = [one for one in in_flight if one.number not in stored]
        self._row_count -= sum(one.heading.row_count for one in in_flight if one.number in stored)
        self._waiting.extendleft(reversed(kept))
        self._sent_count = len(kept)
        self._tell_loss(turn)
        self.send(turn)

    def _drop_oldest(self, turn: Turn) -> None:
        one = self._waiting.popleft()
        self._sent_count = max(self._sent_count - 1, 0)
        self._row_count -= one.heading.row_count
        loss = self._loss
        if loss.report_count == 0:
            loss.from_ns, loss.told_ns = one.heading.at_ns, turn.now_ns
        loss.report_count += 1
        loss.sample_count += one.heading.row_count
        loss.to_ns = one.heading.at_ns

    def _tell_loss(self, turn: Turn) -> None:
        loss = self._loss
        if loss.report_count == 0:
            return
        turn.record(
            "samples_dropped",
            f"{loss.sample_count} samples of host {self._host} from {_utc(loss.from_ns)} to {_utc(loss.to_ns)} were"
            " dropped: history did not take them, and the agent holds no more than samples_buffered_rows_max",
            "warning",
            host=self._host,
            details={
                "samples": loss.sample_count,
                "reports": loss.report_count,
                "from_ns": loss.from_ns,
                "to_ns": loss.to_ns,
                "by": "agent",
            },
        )
        self._loss = _Loss(told_ns=turn.now_ns)


def _utc(at_ns: int) -> str:
    return dt.datetime.fromtimestamp(at_ns // NS_PER_S, dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
