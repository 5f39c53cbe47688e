"""Fence agents as programs: the real fence_redfish against a power device of ours, and scripts that misbehave."""

from __future__ import annotations

import os
import queue
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hypervisor_backends.fence_agents import FenceAgents, prepare
from hypervisor_backends.fencing import FenceAction, FenceAnswer
from olvm.model.errors import BadInput
from tests.unit.hypervisor_backends.redfish import PowerDevice

Settings = dict[str, str | int | float | bool]
HAS_REDFISH = shutil.which("fence_redfish", path="/usr/sbin") is not None
needs_redfish = pytest.mark.skipif(
    not HAS_REDFISH and not os.environ.get("CI"), reason="fence_redfish is missing: apt install fence-agents"
)


class Proxy:
    def __init__(self, timeout_s: float = 30.0) -> None:
        self._posted: queue.Queue[Callable[[], None]] = queue.Queue()
        self._agents = FenceAgents(self._posted.put, timeout_s=timeout_s)

    def ask(self, device: Settings, action: FenceAction) -> FenceAnswer:
        answers: list[FenceAnswer] = []
        self._agents.submit(device, "kvm00", action, answers.append)
        while not answers:
            self._posted.get(timeout=60)()
        return answers[0]


@pytest.fixture
def bmc(tmp_path: Path) -> Iterator[PowerDevice]:
    device = PowerDevice(tmp_path)
    yield device
    device.close()


def redfish(bmc: PowerDevice, **more: str | int) -> Settings:
    base: Settings = {
        "type": "fence_redfish",
        "ip": "127.0.0.1",
        "ipport": bmc.port,
        "username": bmc.username,
        "password": bmc.password,
        "systems_uri": "/redfish/v1/Systems/1",
        "ssl_insecure": 1,
        "power_timeout": 3,
        "shell_timeout": 3,
    }
    return base | more


@needs_redfish
def test_computer_behind_redfish_is_switched_off_and_on(bmc: PowerDevice) -> None:
    proxy, device = Proxy(), redfish(bmc)
    assert proxy.ask(device, "status") == FenceAnswer(ok=True, power="on")
    assert proxy.ask(device, "off").ok
    assert bmc.power == "Off"
    assert proxy.ask(device, "status") == FenceAnswer(ok=True, power="off")
    assert proxy.ask(redfish(bmc, type="redfish"), "on").ok
    assert bmc.power == "On"


@needs_redfish
def test_wrong_password_fails_and_is_not_told(bmc: PowerDevice) -> None:
    answer = Proxy().ask(redfish(bmc, password="wr0ng-word"), "status")
    assert not answer.ok
    assert "wr0ng-word" not in answer.message


@needs_redfish
def test_device_that_takes_orders_and_does_nothing_is_found_out(bmc: PowerDevice) -> None:
    bmc.mood = "lies"
    proxy, device = Proxy(), redfish(bmc)
    assert not proxy.ask(device, "off").ok
    assert bmc.orders
    assert proxy.ask(device, "status").power == "on", "only the status proves anything"


@needs_redfish
def test_device_that_hangs_ends_in_a_failure_within_its_time(bmc: PowerDevice) -> None:
    bmc.mood = "hangs"
    answer = Proxy(timeout_s=1.0).ask(redfish(bmc), "off")
    assert not answer.ok
    assert "may have switched it" in answer.message


def script(directory: Path, body: str) -> Settings:
    file = directory / "fence_script"
    file.write_text(f"#!/bin/sh\n{body}\n")
    file.chmod(0o755)
    return {"type": "script", "agent_directory": str(directory)}


def test_options_are_read_and_never_on_the_command_line(tmp_path: Path) -> None:
    device = script(tmp_path, f'cat > {tmp_path}/read; echo "$#" > {tmp_path}/count')
    (tmp_path / "secret").write_text("hush\n")
    device |= {"ip": "10.0.0.1", "lanplus": True, "password_file": str(tmp_path / "secret")}
    assert Proxy().ask(device, "on").ok
    assert (tmp_path / "count").read_text() == "0\n"
    assert (tmp_path / "read").read_text() == "action=on\nip=10.0.0.1\nlanplus=1\npassword=hush\n"


def test_what_a_failed_agent_says_is_told_without_its_password(tmp_path: Path) -> None:
    device = script(tmp_path, "cat; exit 1") | {"password": "hush"}
    answer = Proxy().ask(device, "off")
    assert not answer.ok
    assert "hush" not in answer.message
    assert "action=off" in answer.message


@pytest.mark.parametrize(("code", "power"), [(0, "on"), (2, "off")])
def test_status_is_the_exit_code(tmp_path: Path, code: int, power: str) -> None:
    answer = Proxy().ask(script(tmp_path, f"exit {code}"), "status")
    assert (answer.ok, answer.power) == (True, power)


def test_exit_code_of_off_is_no_status(tmp_path: Path) -> None:
    assert not Proxy().ask(script(tmp_path, "exit 2"), "off").ok


@pytest.mark.parametrize(
    ("device", "word"),
    [
        ({"type": "../../bin/sh"}, "name of a fence agent"),
        ({"type": "fence_that_nobody_wrote"}, "there is no"),
        ({}, "name of a fence agent"),
    ],
)
def test_device_that_is_no_agent_is_refused_and_says_why(device: Settings, word: str) -> None:
    answer = Proxy().ask(device, "status")
    assert not answer.ok
    assert word in answer.message


def test_option_that_would_be_two_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be given"):
        prepare(script(tmp_path, "") | {"ip": "10.0.0.1\naction=off"}, "status")
