"""The optimiser's problem as arrays: every pool's counts and caps, what each makes good, carries, draws and costs.

Owns the translation from ``DeploymentDemand`` to numbers. Must never choose. Pools are rows, counts are columns
(padded), caps a third axis. The last row is a dummy pool: it needs nothing and costs nothing, and stands in for the
partner that a deployment of one pool lacks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from planner.core.allocation.optimiser.shares import goods, needs
from planner.core.power.curve import chosen_speed, is_fixed
from planner.domain.demand import DeploymentDemand, PoolDemand, SiteLimits, Weights
from planner.domain.power import PowerCurve
from planner.domain.units import Milliwatts

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
T = TypeVar("T", np.float64, np.int64)

STEP_MW = 5_000
"""Caps are multiples of 5 W: finer steps have no effect within the accuracy of the hardware's own control."""
TINY = 1e-9
ENOUGH = 1.0 + 1e-9
DRAIN = 0.05
"""What carrying all of the load is worth beside making all of it good: where nothing can be good, the option that
works off most decides. Small, or it would buy throughput with good requests."""
GIVE_UP = 0.3
"""Price of giving up all replicas, in shares of good requests. The share is a forecast for the time until the next
change can help; a replica given up is missing for a whole start-up time. Without this price, noise between two ticks
changed the fleet."""
MISSING = 2.0
"""The price of GPUs below the configured floors, where even the floors do not fit."""
ALIKE_WATTS = 20.0
"""Watts per GPU below which a difference of shares is ignored: shares are equal within ``ALIKE_WATTS / sla`` (0.2
%)."""


@dataclass(frozen=True, slots=True)
class Options:
    """(P, N, S) what each cap of each count gives: the predicted share of good requests, and the share carried."""

    share: Floats
    carried: Floats


@dataclass(frozen=True)
class Problem:
    """P pools in D deployments, at most N counts a pool, at most S cap steps. In mW; costs in ``Weights``' watts.

    Pools of one deployment are neighbours: ``first[d] .. first[d + 1]``. Arrays by pool have one more row, the dummy
    pool.
    """

    demands: tuple[DeploymentDemand, ...]
    owner: Ints
    first: Ints
    worth: Floats
    """(D) what a deployment's good requests are worth beside another's: its class and its GPUs."""
    own_gpus: Floats
    """(D) a deployment's own GPU limit; inf for none."""
    width: Ints
    """(P + 1) how many counts are real."""
    count: Ints
    """(P + 1, N)"""
    gpus: Floats
    """(P + 1, N) GPUs at each count."""
    need: Floats
    """(P + 1, N) speed that the whole load needs, as it is sized."""
    prompts: Floats
    """(P + 1, N) speed that arriving prompts need, 0 where the pool serves none: shares are predicted from it."""
    answers: Floats
    """(P + 1, N) the same of answers."""
    spare: Floats
    """(P + 1) factor on the need while watts are plenty."""
    busy: Floats
    fixed: Floats
    """(P + 1, N) cost whatever the cap; inf where there is no such count."""
    kept: Floats
    """(P + 1, N) factor on the share for replicas given up."""
    curve: Floats
    """(P + 1, 5): P_s, P_u - P_s, alpha, idle, P_u in mW."""
    energy: float
    floor: Ints
    """(P + 1) lowest cap, in steps."""
    last: Ints
    """(P + 1) highest cap worth giving, in steps above the floor."""
    speed: Floats
    """(P + 1, S) speed at each step from the floor on."""
    alike: float
    """Shares of good requests within this of one another, relatively, are equal."""
    reserve_mw: float
    budget_mw: float
    """Left after every GPU's reserve."""
    gpu_limit: float

    @property
    def deployments(self) -> int:
        return len(self.demands)

    def pools_of(self, deployment: int) -> range:
        return range(int(self.first[deployment]), int(self.first[deployment + 1]))

    def cap_mw(self, row: int, step: int) -> Milliwatts:
        """The cap at ``step`` above the row's floor."""
        return Milliwatts((int(self.floor[row]) + step) * STEP_MW)

    @cached_property
    def caps(self) -> Floats:
        """(P + 1, S) mW above reserve that a GPU holds at each step."""
        steps = self.floor[:, None] + np.arange(self.speed.shape[1], dtype=np.float64)
        caps: Floats = steps * STEP_MW - self.reserve_mw
        return caps

    @cached_property
    def felt(self) -> Floats:
        """(P + 1, N) speed that all phases need together."""
        return np.maximum(self.prompts, self.answers)

    @cached_property
    def options(self) -> Options:
        """Every cap of every count."""
        return self.every(1)

    def every(self, step: int) -> Options:
        """Every ``step``-th cap of every count, from the lowest on."""
        speed, felt = self.speed[:, None, ::step], self.felt[:, :, None]
        share = goods(speed, self.prompts[:, :, None], self.answers[:, :, None])
        return Options(share, _carried(speed, felt))

    @property
    def possible(self) -> NDArray[np.bool_]:
        """(P + 1, N, S) which caps of which counts there are."""
        steps = np.arange(self.speed.shape[1]) <= self.last[:, None]
        found: NDArray[np.bool_] = np.isfinite(self.fixed)[:, :, None] & steps[:, None, :]
        return found

    def near(self, columns: Ints, reach: int) -> tuple[Problem, Ints]:
        """The same problem with only the counts within ``reach`` of ``columns`` (P), and each row's first column."""
        wide = 2 * reach + 1
        if self.count.shape[1] <= wide:
            return self, np.zeros(len(self.width), dtype=np.int64)
        start = np.clip(np.r_[columns, 0] - reach, 0, np.maximum(0, self.width - wide))
        at = start[:, None] + np.arange(wide)

        def part(table: NDArray[T]) -> NDArray[T]:
            return np.take_along_axis(table, at, axis=1)

        width = np.minimum(self.width - start, wide)
        near = replace(
            self,
            width=width,
            count=part(self.count),
            gpus=part(self.gpus),
            need=part(self.need),
            prompts=part(self.prompts),
            answers=part(self.answers),
            busy=part(self.busy),
            fixed=part(self.fixed),
            kept=part(self.kept),
        )
        return near, start

    def cost(self, rows: Ints | int, columns: Ints, steps: Ints) -> Floats:
        """GPUs, changes and expected draw of options; inf where there is no such count. Arrays that broadcast."""
        speed, cap = self.speed[rows, steps], (self.floor[rows] + steps) * float(STEP_MW)
        idle, p_u = self.curve[rows, 3], self.curve[rows, 4]
        busy = np.minimum(self.busy[rows, columns] / np.maximum(speed, TINY), 1.0)
        draw = idle + busy * np.maximum(0.0, np.minimum(cap, p_u) - idle)
        total: Floats = self.fixed[rows, columns] + self.energy * self.gpus[rows, columns] * draw
        return total

    @cached_property
    def can_carry(self) -> bool:
        """Whether every pool has a count that carries its load at full speed."""
        return bool(self.carries.any(axis=1).all())

    @cached_property
    def _top(self) -> Floats:
        """(P + 1) speed at the highest cap worth giving."""
        top: Floats = self.speed[np.arange(len(self.last)), self.last]
        return top

    @cached_property
    def plenty_steps(self) -> Ints:
        """(P + 1, N) the lowest cap step that carries the load with speed to spare, where one does (``carries``)."""
        p_s, span, alpha = (self.curve[:, i, None] for i in range(3))
        asked = np.minimum(self._top[:, None], self.need * self.spare[:, None])
        steps = np.ceil((p_s + span * asked ** (1.0 / alpha)) / STEP_MW - 1e-6) - self.floor[:, None]
        steps = np.where(asked > 0.0, np.maximum(steps, 0.0), 0.0)
        found: Ints = np.minimum(steps, self.last[:, None]).astype(np.int64)
        return found

    @cached_property
    def carries(self) -> NDArray[np.bool_]:
        """(P + 1, N) which counts carry the load at full speed."""
        found: NDArray[np.bool_] = (self.need <= self._top[:, None] * ENOUGH) & np.isfinite(self.fixed)
        return found

    @cached_property
    def plenty_mw(self) -> Floats:
        """(P + 1, N) milliwatts above reserve at ``plenty_steps``; inf for none."""
        caps = np.take_along_axis(self.caps, self.plenty_steps, axis=1)
        return np.where(self.carries, self.gpus * caps, np.inf)

    @cached_property
    def plenty_cost(self) -> Floats:
        """(P + 1, N) cost at ``plenty_steps``; inf for none."""
        rows, columns = np.arange(len(self.last))[:, None], np.arange(self.need.shape[1])
        return np.where(self.carries, self.cost(rows, columns, self.plenty_steps), np.inf)


def _carried(speed: Floats, felt: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(felt > 0.0, np.minimum(1.0, speed / felt), 1.0)


def minimums_fit(demands: Sequence[DeploymentDemand], limits: SiteLimits) -> bool:
    """Whether every pool can have its minimum at the lowest useful cap."""
    mw = gpus = 0
    for demand in demands:
        own = 0
        for pool in demand.pools.values():
            held = pool.min_replicas * pool.gpus_per_replica
            own += held
            mw += held * (_lowest_steps(pool.curve) * STEP_MW - limits.reserve_mw_per_idle_gpu)
        if demand.max_gpus is not None and own > demand.max_gpus:
            return False
        gpus += own
    return gpus <= limits.gpus and mw <= limits.budget_mw - limits.reserve_mw_per_idle_gpu * limits.gpus


def without_minimums(demand: DeploymentDemand) -> DeploymentDemand:
    """The same deployment with counts from zero: fewer replicas need a speed that rises as 1 / count."""
    return replace(demand, pools={name: _from_zero(pool) for name, pool in demand.pools.items()})


def _from_zero(pool: PoolDemand) -> PoolDemand:
    least = pool.min_replicas

    def below(speeds: tuple[float, ...]) -> tuple[float, ...]:
        if not speeds:
            return ()
        none = math.inf if least else speeds[0]
        return (*(float(speeds[0] * least / n) if n else none for n in range(least)), *speeds)

    return replace(
        pool,
        min_replicas=0,
        required_speed=below(pool.required_speed),
        arriving_speed=below(pool.arriving_speed),
        prompt_speed=below(pool.prompt_speed),
        utilisation=(*(1.0 if n else 0.0 for n in range(least)), *pool.utilisation),
    )


def lowest_cap_mw(pool: PoolDemand) -> int:
    """The lowest cap that a serving GPU of the pool is given."""
    return _lowest_steps(pool.curve) * STEP_MW


def highest_cap_mw(pool: PoolDemand) -> int:
    """The highest cap, in steps, that a serving GPU of the pool is given: where the curve ends, or its hardware."""
    return (_lowest_steps(pool.curve) + _last_step(pool.curve)) * STEP_MW


def _lowest_steps(curve: PowerCurve) -> int:
    return -(-max(curve.useful_mw, curve.min_mw) // STEP_MW)


def _last_step(curve: PowerCurve) -> int:
    return max(0, min(-(-curve.p_u_mw // STEP_MW), curve.max_mw // STEP_MW) - _lowest_steps(curve))


def build(
    demands: Sequence[DeploymentDemand], limits: SiteLimits, weights: Weights, least: Sequence[DeploymentDemand]
) -> Problem:
    """``least`` are the demands with the floors that were asked for: going below them has its price."""
    pools = [(d, name, pool) for d, demand in enumerate(demands) for name, pool in demand.pools.items()]
    ranks = {p: rank for rank, p in enumerate(sorted({demand.priority for demand in demands}))}
    classes = np.array([weights.priority ** ranks[demand.priority] for demand in demands])
    sizes = np.array([wanted_gpus(demand) for demand in demands], dtype=np.float64)
    owner = np.array([d for d, _, _ in pools], dtype=np.int64)
    most = np.array([_most_gpus(demands[d], pool, limits) for d, _, pool in pools], dtype=np.float64)
    floors = np.array([least[d].pools[name].min_replicas for d, name, _ in pools], dtype=np.float64)
    held = np.array([max(1, sum(p.current_replicas for p in d.pools.values())) for d in demands], dtype=np.float64)
    rows = [pool for _, _, pool in pools]
    counts, need, prompts, answers, busy = _padded(rows)
    size = np.array([*(float(pool.gpus_per_replica) for pool in rows), 0.0])[:, None]
    now = np.array([*(float(pool.current_replicas) for pool in rows), 0.0])[:, None]
    real = np.isfinite(counts)
    real[:-1] &= counts[:-1] * size[:-1] <= most[:, None]
    real[:, 0] = True
    count = np.where(real, counts, 0.0)
    gpus = count * size
    fixed = np.where(real, weights.gpu * gpus + weights.churn * size * np.abs(count - now), np.inf)
    kept = np.ones_like(need)
    short = np.maximum(0.0, floors[:, None] - counts[:-1])
    lost = GIVE_UP * np.maximum(0.0, now - counts)[:-1] / held[owner][:, None]
    lost += MISSING * size[:-1] * short / sizes[owner][:, None]
    kept[:-1] = np.exp(-np.where(real[:-1], lost, 0.0))
    floor, last, speed, curve = _caps(tuple([pool.curve for pool in rows]))
    reserve = float(limits.reserve_mw_per_idle_gpu)
    return Problem(
        demands=tuple(demands),
        owner=owner,
        first=np.searchsorted(owner, np.arange(len(demands) + 1)),
        worth=classes * sizes,
        own_gpus=np.array([np.inf if d.max_gpus is None else float(d.max_gpus) for d in demands]),
        width=real.sum(axis=1),
        count=count.astype(np.int64),
        gpus=gpus,
        need=np.where(real, need, np.inf),
        prompts=np.where(real | (prompts <= 0.0), prompts, np.inf),
        answers=np.where(real | (answers <= 0.0), answers, np.inf),
        spare=np.array([*(pool.spare_speed for pool in rows), 1.0]),
        busy=np.where(real, busy, 0.0),
        fixed=fixed,
        kept=kept,
        curve=curve,
        energy=weights.energy / 1000.0,
        floor=floor,
        last=last,
        speed=speed,
        alike=min(1.0, ALIKE_WATTS / max(TINY, weights.sla)),
        reserve_mw=reserve,
        budget_mw=max(0.0, limits.budget_mw - reserve * limits.gpus),
        gpu_limit=float(limits.gpus),
    )


def wanted_gpus(demand: DeploymentDemand) -> int:
    """GPUs that a deployment wants uncapped: what its good requests weigh."""
    return sum(max(1, pool.wanted) * pool.gpus_per_replica for pool in demand.pools.values())


def _most_gpus(demand: DeploymentDemand, pool: PoolDemand, limits: SiteLimits) -> int:
    """What a pool may hold while its partners have their floors."""
    if demand.max_gpus is None:
        return limits.gpus
    partners = sum(p.min_replicas * p.gpus_per_replica for p in demand.pools.values()) - (
        pool.min_replicas * pool.gpus_per_replica
    )
    return min(limits.gpus, demand.max_gpus - partners)


def _padded(pools: Sequence[PoolDemand]) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """(P + 1, N) counts, needs as sized, of prompts and of answers, busy shares; counts inf where there are none."""
    useful = [_useful(pool) for pool in pools]
    shape = (len(pools) + 1, max(useful, default=1))
    counts, need = np.full(shape, np.inf), np.full(shape, np.inf)
    prompts, answers, busy = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for row, (pool, last) in enumerate(zip(pools, useful, strict=True)):
        counts[row, :last] = range(pool.min_replicas, pool.min_replicas + last)
        need[row, :last] = pool.required_speed[:last]
        busy[row, :last] = pool.utilisation[:last]
        for table, felt in zip((prompts, answers), felt_needs(pool), strict=True):
            if felt:
                table[row, :last] = felt[:last]
    counts[-1, 0] = need[-1, 0] = 0.0
    for table in (need, prompts, answers):
        table[table <= TINY] = 0.0
    return counts, need, prompts, answers, busy


def felt_needs(pool: PoolDemand) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """By count, the speeds that shares are predicted from: of prompts and of answers; empty for a phase not served."""
    return needs(pool.role, pool.required_speed, pool.arriving_speed, pool.prompt_speed)


def _useful(pool: PoolDemand) -> int:
    """Number of counts to examine: to the first with speed to spare at the lowest useful cap, or to those that run."""
    slowest = _slowest(pool.curve)
    if slowest <= 0.0:
        return len(pool.required_speed)
    enough = slowest / pool.spare_speed + TINY
    for last, need in enumerate(pool.required_speed, 1):
        if need <= enough and pool.min_replicas + last > pool.current_replicas:
            return last
    return len(pool.required_speed)


@lru_cache(maxsize=1024)
def _slowest(curve: PowerCurve) -> float:
    """Speed at the lowest useful cap."""
    return chosen_speed(curve, min(_lowest_steps(curve) * STEP_MW, curve.max_mw))


@lru_cache(maxsize=64)
def _caps(curves: tuple[PowerCurve, ...]) -> tuple[Ints, Ints, Floats, Floats]:
    """(P + 1) lowest steps and numbers of steps above, (P + 1, S) speeds, (P + 1, 5) curves: not to be written to.

    Kept for the next call, because curves change slowly, and a tick asks twice.
    """
    floor = np.array([*(_lowest_steps(curve) for curve in curves), 0], dtype=np.int64)
    last = np.array([*(_last_step(curve) for curve in curves), 0], dtype=np.int64)
    laws = [(c.p_s_mw, max(1, c.p_u_mw - c.p_s_mw), c.alpha, c.idle_mw, c.p_u_mw) for c in curves]
    law = np.array([*laws, (0, 1, 1.0, 0, 1)], dtype=np.float64)
    steps = np.minimum(np.arange(int(last.max()) + 1), last[:, None])
    caps = (floor[:, None] + steps) * float(STEP_MW)
    speed = np.clip((caps - law[:, 0:1]) / law[:, 1:2], 0.0, 1.0) ** law[:, 2:3]
    for row, curve in enumerate(curves):
        if is_fixed(curve):
            speed[row, :] = chosen_speed(curve, curve.max_mw)
    for table in (floor, last, speed, law):
        table.flags.writeable = False
    return floor, last, speed, law
