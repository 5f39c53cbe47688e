"""Two kinds of plots as SVG, which need no library and no network, and take their colours from the page's style.

Text in them is text: it can be searched and read aloud. Widths are of the drawing's own box; a page scales it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import msgspec

WIDTH = 760
ROW = 30
LABEL = 190
MARGIN = 18
BELOW = 46
DOTS_MAX = 60  # of one row; of more seeds each k-th is drawn


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a plot. `low` and `high` None: no interval. `dots`: single values, drawn faintly."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    dots: tuple[float, ...] = ()


def dot_plot(
    rows: Sequence[Row], axis: str, *, marked: tuple[float, str] | None = None, title: str = ""
) -> str:
    """A row for each: its value, its interval as a bar, its single values as dots.

    `axis` says what is on it, with the unit. `marked`: a line across at that value, and its name.
    """
    ends = [value for row in rows for value in (row.value, row.low, row.high, *row.dots) if value is not None]
    if marked is not None:
        ends.append(marked[0])
    ticks = nice_ticks(min(ends), max(ends))
    first, last = ticks[0], ticks[-1]
    height = MARGIN + ROW * len(rows) + BELOW
    inner = WIDTH - LABEL - 2 * MARGIN

    def x(value: float) -> str:
        return f"{LABEL + MARGIN + (value - first) / (last - first) * inner:.1f}"

    parts = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title or axis)}">']
    bottom = MARGIN + ROW * len(rows)
    for tick in ticks:
        parts.append(f'<line class="grid" x1="{x(tick)}" y1="{MARGIN}" x2="{x(tick)}" y2="{bottom}"/>')
        parts.append(
            f'<text class="tick" x="{x(tick)}" y="{bottom + 16}" text-anchor="middle">{shown(tick)}</text>'
        )
    middle = LABEL + MARGIN + inner / 2
    parts.append(
        f'<text class="axis" x="{middle:.0f}" y="{bottom + 36}" text-anchor="middle">{escape(axis)}</text>'
    )
    if marked is not None:
        parts.append(
            f'<line class="mark" x1="{x(marked[0])}" y1="{MARGIN - 6}" x2="{x(marked[0])}" y2="{bottom}"/>'
        )
        parts.append(
            f'<text class="tick" x="{x(marked[0])}" y="{MARGIN - 8}" text-anchor="middle">{escape(marked[1])}</text>'
        )
    for at, row in enumerate(rows):
        y = MARGIN + ROW * at + ROW / 2
        label = row.label if len(row.label) <= 26 else "…" + row.label[-25:]
        parts.append(
            f'<text class="label" x="{LABEL}" y="{y + 4:.0f}" text-anchor="end">{escape(label)}</text>'
        )
        step = max(1, -(-len(row.dots) // DOTS_MAX))
        parts.extend(
            f'<circle class="dot" cx="{x(value)}" cy="{y:.0f}" r="3"/>' for value in row.dots[::step]
        )
        words = f"{row.label}: {shown(row.value)}"
        if row.low is not None and row.high is not None:
            words += f", 95 % {shown(row.low)} to {shown(row.high)}"
            parts.append(
                f'<line class="bar" x1="{x(row.low)}" y1="{y:.0f}" x2="{x(row.high)}" y2="{y:.0f}"/>'
            )
            for end in (row.low, row.high):
                parts.append(
                    f'<line class="bar" x1="{x(end)}" y1="{y - 5:.0f}" x2="{x(end)}" y2="{y + 5:.0f}"/>'
                )
        parts.append(
            f'<circle class="value" cx="{x(row.value)}" cy="{y:.0f}" r="5"><title>{escape(words)}</title></circle>'
        )
    parts.append("</svg>")
    return "\n".join(parts)


def nice_ticks(low: float, high: float, wanted: int = 6) -> list[float]:
    """From at most `low` to at least `high`, in steps of 1, 2 or 5 times a power of ten; at least two.

    A billionth of a step, which nobody sees, gets no tick of its own.
    """
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-3):
        low, high = low - max(1.0, abs(low) * 0.1), high + max(1.0, abs(high) * 0.1)
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * at, 12) for at in range(first, max(last, first + 1) + 1)]


def shown(value: float) -> str:
    """With thousands apart, and no more digits than tell something."""
    if value == 0:
        return "0"
    if abs(value) >= 1000 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.4g}"
