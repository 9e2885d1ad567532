"""A daily pattern is judged by the times at which it foresees a change, however long the load is flat between them."""

from __future__ import annotations

from planner.core.forecast.constant import Constant
from planner.core.forecast.seasonal import DAY_S, Seasonal

TICK_S, LEAD_S = 60.0, 300.0
RAMP_S, RAMP_TAKES_S = 7 * 3600.0, 3600.0


def load(t_s: float) -> float:
    """From 4 to 20 within the hour from 7:00 on, with a scatter of its own, and down again in the evening."""
    up = min(1.0, max(0.0, (t_s % DAY_S - RAMP_S) / RAMP_TAKES_S))
    down = min(1.0, max(0.0, (t_s % DAY_S - 19 * 3600.0) / RAMP_TAKES_S))
    return (4.0 + 16.0 * (up - down)) * (1.0 + 0.01 * (-1.0) ** (t_s // TICK_S))


def after(seconds: float) -> Seasonal:
    model, t_s = Seasonal(Constant(), LEAD_S), 0.0
    while t_s < seconds:
        t_s += TICK_S
        model = model.observe(t_s, load(t_s))
    return model


def test_a_night_does_not_make_it_forget_what_the_pattern_is_worth() -> None:
    before_it_begins = after(2 * DAY_S + RAMP_S - TICK_S)
    assert before_it_begins.weight > 0.5
    ramping = after(2 * DAY_S + RAMP_S + RAMP_TAKES_S / 4.0)
    true = load(ramping.seen_s + LEAD_S)
    assert abs(ramping.mean(LEAD_S) - true) < 0.5 * abs(Constant(ramping.model.mean(0.0)).mean(LEAD_S) - true)


def test_a_flat_load_gives_it_no_weight() -> None:
    model = Seasonal(Constant(), LEAD_S)
    for tick in range(4 * 1440):
        model = model.observe(tick * TICK_S, 5.0 + (tick * 7919 % 13) / 13.0)
    assert model.weight == 0.0
