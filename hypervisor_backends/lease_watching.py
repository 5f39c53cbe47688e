"""What a lease keeper watches with: a store that always answers in time, and how long a counter stood still."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

from hypervisor_backends.leases import (
    HostLease,
    LeaseDone,
    LeaseFailed,
    LeaseRequest,
    LeaseResult,
    LeaseStore,
)
from hypervisor_backends.protocol import Cancel, Scheduler
from olvm.model.limits import NS_PER_S

HostVerdict: TypeAlias = Literal["live", "dead", "watch"]


class Standstill:
    """Host leases that are watched, and since when each has stood at the value that was seen first."""

    def __init__(self, wait_ns: int) -> None:
        self._wait_ns = wait_ns
        self._first_by_host: dict[str, tuple[tuple[str, int], int]] = {}

    def judge(self, host: str, lease: HostLease | None, asked_ns: int, answered_ns: int) -> HostVerdict:
        """Take one more reading, which took effect somewhere between `asked_ns` and `answered_ns` of our clock.

        So the first value may be as young as its answer, and the last one as old as its question.
        """
        value = ("", 0) if lease is None else (lease.boot_id, lease.counter)
        first = self._first_by_host.setdefault(host, (value, answered_ns))
        if value != first[0]:
            return "live"
        return "dead" if asked_ns - first[1] >= self._wait_ns else "watch"

    def next_ns(self, poll_ns: int) -> int:
        """When to read next: at `poll_ns`, or earlier if all that is watched will have stood for the whole wait."""
        return min(poll_ns, max(since_ns for _, since_ns in self._first_by_host.values()) + self._wait_ns)


class TimedStore:
    """A store with a time-out: each call is answered once, and what comes after its time is ignored."""

    def __init__(self, host: str, store: LeaseStore, scheduler: Scheduler, *, timeout_ns: int) -> None:
        self._host = host
        self._store = store
        self._scheduler = scheduler
        self._timeout_ns = timeout_ns
        self._asked = 0
        self._timers: dict[int, Cancel] = {}
        self._closed = False

    def now_ns(self) -> int:
        return self._scheduler.now_ns()

    def at(self, due_ns: int, fn: Callable[[], None]) -> None:
        if not self._closed:
            self._start_timer(due_ns, fn)

    def ask(self, request: LeaseRequest, done: LeaseDone) -> None:
        if self._closed:
            return

        def late() -> None:
            seconds = self._timeout_ns / NS_PER_S
            words = f"the shared storage of host {self._host} did not answer within {seconds:g} s"
            done(LeaseFailed(code="unreachable", message=words))

        number = self._start_timer(self.now_ns() + self._timeout_ns, late)

        def answered(result: LeaseResult) -> None:
            cancel = self._timers.pop(number, None)
            if cancel is not None:
                cancel()
                done(result)

        self._store.submit(request, answered)

    def _start_timer(self, due_ns: int, fn: Callable[[], None]) -> int:
        self._asked += 1
        number = self._asked

        def due() -> None:
            if self._timers.pop(number, None) is not None:
                fn()

        self._timers[number] = self._scheduler.call_at(due_ns, due)
        return number

    def close(self) -> None:
        self._closed = True
        for cancel in self._timers.values():
            cancel()
        self._timers.clear()
