"""Replays decide as a slow and obvious scheduler does, on every trace that Hypothesis can think of."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olvm.experiments import replay
from olvm.experiments.azure_trace import TRACE_PATH
from olvm.experiments.host_specs import HostFleet
from olvm.experiments.kernels.state import GIB_KIB, MILLI
from olvm.experiments.policies import POLICIES
from olvm.experiments.running import predicted_lifetimes
from olvm.model.errors import BadInput, Conflict, UserPolicyError
from tests.architecture.source import ROOT
from tests.unit.experiments.slow_replay import Answer, Vm, replay_slowly

Row = tuple[int, int | None, int, int]


def table(rows: list[Row]) -> dict[str, Any]:
    """Rows of (gap to the arrival before, lifetime, quarters of a vCPU, half GiB)."""
    gaps, lifetimes, cpus, memory = zip(*rows, strict=True)
    return {
        "arrival_s": np.cumsum(gaps).astype(float),
        "lifetime_s": np.array([np.nan if life is None else float(life) for life in lifetimes]),
        "vcpus": np.array(cpus) / 4,
        "memory_gib": np.array(memory) / 2,
    }


def slow(
    trace: dict[str, Any],
    fleet: HostFleet,
    nodes: int,
    split: float | None,
    *,
    policy: str,
    queue: str,
    seed: int,
) -> Answer:
    vms = []
    name, _, error = policy.partition("@")
    lives = np.where(np.isnan(trace["lifetime_s"]), np.inf, trace["lifetime_s"])
    predicted = predicted_lifetimes(lives, float(error or 0), seed)
    for row in range(len(trace["arrival_s"])):
        cpu, mem = int(trace["vcpus"][row] * MILLI), int(trace["memory_gib"][row] * GIB_KIB)
        is_spread = nodes > 1 and split is not None and trace["memory_gib"][row] > split
        said = trace.get("numa_nodes", {row: None})[row] if nodes > 1 else None
        parts = said or (nodes if is_spread else 1)
        life = trace["lifetime_s"][row]
        vms.append(
            Vm(
                trace["arrival_s"][row],
                None if np.isnan(life) else life,
                -(-cpu // parts),
                -(-mem // parts),
                parts,
                trace.get("host_group", {row: None})[row],
                float(predicted[row]),
            )
        )
    capacities = list(zip(fleet.milli_cpus.tolist(), fleet.memory_kib.tolist(), strict=True))
    groups = None if fleet.groups is None else [frozenset(names) for names in fleet.groups]
    return replay_slowly(vms, capacities, nodes, policy=name, queue=queue, seed=seed, groups=groups)


# 0 is the plain case everywhere: one arrival after the other, small, for ever.
ROWS = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 1, 2, 7]),
        st.sampled_from([1, 2, 3, 5, 12, 0, None]),
        st.integers(1, 40),
        st.integers(0, 24),
    ),
    min_size=1,
    max_size=60,
)
SHAPES = st.lists(st.sampled_from([(8, 8), (8, 4), (4, 10), (3, 3)]), min_size=1, max_size=9)


def fleet_of(shapes: list[tuple[int, int]]) -> HostFleet:
    cpus, memory = zip(*shapes, strict=True)
    return HostFleet(
        spec="drawn",
        milli_cpus=np.array(cpus, np.int64) * MILLI,
        memory_kib=np.array(memory, np.int64) * GIB_KIB,
    )


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=120, deadline=None)
@given(
    rows=ROWS,
    shapes=SHAPES,
    nodes=st.sampled_from([1, 2, 3]),
    split=st.sampled_from([None, 0.0, 2.0, 3.5]),
    queue=st.sampled_from(["fifo", "reject"]),
    seed=st.integers(-3, 2**64),
)
def test_replay_of_any_trace_decides_as_the_slow_one(  # noqa: PLR0917 - what Hypothesis draws
    policy: str,
    rows: list[Row],
    shapes: list[tuple[int, int]],
    nodes: int,
    split: float | None,
    queue: Any,
    seed: int,
) -> None:
    trace, fleet = table(rows), fleet_of(shapes)
    result = replay(
        trace, fleet, numa_nodes=nodes, split_above_gib=split, policy=policy, queue=queue, seed=seed
    )
    answer = slow(trace, fleet, nodes, split, policy=policy, queue=queue, seed=seed)
    vms = result.vms
    assert vms["host"].tolist() == answer.host
    assert vms["numa_node"].tolist() == answer.node
    starts = [
        None if start is None else start - arrival
        for start, arrival in zip(answer.start, trace["arrival_s"], strict=True)
    ]
    assert vms["wait_s"].tolist() == starts
    assert vms["rejected"].tolist() == answer.refused
    assert (result.hosts_used, result.hosts_peak) == (answer.used, answer.peak)
    assert result.placed + result.rejected + result.waiting == len(rows)
    if not result.rejected and not result.wait_s_total and not result.waiting:
        assert result.hosts_peak >= result.bound_hosts
    assert result.host_hours * 3600 == pytest.approx(sum(answer.host_seconds))


@settings(max_examples=100, deadline=None)
@given(
    rows=ROWS,
    shapes=SHAPES,
    policy=st.sampled_from(sorted(set(POLICIES) - {"random", "two_choice", "round_robin"})),
)
def test_vm_that_came_and_went_changes_no_later_decision(
    rows: list[Row], shapes: list[tuple[int, int]], policy: str
) -> None:
    # A VM is placed, removed and placed again before anybody else comes: as if it had been placed once.
    once = table([*rows[:1], *rows])
    first = {name: column[:1].copy() for name, column in once.items()}
    first["lifetime_s"][:] = 0.0
    twice = {name: np.concatenate([first[name], once[name]]) for name in once}
    fleet = fleet_of(shapes)
    without = replay(once, fleet, policy=policy).vms
    behind = replay(twice, fleet, policy=policy).vms
    assert behind["host"].tolist()[1:] == without["host"].tolist()
    assert behind["wait_s"].tolist()[1:] == without["wait_s"].tolist()


class BestFit:
    def choose(self, vm: Any, hosts: Any) -> int | None:
        index = np.flatnonzero(hosts.fits)
        if not len(index):
            return None
        order = np.lexsort((hosts.free_memory_gib[index], hosts.free_vcpus[index]))
        return int(index[order[0]])


class ScoredBestFit:
    def score(self, vm: Any, host: Any) -> float:
        return float(-host.free_vcpus * 10_000 - host.free_memory_gib)


class FilteredFirstFit:
    def filter(self, vm: Any, host: Any) -> bool:
        return True


@settings(max_examples=60, deadline=None)
@given(
    rows=ROWS,
    shapes=SHAPES,
    nodes=st.sampled_from([1, 2]),
    queue=st.sampled_from(["fifo", "reject"]),
    pair=st.sampled_from(
        [(BestFit, "best_fit"), (ScoredBestFit, "best_fit"), (FilteredFirstFit, "first_fit")]
    ),
)
def test_policy_of_ones_own_decides_as_the_built_in_of_its_kind(
    rows: list[Row], shapes: list[tuple[int, int]], nodes: int, queue: Any, pair: tuple[type, str]
) -> None:
    kind, name = pair
    trace, fleet = table(rows), fleet_of(shapes)
    own = replay(trace, fleet, numa_nodes=nodes, split_above_gib=3, policy=kind(), queue=queue)
    built_in = replay(trace, fleet, numa_nodes=nodes, split_above_gib=3, policy=name, queue=queue)
    assert own.digest == built_in.digest
    assert own.hosts_peak == built_in.hosts_peak
    assert own.wait_s_total == built_in.wait_s_total


def test_policy_of_ones_own_by_name_is_made_anew_for_each_replay() -> None:
    trace = table([(0, 5, 4, 2)] * 4)
    first = replay(trace, "2x4c8g", policy=f"{__name__}:Counting")
    assert replay(trace, "2x4c8g", policy=f"{__name__}:Counting").digest == first.digest
    assert first.hosts_used == 2


class Counting:
    def __init__(self) -> None:
        self.asked = 0

    def choose(self, vm: Any, hosts: Any) -> int:
        self.asked += 1
        return 0 if self.asked == 1 else 1


class Stubborn:
    def choose(self, vm: Any, hosts: Any) -> int:
        return 0


class Greedy:
    def choose(self, vm: Any, hosts: Any) -> int:
        hosts.free_vcpus[0] = 1000.0
        return 0


def test_policy_that_chooses_a_full_host_is_an_error_that_names_vm_and_host() -> None:
    with pytest.raises(
        UserPolicyError, match=r"Stubborn failed in choose for VM vm-1, host host-0.*1 GiB free.*"
    ):
        replay(table([(0, None, 4, 2), (0, None, 4, 4)]), "2x8c2g", policy=Stubborn())


def test_policy_cannot_write_to_the_hosts() -> None:
    with pytest.raises(UserPolicyError, match="read-only"):
        replay(table([(0, None, 4, 2)]), "2x8c2g", policy=Greedy())


def test_policy_unknown_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(BadInput, match=r"no policy best_fitt \(did you mean best_fit\?\)"):
        replay(table([(0, None, 4, 2)]), "2x8c2g", policy="best_fitt")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"queue": "lifo"}, "no queue 'lifo'"),
        ({"numa_nodes": 0}, "cannot have 0 NUMA nodes"),
        ({"split_above_gib": -1.0}, "split above -1.0 GiB"),
        ({"series_period_s": 0.0}, "each 0.0 s"),
        ({"power": "g4"}, "no power model g4"),
    ],
)
def test_parameter_that_makes_no_sense_is_refused(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        replay(table([(0, None, 4, 2)]), "2x8c2g", **arguments)


def test_vm_larger_than_any_host_does_not_hold_up_the_line() -> None:
    result = replay(table([(0, 5, 400, 2), (0, 5, 4, 2), (0, 5, 4, 90), (0, 5, 20, 14)]), "1x8c2g,1x4c8g")
    assert result.vms["placed"].tolist() == [False, True, False, False]
    why = result.vms["why"].tolist()
    assert ["vCPUs" in (why[0] or ""), why[1], "memory" in (why[2] or ""), "together" in (why[3] or "")] == [
        True,
        None,
        True,
        True,
    ]


def test_line_that_nobody_makes_room_for_waits_to_the_end() -> None:
    result = replay(table([(0, None, 16, 2), (1, 5, 32, 2), (1, 5, 4, 2)]), "1x8c2g")
    assert (result.placed, result.rejected, result.waiting) == (1, 0, 2)


def test_bound_of_mixed_hosts_counts_the_largest_first() -> None:
    result = replay(table([(0, 5, 32, 1), (0, 5, 32, 1), (0, 5, 12, 1)]), "2x4c4g,2x8c4g")
    assert result.bound_hosts == 3  # 8 + 8 of 19 vCPUs, and 4 more


def azure_table() -> str:
    return f"""select cast(arrival_s - 1800000 as double) as arrival_s,
        case when censored then null else cast(greatest(duration_hi_s, 300) as double) end as lifetime_s,
        cast(vcpu as double) as vcpus, cast(mem_gb as double) as memory_gib,
        'azure-' || row_number() over () as vm_id
        from read_parquet('{TRACE_PATH}')"""


def test_azure_trace_whole_comes_within_one_percent_of_the_published_bound() -> None:
    import duckdb

    relation = duckdb.connect(config={"threads": 1}).sql(azure_table())
    first = replay(relation, "1000x64c256g", policy="first_fit")
    best = replay(relation, "1000x64c256g", policy="best_fit")
    assert (first.placed, first.bound_hosts) == (259_159, 751)
    assert first.hosts_peak <= 758
    assert best.hosts_peak <= 758


# ---------------------------------------------------------------- on disk

PROGRAM = """
import sys
import numpy as np
from olvm.experiments import replay
random = np.random.default_rng(5)
n = 3000
table = {
    "arrival_s": np.sort(random.integers(0, 20000, n)).astype(float),
    "lifetime_s": random.integers(0, 4000, n).astype(float),
    "vcpus": random.integers(1, 9, n).astype(float),
    "memory_gib": random.integers(1, 33, n).astype(float),
    "vm_id": np.array([f"v{k}" for k in range(n)], dtype=object),
}
replay(table, "40x16c64g,20x8c64g", policy=sys.argv[1], numa_nodes=2, split_above_gib=20, seed=3, out=sys.argv[2],
       series_period_s=500.0)
"""


@pytest.mark.parametrize("policy", ["best_fit", "two_choice"])
def test_out_of_two_processes_is_the_same_to_the_byte(tmp_path: Path, policy: str) -> None:
    for number in (1, 2):
        environment = {**os.environ, "PYTHONHASHSEED": str(number), "PYTHONPATH": str(ROOT)}
        arguments = [sys.executable, "-c", PROGRAM, policy, str(tmp_path / str(number))]
        subprocess.run(arguments, check=True, env=environment, timeout=240)
    names = sorted(path.name for path in (tmp_path / "1").iterdir())
    assert names == ["cluster.parquet", "hosts.parquet", "manifest.json", "vms.parquet"]
    for name in names:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes(), name
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]


def rows_of(path: Path) -> list[dict[str, Any]]:
    import duckdb

    with duckdb.connect() as connection:
        cursor = connection.execute(f"select * from read_parquet('{path}')")
        names = [str(column[0]) for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def test_series_say_what_the_placements_say(tmp_path: Path) -> None:
    trace = table([(0, 25, 16, 4), (3, 11, 16, 2), (7, None, 8, 12), (5, 10, 32, 2), (5, 100, 4, 4)])
    for policy in ("best_fit", BestFit()):
        out = tmp_path / ("own" if isinstance(policy, BestFit) else policy)
        result = replay(trace, "3x8c8g", policy=policy, out=out, series_period_s=5.0)
        vms = result.vms.rows()
        cluster = rows_of(out / "cluster.parquet")
        assert [row["time_s"] for row in cluster] == [0.0, 5.0, 10.0, 15.0, 20.0]
        for row in cluster:
            there = [vm for vm in vms if vm["placed"] and starts(vm) <= row["time_s"] < ends(vm)]
            assert row["vm_count"] == len(there)
            assert row["used_vcpus"] == sum(vm["vcpus"] for vm in there)
            assert row["used_memory_gib"] == sum(vm["memory_gib"] for vm in there)
            assert row["used_hosts"] == len({vm["host"] for vm in there})
            assert row["used_hosts"] + row["empty_hosts"] == 3
            assert row["waiting"] == sum(vm["arrival_s"] <= row["time_s"] < starts(vm) for vm in vms)
        last: dict[int, Any] = {}
        for host_row in rows_of(out / "hosts.parquet"):
            last[host_row["host"]] = host_row
        assert sum(row["used_vcpus"] for row in last.values()) == cluster[-1]["used_vcpus"]
        assert sum(row["power_w"] for row in last.values()) == pytest.approx(cluster[-1]["power_w"])
        written = rows_of(out / "vms.parquet")
        assert written == [{name: row[name] for name in written[0]} for row in vms]


def starts(vm: dict[str, Any]) -> float:
    return float(vm["arrival_s"] + vm["wait_s"])


def ends(vm: dict[str, Any]) -> float:
    return float("inf") if vm["lifetime_s"] is None else starts(vm) + float(vm["lifetime_s"])


def test_series_longer_than_their_buffers_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = table([(3, 20, 4, 2)] * 200)
    replay(trace, "5x8c8g", out=tmp_path / "large", series_period_s=0.5)
    monkeypatch.setattr("olvm.experiments.running.SERIES_ROWS_MAX", 7)
    replay(trace, "5x8c8g", out=tmp_path / "small", series_period_s=0.5)
    assert rows_of(tmp_path / "large" / "cluster.parquet") == rows_of(tmp_path / "small" / "cluster.parquet")
    assert rows_of(tmp_path / "large" / "hosts.parquet") == rows_of(tmp_path / "small" / "hosts.parquet")


class Interrupting:
    def choose(self, vm: Any, hosts: Any) -> int:
        raise KeyboardInterrupt


def test_interrupted_replay_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        replay(table([(0, None, 4, 2)]), "2x8c2g", policy=Interrupting(), out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_out_that_is_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work", encoding="utf-8")
    with pytest.raises(Conflict, match="no replay wrote it"):
        replay(table([(0, None, 4, 2)]), "2x8c2g", out=tmp_path / "out")
    assert (tmp_path / "out" / "thesis.tex").exists()


def test_out_of_an_earlier_replay_is_replaced(tmp_path: Path) -> None:
    for policy in ("first_fit", "worst_fit"):
        replay(table([(0, None, 4, 2)]), "2x8c2g", policy=policy, out=tmp_path / "out")
    assert '"policy": "worst_fit"' in (tmp_path / "out" / "manifest.json").read_text(encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_replay_without_a_compiler_gives_the_same_digest() -> None:
    program = (
        PROGRAM.replace("replay(table", "print(replay(table")
        .replace(", out=sys.argv[2]", "")
        .replace("series_period_s=500.0)", "series_period_s=500.0).digest)")
    )
    digests = set()
    for plain in ("0", "1"):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OLVM_PLAIN_KERNELS": plain}
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program, "best_fit"],
            check=True,
            env=environment,
            timeout=240,
            capture_output=True,
            text=True,
        )
        digests.add(done.stdout)
    assert len(digests) == 1


@settings(max_examples=100, deadline=None)
@given(
    rows=ROWS,
    shapes=SHAPES,
    nodes=st.sampled_from([1, 2]),
    policy=st.sampled_from(["first_fit", "round_robin"]),
    queue=st.sampled_from(["fifo", "reject"]),
)
def test_trace_of_more_sizes_than_kinds_is_decided_as_one_of_few(
    rows: list[Row], shapes: list[tuple[int, int]], nodes: int, policy: str, queue: Any
) -> None:
    trace, fleet = table(rows), fleet_of(shapes)
    kinds = replay(trace, fleet, numa_nodes=nodes, split_above_gib=3, policy=policy, queue=queue)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("olvm.experiments.kernels.first_fit.KIND_COUNT_MAX", 2)
        shared = replay(trace, fleet, numa_nodes=nodes, split_above_gib=3, policy=policy, queue=queue)
    assert shared.digest == kinds.digest
