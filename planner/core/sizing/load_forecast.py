"""From readings to the load to size for: updates forecasts, carries lengths over idle intervals, bounds spreads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from planner.core.forecast import registry
from planner.core.forecast.band import Band
from planner.core.forecast.constant import Constant
from planner.core.forecast.ewma import Ewma
from planner.core.sizing import classic
from planner.core.sizing.sized_load import LARGEST_CV2, SMALLEST_CV2, SizedLoad
from planner.domain.config import DeploymentConfig, PlannerConfig, SizingMode
from planner.domain.observation import DeploymentObservation
from planner.domain.plan import Forecast
from planner.domain.pool import Replicas, Role
from planner.domain.reading import Missing, Reading, value_or_none

RATE, ISL, OSL = "request_rate_per_s", "isl_tokens", "osl_tokens"
QUANTITIES = (RATE, ISL, OSL)
"""The forecast quantities. The rate is derived from the reading ``requests``, a count per interval."""
REQUESTS = "requests"
SMOOTH, HELD, IN_FLIGHT, SQUARES = "smooth", "held", "in_flight", "isl_squares"
SEQUENCE_LIFE_S = 30.0
"""Seconds over which decode engines average arrivals: the duration of a typical sequence."""
STARTING_SERVES = 0.5
"""Share of a start-up time for which a replica that is starting now will serve: its start began at some time in it."""
SPAN_OF_START = 0.5
"""Start-up times over which a load is averaged before a forecast of it is judged. Within them only a queue helps, and
sizing takes its noise into account already: of single ticks it would count twice, and the more the shorter they are."""


@dataclass(frozen=True, slots=True)
class LearnedLoad:
    """Forecasts after an observation. ``missing`` names the readings that sizing lacks, with the reason."""

    bands: Mapping[str, Band]
    forecasts: Mapping[str, Forecast]
    missing: Mapping[str, str]
    rates: tuple[float, ...] = ()
    """Equally likely request rates at the horizon, per second."""
    held_rate: float | None = None
    """The upper quantile of the rate for decode engines: averaged over the duration of a sequence."""
    growth: float = 0.0
    """Increase of the sequences in flight since the last tick: longer answers show here early."""
    isl_cv2: float | None = None
    """The spread of prompt lengths over a span, because few prompts hardly ever show the longest; None: as read."""
    ahead: classic.Interval | None = None
    """Mode ``classic``: the next interval by the published forecasts; None where the published planner waits."""

    @property
    def known(self) -> bool:
        """Whether enough is known to size the load."""
        return all(name in self.forecasts for name in QUANTITIES)


def horizon_s(config: DeploymentConfig, interval_s: float) -> float:
    """Seconds of load time until capacity decided now can serve: one interval and the slowest start-up."""
    return interval_s + _slowest_start_s(config)


def span_s(config: DeploymentConfig) -> float:
    """Seconds of load time over which forecasts learn and are judged, however often there is a tick."""
    return SPAN_OF_START * _slowest_start_s(config)


def _slowest_start_s(config: DeploymentConfig) -> float:
    return max((pool.startup_s for pool in config.pools.values()), default=0.0)


def learn(
    settings: PlannerConfig,
    config: DeploymentConfig,
    bands: Mapping[str, Band],
    seen: DeploymentObservation | None,
    t_s: float,
) -> LearnedLoad:
    """Update the forecasts with an observation. An idle interval has no lengths: the last ones are kept."""
    if config.sizing is SizingMode.CLASSIC:
        return _classic(classic.learn(settings, config, bands, seen, t_s))
    ahead_s = horizon_s(config, settings.interval_s * settings.load_time_scale)
    bands = {name: band if name == IN_FLIGHT else band.at(config.forecast_level) for name, band in bands.items()}
    learned = {
        name: bands.get(name) or registry.make(config.predictor, config.forecast_level, ahead_s, settings.predictors)
        for name in QUANTITIES
    }
    learned = {name: band.over(span_s(config)) for name, band in learned.items()}
    values, missing = _values(seen)
    learned = {name: band.observe(t_s, values[name]) if name in values else band for name, band in learned.items()}
    forecasts = {name: band.forecast(ahead_s) for name, band in learned.items() if band.ready}
    expected = _expected(config, forecasts, ahead_s)
    forecasts, missing = forecasts | expected, {name: why for name, why in missing.items() if name not in expected}
    if values.get(RATE) == 0.0:
        forecasts = {name: forecasts.get(name) or Forecast(0.0, 0.0, 0.0, ahead_s, "idle") for name in QUANTITIES}
    rates = learned[RATE].scenarios(ahead_s) if learned[RATE].ready else ()
    known = bands[IN_FLIGHT].model.mean(0.0) if IN_FLIGHT in bands else None
    # A failed reading does not mean an empty engine; taken as empty, the next good reading would look like a flood.
    waiting = _in_flight(config, seen) if known is None or _in_flight_known(config, seen) else known
    before = waiting if known is None else known
    steady = _steady(config, bands, values.get(RATE), ahead_s, t_s)
    held_rate = steady[HELD].upper(ahead_s) if HELD in steady else None
    last = {IN_FLIGHT: Band(Constant(waiting))}
    squares, isl_cv2 = _with_squares(bands.get(SQUARES), learned[ISL], seen, values.get(ISL), t_s)
    taught = {**learned, **steady, **squares, **last}
    return LearnedLoad(taught, forecasts, missing, rates, held_rate, max(0.0, waiting - before), isl_cv2)


def _with_squares(
    squares: Band | None, lengths: Band, seen: DeploymentObservation | None, isl: float | None, t_s: float
) -> tuple[dict[str, Band], float]:
    """The mean squares of prompt lengths with the newest, and the spread of lengths over the span."""
    reading = seen.isl_cv2 if seen is not None else None
    cv2 = value_or_none(reading) if reading is not None else None
    if isl is None or cv2 is None:
        return {} if squares is None else {SQUARES: squares}, _spread(reading)
    band = squares or Band(Constant(), horizon_s=lengths.horizon_s)
    band = band.over(lengths.span_s).observe(t_s, (cv2 + 1.0) * isl * isl)
    mean, mean_square = lengths.observed or isl, band.observed or 0.0
    return {SQUARES: band}, min(LARGEST_CV2, max(SMALLEST_CV2, mean_square / (mean * mean) - 1.0))


def _classic(found: classic.LearnedInterval) -> LearnedLoad:
    """The load that the published planner's forecasts amount to; a forecast below zero counts as zero."""
    ahead = found.ahead
    if ahead is None:
        return LearnedLoad(found.bands, {}, found.missing)
    means = {RATE: ahead.requests / ahead.interval_s, ISL: ahead.isl_tokens, OSL: ahead.osl_tokens}
    model = found.bands[ISL].model.name
    forecasts = {
        name: Forecast(max(0.0, mean), max(0.0, mean), max(0.0, mean), ahead.interval_s, model)
        for name, mean in means.items()
    }
    return LearnedLoad(found.bands, forecasts, found.missing, ahead=ahead)


def _expected(config: DeploymentConfig, known: Mapping[str, Forecast], ahead_s: float) -> dict[str, Forecast]:
    """The lengths that the operator configured, until any are observed."""
    lengths = {ISL: config.expected_isl_tokens, OSL: config.expected_osl_tokens}
    return {
        name: Forecast(tokens, tokens, tokens, ahead_s, "expected")
        for name, tokens in lengths.items()
        if tokens is not None and name not in known and RATE in known
    }


def _in_flight_known(config: DeploymentConfig, seen: DeploymentObservation | None) -> bool:
    """Whether all pools that decode report their number of sequences."""
    decoding = [name for name, pool in config.pools.items() if pool.role is not Role.PREFILL]
    pools = seen.pools if seen is not None else {}
    return all(name in pools and value_or_none(pools[name].running_requests) is not None for name in decoding)


def _in_flight(config: DeploymentConfig, seen: DeploymentObservation | None) -> float:
    """Sequences held by decode engines or waiting for one."""
    pools = seen.pools if seen is not None else {}
    decoding = [pools[name] for name, pool in config.pools.items() if pool.role is not Role.PREFILL and name in pools]
    return sum(_or(pool.running_requests, 0.0) + _or(pool.queued_requests, 0.0) for pool in decoding)


def _steady(
    config: DeploymentConfig, bands: Mapping[str, Band], rate: float | None, ahead_s: float, t_s: float
) -> dict[str, Band]:
    """The smoothed rate and the band of ITS changes, because bursts shorter than a sequence add no decode load."""
    if rate is None:
        return {name: bands[name] for name in (SMOOTH, HELD) if name in bands}
    level = config.forecast_level
    smooth = bands.get(SMOOTH) or Band(Ewma(tau_s=SEQUENCE_LIFE_S), level, ahead_s, miss_share=1.0 - level)
    held = bands.get(HELD) or Band(Constant(), level, ahead_s, miss_share=1.0 - level, relative=False)
    smooth = smooth.observe(t_s, rate)
    return {SMOOTH: smooth, HELD: held.over(span_s(config)).observe(t_s, smooth.model.mean(0.0))}


def _values(seen: DeploymentObservation | None) -> tuple[dict[str, float], dict[str, str]]:
    if seen is None:
        return {}, {REQUESTS: "the deployment was not observed"}
    values: dict[str, float] = {}
    missing: dict[str, str] = {}
    readings: dict[str, Reading] = {REQUESTS: seen.requests, ISL: seen.isl_tokens, OSL: seen.osl_tokens}
    for name, reading in readings.items():
        if isinstance(reading, Missing):
            missing[name] = reading.reason.value
        elif name == REQUESTS:
            values[RATE] = max(0.0, reading.value) / max(1e-9, seen.interval_s)
        elif reading.value > 0:
            values[name] = reading.value
    if values.get(RATE) == 0.0:
        missing.pop(ISL, None)
        missing.pop(OSL, None)
    return values, missing


def actual_load(config: DeploymentConfig, seen: DeploymentObservation | None) -> SizedLoad | None:
    """The observed load of the interval; None if it is unknown."""
    values, missing = _values(seen)
    if seen is None or missing or ISL not in values or OSL not in values:
        return None
    exactly = {name: Forecast(value, value, value, 0.0, "observed") for name, value in values.items()}
    return sized_load(config, exactly, seen)


def sized_load(
    config: DeploymentConfig,
    forecasts: Mapping[str, Forecast],
    seen: DeploymentObservation | None,
    rates: tuple[float, ...] = (),
    held_rate: float | None = None,
    growth: float = 0.0,
    interval_s: float = 0.0,
    arriving: float | None = None,
    isl_cv2: float | None = None,
) -> SizedLoad:
    """The load to size for: the upper quantile of the rate, all its scenarios, the mean shape, the spread observed."""
    first = [name for name, pool in config.pools.items() if pool.role is not Role.DECODE]
    pools = seen.pools if seen is not None else {}
    known = [name for name in first if name in pools]
    return SizedLoad(
        req_per_s=forecasts[RATE].upper,
        isl_tokens=forecasts[ISL].mean,
        osl_tokens=forecasts[OSL].mean,
        isl_cv2=_spread(seen.isl_cv2 if seen else None) if isl_cv2 is None else isl_cv2,
        hit_rate=_or(seen.kv_hit_rate if seen else None, 0.0),
        accept_length=_or(seen.accept_length if seen else None, 1.0),
        queued_requests=sum(_or(pools[name].queued_requests, 0.0) for name in known),
        in_flight=_in_flight(config, seen) + growth,
        rates=rates,
        held_req_per_s=held_rate,
        arriving_req_per_s=arriving,
        serving=sum(_serving(pools[name].replicas) for name in known),
        lead_s=max((config.pools[name].startup_s for name in known), default=0.0),
        interval_s=interval_s,
    )


def _serving(replicas: Replicas) -> float:
    """Replicas that serve, on average over the time that a start takes: one that is starting now for half of it."""
    return replicas.ready + STARTING_SERVES * (replicas.wanted - replicas.ready)


def _spread(reading: Reading | None) -> float:
    return min(LARGEST_CV2, max(SMALLEST_CV2, _or(reading, 1.0)))


def _or(reading: Reading | None, default: float) -> float:
    value = value_or_none(reading) if reading is not None else None
    return default if value is None else value
