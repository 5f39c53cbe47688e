"""A decision that a user's class makes: what it is asked, in which order, and what is believed of its answer.

`olvm.scheduling.user_policies` says what such a class is. Errors in it leave as `UserPolicyError`; `place` makes a
refusal of them.
"""

from __future__ import annotations

import msgspec

from olvm.scheduling.host_table import HostTable
from olvm.scheduling.limits import NO_LIMITS, limits_of
from olvm.scheduling.policy import Units
from olvm.scheduling.request import GIB, VmRequest
from olvm.scheduling.user_columns import columns_of, columns_watched, row_of
from olvm.scheduling.user_policies import LoadedPolicy, UserHost, UserVm


class UserVerdicts(msgspec.Struct, kw_only=True):
    """What the class said: of hosts that it does not want, why; of others their score, where it gives scores.

    `asked_count`: among how many it chose.
    """

    chosen: int | None = None
    asked_count: int = 0
    why_not: dict[int, str] = {}
    score_by_slot: dict[int, float] = {}


def user_vm(request: VmRequest) -> UserVm:
    needs = request.needs
    return UserVm(
        id=request.title,
        vcpus=request.vcpus,
        memory_gib=request.memory_bytes / GIB,
        tenant="" if needs is None else needs.tenant,
        priority=request.priority,
        lifetime_s=None if needs is None else needs.lifetime_s,
        arrival_s=request.arrival_s,
    )


def user_host(table: HostTable, slot: int) -> UserHost:
    cpus, memory_gib, free_vcpus, free_memory_gib, vm_count = row_of(table, slot)
    return UserHost(
        name=table.name[slot],
        cpus=cpus,
        memory_gib=memory_gib,
        free_vcpus=free_vcpus,
        free_memory_gib=free_memory_gib,
        vm_count=vm_count,
    )


def decide(
    table: HostTable, request: VmRequest, units: Units, policy: LoadedPolicy, slots: list[int]
) -> UserVerdicts:
    """`slots` are those that may be looked at, in order of name; what the filters drop of them is not asked about.

    Raises UserPolicyError. Cost: a call of the class for each host, or one call of `choose`.
    """
    vm, verdicts = user_vm(request), UserVerdicts()
    if policy.chooses and not policy.filters:
        verdicts.chosen, verdicts.asked_count = _choose(table, request, units, policy, slots)
        return verdicts
    candidates = slots
    for unit in units.filter_units:
        candidates = unit.keep(table, request, candidates)
    for slot in candidates if policy.filters else ():
        why = policy.why_not(vm, user_host(table, slot))
        if why is not None:
            verdicts.why_not[slot] = why
    open_ = [slot for slot in candidates if slot not in verdicts.why_not]
    verdicts.asked_count = len(open_)
    if not open_:
        return verdicts
    if policy.chooses:
        columns = columns_of(table, open_)
        columns.with_room = list  # the filters have left no other
        at = policy.choose(vm, columns)
        verdicts.chosen = None if at is None else open_[at]
    elif policy.scores:
        verdicts.score_by_slot = {slot: policy.score(vm, user_host(table, slot)) for slot in open_}
        # The first of the highest: candidates are in order of name.
        verdicts.chosen = max(open_, key=verdicts.score_by_slot.__getitem__)
    else:
        verdicts.chosen = open_[0]
    return verdicts


def _choose(
    table: HostTable, request: VmRequest, units: Units, policy: LoadedPolicy, slots: list[int]
) -> tuple[int | None, int]:
    """The class sees every host that the VM's own limits leave, those without room too, and must heed that."""
    columns = None
    if slots is table.usable_slots:
        limits = limits_of(table, request, units.filter_units, units.unasked)
        columns = columns_watched(table, units.row_filters) if limits is NO_LIMITS else None
    if columns is None:
        for unit in units.filter_units:
            slots = slots if unit.READS == "room" else unit.keep(table, request, slots)
        columns = columns_of(table, slots)
    if not len(columns):
        return None, 0
    vm = user_vm(request)

    def with_room(slots: list[int]) -> list[int]:
        for unit in units.filter_units:
            slots = unit.keep(table, request, slots) if unit.READS == "room" else slots
        return slots

    columns.with_room = with_room
    at = policy.choose(vm, columns)
    if at is None:
        return None, len(columns)
    slot: int = columns.slots[at]
    for name, unit in units.filters:
        if unit.READS == "room" and not unit.keep(table, request, [slot]):
            raise policy.without_room(vm, table.name[slot], f"{name}: {unit.reason(table, request, slot)}")
    return slot, len(columns)
