"""The most that a GPU draws in a phase without a cap (P_u), learned online from draw, caps and engine load.

Owns one pool's estimates by batch size: a pool is one model in one phase on one GPU type. Must never lower a cap by
itself, and never trust a single reading: telemetry is late (a one-second mean behind the cap) and noisy. Why: P_u
decides how much speed a cap costs, and was measured from 407 to 690 W of 700 W on one GPU type, depending on model and
batch.

A draw at its cap only shows that P_u is no less (a bound): an estimate well above the cap stays, one near or below it
rises, because a cap chosen by the estimate would otherwise confirm it indefinitely. So the estimate settles a few
percent above the truth. A draw below its cap is P_u if the engine is busy (a sample); if the engine has pauses the draw
is lower, and counts only where it exceeds the estimate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from planner.domain.ids import NodeId
from planner.domain.power import PowerCurve

SETTLED_S = 5.0
"""Seconds after a change of cap or batch in which readings still show the old state."""
BUSY = 0.9
"""Below this busy share a draw reflects idle time, not P_u."""
AT_CAP = 0.97
"""A draw above this share of its cap counts as limited by it."""
HALF_LIFE_S = 600.0
"""Seconds after which evidence counts half, so that a new driver or a hotter room is noticed."""
PRIOR_WEIGHT = 8.0
"""Weight of the prior, in readings."""
MOST_WEIGHT = 200.0
OUTLIER = 3.0
"""Readings further off than this many deviations are clipped to it."""
LEAST_DEVIATION = 0.02
"""Smallest assumed noise, as a share of P_u. Else a first lucky pair would make every later reading an outlier."""
PROBE = 0.01
"""Share by which an estimate rises with each reading limited by a cap near it."""
LOWEST, HIGHEST = 0.5, 1.6
"""Bounds of the estimate, as multiples of the prior."""


def batch_bucket(batch: float) -> int:
    """The bucket of a batch size. 0: up to 1.4 sequences, 1: to 2.8, 2: to 5.6, … as neighbouring sizes draw alike."""
    return max(0, round(math.log2(batch))) if batch > 1 else 0


@dataclass(frozen=True, slots=True)
class Reading:
    """One GPU's telemetry. ``cap_mw`` is the enforced limit; ``since_change_s``: time since cap or batch changed.

    ``gpus``: the number of equal GPUs of which this is the median; it has the weight of that many readings.
    """

    draw_mw: int
    cap_mw: int
    utilisation: float
    since_change_s: float
    gpus: int = 1


@dataclass(frozen=True, slots=True)
class Estimate:
    """P_u as a decayed mean, and the weight of its evidence."""

    p_u_mw: float
    deviation_mw: float
    weight: float
    at_s: float
    samples: int = 0
    bounds: int = 0
    """Number of readings that were only bounds."""


@dataclass(frozen=True, slots=True)
class LearnedPower:
    """One pool's estimates by batch bucket; a frozen value. ``observe`` returns the next one."""

    estimates: Mapping[int, Estimate] = field(default_factory=dict)

    def observe(self, batch: int, prior: PowerCurve, reading: Reading, now_s: float) -> LearnedPower:
        """The estimates after one reading; unchanged if it carries no information."""
        if not _informative(prior, reading):
            return self
        known = self.estimates.get(batch) or _begun(self.near(batch), prior, now_s)
        fresh = _updated(known, prior, reading, now_s)
        return self if fresh is None else LearnedPower({**self.estimates, batch: fresh})

    def near(self, batch: int) -> Estimate | None:
        """The estimate of this bucket, else of the nearest: P_u changes by a few percent from one to the next.

        Of two equally near ones, that of the larger batch, which draws more. None if nothing was learned yet.
        """
        nearest = min(self.estimates, key=lambda known: (abs(known - batch), -known), default=None)
        return None if nearest is None else self.estimates[nearest]

    def p_u_mw(self, batch: int, prior: PowerCurve) -> int:
        """The estimate within its bounds, in milliwatts; the prior's P_u if nothing was learned."""
        known = self.near(batch)
        return prior.p_u_mw if known is None else round(_bounded(known.p_u_mw, prior))

    def curve(self, batch: int, prior: PowerCurve) -> PowerCurve:
        """The prior's curve with the learned P_u. P_s scales with it, so that the shape stays the same."""
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
    """The remaining weight: evidence decays, but never below the weight of the prior."""
    elapsed = max(0.0, now_s - known.at_s)
    return float(max(PRIOR_WEIGHT, known.weight * 0.5 ** (elapsed / HALF_LIFE_S)))


def _bounded(p_u_mw: float, prior: PowerCurve) -> float:
    low, high = LOWEST * prior.p_u_mw, min(HIGHEST * prior.p_u_mw, float(prior.max_mw))
    return max(low, min(max(low, high), p_u_mw))


def _updated(known: Estimate, prior: PowerCurve, reading: Reading, now_s: float) -> Estimate | None:
    """The next estimate; None if the reading carries no information."""
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
    # The deviation follows the clipped error, so that a true shift widens the range and is accepted.
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
    """After a bound: P_u may exceed the draw. An estimate near the cap rises; older evidence counts less."""
    if reading.cap_mw < AT_CAP * p_u_mw:
        return p_u_mw, weight
    higher = min(p_u_mw * (1 + PROBE * reading.gpus), reading.cap_mw / AT_CAP)
    return _bounded(max(p_u_mw, higher), prior), min(weight, PRIOR_WEIGHT)


Report = tuple[NodeId, str, float | None]
"""Identifies a node's telemetry by boot and agent clock."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """One pool's draw. Draws are milliwatts per GPU, smoothed over ticks; None: not yet known."""

    learned: LearnedPower = field(default_factory=LearnedPower)
    batch: float = 0.0
    """Sequences per replica at the last sample."""
    bucket: int = 0
    since_s: float = float("-inf")
    """Since when the batch is unchanged."""
    measured_mw: float | None = None
    expected_mw: float | None = None
    """Expected draw by the curve in force then: the prior's, or with the learned P_u."""
    reports: frozenset[Report] = frozenset()
    """The reports of the last sample: repeated, they are not new evidence."""
