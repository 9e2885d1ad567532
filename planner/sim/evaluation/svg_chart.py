"""Line charts as SVG text, for a page that opens without a network."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 860, 190
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 26, 24
MOST_POINTS = 900
LETTER, LEGEND_GAP, LEGEND_ROW = 7, 14, 16
"""Estimated width of a letter, space between two names, height of a row of names."""
COLOURS = ("#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed", "#0891b2", "#be185d", "#4b5563")


@dataclass(frozen=True, slots=True)
class ChartLine:
    """Points with ascending x. ``dashed`` for targets and limits; ``steps`` holds each value until the next."""

    name: str
    points: Sequence[tuple[float, float]]
    dashed: bool = False
    steps: bool = False


def chart(title: str, unit: str, lines: Sequence[ChartLine], x_end: float, most: float | None = None) -> str:
    """One chart over ``0..x_end`` seconds. ``most`` limits the y axis; a note beside the unit states what is cut off.

    Names that have no room beside the title stand in rows below it, above the chart.
    """
    highest = max((y for line in lines for _, y in line.points), default=1.0)
    top = _nice(min(highest, most or math.inf))
    if highest > top:
        unit = f"{unit}; cut off at {top:g}, highest {highest:.4g}"
    legend = _legend_rows(lines, beside=LETTER * (len(title) + len(unit)))
    down = LEGEND_ROW * (len(legend) - 1)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT + down}" role="img" aria-label="{escape(title)}">',
        f'<text x="{LEFT}" y="15" class="t">{escape(title)} <tspan class="u">{escape(unit)}</tspan></text>',
        *(_legend(row, 15 + LEGEND_ROW * number) for number, row in enumerate(legend)),
        f'<g transform="translate(0 {down})">' if down else "<g>",
    ]
    parts += _grid(top, x_end)
    for place, line in enumerate(lines):
        dash = ' stroke-dasharray="5 4"' if line.dashed else ""
        path = _path(line, x_end, top)
        parts.append(f'<path d="{path}" fill="none" stroke="{_colour(line, place)}" stroke-width="1.4"{dash}/>')
    return "".join([*parts, "</g></svg>"])


def _colour(line: ChartLine, place: int) -> str:
    return "#111827" if line.dashed else COLOURS[place % len(COLOURS)]


def _nice(value: float) -> float:
    """The next round number above."""
    if not value > 0:
        return 1.0
    step = 10.0 ** math.floor(math.log10(value))
    return next(step * k for k in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if step * k >= value * 0.999)


def _x(x: float, x_end: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * x / max(x_end, 1e-9)


def _y(y: float, top: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(y / top, 1.0)


def _grid(top: float, x_end: float) -> Iterable[str]:
    for share in (0.0, 0.5, 1.0):
        y = _y(top * share, top)
        yield f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="g"/>'
        yield f'<text x="{LEFT - 6}" y="{y + 4:.1f}" class="a" text-anchor="end">{top * share:g}</text>'
    hours = x_end >= 3 * 3600
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        label = f"{x_end * share / 3600:.3g} h" if hours else f"{x_end * share / 60:.3g} min"
        anchor = "start" if share == 0 else "end" if share == 1 else "middle"
        x = _x(x_end * share, x_end)
        yield f'<text x="{x:.1f}" y="{HEIGHT - 7}" class="a" text-anchor="{anchor}">{label}</text>'


def _path(line: ChartLine, x_end: float, top: float) -> str:
    words: list[str] = []
    y_before = 0.0
    for x, y in _thinned(line.points):
        if not words:
            words.append(f"M{_x(x, x_end):.1f} {_y(y, top):.1f}")
        else:
            corner = f"L{_x(x, x_end):.1f} {_y(y_before, top):.1f}" if line.steps else ""
            words.append(f"{corner}L{_x(x, x_end):.1f} {_y(y, top):.1f}")
        y_before = y
    return "".join(words)


def _thinned(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """At most about ``MOST_POINTS`` points: the highest of each stretch, because peaks matter here."""
    size = math.ceil(len(points) / MOST_POINTS)
    if size <= 1:
        return points
    return [max(points[i : i + size], key=lambda point: point[1]) for i in range(0, len(points), size)]


def _legend_rows(lines: Sequence[ChartLine], beside: float) -> list[list[tuple[str, str]]]:
    """(name, colour) of the lines in rows that fit; the first row stands beside the title, and may be empty."""
    rows: list[list[tuple[str, str]]] = [[]]
    room = WIDTH - LEFT - RIGHT - beside
    names = [(line.name, _colour(line, place)) for place, line in enumerate(lines)]
    if sum(_width(name) for name, _ in names) > room:
        rows.append([])
        room = WIDTH - LEFT - RIGHT
    for name, colour in names:
        if _width(name) > room and rows[-1]:
            rows.append([])
            room = WIDTH - LEFT - RIGHT
        rows[-1].append((name, colour))
        room -= _width(name)
    return rows


def _width(name: str) -> float:
    return LETTER * len(name) + LEGEND_GAP


def _legend(row: Sequence[tuple[str, str]], y: float) -> str:
    x, texts = float(WIDTH - RIGHT), []
    for name, colour in reversed(row):
        texts.append(f'<text x="{x:g}" y="{y:g}" class="l" fill="{colour}" text-anchor="end">{escape(name)}</text>')
        x -= _width(name)
    return "".join(texts)
