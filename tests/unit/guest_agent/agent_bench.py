"""A guest's file system made of a few files, and an agent in it whose clock and line the test holds."""

from __future__ import annotations

import json
import select
from pathlib import Path
from typing import Any

from guest_agent import protocol as p
from guest_agent.agent import Agent
from guest_agent.credentials import Desk
from guest_agent.facts import Facts

MEMINFO = """MemTotal: 188416 kB
MemFree: 90000 kB
MemAvailable: 120000 kB
Buffers: 1000 kB
Cached: 30000 kB
SwapTotal: 4096 kB
SwapFree: 4000 kB
"""
FILES = {
    "proc/meminfo": MEMINFO,
    "proc/vmstat": "pgfault 100\npgmajfault 3\npswpin 0\npswpout 0\n",
    "proc/uptime": "12.5 3.0\n",
    "proc/sys/kernel/hostname": "web1\n",
    "proc/sys/kernel/osrelease": "6.1.0\n",
    "proc/sys/kernel/random/boot_id": "b-1\n",
    "etc/hosts": "127.0.0.1 localhost\n192.0.2.7 web1.example.org web1\n",
    "etc/os-release": 'NAME="Tiny"\nVERSION_ID=1\nVERSION_CODENAME=bean\n',
    "etc/timezone": "Europe/Berlin\n",
    "etc/passwd": "root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n",
    "sys/devices/system/cpu/online": "0-1\n",
    "sys/block/vda/serial": "disk-1\n",
    "sys/class/net/eth0/address": "52:54:00:00:00:01\n",
    "sys/class/net/lo/address": "00:00:00:00:00:00\n",
    "var/lib/dpkg/status": (
        "Package: tiny-base\nStatus: install ok installed\nVersion: 1.0\n\n"
        "Package: tiny-gone\nStatus: deinstall ok config-files\nVersion: 0.9\n"
    ),
}


def write_tree(root: Path, files: dict[str, str] | None = None) -> Path:
    for path, text in (FILES if files is None else files).items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


class AgentBench:
    def __init__(self, root: Path, desk: Desk | None = None) -> None:
        self.now_s = 1000.0
        self.said: list[dict[str, Any]] = []
        self.root = write_tree(root)
        self.addresses: list[tuple[str, str]] = []
        facts = Facts(str(root), lambda: self.addresses)
        mark = str(root / "frozen")
        self.agent = Agent(facts, self._hear, desk, lambda: self.now_s, mark)

    def _hear(self, line: bytes) -> None:
        self.said.append(json.loads(line))

    def order(self, name: str, **arguments: Any) -> None:
        """As the line brings it; what a child does for it is waited for."""
        for message in p.LineDecoder().feed(p.encode(name, arguments)):
            self.agent.on_message(*message)
        self.wait_for_errands()

    def wait_for_errands(self) -> None:
        while self.agent.errands.pipes():
            ready, _, _ = select.select(self.agent.errands.pipes(), [], [], 20)
            assert ready, "an errand hangs"
            self.agent.errands.look()

    def pass_time(self, seconds: float) -> None:
        """In the agent's own steps."""
        end_s = self.now_s + seconds
        while self.now_s <= end_s:
            wait_s = self.agent.tick()
            self.wait_for_errands()
            self.now_s += max(0.25, min(wait_s, self.agent.tick()))

    def named(self, name: str) -> list[dict[str, Any]]:
        return [one for one in self.said if one[p.NAME] == name]
