"""Random interval sequences for comparing planners: walks, ramps, bursts, idle stretches, readings that are NaN.

A sequence is settings of 0.9.1 by their own names, a profile's folder and intervals in 0.9.1's own units. The same seed
always gives the same sequence.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Interval = dict[str, float]
NAN = math.nan
ARIMA_EVERY = 25
"""One sequence in this many forecasts by ARIMA: it fits three models, a second each, for each planner."""


@dataclass(frozen=True, slots=True)
class Sequence:
    """``config``: 0.9.1's flags, without dashes. ``profile``: which of the given profiles, by index."""

    seed: int
    profile: int
    config: dict[str, Any]
    intervals: tuple[Interval, ...]


def sequence(seed: int, profiles: int) -> Sequence:
    """The sequence of a seed, for one of ``profiles`` profiles."""
    draw = random.Random(seed)
    predictor = "arima" if seed % ARIMA_EVERY == 0 else draw.choice(("constant", "kalman"))
    config: dict[str, Any] = {
        "adjustment_interval": draw.choice((10, 30, 60, 180)),
        "ttft": draw.choice((100.0, 300.0, 500.0, 2000.0)),
        "itl": draw.choice((5.0, 10.0, 25.0, 50.0, 100.0)),
        "load_predictor": predictor,
        "max_gpu_budget": draw.choice((4, 8, 16, 32, 64, 64, 150)),
        "min_endpoint": draw.choice((1, 1, 1, 1, 2)),
        "prefill_engine_num_gpu": draw.choice((1, 1, 2, 4)),
        "decode_engine_num_gpu": draw.choice((1, 1, 2, 4, 8)),
    }
    if draw.random() < 0.25:
        config["load_predictor_log1p"] = True
    if draw.random() < 0.2:
        config["no_correction"] = True
    if predictor == "kalman":
        config["kalman_q_level"] = draw.choice((0.1, 1.0, 50.0))
        config["kalman_q_trend"] = draw.choice((0.01, 0.1, 5.0))
        config["kalman_r"] = draw.choice((0.1, 10.0, 500.0))
    count = draw.randrange(6, 10) if predictor == "arima" else draw.randrange(6, 18)
    intervals = tuple(_intervals(draw, count, config["adjustment_interval"]))
    return Sequence(seed, draw.randrange(profiles), config, intervals)


def _intervals(draw: random.Random, count: int, interval_s: int) -> Iterator[Interval]:
    shape = draw.choice(("walk", "ramp", "burst", "steady", "idle start", "fading"))
    rate = math.exp(draw.uniform(math.log(0.3), math.log(80.0)))
    isl, osl = math.exp(draw.uniform(3.5, 9.3)), math.exp(draw.uniform(2.0, 7.3))
    asleep = 0
    for index in range(count):
        rate *= _step(draw, shape, index, count)
        isl = min(40_000.0, max(1.0, isl * math.exp(draw.gauss(0.0, 0.0 if shape == "steady" else 0.15))))
        osl = min(8_000.0, max(1.0, osl * math.exp(draw.gauss(0.0, 0.0 if shape == "steady" else 0.15))))
        burst = draw.uniform(3.0, 20.0) if shape == "burst" and draw.random() < 0.2 else 1.0
        asleep = draw.randrange(1, 5) if draw.random() < 0.04 else max(0, asleep - 1)
        if asleep or (shape == "idle start" and index < 4):
            yield _idle(draw)
            continue
        yield _spoiled(draw, _busy(draw, rate * burst, isl, osl, interval_s))


def _step(draw: random.Random, shape: str, index: int, count: int) -> float:
    if shape == "ramp":
        return 1.3 if index < count / 2 else 1 / 1.3
    if shape == "fading":
        return 0.6
    return math.exp(draw.gauss(0.0, 0.0 if shape == "steady" else 0.3))


def _busy(draw: random.Random, rate: float, isl: float, osl: float, interval_s: int) -> Interval:
    ttft_s, itl_s = math.exp(draw.gauss(-1.6, 1.0)), math.exp(draw.gauss(-4.0, 0.7))
    if draw.random() < 0.03:
        osl = 0.0  # a forecast of no tokens
    return {
        # Prometheus extrapolates: its counts are not whole numbers.
        "num_req": draw.choice((float(round(rate * interval_s)), rate * interval_s)),
        "isl": isl,
        "osl": osl,
        "ttft_s": ttft_s,
        "itl_s": itl_s,
        "request_duration_s": ttft_s + itl_s * osl * draw.uniform(0.8, 1.2),
    }


def _idle(draw: random.Random) -> Interval:
    """No requests: means of nothing are NaN where the series exist, and 0.9.1 reads 0 where they do not."""
    mean = draw.choice((NAN, 0.0))
    return {"num_req": 0.0, **dict.fromkeys(("isl", "osl", "ttft_s", "itl_s", "request_duration_s"), mean)}


def _spoiled(draw: random.Random, interval: Interval) -> Interval:
    for name in interval:
        if draw.random() < 0.01:
            interval[name] = NAN
    return interval
