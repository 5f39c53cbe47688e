"""`olvm cluster`: groups of hosts and the policy that spreads machines over them."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import App, Parameter

from olvm.api.policies import policy_of
from olvm.cli.changes import Asked, carry_out, confirm_removal, once_each
from olvm.cli.completer import cluster_names
from olvm.cli.connection import data_center
from olvm.cli.listing import list_records, show_record
from olvm.cli.options import CHANGING, LISTING, PRINTING, Changing, Deadline, Listing, Printing, Yes
from olvm.model import messages as m
from olvm.model.errors import BadInput

USUAL_COLUMNS = (
    "name",
    "policy",
    "host_count",
    "power",
    "migration_policy",
    "fencing",
    "memory_overcommit_percent",
    "cpu_overcommit_percent",
)
ClusterName = Annotated[str, Parameter(help="Name.", completer=cluster_names)]
Policy = Annotated[
    str | None,
    Parameter(
        help="Scheduling policy: a name (`olvm policy list`), a TOML file with one of your own, or module:Class.",
        metavar="NAME|FILE.toml",
    ),
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
MigrationPolicy = Annotated[
    str | None,
    Parameter(help="Of machines that have none of their own, as in minimal_downtime or post_copy."),
]
MigrationBandwidth = Annotated[
    float | None,
    Parameter(help="MiB/s of one host in each direction; 0: the configuration's.", metavar="MIB_S"),
]
Fencing = Annotated[bool | None, Parameter(help="Hosts that stay silent are fenced.")]
SkipIfLeaseLive = Annotated[
    bool | None,
    Parameter(
        name="--fencing-skip-if-lease-live", help="Not while the host renews its lease on the storage."
    ),
]
SkipIfConnectivityBroken = Annotated[
    bool | None,
    Parameter(name="--fencing-skip-if-connectivity-broken", help="Not while too many hosts are silent."),
]
ConnectivityThreshold = Annotated[
    int | None,
    Parameter(
        name="--fencing-connectivity-threshold", help="How many are too many: 1 to 100.", metavar="PERCENT"
    ),
]
HaReservation = Annotated[
    bool | None, Parameter(help="Warn when what is highly available would not fit if one host were lost.")
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
    migration_policy: MigrationPolicy = "minimal_downtime",
    migration_bandwidth: MigrationBandwidth = 0.0,
    fencing: Fencing = True,
    skip_if_lease_live: SkipIfLeaseLive = True,
    skip_if_connectivity_broken: SkipIfConnectivityBroken = True,
    connectivity_threshold: ConnectivityThreshold = 50,
    ha_reservation: HaReservation = False,
    options: Changing = CHANGING,
) -> int:
    """Create clusters."""
    parameters = _parameters(policy_parameter)
    policy_name, definition = policy_of(policy or "none")
    asked = [
        Asked(
            command=m.CreateCluster(
                name=name,
                policy=policy_name,
                policy_parameters=parameters or {},
                memory_overcommit_percent=memory_overcommit or 0,
                cpu_overcommit_percent=cpu_overcommit or 0,
                migration_policy=migration_policy or "minimal_downtime",
                migration_bandwidth_mib_s=migration_bandwidth or 0.0,
                fencing=bool(fencing),
                fencing_skip_if_lease_live=bool(skip_if_lease_live),
                fencing_skip_if_connectivity_broken=bool(skip_if_connectivity_broken),
                fencing_connectivity_threshold_percent=connectivity_threshold or 0,
                ha_reservation=bool(ha_reservation),
                policy_definition=definition,
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
    migration_policy: MigrationPolicy = None,
    migration_bandwidth: MigrationBandwidth = None,
    fencing: Fencing = None,
    skip_if_lease_live: SkipIfLeaseLive = None,
    skip_if_connectivity_broken: SkipIfConnectivityBroken = None,
    connectivity_threshold: ConnectivityThreshold = None,
    ha_reservation: HaReservation = None,
    options: Changing = CHANGING,
) -> int:
    """Change what is given."""
    policy_name, definition = (None, None) if policy is None else policy_of(policy)
    command = m.UpdateCluster(
        name=name,
        policy=policy_name,
        policy_parameters=_parameters(policy_parameter),
        memory_overcommit_percent=memory_overcommit,
        cpu_overcommit_percent=cpu_overcommit,
        migration_policy=migration_policy,
        migration_bandwidth_mib_s=migration_bandwidth,
        fencing=fencing,
        fencing_skip_if_lease_live=skip_if_lease_live,
        fencing_skip_if_connectivity_broken=skip_if_connectivity_broken,
        fencing_connectivity_threshold_percent=connectivity_threshold,
        ha_reservation=ha_reservation,
        policy_definition=definition,
    )
    with data_center(options) as dc:
        return carry_out(dc, [Asked(command=command, what=f"update cluster {name}")], options)


@app.command
def shutdown(name: ClusterName, /, *, deadline: Deadline = None, options: Changing = CHANGING) -> int:
    """Shut all its machines down in order, and put its hosts into maintenance."""
    return _power(name, "shutdown", deadline, options)


@app.command
def start(name: ClusterName, /, *, deadline: Deadline = None, options: Changing = CHANGING) -> int:
    """Activate its hosts and start the machines that ran before the shutdown."""
    return _power(name, "start", deadline, options)


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


def _power(name: str, verb: Literal["shutdown", "start"], deadline_s: float | None, options: Changing) -> int:
    command = m.ClusterCommand(name, verb, deadline_s)
    with data_center(options) as dc:
        return carry_out(dc, [Asked(command=command, what=f"{verb} cluster {name}")], options)


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
