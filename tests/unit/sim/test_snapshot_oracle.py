"""S16 fires when the storage does not have what a client was told of a snapshot, and when it has what it must not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from olvm.model import messages as m
from olvm.model.records import OperationRecord
from sim.oracles.board import Board
from sim.oracles.s16_snapshots_stay import SnapshotsStay
from tests.unit.sim.oracle_scene import Scene, fires, saved

REFUSED = "host H1 has no machine a"
DOUBTFUL = "H1 did not say in time what became of it; it may have been done"


@pytest.fixture
def board(scene: Scene) -> Board:
    """Without the judges of a world at rest: nobody runs anything here."""
    return Board(scene, (SnapshotsStay,))


@pytest.fixture
def ask(board: Board) -> Callable[..., None]:
    """A client asks for a task of machine v1, and the engine commits how it ended, if it did."""
    count = 0

    def ask(verb: str, name: str = "s1", status: str = "", reason: str = "", **arguments: bool) -> None:
        nonlocal count
        count += 1
        board.asked("c", m.VmTask("v1", verb, {"name": name, **arguments}), f"request-{count}")
        row = OperationRecord(id=f"o{count}", kind=verb, target_kind="vm", target_id="a", target_name="v1")
        row.client_request_id = f"request-{count}"
        board.committed("engine", saved(row))
        if status:
            row.status, row.reason, row.finished_ns = status, reason, 7  # type: ignore[assignment]
            board.committed("engine", saved(row))

    return ask


def test_snapshot_that_was_taken_must_be_there(scene: Scene, board: Board, ask: Callable[..., None]) -> None:
    ask("create_snapshot", status="succeeded")
    assert "s1 of machine v1 was taken" in fires("S16", board.settled)
    scene.snapshots = {"a": ["s1"], "b": []}
    board.settled()
    scene.snapshots = {"b": ["s1"]}
    fires("S16", board.settled)


@pytest.mark.parametrize("status", ["", "failed", "succeeded"])
@pytest.mark.parametrize(
    ("verb", "arguments"), [("commit_snapshot", {}), ("revert_snapshot", {"discard_later": True})]
)
def test_what_may_have_taken_it_away_explains_that_it_is_gone(
    board: Board, ask: Callable[..., None], verb: str, arguments: dict[str, bool], status: str
) -> None:
    ask("create_snapshot", status="succeeded")
    ask(verb, status=status, reason=DOUBTFUL, **arguments)
    board.settled()


def test_revert_that_discards_nothing_and_a_commit_of_another_explain_nothing(
    board: Board, ask: Callable[..., None]
) -> None:
    ask("create_snapshot", status="succeeded")
    ask("revert_snapshot", status="succeeded")
    ask("commit_snapshot", "s2", status="succeeded")
    fires("S16", board.settled)


def test_committed_snapshot_must_be_gone(scene: Scene, board: Board, ask: Callable[..., None]) -> None:
    scene.snapshots = {"a": ["s1"]}
    ask("create_snapshot", status="succeeded")
    ask("commit_snapshot", status="failed", reason=REFUSED)
    board.settled()
    ask("commit_snapshot", status="succeeded")
    assert "committed" in fires("S16", board.settled)


def test_refused_snapshot_must_not_be_there_unless_nobody_knows(
    scene: Scene, board: Board, ask: Callable[..., None]
) -> None:
    scene.snapshots = {"a": ["s1"]}
    ask("create_snapshot", status="failed", reason=DOUBTFUL)
    ask("create_snapshot", "s2", status="failed", reason=REFUSED)
    board.settled()
    scene.snapshots = {"a": ["s1", "s2"]}
    assert f"refused ({REFUSED})" in fires("S16", board.settled)


def test_name_that_was_asked_for_twice_is_not_judged(
    scene: Scene, board: Board, ask: Callable[..., None]
) -> None:
    ask("create_snapshot", status="succeeded")
    ask("create_snapshot", status="failed", reason="it has one of that name")
    board.settled()
    scene.snapshots = {"a": ["s1"]}
    board.settled()


def test_command_that_is_repeated_is_one_command(board: Board) -> None:
    for _ in range(2):
        board.asked("c", m.VmTask("v1", "create_snapshot", {"name": "s1"}), "request-1")
    row = OperationRecord(
        id="o", kind="create_snapshot", target_kind="vm", target_id="a", target_name="v1", status="succeeded"
    )
    row.client_request_id, row.finished_ns = "request-1", 7
    board.committed("engine", saved(row))
    fires("S16", board.settled)
