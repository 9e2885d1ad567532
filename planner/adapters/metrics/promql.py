"""The PromQL that reads one deployment by the table of metric names. Pure text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from planner.adapters.metrics.engine_metrics import NAMESPACE_LABEL, EngineMetric, EngineMetricKind, Source
from planner.adapters.metrics.series_selector import SeriesSelector

QUERY = "wattscale_query"
_SPECIAL = re.compile(r"([\\.+*?()|\[\]{}^$])")


def _escaped(text: str) -> str:
    """``text`` for an RE2 pattern. Dashes stay: RE2 needs no escape for them, and two spellings must both match."""
    return _SPECIAL.sub(r"\\\1", text)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def selector(target: SeriesSelector, source: Source) -> str:
    """Label matchers of the deployment's series, without braces. Models match without regard to case."""
    parts = []
    if target.model:
        parts.append(f"{source.model_label}=~{_quoted('(?i)' + _escaped(target.model))}")
    if target.namespace:
        spelled = re.sub(r"[-_]", "[-_]", _escaped(target.namespace))
        parts.append(f"{NAMESPACE_LABEL}=~{_quoted('(?i)' + spelled)}")
    parts.extend(f"{name}={_quoted(value)}" for name, value in target.matchers.items())
    return ",".join(parts)


def presence(sources: Iterable[Source], target: SeriesSelector) -> str:
    """Which of the sources' names have series now: one row a name."""
    asked = []
    for source in sources:
        names = {name for metrics in source.metrics.values() for metric in metrics for name in series_names(metric)}
        asked.append(f"{{{_also('__name__=~' + _quoted('|'.join(sorted(names))), selector(target, source))}}}")
    return f"count by (__name__) ({' or '.join(asked)})"


def series_names(metric: EngineMetric) -> tuple[str, ...]:
    """The names under which a metric's series are stored, without buckets."""
    if metric.kind is EngineMetricKind.HISTOGRAM:
        return (f"{metric.name}_sum", f"{metric.name}_count")
    return (metric.name, metric.per) if metric.per else (metric.name,)


def _also(first: str, matchers: str) -> str:
    return f"{first},{matchers}" if matchers else first


def increase(name: str, matchers: str, window_s: float) -> str:
    """A counter's increase over the window, all series together."""
    return f"sum(increase({name}{{{matchers}}}[{_window(window_s)}]))"


def bucket_increases(name: str, matchers: str, window_s: float) -> str:
    """A histogram's increase by bucket."""
    return f"sum by (le) (increase({name}_bucket{{{matchers}}}[{_window(window_s)}]))"


def resets(name: str, matchers: str, window_s: float) -> str:
    """How often any of a counter's series was reset in the window."""
    return f"sum(resets({name}{{{matchers}}}[{_window(window_s)}]))"


def age(name: str, matchers: str) -> str:
    """Seconds since the newest sample of ``name``."""
    return f"time() - max(timestamp({name}{{{matchers}}}))"


def gauge(name: str, matchers: str) -> str:
    """A gauge's series with their present values."""
    return f"{name}{{{matchers}}}"


def gauge_mean(name: str, matchers: str, window_s: float, pull_s: float) -> str:
    """A gauge's mean over the window, by series, as if it were read every ``pull_s``."""
    return f"avg_over_time({name}{{{matchers}}}[{_window(window_s)}:{_window(pull_s)}])"


def together(queries: Mapping[str, str]) -> str:
    """Many queries as one: each row carries its query's name in the label ``QUERY``."""
    named = (f'label_replace({query}, "{QUERY}", {_quoted(name)}, "", "")' for name, query in queries.items())
    return " or ".join(named)


def _window(window_s: float) -> str:
    return f"{max(1, round(window_s * 1000))}ms"


def increases_of(metric: EngineMetric, matchers: str, window_s: float) -> Mapping[str, str]:
    """Every query that reading ``metric`` over the window needs, by the sample name it answers."""
    match metric.kind:
        case EngineMetricKind.GAUGE:
            return {metric.name: gauge(metric.name, matchers)}
        case EngineMetricKind.HISTOGRAM:
            parts = {name: increase(name, matchers, window_s) for name in series_names(metric)}
            return {**parts, f"{metric.name}_bucket": bucket_increases(metric.name, matchers, window_s)}
        case _:
            return {name: increase(name, matchers, window_s) for name in series_names(metric)}
