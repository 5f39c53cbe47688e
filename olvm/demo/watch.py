"""Watches the data center beside the replay: its events for the tenants, and how full its clusters are.

A thread of its own, so that a question which waits for a restarting engine holds up no request.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec

from olvm.api.data_center import DataCenter
from olvm.model.errors import OlvmError

PERIOD_S = 0.3
FILL_PERIOD_S = 1.0

FILL_QUERY = """
    select h.cluster, h.cpus, h.memory_bytes, coalesce(r.vms, 0), coalesce(r.cpus, 0), coalesce(r.memory_bytes, 0)
    from (select cluster, sum(cpus) as cpus, sum(memory_bytes) as memory_bytes from hosts group by cluster) h
    left join (
        select cluster, count(*) as vms, sum(vcpus) as cpus, sum(memory_bytes) as memory_bytes
        from reservations group by cluster
    ) r on r.cluster = h.cluster
    order by h.cluster
"""


class Fill(msgspec.Struct, kw_only=True):
    """The fullest moment of one cluster among those looked at."""

    vms: int = 0
    cpus_percent: float = 0.0
    memory_percent: float = 0.0


class Watcher:
    """Start it with `with`; `on_event` gets (machine's name, event code) in the watcher's thread."""

    def __init__(self, dc: DataCenter, on_event: Callable[[str, str], None]) -> None:
        self._dc = dc
        self._on_event = on_event
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="demo-watcher", daemon=True)
        self.cursor = 0
        self.fills: dict[str, Fill] = {}
        self.events: list[dict[str, Any]] = []  # all but those of single machines
        self.count_by_code: dict[str, int] = {}
        self.moves: list[dict[str, Any]] = []  # the details of each `vm_migrated`

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(timeout=60)

    def _run(self) -> None:
        fill_due_s = 0.0
        while not self._stopping.wait(PERIOD_S):
            try:
                self._read_events()
                if time.monotonic() >= fill_due_s:
                    fill_due_s = time.monotonic() + FILL_PERIOD_S
                    self._look_at_fill()
            except OlvmError:
                continue  # the engine is away; the link goes on looking for it

    def _read_events(self) -> None:
        for event in self._dc.events(self.cursor):
            self.cursor = event["seq"]
            code = event["code"]
            self.count_by_code[code] = self.count_by_code.get(code, 0) + 1
            if code == "vm_migrated":
                self.moves.append(event["details"])
            if event["vm_name"]:
                self._on_event(event["vm_name"], code)
            else:
                self.events.append(event)

    def _look_at_fill(self) -> None:
        for cluster, cpus, memory_bytes, vms, cpus_held, memory_held in self._dc.sql(FILL_QUERY):
            fill = self.fills.setdefault(cluster, Fill())
            fill.vms = max(fill.vms, vms)
            fill.cpus_percent = max(fill.cpus_percent, 100 * float(cpus_held) / float(cpus))
            fill.memory_percent = max(fill.memory_percent, 100 * float(memory_held) / float(memory_bytes))
