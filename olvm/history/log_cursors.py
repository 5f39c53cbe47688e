"""How far history holds the logs of other silos, and what of a page of them is new.

Decides what is taken. A log of events is numbered, and its cursor is the last number; a log of operations goes by the
times of their ends, which several may share, so beside the time the ids of those that ended then are remembered. After
a restart these are not known: what comes once more is then sorted out by its id, where it is stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from olvm.model.records import EventRecord, OperationRecord


class LogCursors:
    """`taken`: buffered or on the disk; `committed`: on the disk. By log."""

    def __init__(self) -> None:
        self.taken: dict[str, int] = {}
        self.committed: dict[str, int] = {}
        self._newest_operations: set[str] = set()  # those that ended at the cursor of their log

    @property
    def are_ahead(self) -> bool:
        """Whether anything was taken that is not on the disk."""
        return self.taken != self.committed

    def new_events(
        self, log: str, events: Iterable[EventRecord], first_kept_seq: int, count_max: int
    ) -> list[EventRecord]:
        """Those that follow what was taken, without a gap; they count as taken.

        `first_kept_seq`: the log has erased everything before it, so a gap up to there is no fault.
        """
        taken = max(self.taken.get(log, 0), first_kept_seq - 1)
        new: list[EventRecord] = []
        for event in sorted(events, key=lambda event: event.seq):
            if event.seq <= taken:
                continue
            if event.seq > taken + 1 or len(new) >= count_max:
                break
            new.append(event)
            taken = event.seq
        self.taken[log] = taken
        return new

    def new_operations(
        self, log: str, operations: Iterable[OperationRecord], count_max: int
    ) -> list[OperationRecord]:
        """Those that ended at the cursor or later and are not known, by their ends; they count as taken."""
        taken_ns, newest = self.taken.get(log, 0), self._newest_operations
        new: list[OperationRecord] = []
        for operation in operations:
            end_ns = operation.finished_ns
            assert end_ns is not None, f"operation {operation.id} has not ended"
            if end_ns < taken_ns or operation.id in newest:
                continue
            if len(new) >= count_max:
                break
            new.append(operation)
            if end_ns > taken_ns:
                taken_ns = end_ns
                newest.clear()
            newest.add(operation.id)
        self.taken[log] = taken_ns
        return new

    def commit(self) -> None:
        """All that was taken is on the disk."""
        self.committed = dict(self.taken)

    def read(self, committed: Mapping[str, int]) -> None:
        """The disk holds this; what is buffered beyond it stays taken."""
        self.committed = dict(committed)
        for log, cursor in committed.items():
            self.taken[log] = max(self.taken.get(log, 0), cursor)
