"""How weights of several units become one choice: oVirt's two selectors, RankSelector and BasicWeighting.

BasicWeighting adds factor times weight; the lowest sum wins. RankSelector looks at order alone:

For each unit the hosts are ordered by weight; a host's rank is the number of candidates minus one minus the
number of hosts strictly better, so equal weights have equal rank. A host's score is the sum of factor times
rank; the highest wins. How much better a weight is does not matter, only whether it is.
"""

from __future__ import annotations

from collections.abc import Sequence


def ranks_of(weights: Sequence[int]) -> list[int]:
    """One unit's rank per host, higher is better. Cost: O(n log n)."""
    rank_by_weight = _rank_by_weight(weights)
    return [rank_by_weight[weight] for weight in weights]


def scores_of(weights_by_unit: Sequence[Sequence[int]], factors: Sequence[int]) -> list[int]:
    """Total score per host; each row of `weights_by_unit` is one unit's weights, host by host.

    An empty row is of a unit that sees no difference. Equal weights would give every host the same points; here
    none gets any, which costs nothing and chooses the same host.
    """
    assert weights_by_unit, "a score needs at least one unit"
    totals = [0] * max(map(len, weights_by_unit))
    for weights, factor in zip(weights_by_unit, factors, strict=True):
        if not weights:
            continue
        rank_by_weight = _rank_by_weight(weights)
        pairs = zip(totals, weights, strict=True)
        totals = [total + factor * rank_by_weight[weight] for total, weight in pairs]
    return totals


def sums_of(weights_by_unit: Sequence[Sequence[int]], factors: Sequence[int]) -> list[int]:
    """Weighted sum per host, lower is better; an empty row adds nothing."""
    totals = [0] * max(map(len, weights_by_unit))
    for weights, factor in zip(weights_by_unit, factors, strict=True):
        if weights:
            totals = [total + factor * weight for total, weight in zip(totals, weights, strict=True)]
    return totals


def _rank_by_weight(weights: Sequence[int]) -> dict[int, int]:
    # From worst to best, the last host of a tie sets the rank: all before it are as bad or worse.
    return {weight: index for index, weight in enumerate(sorted(weights, reverse=True))}
