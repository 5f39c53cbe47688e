"""Which hosts a request is limited to before room is asked for: what the filters of a policy say in terms of names.

It exists so that a decision need not look at every host: named hosts are looked up, hosts of one group are judged by
one of them, and only filters that read anything else make it look at all.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from olvm.scheduling.host_table import HostTable
from olvm.scheduling.request import VmRequest
from olvm.scheduling.units import Filter


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """`only`: hosts must be in each of these. `never`: and in none of these. `groups`: filters that apply to groups.

    `whole`: a filter applies that reads more than names and groups.
    """

    only: tuple[Collection[str], ...] = ()
    never: frozenset[str] = frozenset()
    groups: tuple[Filter, ...] = ()
    whole: bool = False


NO_LIMITS = Limits()


def asks_plainly(request: VmRequest) -> bool:
    """It asks for CPUs and memory alone."""
    return not (
        request.needs is not None
        or request.affinity is not None
        or request.leased
        or request.live
        or request.current_host is not None
        or request.cpu_model
        or request.pinned_hosts
        or request.excluded_hosts
        or request.held_hosts
    )


def limits_of(
    table: HostTable, request: VmRequest, filters: Sequence[Filter], unasked: Sequence[Filter]
) -> Limits:
    """`unasked`: those of `filters` that may drop hosts for a plain request. Cost: about 5 µs, not of hosts."""
    if asks_plainly(request):
        if any(unit.applies(table, request) for unit in unasked):
            return Limits(whole=True)
        return NO_LIMITS
    only: list[Collection[str]] = []
    never: list[str] = list(request.excluded_hosts)
    groups = []
    for unit in filters:
        reads = unit.READS
        if reads in {"names", "group"}:
            only += unit.only(request)
            never += unit.never(request)
            if reads == "group" and unit.applies(table, request):
                groups.append(unit)
        elif reads == "whole" and unit.applies(table, request):
            return Limits(whole=True)
    return Limits(only=tuple(only), never=frozenset(never), groups=tuple(groups))
