"""What the tests of oracles are made of: a world of values, batches that are saved, and what it is that fires."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from olvm.journal.port import Batch, Outgoing, Turn
from olvm.model import messages as m
from olvm.model.config import Config
from olvm.model.limits import NS_PER_S
from olvm.model.record import Record, key_of
from sim.oracles.oracle import ReportName, Rows, Violation

GIB = 1024**3


class Scene:
    """A world of values: what oracles may look at, set by the test."""

    def __init__(self) -> None:
        self.at(1_000)
        self.config = Config()
        self.hosts = ["H1", "H2"]
        self.off: set[str] = set()
        self.domains_by_host: dict[str, list[tuple[str, int, str]]] = {}
        self.size_by_vm_id_by_host = {"H1": {"a": (1, GIB)}}
        self.rows: list[Record] = []
        self.waiting = 0
        self.differences: list[str] = []
        self.has_history = False
        self.stored: dict[ReportName, bytes] = {}
        self.snapshots: dict[str, list[str]] = {}

    def stored_report(self, name: ReportName) -> bytes | None:
        return self.stored.get(name)

    def is_powered(self, host: str) -> bool:
        return host not in self.off

    def boot_id(self, host: str) -> str:
        return f"{host}-1"

    def capacity_bytes(self, host: str) -> int:
        return 4 * GIB if host else 0

    def domains(self, host: str) -> list[tuple[str, int, str]]:
        return self.domains_by_host.get(host, [])

    def size_by_vm_id(self, host: str) -> dict[str, tuple[int, int]]:
        return self.size_by_vm_id_by_host.get(host, {})

    def snapshots_by_vm_id(self) -> dict[str, list[str]]:
        return self.snapshots

    def silos(self) -> list[str]:
        return ["engine"]

    def durable(self, silo: str, kind: type[Record]) -> Rows:
        assert silo == "engine"
        return {key_of(row): row for row in self.rows if type(row) is kind}

    def outgoing_count(self, silo: str) -> int:
        assert silo == "engine"
        return self.waiting

    def verify_journal(self, silo: str) -> list[str]:
        assert silo == "engine"
        return self.differences

    def at(self, seconds: float) -> None:
        self.now_ns = int(seconds * NS_PER_S)


def saved(*rows: Record, outgoing: m.AnyMessage | None = None) -> Batch:
    batch = Batch()
    for row in rows:
        batch.save(row)
    images = [(type(row).TABLE, key_of(row), row) for row in rows]
    batch.turns.append(Turn(1, 0, "x", "Y", "", "", b"", msgspec.msgpack.encode(images)))
    if outgoing is not None:
        payload = msgspec.msgpack.encode(("agent/H1@host-1", "vm/a", "1", "", outgoing))
        batch.outgoing.append(Outgoing("host-1", 1, payload))
    return batch


def fires(oracle: str, step: Callable[[], None]) -> str:
    with pytest.raises(Violation) as caught:
        step()
    assert caught.value.oracle == oracle, caught.value
    return caught.value.sentence
