"""Reservations: promised in the turn that chose the host, given back by their epoch, never leaked."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from olvm.model import messages as m
from olvm.model.host_states import HostStatus
from olvm.model.records import ReservationRecord
from olvm.model.vm_states import VmStatus
from tests.builders import sent_to
from tests.unit.actors.clusters import (
    Disk,
    agent_of,
    cluster,
    copy_ask,
    give,
    host_record,
    joined,
    place,
    replies,
    report,
    run,
    state,
    usable,
)


def test_cluster_place_reserves_and_answers_in_one_turn_with_the_hosts_boot() -> None:
    one = cluster("H1")
    done = give(one, place())
    assert done.sent == [("vm/v1", m.VmPlaced(1, "H1", agent_of("H1"), "boot-H1"), True)]
    assert done.saved == [one.book.reservations["v1"]]


def test_cluster_place_asked_twice_gives_the_same_answer_even_after_a_reboot_of_the_host() -> None:
    one = cluster("H1", "H2")
    first = give(one, place())
    give(one, joined("H1", boot_id="boot-later"))
    again = give(one, place())
    assert (again.sent, again.saved) == (first.sent, [])


def test_cluster_place_of_a_later_attempt_replaces_the_row_and_does_not_erase_it() -> None:
    one = cluster("H1")
    give(one, place(epoch=1))
    done = give(one, place(epoch=2))
    assert [held.epoch for held in one.book.reservations.values()] == [2]
    assert (done.saved, done.erased) == ([one.book.reservations["v1"]], [])


def test_cluster_place_of_an_attempt_that_is_over_has_no_effect() -> None:
    one = cluster("H1")
    give(one, place(epoch=2))
    done = give(one, place(epoch=1))
    assert (done.sent, done.saved, done.erased) == ([], [], [])


def test_cluster_place_without_room_says_why() -> None:
    one = cluster("H1")
    give(one, usable("H1", HostStatus.CONNECTING))
    (answer,) = sent_to(give(one, place()), "vm/v1")
    assert answer == m.VmNotPlaced(1, "no host of 1 fits v1: 1 is not Up")


def test_cluster_leased_machine_goes_only_where_a_watchdog_is() -> None:
    one = cluster("H1")
    give(one, joined("H1", features=["migration"]))
    give(one, joined("H2"))
    assert replies(give(one, place(leased=True))) == [m.VmPlaced(1, "H2", agent_of("H2"), "boot-H2")]
    give(one, usable("H2", HostStatus.MAINTENANCE))
    (refused,) = replies(give(one, place("v2", leased=True), "vm/v2"), "vm/v2")
    assert isinstance(refused, m.VmNotPlaced)
    assert "1 lacks the watchdog that a lease needs" in refused.reason


def test_cluster_place_where_an_old_copy_has_not_ended_is_refused_there() -> None:
    one = cluster("H1", "H2")
    run(one, "v1", "H1")
    give(one, copy_ask(epoch=2))
    give(one, m.PromoteCopy("v1", 2, "H1", 1))
    give(one, m.ReleaseVm("v1", "H2", 2))
    give(one, usable("H2", HostStatus.NON_RESPONSIVE))
    (refused,) = replies(give(one, place(epoch=3)))
    assert isinstance(refused, m.VmNotPlaced)
    assert "1 still has a copy of it" in refused.reason
    give(one, m.ReleaseVm("v1", "H1", 1))
    assert isinstance(replies(give(one, place(epoch=4)))[0], m.VmPlaced)


def test_cluster_release_of_another_epoch_has_no_effect() -> None:
    one = cluster("H1")
    give(one, place(epoch=2))
    done = give(one, m.ReleaseVm("v1", "H1", 1))
    assert (done.sent, done.erased, list(one.book.reservations)) == ([], [], ["v1"])


def test_cluster_release_after_a_failed_start_counts_against_the_host() -> None:
    one = cluster("H1")
    give(one, place())
    done = give(one, m.ReleaseVm("v1", "H1", 1, failed_start=True))
    assert sent_to(done, "host/H1") == [m.HostStartFailed("H1", "v1", ""), m.HostOccupancy("H1", [])]


def test_cluster_report_is_passed_on_and_what_it_lacks_is_named_with_its_epoch() -> None:
    one = cluster("H1", "H2")
    give(one, place("v1", pinned_hosts=["H1"]), "vm/v1")
    give(one, place("v2", epoch=5, pinned_hosts=["H1"]), "vm/v2")
    run(one, "v3", "H2")
    give(one, copy_ask("v3", epoch=9, current_host="H2", to_host="H1"), "vm/v3")
    up = state("v1")
    done = give(one, report("H1", up))
    assert done.sent == [
        ("vm/v1", m.DomainReported("H1", agent_of("H1"), 2, 7, up), False),
        ("vm/v2", m.DomainMissing("H1", 2, 7, 5), False),
        ("vm/v3", m.DomainMissing("H1", 2, 7, 9), False),
    ]
    arriving = state("v3", epoch=9, status=VmStatus.MIGRATING_TO)
    named = give(one, report("H1", up, arriving, state("v2", epoch=5)))
    assert not [message for _, message, _ in named.sent if isinstance(message, m.DomainMissing)]


def test_cluster_report_of_an_up_machine_settles_its_load_durably_and_once() -> None:
    one = cluster("H1")
    give(one, place())
    stale = give(one, report("H1", state("v1", epoch=7)))
    assert (stale.saved, one.book.table.row("H1").pending_cpus) == ([], 1)
    first = give(one, report("H1", state("v1")))
    again = give(one, report("H1", state("v1")))
    assert (first.saved, again.saved) == ([one.book.reservations["v1"]], [])
    assert one.book.table.row("H1").pending_cpus == 0


def test_cluster_with_hosts_is_not_removed() -> None:
    one = cluster("H1")
    (ended,) = sent_to(give(one, m.EndCluster("op-1")), "engine")
    assert isinstance(ended, m.OperationEnded)
    assert (ended.succeeded, ended.error_code) == (False, "conflict")


def test_cluster_explains_a_running_machine_without_counting_it_against_its_own_host() -> None:
    one = cluster("H1", "H2")
    run(one, "v1", "H1")
    done = give(one, m.ExplainForVm("client/1", place()))
    (explained,) = sent_to(done, "client/1")
    assert isinstance(explained, m.PlacementExplanation)
    assert [(v.host, v.rejected_by, v.chosen) for v in explained.hosts] == [
        ("H1", "Migration", False),
        ("H2", "", True),
    ]


def test_cluster_settings_out_of_range_are_refused_whole() -> None:
    one = cluster("H1")
    for change in (
        m.UpdateCluster("prod", migration_policy="teleport", ha_reservation=True),
        m.UpdateCluster("prod", fencing_connectivity_threshold_percent=0, ha_reservation=True),
        m.UpdateCluster("prod", migration_bandwidth_mib_s=-1.0, ha_reservation=True),
        m.UpdateCluster("prod", policy="fastest", ha_reservation=True),
    ):
        done = give(one, m.ChangeCluster("op-1", change))
        (ended,) = sent_to(done, "engine")
        assert isinstance(ended, m.OperationEnded)
        assert (ended.succeeded, ended.error_code, done.saved) == (False, "bad_input", [])
    assert one.record.ha_reservation is False


def test_cluster_settings_given_are_changed_and_others_stay() -> None:
    one = cluster("H1", migration_policy="post_copy", fencing=False)
    change = m.UpdateCluster("prod", ha_reservation=True, fencing_connectivity_threshold_percent=70)
    give(one, m.ChangeCluster("op-1", change))
    record = one.record
    assert (record.migration_policy, record.fencing, record.ha_reservation) == ("post_copy", False, True)
    assert record.fencing_connectivity_threshold_percent == 70


class AnyOrder(RuleBasedStateMachine):
    """Rows fit, agree with what was saved, and a cluster built from the records is the same."""

    def __init__(self) -> None:
        super().__init__()
        self.disk = Disk()
        self.one = cluster("H1", "H2", "H3")
        self.disk.rows[type(self.one.record)] = {"prod": self.one.record}

    def give(self, message: m.AnyMessage, sender: str) -> None:
        self.disk.keep(give(self.one, message, sender))

    @rule(which=st.integers(1, 6), epoch=st.integers(1, 6))
    def place(self, which: int, epoch: int) -> None:
        self.give(place(f"v{which}", epoch), f"vm/v{which}")

    @rule(which=st.integers(1, 6), epoch=st.integers(1, 6))
    def release(self, which: int, epoch: int) -> None:
        self.give(m.ReleaseVm(f"v{which}", "H1", epoch), f"vm/v{which}")

    @rule(which=st.integers(1, 6), epoch=st.integers(1, 6), takeover=st.booleans())
    def place_copy(self, which: int, epoch: int, takeover: bool) -> None:
        held = self.one.book.reservations.get(f"v{which}")
        where = held.host if held is not None else "H1"
        kind = "takeover" if takeover else "migration"
        self.give(copy_ask(f"v{which}", epoch, current_host=where, kind=kind), f"vm/v{which}")

    @rule(which=st.integers(1, 6), epoch=st.integers(1, 6))
    def promote(self, which: int, epoch: int) -> None:
        held = self.one.book.reservations.get(f"v{which}")
        host, old = (held.host, held.epoch) if held is not None else ("H1", 0)
        self.give(m.PromoteCopy(f"v{which}", epoch, host, old), f"vm/v{which}")

    @rule(which=st.integers(1, 6), epoch=st.integers(1, 6), name=st.sampled_from(["H1", "H2", "H3"]))
    def report(self, which: int, epoch: int, name: str) -> None:
        self.give(report(name, state(f"v{which}", epoch=epoch)), f"host/{name}")

    @rule(name=st.sampled_from(["H1", "H2", "H3"]), up=st.booleans())
    def usable(self, name: str, up: bool) -> None:
        self.give(usable(name, HostStatus.UP if up else HostStatus.NON_RESPONSIVE), f"host/{name}")

    @invariant()
    def rows_fit_and_survive_a_restart(self) -> None:
        book = self.one.book
        kept = self.disk.rows.get(ReservationRecord, {})
        assert book.reservations == kept
        again = self.disk.restarted([host_record(name) for name in ("H1", "H2", "H3")]).book
        assert again.copies == book.copies
        for name in ("H1", "H2", "H3"):
            row, rebuilt = book.table.row(name), again.table.row(name)
            assert row.memory_free_bytes >= 0
            assert (row.memory_free_bytes, row.vm_count) == (rebuilt.memory_free_bytes, rebuilt.vm_count)
            assert row.vm_count == len(book.rows_on(name)) == len(again.rows_on(name))
        rows = [row for name in ("H1", "H2", "H3") for row in book.rows_on(name)]
        assert len(rows) == len(book.reservations) + len(book.copies)
        assert len({(row.vm_id, row.host) for row in rows}) == len(rows)


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=40, stateful_step_count=30, deadline=None, derandomize=True)
