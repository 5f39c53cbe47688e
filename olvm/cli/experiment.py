"""`olvm experiment`: placement experiments on real traces. Needs no data center."""

from __future__ import annotations

from cyclopts import App

app = App(name="experiment", help="Placement experiments: real traces, policies, energy and its price.")
app.command(
    "olvm.cli.experiment_planetlab:planetlab",
    name="planetlab",
    help="Live migration, consolidation and power: one day of PlanetLab under one policy.",
)
app.command(
    "olvm.cli.experiment_import:app",
    name="import",
    help="Published traces of eight formats become the table that experiments replay.",
)
app.command(
    "olvm.cli.experiment_replay:replay",
    name="replay",
    help="A trace of VM requests, hosts and one policy: who goes where, and how many hosts it takes.",
)
app.command(
    "olvm.cli.experiment_run:run",
    name="run",
    help="A grid of replays: topologies, traces, policies, parameters and seeds, on many workers.",
)
app.command(
    "olvm.cli.experiment_report:report",
    name="report",
    help="The policies of a grid against each other, with confidence intervals, as tables and as one HTML file.",
)
app.command(
    "olvm.cli.experiment_bound:bound",
    name="bound",
    help="The least peak of hosts that any policy could have on a small trace, by a solver.",
)
