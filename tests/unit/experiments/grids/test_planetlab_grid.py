"""Grids of PlanetLab days: what runs they have, what comes of them, and how their policies are compared."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from olvm.experiments import load_results, planetlab, run_grid
from olvm.experiments.grids.planetlab import METRICS
from olvm.experiments.grids.progress import Progress
from olvm.experiments.grids.report import fragment
from olvm.model.errors import BadInput, NotFound

DAYS = ("20300101", "20300102", "20300103")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three days of thirty machines."""
    drawn = random.Random(11)
    folder = tmp_path / "days"
    for day in DAYS:
        (folder / day).mkdir(parents=True)
        for vm in range(30):
            level = drawn.randint(5, 80)
            samples = [min(100, max(0, level + drawn.randint(-20, 20))) for _ in range(288)]
            (folder / day / f"vm{vm:02}").write_text("\n".join(map(str, samples)) + "\n", encoding="ascii")
    return folder


def grid_of(data: Path, **changed: Any) -> dict[str, Any]:
    return {
        "experiment": "planetlab",
        "data": str(data),
        "days": DAYS,
        "detectors": ["thr", "lr", "dvfs"],
        "selectors": ["mmt", "rs"],
        "safety": {"lr": [1.0, 1.2]},
        "hosts": [20],
        "seeds": 2,
        **changed,
    }


def test_runs_are_what_single_days_give(data: Path, tmp_path: Path) -> None:
    results = run_grid(grid_of(data), tmp_path / "out", workers=0)
    assert results.is_whole
    found = results.runs.rows()
    # Each day: mmt of three policies once, rs of three for two seeds, and dvfs.
    assert len(found) == 3 * (3 + 3 * 2 + 1)
    for row in found:
        single = planetlab(
            data,
            row["day"],
            detector=row["detector"],
            safety=row["safety"],
            selector=row["selector"] or "mmt",
            seed=row["seed"],
            hosts=20,
        )
        assert {name: row[name] for name in METRICS} == {name: getattr(single, name) for name in METRICS}
    assert {row["policy"] for row in found} == {
        "thr-0.8-mmt",
        "thr-0.8-rs",
        "lr-1-mmt",
        "lr-1-rs",
        "lr-1.2-mmt",
        "lr-1.2-rs",
        "dvfs",
    }


def test_policies_are_compared_day_by_day_by_the_mean_of_their_seeds(data: Path, tmp_path: Path) -> None:
    results = run_grid(grid_of(data), tmp_path / "out", workers=0)
    (scenario,) = results.compare("energy_kwh").scenarios
    assert (scenario.block, scenario.blocks, scenario.bound) == ("day", DAYS, None)
    (drawn,) = [line for line in scenario.lines if line.policy == "thr-0.8-rs"]
    by_day = {
        day: np.mean(
            [
                outcome.figures["energy_kwh"]
                for cell, outcome in results.done
                if cell.policy == "thr-0.8-rs" and cell.block == day
            ]
        )
        for day in DAYS
    }
    assert drawn.values == tuple(by_day.values())
    page = fragment(results)
    assert "compared day by day" in page
    assert "energy in kWh times SLAV" in page


def test_grid_that_was_stopped_goes_on_and_comes_to_the_same(data: Path, tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def stop(progress: Progress) -> None:
        if progress.done_count == 7:
            raise Stopped

    with pytest.raises(Stopped):
        run_grid(grid_of(data), tmp_path / "there", workers=0, on_progress=stop)
    assert len(load_results(tmp_path / "there").done) == 7
    told: list[Progress] = []
    run_grid(grid_of(data), tmp_path / "there", workers=0, on_progress=told.append)
    run_grid(grid_of(data), tmp_path / "here", workers=0)
    assert told[0].kept_count == 7
    assert told[-1].compared_count == 3
    runs = [(tmp_path / name / "runs.parquet").read_bytes() for name in ("here", "there")]
    assert runs[0] == runs[1]


def test_day_that_has_changed_is_run_anew(data: Path, tmp_path: Path) -> None:
    run_grid(grid_of(data), tmp_path / "out", workers=0)
    (data / DAYS[1] / "vm00").write_text("50\n" * 288, encoding="ascii")
    told: list[Progress] = []
    run_grid(grid_of(data), tmp_path / "out", workers=0, on_progress=told.append)
    assert (told[0].total_count, told[0].kept_count) == (30, 20)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"experiment": "planetlabs"}, r"there is no experiment planetlabs \(did you mean planetlab\?\)"),
        ({"experiment": ["planetlab"]}, r"there is no experiment \['planetlab'\]"),
        ({"safety": {"lr": [1.2, 1.2000001]}}, "safety.lr has 1.2 twice"),
        ({"metric": "hosts_peak"}, "there is no metric hosts_peak; choose from esv, energy_kwh"),
        ({"detectors": ["lrx"], "safety": {}}, "there is no detector lrx"),
        ({"selectors": ["mmt", "mmt"]}, "selectors has mmt twice"),
        ({"days": []}, "days is empty"),
        ({"safety": {"thr": [1.5]}}, "safety 1.5 is out of range for thr"),
        ({"safety": {"mad": [2.0]}}, "safety has mad, which detectors has not"),
        ({"hosts": [1]}, "cannot run with 1 hosts"),
        ({"seeds": [-1]}, "-1 is no seed"),
        ({"topologies": []}, "there is no topologies"),
    ],
)
def test_grid_that_makes_no_sense_is_told(
    data: Path, tmp_path: Path, changed: dict[str, Any], words: str
) -> None:
    with pytest.raises(BadInput, match=words):
        run_grid(grid_of(data, **changed), tmp_path / "out", workers=0)
    assert not (tmp_path / "out").exists()


def test_day_that_is_not_there_is_told_before_anything_runs(data: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="has no day 20300104"):
        run_grid(grid_of(data, days=[*DAYS, "20300104"]), tmp_path / "out", workers=0)


def test_metric_of_the_other_experiment_is_refused(data: Path, tmp_path: Path) -> None:
    results = run_grid(
        grid_of(data, detectors=["thr"], safety={}, days=DAYS[:1]), tmp_path / "out", workers=0
    )
    with pytest.raises(BadInput, match="these runs have no metric hosts_peak"):
        results.compare("hosts_peak")
