"""Fixtures of the history tests: a store on a real file."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from olvm.history.store import HistoryStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.duckdb"


@pytest.fixture
def store(path: Path) -> Iterator[HistoryStore]:
    store = HistoryStore.open(path)
    yield store
    store.close()


@pytest.fixture
def disk_limit() -> Iterator[Callable[[int | None], None]]:
    """A disk that takes files of so many bytes and no more; None gives the room back.

    The kernel enforces it, so what DuckDB meets is a write that truly fails.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(byte_count: int | None) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft if byte_count is None else byte_count, hard))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
