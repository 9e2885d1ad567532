"""The questions that everybody has, answered in the words of ``wattscale status`` and ``explain``. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from deploy.views.budgets import SAME_WATTS, outside_words
from deploy.views.explain import power_lines
from deploy.views.odd_gpus import OddGpu
from deploy.views.site_view import SiteView
from deploy.views.would_change import would_change

NO_TICK = "no tick on this bus yet"
MOST_LINES = 12
"""Lines of one answer: the page shows the rest in its tables."""


@dataclass(frozen=True, slots=True)
class AnsweredQuestion:
    """``well``: False where the answer asks for attention."""

    question: str
    lines: tuple[str, ...]
    well: bool = True

    def as_json(self) -> dict[str, Any]:
        """As the page reads it."""
        return {"question": self.question, "lines": list(self.lines), "well": self.well}


def answers(picture: SiteView, odd: Sequence[OddGpu]) -> dict[str, AnsweredQuestion]:
    """An answer to each question that needs no instant, by a short name. ``odd``: as `odd_gpus` finds them."""
    return {
        "budget": _budget(picture),
        "why": AnsweredQuestion("Why that many workers?", _some(_why(picture), NO_TICK)),
        "change": AnsweredQuestion("What would change the decision?", _some(_change(picture), NO_TICK)),
        "odd": _odd(picture, odd),
    }


def held(picture: SiteView, site: str) -> bool | None:
    """Whether the caps in force are within the site's budget, as ``status`` judges it; None without a budget."""
    known = picture.budget_of(site)
    if known is None:
        return None
    return picture.enforced_of(site) <= known[0] + SAME_WATTS


def watts_line(picture: SiteView, site: str) -> str:
    """The watts of the site's newest record as ``explain`` prints them, or what is known without one."""
    records = [view.record for view in picture.deployments.values() if view.record and view.record.site == site]
    if records and (lines := list(power_lines(max(records, key=lambda one: one.time)))):
        return lines[0]
    return live_watts_line(picture, site)


def live_watts_line(picture: SiteView, site: str) -> str:
    """The site's watts by the newest decisions and reports."""
    known = picture.budget_of(site)
    budget = "no budget on this bus" if known is None else f"budget {known[0]:.0f} W"
    return f"{budget}, caps in force {picture.enforced_of(site):.0f} W, drawn {picture.drawn_of(site):.0f} W"


def _budget(picture: SiteView) -> AnsweredQuestion:
    lines, well = [], True
    for site in picture.sites():
        within = held(picture, site)
        verdict = {True: "yes", False: "NO", None: "not known"}[within]
        # What contradicts the newest record is newer than it.
        line = live_watts_line(picture, site) if within is False else watts_line(picture, site)
        gpus, watts = picture.outside_of(site)
        outside = f"; {outside_words(gpus, watts)}" if gpus else ""
        lines.append(f"{site}: {verdict}; {line}{outside}")
        well = well and within is not False
    return AnsweredQuestion("Is the budget held?", _some(iter(lines), "no site on this bus yet"), well)


def _why(picture: SiteView) -> Iterator[str]:
    for name, view in sorted(picture.deployments.items()):
        for pool_name, pool in view.record.pools.items() if view.record else ():
            if pool.chain:
                last = pool.chain[-1]
                yield f"{name} {pool_name}: {pool.granted}; {last.code}: {last.text}"


def _change(picture: SiteView) -> Iterator[str]:
    for name, view in sorted(picture.deployments.items()):
        if view.record is not None:
            yield from (f"{name} {line}" for line in would_change(view.record))


def _odd(picture: SiteView, odd: Sequence[OddGpu]) -> AnsweredQuestion:
    known = sum(len(node.telemetry.gpus) for node in picture.nodes.values() if node.telemetry)
    none = f"none of {known} GPUs" if known else "no GPU has reported yet"
    return AnsweredQuestion("Which GPU is odd?", _some((one.sentence() for one in odd), none), not odd)


def _some(lines: Iterator[str], none: str) -> tuple[str, ...]:
    found = list(lines)
    if len(found) > MOST_LINES:
        found[MOST_LINES:] = [f"and {len(found) - MOST_LINES} more, in the tables below"]
    return tuple(found) or (none,)
