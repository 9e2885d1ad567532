"""What a GPU can use at most (P_u), learned online from draws, caps and how busy the engine is.

Owns one pool's estimates by batch: a pool is one model in one phase on one GPU type. Must never lower a cap by itself,
and never trust one reading: telemetry is late (a one-second mean behind the cap) and noisy. Why: P_u decides what a cap
costs, and it was measured from 407 to 690 W of 700 W on one GPU type, depending on model and batch.

A draw tells different things. At its cap it only says that P_u is no less (a bound): an estimate well above the cap
stays, one near the cap or below it rises, for a cap chosen by the estimate would otherwise prove it right for ever. So
the estimate rests a few percent above the truth. Below its cap the draw of a BUSY engine is what the phase can use (a
sample); of an engine with pauses it is less, so that it counts only where it is more than the estimate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from planner.domain.power import PowerCurve

SETTLED_S = 5.0
"""Readings this soon after a cap or batch change still show the old one."""
BUSY = 0.9
"""Below this busy share a draw says how idle the engine is, not what it can use."""
AT_CAP = 0.97
"""A draw above this share of its cap is held by it."""
HALF_LIFE_S = 600.0
"""Old evidence counts half after this long: a new driver or a hotter room is noticed."""
PRIOR_WEIGHT = 8.0
"""How many readings the prior is worth."""
MOST_WEIGHT = 200.0
OUTLIER = 3.0
"""Readings further off than this many deviations are pulled in to it."""
LEAST_DEVIATION = 0.02
"""Of P_u: noise is never taken to be smaller, or a first lucky pair would make every later reading an outlier."""
PROBE = 0.01
"""How much an estimate rises with each reading that is held by a cap near it."""
LOWEST, HIGHEST = 0.5, 1.6
"""Bounds of the estimate, as multiples of the prior."""


def batch_bucket(batch: float) -> int:
    """0: up to 1.4 sequences, 1: to 2.8, 2: to 5.6, … : neighbouring powers of two draw alike."""
    return max(0, round(math.log2(batch))) if batch > 1 else 0


@dataclass(frozen=True, slots=True)
class Reading:
    """One GPU's telemetry. ``cap_mw`` is the enforced limit; ``since_change_s`` how long cap and batch have stood.

    ``gpus``: how many equal GPUs this is the middle one of; it weighs as much as their readings would.
    """

    draw_mw: int
    cap_mw: int
    utilisation: float
    since_change_s: float
    gpus: int = 1


@dataclass(frozen=True, slots=True)
class Estimate:
    """P_u as far as it is known: a decayed mean with the weight behind it."""

    p_u_mw: float
    deviation_mw: float
    weight: float
    at_s: float
    samples: int = 0
    bounds: int = 0
    """Readings that only said "no less"."""


@dataclass(frozen=True, slots=True)
class LearnedPower:
    """One pool's estimates by batch bucket: a value. ``observe`` returns the next one."""

    estimates: Mapping[int, Estimate] = field(default_factory=dict)

    def observe(self, batch: int, prior: PowerCurve, reading: Reading, now_s: float) -> LearnedPower:
        """The state after one reading; the same state where the reading tells nothing."""
        if not _informative(prior, reading):
            return self
        known = self.estimates.get(batch) or _begun(self.near(batch), prior, now_s)
        fresh = _updated(known, prior, reading, now_s)
        return self if fresh is None else LearnedPower({**self.estimates, batch: fresh})

    def near(self, batch: int) -> Estimate | None:
        """The estimate of this bucket, else of the nearest one: P_u moves by a few percent from one to the next.

        Of two equally near the larger batch's, which draws more. None: nothing was learned yet.
        """
        nearest = min(self.estimates, key=lambda known: (abs(known - batch), -known), default=None)
        return None if nearest is None else self.estimates[nearest]

    def p_u_mw(self, batch: int, prior: PowerCurve) -> int:
        """The estimate, within its bounds; the prior's where nothing was learned."""
        known = self.near(batch)
        return prior.p_u_mw if known is None else round(_bounded(known.p_u_mw, prior))

    def curve(self, batch: int, prior: PowerCurve) -> PowerCurve:
        """The prior's law with the learned P_u. P_s keeps its distance in proportion, so that the shape stays."""
        p_u = self.p_u_mw(batch, prior)
        if p_u == prior.p_u_mw:
            return prior
        return replace(prior, p_u_mw=p_u, p_s_mw=round(prior.p_s_mw * min(1.0, p_u / prior.p_u_mw)))


def _informative(prior: PowerCurve, reading: Reading) -> bool:
    settled = reading.since_change_s >= SETTLED_S and reading.cap_mw > 0
    return settled and prior.idle_mw < reading.draw_mw <= 2 * prior.max_mw


def _begun(near: Estimate | None, prior: PowerCurve, now_s: float) -> Estimate:
    p_u = float(prior.p_u_mw) if near is None else near.p_u_mw
    return Estimate(p_u, 0.1 * p_u, PRIOR_WEIGHT, now_s)


def _aged(known: Estimate, now_s: float) -> float:
    """The weight that is left: evidence decays, but an estimate never knows less than the prior did."""
    elapsed = max(0.0, now_s - known.at_s)
    return float(max(PRIOR_WEIGHT, known.weight * 0.5 ** (elapsed / HALF_LIFE_S)))


def _bounded(p_u_mw: float, prior: PowerCurve) -> float:
    low, high = LOWEST * prior.p_u_mw, min(HIGHEST * prior.p_u_mw, float(prior.max_mw))
    return max(low, min(max(low, high), p_u_mw))


def _updated(known: Estimate, prior: PowerCurve, reading: Reading, now_s: float) -> Estimate | None:
    """None where the reading tells nothing."""
    weight, at_s = _aged(known, now_s), max(now_s, known.at_s)
    if reading.draw_mw >= AT_CAP * reading.cap_mw:
        p_u, weight = _held(known.p_u_mw, weight, prior, reading)
        return Estimate(p_u, known.deviation_mw, weight, at_s, known.samples, known.bounds + 1)
    if reading.utilisation < BUSY and reading.draw_mw <= known.p_u_mw:
        return None
    spread = max(known.deviation_mw, LEAST_DEVIATION * known.p_u_mw)
    error = reading.draw_mw - known.p_u_mw
    pulled = max(-OUTLIER * spread, min(OUTLIER * spread, error))
    gain = reading.gpus / (weight + reading.gpus)
    # The deviation follows the pulled error's size, so that a true shift widens the gate and is believed.
    seen = min(abs(error), 2 * OUTLIER * spread)
    return Estimate(
        p_u_mw=_bounded(known.p_u_mw + gain * pulled, prior),
        deviation_mw=known.deviation_mw + max(gain, 1 / 16) * (1.2533 * seen - known.deviation_mw),
        weight=min(MOST_WEIGHT, weight + reading.gpus),
        at_s=at_s,
        samples=known.samples + 1,
        bounds=known.bounds,
    )


def _held(p_u_mw: float, weight: float, prior: PowerCurve, reading: Reading) -> tuple[float, float]:
    """The cap holds the draw: the phase may use more. An estimate near the cap rises, and its past counts for less."""
    if reading.cap_mw < AT_CAP * p_u_mw:
        return p_u_mw, weight
    higher = min(p_u_mw * (1 + PROBE * reading.gpus), reading.cap_mw / AT_CAP)
    return _bounded(max(p_u_mw, higher), prior), min(weight, PRIOR_WEIGHT)
