"""A grid is run once, however often it is stopped; what fails in it is said and tried again."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from olvm.cli.experiment_progress import duration, frame, line
from olvm.experiments.grids.log import CELLS, LOG, RUNS, GridLog
from olvm.experiments.grids.progress import Progress
from olvm.experiments.grids.report import fragment, write_report
from olvm.experiments.grids.results import load_results
from olvm.experiments.grids.running import run_grid
from olvm.experiments.grids.sampling import sampled
from olvm.experiments.replays import replay
from olvm.experiments.trace import read_trace
from olvm.model.errors import BadInput, Conflict, NotFound
from tests.unit.experiments.grids.small import POLICY, small_grid, write_trace


class Stop(Exception):
    """A person's Ctrl-C, at a place that a test chooses."""


def stopped_after(count: int) -> Any:
    def listen(progress: Progress) -> None:
        if progress.done_count == count:
            raise Stop

    return listen


def run_count(out: Path) -> int:
    return len((out / LOG).read_bytes().splitlines())


def test_runs_are_what_single_replays_give(tmp_path: Path) -> None:
    results = run_grid(small_grid(tmp_path), tmp_path / "out", workers=0)

    rows = results.runs.rows()
    assert len(rows) == 24
    for row in (rows[0], rows[13], rows[23]):
        trace = sampled(read_trace(tmp_path / "trace.csv"), 100, 1.0, row["seed"])
        hosts = {"one": "40x16c64g", "two": "20x16c64g,20x8c96g"}[row["topology"]]
        alone = replay(trace, hosts, policy=row["policy"], seed=row["seed"])
        assert (row["digest"], row["hosts_peak"]) == (alone.digest, alone.hosts_peak)


def test_grid_that_was_stopped_goes_on_and_ends_with_the_same_bytes(tmp_path: Path) -> None:
    run_grid(small_grid(tmp_path), tmp_path / "whole", workers=0)
    out = tmp_path / "stopped"
    for count in (5, 1, 9):
        with pytest.raises(Stop):
            run_grid(small_grid(tmp_path), out, workers=0, on_progress=stopped_after(count))
        assert not (out / RUNS).exists()
    # A kill in the middle of a line.
    with (out / LOG).open("ab") as file:
        file.write(b'{"id":"0123","figu')
    told: list[Progress] = []
    run_grid(small_grid(tmp_path), out, workers=0, on_progress=told.append)

    assert (out / RUNS).read_bytes() == (tmp_path / "whole" / RUNS).read_bytes()
    assert run_count(out) == 24
    assert (told[0].kept_count, told[-1].done_count) == (15, 9)


def test_finished_grid_runs_nothing_again(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_grid(small_grid(tmp_path), out, workers=0)
    before = (out / RUNS).read_bytes()
    run_grid(small_grid(tmp_path), out, workers=0)

    assert run_count(out) == 24
    assert (out / RUNS).read_bytes() == before


def test_changed_trace_is_run_anew_and_an_added_policy_alone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_grid(small_grid(tmp_path), out, workers=0)
    more = ["first_fit", "best_fit", "worst_fit", "round_robin"]
    assert len(run_grid(small_grid(tmp_path, policies=more), out, workers=0).runs) == 32
    assert run_count(out) == 32
    write_trace(tmp_path / "trace.csv", 250)
    assert len(run_grid(small_grid(tmp_path), out, workers=0).runs) == 24
    assert run_count(out) == 56


def test_policy_that_raises_is_said_with_its_run_and_the_others_go_on(tmp_path: Path) -> None:
    (tmp_path / "grid_policies.py").write_text(POLICY, encoding="utf-8")
    grid = small_grid(
        tmp_path, policies=["first_fit", "grid_policies:Picky", "grid_policies:LastFit"], seeds=1
    )
    path = tmp_path / "grid.toml"
    text = f"""
        policies = {grid["policies"]}
        topologies = [{{ name = "one", hosts = "40x16c64g" }}]
        traces = [{{ name = "short", path = "trace.csv" }}]
    """
    path.write_text(text, encoding="utf-8")
    results = run_grid(path, tmp_path / "out", workers=0)

    assert [cell.policy for cell, _ in results.done] == ["first_fit", "grid_policies:LastFit"]
    ((cell, error),) = results.failures
    assert cell.title() == "grid_policies:Picky on one with short, fifo, seed 0"
    assert re.search("failed in choose for VM .*too many for me", error)
    assert not (tmp_path / "out" / RUNS).exists()


def test_failed_run_is_tried_again(tmp_path: Path) -> None:
    out = tmp_path / "out"
    grid = small_grid(
        tmp_path, traces=[{"name": "t", "path": str(tmp_path / "trace.csv"), "window_vms": 1000}]
    )
    results = run_grid(grid, out, workers=0)
    assert len(results.failures) == 24
    assert "a window of 1000 VMs is more than" in results.failures[0][1]

    run_grid(grid, out, workers=0)
    assert run_count(out) == 48


def test_second_process_is_refused_while_one_runs(tmp_path: Path) -> None:
    with GridLog(tmp_path / "out"), pytest.raises(Conflict, match="another process runs the grid"):
        run_grid(small_grid(tmp_path), tmp_path / "out", workers=0)


def test_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")

    with pytest.raises(Conflict, match="no grid wrote it"):
        run_grid(small_grid(tmp_path), tmp_path / "mine", workers=0)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_damaged_line_is_named_and_nothing_is_lost(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_grid(small_grid(tmp_path), out, workers=0)
    lines = (out / LOG).read_bytes().splitlines(keepends=True)
    lines[3] = b'{"id": 7}\n'
    (out / LOG).write_bytes(b"".join(lines))

    with pytest.raises(BadInput, match=r"line 4 of .*runs\.jsonl is damaged"):
        run_grid(small_grid(tmp_path), out, workers=0)
    assert (out / LOG).read_bytes() == b"".join(lines)


def test_results_where_no_grid_wrote_are_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="olvm experiment run"):
        load_results(tmp_path)


@pytest.mark.parametrize(("workers", "address"), [(-1, None), (0, "127.0.0.1:1")])
def test_workers_that_make_no_sense_are_refused(tmp_path: Path, workers: int, address: str | None) -> None:
    with pytest.raises(BadInput, match="workers"):
        run_grid(small_grid(tmp_path), tmp_path / "out", workers=workers, address=address)


# ---------------------------------------------------------------- sampling


def test_policies_of_one_seed_see_the_same_vms_and_another_seed_sees_others(tmp_path: Path) -> None:
    write_trace(tmp_path / "trace.csv")
    trace = read_trace(tmp_path / "trace.csv")
    samples = [sampled(trace, 100, 0.5, seed) for seed in (1, 1, 2)]

    assert samples[0].milli_vcpus.tolist() == samples[1].milli_vcpus.tolist()
    assert samples[0].rows is not None
    assert samples[2].rows is not None
    assert samples[0].rows.tolist() != samples[2].rows.tolist()
    assert samples[0].digest != samples[2].digest
    assert 25 < len(samples[0]) < 75
    first = samples[0].rows[0]
    assert (
        samples[0].arrival_s[0] <= first
    )  # seconds from the window's first VM; the trace has one VM a second


def test_whole_trace_is_the_trace(tmp_path: Path) -> None:
    write_trace(tmp_path / "trace.csv")
    trace = read_trace(tmp_path / "trace.csv")

    assert sampled(trace, 0, 1.0, 5) is trace


# ---------------------------------------------------------------- what is shown


def test_report_of_a_half_finished_grid_says_so_and_needs_no_network(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(Stop):
        run_grid(small_grid(tmp_path), out, workers=0, on_progress=stopped_after(14))
    results = load_results(out)
    write_report(results, tmp_path / "report.html", results.compare())
    page = (tmp_path / "report.html").read_text(encoding="utf-8")

    assert "14 of 24 runs are done, 10 are still to come." in page
    assert (
        page.count("<svg") == page.count("</svg>") == 2
    )  # of the first topology: no seed of the second is finished by all
    assert not re.search(r"(src|href)=|@import|url\(|<script", page)
    assert "<svg" in fragment(results)


def test_names_in_a_report_are_text(tmp_path: Path) -> None:
    topologies = [{"name": "<script>alert(1)</script>", "hosts": "40x16c64g"}]
    results = run_grid(small_grid(tmp_path, topologies=topologies), tmp_path / "out", workers=0)

    assert "<script" not in fragment(results)
    assert "&lt;script&gt;" in fragment(results)


def test_grid_whose_seeds_change_nothing_says_so(tmp_path: Path) -> None:
    traces = [{"name": "t", "path": str(tmp_path / "trace.csv")}]
    results = run_grid(small_grid(tmp_path, traces=traces), tmp_path / "out", workers=0)

    assert "All 4 seeds gave the same" in fragment(results)


def test_results_go_to_arrow_and_html(tmp_path: Path) -> None:
    results = run_grid(small_grid(tmp_path), tmp_path / "out", workers=0)

    assert results.__arrow_c_stream__() is not None
    assert results.runs.relation().aggregate("count(*)").fetchall() == [(24,)]
    assert results._repr_html_().count("<h2>") == 3


def test_progress_says_how_far_how_long_and_who_leads(tmp_path: Path) -> None:
    told: list[Progress] = []
    run_grid(small_grid(tmp_path), tmp_path / "out", workers=0, on_progress=told.append)

    assert line(told[0]) == "0 of 24 runs"
    assert told[2].standings == ()  # not all three policies have finished the first seed
    assert [one.policy for one in told[3].standings][-1] == "worst_fit"
    half = msgspec.structs.replace(told[12], left_s=75.0)
    assert re.fullmatch(
        r"12 of 24 runs, about 1 min 15 s left, best so far \w+, mean hosts_peak [\d.]+", line(half)
    )
    from rich.console import Console

    console = Console(width=100)
    with console.capture() as capture:
        console.print(frame(half))
    assert "worst_fit" in capture.get()
    assert "over 4 pairs of scenario and seed" in capture.get()


@pytest.mark.parametrize(("seconds", "words"), [(0.4, "0 s"), (61, "1 min 01 s"), (3_700, "1 h 01 min")])
def test_duration_for_the_eye(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_cells_are_written_before_the_first_run(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        run_grid(small_grid(tmp_path), tmp_path / "out", workers=0, on_progress=stopped_after(0))

    assert len((tmp_path / "out" / CELLS).read_bytes().splitlines()) == 24
