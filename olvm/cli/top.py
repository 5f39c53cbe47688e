"""`olvm top`: hosts and machines as they are now, the busiest first."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from typing import Annotated, Literal

from cyclopts import Parameter

from olvm.api import live
from olvm.api.data_center import DataCenter
from olvm.api.live import Live
from olvm.cli.connection import data_center
from olvm.cli.options import CONNECTING, Connecting, Duration
from olvm.cli.output import GAP, shown
from olvm.model.errors import BadInput
from olvm.model.sizes import format_size

SortKey = Literal["cpu", "memory", "network", "name"]
SORT_BY_KEY: dict[str, SortKey] = {"c": "cpu", "m": "memory", "n": "network", "a": "name"}
PERIOD_S_MIN = 0.2
NAME_WIDTH_MAX = 24
HEADINGS = ("NAME", "STATUS", "CPU%", "MEMORY", "OF", "RECV/S", "SENT/S")


def top(
    *,
    sort: Annotated[SortKey, Parameter(help="What the first has most of.")] = "cpu",
    period: Annotated[Duration, Parameter(help="Look again after this long.")] = 2.0,
    once: Annotated[
        bool, Parameter(negative=(), help="One plain frame, as when stdout is no terminal.")
    ] = False,
    options: Connecting = CONNECTING,
) -> int:
    """Show hosts and machines live. Keys: c, m, n, a sort by CPU, memory, network, name; q ends."""
    if not period >= PERIOD_S_MIN:
        raise BadInput(f"period must be at least {PERIOD_S_MIN:g} s, got {period:g}")
    with data_center(options) as dc:
        if once or not sys.stdout.isatty():
            sys.stdout.write("\n".join(frame(dc, sort)) + "\n")
        else:
            _watch(dc, sort, period)
    return 0


def _watch(dc: DataCenter, sort: SortKey, period_s: float) -> None:
    """Until q or Ctrl-C. Each frame overwrites the last one, and is as high as the terminal."""
    with _screen(), _keys() as pressed:
        while True:
            size = shutil.get_terminal_size()  # 80 × 24 where a terminal does not know
            lines = [text[: size.columns] for text in frame(dc, sort)[: size.lines - 1]]
            sys.stdout.write("\x1b[H" + "".join(f"{text}\x1b[K\n" for text in lines) + "\x1b[J")
            sys.stdout.flush()
            key = pressed(period_s)
            if key == "q":
                return
            sort = SORT_BY_KEY.get(key, sort)


@contextlib.contextmanager
def _screen() -> Iterator[None]:
    """The terminal's other screen, without a cursor; what stood there before comes back."""
    sys.stdout.write("\x1b[?1049h\x1b[?25l")
    try:
        yield
    finally:
        sys.stdout.write("\x1b[?25h\x1b[?1049l")
        sys.stdout.flush()


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """Yields what waits so many seconds for one key; empty when none came. Without a terminal it only waits."""
    if not sys.stdin.isatty():

        def wait(period_s: float) -> str:
            time.sleep(period_s)
            return ""

        yield wait
        return
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)

    def pressed(period_s: float) -> str:
        ready, _, _ = select.select([descriptor], [], [], period_s)
        return os.read(descriptor, 1).decode("ascii", "replace") if ready else ""

    try:
        tty.setcbreak(descriptor)
        yield pressed
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def frame(dc: DataCenter, sort: SortKey) -> list[str]:
    """The lines of one look: a summary, the hosts, the machines that are not down."""
    now_s = time.time()
    hosts, vms = live.hosts(dc, now_s), live.vms(dc, now_s)
    up = sum(host.status == "up" for host in hosts)
    running = [vm for vm in vms if vm.status != "down"]
    clock = time.strftime("%H:%M:%S", time.localtime(now_s))
    return [
        f"olvm {clock}  hosts {up} up of {len(hosts)}  vms {len(running)} of {len(vms)} not down  by {sort}",
        "",
        *_table("HOST", hosts, sort),
        "",
        *_table("VM", running, sort),
    ]


def _table(kind: str, found: list[Live], sort: SortKey) -> list[str]:
    cells = [_cells(one) for one in sorted(found, key=_order(sort))]
    rows = [(kind, *HEADINGS[1:]), *cells]
    widths = [max(len(row[at]) for row in rows) for at in range(len(HEADINGS))]
    return [
        GAP.join(
            text.ljust(width) if at < 2 else text.rjust(width)
            for at, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _order(sort: SortKey) -> Callable[[Live], tuple[float, str]]:
    def order(one: Live) -> tuple[float, str]:
        most: dict[SortKey, float | None] = {
            "cpu": one.cpu_percent,
            "memory": one.memory_used_bytes,
            "network": (one.received_bytes_per_s or 0) + (one.sent_bytes_per_s or 0),
            "name": 0.0,
        }
        return -(most[sort] or 0.0), one.name

    return order


def _cells(one: Live) -> tuple[str, ...]:
    name = shown(one.name)
    return (
        name if len(name) <= NAME_WIDTH_MAX else name[: NAME_WIDTH_MAX - 1] + "…",
        one.status,
        "-" if one.cpu_percent is None else f"{one.cpu_percent:.1f}",
        _size(one.memory_used_bytes),
        format_size(one.memory_bytes),
        _size(one.received_bytes_per_s),
        _size(one.sent_bytes_per_s),
    )


def _size(byte_count: int | None) -> str:
    return "-" if byte_count is None else format_size(byte_count)
