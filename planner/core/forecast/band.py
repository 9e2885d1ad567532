"""A band around any point model: adaptive conformal quantiles of its own past errors.

Any point forecast of a request rate is too low in a quarter to a half of all intervals, so capacity is sized on an
upper quantile: of the RELATIVE errors observed so far at the horizon that sizing uses. Its level adapts to the coverage
reached (Gibbs and Candès, "Adaptive conformal inference under distribution shift", 2021), so that the band widens by
itself when a load changes its pattern.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from planner.domain.plan import Forecast
from planner.domain.predictor import PointModel

WINDOW = 64
"""Number of errors kept, one a span. Only the newest, so that a load that has become steady gets a narrow band."""
ADAPTATION = 0.02
LARGEST_ERROR = 1.0
FLOOR = 1e-9
SCENARIOS = 8
UPPER_CASES = 40


@dataclass(frozen=True, slots=True)
class Band:
    """A point model with its errors: ``errors`` are sorted by age, ``due`` are forecasts to compare.

    ``relative``: errors are shares of the forecast; otherwise they are in its unit. An error made at a jump is as large
    as the jump: as a share it would multiply the level after the jump, which contains it already. Of either kind, an
    error adds at most ``LARGEST_ERROR`` of the mean.
    """

    model: PointModel
    level: float = 0.9
    horizon_s: float = 60.0
    errors: tuple[float, ...] = ()
    miss_share: float = 0.1
    due: tuple[tuple[float, float], ...] = ()
    relative: bool = True
    span_s: float = 0.0
    """Observations are averaged over so many seconds, and each such span is learned and compared once, so that neither
    the noise of short intervals nor their number counts. Where ticks are further apart, each is a span."""
    recent: tuple[tuple[float, float], ...] = ()
    """(when, observation) of the span that ends at the newest."""
    closed_s: float | None = None
    """When the last span that was learned ended."""

    @property
    def ready(self) -> bool:
        return self.model.ready

    @property
    def observed(self) -> float | None:
        """The mean of what was observed in the span that ends at the newest observation; None before the first."""
        return _mean(self.recent) if self.recent else None

    def at(self, level: float) -> Band:
        """The band at another level; its errors are the same, and its misses to plan for change in proportion."""
        if level == self.level:
            return self
        share = self.miss_share * (1.0 - level) / (1.0 - self.level)
        return replace(self, level=level, miss_share=min(0.5, share))

    def over(self, span_s: float) -> Band:
        """The band with observations averaged over ``span_s``; its errors are the same."""
        return self if span_s == self.span_s else replace(self, span_s=span_s)

    def observe(self, t_s: float, y: float) -> Band:
        """The band after observing ``y`` at ``t_s``: due forecasts are compared with it, then the model learns it.

        Within a span nothing is compared or learned, but the forecast follows what came by how much of it has passed.
        """
        half_tick_s = (t_s - self.recent[-1][0]) / 2.0 if self.recent else 0.0
        since_s = t_s - self.span_s + half_tick_s
        recent = (*[one for one in self.recent if one[0] > since_s], (t_s, y))
        y = _mean(recent)
        if self.closed_s is not None and t_s + half_tick_s < self.closed_s + self.span_s - FLOOR:
            ahead = (t_s + self.horizon_s, self._within(t_s, y, self.closed_s))
            return replace(self, due=(*self.due, ahead), recent=recent)
        errors, miss_share, waiting = self.errors, self.miss_share, self.due
        if waiting and waiting[0][0] <= t_s + FLOOR:
            fallen = [mean for due_s, mean in waiting if due_s <= t_s + FLOOR]
            waiting = waiting[len(fallen) :]
            error = _error(y, fallen[-1]) if self.relative else y - fallen[-1]
            miss_share = self._adapted(error)
            errors = (*errors[-(WINDOW - 1) :], error)
        model = self.model.observe(t_s, y)
        due = (*waiting, (t_s + self.horizon_s, model.mean(self.horizon_s)))
        return Band(model, self.level, self.horizon_s, errors, miss_share, due, self.relative, self.span_s, recent, t_s)

    def _within(self, t_s: float, y: float, closed_s: float) -> float:
        """The mean at the horizon within a span that began at ``closed_s``: between what the model forecasts from there
        on and what it would if the span were over. A model may count observations, so that it only gets whole spans.
        """
        gone_s = t_s - closed_s
        before = self.model.mean(self.horizon_s + gone_s)
        after = self.model.observe(closed_s + self.span_s, y).mean(self.horizon_s)
        return before + gone_s / self.span_s * (after - before)

    def mean(self, horizon_s: float) -> float:
        """The model's mean ``horizon_s`` after the last observation; at the band's own horizon it is known already."""
        return self.due[-1][1] if self.due and horizon_s == self.horizon_s else self.model.mean(horizon_s)

    def _adapted(self, error: float) -> float:
        """The share of misses to plan for, after one more error: fewer after a miss, more after a hit."""
        missed = error > max(0.0, _quantile(sorted(self.errors), 1.0 - self.miss_share)) + FLOOR
        wanted = 1.0 - self.level
        share = self.miss_share + ADAPTATION * (wanted - (1.0 if missed else 0.0))
        return min(0.5, max(wanted / 5.0, share))

    def forecast(self, horizon_s: float) -> Forecast:
        """The forecast ``horizon_s`` after the last observation: mean, lower and upper quantile."""
        mean = self.mean(horizon_s)
        ordered = sorted(self.errors)
        return Forecast(
            mean=mean,
            upper=self._off(mean, max(0.0, _quantile(ordered, 1.0 - self.miss_share))),
            lower=self._off(mean, min(0.0, _quantile(ordered, self.miss_share))),
            horizon_s=horizon_s,
            model=self.model.name,
        )

    def upper(self, horizon_s: float) -> float:
        """The ``level`` quantile of the scenarios: of the errors kept, where ``forecast`` adapts to coverage."""
        ordered = sorted(self.errors) or [0.0]
        case = min(UPPER_CASES - 1, int(self.level * UPPER_CASES))
        error = _between(ordered, (case + 0.5) / UPPER_CASES * len(ordered) - 0.5)
        return max(0.0, self._off(self.mean(horizon_s), error))

    def scenarios(self, horizon_s: float, count: int = SCENARIOS) -> tuple[float, ...]:
        """``count`` equally likely values ``horizon_s`` ahead: the mean with its latest errors, including the worst."""
        mean = self.mean(horizon_s)
        ordered = sorted(self.errors) or [0.0]
        at = [(i + 0.5) / count * len(ordered) - 0.5 for i in range(count - 1)] + [len(ordered) - 1.0]
        return tuple([max(0.0, self._off(mean, _between(ordered, position))) for position in at])

    def _off(self, mean: float, error: float) -> float:
        return mean * (1.0 + error) if self.relative else mean + min(error, LARGEST_ERROR * mean)


def _mean(recent: Sequence[tuple[float, float]]) -> float:
    return sum([value for _, value in recent]) / len(recent)


def _error(y: float, forecast: float) -> float:
    """The relative error of the newest due forecast; older ones were for instants without an observation."""
    if not (y or forecast):
        return 0.0
    return min(LARGEST_ERROR, (y - forecast) / max(forecast, FLOOR))


def _between(ordered: Sequence[float], position: float) -> float:
    """The value at a fractional index of ``ordered``, interpolated linearly and clamped to its ends."""
    position = min(len(ordered) - 1.0, max(0.0, position))
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (position - low) * (ordered[high] - ordered[low])


def _quantile(ordered: list[float], share: float) -> float:
    """The conformal quantile: the ``ceil((n + 1) * share)``-th smallest, the largest where there are too few."""
    if not ordered:
        return 0.0
    rank = -int(-(len(ordered) + 1) * share // 1)
    return ordered[min(len(ordered), max(1, rank)) - 1]
