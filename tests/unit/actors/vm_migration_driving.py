"""What the tests of live migrations give a machine's actor, and what they hear of it."""

from __future__ import annotations

from actors.behaviour import Turn
from actors.vm import Vm
from olvm.model import messages as m
from olvm.model.situations import SITUATIONS
from olvm.model.vm_states import VmStatus
from tests.builders import GIB, encoded, turn

S = VmStatus
SOURCE, TARGET, CLUSTER = "agent/H1@host-1", "agent/H2@host-2", "cluster/prod"
PLACED = m.CopyPlaced(4, "H2", TARGET, "boot-2", "post_copy", 52.0)
QUERIES = [(SOURCE, m.QueryDomain("v1", "vm/v1", 3), False), (TARGET, m.QueryDomain("v1", "vm/v1", 4), False)]


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


def events(done: Turn) -> list[str]:
    return [event.code for event in done.events]


def ask(epoch: int = 4, **fields: object) -> m.PlaceCopy:
    return m.PlaceCopy("v1", "web", epoch, "migration", "H1", 1, GIB, **fields)  # type: ignore[arg-type]


def failed(code: str = "") -> m.MigrationFailed:
    return m.MigrationFailed("H1", 3, 4, "no route", code)
