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
