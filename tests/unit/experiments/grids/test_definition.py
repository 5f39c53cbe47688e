"""What is wrong with a grid is said with the file, the key and what is allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from olvm.experiments.grids.reading import read_grid
from olvm.experiments.grids.running import cells_of
from olvm.model.errors import BadInput, NotFound, OlvmError
from tests.unit.experiments.grids.small import small_grid, write_trace

TOML = """
policies = ["first_fit"]

[[topologies]]
name = "a"
hosts = "4x8c16g"

[[traces]]
name = "t"
path = "trace.csv"
"""


def write(tmp_path: Path, text: str) -> Path:
    write_trace(tmp_path / "trace.csv", 10)
    path = tmp_path / "grid.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_paths_of_a_file_are_relative_to_it(tmp_path: Path) -> None:
    grid, folder = read_grid(write(tmp_path, TOML))
    (cell,) = cells_of(grid, folder)

    assert cell.trace_path == str(tmp_path / "trace.csv")
    assert (cell.policy, cell.topology, cell.trace, cell.seed, cell.queue) == (
        "first_fit",
        "a",
        "t",
        0,
        "fifo",
    )


@pytest.mark.parametrize(
    ("found", "put", "sentence"),
    [
        (
            "policies",
            "polices",
            r"there is no polices \(did you mean policies\?\); a grid has policies, topologies",
        ),
        (
            "hosts =",
            "host =",
            r"there is no topologies\[0\].host \(did you mean hosts\?\); topologies\[0\] has name",
        ),
        ('"4x8c16g"', "4", r"topologies\[0\]\.hosts: expected str, got int"),
        ('"4x8c16g"', '"4y8c16g"', "4y8c16g"),
        ('"4x8c16g"', '"4x8c16g"\nnuma_nodes = "two"', r"topologies\[0\]\.numa_nodes: expected int, got str"),
        ('["first_fit"]', "[]", "policies is empty: give at least one"),
        ('["first_fit"]', '["first_fit", "first_fit"]', "policies has first_fit twice"),
        ('["first_fit"]', '["first_fti"]', r"there is no policy first_fti \(did you mean first_fit\?\)"),
        ('["first_fit"]', '["nowhere:Policy"]', "module nowhere cannot be imported"),
        ('["first_fit"]', '["first_fit"]\nseeds = 0', "seeds is empty"),
        ('["first_fit"]', '["first_fit"]\nseeds = [1, 1]', "seeds has 1 twice"),
        (
            '["first_fit"]',
            '["first_fit"]\nmetric = "cost"',
            "there is no metric cost; choose from hosts_peak",
        ),
        ('"trace.csv"', '"trace.csv"\nkeep = 0', r"traces\[0\]\.keep: expected float > 0"),
        ("[[traces]]", "[[traces", "it is no TOML"),
        (
            "[[topologies]]",
            "[parameters]\nnuma_nodes = [1, 2]\n[[topologies]]\nnuma_nodes = 2",
            "numa_nodes stands in parameters and in topology a: leave one out",
        ),
    ],
)
def test_grid_that_makes_no_sense_is_refused_with_its_file_and_the_reason(
    tmp_path: Path, found: str, put: str, sentence: str
) -> None:
    assert found in TOML
    path = write(tmp_path, TOML.replace(found, put, 1))

    with pytest.raises(BadInput, match=f"(?s)grid {path}: .*{sentence}|cannot read grid {path}: {sentence}"):
        read_grid(path)


@pytest.mark.parametrize("name", ["missing.toml", "grid.toml"])
def test_file_that_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, TOML.replace("trace.csv", "missing.csv")).with_name(name)

    with pytest.raises(NotFound, match=r"missing\.(toml|csv)"):
        read_grid(path)


def test_grid_of_too_many_runs_is_refused(tmp_path: Path) -> None:
    grid, folder = read_grid(small_grid(tmp_path, seeds=100_000))

    with pytest.raises(BadInput, match="the grid has 600,000 runs, more than 100,000"):
        cells_of(grid, folder)


@pytest.mark.parametrize(
    "changed",
    [
        {"seeds": [5]},
        {"policies": ["first_fit"], "parameters": {"queue": ["reject"]}},
        {"parameters": {"numa_nodes": [2]}},
        {"parameters": {"split_above_gib": [8.0]}},
    ],
)
def test_cell_has_another_id_when_anything_that_decides_its_figures_is_changed(
    tmp_path: Path, changed: dict[str, Any]
) -> None:
    before = {cell.id for cell in cells_of(*read_grid(small_grid(tmp_path)))}
    after = {cell.id for cell in cells_of(*read_grid(small_grid(tmp_path, **changed)))}

    assert len(before) == 24
    assert not before & after


def test_cell_has_the_same_id_while_its_inputs_are_the_same_and_another_when_the_trace_is(
    tmp_path: Path,
) -> None:
    def ids() -> list[str]:
        return [cell.id for cell in cells_of(*read_grid(small_grid(tmp_path)))]

    before = ids()
    assert ids() == before
    write_trace(tmp_path / "trace.csv", 301)
    assert not set(ids()) & set(before)


def test_every_failure_is_one_of_ours(tmp_path: Path) -> None:
    for source in ({}, {"policies": 3}, {"policies": ["first_fit"], "topologies": 1, "traces": "x"}):
        with pytest.raises(OlvmError, match="the grid: "):
            read_grid(source)
