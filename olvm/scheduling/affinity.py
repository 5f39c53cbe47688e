"""Affinity groups: what they ask of one VM's host, whether they contradict each other, whether one is broken.

A group has a rule among its VMs (together or apart) and a rule between its VMs and hosts (on them or off them).
A rule that enforces is a filter; any other is a weight. It knows VMs by id and hosts by name, and no table: where
VMs are is handed in, the place that a VM is moving to first.

Rules:
1. A VM's own place never counts for or against it: only the other members' places do.
2. A VM on a host that is not Up holds nobody to that host: else no VM of a group could leave a dead host.
3. `Affinity.hard_cost` and `soft_cost` count broken pairs, so a move of one VM that lowers its own cost lowers
   the group's by as much. `olvm.scheduling.enforcement` ends because of that.

Source: oVirt VmAffinityPolicyUnit, VmToHostAffinityPolicyUnit, AffinityRulesEnforcer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations

import msgspec

PRIORITY_SCALE = 1000  # a weight is a whole number; a priority of 0.001 still counts

# Where each VM is, the place that it will have first; a VM that runs nowhere is absent.
Places = Mapping[str, tuple[str, ...]]


class AffinityGroup(msgspec.Struct, frozen=True, kw_only=True):
    """`name_by_vm` has the members in the group's own order. Rules are disabled, positive or negative."""

    name: str
    name_by_vm: dict[str, str]
    hosts: tuple[str, ...] = ()
    vms_rule: str = "disabled"
    vms_enforcing: bool = False
    hosts_rule: str = "disabled"
    hosts_enforcing: bool = False
    priority: float = 1.0

    @property
    def weight(self) -> int:
        return max(1, round(self.priority * PRIORITY_SCALE))


class HostCost(msgspec.Struct):
    """A number per host: `base`, and what single hosts differ from it."""

    base: int = 0
    by_host: dict[str, int] = {}

    def add(self, host: str, amount: int) -> None:
        self.by_host[host] = self.by_host.get(host, 0) + amount

    def of(self, host: str) -> int:
        return self.base + self.by_host.get(host, 0)

    @property
    def is_even(self) -> bool:
        """Every host costs the same."""
        return not any(self.by_host.values())


class Affinity(msgspec.Struct, kw_only=True):
    """What the groups of one VM say about hosts now. Pairs begin with the group's name.

    `together`: hosts that hold another member, by name of host. `apart`: the member that a host holds.
    """

    together: list[tuple[str, dict[str, str]]] = []
    apart: list[tuple[str, dict[str, str]]] = []
    required: list[tuple[str, tuple[str, ...]]] = []
    forbidden: list[tuple[str, tuple[str, ...]]] = []
    vms_weight: HostCost = msgspec.field(default_factory=HostCost)
    hosts_weight: HostCost = msgspec.field(default_factory=HostCost)
    hard_cost: HostCost = msgspec.field(default_factory=HostCost)
    soft_cost: HostCost = msgspec.field(default_factory=HostCost)

    def cost(self, host: str) -> tuple[int, int]:
        """Hard rules broken there, then soft ones by priority; lower is better."""
        return self.hard_cost.of(host), self.soft_cost.of(host)


def affinity_of(
    vm_id: str, groups: Iterable[AffinityGroup], places: Places, is_up: Callable[[str], bool]
) -> Affinity:
    """What `groups`, all of which have the VM as a member, ask of its host. Cost: O(members)."""
    made = Affinity()
    for group in groups:
        if group.vms_rule != "disabled":
            _add_vms_rule(made, group, vm_id, places, is_up)
        if group.hosts_rule != "disabled":
            _add_hosts_rule(made, group)
    return made


def _add_vms_rule(
    made: Affinity, group: AffinityGroup, vm_id: str, places: Places, is_up: Callable[[str], bool]
) -> None:
    positive = group.vms_rule == "positive"
    unit = 1 if group.vms_enforcing else group.weight
    cost = made.hard_cost if group.vms_enforcing else made.soft_cost
    member_by_host: dict[str, str] = {}
    for other, name in group.name_by_vm.items():
        held = places.get(other)
        if other == vm_id or not held or (positive and not is_up(held[0])):
            continue
        for host in held[:1] if positive else held:
            member_by_host.setdefault(host, name)
        if positive:
            cost.base += unit
            made.vms_weight.base += group.weight
        cost.add(held[0], -unit if positive else unit)
        # Of hosts that satisfy an enforced rule, the one with most members is liked best.
        if positive or not group.vms_enforcing:
            made.vms_weight.add(held[0], -group.weight if positive else group.weight)
    if group.vms_enforcing and member_by_host:
        (made.together if positive else made.apart).append((group.name, member_by_host))


def _add_hosts_rule(made: Affinity, group: AffinityGroup) -> None:
    positive = group.hosts_rule == "positive"
    unit = 1 if group.hosts_enforcing else group.weight
    costs = [made.hard_cost] if group.hosts_enforcing else [made.soft_cost, made.hosts_weight]
    for cost in costs:
        cost.base += unit if positive else 0
        for host in group.hosts:
            cost.add(host, -unit if positive else unit)
    if group.hosts_enforcing:
        (made.required if positive else made.forbidden).append((group.name, group.hosts))


def is_broken(group: AffinityGroup, places: Places) -> bool:
    """Whether a rule of the group, enforcing or not, does not hold for the VMs that run."""
    hosts = [places[vm_id][0] for vm_id in group.name_by_vm if places.get(vm_id)]
    distinct = len(dict.fromkeys(hosts))
    if group.vms_rule == "positive" and distinct > 1:
        return True
    if group.vms_rule == "negative" and distinct < len(hosts):
        return True
    if group.hosts_rule == "positive":
        return any(host not in group.hosts for host in hosts)
    return group.hosts_rule == "negative" and any(host in group.hosts for host in hosts)


def contradiction(groups: Sequence[AffinityGroup]) -> str | None:
    """Why no placement can satisfy all enforcing rules at once, as one sentence; None: no reason was found.

    Found are two VMs that must be together and apart, and VMs that must be together with no host left to all of
    them. Being together passes on: a with b, b with c.
    """
    leader, cause = _joined(groups)
    for group in groups:
        if group.vms_rule == "negative" and group.vms_enforcing:
            for first, second in combinations(group.name_by_vm, 2):
                if _leader(leader, first) == _leader(leader, second):
                    names = f"{group.name_by_vm[first]} and {group.name_by_vm[second]}"
                    others = ", ".join(cause[_leader(leader, first)])
                    return f"{names} are kept apart by group {group.name} and together by group {others}"
    return _hosts_contradiction(groups, leader)


def _joined(groups: Sequence[AffinityGroup]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """VMs that must be together, as a forest of leaders, and the groups that joined them, by leader."""
    leader: dict[str, str] = {}
    joining = [group for group in groups if group.vms_rule == "positive" and group.vms_enforcing]
    for group in joining:
        members = list(group.name_by_vm)
        for other in members[1:]:
            leader[_leader(leader, other)] = _leader(leader, members[0])
    cause: dict[str, list[str]] = {}
    for group in joining:
        for first in list(group.name_by_vm)[:1]:
            cause.setdefault(_leader(leader, first), []).append(group.name)
    return leader, cause


def _leader(leader: Mapping[str, str], vm_id: str) -> str:
    while leader.get(vm_id, vm_id) != vm_id:
        vm_id = leader[vm_id]
    return vm_id


def _hosts_contradiction(groups: Sequence[AffinityGroup], leader: Mapping[str, str]) -> str | None:
    """VMs that no host is left to: the hosts that they are kept on, without those that they are kept off."""
    allowed: dict[str, tuple[list[str], list[str]]] = {}
    ruled = [group for group in groups if group.hosts_enforcing and group.hosts_rule != "disabled"]
    # Positive ones first: what is forbidden is taken from what is allowed.
    for group in sorted(ruled, key=lambda item: (item.hosts_rule != "positive", item.name)):
        for vm_id, name in group.name_by_vm.items():
            head = _leader(leader, vm_id)
            if group.hosts_rule == "positive":
                hosts, why = allowed.get(head, (list(group.hosts), []))
                hosts = [host for host in hosts if host in group.hosts]
            elif head in allowed:
                hosts, why = allowed[head]
                hosts = [host for host in hosts if host not in group.hosts]
            else:
                continue
            why = why if group.name in why else [*why, group.name]
            if not hosts:
                return f"the hosts rules of groups {', '.join(why)} leave no host to {name}"
            allowed[head] = hosts, why
    return None
