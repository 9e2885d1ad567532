"""The power law fitted to speeds by cap: parameters found, what the points do not show, and the product's own law."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import numpy as np
import pytest

from planner.adapters.power_priors import Phase, curve, gpu
from planner.core.power.curve import speed
from planner.domain.power import PowerCurve
from planner.profiler.analysis.power_law import CapSpeed, CardLimits, PowerFit, fit_points, law_speeds, phase_fit
from planner.profiler.analysis.sweep import Point

CARD = CardLimits(idle_watts=119, min_watts=200, max_watts=700)
CAPS = (200, 300, 400, 500, 600, 700)


def points(true: PowerCurve, caps: tuple[int, ...] = CAPS, *, noise: float = 0.0, each: int = 1) -> list[CapSpeed]:
    """Speeds under a true curve, with the draw of work that uses all it may."""
    rng = random.Random(5)
    full = speed(true, 1000 * max(caps))
    return [
        CapSpeed(
            Point(1, "prefill", 100 + number, 1, cap),
            cap,
            speed(true, 1000 * cap) / full * (1 if cap == max(caps) else rng.gauss(1, noise)),
            min(cap, true.p_u_mw / 1000),
        )
        for cap in caps
        for number in range(each)
    ]


@pytest.mark.parametrize("phase", [Phase.PREFILL, Phase.DECODE_DENSE, Phase.DECODE_MOE])
@pytest.mark.parametrize("noise", [0.0, 0.002])
def test_the_parameters_are_found_within_5_percent(phase, noise):
    true = curve(gpu("h200"), phase)
    fit = fit_points("prefill", points(true, noise=noise, each=4), CARD)
    assert fit.curve is not None
    assert fit.curve.p_u_mw == pytest.approx(true.p_u_mw, rel=0.05)
    assert fit.curve.p_s_mw == pytest.approx(true.p_s_mw, rel=0.05)
    assert fit.curve.alpha == pytest.approx(true.alpha, rel=0.05)
    assert fit.error is not None
    assert fit.error <= 1.5 * noise + 1e-6


def test_the_limits_of_the_curve_are_the_cards_and_the_lowest_cap():
    fit = fit_points("decode", points(curve(gpu("h200"), Phase.PREFILL), (300, 400, 500, 700)), CARD)
    assert fit.curve is not None
    assert (fit.curve.idle_mw, fit.curve.min_mw, fit.curve.max_mw) == (119_000, 200_000, 700_000)
    assert fit.curve.useful_mw == 300_000


def test_a_highest_cap_that_holds_the_phase_back_is_no_end_of_its_power():
    true = curve(gpu("h200"), Phase.PREFILL)
    fit = fit_points("prefill", points(true, (200, 250, 300, 350, 400, 450, 500)), CARD)
    assert fit.curve is not None
    for one in fit.points:
        assert fit.predicted(one) == pytest.approx(one.speed, rel=0.001)
    assert fit.curve.p_u_mw > 500_000


def test_what_the_points_do_not_show_is_not_fitted():
    true = curve(gpu("h200"), Phase.PREFILL)
    free = fit_points("decode", points(replace(true, p_u_mw=250_000), (300, 500, 700)), CARD)
    assert (free.curve, free.why) == (None, "no cap held it back; the lowest was 300 W")
    few = fit_points("decode", points(true, (500, 700)), CARD)
    assert (few.curve, few.why) == (None, "only 1 of the caps held it back; the law needs 3")
    assert few.predicted(few.points[0]) is None
    idle = fit_points("decode", points(true), replace(CARD, idle_watts=None))
    assert (idle.curve, idle.why) == (None, "the draw of the idle engine was not measured")


def test_the_largest_batch_with_a_curve_stands_for_its_phase():
    def fit(phase, batch, *, shown=True):
        return PowerFit(phase, batch, batch, (), curve(gpu("h200"), Phase.PREFILL) if shown else None, None, None, "")

    fits = [fit("prefill", 1), fit("decode", 1), fit("decode", 8), fit("decode", 64, shown=False)]
    assert phase_fit(fits, "decode") is fits[2]
    assert phase_fit(fits[1:], "prefill") is None


def drawn(rng: random.Random, true: PowerCurve, noise: float) -> PowerFit:
    """The fit of two prompt lengths measured under eight caps, each with its own noise."""
    caps = (200, 250, 300, 350, 425, 500, 600, 700)
    found = []
    for isl in (100, 200):
        by_cap = {cap: speed(true, 1000 * cap) * rng.gauss(1, noise) for cap in caps}
        found += [CapSpeed(Point(1, "decode", isl, 1, cap), cap, by_cap[cap] / by_cap[700], None) for cap in caps]
    return fit_points("decode", found, CARD)


def test_margins_hold_what_was_put_in_as_often_as_they_promise():
    """Work that draws little: caps hold it back so slightly that P_s and alpha stay open although speeds are right."""
    true = replace(curve(gpu("h200"), Phase.PREFILL), p_s_mw=85_000, p_u_mw=348_000, alpha=0.45)
    rng = random.Random(3)
    fits = [drawn(rng, true, 0.001) for _ in range(30)]
    for name, put in (("p_s_watts", 85.0), ("p_u_watts", 348.0), ("alpha", 0.45)):
        inside = [abs(value - put) <= margin for value, margin in (fit.parameters[name] for fit in fits)]
        # 95 % of 30 are 28.5, with a standard deviation of 1.2.
        assert sum(inside) >= 25, name
    assert all("p_s_watts" in fit.uncertain and "p_u_watts" not in fit.uncertain for fit in fits)
    assert max(abs(fit.parameters["p_s_watts"][0] / 85.0 - 1) for fit in fits) > 0.05
    for fit in fits:
        assert fit.curve is not None
        for cap_mw in range(200_000, 701_000, 10_000):
            assert speed(fit.curve, cap_mw) == pytest.approx(speed(true, cap_mw), rel=0.01)
    # The margins shrink with the noise, until all is certain.
    assert drawn(rng, true, 0.00002).uncertain == ()


def test_what_no_cap_shows_has_no_margin():
    true = curve(gpu("h200"), Phase.PREFILL)
    held_back_by_all = fit_points("prefill", points(true, (200, 250, 300, 350, 400, 450, 500), noise=0.001), CARD)
    assert held_back_by_all.margins is not None
    assert held_back_by_all.margins.p_u_watts == math.inf
    assert "p_u_watts" in held_back_by_all.uncertain
    as_many_as_parameters = fit_points("prefill", points(true, (300, 400, 450, 700)), CARD)
    assert as_many_as_parameters.uncertain == ("p_s_watts", "p_u_watts", "alpha")
    assert as_many_as_parameters.margins is not None
    assert as_many_as_parameters.margins.alpha == math.inf


def test_many_curves_at_once_have_the_speeds_of_the_planners_own_law():
    rng = random.Random(2)
    base = curve(gpu("h200"), Phase.PREFILL)
    for _ in range(300):
        p_s = rng.randrange(600_000)
        one = replace(
            base,
            p_s_mw=p_s,
            p_u_mw=rng.randrange(p_s + 1000, 700_001),
            alpha=math.exp(rng.uniform(-4, 1)),
            idle_mw=rng.choice((0, 119_000, 300_000)),
        )
        caps = np.array([float(rng.randrange(200_000, 700_001)) for _ in range(4)])
        found = law_speeds(one, (np.array([[p_s]]), np.array([[one.p_u_mw]]), np.array([[one.alpha]])), caps)
        assert found[0] == pytest.approx([speed(one, int(cap)) for cap in caps], abs=1e-9)
