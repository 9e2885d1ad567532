"""One simulated GPU: a limit, a draw that follows load and limit with a lag, and energy as the integral of the draw.

Owns the physics of power in the plant. Must not be used as the planner's power model: the draw here depends on the
batch size, which the planner's curve does not contain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import NamedTuple

from planner.core.power.curve import speed
from planner.domain.power import PowerCurve

SETTLED_MW = 0.5
BATCH_FLOOR = 0.62
BATCH_PER_DECADE = 0.158
"""Share of the saturated draw at batch 1, and the increase per tenfold batch: medians of the ML.ENERGY leaderboard v3
on H100 are 0.77 at batch 8, 0.93 at 64 and 1 at 256."""


@dataclass(frozen=True, slots=True)
class GpuCard:
    """A card's data sheet and its inertia, in milliwatts and seconds. The defaults are those of an H200 SXM."""

    model: str = "NVIDIA H200"
    default_mw: int = 700_000
    min_mw: int = 200_000
    max_mw: int = 700_000
    idle_mw: int = 75_000
    starting_mw: int = 200_000
    """Draw while weights are loaded."""
    lag_s: float = 0.15
    """Time constant of the draw after a change of load or limit."""
    overshoot: float = 0.05
    """Share by which the draw aims above the limit for ``overshoot_s`` after the load has risen over it."""
    overshoot_s: float = 0.05


H200 = GpuCard()


class SimGpuReading(NamedTuple):
    """The state of a GPU at one instant. Limits and draw in milliwatts, energy in millijoules since the start."""

    gpu: str
    node: str
    requested_mw: int
    enforced_mw: int
    draw_mw: int
    load_mw: int
    """Draw of the present work without a limit."""
    energy_mj: int
    pool: str
    worker: str
    terminating: bool


@cache
def batch_share(batch: int) -> float:
    """Share of a decode worker's saturated draw at ``batch`` running requests; 0 for none."""
    return min(1.0, BATCH_FLOOR + BATCH_PER_DECADE * math.log10(batch)) if batch > 0 else 0.0


def capped_speed(curve: PowerCurve, cap_mw: float, share: float = 1.0) -> float:
    """Relative speed under ``cap_mw`` of work that draws ``share`` of the curve's saturated power without a limit.

    The law of ``planner.core.power.curve``, tail included, scaled with the draw: a limit above the work's draw costs no
    speed.
    """
    return speed(_scaled(curve, share), math.floor(cap_mw))


@lru_cache(maxsize=4096)
def _scaled(curve: PowerCurve, share: float) -> PowerCurve:
    return replace(curve, p_u_mw=round(curve.p_u_mw * share), p_s_mw=round(curve.p_s_mw * share))


class SimGpu:
    """A GPU's state at ``at_s``. The draw approaches ``target_mw`` exponentially, so its integral is exact."""

    __slots__ = (
        "at_s",
        "card",
        "draw_mw",
        "energy_mj",
        "enforced_mw",
        "load_mw",
        "node",
        "over_until_s",
        "owner",
        "requested_mw",
        "uuid",
    )

    def __init__(self, uuid: str, node: str, card: GpuCard) -> None:
        self.uuid = uuid
        self.node = node
        self.card = card
        self.requested_mw = card.default_mw
        self.enforced_mw = card.default_mw
        self.load_mw = float(card.idle_mw)
        self.draw_mw = float(card.idle_mw)
        self.energy_mj = 0.0
        self.at_s = 0.0
        self.over_until_s = -1.0
        self.owner = ""

    def advance(self, now_s: float) -> None:
        """Integrate up to ``now_s``."""
        if now_s <= self.at_s:
            return
        load, limit = self.load_mw, self.enforced_mw
        if load > limit:
            if self.over_until_s > self.at_s:
                end_s = min(self.over_until_s, now_s)
                self._approach(min(load, limit * (1.0 + self.card.overshoot)), end_s - self.at_s)
                self.at_s = end_s
            load = limit
        self._approach(load, now_s - self.at_s)
        self.at_s = now_s

    def _approach(self, target_mw: float, dt_s: float) -> None:
        """Energy of ``target + gap * exp(-t / lag)`` over ``dt_s``, and the draw at its end."""
        gap = self.draw_mw - target_mw
        if -SETTLED_MW < gap < SETTLED_MW:
            self.draw_mw = target_mw
            self.energy_mj += target_mw * dt_s
            return
        lag_s = self.card.lag_s
        decay = math.exp(-dt_s / lag_s) if lag_s > 0 else 0.0
        self.energy_mj += target_mw * dt_s + gap * lag_s * (1.0 - decay)
        self.draw_mw = target_mw + gap * decay

    def set_load(self, load_mw: float, now_s: float) -> None:
        """Change the work's draw from ``now_s`` on; milliwatts without a limit."""
        self.advance(now_s)
        if load_mw > self.load_mw:
            self.over_until_s = now_s + self.card.overshoot_s
        self.load_mw = load_mw

    def set_limit(self, mw: int, now_s: float) -> int:
        """Request a limit. Returns the enforced one: the request clamped to the card's range."""
        self.advance(now_s)
        self.requested_mw = self.enforced_mw = min(max(mw, self.card.min_mw), self.card.max_mw)
        return self.enforced_mw
