"""Runs a grid: which of its cells are still to be run, on which workers, and what is written when.

The face is `run_grid`. Cells go to workers in chunks, small enough that little is lost with a worker and large enough
that thousands of short runs are cheap.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from olvm.experiments.consolidation import policies
from olvm.experiments.grids.cells import replay_cells
from olvm.experiments.grids.log import RUNS, GridLog
from olvm.experiments.grids.planetlab import PlanetlabCell, PlanetlabGrid, planetlab_cells
from olvm.experiments.grids.progress import Listener, Progresses
from olvm.experiments.grids.reading import AnyGrid, read_grid
from olvm.experiments.grids.results import Results, load_results, write_runs
from olvm.experiments.grids.worker import AnyCell, Outcome, run_cells
from olvm.experiments.running import load_kernels
from olvm.model.errors import BadInput

CHUNK_S = 0.5  # how long a worker should be busy with what it is given at once
CHUNK_CELLS_MAX = 500
CHUNKS_AHEAD = 2  # of each worker
# A worker that ends takes its runs with it: they are run again, each alone, so often. Then one of them is the reason.
LOSSES_MAX = 2


def run_grid(
    grid: str | Path | Mapping[str, Any],
    out: str | Path,
    *,
    workers: int | None = None,
    address: str | None = None,
    on_progress: Listener | None = None,
) -> Results:
    """Run what of the grid is not there yet, and say what came out.

    A grid that was killed goes on where it stood; what was run with other inputs is run anew. A run that fails is in
    the results with its error, and is tried again at the next start.

    Args:
        grid: a TOML file, or the same as a mapping (docs/experiments.md).
        out: the folder of results; made where it is not there.
        workers: Ray tasks at a time; None: one for each CPU of the machine, or of the cluster. 0: all runs in this
            process, without Ray.
        address: of a Ray cluster; None: a Ray of its own on this machine, ended afterwards. On each of its nodes this
            olvm must be installed, and traces, CSV files of hosts and modules of one's own policies be found under the
            same paths; results are written here alone. Runs of a node that is lost are run on those that are left.
        on_progress: told of each step, in this thread.

    Raises:
        BadInput, NotFound: the grid makes no sense, or an input of it is not there.
        Conflict: `out` is something else's folder, or another process runs a grid there.

    Cost: what its replays cost; 2,000 of 300 VMs take 1.5 s in one process. Ray takes 4.6 s to start and to end, and
    these runs 9.4 s in all: it is for longer ones.
    """
    if not isinstance(grid, Mapping):
        _look_in(Path(grid).parent)  # for policies of one's own
    definition, folder = read_grid(grid)
    if workers is not None and not 0 <= workers <= 10_000:
        raise BadInput(f"a grid cannot have {workers} workers: give 1 or more, or 0 for this process alone")
    if workers == 0 and address:
        raise BadInput("a Ray cluster has workers: leave out the address, or give more than 0")
    place = Path(out)
    search_path = [os.path.abspath(path) for path in sys.path if not path or os.path.isdir(path)]
    cells = cells_of(definition, folder)
    with GridLog(place) as log:
        kept = log.begin(definition, cells)
        waiting = [cell for cell in cells if cell.id not in kept or kept[cell.id].error]
        progress = Progresses(cells, kept, definition.metric, on_progress)
        for outcomes in _outcomes(waiting, search_path, workers, address):
            log.append(outcomes)
            progress.add(outcomes)
        results = load_results(place)
        if results.is_whole:
            write_runs(results, place / RUNS)
    return results


def cells_of(grid: AnyGrid, folder: Path) -> list[AnyCell]:
    """All runs of a grid, in their order."""
    if isinstance(grid, PlanetlabGrid):
        return [*planetlab_cells(grid, folder)]
    return [*replay_cells(grid, folder)]


def _look_in(folder: Path) -> None:
    path = str(folder.absolute())
    if path not in sys.path:
        sys.path.insert(0, path)


def _outcomes(
    waiting: list[AnyCell], search_path: list[str], workers: int | None, address: str | None
) -> Iterator[list[Outcome]]:
    if workers == 0 or not waiting:
        for cell in waiting:
            yield run_cells([cell], search_path)
        return
    if address is None:  # or each worker of an own Ray would compile for itself
        if isinstance(waiting[0], PlanetlabCell):
            policies.prepare()
        else:
            load_kernels()
    with _pool(workers or os.cpu_count() or 1, address) as (pool, cpus):
        yield from _spread(waiting, search_path, pool, workers or cpus)


@contextmanager
def _pool(workers: int, address: str | None) -> Iterator[tuple[Executor, int]]:
    """Where tasks run, and how many at a time."""
    from actors.ray_runtime import RayPool

    pool = RayPool(cpus=workers, address=address)
    try:
        yield pool, pool.cpus
    finally:
        pool.shutdown()


def _spread(
    waiting: list[AnyCell], search_path: list[str], pool: Executor, workers: int
) -> Iterator[list[Outcome]]:
    """Outcomes as they come."""
    chunks = _Chunks(waiting, workers)
    running: dict[Future[list[Outcome]], list[AnyCell]] = {}
    try:
        while running or chunks.are_left:
            while chunks.are_left and len(running) < CHUNKS_AHEAD * workers:
                chunk = chunks.take()
                running[pool.submit(run_cells, chunk, search_path)] = chunk
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                outcomes = chunks.outcomes_of(future, running.pop(future))
                if outcomes:
                    yield outcomes
    finally:
        for future in running:
            future.cancel()


class _Chunks:
    """What is still to be given to workers, and how much at once."""

    def __init__(self, cells: list[AnyCell], workers: int) -> None:
        self._waiting = deque(cells)
        self._lost: deque[AnyCell] = deque()  # of workers that ended
        self._losses: dict[str, int] = {}  # by cell
        self._workers = workers
        self._size = 1
        self._took_s, self._run_count = 0.0, 0

    @property
    def are_left(self) -> bool:
        return bool(self._waiting or self._lost)

    def take(self) -> list[AnyCell]:
        if not self._waiting:
            return [self._lost.popleft()]
        count = max(1, min(self._size, len(self._waiting) // self._workers))
        return [self._waiting.popleft() for _ in range(count)]

    def outcomes_of(self, future: Future[list[Outcome]], chunk: list[AnyCell]) -> list[Outcome]:
        """Of those that need not be run again."""
        try:
            outcomes = future.result()
        except Exception as error:  # noqa: BLE001 - of whatever kind the pool has for a worker that died
            return self._on_worker_lost(chunk, f"{type(error).__name__}: {error}".strip())
        self._took_s += sum(outcome.took_s for outcome in outcomes)
        self._run_count += len(outcomes)
        self._size = max(1, min(CHUNK_CELLS_MAX, int(CHUNK_S * self._run_count / max(self._took_s, 1e-6))))
        return outcomes

    def _on_worker_lost(self, chunk: list[AnyCell], why: str) -> list[Outcome]:
        given_up = []
        for cell in chunk:
            self._losses[cell.id] = self._losses.get(cell.id, 0) + 1
            if self._losses[cell.id] > LOSSES_MAX:
                given_up.append(Outcome(id=cell.id, error=f"its worker ended, {LOSSES_MAX + 1} times: {why}"))
            else:
                self._lost.append(cell)
        return given_up
