"""Feeds the planner's metrics from its decisions, through the OpenTelemetry SDK into a Prometheus page.

A watcher of decisions: gauges are read from the newest plan at each scrape, so that no value is left over from an older
one; a deployment that was removed from the configuration leaves the page. Only the leader has plans: gauges of plans
leave the page when the lead is lost, and come back with the first decision of the next term.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CollectorRegistry, generate_latest

from planner.domain.config import DeploymentConfig, PlannerConfig
from planner.domain.ids import DeploymentId, PoolId, SiteId
from planner.domain.plan import DeploymentPlan, PoolPlan, SitePlan
from planner.domain.pool import Role
from planner.domain.units import watts_from_mw
from planner.runtime.decision_event import DecisionEvent
from planner.runtime.telemetry import planner_metrics as names
from planner.runtime.telemetry.bus_watch import BusProblem
from planner.runtime.telemetry.guide_metrics import GuideMetrics
from planner.runtime.telemetry.liveness import Liveness

Labels = dict[str, str]
Point = tuple[float, Labels]
SECONDS_PER_HOUR = 3600.0


class Instruments:
    """One process' metrics. Give ``watch`` to the service; ``page`` is the exposition text."""

    def __init__(
        self,
        config: PlannerConfig,
        vitals: Liveness,
        models: Mapping[str, str] | None = None,
        problems: Callable[[], Sequence[BusProblem]] = tuple,
    ) -> None:
        self._problems = problems
        self._config = config
        self._vitals = vitals
        self._models = dict(models or {})
        self._plans: dict[DeploymentId, DeploymentPlan] = {}
        self._sites: dict[SiteId, SitePlan] = {}
        self._interval_s: dict[DeploymentId, float] = {}
        self._gpu_hours: dict[DeploymentId, float] = {}
        self._last_s: float | None = None
        self._epoch: int | None = None
        """The term of the plans."""
        self._registry = CollectorRegistry()
        reader = PrometheusMetricReader(disable_target_info=True, scope_info_enabled=False, registry=self._registry)
        self._provider = MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
        self._meter = self._provider.get_meter("wattscale.planner")
        self._iterations = [self._counter(names.ITERATIONS), self._counter(names.ITERATIONS_FORMER_NAME)]
        self._decisions = self._counter(names.DECISIONS)
        self._limits = self._counter(names.LIMITS)
        self._judged, self._late = self._counter(names.JUDGED), self._counter(names.LATE)
        self._step_s = self._histogram(names.STEP_SECONDS)
        self._publish_s = self._histogram(names.PUBLISH_SECONDS)
        self._gauges()
        self._registry.register(GuideMetrics(self._guide_values))

    def page(self) -> bytes:
        """The metrics as text."""
        return generate_latest(self._registry)

    def close(self) -> None:
        """Stop the SDK."""
        self._provider.shutdown()

    def watch(self, decided: DecisionEvent) -> None:
        """Take one decision in."""
        if decided.epoch != self._epoch:
            self._begin(decided.epoch)
        cause = {"cause": "tick" if decided.tick else "event"}
        for iterations in self._iterations:
            iterations.add(1, cause)
        self._step_s.record(decided.took_s, cause)
        if decided.published:
            self._publish_s.record(decided.stored_s)
            self._decisions.add(len(decided.plan.scaling), {"kind": "scaling"})
            self._decisions.add(len(decided.plan.power), {"kind": "power"})
        self._plans.update(decided.plan.deployments)
        self._sites.update(decided.plan.sites)
        for name, seen in decided.observation.deployments.items():
            self._interval_s[name] = seen.interval_s
        for name, plan in decided.plan.deployments.items():
            self._judge(name, plan)
            for pool in plan.pools.values():
                for link in pool.chain:
                    self._limits.add(1, {"deployment": name, "pool": pool.pool, "reason": link.reason.value})
        self._add_gpu_hours(decided.now_s)

    def _judge(self, name: DeploymentId, plan: DeploymentPlan) -> None:
        if plan.slo is not None and plan.slo.good_share is not None:
            self._judged.add(plan.slo.requests, {"deployment": name})
            self._late.add((1.0 - plan.slo.good_share) * plan.slo.requests, {"deployment": name})

    def _begin(self, epoch: int) -> None:
        """A new term: another planner may have decided since the last one, so its plans and its time do not count."""
        self._epoch, self._last_s = epoch, None
        self._plans, self._sites, self._interval_s = {}, {}, {}

    def _present(self) -> Mapping[DeploymentId, DeploymentPlan]:
        """The newest plans of a leader; empty where this process does not lead, or has not decided in this term."""
        return self._plans if self._vitals.epoch == self._epoch else {}

    def _present_sites(self) -> Iterable[SitePlan]:
        return self._sites.values() if self._vitals.epoch == self._epoch else ()

    def _add_gpu_hours(self, now_s: float) -> None:
        passed_s = 0.0 if self._last_s is None else max(0.0, now_s - self._last_s)
        self._last_s = now_s
        for name, plan in self._plans.items():
            config = self._config.deployments[name]
            gpus = sum(pool.current * config.all_pools[key].gpus_per_replica for key, pool in plan.pools.items())
            self._gpu_hours[name] = self._gpu_hours.get(name, 0.0) + gpus * passed_s / SECONDS_PER_HOUR

    def _counter(self, metric: names.PlannerMetric):  # type: ignore[no-untyped-def]  # the SDK's own type is private
        # The exporter appends the suffix by itself.
        return self._meter.create_counter(metric.name.removesuffix("_total"), description=metric.help)

    def _histogram(self, metric: names.PlannerMetric):  # type: ignore[no-untyped-def]
        bounds = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
        return self._meter.create_histogram(
            metric.name, description=metric.help, explicit_bucket_boundaries_advisory=bounds
        )

    def _gauge(self, metric: names.PlannerMetric, points: Callable[[], Iterable[Point]]) -> None:
        def read(_: CallbackOptions) -> Iterator[Observation]:
            for value, labels in points():
                yield Observation(value, labels)

        self._meter.create_observable_gauge(metric.name, callbacks=[read], description=metric.help)

    def _gauges(self) -> None:
        vitals = self._vitals
        self._gauge(names.LEADING, lambda: [(float(vitals.epoch is not None), {})])
        self._gauge(names.HINDERED, lambda: [(float(bool(vitals.hindrance)), {})])
        self._gauge(names.PROBLEM, lambda: [(1.0, {"problem": p.code, "who": p.who}) for p in self._problems()])
        self._gauge(names.EPOCH, lambda: [(float(vitals.epoch or 0), {})])
        self._meter.create_observable_counter(
            names.TERMS.name.removesuffix("_total"),
            callbacks=[lambda _: [Observation(vitals.terms)]],
            description=names.TERMS.help,
        )
        by_plan: Mapping[names.PlannerMetric, Callable[[DeploymentPlan], Iterable[Point]]] = {
            names.REPLICAS: _replicas,
            names.OBSERVED: _observed,
            names.MISSING: _missing,
            names.FORECAST: _forecast,
            names.CORRECTION: _correction,
            names.EXPECTED: _expected,
            names.GOOD_SHARE: _good_share,
            names.SHED_SHARE: _shed_share,
            names.SLO_SHARE: lambda plan: [] if plan.slo is None else [(plan.slo.slo_share, {})],
            names.QUANTILE: lambda plan: [] if plan.slo is None else [(plan.slo.quantile, {})],
            names.BURN_RATE: _burn_rate,
            names.BUDGET_LEFT: _budget_left,
            names.GPU_WATTS: _gpu_watts,
            names.POWER_READINGS: _power_readings,
            names.READY: lambda plan: [(float(plan.ready), {})],
        }
        for metric, points in by_plan.items():
            self._gauge(metric, lambda points=points: self._of_plans(points))  # type: ignore[misc]
        self._gauge(names.SITE_WATTS, lambda: [point for site in self._present_sites() for point in _site_watts(site)])
        self._gauge(
            names.SITE_FROZEN,
            lambda: [(1.0, {"site": s.site, "invariant": name}) for s in self._present_sites() for name in s.frozen],
        )
        for name, metric in names.DYNAMO.items():
            self._gauge(metric, lambda name=name: self._of_dynamo(name))  # type: ignore[misc]

    def _guide_values(self) -> Iterator[tuple[tuple[str, str], Mapping[str, float]]]:
        for deployment, plan in self._present().items():
            config = self._config.deployments[deployment]
            values = _dynamo(plan, config, self._sites.get(config.site), self._interval_s.get(deployment, 0.0))
            known = {name: value for name, value in values.items() if value is not None}
            known |= {f"{phase[0]}_correction_factor": factor for phase, factor in plan.corrections.items()}
            known["gpu_hours"] = self._gpu_hours.get(deployment, 0.0)
            yield (deployment, self._models.get(deployment, "")), known

    def _of_plans(self, points: Callable[[DeploymentPlan], Iterable[Point]]) -> Iterator[Point]:
        for name, plan in self._present().items():
            for value, labels in points(plan):
                yield value, {"deployment": name, **labels}

    def _of_dynamo(self, name: str) -> Iterator[Point]:
        for deployment, plan in self._present().items():
            config = self._config.deployments[deployment]
            values = _dynamo(plan, config, self._sites.get(config.site), self._interval_s.get(deployment, 0.0))
            value = self._gpu_hours.get(deployment, 0.0) if name == "gpu_hours" else values.get(name)
            if value is not None:
                yield value, {"dynamo_namespace": deployment, "model_name": self._models.get(deployment, "")}


def _replicas(plan: DeploymentPlan) -> Iterator[Point]:
    for pool in plan.pools.values():
        for stage in ("current", "wanted", "granted"):
            yield float(getattr(pool, stage)), {"pool": pool.pool, "stage": stage}


def _observed(plan: DeploymentPlan) -> Iterator[Point]:
    for quantity, value in plan.observed.items():
        if value is not None:
            yield value, {"quantity": quantity}


def _missing(plan: DeploymentPlan) -> Iterator[Point]:
    for quantity, reason in plan.missing.items():
        yield 1.0, {"quantity": quantity, "reason": reason}


def _forecast(plan: DeploymentPlan) -> Iterator[Point]:
    for quantity, forecast in plan.forecasts.items():
        for band in ("lower", "mean", "upper"):
            yield getattr(forecast, band), {"quantity": quantity, "band": band}


def _correction(plan: DeploymentPlan) -> Iterator[Point]:
    for phase, value in plan.corrections.items():
        yield value, {"phase": phase}


def _expected(plan: DeploymentPlan) -> Iterator[Point]:
    quantities = {
        "ttft_ms": plan.expected_ttft_ms,
        "itl_ms": plan.expected_itl_ms,
        "watts": plan.expected_watts,
        "joules_per_token": plan.expected_joules_per_token,
        "shortfall": plan.shortfall,
    }
    for quantity, value in quantities.items():
        if value is not None:
            yield value, {"quantity": quantity}


def _good_share(plan: DeploymentPlan) -> Iterator[Point]:
    for phase, share in plan.good.items():
        for kind, value in (("predicted", share.predicted), ("measured", share.measured)):
            if value is not None:
                yield value, {"phase": phase, "kind": kind}


def _shed_share(plan: DeploymentPlan) -> Iterator[Point]:
    if plan.shed is not None:
        yield plan.shed.shed_share, {"priority": str(plan.shed.priority)}


def _burn_rate(plan: DeploymentPlan) -> Iterator[Point]:
    if plan.slo is not None and plan.slo.burn_rate is not None:
        yield plan.slo.burn_rate, {}


def _budget_left(plan: DeploymentPlan) -> Iterator[Point]:
    if plan.slo is not None:
        yield plan.slo.day.left, {"period": "day"}
        yield plan.slo.month.left, {"period": "month"}


def _gpu_watts(plan: DeploymentPlan) -> Iterator[Point]:
    for name, pool in plan.pools.items():
        if (power := pool.power) is None:
            continue
        values = {
            "p_u_assumed": power.assumed_p_u_mw,
            "p_u": power.p_u_mw,
            "drawn": power.drawn_mw,
            "expected": power.expected_mw,
        }
        for figure, value in values.items():
            if value is not None:
                yield watts_from_mw(round(value)), {"pool": name, "figure": figure}


def _power_readings(plan: DeploymentPlan) -> Iterator[Point]:
    for name, pool in plan.pools.items():
        if pool.power is not None:
            yield float(pool.power.samples), {"pool": name, "kind": "sample"}
            yield float(pool.power.bounds), {"pool": name, "kind": "bound"}


def _site_watts(site: SitePlan) -> Iterator[Point]:
    for field in fields(site):
        value = getattr(site, field.name)
        if field.name.endswith("_mw") and value is not None:
            yield watts_from_mw(value), {"site": site.site, "account": field.name.removesuffix("_mw")}


def _dynamo(
    plan: DeploymentPlan, config: DeploymentConfig, site: SitePlan | None, interval_s: float
) -> Mapping[str, float | None]:
    """Dynamo's gauges from one plan. Aggregated workers count as decode workers, as they do in Dynamo."""
    seen, forecasts = plan.observed, plan.forecasts
    requests, expected = seen.get("requests"), forecasts.get("request_rate_per_s")
    per_s = 1.0 / interval_s if interval_s > 0 else None
    means = {name: forecasts[name].mean for name in ("isl_tokens", "osl_tokens") if name in forecasts}
    duration_s = seen.get("request_duration_s")
    values: dict[str, float | None] = {
        "observed_ttft_ms": seen.get("ttft_ms"),
        "observed_itl_ms": seen.get("itl_ms"),
        "observed_requests_per_second": requests * per_s if requests is not None and per_s else None,
        "observed_input_sequence_tokens": seen.get("isl_tokens"),
        "observed_output_sequence_tokens": seen.get("osl_tokens"),
        "observed_request_duration_seconds": duration_s,
        "predicted_requests_per_second": expected.mean if expected is not None else None,
        "predicted_input_sequence_tokens": means.get("isl_tokens"),
        "predicted_output_sequence_tokens": means.get("osl_tokens"),
        "estimated_ttft_ms": plan.expected_ttft_ms,
        "estimated_itl_ms": plan.expected_itl_ms,
        "sla_target_ttft_ms": config.ttft_ms,
        "sla_target_itl_ms": config.itl_ms,
        **_dynamo_counts(plan.pools),
    }
    if site is not None:
        values["power_budget_total_watts"] = watts_from_mw(site.budget_mw)
        values["power_projected_watts"] = watts_from_mw(site.charged_mw)
        values["power_budget_utilization"] = site.charged_mw / site.budget_mw if site.budget_mw else None
    return values


def _dynamo_counts(pools: Mapping[PoolId, PoolPlan]) -> dict[str, float | None]:
    counts: dict[str, float | None] = {}
    for kind, roles in (("prefill", {Role.PREFILL}), ("decode", {Role.DECODE, Role.AGGREGATED})):
        of_kind = [pool for pool in pools.values() if pool.role in roles]
        if of_kind:
            counts[f"num_{kind}_replicas"] = float(sum(pool.current for pool in of_kind))
            counts[f"predicted_num_{kind}_replicas"] = float(sum(pool.granted for pool in of_kind))
    return counts
