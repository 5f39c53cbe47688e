"""Which VMs move so that affinity groups hold again: oVirt's AffinityRulesEnforcer, several moves at a time.

Order, as in oVirt: enforcing rules between VMs and hosts, enforcing rules among VMs, then the weak ones of both
kinds; within a kind by priority, then by name.

Rule: a VM moves only where its own cost (enforced rules broken, then weak ones by priority) is strictly lower. Its
cost counts pairs, so the sum over all groups falls with each move, and enforcement ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from olvm.scheduling.affinity import Affinity, AffinityGroup, Places, affinity_of, is_broken
from olvm.scheduling.moves import Budget, Move

# What the cluster knows of one VM: the hosts that may take it now, in the order in which they are liked.
TargetsOf = Callable[[str, Affinity], Sequence[str]]


def enforcement_moves(
    groups: Iterable[AffinityGroup],
    places: Places,
    *,
    movable: Callable[[str], bool],
    targets_of: TargetsOf,
    is_up: Callable[[str], bool],
    budget: Budget,
) -> list[Move]:
    """At most what `budget` allows. `targets_of` must apply every filter; this only compares costs."""
    groups = list(groups)
    groups_by_vm: dict[str, list[AffinityGroup]] = {}
    for group in groups:
        for vm_id in group.name_by_vm:
            groups_by_vm.setdefault(vm_id, []).append(group)
    now = dict(places)
    moves: list[Move] = []
    moved: set[str] = set()
    for group in _in_order(groups):
        if not is_broken(group, now):
            continue
        for vm_id in group.name_by_vm:
            held = now.get(vm_id)
            if not held or vm_id in moved or not movable(vm_id) or not budget.leaves(held[0]):
                continue
            affinity = affinity_of(vm_id, groups_by_vm[vm_id], now, is_up)
            target = _better(affinity, held[0], targets_of(vm_id, affinity), budget)
            if target is not None:
                budget.take(held[0], target)
                now[vm_id] = (target, *held)
                moved.add(vm_id)
                why = f"affinity group {group.name} is broken"
                moves.append(Move(vm_id=vm_id, from_host=held[0], to_host=target, why=why))
    return moves


def _better(affinity: Affinity, current: str, targets: Sequence[str], budget: Budget) -> str | None:
    """The cheapest target, the most liked of equals, if it is cheaper than where the VM is."""
    open_ = [host for host in targets if host != current and budget.enters(host)]
    best = min(open_, key=affinity.cost, default=None)
    return best if best is not None and affinity.cost(best) < affinity.cost(current) else None


def _in_order(groups: list[AffinityGroup]) -> list[AffinityGroup]:
    ordered: dict[str, AffinityGroup] = {}
    for kind in ("hosts_hard", "vms_hard", "hosts_soft", "vms_soft"):
        of_kind = [group for group in groups if kind in _kinds(group)]
        for group in sorted(of_kind, key=lambda item: (-item.priority, item.name)):
            ordered.setdefault(group.name, group)
    return list(ordered.values())


def _kinds(group: AffinityGroup) -> list[str]:
    kinds = []
    if group.hosts_rule != "disabled":
        kinds.append("hosts_hard" if group.hosts_enforcing else "hosts_soft")
    if group.vms_rule != "disabled":
        kinds.append("vms_hard" if group.vms_enforcing else "vms_soft")
    return kinds
