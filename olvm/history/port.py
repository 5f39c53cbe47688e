"""What the telemetry silo needs of history, and nothing of how it is kept.

Rules that every implementation holds (tests/contracts/test_history.py):

1. What `commit` has returned for is on the disk. What is not stays buffered and is tried again by the next commit, and
   may be on the disk all the same.
2. A report is counted once, an event once by its number, an operation once by its id.
3. Events of one log are taken in sequence, without a gap; operations in the order of their ends.
4. What is buffered may be put on the disk before anybody asks for it, all or some of it: of one host's reports of one
   kind never a newer one before an older.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Protocol

from olvm.history.guest_rows import GuestFacts
from olvm.history.host_clocks import OddClock
from olvm.history.reports import Verdict
from olvm.history.rows import ConfigurationChange
from olvm.model.records import EventRecord, OperationRecord
from olvm.model.table import QueryResult


class History(Protocol):
    """See the module, and `olvm.history.store.HistoryStore` for what each costs and raises."""

    clock_ahead_ns: int
    is_behind: bool

    def add_samples(self, payload: bytes, now_ns: int | None = None) -> Verdict | Literal["expired"]: ...

    def add_guest_facts(self, facts: Iterable[GuestFacts]) -> None: ...

    def add_events(self, source: str, events: Iterable[EventRecord], *, first_kept_seq: int = 1) -> int: ...

    def add_operations(self, operations: Iterable[OperationRecord], log: str = ...) -> int: ...

    def add_configuration(self, changes: Iterable[ConfigurationChange]) -> None: ...

    def event_cursor(self, source: str) -> int: ...

    def commit(self) -> None: ...

    def maintain(self, now_ns: int, elapsed_ns: int | None = None) -> int: ...

    def query(self, sql: str, parameters: tuple[object, ...] = ()) -> QueryResult: ...

    def take_dropped(self) -> tuple[int, int, int] | None: ...

    def take_odd_clocks(self) -> list[OddClock]: ...
