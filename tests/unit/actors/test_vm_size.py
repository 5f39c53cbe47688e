"""CPUs and memory that are plugged into a machine: what is reserved when, and what is believed of each ending."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from actors.behaviour import Turn
from actors.vm import Vm
from olvm.model import messages as m
from olvm.model.records import Stray
from olvm.model.vm_sizes import Resize
from olvm.model.vm_states import VmStatus as S
from tests.builders import GIB, command, endings, migrating, reported, sent_to, taken_over, turn, vm

AGENT = "agent/H1@host-1"
CLUSTER = "cluster/prod"
PLUG: m.Arguments = {"name": "dimm0", "size_bytes": GIB}
UNPLUG: m.Arguments = {"name": "dimm0"}


def give(one: Vm, message: m.AnyMessage, sender: str = "engine") -> Turn:
    done = turn(me="vm/v1", sender=sender)
    done.marks = []
    one.handle(message, done)
    return done


def ask(verb: str, arguments: m.Arguments, operation_id: str = "op-1") -> m.TaskVm:
    return m.TaskVm(operation_id, m.VmTask("web", verb, arguments))


def held(vcpus: int, memory_gib: int, operation_id: str = "", epoch: int = 3) -> m.ResizeVm:
    return m.ResizeVm("v1", epoch, vcpus, memory_gib * GIB, operation_id)


def resized(refusal: str = "", operation_id: str = "op-1", epoch: int = 3) -> m.VmResized:
    return m.VmResized(epoch, operation_id, refusal)


def ended(succeeded: bool = True, **fields: Any) -> m.TaskEnded:
    return m.TaskEnded("H1", "op-1", succeeded, **fields)


def measured(vcpus: int, memory_gib: float, epoch: int = 3) -> m.DomainMeasured:
    return m.DomainMeasured("H1", epoch, "op-1", vcpus, int(memory_gib * GIB))


def sizes(one: Vm) -> tuple[tuple[int, int], tuple[int, int]]:
    """Now, and at the next start: vCPUs and GiB."""
    record = one.record
    now = (record.now_vcpus, record.now_memory_bytes // GIB)
    return now, (record.vcpus, record.memory_bytes // GIB)


def up(**fields: Any) -> Vm:
    return vm(status=S.UP, now_vcpus=1, now_memory_bytes=GIB, **fields)


def with_device(**fields: Any) -> Vm:
    base: dict[str, Any] = {"memory_bytes": 2 * GIB, "now_memory_bytes": 2 * GIB, "now_vcpus": 1}
    return vm(status=S.UP, plugged_memory={"dimm0": GIB}, **(base | fields))


def asked(one: Vm, verb: str = "plug_memory", arguments: m.Arguments = PLUG) -> Vm:
    """The host was asked, and nothing is heard."""
    give(one, ask(verb, arguments))
    if one.record.resize is not None and one.record.resize.phase == "reserving":
        give(one, resized(), CLUSTER)
    assert one.record.resize is not None
    assert one.record.resize.phase == "asked"
    return one


def in_doubt(one: Vm, verb: str = "plug_memory", arguments: m.Arguments = PLUG) -> Vm:
    give(asked(one, verb, arguments), ended(succeeded=False, code="timed_out", outcome_known=False), AGENT)
    assert one.record.resize is not None
    assert one.record.resize.phase == "unknown"
    return one


# ---------------------------------------------------------------- room first


@pytest.mark.parametrize(
    ("verb", "arguments", "room"),
    [
        ("set_vcpus", {"vcpus": 3}, held(3, 1, "op-1")),
        ("plug_memory", PLUG, held(1, 2, "op-1")),
    ],
)
def test_plug_asks_for_room_and_its_host_only_when_that_is_reserved(
    verb: str, arguments: m.Arguments, room: m.ResizeVm
) -> None:
    one = up()
    assert give(one, ask(verb, arguments)).sent == [(CLUSTER, room, True)]
    assert sizes(one) == ((1, 1), (1, 1))
    task = m.TaskDomain("v1", 3, "op-1", verb, arguments)
    assert give(one, resized(), CLUSTER).sent == [(AGENT, task, True)]
    assert give(one, resized(), CLUSTER).sent == [], "said twice"


def test_plug_without_room_is_refused_and_names_host_need_and_room() -> None:
    one = up()
    give(one, ask("plug_memory", PLUG))
    done = give(one, resized("1.1 GiB more are needed, and host H1 has 0.4 GiB free"), CLUSTER)
    assert endings(done) == [
        m.OperationEnded(
            "op-1",
            False,
            "cannot plug memory into web: 1.1 GiB more are needed, and host H1 has 0.4 GiB free; "
            "migrate it to a larger host, or others away",
            "no_capacity",
        )
    ]
    assert sent_to(done, AGENT) == []
    assert (one.record.resize, one.record.tasks, one.record.timers) == (None, {}, {})


@pytest.mark.parametrize("late", [resized(operation_id="op-0"), resized(epoch=2)])
def test_answer_to_another_question_orders_nothing(late: m.VmResized) -> None:
    one = up()
    give(one, ask("plug_memory", PLUG))
    assert give(one, late, CLUSTER).sent == []


def test_cluster_that_does_not_answer_in_time_is_told_the_size_behind_the_question() -> None:
    one = up()
    give(one, ask("plug_memory", PLUG))
    done = give(one, m.TimerFired("task/op-1"))
    (end,) = endings(done)
    assert "nothing was done" in end.reason
    assert sent_to(done, CLUSTER) == [held(1, 1)]
    assert give(one, resized(), CLUSTER).sent == [], "too late"


def test_machine_that_is_lost_while_room_is_asked_for_is_not_plugged() -> None:
    one = up()
    give(one, ask("plug_memory", PLUG))
    give(one, m.HostLost("H1", "silent"), CLUSTER)
    done = give(one, resized(), CLUSTER)
    assert sent_to(done, AGENT) == []
    assert sent_to(done, CLUSTER) == [held(1, 1)]
    assert [end.error_code for end in endings(done)] == ["operation_failed"]


@pytest.mark.parametrize(
    ("verb", "arguments", "code", "word"),
    [
        ("set_vcpus", {"vcpus": 0}, "bad_input", "1 to 710"),
        ("set_vcpus", {"vcpus": 711}, "bad_input", "1 to 710"),
        ("plug_memory", {"name": "d", "size_bytes": -GIB}, "bad_input", "above 0"),
        ("plug_memory", {"name": "d", "size_bytes": 0}, "bad_input", "above 0"),
        ("plug_memory", {"name": "d", "size_bytes": 2**50}, "bad_input", "64TiB"),
        ("plug_memory", {"name": "dimm0", "size_bytes": 2 * GIB}, "conflict", "another name"),
    ],
)
def test_size_that_no_machine_has_is_refused_before_anything(
    verb: str, arguments: m.Arguments, code: str, word: str
) -> None:
    one = with_device()
    done = give(one, ask(verb, arguments))
    (end,) = endings(done)
    assert (end.error_code, len(done.sent)) == (code, 1)
    assert word in end.reason
    assert "web" in end.reason


def test_memory_that_is_there_already_is_not_plugged_again() -> None:
    one = with_device()
    done = give(one, ask("plug_memory", PLUG))
    assert done.sent == [("engine", m.OperationEnded("op-1", True), True)]


# ---------------------------------------------------------------- how it ends


def test_plug_that_was_done_is_what_it_has_now_and_at_its_next_start() -> None:
    one = asked(up())
    done = give(one, ended(), AGENT)
    assert endings(done) == [m.OperationEnded("op-1", True)]
    assert sent_to(done, CLUSTER) == [], "its room is reserved already"
    assert sizes(one) == ((1, 2), (1, 2))
    assert one.record.plugged_memory == {"dimm0": GIB}
    assert one.record.resize is None
    (event,) = done.events
    assert (event.code, event.details["memory_bytes"]) == ("vm_updated", 2 * GIB)


def test_plug_that_failed_gives_its_room_back() -> None:
    one = asked(up())
    done = give(one, ended(succeeded=False, reason="no", code="bad_request"), AGENT)
    assert sent_to(done, CLUSTER) == [held(1, 1)]
    assert [end.error_code for end in endings(done)] == ["bad_request"]
    assert sizes(one) == ((1, 1), (1, 1))
    assert (one.record.resize, one.record.timers) == (None, {})


def test_unplug_gives_its_room_back_once_its_host_has_confirmed_it() -> None:
    one = with_device()
    begun = give(one, ask("unplug_memory", UNPLUG))
    assert begun.sent == [(AGENT, m.TaskDomain("v1", 3, "op-1", "unplug_memory", UNPLUG), True)]
    done = give(one, ended(), AGENT)
    assert sent_to(done, CLUSTER) == [held(1, 1)]
    assert sizes(one) == ((1, 1), (1, 1))
    assert one.record.plugged_memory == {}


def test_guest_that_keeps_its_memory_keeps_its_room() -> None:
    one = asked(with_device(), "unplug_memory", UNPLUG)
    done = give(one, ended(succeeded=False, code="guest_refused"), AGENT)
    assert sent_to(done, CLUSTER) == []
    assert sizes(one) == ((1, 2), (1, 2))
    assert one.record.plugged_memory == {"dimm0": GIB}


def test_fewer_cpus_are_given_back_when_they_are_gone() -> None:
    one = vm(status=S.UP, vcpus=4, now_vcpus=4, now_memory_bytes=GIB)
    give(one, ask("set_vcpus", {"vcpus": 2}))
    done = give(one, ended(), AGENT)
    assert sent_to(done, CLUSTER) == [held(2, 1)]
    assert sizes(one) == ((2, 1), (2, 1))


def test_plugged_memory_leaves_a_change_of_cpus_for_the_next_start_alone() -> None:
    one = up()
    give(one, m.ChangeVm("op-0", m.UpdateVm("web", vcpus=4)))
    give(asked(one), ended(), AGENT)
    assert sizes(one) == ((1, 2), (4, 2))


# ---------------------------------------------------------------- outcomes that are not known


def test_unknown_outcome_keeps_the_larger_size_and_asks_how_large_it_is() -> None:
    one = asked(up())
    done = give(one, ended(succeeded=False, reason="no answer", code="timed_out", outcome_known=False), AGENT)
    assert sent_to(done, CLUSTER) == []
    assert sent_to(done, AGENT) == [m.MeasureDomain("v1", 3, "op-1")]
    assert "may have been done" in endings(done)[0].reason
    assert "size" in one.record.timers
    again = give(one, m.TimerFired("size"))
    assert sent_to(again, AGENT) == [m.MeasureDomain("v1", 3, "op-1")]


def test_host_that_says_nothing_until_the_deadline_is_asked_too() -> None:
    one = asked(up())
    one.record.timers.clear()
    done = give(one, m.TimerFired("task/op-1"))
    assert sent_to(done, AGENT) == [m.MeasureDomain("v1", 3, "op-1")]
    assert sent_to(done, CLUSTER) == []


# Hosts round memory: the nearer size counts.
@pytest.mark.parametrize(
    ("verb", "arguments", "answer", "size", "given_back"),
    [
        ("plug_memory", PLUG, measured(1, 2), (1, 2), []),
        ("plug_memory", PLUG, measured(1, 1.9), (1, 2), []),
        ("plug_memory", PLUG, measured(1, 1.1), (1, 1), [held(1, 1)]),
        ("set_vcpus", {"vcpus": 3}, measured(3, 1), (3, 1), []),
        ("set_vcpus", {"vcpus": 3}, measured(1, 1), (1, 1), [held(1, 1)]),
    ],
)
def test_measured_machine_ends_the_doubt(
    verb: str, arguments: m.Arguments, answer: m.DomainMeasured, size: tuple[int, int], given_back: list[Any]
) -> None:
    one = in_doubt(up(), verb, arguments)
    done = give(one, answer, AGENT)
    assert sizes(one) == (size, size)
    assert sent_to(done, CLUSTER) == given_back
    assert (one.record.resize, one.record.timers) == (None, {})


@pytest.mark.parametrize("gib", [1, 2])
def test_unplug_of_a_device_that_is_not_found_is_measured(gib: int) -> None:
    one = asked(with_device(), "unplug_memory", UNPLUG)
    done = give(one, ended(succeeded=False, code="not_found"), AGENT)
    assert sent_to(done, AGENT) == [m.MeasureDomain("v1", 3, "op-1")]
    done = give(one, measured(1, gib), AGENT)
    assert sizes(one)[0] == (1, gib)
    assert sent_to(done, CLUSTER) == ([held(1, 1)] if gib == 1 else [])


@pytest.mark.parametrize(
    "answer", [measured(1, 1, epoch=2), m.DomainMeasured("H1", 3, "op-0", 1, GIB)], ids=["epoch", "operation"]
)
def test_answer_about_another_copy_or_change_ends_nothing(answer: m.DomainMeasured) -> None:
    one = in_doubt(up())
    assert give(one, answer, AGENT).sent == []
    assert one.record.resize is not None


def test_late_answer_of_the_host_ends_the_doubt_as_well() -> None:
    one = in_doubt(up())
    done = give(one, ended(), AGENT)
    assert endings(done) == []
    assert sizes(one) == ((1, 2), (1, 2))


def test_size_of_a_machine_whose_host_is_silent_is_asked_when_it_is_back() -> None:
    one = in_doubt(up())
    give(one, m.HostLost("H1", "silent"), CLUSTER)
    assert sent_to(give(one, m.TimerFired("size")), AGENT) == []
    give(one, reported(S.UP), AGENT)
    assert sent_to(give(one, m.TimerFired("size")), AGENT) == [m.MeasureDomain("v1", 3, "op-1")]


def test_second_change_waits_for_the_first() -> None:
    one = asked(up())
    (end,) = endings(give(one, ask("set_vcpus", {"vcpus": 2}, "op-2")))
    assert (end.error_code, "plug_memory is under way" in end.reason) == ("conflict", True)
    doubtful = in_doubt(up())
    (end,) = endings(give(doubtful, ask("set_vcpus", {"vcpus": 2}, "op-2")))
    assert "not known yet" in end.reason
    done = give(doubtful, ask("set_nic_link", {"name": "eth0", "up": True}, "op-3"))
    assert "network card" in endings(done)[0].reason, "other tasks are judged for themselves"


# ---------------------------------------------------------------- lives and copies


def test_machine_that_goes_down_in_the_middle_starts_as_it_was() -> None:
    one = asked(up())
    done = give(one, reported(S.DOWN, exit_reason=1), AGENT)
    assert [end.operation_id for end in endings(done)] == ["op-1"]
    assert (one.record.resize, one.record.tasks, one.record.plugged_memory) == (None, {}, {})
    assert sizes(one) == ((0, 0), (1, 1))
    assert give(one, ended(), AGENT).sent == [], "of a life that is over"
    assert sizes(one)[1] == (1, 1)


def test_next_start_has_what_was_plugged() -> None:
    one = asked(up())
    give(one, ended(), AGENT)
    give(one, reported(S.DOWN, exit_reason=0), AGENT)
    (place,) = sent_to(give(one, command("start")), CLUSTER)
    assert isinstance(place, m.PlaceVm)
    assert (place.vcpus, place.memory_bytes) == (1, 2 * GIB)
    (create,) = sent_to(give(one, m.VmPlaced(place.epoch, "H1", AGENT), CLUSTER), AGENT)
    assert isinstance(create, m.CreateDomain)
    assert create.memory_bytes == 2 * GIB
    assert sizes(one) == ((1, 2), (1, 2))
    assert one.record.plugged_memory == {}, "it is memory that it starts with"


def test_change_of_a_machine_that_runs_is_for_its_next_start() -> None:
    one = up()
    done = give(one, m.ChangeVm("op-0", m.UpdateVm("web", vcpus=4, memory_bytes=8 * GIB)))
    assert endings(done) == [m.OperationEnded("op-0", True)]
    assert sizes(one) == ((1, 1), (4, 8))
    (place,) = sent_to(give(one, command("migrate")), CLUSTER)
    assert isinstance(place, m.PlaceCopy)
    assert (place.vcpus, place.memory_bytes) == (1, GIB)


def test_row_of_an_older_version_keeps_the_size_that_it_runs_with() -> None:
    one = vm(status=S.UP)
    give(one, m.ChangeVm("op-0", m.UpdateVm("web", vcpus=4)))
    assert sizes(one) == ((1, 1), (4, 1))


def test_suspended_machine_goes_on_as_large_as_it_was_saved() -> None:
    one = vm(status=S.SAVING_STATE, operation_id="op-0", operation_kind="suspend", now_vcpus=2)
    one.record.now_memory_bytes = 3 * GIB
    one.record.plugged_memory = {"dimm0": GIB}
    give(one, reported(S.DOWN, exit_reason=5), AGENT)
    assert one.record.status is S.SUSPENDED
    (place,) = sent_to(give(one, command("resume")), CLUSTER)
    assert isinstance(place, m.PlaceVm)
    assert (place.vcpus, place.memory_bytes) == (2, 3 * GIB)
    assert one.record.plugged_memory == {"dimm0": GIB}


def test_doubt_rests_while_its_machine_is_suspended() -> None:
    one = in_doubt(up(operation_id="op-0", operation_kind="suspend"))
    one.record.status = S.SAVING_STATE
    give(one, reported(S.DOWN, exit_reason=5), AGENT)
    assert "size" not in one.record.timers
    (place,) = sent_to(give(one, command("resume")), CLUSTER)
    assert isinstance(place, m.PlaceVm)
    assert place.memory_bytes == 2 * GIB, "the larger one"
    assert "size" in one.record.timers


def test_machine_is_not_moved_while_its_plug_is_under_way() -> None:
    one = asked(up())
    (end,) = endings(give(one, command("migrate")))
    assert end.reason == "cannot migrate web: its plug_memory is under way; wait for its end"
    (refused,) = sent_to(give(one, m.MoveVm("H1", "maintenance"), CLUSTER), CLUSTER)
    assert isinstance(refused, m.VmMoveRefused)


def test_target_is_reserved_and_prepared_with_the_larger_size() -> None:
    one = in_doubt(up())
    (place,) = sent_to(give(one, command("migrate")), CLUSTER)
    assert isinstance(place, m.PlaceCopy)
    assert place.memory_bytes == 2 * GIB
    placed = m.CopyPlaced(place.epoch, "H2", "agent/H2@host-2", "boot-2", "post_copy", 52.0)
    (prepare,) = sent_to(give(one, placed, CLUSTER), "agent/H2@host-2")
    assert isinstance(prepare, m.PrepareIncoming)
    assert prepare.memory_bytes == 2 * GIB


def moving(**fields: Any) -> Vm:
    base: dict[str, Any] = {"now_vcpus": 1, "now_memory_bytes": GIB, "copy_vcpus": 1}
    return migrating(**(base | {"copy_memory_bytes": 2 * GIB} | fields))


def test_too_much_of_a_target_is_given_back_when_it_is_the_machine() -> None:
    one = moving()
    done = give(one, reported(S.UP, on="H2", epoch=4), "agent/H2@host-2")
    assert sent_to(done, CLUSTER) == [m.PromoteCopy("v1", 4, "H1", 3), held(1, 1, epoch=4)]
    assert sizes(one) == ((1, 1), (1, 1))


def test_doubt_goes_along_with_a_migration_and_is_ended_by_the_new_host() -> None:
    doubt = Resize("op-1", "plug_memory", dict(PLUG), "unknown", 1, 2 * GIB)
    one = moving(resize=doubt)
    done = give(one, reported(S.UP, on="H2", epoch=4), "agent/H2@host-2")
    assert sent_to(done, CLUSTER) == [m.PromoteCopy("v1", 4, "H1", 3)], "it keeps the larger"
    fired = give(one, m.TimerFired("size"))
    assert sent_to(fired, "agent/H2@host-2") == [m.MeasureDomain("v1", 4, "op-1")]
    assert give(one, measured(1, 1), AGENT).sent == [], "of the copy that it has left"
    done = give(one, measured(1, 1, epoch=4), "agent/H2@host-2")
    assert sent_to(done, CLUSTER) == [held(1, 1, epoch=4)]


def test_takeover_is_a_new_life_of_the_defined_size() -> None:
    doubt = Resize("op-1", "plug_memory", dict(PLUG), "asked", 1, 2 * GIB)
    one = taken_over(resize=doubt, now_vcpus=3, now_memory_bytes=GIB, copy_vcpus=1, copy_memory_bytes=GIB)
    one.record.tasks = {"op-1": "plug_memory"}
    done = give(one, reported(S.UP, on="H2", epoch=4), "agent/H2@host-2")
    assert "op-1" in [end.operation_id for end in endings(done)]
    assert sizes(one) == ((1, 1), (1, 1))
    assert one.record.resize is None


def test_stray_that_is_adopted_is_as_large_as_it_was_begun() -> None:
    stray = Stray("H2", "agent/H2@host-2", 4, "boot-2", may_run=True, vcpus=2, memory_bytes=2 * GIB)
    one = vm(status=S.UNKNOWN, lease=True, high_availability=True, strays=(stray,), epoch_issued=4)
    one.record.vcpus = 8
    give(one, reported(S.UP, on="H2", epoch=4), "agent/H2@host-2")
    assert one.record.host == "H2"
    assert sizes(one) == ((2, 2), (8, 1))


def test_all_that_a_change_of_size_stands_on_is_in_the_record() -> None:
    for one in (asked(up()), in_doubt(up())):
        again = Vm(msgspec.msgpack.decode(msgspec.msgpack.encode(one.record), type=type(one.record)))
        give(again, ended(), AGENT)
        assert sizes(again) == ((1, 2), (1, 2))
