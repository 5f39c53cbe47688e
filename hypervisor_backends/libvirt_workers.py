"""Threads that may hang: every call to libvirt runs on one of them, within a budget of time.

A call to libvirt cannot be interrupted: with a stopped QEMU behind it, it returns when that QEMU goes on, perhaps
never. So a worker whose time is over is *lost*: its caller is told, another thread takes its place, and its late answer
is told too, since what it says of the machine is news. Lost threads are bounded; at the bound new work is refused.

Invariants (owner's thread):
1. `then` is called at most once per job: with the result, or with `TIMED_OUT` or `REFUSED`. `late` is called at most
   once, only after `TIMED_OUT`.
2. After `close` neither is called.
"""

from __future__ import annotations

import queue
import threading
from collections import Counter
from collections.abc import Callable
from enum import Enum
from typing import Protocol, TypeAlias

import libvirt

from hypervisor_backends.protocol import Cancel, Scheduler
from hypervisor_backends.real_time import Post
from olvm.model.errors import OlvmError
from olvm.model.limits import NS_PER_S

THREADS_MAX = 32  # that are not lost; calls beyond them wait
QUEUED_MAX = 10_000


class NoResult(Enum):
    TIMED_OUT = "timed out"  # it was begun, and may still come to its end
    REFUSED = "refused"  # it was not begun
    FAULT = "fault"  # a fault of ours, which the thread has told


TIMED_OUT, REFUSED, FAULT = NoResult.TIMED_OUT, NoResult.REFUSED, NoResult.FAULT
# What a world can do to a call; anything else is a programmer's fault, ends the thread and is told by it.
Fault: TypeAlias = libvirt.libvirtError | OlvmError | OSError
FAULTS: tuple[type[Exception], ...] = (libvirt.libvirtError, OlvmError, OSError)
Then: TypeAlias = Callable[[object], None]


class Workers(Protocol):
    def run(
        self, fn: Callable[[], object], budget_s: float | None, then: Then, late: Then | None = None
    ) -> None:
        """Run `fn` elsewhere; `then` gets what it returned, or the error that it raised, on the owner's thread."""

    @property
    def busy_count(self) -> int:
        """Jobs whose `then` is still to come."""

    def close(self) -> None: ...


class _Job:
    __slots__ = ("budget_s", "cancel", "fn", "is_over", "late", "then")

    def __init__(self, fn: Callable[[], object], then: Then, late: Then | None) -> None:
        self.fn = fn
        self.then = then
        self.late = late
        self.cancel: Cancel | None = None
        self.is_over = False  # `then` was called


class ThreadWorkers:
    """Called on the owner's thread alone."""

    def __init__(self, name: str, post: Post, timers: Scheduler, lost_max: int) -> None:
        self._name = name
        self._post = post
        self._timers = timers
        self._lost_max = lost_max
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread_count = 0
        self._open: set[_Job] = set()  # jobs that were begun or wait, lost ones too
        self._lost_count = 0
        self._closed = False

    @property
    def busy_count(self) -> int:
        return sum(not job.is_over for job in self._open)

    @property
    def lost_count(self) -> int:
        return self._lost_count

    def run(
        self, fn: Callable[[], object], budget_s: float | None, then: Then, late: Then | None = None
    ) -> None:
        job = _Job(fn, then, late)
        if self._closed:
            return
        if self._lost_count >= self._lost_max or len(self._open) >= QUEUED_MAX:
            self._post(lambda: self._finish(job, REFUSED))
            return
        self._open.add(job)
        if budget_s is None:  # it may take hours: a thread of its own, which no bound counts
            threading.Thread(target=self._work, args=(job,), name=f"{self._name}-long", daemon=True).start()
            return
        job.cancel = self._timers.call_at(
            self._timers.now_ns() + int(budget_s * NS_PER_S), lambda: self._give_up(job)
        )
        # Counted, not asked of the threads: a thread that is about to be free may not be relied on.
        if self._thread_count < min(THREADS_MAX + self._lost_count, len(self._open)):
            self._thread_count += 1
            threading.Thread(target=self._serve, name=f"{self._name}-worker", daemon=True).start()
        self._jobs.put(job)

    def close(self) -> None:
        self._closed = True
        for job in self._open:
            if job.cancel is not None:
                job.cancel()
        self._open.clear()
        for _ in range(self._thread_count):
            self._jobs.put(None)

    # ------------------------------------------------------------ on the worker's thread

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._work(job)

    def _work(self, job: _Job) -> None:
        result: object = FAULT
        try:
            result = job.fn()
        except FAULTS as error:
            result = _value_of(error)
        finally:
            self._post(lambda: self._on_result(job, result))

    # ------------------------------------------------------------ on the owner's thread

    def _give_up(self, job: _Job) -> None:
        self._lost_count += 1
        self._finish(job, TIMED_OUT)

    def _on_result(self, job: _Job, result: object) -> None:
        if job not in self._open:
            return  # closed meanwhile
        self._open.discard(job)
        if result is FAULT and job.cancel is not None:
            self._thread_count -= 1  # the fault has ended the thread
        if not job.is_over:
            if job.cancel is not None:
                job.cancel()
            self._finish(job, result)
            return
        self._lost_count -= 1
        if job.late is not None:
            job.late(result)

    def _finish(self, job: _Job, result: object) -> None:
        if not self._closed and not job.is_over:
            job.is_over = True
            job.then(result)


class InlineWorkers:
    """For a hypervisor that never hangs (`test:///`): the work is done at once, its end is told a moment later."""

    def __init__(self, timers: Scheduler) -> None:
        self._timers = timers
        self._waiting: dict[int, Cancel] = {}
        self._asked = 0

    @property
    def busy_count(self) -> int:
        return len(self._waiting)

    def run(
        self, fn: Callable[[], object], budget_s: float | None, then: Then, late: Then | None = None
    ) -> None:
        del budget_s, late
        result: object
        try:
            result = fn()
        except FAULTS as error:
            result = _value_of(error)
        self._asked += 1
        number = self._asked

        def tell() -> None:
            del self._waiting[number]
            then(result)

        self._waiting[number] = self._timers.call_at(self._timers.now_ns(), tell)

    def close(self) -> None:
        for cancel in self._waiting.values():
            cancel()
        self._waiting.clear()


def _value_of(fault: Exception) -> Exception:
    """From here on it is a value. With its traceback it would hold this frame, which holds it: a cycle that keeps the
    call's connection and domains until Python's collector comes by."""
    return fault.with_traceback(None)


class Lanes:
    """One call at a time for each machine, in the order they were asked for; and past them what ends it.

    A lane one of whose calls timed out is blocked until that call returns: what comes meanwhile is refused at once, so
    that a machine that hangs holds one worker and not one a call.
    """

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._waiting: dict[
            str, list[tuple[Callable[[], object], float | None, Then]]
        ] = {}  # never an empty one
        self._running: set[str] = set()
        self._passing: Counter[str] = Counter()  # never of none, as the next one
        self._blocked: Counter[str] = Counter()
        # Told when a call that timed out comes back, so that the lane may be free again: what it gave, or, of one that
        # passed by, nothing.
        self.on_late: Callable[[str, object], None] = lambda _key, _result: None
        self.on_late_pass: Callable[[str], None] = lambda _key: None

    def is_blocked(self, key: str) -> bool:
        return key in self._blocked

    def is_busy(self, key: str) -> bool:
        return key in self._running or key in self._waiting or key in self._passing

    def run(self, key: str, fn: Callable[[], object], budget_s: float | None, then: Then) -> None:
        if key in self._blocked:
            then(REFUSED)
            return
        self._waiting.setdefault(key, []).append((fn, budget_s, then))
        self._go_on(key)

    def pass_by(self, key: str, fn: Callable[[], object], budget_s: float, then: Then) -> None:
        """At once, whatever runs on the lane or blocks it; nothing else of the machine is begun before it is over.

        What ends a machine takes its definition away and kills its processes, by names that its next life has too.
        """
        self._passing[key] += 1

        def end(result: object) -> None:
            _count_down(self._passing, key)
            refused = self._block(key) if result is TIMED_OUT else []
            then(result)
            for waiting in refused:
                waiting(REFUSED)
            self._go_on(key)

        def late(_result: object) -> None:
            _count_down(self._blocked, key)
            self.on_late_pass(key)

        self._workers.run(fn, budget_s, end, late)

    def _go_on(self, key: str) -> None:
        if key in self._running or key in self._passing or key not in self._waiting:
            return
        fn, budget_s, then = self._waiting[key].pop(0)
        if not self._waiting[key]:
            del self._waiting[key]
        self._running.add(key)
        self._workers.run(
            fn,
            budget_s,
            lambda result: self._on_end(key, then, result),
            lambda result: self._on_late(key, result),
        )

    def _on_end(self, key: str, then: Then, result: object) -> None:
        self._running.discard(key)
        if result is TIMED_OUT:
            refused = self._block(key)
            then(result)
            for waiting in refused:
                waiting(REFUSED)
            return
        self._go_on(key)
        then(result)

    def _block(self, key: str) -> list[Then]:
        """Whoever waited is to be told that it was refused."""
        self._blocked[key] += 1
        return [then for _, _, then in self._waiting.pop(key, [])]

    def _on_late(self, key: str, result: object) -> None:
        _count_down(self._blocked, key)
        self.on_late(key, result)


def _count_down(counter: Counter[str], key: str) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
