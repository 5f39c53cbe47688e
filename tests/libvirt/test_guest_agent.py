"""The agent in a real guest, its port in the test's hands: what it says, and what a stop and a move do to it.

QEMU alone, without libvirt: what is tried here is the guest's end, and how the port behaves under it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from guest_agent import protocol as p
from olvm.lab.guest import GuestImage
from tests.libvirt.qemu_bench import WAIT_S, QemuGuest


@pytest.fixture
def machine(tmp_path: Path, guest: GuestImage) -> Iterator[QemuGuest]:
    one = QemuGuest(tmp_path / "machine", guest)
    one.listen()
    yield one
    one.close()


def test_agent_in_a_guest_says_all_facts_and_obeys(machine: QemuGuest) -> None:
    machine.hear("session-startup")
    assert machine.hear("heartbeat")["apiVersion"] == 0
    machine.say("refresh", apiVersion=3)
    facts = machine.hear("os-info")
    assert (facts["distribution"], facts["codename"]) == ("Tiny", "bean")
    assert machine.hear("containers") == {"list": []}
    machine.say("set-number-of-cpus", count=9, reply_id=1)
    assert machine.hear("completion")["reason"] == "this guest has 2 CPUs, not 9"
    machine.say("lifecycle-event", type="before_migration", reply_id=2)
    assert machine.hear("completion") == {"reply_id": 2, "ok": True, "reason": ""}
    machine.say("echo", text="é")
    assert machine.hear("echo") == {"text": "é"}
    machine.say("shutdown", timeout=0, message="-bye", reboot="False")
    machine.process.wait(WAIT_S)


def test_agent_in_a_guest_survives_a_stop_a_new_host_and_a_move(
    machine: QemuGuest, tmp_path: Path, guest: GuestImage
) -> None:
    boot_id = machine.hear("heartbeat")["bootId"]
    machine.qmp("stop")
    machine.qmp("cont")
    machine.hear("heartbeat")
    machine.leave()
    time.sleep(2.5)  # the agent looks once a second whether somebody listens
    machine.listen()
    machine.hear("session-startup")
    assert machine.hear("heartbeat")["bootId"] == boot_id
    machine.save(tmp_path / "state")
    machine.close()
    moved = QemuGuest(tmp_path / "moved", guest, tmp_path / "state")
    try:
        moved.listen()
        moved.say("refresh", apiVersion=3)
        assert moved.hear("heartbeat")["bootId"] == boot_id
        moved.hear("os-info")
    finally:
        moved.close()


def test_agent_in_a_guest_survives_sleep_and_a_port_that_is_plugged_again(machine: QemuGuest) -> None:
    boot_id = machine.hear("heartbeat")["bootId"]
    machine.say("hibernate", state="mem")
    machine.wait_for_status("suspended")
    machine.qmp("system_wakeup")
    machine.wait_for_status("running")
    machine.say("refresh", apiVersion=2)
    assert machine.hear("heartbeat", apiVersion=3)["bootId"] == boot_id
    machine.hear("timezone")
    machine.qmp("device_del", id="port")
    time.sleep(2.5)
    machine.qmp("device_add", driver="virtserialport", id="port", chardev="port", name=p.PORT, nr=1)
    machine.sh(f"ln -sf ../vport0p1 /dev/virtio-ports/{p.PORT}")  # what udev does elsewhere
    machine.hear("session-startup")
    assert machine.hear("heartbeat", apiVersion=0)["bootId"] == boot_id


def test_agent_in_a_guest_speaks_the_version_that_its_host_knows(machine: QemuGuest) -> None:
    machine.hear("heartbeat", apiVersion=0)
    machine.hear("heartbeat", apiVersion=3)
    machine.say("refresh")
    said = [machine.hear_any() for _ in range(9)]
    assert not {"os-info", "timezone", "containers", "number-of-cpus"} & set(said)
    machine.say("api-version", apiVersion=1)
    machine.hear("number-of-cpus")
    machine.say("api-version", apiVersion=3)
    machine.hear("os-info")
    machine.hear("containers")
    machine.say("api-version", apiVersion=0)
    machine.say("echo", n=1)
    machine.hear("echo", n=1)
    assert machine.order("lifecycle-event", type="after_migration") == ""
