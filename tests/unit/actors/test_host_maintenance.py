"""The way into maintenance: drained, watched, given up by name, cancelled."""

from __future__ import annotations

from typing import Any

import pytest

from actors.behaviour import Turn
from actors.host import Host
from olvm.model import messages as m
from olvm.model.host_states import HostStatus
from olvm.model.limits import MAINTENANCE_BLOCKERS_NAMED_MAX, NS_PER_S
from tests.builders import encoded, endings, host, sent_to, turn

S = HostStatus
DRAIN, ASK, STOP = m.DrainHost("H1", "maintenance"), m.AskEmpty("H1"), m.StopDrain("H1")


def give(one: Host, message: m.AnyMessage, at_s: float = 101.0) -> Turn:
    done = turn(me="host/H1", at_s=at_s)
    if isinstance(message, m.TimerFired) and one.record.timers.pop(message.name, 0):
        done.save(one.record)
    one.handle(message, done)
    return done


def preparing(**fields: Any) -> Host:
    one = host(**fields)
    give(one, m.CommandHost("op-1", "maintenance", 600.0))
    return one


def occupied(*names: str, **reasons: str) -> m.HostOccupancy:
    return m.HostOccupancy("H1", list(names), reasons)


def test_maintenance_drains_asks_and_has_the_deadline_that_was_asked_for() -> None:
    one = host()
    done = give(one, m.CommandHost("op-1", "maintenance", 600.0))
    assert done.sent == [
        ("cluster/prod", m.HostUsable("H1", False, "asked for", "preparing_for_maintenance"), True),
        ("cluster/prod", DRAIN, True),
        ("cluster/prod", ASK, True),
    ]
    assert one.record.timers == {"maintenance": int(701 * NS_PER_S)}
    assert ("drain", int(106 * NS_PER_S)) in done.timers


def test_maintenance_without_a_deadline_of_its_own_has_the_configurations() -> None:
    one = host()
    give(one, m.CommandHost("op-1", "maintenance"))
    assert one.record.timers == {"maintenance": int((101 + 1800) * NS_PER_S)}


def test_maintenance_of_an_empty_host_succeeds() -> None:
    one = preparing()
    done = give(one, occupied())
    assert done.sent == [
        ("cluster/prod", m.HostUsable("H1", False, "", "maintenance"), True),
        ("cluster/prod", STOP, True),
        ("engine", m.OperationEnded("op-1", True), True),
    ]
    assert (one.record.status, one.record.timers) == (S.MAINTENANCE, {})


def test_maintenance_tells_its_progress_with_each_machine_and_why_it_stays() -> None:
    one = preparing()
    first = give(one, occupied("db", "web", web="waits for a migration slot"))
    assert first.sent == [
        (
            "engine",
            m.OperationProgressed(
                "op-1", 0, "2 machines are still there: db (runs there), web (waits for a migration slot)"
            ),
            True,
        )
    ]
    assert give(one, occupied("db", "web", web="waits for a migration slot")).sent == []
    (progress,) = sent_to(give(one, occupied("web", web="is migrating")), "engine")
    assert progress == m.OperationProgressed("op-1", 50, "1 machine is still there: web (is migrating)")


def test_maintenance_asks_again_while_it_lasts_and_no_longer() -> None:
    one = preparing()
    assert sent_to(give(one, m.TimerFired("drain"), 106.0), "cluster/prod") == [DRAIN, ASK]
    give(one, occupied())
    done = give(one, m.TimerFired("drain"), 111.0)
    assert (done.sent, done.timers) == ([], [])


def test_maintenance_past_its_deadline_fails_with_each_machine_and_the_host_is_back_in_service() -> None:
    one = preparing()
    give(one, occupied("db", "web", db="is pinned to this host", web="waits for a migration slot"))
    one.last_seen_ns = int(700 * NS_PER_S)
    done = give(one, m.TimerFired("maintenance"), 701.0)
    reason = (
        "host H1 was not empty in time: 2 machines are still there: db (is pinned to this host), "
        "web (waits for a migration slot); move or shut them down, and ask again"
    )
    assert done.sent == [
        ("cluster/prod", STOP, True),
        ("cluster/prod", m.HostUsable("H1", True, reason, "up"), True),
        ("engine", m.OperationEnded("op-1", False, reason, "operation_failed"), True),
    ]


def test_maintenance_reason_of_many_machines_is_bounded_and_says_how_many_more() -> None:
    one = preparing()
    names = [f"vm-{number:03}" for number in range(MAINTENANCE_BLOCKERS_NAMED_MAX + 7)]
    (progress,) = sent_to(give(one, occupied(*names)), "engine")
    assert isinstance(progress, m.OperationProgressed)
    assert progress.reason.startswith("57 machines are still there: vm-000 (runs there), ")
    assert progress.reason.endswith("vm-049 (runs there) and 7 more")


@pytest.mark.parametrize("action", ["cancel_maintenance", "activate"])
def test_maintenance_that_is_cancelled_fails_and_the_cancel_succeeds(action: m.HostVerb) -> None:
    one = preparing()
    done = give(one, m.CommandHost("op-2", action), 105.0)
    reason = "the maintenance of host H1 was cancelled"
    assert done.sent == [
        ("cluster/prod", STOP, True),
        ("cluster/prod", m.HostUsable("H1", True, reason, "up"), True),
        ("engine", m.OperationEnded("op-1", False, reason, "conflict"), True),
        ("engine", m.OperationEnded("op-2", True), True),
    ]
    assert one.record.timers == {}


def test_maintenance_that_is_cancelled_while_the_host_is_silent_for_a_moment_returns_to_up() -> None:
    one = preparing()
    give(one, m.TimerFired("watch"), 112.0)
    silent: HostStatus = one.record.status
    assert silent is S.CONNECTING
    done = give(one, m.CommandHost("op-2", "cancel_maintenance"), 113.0)
    assert [ended.succeeded for ended in endings(done)] == [False, True]
    give(one, m.Heartbeat("H1", 2, "boot-1"), 114.0)
    assert one.record.status == S.UP


@pytest.mark.parametrize(
    ("status", "advice"), [(S.UP, "there is nothing to do"), (S.MAINTENANCE, "activate it")]
)
def test_maintenance_that_is_not_under_way_cannot_be_cancelled(status: HostStatus, advice: str) -> None:
    one = host(status=status)
    before = encoded(one.record)
    (ended,) = endings(give(one, m.CommandHost("op-2", "cancel_maintenance")))
    assert ended.reason == (
        f"cannot cancel the maintenance of host H1: it is {status.value}, not on its way there; {advice}"
    )
    assert encoded(one.record) == before


def test_maintenance_goes_on_when_the_host_was_silent_for_a_moment() -> None:
    one = preparing()
    give(one, m.TimerFired("watch"), 112.0)
    deadline = dict(one.record.timers)
    done = give(one, m.Heartbeat("H1", 2, "boot-1"), 114.0)
    assert sent_to(done, "cluster/prod")[1:] == [DRAIN, ASK]
    assert (one.record.status, one.record.timers) == (S.PREPARING_FOR_MAINTENANCE, deadline)


def test_maintenance_of_a_host_that_is_lost_fails_and_it_is_fenced() -> None:
    one = preparing()
    done = give(one, m.TimerFired("watch"), 161.0)
    assert (one.record.status, one.record.fence_step) == (S.NON_RESPONSIVE, "ask_soft")
    assert STOP in sent_to(done, "cluster/prod")
    assert "maintenance" not in one.record.timers
    (ended,) = endings(done)
    assert "does not answer" in ended.reason
    # It comes back and is still wanted out: with a deadline, or it would stay there for ever.
    give(one, m.Heartbeat("H1", 2, "boot-1"), 200.0)
    assert one.record.status is S.PREPARING_FOR_MAINTENANCE
    assert one.record.timers == {"maintenance": int(2000 * NS_PER_S)}


def test_maintenance_goes_on_after_a_restart_of_the_engine() -> None:
    one = Host(preparing().record)
    done = give(one, m.Recovered(), 300.0)
    assert done.sent == [("cluster/prod", DRAIN, True), ("cluster/prod", ASK, True)]
    assert one.record.timers == {"maintenance": int(701 * NS_PER_S)}
    (ended,) = endings(give(one, m.TimerFired("maintenance"), 701.0))
    assert "its cluster has not said which machines are left" in ended.reason


def test_maintenance_of_a_silent_host_that_is_empty_succeeds_and_ends_its_fence_flow() -> None:
    flow: dict[str, Any] = {"fence_step": "retry", "fence_intent": "not_responding", "timers": {"fence": 1}}
    one = host(status=S.NON_RESPONSIVE, **flow)
    asked = give(one, m.CommandHost("op-1", "maintenance"), 300.0)
    assert DRAIN not in sent_to(asked, "cluster/prod")
    (ended,) = endings(give(one, occupied(), 300.0))
    assert (ended.succeeded, one.record.status) == (True, S.MAINTENANCE)
    assert (one.record.fence_step, one.record.timers) == ("", {})


def test_maintenance_of_a_silent_host_with_machines_is_given_up_at_once_and_it_is_fenced_again() -> None:
    one = host(status=S.NON_RESPONSIVE)
    give(one, m.CommandHost("op-1", "maintenance"), 300.0)
    done = give(one, occupied("web"), 300.0)
    (ended,) = endings(done)
    assert ended.reason == (
        "host H1 does not answer and 1 machine is still there: web (runs there); their fate must be known first"
    )
    assert (one.record.status, one.record.fence_step) == (S.NON_RESPONSIVE, "ask_soft")


def test_maintenance_refused_while_another_operation_is_under_way() -> None:
    one = preparing()
    give(one, m.TimerFired("watch"), 112.0)
    give(one, m.Heartbeat("H1", 2, "boot-1"), 113.0)
    (ended,) = endings(give(one, m.CommandHost("op-2", "maintenance")))
    assert ended.reason.startswith("cannot put host H1 into maintenance: it is preparing_for_maintenance")
