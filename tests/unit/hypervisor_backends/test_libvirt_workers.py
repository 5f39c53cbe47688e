"""Workers that hang: who is told what, and that nobody waits for them."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator

import pytest

pytest.importorskip("libvirt", reason="libvirt-python is not installed (`make apt-libvirt`)")

from hypervisor_backends.libvirt_workers import REFUSED, TIMED_OUT, InlineWorkers, Lanes, ThreadWorkers
from hypervisor_backends.real_time import RealTime
from tests.unit.hypervisor_backends.bench import RealClock


class Hung:
    """A call that returns when it is let go."""

    def __init__(self, result: object = "late") -> None:
        self._go = threading.Event()
        self._result = result

    def __call__(self) -> object:
        assert self._go.wait(30)
        return self._result

    def let_go(self) -> None:
        self._go.set()


class Bench:
    def __init__(self, lost_max: int = 2) -> None:
        self.clock = RealClock()
        self.timers = RealTime("t", self.clock.post, self.clock.now_ns)
        self.workers = ThreadWorkers("t", self.clock.post, self.timers, lost_max)
        self.told: list[object] = []
        self.late: list[object] = []

    def run(self, fn: object, budget_s: float | None = 30.0) -> None:
        self.workers.run(fn, budget_s, self.told.append, self.late.append)  # type: ignore[arg-type]

    def wait_told(self, count: int) -> list[object]:
        assert self.clock.run_until(lambda: len(self.told) >= count, 20), self.told
        return self.told


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.workers.close()
    made.timers.close()


def test_workers_result_comes_on_the_owners_thread(bench: Bench) -> None:
    owner = threading.get_ident()
    threads: list[int] = []
    bench.workers.run(
        threading.get_ident, 30.0, lambda ran_on: threads.extend([ran_on, threading.get_ident()])
    )  # type: ignore[list-item]

    assert bench.clock.run_until(lambda: len(threads) == 2, 20)
    assert threads[0] != owner == threads[1]


def test_workers_error_of_the_world_is_a_result(bench: Bench) -> None:
    def fail() -> object:
        raise OSError("no such file")

    bench.run(fail)

    (error,) = bench.wait_told(1)
    assert isinstance(error, OSError)


def test_workers_failed_call_is_let_go_of_without_the_collector(bench: Bench) -> None:
    """What it had in hand, a connection say, would wait for the collector otherwise."""

    class InHand: ...

    held: list[weakref.ref[InHand]] = []

    def fail() -> object:
        in_hand = InHand()
        held.append(weakref.ref(in_hand))
        raise OSError("no such file")

    gc.disable()
    try:
        bench.run(fail)
        InlineWorkers(bench.timers).run(fail, 30.0, bench.told.append)
        bench.wait_told(2)
        assert bench.clock.run_until(lambda: all(ref() is None for ref in held), 20)
    finally:
        gc.enable()


def test_workers_call_over_its_budget_is_given_up_and_its_late_end_is_told(bench: Bench) -> None:
    hung = Hung()
    bench.run(hung, 0.05)

    assert bench.wait_told(1) == [TIMED_OUT]
    assert bench.workers.lost_count == 1
    assert bench.late == []
    hung.let_go()
    assert bench.clock.run_until(lambda: bench.late, 20)
    assert (bench.late, bench.told, bench.workers.lost_count) == (["late"], [TIMED_OUT], 0)


def test_workers_others_go_on_beside_one_that_hangs(bench: Bench) -> None:
    hung = Hung()
    bench.run(hung, 0.05)
    for number in range(50):
        bench.run(lambda number=number: number)  # type: ignore[misc]

    told = bench.wait_told(51)
    assert sorted(one for one in told if isinstance(one, int)) == list(range(50))
    hung.let_go()


def test_workers_at_the_bound_of_lost_ones_refuse_until_one_returns(bench: Bench) -> None:
    hung = [Hung(), Hung()]
    for one in hung:
        bench.run(one, 0.05)
    bench.wait_told(2)
    bench.run(lambda: "new")
    assert bench.wait_told(3)[2] is REFUSED

    hung[0].let_go()
    assert bench.clock.run_until(lambda: bench.workers.lost_count == 1, 20)
    bench.run(lambda: "new")
    assert bench.wait_told(4)[3] == "new"
    hung[1].let_go()


def test_workers_without_a_budget_wait_for_as_long_as_it_takes(bench: Bench) -> None:
    hung = Hung("done")
    bench.run(hung, None)
    bench.run(lambda: "other")

    assert bench.wait_told(1) == ["other"]
    hung.let_go()
    assert bench.wait_told(2) == ["other", "done"]


def test_workers_closed_tell_nothing_more(bench: Bench) -> None:
    hung = Hung()
    bench.run(hung)
    bench.workers.close()
    hung.let_go()
    bench.clock.pass_s(0.1)

    assert (bench.told, bench.late, bench.workers.busy_count) == ([], [], 0)


def test_lanes_run_one_call_at_a_time_in_order(bench: Bench) -> None:
    lanes = Lanes(bench.workers)
    hung = Hung("first")
    lanes.run("v1", hung, 30.0, bench.told.append)
    lanes.run("v1", lambda: "second", 30.0, bench.told.append)
    lanes.run("v2", lambda: "other", 30.0, bench.told.append)

    assert bench.wait_told(1) == ["other"]
    assert lanes.is_busy("v1")
    hung.let_go()
    assert bench.wait_told(3) == ["other", "first", "second"]
    assert not lanes.is_busy("v1")


def test_lanes_behind_a_call_that_hangs_are_refused_at_once_and_free_when_it_returns(bench: Bench) -> None:
    lanes = Lanes(bench.workers)
    late: list[tuple[str, object]] = []
    lanes.on_late = lambda key, result: late.append((key, result))
    hung = Hung()
    lanes.run("v1", hung, 0.05, bench.told.append)
    lanes.run("v1", lambda: "behind", 30.0, bench.told.append)

    assert bench.wait_told(2) == [TIMED_OUT, REFUSED]
    assert lanes.is_blocked("v1")
    lanes.run("v1", lambda: "later", 30.0, bench.told.append)
    assert bench.told[2] is REFUSED
    hung.let_go()
    assert bench.clock.run_until(lambda: late, 20)
    assert late == [("v1", "late")]
    lanes.run("v1", lambda: "again", 30.0, bench.told.append)
    assert bench.wait_told(4)[3] == "again"


def test_lanes_are_passed_by_at_once_and_begin_nothing_before_that_is_over(bench: Bench) -> None:
    lanes = Lanes(bench.workers)
    under_way, passing = Hung("under way"), Hung("passing")
    lanes.run("v1", under_way, 30.0, bench.told.append)
    lanes.pass_by("v1", passing, 30.0, bench.told.append)
    lanes.run("v1", lambda: "next life", 30.0, bench.told.append)
    under_way.let_go()
    assert bench.wait_told(1) == ["under way"]

    bench.clock.pass_s(0.1)
    assert bench.told == ["under way"]
    assert lanes.is_busy("v1")
    passing.let_go()
    assert bench.wait_told(3) == ["under way", "passing", "next life"]
    assert not lanes.is_busy("v1")


def test_lanes_passed_by_what_hangs_refuse_the_next_life_until_it_returns(bench: Bench) -> None:
    lanes = Lanes(bench.workers)
    late: list[str] = []
    lanes.on_late_pass = late.append
    passing, again = Hung(), Hung()
    lanes.pass_by("v1", passing, 0.05, bench.told.append)
    lanes.run("v1", lambda: "next life", 30.0, bench.told.append)
    assert bench.wait_told(2) == [TIMED_OUT, REFUSED]
    lanes.pass_by("v1", again, 0.05, bench.told.append)
    assert bench.wait_told(3)[2] is TIMED_OUT

    passing.let_go()
    assert bench.clock.run_until(lambda: late == ["v1"], 20)
    assert lanes.is_blocked("v1")  # by the other one
    again.let_go()
    assert bench.clock.run_until(lambda: late == ["v1", "v1"], 20)
    lanes.run("v1", lambda: "next life", 30.0, bench.told.append)
    assert bench.wait_told(4)[3] == "next life"


def test_real_time_calls_come_in_the_order_of_their_times_and_not_when_taken_back(bench: Bench) -> None:
    now_ns = bench.clock.now_ns()
    for number in (3, 1, 2):
        bench.timers.call_at(now_ns + number * 10_000_000, lambda number=number: bench.told.append(number))  # type: ignore[misc]
    cancel = bench.timers.call_at(now_ns, lambda: bench.told.append("taken back"))
    cancel()
    cancel()

    assert bench.wait_told(3) == [1, 2, 3]
    assert bench.timers.waiting_count == 0
