"""Placement experiments: real traces, fleets to run them on, and later the runner and its reports."""

from __future__ import annotations

from olvm.experiments.imports import IMPORTERS, ImportReport, import_trace

__all__ = ["IMPORTERS", "ImportReport", "import_trace"]
