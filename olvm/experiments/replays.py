"""Replay a trace of VM requests against hosts and a policy.

`olvm experiment replay` and `olvm.experiments.replay` are this. What happens at which time is decided in
`kernels/events.py`; `running.py` gathers what that loop needs; this module is the face, and the order in which things
are done.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

from olvm.experiments.compilation import IS_COMPILED
from olvm.experiments.database import cursor
from olvm.experiments.host_specs import HostFleet, parse_hosts
from olvm.experiments.kernels.samples import no_samples
from olvm.experiments.kernels.state import GIB_KIB
from olvm.experiments.object_policies import is_object_policy, loaded_policy
from olvm.experiments.policies import NamedPolicy, named_policy
from olvm.experiments.power import power_milliwatts
from olvm.experiments.result import Result
from olvm.experiments.running import NEVER_SPLIT, OWN_POLICY, Prepared, load_kernels, steps
from olvm.experiments.trace import MEMORY_GIB_MAX, NUMA_NODES_MAX, OnBad, read_trace
from olvm.experiments.writing import OutFolder, SeriesWriter
from olvm.model.errors import BadInput
from olvm.model.search import nearest

Queue = Literal["fifo", "reject"]
QUEUES = ("fifo", "reject")
SERIES_PERIOD_S = 3600.0


def replay(
    trace: object,
    hosts: str | HostFleet,
    *,
    numa_nodes: int = 1,
    split_above_gib: float | None = None,
    policy: Any = "first_fit",
    queue: Queue = "fifo",
    seed: int = 0,
    out: str | Path | None = None,
    on_bad: OnBad = "error",
    ignore: Collection[str] = (),
    series_period_s: float = SERIES_PERIOD_S,
    power: str = "hp-ml110-g4",
) -> Result:
    """Place the VMs of a trace one by one, with their departures, and say what became of each.

    At one time departures come before arrivals; arrivals keep the trace's order. Equal inputs and seed give equal
    results, to the byte of every file in `out`.

    Args:
        trace: what `read_trace` takes: a path, a mapping of arrays, Arrow, a data frame, a DuckDB relation, a `Trace`.
        hosts: what `parse_hosts` takes, as `1000x64c256g`. All are empty at the beginning.
        numa_nodes: of each host, 1 to 64; they share its CPUs and memory evenly, rounded down to thousandths and KiB.
            A VM lives in one of them, or is spread evenly over as many as its own `numa_nodes` in the trace says;
            where hosts have one, that is not heeded.
        split_above_gib: a VM that does not say so and has more memory than this is spread evenly over all nodes; each
            node gives the share, rounded up. None: never.
        policy: a name of `olvm.experiments.policies.POLICIES`, a class as `module:Class`, or an object with `choose`,
            `score` or `filter` (`olvm.scheduling.user_policies.UserPolicy`).
        queue: `fifo`: who does not fit waits, and all behind wait with it; lifetimes begin at the placement.
            `reject`: who does not fit is refused. What no empty host could hold is refused in both.
        seed: what `random`, `two_choice` and errors of predicted lifetimes are drawn from; any integer.
        out: folder to write; it appears when all of it is there. One that an earlier replay wrote is replaced.
        on_bad: `drop` leaves out bad rows, counts and names them.
        ignore: which of the trace's columns `numa_nodes`, `host_group` and `utilisation` are not to be read.
        series_period_s: seconds between two samples of the series, with `out`.
        power: a name of `olvm.experiments.power.POWER_MODELS`, for the series.

    Raises:
        BadInput: a trace, hosts, policy or parameter that makes no sense; the sentence says which and what to do.
        NotFound: a file that is not there.
        Conflict: `out` is a folder of something else.
        UserPolicyError: a policy of one's own raised, or chose a host that has no room.

    Cost: 0.2 µs for each VM with first_fit and best_fit, however many hosts there are, and 1 ns for each VM and host
    with others (`numa_balance` 15); 150 bytes a VM and 300 a host. The first call in a process loads the compiled
    kernels (half a second; 20 to 50 s once after an installation, when they are compiled).
    """
    node_count, split_above = checked_nodes(numa_nodes, split_above_gib)
    _check(queue, series_period_s)
    chosen = loaded_policy(policy) if is_object_policy(policy) else named_policy(policy)
    power_mw = power_milliwatts(power)
    loading = time.perf_counter()
    load_kernels()
    if out is not None or isinstance(trace, str | Path):
        cursor().close()  # loads DuckDB and opens its one database
    begin = time.perf_counter()
    with contextlib.nullcontext() if out is None else OutFolder(Path(out)) as folder:
        read = read_trace(trace, on_bad=on_bad, ignore=ignore)
        fleet = parse_hosts(hosts)
        read_s = time.perf_counter() - begin
        prepared = Prepared.of(read, fleet, node_count, split_above)
        samples = no_samples() if folder is None else prepared.samples(series_period_s, power_mw)
        series = None if folder is None else SeriesWriter(folder.path, samples, fleet)
        if isinstance(chosen, NamedPolicy):
            world = prepared.world(chosen.kernel, seed, samples, prediction_error=chosen.prediction_error)
        else:
            world = prepared.world(OWN_POLICY, seed, samples)
        began = time.perf_counter()
        for _ in steps(world, prepared, chosen, is_fifo=queue == "fifo"):
            if series is not None:
                series.take()
        kernel_s = time.perf_counter() - began
        figures = prepared.figures(world)
        if folder is not None and series is not None:
            parameters = {
                "policy": chosen.name,
                "queue": queue,
                "seed": seed,
                "numa_nodes": node_count,
                "split_above_gib": split_above_gib,
                "on_bad": on_bad,
                "ignore": sorted({*ignore, *prepared.unheeded}),
                "series_period_s": float(series_period_s),
                "power": power,
            }
            series.finish()
            folder.finish(read, world.requests, fleet, parameters, figures)
    total_s = time.perf_counter() - begin
    return Result(
        **figures,
        placements_per_s=figures["placed"] / total_s,
        kernel_placements_per_s=figures["placed"] / max(kernel_s, 1e-9),
        seed=seed,
        policy=chosen.name,
        queue=queue,
        host_count=len(fleet),
        rounded=read.rounded_count,
        dropped=read.dropped_count,
        compiled=IS_COMPILED,
        load_s=begin - loading,
        read_s=read_s,
        kernel_s=kernel_s,
        write_s=total_s - kernel_s - read_s,
        total_s=total_s,
        out=None if out is None else Path(out),
        unheeded=prepared.unheeded,
        trace=prepared.trace,
        requests=world.requests,
    )


def _check(queue: str, series_period_s: float) -> None:
    if queue not in QUEUES:
        raise BadInput(f"there is no queue {queue!r}{nearest(str(queue), QUEUES)}: choose fifo or reject")
    if not series_period_s > 0 or series_period_s == float("inf"):
        raise BadInput(f"a series cannot be sampled each {series_period_s} s: give more than 0")


def checked_nodes(numa_nodes: int, split_above_gib: float | None) -> tuple[int, int]:
    """The nodes, and the memory in KiB above which a VM is spread. Raises BadInput."""
    if not 1 <= numa_nodes <= NUMA_NODES_MAX:
        raise BadInput(f"hosts cannot have {numa_nodes} NUMA nodes: give 1 to {NUMA_NODES_MAX}")
    if split_above_gib is None:
        return numa_nodes, NEVER_SPLIT
    if not 0 <= split_above_gib <= MEMORY_GIB_MAX:
        raise BadInput(
            f"VMs cannot be split above {split_above_gib} GiB: give 0 to {MEMORY_GIB_MAX:g}, or nothing"
        )
    return numa_nodes, int(split_above_gib * GIB_KIB)
