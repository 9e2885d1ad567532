"""The budget of a site at an instant: configuration, schedule and commands, with ramps and end times.

Pure functions of an instant. A cut that is known in advance is applied in advance: the budget in force now is the
smallest until the time by which even the slowest lower has taken effect. A ramp is followed in steps, each at the
smallest level of its time: a decision a second for every node would push a day of decisions out of the stream.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from planner.domain.config import SiteConfig
from planner.domain.daily_window import BudgetSchedule, window_at
from planner.domain.observation import BudgetCommand
from planner.domain.units import Milliwatts

MAX_COMMANDS = 8192
"""Maximum number of commands kept. Far more than a week in steps of five minutes, because the oldest are dropped first
and may be the next to apply."""
_JUST_BEFORE_S = 1e-6
_DAY_S = 86_400.0


def scheduled_mw(schedule: BudgetSchedule, utc_s: float) -> Milliwatts | None:
    """The schedule's budget at ``utc_s`` in milliwatts; None outside all its windows."""
    # A command's ramp may begin at any instant that the wire can express; the calendar of some zones cannot.
    window = window_at(schedule.windows, schedule.zone, max(utc_s, _DAY_S))
    return None if window is None else window.budget_mw


def _base_mw(config: SiteConfig, at_s: float) -> Milliwatts:
    if config.schedule is None:
        return config.budget_mw
    planned = scheduled_mw(config.schedule, config.utc_at_zero_s + at_s)
    return config.budget_mw if planned is None else planned


def _goal_mw(config: SiteConfig, order: BudgetCommand, at_s: float) -> Milliwatts:
    return _base_mw(config, at_s) if order.budget_mw is None else order.budget_mw


def level_mw(config: SiteConfig, orders: tuple[BudgetCommand, ...], at_s: float) -> Milliwatts:
    """The site's budget at one instant in milliwatts. ``orders`` ascend by sequence: the newest in force decides."""
    for index in range(len(orders) - 1, -1, -1):
        order = orders[index]
        if at_s < order.from_s or (order.until_s is not None and at_s >= order.until_s):
            continue
        if order.ramp_s <= 0 or at_s >= order.from_s + order.ramp_s:
            return _goal_mw(config, order, at_s)
        start = level_mw(config, orders[:index], order.from_s - _JUST_BEFORE_S)
        passed = (at_s - order.from_s) / order.ramp_s
        return Milliwatts(math.floor(start + (_goal_mw(config, order, at_s) - start) * passed))
    return _base_mw(config, at_s)


def _breaks_s(config: SiteConfig, orders: tuple[BudgetCommand, ...], start_s: float, end_s: float) -> list[float]:
    """Instants within ``(start, end]`` at which the budget may jump or bend."""
    times = [t for o in orders for t in (o.from_s, o.from_s + o.ramp_s, o.until_s) if t is not None]
    if config.schedule is not None:
        offset = config.utc_at_zero_s
        minute = math.floor((start_s + offset) / 60.0) + 1
        while minute * 60.0 - offset <= end_s:
            times.append(minute * 60.0 - offset)
            minute += 1
    return sorted({t for t in times if start_s < t <= end_s})


def lead_s(config: SiteConfig) -> float:
    """Seconds by which a cut is applied in advance: a decision out, its acknowledgement back, and the settle time."""
    return 2.0 * config.flight_s + config.settle_s


def ramp_step_s(config: SiteConfig, orders: tuple[BudgetCommand, ...], index: int) -> float:
    """Seconds for which one level holds while the ramp of ``orders[index]`` runs.

    Never less than the settle time or the interval at which every node is renewed anyway, so that a ramp adds no
    decisions to those; never less than it takes to move the site's budget by the smallest step that matters.
    """
    order = orders[index]
    start = level_mw(config, orders[:index], order.from_s - _JUST_BEFORE_S)
    moved = abs(_goal_mw(config, order, order.from_s + order.ramp_s) - start)
    matters_s = order.ramp_s * min(1.0, config.smallest_step_mw / moved) if moved else order.ramp_s
    return max(config.settle_s, config.lease_s / 3.0, matters_s)


def _ramp_step(config: SiteConfig, orders: tuple[BudgetCommand, ...], now_s: float) -> tuple[float, float] | None:
    """Start and end of the present step of the ramp that decides now, or will within the lead; None without one."""
    for index in range(len(orders) - 1, -1, -1):
        order = orders[index]
        if order.until_s is not None and now_s >= order.until_s:
            continue
        first_s = order.from_s - lead_s(config)
        if order.ramp_s > 0 and first_s <= now_s < order.from_s + order.ramp_s:
            step_s = ramp_step_s(config, orders, index)
            start_s = first_s + math.floor((now_s - first_s) / step_s) * step_s
            # The quotient of an instant at the very end of a step may round down to that step.
            return (start_s, start_s + step_s) if now_s < start_s + step_s else (now_s, now_s + step_s)
        if order.from_s <= now_s:
            return None
    return None


def effective_mw(config: SiteConfig, orders: tuple[BudgetCommand, ...], now_s: float) -> Milliwatts:
    """The smallest budget in milliwatts until a lower cap sent now would have settled; of a ramp, for a whole step."""
    if not orders and config.schedule is None:
        return config.budget_mw
    start_s, step_end_s = _ramp_step(config, orders, now_s) or (now_s, now_s)
    end_s = step_end_s + lead_s(config)
    times = [start_s, end_s]
    for at_s in _breaks_s(config, orders, start_s, end_s):
        # Two breaks may be closer than that; a schedule's clock cannot tell instants that are closer.
        times += [at_s - _JUST_BEFORE_S, max(start_s, math.nextafter(at_s, -math.inf)), at_s]
    return min(level_mw(config, orders, at_s) for at_s in times)


def next_change_s(config: SiteConfig, orders: tuple[BudgetCommand, ...], now_s: float) -> float | None:
    """The next instant at which the effective budget may change without a message."""
    ahead_s = lead_s(config)
    edges = [t for o in orders for t in (o.from_s, o.from_s + o.ramp_s, o.until_s) if t is not None]
    changes = [t for edge in edges for t in (edge - ahead_s, edge) if t > now_s]
    if (step := _ramp_step(config, orders, now_s)) is not None:
        changes.append(step[1])
    if config.schedule is not None:
        offset = config.utc_at_zero_s
        edge = (math.floor((now_s + offset) / 60.0) + 1) * 60.0 - offset
        changes += [t for t in (edge - ahead_s, edge) if t > now_s]
    return min(changes, default=None)


def smallest_mw(config: SiteConfig, orders: tuple[BudgetCommand, ...], now_s: float) -> Milliwatts:
    """The smallest budget known in advance, in milliwatts; it bounds the sum of the fallbacks."""
    known = [config.budget_mw, level_mw(config, orders, now_s)]
    if config.smallest_budget_mw is not None:
        known.append(config.smallest_budget_mw)
    if config.schedule is not None:
        known += [window.budget_mw for window in config.schedule.windows]
    ordered = [order for order in orders if order.until_s is None or order.until_s > now_s]
    known += [order.budget_mw for order in ordered if order.budget_mw is not None]
    return min(known)


def _any_over(known: tuple[BudgetCommand, ...], now_s: float) -> bool:
    """Whether a command has ended, or one without an end has begun, which may hide older ones permanently."""
    lapsed = any(order.until_s is not None and order.until_s <= now_s for order in known)
    return lapsed or any(order.until_s is None and order.from_s + order.ramp_s <= now_s for order in known[1:])


def with_commands(
    known: tuple[BudgetCommand, ...], new: Iterable[BudgetCommand], site: str, now_s: float
) -> tuple[BudgetCommand, ...]:
    """Known and new commands of ``site`` by ascending sequence, without those that cannot apply again."""
    fresh = [order for order in new if order.site == site]
    if not fresh and not _any_over(known, now_s):
        return known
    by_sequence = {order.sequence: order for order in (*known, *fresh)}
    kept: list[BudgetCommand] = []
    ramping = False
    for sequence in sorted(by_sequence, reverse=True):
        order = by_sequence[sequence]
        # An unfinished ramp starts at the level of older commands: they must be kept until it has ended.
        if ramping or order.until_s is None or order.until_s > now_s:
            kept.append(order)
        ramping = ramping or (order.ramp_s > 0 and now_s < order.from_s + order.ramp_s)
        if not ramping and order.until_s is None and order.from_s <= now_s:
            break  # in force without an end, so no older command can apply again
    return tuple(reversed(kept[:MAX_COMMANDS]))
