"""The live view of `up` on a terminal, made for the size that the terminal has.

What matters first stands first and is never cut off: what is wrong, targets, watts, the newest scaling decision with
its reason, and how to see more. Events fill the rest: replicas and power apart, because power decisions are many.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bus_schemas import v1
from deploy.views.live_view import DemoStatus, figure, pool_cells, rate, watts_bar
from deploy.views.site_view import DeploymentSummary, SiteView
from deploy.views.words import amount, clock, sentence

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

FRAME_ROWS, FRAME_COLUMNS = 2, 4
WIDE_COLUMNS = 130
"""From here on events stand side by side, and deployments show their token lengths."""
MOST_PROBLEMS = 4
REASON_ROWS = 3
TIGHT = 0.95
"""A draw above this share of the budget is tight."""
GOOD, BAD, TIGHT_STYLE = "green", "bold red", "yellow"


@dataclass(slots=True)
class _ViewSection:
    """Lines that are shown or dropped together; the highest ``rank`` is dropped first where the terminal is too low."""

    rank: int
    lines: list[Text]


def panel(picture: SiteView, run: DemoStatus, width: int, height: int) -> RenderableType:
    """The whole view for a terminal of ``width`` columns and ``height`` rows."""
    from rich.console import Group
    from rich.panel import Panel

    columns, rows = max(10, width - FRAME_COLUMNS), max(3, height - FRAME_ROWS)
    sections = [
        _ViewSection(4, [_line(f"load time {run.load_s:.0f} s, real time {run.real_s:.0f} s")]),
        _ViewSection(1, [_line(problem, BAD) for problem in run.problems[:MOST_PROBLEMS]]),
        _ViewSection(0, [_deployment(name, view, columns) for name, view in sorted(picture.deployments.items())]),
        _ViewSection(5, _pools(picture)),
        _ViewSection(1, [_watts(picture, columns)]),
        _ViewSection(2, _newest_scaling(picture, columns)),
        _ViewSection(3, [_line(part, "cyan") for part in textwrap.wrap(run.hint, columns)]),
    ]
    while sum(len(one.lines) for one in sections) > rows and len(sections) > 1:
        sections.remove(max(sections, key=lambda one: one.rank))
    lines = [line for section in sections for line in section.lines]
    lines += _events(picture, columns, rows - len(lines))
    return Panel(Group(*lines[:rows]), title=run.title, title_align="left", width=width)


def _line(text: str, style: str = "") -> Text:
    from rich.text import Text

    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def _deployment(name: str, view: DeploymentSummary, columns: int) -> Text:
    record = view.record
    line = _line(f"{name}  {rate(record)}")
    for what, label in (("ttft_ms", "TTFT"), ("itl_ms", "ITL")):
        line.append("  ")
        line.append(f"{label} {figure(record, what, 'ms')}", style=_verdict(record, what))
    if columns >= WIDE_COLUMNS and record is not None:
        for what, label in (("isl_tokens", "ISL"), ("osl_tokens", "OSL")):
            if what in record.observed:
                line.append(f"  {label} {amount(record.observed[what])}")
    return line


def _verdict(record: v1.PlanRecord | None, what: str) -> str:
    if record is None or what not in record.observed or what not in record.targets:
        return ""
    return BAD if record.observed[what] > record.targets[what] else GOOD


def _pools(picture: SiteView) -> list[Text]:
    rows = [row for _, view in sorted(picture.deployments.items()) for row in pool_cells(view)]
    if not rows:
        return []
    heads = ("pool", "running", "wanted", "granted", "cap per GPU")
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    table = [heads, *rows]
    return [
        _line("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()) for row in table
    ]


def _watts(picture: SiteView, columns: int) -> Text:
    budget = picture.budget_watts
    style = ""
    if budget:
        over = max(picture.drawn_watts, picture.enforced_watts) > budget + 0.5
        style = BAD if over else TIGHT_STYLE if picture.drawn_watts > TIGHT * budget else ""
    beside = len(watts_bar(picture, 0))
    return _line(watts_bar(picture, max(8, columns - beside)), style)


def _newest_scaling(picture: SiteView, columns: int) -> list[Text]:
    found = [view for view in picture.deployments.values() if view.decision is not None]
    if not found:
        return [_line("no scaling was needed yet")]
    view = max(found, key=lambda one: one.decision.time if one.decision else 0)
    if view.decision is None:
        return []
    done = view.scaled_decision_id >= view.decision_id
    text = f"{clock(view.decision)} {sentence(view.decision)}" + (" (carried out)" if done else " (under way)")
    return [_line(part, "bold") for part in _wrapped(text, columns, REASON_ROWS)]


def _wrapped(text: str, columns: int, rows: int) -> list[str]:
    parts = textwrap.wrap(text, columns)
    return parts if len(parts) <= rows else [*parts[: rows - 1], textwrap.shorten(" ".join(parts[rows - 1 :]), columns)]


def _events(picture: SiteView, columns: int, rows: int) -> list[Text]:
    """At most ``rows`` lines, newest last: replicas above power, or beside it where there is room."""
    rows -= 1  # a blank line above
    if rows < 1:
        return []
    scaling = [f"{clock(message)} {sentence(message)}" for message in picture.scaling]
    power = [f"{clock(m)} {sentence(m)}" for m in picture.history if "power" in m.type]
    if columns >= WIDE_COLUMNS:
        half = (columns - 2) // 2
        wrapped = [textwrap.wrap(text, half, subsequent_indent="    ") for text in scaling[-rows:]]
        left = [part for parts in wrapped for part in parts][-rows:]
        right = power[-rows:]
        count = max(len(left), len(right))
        pairs = zip(left + [""] * (count - len(left)), right + [""] * (count - len(right)), strict=True)
        return [_line(""), *(_line(f"{a:<{half}}  {_cut(b, half)}", "dim") for a, b in pairs)]
    above = scaling[-max(1, rows // 2) :]
    below = power[-(rows - len(above)) :] if rows > len(above) else []
    return [_line(""), *(_line(text, "dim") for text in (*above, *below))]


def _cut(text: str, columns: int) -> str:
    return text if len(text) <= columns else text[: columns - 1] + "\u2026"
