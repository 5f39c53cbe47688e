"""Reports that wait to be stored, those of each kind oldest first, and which of them are stored together.

Decides which reports fill row groups. DuckDB keeps a table in row groups of `ROW_GROUP_ROWS`. Those that one
transaction fills exactly go straight into the file, once, and no checkpoint touches them again; what a transaction has
beyond them becomes a small row group that checkpoints merge with its neighbours, which writes these anew, and what is
less than one goes through the log (benchmarks/RESULTS.md has what each costs). So reports are picked whose rows add up
to that number. Kinds of which far less arrives go along: they fill none for a long time, and keep nothing waiting.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator
from itertools import accumulate, chain

from olvm.history.bounds import FILL_AGAIN_ROWS, FILL_WINDOW_REPORTS, ROW_GROUP_ROWS
from olvm.history.columns import KeyedBatch
from olvm.history.kinds import SampleKindName


class ReportBuffer:
    """`row_count`: of all of its reports.

    `pouring`: kinds that have filled row groups since the owner has cleared it.
    """

    def __init__(self) -> None:
        self._by_kind: defaultdict[SampleKindName, deque[KeyedBatch]] = defaultdict(deque)
        self.row_count = 0
        self.pouring: set[SampleKindName] = set()
        self._rows_by_kind: Counter[SampleKindName] = Counter()
        # Rows of a kind at which filling is tried: it is tried again only when there are some more to pick from.
        self._fill_at: dict[SampleKindName, int] = {}

    def __len__(self) -> int:
        return sum(map(len, self._by_kind.values()))

    def __iter__(self) -> Iterator[KeyedBatch]:
        return chain.from_iterable(self._by_kind.values())

    def add(self, keyed: KeyedBatch) -> bool:
        """Whether it is worth asking for `filling` now."""
        batch = keyed.batch
        self._by_kind[batch.kind].append(keyed)
        self.row_count += batch.row_count
        self._rows_by_kind[batch.kind] += batch.row_count
        return self._may_fill(batch.kind)

    def drop_oldest(self) -> KeyedBatch:
        """Take out the one with the earliest time, of those that came first of each kind."""
        oldest = min(filter(None, self._by_kind.values()), key=lambda of_kind: of_kind[0].batch.at_ns)
        dropped = oldest.popleft()
        self._count_out(dropped)
        return dropped

    def remove(self, stored: Iterable[KeyedBatch]) -> None:
        """Some that `filling` or iteration gave."""
        gone_by_kind: defaultdict[SampleKindName, set[int]] = defaultdict(set)
        for keyed in stored:
            gone_by_kind[keyed.batch.kind].add(id(keyed))
            self._count_out(keyed)
        for kind, gone in gone_by_kind.items():
            self._by_kind[kind] = deque([keyed for keyed in self._by_kind[kind] if id(keyed) not in gone])
        self._fill_at.clear()

    def filling(self) -> list[KeyedBatch]:
        """Reports whose rows fill row groups to the last, and those of kinds that are far from it; or none."""
        found = []
        for kind, rows in self._rows_by_kind.items():
            if self._may_fill(kind):
                picked = picked_to_fill(list(self._by_kind[kind]))
                self._fill_at[kind] = rows + FILL_AGAIN_ROWS
                if picked:
                    found += picked
                    self.pouring.add(kind)
        if not found:
            return []
        for kind, rows in self._rows_by_kind.items():
            if 2 * rows < ROW_GROUP_ROWS and kind not in self.pouring:
                found += self._by_kind[kind]
        return found

    def _may_fill(self, kind: SampleKindName) -> bool:
        rows = self._rows_by_kind[kind]
        return rows >= ROW_GROUP_ROWS and rows >= self._fill_at.get(kind, 0)

    def _count_out(self, keyed: KeyedBatch) -> None:
        self.row_count -= keyed.batch.row_count
        self._rows_by_kind[keyed.batch.kind] -= keyed.batch.row_count


def picked_to_fill(reports: list[KeyedBatch]) -> list[KeyedBatch]:
    """Some of the reports with a multiple of `ROW_GROUP_ROWS` rows; none if there are no such.

    Rule: of one host the oldest are picked. A report that its host's later ones overtook on the way to the disk might
    be taken for a late one when it is sent again after a crash (`ReportWindows`).

    All but a few are taken in order. Of `FILL_WINDOW_REPORTS` before and after the place where the rows are enough, a
    choice is searched that makes the number exact: how many of each host, with the sums that can be reached as bits of
    one integer (Bellman's dynamic programme for subset sums, 1957). One host alone, or hosts whose reports all have
    the same rows, may have none.
    """
    sums = list(accumulate(keyed.batch.row_count for keyed in reports))
    wanted = sums[-1] // ROW_GROUP_ROWS * ROW_GROUP_ROWS if sums else 0
    if not wanted:
        return []
    enough = next(place for place, rows in enumerate(sums) if rows >= wanted)
    first = max(0, enough - FILL_WINDOW_REPORTS)
    by_host: dict[int, list[KeyedBatch]] = {}
    for keyed in reports[first : enough + FILL_WINDOW_REPORTS]:
        by_host.setdefault(keyed.host_key, []).append(keyed)
    choices = [[0, *accumulate(keyed.batch.row_count for keyed in of_host)] for of_host in by_host.values()]
    reached = [1]  # by some choice for so many hosts; bit n: it has n rows
    for rows_of_oldest in choices:
        together = 0
        for rows in rows_of_oldest:
            together |= reached[-1] << rows
        reached.append(together)
    missing = wanted - (sums[first - 1] if first else 0)
    if not reached[-1] >> missing & 1:
        return []
    picked = reports[:first]
    for place, of_host in reversed(list(enumerate(by_host.values()))):
        count = next(
            count
            for count, rows in enumerate(choices[place])
            if rows <= missing and reached[place] >> (missing - rows) & 1
        )
        picked += of_host[:count]
        missing -= choices[place][count]
    return picked
