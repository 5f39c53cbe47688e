"""Both ends of a live migration on their hosts: what is asked, what is told, and what a lost word comes to."""

from __future__ import annotations

import msgspec
import pytest

from actors.host_agent import HostAgent
from actors.hypervisor_port import FoundDomain
from hypervisor_backends.protocol import ChangeMigration, MigrateDomain, PrepareIncoming
from olvm.model import messages as m
from olvm.model.records import DomainRecord
from olvm.model.vm_states import VmStatus
from tests.builders import sent_to
from tests.unit.actors.agent_driving import (
    VM,
    agent,
    alarms,
    asked,
    domain,
    ends,
    failed,
    failures,
    give,
    incoming,
    listed,
    migrating,
    ok,
    opened,
    refusals,
    reports,
    seen,
    statistics,
    tags,
    there,
    told,
)

S = VmStatus
MIB = 1024 * 1024
ORDER = m.MigrateDomain("v1", 3, "H2", 4, "sim://H2/v1", "minimal_downtime", 0.0)
MIGRATED, MIGRATION_FAILED, DOMAIN_MISSING = 4, 8, 9


def waiting(**fields: object) -> DomainRecord:
    """A target that is ready for epoch 4."""
    return domain(S.MIGRATING_TO, epoch=4, from_host="H2", to_uri="sim://H1/v1", **fields)


# ---------------------------------------------------------------------- the target prepares


def test_target_prepares_and_says_where_it_waits() -> None:
    one = agent()
    done = give(one, incoming())
    assert [(type(request), tag) for _, request, tag in done.calls] == [(PrepareIncoming, "incoming/v1/4")]
    assert one.domains["v1"].status is S.MIGRATING_TO
    ready = give(one, ok("incoming/v1/4", "sim://H1/v1"))
    assert sent_to(ready, VM) == [m.IncomingReady("H1", 4, "sim://H1/v1")]


def test_target_asked_twice_answers_twice_and_prepares_once() -> None:
    done = give(agent(waiting()), incoming())
    assert (sent_to(done, VM), done.calls) == ([m.IncomingReady("H1", 4, "sim://H1/v1")], [])


def test_target_refused_by_its_hypervisor_keeps_no_entry_and_refuses_that_epoch_from_then_on() -> None:
    one = agent()
    give(one, incoming())
    done = give(one, failed("incoming/v1/4", "out_of_memory"))
    assert (refusals(done), told(done)) == ([("incoming", 4, "out_of_memory")], [])
    assert refusals(give(one, incoming())) == [("incoming", 4, "stale_epoch")]
    (report,) = sent_to(give(one, m.TimerFired("report")), "host/H1")
    assert isinstance(report, m.HostReport)
    assert report.domains == []
    assert tags(give(one, incoming(5))) == ["incoming/v1/5"]


@pytest.mark.parametrize(
    ("known", "message", "code"),
    [
        (None, incoming(boot_id="boot-0"), "other_boot"),
        (domain(S.DOWN, epoch=5), incoming(), "stale_epoch"),
        (domain(S.UP, epoch=3), incoming(), "older_copy"),
    ],
)
def test_target_refuses_what_it_may_not_take(
    known: DomainRecord | None, message: m.PrepareIncoming, code: str
) -> None:
    done = give(agent(*([] if known is None else [known])), message)
    assert refusals(done) == [("incoming", 4, code)]
    assert "PrepareIncoming" not in asked(done)


def test_target_of_unknown_outcome_asks_again_until_it_is_ended() -> None:
    one = agent()
    give(one, incoming())
    done = give(one, failed("incoming/v1/4", "timed_out", outcome_known=False))
    assert [name for name, _ in alarms(done)] == ["prepare/v1"]
    assert tags(give(one, m.TimerFired("prepare/v1"))) == ["incoming/v1/4"]
    give(one, m.CommandDomain("v1", 4, "destroy"))
    give(one, ok("destroy/v1/4"))
    assert give(one, m.TimerFired("prepare/v1")).calls == []


# ---------------------------------------------------------------------- the machine arrives, or does not


def test_target_reports_the_arrival_as_a_machine_that_runs() -> None:
    one = agent(waiting())
    assert told(give(one, m.DomainHappened("v1", 4, "started"))) == [(S.POWERING_UP, 4, False)]
    assert told(give(one, m.DomainHappened("v1", 4, "guest_up"))) == [(S.UP, 4, False)]


def test_target_tells_an_arrival_also_when_the_machine_ended_in_the_same_batch() -> None:
    one = agent(waiting())
    give(one, m.DomainHappened("v1", 4, "started"), flush=False)
    done = give(one, m.DomainHappened("v1", 4, "crashed", 2))
    give(one, m.FlushReports())
    assert told(done)[0] == (S.POWERING_UP, 4, False)
    assert one.domains["v1"].exit_reason == 2


@pytest.mark.parametrize(
    ("message", "exit_reason"),
    [
        (m.DomainHappened("v1", 4, "stopped", 8, "its source gave up"), MIGRATION_FAILED),
        (ok("destroy/v1/4"), MIGRATION_FAILED),  # it surely never ran
        (failed("destroy/v1/4", "unknown_domain"), DOMAIN_MISSING),  # it may have
    ],
)
def test_target_that_ends_says_whether_the_machine_may_have_run(
    message: m.AnyMessage, exit_reason: int
) -> None:
    assert ends(give(agent(waiting()), message)) == [exit_reason]


def test_target_destroyed_after_the_arrival_does_not_claim_that_it_never_ran() -> None:
    one = agent(waiting())
    give(one, m.DomainHappened("v1", 4, "started"))
    assert ends(give(one, ok("destroy/v1/4"))) == [6]


@pytest.mark.parametrize(
    ("found", "status"),
    [
        (there("up", epoch=4), S.UP),
        (there("paused", epoch=4, pause_code="EIO"), S.PAUSED),
        (there("migrating_to", epoch=4), S.MIGRATING_TO),
    ],
)
def test_target_whose_agent_was_away_tells_what_it_finds(
    found: dict[str, FoundDomain], status: VmStatus
) -> None:
    one = agent(waiting(), is_open=False)
    assert told(give(one, opened(found))) == [(status, 4, False)]
    assert one.domains["v1"].exit_reason is None


# ---------------------------------------------------------------------- the hypervisor waits for it no longer

GAVE_UP = m.DomainHappened("v1", 4, "stopped", 1000, "nothing was heard from its source")


def gave_up() -> HostAgent:
    """Told of, and not over: what its source had begun by then may still come."""
    one = agent(waiting(leased=True, lease_taken=True))
    (report,) = reports(give(one, GAVE_UP))
    state = report.domain
    assert (state.status, state.exit_reason, state.exit_message) == (S.MIGRATING_TO, 8, GAVE_UP.message)
    return one


def test_target_that_was_given_up_waits_on_and_keeps_its_lease_until_the_engine_ends_it() -> None:
    one = gave_up()
    assert told(give(one, incoming())) == [(S.MIGRATING_TO, 4, False)]
    for _ in range(3):
        assert give(one, seen({})).sent == []
    assert tags(give(one, m.CommandDomain("v1", 4, "destroy"))) == ["destroy/v1/4"]
    done = give(one, failed("destroy/v1/4", "unknown_domain"))
    assert tags(done) == ["leave/v1/4"]
    assert ends(give(one, ok("leave/v1/4"))) == [DOMAIN_MISSING]  # it may have come, and ended since


def test_target_that_was_given_up_is_looked_for_when_the_engine_asks() -> None:
    one = gave_up()
    query = m.QueryDomain("v1", VM, 4)
    assert tags(give(one, query)) == ["recheck/v1/4"]
    assert told(give(one, listed("recheck/v1/4", {}))) == [(S.MIGRATING_TO, 4, False)]
    give(one, query)
    arriving = give(one, listed("recheck/v1/4", there("migrating_to", epoch=4)))
    assert [report.domain.exit_reason for report in reports(arriving)] == [MIGRATION_FAILED]
    give(one, query)
    assert told(give(one, listed("recheck/v1/4", there("up", epoch=4)))) == [(S.UP, 4, False)]
    assert one.domains["v1"].exit_reason is None


@pytest.mark.parametrize(
    "message",
    [m.DomainHappened("v1", 4, "started"), seen(there("powering_up", epoch=4))],
)
def test_machine_that_comes_although_it_was_given_up_is_told_of_and_left_alone(message: m.AnyMessage) -> None:
    one = gave_up()
    done = give(one, message)
    assert (told(done), tags(done)) == ([(S.POWERING_UP, 4, False)], [])
    assert give(one, m.ForgetDomain("v1", 4)).calls == []


def test_target_that_was_given_up_ends_when_its_end_is_acknowledged() -> None:
    assert tags(give(gave_up(), m.ForgetDomain("v1", 4))) == ["destroy/v1/4"]


@pytest.mark.parametrize(
    ("found", "status"),
    [({}, S.MIGRATING_TO), (there("migrating_to", epoch=4), S.MIGRATING_TO), (there("up", epoch=4), S.UP)],
)
def test_target_that_was_given_up_is_so_still_after_a_restart_of_its_agent(
    found: dict[str, FoundDomain], status: VmStatus
) -> None:
    one = agent(gave_up().domains["v1"], is_open=False)
    done = give(one, opened(found))
    assert told(done) == [(status, 4, False)]
    assert not {"join", "incoming", "destroy", "leave"} & {tag.partition("/")[0] for tag in tags(done)}


def test_waiting_target_that_is_nowhere_to_be_seen_counts_as_given_up() -> None:
    one = agent(waiting())
    assert give(one, seen({})).sent == []
    assert [report.domain.exit_reason for report in reports(give(one, seen({})))] == [MIGRATION_FAILED]
    again = agent(waiting(), is_open=False)
    assert [report.domain.exit_reason for report in reports(give(again, opened({})))] == [MIGRATION_FAILED]


def test_target_whose_host_was_restarted_does_not_know_whether_the_machine_ran() -> None:
    one = agent(waiting(), is_open=False)
    assert ends(give(one, opened(boot_id="boot-2"))) == [DOMAIN_MISSING]


def test_target_restarted_before_it_was_ready_prepares_again() -> None:
    for found in ({}, there("migrating_to", epoch=4)):
        one = agent(waiting(pending="incoming"), is_open=False)
        assert tags(give(one, opened(found))) == ["renew", "incoming/v1/4"]


# ---------------------------------------------------------------------- the source sends


def test_source_sends_by_the_policy_and_watches() -> None:
    one = agent(domain())
    done = give(one, ORDER)
    ((_, request, tag),) = done.calls
    assert tag == "migrate/v1/3/4"
    assert isinstance(request, MigrateDomain)
    assert (request.downtime_ms, request.to_epoch, request.post_copy) == (100, 4, False)
    assert request.bandwidth_bytes_per_s == 52 * MIB
    assert (told(done), alarms(done)) == ([(S.MIGRATING_FROM, 3, False)], [("monitor/v1", 10.0)])


def test_source_ordered_twice_sends_once() -> None:
    one = agent(domain())
    give(one, ORDER)
    assert give(one, ORDER).calls == []


@pytest.mark.parametrize(
    ("known", "code"),
    [
        (domain(S.SAVING_STATE), "wrong_state"),
        (domain(to_epoch=4), "stale_epoch"),
        (domain(pending="kill"), "wrong_state"),
    ],
)
def test_source_that_does_not_send_says_that_the_machine_stays(known: DomainRecord, code: str) -> None:
    done = give(agent(known), ORDER)
    assert (failures(done), done.calls) == ([(4, code)], [])


@pytest.mark.parametrize(
    ("known", "code"),
    [(domain(epoch=5), "stale_epoch"), (domain(epoch=2), "absent"), (domain(S.DOWN, forgotten=True), "absent")],
)  # fmt: skip
def test_source_without_that_copy_refuses(known: DomainRecord, code: str) -> None:
    assert refusals(give(agent(known), ORDER)) == [("migrate", 3, code)]


@pytest.mark.parametrize(
    "message", [ok("migrate/v1/3/4"), m.DomainHappened("v1", 3, "stopped", 4, "migrated")]
)
def test_source_that_has_handed_over_is_down_for_that_reason(message: m.AnyMessage) -> None:
    assert ends(give(agent(migrating()), message)) == [MIGRATED]


@pytest.mark.parametrize("code", ["migration_failed", "migration_cancelled"])
def test_source_that_failed_says_so_once_it_knows_how_the_machine_stands(code: str) -> None:
    one = agent(migrating())
    assert tags(give(one, failed("migrate/v1/3/4", code))) == ["migration/v1/3"]
    done = give(one, listed("migration/v1/3", there("paused", pause_code="NOERR")))
    assert (failures(done), told(done)) == ([(4, code)], [(S.PAUSED, 3, False)])
    assert failures(give(one, ORDER)) == [(4, "stale_epoch")]  # a late repetition begins nothing anew


def test_source_that_failed_and_still_copies_by_the_list_goes_on() -> None:
    one = agent(migrating())
    give(one, failed("migrate/v1/3/4", "timed_out", outcome_known=False))
    done = give(one, listed("migration/v1/3", there("migrating_from")))
    assert (failures(done), alarms(done)) == ([], [("monitor/v1", 10.0)])


def test_source_answer_to_an_earlier_attempt_is_ignored() -> None:
    done = give(agent(migrating(to_epoch=6)), failed("migrate/v1/3/4", "migration_failed"))
    assert (done.calls, done.sent) == ([], [])


def test_source_that_lacks_the_other_sides_word_stays_paused_until_told() -> None:
    one = agent(migrating())
    (said,) = reports(give(one, m.DomainHappened("v1", 3, "paused", pause_code="POSTMIGRATE")))
    assert (said.domain.status, said.domain.pause_code) == (S.PAUSED, "POSTMIGRATE")
    assert give(one, m.TimerFired("monitor/v1")).calls == []
    assert tags(give(one, m.CommandDomain("v1", 3, "continue"))) == ["continue/v1/3"]
    done = give(one, m.DomainHappened("v1", 3, "continued"))
    assert (told(done), failures(done)) == ([(S.UP, 3, False)], [])
    later = order(to_epoch=6)
    assert tags(give(one, later)) == ["migrate/v1/3/6"]


def order(*, to_epoch: int) -> m.MigrateDomain:
    return m.MigrateDomain("v1", 3, "H2", to_epoch, "sim://H2/v1", "post_copy", 30.0)


def test_source_that_lacks_the_word_and_dies_does_not_claim_that_it_was_not_handed_over() -> None:
    one = agent(migrating())
    give(one, m.DomainHappened("v1", 3, "paused", pause_code="POSTMIGRATE"))
    assert ends(give(one, m.DomainHappened("v1", 3, "crashed", 1, "its lease expired"))) == [DOMAIN_MISSING]


@pytest.mark.parametrize("kind", ["guest_up", "rebooted", "continued"])
def test_source_stays_migrating_whatever_its_guest_does(kind: str) -> None:
    assert give(agent(migrating()), m.DomainHappened("v1", 3, kind)).sent == []


def test_source_stopped_in_the_middle_is_down_as_asked() -> None:
    one = agent(migrating())
    assert tags(give(one, m.CommandDomain("v1", 3, "destroy"))) == ["destroy/v1/3"]
    assert ends(give(one, ok("destroy/v1/3"))) == [6]


def test_source_stopped_when_it_was_gone_already_does_not_say_how_it_ended() -> None:
    assert ends(give(agent(migrating()), failed("destroy/v1/3", "unknown_domain"))) == [DOMAIN_MISSING]


def test_source_asked_to_shut_down_while_it_migrates_refuses() -> None:
    done = give(agent(migrating()), m.CommandDomain("v1", 3, "shutdown"))
    assert (refusals(done), done.calls) == ([("shutdown", 3, "wrong_state")], [])


def test_source_cancelled_asks_the_hypervisor_and_too_late_is_no_error() -> None:
    one = agent(migrating())
    assert tags(give(one, m.CancelMigration("v1", 3))) == ["cancel/v1/3"]
    assert give(one, failed("cancel/v1/3", "wrong_state")).sent == []


def test_source_told_to_send_no_more_says_that_it_stays_once_it_knows() -> None:
    one = agent(migrating())
    assert tags(give(one, m.CancelMigration("v1", 3, 4))) == ["cancel/v1/3"]
    give(one, failed("migrate/v1/3/4", "migration_cancelled"))
    done = give(one, listed("migration/v1/3", there("up")))
    assert failures(done) == [(4, "migration_stopped")]


def test_source_that_sends_nothing_promises_it_and_refuses_the_order_when_it_comes() -> None:
    one = agent(domain())
    for _ in range(2):  # the promise may be lost
        done = give(one, m.CancelMigration("v1", 3, 4))
        assert (failures(done), done.calls) == ([(4, "migration_stopped")], [])
    done = give(one, ORDER)
    assert (failures(done), done.calls) == ([(4, "stale_epoch")], [])
    later = msgspec.structs.replace(ORDER, to_epoch=5)
    assert tags(give(one, later)) == ["migrate/v1/3/5"]


# ---------------------------------------------------------------------- the schedule


def test_source_tells_its_progress_and_takes_the_steps_that_are_due() -> None:
    one = agent(migrating())
    assert tags(give(one, m.TimerFired("monitor/v1"))) == ["statistics/v1/3/4"]
    done = give(one, statistics("statistics/v1/3/4", iteration=2))
    (progress,) = sent_to(done, VM)
    assert isinstance(progress, m.MigrationProgressed)
    assert (progress.progress_percent, progress.to_epoch) == (40, 4)
    assert [request for _, request, _ in done.calls] == [ChangeMigration(vm_id="v1", downtime_ms=150)]
    assert give(one, statistics("statistics/v1/3/4", iteration=2)).calls == []
    assert one.domains["v1"].schedule_step == 1


def test_source_at_the_end_of_its_schedule_gives_up_and_says_why() -> None:
    one = agent(migrating(schedule_step=5))
    assert asked(give(one, statistics("statistics/v1/3/4", iteration=9))) == ["CancelMigration"]
    give(one, failed("migrate/v1/3/4", "migration_cancelled"))
    assert failures(give(one, listed("migration/v1/3", there("up")))) == [(4, "not_converging")]


def test_source_switches_to_post_copy_and_then_only_tells() -> None:
    one = agent(migrating(policy="post_copy", schedule_step=2))
    assert asked(give(one, statistics("statistics/v1/3/4", iteration=5))) == ["StartPostCopy"]
    give(one, m.DomainHappened("v1", 3, "paused", pause_code="POSTCOPY"))
    assert tags(give(one, m.TimerFired("monitor/v1"))) == ["statistics/v1/3/4"]
    assert give(one, statistics("statistics/v1/3/4", iteration=50, post_copy=True)).calls == []


def test_source_without_post_copy_leaves_that_step_out() -> None:
    one = agent(migrating(policy="post_copy", schedule_step=2))
    one.migrations.features = frozenset({"migration"})
    assert give(one, statistics("statistics/v1/3/4", iteration=5)).calls == []
    assert asked(give(one, statistics("statistics/v1/3/4", iteration=6))) == ["CancelMigration"]


# ---------------------------------------------------------------------- words that were lost


@pytest.mark.parametrize(
    ("found", "failed_attempts", "status"),
    [
        (there("migrating_from"), [], S.MIGRATING_FROM),
        (there("paused", pause_code="POSTMIGRATE"), [], S.PAUSED),
        (there("up"), [(4, "")], S.UP),
        ({}, [], S.DOWN),
    ],
)
def test_source_whose_agent_was_away_tells_what_it_finds(
    found: dict[str, FoundDomain], failed_attempts: list[tuple[int, str]], status: VmStatus
) -> None:
    one = agent(migrating(), is_open=False)
    done = give(one, opened(found))
    assert (failures(done), told(done)) == (failed_attempts, [(status, 3, False)])
    assert (("monitor/v1", 10.0) in alarms(done)) is (status is S.MIGRATING_FROM)
    assert one.domains["v1"].exit_reason == (DOMAIN_MISSING if status is S.DOWN else None)


def test_source_whose_host_was_restarted_does_not_know_whether_it_was_handed_over() -> None:
    one = agent(migrating(), is_open=False)
    assert ends(give(one, opened(boot_id="boot-2"))) == [DOMAIN_MISSING]


def test_source_whose_migration_nobody_answers_for_finds_out_when_it_looks() -> None:
    one = agent(migrating())
    give(one, m.TimerFired("monitor/v1"))
    assert tags(give(one, failed("statistics/v1/3/4", "wrong_state"))) == ["migration/v1/3"]
    assert failures(give(one, listed("migration/v1/3", there("up")))) == [(4, "")]


def test_source_looked_at_finds_a_migration_that_ended_without_a_word() -> None:
    assert failures(give(agent(migrating()), seen(there("up")))) == [(4, "")]


def test_source_asked_about_looks_before_it_answers() -> None:
    one = agent(migrating())
    assert tags(give(one, m.QueryDomain("v1", VM, 3))) == ["recheck/v1/3"]
    done = give(one, listed("recheck/v1/3", there("paused", pause_code="POSTMIGRATE")))
    assert told(done) == [(S.PAUSED, 3, False)]


def test_source_that_is_asked_about_again_and_again_still_looks_after_its_migration() -> None:
    """Found by a campaign: each question put the next look off, and the schedule never got to its end."""
    one = agent(domain(status=S.MIGRATING_FROM, to_host="H2", to_epoch=4, policy="minimal_downtime"))
    first = give(one, listed("recheck/v1/3", there("migrating_from")))
    again = give(one, listed("recheck/v1/3", there("migrating_from")))
    assert [name for name, _ in first.timers] == ["monitor/v1"]
    assert again.timers == []
    looked = give(one, m.TimerFired("monitor/v1"))
    assert [name for name, _ in looked.timers] == ["monitor/v1"]
