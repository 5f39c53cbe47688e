"""What a cluster does with policies of one's own, with hosts' profiles and with what machines need."""

from __future__ import annotations

import copy
import sys
from types import ModuleType

import msgspec
import pytest

from actors.behaviour import Turn
from actors.cluster import Cluster
from olvm.model import messages as m
from olvm.model.host_profile import HostHugePages, HostProfile
from olvm.model.placement_needs import PlacementNeeds
from olvm.model.policy_definition import PolicyDefinition
from olvm.model.records import ReservationRecord
from tests.builders import GIB
from tests.unit.actors.clusters import (
    Disk,
    cluster,
    copy_ask,
    give,
    host_record,
    joined,
    place,
    replies,
    report,
    run,
)

MIB = 2**20
MINE = PolicyDefinition(
    name="mine",
    filters=("CPUOverloaded",),
    weights={"OptimalForMemoryPowerSaving": 1},
    parameters={"HighUtilization": 60},
)
VGPU = PlacementNeeds(mediated_devices=("nvidia-35",))


def with_policy(policy: str, definition: PolicyDefinition | None = None) -> Cluster:
    return cluster("H1", "H2", policy=policy, policy_definition=definition)


def recovered(one: Cluster, profiles: dict[str, HostProfile] | None = None) -> Cluster:
    """As after a restart of its silo."""
    hosts = [host_record(name) for name in one.book.hosts]
    for host in hosts:
        host.profile = (profiles or {}).get(host.name)
    return Cluster(*copy.deepcopy((one.record, hosts, one.book.reservations, one.book.copies)))


def host_of(one: Cluster, vm_id: str = "v1", **fields: object) -> str:
    [answer] = replies(give(one, place(vm_id, **fields), f"vm/{vm_id}"), f"vm/{vm_id}")
    return answer.host if isinstance(answer, m.VmPlaced) else f"none: {answer.reason}"  # type: ignore[union-attr]


def test_composed_policy_is_kept_and_used_again_after_a_restart() -> None:
    one = with_policy("mine", MINE)
    run(one, "a", "H2")
    again = recovered(one)
    assert again.record.policy_definition == MINE
    assert again.book.policy == one.book.policy
    assert host_of(again) == "H2"  # the fuller one


def test_composed_policy_is_changed_by_name_and_gone_with_another() -> None:
    one = with_policy("mine", MINE)
    give(one, m.ChangeCluster("op", m.UpdateCluster("prod", policy_parameters={"HighUtilization": 70})))
    assert dict(one.book.policy.parameters)["HighUtilization"] == 70
    give(one, m.ChangeCluster("op", m.UpdateCluster("prod", policy="none")))
    assert one.record.policy_definition is None
    done = give(one, m.ChangeCluster("op", m.UpdateCluster("prod", policy="mine")))
    [ended] = [message for _, message, _ in done.sent if isinstance(message, m.OperationEnded)]
    assert (ended.succeeded, one.record.policy) == (False, "none")


class Last:
    def score(self, vm: object, host: object) -> float:
        return float(host.name[1:])  # type: ignore[attr-defined]


class Broken:
    def choose(self, vm: object, hosts: object) -> int:
        raise RuntimeError("out of luck")


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("cluster_policies")
    for kind in (Last, Broken):
        setattr(module, kind.__name__, kind)
    monkeypatch.setitem(sys.modules, "cluster_policies", module)


def test_class_of_ones_own_chooses_in_a_live_cluster_and_for_its_migrations() -> None:
    one = with_policy("cluster_policies:Last")
    give(one, joined("H3"))
    assert host_of(one) == "H3"
    run(one, "a", "H1")
    [answer] = replies(give(one, copy_ask("a", current_host="H1"), "vm/a"), "vm/a")
    assert isinstance(answer, m.CopyPlaced)
    assert answer.host == "H3"


def test_class_that_fails_places_nobody_says_why_and_the_cluster_goes_on() -> None:
    one = with_policy("cluster_policies:Broken")
    reason = host_of(one)
    assert reason.startswith("none: policy cluster_policies:Broken failed in choose for VM v1: ")
    assert reason.endswith("RuntimeError: out of luck")
    give(one, m.ChangeCluster("op", m.UpdateCluster("prod", policy="none")))
    assert host_of(one) == "H1"


def test_class_that_is_not_there_after_a_restart_places_nobody_and_the_cluster_goes_on() -> None:
    one = with_policy("cluster_policies:Last")
    one.record.policy = "no_such_policies:Last"
    again = recovered(one)
    assert "module no_such_policies cannot be imported here" in host_of(again)


def test_machine_goes_where_the_profile_has_what_it_needs_and_holds_it_until_it_leaves() -> None:
    one = cluster("H1")
    give(one, joined("H2", profile=HostProfile(mediated_devices={"nvidia-35": 1})))
    assert host_of(one, needs=VGPU) == "H2"
    assert "2 lack a free mediated device of nvidia-35" in host_of(one, "v2", needs=VGPU)
    again = recovered(one, profiles={"H2": HostProfile(mediated_devices={"nvidia-35": 1})})
    assert "2 lack a free mediated device of nvidia-35" in host_of(again, "v2", needs=VGPU)
    give(again, m.ReleaseVm("v1", "H2", 1), "vm/v1")
    assert host_of(again, "v2", needs=VGPU) == "H2"


def test_machine_that_moves_holds_what_it_needs_on_both_hosts() -> None:
    profile = HostProfile(huge_pages=(HostHugePages(size_bytes=2 * MIB, count=512),))
    needs = PlacementNeeds(huge_page_bytes=2 * MIB)
    one = cluster()
    for name in ("H1", "H2", "H3"):
        give(one, joined(name, memory_gib=8, profile=profile if name != "H3" else HostProfile()))
    run(one, "a", "H1", needs=needs)
    [answer] = replies(give(one, copy_ask("a", needs=needs), "vm/a"), "vm/a")
    assert isinstance(answer, m.CopyPlaced)
    assert answer.host == "H2"
    taken = [one.book.table.taken[one.book.table.slot_of(name)].huge_pages for name in ("H1", "H2")]
    assert taken == [{2 * MIB: 512}, {2 * MIB: 512}]


def test_host_that_reports_high_load_for_long_gets_no_machine_until_it_calms_down() -> None:
    one = cluster("H1", "H2", policy="evenly_distributed")
    for at_s in (100.0, 230.0):
        for name in ("H1", "H2"):
            give(one, report(name, load=90.0 if name == "H1" else 85.0), at_s=at_s)
    assert "2 are overloaded" in host_of(one)
    give(one, report("H2", load=40.0), at_s=240.0)
    assert host_of(one) == "H2"


def test_explanation_tells_weights_ranks_factors_and_selector() -> None:
    one = cluster("H1", "H2")
    done = give(one, m.ExplainForVm("client", place()))
    [answer] = [message for _, message, _ in done.sent if isinstance(message, m.PlacementExplanation)]
    assert answer.selector == "RankSelector"
    assert answer.factors["OptimalForCpuEvenDistribution"] == 2
    assert answer.hosts[0].ranks["OptimalForCpuEvenDistribution"] == 1
    assert answer.hosts[0].weights["OptimalForCpuEvenDistribution"] == 1
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(answer), type=m.PlacementExplanation) == answer


def test_reservation_of_an_older_version_needs_nothing() -> None:
    assert (
        ReservationRecord(
            vm_id="v",
            vm_name="v",
            vm_address="vm/v",
            cluster="c",
            host="H1",
            epoch=1,
            vcpus=1,
            memory_bytes=GIB,
        ).needs
        is None
    )


def test_round_robin_goes_on_after_a_restart_where_it_was() -> None:
    one, disk = cluster("H1", "H2", "H3"), Disk()

    def ask(message: m.AnyMessage, sender: str) -> Turn:
        done = give(one, message, sender)
        disk.keep(done)
        return done

    ask(m.ChangeCluster("op-1", m.UpdateCluster("prod", policy="round_robin")), "engine")
    for vm_id, host in (("v1", "H1"), ("v2", "H2")):
        ask(place(vm_id), f"vm/{vm_id}")
        assert one.book.reservations[vm_id].host == host
    ask(m.ReleaseVm("v2", "H2", 1), "vm/v2")  # the newest booking, and nobody is on H2 any more
    again = disk.restarted([host_record(name) for name in ("H1", "H2", "H3")])

    assert host_of(again, "v3") == host_of(one, "v3") == "H3"
    ask(copy_ask("v1"), "vm/v1")  # its turn: back to H1, where v1 is, so H2
    assert [copy.host for copy in one.book.copies.values()] == ["H2"]
    assert host_of(disk.restarted([host_record(name) for name in ("H1", "H2", "H3")]), "v4") == "H3"


def test_round_robin_begins_where_its_record_says_when_it_is_chosen_again() -> None:
    one = cluster("H1", "H2", "H3", policy="first_fit")
    run(one, "v1", "H2")  # of another policy: not written down
    give(one, m.ChangeCluster("op-1", m.UpdateCluster("prod", policy="round_robin")), "engine")

    assert host_of(recovered(one), "v2") == host_of(one, "v2") == "H1"
