"""The plant as a planner sees it: one deployment's metrics over an interval, and the GPUs of its nodes.

Owns the differences between two readings. Reports only what real frontends, engines and agents export: none exports the
spread of arrivals, so it is missing here too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from planner.domain.ids import DeploymentId, GpuId, NodeId, PoolId
from planner.domain.observation import DeploymentObservation, GpuObservation, NodeObservation, PoolObservation
from planner.domain.pool import Replicas, Role
from planner.domain.reading import NO_DATA, Reading, Sample
from planner.sim.cluster.plant import Plant
from planner.sim.cluster.weighted_histogram import WeightedHistogram
from planner.sim.cluster.worker_pool import DecodePool, Pool

MS = 1000.0
BOOT = "sim"


@dataclass(frozen=True, slots=True)
class _Totals:
    """Totals of a histogram at one instant; ``within``: the weight of values that met a target."""

    sum: float
    squares: float
    total: float
    within: float


def _totals(histogram: WeightedHistogram, target: float = 0.0) -> _Totals:
    return _Totals(histogram.sum, histogram.squares, histogram.total, histogram.within(target))


class Watch:
    """Reads one plant. Each call of ``deployment`` covers the time since the call before; targets in milliseconds."""

    def __init__(self, plant: Plant, deployment: DeploymentId, ttft_ms: float, itl_ms: float) -> None:
        self._plant = plant
        self._ttft_s, self._itl_s = ttft_ms / MS, itl_ms / MS
        self._deployment = deployment
        self._at_s = plant.now_s
        self._started = plant.frontend.started
        self._last = self._all_totals()
        self._cached = plant.frontend.cached_tokens
        self.pending: Mapping[str, int] = {}
        """Replicas by pool that wait for a free GPU; set by the scaler."""

    def _all_totals(self) -> Mapping[str, _Totals]:
        books = self._plant.frontend
        return {
            "isl": _totals(books.input_tokens),
            "osl": _totals(books.output_tokens),
            "ttft": _totals(books.ttft, self._ttft_s),
            "itl": _totals(books.gaps, self._itl_s),
            "duration": _totals(books.duration),
        }

    def deployment(self) -> DeploymentObservation:
        """The deployment's metrics since the last call."""
        now_s = self._plant.now_s
        before, after = self._last, self._all_totals()
        started = self._plant.frontend.started
        observation = DeploymentObservation(
            interval_s=max(now_s - self._at_s, 1e-9),
            requests=Sample(float(started - self._started)),
            isl_tokens=_mean(before["isl"], after["isl"]),
            osl_tokens=_mean(before["osl"], after["osl"]),
            ttft_ms=_mean(before["ttft"], after["ttft"], MS),
            itl_ms=_mean(before["itl"], after["itl"], MS),
            ttft_within=_within(before["ttft"], after["ttft"]),
            itl_within=_within(before["itl"], after["itl"]),
            request_duration_s=_mean(before["duration"], after["duration"]),
            kv_hit_rate=self._hit_rate(before["isl"], after["isl"]),
            isl_cv2=_cv2(before["isl"], after["isl"]),
            pools={PoolId(name): self._pool(name, pool) for name, pool in self._plant.pools.items()},
        )
        self._at_s, self._started, self._last = now_s, started, after
        return observation

    def _hit_rate(self, before: _Totals, after: _Totals) -> Reading:
        cached, self._cached = self._plant.frontend.cached_tokens - self._cached, self._plant.frontend.cached_tokens
        tokens = after.sum - before.sum
        if not any(pool.prefix_cache for pool in self._plant.spec.pools) or not tokens:
            return NO_DATA
        return Sample(min(1.0, cached / tokens))

    def _pool(self, name: str, pool: Pool) -> PoolObservation:
        counts = pool.counts()
        usage = pool.kv_usage() if isinstance(pool, DecodePool) else None
        return PoolObservation(
            replicas=Replicas(counts.ready, counts.starting, counts.draining, self.pending.get(name, 0)),
            queued_requests=Sample(float(pool.waiting())),
            kv_usage=NO_DATA if usage is None else Sample(min(usage, 1.0)),
            running_requests=Sample(float(pool.running())),
            complete=True,
        )

    def nodes(self) -> Mapping[NodeId, NodeObservation]:
        """The present telemetry of all nodes."""
        found: dict[NodeId, dict[GpuId, GpuObservation]] = {}
        card = self._plant.spec.cluster.card
        roles = {pool.pool: pool.role for pool in self._plant.spec.pools}
        for reading in self._plant.readings():
            gpu = GpuId(reading.gpu)
            found.setdefault(NodeId(reading.node), {})[gpu] = GpuObservation(
                gpu=gpu,
                draw_mw=reading.draw_mw,
                requested_mw=reading.requested_mw,
                enforced_mw=reading.enforced_mw,
                default_mw=card.default_mw,
                min_mw=card.min_mw,
                max_mw=card.max_mw,
                deployment=self._deployment if reading.worker else None,
                pool=PoolId(reading.pool) if reading.worker else None,
                role=_role(roles, reading.pool),
                worker=reading.worker or None,
                terminating=reading.terminating,
            )
        now_s = self._plant.now_s
        return {node: NodeObservation(node, gpus, boot=BOOT, clock_s=now_s) for node, gpus in found.items()}


def _role(roles: Mapping[str, Role], pool: str) -> Role | None:
    return roles.get(pool)


def _mean(before: _Totals, after: _Totals, scale: float = 1.0) -> Reading:
    count = after.total - before.total
    return Sample((after.sum - before.sum) / count * scale) if count > 0 else NO_DATA


def _within(before: _Totals, after: _Totals) -> Reading:
    """The share of the values observed between two readings that met the target."""
    count = after.total - before.total
    return Sample(min(1.0, max(0.0, (after.within - before.within) / count))) if count > 0 else NO_DATA


def _cv2(before: _Totals, after: _Totals) -> Reading:
    """Squared coefficient of variation of the values observed between two readings; missing below two values."""
    count = after.total - before.total
    if count < 2:
        return NO_DATA
    mean = (after.sum - before.sum) / count
    variance = max(0.0, (after.squares - before.squares) / count - mean * mean)
    return Sample(variance / (mean * mean)) if mean > 0 else NO_DATA
