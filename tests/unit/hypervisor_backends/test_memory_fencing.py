"""How a fence device in memory fails, and that its status stays truthful."""

from __future__ import annotations

import pytest

from hypervisor_backends.fencing import FenceAction, FenceAnswer
from hypervisor_backends.memory_fencing import FenceFault, MemoryFenceDevices
from olvm.model.errors import BadInput
from tests.unit.hypervisor_backends.bench import VirtualScheduler


class Bench:
    def __init__(self) -> None:
        self.scheduler = VirtualScheduler()
        self.runs = {"h1": True, "h2": True}
        self.devices = MemoryFenceDevices(
            self.runs.__setitem__, self.runs.__getitem__, self.scheduler, device_timeout_s=20
        )

    def ask(self, action: FenceAction, host: str = "h1", device: str = "ipmi-1") -> list[FenceAnswer]:
        answers: list[FenceAnswer] = []
        self.devices.submit({"type": "simulated", "name": device}, host, action, answers.append)
        return answers


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_failing_device_does_nothing_and_says_so(bench: Bench) -> None:
    bench.devices.plant(FenceFault(kind="fails"))
    answers = bench.ask("off")
    assert [answer.ok for answer in answers] == [False]
    assert "refused off" in answers[0].message
    assert bench.runs["h1"]


def test_device_that_times_out_has_worked(bench: Bench) -> None:
    bench.devices.plant(FenceFault(kind="times_out"))
    answers = bench.ask("off")
    assert (bench.runs["h1"], answers) == (False, [])
    bench.scheduler.advance(21)
    assert [answer.ok for answer in answers] == [False]
    assert bench.ask("status") == [FenceAnswer(ok=True, power="off")]


def test_device_that_works_late_says_that_it_failed_first(bench: Bench) -> None:
    bench.devices.plant(FenceFault(kind="works_late", delay_s=30))
    answers = bench.ask("off")
    bench.scheduler.advance(21)
    assert [answer.ok for answer in answers] == [False]
    assert bench.ask("status")[0].power == "on"
    bench.scheduler.advance(10)
    assert (bench.runs["h1"], len(answers)) == (False, 1)


def test_lying_device_says_ok_and_only_the_status_tells(bench: Bench) -> None:
    bench.devices.plant(FenceFault(kind="lies", count=None))
    assert bench.ask("off") == [FenceAnswer(ok=True)]
    assert bench.runs["h1"]
    assert bench.ask("status") == [FenceAnswer(ok=True, power="on")]


def test_slow_device_answers_truly_when_it_is_done(bench: Bench) -> None:
    bench.devices.plant(FenceFault(kind="slow", delay_s=15))
    answers = bench.ask("off")
    bench.scheduler.advance(14)
    assert (bench.runs["h1"], answers) == (True, [])
    bench.scheduler.advance(2)
    assert (bench.runs["h1"], answers) == (False, [FenceAnswer(ok=True)])


def test_fault_strikes_its_host_device_and_action_as_often_as_it_says(bench: Bench) -> None:
    bench.devices.plant(FenceFault(kind="fails", host="h1", device="ipmi-1", action="off", count=2))
    assert bench.ask("off", "h2")[0].ok
    assert bench.ask("off", device="pdu")[0].ok
    assert bench.ask("status")[0].ok
    assert [bench.ask("off")[0].ok for _ in range(3)] == [False, False, True]


def test_cleared_device_works_again(bench: Bench) -> None:
    bench.devices.plant(FenceFault(kind="fails", count=None))
    bench.devices.clear()
    assert bench.ask("off")[0].ok


def test_status_that_lies_is_refused_as_outside_the_failure_model() -> None:
    with pytest.raises(BadInput, match="outside the failure model"):
        FenceFault(kind="lies", action="status")


@pytest.mark.parametrize("settings", [{"delay_s": -1.0}, {"count": 0}])
def test_impossible_fault_is_refused(settings: dict[str, float]) -> None:
    with pytest.raises(BadInput, match="delay_s >= 0 and count >= 1"):
        FenceFault(kind="slow", **settings)  # type: ignore[arg-type]
