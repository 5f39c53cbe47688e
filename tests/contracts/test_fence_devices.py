"""What every set of fence devices must do. Another joins by a line in `PLANTS`."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from hypervisor_backends.fence_agents import FenceAgents
from hypervisor_backends.fencing import FenceAction, FenceAnswer, FenceDevices
from hypervisor_backends.memory_fencing import MemoryFenceDevices
from hypervisor_backends.shared_plant import SharedPlant
from tests.unit.hypervisor_backends.bench import VirtualScheduler
from tests.unit.hypervisor_backends.stand_in_agent import install

ANSWER_WITHIN_S = 30.0


def device_of(host: str) -> dict[str, str | int | float | bool]:
    return {"type": "simulated", "name": "ipmi-1", "plug": host}


def nothing_to_do() -> None:
    return None


class Plant:
    """Devices, the computers h1 and h2 that they switch, and time."""

    def __init__(
        self,
        devices: FenceDevices,
        scheduler: VirtualScheduler,
        runs: dict[str, bool],
        wait: Callable[[], None] = nothing_to_do,
    ) -> None:
        self.devices = devices
        self.scheduler = scheduler
        self.runs = runs
        self._wait = wait

    def ask(
        self,
        action: FenceAction,
        host: str = "h1",
        device: dict[str, str | int | float | bool] | None = None,
    ) -> FenceAnswer:
        answers: list[FenceAnswer] = []
        self.devices.submit(device_of(host) if device is None else device, host, action, answers.append)
        self.scheduler.advance(60)
        self._wait()
        assert len(answers) == 1
        return answers[0]


def memory(_: Path) -> Iterator[Plant]:
    scheduler = VirtualScheduler()
    runs = {"h1": True, "h2": True}
    yield Plant(MemoryFenceDevices(runs.__setitem__, runs.__getitem__, scheduler), scheduler, runs)


def shared_plant(directory: Path) -> Iterator[Plant]:
    """The proxy's process and that of the hosts have the file open each for itself."""
    scheduler = VirtualScheduler()
    runs: dict[str, bool] = {}
    of_hosts, of_proxy = SharedPlant(directory / "plant.sqlite"), SharedPlant(directory / "plant.sqlite")
    sockets = {host: of_hosts.power(host) for host in ("h1", "h2")}
    for host, socket in sockets.items():
        socket.plug_in(scheduler, partial(runs.__setitem__, host))
    yield Plant(of_proxy.fence_devices(), scheduler, runs)
    for socket in sockets.values():
        socket.unplug()
    of_hosts.close()
    of_proxy.close()


def fence_agents(directory: Path) -> Iterator[Plant]:
    """A program in the place of the distribution's, which switches files on and off."""
    posted: queue.Queue[Callable[[], None]] = queue.Queue()
    runs = {"h1": True, "h2": True}
    for host in runs:
        (directory / host).write_text("on")
    install(directory, "fence_simulated", directory)
    devices = FenceAgents(posted.put, directory)

    def wait() -> None:
        posted.get(timeout=ANSWER_WITHIN_S)()
        runs.update({host: (directory / host).read_text() == "on" for host in runs})

    yield Plant(devices, VirtualScheduler(), runs, wait)
    devices.close()


PLANTS: dict[str, Callable[[Path], Iterator[Plant]]] = {
    "memory": memory,
    "shared_plant": shared_plant,
    "fence_agents": fence_agents,
}


@pytest.fixture(params=sorted(PLANTS))
def plant(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Plant]:
    yield from PLANTS[request.param](tmp_path)


def test_status_of_a_host_that_nobody_switched_is_on(plant: Plant) -> None:
    assert plant.ask("status") == FenceAnswer(ok=True, power="on")


def test_off_switches_that_host_alone_and_status_proves_it(plant: Plant) -> None:
    assert plant.ask("off").ok
    assert plant.runs == {"h1": False, "h2": True}
    assert plant.ask("status") == FenceAnswer(ok=True, power="off")
    assert plant.ask("status", "h2") == FenceAnswer(ok=True, power="on")


def test_on_after_off_runs_again(plant: Plant) -> None:
    plant.ask("off")
    assert plant.ask("on").ok
    assert plant.runs["h1"]
    assert plant.ask("status") == FenceAnswer(ok=True, power="on")


@pytest.mark.parametrize("action", ["on", "off"])
def test_order_repeated_succeeds(plant: Plant, action: FenceAction) -> None:
    assert plant.ask(action).ok
    assert plant.ask(action).ok
    assert plant.ask("status").power == action


@pytest.mark.parametrize("device", [{"type": "ipmilan"}, {}])
def test_unknown_type_is_answered_and_switches_nothing(
    plant: Plant, device: dict[str, str | int | float | bool]
) -> None:
    answer = plant.ask("off", device=device)
    assert not answer.ok
    assert "has the unknown type" in answer.message
    assert "host h1" in answer.message
    assert plant.runs["h1"]
