"""A leased machine begins with its lease and ends by giving it back, also when the storage is away for a while."""

from __future__ import annotations

import pytest

from actors.lease_port import JoinLease, LeaveLease, RenewLease, TakeLease
from hypervisor_backends.protocol import PrepareIncoming, RestoreDomain, StartDomain
from olvm.model import messages as m
from olvm.model.records import DomainRecord
from olvm.model.vm_states import VmStatus
from tests.builders import GIB, sent_to
from tests.unit.actors.agent_driving import (
    VM,
    agent,
    alarms,
    asked,
    create,
    domain,
    ends,
    failed,
    give,
    incoming,
    listed,
    ok,
    opened,
    refusals,
    tags,
    there,
    told,
)

S = VmStatus


def leased(status: VmStatus = S.UP, **fields: object) -> DomainRecord:
    return domain(status, leased=True, lease_taken=True, **fields)


# ---------------------------------------------------------------------- the host's own lease


def test_agent_renews_from_its_first_start_on_and_each_period() -> None:
    one = agent(is_open=False)
    done = give(one, opened())
    assert [request for port, request, _ in done.calls if port == "leases"] == [RenewLease("H1")]
    again = give(one, m.TimerFired("renew"))
    assert (asked(again), [name for name, _ in alarms(again)]) == (["RenewLease"], ["renew"])


def test_agent_goes_on_renewing_while_it_recovers() -> None:
    assert asked(give(agent(is_open=False), m.TimerFired("renew"))) == ["RenewLease"]


def problems(one: object) -> list[str]:
    (beat,) = sent_to(give(one, m.TimerFired("heartbeat")), "host/H1")  # type: ignore[arg-type]
    assert isinstance(beat, m.Heartbeat)
    return beat.problems


def test_agent_waits_for_no_answer_to_a_renewal() -> None:
    """The port answers only what failed, and the first that worked after it."""
    one = agent()
    for _ in range(5):
        give(one, m.TimerFired("renew"))
    assert problems(one) == []


def test_agent_that_cannot_renew_for_more_than_two_periods_has_a_problem_until_it_can() -> None:
    one = agent()
    for period in range(3):
        assert problems(one) == [], period
        give(one, m.TimerFired("renew"))
        give(one, failed("renew", "unreachable"))
    assert problems(one) == ["storage_domain_unreachable"]
    give(one, m.TimerFired("renew"))
    give(one, ok("renew"))
    assert problems(one) == []


def test_agent_whose_watchdog_is_not_armed_says_so_and_not_that_the_storage_is_away() -> None:
    one = agent()
    for _ in range(3):
        give(one, failed("renew", "unarmed"))
    assert problems(one) == ["watchdog_not_armed"]
    give(one, failed("renew", "unreachable"))
    assert problems(one) == ["storage_domain_unreachable"]
    give(one, ok("renew"))
    assert problems(one) == []


# ---------------------------------------------------------------------- a start


def test_agent_leased_start_takes_the_lease_before_it_asks_the_hypervisor() -> None:
    one = agent()
    assert [request for _, request, _ in give(one, create(leased=True)).calls] == [TakeLease("H1", "v1", 3)]
    ((_, request, _),) = give(one, ok("take/v1/3")).calls
    assert isinstance(request, StartDomain)
    assert request.spec.leased


def test_agent_leased_restore_takes_the_lease_and_then_restores() -> None:
    one = agent()
    give(one, m.CreateDomain("v1", VM, 3, "web", 1, GIB, restore=True, leased=True))
    ((_, request, _),) = give(one, ok("take/v1/3")).calls
    assert isinstance(request, RestoreDomain)


@pytest.mark.parametrize(
    ("outcome", "code"),
    [("held", "lease_held"), ("stale", "stale_epoch"), ("unreachable", "lease_unreachable")],
)
def test_agent_start_refused_by_the_lease_leaves_no_entry_and_remembers_the_epoch(
    outcome: str, code: str
) -> None:
    one = agent()
    give(one, create(leased=True))
    done = give(one, failed("take/v1/3", outcome))
    assert (refusals(done), told(done)) == ([("create", 3, code)], [])
    assert asked(done) == ["LeaveLease"]  # a write of the refused attempt may still come to work
    assert refusals(give(one, create(3))) == [("create", 3, "stale_epoch")]
    (report,) = sent_to(give(one, m.TimerFired("report")), "host/H1")
    assert isinstance(report, m.HostReport)
    assert report.domains == []


def test_agent_start_that_comes_after_the_watchdog_expired_is_refused_as_unreachable() -> None:
    one = agent(leased(S.WAIT_FOR_LAUNCH, pending="start"))
    done = give(one, failed("start/v1/3", "lease_expired"))
    assert (refusals(done), told(done)) == ([("create", 3, "lease_unreachable")], [])


def test_agent_machine_stopped_while_its_lease_is_taken_is_never_started() -> None:
    one = agent()
    give(one, create(leased=True))
    assert asked(give(one, m.CommandDomain("v1", 3, "destroy"))) == ["LeaveLease"]
    assert give(one, ok("take/v1/3")).calls == []
    assert told(give(one, ok("leave/v1/3"))) == [(S.DOWN, 3, False)]


@pytest.mark.parametrize("pending", ["lease", "start"])
def test_agent_restarted_in_the_middle_of_a_leased_start_takes_the_lease_again(pending: str) -> None:
    for found in ({}, there("wait_for_launch")):
        one = agent(leased(S.WAIT_FOR_LAUNCH, pending=pending), is_open=False)
        assert tags(give(one, opened(found))) == ["renew", "take/v1/3"]
        assert tags(give(one, ok("take/v1/3"))) == ["start/v1/3"]


# ---------------------------------------------------------------------- a migration


LEFT_BEGUN = [
    (S.WAIT_FOR_LAUNCH, "start", "wait_for_launch", "take/v1/3"),
    (S.MIGRATING_TO, "incoming", "migrating_to", "join/v1/3"),
]


@pytest.mark.parametrize(("status", "pending", "listed_as", "tag"), LEFT_BEGUN)
@pytest.mark.parametrize("outcome", ["unreachable", "held", "stale"])
def test_agent_restarted_beside_a_copy_that_it_began_never_says_that_it_did_not_begin(
    status: VmStatus, pending: str, listed_as: str, tag: str, outcome: str
) -> None:
    """Found by a campaign: the engine was told that nothing is there, and then it was ended without an order."""
    one = agent(leased(status, pending=pending, from_host="H2"), is_open=False)
    give(one, opened(there(listed_as)))
    done = give(one, failed(tag, outcome))
    assert (refusals(done), told(done), done.calls) == ([], [], [])
    assert [name for name, _ in alarms(done)] == ["acquire/v1"]
    ((port, request, again),) = give(one, m.TimerFired("acquire/v1")).calls
    assert (port, type(request), again) == ("leases", TakeLease if tag[0] == "t" else JoinLease, tag)
    assert asked(give(one, ok(tag))) == ["StartDomain" if tag[0] == "t" else "PrepareIncoming"]


@pytest.mark.parametrize(("status", "pending", "listed_as", "tag"), LEFT_BEGUN)
def test_agent_told_to_end_a_copy_that_a_former_life_began_ends_it_and_never_begins_it_again(
    status: VmStatus, pending: str, listed_as: str, tag: str
) -> None:
    one = agent(leased(status, pending=pending, from_host="H2"), is_open=False)
    give(one, opened(there(listed_as)))
    assert asked(give(one, m.CommandDomain("v1", 3, "destroy"))) == ["DestroyDomain"]
    assert give(one, ok(tag)).calls == []
    give(one, ok("destroy/v1/3"))
    assert one.domains["v1"].status is S.DOWN
    assert give(one, m.TimerFired("acquire/v1")).calls == []


def test_agent_leased_incoming_joins_beside_the_source_before_it_prepares() -> None:
    one = agent()
    assert [request for _, request, _ in give(one, incoming(leased=True)).calls] == [
        JoinLease("H1", "v1", 4, "H2")
    ]
    ((_, request, _),) = give(one, ok("join/v1/4")).calls
    assert isinstance(request, PrepareIncoming)
    assert request.spec.leased


def test_agent_leased_incoming_refused_by_the_lease_says_so() -> None:
    one = agent()
    give(one, incoming(leased=True))
    assert refusals(give(one, failed("join/v1/4", "held"))) == [("incoming", 4, "lease_held")]


def test_agent_restarted_before_an_incoming_joined_joins_again() -> None:
    record = leased(S.MIGRATING_TO, epoch=4, from_host="H2", pending="join")
    assert tags(give(agent(record, is_open=False), opened())) == ["renew", "join/v1/4"]


def test_agent_source_that_handed_over_leaves_the_lease() -> None:
    one = agent(leased(S.MIGRATING_FROM, to_host="H2", to_epoch=4))
    done = give(one, ok("migrate/v1/3/4"))
    assert [request for _, request, _ in done.calls] == [LeaveLease("H1", "v1", 3)]
    assert ends(give(one, ok("leave/v1/3"))) == [4]


# ---------------------------------------------------------------------- the end


@pytest.mark.parametrize(
    "message",
    [
        ok("destroy/v1/3"),
        m.DomainHappened("v1", 3, "shut_down", 7),
        m.DomainHappened("v1", 3, "crashed", 1, "its lease expired"),
    ],
)
def test_agent_leased_machine_that_ended_is_told_once_its_lease_is_given_back(
    message: m.AnyMessage,
) -> None:
    one = agent(leased())
    done = give(one, message)
    assert (asked(done), told(done)) == (["LeaveLease"], [])
    assert told(give(one, ok("leave/v1/3"))) == [(S.DOWN, 3, False)]
    assert not one.domains["v1"].lease_taken


def test_agent_machine_without_a_lease_is_told_at_once() -> None:
    done = give(agent(domain()), ok("destroy/v1/3"))
    assert (asked(done), told(done)) == ([], [(S.DOWN, 3, False)])


def test_agent_lease_that_cannot_be_left_is_left_later_also_after_the_machine_is_forgotten() -> None:
    one = agent(leased())
    give(one, ok("destroy/v1/3"))
    done = give(one, failed("leave/v1/3", "unreachable"))
    assert (told(done), alarms(done)) == ([(S.DOWN, 3, False)], [("leave", 6.0)])
    give(one, m.ForgetDomain("v1", 3))
    assert one.domains["v1"].forgotten
    assert tags(give(one, m.TimerFired("leave"))) == ["leave/v1/3"]
    again = give(one, failed("leave/v1/3", "unreachable"))
    assert (told(again), alarms(again)) == ([], [("leave", 6.0)])
    give(one, m.TimerFired("leave"))
    assert told(give(one, ok("leave/v1/3"))) == []
    assert give(one, m.TimerFired("leave")).calls == []


def test_agent_restarted_leaves_what_it_still_holds_for_machines_that_are_no_more() -> None:
    one = agent(leased(S.DOWN, forgotten=True), is_open=False)
    assert tags(give(one, opened(boot_id="boot-2"))) == ["renew", "leave/v1/3"]


def test_agent_start_after_a_lease_that_was_not_left_leaves_it_when_it_is_over() -> None:
    one = agent(leased(S.DOWN, forgotten=True))
    give(one, create(4))  # not leased any more
    give(one, ok("start/v1/4"))
    assert asked(give(one, ok("destroy/v1/4"))) == ["LeaveLease"]


def test_agent_late_answer_to_a_leave_of_an_older_copy_changes_nothing() -> None:
    one = agent(leased(S.DOWN, forgotten=True))
    give(one, create(4, leased=True))
    give(one, ok("leave/v1/3"))
    assert one.domains["v1"].lease_taken


def test_agent_without_journal_gives_back_a_lease_that_it_may_hold_for_a_machine_that_is_absent() -> None:
    one = agent()
    give(one, m.QueryDomain("v1", VM, 3))
    done = give(one, listed("query/v1/3", {}))
    assert (told(done), asked(done)) == ([(S.DOWN, 3, True)], ["LeaveLease"])


# ---------------------------------------------------------------------- orders that meet a copy without its lease


def test_older_copy_that_waits_for_its_lease_does_not_begin_after_a_newer_one_was_ordered() -> None:
    one = agent(domain(S.WAIT_FOR_LAUNCH, pending="lease", leased=True, lease_taken=True))
    done = give(one, create(4, leased=True))
    assert (refusals(done), tags(done)) == ([("create", 4, "older_copy")], ["leave/v1/3"])
    assert tags(give(one, ok("take/v1/3"))) == []
    assert told(give(one, ok("leave/v1/3"))) == [(S.DOWN, 3, False)]


def test_copy_that_waits_for_its_lease_obeys_nothing_but_its_end() -> None:
    one = agent(domain(S.WAIT_FOR_LAUNCH, pending="lease", leased=True, lease_taken=True))
    done = give(one, m.CommandDomain("v1", 3, "shutdown"))
    assert (refusals(done), done.calls) == ([("shutdown", 3, "wrong_state")], [])


def test_lease_whose_leaving_was_answered_for_an_earlier_epoch_is_left_up_to_the_present_one() -> None:
    one = agent(domain(S.DOWN, forgotten=True, leased=True, lease_taken=True))
    give(one, m.QueryDomain("v1", VM, 4))
    assert tags(give(one, failed("leave/v1/3", "unreachable"))) == ["leave/v1/4"]
    give(one, ok("leave/v1/4"))
    assert not one.domains["v1"].lease_taken
