"""Random sites to optimise, by seed: one or two stages, GPUs of several types, budgets from ample to dire."""

from __future__ import annotations

import math
import random

from planner.adapters.power_priors import Phase, curve, gpu
from planner.domain.demand import DeploymentDemand, PoolDemand, SiteLimits
from planner.domain.ids import DeploymentId, PoolId, SiteId
from planner.domain.pool import Role
from planner.domain.units import Milliwatts

SITE = SiteId("row-1")
GPU_TYPES = ("a100", "h100", "b200")
STARTING = (0.6, 0.0, 0.3)


def pool(rng: random.Random, role: Role, *, gpu_type: str, most: int, size: int) -> PoolDemand:
    """Counts 1..most; the load wants up to three quarters of them at full speed, by queueing's law less 1 / n."""
    phase = Phase.PREFILL if role is Role.PREFILL else rng.choice([Phase.DECODE_DENSE, Phase.DECODE_MOE])
    load = rng.uniform(0.4, 0.75 * most)
    slack = rng.uniform(0.0, 0.4)
    need = tuple(max(load / n, (load + slack) / (n + slack) * 0.9) for n in range(1, most + 1))
    busy = tuple(min(1.0, 0.85 * load / n) for n in range(1, most + 1))
    return PoolDemand(
        pool=PoolId(role.value),
        role=role,
        gpus_per_replica=size,
        current_replicas=rng.randint(1, most),
        min_replicas=1,
        required_speed=need,
        utilisation=busy,
        curve=curve(gpu(gpu_type), phase),
        wanted=next((n for n, speed in enumerate(need, 1) if speed <= 1), most),
    )


def deployment(rng: random.Random, index: int, most: int, *, classes: int = 2) -> DeploymentDemand:
    """One deployment, disaggregated four times out of five."""
    gpu_type = rng.choice(GPU_TYPES)
    roles = (Role.PREFILL, Role.DECODE) if rng.random() < 0.8 else (Role.AGGREGATED,)
    pools = [pool(rng, role, gpu_type=gpu_type, most=most, size=rng.choice([1, 1, 2, 4])) for role in roles]
    whole = sum(p.wanted * p.gpus_per_replica for p in pools)
    least = sum(p.gpus_per_replica for p in pools)
    return DeploymentDemand(
        deployment=DeploymentId(f"d{index}"),
        site=SITE,
        pools={p.pool: p for p in pools},
        priority=rng.randrange(classes),
        max_gpus=max(least, math.ceil(whole * rng.uniform(0.6, 1.3))) if rng.random() < 0.3 else None,
        starting_part=STARTING[index % len(STARTING)],
    )


def site(rng: random.Random, demands: list[DeploymentDemand], tightness: tuple[float, float]) -> SiteLimits:
    """Watts and GPUs as shares of what everybody wants at full power, never below the floors."""
    pools = [p for demand in demands for p in demand.pools.values()]
    wanted = sum(p.wanted * p.gpus_per_replica for p in pools)
    floor = sum(p.min_replicas * p.gpus_per_replica for p in pools)
    gpus = max(floor, round(wanted * rng.uniform(0.8, 1.6)))
    reserve = rng.choice([100_000, 200_000])
    full = sum(p.wanted * p.gpus_per_replica * (p.curve.p_u_mw - reserve) for p in pools)
    least = sum(p.min_replicas * p.gpus_per_replica * (p.curve.useful_mw - reserve) for p in pools)
    budget = reserve * gpus + max(least, round(full * rng.uniform(*tightness)))
    return SiteLimits(SITE, Milliwatts(budget), gpus, Milliwatts(reserve))


def instance(
    seed: int, *, deployments: int | None = None, most: int = 6, tightness: tuple[float, float] = (0.35, 1.3)
) -> tuple[list[DeploymentDemand], SiteLimits]:
    """One whole site. Up to six deployments by default."""
    rng = random.Random(seed)
    count = deployments if deployments is not None else rng.randint(1, 6)
    demands = [deployment(rng, i, most) for i in range(count)]
    return demands, site(rng, demands, tightness)
