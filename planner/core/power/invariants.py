"""The promises I1 to I12 as named checks, shared by the running planner, the tests and the proof.

A violated promise freezes raises and is named in the plan; it never stops a lower. Checks are functions of values.
``power/README.md`` states the promises in words.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from operator import le

from planner.core.power.cap_changes import allowed_mw, answers, fallbacks
from planner.core.power.charging import charge_of
from planner.core.power.effective_budget import smallest_mw
from planner.core.power.node_ledger import NodeLedger, total_of
from planner.core.power.site_state import PowerState, free_mw
from planner.domain.config import SiteConfig
from planner.domain.plan import PowerDecision


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that does not hold: its name, and one sentence with the numbers."""

    name: str
    sentence: str


def standing(state: PowerState, config: SiteConfig, now_s: float) -> tuple[Violation, ...]:
    """Violations of the promises that must hold at every instant; cheap enough for every tick."""
    found = [_i1(state, config, now_s), _i5(state, config, now_s)]
    return tuple(violation for violation in found if violation is not None)


def _i1(state: PowerState, config: SiteConfig, now_s: float) -> Violation | None:
    """Charges are within the budget, outside the compliance window. Minimum caps above it are a shortfall."""
    if state.over_since_s is None or state.shortfall_mw or now_s - state.over_since_s <= config.compliance_s:
        return None
    over = -free_mw(state, config, now_s)
    return Violation("I1", f"charges stand {over} mW above the budget for {now_s - state.over_since_s:.1f} s")


def _i5(state: PowerState, config: SiteConfig, now_s: float) -> Violation | None:
    """Fallbacks above the hardware's minimum fit the smallest known budget. Minima that do not are a shortfall."""
    if config.fallback_mw is None or state.share == 0:
        return None
    allowed = allowed_mw(config, smallest_mw(config, state.orders, now_s), len(state.nodes))
    total = sum([sum(fallbacks(ledger, config, state.share)) for ledger in state.nodes.values()])
    if total <= allowed:
        return None
    return Violation("I5", f"fallbacks of {total} mW do not fit the smallest budget, which leaves {allowed} mW")


def wrong_charges(nodes: Iterable[NodeLedger]) -> tuple[Violation, ...]:
    """Violations of I2, found by recomputing every charge from its parts; for tests and the proof."""
    found = []
    for ledger in nodes:
        if ledger.charge_mw != charge_of(ledger.hardware_mw, ledger.sent):
            found.append(Violation("I2", f"{ledger.node}: the charge is not the highest of readback and grants"))
        if not all(map(le, ledger.charge_mw, ledger.cost_mw)) or ledger.total_mw != total_of(
            ledger.cost_mw, ledger.covered
        ):
            found.append(Violation("I3", f"{ledger.node}: watts count as free that have not settled"))
        newest = ledger.sent[-1].decision_id if ledger.sent else -1
        if newest >= ledger.next_id or [s.decision_id for s in ledger.sent] != sorted(
            {s.decision_id for s in ledger.sent}
        ):
            found.append(Violation("I4", f"{ledger.node}: decision ids do not rise"))
    return tuple(found)


def step_taken(
    before: PowerState, after: PowerState, orders: Iterable[PowerDecision], config: SiteConfig, now_s: float
) -> tuple[Violation, ...]:
    """Violations in one ``advance``: in the decisions that it sent and the charges that it left."""
    found: list[Violation] = []
    orders = tuple(orders)
    rises = [order for order in orders if order.raises]
    if rises and free_mw(after, config, now_s) < 0:
        found.append(Violation("I3", f"raises left the pool at {free_mw(after, config, now_s)} mW"))
    if rises and now_s < before.raises_from_s:
        found.append(Violation("I4", "a new leader raised before one lease had passed"))
    if rises and after.frozen:
        found.append(Violation("I9", f"raised while frozen by {' '.join(after.frozen)}"))
    for order in rises:
        found += _raise_allowed(before.nodes[order.node], order, config, now_s)
    for order in orders:
        found += _well_formed(before.nodes[order.node], order, config)
    for node, ledger in before.nodes.items():
        later = after.nodes[node]
        if not all(map(le, ledger.charge_mw, later.charge_mw)):
            found.append(Violation("I12", f"{node}: a charge fell without an answer"))
        if later.total_mw < ledger.total_mw and now_s < ledger.held_until_s:
            found.append(Violation("I3", f"{node}: watts were freed before they settled"))
    return tuple(found)


def _raise_allowed(ledger: NodeLedger, order: PowerDecision, config: SiteConfig, now_s: float) -> list[Violation]:
    found = []
    if not answers(ledger, config, now_s):
        found.append(Violation("I9", f"{order.node}: raised while it does not answer"))
    if 0.0 <= now_s - ledger.raised_s < config.settle_s:
        found.append(Violation("I11", f"{order.node}: raised twice within one settle time"))
    return found


def _well_formed(ledger: NodeLedger, order: PowerDecision, config: SiteConfig) -> list[Violation]:
    found = []
    if order.decision_id < ledger.next_id:
        found.append(Violation("I4", f"{order.node}: decision {order.decision_id} was used before"))
    if order.valid_for_s > config.lease_s:
        found.append(Violation("I5", f"{order.node}: valid for longer than a lease"))
    if any(cap.fallback_mw > cap.setpoint.cap_mw for cap in order.caps):
        found.append(Violation("I5", f"{order.node}: a fallback above its cap"))
    return found
