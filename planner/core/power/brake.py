"""The brake: withholds watts from the budget when measured draw exceeds it although the caps are within it.

Owns a 2 s window of the site's draw, and the watts withheld. A second line of defence: it must never allow more than
the budget, and never count an unknown draw as zero.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

WINDOW_S = 2.0
HOLD_S = 30.0
"""Seconds for which watts are withheld in full after the last excess."""
RELEASE_S = 60.0
"""Seconds over which they are released afterwards."""


@dataclass(frozen=True, slots=True)
class Brake:
    """``held_mw`` have been withheld since ``pressed_s``. ``draws``: (instant, milliwatts) of the last window."""

    held_mw: int = 0
    pressed_s: float = float("-inf")
    draws: tuple[tuple[float, int], ...] = ()

    def off_mw(self, now_s: float) -> int:
        """Milliwatts to withhold from the budget now."""
        if self.held_mw == 0:
            return 0
        past_s = now_s - self.pressed_s - HOLD_S
        return self.held_mw if past_s <= 0 else int(self.held_mw * max(0.0, 1.0 - past_s / RELEASE_S))

    def mean_mw(self) -> float:
        """Time-weighted mean draw of the window in milliwatts: each reading counts until the next one."""
        if len(self.draws) < 2:
            return float(self.draws[0][1]) if self.draws else 0.0
        spans = [(later[0] - sooner[0]) * sooner[1] for sooner, later in zip(self.draws, self.draws[1:], strict=False)]
        return sum(spans) / max(self.draws[-1][0] - self.draws[0][0], 1e-9)

    def covers_window(self) -> bool:
        """Whether the readings span the window over which the budget is defined."""
        return len(self.draws) > 1 and self.draws[-1][0] - self.draws[0][0] >= WINDOW_S


def watch(brake: Brake, draw_mw: int | None, allowed_mw: int, promised_mw: int, now_s: float) -> Brake:
    """The brake after another reading of the site's draw, given what the GPUs may draw together, and their charges.

    Draw above the budget with charges within it means that limits let more through than they should: that much is
    withheld. If the charges are above the budget too, a cut is already under way, and the brake is not needed.
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
    # A new window starts with each correction, so that one excess is corrected once and not once per reading.
    return Brake(max(brake.off_mw(now_s), mean_mw - promised_mw), now_s, (draws[-1],))
