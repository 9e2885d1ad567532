"""From the caps in force to the desired caps: which changes may be published now. Safe at every prefix.

All lowers are published at once. Raises spend only the free pool: watts that were read back as lowered and have
settled. A cut scales every reachable GPU proportionally above its minimum. Pure functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import compress
from operator import le

from planner.core.power.node_ledger import NOT_DECIDED, Column, NodeLedger
from planner.domain.config import SiteConfig
from planner.domain.ids import NodeId
from planner.domain.units import Milliwatts

PER_MILLE = 1000


def allowed_mw(config: SiteConfig, budget_mw: Milliwatts, nodes: int) -> Milliwatts:
    """Milliwatts left for GPUs after host overhead and margin."""
    return Milliwatts(budget_mw - config.margin_mw - nodes * config.host_overhead_mw_per_node)


def answers(ledger: NodeLedger, config: SiteConfig, now_s: float) -> bool:
    """Whether the node can be relied on to carry out a decision that lowers."""
    if now_s - ledger.reported_s > config.stale_s:
        return False
    return ledger.unanswered_s is None or now_s - ledger.unanswered_s <= config.answer_s


def fallbacks(ledger: NodeLedger, config: SiteConfig, share: int) -> Column:
    """The cap of each GPU after its lease ends: the configured fallback, as far as the smallest budget allows it.

    ``share``: per mille of the way from the hardware's minimum up to the configured fallback.
    """
    low = ledger.cards.min_mw
    if config.fallback_mw is None:
        return low
    high = [min(max(config.fallback_mw, lo), hi) for lo, hi in zip(low, ledger.cards.max_mw, strict=True)]
    return tuple(lo + (hi - lo) * share // PER_MILLE for lo, hi in zip(low, high, strict=True))


def fallback_share(nodes: Iterable[NodeLedger], config: SiteConfig, allowed: Milliwatts) -> int:
    """Per mille of the configured fallback that fits ``allowed``, the smallest budget known."""
    if config.fallback_mw is None:
        return 0
    low = high = 0
    for ledger in nodes:
        low += sum(ledger.cards.min_mw)
        high += sum(fallbacks(ledger, config, PER_MILLE))
    if high <= allowed:
        return PER_MILLE
    return max(0, (allowed - low) * PER_MILLE // (high - low)) if high > low else 0


def goal(ledger: NodeLedger, parked_mw: Column, *, hold: bool) -> Column:
    """The caps to aim at. A GPU without a pool is parked; one with a pod keeps its cap until the pod is gone."""
    low, high = ledger.cards.min_mw, ledger.cards.max_mw
    caps = ledger.caps_mw if ledger.caps_mw is not None else ledger.charge_mw
    if ledger.covered is not None:
        return _goal_of_workers(ledger, parked_mw, hold=hold)
    if hold:
        return tuple([min(max(cap, lo), max(hi, lo)) for cap, lo, hi in zip(caps, low, high, strict=True)])
    wanted = ledger.wanted or (None,) * len(caps)
    rows = zip(wanted, caps, parked_mw, ledger.busy, low, high, strict=True)
    return tuple(
        [
            min(max(want.cap_mw if want is not None else cap if busy else park, lo), hi)
            for want, cap, park, busy, lo, hi in rows
        ]
    )


def _goal_of_workers(ledger: NodeLedger, parked_mw: Column, *, hold: bool) -> Column:
    """The same where the budget covers workers only: a wanted cap begins once its GPU is covered, and a GPU that
    another's pod holds gets no cap, or keeps the one it has until it is released.
    """
    size = len(ledger.charge_mw)
    caps = ledger.caps_mw or (NOT_DECIDED,) * size
    wanted = ledger.wanted or (None,) * size
    goals = []
    rows = zip(caps, ledger.charge_mw, wanted, parked_mw, ledger.busy, ledger.covered or (), strict=True)
    for (cap, charge, want, park, busy, counts), lo, hi in zip(
        rows, ledger.cards.min_mw, ledger.cards.max_mw, strict=True
    ):
        if busy and not counts and cap == NOT_DECIDED:
            goals.append(NOT_DECIDED)
            continue
        aim = cap if cap != NOT_DECIDED else charge
        if not hold:
            aim = want.cap_mw if want is not None and counts else aim if busy else park
        goals.append(min(max(aim, lo), max(hi, lo)))
    return tuple(goals)


@dataclass(frozen=True, slots=True)
class Squeeze:
    """How far goals must shrink to fit: GPUs get ``minimum + (goal - minimum) * part / whole``."""

    part: int
    whole: int
    shortfall_mw: Milliwatts = Milliwatts(0)
    """Milliwatts by which even the minimum caps exceed what is allowed."""

    @property
    def full(self) -> bool:
        return self.part >= self.whole

    def apply(self, goal_mw: Column, floor_mw: Column) -> Column:
        """The shrunk goal, rounded down. A goal below its minimum stays."""
        if self.full:
            return goal_mw
        return tuple(
            [
                lo + (to - lo) * self.part // self.whole if to > lo else to
                for to, lo in zip(goal_mw, floor_mw, strict=True)
            ]
        )


def squeeze(
    nodes: Iterable[NodeLedger], goals: Mapping[NodeId, Column], reachable: set[NodeId], allowed: Milliwatts
) -> Squeeze:
    """Fit the goals into ``allowed``. GPUs that cannot be lowered count with their full charge."""
    fixed = above = floors = 0
    for ledger in nodes:
        if ledger.node not in reachable:
            fixed += ledger.total_mw
            continue
        target, floor = goals[ledger.node], ledger.cards.min_mw
        stuck = ledger.stuck()
        counted = ledger.covered
        if counted is not None or any(stuck):
            rows = zip(target, floor, ledger.cost_mw, stuck, strict=True)
            for to, lo, cost, held in rows if counted is None else compress(rows, counted):
                fixed += cost if held else 0
                floors += 0 if held else min(lo, to)
                above += 0 if held else max(0, to - lo)
        else:
            total, low = sum(target), sum(map(min, floor, target))
            floors += low
            above += total - low
    room = allowed - fixed - floors
    if room >= above:
        return Squeeze(1, 1)
    return Squeeze(max(0, room), max(1, above), Milliwatts(max(0, -room)))


def lowered(ledger: NodeLedger, target: Column, step_mw: int, *, must: bool) -> Column | None:
    """Caps with every lower of ``target`` applied and no raise; None where nothing is to be lowered."""
    caps = ledger.caps_mw
    if caps is None:
        return tuple(map(min, ledger.charge_mw, target))
    if ledger.covered is not None:
        caps = tuple(
            [
                charge if cap == NOT_DECIDED and to != NOT_DECIDED else cap
                for cap, charge, to in zip(caps, ledger.charge_mw, target, strict=True)
            ]
        )
    elif all(map(le, caps, target)):
        return None
    least = 1 if must else step_mw
    new = tuple([to if cap - to >= least else cap for cap, to in zip(caps, target, strict=True)])
    return None if new == ledger.caps_mw else new


def raise_cost(ledger: NodeLedger, caps: Column, target: Column, step_mw: int) -> int:
    """Free milliwatts that the raises of ``target`` above ``caps`` would take."""
    rows = zip(caps, target, ledger.cost_mw, strict=True)
    return sum([max(0, to - cost) for cap, to, cost in rows if to - cap >= step_mw])


def raised(ledger: NodeLedger, caps: Column, target: Column, step_mw: int, part: int, whole: int) -> Column:
    """Caps with ``part / whole`` of the raises that cost watts, and all of those that cost none."""
    out = []
    for cap, to, cost, ok in zip(caps, target, ledger.cost_mw, ledger.healthy, strict=True):
        new = to if part >= whole or to <= cost else cost + (to - cost) * part // whole
        out.append(new if ok and to - cap >= step_mw and new - cap >= step_mw else cap)
    return tuple(out)
