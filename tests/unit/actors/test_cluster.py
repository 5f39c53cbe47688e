"""Reservations: promised in the turn that chose the host, given back by their epoch, never leaked."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from actors.behaviour import Turn
from actors.cluster import Cluster
from olvm.model import messages as m
from olvm.model.records import HostRecord, ReservationRecord
from olvm.model.vm_states import VmStatus
from tests.builders import GIB, domain_state, host, sent_to, turn


def joined(name: str, *, usable: bool = True) -> m.HostJoined:
    return m.HostJoined(name, 8, 4 * GIB, f"agent/{name}@host-{name[1:]}", usable)


def cluster(*hosts: str) -> Cluster:
    made = Cluster.new("prod")
    for name in hosts:
        made.handle(joined(name), turn())
    return made


def place(vm_id: str = "v1", epoch: int = 1, **fields: object) -> m.PlaceVm:
    return m.PlaceVm(vm_id, vm_id, epoch, 1, GIB, **fields)  # type: ignore[arg-type]


def give(one: Cluster, message: m.AnyMessage, sender: str = "vm/v1") -> Turn:
    done = turn(me="cluster/prod", sender=sender)
    one.handle(message, done)
    return done


def test_cluster_place_reserves_and_answers_in_one_turn() -> None:
    one = cluster("H1")
    done = give(one, place())
    assert done.sent == [("vm/v1", m.VmPlaced(1, "H1", "agent/H1@host-1"), True)]
    assert done.saved == [one.reservations["v1"]]


def test_cluster_place_asked_twice_gives_the_same_answer_and_one_reservation() -> None:
    one = cluster("H1", "H2")
    first = give(one, place())
    again = give(one, place())
    assert (again.sent, again.saved) == (first.sent, [])


def test_cluster_place_of_a_later_attempt_replaces_the_earlier_reservation() -> None:
    one = cluster("H1")
    give(one, place(epoch=1))
    done = give(one, place(epoch=2))
    assert [held.epoch for held in one.reservations.values()] == [2]
    assert len(done.erased) == 1


def test_cluster_place_of_an_attempt_that_is_over_has_no_effect() -> None:
    one = cluster("H1")
    give(one, place(epoch=2))
    done = give(one, place(epoch=1))
    assert (done.sent, done.saved, done.erased) == ([], [], [])


def test_cluster_place_without_room_says_why() -> None:
    one = cluster("H1")
    give(one, m.HostUsable("H1", False))
    (answer,) = sent_to(give(one, place()), "vm/v1")
    assert isinstance(answer, m.VmNotPlaced)
    assert answer.reason


def test_cluster_release_of_another_epoch_has_no_effect() -> None:
    one = cluster("H1")
    give(one, place(epoch=2))
    done = give(one, m.ReleaseVm("v1", "H1", 1))
    assert (done.sent, done.erased, list(one.reservations)) == ([], [], ["v1"])


def test_cluster_release_after_a_failed_start_counts_against_the_host() -> None:
    one = cluster("H1")
    give(one, place())
    done = give(one, m.ReleaseVm("v1", "H1", 1, failed_start=True))
    assert sent_to(done, "host/H1") == [m.HostStartFailed("H1", "v1", ""), m.HostOccupancy("H1", [])]


def test_cluster_report_is_passed_on_and_what_it_lacks_is_named() -> None:
    one = cluster("H1")
    give(one, place("v1"), "vm/v1")
    give(one, place("v2"), "vm/v2")
    state = domain_state(status=VmStatus.UP)
    done = give(one, m.HostReported("H1", "agent/H1@host-1", 2, 7, 10.0, [state]))
    assert done.sent == [
        ("vm/v1", m.DomainReported("H1", "agent/H1@host-1", 2, 7, state), False),
        ("vm/v2", m.DomainMissing("H1", 2, 7), False),
    ]


def test_cluster_unresponsive_host_is_told_to_its_machines_only() -> None:
    one = cluster("H1", "H2")
    give(one, place("v1", pinned_hosts=["H1"]), "vm/v1")
    give(one, place("v2", pinned_hosts=["H2"]), "vm/v2")
    done = give(one, m.HostUnresponsive("H1", "silent"))
    assert done.sent == [("vm/v1", m.HostLost("H1", "silent"), True)]


def test_cluster_with_hosts_is_not_removed() -> None:
    one = cluster("H1")
    done = give(one, m.EndCluster("op-1"))
    (ended,) = sent_to(done, "engine")
    assert isinstance(ended, m.OperationEnded)
    assert (ended.succeeded, ended.error_code, done.erased) == (False, "conflict", [])


class AnyOrder(RuleBasedStateMachine):
    """Reservations fit, agree with what was saved, and a cluster built from the records is the same."""

    def __init__(self) -> None:
        super().__init__()
        self.one = cluster("H1", "H2")
        self.disk: dict[str, ReservationRecord] = {}

    def give(self, message: m.AnyMessage, sender: str) -> None:
        done = give(self.one, message, sender)
        for row in done.erased:
            assert isinstance(row, ReservationRecord)
            self.disk.pop(row.vm_id, None)
        for row in done.saved:
            if isinstance(row, ReservationRecord):
                self.disk[row.vm_id] = row

    @rule(which=st.integers(1, 9), epoch=st.integers(1, 3))
    def place(self, which: int, epoch: int) -> None:
        self.give(place(f"v{which}", epoch), f"vm/v{which}")

    @rule(which=st.integers(1, 9), epoch=st.integers(1, 3))
    def release(self, which: int, epoch: int) -> None:
        self.give(m.ReleaseVm(f"v{which}", "H1", epoch), f"vm/v{which}")

    @rule(name=st.sampled_from(["H1", "H2"]), usable=st.booleans())
    def usable(self, name: str, usable: bool) -> None:
        self.give(m.HostUsable(name, usable), f"host/{name}")

    @invariant()
    def reservations_fit_and_survive_a_restart(self) -> None:
        assert self.one.reservations == self.disk
        records: list[HostRecord] = [
            host(name=name, memory_bytes=4 * GIB, silo=f"host-{name[1:]}").record for name in ("H1", "H2")
        ]
        again = Cluster(self.one.record, records, dict(self.disk))
        for name in ("H1", "H2"):
            row, rebuilt = self.one.table.row(name), again.table.row(name)
            assert row.memory_free_bytes >= 0
            assert row.memory_free_bytes == rebuilt.memory_free_bytes


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=30, stateful_step_count=25, deadline=None, derandomize=True)
