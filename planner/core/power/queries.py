"""Queries on a site's ledger: reservations, free watts, a summary, the time of the next event.

Reads only. ``site_ledger.py`` exports these names.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from planner.core import coverage
from planner.core.power.cap_changes import allowed_mw, answers
from planner.core.power.effective_budget import effective_mw, level_mw, next_change_s, smallest_mw
from planner.core.power.node_ledger import total_of
from planner.core.power.site_state import PowerState, charged_mw, free_mw, in_advance_mw, unreported_gpus
from planner.domain.config import Covers, SiteConfig
from planner.domain.ids import GpuId
from planner.domain.plan import Limited, SitePlan
from planner.domain.reasons import ReasonCode
from planner.domain.units import GpuSetpoint, Milliwatts, watts_from_mw


def reserved(state: PowerState, gpus: Iterable[GpuId], setpoint: GpuSetpoint, smallest_step_mw: Milliwatts) -> bool:
    """Whether each of ``gpus`` has the watts of ``setpoint`` reserved, up to one smallest step: a pod may start there.

    ``smallest_step_mw`` is the site's: a smaller raise is never sent, so it must not be waited for.
    """
    for gpu in gpus:
        node = state.where.get(gpu)
        ledger = state.nodes.get(node) if node is not None else None
        if ledger is None or ledger.caps_mw is None:
            return False
        index = ledger.cards.gpus.index(gpu)
        if ledger.covered is not None and not ledger.covered[index]:
            return False
        if not ledger.healthy[index] or ledger.caps_mw[index] + smallest_step_mw <= setpoint.cap_mw:
            return False
    return True


def affordable(state: PowerState, config: SiteConfig, gpus: int, now_s: float) -> bool:
    """Whether replicas on ``gpus`` GPUs may still be to start, wherever they start, and the charges stay within the
    budget.
    """
    return free_mw(replace(state, pledged_gpus=gpus), config, now_s) >= 0


def summary(state: PowerState, config: SiteConfig, now_s: float) -> SitePlan:
    """The site's watts for display. ``charged_mw`` includes host overhead and margin, as the budget does."""
    budget = level_mw(config, state.orders, now_s)
    apart = budget - allowed_mw(config, budget, len(state.nodes))
    draws = [ledger.draw_mw for ledger in state.nodes.values() if ledger.draw_mw is not None]
    return SitePlan(
        site=config.site,
        budget_mw=budget,
        charged_mw=Milliwatts(charged_mw(state) + in_advance_mw(state, config) + apart),
        enforced_mw=Milliwatts(sum([ledger.enforced_mw for ledger in state.nodes.values()])),
        draw_mw=Milliwatts(sum(draws)) if len(draws) == len(state.nodes) and draws else None,
        free_mw=free_mw(state, config, now_s),
        shortfall_mw=state.shortfall_mw,
        frozen=state.frozen,
        notes=_notes(state, config, now_s),
    )


def _notes(state: PowerState, config: SiteConfig, now_s: float) -> tuple[Limited, ...]:
    notes = []
    budget = level_mw(config, state.orders, now_s)
    if (ahead := effective_mw(config, state.orders, now_s)) < budget:
        notes.append(
            Limited(ahead, ReasonCode.BUDGET_CUT, f"a cut to {watts_from_mw(ahead):.0f} W is near and kept already")
        )
    if state.shortfall_mw:
        text = f"the smallest caps exceed the budget by {watts_from_mw(state.shortfall_mw):.0f} W: drain replicas"
        notes.append(Limited(state.shortfall_mw, ReasonCode.SHORTFALL, text))
    elif (short := _short_ahead_mw(state, config, now_s)) > 0:
        text = f"the smallest caps exceed the smallest budget known ahead by {watts_from_mw(short):.0f} W"
        notes.append(Limited(short, ReasonCode.SHORTFALL, text))
    if off := state.brake.off_mw(now_s):
        notes.append(
            Limited(off, ReasonCode.BRAKE, f"draw exceeded the budget: {watts_from_mw(off):.0f} W are held back")
        )
    notes += [Limited(0, ReasonCode.FROZEN, f"{name} does not hold: no raise") for name in state.frozen]
    if number := state.left_gpus:
        text = f"{number} GPUs without a pod keep their watts until what left them is drained and they are idle"
        notes.append(Limited(number, ReasonCode.POWER_PENDING, text))
    if (gpus := _gpus_note(state, config)) is not None:
        notes.append(gpus)
    notes += _coverage_notes(state, config)
    notes += state.hold_outcomes.values()
    silent = [node for node, ledger in state.nodes.items() if not answers(ledger, config, now_s)]
    if silent:
        held = sum(state.nodes[node].total_mw for node in silent)
        names = ", ".join(sorted(silent)[:3])
        text = f"{len(silent)} nodes do not answer ({names}): {watts_from_mw(held):.0f} W stay charged"
        notes.append(Limited(held, ReasonCode.POWER_PENDING, text))
    return tuple(notes)


def _coverage_notes(state: PowerState, config: SiteConfig) -> list[Limited]:
    """What the budget does not cover, and which workers came unannounced, where it covers workers only."""
    if config.covers is Covers.ALL_GPUS:
        return []
    notes = []
    beyond = coverage.outside(state.nodes.values())
    if beyond.gpus:
        watts = watts_from_mw(Milliwatts(beyond.charge_mw))
        text = f"{beyond.gpus} GPUs without a worker are outside the budget: they may draw {watts:.0f} W more"
        notes.append(Limited(beyond.charge_mw, ReasonCode.OUTSIDE_BUDGET, text))
    if (still := state.pledged_gpus) > 0:
        text = f"replicas on {still} GPUs are still to start: their watts are reserved wherever they start"
        notes.append(Limited(still, ReasonCode.START_WATTS, text))
    if state.unannounced_gpus:
        text = f"{state.unannounced_gpus} GPUs hold workers that no decision started: they are charged as they are"
        notes.append(Limited(state.unannounced_gpus, ReasonCode.UNANNOUNCED, text))
    return notes


def _gpus_note(state: PowerState, config: SiteConfig) -> Limited | None:
    """The note on GPUs that no agent has ever reported: charged nothing, or charged although they may not exist."""
    reported = len(state.where)
    if config.expected_gpus is None:
        text = f"expected_gpus is not set and {reported} GPUs have reported: one that never reports is charged nothing"
        return Limited(reported, ReasonCode.EXPECTED_GPUS, text) if reported else None
    if reported == config.expected_gpus or not reported:
        return None
    if missing := unreported_gpus(state, config):
        watts = watts_from_mw(in_advance_mw(state, config))
        text = f"{missing} of {config.expected_gpus} expected GPUs have never been reported: {watts:.0f} W are charged"
        if config.covers is Covers.WORKERS:
            text += " for replicas that may start there, and what decisions let go counts until each is seen to be gone"
        return Limited(missing, ReasonCode.EXPECTED_GPUS, text)
    text = f"{reported} GPUs have reported and expected_gpus says {config.expected_gpus}: none is charged in advance"
    return Limited(reported, ReasonCode.EXPECTED_GPUS, text)


def _short_ahead_mw(state: PowerState, config: SiteConfig, now_s: float) -> Milliwatts:
    """Milliwatts by which the hardware's minimum caps exceed the smallest budget known in advance."""
    allowed = allowed_mw(config, smallest_mw(config, state.orders, now_s), len(state.nodes))
    return Milliwatts(sum([total_of(ledger.cards.min_mw, ledger.covered) for ledger in state.nodes.values()]) - allowed)


def next_event_s(state: PowerState, config: SiteConfig, now_s: float) -> float | None:
    """The next instant at which ``advance`` may have work without a new message; None if there is none."""
    times = [] if state.raises_from_s <= now_s else [state.raises_from_s]
    if (change := next_change_s(config, state.orders, now_s)) is not None:
        times.append(change)
    times += [hold.until_s for hold in state.holds]
    for ledger in state.nodes.values():
        if ledger.cost_mw != ledger.charge_mw:
            times.append(ledger.held_until_s)
        if ledger.goal_mw != ledger.caps_mw and ledger.raised_s + config.settle_s > now_s:
            times.append(ledger.raised_s + config.settle_s)
        if ledger.caps_mw is not None and ledger.seen is not None:
            times.append(ledger.sent_s + config.lease_s / 3.0)
        if ledger.unanswered_s is not None:
            times += [ledger.unanswered_s + config.answer_s, ledger.sent_s + config.answer_s]
    ahead = [time_s for time_s in times if time_s > now_s]
    return min(ahead, default=None)
