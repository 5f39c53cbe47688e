"""A world of values and the oracles that watch it, for the tests of oracles."""

from __future__ import annotations

import pytest

from sim.oracles.board import Board
from tests.unit.sim.oracle_scene import Scene


@pytest.fixture
def scene() -> Scene:
    return Scene()


@pytest.fixture
def board(scene: Scene) -> Board:
    return Board(scene)
