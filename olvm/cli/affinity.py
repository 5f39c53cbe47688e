"""`olvm affinity`: which machines are kept together or apart, and which hosts they keep to or off."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from olvm.cli.changes import Asked, carry_out, cluster_or_only, confirm_removal, once_each
from olvm.cli.completer import affinity_group_names, host_names, vm_names
from olvm.cli.connection import data_center
from olvm.cli.listing import list_records
from olvm.cli.options import CHANGING, LISTING, Changing, Cluster, Listing, Yes
from olvm.model import messages as m

USUAL_COLUMNS = (
    "name",
    "cluster",
    "vms_rule",
    "vms_enforcing",
    "vm_names",
    "hosts_rule",
    "hosts_enforcing",
    "hosts",
    "priority",
    "broken",
)
Enforcing = Annotated[bool, Parameter(negative=(), help="Rather not start than break the rule.")]

app = App(name="affinity", help="Affinity groups: machines together or apart, on some hosts or off them.")


@app.command(name="list")
def list_(*, options: Listing = LISTING) -> int:
    """List affinity groups; `broken` says which do not hold now."""
    with data_center(options) as dc:
        return list_records(dc.affinity_groups, options, USUAL_COLUMNS)


@app.command(name="set")
def set_(
    name: Annotated[str, Parameter(help="Name.", completer=affinity_group_names)],
    /,
    *,
    cluster: Cluster = None,
    vm: Annotated[
        list[str] | None,
        Parameter(help="A member; may be repeated.", negative=(), completer=vm_names, metavar="VM"),
    ] = None,
    host: Annotated[
        list[str] | None,
        Parameter(help="A host; may be repeated.", negative=(), completer=host_names, metavar="HOST"),
    ] = None,
    vms_rule: Annotated[
        m.Rule, Parameter(help="Machines on one host (positive), or each on another (negative).")
    ] = "disabled",
    vms_enforcing: Enforcing = False,
    hosts_rule: Annotated[
        m.Rule, Parameter(help="Machines on these hosts (positive), or on others (negative).")
    ] = "disabled",
    hosts_enforcing: Enforcing = False,
    priority: Annotated[float, Parameter(help="Of two that contradict, the higher wins.", metavar="N")] = 1.0,
    options: Changing = CHANGING,
) -> int:
    """Create an affinity group, or replace the one of that name."""
    with data_center(options) as dc:
        command = m.SetAffinityGroup(
            name=name,
            cluster=cluster_or_only(dc, cluster),
            vms=list(vm or ()),
            hosts=list(host or ()),
            vms_rule=vms_rule,
            vms_enforcing=vms_enforcing,
            hosts_rule=hosts_rule,
            hosts_enforcing=hosts_enforcing,
            priority=priority,
        )
        return carry_out(dc, [Asked(command=command, what=f"set affinity group {name}")], options)


@app.command
def remove(
    names: Annotated[list[str], Parameter(help="Names.", completer=affinity_group_names)],
    /,
    *,
    cluster: Cluster = None,
    yes: Yes = False,
    options: Changing = CHANGING,
) -> int:
    """Remove affinity groups; their machines stay where they are."""
    chosen = once_each(names)
    with data_center(options) as dc:
        confirm_removal("affinity group", chosen, yes)
        place = cluster_or_only(dc, cluster)
        asked = [
            Asked(command=m.RemoveAffinityGroup(name, place), what=f"remove affinity group {name}")
            for name in chosen
        ]
        return carry_out(dc, asked, options)
