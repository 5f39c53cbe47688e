"""What may befall a call to the storage in memory: what the storage does, and what the host hears."""

from __future__ import annotations

import pytest

from hypervisor_backends.leases import HostLease, LeaseFailed, LeaseRequest, LeaseResult, RenewHostLease
from hypervisor_backends.memory_leases import Fate, MemoryLeases, StorageFaults
from olvm.model.errors import BadInput
from tests.unit.hypervisor_backends.bench import VirtualScheduler

RENEWAL = RenewHostLease(host="a", boot_id="b1")
FIRST = HostLease(host="a", boot_id="b1", counter=1)


class Bench:
    def __init__(self) -> None:
        self.scheduler = VirtualScheduler()
        self.faults = StorageFaults()
        self.leases = MemoryLeases(self.scheduler, self.faults)

    def submit(self, host: str = "a") -> list[LeaseResult]:
        heard: list[LeaseResult] = []
        self.leases.store(host).submit(RenewHostLease(host=host, boot_id="b1"), heard.append)
        return heard

    @property
    def worked(self) -> bool:
        return self.leases.host_lease("a") is not None


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_call_without_fault_is_answered_before_submit_returns(bench: Bench) -> None:
    assert bench.submit() == [FIRST]
    assert bench.scheduler.waiting_count == 0


def test_slow_storage_works_half_way_and_answers_at_the_end(bench: Bench) -> None:
    bench.faults.slow("a", 4.0)
    heard = bench.submit()
    bench.scheduler.advance(1.9)
    assert (bench.worked, heard) == (False, [])
    bench.scheduler.advance(0.2)
    assert (bench.worked, heard) == (True, [])
    bench.scheduler.advance(2)
    assert heard == [FIRST]


def test_cut_host_has_no_effect_and_no_answer_and_the_other_host_goes_on(bench: Bench) -> None:
    bench.faults.cut("a")
    heard = bench.submit()
    bench.scheduler.advance(1000)
    assert (bench.worked, heard) == (False, [])
    assert len(bench.submit("b")) == 1


def test_healed_host_is_served_again_and_what_hung_goes_on_hanging(bench: Bench) -> None:
    bench.faults.cut("a")
    bench.faults.slow("a", 4.0)
    hung = bench.submit()
    bench.faults.heal("a")
    assert bench.submit() == [FIRST]
    assert hung == []


def test_hanging_call_works_later_without_an_answer(bench: Bench) -> None:
    bench.faults.hang_next("a", effect_after_s=60)
    heard = bench.submit()
    bench.scheduler.advance(59)
    assert not bench.worked
    bench.scheduler.advance(2)
    assert (bench.worked, heard) == (True, [])


def test_lost_answer_worked_and_strikes_one_call(bench: Bench) -> None:
    bench.faults.lose_next_answer("a")
    assert bench.submit() == []
    assert bench.worked
    assert len(bench.submit()) == 1


def test_answer_before_the_effect_is_unreachable_and_the_effect_comes_all_the_same(bench: Bench) -> None:
    bench.faults.befall_next("a", Fate(effect_after_s=20, answer_after_s=5))
    heard = bench.submit()
    bench.scheduler.advance(6)
    assert [result.code for result in heard if isinstance(result, LeaseFailed)] == ["unreachable"]
    bench.scheduler.advance(20)
    assert (bench.worked, len(heard)) == (True, 1)


def test_queued_fates_strike_in_order_and_go_before_a_cut(bench: Bench) -> None:
    bench.faults.cut("a")
    bench.faults.befall_next("a", Fate())
    assert bench.submit() == [FIRST]
    assert bench.submit() == []


def test_simulator_decides_each_call_by_its_own_function() -> None:
    asked: list[tuple[str, LeaseRequest]] = []

    def befall(host: str, request: LeaseRequest) -> Fate:
        asked.append((host, request))
        return Fate(effect_after_s=None, answer_after_s=1)

    scheduler = VirtualScheduler()
    leases = MemoryLeases(scheduler, befall)
    heard: list[LeaseResult] = []
    leases.store("a").submit(RENEWAL, heard.append)
    scheduler.advance(2)

    assert asked == [("a", RENEWAL)]
    assert [type(result) for result in heard] == [LeaseFailed]
    assert leases.host_lease("a") is None


def test_fate_before_the_call_is_refused() -> None:
    with pytest.raises(BadInput, match="cannot end before it began"):
        Fate(effect_after_s=-1)
