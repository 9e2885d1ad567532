"""The Pareto plot as one SVG file: the good share over the budget in watts, a line for each number of GPUs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

from planner.sim.capacity.capacity_answer import percent
from planner.sim.capacity.frontier import CapacityPoint, best_within, pareto_frontier
from planner.sim.evaluation.svg_chart import COLOURS

WIDTH, HEIGHT = 860, 460
LEFT, RIGHT, TOP, BOTTOM = 62, 96, 44, 46
STYLE = (
    "text{font-family:system-ui,sans-serif;fill:#4b5563;font-size:12px}.t{font-size:14px;font-weight:600;fill:#111827}"
    ".g{stroke:#e5e7eb}.p{stroke:#111827;stroke-dasharray:5 4}"
)
TICKS = 5
LABEL_ROW = 14


def capacity_svg(title: str, points: Sequence[CapacityPoint], promise_share: float) -> str:
    """The plot of the measured points (at least one); filled points are on the frontier.

    A line is the best share with at most so many GPUs and watts, so no line falls, and none is below one of fewer GPUs.
    """
    scale = _Scale(points, promise_share)
    body = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f'<title>{escape(title)}</title><style>{STYLE}</style><rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{LEFT}" y="22" class="t">{escape(title)}</text>',
        *_grid(scale),
        *_promise(scale, promise_share),
    ]
    counts = sorted({point.gpus for point in points})
    colours = {gpus: COLOURS[place % len(COLOURS)] for place, gpus in enumerate(counts)}
    body += _lines(scale, points, counts, colours)
    frontier = set(pareto_frontier(points))
    for point in points:
        fill = colours[point.gpus] if point in frontier else "#fff"
        body.append(
            f'<circle cx="{scale.x(point.watts):.1f}" cy="{scale.y(point.good_share):.1f}" r="3.5" fill="{fill}" '
            f'stroke="{colours[point.gpus]}"><title>{point.gpus} GPUs, {point.watts} W, '
            f"{percent(point.good_share)} good</title></circle>"
        )
    return "".join([*body, "</svg>\n"])


class _Scale:
    """Watts and shares as places in the plot."""

    def __init__(self, points: Sequence[CapacityPoint], promise_share: float) -> None:
        self.least_watts = min(point.watts for point in points)
        self.most_watts = max(*(point.watts for point in points), self.least_watts + 1)
        lowest = min(promise_share, *(point.good_share for point in points), 0.9)
        self.least_share = math.floor(lowest * 10) / 10

    def x(self, watts: float) -> float:
        share = (watts - self.least_watts) / (self.most_watts - self.least_watts)
        return LEFT + (WIDTH - LEFT - RIGHT) * share

    def y(self, good_share: float) -> float:
        share = (good_share - self.least_share) / (1.0 - self.least_share)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share


def _grid(scale: _Scale) -> Iterable[str]:
    for step in range(TICKS + 1):
        share = scale.least_share + (1.0 - scale.least_share) * step / TICKS
        y = scale.y(share)
        yield f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="g"/>'
        yield f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{100 * share:.3g} %</text>'
        watts = scale.least_watts + (scale.most_watts - scale.least_watts) * step / TICKS
        x = scale.x(watts)
        yield f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{watts:.0f}</text>'
    yield f'<text x="{LEFT}" y="{HEIGHT - 8}">budget in watts; good requests in percent</text>'


def _promise(scale: _Scale, promise_share: float) -> Iterable[str]:
    y = scale.y(promise_share)
    yield f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="p"/>'
    yield f'<text x="{LEFT + 4}" y="{y - 4:.1f}">promised {100 * promise_share:.4g} %</text>'


def _lines(
    scale: _Scale, points: Sequence[CapacityPoint], counts: Sequence[int], colours: dict[int, str]
) -> Iterable[str]:
    taken = float("-inf")
    for gpus in reversed(counts):
        corners = _steps(points, gpus)
        places = [f"{scale.x(watts):.1f} {scale.y(share):.1f}" for watts, share in corners]
        yield f'<path d="M{"L".join(places)}" fill="none" stroke="{colours[gpus]}" stroke-width="1.4"/>'
        taken = max(scale.y(corners[-1][1]) + 4, taken + LABEL_ROW)
        yield f'<text x="{WIDTH - RIGHT + 8}" y="{taken:.1f}" style="fill:{colours[gpus]}">{gpus} GPUs</text>'


def _steps(points: Sequence[CapacityPoint], gpus: int) -> list[tuple[float, float]]:
    """The corners of the best share with at most ``gpus`` GPUs, over watts."""
    corners: list[tuple[float, float]] = []
    for watts in sorted({point.watts for point in points}):
        best = best_within(points, gpus, watts)
        if best is not None:
            if corners and corners[-1][1] != best.good_share:
                corners.append((watts, corners[-1][1]))
            corners.append((watts, best.good_share))
    return corners
