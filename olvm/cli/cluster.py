"""`olvm cluster`: groups of hosts and the policy that spreads machines over them."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from olvm.cli.changes import Asked, carry_out, confirm_removal, once_each
from olvm.cli.completer import cluster_names
from olvm.cli.connection import data_center
from olvm.cli.listing import list_records, show_record
from olvm.cli.options import CHANGING, LISTING, PRINTING, Changing, Listing, Printing, Yes
from olvm.model import messages as m
from olvm.model.errors import BadInput

USUAL_COLUMNS = ("name", "policy", "host_count", "memory_overcommit_percent", "cpu_overcommit_percent")
ClusterName = Annotated[str, Parameter(help="Name.", completer=cluster_names)]
Policy = Annotated[
    str | None, Parameter(help="Scheduling policy, as in none, evenly_distributed or power_saving.")
]
PolicyParameters = Annotated[
    list[str] | None,
    Parameter(
        name="--policy-parameter", help="Of the policy; may be repeated.", negative=(), metavar="KEY=N"
    ),
]
MemoryOvercommit = Annotated[
    int | None,
    Parameter(name="--memory-overcommit", help="Percent of the memory to give out.", metavar="PERCENT"),
]
CpuOvercommit = Annotated[
    int | None,
    Parameter(
        name="--cpu-overcommit", help="Percent of the CPUs to give out; 0: no bound.", metavar="PERCENT"
    ),
]

app = App(
    name="cluster", help="Clusters: which hosts belong together, and how machines are spread over them."
)


@app.command(name="list")
def list_(*, options: Listing = LISTING) -> int:
    """List clusters."""
    with data_center(options) as dc:
        return list_records(dc.clusters, options, USUAL_COLUMNS)


@app.command
def show(name: ClusterName, /, *, options: Printing = PRINTING) -> int:
    """Show everything about one cluster."""
    with data_center(options) as dc:
        return show_record(dc.clusters.row(name), options)


@app.command
def create(
    names: Annotated[list[str], Parameter(help="Names; several get the same policy.")],
    /,
    *,
    policy: Policy = "none",
    policy_parameter: PolicyParameters = None,
    memory_overcommit: MemoryOvercommit = 100,
    cpu_overcommit: CpuOvercommit = 0,
    options: Changing = CHANGING,
) -> int:
    """Create clusters."""
    parameters = _parameters(policy_parameter)
    asked = [
        Asked(
            command=m.CreateCluster(
                name, policy or "none", parameters or {}, memory_overcommit or 0, cpu_overcommit or 0
            ),
            what=f"create cluster {name}",
        )
        for name in once_each(names)
    ]
    with data_center(options) as dc:
        return carry_out(dc, asked, options)


@app.command
def update(
    name: ClusterName,
    /,
    *,
    policy: Policy = None,
    policy_parameter: PolicyParameters = None,
    memory_overcommit: MemoryOvercommit = None,
    cpu_overcommit: CpuOvercommit = None,
    options: Changing = CHANGING,
) -> int:
    """Change what is given."""
    command = m.UpdateCluster(name, policy, _parameters(policy_parameter), memory_overcommit, cpu_overcommit)
    with data_center(options) as dc:
        return carry_out(dc, [Asked(command=command, what=f"update cluster {name}")], options)


@app.command
def remove(
    names: Annotated[list[str], Parameter(help="Names.", completer=cluster_names)],
    /,
    *,
    yes: Yes = False,
    options: Changing = CHANGING,
) -> int:
    """Remove clusters that are empty."""
    chosen = once_each(names)
    with data_center(options) as dc:
        confirm_removal("cluster", chosen, yes)
        asked = [Asked(command=m.RemoveCluster(name), what=f"remove cluster {name}") for name in chosen]
        return carry_out(dc, asked, options)


def _parameters(pairs: list[str] | None) -> dict[str, float] | None:
    if pairs is None:
        return None
    parameters = {}
    for pair in pairs:
        key, equals, number = pair.partition("=")
        try:
            parameters[key] = float(number)
        except ValueError:
            equals = ""
        if not (key and equals):
            raise BadInput(f"--policy-parameter {pair} is not KEY=NUMBER, as in high_utilization=80")
    return parameters
