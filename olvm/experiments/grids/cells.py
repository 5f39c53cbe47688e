"""The runs that a grid of replays has, and what each is known by from one start of the grid to the next.

Rule: a cell's id depends on everything that its figures depend on, contents of files included, and on nothing else. So
a result is used again exactly as long as running it again would give the same.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
from collections.abc import Callable
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from olvm.experiments.grids.definition import PARAMETERS, Grid, check_cell_count, hosts_spec, trace_path
from olvm.experiments.host_specs import parse_hosts
from olvm.experiments.manifest import file_digest
from olvm.experiments.object_policies import is_object_policy
from olvm.experiments.trace import OnBad
from olvm.experiments.trace_sources import open_source
from olvm.version import VERSION


class Cell(msgspec.Struct, frozen=True, kw_only=True, tag_field="experiment", tag="replay"):
    """One replay of the grid. `trace` and `topology` are names, `trace_path` and `hosts` what a replay takes."""

    topology: str
    trace: str
    policy: str
    seed: int
    queue: str
    numa_nodes: int
    split_above_gib: float | None
    hosts: str
    trace_path: str
    window_vms: int
    keep: float
    on_bad: OnBad
    id: str = ""

    BLOCK: ClassVar[str] = "seed"
    # Of `results.runs`: names of keys and figures, and what numpy calls their types.
    KEYS: ClassVar[dict[str, str]] = {
        "topology": "O",
        "trace": "O",
        "policy": "O",
        "queue": "O",
        "numa_nodes": "i8",
        "split_above_gib": "f8",
        "seed": "i8",
    }
    FIGURES: ClassVar[dict[str, str]] = {
        "vm_count": "i8",
        "placed": "i8",
        "rejected": "i8",
        "waiting": "i8",
        "hosts_used": "i8",
        "hosts_peak": "i8",
        "bound_hosts": "i8",
        "regret": "i8",
        "wait_s_total": "f8",
        "wait_s_max": "f8",
        "digest": "O",
    }

    @property
    def scenario(self) -> dict[str, Any]:
        """What stays the same where only policies and seeds are compared."""
        names = ("topology", "trace", "queue", "numa_nodes", "split_above_gib")
        return {name: getattr(self, name) for name in names}

    @property
    def scenario_title(self) -> str:
        return f"{self.topology}, {self.trace}, {self._conditions}"

    @property
    def block(self) -> int:
        """Within which policies are compared."""
        return self.seed

    @property
    def _conditions(self) -> str:
        split = "" if self.split_above_gib is None else f", split above {self.split_above_gib:g} GiB"
        nodes = "" if self.numa_nodes == 1 else f", {self.numa_nodes} NUMA nodes"
        return f"{self.queue}{nodes}{split}"

    def title(self) -> str:
        return f"{self.policy} on {self.topology} with {self.trace}, {self._conditions}, seed {self.seed}"


def replay_cells(grid: Grid, folder: Path) -> list[Cell]:
    """Scenario by scenario, in each seed by seed, of each all policies: so that early results can be compared.

    Raises BadInput for more than a hundred thousand. Cost: each file of traces and hosts is read once, for its digest.
    """
    parameters = grid.parameters
    count = len(grid.topologies) * len(grid.traces) * len(grid.policies) * len(grid.seed_list)
    for name in PARAMETERS:
        count *= max(1, len(getattr(parameters, name)))
    check_cell_count(count)
    digest_of_hosts, digest_of_trace = cache(_hosts_digest), cache(_trace_digest)
    digest_of_policy = cache(_policy_digest)
    cells = []
    for topology, trace, queue in product(grid.topologies, grid.traces, parameters.queue):
        hosts, path = hosts_spec(topology, folder), trace_path(trace, folder)
        for nodes, split in product(
            parameters.numa_nodes or (topology.numa_nodes,),
            parameters.split_above_gib or (topology.split_above_gib,),
        ):
            for seed, policy in product(grid.seed_list, grid.policies):
                cell = Cell(
                    topology=topology.name,
                    trace=trace.name,
                    policy=policy,
                    seed=seed,
                    queue=queue,
                    numa_nodes=nodes,
                    split_above_gib=split,
                    hosts=hosts,
                    trace_path=path,
                    window_vms=trace.window_vms,
                    keep=trace.keep,
                    on_bad=trace.on_bad,
                )
                digests = (digest_of_hosts(hosts), digest_of_trace(path), digest_of_policy(policy))
                cells.append(msgspec.structs.replace(cell, id=_id_of(cell, digests)))
    return cells


def _id_of(cell: Cell, digests: tuple[str, str, str]) -> str:
    decides = (
        VERSION,
        digests,
        cell.policy,
        cell.seed,
        cell.queue,
        cell.numa_nodes,
        cell.split_above_gib,
        cell.window_vms,
        cell.keep,
        cell.on_bad,
        (cell.topology, cell.trace),  # names: results say them
    )
    return hashlib.sha256(msgspec.json.encode(decides)).hexdigest()[:24]


def _hosts_digest(spec: str) -> str:
    return parse_hosts(spec).digest()


def _trace_digest(path: str) -> str:
    digest = open_source(path).file_digest()
    assert digest is not None, "a grid's traces are files"
    return digest


def _policy_digest(policy: str) -> str:
    """Of the file that a class of one's own stands in; what that imports is not looked at."""
    if not is_object_policy(policy):
        return ""
    source: Callable[[Any], str | None] = inspect.getsourcefile
    path = source(importlib.import_module(policy.partition(":")[0]))
    return "" if path is None else file_digest(Path(path))
