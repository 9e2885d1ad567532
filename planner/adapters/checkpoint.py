"""What a planner learned, as plain data and back: forecasts, corrections, windows, draws. Pure.

Kept beside each observation in the plan records, so that the next leader knows exactly what this one knew. Must never
restore what has its own streams: decisions, acknowledgements, operators' commands.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, fields, is_dataclass
from typing import Any

from planner.core.allocation.returns import History, LoadGap
from planner.core.forecast import registry
from planner.core.forecast.band import Band
from planner.core.forecast.published import PublishedModel
from planner.core.performance.prompt_span import PromptsSeen
from planner.core.power.p_u_estimator import Drawn, Estimate, LearnedPower
from planner.core.slo.error_budget import Account, ErrorBudget
from planner.core.slo.share_controller import SloState
from planner.core.state import DeploymentState, Flow, Learned, PoolState
from planner.domain.ids import PoolId
from planner.domain.predictor import PointModel, RunsAsPublished

Plain = dict[str, Any]

_KIND = "kind"
_FORMER = {"num_req": "request_rate_per_s", "isl": "isl_tokens", "osl": "osl_tokens"}
"""Names of forecasts in older records, and their names now."""


class NotPlainError(ValueError):
    """A value that has no plain form, or plain data that this version cannot read."""


def learned(state: DeploymentState) -> Plain:
    """What ``state`` learned without its forecasts, and the counts published then: small, for every record."""
    known = state.learned
    return {
        "corrections": dict(known.corrections),
        "prefill_factors": [list(entry) for entry in known.prefill_factors],
        "metrics_at_s": known.metrics_at_s,
        "edited_ticks": known.edited_ticks,
        "pools": {
            name: {
                "decided": state.flow.published.get(name),
                "recommendations": [list(entry) for entry in pool.recommendations],
                "lasting": [list(entry) for entry in pool.lasting],
                "events": [list(entry) for entry in pool.events],
                "gaps": [list(astuple(gap)) for gap in pool.gaps],
                "most_seen": pool.most_seen,
                "queued": pool.queued,
            }
            for name, pool in known.pools.items()
        },
        "prompts": [list(tick) for tick in known.prompts],
        "drawn": {name: _drawn(draws) for name, draws in known.draws.items()},
        **({} if known.slo is None else {"slo": asdict(known.slo)}),
    }


def slo(kept: Mapping[str, Any]) -> SloState | None:
    """The controller of the promised share in what ``learned`` made; None where there was none."""
    if (known := kept.get("slo")) is None:
        return None
    budget = {**known["budget"], **{name: Account(**known["budget"][name]) for name in ("day", "month")}}
    return SloState(**{**known, "budget": ErrorBudget(**budget)})


def _drawn(known: Drawn) -> Plain:
    return {
        "batch": known.batch,
        "bucket": known.bucket,
        "measured_mw": known.measured_mw,
        "expected_mw": known.expected_mw,
        "estimates": [[bucket, *astuple(estimate)] for bucket, estimate in known.learned.estimates.items()],
    }


def _drawn_back(kept: Mapping[str, Any]) -> Drawn:
    estimates = {int(bucket): Estimate(*figures) for bucket, *figures in kept["estimates"]}
    shown = {name: kept[name] for name in ("batch", "bucket", "measured_mw", "expected_mw")}
    return Drawn(LearnedPower(estimates), **shown)


def _history(kept: Sequence[Sequence[Any]]) -> History:
    return tuple((float(at), int(count)) for at, count in kept)


def _pool_back(kept: Mapping[str, Any]) -> PoolState:
    return PoolState(
        recommendations=_history(kept["recommendations"]),
        lasting=_history(kept.get("lasting", kept["recommendations"])),
        events=_history(kept["events"]),
        gaps=tuple(
            LoadGap(None if seconds is None else float(seconds), float(lost)) for seconds, lost in kept.get("gaps", ())
        ),
        most_seen=kept["most_seen"],
        queued=kept["queued"],
    )


def state(kept: Mapping[str, Any]) -> DeploymentState:
    """A state that has decided nothing, with ``learned`` restored. Raises NotPlainError."""
    try:
        pools = {PoolId(name): pool for name, pool in kept["pools"].items()}
        return DeploymentState(
            Flow(published={name: pool["decided"] for name, pool in pools.items() if pool["decided"] is not None}),
            Learned(
                corrections=dict(kept["corrections"]),
                prompts=tuple(PromptsSeen(*tick) for tick in kept.get("prompts", ())),
                prefill_factors=tuple(
                    (float(tokens), float(factor)) for tokens, factor in kept.get("prefill_factors", ())
                ),
                draws={PoolId(name): _drawn_back(known) for name, known in kept.get("drawn", {}).items()},
                pools={name: _pool_back(pool) for name, pool in pools.items()},
                metrics_at_s=kept["metrics_at_s"],
                edited_ticks=kept["edited_ticks"],
                slo=slo(kept),
            ),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise NotPlainError(f"what was learned is not readable: {error!r}") from error


def bands(known: Mapping[str, Band]) -> Plain | None:
    """The forecasts' state; None where one has no plain form. A few kilobytes, so not for every record."""
    try:
        return {name: _plain(band) for name, band in known.items()}
    except NotPlainError:
        return None


def bands_back(kept: Mapping[str, Any], models: Mapping[str, PointModel]) -> dict[str, Band]:
    """The restored ``bands``. ``models``: those besides the core's own. Raises NotPlainError."""
    given = [
        *models.values(),
        *(model.as_published() for model in models.values() if isinstance(model, RunsAsPublished)),
    ]
    kinds = {
        **registry.kinds(),
        PublishedModel.__name__: PublishedModel,
        **{_kind(model): type(model) for model in given},
    }
    found = {_FORMER.get(name, name): _value(band, kinds) for name, band in kept.items()}
    if not all(isinstance(band, Band) for band in found.values()):
        raise NotPlainError("a forecast without its band")
    return found


def alike(one: Band, other: Band) -> bool:
    """Whether one can use what the other has learned: the same model under the same settings."""
    return _settings(one) == _settings(other)


def _settings(band: Band) -> tuple[str, float, bool]:
    """Without the level: errors serve every one (``Band.at``)."""
    return band.model.name, band.horizon_s, band.relative


def _plain(value: object) -> Any:
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            if not math.isfinite(value):
                raise NotPlainError(f"{value} has no place in JSON")
            return value
        case tuple():
            return [_plain(each) for each in value]
    if not is_dataclass(value) or isinstance(value, type):
        raise NotPlainError(f"{type(value).__name__} has no plain form")
    # Fields that are not compared are caches, which are rebuilt where needed.
    kept = {field.name: _plain(getattr(value, field.name)) for field in fields(value) if field.compare}
    return {_KIND: _kind(value), **kept}


def _value(kept: object, kinds: Mapping[str, type[Any]]) -> Any:
    if isinstance(kept, list):
        return tuple(_value(each, kinds) for each in kept)
    if not isinstance(kept, dict):
        return kept
    kind = kinds.get(str(kept.get(_KIND)))
    if kind is None:
        raise NotPlainError(f"no forecast model {kept.get(_KIND)!r} here")
    try:
        return kind(**{name: _value(part, kinds) for name, part in kept.items() if name != _KIND})
    except TypeError as error:
        raise NotPlainError(f"{kind.__name__} of another version: {error}") from error


def _kind(value: object) -> str:
    """A type's name in records: its own, or the one of the type whose state it shares."""
    name: str = getattr(value, "kind", type(value).__name__)
    return name
