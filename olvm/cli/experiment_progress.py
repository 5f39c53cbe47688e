"""How a grid's progress looks: on a terminal a bar with the leaders below it, elsewhere a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType

    from olvm.experiments.grids.progress import Progress

LINE_PERIOD_S = 10.0
FRAMES_A_SECOND = 8
LEADERS_MAX = 8
BAR = 40


@contextmanager
def shown_progress() -> Iterator[Callable[[Progress], None]]:
    """On stderr. Leaves the last state standing."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(stderr=True), refresh_per_second=FRAMES_A_SECOND) as live:
        yield lambda progress: live.update(frame(progress))


class _Lines:
    """The first, the last, and one each ten seconds."""

    def __init__(self) -> None:
        self._told_s = -LINE_PERIOD_S

    def __call__(self, progress: Progress) -> None:
        is_last = progress.kept_count + progress.done_count == progress.total_count
        if is_last or time.monotonic() - self._told_s >= LINE_PERIOD_S:
            self._told_s = time.monotonic()
            print(line(progress), file=sys.stderr, flush=True)


def line(progress: Progress) -> str:
    done = progress.kept_count + progress.done_count
    words = [f"{done:,} of {progress.total_count:,} runs"]
    if progress.kept_count:
        words.append(f"{progress.kept_count:,} were there")
    if progress.failed_count:
        words.append(f"{progress.failed_count:,} failed")
    if progress.left_s is not None and done < progress.total_count:
        words.append(f"about {duration(progress.left_s)} left")
    if progress.standings:
        best = progress.standings[0]
        words.append(f"best so far {best.policy}, mean {progress.metric} {best.mean:,.4g}")
    return ", ".join(words)


def frame(progress: Progress) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    done = progress.kept_count + progress.done_count
    filled = BAR * done // max(1, progress.total_count)
    parts: list[RenderableType] = [Text("█" * filled + "░" * (BAR - filled) + "  " + line(progress))]
    if progress.standings:
        table = Table(box=None, pad_edge=False)
        table.add_column("POLICY")
        table.add_column(f"MEAN {progress.metric}".upper(), justify="right")
        for one in progress.standings[:LEADERS_MAX]:
            table.add_row(Text(one.policy), f"{one.mean:,.6g}")
        parts.append(table)
        parts.append(
            Text(
                f"over {progress.compared_count:,} pairs of scenario and {progress.block} that all have finished"
            )
        )
    return Group(*parts)


def duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
