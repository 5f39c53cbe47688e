"""What a replay answers: figures, what became of each VM, and one digest of all decisions."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from olvm.experiments.kernels.state import GIB_KIB, MILLI, PLACED, SOME_NODES, WAITING, Requests
from olvm.experiments.table import Table
from olvm.experiments.trace import Trace

# By status, as the kernels number them; None: placed.
WHY: tuple[str | None, ...] = (
    "still in line when the trace ended: nobody leaves any more whose place it could take",
    None,
    "no host had room when it arrived",
    "more vCPUs than any empty host has in one NUMA node, or in each if it is spread",
    "more memory than any empty host has in one NUMA node, or in each if it is spread",
    "no empty host has so many vCPUs and so much memory together",
    "no host is in the host group that it asks for",
    "no empty host of its host group has so many vCPUs and so much memory, in as many NUMA nodes as it asks for",
    "it asks for more NUMA nodes than a host has",
)
# Figures that differ between equal runs: in no file, and in no digest.
TIMINGS = (
    "placements_per_s",
    "kernel_placements_per_s",
    "load_s",
    "read_s",
    "kernel_s",
    "write_s",
    "total_s",
)
FIGURES = (
    "vm_count",
    "placed",
    "rejected",
    "waiting",
    "rejected_no_group",
    "hosts_used",
    "hosts_peak",
    "bound_hosts",
    "wait_s_total",
    "wait_s_max",
    "host_hours",
    "cost",
    "reserved_vcpu_hours",
    "used_vcpu_hours",
    "waste",
    "seed",
    "digest",
)


@dataclass(frozen=True, kw_only=True)
class Result:
    """One replay. All times are in seconds.

    `hosts_used` are distinct hosts that ever held a VM, `hosts_peak` the most that did at one time; `bound_hosts` is
    the least number of hosts that could hold the demand as it was offered (docs/experiments.md). `waiting` VMs stood
    in line for ever. `rejected_no_group` VMs, among those that were rejected, asked for a host group that no host is
    in. `host_hours` are those of hosts that held a VM, and `cost` is their price, None if hosts have none. `waste` is
    what VMs reserved and did not use, as a share of their vCPU-hours; of those VMs alone whose utilisation is known,
    and None if the trace has no such column. `placements_per_s` counts from the opening of the trace to the last file
    that is written; `kernel_placements_per_s` the loop alone. `load_s` is what loading the compiled code took before.
    `unheeded` are columns of the trace that ask for what the hosts say nothing of: host groups, several NUMA nodes.
    """

    vm_count: int
    placed: int
    rejected: int
    waiting: int
    rejected_no_group: int
    hosts_used: int
    hosts_peak: int
    bound_hosts: int
    wait_s_total: float
    wait_s_max: float
    host_hours: float
    cost: float | None
    reserved_vcpu_hours: float | None
    used_vcpu_hours: float | None
    waste: float | None
    placements_per_s: float
    kernel_placements_per_s: float
    seed: int
    digest: str
    policy: str
    queue: str
    host_count: int
    rounded: int
    dropped: int
    compiled: bool
    load_s: float
    read_s: float
    kernel_s: float
    write_s: float
    total_s: float
    out: Path | None
    unheeded: tuple[str, ...]
    trace: Trace
    requests: Requests

    def summary(self) -> dict[str, Any]:
        """The figures, as `-o json` prints them."""
        hidden = {"trace", "requests", "out"}
        row = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in hidden}
        return {**row, "out": None if self.out is None else str(self.out)}

    @cached_property
    def vms(self) -> Table:
        """A row for each VM, in the trace's order: the columns of `vms.parquet` (docs/experiments.md)."""
        columns = vm_columns(self.trace, self.requests)
        why = np.array(WHY, dtype=object)[self.requests.status]
        named = self.trace.column("vm_id")
        head: dict[str, Any] = {"row": columns.pop("row")}
        if named is not None:
            head["vm_id"] = named
        columns.pop("status")
        return Table({**head, **columns, "why": np.ma.masked_array(why, mask=self.requests.status == PLACED)})

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in self.summary().items())
        return f"<table>{rows}</table>"


def vm_columns(trace: Trace, requests: Requests) -> dict[str, Any]:
    """The columns of `vms` but those of text; nulls are masked."""
    is_absent = requests.status != PLACED
    some = {}
    if len(requests.nodes):
        is_other = is_absent | (requests.node != SOME_NODES)
        some["numa_node_bits"] = np.ma.masked_array(requests.nodes, mask=is_other)
    rows = np.arange(len(trace), dtype=np.int64) if trace.rows is None else trace.rows
    return {
        "row": rows,
        "arrival_s": trace.arrival_s,
        "lifetime_s": np.ma.masked_array(trace.lifetime_s, mask=np.isnan(trace.lifetime_s)),
        "vcpus": trace.milli_vcpus / MILLI,
        "memory_gib": trace.memory_kib / GIB_KIB,
        "placed": ~is_absent,
        "host": np.ma.masked_array(requests.host, mask=is_absent),
        "numa_node": np.ma.masked_array(requests.node, mask=is_absent | (requests.node < 0)),
        **some,
        "wait_s": np.ma.masked_array(requests.start_s - trace.arrival_s, mask=is_absent),
        "rejected": is_absent & (requests.status != WAITING),
        "status": requests.status,
    }


def digest_of(requests: Requests) -> str:
    """SHA-256 over status (int8), host, node (int32) and start (float64), each a column, little-endian.

    Where VMs are spread over some nodes of several, the bits of these (int64) follow.
    """
    digest = hashlib.sha256(b"olvm replay 1\n")
    for column, kind in (
        (requests.status, "<i1"),
        (requests.host, "<i4"),
        (requests.node, "<i4"),
        (requests.start_s, "<f8"),
    ):
        digest.update(np.ascontiguousarray(column, dtype=kind).data)
    digest.update(np.ascontiguousarray(requests.nodes, dtype="<i8").data)
    return digest.hexdigest()
