"""What the benchmarks share: one figure is one JSON line, with the machine, the parameters and the commit beside it.

Nothing is asserted here or in any benchmark; `diff` of two series is the reader's business.
"""

from __future__ import annotations

import json
import os
import platform
from collections import deque
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

import olvm
from hypervisor_backends.simulated_config import SimulatedConfig
from olvm.api.operation import Operation

GIB_BYTES = 1 << 30
WAIT_S = 600.0


@cache
def machine() -> dict[str, Any]:
    model, memory_bytes = platform.machine(), 0
    cpuinfo, meminfo = Path("/proc/cpuinfo"), Path("/proc/meminfo")
    if cpuinfo.exists():
        names = [
            line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line
        ]
        model = names[0] if names else model
    if meminfo.exists():
        memory_bytes = int(meminfo.read_text().split()[1]) * 1024
    return {"cpus": os.cpu_count(), "model": model, "memory": memory_bytes}


@cache
def commit() -> str:
    """What HEAD of this repository names, read from its files; empty outside a repository."""
    git = Path(__file__).resolve().parents[1] / ".git"
    try:
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head
        reference = head.removeprefix("ref: ")
        if (git / reference).exists():
            return (git / reference).read_text().strip()
        packed = (git / "packed-refs").read_text().splitlines()
    except OSError:
        return ""
    return next((line.split()[0] for line in packed if line.endswith(f" {reference}")), "")


class Teller:
    """Prints the figures of one benchmark."""

    def __init__(self, benchmark: str, parameters: dict[str, Any]) -> None:
        self._benchmark = benchmark
        self._parameters = parameters

    def tell(self, figure: str, value: float, unit: str, **more: str | float) -> None:
        """`more` is what belongs to this one figure: the size of what was measured, how it ended."""
        line = {
            "benchmark": self._benchmark,
            "figure": figure,
            "value": float(f"{value:.6g}"),
            "unit": unit,
            **{
                name: float(f"{value:.6g}") if isinstance(value, float) else value
                for name, value in more.items()
            },
            "machine": machine(),
            "parameters": self._parameters,
            "commit": commit(),
        }
        print(json.dumps(line), flush=True)

    def tell_percentiles(self, figure: str, seconds: list[float]) -> None:
        ordered = sorted(seconds)
        for name, share in (("p50", 0.5), ("p99", 0.99)):
            self.tell(
                f"{figure}_{name}", ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1e3, "ms"
            )


def instant() -> dict[str, Any]:
    """Settings of hypervisors that take no time, so that what is measured is the control plane."""
    settings: dict[str, Any] = msgspec.to_builtins(SimulatedConfig.instant())
    return settings


def add_hosts(dc: olvm.DataCenter, cluster: str, *, count: int, vm_count: int) -> None:
    """A cluster with room for `vm_count` machines of one CPU and 1 GiB, with half as much to spare."""
    dc.clusters.create(cluster, policy="evenly_distributed")
    share = 3 * vm_count // (2 * count) + 8  # what a host holds back for itself is part of it
    for number in range(count):
        dc.hosts.add(f"kvm{number:03}", cluster=cluster, cpus=min(4096, share), memory=share * GIB_BYTES)


def run_windowed(submits: Iterator[Callable[[], Operation]], in_flight: int) -> int:
    """Keep `in_flight` operations under way until all have succeeded; how many they were."""
    window: deque[Operation] = deque()
    count = 0
    for submit in submits:
        if len(window) >= in_flight:
            window.popleft().wait(WAIT_S)
        window.append(submit())
        count += 1
    for operation in window:
        operation.wait(WAIT_S)
    return count


def create_vms(dc: olvm.DataCenter, cluster: str, names: list[str], in_flight: int) -> None:
    def creating(name: str) -> Callable[[], Operation]:
        return lambda: dc.vms.create_later(name, cluster=cluster, vcpus=1, memory=GIB_BYTES)

    with dc.pipelined():
        run_windowed((creating(name) for name in names), in_flight)


def start_vms(dc: olvm.DataCenter, names: list[str], in_flight: int) -> None:
    with dc.pipelined():
        run_windowed((dc.vms[name].start for name in names), in_flight)
