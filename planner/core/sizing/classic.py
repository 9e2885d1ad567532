"""Mode ``classic``: the replica formulas of the published 0.9 planner, exactly, for comparison and migration.

They size on the mean capacity of a busy engine, without queues: at their result engines run nearly full.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from planner.core.forecast import published
from planner.core.forecast.band import Band
from planner.core.performance.published_interpolators import classic_decode, classic_prefill
from planner.domain.config import DeploymentConfig, PlannerConfig
from planner.domain.observation import DeploymentObservation
from planner.domain.profile import DecodeProfile, PrefillProfile
from planner.domain.reading import Missing, MissingReason, Reading
from planner.domain.request import Request


@dataclass(frozen=True, slots=True)
class Interval:
    """The inputs of the formulas for one interval: requests, mean lengths."""

    requests: float
    isl_tokens: float
    osl_tokens: float
    interval_s: float

    @property
    def context_tokens(self) -> float:
        return self.isl_tokens + self.osl_tokens / 2.0


@dataclass(frozen=True, slots=True)
class LearnedInterval:
    """Forecasts after an interval. ``ahead`` is None where ``missing`` names readings without which 0.9.1 waits."""

    bands: Mapping[str, Band]
    ahead: Interval | None
    missing: Mapping[str, str]


def fresh(settings: PlannerConfig, config: DeploymentConfig, interval_s: float) -> dict[str, Band]:
    """Untrained forecasts, by the name of what they forecast."""
    made = published.published(config.predictor, interval_s, settings.predictors)
    return {name: Band(made, config.forecast_level, interval_s) for name in published.QUANTITIES}


def warmed(bands: Mapping[str, Band], arrivals: Iterable[Request], interval_s: float, now_s: float) -> dict[str, Band]:
    """``bands`` after a recorded trace, of which the last interval ends at ``now_s``.

    0.9.1's way: intervals without requests do not count, and the last one does, unfinished as it is.
    """
    bins: dict[int, list[Request]] = {}
    for arrival in arrivals:
        bins.setdefault(int(arrival.t_s // interval_s), []).append(arrival)
    known = dict(bands)
    for back, index in zip(range(len(bins) - 1, -1, -1), sorted(bins), strict=True):
        t_s, one = now_s - back * interval_s, bins[index]
        count, isl, osl = len(one), sum(each.isl for each in one), sum(each.osl for each in one)
        for name, value in zip(published.QUANTITIES, (float(count), isl / count, osl / count), strict=True):
            known[name] = replace(known[name], model=known[name].model.observe(t_s, value), due=())
    return {name: replace(band, model=published.asleep(band.model), due=()) for name, band in known.items()}


def learn(
    settings: PlannerConfig,
    config: DeploymentConfig,
    bands: Mapping[str, Band],
    seen: DeploymentObservation | None,
    t_s: float,
) -> LearnedInterval:
    """Forecasts after an interval. NaN (a mean over no requests) counts as zero; missing readings are skipped."""
    interval_s = settings.load_interval_s if seen is None else seen.interval_s
    known = {name: bands.get(name) or band for name, band in fresh(settings, config, interval_s).items()}
    if seen is None:
        return LearnedInterval(known, None, {published.COUNT: "the deployment was not observed"})
    readings = {published.COUNT: seen.requests, published.ISL: seen.isl_tokens, published.OSL: seen.osl_tokens}
    for name, reading in readings.items():
        value = 0.0 if is_nan(reading) else getattr(reading, "value", None)
        if value is not None:
            known[name] = replace(known[name], model=known[name].model.observe(t_s, value), due=())
    missing = _missing(config, seen)
    if missing:
        return LearnedInterval(known, None, missing)
    requests, isl, osl = (known[name].model.mean(interval_s) for name in published.QUANTITIES)
    return LearnedInterval(known, Interval(requests, isl, osl, interval_s), {})


def _missing(config: DeploymentConfig, seen: DeploymentObservation) -> dict[str, str]:
    """The readings without which 0.9.1 leaves the counts as they are: its formulas cannot use NaN."""
    used: dict[str, Reading] = {published.ISL: seen.isl_tokens, published.OSL: seen.osl_tokens}
    # 0.9.1 does not check whether the count is a number, and fails on it in the correction, if there is one.
    if config.correction or not is_nan(seen.requests):
        used = {published.COUNT: seen.requests, **used}
    missing = {name: reading.reason.value for name, reading in used.items() if isinstance(reading, Missing)}
    means: dict[str, Reading] = {"ttft_ms": seen.ttft_ms, "itl_ms": seen.itl_ms}
    if config.correction:
        means["request_duration_s"] = seen.request_duration_s
    return missing | {name: MissingReason.NOT_A_NUMBER.value for name, reading in means.items() if is_nan(reading)}


def is_nan(reading: Reading) -> bool:
    """Whether the source answered with a mean over no requests (NaN)."""
    return isinstance(reading, Missing) and reading.reason is MissingReason.NOT_A_NUMBER


def prefill_correction(profile: PrefillProfile, seen: Interval, ttft_ms: float) -> float:
    """Observed TTFT over the profile's. It includes queueing, and is far above 1 under load."""
    return _over(ttft_ms, classic_prefill(profile).ttft_ms(seen.isl_tokens))


def decode_correction(
    profile: DecodeProfile, seen: Interval, itl_ms: float, replicas: int, request_duration_s: float
) -> float:
    """Observed ITL over the profile's at the concurrency that Little's law gives."""
    concurrency = seen.requests / max(1, replicas) * request_duration_s / seen.interval_s
    return _over(itl_ms, classic_decode(profile).itl_ms(concurrency, seen.context_tokens))


def _over(observed: float, expected: float) -> float:
    """Their ratio by IEEE arithmetic, because a cubic through measured points may pass zero."""
    with np.errstate(all="ignore"):
        return float(np.float64(observed) / np.float64(expected))


def prefill_replicas(profile: PrefillProfile, ahead: Interval, correction: float, gpus: int) -> int:
    """``ceil(req * isl / interval * min(1, correction) / throughput per GPU / GPUs)``."""
    demand = ahead.requests * ahead.isl_tokens / ahead.interval_s * min(1.0, correction)
    return math.ceil(demand / classic_prefill(profile).tokens_per_s_per_gpu(ahead.isl_tokens) / gpus)


def decode_replicas(profile: DecodeProfile, ahead: Interval, itl_ms: float, correction: float, gpus: int) -> int:
    """``ceil(req * osl / interval / best throughput per GPU within the corrected ITL / GPUs)``."""
    corrected = itl_ms if correction <= 0 else itl_ms / correction
    rate = classic_decode(profile).best_rate(corrected, ahead.context_tokens)
    return math.ceil(ahead.requests * ahead.osl_tokens / ahead.interval_s / rate / gpus)


def within_budget(
    prefill: int, decode: int, prefill_gpus: int, decode_gpus: int, max_gpus: int | None, floors: tuple[int, int]
) -> tuple[int, int]:
    """The published proportional cut: the budget may be exceeded by floors, and by half an engine through rounding."""
    total = prefill * prefill_gpus + decode * decode_gpus
    if max_gpus is None or total <= max_gpus:
        return prefill, decode
    scale = max_gpus / total
    prefill = max(floors[0], round(prefill * scale))
    return prefill, max(floors[1], round((max_gpus - prefill * prefill_gpus) / decode_gpus))
