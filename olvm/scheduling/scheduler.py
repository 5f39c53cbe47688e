"""Which host a VM goes to.

It decides, it does not book: the caller reserves what `place` answers, in the same turn. Rules: the answer
depends on the table, the request and the policy and on nothing else, not on the order in which hosts were
added; equal scores go to the smallest host name; `place` and `explain` run the same units and agree.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from olvm.scheduling.filters import Excluded, Status
from olvm.scheduling.host_table import HostTable
from olvm.scheduling.policy import Policy, Units, units_of
from olvm.scheduling.ranking import ranks_of, scores_of
from olvm.scheduling.request import VmRequest
from olvm.scheduling.units import Filter

_EXCLUDED = Excluded()
_ALWAYS_FIRST: tuple[tuple[str, Filter], ...] = (("Status", Status()), ("Excluded", _EXCLUDED))


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """The host chosen. `candidate_count` is how many hosts could have taken the VM."""

    vm_id: str
    host: str
    candidate_count: int


class NoPlacement(msgspec.Struct, frozen=True, kw_only=True):
    """No host may take the VM. `reason` is one sentence; `rejected_by` counts hosts by filter."""

    vm_id: str
    reason: str
    rejected_by: dict[str, int]


class HostVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """One host in an explanation: either rejected, with the filter and a sentence, or weighed.

    `weights` and `ranks` are by unit name and stay empty when there is only one candidate, which needs no
    weighing.
    """

    host: str
    rejected_by: str | None = None
    reason: str | None = None
    weights: dict[str, int] = {}
    ranks: dict[str, int] = {}
    score: int = 0
    chosen: bool = False


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Every host's verdict in order of name, and the outcome that `place` gives on the same table."""

    vm_id: str
    policy: str
    outcome: Placement | NoPlacement
    hosts: tuple[HostVerdict, ...]


def place(table: HostTable, request: VmRequest, policy: Policy) -> Placement | NoPlacement:
    """Choose the host for one VM.

    Cost: O(n log n) in hosts, about a microsecond a host; the reasons for `NoPlacement` cost as much
    again.
    """
    units = units_of(policy)
    candidates = _candidates(table, request, units)
    if not candidates:
        return _no_placement(table, request, units)
    return Placement(
        vm_id=request.vm_id,
        host=table.name[_best(table, request, units, candidates)],
        candidate_count=len(candidates),
    )


def explain(table: HostTable, request: VmRequest, policy: Policy) -> Explanation:
    """Say for every host why it was rejected or how it was weighed. For people: it makes objects per host."""
    units = units_of(policy)
    verdict_by_slot: dict[int, HostVerdict] = {}
    for name, unit, rejected in _rejections(table, request, units):
        for slot in rejected:
            host = table.name[slot]
            sentence = f"{host}: {name}: {unit.reason(table, request, slot)}"
            verdict_by_slot[slot] = HostVerdict(host=host, rejected_by=name, reason=sentence)
    candidates = _candidates(table, request, units)
    verdict_by_slot |= _weighed(table, request, units, candidates)
    return Explanation(
        vm_id=request.vm_id,
        policy=policy.name,
        outcome=place(table, request, policy),
        hosts=tuple(sorted(verdict_by_slot.values(), key=lambda verdict: verdict.host)),
    )


def candidate_hosts(table: HostTable, request: VmRequest, policy: Policy) -> list[str]:
    """The hosts that may take the VM, in order of name. Cost: O(n); nothing is weighed."""
    return [table.name[slot] for slot in _candidates(table, request, units_of(policy))]


def best_of(table: HostTable, request: VmRequest, policy: Policy, hosts: Iterable[str]) -> str:
    """The host of `hosts`, all of them candidates, at least one and in order of name, that the policy likes best."""
    candidates = [table.slot_of(host) for host in hosts]
    return table.name[_best(table, request, units_of(policy), candidates)]


def rejection(table: HostTable, request: VmRequest, policy: Policy, host: str) -> tuple[str, str] | None:
    """The filter that rejects this one host and its reason; None: the host may take the VM. Cost: no other host's."""
    slots = [table.slot_of(host)]
    for name, unit in (*_ALWAYS_FIRST, *units_of(policy).filters):
        if not unit.keep(table, request, slots):
            return name, unit.reason(table, request, slots[0])
    return None


def _candidates(table: HostTable, request: VmRequest, units: Units) -> list[int]:
    """The slots that pass every filter, in order of host name. May be the table's own list: read it only."""
    slots = table.usable_slots
    if request.excluded_hosts:
        slots = _EXCLUDED.keep(table, request, slots)
    for _, unit in units.filters:
        slots = unit.keep(table, request, slots)
    return slots


def _best(table: HostTable, request: VmRequest, units: Units, candidates: list[int]) -> int:
    if len(candidates) == 1 or not units.weights:
        return candidates[0]
    weights = [unit.weigh(table, request, candidates) for _, unit in units.weights]
    scores = scores_of(weights, units.factors) or [0]
    # The first of the highest: candidates are in order of name.
    return candidates[scores.index(max(scores))]


def _rejections(table: HostTable, request: VmRequest, units: Units) -> list[tuple[str, Filter, list[int]]]:
    """Each filter in the order they run, with the slots that it was the first to drop."""
    rejections = []
    slots = table.slots()
    for name, unit in (*_ALWAYS_FIRST, *units.filters):
        kept = unit.keep(table, request, slots)
        if len(kept) < len(slots):
            survivors = frozenset(kept)
            rejections.append((name, unit, [slot for slot in slots if slot not in survivors]))
        slots = kept
    return rejections


def _no_placement(table: HostTable, request: VmRequest, units: Units) -> NoPlacement:
    rejections = _rejections(table, request, units)
    # The commonest cause first; sorting is stable, so equal counts stay in the order of the filters.
    rejections.sort(key=lambda rejection: -len(rejection[2]))
    causes = ", ".join(unit.summary(table, request, slots) for _, unit, slots in rejections)
    return NoPlacement(
        vm_id=request.vm_id,
        reason=f"no host of {len(table)} fits {request.title}: {causes or 'add a host to the cluster'}",
        rejected_by={name: len(slots) for name, _, slots in rejections},
    )


def _weighed(
    table: HostTable, request: VmRequest, units: Units, candidates: list[int]
) -> dict[int, HostVerdict]:
    """The verdicts of the hosts that passed every filter."""
    if not candidates:
        return {}
    best = _best(table, request, units, candidates)
    named = (
        []
        if len(candidates) == 1
        else [
            (name, unit.weigh(table, request, candidates) or [0] * len(candidates))
            for name, unit in units.weights
        ]
    )
    ranked = [(name, weights, ranks_of(weights)) for name, weights in named]
    scores = [0] * len(candidates)
    if named:
        scores = scores_of([weights for _, weights in named], units.factors)
    return {
        slot: HostVerdict(
            host=table.name[slot],
            weights={name: weights[at] for name, weights, _ in ranked},
            ranks={name: ranks[at] for name, _, ranks in ranked},
            score=scores[at],
            chosen=slot == best,
        )
        for at, slot in enumerate(candidates)
    }
