"""Judges what Prometheus has of the deployments: whether it answers, has series, with the right labels, and new ones.

Pure. A line that cannot hold while an earlier one fails is skipped, so that the table names the cause alone.
"""

from __future__ import annotations

from collections.abc import Iterator

from deploy.cli.verify.facts import Facts, MetricFacts, SeriesGroup, Unknown
from deploy.cli.verify.verdicts import Check, CheckLine, Group, Verdict, listed, sentences
from planner.adapters.metrics.engine_metrics import NAMESPACE_LABEL, POOL_LABEL, SOURCES
from planner.adapters.metrics.series_selector import SeriesSelector

REACHED = Check(Group.PROMETHEUS, "reachable")
SERIES = Check(Group.PROMETHEUS, "series")
LABELS = Check(Group.PROMETHEUS, "labels")
FRESH = Check(Group.PROMETHEUS, "freshness")
RELABELLING = (
    "add the label to what Prometheus scrapes (PodMonitor: relabelings with targetLabel {label}), or set the "
    "deployment's {setting}"
)
PER_WORKER = frozenset(
    name
    for source in SOURCES
    if source.per_worker
    for metrics in source.metrics.values()
    for metric in metrics
    for name in (metric.name, f"{metric.name}_sum", f"{metric.name}_count")
)


def judge(facts: Facts) -> Iterator[CheckLine]:
    """The lines of the group."""
    metrics = facts.metrics
    if isinstance(metrics, Unknown):
        for check in (REACHED, SERIES, LABELS, FRESH):
            yield check.skipped(metrics.why)
        return
    if metrics.trouble:
        yield REACHED.failed(metrics.trouble, "start Prometheus, or correct prometheus.url in the planner's settings")
        for check in (SERIES, LABELS, FRESH):
            yield check.skipped("Prometheus does not answer")
        return
    yield REACHED.passed(metrics.url)
    series = _series(metrics)
    yield series
    labels = LABELS.skipped("no series to read them from") if series.verdict is Verdict.FAIL else _labels(metrics)
    yield labels
    yield FRESH.skipped("no series of the deployment") if labels.verdict is not Verdict.PASS else _fresh(metrics)


def _series(metrics: MetricFacts) -> CheckLine:
    if not metrics.series:
        remedy = "does Prometheus scrape frontends and workers? Its page /targets says so; check the PodMonitors"
        return SERIES.failed("Prometheus has no metric of any engine or frontend", remedy)
    names = {group.name for group in metrics.series}
    return SERIES.passed(f"{sum(group.series for group in metrics.series)} series of {len(names)} metrics")


def _labels(metrics: MetricFacts) -> CheckLine:
    texts, remedies = [], []
    for name, selector in metrics.selectors.items():
        problem = label_problem(selector, metrics.series)
        if problem is not None:
            texts.append(f"{name}: {problem[0]}")
            remedies.append(problem[1])
    if texts:
        return LABELS.failed(sentences(texts), remedies[0])
    return LABELS.passed(f"namespace, model and pools of {listed(metrics.selectors)} are told apart")


def label_problem(selector: SeriesSelector, series: tuple[SeriesGroup, ...]) -> tuple[str, str] | None:
    """What keeps a deployment's series from being found, with the remedy; None where they are found."""
    of_model = [one for one in series if one.has_model(selector)]
    if not of_model:
        models = sorted({one.labels[one.model_label] for one in series if one.model_label in one.labels})
        there = f"there are {listed(models)}" if models else "no series names a model"
        return f"no series of model {selector.model}: {there}", "set the deployment's model to what its metrics call it"
    ours = [one for one in of_model if one.has_namespace(selector)]
    if not ours:
        return _other_namespace(selector, of_model)
    workers = [one for one in ours if one.name in PER_WORKER]
    if workers and all(selector.pool_of(one.labels) is None for one in workers):
        named = sorted({one.labels.get(POOL_LABEL, "") for one in workers} - {""})
        if not named:
            remedy = RELABELLING.format(label=POOL_LABEL, setting="pools.*.labels")
            return f"the workers' series lack the label {POOL_LABEL}", remedy
        return f"no pool has workers called {listed(named)}", "set the pool's component to that name"
    return None


def _other_namespace(selector: SeriesSelector, series: list[SeriesGroup]) -> tuple[str, str]:
    there = sorted({one.labels[NAMESPACE_LABEL] for one in series if NAMESPACE_LABEL in one.labels})
    if not there:
        remedy = RELABELLING.format(label=NAMESPACE_LABEL, setting="namespace (empty: any)")
        return f"its series lack the label {NAMESPACE_LABEL}", remedy
    return (
        f"no series of namespace {selector.namespace}: there are {listed(there)}",
        "name the deployment, or set its namespace, as the label has it",
    )


def _fresh(metrics: MetricFacts) -> CheckLine:
    old = {name: age_s for name, age_s in metrics.ages_s.items() if age_s > metrics.stale_s.get(name, float("inf"))}
    if old:
        texts = (f"{name}: last scraped {age_s:.0f} s ago" for name, age_s in old.items())
        return FRESH.failed(sentences(texts), "is the target up? Prometheus' page /targets says so")
    return FRESH.passed(sentences(f"{name}: scraped {age_s:.0f} s ago" for name, age_s in metrics.ages_s.items()))
