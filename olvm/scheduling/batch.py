"""Many machines at once: in which order they are placed, so that more of them find room, and what becomes of each.

It decides, as `scheduler` does, and books only while it decides: when it answers, the table is as it was. The caller
reserves what was answered, in the same turn.

One after the other in the order in which they came, small machines take the room that large ones need. Largest first
(the "decreasing" of first fit decreasing) leaves it: for one resource no more than 11/9 of the best possible number of
hosts and two thirds of one are used, where first fit in any order may use 17/10.
Sources: Johnson et al., SIAM J. Comput. 3(4), 1974; Dósa, ESCAPE 2007 (the tight bound); for several resources
Panigrahy, Talwar, Uyeda, Wieder, Heuristics for vector bin packing, 2011, whose FFDSum and FFDProd are the sizes here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Literal

import msgspec

from olvm.model.errors import BadInput
from olvm.model.search import nearest
from olvm.scheduling.host_table import HostTable
from olvm.scheduling.policy import Policy
from olvm.scheduling.request import VmRequest, memory_need_bytes
from olvm.scheduling.scheduler import NoPlacement, Placement, place

Order = Literal["given", "sum", "product", "largest"]
_SIZES: dict[str, Callable[[tuple[float, float]], float]] = {"sum": sum, "product": prod, "largest": max}
ORDERS = ("given", *_SIZES)


class BatchPlacement(msgspec.Struct, frozen=True, kw_only=True):
    """What became of each machine, by its id. `order`: the ids in the order in which they were placed."""

    placed: dict[str, Placement]
    refused: dict[str, NoPlacement]
    order: tuple[str, ...]


def place_batch(
    table: HostTable,
    requests: Sequence[VmRequest],
    policy: Policy,
    *,
    order: Order = "sum",
    all_or_none: bool = False,
) -> BatchPlacement:
    """Choose hosts for all of them, each with regard to those before it.

    Args:
        order: `given`, or the largest first. A machine's size is its vCPUs and its memory as shares of the cluster's
            largest host: their `sum`, their `product`, or the `largest` of the two. Equal sizes keep the given order.
        all_or_none: where one finds no host none is placed, and the others are refused because of it.

    Raises:
        BadInput: two requests for one machine, a machine that holds a reservation already, or an unknown order.

    Cost: that of as many placements and twice as many bookings.
    """
    _check(table, requests, order)
    ordered = list(requests)
    if order != "given":
        ordered.sort(key=_size_of(table, _SIZES[order]), reverse=True)  # stable, in both directions
    placed: dict[str, Placement] = {}
    refused: dict[str, NoPlacement] = {}
    turn_host = table.turn_host
    try:
        for request in ordered:
            outcome = place(table, request, policy)
            if isinstance(outcome, NoPlacement):
                refused[request.vm_id] = outcome
                if all_or_none:
                    break
            else:
                _reserve(table, request, outcome.host)
                placed[request.vm_id] = outcome
    finally:
        for vm_id in placed:
            table.release(vm_id)
        table.turn_host = turn_host
    if all_or_none and refused:
        (first,) = refused.values()
        reason = f"it was to be placed with others, and {first.reason}"
        for request in ordered:
            refused.setdefault(
                request.vm_id, NoPlacement(vm_id=request.vm_id, reason=reason, rejected_by=first.rejected_by)
            )
        placed = {}
    return BatchPlacement(placed=placed, refused=refused, order=tuple(one.vm_id for one in ordered))


def _reserve(table: HostTable, request: VmRequest, host: str) -> None:
    table.reserve(
        request.vm_id,
        host,
        request.vcpus,
        request.memory_bytes,
        needs=request.needs,
        high_availability=request.high_availability,
    )


def _size_of(table: HostTable, size: Callable[[tuple[float, float]], float]) -> Callable[[VmRequest], float]:
    slots = table.slots()
    cpus = max(1, *(table.cpus[slot] for slot in slots), 1)
    memory_bytes = max(1, *(table.capacity_bytes(slot) for slot in slots), 1)
    return lambda request: size((request.vcpus / cpus, memory_need_bytes(request) / memory_bytes))


def _check(table: HostTable, requests: Sequence[VmRequest], order: str) -> None:
    if order not in ORDERS:
        raise BadInput(f"there is no order {order}{nearest(order, ORDERS)}: choose from {', '.join(ORDERS)}")
    seen = set()
    for request in requests:
        if request.vm_id in seen:
            raise BadInput(f"machine {request.title} is in the batch twice: ask for each once")
        if table.reservation(request.vm_id) is not None:
            raise BadInput(f"machine {request.title} holds a reservation already: place it by itself")
        seen.add(request.vm_id)
