"""The folder of a grid's results while it is being run: what is durable when, and who may write.

| file | |
|---|---|
| `grid.json` | the grid, and what it ran with |
| `cells.jsonl` | its runs, in their order |
| `runs.jsonl` | the outcomes, each a line, in the order in which they came; only ever appended to |
| `runs.parquet` | the figures in the order of the cells; written when the last one is there |

Rules:
1. An outcome is there when `append` has returned: a line that a kill has torn is cut off at the next start.
2. One process at a time writes: the others are refused by the lock of `runs.jsonl`.
3. Nothing is thrown away. Outcomes of cells that the grid has no more stay in the log, and count for nothing.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

import msgspec

from olvm.experiments.grids.reading import AnyGrid
from olvm.experiments.grids.worker import AnyCell, Outcome
from olvm.model.errors import BadInput, Conflict, NotFound

GRID, CELLS, LOG, RUNS = "grid.json", "cells.jsonl", "runs.jsonl", "runs.parquet"
_encoder, _outcomes = msgspec.json.Encoder(), msgspec.json.Decoder(Outcome)


class GridLog:
    """The one writer of a folder. A context.

    Raises `Conflict` where another process writes, or the folder is something else's, and `BadInput` where it cannot
    be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if folder.exists() and not (folder / LOG).exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise Conflict(f"{folder} is there and no grid wrote it: give another folder, or remove it")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = (folder / LOG).open("ab+")
        except OSError as error:
            raise BadInput(
                f"cannot write to {folder}: {error.strerror}; give a folder that can be written"
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise Conflict(
                f"another process runs the grid in {folder}: wait for it, or give another folder"
            ) from None

    def __enter__(self) -> GridLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def begin(self, grid: AnyGrid, cells: Iterable[AnyCell]) -> dict[str, Outcome]:
        """Write down what is to be run; the outcomes that are there already, by cell."""
        _replace(self.folder / CELLS, b"".join(_encoder.encode(cell) + b"\n" for cell in cells))
        _replace(self.folder / GRID, msgspec.json.format(_encoder.encode(grid), indent=2) + b"\n")
        (self.folder / RUNS).unlink(missing_ok=True)
        self._file.seek(0)
        data = self._file.read()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            self._file.truncate(whole)
        return _by_cell(data[:whole], self.folder)

    def append(self, outcomes: Iterable[Outcome]) -> None:
        self._file.write(b"".join(_encoder.encode(outcome) + b"\n" for outcome in outcomes))
        self._file.flush()
        os.fsync(self._file.fileno())


def read_folder(folder: Path) -> tuple[AnyGrid, list[AnyCell], dict[str, Outcome]]:
    """The grid, its cells in their order, and the outcomes so far, also while it is being run.

    Raises `NotFound` where no grid has results.
    """
    try:
        grid = msgspec.json.decode((folder / GRID).read_bytes(), type=AnyGrid)
        lines = (folder / CELLS).read_bytes().splitlines()
        data = (folder / LOG).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(
            f"there are no results of a grid in {folder}: `olvm experiment run` writes them"
        ) from None
    except msgspec.DecodeError as error:
        raise BadInput(
            f"cannot read {folder / GRID}: {error}; run the grid again, nothing is run twice"
        ) from error
    cells = [msgspec.json.decode(line, type=AnyCell) for line in lines]
    return grid, cells, _by_cell(data[: data.rfind(b"\n") + 1], folder)


def _by_cell(data: bytes, folder: Path) -> dict[str, Outcome]:
    """The last word of each: a cell that failed is run again at the next start."""
    found: dict[str, Outcome] = {}
    for number, line in enumerate(data.splitlines(), start=1):
        try:
            outcome = _outcomes.decode(line)
        except msgspec.DecodeError as error:
            raise BadInput(
                f"line {number} of {folder / LOG} is damaged ({error}): remove that line, and its run is made again"
            ) from error
        found[outcome.id] = outcome
    return found


def _replace(path: Path, data: bytes) -> None:
    """Whole or not at all."""
    fresh = path.with_name(path.name + ".new")
    with fresh.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
