"""What is accepted has an operation that ends; what is refused changes nothing."""

from __future__ import annotations

import pytest

from actors.behaviour import Turn
from actors.engine import Engine
from olvm.model import messages as m
from olvm.model.records import EngineRecord, InventoryRecord, OperationRecord
from tests.builders import GIB, create_vm, encoded, sent_to, turn


def engine() -> Engine:
    made = Engine(EngineRecord(), {}, {})
    accept(made, m.CreateCluster("prod"))
    return made


def give(one: Engine, message: m.AnyMessage) -> Turn:
    done = turn(me="engine", sender="client/1")
    ids = iter(f"id-{one.record.accepted_count}-{number}" for number in range(9))
    done.new_id = lambda: next(ids)
    one.handle(message, done)
    return done


def accept(one: Engine, command: m.Command, request_id: str = "") -> m.OperationView:
    (answer,) = sent_to(give(one, m.Submit(command, request_id)), "client/1")
    assert isinstance(answer, m.OperationView), answer
    return answer


REFUSED: dict[str, tuple[m.Command, str]] = {
    "name taken": (m.CreateCluster("prod"), "duplicate_name"),
    "bad name": (m.CreateCluster("no spaces"), "bad_input"),
    "no such cluster": (m.RemoveCluster("lab"), "not_found"),
    "no such machine": (m.VmCommand("ghost", "start"), "not_found"),
    "no such host": (m.HostCommand("H9", "activate"), "not_found"),
    "host of no silo": (m.AddHost("H1", "prod", 8, 16 * GIB), "bad_input"),
    "host without cpus": (m.AddHost("H1", "prod", 0, 16 * GIB, silo="host-1"), "bad_input"),
    "machine without memory": (create_vm(memory_bytes=1), "bad_input"),
    "overcommit": (m.UpdateCluster("prod", memory_overcommit_percent=50), "bad_input"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_engine_refused_command_changes_nothing(case: str) -> None:
    command, code = REFUSED[case]
    one = engine()
    before = (encoded(one.record), dict(one.inventory), dict(one.open))
    done = give(one, m.Submit(command))
    (answer,) = sent_to(done, "client/1")
    assert isinstance(answer, m.Refusal)
    assert (answer.code, bool(answer.reason)) == (code, True)
    assert (encoded(one.record), dict(one.inventory), dict(one.open)) == before
    assert (done.saved, done.spawned, len(done.sent)) == ([], [], 1)


def test_engine_accepted_command_saves_all_that_it_changed() -> None:
    """Found by replay: the counters changed without being saved."""
    one = engine()
    done = give(one, m.Submit(create_vm()))
    assert {type(record) for record in done.saved} == {EngineRecord, InventoryRecord, OperationRecord}
    ended = give(one, m.OperationEnded(next(iter(one.open)), False, "no room", "no_capacity"))
    assert {type(record) for record in ended.saved} == {EngineRecord, OperationRecord}
    assert (one.record.accepted_count, one.record.failed_count) == (2, 1)


def test_engine_request_repeated_gets_the_operation_of_the_first_also_when_it_has_ended() -> None:
    one = engine()
    first = accept(one, create_vm(), "request-1")
    assert accept(one, create_vm(), "request-1") == first
    give(one, m.OperationEnded(first.id, True))
    again = accept(one, create_vm(), "request-1")
    assert (again.id, again.status) == (first.id, "succeeded")


def test_engine_end_told_twice_counts_once() -> None:
    one = engine()
    first = accept(one, create_vm())
    give(one, m.OperationEnded(first.id, True))
    done = give(one, m.OperationEnded(first.id, False, "late", "conflict"))
    assert (done.saved, done.sent, one.record.succeeded_count) == ([], [], 1)


def test_engine_name_is_free_again_after_removal() -> None:
    one = engine()
    accept(one, create_vm())
    done = give(one, m.EntityRemoved("vm", "web"))
    assert len(done.erased) == 1
    assert accept(one, create_vm()).status == "running"


def test_engine_recovered_raises_its_epoch() -> None:
    one = engine()
    done = give(one, m.Recovered())
    assert (one.record.epoch, done.saved) == (1, [one.record])


def test_engine_message_of_another_actor_is_a_fault_of_the_programmer() -> None:
    with pytest.raises(AssertionError, match="cannot handle"):
        give(engine(), m.HostLost("H1", ""))
