"""The agent in a real guest, its port in the test's hands: what it says, and what a stop and a move do to it.

QEMU alone, without libvirt: what is tried here is the guest's end, and how the port behaves under it.
"""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from guest_agent import protocol as p
from olvm.lab.guest import GuestImage

WAIT_S = 60.0


class Machine:
    """One QEMU; `incoming` is a file that a machine like it was saved to."""

    def __init__(self, home: Path, guest: GuestImage, incoming: Path | None = None) -> None:
        home.mkdir()
        self._home = home
        command = [
            *(
                "qemu-system-x86_64",
                "-accel",
                "tcg",
                "-m",
                "256",
                "-smp",
                "2",
                "-display",
                "none",
                "-nodefaults",
            ),
            *("-kernel", str(guest.kernel), "-initrd", str(guest.initrd), "-append", guest.cmdline),
            *("-qmp", f"unix:{home}/qmp,server=on,wait=off", "-serial", f"file:{home}/console"),
            *(
                "-device",
                "virtio-serial-pci",
                "-chardev",
                f"socket,id=port,path={home}/port,server=on,wait=off",
            ),
            *("-device", f"virtserialport,chardev=port,name={p.PORT}"),
        ]
        if incoming is not None:
            command += ["-incoming", f"exec:cat {incoming}"]
        self.process = subprocess.Popen(command)
        with self._connect("qmp") as line:
            self._qmp = line.makefile("rw")  # which keeps it open
        self._answer()
        self.qmp("qmp_capabilities")
        self._port: socket.socket | None = None

    def _connect(self, name: str) -> socket.socket:
        end_s = time.monotonic() + WAIT_S
        while True:
            line = socket.socket(socket.AF_UNIX)
            line.settimeout(WAIT_S)
            try:
                line.connect(str(self._home / name))
            except OSError:
                line.close()
                assert time.monotonic() < end_s, f"QEMU does not open {name}"
                time.sleep(0.1)
            else:
                return line

    def _answer(self) -> Any:
        while True:
            said = json.loads(self._qmp.readline())
            if "event" not in said:
                return said

    def qmp(self, command: str, **arguments: object) -> Any:
        self._qmp.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._qmp.flush()
        said = self._answer()
        assert "error" not in said, said
        return said.get("return")

    def listen(self) -> None:
        """A host begins to listen at the port."""
        self._port = self._connect("port")
        self._decoder = p.LineDecoder()
        self._heard: list[tuple[str, dict[str, Any]]] = []

    def leave(self) -> None:
        assert self._port is not None
        self._port.close()
        self._port = None

    def say(self, name: str, **arguments: Any) -> None:
        assert self._port is not None
        self._port.sendall(p.encode(name, arguments))

    def hear(self, name: str) -> dict[str, Any]:
        assert self._port is not None
        while True:
            while self._heard:
                said, arguments = self._heard.pop(0)
                if said == name:
                    return arguments
            data = self._port.recv(65536)
            assert data, "the port was closed"
            self._heard += self._decoder.feed(data)

    def save(self, path: Path) -> None:
        self.qmp("migrate", uri=f"exec:cat > {path}")
        while (status := self.qmp("query-migrate")["status"]) != "completed":
            assert status in ("setup", "active", "device"), status
            time.sleep(0.2)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._qmp.close()
        if self._port is not None:
            self._port.close()


@pytest.fixture
def machine(tmp_path: Path, guest: GuestImage) -> Iterator[Machine]:
    one = Machine(tmp_path / "machine", guest)
    one.listen()
    yield one
    one.close()


def test_agent_in_a_guest_says_all_facts_and_obeys(machine: Machine) -> None:
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
    machine: Machine, tmp_path: Path, guest: GuestImage
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
    moved = Machine(tmp_path / "moved", guest, tmp_path / "state")
    try:
        moved.listen()
        moved.say("refresh", apiVersion=3)
        assert moved.hear("heartbeat")["bootId"] == boot_id
        moved.hear("os-info")
    finally:
        moved.close()
