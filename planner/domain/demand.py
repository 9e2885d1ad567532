"""What sizing asks of the optimiser: for each pool, the speed that each replica count would need; and its weights.

Sizing knows queues and profiles; the optimiser knows watts. This is the interface between them, so that power
is a variable of the decision and not a clamp after it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from planner.domain.ids import DeploymentId, PoolId, SiteId
from planner.domain.plan import Limited, PowerCut
from planner.domain.pool import Role
from planner.domain.power import PowerCurve
from planner.domain.units import GpuSetpoint, Milliwatts

AT_NEED = 2.0
"""Standard deviations between a needed speed and the one at which half of the requests are late: the need is sized at
an upper quantile of what may come."""
IN_TIME_AT_NEED = round(0.5 * math.erfc(-AT_NEED / math.sqrt(2.0)), 3)
"""Share of requests in time at that speed with the load that comes on average, to a tenth of a percent: 97.7 %."""


@dataclass(frozen=True, slots=True)
class PoolDemand:
    """One pool's options. Index ``i`` of the tuples stands for ``min_replicas + i`` replicas.

    ``required_speed[i]``: relative engine speed (1 = uncapped) at which that many replicas meet the targets
    for the sized load; above 1: they cannot, even uncapped. Falls with ``i``. ``inf`` for no replicas.
    ``utilisation[i]``: expected busy share of a replica at that count and speed 1, for predicting draw.
    """

    pool: PoolId
    role: Role
    gpus_per_replica: int
    current_replicas: int
    min_replicas: int
    required_speed: tuple[float, ...]
    utilisation: tuple[float, ...]
    curve: PowerCurve
    wanted: int
    """The smallest count that meets the targets uncapped (before any limit); for explaining."""
    chain: tuple[Limited, ...] = ()
    spare_speed: float = 1.0
    """While everything can be carried, caps leave this many times the speed that the load needs."""

    least_speed: float = 0.0
    """While everything can be carried, caps leave at least this speed, whatever the count."""
    arriving_speed: tuple[float, ...] = ()
    """The speed at which half of the answers that arrive are good, where sizing knows it; their share is predicted from
    it. Empty: predicted from ``required_speed``, which has a margin for what may come."""
    prompt_speed: tuple[float, ...] = ()
    """The speed at which ``IN_TIME_AT_NEED`` of the prompts that arrive are in time, where sizing knows it. Empty:
    ``required_speed``, which has a margin for what may come."""

    def plenty_speed(self, index: int) -> float:
        """The speed that caps leave at ``required_speed[index]`` while everything can be carried."""
        required = self.required_speed[index]
        return max(required * self.spare_speed, self.least_speed) if required > 0.0 else 0.0

    @property
    def max_replicas(self) -> int:
        return self.min_replicas + len(self.required_speed) - 1


@dataclass(frozen=True, slots=True)
class DeploymentDemand:
    """One deployment's pools. Scarce watts go to higher ``priority`` first."""

    deployment: DeploymentId
    site: SiteId
    pools: Mapping[PoolId, PoolDemand]
    priority: int = 0
    max_gpus: int | None = None
    starting_part: float = 0.0
    """The part of the time that an option is scored over, from its beginning on, in which replicas beyond those in
    force are still to start and serve nothing."""


@dataclass(frozen=True, slots=True)
class SiteLimits:
    """What a site's deployments share: milliwatts for GPUs that serve, and GPUs.

    ``reserve_mw_per_idle_gpu`` is the charge of a GPU without a replica (its parked cap).
    """

    site: SiteId
    budget_mw: Milliwatts
    gpus: int
    reserve_mw_per_idle_gpu: Milliwatts


@dataclass(frozen=True, slots=True)
class StartLimit:
    """On how many GPUs new replicas of a site may start at the same time, and the watts to reserve for each."""

    gpus: int
    each_mw: int


@dataclass(frozen=True, slots=True)
class PoolGrant:
    """The optimiser's answer for one pool: how many replicas, and the setpoint of each of their GPUs."""

    replicas: int
    setpoint: GpuSetpoint
    speed: float
    chain: tuple[Limited, ...] = ()
    good: float = 1.0
    """Share of the requests that this pool is predicted to make good: prompts or answers in time."""


@dataclass(frozen=True, slots=True)
class Allocation:
    """The optimiser's answer for a site.

    ``shortfall`` is the share of a deployment's requests that will be late: 0 where all load is carried with speed to
    spare, else 1 less the product of its pools' ``good``. That load is not refused: it runs late.
    """

    pools: Mapping[tuple[DeploymentId, PoolId], PoolGrant] = field(default_factory=dict)
    shortfall: Mapping[DeploymentId, float] = field(default_factory=dict)
    cuts: Mapping[DeploymentId, PowerCut] = field(default_factory=dict)
    """The deployments whose counts were cut in proportion to the watts."""


Allocations: TypeAlias = Mapping[SiteId, Allocation]
"""The answers by site. A site whose GPUs are unknown has none."""


@dataclass(frozen=True, slots=True)
class Weights:
    """How the optimiser weighs its goals: each is the watts of expected draw that one unit of its quantity is worth.

    Energy itself has weight 1. Limits have no weight: budgets and counts are constraints, not prices.
    """

    sla: float = 10_000.0
    """Watts that carrying the load of ONE GPU is worth. Targets come first; predicted shares of good requests that
    differ by less than 20 W of it (relatively: 0.2 % at the default) are equal, and cost decides between them."""
    energy: float = 1.0
    """Watts per watt of expected draw. 0: energy is free."""
    gpu: float = 100.0
    """Watts per GPU that serves: one more GPU must save that many watts. Left free, it can serve another deployment."""
    churn: float = 100.0
    """Watts per GPU whose replica starts or stops: a change must save more than this to pay for its start-up."""
    priority: float = 100.0
    """Factor by which the shortfall of one priority class outweighs that of the class below."""

    def __post_init__(self) -> None:
        if min(self.sla, self.energy, self.gpu, self.churn) < 0:
            raise ValueError("weights must not be negative")
        if self.priority < 1:
            raise ValueError("the priority weight must be at least 1: a higher class is never shed first")


DEFAULT_WEIGHTS = Weights()
