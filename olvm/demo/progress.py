"""Shows how far the replay has come: one live line on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import time
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from olvm.demo.replay import Replay

PLAIN_PERIOD_S = 5.0
LIVE_PERIOD_S = 0.2


class ProgressLine:
    """Start it with `with`; call `show` as often as you like."""

    def __init__(self, replay: Replay, stream: TextIO) -> None:
        self._replay = replay
        self._console = Console(file=stream, highlight=False)
        self._due_s = 0.0
        self._news = ""
        self._bar: Progress | None = None
        if self._console.is_terminal:
            columns = (TextColumn("{task.fields[clock]}"), BarColumn(16), TextColumn("{task.fields[text]}"))
            self._bar = Progress(*columns, console=self._console, transient=True)
            self._task = self._bar.add_task("replay", total=replay.plan.seconds, clock="", text="")

    def __enter__(self) -> ProgressLine:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)

    def show(self, news: str) -> None:
        if news and news != self._news:
            self._news = news
            self.say(f"  !! {self._replay.now_s:5.1f} s  {news}")
        if time.monotonic() < self._due_s:
            return
        clock, text = self._texts()
        if self._bar is not None:
            self._due_s = time.monotonic() + LIVE_PERIOD_S
            self._bar.update(self._task, completed=self._replay.now_s, clock=clock, text=text)
        else:
            self._due_s = time.monotonic() + PLAIN_PERIOD_S
            self.say(f"  {clock}  {text}")

    def _texts(self) -> tuple[str, str]:
        replay = self._replay
        minutes = min(replay.now_s, replay.plan.seconds) * replay.plan.speed / 60
        clock = f"{replay.now_s:5.1f} s = {minutes:5.1f} min of trace"
        text = (
            f"{replay.count('running'):4} running  {replay.in_flight_count:4} in flight  "
            f"{len(replay.ledger.ends):5} ended"
        )
        return clock, text
