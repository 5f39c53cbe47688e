"""The filters and weights of affinity groups, by oVirt's names.

What the groups say about each host was worked out before (`VmRequest.affinity`); a VM in no group costs nothing
here: the filters hand the hosts back as they are, and the weights answer nothing.
"""

# Every unit has the same signature and few need all of it.
# ruff: noqa: ARG002

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import chain
from typing import ClassVar

from olvm.model.placement_needs import NO_NEEDS
from olvm.scheduling.affinity import HostCost
from olvm.scheduling.host_table import HostTable
from olvm.scheduling.request import VmRequest
from olvm.scheduling.units import Filter, Reads, SparseWeight, filter_unit, weight_unit


@filter_unit("VmAffinityGroups")
class VmAffinityGroups(Filter):
    """Drops hosts without the VMs that this one must be with, and hosts with one that it must be apart from."""

    READS: ClassVar[Reads] = "names"

    def only(self, request: VmRequest) -> list[Collection[str]]:
        return [] if request.affinity is None else [hosts for _, hosts in request.affinity.together]

    def never(self, request: VmRequest) -> Iterable[str]:
        if request.affinity is None:
            return ()
        return chain.from_iterable(hosts for _, hosts in request.affinity.apart)

    def keep(self, table: HostTable, request: VmRequest, slots: list[int]) -> list[int]:
        affinity = request.affinity
        if affinity is None:
            return slots
        for _, member_by_host in affinity.together:
            slots = [slot for slot in slots if table.name[slot] in member_by_host]
        for _, member_by_host in affinity.apart:
            slots = [slot for slot in slots if table.name[slot] not in member_by_host]
        return slots

    def reason(self, table: HostTable, request: VmRequest, slot: int) -> str:
        affinity, host = request.affinity, table.name[slot]
        assert affinity is not None, "a VM in no group was dropped for one"
        for group, member_by_host in affinity.together:
            if host not in member_by_host:
                return f"affinity group {group} keeps it with the VMs on {', '.join(sorted(member_by_host))}"
        found = [(group, members[host]) for group, members in affinity.apart if host in members]
        group, member = found[0]
        return f"affinity group {group} keeps it apart from {member}, which is here"

    def summary(self, table: HostTable, request: VmRequest, slots: list[int]) -> str:
        affinity = request.affinity
        assert affinity is not None, "a VM in no group was dropped for one"
        names = dict.fromkeys(group for group, _ in [*affinity.together, *affinity.apart])
        return f"{len(slots)} would break {_groups(list(names))}"


@filter_unit("VmToHostsAffinityGroups")
class VmToHostsAffinityGroups(Filter):
    """Drops hosts that a group keeps the VM off, or that are not among those that it keeps it on.

    A VM with labels goes only to hosts that have all of them: oVirt makes a group of each label.
    """

    READS: ClassVar[Reads] = "group"

    def applies(self, table: HostTable, request: VmRequest) -> bool:
        return request.needs is not None and bool(request.needs.labels)

    def only(self, request: VmRequest) -> list[Collection[str]]:
        return [] if request.affinity is None else [hosts for _, hosts in request.affinity.required]

    def never(self, request: VmRequest) -> Iterable[str]:
        if request.affinity is None:
            return ()
        return chain.from_iterable(hosts for _, hosts in request.affinity.forbidden)

    def why_not(self, table: HostTable, request: VmRequest, slot: int) -> str | None:
        """Of labels alone."""
        known = table.profile[slot].labels
        missing = [label for label in (request.needs or NO_NEEDS).labels if label not in known]
        return f"the host lacks label {', '.join(missing)}" if missing else None

    def keep(self, table: HostTable, request: VmRequest, slots: list[int]) -> list[int]:
        affinity = request.affinity
        if self.applies(table, request):
            slots = [slot for slot in slots if self.why_not(table, request, slot) is None]
        if affinity is None:
            return slots
        for _, hosts in affinity.required:
            slots = [slot for slot in slots if table.name[slot] in hosts]
        for _, hosts in affinity.forbidden:
            slots = [slot for slot in slots if table.name[slot] not in hosts]
        return slots

    def reason(self, table: HostTable, request: VmRequest, slot: int) -> str:
        affinity, host = request.affinity, table.name[slot]
        why = self.why_not(table, request, slot)
        if why is not None:
            return why
        assert affinity is not None, "a VM in no group was dropped for one"
        for group, hosts in affinity.required:
            if host not in hosts:
                return f"affinity group {group} keeps it on {', '.join(hosts)}"
        off = [group for group, hosts in affinity.forbidden if host in hosts]
        return f"affinity group {off[0]} keeps it off this host"

    def summary(self, table: HostTable, request: VmRequest, slots: list[int]) -> str:
        affinity, labels = request.affinity, (request.needs or NO_NEEDS).labels
        pairs = [] if affinity is None else [*affinity.required, *affinity.forbidden]
        names = list(dict.fromkeys(group for group, _ in pairs))
        causes = [f"labels {', '.join(labels)}"] if labels else []
        causes += [_groups(names)] if names else []
        return f"{len(slots)} {'is' if len(slots) == 1 else 'are'} ruled out by {' and '.join(causes)}"


@weight_unit("VmAffinityGroups")
class VmAffinityGroupsWeight(SparseWeight):
    """Broken pairs of VMs, each as heavy as its group's priority."""

    def differs(self, table: HostTable, request: VmRequest) -> bool:
        return request.affinity is not None and not request.affinity.vms_weight.is_even

    def weigh(self, table: HostTable, request: VmRequest, slots: list[int]) -> list[int]:
        return [] if request.affinity is None else _weights(table, request.affinity.vms_weight, slots)


@weight_unit("VmToHostsAffinityGroups")
class VmToHostsAffinityGroupsWeight(SparseWeight):
    """Broken rules between the VM and the host, each as heavy as its group's priority."""

    def differs(self, table: HostTable, request: VmRequest) -> bool:
        return request.affinity is not None and not request.affinity.hosts_weight.is_even

    def weigh(self, table: HostTable, request: VmRequest, slots: list[int]) -> list[int]:
        return [] if request.affinity is None else _weights(table, request.affinity.hosts_weight, slots)


def _weights(table: HostTable, cost: HostCost, slots: list[int]) -> list[int]:
    return [] if cost.is_even else [cost.of(table.name[slot]) for slot in slots]


def _groups(names: list[str]) -> str:
    return f"affinity group{'' if len(names) == 1 else 's'} {', '.join(names)}"
