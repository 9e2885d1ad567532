"""From readings to a sized load: forecasts learn, shapes are carried over idle intervals, spreads are bounded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from planner.core.forecast import registry
from planner.core.forecast.band import Band
from planner.core.sizing.load import SizedLoad
from planner.domain.config import DeploymentConfig, PlannerConfig
from planner.domain.ids import PoolId
from planner.domain.observation import DeploymentObservation
from planner.domain.plan import Forecast
from planner.domain.pool import Role
from planner.domain.reading import Missing, Reading, value_or_none

QUANTITIES = ("num_req", "isl", "osl")
SMALLEST_CV2, LARGEST_CV2 = 0.1, 10.0


@dataclass(frozen=True, slots=True)
class Learned:
    """Forecasts after an observation. ``missing`` names the readings that sizing lacks, with why."""

    bands: Mapping[str, Band]
    forecasts: Mapping[str, Forecast]
    missing: Mapping[str, str]

    @property
    def known(self) -> bool:
        """Whether the load can be sized."""
        return all(name in self.forecasts for name in QUANTITIES)


def horizon_s(config: DeploymentConfig, interval_s: float) -> float:
    """Seconds of load time until capacity ordered now can serve: the next tick and the slowest start."""
    return interval_s + max((pool.startup_s for pool in config.pools.values()), default=0.0)


def learn(
    settings: PlannerConfig,
    config: DeploymentConfig,
    bands: Mapping[str, Band],
    seen: DeploymentObservation | None,
    t_s: float,
) -> Learned:
    """Teach the forecasts what was seen. An idle interval has no lengths: the last ones are carried."""
    ahead_s = horizon_s(config, settings.interval_s * settings.load_time_scale)
    learned = {
        name: bands.get(name) or registry.make(config.predictor, config.forecast_quantile, ahead_s, settings.predictors)
        for name in QUANTITIES
    }
    values, missing = _values(seen)
    learned = {name: band.observe(t_s, values[name]) if name in values else band for name, band in learned.items()}
    forecasts = {name: band.forecast(ahead_s) for name, band in learned.items() if band.ready}
    if values.get("num_req") == 0.0:
        forecasts = {name: forecasts.get(name) or Forecast(0.0, 0.0, 0.0, ahead_s, "idle") for name in QUANTITIES}
    return Learned(learned, forecasts, missing)


def _values(seen: DeploymentObservation | None) -> tuple[dict[str, float], dict[str, str]]:
    if seen is None:
        return {}, {"num_req": "the deployment was not observed"}
    values: dict[str, float] = {}
    missing: dict[str, str] = {}
    readings: dict[str, Reading] = {"num_req": seen.num_req, "isl": seen.isl_tokens, "osl": seen.osl_tokens}
    for name, reading in readings.items():
        if isinstance(reading, Missing):
            missing[name] = reading.reason.value
        elif name == "num_req":
            values[name] = max(0.0, reading.value) / max(1e-9, seen.interval_s)
        elif reading.value > 0:
            values[name] = reading.value
    if values.get("num_req") == 0.0:
        missing.pop("isl", None)
        missing.pop("osl", None)
    return values, missing


def actual_load(config: DeploymentConfig, seen: DeploymentObservation | None) -> SizedLoad | None:
    """The load that was there in the interval; None where it is not known."""
    values, missing = _values(seen)
    if seen is None or missing or "isl" not in values or "osl" not in values:
        return None
    exactly = {name: Forecast(value, value, value, 0.0, "observed") for name, value in values.items()}
    return sized_load(config, exactly, seen)


def sized_load(
    config: DeploymentConfig, forecasts: Mapping[str, Forecast], seen: DeploymentObservation | None
) -> SizedLoad:
    """The load to size for: the upper quantile of the rate, the mean shape, the spread as observed."""
    return SizedLoad(
        req_per_s=forecasts["num_req"].upper,
        isl_tokens=forecasts["isl"].mean,
        osl_tokens=forecasts["osl"].mean,
        arrival_cv2=_spread(seen.arrival_cv2 if seen else None),
        isl_cv2=_spread(seen.isl_cv2 if seen else None),
        hit_rate=_or(seen.kv_hit_rate if seen else None, 0.0),
        accept_length=_or(seen.accept_length if seen else None, 1.0),
        queued_requests=_queued(seen, [name for name, pool in config.pools.items() if pool.role is not Role.DECODE]),
    )


def _queued(seen: DeploymentObservation | None, pools: Iterable[PoolId]) -> float:
    if seen is None:
        return 0.0
    return sum(_or(seen.pools[name].queued_requests, 0.0) for name in pools if name in seen.pools)


def _spread(reading: Reading | None) -> float:
    return min(LARGEST_CV2, max(SMALLEST_CV2, _or(reading, 1.0)))


def _or(reading: Reading | None, default: float) -> float:
    value = value_or_none(reading) if reading is not None else None
    return default if value is None else value
