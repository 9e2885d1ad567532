"""`wattscale budget show`: what each site may draw now, and the commands behind it.

Reads commands as the planner does: the newest one that has begun and not ended decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from bus_schemas import v1
from bus_schemas.visible_text import visible_parts
from deploy.views.site_view import SiteView

SAME_WATTS = 0.5
"""Budgets on the bus are rounded to milliwatts."""


class CommandState(StrEnum):
    """The state of a command."""

    WAITING = "begins later"
    RAMPING = "on its ramp"
    PENDING = "pending, no plan has it yet"
    IN_FORCE = "in force"
    HIDDEN = "behind a newer one"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class SiteBudget:
    """``budget_watts``: of the newest plan, None without a plan on the bus. ``commands``: oldest first."""

    site: str
    budget_watts: float | None
    commands: tuple[tuple[v1.BudgetChange, CommandState], ...]
    outside_gpus: int = 0
    """GPUs that the budget does not cover, because it covers workers only; ``outside_watts``: what they may draw."""
    outside_watts: float = 0.0


def states(commands: Sequence[v1.BudgetChange], now: datetime) -> list[CommandState]:
    """The state of each of a site's commands, given oldest first."""
    found: list[CommandState] = []
    decided = settled = False
    for command in reversed(commands):
        begins, until = command.effective_from or command.time, command.effective_until
        if settled or (until is not None and until <= now):
            # Behind a command that has begun and has no end, none can take effect again.
            state = CommandState.OVER
        elif begins > now:
            state = CommandState.WAITING
        else:
            ramping = now < begins + timedelta(seconds=command.ramp_s)
            state = CommandState.HIDDEN if decided else CommandState.RAMPING if ramping else CommandState.IN_FORCE
            decided, settled = True, until is None
        found.append(state)
    return found[::-1]


def budgets(picture: SiteView, commands: Sequence[v1.BudgetChange], now: datetime) -> list[SiteBudget]:
    """Every site that a plan or a command names, sorted by site."""
    found = []
    commands = [visible_parts(command) for command in commands]
    for site in sorted({*picture.sites(), *(command.site for command in commands)} - {""}):
        own = [command for command in commands if command.site == site]
        known = picture.budget_of(site)
        shown = [
            CommandState.PENDING if state is CommandState.IN_FORCE and not planned(command, known) else state
            for command, state in zip(own, states(own, now), strict=True)
        ]
        commands_of = tuple(zip(own, shown, strict=True))
        found.append(SiteBudget(site, known[0] if known else None, commands_of, *picture.outside_of(site)))
    return found


def planned(command: v1.BudgetChange, known: tuple[float, datetime] | None) -> bool:
    """Whether a planner decides by the command already; ``known``: the budget of its newest decision, and when."""
    if known is None:
        return False
    watts, time = known
    if command.release:
        return time >= (command.effective_from or command.time)
    return abs(watts - command.budget_watts) < SAME_WATTS


def as_text(sites: Sequence[SiteBudget], *, everything: bool) -> str:
    """The budgets as text. Commands that have ended are included only with ``everything``."""
    lines: list[str] = []
    for site in sites:
        known = "no plan on this bus yet" if site.budget_watts is None else f"{site.budget_watts:.0f} W now"
        shown = [(o, s) for o, s in site.commands if everything or s is not CommandState.OVER]
        open_states = (CommandState.IN_FORCE, CommandState.RAMPING)
        decided = any(s is CommandState.PENDING or (s in open_states and not o.release) for o, s in shown)
        by = "" if decided or site.budget_watts is None else ", by configuration and schedule"
        lines.append(f"site {site.site}: {known}{by}")
        if site.outside_gpus:
            lines.append(f"    {outside_words(site.outside_gpus, site.outside_watts)}")
        lines += [f"    {command_words(command)}: {state}" for command, state in shown]
    return "\n".join(lines)


def outside_words(gpus: int, watts: float) -> str:
    """One sentence on the GPUs that a budget does not cover."""
    return f"covers workers only: {gpus} GPUs are outside the budget, and may draw {watts:,.0f} W more"


def as_json(sites: Sequence[SiteBudget]) -> list[dict[str, Any]]:
    """The budgets as JSON values, with all commands. ``orders`` is their former name, kept for one release."""
    rows: list[dict[str, Any]] = []
    for site in sites:
        commands = [{**o.model_dump(mode="json"), "state": s.name.lower()} for o, s in site.commands]
        rows.append(
            {
                "site": site.site,
                "budget_watts": site.budget_watts,
                "outside_gpus": site.outside_gpus,
                "outside_watts": round(site.outside_watts, 3),
                "commands": commands,
                "orders": commands,
            },
        )
    return rows


def command_words(command: v1.BudgetChange) -> str:
    """What the command orders, from when to when, by whom and why."""
    begins = command.effective_from or command.time
    what = "back to configuration and schedule" if command.release else f"{command.budget_watts:g} W"
    until = f" until {command.effective_until:%Y-%m-%d %H:%M:%S}" if command.effective_until else ""
    ramp = f", over a ramp of {command.ramp_s:g} s" if command.ramp_s else ""
    who = f", by {command.issued_by}" if command.issued_by else ""
    why = f" ({command.reason})" if command.reason else ""
    return f"{what} from {begins:%Y-%m-%d %H:%M:%S}{until} UTC{ramp}{who}{why}"
