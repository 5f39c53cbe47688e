"""Live migration as the machine's actor does it: its way to the hand-over, and every way it ends."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olvm.model import messages as m
from olvm.model.limits import NS_PER_S
from olvm.model.migration_policies import migration_policy_named
from olvm.model.records import Stray
from olvm.model.situations import SITUATIONS
from olvm.model.vm_states import VmStatus
from tests.builders import GIB, command, endings, migrating, reported, sent_to, vm
from tests.unit.actors.vm_migration_driving import (
    CLUSTER,
    PLACED,
    QUERIES,
    SOURCE,
    TARGET,
    S,
    ask,
    events,
    failed,
    give,
)
from tests.unit.actors.vm_migration_model import Model

# ---------------------------------------------------------------- the way to the hand-over


def test_vm_migration_goes_its_way_step_by_step() -> None:
    one = vm(status=S.UP)
    done = give(one, command("migrate"))
    assert done.sent == [(CLUSTER, ask(), True)]
    done = give(one, PLACED)
    assert done.sent == [
        ("engine", m.OperationProgressed("op-new", 5, "prepares H2"), True),
        (
            TARGET,
            m.PrepareIncoming("v1", "vm/v1", 4, "web", 1, GIB, "H1", "boot-2", False, "auto_resume"),
            True,
        ),
    ]
    done = give(one, m.IncomingReady("H2", 4, "tcp:H2"))
    assert done.sent == [
        ("engine", m.OperationProgressed("op-new", 10, "copies its memory to H2"), True),
        (SOURCE, m.MigrateDomain("v1", 3, "H2", 4, "tcp:H2", "post_copy", 52.0), True),
    ]
    assert (one.record.status, one.record.copy_phase) == (S.MIGRATING_FROM, "copying")
    assert events(done) == ["vm_migration_started"]
    assert migration_policy_named(one.record.copy_policy).name == "post_copy"
    done = give(one, m.MigrationProgressed("H1", 3, 4, 50, 100, 60, 40, 2, 150))
    assert [message.progress_percent for message in sent_to(done, "engine")] == [50]  # type: ignore[union-attr]
    done = give(one, reported(S.DOWN, exit_reason=4))
    assert done.sent == [
        (SOURCE, m.ForgetDomain("v1", 3), True),
        (CLUSTER, m.PromoteCopy("v1", 4, "H1", 3), True),
        (CLUSTER, m.ReleaseVm("v1", "H1", 3), True),
        ("engine", m.OperationEnded("op-new", True), True),
    ]
    record = one.record
    assert (record.status, record.host, record.agent, record.epoch) == (S.UP, "H2", TARGET, 4)
    assert (record.boot_id, record.copy_phase, record.strays) == ("boot-2", "", ())
    moved = done.events[-1]
    assert moved.code == "vm_migrated"
    assert moved.details == {
        "from": "H1",
        "to": "H2",
        "reason": "asked",
        "bytes": 60,
        "downtime_ms": 150,
        "seconds": 0.0,
    }


def test_vm_migration_first_heard_from_its_target_keeps_the_source_until_its_end() -> None:
    one = migrating()
    done = give(one, reported(S.UP, on="H2", epoch=4, seq=1))
    assert done.sent == [
        (CLUSTER, m.PromoteCopy("v1", 4, "H1", 3), True),
        ("engine", m.OperationEnded("op-old", True), True),
    ]
    assert one.record.strays == (Stray("H1", SOURCE, 3, "boot-1", 1, 10),)
    assert done.marks == ["hand_over_first_heard_from_the_target"]
    # What it sent while it sent is neither believed nor ended.
    assert give(one, reported(S.MIGRATING_FROM, seq=11)).sent == []
    assert give(one, reported(S.PAUSED, seq=12, pause_code="POSTCOPY")).sent == []
    assert give(one, reported(S.UP, seq=9)).sent == []
    done = give(one, reported(S.DOWN, seq=13, exit_reason=4))
    assert done.sent == [
        (SOURCE, m.ForgetDomain("v1", 3), True),
        (CLUSTER, m.ReleaseVm("v1", "H1", 3), True),
    ]
    assert not one.record.strays


def test_vm_source_that_runs_on_after_the_hand_over_is_ended() -> None:
    one = migrating()
    give(one, reported(S.UP, on="H2", epoch=4, seq=1))
    done = give(one, reported(S.PAUSED, seq=12, pause_code="POSTMIGRATE"))
    assert done.sent == [(SOURCE, m.CommandDomain("v1", 3, "destroy"), True)]


@pytest.mark.parametrize("status", [S.POWERING_UP, S.PAUSED, S.REBOOT_IN_PROGRESS])
def test_vm_that_arrives_in_another_status_has_it(status: VmStatus) -> None:
    one = migrating()
    give(one, reported(status, on="H2", epoch=4, seq=1, pause_code="EIO" if status is S.PAUSED else ""))
    assert (one.record.status, one.record.host) == (status, "H2")
    assert one.record.pause_code == ("EIO" if status is S.PAUSED else "")


def test_vm_migration_that_waits_for_a_slot_asks_again_with_the_same_epoch() -> None:
    one = vm(status=S.UP)
    give(one, command("migrate"))
    done = give(one, m.CopyNotPlaced(4, "two machines are arriving", deferred=True))
    reason = "waits for a migration slot: two machines are arriving"
    assert done.sent == [("engine", m.OperationProgressed("op-new", 1, reason), True)]
    assert one.record.timers["copy"] == 110 * NS_PER_S
    assert give(one, m.TimerFired("copy")).sent == [(CLUSTER, ask(), True)]
    assert give(one, m.SlotFree()).sent == [(CLUSTER, ask(), True)]
    give(one, PLACED)
    assert give(one, PLACED).sent == []  # asked three times


def test_vm_migration_without_a_place_fails_with_the_reason() -> None:
    one = migrating(phase="placing", copy_host="", copy_agent="")
    done = give(one, m.CopyNotPlaced(4, "no host has room"))
    text = "cannot migrate web: no host has room"
    assert done.sent == [
        (CLUSTER, m.ReleaseVm("v1", "", 4), True),
        ("engine", m.OperationEnded("op-old", False, text, "no_capacity"), True),
    ]
    late = give(one, PLACED)
    assert late.sent == [(CLUSTER, m.ReleaseVm("v1", "H2", 4), True)]


@pytest.mark.parametrize(
    ("fields", "to_host", "words"),
    [
        ({"migratable": False}, None, "marked as not migratable"),
        ({"pinned_hosts": ["H1"]}, None, "pinned to H1, where it runs"),
        ({"pinned_hosts": ["H1", "H3"]}, "H2", "pinned to H1, H3"),
        ({}, "H1", "it is there already"),
        ({"status": S.PAUSED, "pause_code": "ENOSPC"}, None, "I/O error \\(ENOSPC\\)"),
        ({"status": S.POWERING_DOWN}, None, "powering_down"),
    ],
)
def test_vm_that_cannot_move_says_why_before_anything_is_reserved(
    fields: dict[str, object], to_host: str | None, words: str
) -> None:
    one = vm(**({"status": S.UP} | fields))  # type: ignore[arg-type]
    done = give(one, m.CommandVm("op-new", "migrate", None, to_host))
    (ended,) = endings(done)
    assert not ended.succeeded
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(ended.reason)
    refused = give(one, m.MoveVm("H1", "maintenance", to_host or ""))
    assert refused.sent == [(CLUSTER, m.VmMoveRefused("v1", "web", "H1", ended.reason), True)]


def test_vm_whose_target_refuses_goes_to_another_and_gives_up_after_three() -> None:
    one = migrating(phase="preparing")
    for epoch, host in ((4, "H2"), (5, "H3")):
        done = give(one, m.DomainRefused(host, epoch, "incoming", "no room", "out_of_memory"))
        (release, again) = sent_to(done, CLUSTER)
        assert release == m.ReleaseVm("v1", host, epoch)
        assert isinstance(again, m.PlaceCopy)
        assert (again.epoch, again.excluded_hosts[-1]) == (epoch + 1, host)
        after = f"H{epoch - 1}"
        give(one, m.CopyPlaced(epoch + 1, after, f"agent/{after}@host-3", "boot"))
    done = give(one, m.DomainRefused("H4", 6, "incoming", "no room", "out_of_memory"))
    assert [ended.succeeded for ended in endings(done)] == [False]
    assert "H2, H3, H4 could not take it" in endings(done)[0].reason
    assert (one.record.status, one.record.copy_phase) == (S.UP, "")


def test_vm_with_a_named_target_that_refuses_goes_nowhere_else() -> None:
    one = migrating(phase="preparing", copy_to_host="H2")
    done = give(one, m.DomainRefused("H2", 4, "incoming", "no room", "out_of_memory"))
    assert [ended.succeeded for ended in endings(done)] == [False]


def test_vm_target_that_is_never_ready_is_ended_and_remembered() -> None:
    one = migrating(phase="preparing", copy_to_host="H2")
    done = give(one, m.TimerFired("copy"))
    assert done.sent[0] == (TARGET, m.CommandDomain("v1", 4, "destroy"), True)
    assert one.record.strays == (Stray("H2", TARGET, 4, "boot-2", vcpus=1, memory_bytes=GIB),)
    assert give(one, m.IncomingReady("H2", 4, "late")).sent == []
    refusal = vm(status=S.DOWN, strays=one.record.strays)
    assert "end of a copy of it on H2" in endings(give(refusal, command("remove")))[0].reason
    over = give(one, m.DomainRefused("H2", 4, "destroy", "no such machine", "absent"))
    assert over.sent == [(CLUSTER, m.ReleaseVm("v1", "H2", 4), True)]
    assert not one.record.strays


# ---------------------------------------------------------------- moves that nobody asked for


def test_vm_told_to_move_moves_without_an_operation_and_may_be_told_to_stay() -> None:
    one = vm(status=S.UP)
    assert give(one, m.MoveVm("H9", "balancing")).sent == []
    done = give(one, m.MoveVm("H1", "maintenance"))
    assert done.sent == [(CLUSTER, ask(reason="maintenance"), True)]
    assert give(one, m.MoveVm("H1", "maintenance")).sent == []
    done = give(one, m.StayVm("H1"))
    assert done.sent == [(CLUSTER, m.ReleaseVm("v1", "", 4), True)]
    done = give(one, m.MoveVm("H1", "balancing", "H2"))
    assert done.sent == [(CLUSTER, ask(5, reason="balancing", to_host="H2"), True)]


def test_vm_told_to_stay_goes_on_with_a_move_that_a_person_asked_for_or_that_copies() -> None:
    for one in (migrating(phase="preparing"), migrating(copy_reason="balancing")):
        assert give(one, m.StayVm("H1")).sent == []
        assert one.record.copy_phase


def test_vm_move_that_fails_tells_the_cluster() -> None:
    one = migrating(copy_reason="balancing", operation_id=None, operation_kind="")
    done = give(one, failed())
    text = "cannot migrate web to H2: no route"
    assert done.sent == [
        (TARGET, m.CommandDomain("v1", 4, "destroy"), True),
        (CLUSTER, m.VmMoveRefused("v1", "web", "H1", text), True),
        (SOURCE, m.QueryDomain("v1", "vm/v1", 3), False),
    ]


def test_vm_that_is_busy_refuses_to_move_now() -> None:
    one = vm(status=S.POWERING_UP, operation_id="op-1", operation_kind="start")
    (refused,) = sent_to(give(one, m.MoveVm("H1", "balancing")), CLUSTER)
    assert isinstance(refused, m.VmMoveRefused)
    assert "its start is under way" in refused.reason


# ---------------------------------------------------------------- cancel, stop, deadlines


def test_vm_migration_that_is_cancelled_early_is_undone_at_once() -> None:
    one = migrating(phase="preparing")
    done = give(one, command("cancel_migration"))
    assert sent_to(done, TARGET) == [m.CommandDomain("v1", 4, "destroy")]
    assert [(ended.operation_id, ended.succeeded) for ended in endings(done)] == [
        ("op-old", False),
        ("op-new", True),
    ]
    assert (one.record.status, one.record.copy_phase) == (S.UP, "")


def test_vm_migration_that_is_cancelled_while_it_copies_ends_by_the_sources_word() -> None:
    one = migrating()
    done = give(one, command("cancel_migration"))
    assert sent_to(done, SOURCE) == [m.CancelMigration("v1", 3)]
    done = give(one, failed("migration_cancelled"))
    assert [(ended.operation_id, ended.succeeded) for ended in endings(done)] == [("op-new", True)]
    assert events(done) == ["vm_migration_cancelled"]
    assert one.record.status is S.UP


def test_vm_migration_that_is_cancelled_too_late_is_handed_over() -> None:
    one = migrating()
    give(one, command("cancel_migration"))
    done = give(one, reported(S.DOWN, exit_reason=4))
    (ended,) = endings(done)
    assert not ended.succeeded
    assert "already handed over to H2" in ended.reason
    assert one.record.host == "H2"


def test_vm_that_is_stopped_and_handed_over_meanwhile_is_stopped_on_its_target() -> None:
    one = migrating()
    done = give(one, command("stop"))
    assert sent_to(done, SOURCE) == [m.CommandDomain("v1", 3, "destroy")]
    done = give(one, reported(S.DOWN, exit_reason=4))
    assert sent_to(done, TARGET) == [m.CommandDomain("v1", 4, "destroy")]
    done = give(one, reported(S.DOWN, on="H2", epoch=4, seq=1, exit_reason=6))
    assert [(ended.operation_id, ended.succeeded) for ended in endings(done)] == [("op-new", True)]
    assert one.record.status is S.DOWN


def test_vm_operation_that_runs_out_of_time_cancels_the_migration() -> None:
    one = migrating()
    done = give(one, m.TimerFired("deadline"))
    assert sent_to(done, SOURCE) == [m.CancelMigration("v1", 3)]
    assert [ended.succeeded for ended in endings(done)] == [False]
    assert one.record.copy_phase == "copying"


def test_vm_migration_that_runs_out_of_time_is_cancelled_and_both_sides_are_asked() -> None:
    one = migrating()
    done = give(one, m.TimerFired("copy"))
    cancel = m.CancelMigration("v1", 3)
    assert done.sent == [(SOURCE, cancel, True), QUERIES[0], (SOURCE, cancel, False), QUERIES[1]]
    assert one.record.copy_phase == "settling"


# ---------------------------------------------------------------- whatever happens


@given(st.binary(max_size=300))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_vm_between_two_failing_hosts_runs_once_at_most_and_comes_to_rest(tape: bytes) -> None:
    Model(tape).run()


def test_vm_between_two_failing_hosts_reaches_every_settlement() -> None:
    marks: dict[str, int] = {}
    for seed in range(1_000):
        chance = random.Random(seed)
        model = Model(bytes(chance.randrange(256) for _ in range(chance.randrange(20, 400))))
        model.run()
        for mark in model.marks:
            marks[mark] = marks.get(mark, 0) + 1
    assert set(marks) <= set(SITUATIONS)
    decisions = ("hand_over", "adopt", "stay", "stop_sending", "continue", "end_target", "end_source", "down")
    assert [name for name in decisions if f"settled_by_{name}" not in marks] == []


def test_vm_whose_reboot_gave_way_to_a_migration_that_found_no_host_still_has_a_deadline() -> None:
    """Found by the simulator: the reboot went on for ever, for its deadline had gone with its operation."""
    one = vm(status=S.UP)
    give(one, command("reboot", operation_id="op-reboot"))
    give(one, command("migrate", operation_id="op-migrate"))
    assert one.record.status is S.REBOOT_IN_PROGRESS
    give(one, m.CopyNotPlaced(4, "no host has room"))
    assert one.record.operation_id is None
    assert "deadline" in one.record.timers
    give(one, m.TimerFired("deadline"))
    assert one.record.status is S.UP
