"""The agent as a guest runs it: one file, an isolated interpreter, a port; and its installation into a file system."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from guest_agent import protocol as p
from guest_agent.build import build

WAIT_S = 20.0


class Port:
    """The host's end of a port, of which a pseudoterminal makes the guest's end."""

    def __init__(self, pyz: Path) -> None:
        self.host, self._guest = pty.openpty()
        tty.setraw(self.host)
        tty.setraw(self._guest)
        command = ["/usr/bin/python3", "-I", "-S", str(pyz), "agent", os.ttyname(self._guest)]
        self.process = subprocess.Popen(command)
        self._decoder = p.LineDecoder()
        self._heard: list[tuple[str, dict[str, Any]]] = []

    def say(self, data: bytes) -> None:
        while data:
            data = data[os.write(self.host, data[:1024]) :]

    def hear(self, name: str) -> dict[str, Any]:
        """The next message of that name."""
        while True:
            while self._heard:
                said, arguments = self._heard.pop(0)
                if said == name:
                    return arguments
            assert select.select([self.host], [], [], WAIT_S)[0], f"the agent does not say {name}"
            self._heard += self._decoder.feed(os.read(self.host, 65536))

    def close(self) -> None:
        """As its service is stopped: it takes its socket in /run away."""
        self.process.terminate()
        try:
            self.process.wait(WAIT_S)
        finally:
            self.process.kill()
        os.close(self.host)
        os.close(self._guest)


@pytest.fixture(scope="module")
def pyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("built") / "agent.pyz"
    build(str(path))
    return path


@pytest.fixture
def port(pyz: Path) -> Iterator[Port]:
    one = Port(pyz)
    yield one
    one.close()


def test_built_agent_of_the_same_sources_is_the_same_bytes(pyz: Path, tmp_path: Path) -> None:
    build(str(tmp_path / "again.pyz"))
    assert (tmp_path / "again.pyz").read_bytes() == pyz.read_bytes()


def test_agent_process_speaks_answers_and_ends_with_a_word(port: Port) -> None:
    port.hear("session-startup")
    assert port.hear("heartbeat")["memory-stat"]["mem_total"] > 0
    port.say(p.encode("refresh", {"apiVersion": 3}))
    assert port.hear("os-info")["type"] == "linux"
    port.process.terminate()
    port.hear("session-shutdown")
    assert port.process.wait(WAIT_S) == 0


def test_agent_process_survives_lines_that_are_none(port: Port) -> None:
    port.hear("heartbeat")
    port.say(b"\x00\xff{[\n" + b"x" * 70_000 + b"\n[]\n{}\n" + p.encode("echo", {"n": 1}))
    assert port.hear("echo") == {"n": 1}


def test_agent_process_idle_is_small(port: Port) -> None:
    port.hear("heartbeat")
    port.say(p.encode("refresh", {"apiVersion": 3}))
    port.hear("containers")
    status = Path(f"/proc/{port.process.pid}/status").read_text()
    resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    assert int(resident.split()[1]) < 15 * 1024 + 2048  # a guest's own Python is smaller than a developer's


def test_install_twice_is_as_once_and_uninstall_leaves_nothing(tmp_path: Path) -> None:
    home, root = tmp_path / "home", tmp_path / "root"
    home.mkdir()
    build(str(home))
    (root / "etc/pam.d").mkdir(parents=True)
    (root / "etc/pam.d/login").write_text("auth include common-auth\n")
    command = ["sh", str(home / "install.sh"), "--root", str(root)]
    trees = []
    for _ in range(2):
        subprocess.run([*command, "--console", "hvc0", "--console", "tty1"], check=True)
        trees.append({str(path): path.is_file() and path.read_bytes() for path in root.rglob("*")})
    assert trees[0] == trees[1]
    lines = (root / "etc/pam.d/login").read_text().splitlines()
    assert lines == ["auth sufficient pam_exec.so quiet /usr/lib/olvm/olvm-pam", "auth include common-auth"]
    units = root / "etc/systemd/system"
    assert (units / "serial-getty@hvc0.service.d/olvm-console.conf").exists()
    assert (units / "getty@tty1.service.d/olvm-console.conf").exists()
    subprocess.run([*command, "uninstall"], check=True)
    assert (root / "etc/pam.d/login").read_text() == "auth include common-auth\n"
    assert not (root / "usr/lib/olvm").exists()
    assert not list(units.rglob("olvm-*"))


def test_agent_file_says_its_version_and_its_usage(pyz: Path) -> None:
    command = ["/usr/bin/python3", "-I", "-S", str(pyz)]
    assert subprocess.run([*command, "version"], capture_output=True, text=True, check=True).stdout == "1\n"
    wrong = subprocess.run([*command, "no-such-word"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "usage" in wrong.stderr


def test_exchanges_of_the_protocol_are_lines_of_json() -> None:
    for path in Path(__file__).with_name("exchanges").glob("*.jsonl"):
        for line in path.read_text().splitlines():
            assert isinstance(json.loads(line), dict)
