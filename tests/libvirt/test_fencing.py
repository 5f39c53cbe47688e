"""The distribution's own fence agents against controllers of our own, and against the laboratory's power switch."""

from __future__ import annotations

import queue
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import olvm.lab
from hypervisor_backends.fence_agents import FenceAgents, check_device
from hypervisor_backends.fence_options import check_options
from hypervisor_backends.fencing import FenceAction, FenceAnswer
from olvm.lab.hosts import Lab
from olvm.model.errors import BadInput
from tests.libvirt.ipmi_bmc import IpmiBmc, ipmi_bmc
from tests.libvirt.redfish_bmc import PASSWORD, RedfishBmc, redfish_bmc

Device = dict[str, str | int | float | bool]
WITHIN_S = 90.0
# What puts the hosts right at the end of a module must find them in its first test.
pytestmark = pytest.mark.usefixtures("lab")
FENCE_AGENTS = Path(olvm.lab.__file__).with_name("fence_agents")


class Proxy:
    """A host through which others are fenced."""

    def __init__(self, directory: str | Path = "/usr/sbin", timeout_s: float = 60.0) -> None:
        self._posted: queue.Queue[Callable[[], None]] = queue.Queue()
        self.devices = FenceAgents(self._posted.put, directory, timeout_s)

    def ask(self, device: Device, action: FenceAction) -> FenceAnswer:
        answers: list[FenceAnswer] = []
        self.devices.submit(device, "kvm01", action, answers.append)
        self._posted.get(timeout=WITHIN_S)()
        return answers[0]


@pytest.fixture
def bmc(tmp_path: Path) -> Iterator[RedfishBmc]:
    with redfish_bmc(tmp_path) as made:
        yield made


# ---------------------------------------------------------------- Redfish


def test_redfish_off_is_proven_by_status_and_on_again(bmc: RedfishBmc) -> None:
    proxy, device = Proxy(), bmc.device
    check_device(device)
    assert proxy.ask(device, "status") == FenceAnswer(ok=True, power="on")
    bmc.delay_s = 1.5
    assert proxy.ask(device, "off") == FenceAnswer(ok=True)
    assert proxy.ask(device, "status") == FenceAnswer(ok=True, power="off")
    assert proxy.ask(device, "off") == FenceAnswer(ok=True)
    assert proxy.ask(device, "on") == FenceAnswer(ok=True)
    assert proxy.ask(device, "status") == FenceAnswer(ok=True, power="on")
    assert bmc.orders == ["ForceOff", "On"]


def test_redfish_password_in_a_file_works_and_a_wrong_one_proves_nothing(
    bmc: RedfishBmc, tmp_path: Path
) -> None:
    secret = tmp_path / "password"
    secret.touch(mode=0o600)
    secret.write_text(f"{PASSWORD}\n")
    device = {key: value for key, value in bmc.device.items() if key != "password"} | {
        "password_file": str(secret)
    }
    assert Proxy().ask(device, "status").ok
    secret.write_text("wrong word\n")
    for action in ("status", "off"):
        answer = Proxy().ask(device, action)
        assert (answer.ok, answer.power) == (False, "unknown")
        assert "wrong word" not in answer.message
    assert bmc.orders == []


def test_redfish_that_lies_about_off_is_not_believed(bmc: RedfishBmc) -> None:
    bmc.lies = True
    answer = Proxy().ask(bmc.device | {"power_timeout": 2}, "off")
    assert not answer.ok
    assert "power OFF" in answer.message
    assert Proxy().ask(bmc.device, "status") == FenceAnswer(ok=True, power="on")


def test_redfish_that_hangs_is_given_up_in_time(bmc: RedfishBmc) -> None:
    bmc.hangs.set()
    begun_s = time.monotonic()
    answer = Proxy(timeout_s=4.0).ask(bmc.device, "off")
    assert time.monotonic() - begun_s < 15
    assert "did not answer within 4 s" in answer.message


def test_redfish_with_a_certificate_that_nobody_signed_is_refused_unless_that_is_allowed(
    bmc: RedfishBmc,
) -> None:
    for more in ({"ssl_insecure": False}, {"ssl_insecure": 0}, {"ssl_insecure": "off"}):
        answer = Proxy().ask(bmc.device | more, "status")
        assert not answer.ok
        assert "certificate" in answer.message.lower()


def test_address_where_nobody_listens_is_an_error_and_no_power(bmc: RedfishBmc) -> None:
    answer = Proxy().ask(bmc.device | {"ipport": 1}, "status")
    assert (answer.ok, answer.power) == (False, "unknown")
    assert PASSWORD not in answer.message


@pytest.mark.parametrize(("change", "words"), [
    ({"ip": None}, "fence address"),
    ({"username": None}, "needs username"),
    ({"password": None}, "password"),
    ({"passwrod": "x"}, "no option 'passwrod'"),
    ({"ipport": "https"}, "whole number"),
])  # fmt: skip
def test_device_that_could_never_work_is_refused_when_it_is_checked(
    bmc: RedfishBmc, change: dict[str, str | None], words: str
) -> None:
    device = {key: value for key, value in (bmc.device | change).items() if value is not None}
    with pytest.raises(BadInput, match=words):
        check_device(device)
    assert bmc.paths == []


@pytest.mark.parametrize("kind", ["ipmilan", "redfish"])
def test_options_of_a_real_agent_are_held_against_what_it_says_of_itself(kind: str) -> None:
    device = {"type": kind, "ip": "10.0.0.7", "username": "root", "password_file": "/on/the/proxy"}
    assert check_options(device)
    with pytest.raises(BadInput, match="no option 'usrename'"):
        check_options(device | {"usrename": "root"})


# ---------------------------------------------------------------- IPMI


@pytest.fixture
def ipmi(tmp_path: Path) -> Iterator[IpmiBmc]:
    if shutil.which("ipmi_sim") is None or shutil.which("ipmitool") is None:
        pytest.skip("ipmi_sim or ipmitool is missing; run apt install openipmi ipmitool")
    with ipmi_bmc(tmp_path) as made:
        yield made


def test_ipmi_switches_and_a_wrong_password_proves_nothing(ipmi: IpmiBmc) -> None:
    proxy, device = Proxy(), ipmi.device
    check_device(device)
    assert proxy.ask(device, "on").ok
    assert proxy.ask(device, "status") == FenceAnswer(ok=True, power="on")
    assert proxy.ask(device, "off") == FenceAnswer(ok=True)
    assert proxy.ask(device, "status") == FenceAnswer(ok=True, power="off")
    answer = proxy.ask(device | {"password": "wrong"}, "status")
    assert (answer.ok, answer.power) == (False, "unknown")


# ---------------------------------------------------------------- the laboratory


def test_power_switch_of_the_laboratory_cuts_a_host_and_boots_it(lab: Lab) -> None:
    proxy = Proxy(FENCE_AGENTS)
    device = lab.fence_device("h2")
    check_device(device, FENCE_AGENTS)
    assert proxy.ask(device, "status") == FenceAnswer(ok=True, power="on")
    assert proxy.ask(device, "off").ok
    assert not lab.host("h2").is_on
    assert lab.host("h1").is_on
    assert proxy.ask(device, "status") == FenceAnswer(ok=True, power="off")
    assert proxy.ask(device, "on").ok
    assert lab.host("h2").is_on
    answer = proxy.ask(device | {"plug": "h9"}, "off")
    assert not answer.ok
    assert "h9" in answer.message
