"""Which host a VM goes to.

It decides, it does not book: the caller reserves what `place` answers, in the same turn. Rules: the answer
depends on the table, the request and the policy and on nothing else, not on the order in which hosts were
added; equal scores go to the smallest host name; `place` and `explain` run the same units and agree.
A policy that is a class of the user's may break the first rule, and an error in it is a `NoPlacement`.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from olvm.model.errors import OlvmError
from olvm.scheduling import fast_placement
from olvm.scheduling.fast_placement import fast_choice, limits_for, named_slots
from olvm.scheduling.filters import Excluded, Status
from olvm.scheduling.host_selectors import HOST_SELECTORS
from olvm.scheduling.host_table import HostTable
from olvm.scheduling.policy import RANK_SELECTOR, Policy, Units, units_of
from olvm.scheduling.ranking import ranks_of, scores_of, sums_of
from olvm.scheduling.request import VmRequest
from olvm.scheduling.units import Filter
from olvm.scheduling.user_placement import UserVerdicts, decide
from olvm.scheduling.user_policies import load_user_policy

_EXCLUDED = Excluded()
_ALWAYS_FIRST: tuple[tuple[str, Filter], ...] = (("Status", Status()), ("Excluded", _EXCLUDED))


class Placement(msgspec.Struct, frozen=True, kw_only=True, gc=False):
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
    weighing. `score` is what the selector compares: with RankSelector the sum of factor times rank, and the highest
    wins; with BasicWeighting the sum of factor times weight, and the lowest wins; of a class of the user's its own
    number, and the highest wins.
    """

    host: str
    rejected_by: str | None = None
    reason: str | None = None
    weights: dict[str, int] = {}
    ranks: dict[str, int] = {}
    score: float = 0
    chosen: bool = False


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Every host's verdict in order of name, and the outcome that `place` gives on the same table."""

    vm_id: str
    policy: str
    outcome: Placement | NoPlacement
    hosts: tuple[HostVerdict, ...]
    factors: dict[str, int] = {}
    selector: str = RANK_SELECTOR


def place(table: HostTable, request: VmRequest, policy: Policy) -> Placement | NoPlacement:
    """Choose the host for one VM.

    Cost: about 10 µs with oVirt's even distribution, however many hosts there are (`fast_placement` says for which
    requests); else O(n log n) in hosts, about half a microsecond a host. `NoPlacement` costs twice that.
    """
    units = units_of(policy)
    if policy.python:
        return _place_by_class(table, request, policy, units)
    slots = table.usable_slots
    if units.fast is not None and len(slots) >= fast_placement.INDEXED_HOSTS_MIN:
        limits = limits_for(table, request, units.fast)
        if limits is not None and limits.only:
            slots = named_slots(table, limits)
        elif limits is not None:
            found = fast_choice(table, request, units.fast, limits)
            if found is not None:
                return Placement(vm_id=request.vm_id, host=found.host, candidate_count=found.candidate_count)
    return _place_slowly(table, request, policy, slots)


def _place_slowly(
    table: HostTable, request: VmRequest, policy: Policy, slots: list[int]
) -> Placement | NoPlacement:
    """By looking at each of `slots`, which are all usable hosts, or all that no filter of names drops."""
    units = units_of(policy)
    candidates = _candidates(table, request, units, slots)
    if not candidates:
        return _no_placement(table, request, units)
    return Placement(
        vm_id=request.vm_id,
        host=table.name[_best(table, request, policy, candidates)],
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
    if policy.python:
        outcome, said = _asked(table, request, policy, units)
        verdict_by_slot |= _said(table, policy.python, candidates, said)
    else:
        outcome = place(table, request, policy)
        verdict_by_slot |= _weighed(table, request, policy, candidates)
    return Explanation(
        vm_id=request.vm_id,
        policy=policy.name,
        outcome=outcome,
        hosts=tuple(sorted(verdict_by_slot.values(), key=lambda verdict: verdict.host)),
        factors=dict(policy.weights),
        selector=policy.python or policy.selector,
    )


def candidate_hosts(table: HostTable, request: VmRequest, policy: Policy) -> list[str]:
    """The hosts that may take the VM, in order of name. Cost: O(n); nothing is weighed."""
    return [table.name[slot] for slot in _candidates(table, request, units_of(policy))]


def best_of(table: HostTable, request: VmRequest, policy: Policy, hosts: Iterable[str]) -> str:
    """The host of `hosts`, all of them candidates, at least one and in order of name, that the policy likes best.

    A class of the user's that fails or wants none of them leaves the choice to their order.
    """
    candidates = [table.slot_of(host) for host in hosts]
    return table.name[_best(table, request, policy, candidates)]


def rejection(table: HostTable, request: VmRequest, policy: Policy, host: str) -> tuple[str, str] | None:
    """The filter that rejects this one host and its reason; None: the host may take the VM. Cost: no other host's."""
    slots = [table.slot_of(host)]
    for name, unit in (*_ALWAYS_FIRST, *units_of(policy).filters):
        if not unit.keep(table, request, slots):
            return name, unit.reason(table, request, slots[0])
    return None


def _candidates(
    table: HostTable, request: VmRequest, units: Units, slots: list[int] | None = None
) -> list[int]:
    """The slots that pass every filter, in order of host name. May be the table's own list: read it only."""
    if slots is None:
        slots = table.usable_slots
    if request.excluded_hosts:
        slots = _EXCLUDED.keep(table, request, slots)
    for _, unit in units.filters:
        slots = unit.keep(table, request, slots)
    return slots


def _best(table: HostTable, request: VmRequest, policy: Policy, candidates: list[int]) -> int:
    units = units_of(policy)
    if len(candidates) == 1:
        return candidates[0]
    if policy.python:
        try:
            chosen = decide(table, request, units, load_user_policy(policy.python), candidates).chosen
        except OlvmError:
            chosen = None
        return candidates[0] if chosen is None else chosen
    if policy.selector in HOST_SELECTORS:
        return HOST_SELECTORS[policy.selector].choose(table, request, candidates)
    if not units.weights:
        return candidates[0]
    weights = [unit.weigh(table, request, candidates) for _, unit in units.weights]
    # The first of the best: candidates are in order of name.
    if policy.selector == RANK_SELECTOR:
        scores = scores_of(weights, units.factors) or [0]
        return candidates[scores.index(max(scores))]
    sums = sums_of(weights, units.factors) or [0]
    return candidates[sums.index(min(sums))]


# A policy that is a class of the user's


def _place_by_class(
    table: HostTable, request: VmRequest, policy: Policy, units: Units
) -> Placement | NoPlacement:
    return _asked(table, request, policy, units)[0]


def _asked(
    table: HostTable, request: VmRequest, policy: Policy, units: Units
) -> tuple[Placement | NoPlacement, UserVerdicts]:
    slots = table.usable_slots
    if request.excluded_hosts:
        slots = _EXCLUDED.keep(table, request, slots)
    try:
        said = decide(table, request, units, load_user_policy(policy.python), slots)
    except OlvmError as error:
        refused = NoPlacement(
            vm_id=request.vm_id, reason=error.message, rejected_by={policy.python: len(table)}
        )
        return refused, UserVerdicts()
    if said.chosen is not None:
        chosen = Placement(
            vm_id=request.vm_id, host=table.name[said.chosen], candidate_count=said.asked_count
        )
        return chosen, said
    candidates = _candidates(table, request, units)
    if not candidates:
        return _no_placement(table, request, units), said
    why = next(iter(said.why_not.values()), "it chose none")
    reason = (
        f"no host of {len(table)} fits {request.title}: policy {policy.python} wants none of {len(candidates)} "
        f"that could take it ({why})"
    )
    return NoPlacement(vm_id=request.vm_id, reason=reason, rejected_by={policy.python: len(candidates)}), said


def _said(table: HostTable, policy: str, candidates: list[int], said: UserVerdicts) -> dict[int, HostVerdict]:
    verdicts = {}
    for slot in candidates:
        host, why = table.name[slot], said.why_not.get(slot)
        if why is not None:
            verdicts[slot] = HostVerdict(host=host, rejected_by=policy, reason=f"{host}: {policy}: {why}")
        else:
            score = said.score_by_slot.get(slot, 0.0)
            verdicts[slot] = HostVerdict(host=host, score=score, chosen=slot == said.chosen)
    return verdicts


# Reasons


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
    table: HostTable, request: VmRequest, policy: Policy, candidates: list[int]
) -> dict[int, HostVerdict]:
    """The verdicts of the hosts that passed every filter."""
    if not candidates:
        return {}
    units = units_of(policy)
    best = _best(table, request, policy, candidates)
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
        select = scores_of if policy.selector == RANK_SELECTOR else sums_of
        scores = select([weights for _, weights in named], units.factors)
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
