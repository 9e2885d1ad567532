"""How late the prompts of many deployments will be, in step: ``transient``'s search for all of them in one pass.

Owns speed only: every figure equals that of ``Outlook.line``, bit by bit, so that a tick's decisions do not depend on
how many deployments it decides for. Sums run in the same order, and ``erfc``, ``exp`` and ``log`` are the C library's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from planner.core.sizing.late_prompts.transient import (
    CLOSE,
    FAR,
    LEAST,
    MOST,
    ROOT2,
    ROOT2PI,
    STEEP,
    STEPS,
    SURE,
    CapacityLine,
    Prompts,
    capacity_line,
)

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

FEWEST = 16
"""Below so many deployments the arrays cost more than they save."""


def lines(asked: Sequence[Prompts]) -> dict[Prompts, CapacityLine]:
    """The lines of all that is ``asked`` and has rates that may come."""
    found: dict[Prompts, CapacityLine] = {}
    by_rates: dict[int, list[Prompts]] = {}
    for each in dict.fromkeys(asked):
        by_rates.setdefault(len(each.outlook.rates), []).append(each)
    for count, alike in by_rates.items():
        if count and len(alike) >= FEWEST:
            found.update(_lines(alike))
    return found


def _lines(asked: Sequence[Prompts]) -> dict[Prompts, CapacityLine]:
    queues = _Queues.of(asked)
    slower = np.sqrt(queues.own_ms / queues.target_ms)
    full = queues.at_speed(np.ones_like(slower))
    at_full = _between_counts(full, _capacity(full))
    at_slower = _capacity(queues.at_speed(slower))
    rows = zip(asked, at_full.tolist(), at_slower.tolist(), strict=True)
    return {each: capacity_line(each, fast, slow) for each, fast, slow in rows}


@dataclass(frozen=True, slots=True)
class _Queues:
    """(Q) queues at a speed, (Q, K) the replicas' time that each rate asks for. Names as in ``Outlook``."""

    own_ms: Floats
    cost_ms: Floats
    cs2: Floats
    ca2: Floats
    span_ms: Floats
    target_ms: Floats
    share: Floats
    wanted: Floats
    """Logarithm of ``share``."""
    most: Floats
    """Replicas that the highest rate keeps busy."""
    asked: Floats
    left_ms: Floats
    """(Q, K) the backlog when new replicas serve."""
    speed: Floats

    @classmethod
    def of(cls, asked: Sequence[Prompts]) -> _Queues:
        looks = [each.outlook for each in asked]
        rows = [
            (o.own_ms, o.cost_ms, o.cs2, o.ca2, o.span_ms, o.backlog_ms, o.serving, o.lead_ms, max(o.rates))
            for o in looks
        ]
        own, cost, cs2, ca2, span, backlog, serving, lead, highest = np.array(rows, dtype=np.float64).T
        share = [each.share for each in asked]
        needed = np.array([o.rates for o in looks]) * (cost / 1000.0)[:, None]
        with np.errstate(invalid="ignore"):
            left = backlog[:, None] + (needed - serving[:, None]) * lead[:, None]
        return cls(
            own_ms=own,
            cost_ms=cost,
            cs2=cs2,
            ca2=ca2,
            span_ms=span,
            target_ms=np.array([each.target_ms for each in asked]),
            share=np.array(share),
            wanted=np.array([math.log(each) for each in share]),
            most=highest * cost / 1000.0,
            asked=needed,
            left_ms=np.where(left > 0.0, left, 0.0),
            speed=np.ones_like(own),
        )

    def at_speed(self, speed: Floats) -> _Queues:
        return replace(self, speed=speed)

    def late_share(self, places: NDArray[np.int64], capacity: Floats) -> Floats:
        """(q) ``Outlook.late_share`` of the queues at ``places`` with these capacities."""
        speed, cost = self.speed[places], self.cost_ms[places]
        wait = self.target_ms[places] - self.own_ms[places] / speed
        spread = cost / speed * (self.cs2[places] + self.ca2[places] / np.maximum(1.0, capacity / speed))
        rho = np.maximum(self.asked[places] / capacity[:, None], LEAST)
        backlog = self.left_ms[places] / capacity[:, None]
        level = np.where(rho < 1.0, wait[:, None] / (1.0 + rho), wait[:, None] / 2.0)
        late = np.ones_like(rho)
        some = wait > 0.0
        span = np.broadcast_to(self.span_ms[places][:, None], rho.shape)
        numbers = (level, backlog, rho - 1.0, rho * spread[:, None], span)
        late[some] = _beyond(*(each[some].ravel() for each in numbers)).reshape(-1, rho.shape[1])
        total = np.zeros(len(places))
        for column in late.T:  # in this order, because floating-point sums depend on it
            total = total + column
        found: Floats = np.where(some, total / rho.shape[1], 1.0)
        return found

    def excess(self, places: NDArray[np.int64], capacity: Floats) -> Floats:
        """(q) logarithm of lateness above the wanted one."""
        late = self.late_share(places, capacity)
        return _each(math.log, late + SURE) - self.wanted[places]


def _each(function: Callable[[float], float], numbers: Floats) -> Floats:
    """A function of the C library, whose last bit numpy's own may not share."""
    return np.array([function(number) for number in numbers.tolist()], dtype=np.float64)


def _beyond(level: Floats, start: Floats, drift: Floats, variance: Floats, span: Floats) -> Floats:
    """``transient.beyond`` of many."""
    width, moved, pull = np.sqrt(variance * span), drift * span, 2.0 * drift * level
    free = 0.5 * _each(math.erfc, (level - start - moved) / (width * ROOT2))
    alone = (free >= 1.0) | ((free < SURE) & (drift < 0.0) & (pull < -FAR * variance))
    rest = np.flatnonzero(~alone)
    exponent, z = pull[rest] / variance[rest], ((level + start + moved) / width)[rest]
    far = (z > FAR) | (exponent > STEEP)
    reflected = np.empty_like(z)
    steep, tail = exponent[far], z[far]
    reflected[far] = _each(math.exp, np.minimum(0.0, steep - 0.5 * tail * tail)) / (np.maximum(1.0, tail) * ROOT2PI)
    near = ~far
    reflected[near] = _each(math.exp, exponent[near]) * 0.5 * _each(math.erfc, z[near] / ROOT2)
    free[rest] = np.minimum(1.0, free[rest] + reflected)
    return free


def _capacity(queues: _Queues) -> Floats:
    """(Q) ``Outlook.capacity`` at the queues' speeds."""
    low = np.maximum(LEAST, 0.25 * queues.most)
    high = 1.5 * queues.most + 1.0
    at_low = queues.excess(np.arange(len(low)), low)
    settled = at_low <= 0.0
    open_ = np.flatnonzero(~settled)
    at_high = np.zeros_like(low)
    rising = open_
    while len(rising):
        at_high[rising] = queues.excess(rising, high[rising])
        rising = rising[(at_high[rising] > 0.0) & (high[rising] < MOST)]
        low[rising], at_low[rising], high[rising] = high[rising], at_high[rising], 2.0 * high[rising]
    for step in range(STEPS):
        open_ = open_[high[open_] - low[open_] >= CLOSE * high[open_]]
        if not len(open_):
            break
        least, most = low[open_], high[open_]
        part = at_low[open_] / (at_low[open_] - at_high[open_]) if step % 2 == 0 else np.full(len(open_), 0.5)
        middle = least + np.minimum(0.95, np.maximum(0.05, part)) * (most - least)
        excess = queues.excess(open_, middle)
        above = excess > 0.0
        up, down = open_[above], open_[~above]
        low[up], at_low[up] = middle[above], excess[above]
        high[down], at_high[down] = middle[~above], excess[~above]
    return np.where(settled, low, high)


def _between_counts(queues: _Queues, capacity: Floats) -> Floats:
    """(Q) ``Outlook.between_counts`` of these capacities."""
    count = np.maximum(1.0, np.ceil(capacity))
    rising = np.arange(len(count))
    while len(rising):
        late = queues.late_share(rising, count[rising]) > queues.share[rising]
        rising = rising[late & (count[rising] < MOST)]
        count[rising] += 1.0
    falling = np.flatnonzero(count > 1.0)
    while len(falling):
        falling = falling[queues.late_share(falling, count[falling] - 1.0) <= queues.share[falling]]
        count[falling] -= 1.0
        falling = falling[count[falling] > 1.0]
    return np.minimum(count, np.maximum(capacity, count - 1.0 + LEAST))
