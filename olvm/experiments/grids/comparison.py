"""Which policy is better, by how much, and how sure that is.

Policies are compared within a scenario (topology, trace, queue, …), seed by seed: of one seed all of them had the same
VMs, so their differences vary far less than their figures do. Only seeds that every policy has finished count.

Rules:
1. The best is who has the lowest mean; of equal means, who stands first in the grid.
2. Two policies tie where the 95 % interval of their mean difference holds 0. Ranks leave room for ties: 1, 1, 3.
3. With one seed there is no interval, and only equal figures tie.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from olvm.experiments.grids.bootstrap import Floats, mean_interval
from olvm.experiments.grids.cells import Cell
from olvm.experiments.grids.definition import Metric
from olvm.experiments.grids.results import Results
from olvm.experiments.grids.worker import Outcome

# For these, what no policy can go below is known.
BOUNDED: frozenset[Metric] = frozenset({"hosts_peak", "hosts_used"})


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
    values: tuple[float, ...]  # in order of the seeds


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """`difference` is `policy` less `other`: below 0, `policy` is better."""

    policy: str
    other: str
    difference: float
    low: float | None
    high: float | None


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    topology: str
    trace: str
    queue: str
    numa_nodes: int
    split_above_gib: float | None
    seeds: tuple[int, ...]
    bound: float | None  # mean over the seeds
    lines: tuple[Line, ...]  # the best first
    pairs: tuple[Pair, ...]
    seeds_matter: bool  # some policy has different figures for different seeds

    @property
    def title(self) -> str:
        nodes = "" if self.numa_nodes == 1 else f", {self.numa_nodes} NUMA nodes"
        split = "" if self.split_above_gib is None else f", split above {self.split_above_gib:g} GiB"
        return f"{self.topology}, {self.trace}, {self.queue}{nodes}{split}"


class Overall(msgspec.Struct, frozen=True, kw_only=True):
    """Over all scenarios: how often a policy was best or tied with it, and its mean rank."""

    policy: str
    best_count: int
    mean_rank: float


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    metric: Metric
    scenarios: tuple[Scenario, ...]
    overall: tuple[Overall, ...]  # the lowest mean rank first


def compare(results: Results, metric: Metric) -> Comparison:
    """Cost: a bootstrap (`mean_interval`) for each pair of policies in each scenario, and up to two for each policy."""
    groups: dict[tuple[Any, ...], list[tuple[Cell, Outcome]]] = {}
    for cell, outcome in results.done:
        groups.setdefault(cell.scenario, []).append((cell, outcome))
    policies = results.grid.policies
    found = [_scenario(cells, policies, metric) for cells in groups.values()]
    scenarios = tuple(one for one in found if one is not None)
    return Comparison(metric=metric, scenarios=scenarios, overall=_overall(scenarios, policies))


def _scenario(
    cells: Sequence[tuple[Cell, Outcome]], policies: Sequence[str], metric: Metric
) -> Scenario | None:
    """None: there is no seed yet that all policies have finished."""
    by_seed: dict[int, dict[str, dict[str, Any]]] = {}
    for cell, outcome in cells:
        by_seed.setdefault(cell.seed, {})[cell.policy] = outcome.figures
    whole = {seed: figures for seed, figures in by_seed.items() if len(figures) == len(policies)}
    if not whole:
        return None
    values = {
        policy: np.array([figures[policy][metric] for figures in whole.values()], dtype=np.float64)
        for policy in policies
    }
    bound, regrets = None, dict.fromkeys(policies, None)
    if metric in BOUNDED:
        bound = float(np.mean([figures[policies[0]]["bound_hosts"] for figures in whole.values()]))
        regrets = {
            policy: _regret_percent([figures[policy] for figures in whole.values()], metric)
            for policy in policies
        }
    order = sorted(policies, key=lambda policy: values[policy].mean())
    first = cells[0][0]
    return Scenario(
        topology=first.topology,
        trace=first.trace,
        queue=first.queue,
        numa_nodes=first.numa_nodes,
        split_above_gib=first.split_above_gib,
        seeds=tuple(whole),
        bound=bound,
        lines=_lines(order, values, regrets),
        pairs=tuple(_pair(one, other, values) for at, one in enumerate(order) for other in order[at + 1 :]),
        seeds_matter=any(np.ptp(column) > 0 for column in values.values()),
    )


def _regret_percent(runs: Sequence[dict[str, Any]], metric: Metric) -> float | None:
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
    if not scenarios:
        return ()
    overall = [
        Overall(policy=policy, best_count=found.count(1), mean_rank=sum(found) / len(found))
        for policy, found in ranks.items()
    ]
    return tuple(sorted(overall, key=lambda one: one.mean_rank))
