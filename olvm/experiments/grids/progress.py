"""How a grid fares while it is being run: how far it is, how long it will take, and who leads.

Who leads is told of those blocks alone (a seed of a scenario, a day) that every policy has finished: else the policy
that has had the easy ones would lead.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import msgspec

from olvm.experiments.grids.worker import AnyCell, Outcome


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    policy: str
    mean: float


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """`kept_count`: done before this start. `left_s` None: not known yet. `standings`: the best first."""

    total_count: int
    kept_count: int
    done_count: int
    failed_count: int
    took_s: float
    left_s: float | None
    metric: str
    compared_count: int  # blocks that `standings` are means of
    block: str  # what one is called: seed, day
    standings: tuple[Standing, ...]


Listener = Callable[[Progress], None]


class Progresses:
    def __init__(
        self, cells: list[AnyCell], kept: dict[str, Outcome], metric: str, listener: Listener | None
    ) -> None:
        self._cell_by_id = {cell.id: cell for cell in cells}
        self._metric = metric
        self._block = cells[0].BLOCK if cells else ""
        self._listener = listener
        self._began_s = time.monotonic()
        self._kept = sum(not outcome.error for id_, outcome in kept.items() if id_ in self._cell_by_id)
        self._done = self._failed = 0
        self._policies = list(dict.fromkeys(cell.policy for cell in cells))
        self._left = Counter(_block_of(cell) for cell in cells)  # runs of each block that are not done
        self._open: dict[tuple[object, ...], dict[str, list[float]]] = {}
        self._sums = dict.fromkeys(self._policies, 0.0)
        self._compared = 0
        for outcome in kept.values():
            self._compare(outcome)
        self._tell()

    def add(self, outcomes: list[Outcome]) -> None:
        self._done += len(outcomes)
        self._failed += sum(bool(outcome.error) for outcome in outcomes)
        for outcome in outcomes:
            self._compare(outcome)
        self._tell()

    def _compare(self, outcome: Outcome) -> None:
        cell = self._cell_by_id.get(outcome.id)
        if cell is None or outcome.error:
            return
        key = _block_of(cell)
        values = self._open.setdefault(key, {})
        values.setdefault(cell.policy, []).append(float(outcome.figures[self._metric]))
        self._left[key] -= 1
        if not self._left[key]:
            del self._open[key]
            self._compared += 1
            for policy, of_policy in values.items():
                self._sums[policy] += sum(of_policy) / len(of_policy)

    def _tell(self) -> None:
        if self._listener is None:
            return
        took_s = time.monotonic() - self._began_s
        left = len(self._cell_by_id) - self._kept - self._done
        means = [
            Standing(policy=name, mean=total / max(1, self._compared)) for name, total in self._sums.items()
        ]
        self._listener(
            Progress(
                total_count=len(self._cell_by_id),
                kept_count=self._kept,
                done_count=self._done,
                failed_count=self._failed,
                took_s=took_s,
                left_s=took_s / self._done * left if self._done else None,
                metric=self._metric,
                compared_count=self._compared,
                block=self._block,
                standings=tuple(sorted(means, key=lambda one: one.mean)) if self._compared else (),
            )
        )


def _block_of(cell: AnyCell) -> tuple[object, ...]:
    return (*cell.scenario.values(), cell.block)
