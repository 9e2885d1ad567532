"""The planner without a bus: intervals in, decisions out, with every decision carried out at once and every cap obeyed.

Runs the same ``step`` and ``react`` as the service, on GPUs that exist as numbers only: for comparing planners and for
trying a configuration. Must never be taken as a forecast of a real cluster: here, replicas start at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from planner.core.intake import initial_state
from planner.core.state import PlannerState
from planner.core.step import react, step
from planner.domain.config import DeploymentConfig, PlannerConfig, SiteConfig, SizingMode
from planner.domain.ids import DeploymentId, GpuId, NodeId, PoolId
from planner.domain.observation import (
    DeploymentObservation,
    GpuCapInForce,
    GpuObservation,
    NodeObservation,
    Observation,
    PoolObservation,
    PowerAckSeen,
    ScalingAckSeen,
)
from planner.domain.plan import Plan, PowerDecision, ScalingDecision
from planner.domain.pool import Replicas, Role
from planner.domain.reading import Missing, MissingReason, Reading, Sample
from planner.domain.units import Milliwatts, watts_from_mw

GPUS_PER_NODE = 8
REACTIONS = 200
"""Maximum number of iterations between two intervals; the watts of a few hundred GPUs settle in far fewer."""
FIELDS = {
    "num_req": "requests",
    "isl": "isl_tokens",
    "osl": "osl_tokens",
    "ttft_ms": "ttft_ms",
    "itl_ms": "itl_ms",
    "kv_hit_rate": "kv_hit_rate",
    "request_duration_s": "request_duration_s",
    "accept_length": "accept_length",
    "ttft_p95_ms": "ttft_p95_ms",
    "itl_p95_ms": "itl_p95_ms",
}
"""Keys of an interval, by the names that Dynamo's planner gives them, and the readings that they are."""


class BadIntervalError(ValueError):
    """An interval that cannot be read; one line."""


@dataclass(slots=True)
class _Gpu:
    cap_mw: int
    default_mw: int
    min_mw: int
    holder: tuple[PoolId, str] | None = None


class OfflinePlanner:
    """One deployment without a bus. ``decide`` takes intervals in order."""

    def __init__(self, config: PlannerConfig, deployment: DeploymentId) -> None:
        self._config = config
        self._name = deployment
        self._deployment = config.deployments[deployment]
        self._now_s = 0.0
        self._state: PlannerState = initial_state(config, 1, 0.0, (), ())
        self._counts = {name: pool.min_replicas for name, pool in self._deployment.all_pools.items()}
        self._nodes = _nodes(self._deployment) if self._deployment.site in config.sites else {}
        self._acks: list[PowerAckSeen] = []
        self._scaled: ScalingAckSeen | None = None
        self._last: ScalingDecision | None = None
        self._place()

    def decide(self, interval: Mapping[str, object]) -> dict[str, object]:
        """The decision at the end of one interval, as a line of output. Raises BadIntervalError."""
        self._now_s += self._config.interval_s
        seen = self._observed(interval)
        self._state, plan = step(
            self._state, self._observation({self._name: seen}), self._config, self._config.clock(self._now_s)
        )
        planned = plan.deployments[self._name]
        self._carry_out(plan)
        self._settle(plan)
        chains = {name: pool.chain for name, pool in planned.pools.items()}
        return {
            "num_prefill": self._count({Role.PREFILL}),
            "num_decode": self._count({Role.DECODE, Role.AGGREGATED}),
            "reason": {name: [link.reason.value for link in chain] for name, chain in chains.items()},
            "wanted": {name: pool.wanted for name, pool in planned.pools.items()},
            "replicas": dict(self._counts),
            "cap_watts": {n: watts_from_mw(p.setpoint.cap_mw) for n, p in planned.pools.items() if p.setpoint},
            "forecast": {name: round(f.upper, 3) for name, f in planned.forecasts.items()},
            "expected_ttft_ms": planned.expected_ttft_ms,
            "expected_itl_ms": planned.expected_itl_ms,
            "shortfall": planned.shortfall,
            "decision_id": self._last.decision_id if self._last else -1,
            "missing": sorted(planned.missing),
        }

    def _count(self, roles: set[Role]) -> int:
        return sum(self._counts[name] for name, pool in self._deployment.pools.items() if pool.role in roles)

    def _observed(self, interval: Mapping[str, object]) -> DeploymentObservation:
        unknown = sorted(set(interval) - FIELDS.keys())
        if unknown:
            raise BadIntervalError(f"unknown keys {', '.join(unknown)}; known are {', '.join(FIELDS)}")
        readings = {field: _reading(interval, key) for key, field in FIELDS.items()}
        pools = {
            name: PoolObservation(Replicas(ready=count), queued_requests=Sample(0.0), complete=True)
            for name, count in self._counts.items()
            if name in self._deployment.pools
        }
        load_s = self._config.interval_s * self._config.load_time_scale
        return DeploymentObservation(load_s, pools=pools, **readings)

    def _settle(self, plan: Plan) -> None:
        """Carry out what becomes possible before the next interval."""
        end_s = self._now_s + self._config.interval_s
        now_s = self._now_s
        for _ in range(REACTIONS):
            due_s = plan.next_event_s
            now_s = now_s + 0.1 if due_s is None else max(due_s, now_s + 0.1)
            if now_s >= end_s or (due_s is None and not self._acks):
                return
            self._state, plan = react(self._state, self._observation({}), self._config, self._config.clock(now_s))
            self._carry_out(plan)

    def _observation(self, deployments: Mapping[DeploymentId, DeploymentObservation]) -> Observation:
        acks, self._acks = tuple(self._acks), []
        scaled = {} if self._scaled is None else {self._name: self._scaled}
        nodes = {node: self._telemetry(node) for node in self._nodes}
        return Observation(deployments, nodes, scaled, acks)

    def _telemetry(self, node: NodeId) -> NodeObservation:
        gpus = {}
        for name, gpu in self._nodes[node].items():
            pool, worker = gpu.holder or (None, None)
            gpus[name] = GpuObservation(
                gpu=name,
                draw_mw=min(gpu.cap_mw, gpu.default_mw // 2),
                requested_mw=gpu.cap_mw,
                enforced_mw=gpu.cap_mw,
                default_mw=gpu.default_mw,
                min_mw=gpu.min_mw,
                max_mw=gpu.default_mw,
                deployment=None if pool is None else self._name,
                pool=pool,
                worker=worker,
            )
        return NodeObservation(node, gpus, 0.0, "paper")

    def _carry_out(self, plan: Plan) -> None:
        for order in plan.power:
            self._acks.append(self._capped(order))
        for scaling in plan.scaling:
            self._last = scaling
            self._counts.update(scaling.replicas)
            self._place(scaling)
            self._scaled = ScalingAckSeen(self._name, scaling.decision_id, scaling.decision_id, "applied")

    def _capped(self, order: PowerDecision) -> PowerAckSeen:
        gpus = self._nodes[order.node]
        for cap in order.caps:
            gpus[cap.gpu].cap_mw = max(gpus[cap.gpu].min_mw, cap.setpoint.cap_mw)
        force = tuple(GpuCapInForce(name, gpu.cap_mw, gpu.cap_mw) for name, gpu in gpus.items())
        return PowerAckSeen(
            order.node, self._state.epoch, order.decision_id, order.decision_id, "applied", force, boot="paper"
        )

    def _place(self, order: ScalingDecision | None = None) -> None:
        """Give workers GPUs until the counts hold: those that the order names first, else any that are free."""
        hints = {name: [h.gpus for h in order.placements if h.pool == name] for name in self._counts} if order else {}
        for name, count in self._counts.items():
            if name not in self._deployment.pools:
                continue  # a frontend holds no GPU
            workers = sorted({gpu.holder[1] for gpu in self._gpus() if gpu.holder and gpu.holder[0] == name})
            for worker in workers[count:]:
                for gpu in self._gpus():
                    if gpu.holder == (name, worker):
                        gpu.holder = None
            for index in range(len(workers), count):
                self._start(name, f"{name}-{index}-{self._now_s:g}", hints.get(name) or [])

    def _start(self, pool: PoolId, worker: str, hints: list[tuple[GpuId, ...]]) -> None:
        every = {name: gpu for gpus in self._nodes.values() for name, gpu in gpus.items()}
        named = [every[name] for name in (hints.pop(0) if hints else ())]
        free = [gpu for gpu in (*named, *every.values()) if gpu.holder is None]
        for gpu in free[: self._deployment.pools[pool].gpus_per_replica]:
            gpu.holder = (pool, worker)

    def _gpus(self) -> Iterator[_Gpu]:
        for gpus in self._nodes.values():
            yield from gpus.values()


def _reading(interval: Mapping[str, object], key: str) -> Reading:
    if key not in interval:
        return Missing(MissingReason.NO_DATA)
    value = interval[key]
    if value is None:
        return Missing(MissingReason.NOT_A_NUMBER)  # JSON's replacement for NaN
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadIntervalError(f"{key} is {value!r}; it must be a number, null (no mean: NaN) or absent")
    return Sample(float(value)) if math.isfinite(value) else Missing(MissingReason.NOT_A_NUMBER)


def _nodes(deployment: DeploymentConfig) -> dict[NodeId, dict[GpuId, _Gpu]]:
    """Enough GPUs for every pool at its largest, or for the deployment's budget of GPUs."""
    need = sum(pool.max_replicas * pool.gpus_per_replica for pool in deployment.pools.values())
    wanted = need if deployment.max_gpus is None else min(need, deployment.max_gpus + _beyond_budget(deployment))
    curves = [pool.curve for pool in deployment.pools.values()]
    most, least = max(curve.max_mw for curve in curves), min(curve.min_mw for curve in curves)
    nodes: dict[NodeId, dict[GpuId, _Gpu]] = {}
    for index in range(max(1, wanted)):
        node = NodeId(f"paper-{index // GPUS_PER_NODE}")
        nodes.setdefault(node, {})[GpuId(f"GPU-{index}")] = _Gpu(least, most, least)
    return nodes


def _beyond_budget(deployment: DeploymentConfig) -> int:
    """GPUs that the published cut may take beyond the budget, by floors and by rounding; no other mode takes any."""
    if deployment.sizing is not SizingMode.CLASSIC:
        return 0
    return sum((pool.min_replicas + 1) * pool.gpus_per_replica for pool in deployment.pools.values())


def unlimited(config: PlannerConfig, deployment: DeploymentId) -> PlannerConfig:
    """The same configuration with watts for every GPU: for comparing counts alone."""
    block = config.deployments[deployment]
    gpus = sum(len(gpus) for gpus in _nodes(block).values())
    most = max(pool.curve.max_mw for pool in block.pools.values())
    site = config.sites.get(block.site) or SiteConfig(block.site, Milliwatts(0))
    return replace(config, sites={**config.sites, block.site: replace(site, budget_mw=Milliwatts(gpus * most))})
