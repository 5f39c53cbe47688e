"""A leased machine whose host is silent, and what else brings a machine back by itself."""

from __future__ import annotations

from typing import Any

import pytest

from actors.behaviour import Turn
from actors.vm import Vm
from olvm.model import messages as m
from olvm.model.limits import NS_PER_S
from olvm.model.records import Stray
from olvm.model.situations import SITUATIONS
from olvm.model.vm_states import VmStatus
from tests.builders import GIB, command, create_vm, encoded, endings, reported, sent_to, taken_over, turn, vm

S = VmStatus
OLD, NEW, CLUSTER = "agent/H1@host-1", "agent/H2@host-2", "cluster/prod"
THIRD = "agent/H3@host-3"
LEASED: dict[str, Any] = {
    "high_availability": True,
    "lease": True,
    "resume_behavior": "kill",
    "boot_id": "boot-1",
}
ASK = m.PlaceCopy(
    "v1",
    "web",
    4,
    "takeover",
    "H1",
    1,
    GIB,
    "host_error",
    excluded_hosts=["H1"],
    high_availability=True,
    leased=True,
)


def give(one: Vm, message: m.AnyMessage) -> Turn:
    done = turn()
    done.marks = []
    if isinstance(message, m.TimerFired):
        one.record.timers.pop(message.name, None)
        done.save(one.record)
    before = encoded(one.record)
    one.handle(message, done)
    if encoded(one.record) != before:
        assert one.record in done.saved
    assert not one.record.copy_phase or "copy" in one.record.timers, "a phase without a deadline"
    assert set(done.marks) <= set(SITUATIONS)
    return done


@pytest.mark.parametrize("status", [S.UP, S.POWERING_UP, S.PAUSED, S.UNKNOWN, S.WAIT_FOR_LAUNCH])
def test_vm_leased_on_a_silent_host_is_started_elsewhere_and_is_there_when_it_says_so(
    status: VmStatus,
) -> None:
    one = vm(status=status, **LEASED)
    assert give(one, m.HostSilent("H1", "15 s")).sent == [(CLUSTER, ASK, True)]
    assert one.record.status is S.UNKNOWN
    done = give(one, m.CopyPlaced(4, "H2", NEW, "boot-2"))
    create = m.CreateDomain("v1", "vm/v1", 4, "web", 1, GIB, False, "boot-2", True, "kill")
    assert done.sent == [(NEW, create, True)]
    assert give(one, reported(S.WAIT_FOR_LAUNCH, on="H2", epoch=4, seq=1)).sent == []
    done = give(one, reported(S.POWERING_UP, on="H2", epoch=4, seq=2))
    assert done.sent == [
        (CLUSTER, m.PromoteCopy("v1", 4, "H1", 3), True),
        (CLUSTER, m.ReleaseVm("v1", "H1", 3), True),
    ]
    record = one.record
    assert (record.status, record.host, record.epoch, record.boot_id) == (S.POWERING_UP, "H2", 4, "boot-2")
    assert [event.code for event in done.events] == ["vm_ha_restart"]
    late = give(one, reported(S.DOWN, seq=12, exit_reason=1))
    assert late.sent == [
        (OLD, m.ForgetDomain("v1", 3), True),
        (CLUSTER, m.ReleaseVm("v1", "H1", 3), True),
    ]


@pytest.mark.parametrize(
    "fields",
    [
        {"lease": False, "resume_behavior": "auto_resume"},
        {"high_availability": False},
        {"status": S.SAVING_STATE},
        {"operation_id": "op-1", "operation_kind": "stop"},
    ],
)
def test_vm_without_a_lease_or_that_should_end_is_not_taken_over(fields: dict[str, object]) -> None:
    one = vm(**({"status": S.UP} | LEASED | fields))
    give(one, m.HostSilent("H1", "15 s"))
    done = give(one, m.HostLost("H1", "60 s"))
    assert (one.record.copy_phase, sent_to(done, CLUSTER)) == ("", [])


def test_vm_whose_host_comes_back_with_it_is_not_taken_over() -> None:
    one = taken_over()
    done = give(one, reported(S.UP))
    assert done.sent == [(NEW, m.CommandDomain("v1", 4, "destroy"), True)]
    assert (one.record.status, one.record.host, one.record.epoch) == (S.UP, "H1", 3)
    assert one.record.strays == (Stray("H2", NEW, 4, "boot-2", 0, 0, True, True, 1, GIB),)
    done = give(one, reported(S.UP, on="H2", epoch=4, seq=1))
    assert done.sent == [(NEW, m.CommandDomain("v1", 4, "destroy"), True)]


def test_vm_takeover_of_a_placed_question_is_undone_when_the_host_comes_back() -> None:
    one = taken_over(phase="placing")
    assert give(one, reported(S.UP)).sent == [(CLUSTER, m.ReleaseVm("v1", "", 4), True)]


@pytest.mark.parametrize(
    "word",
    [
        m.HostConfirmedDead("H1", "boot-1", "fenced"),
        reported(S.DOWN, exit_reason=1, exit_message="its lease expired"),
        reported(S.DOWN, absent=True),
    ],
)
def test_vm_takeover_goes_on_when_the_old_copy_is_known_to_be_over(word: m.AnyMessage) -> None:
    one = taken_over()
    done = give(one, word)
    assert sent_to(done, CLUSTER) == [m.ReleaseVm("v1", "H1", 3)]
    assert one.record.copy_phase == "starting"
    give(one, reported(S.UP, on="H2", epoch=4, seq=1))
    assert (one.record.status, one.record.host) == (S.UP, "H2")


def test_vm_takeover_that_fails_after_the_old_copy_is_over_becomes_a_plain_restart() -> None:
    one = taken_over()
    give(one, m.HostConfirmedDead("H1", "boot-1", "fenced"))
    done = give(one, m.DomainRefused("H2", 4, "create", "no answer", "lease_unreachable"))
    assert sent_to(done, CLUSTER)[-1] == m.PlaceVm(
        "v1", "web", 5, 1, GIB, high_availability=True, ha_restart=True, leased=True
    )
    assert one.record.status is S.WAIT_FOR_LAUNCH


def test_vm_guest_that_shut_down_by_itself_is_not_taken_over() -> None:
    one = taken_over()
    done = give(one, reported(S.DOWN, exit_reason=7))
    assert m.CommandDomain("v1", 4, "destroy") in sent_to(done, NEW)
    assert (one.record.status, one.record.host, one.record.copy_phase) == (S.UNKNOWN, "H2", "")
    give(one, reported(S.DOWN, on="H2", epoch=4, exit_reason=6))
    assert (one.record.status, one.record.exit_reason) == (S.DOWN, 7)


@pytest.mark.parametrize("code", ["lease_held", "lease_unreachable", "other_boot", "out_of_memory"])
def test_vm_takeover_that_is_refused_stays_unknown_and_is_tried_again(code: str) -> None:
    one = taken_over()
    done = give(one, m.DomainRefused("H2", 4, "create", "no", code))
    assert done.sent == [(CLUSTER, m.ReleaseVm("v1", "H2", 4), True)]
    assert (one.record.status, one.record.ha_attempts) == (S.UNKNOWN, 1)
    assert one.record.timers["ha_retry"] == 130 * NS_PER_S
    done = give(one, m.TimerFired("ha_retry"))
    (again,) = sent_to(done, CLUSTER)
    assert isinstance(again, m.PlaceCopy)
    assert again.epoch == 5


@pytest.mark.parametrize(
    "word", [m.HostLost("H2", "silent"), m.HostSilent("H2", "silent"), m.TimerFired("copy")]
)
def test_vm_takeover_whose_new_host_is_lost_goes_to_a_third(word: m.AnyMessage) -> None:
    """It may have started the machine, so it is not told to end it: it may turn out to be the machine."""
    one = taken_over()
    done = give(one, word)
    assert sent_to(done, NEW) == []
    (again,) = sent_to(done, CLUSTER)
    assert isinstance(again, m.PlaceCopy)
    assert (again.epoch, again.excluded_hosts) == (5, ["H1", "H2"])
    assert one.record.strays == (Stray("H2", NEW, 4, "boot-2", may_run=True, vcpus=1, memory_bytes=GIB),)
    done = give(one, m.HostConfirmedDead("H2", "boot-2", "fenced"))
    assert done.sent == [(CLUSTER, m.ReleaseVm("v1", "H2", 4), True)]


def test_vm_takeover_that_ran_unheard_is_adopted_and_the_next_attempt_is_given_up() -> None:
    one = taken_over()
    give(one, m.HostLost("H2", "silent"))
    done = give(one, reported(S.UP, on="H2", epoch=4))
    assert sent_to(done, CLUSTER) == [
        m.ReleaseVm("v1", "", 5),
        m.PromoteCopy("v1", 4, "H1", 3),
        m.ReleaseVm("v1", "H1", 3),
    ]
    assert (one.record.status, one.record.host, one.record.epoch) == (S.UP, "H2", 4)
    assert (one.record.copy_phase, one.record.strays) == ("", ())


def test_vm_takeover_unheard_whose_old_host_dies_is_unknown_on_the_new_one() -> None:
    """Found by a campaign: the machine was called down while the new host ran it."""
    one = taken_over()
    give(one, m.HostConfirmedDead("H1", "boot-1", "power is off"))
    give(one, m.HostLost("H2", "silent"))
    assert (one.record.status, one.record.host, one.record.epoch) == (S.UNKNOWN, "H2", 4)
    give(one, reported(S.UP, on="H2", epoch=4))
    assert (one.record.status, one.record.host) == (S.UP, "H2")


def test_vm_whose_old_life_ends_after_a_takeover_nobody_heard_of_is_unknown_there() -> None:
    """Found by a campaign: the machine was called down while the new host ran it."""
    one = taken_over()
    give(one, m.HostLost("H2", "silent"))
    done = give(one, reported(S.DOWN, exit_reason=1, exit_message="its lease expired"))
    assert (one.record.status, one.record.host, one.record.epoch) == (S.UNKNOWN, "H2", 4)
    assert m.PromoteCopy("v1", 4, "H1", 3) in sent_to(done, CLUSTER)
    give(one, m.HostConfirmedDead("H2", "boot-2", "fenced"))
    assert one.record.status is S.WAIT_FOR_LAUNCH


def twice_unheard() -> Vm:
    """Taken over to H2 (epoch 4), of which nothing was heard, and being started on H3 (epoch 5) for that."""
    one = taken_over()
    give(one, m.HostLost("H2", "silent"))
    give(one, m.CopyPlaced(5, "H3", THIRD, "boot-3"))
    assert (one.record.copy_host, one.record.copy_phase) == ("H3", "starting")
    return one


def standing(one: Vm) -> tuple[VmStatus, str | None, int]:
    return one.record.status, one.record.host, one.record.epoch


def test_vm_second_takeover_unheard_whose_old_host_is_dead_is_unknown_on_the_first_new_one() -> None:
    """Found by campaigns: H3 did not get the lease and said so, and the machine was called down while H2 ran it."""
    one = twice_unheard()
    give(one, m.HostConfirmedDead("H1", "boot-1", "power is off"))
    give(one, m.TimerFired("copy"))
    assert standing(one) == (S.UNKNOWN, "H2", 4)
    assert [(stray.host, stray.epoch, stray.may_run) for stray in one.record.strays] == [("H3", 5, True)]
    give(one, m.DomainRefused("H3", 5, "create", "H2 holds the lease", "lease_held"))
    assert (standing(one), one.record.strays) == ((S.UNKNOWN, "H2", 4), ())
    give(one, reported(S.UP, on="H2", epoch=4))
    assert standing(one) == (S.UP, "H2", 4)


def test_vm_old_life_over_after_two_takeovers_unheard_goes_through_both_before_it_is_started_anew() -> None:
    one = twice_unheard()
    give(one, m.HostLost("H3", "silent"))
    give(one, m.HostConfirmedDead("H1", "boot-1", "power is off"))
    assert standing(one) == (S.UNKNOWN, "H2", 4)
    give(one, m.HostConfirmedDead("H2", "boot-2", "power is off"))
    assert standing(one) == (S.UNKNOWN, "H3", 5)
    give(one, m.HostConfirmedDead("H3", "boot-3", "power is off"))
    assert standing(one)[:2] == (S.WAIT_FOR_LAUNCH, None)


def test_vm_later_takeover_that_turns_out_to_run_is_the_machine() -> None:
    one = twice_unheard()
    give(one, m.HostLost("H3", "silent"))
    give(one, m.HostConfirmedDead("H1", "boot-1", "power is off"))
    give(one, reported(S.UP, on="H3", epoch=5))
    assert standing(one) == (S.UP, "H3", 5)


@pytest.mark.parametrize("code", ["lease_held", "lease_unreachable", "other_boot", "failed"])
def test_vm_refused_start_of_one_takeover_says_nothing_about_the_next(code: str) -> None:
    """The first new host answers again while it still waits for the lease, and does not get it."""
    one = twice_unheard()
    give(one, m.HostLost("H3", "silent"))
    give(one, m.HostConfirmedDead("H1", "boot-1", "power is off"))
    give(one, reported(S.WAIT_FOR_LAUNCH, on="H2", epoch=4))
    assert standing(one) == (S.WAIT_FOR_LAUNCH, "H2", 4)
    give(one, m.DomainRefused("H2", 4, "create", "no", code))
    assert standing(one) == (S.UNKNOWN, "H3", 5)


def test_vm_whose_guest_shut_down_is_not_started_again_by_takeovers_that_never_ran() -> None:
    one = twice_unheard()
    give(one, m.HostLost("H3", "silent"))
    give(one, reported(S.DOWN, exit_reason=7, exit_message="shut down from inside"))
    give(one, reported(S.DOWN, on="H2", epoch=4, exit_reason=3, exit_message="no lease"))
    assert standing(one) == (S.UNKNOWN, "H3", 5)
    give(one, reported(S.DOWN, on="H3", epoch=5, exit_reason=3, exit_message="no lease"))
    assert (one.record.status, one.record.exit_reason) == (S.DOWN, 7)


def test_vm_lost_host_never_starts_a_machine_without_a_lease_elsewhere_until_it_is_proven_dead() -> None:
    one = vm(status=S.UP, high_availability=True, boot_id="boot-1")
    give(one, m.HostLost("H1", "silent"))
    assert give(one, m.HostConfirmedDead("H1", "boot-0", "an older boot")).sent == []
    assert one.record.status is S.UNKNOWN
    done = give(one, m.HostConfirmedDead("H1", "boot-1", "power is off"))
    assert done.sent == [
        (CLUSTER, m.ReleaseVm("v1", "H1", 3), True),
        (CLUSTER, m.PlaceVm("v1", "web", 4, 1, GIB, high_availability=True, ha_restart=True), True),
    ]


def test_vm_starting_on_a_host_that_is_proven_dead_is_tried_elsewhere_without_blame() -> None:
    one = vm(status=S.WAIT_FOR_LAUNCH, operation_id="op-1", operation_kind="start", boot_id="boot-1")
    done = give(one, m.HostConfirmedDead("H1", "boot-1", "power is off"))
    assert sent_to(done, CLUSTER) == [
        m.ReleaseVm("v1", "H1", 3),
        m.PlaceVm("v1", "web", 4, 1, GIB, excluded_hosts=["H1"]),
    ]


def test_vm_that_is_deferred_asks_again_in_five_seconds_without_an_event() -> None:
    one = vm(status=S.WAIT_FOR_LAUNCH, on_host=False, high_availability=True, timers={"deadline": 1})
    done = give(one, m.VmNotPlaced(3, "db comes first", deferred=True))
    assert (done.sent, done.events) == ([], [])
    assert one.record.timers == {"place": 105 * NS_PER_S, "deadline": 280 * NS_PER_S}
    ask = m.PlaceVm("v1", "web", 3, 1, GIB, high_availability=True, ha_restart=True)
    assert give(one, m.TimerFired("place")).sent == [(CLUSTER, ask, True)]


@pytest.mark.parametrize(
    ("code", "again"),
    [("other_boot", True), ("older_copy", True), ("lease_unreachable", True), ("lease_held", False)],
)
def test_vm_start_that_is_refused_is_tried_again_unless_the_lease_is_held(code: str, again: bool) -> None:
    one = vm(status=S.WAIT_FOR_LAUNCH, operation_id="op-1", operation_kind="start", **LEASED)
    done = give(one, m.DomainRefused("H1", 3, "create", "no", code))
    assert sent_to(done, CLUSTER)[0] == m.ReleaseVm("v1", "H1", 3)
    assert any(isinstance(message, m.PlaceVm) for message in sent_to(done, CLUSTER)) is again
    assert [ended.succeeded for ended in endings(done)] == ([] if again else [False])


def test_vm_attempts_of_high_availability_survive_a_restart() -> None:
    one = vm(status=S.WAIT_FOR_LAUNCH, on_host=False, high_availability=True, ha_attempts=10)
    give(Vm(one.record), m.VmNotPlaced(3, "no room"))
    assert (one.record.ha_attempts, one.record.timers["ha_retry"]) == (11, 1900 * NS_PER_S)


# ---------------------------------------------------------------- its definition, and the cluster's orders


@pytest.mark.parametrize(
    ("fields", "lease", "resume"),
    [
        ({}, False, "auto_resume"),
        ({"high_availability": True}, True, "kill"),
        ({"high_availability": True, "lease": False}, False, "auto_resume"),
        ({"lease": True}, True, "kill"),
        ({"resume_behavior": "leave_paused"}, False, "leave_paused"),
    ],
)
def test_vm_highly_available_has_a_lease_unless_told_otherwise(
    fields: dict[str, object], lease: bool, resume: str
) -> None:
    create = m.CreateVm("web", "prod", 1, GIB, priority=90, **fields)  # type: ignore[arg-type]
    record = Vm.new(m.RegisterVm("op", "v1", create), 1).record
    assert (record.lease, record.resume_behavior, record.priority) == (lease, resume, 90)


def test_vm_lease_changes_only_while_nothing_of_it_can_run() -> None:
    change = m.ChangeVm("op-new", m.UpdateVm("web", lease=True))
    assert [ended.succeeded for ended in endings(give(vm(status=S.UP), change))] == [False]
    stray = vm(strays=(Stray("H2", NEW, 2),))
    assert [ended.succeeded for ended in endings(give(stray, change))] == [False]
    one = vm()
    assert [ended.succeeded for ended in endings(give(one, change))] == [True]
    assert (one.record.lease, one.record.resume_behavior) == (True, "kill")
    refused = give(one, m.ChangeVm("op-2", m.UpdateVm("web", resume_behavior="auto_resume")))
    assert [(ended.succeeded, ended.error_code) for ended in endings(refused)] == [(False, "bad_input")]


def test_vm_paused_by_its_storage_says_so_and_forgets_it_when_it_goes_on() -> None:
    one = vm(status=S.UP)
    done = give(one, reported(S.PAUSED, pause_code="EIO"))
    assert one.record.pause_code == "EIO"
    assert done.events[0].message == "machine web is paused: its storage gave an I/O error (EIO)"
    assert give(one, reported(S.PAUSED, seq=12, pause_code="EIO")).events == []
    give(one, reported(S.UP, seq=13))
    assert (one.record.status, one.record.pause_code) == (S.UP, "")


def test_vm_shut_down_by_the_cluster_tells_the_cluster() -> None:
    one = vm(status=S.UP, high_availability=True)
    done = give(one, m.PowerVm("shutdown"))
    assert done.sent == [(OLD, m.CommandDomain("v1", 3, "shutdown"), True)]
    assert give(one, m.PowerVm("shutdown")).sent == []
    done = give(one, reported(S.DOWN, exit_reason=7))
    assert sent_to(done, CLUSTER) == [
        m.ReleaseVm("v1", "H1", 3),
        m.VmPowered("v1", "web", True),
    ]
    again = give(one, m.PowerVm("stop"))
    assert again.sent == [(CLUSTER, m.VmPowered("v1", "web", True), True)]


def test_vm_started_by_the_cluster_tells_the_cluster_when_it_is_up() -> None:
    one = vm()
    done = give(one, m.PowerVm("start"))
    assert done.sent == [(CLUSTER, m.PlaceVm("v1", "web", 4, 1, GIB), True)]
    give(one, m.VmPlaced(4, "H1", OLD, "boot-1"))
    done = give(one, reported(S.UP, epoch=4, seq=1))
    assert done.sent == [(CLUSTER, m.VmPowered("v1", "web", False), True)]


def test_vm_unknown_cannot_be_shut_down_by_the_cluster_and_says_why() -> None:
    (answer,) = sent_to(give(vm(status=S.UNKNOWN), m.PowerVm("shutdown")), CLUSTER)
    assert isinstance(answer, m.VmPowered)
    assert not answer.down
    assert "it is unknown" in answer.reason


def test_vm_down_for_the_clusters_shutdown_gives_up_its_own_restart() -> None:
    one = vm(high_availability=True, timers={"ha_retry": 10**15})
    give(one, m.PowerVm("shutdown"))
    assert one.record.timers == {}


def test_vm_registered_in_a_silo_is_asked_about_by_its_full_address() -> None:
    one = Vm.new(m.RegisterVm("op", "v1", create_vm(silo="vms-1")), 1)
    give(one, command("start"))
    done = give(one, m.VmPlaced(one.record.epoch, "H1", OLD, "boot-1"))
    (create,) = sent_to(done, OLD)
    assert isinstance(create, m.CreateDomain)
    assert create.vm_address == "vm/v1@vms-1"
