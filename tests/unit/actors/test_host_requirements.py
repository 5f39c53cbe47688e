"""NonOperational: why, what happens to the machines, and the way back."""

from __future__ import annotations

from actors.behaviour import Turn
from actors.host import Host
from olvm.model import messages as m
from olvm.model.host_states import HostStatus
from olvm.model.limits import NS_PER_S
from tests.builders import GIB, endings, host, sent_to, turn

S = HostStatus
STORAGE = "storage_domain_unreachable"
STORAGE_TEXT = f"{STORAGE} (it does not reach the shared storage; repair its storage network)"


def give(one: Host, message: m.AnyMessage, at_s: float) -> Turn:
    done = turn(me="host/H1", at_s=at_s)
    if isinstance(message, m.TimerFired) and one.record.timers.pop(message.name, 0):
        done.save(one.record)
    one.handle(message, done)
    return done


def beat(*problems: str) -> m.Heartbeat:
    return m.Heartbeat("H1", 2, "boot-1", list(problems))


def test_requirements_host_with_a_problem_is_non_operational_and_drained() -> None:
    one = host()
    assert give(one, beat(STORAGE), 101.0).sent == [
        ("cluster/prod", m.HostUsable("H1", False, STORAGE_TEXT, "non_operational"), True),
        ("cluster/prod", m.DrainHost("H1", "host_error"), True),
    ]
    assert one.record.problems == [STORAGE]
    assert one.record.timers == {"recover": int(401 * NS_PER_S)}
    assert give(one, beat(STORAGE), 104.0).saved == []


def test_requirements_host_whose_problem_is_gone_is_back_after_the_period_and_not_before() -> None:
    one = host()
    give(one, beat(STORAGE), 101.0)
    give(one, beat(), 104.0)
    assert (one.record.status, one.record.problems) == (S.NON_OPERATIONAL, [])
    assert give(one, m.TimerFired("recover"), 401.0).sent == [
        ("cluster/prod", m.HostUsable("H1", True, "", "up"), True),
        ("cluster/prod", m.StopDrain("H1"), True),
    ]


def test_requirements_host_whose_problem_lasts_longer_than_the_period_is_back_when_it_is_gone() -> None:
    one = host()
    give(one, beat(STORAGE), 101.0)
    give(one, m.TimerFired("recover"), 401.0)
    assert one.record.status is S.NON_OPERATIONAL
    give(one, beat("kvm_not_running"), 402.0)
    assert "kvm_not_running" in one.record.status_reason
    give(one, beat(), 403.0)
    assert (one.record.status, one.record.timers) == (S.UP, {})


def test_requirements_host_that_is_activated_does_not_wait_and_fails_with_the_reason() -> None:
    one = host()
    give(one, beat(STORAGE), 101.0)
    give(one, m.CommandHost("op-1", "activate"), 110.0)
    assert one.record.status is S.UNASSIGNED
    done = give(one, m.AgentReady("H1", 2, "boot-1", 8, 16 * GIB, problems=[STORAGE]), 111.0)
    assert endings(done) == [
        m.OperationEnded("op-1", False, f"host H1 is non_operational: {STORAGE_TEXT}", "operation_failed")
    ]
    give(one, m.CommandHost("op-2", "activate"), 120.0)
    done = give(one, m.AgentReady("H1", 2, "boot-1", 8, 16 * GIB), 121.0)
    assert endings(done) == [m.OperationEnded("op-2", True)]
    assert (one.record.status, one.record.problems) == (S.UP, [])
    assert m.StopDrain("H1") in sent_to(done, "cluster/prod")


def test_requirements_drain_goes_on_after_a_restart_of_the_engine() -> None:
    one = host(status=S.NON_OPERATIONAL, problems=[STORAGE])
    assert give(one, m.Recovered(), 200.0).sent == [("cluster/prod", m.DrainHost("H1", "host_error"), True)]


def test_requirements_host_that_returns_with_a_problem_is_non_operational_in_the_same_turn() -> None:
    one = host(status=S.CONNECTING)
    give(one, beat(STORAGE), 115.0)
    assert one.record.status is S.NON_OPERATIONAL


def test_requirements_host_on_its_way_to_maintenance_or_in_error_stays_there() -> None:
    for status in (S.PREPARING_FOR_MAINTENANCE, S.ERROR, S.MAINTENANCE):
        one = host(status=status)
        give(one, beat(STORAGE), 101.0)
        assert one.record.status is status
