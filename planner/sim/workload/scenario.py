"""What is simulated: a load, a cluster, engines, targets and a budget that changes over time."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, replace

from planner.adapters import power_priors as priors
from planner.adapters.traces import Trace
from planner.domain.ids import PoolId
from planner.domain.pool import Role
from planner.domain.profile import Profile
from planner.sim.cluster.plant import ClusterSpec, Plant, PlantSpec
from planner.sim.cluster.sim_gpu import GpuCard
from planner.sim.cluster.worker_pool import PoolSpec

PREFILL, DECODE = PoolId("prefill"), PoolId("decode")
COMPLIANCE_S = 10.0
"""Seconds after a cut in which the draw may exceed the new budget."""


@dataclass(frozen=True, slots=True)
class BudgetSteps:
    """Steps of (instant, milliwatts for all GPUs of the cluster from then on). The first step is at 0."""

    steps: tuple[tuple[float, int], ...]

    def at(self, t_s: float) -> int:
        """The budget in force at ``t_s``, in milliwatts."""
        return self.steps[max(bisect_right(self.steps, (t_s, 1 << 62)) - 1, 0)][1]

    def demanded(self, t_s: float) -> int:
        """The budget to comply with at ``t_s``: the largest within the compliance window before it."""
        return max(self.at(t_s), self.at(t_s - COMPLIANCE_S))

    def scaled(self, factor: float) -> BudgetSteps:
        """The same steps multiplied by ``factor``."""
        return BudgetSteps(tuple((t_s, int(mw * factor)) for t_s, mw in self.steps))


@dataclass(frozen=True, slots=True)
class Scenario:
    """One experiment. All policies meet the same requests, start-up times and engines."""

    trace: Trace
    profile: Profile
    cluster: ClusterSpec
    pools: tuple[PoolSpec, ...]
    ttft_ms: float
    itl_ms: float
    budget: BudgetSteps | None = None
    truth: float = 1.0
    seed: int = 0
    duration_s: float | None = None
    """None: until the last arrival, and then until the requests in flight are done."""

    def plant(self, replicas: Mapping[str, int] | None = None) -> Plant:
        """A new plant; ``replicas`` overrides the counts at the start, by pool."""
        start = replicas or {}
        pools = tuple(_starting(pool, start.get(pool.pool, pool.replicas)) for pool in self.pools)
        return Plant(PlantSpec(self.cluster, pools, self.profile, self.truth, seed=self.seed))

    @property
    def end_s(self) -> float:
        """The instant when the load ends, in seconds."""
        return self.trace.duration_s if self.duration_s is None else self.duration_s

    @property
    def gpus(self) -> int:
        """Number of GPUs of the cluster."""
        return self.cluster.gpus


def _starting(pool: PoolSpec, replicas: int) -> PoolSpec:
    return replace(pool, replicas=replicas)


def card_of(gpu: str) -> GpuCard:
    """The card of a GPU type by its short name. Raises KeyError, naming the known ones."""
    kind = priors.gpu(gpu)
    tdp = int(kind.tdp_watts * 1000)
    idle = int(kind.idle_watts * 1000)
    return GpuCard(
        model=f"NVIDIA {gpu.upper()}",
        default_mw=tdp,
        min_mw=int(kind.min_watts * 1000),
        max_mw=tdp,
        idle_mw=idle,
        starting_mw=max(idle, int(tdp * 0.29)),
    )


def disaggregated(
    profile: Profile,
    gpu: str,
    *,
    startup_s: float = 60.0,
    start: tuple[int, int] = (1, 1),
    moe: bool = False,
) -> tuple[PoolSpec, PoolSpec]:
    """A prefill and a decode pool of ``profile`` on a GPU type. True power curves are the profile's own, else the
    published priors."""
    kind = priors.gpu(gpu)
    return (
        PoolSpec(
            PREFILL,
            Role.PREFILL,
            profile.prefill_gpus,
            profile.prefill_curve or priors.curve(kind, priors.phase_of(Role.PREFILL)),
            start[0],
            startup_s,
        ),
        PoolSpec(
            DECODE,
            Role.DECODE,
            profile.decode_gpus,
            profile.decode_curve or priors.curve(kind, priors.phase_of(Role.DECODE, moe=moe)),
            start[1],
            startup_s,
        ),
    )
