"""Each oracle of history fires on the thing it is for, and keeps silent a hair's breadth before it."""

from __future__ import annotations

import msgspec

from olvm.model.host_states import HostStatus
from olvm.model.records import EventRecord, HostRecord, OperationRecord
from sim.oracles.board import Board
from sim.oracles.oracle import ReportName
from tests.unit.history.building import event as told
from tests.unit.history.building import vm_report
from tests.unit.sim.oracle_scene import Scene, fires, saved

AGENT = "agent/H1@host-1"


def name_of(seq: int) -> ReportName:
    return "vm", "H1", 1, seq


def report(seq: int, at_ns: int = 1) -> bytes:
    return vm_report(host="H1", seq=seq, at_ns=at_ns)


def test_s14_acknowledged_report_that_is_not_on_the_disk_fires(board: Board, scene: Scene) -> None:
    board.samples_sent(AGENT, 1, 1, report(1))
    board.samples_sent(AGENT, 1, 2, report(2))
    scene.stored[name_of(1)] = report(1)
    board.samples_acknowledged(AGENT, 1, [1])
    board.samples_acknowledged(AGENT, 1, [1])  # said twice
    assert "is not in history" in fires("S14", lambda: board.samples_acknowledged(AGENT, 1, [2]))


def test_s14_another_report_under_its_name_fires(board: Board, scene: Scene) -> None:
    scene.stored[name_of(1)] = report(1, at_ns=5)
    board.samples_sent(AGENT, 1, 1, report(1))
    assert "another report" in fires("S14", lambda: board.samples_acknowledged(AGENT, 1, [1]))


def test_s14_word_to_a_former_life_is_not_judged(board: Board) -> None:
    board.samples_sent(AGENT, 1, 1, report(1))
    board.samples_sent(AGENT, 2, 1, report(1, at_ns=5))
    board.samples_acknowledged(AGENT, 1, [1])


def test_s15_second_copy_of_a_report_fires(board: Board) -> None:
    board.report_stored(name_of(1), report(1))
    fires("S15", lambda: board.report_stored(name_of(1), report(1)))


def test_s15_event_out_of_sequence_or_other_than_committed_fires(board: Board, scene: Scene) -> None:
    scene.has_history = True
    board.committed("engine", saved(told(1)))
    board.committed("engine", saved(told(2)))
    board.event_stored("engine", told(1))
    assert "after event 1" in fires("S15", lambda: board.event_stored("engine", told(3)))
    changed = msgspec.structs.replace(told(2), message="something else")
    assert "not as the engine" in fires("S15", lambda: board.event_stored("engine", changed))


def test_s15_operation_that_has_not_ended_by_the_engines_disk_fires(board: Board, scene: Scene) -> None:
    scene.has_history = True
    asked = OperationRecord(id="o", kind="start_vm", target_kind="vm", target_id="a", target_name="v1")
    board.committed("engine", saved(asked))
    ended = msgspec.structs.replace(asked, finished_ns=5)
    fires("S15", lambda: board.operation_stored(ended))
    board.committed("engine", saved(ended))
    board.operation_stored(ended)


def in_service(scene: Scene, board: Board) -> None:
    """Host H1 is up, and its agent has sent reports 1 to 3, of which history has all but the second."""
    scene.has_history = True
    scene.rows = [HostRecord(name="H1", cluster="prod", status=HostStatus.UP)]
    for number in (1, 2, 3):
        board.samples_sent(AGENT, 1, number, report(number))
    for seq in (1, 3):
        board.report_stored(name_of(seq), report(seq))


def test_l6_report_of_a_living_agent_that_never_arrives_fires_unless_it_was_told(
    board: Board, scene: Scene
) -> None:
    in_service(scene, board)
    oracle = next(one for one in board.oracles if one.ID == "L6")
    oracle.settled()  # type: ignore[attr-defined]  # it may be on its way
    scene.at(1_100)
    board.samples_sent(AGENT, 1, 4, report(4))
    assert "1 reports of host H1" in fires("L6", oracle.settled)  # type: ignore[attr-defined]
    loss = EventRecord(
        id="e", seq=1, at_ns=1, code="samples_dropped", severity="warning", message="", host="H1"
    )
    loss.details["reports"] = 1
    board.committed("engine", saved(loss))
    board.event_stored("engine", loss)
    oracle.settled()  # type: ignore[attr-defined]


def test_l6_host_in_service_of_which_nothing_comes_fires(board: Board, scene: Scene) -> None:
    in_service(scene, board)
    board.report_stored(name_of(2), report(2))
    oracle = next(one for one in board.oracles if one.ID == "L6")
    scene.at(1_089)
    oracle.settled()  # type: ignore[attr-defined]
    scene.at(1_091)
    assert "no samples of it came" in fires("L6", oracle.settled)  # type: ignore[attr-defined]
    scene.off = {"H1"}
    oracle.settled()  # type: ignore[attr-defined]


def test_l6_event_or_operation_that_history_never_gets_fires(board: Board, scene: Scene) -> None:
    scene.has_history = True
    board.committed("engine", saved(told(1)))
    oracle = next(one for one in board.oracles if one.ID == "L6")
    scene.at(1_059)
    oracle.settled()  # type: ignore[attr-defined]
    scene.at(1_061)
    assert "event 1" in fires("L6", oracle.settled)  # type: ignore[attr-defined]
    board.event_stored("engine", told(1))
    oracle.settled()  # type: ignore[attr-defined]
