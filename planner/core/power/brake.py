"""The brake: measured draw against the budget, for the case that caps do not hold what they promise.

Owns a 2 s window of the site's draw and the watts taken off the budget because of it. A second line of defence:
it must never give a watt more than the budget, and never counts an unknown draw as zero.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

WINDOW_S = 2.0
HOLD_S = 30.0
"""How long a correction stays in full after the last excess."""
RELEASE_S = 60.0
"""Over how long it is given back afterwards."""


@dataclass(frozen=True, slots=True)
class Brake:
    """``held_mw`` are off the budget since ``pressed_s``. ``draws``: (instant, milliwatts) of the last window."""

    held_mw: int = 0
    pressed_s: float = float("-inf")
    draws: tuple[tuple[float, int], ...] = ()

    def off_mw(self, now_s: float) -> int:
        """Milliwatts to keep off the budget now."""
        if self.held_mw == 0:
            return 0
        past_s = now_s - self.pressed_s - HOLD_S
        return self.held_mw if past_s <= 0 else int(self.held_mw * max(0.0, 1.0 - past_s / RELEASE_S))

    def mean_mw(self) -> float:
        """Time-weighted mean of the window: each draw counts until the next one was read."""
        if len(self.draws) < 2:
            return float(self.draws[0][1]) if self.draws else 0.0
        spans = [(later[0] - sooner[0]) * sooner[1] for sooner, later in zip(self.draws, self.draws[1:], strict=False)]
        return sum(spans) / max(self.draws[-1][0] - self.draws[0][0], 1e-9)

    def covers_window(self) -> bool:
        """Whether what was seen spans the window on which the budget is defined."""
        return len(self.draws) > 1 and self.draws[-1][0] - self.draws[0][0] >= WINDOW_S


def watch(brake: Brake, draw_mw: int | None, allowed_mw: int, promised_mw: int, now_s: float) -> Brake:
    """One more look at the site's draw, with what the GPUs together may draw and what their charges promise.

    Above the budget although the charges are within it, limits let more through than they say: so much is kept off
    the budget. Above it because the charges are, a cut is on its way, and the brake is not needed.
    """
    if draw_mw is None:
        return replace(brake, draws=()) if brake.draws else brake
    draws = [*brake.draws, (now_s, draw_mw)]
    # The newest sample at or before the window's start stays: it holds until the next one.
    while len(draws) > 1 and draws[1][0] <= now_s - WINDOW_S:
        draws.pop(0)
    seen = replace(brake, draws=tuple(draws))
    mean_mw = int(seen.mean_mw()) if seen.covers_window() else 0
    if mean_mw <= allowed_mw or promised_mw > allowed_mw:
        return seen
    # A new window starts with each press, so that one excess is corrected once and not once per sample.
    return Brake(max(brake.off_mw(now_s), mean_mw - promised_mw), now_s, (draws[-1],))
