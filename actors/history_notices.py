"""What history has to tell people: what was not believed, what was lost, what its disk and its clock do.

Decides when that becomes an event, and how often. A machine that lies on and on is told of once in `TOLD_AGAIN_S`, and
one look finds `MACHINES_TOLD_MAX` of them at most; the rest are counted in one event, and all are in the views
`untrusted_values` and `untrusted_guests`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec

from actors.telemetry import Notice
from olvm.history.host_clocks import OddClock
from olvm.history.port import History
from olvm.model.errors import OlvmError
from olvm.model.limits import NS_PER_S

log = logging.getLogger("olvm.history")

LOOK_EACH_S = 60
TOLD_AGAIN_S = 3600
MACHINES_TOLD_MAX = 20

# Who told what cannot be, since yesterday: so a look costs no more as days go by.
_CLIPPED = (
    "select vm_id, host_name, any_value(vm_name), sum(value_count)::BIGINT, string_agg(distinct column_name, ', '"
    " order by column_name) from untrusted_values"
    " where the_date >= make_timestamp($1)::DATE - 1 group by the_date, vm_id, host_name"
)
_DISCARDED = (
    "select vm_id, host_name, vm_name,"
    " lines_discarded + messages_unknown + messages_delayed + events_dropped + values_refused,"
    " format('{} lines that were no message, {} unknown messages, {} values that cannot be, {} times too fast,"
    " {} events too many', lines_discarded, messages_unknown, values_refused, messages_delayed, events_dropped)"
    " from untrusted_guests where host_name is not null"
    " and lines_discarded + messages_unknown + messages_delayed + events_dropped + values_refused > 0"
)


class _Told(msgspec.Struct):
    count: int = 0
    at_ns: int = 0


class HistoryNotices:
    """Of one life of a store. What was there when it was opened was told by the life before."""

    def __init__(self, store: History, now_ns: Callable[[], int]) -> None:
        self._store = store
        self._now_ns = now_ns
        self._looked_ns = now_ns()
        self._waiting: list[Notice] = []
        self._faults: set[str] = set()
        self._refused_count = 0
        self._refused_told = _Told()
        self._refused_why = ""
        self._told: dict[tuple[str, str | None, str], _Told] = {}
        self._clocks_told_ns: dict[str, int] = {}  # by host
        for what in ("clipped", "discarded"):
            for vm_id, host, _, count, _ in self._ask(what):
                self._told.setdefault((what, vm_id, host), _Told()).count += count

    def take(self) -> list[Notice]:
        """What is to be told now."""
        now_ns = self._now_ns()
        if now_ns - self._looked_ns >= LOOK_EACH_S * NS_PER_S:
            self._looked_ns = now_ns
            self._look("clipped", now_ns)
            self._look("discarded", now_ns)
            self._look_for_drops()
            self._look_for_refused(now_ns)
            self._look_at_clocks(now_ns)
        waiting, self._waiting = self._waiting, []
        return waiting

    def failed(self, what: str, code: str, message: str) -> None:
        """History could not do something; told once, until it succeeds."""
        if what not in self._faults:
            self._faults.add(what)
            self._waiting.append(Notice(code, message, "error"))

    def succeeded(self, what: str) -> None:
        self._faults.discard(what)

    def refused(self, why: str) -> None:
        """A report was no report."""
        self._refused_count += 1
        self._refused_why = why

    def clock_ahead(self, seconds: int) -> None:
        self._waiting.append(
            Notice(
                "history_clock_ahead",
                f"the clock of history is {seconds} s ahead of what history knows; what is old is erased slowly until"
                " it is caught up: set the clock right if it is wrong, and do nothing if this machine was off",
                details={"seconds": seconds},
            )
        )

    # ------------------------------------------------------------------ inside

    def _ask(self, what: str) -> list[tuple[str | None, str, str | None, int, str]]:
        try:
            if what == "clipped":
                rows = self._store.query(_CLIPPED, (self._now_ns() // 1000,)).rows
            else:
                rows = self._store.query(_DISCARDED).rows
        except OlvmError as error:
            log.warning("history: not looked for what cannot be believed: %s", error)
            return []
        return rows  # type: ignore[return-value]  # the columns of the two statements above

    def _look(self, what: str, now_ns: int) -> None:
        counts: dict[tuple[str, str | None, str], int] = {}
        words: dict[tuple[str, str | None, str], tuple[str | None, str]] = {}
        for vm_id, host, vm_name, count, said in self._ask(what):
            key = (what, vm_id, host)
            counts[key] = counts.get(key, 0) + count
            words[key] = (vm_name, said)
        news = []
        for key, count in counts.items():
            told = self._told.setdefault(key, _Told())
            if count < told.count:  # a channel's count began anew; of statistics, an old day is left out
                told.count = 0 if what == "discarded" else count
            if count > told.count and (told.at_ns == 0 or now_ns - told.at_ns >= TOLD_AGAIN_S * NS_PER_S):
                news.append((count - told.count, key))
                told.count, told.at_ns = count, now_ns
        for key in self._told.keys() - counts.keys():
            if key[0] == what:
                del self._told[key]
        news.sort(key=lambda one: (-one[0], str(one[1])))
        for count, key in news[:MACHINES_TOLD_MAX]:
            self._waiting.append(_notice(what, key[1], key[2], *words[key], count))
        rest = news[MACHINES_TOLD_MAX:]
        if rest:
            total = sum(count for count, _ in rest)
            self._waiting.append(
                Notice(
                    f"values_{what}",
                    f"{len(rest)} more machines and hosts told {total} values or lines that cannot be believed;"
                    " ask untrusted_values and untrusted_guests",
                    details={"count": total, "machines": len(rest)},
                )
            )

    def _look_for_drops(self) -> None:
        dropped = self._store.take_dropped()
        if dropped is not None:
            count, from_ns, to_ns = dropped
            self._waiting.append(
                Notice(
                    "samples_dropped",
                    f"{count} samples were dropped by history: its disk took nothing for too long; make room there",
                    "error",
                    details={"samples": count, "from_ns": from_ns, "to_ns": to_ns, "by": "history"},
                )
            )

    def _look_at_clocks(self, now_ns: int) -> None:
        self._clocks_told_ns = {
            host: told_ns
            for host, told_ns in self._clocks_told_ns.items()
            if 0 <= now_ns - told_ns < TOLD_AGAIN_S * NS_PER_S
        }
        news = [odd for odd in self._store.take_odd_clocks() if odd.host not in self._clocks_told_ns]
        news.sort(key=lambda odd: (-max(odd.ahead_ns, odd.expired_ns), odd.host))
        for odd in news[:MACHINES_TOLD_MAX]:
            self._clocks_told_ns[odd.host] = now_ns
            self._waiting.append(_clock_notice(odd, len(news)))

    def _look_for_refused(self, now_ns: int) -> None:
        told = self._refused_told
        if self._refused_count > told.count and (
            told.at_ns == 0 or now_ns - told.at_ns >= TOLD_AGAIN_S * NS_PER_S
        ):
            count = self._refused_count - told.count
            self._waiting.append(
                Notice(
                    "reports_refused",
                    f"{count} reports of samples were refused: the last, because {self._refused_why}",
                    details={"count": count},
                )
            )
            told.count, told.at_ns = self._refused_count, now_ns


def _clock_notice(odd: OddClock, host_count: int) -> Notice:
    """`host_count` of hosts were found so at one look: of many, history's own clock is the likelier to be wrong."""
    who = f"host {odd.host}" if odd.host else "further hosts"
    words = []
    if odd.ahead_count:
        words.append(f"{odd.ahead_count} are stamped up to {odd.ahead_ns // NS_PER_S} s ahead, and stored so")
    if odd.expired_count:
        age_s = odd.expired_ns // NS_PER_S
        words.append(
            f"{odd.expired_count} are up to {age_s} s old, which is more than is kept, and not stored"
        )
    advice = "set its clock right, unless they waited so long for history"
    if host_count > 1:
        advice = f"{host_count} hosts are so: see whether it is the clock of history that is wrong"
    return Notice(
        "host_clock_odd",
        f"of the reports of {who}, {'; '.join(words)}; {advice}",
        host=odd.host,
        details={
            "ahead": odd.ahead_count,
            "ahead_seconds": odd.ahead_ns // NS_PER_S,
            "expired": odd.expired_count,
            "expired_seconds": odd.expired_ns // NS_PER_S,
        },
    )


def _notice(what: str, vm_id: str | None, host: str, vm_name: str | None, said: str, count: int) -> Notice:
    who = f"VM {vm_name or vm_id} on host {host}" if vm_id else f"host {host}"
    if what == "clipped":
        message = f"{who} told {count} values that cannot be ({said}); the nearest that can be are stored"
    else:
        message = f"the guest of {who} said {count} things that were not taken: {said}"
    return Notice(
        f"values_{what}",
        message,
        host=host or "",
        vm_id=vm_id or "",
        vm_name=vm_name or "",
        details={"count": count},
    )
