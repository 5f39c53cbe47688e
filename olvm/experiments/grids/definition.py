"""What a grid of replays is: the words of its file, and what is wrong with one. `reading` reads it.

Which runs follow from it is decided in `cells`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import msgspec

from olvm.experiments.host_specs import parse_hosts
from olvm.experiments.object_policies import is_object_policy, loaded_policy
from olvm.experiments.policies import named_policy
from olvm.experiments.trace import OnBad
from olvm.experiments.trace_sources import BUNDLED_TRACE
from olvm.model.errors import BadInput, NotFound

# Figures of a run that policies can be ranked by; less is better in all of them.
Metric = Literal["hosts_peak", "hosts_used", "rejected", "wait_s_total", "wait_s_max", "regret"]
METRICS: tuple[Metric, ...] = ("hosts_peak", "hosts_used", "rejected", "wait_s_total", "wait_s_max", "regret")
PARAMETERS = ("queue", "numa_nodes", "split_above_gib")
CELLS_MAX = 100_000
Share = Annotated[float, msgspec.Meta(gt=0, le=1)]
Name = Annotated[str, msgspec.Meta(min_length=1)]


class Topology(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`hosts` as `parse_hosts` takes it."""

    name: Name
    hosts: Name
    numa_nodes: int = 1
    split_above_gib: float | None = None


class GridTrace(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`path` is `azure-v1`, or a file; relative to the grid's own folder.

    `window_vms` 0: all of it; else so many VMs in a row, the first of which is drawn from the seed. `keep`: each VM
    stays with this probability, drawn from the seed too. Of one seed all policies get the same VMs.
    """

    name: Name
    path: Name
    window_vms: Annotated[int, msgspec.Meta(ge=0)] = 0
    keep: Share = 1.0
    on_bad: OnBad = "error"

    @property
    def is_sampled(self) -> bool:
        return self.window_vms > 0 or self.keep < 1


class Parameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Each a list of values to try; all combinations are run."""

    queue: tuple[Literal["fifo", "reject"], ...] = ("fifo",)
    numa_nodes: tuple[int, ...] = ()
    split_above_gib: tuple[float, ...] = ()


class Grid(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="experiment",
    tag="replay",
):
    """`seeds`: a list, or how many, from 0. `metric`: what the policies are ranked by; less is better."""

    policies: tuple[Name, ...]
    topologies: tuple[Topology, ...]
    traces: tuple[GridTrace, ...]
    parameters: Parameters = Parameters()
    seeds: tuple[int, ...] | int = 1
    metric: Metric = "hosts_peak"
    name: str = ""

    TABLES: ClassVar[dict[str, type[msgspec.Struct]]] = {
        "topologies": Topology,
        "traces": GridTrace,
        "parameters": Parameters,
    }
    METRICS: ClassVar[tuple[str, ...]] = METRICS

    @property
    def seed_list(self) -> tuple[int, ...]:
        return tuple(range(self.seeds)) if isinstance(self.seeds, int) else self.seeds


def trace_path(trace: GridTrace, folder: Path) -> str:
    """What `read_trace` takes. A path of the grid's is relative to the grid."""
    if trace.path == BUNDLED_TRACE:
        return trace.path
    return str((folder / trace.path).absolute())


def hosts_spec(topology: Topology, folder: Path) -> str:
    if topology.hosts.endswith(".csv"):
        return str((folder / topology.hosts).absolute())
    return topology.hosts


def check_grid(grid: Grid, folder: Path) -> None:
    """Raises BadInput or NotFound for what makes no sense, or is not there."""
    for what, count in (
        ("policies", len(grid.policies)),
        ("topologies", len(grid.topologies)),
        ("traces", len(grid.traces)),
        ("seeds", len(grid.seed_list)),
        ("parameters.queue", len(grid.parameters.queue)),
    ):
        if not count:
            raise BadInput(f"{what} is empty: give at least one")
    check_once("policies", grid.policies)
    check_once("topologies", [one.name for one in grid.topologies])
    check_once("traces", [one.name for one in grid.traces])
    check_once("seeds", grid.seed_list)
    for name in PARAMETERS:
        check_once(f"parameters.{name}", getattr(grid.parameters, name))
    for policy in grid.policies:
        if is_object_policy(policy):
            loaded_policy(policy)
        else:
            named_policy(policy)
    for topology in grid.topologies:
        parse_hosts(hosts_spec(topology, folder))
        if grid.parameters.numa_nodes and topology.numa_nodes != 1:
            raise BadInput(_said_twice("numa_nodes", topology))
        if grid.parameters.split_above_gib and topology.split_above_gib is not None:
            raise BadInput(_said_twice("split_above_gib", topology))
    for trace in grid.traces:
        path = trace_path(trace, folder)
        if path != BUNDLED_TRACE and not Path(path).is_file():
            raise NotFound(
                f"there is no trace {trace.path} (traces, name {trace.name}) in {folder.absolute()}"
            )


def _said_twice(parameter: str, topology: Topology) -> str:
    return f"{parameter} stands in parameters and in topology {topology.name}: leave one out"


def check_once(what: str, values: Iterable[object]) -> None:
    """Raises BadInput."""
    seen = set()
    for value in values:
        if value in seen:
            raise BadInput(f"{what} has {value} twice: name each once")
        seen.add(value)


def check_cell_count(count: int) -> None:
    """Raises BadInput for more than a grid may have."""
    if count > CELLS_MAX:
        raise BadInput(
            f"the grid has {count:,} runs, more than {CELLS_MAX:,}: leave some out, or make two of it"
        )
