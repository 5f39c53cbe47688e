"""The series: what the fleet looks like every `period_s` seconds from the first arrival on.

A sample at t shows what is so after everything that happens at t. Only hosts that changed since the last sample are
looked at, and each of them gets one row in the series of hosts: a row holds until that host's next row. So a sample
costs what has changed, and not what there is.

What the figures mean stands in docs/experiments.md. Power is in milliwatts, as integers: a sum that is kept by
adding and taking away stays exact.

Rule: buffers have a fixed length. A sample that does not fit is not begun; the loop returns, Python takes the rows, and
the loop goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from olvm.experiments.compilation import compiled, entry
from olvm.experiments.kernels.state import (
    ACTIVE,
    ARRIVED,
    HANDLED,
    REFUSED,
    RUNNING,
    TOO_MANY_VCPUS,
    Bytes,
    Fleet,
    Floats,
    Ints,
    Progress,
    Requests,
    SmallInts,
)

# Columns of the series, in the kernel's units.
CLUSTER_COLUMNS = (
    "vm_count",
    "waiting",
    "refused",
    "used_hosts",
    "used_cpu",
    "used_mem",
    "stranded_cpu",
    "stranded_mem",
    "typical_fits",
    "power_mw",
    "empty_power_mw",
)
HOST_COLUMNS = ("vm_count", "used_cpu", "used_mem", "stranded_cpu", "stranded_mem", "power_mw")
# Places in `Samples.sums` and columns of `Samples.by_host`.
S_USED_CPU, S_USED_MEM, S_STRANDED_CPU, S_STRANDED_MEM, S_FITS, S_POWER, S_EMPTY_POWER = range(7)
SUM_COUNT = 7
# Places in `Samples.marks`.
M_NUMBER, M_CHANGED, M_CLUSTER_ROWS, M_HOST_ROWS = range(4)


class Samples(NamedTuple):
    period_s: Floats  # one number; inf: no series
    first_s: Floats  # one number: the time of sample 0
    marks: Ints  # number of the next sample, hosts changed since the last one, rows in both buffers
    typical: Ints  # the typical VM: vCPUs and memory
    power_mw: Ints  # at 0, 10, … 100 % of a host's vCPUs
    sums: Ints
    by_host: Ints  # (hosts, SUM_COUNT): what each host has added to the sums
    changed: SmallInts  # hosts that changed since the last sample; the first marks[M_CHANGED] of them
    is_changed: Bytes
    cluster_s: Floats
    cluster: Ints  # (rows, len(CLUSTER_COLUMNS))
    host_s: Floats
    host: SmallInts
    hosts: Ints  # (rows, len(HOST_COLUMNS))


def no_samples() -> Samples:
    none, some, small = np.zeros(0), np.zeros((0, 0), np.int64), np.zeros(0, np.int32)
    return Samples(
        np.array([np.inf]),
        np.array([0.0]),
        np.zeros(4, np.int64),
        np.ones(2, np.int64),
        np.zeros(11, np.int64),
        np.zeros(SUM_COUNT, np.int64),
        some,
        small,
        np.zeros(0, np.int8),
        none,
        some,
        none,
        small,
        some,
    )


def new_samples(
    fleet: Fleet, period_s: float, first_s: float, typical: tuple[int, int], power_mw: Ints, rows_max: int
) -> Samples:
    """`rows_max`: of each buffer; that of hosts has at least one row for each host."""
    host_count = len(fleet.host_cpu)
    host_rows_max = max(rows_max, host_count)
    return Samples(
        np.array([period_s]),
        np.array([first_s]),
        np.array([0, host_count, 0, 0], np.int64),
        np.array(typical, np.int64),
        power_mw,
        np.zeros(SUM_COUNT, np.int64),
        np.zeros((host_count, SUM_COUNT), np.int64),
        np.arange(host_count, dtype=np.int32),
        np.ones(host_count, np.int8),
        np.zeros(rows_max),
        np.zeros((rows_max, len(CLUSTER_COLUMNS)), np.int64),
        np.zeros(host_rows_max),
        np.zeros(host_rows_max, np.int32),
        np.zeros((host_rows_max, len(HOST_COLUMNS)), np.int64),
    )


@entry
def mark_changed(digest: int) -> Callable[..., None]:
    def mark_changed(samples: Samples, host: int) -> None:
        assert digest >= 0
        if len(samples.is_changed) and samples.is_changed[host] == 0:
            samples.is_changed[host] = 1
            samples.changed[samples.marks[M_CHANGED]] = host
            samples.marks[M_CHANGED] += 1

    return mark_changed


@entry
def sample_before(digest: int) -> Callable[..., bool]:
    def sample_before(
        samples: Samples,
        requests: Requests,
        fleet: Fleet,
        progress: Progress,
        until_s: float,
        node_count: int,
    ) -> bool:
        """Take the samples of all times before `until_s`; False when a buffer is full and some are left."""
        assert digest >= 0
        if samples.period_s[0] == np.inf:
            return True
        while True:
            at_s = samples.first_s[0] + samples.marks[M_NUMBER] * samples.period_s[0]
            if not at_s < until_s:
                return True
            marks = samples.marks
            if marks[M_CLUSTER_ROWS] == len(samples.cluster_s):
                return False
            if marks[M_HOST_ROWS] + marks[M_CHANGED] > len(samples.host_s):
                return False
            _sample(samples, requests, fleet, progress, at_s, node_count)
            marks[M_NUMBER] += 1

    return sample_before


@compiled
def _sample(
    samples: Samples, requests: Requests, fleet: Fleet, progress: Progress, at_s: float, node_count: int
) -> None:
    marks, counts = samples.marks, progress.counts
    for place in range(marks[M_CHANGED]):
        host = samples.changed[place]
        samples.is_changed[host] = 0
        _weigh(samples, fleet, host, node_count)
        if (
            marks[M_NUMBER] > 0 or fleet.vm_count[host] > 0
        ):  # before the first sample all hosts are new and empty
            row = marks[M_HOST_ROWS]
            marks[M_HOST_ROWS] += 1
            samples.host_s[row] = at_s
            samples.host[row] = host
            samples.hosts[row, 0] = fleet.vm_count[host]
            for column in range(4):
                samples.hosts[row, column + 1] = samples.by_host[host, column]
            samples.hosts[row, 5] = samples.by_host[host, S_POWER]
    marks[M_CHANGED] = 0
    while counts[ARRIVED] < len(requests.arrival_s) and requests.arrival_s[counts[ARRIVED]] <= at_s:
        counts[ARRIVED] += 1
        if requests.status[counts[ARRIVED] - 1] >= TOO_MANY_VCPUS:
            counts[REFUSED] += 1
    row = marks[M_CLUSTER_ROWS]
    marks[M_CLUSTER_ROWS] += 1
    samples.cluster_s[row] = at_s
    cluster = samples.cluster[row]
    cluster[0] = counts[RUNNING]
    cluster[1] = counts[ARRIVED] - counts[REFUSED] - counts[HANDLED]
    cluster[2] = counts[REFUSED]
    cluster[3] = counts[ACTIVE]
    for column in range(SUM_COUNT):
        cluster[4 + column] = samples.sums[column]


@compiled
def _weigh(samples: Samples, fleet: Fleet, host: int, node_count: int) -> None:
    """Put what the host is now in the place of what it was, in its own row and in the sums."""
    now, sums = samples.by_host[host], samples.sums
    for column in range(SUM_COUNT):
        sums[column] -= now[column]
        now[column] = 0
    now[S_USED_CPU] = fleet.cpu_capacity[host] - fleet.host_cpu[host]
    now[S_USED_MEM] = fleet.mem_capacity[host] - fleet.host_mem[host]
    cpu, mem = samples.typical[0], samples.typical[1]
    for at in range(host * node_count, (host + 1) * node_count):
        has_cpu, has_mem = fleet.node_cpu[at] >= cpu, fleet.node_mem[at] >= mem
        if has_cpu and has_mem:
            fits = fleet.node_cpu[at] // cpu
            if mem > 0:
                fits = min(fits, fleet.node_mem[at] // mem)
            now[S_FITS] += fits
        elif has_cpu:
            now[S_STRANDED_CPU] += fleet.node_cpu[at]
        elif has_mem:
            now[S_STRANDED_MEM] += fleet.node_mem[at]
    tenths = 10.0 * now[S_USED_CPU] / fleet.cpu_capacity[host]
    below = min(9, int(tenths))
    low, high = samples.power_mw[below], samples.power_mw[below + 1]
    power_mw = int(low + (high - low) * (tenths - below) + 0.5)
    now[S_POWER if fleet.vm_count[host] > 0 else S_EMPTY_POWER] = power_mw
    for column in range(SUM_COUNT):
        sums[column] += now[column]
