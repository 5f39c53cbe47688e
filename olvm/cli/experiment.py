"""`olvm experiment`: placement experiments. Needs no data center."""

from __future__ import annotations

from cyclopts import App

app = App(name="experiment", help="Placement experiments: traces, replays, reports.")
app.command("olvm.cli.experiment_import:app", name="import", help="Import a published trace.")
