"""The writer: batches in, one sorted file out, on the grid of replays."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olvm.experiments.imports import TraceWriter
from olvm.model.errors import BadInput
from tests.unit.experiments.imports.trace_sources import columns_of, rows_of


def test_batches_written_are_sorted_by_arrival_and_keep_their_order_at_one_time(tmp_path: Path) -> None:
    out = tmp_path / "t.parquet"
    with TraceWriter(out) as writer:
        writer.append(
            {
                "arrival_s": [5, 1],
                "lifetime_s": [math.nan, 2],
                "vcpus": [1, 2],
                "memory_gib": [1, 2],
                "vm_id": ["a", "b"],
            }
        )
        writer.append(
            {
                "arrival_s": np.array([5.0, 0.0]),
                "lifetime_s": np.array([np.nan, 0.0]),
                "vcpus": np.array([1.0, 1.0]),
                "memory_gib": np.array([1.0, 1.0]),
                "vm_id": np.array(["c", None], dtype=object),
            }
        )
        written = writer.write()
    assert rows_of(out) == [
        (0.0, 0.0, 1.0, 1.0, None),
        (1.0, 2.0, 2.0, 2.0, "b"),
        (5.0, None, 1.0, 1.0, "a"),
        (5.0, None, 1.0, 1.0, "c"),
    ]
    assert columns_of(out) == ["arrival_s", "lifetime_s", "vcpus", "memory_gib", "vm_id"]
    assert (written.rows, written.never_leave, written.lifetime_zero) == (4, 2, 1)
    assert (written.longest_gap_s, written.longest_gap_from_s) == (4.0, 1.0)


def test_trace_without_rows_has_its_columns(tmp_path: Path) -> None:
    out = tmp_path / "t.parquet"
    with TraceWriter(out, {"tenant": "varchar"}) as writer:
        written = writer.write()
    assert rows_of(out) == []
    assert columns_of(out) == ["arrival_s", "lifetime_s", "vcpus", "memory_gib", "tenant"]
    assert (written.rows, written.first_arrival_s, written.longest_gap_s) == (0, None, 0.0)


def test_requests_are_rounded_up_to_the_grid_and_counted(tmp_path: Path) -> None:
    out = tmp_path / "t.parquet"
    with TraceWriter(out) as writer:
        writer.append(
            {
                "arrival_s": [0, 1, 2],
                "lifetime_s": [1, 1, 1],
                "vcpus": [2 / 3, 0.1 * 3, 0.0],
                "memory_gib": [1.5, 1 + 1e-9 * (1 << 10), 0.0],
            }
        )
        written = writer.write()
    assert rows_of(out, "vcpus, memory_gib") == [(0.667, 1.5), (0.3, 1 + 2 / (1 << 20)), (0.0, 0.0)]
    assert (written.rounded_vcpus, written.rounded_memory) == (1, 1)


@pytest.mark.parametrize(
    "row",
    [
        {"arrival_s": [-1.0]},
        {"arrival_s": [math.nan]},
        {"arrival_s": [math.inf]},
        {"lifetime_s": [-1.0]},
        {"vcpus": [-1.0]},
        {"memory_gib": [math.nan]},
    ],
)
def test_rows_that_no_trace_may_have_are_refused_and_nothing_is_written(
    tmp_path: Path, row: dict[str, list[float]]
) -> None:
    good = {"arrival_s": [0.0], "lifetime_s": [1.0], "vcpus": [1.0], "memory_gib": [1.0]}
    with TraceWriter(tmp_path / "t.parquet") as writer:
        writer.append({**good, **row})
        with pytest.raises(BadInput, match="1 rows have no arrival or size, or a negative one"):
            writer.write()
    assert list(tmp_path.iterdir()) == []


def test_batches_of_unequal_columns_or_unknown_names_are_refused(tmp_path: Path) -> None:
    with TraceWriter(tmp_path / "t.parquet") as writer:
        with pytest.raises(BadInput, match="differ in length"):
            writer.append({"arrival_s": [0.0, 1.0], "vcpus": [1.0]})
        with pytest.raises(BadInput, match="the trace has no column 'cpus'"):
            writer.append({"cpus": [1.0]})


def test_writer_left_by_an_error_leaves_nothing(tmp_path: Path) -> None:
    with contextlib.suppress(RuntimeError), TraceWriter(tmp_path / "t.parquet") as writer:
        writer.append({"arrival_s": [0.0], "lifetime_s": [1.0], "vcpus": [1.0], "memory_gib": [1.0]})
        assert [path.name[:11] for path in tmp_path.iterdir()] == [".t.parquet."]
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=200, deadline=None)
@given(milli=st.integers(0, 10_000_000), kib=st.integers(0, 1 << 36))
def test_requests_on_the_grid_are_read_back_as_the_same_counts(milli: int, kib: int) -> None:
    # As the writer computes and a replay counts: division, then multiplication.
    assert math.ceil(milli / 1000 * 1000 - 1e-6) == milli
    assert math.ceil(kib / (1 << 20) * (1 << 20) - 1e-6) == kib
