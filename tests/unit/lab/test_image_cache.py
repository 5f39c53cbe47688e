"""Images are built by one process at a time."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from olvm.lab.image_cache import alone


def is_free(lock: Path) -> bool:
    with lock.open("w") as asked:
        try:
            fcntl.flock(asked, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_second_builder_of_a_kind_waits_and_one_of_another_kind_does_not(tmp_path: Path) -> None:
    with alone(tmp_path, "debian"), alone(tmp_path, "guest"):
        assert not is_free(tmp_path / "debian.lock")
    assert is_free(tmp_path / "debian.lock")


def test_builder_that_fails_lets_the_next_one_build(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), alone(tmp_path, "debian"):
        raise RuntimeError("no package")
    assert is_free(tmp_path / "debian.lock")
