"""Affinity groups: the filters, the weights, contradictions, and enforcement that ends."""

from __future__ import annotations

from itertools import combinations, product

from hypothesis import event, given, settings
from hypothesis import strategies as st

from olvm.scheduling import Placement, explain, place, policy_named
from olvm.scheduling.affinity import AffinityGroup, affinity_of, contradiction, is_broken
from olvm.scheduling.enforcement import enforcement_moves
from olvm.scheduling.moves import Budget

from .tables import GIB, host, request, table_of

HOSTS = ["H1", "H2", "H3"]
VMS = ["a", "b", "c", "d"]
RULES = st.sampled_from(["disabled", "positive", "negative"])


@st.composite
def groups_strategy(draw: st.DrawFn, *, enforcing: bool | None = None) -> list[AffinityGroup]:
    made = []
    for number in range(draw(st.integers(1, 4))):
        hard = st.booleans() if enforcing is None else st.just(enforcing)
        vms = draw(st.lists(st.sampled_from(VMS), min_size=1, max_size=4, unique=True))
        made.append(
            AffinityGroup(
                name=f"g{number}",
                name_by_vm={vm_id: vm_id for vm_id in vms},
                hosts=tuple(draw(st.lists(st.sampled_from(HOSTS), min_size=1, max_size=2, unique=True))),
                vms_rule=draw(RULES),
                vms_enforcing=draw(hard),
                hosts_rule=draw(RULES),
                hosts_enforcing=draw(hard),
                priority=draw(st.sampled_from([0.5, 1.0, 3.0])),
            )
        )
    return made


def violations(groups: list[AffinityGroup], where: dict[str, str], *, hard: bool) -> int:
    """Broken pairs, counted one by one; weak ones by priority."""
    total = 0
    for group in groups:
        unit = 1 if hard else group.weight
        placed = [vm_id for vm_id in group.name_by_vm if vm_id in where]
        if group.vms_rule != "disabled" and group.vms_enforcing is hard:
            together = sum(unit for one, two in combinations(placed, 2) if where[one] == where[two])
            pairs = unit * len(list(combinations(placed, 2)))
            total += pairs - together if group.vms_rule == "positive" else together
        if group.hosts_rule != "disabled" and group.hosts_enforcing is hard:
            on = sum(unit for vm_id in placed if where[vm_id] in group.hosts)
            total += unit * len(placed) - on if group.hosts_rule == "positive" else on
    return total


def of(groups: list[AffinityGroup], vm_id: str) -> list[AffinityGroup]:
    return [group for group in groups if vm_id in group.name_by_vm]


PLACED = st.dictionaries(st.sampled_from(VMS), st.sampled_from(HOSTS), min_size=1)


@settings(max_examples=300, deadline=None)
@given(groups_strategy(), PLACED)
def test_cost_of_a_host_differs_between_hosts_exactly_as_the_broken_pairs_do(
    groups: list[AffinityGroup], where: dict[str, str]
) -> None:
    for vm_id in where:
        places = {other: (place_,) for other, place_ in where.items()}
        cost = affinity_of(vm_id, of(groups, vm_id), places, lambda _: True).cost
        for one, two in combinations(HOSTS, 2):
            at_one, at_two = where | {vm_id: one}, where | {vm_id: two}
            assert cost(one)[0] - cost(two)[0] == violations(groups, at_one, hard=True) - violations(
                groups, at_two, hard=True
            )
            assert cost(one)[1] - cost(two)[1] == violations(groups, at_one, hard=False) - violations(
                groups, at_two, hard=False
            )


@settings(max_examples=300, deadline=None)
@given(groups_strategy(enforcing=True), PLACED)
def test_filters_let_a_vm_only_where_no_pair_with_another_placed_vm_is_broken_anew(
    groups: list[AffinityGroup], where: dict[str, str]
) -> None:
    others = {vm_id: place_ for vm_id, place_ in where.items() if vm_id != "a"}
    table = table_of([host(name) for name in HOSTS])
    places = {vm_id: (place_,) for vm_id, place_ in others.items()}
    affinity = affinity_of("a", of(groups, "a"), places, lambda _: True)
    verdicts = explain(table, request(vm_id="a", affinity=affinity), policy_named("none")).hosts
    for verdict in verdicts:
        expected = _allowed(of(groups, "a"), others, verdict.host)
        assert (verdict.rejected_by is None) == expected, verdict
        if verdict.rejected_by is not None:
            assert "affinity group g" in (verdict.reason or "")
    event(f"{sum(verdict.rejected_by is None for verdict in verdicts)} hosts are left")


def _allowed(groups: list[AffinityGroup], others: dict[str, str], where: str) -> bool:
    for group in groups:
        near = [others[vm_id] for vm_id in group.name_by_vm if vm_id in others]
        if group.vms_rule == "positive" and near and where not in near:
            return False
        if group.vms_rule == "negative" and where in near:
            return False
        if group.hosts_rule != "disabled" and (where in group.hosts) != (group.hosts_rule == "positive"):
            return False
    return True


def test_soft_rules_are_weighed_by_priority_and_hosts_outweigh_vms() -> None:
    table = table_of([host(name) for name in HOSTS])
    near = AffinityGroup(name="near", name_by_vm={"a": "a", "b": "b"}, vms_rule="positive", priority=9.0)
    on3 = AffinityGroup(name="on3", name_by_vm={"a": "a"}, hosts=("H3",), hosts_rule="positive", priority=0.1)
    chosen = []
    for groups in ([near], [near, on3]):
        affinity = affinity_of("a", groups, {"b": ("H2",)}, lambda _: True)
        outcome = place(table, request(vm_id="a", affinity=affinity), policy_named("vm_evenly_distributed"))
        assert isinstance(outcome, Placement)
        chosen.append(outcome.host)
    assert chosen == ["H2", "H3"]


@settings(max_examples=400, deadline=None)
@given(groups_strategy(enforcing=True))
def test_groups_called_contradicting_have_no_placement_at_all(groups: list[AffinityGroup]) -> None:
    reason = contradiction(groups)
    event("refused" if reason else "accepted")
    if reason is not None:
        members = sorted({vm_id for group in groups for vm_id in group.name_by_vm})
        for hosts in product(HOSTS, repeat=len(members)):
            assert violations(groups, dict(zip(members, hosts, strict=True)), hard=True) > 0


def test_two_vms_kept_together_and_apart_are_a_contradiction_and_wishes_are_not() -> None:
    pair = {"a": "web", "b": "db"}
    near = AffinityGroup(name="near", name_by_vm=pair, vms_rule="positive", vms_enforcing=True)
    far = AffinityGroup(name="far", name_by_vm=pair, vms_rule="negative", vms_enforcing=True)
    assert contradiction([near, far]) == "web and db are kept apart by group far and together by group near"
    wish = AffinityGroup(name="far", name_by_vm=pair, vms_rule="negative")
    assert contradiction([near, wish]) is None


@settings(max_examples=300, deadline=None)
@given(groups_strategy(), PLACED, st.integers(1, 3))
def test_enforcement_repeated_lowers_what_is_broken_each_time_and_ends(
    groups: list[AffinityGroup], where: dict[str, str], slots: int
) -> None:
    table, policy = table_of([host(name, memory_bytes=64 * GIB) for name in HOSTS]), policy_named("none")
    for cycle in range(50):
        before = (violations(groups, where, hard=True), violations(groups, where, hard=False))
        moves = enforcement_moves(
            groups,
            {vm_id: (place_,) for vm_id, place_ in where.items()},
            movable=lambda _: True,
            targets_of=lambda vm_id, affinity: [
                verdict.host
                for verdict in explain(table, request(vm_id=vm_id, affinity=affinity), policy).hosts
                if verdict.rejected_by is None
            ],
            is_up=lambda _: True,
            budget=Budget(slots, outgoing_max=2, incoming_max=2),
        )
        assert len(moves) <= slots
        if not moves:
            event(f"{min(cycle, 3)} cycles")
            return
        for move in moves:
            assert where[move.vm_id] == move.from_host != move.to_host
            where[move.vm_id] = move.to_host
        assert (violations(groups, where, hard=True), violations(groups, where, hard=False)) < before
    raise AssertionError("enforcement does not end")


def test_enforcement_takes_hard_rules_first_and_what_it_can_within_the_slots() -> None:
    far = AffinityGroup(name="far", name_by_vm={"a": "a", "b": "b"}, vms_rule="negative", vms_enforcing=True)
    on2 = AffinityGroup(
        name="on2", name_by_vm={"c": "c"}, hosts=("H2",), hosts_rule="positive", hosts_enforcing=True
    )
    wish = AffinityGroup(
        name="a-wish", name_by_vm={"d": "d"}, hosts=("H3",), hosts_rule="positive", priority=99
    )
    where = dict.fromkeys("abcd", ("H1",))
    assert all(is_broken(group, where) for group in (far, on2, wish))
    moves = enforcement_moves(
        [wish, far, on2],
        where,
        movable=lambda vm_id: vm_id != "a",
        targets_of=lambda *_: HOSTS,
        is_up=lambda _: True,
        budget=Budget(8, outgoing_max=2, incoming_max=2),
    )
    assert [(move.vm_id, move.to_host) for move in moves] == [("c", "H2"), ("b", "H2")]
