"""Charts as SVG: no library, no network. Colours come from the page's style, so that dark mode is a media query.

Text in them is text. Widths are of the drawing's own box; a page scales it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import msgspec

WIDTH, HEIGHT = 720, 220
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 14, 40

STYLE = """
svg.chart { width: 100%; max-width: 720px; height: auto; display: block; margin: .5rem 0; }
svg.chart text { font: 14px system-ui, sans-serif; fill: var(--faint); }
svg.chart .grid { stroke: var(--line); } svg.chart path { fill: none; stroke-width: 2; }
svg.chart .s0 { stroke: var(--accent); } svg.chart .s1 { stroke: var(--mark); stroke-dasharray: 6 3; }
"""


class Series(msgspec.Struct, frozen=True):
    """`points` are (place on the axis, value) in order; None breaks the line."""

    label: str
    points: Sequence[tuple[float, float | None]]


def line_chart(
    series: Sequence[Series],
    *,
    x_labels: Sequence[tuple[float, str]],
    y_axis: str,
    y_max: float | None = None,
) -> str:
    """Up to two lines from 0 up. `y_axis` says what is on it, with the unit; `x_labels` are ticks and their words."""
    places = [x for one in series for x, _ in one.points] + [x for x, _ in x_labels]
    values = [y for one in series for _, y in one.points if y is not None]
    first, last = (min(places), max(places)) if places else (0.0, 1.0)
    top = y_max or _ceiling(max(values, default=1.0))

    def at(x: float, y: float) -> tuple[float, float]:
        across = (x - first) / (last - first or 1.0)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - y / top * (HEIGHT - TOP - BOTTOM)

    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(y_axis)}">']
    for step in range(5):
        _, y = at(first, top * step / 4)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 5:.1f}" text-anchor="end">{top * step / 4:g}</text>')
    parts.append(f'<text x="{LEFT}" y="{TOP - 3}">{escape(y_axis)}</text>')
    for x, words in x_labels:
        parts.append(
            f'<text x="{at(x, 0)[0]:.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{escape(words)}</text>'
        )
    for index, one in enumerate(series):
        parts.append(f'<path class="s{index}" d="{_path(one, at)}"><title>{escape(one.label)}</title></path>')
    return "".join(parts) + "</svg>"


def _path(series: Series, at: object) -> str:
    assert callable(at)
    words, pen_is_up = [], True
    for x, y in series.points:
        if y is None:
            pen_is_up = True
            continue
        across, down = at(x, y)
        words.append(f"{'M' if pen_is_up else 'L'}{across:.1f} {down:.1f}")
        pen_is_up = False
    return " ".join(words)


def _ceiling(value: float) -> float:
    """The next of 1, 2, 4 or 10 times a power of ten, which quarters well."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * factor for factor in (1, 2, 4, 10) if power * factor >= value)
