"""A full disk, and a kill, at any point of a roll-up, a move to Parquet and a retention pass: nothing lost or doubled.

Whatever befalls the file, once there is room and a process again it comes to what an undisturbed one comes to.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from olvm.history import archive
from olvm.history import store as store_module
from olvm.history.store import HistoryStore
from olvm.model.errors import JournalUnwritable
from tests.unit.history.maintenance import check_nothing_twice, fill, settle, state, struck

ROOT = Path(__file__).parents[3]
NO_ROOM = "Could not write file: No space left on device"

# What may leave something behind: ends of transactions, what writes, and what folds the log into the file.
_WRITES = ("begin", "commit", "copy ", "insert into", "delete from vm_", "delete from archive", "checkpoint")


@pytest.fixture(scope="module", autouse=True)
def passes_fold_the_log() -> Iterator[None]:
    """However short the log is: folding is one more place to be struck at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_module, "LOG_FOLDED_BYTES", 0)
        yield


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a file that has everything to be done; to be copied."""
    directory = tmp_path_factory.mktemp("filled") / "history"
    directory.mkdir()
    fill(directory / "history.duckdb")
    return directory


@pytest.fixture(scope="module")
def undisturbed(filled: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], list[str]]:
    """What the file comes to, and the statements on the way."""
    path = _copied(filled, tmp_path_factory.mktemp("undisturbed"))
    with HistoryStore.open(path) as store:
        faulty = struck(store, lambda _number, _when: None)
        settle(store)
        found = state(store)
    assert found["samples"] == found["due"] == []
    assert [row[3] for row in found["files"]] == [6]  # day 55 has moved, and day 0 is past its time
    assert len(found["hours"]) == len(found["days"]) == 6  # two hours of three machines; two days of them
    return found, faulty.said


def _copied(filled: Path, to: Path) -> Path:
    return Path(shutil.copytree(filled, to / "history")) / "history.duckdb"


def _points(said: list[str]) -> list[tuple[int, str]]:
    """Numbers of the statements of the first pass, and whether before or after."""
    first_pass = said[: said.index("checkpoint") + 1]
    found = [(number, "before") for number, sql in enumerate(first_pass, 1) if sql.startswith(_WRITES)]
    ends = ("commit", "copy ", "checkpoint")
    return found + [(number, "after") for number, sql in enumerate(first_pass, 1) if sql.startswith(ends)]


def _check_comes_to(path: Path, expected: dict[str, Any]) -> None:
    with HistoryStore.open(path) as store:
        check_nothing_twice(store)
        settle(store)
        assert state(store) == expected


def test_disk_full_at_any_statement_loses_nothing_and_goes_on_when_there_is_room(
    filled: Path, undisturbed: tuple[dict[str, Any], list[str]], tmp_path: Path
) -> None:
    expected, said = undisturbed
    points = _points(said)
    assert len(points) > 25
    for number, when in points:
        directory = tmp_path / f"{number}-{when}"
        path = _copied(filled, directory)

        def full(count: int, moment: str, at: tuple[int, str] = (number, when)) -> None:
            if (count, moment) == at:
                raise duckdb.IOException(NO_ROOM)

        with HistoryStore.open(path) as store:
            struck(store, full)
            with pytest.raises(JournalUnwritable, match="check free space"):
                settle(store)
            settle(store)  # the same process goes on
            check_nothing_twice(store)
            assert state(store) == expected, (number, when, said[number - 1])
        shutil.rmtree(directory)


@pytest.mark.parametrize(("where", "call"), [("_sync", 1), ("_sync", 2), ("replace", 1)])
def test_disk_full_while_a_parquet_file_is_put_in_place_leaves_its_rows_in_the_table(
    filled: Path,
    undisturbed: tuple[dict[str, Any], list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    call: int,
) -> None:
    path = _copied(filled, tmp_path)
    module = archive if where == "_sync" else os
    real, calls = getattr(module, where), []

    def full(*arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) == call:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(*arguments)

    with HistoryStore.open(path) as store:
        monkeypatch.setattr(module, where, full)
        with pytest.raises(JournalUnwritable, match="No space left"):
            settle(store)
        monkeypatch.undo()
    with HistoryStore.open(path) as store:
        listed = [row[2] for row in store.query("select * from archive_files").rows]
        assert sorted(file.name for file in (path.parent / "history-parquet").iterdir()) == sorted(listed)
    _check_comes_to(path, undisturbed[0])


def test_process_killed_at_any_end_of_a_transaction_leaves_a_file_that_comes_to_the_same(
    filled: Path, undisturbed: tuple[dict[str, Any], list[str]], tmp_path: Path
) -> None:
    expected, said = undisturbed
    ends = ("commit", "copy ", "checkpoint")
    points = [(number, when) for number, when in _points(said) if said[number - 1].startswith(ends)]
    assert len(points) >= 14
    for number, when in points:
        directory = tmp_path / f"{number}-{when}"
        path = _copied(filled, directory)
        killed = subprocess.run(
            [sys.executable, "-m", "tests.unit.history.maintenance", str(path), str(number), when],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        _check_comes_to(path, expected)
        shutil.rmtree(directory)


# ---------------------------------------------------------------- a disk that is really full


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 32 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() != 0:
        pytest.skip("a small tmpfs needs root: run this test as root")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(place)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"a small tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_disk_that_is_really_full_loses_nothing(
    filled: Path, undisturbed: tuple[dict[str, Any], list[str]], small_disk: Path
) -> None:
    refused_count = 0
    for room_kib in (0, 4, 16, 64, 128, 256, 512, 1024):
        path = _copied(filled, small_disk)
        ballast = small_disk / "ballast"
        with HistoryStore.open(path) as store:
            free = os.statvfs(small_disk)
            with ballast.open("wb") as file:
                os.posix_fallocate(
                    file.fileno(), 0, max(free.f_bavail * free.f_bsize - room_kib * 1024, 4096)
                )
            try:
                settle(store)
            except JournalUnwritable:
                refused_count += 1
            ballast.unlink()
            settle(store)
            check_nothing_twice(store)
            assert state(store) == undisturbed[0], room_kib
        shutil.rmtree(path.parent)
    assert refused_count >= 2
