"""Drains, balancing, affinity enforcement and HA reservation: who is told to move, and who is left alone."""

from __future__ import annotations

from actors.behaviour import Turn
from actors.cluster import Cluster
from olvm.model import messages as m
from olvm.model.config import Config
from olvm.model.host_states import HostStatus
from olvm.model.records import AffinityGroupRecord
from tests.builders import sent_to
from tests.unit.actors.clusters import (
    Disk,
    cluster,
    copy_ask,
    give,
    host_record,
    place,
    replies,
    report,
    run,
    state,
    usable,
)


def moves(done: Turn) -> list[tuple[str, str, str]]:
    """Machine, reason, target."""
    return [
        (to.removeprefix("vm/"), message.reason, message.to_host)
        for to, message, _ in done.sent
        if isinstance(message, m.MoveVm)
    ]


def tick(one: Cluster, name: str, at_s: float = 100.0) -> Turn:
    return give(one, m.TimerFired(name), "", at_s=at_s)


def drained(count: int = 5) -> tuple[Cluster, Turn]:
    one = cluster("H1", "H2", "H3", memory_gib=64)
    for number in range(1, count + 1):
        run(one, f"v{number}", "H1", priority=number)
    give(one, usable("H1", HostStatus.PREPARING_FOR_MAINTENANCE))
    return one, give(one, m.DrainHost("H1", "maintenance"), "host/H1")


def test_drain_tells_as_many_machines_as_there_are_slots_the_most_important_first() -> None:
    one, done = drained()
    assert moves(done) == [("v5", "maintenance", ""), ("v4", "maintenance", "")]
    assert moves(give(one, m.DrainHost("H1", "maintenance"), "host/H1")) == []
    give(one, copy_ask("v5"), "vm/v5")
    give(one, copy_ask("v4"), "vm/v4")
    assert moves(tick(one, "drain")) == []
    assert moves(give(one, m.PromoteCopy("v5", 2, "H1", 1), "vm/v5")) == [("v3", "maintenance", "")]


def test_drain_tells_the_next_when_one_refuses_and_the_refuser_again_later() -> None:
    one, _ = drained(count=3)
    refused = m.VmMoveRefused("v3", "v3", "H1", "it is pinned to H1")
    assert moves(give(one, refused, "vm/v3")) == [("v1", "maintenance", "")]
    occupancy = replies(give(one, m.AskEmpty("H1"), "host/H1"), "host/H1")
    assert occupancy == [m.HostOccupancy("H1", ["v1", "v2", "v3"], {"v3": "it is pinned to H1"})]
    assert moves(tick(one, "drain", at_s=110)) == []
    again_s = 100 + 3 * Config().migration_retry_s
    assert ("v3", "maintenance", "") in moves(tick(one, "drain", at_s=again_s))


def test_drain_of_machines_that_all_refuse_makes_no_storm() -> None:
    one, done = drained(count=50)
    told = moves(done)
    for _ in range(100):
        if not told:
            break
        vm_id = told.pop(0)[0]
        told += moves(give(one, m.VmMoveRefused(vm_id, vm_id, "H1", "no"), f"vm/{vm_id}"))
        assert len(told) <= 2
    assert not told
    assert moves(tick(one, "drain", at_s=110)) == []


def test_drain_ends_with_an_empty_host_once_the_last_source_has_said_its_end() -> None:
    one, _ = drained(count=1)
    give(one, copy_ask("v1"), "vm/v1")
    give(one, m.PromoteCopy("v1", 2, "H1", 1), "vm/v1")
    (waiting,) = replies(give(one, m.AskEmpty("H1"), "host/H1"), "host/H1")
    assert waiting == m.HostOccupancy(
        "H1", ["v1"], {"v1": "has left, and the host has not said that its copy ended"}
    )
    assert replies(give(one, m.ReleaseVm("v1", "H1", 1), "vm/v1"), "host/H1") == [m.HostOccupancy("H1", [])]


def test_drain_that_is_stopped_lets_those_stay_that_were_told() -> None:
    one, _ = drained(count=3)
    give(one, copy_ask("v3", reason="maintenance"), "vm/v3")
    done = give(one, m.StopDrain("H1"), "host/H1")
    assert [(to, message) for to, message, _ in done.sent] == [
        ("vm/v3", m.StayVm("H1")),
        ("vm/v2", m.StayVm("H1")),
    ]
    assert moves(tick(one, "drain", at_s=200)) == []


def test_drain_goes_on_after_a_restart_of_the_engine() -> None:
    one, _ = drained(count=1)
    held = dict(one.book.reservations)
    hosts = [host_record("H1", memory_gib=64, status=HostStatus.PREPARING_FOR_MAINTENANCE), host_record("H2")]
    again = Cluster(one.record, hosts, held)
    assert moves(give(again, m.Recovered(), "")) == [("v1", "maintenance", "")]


def test_drain_of_a_lost_host_tells_nobody() -> None:
    one = cluster("H1", "H2")
    run(one, "v1", "H1")
    give(one, usable("H1", HostStatus.NON_RESPONSIVE))
    assert moves(give(one, m.DrainHost("H1", "maintenance"), "host/H1")) == []


# ---------------------------------------------------------------- balancing


def overloaded() -> Cluster:
    one = cluster("H1", "H2", memory_gib=64, policy="evenly_distributed")
    for number in (1, 2, 3, 4):
        run(one, f"v{number}", "H1")
    for at_s in (100, 160, 220):
        domains = [state(f"v{n}") for n in (1, 2, 3, 4)]
        give(one, report("H1", *domains, load=95.0), "host/H1", at_s=at_s)
        give(one, report("H2", load=5.0), "host/H2", at_s=at_s)
    return one


def test_balancer_waits_until_a_host_has_been_over_utilized_long_enough() -> None:
    one = overloaded()
    assert moves(tick(one, "balance", at_s=219)) == []
    # 95 % to 80 % or less: each of the four machines counts for a quarter.
    assert moves(tick(one, "balance", at_s=221)) == [("v1", "balancing", "H2")]


def test_balancer_moves_a_machine_once_and_lets_it_rest() -> None:
    one = overloaded()
    tick(one, "balance", at_s=221)
    give(one, copy_ask("v1", to_host="H2", reason="balancing"), "vm/v1", at_s=221)
    assert moves(tick(one, "balance", at_s=230)) == []
    give(one, m.PromoteCopy("v1", 2, "H1", 1), "vm/v1", at_s=240)
    give(one, m.ReleaseVm("v1", "H1", 1), "vm/v1", at_s=240)
    run(one, "v5", "H2", pinned_hosts=["H2"])
    for at_s in (250, 400):  # now the other one is over, and v1 alone may leave it
        domains = [state("v1", epoch=2), state("v5")]
        give(one, report("H2", *domains, load=95.0), "host/H2", at_s=at_s)
        give(one, report("H1", *[state(f"v{n}") for n in (2, 3, 4)], load=5.0), "host/H1", at_s=at_s)
    assert moves(tick(one, "balance", at_s=401)) == []
    rested_s = 222 + Config().balance_rest_s
    assert moves(tick(one, "balance", at_s=rested_s)) == [("v1", "balancing", "H1")]


def test_balancer_of_another_policy_and_of_a_cluster_going_down_moves_nothing() -> None:
    one = overloaded()
    one.record.power = "shutting_down"
    assert moves(tick(one, "balance", at_s=221)) == []
    one.record.power = "running"
    give(one, m.ChangeCluster("op-1", m.UpdateCluster("prod", policy="none")))
    assert moves(tick(one, "balance", at_s=222)) == []


def test_balancer_respects_pinning_and_hard_affinity() -> None:
    one = overloaded()
    for number in (1, 2):
        one.book.reservations[f"v{number}"].pinned_hosts = ["H1"]
    set_group(one, "off", ["v3"], hosts=["H2"], hosts_rule="negative", hosts_enforcing=True)
    assert moves(tick(one, "balance", at_s=221)) == [("v4", "balancing", "H2")]


# ---------------------------------------------------------------- affinity


def set_group(one: Cluster, name: str, vms: list[str], **rules: object) -> m.OperationEnded:
    command = m.SetAffinityGroup(name, "prod", vms, **rules)  # type: ignore[arg-type]
    done = give(one, m.ChangeAffinity("op-1", command, vms))
    (ended,) = sent_to(done, "engine")
    assert isinstance(ended, m.OperationEnded)
    return ended


def test_affinity_hard_rules_place_and_name_the_group_that_rejects() -> None:
    one = cluster("H1", "H2", memory_gib=64)
    set_group(one, "apart", ["v1", "v2", "v3"], vms_rule="negative", vms_enforcing=True)
    hosts = []
    for vm_id in ("v1", "v2", "v3"):
        (answer,) = replies(give(one, place(vm_id), f"vm/{vm_id}"), f"vm/{vm_id}")
        hosts.append(answer.host if isinstance(answer, m.VmPlaced) else answer)
    assert hosts == ["H1", "H2", m.VmNotPlaced(1, "no host of 2 fits v3: 2 would break affinity group apart")]
    done = give(one, m.ExplainForVm("client/1", place("v3")))
    (explained,) = sent_to(done, "client/1")
    assert isinstance(explained, m.PlacementExplanation)
    assert explained.hosts[0].reason == (
        "H1: VmAffinityGroups: affinity group apart keeps it apart from v1, which is here"
    )


def test_affinity_does_not_count_a_machines_own_place_when_it_migrates() -> None:
    one = cluster("H1", "H2", memory_gib=64)
    run(one, "v1", "H1")
    set_group(one, "apart", ["v1", "v2"], vms_rule="negative", vms_enforcing=True)
    assert isinstance(replies(give(one, copy_ask()))[0], m.CopyPlaced)


def test_affinity_follows_a_migrating_member_to_where_it_goes() -> None:
    one = cluster("H1", "H2", memory_gib=64)
    run(one, "v1", "H1")
    give(one, copy_ask())
    set_group(one, "together", ["v1", "v2"], vms_rule="positive", vms_enforcing=True)
    (placed,) = replies(give(one, place("v2"), "vm/v2"), "vm/v2")
    assert isinstance(placed, m.VmPlaced)
    assert placed.host == "H2"


def test_affinity_of_members_on_a_dead_host_holds_nobody_there() -> None:
    one = cluster("H1", "H2", memory_gib=64)
    run(one, "v1", "H1")
    set_group(one, "together", ["v1", "v2"], vms_rule="positive", vms_enforcing=True)
    give(one, usable("H1", HostStatus.NON_RESPONSIVE))
    assert isinstance(replies(give(one, place("v2"), "vm/v2"), "vm/v2")[0], m.VmPlaced)


def test_affinity_groups_that_contradict_are_refused_with_both_named() -> None:
    one = cluster("H1")
    assert set_group(one, "ab", ["a", "b"], vms_rule="positive", vms_enforcing=True).succeeded
    assert set_group(one, "bc", ["b", "c"], vms_rule="positive", vms_enforcing=True).succeeded
    ended = set_group(one, "ac", ["a", "c"], vms_rule="negative", vms_enforcing=True)
    assert (ended.succeeded, ended.error_code) == (False, "conflict")
    assert ended.reason == (
        "cannot set affinity group ac: a and c are kept apart by group ac and together by group ab, bc; "
        "change one of them"
    )
    assert set_group(one, "ac", ["a", "c"], vms_rule="negative").succeeded  # a wish contradicts nothing
    rule = {"hosts_enforcing": True, "hosts_rule": "positive"}
    assert set_group(one, "on1", ["a"], hosts=["H1"], **rule).succeeded
    ended = set_group(one, "on2", ["c"], hosts=["H2"], **rule)
    assert "the hosts rules of groups on1, on2 leave no host to c" in ended.reason


def test_affinity_group_is_durable_and_its_removal_too() -> None:
    one, disk = cluster("H1"), Disk()
    command = m.SetAffinityGroup("g", "prod", ["a", "b"], vms_rule="negative", priority=2.5)
    disk.keep(give(one, m.ChangeAffinity("op-1", command, ["id-a", "id-b"])))
    disk.rows[type(one.record)] = {"prod": one.record}
    again = disk.restarted([host_record("H1")])
    assert again.groups.groups == one.groups.groups
    assert again.groups.affinity_for("id-a") is not None
    disk.keep(give(again, m.ChangeAffinity("op-2", m.RemoveAffinityGroup("g", "prod"))))
    assert disk.rows[AffinityGroupRecord] == {}
    (ended,) = sent_to(give(again, m.ChangeAffinity("op-3", m.RemoveAffinityGroup("g", "prod"))), "engine")
    assert isinstance(ended, m.OperationEnded)
    assert ended.error_code == "not_found"


def test_affinity_enforcement_marks_the_group_and_moves_several_machines_in_one_cycle() -> None:
    one = cluster("H1", "H2", "H3", memory_gib=64)
    for vm_id in ("v1", "v2", "v3"):
        run(one, vm_id, "H1")
    set_group(one, "apart", ["v1", "v2", "v3"], vms_rule="negative", vms_enforcing=True)
    done = tick(one, "affinity")
    assert moves(done) == [("v1", "affinity", "H2"), ("v2", "affinity", "H3")]
    assert one.groups.records["prod/apart"].broken
    assert done.events[0].code == "affinity_group_broken"
    for vm_id, target in (("v1", "H2"), ("v2", "H3")):
        give(one, copy_ask(vm_id, to_host=target, reason="affinity"), f"vm/{vm_id}")
        give(one, m.PromoteCopy(vm_id, 2, "H1", 1), f"vm/{vm_id}")
    mended = tick(one, "affinity", at_s=160)
    assert (moves(mended), [event.code for event in mended.events]) == ([], ["affinity_group_mended"])


# ---------------------------------------------------------------- HA reservation


def test_ha_reservation_is_told_once_when_broken_and_once_when_mended() -> None:
    one = cluster("H1", "H2", ha_reservation=True)
    for number in (1, 2):
        run(one, f"v{number}", "H1", high_availability=True)
    for number in (3, 4):
        run(one, f"v{number}", "H2")
    first = tick(one, "ha_reservation")
    assert [(event.code, event.severity) for event in first.events] == [
        ("cluster_ha_reservation_broken", "alert")
    ]
    assert "if host H1 were lost, 1 of its highly available machines (v2)" in first.events[0].message
    assert tick(one, "ha_reservation", at_s=400).events == []
    give(one, m.ReleaseVm("v3", "H2", 1), "vm/v3")
    mended = tick(one, "ha_reservation", at_s=700)
    assert [event.code for event in mended.events] == ["cluster_ha_reservation_mended"]


def test_drain_of_a_host_that_is_up_again_ends_by_itself() -> None:
    """Found by a campaign: a host that was restarted while it was drained went on to be emptied for ever."""
    one, _ = drained(count=3)
    give(one, m.HostUsable("H1", False, "silent", "non_responsive"), "host/H1")
    give(one, m.HostUsable("H1", True, "answers again", "up"), "host/H1")
    assert moves(tick(one, "drain", at_s=200)) == []
