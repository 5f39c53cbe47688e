"""The filters and weights of affinity groups, by oVirt's names.

What the groups say about each host was worked out before (`VmRequest.affinity`); a VM in no group costs nothing
here: the filters hand the hosts back as they are, and the weights answer nothing.
"""

# Every unit has the same signature and few need all of it.
# ruff: noqa: ARG002

from __future__ import annotations

from collections.abc import Mapping

from olvm.scheduling.affinity import HostCost
from olvm.scheduling.host_table import HostTable
from olvm.scheduling.request import VmRequest
from olvm.scheduling.units import filter_unit, weight_unit


@filter_unit("VmAffinityGroups")
class VmAffinityGroups:
    """Drops hosts without the VMs that this one must be with, and hosts with one that it must be apart from."""

    def __init__(self, parameters: Mapping[str, float]) -> None:
        del parameters

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
class VmToHostsAffinityGroups:
    """Drops hosts that a group keeps the VM off, or that are not among those that it keeps it on."""

    def __init__(self, parameters: Mapping[str, float]) -> None:
        del parameters

    def keep(self, table: HostTable, request: VmRequest, slots: list[int]) -> list[int]:
        affinity = request.affinity
        if affinity is None:
            return slots
        for _, hosts in affinity.required:
            slots = [slot for slot in slots if table.name[slot] in hosts]
        for _, hosts in affinity.forbidden:
            slots = [slot for slot in slots if table.name[slot] not in hosts]
        return slots

    def reason(self, table: HostTable, request: VmRequest, slot: int) -> str:
        affinity, host = request.affinity, table.name[slot]
        assert affinity is not None, "a VM in no group was dropped for one"
        for group, hosts in affinity.required:
            if host not in hosts:
                return f"affinity group {group} keeps it on {', '.join(hosts)}"
        off = [group for group, hosts in affinity.forbidden if host in hosts]
        return f"affinity group {off[0]} keeps it off this host"

    def summary(self, table: HostTable, request: VmRequest, slots: list[int]) -> str:
        affinity = request.affinity
        assert affinity is not None, "a VM in no group was dropped for one"
        names = dict.fromkeys(group for group, _ in [*affinity.required, *affinity.forbidden])
        return f"{len(slots)} {'is' if len(slots) == 1 else 'are'} ruled out by {_groups(list(names))}"


@weight_unit("VmAffinityGroups")
class VmAffinityGroupsWeight:
    """Broken pairs of VMs, each as heavy as its group's priority."""

    def __init__(self, parameters: Mapping[str, float]) -> None:
        del parameters

    def weigh(self, table: HostTable, request: VmRequest, slots: list[int]) -> list[int]:
        return [] if request.affinity is None else _weights(table, request.affinity.vms_weight, slots)


@weight_unit("VmToHostsAffinityGroups")
class VmToHostsAffinityGroupsWeight:
    """Broken rules between the VM and the host, each as heavy as its group's priority."""

    def __init__(self, parameters: Mapping[str, float]) -> None:
        del parameters

    def weigh(self, table: HostTable, request: VmRequest, slots: list[int]) -> list[int]:
        return [] if request.affinity is None else _weights(table, request.affinity.hosts_weight, slots)


def _weights(table: HostTable, cost: HostCost, slots: list[int]) -> list[int]:
    return [] if cost.is_even else [cost.of(table.name[slot]) for slot in slots]


def _groups(names: list[str]) -> str:
    return f"affinity group{'' if len(names) == 1 else 's'} {', '.join(names)}"
