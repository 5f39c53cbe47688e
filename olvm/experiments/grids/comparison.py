"""Which policy is better, by how much, and how sure that is.

Policies are compared within a scenario (topology, trace, queue, …), block by block. A block is a seed of a replay or a
day of PlanetLab: all of them had the same VMs there, so their differences vary far less than their figures do. Only
blocks that every policy has finished count; of a policy that has several runs in a block, their mean is its figure.

Rules:
1. The best is who has the lowest mean; of equal means, who stands first in the grid.
2. Two policies tie where the 95 % interval of their mean difference holds 0. Ranks leave room for ties: 1, 1, 3.
3. With one block there is no interval, and only equal figures tie.
4. A policy whose runs have all failed in a scenario hides nothing of the others there: it is named and left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from olvm.experiments.grids.bootstrap import Floats, mean_interval
from olvm.experiments.grids.results import Results
from olvm.experiments.grids.worker import AnyCell, Outcome

# For these, what no policy can go below is known.
BOUNDED: frozenset[str] = frozenset({"hosts_peak", "hosts_used"})


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One policy in one scenario. `difference` to the best, in the metric's unit, with `low` and `high` of 95 %.

    `regret_percent`: how many hosts more than the bound by capacity, which no policy can go below. Of those runs alone
    in which nobody waited or was refused; None where there is no such run, or the metric is not hosts.
    """

    policy: str
    rank: int
    mean: float
    difference: float
    low: float | None
    high: float | None
    regret_percent: float | None
    values: tuple[float, ...]  # in order of the blocks


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """`difference` is `policy` less `other`: below 0, `policy` is better."""

    policy: str
    other: str
    difference: float
    low: float | None
    high: float | None


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """`keys`: what the compared runs have in common, by name. `block`: what a block is called."""

    keys: dict[str, Any]
    title: str
    block: str
    blocks: tuple[int | str, ...]
    bound: float | None  # mean over the blocks
    lines: tuple[Line, ...]  # the best first
    pairs: tuple[Pair, ...]
    blocks_differ: bool  # some policy has different figures in different blocks
    failed: tuple[str, ...]  # policies that are not compared: all their runs failed


class Overall(msgspec.Struct, frozen=True, kw_only=True):
    """Over all scenarios: how often a policy was best or tied with it, and its mean rank."""

    policy: str
    best_count: int
    mean_rank: float


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    metric: str
    scenarios: tuple[Scenario, ...]
    left_out: tuple[str, ...]  # titles of scenarios with no block that all policies have finished
    overall: tuple[Overall, ...]  # the lowest mean rank first


def compare(results: Results, metric: str) -> Comparison:
    """Cost: a bootstrap (`mean_interval`) for each pair of policies in each scenario, and up to two for each policy."""
    groups: dict[tuple[Any, ...], list[AnyCell]] = {}
    for cell in results.cells:
        groups.setdefault(tuple(cell.scenario.values()), []).append(cell)
    outcomes = {cell.id: outcome for cell, outcome in results.done}
    broken = {cell.id for cell, _ in results.failures}
    policies = results.grid.policies
    scenarios, left_out = [], []
    for cells in groups.values():
        working = {cell.policy for cell in cells if cell.id not in broken}
        compared = [policy for policy in policies if policy in working]
        failed = tuple(policy for policy in policies if policy not in working)
        found = _scenario(
            [cell for cell in cells if cell.policy in working], outcomes, compared, failed, metric
        )
        if found is None:
            left_out.append(cells[0].scenario_title)
        else:
            scenarios.append(found)
    return Comparison(
        metric=metric,
        scenarios=tuple(scenarios),
        left_out=tuple(left_out),
        overall=_overall(scenarios, policies),
    )


def _scenario(
    cells: Sequence[AnyCell],
    outcomes: Mapping[str, Outcome],
    policies: Sequence[str],
    failed: tuple[str, ...],
    metric: str,
) -> Scenario | None:
    """None: there is no block yet that all policies have finished."""
    unfinished = {cell.block for cell in cells if cell.id not in outcomes}
    whole: dict[int | str, dict[str, list[dict[str, Any]]]] = {}
    for cell in cells:
        if cell.block not in unfinished:
            of_block = whole.setdefault(cell.block, {})
            of_block.setdefault(cell.policy, []).append(outcomes[cell.id].figures)
    if not whole:
        return None
    values = {
        policy: np.array(
            [np.mean([run[metric] for run in runs[policy]]) for runs in whole.values()], dtype=np.float64
        )
        for policy in policies
    }
    bound, regrets = None, dict.fromkeys(policies, None)
    if metric in BOUNDED:
        bound = float(np.mean([runs[policies[0]][0]["bound_hosts"] for runs in whole.values()]))
        regrets = {
            policy: _regret_percent([run for runs in whole.values() for run in runs[policy]], metric)
            for policy in policies
        }
    order = sorted(policies, key=lambda policy: values[policy].mean())
    return Scenario(
        keys=cells[0].scenario,
        title=cells[0].scenario_title,
        block=cells[0].BLOCK,
        blocks=tuple(whole),
        bound=bound,
        lines=_lines(order, values, regrets),
        pairs=tuple(_pair(one, other, values) for at, one in enumerate(order) for other in order[at + 1 :]),
        blocks_differ=any(np.ptp(column) > 0 for column in values.values()),
        failed=failed,
    )


def _regret_percent(runs: Sequence[dict[str, Any]], metric: str) -> float | None:
    """Where VMs wait or are refused, fewer hosts than the bound can be had: the demand was not served as offered."""
    served = [run for run in runs if not (run["rejected"] or run["waiting"] or run["wait_s_total"])]
    shares = [run[metric] / run["bound_hosts"] - 1 for run in served if run["bound_hosts"]]
    return float(np.mean(shares)) * 100 if shares else None


def _lines(
    order: Sequence[str], values: dict[str, Floats], regrets: dict[str, float | None]
) -> tuple[Line, ...]:
    best = leader = order[0]
    rank, lines = 1, []
    for at, policy in enumerate(order):
        against_leader = _pair(policy, leader, values)
        against = against_leader if leader == best else _pair(policy, best, values)
        if not _ties(against_leader):
            leader, rank = policy, at + 1
        lines.append(
            Line(
                policy=policy,
                rank=rank,
                mean=float(values[policy].mean()),
                difference=against.difference,
                low=against.low,
                high=against.high,
                regret_percent=regrets[policy],
                values=tuple(values[policy].tolist()),
            )
        )
    return tuple(lines)


def _pair(policy: str, other: str, values: dict[str, Floats]) -> Pair:
    difference = values[policy] - values[other]
    low, high = mean_interval(difference) or (None, None)
    return Pair(policy=policy, other=other, difference=float(difference.mean()), low=low, high=high)


def _ties(pair: Pair) -> bool:
    if pair.low is None or pair.high is None:
        return pair.difference == 0
    return pair.low <= 0 <= pair.high


def _overall(scenarios: Sequence[Scenario], policies: Sequence[str]) -> tuple[Overall, ...]:
    ranks: dict[str, list[int]] = {policy: [] for policy in policies}
    for scenario in scenarios:
        for line in scenario.lines:
            ranks[line.policy].append(line.rank)
    overall = [
        Overall(policy=policy, best_count=found.count(1), mean_rank=sum(found) / len(found))
        for policy, found in ranks.items()
        if found
    ]
    return tuple(sorted(overall, key=lambda one: one.mean_rank))
