"""The laboratory's network: a bridge in a namespace of its own, and a cable from it to each host.

The addresses of uplinks and bridges are pinned. A bridge takes the lowest address of its ports, and a migrating
machine's tap has the same one on both hosts: they would answer each other's packets themselves.

Nothing leads out: two laboratories may use the same addresses.
"""

from __future__ import annotations

import os

from olvm.lab.commands import run

PREFIX = "olvm-"


def namespaces() -> list[str]:
    """Their names; after each, `ip` says a number in brackets, which is left out."""
    return [line.split()[0] for line in run(["ip", "netns", "list"]).splitlines() if line]


def processes_of(namespace: str) -> list[int]:
    said = run(["ip", "netns", "pids", namespace], check=False)
    return [int(word) for word in said.split() if word.isdecimal() and int(word) != os.getpid()]


def weave(fabric: str, address: str) -> None:
    inside = ["ip", "-n", fabric]
    run(["ip", "netns", "add", fabric])
    run([*inside, "link", "set", "lo", "up"])
    run(
        [
            *inside,
            "link",
            "add",
            "br0",
            "address",
            "02:6f:00:00:00:fe",
            "type",
            "bridge",
            "forward_delay",
            "0",
        ]
    )
    run([*inside, "addr", "add", f"{address}/24", "dev", "br0"])
    run([*inside, "link", "set", "br0", "up"])


class Cable:
    """Between the fabric and one host's namespace. `number` tells hosts of one fabric apart."""

    def __init__(self, fabric: str, namespace: str, number: int, address: str) -> None:
        self._fabric = fabric
        self._namespace = namespace
        self._address = address
        self._link = f"to-h{number}"
        self._mac = f"02:6f:00:00:00:{number:02x}"

    def plug(self) -> None:
        """Without effect where it is plugged in already."""
        if self._namespace in namespaces():
            return
        fabric, host = ["ip", "-n", self._fabric], ["ip", "-n", self._namespace]
        run(["ip", "netns", "add", self._namespace])
        peer = ["peer", "name", "eth0", "netns", self._namespace]
        run([*fabric, "link", "add", self._link, "type", "veth", *peer])
        run([*fabric, "link", "set", self._link, "master", "br0", "up"])
        run([*host, "link", "set", "eth0", "address", self._mac])
        run([*host, "link", "add", "br0", "address", self._mac, "type", "bridge", "forward_delay", "0"])
        run([*host, "link", "set", "eth0", "master", "br0", "up"])
        run([*host, "link", "set", "br0", "up"])
        run([*host, "link", "set", "lo", "up"])
        run([*host, "addr", "add", f"{self._address}/24", "dev", "br0"])

    def cut(self) -> None:
        run(["ip", "-n", self._fabric, "link", "set", self._link, "down"])

    def mend(self) -> None:
        run(["ip", "-n", self._fabric, "link", "set", self._link, "up"])

    def remove(self) -> None:
        # The cable first: it would end some time after its namespace, and a new one be refused meanwhile.
        run(["ip", "-n", self._fabric, "link", "del", self._link], check=False)
        run(["ip", "netns", "del", self._namespace], check=False)
