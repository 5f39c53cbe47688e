"""What the columns of a trace that need not be there do: NUMA nodes, host groups, utilisation; and what hosts cost."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olvm.experiments import replay
from olvm.experiments.policies import POLICIES
from olvm.model.errors import BadInput
from tests.unit.experiments.test_replays import ROWS, SHAPES, BestFit, Row, fleet_of, slow, table

NODES_AND_GROUPS = st.lists(
    st.tuples(st.sampled_from([None, None, 1, 2, 3, 4]), st.sampled_from([None, None, "a", "b", "nowhere"])),
    min_size=60,
    max_size=60,
)
HOST_GROUPS = st.lists(st.sampled_from([(), ("a",), ("b",), ("b", "a"), ("other",)]), min_size=9, max_size=9)


def with_columns(trace: dict[str, Any], said: list[tuple[int | None, str | None]]) -> dict[str, Any]:
    there = said[: len(trace["arrival_s"])]
    nodes, groups = zip(*there, strict=True)
    return {
        **trace,
        "numa_nodes": np.array(nodes, dtype=object),
        "host_group": np.array(groups, dtype=object),
    }


@pytest.mark.parametrize("policy", [*POLICIES, "own"])
@settings(max_examples=120, deadline=None)
@given(
    rows=ROWS,
    said=NODES_AND_GROUPS,
    shapes=SHAPES,
    groups=HOST_GROUPS,
    nodes=st.sampled_from([1, 2, 3]),
    queue=st.sampled_from(["fifo", "reject"]),
)
def test_replay_heeds_nodes_and_groups_as_the_slow_one(  # noqa: PLR0917 - what Hypothesis draws
    policy: str,
    rows: list[Row],
    said: list[tuple[int | None, str | None]],
    shapes: list[tuple[int, int]],
    groups: list[tuple[str, ...]],
    nodes: int,
    queue: Any,
) -> None:
    trace = with_columns(table(rows), said)
    prices = np.arange(1.0, len(shapes) + 1)
    fleet = replace(fleet_of(shapes), groups=tuple(groups[: len(shapes)]), price_per_hour=prices)
    name = "best_fit" if policy == "own" else policy
    result = replay(
        trace,
        fleet,
        numa_nodes=nodes,
        split_above_gib=3.5,
        policy=BestFit() if policy == "own" else policy,
        queue=queue,
        seed=3,
    )
    answer = slow(trace, fleet, nodes, 3.5, policy=name, queue=queue, seed=3)
    vms = result.vms
    assert vms["host"].tolist() == answer.host
    assert vms["numa_node"].tolist() == answer.node
    if "numa_node_bits" in vms.columns:
        assert vms["numa_node_bits"].tolist() == [
            sum(1 << node for node in taken) if 1 < len(taken) < nodes else None for taken in answer.nodes
        ]
    assert vms["rejected"].tolist() == answer.refused
    assert (result.hosts_used, result.hosts_peak) == (answer.used, answer.peak)
    assert result.host_hours * 3600 == pytest.approx(sum(answer.host_seconds))
    assert result.cost == pytest.approx(np.dot(answer.host_seconds, prices) / 3600)
    without = [
        asked not in {None, *(name for names in fleet.groups or () for name in names)} for _, asked in said
    ]
    assert result.rejected_no_group == sum(without[: len(rows)])


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, said=NODES_AND_GROUPS, shapes=SHAPES, groups=HOST_GROUPS, nodes=st.sampled_from([1, 3]))
def test_series_do_not_change_what_nodes_and_groups_decide(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[Row],
    said: list[tuple[int | None, str | None]],
    shapes: list[tuple[int, int]],
    groups: list[tuple[str, ...]],
    nodes: int,
) -> None:
    # With series the loop goes on to their end, without it stops at the last decision: hours must not tell.
    trace = with_columns(table(rows), said)
    fleet = replace(fleet_of(shapes), groups=tuple(groups[: len(shapes)]))
    out = tmp_path_factory.mktemp("out") / "replay"
    first = replay(trace, fleet, numa_nodes=nodes, policy="best_fit", out=out, series_period_s=5.0)
    second = replay(trace, fleet, numa_nodes=nodes, policy="best_fit")
    assert first.digest == second.digest
    assert first.host_hours == pytest.approx(second.host_hours)


def test_columns_say_why_a_vm_has_no_place_and_can_be_ignored() -> None:
    trace = {
        **table([(0, 5, 4, 2)] * 4 + [(0, 5, 40, 2)]),
        "host_group": np.array(["gpu", "tpu", None, "gpu", "gpu"], dtype=object),
        "numa_nodes": np.array([1, np.nan, 2, 3, 2]),
    }
    hosts = "1x64c256g,1x8c8g:group=gpu"
    result = replay(trace, hosts, numa_nodes=2)
    assert result.vms["host"].tolist() == [1, None, 0, None, None]
    why = [words or "" for words in result.vms["why"].tolist()]
    assert "no host is in the host group" in why[1]
    assert "more NUMA nodes than a host has" in why[3]
    assert "no empty host of its host group" in why[4]
    assert (result.rejected, result.rejected_no_group) == (3, 1)
    free = replay(trace, hosts, numa_nodes=2, ignore=("host_group", "numa_nodes"))
    assert (free.rejected, free.vms["host"].tolist()) == (0, [0] * 5)
    with pytest.raises(BadInput, match=r"cannot ignore host_groups \(did you mean host_group\?\)"):
        replay(trace, hosts, ignore=("host_groups",))


def test_columns_that_the_hosts_say_nothing_of_are_not_heeded_and_named() -> None:
    trace = {
        **table([(0, 5, 4, 2)] * 3),
        "host_group": np.array(["gpu", None, "tpu"], dtype=object),
        "numa_nodes": np.array([2.0, 2.0, np.nan]),
    }
    plain = replay(trace, "2x64c256g")
    assert (plain.rejected, plain.unheeded) == (0, ("numa_nodes", "host_group"))
    assert plain.digest == replay(table([(0, 5, 4, 2)] * 3), "2x64c256g").digest
    grouped = replay(trace, "1x64c256g,1x64c256g:group=gpu", numa_nodes=2)
    assert (grouped.rejected_no_group, grouped.unheeded) == (1, ())


def test_vm_of_two_nodes_of_sixty_four_can_have_the_last() -> None:
    # The bit of the 64th node is the sign of an int64.
    trace = {**table([(0, None, 4, 2)] * 32), "numa_nodes": np.array([2.0] * 32)}
    for policy in ("first_fit", BestFit()):
        result = replay(trace, "1x32c64g", numa_nodes=64, policy=policy)
        bits = [number & (2**64 - 1) for number in result.vms["numa_node_bits"].tolist()]
        assert bits == [3 << (2 * vm) for vm in range(32)]


def test_utilisation_says_what_was_reserved_and_not_used() -> None:
    trace = {
        **table([(0, 3600, 16, 2), (0, 7200, 8, 2), (0, None, 4, 2), (7200, 0, 4, 2)]),
        "utilisation": np.array([0.25, 1.0, np.nan, 0.5]),
    }
    result = replay(trace, "2x64c256g")
    assert (result.reserved_vcpu_hours, result.used_vcpu_hours) == (8.0, 5.0)
    assert result.waste == pytest.approx(3 / 8)
    assert (result.host_hours, result.cost) == (2.0, None)
    assert replay(trace, "2x64c256g", ignore=("utilisation",)).waste is None


def test_cost_is_that_of_the_hosts_in_use() -> None:
    trace = table([(0, 3600, 16, 2), (0, 1800, 28, 2), (7200, 0, 4, 2)])
    result = replay(trace, "1x8c8g:price=2,1x8c8g:price=0.5:group=spare", policy="first_fit")
    assert result.host_hours == 1.5
    assert result.cost == 2.25
