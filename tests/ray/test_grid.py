"""A grid over Ray tasks gives what it gives in one process, policies of one's own included."""

from __future__ import annotations

from pathlib import Path

import pytest

from olvm.experiments import run_grid
from olvm.model.errors import EngineUnreachable
from tests.unit.experiments.grids.small import POLICY, write_trace

GRID = """
seeds = 5
policies = ["best_fit", "grid_policies_on_ray:LastFit", "grid_policies_on_ray:Picky"]

[[topologies]]
name = "equal"
hosts = "40x16c64g"

[[traces]]
name = "short"
path = "trace.csv"
window_vms = 150
"""


def test_grid_over_ray_gives_the_same_figures_and_the_same_failures(tmp_path: Path) -> None:
    write_trace(tmp_path / "trace.csv")
    (tmp_path / "grid_policies_on_ray.py").write_text(POLICY, encoding="utf-8")
    grid = tmp_path / "grid.toml"
    grid.write_text(GRID, encoding="utf-8")

    here = run_grid(grid, tmp_path / "here", workers=0)
    there = run_grid(grid, tmp_path / "there", workers=2)

    assert len(there.runs) == 10
    assert there.runs.rows() == here.runs.rows()
    assert there.failures == here.failures
    assert len(there.failures) == 5


def test_cluster_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    write_trace(tmp_path / "trace.csv")
    grid = tmp_path / "grid.toml"
    named_alone = GRID.replace(', "grid_policies_on_ray:LastFit", "grid_policies_on_ray:Picky"', "")
    grid.write_text(named_alone, encoding="utf-8")

    with pytest.raises(EngineUnreachable, match=r"Ray does not answer at 127\.0\.0\.1:9"):
        run_grid(grid, tmp_path / "out", workers=2, address="127.0.0.1:9")
