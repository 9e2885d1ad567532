"""The optimiser's problem as arrays: every pool's counts and caps, what each makes good, carries, draws and costs.

Owns the translation from ``DeploymentDemand`` to numbers. Must never choose. Pools are rows, counts are columns
(padded), caps a third axis. The last row is a dummy pool: it needs nothing and costs nothing, and stands in for the
partner that a deployment of one pool lacks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from planner.core.allocation.optimiser.padded_tables import TINY, Floats, Ints, padded
from planner.core.allocation.optimiser.shares import goods, needs
from planner.core.power.curve import chosen_speed, is_fixed
from planner.core.power.curve import speed as tail_speed
from planner.domain.demand import DeploymentDemand, PoolDemand, SiteLimits, Weights
from planner.domain.ids import PoolId
from planner.domain.pool import Role
from planner.domain.power import PowerCurve

T = TypeVar("T", np.float64, np.int64)

STEP_MW = 5_000
"""Caps are multiples of 5 W: finer steps have no effect within the accuracy of the hardware's own control."""
COARSE_STEP_MW = 10_000
"""The same where many deployments are short of watts: half as many caps to compare."""
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
    """What each cap of each count gives: the predicted share of good requests, and the share carried.

    ``first``: the share as long as replicas that are still to start serve nothing.
    """

    share: Floats
    first: Floats
    carried: Floats


@dataclass(frozen=True, slots=True)
class Listed:
    """(R) the row and the column of every count that there is, pool by pool; (P + 1) where each pool's begin."""

    rows: Ints
    columns: Ints
    start: Ints


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
    size: Floats
    """(P + 1) GPUs a replica."""
    wanted: Floats
    """(P + 1) replicas that meet the targets uncapped."""
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
    at_first: Floats
    """(2, P + 1) the speeds that prompts and answers need at the replicas in force."""
    now: Floats
    """(P + 1) replicas in force; those beyond them are still to start."""
    starting: Floats
    """(D) the part of the time in which these serve nothing."""
    spare: Floats
    """(P + 1) factor on the need while watts are plenty."""
    least: Floats
    """(P + 1) speed that caps leave then whatever the need."""
    busy: Floats
    fixed: Floats
    """(P + 1, N) cost whatever the cap; inf where there is no such count."""
    kept: Floats
    """(P + 1, N) factor on the share for replicas given up."""
    curve: Floats
    """(P + 1, 5): P_s, P_u - P_s, alpha, idle, P_u in mW."""
    energy: float
    floor: Ints
    """(P + 1) lowest cap, in steps: that of the card, or of an idle GPU where that is higher."""
    useful: Ints
    """(P + 1) lowest useful cap, in steps above the floor: while everything can be carried, none is lower."""
    last: Ints
    """(P + 1) highest cap worth giving, in steps above the floor."""
    speed: Floats
    """(P + 1, S) speed at each step from the floor on."""
    step_mw: int
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

    @cached_property
    def caps(self) -> Floats:
        """(P + 1, S) mW above reserve that a GPU holds at each step."""
        steps = self.floor[:, None] + np.arange(self.speed.shape[1], dtype=np.float64)
        caps: Floats = steps * self.step_mw - self.reserve_mw
        return caps

    @cached_property
    def options(self) -> Options:
        """(P + 1, N, S) every cap of every count."""
        found = _options(self.speed[:, None, :], self.prompts[:, :, None], self.answers[:, :, None])
        if not self.starting.any():
            return found
        prompts, answers = self.at_first[:, :, None, None]
        before = goods(self.speed[:, None, :], prompts, answers)
        grown = (self.count > self.now[:, None])[:, :, None]
        return replace(found, first=np.where(grown, np.minimum(before, found.share), found.share))

    @cached_property
    def listed(self) -> Listed:
        """The counts that there are."""
        rows, columns = np.nonzero(np.arange(self.need.shape[1]) < self.width[:, None])
        return Listed(rows, columns, self.width.cumsum() - self.width)

    def every(self, step: int) -> Options:
        """(R, S) every ``step``-th cap of the counts that there are (``listed``), from the lowest on."""
        rows, columns = self.listed.rows, self.listed.columns
        prompts, answers = self.prompts[rows, columns, None, None], self.answers[rows, columns, None, None]
        found = _options(self.speed[rows, None, ::step], prompts, answers)
        first = found.share[:, 0]
        if self.starting.any():
            grown = self.count[rows, columns] > self.now[rows]
            prompts, answers = self.at_first[:, rows[grown], None, None]
            first = first.copy()
            first[grown] = goods(self.speed[rows[grown], None, ::step], prompts, answers)[:, 0]
        return Options(found.share[:, 0], first, found.carried[:, 0])

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
        start = np.clip(np.append(columns, 0) - reach, 0, np.maximum(0, self.width - wide))
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

    def without_least_speed(self) -> Problem:
        """The same, where caps leave only what each load needs with speed to spare."""
        return replace(self, least=np.zeros_like(self.least))

    def coarse(self) -> Problem:
        """The same problem with caps in steps of ``COARSE_STEP_MW``, where every lowest cap is one of them."""
        caps = _caps(self._curves, int(self.reserve_mw), COARSE_STEP_MW)
        same = np.array_equal(caps.floor * COARSE_STEP_MW, self.floor * self.step_mw)
        return self._with(caps, COARSE_STEP_MW) if same else self

    def useful_only(self) -> Problem:
        """The same problem without caps below the lowest useful ones, where the fewest replicas fit at these."""
        caps = _caps(self._curves, max(curve.max_mw for curve in self._curves))
        found = self._with(caps, STEP_MW)
        return found if float((found.gpus[:, 0] * found.caps[:, 0]).sum()) <= self.budget_mw else self

    @property
    def _curves(self) -> tuple[PowerCurve, ...]:
        return tuple([pool.curve for demand in self.demands for pool in demand.pools.values()] + [_DUMMY.curve])

    def _with(self, caps: _Caps, step_mw: int) -> Problem:
        return replace(self, step_mw=step_mw, floor=caps.floor, useful=caps.useful, last=caps.last, speed=caps.speed)

    def cost(self, rows: Ints | int, columns: Ints, steps: Ints) -> Floats:
        """GPUs, changes and expected draw of options; inf where there is no such count. Arrays that broadcast.

        Below the lowest useful cap the draw is that of the useful one, for longer: no cap is so low only to be cheap.
        """
        lasting = np.maximum(steps, self.useful[rows])
        speed, cap = self.speed[rows, steps], (self.floor[rows] + lasting) * float(self.step_mw)
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
        asked = np.maximum(self.need * self.spare[:, None], self.least[:, None])
        asked = np.minimum(self._top[:, None], np.where(self.need > 0.0, asked, 0.0))
        steps = np.ceil((p_s + span * asked ** (1.0 / alpha)) / self.step_mw - 1e-6) - self.floor[:, None]
        steps = np.where(asked > 0.0, np.maximum(steps, self.useful[:, None]), self.useful[:, None])
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


def _options(speed: Floats, prompts: Floats, answers: Floats) -> Options:
    share, felt = goods(speed, prompts, answers), np.maximum(prompts, answers)
    with np.errstate(divide="ignore", invalid="ignore"):
        carried = speed / felt
    np.minimum(carried, 1.0, out=carried)
    carried[felt[..., 0] <= 0.0] = 1.0
    return Options(share, share, carried)


def minimums_fit(demands: Sequence[DeploymentDemand], limits: SiteLimits) -> bool:
    """Whether every pool can have its minimum at its cards' lowest cap."""
    mw = gpus = 0
    for demand in demands:
        own = 0
        for pool in demand.pools.values():
            held = pool.min_replicas * pool.gpus_per_replica
            own += held
            mw += held * (least_cap_mw(pool, limits) - limits.reserve_mw_per_idle_gpu)
        if demand.max_gpus is not None and own > demand.max_gpus:
            return False
        gpus += own
    return gpus <= limits.gpus and mw <= limits.budget_mw - limits.reserve_mw_per_idle_gpu * limits.gpus


def least_cap_mw(pool: PoolDemand, limits: SiteLimits) -> int:
    """The lowest cap that a serving GPU of the pool is given where watts are short."""
    return _least_steps(pool.curve, limits.reserve_mw_per_idle_gpu) * STEP_MW


def lowest_cap_mw(pool: PoolDemand) -> int:
    """The lowest cap that a serving GPU of the pool is given while watts suffice."""
    return _lowest_steps(pool.curve) * STEP_MW


def highest_cap_mw(pool: PoolDemand) -> int:
    """The highest cap, in steps, that a serving GPU of the pool is given: where the curve ends, or its hardware."""
    return (_lowest_steps(pool.curve) + _last_step(pool.curve)) * STEP_MW


def _least_steps(curve: PowerCurve, parked_mw: int, step_mw: int = STEP_MW) -> int:
    """The card's lowest cap, or the one that an idle GPU keeps; the lowest useful one where that is lower or fixed."""
    useful = _lowest_steps(curve, step_mw)
    return useful if is_fixed(curve) else min(useful, -(-max(curve.min_mw, parked_mw) // step_mw))


def _lowest_steps(curve: PowerCurve, step_mw: int = STEP_MW) -> int:
    return -(-max(curve.useful_mw, curve.min_mw) // step_mw)


def _last_step(curve: PowerCurve, step_mw: int = STEP_MW) -> int:
    return max(0, min(-(-curve.p_u_mw // step_mw), curve.max_mw // step_mw) - _lowest_steps(curve, step_mw))


_DUMMY = PoolDemand(
    pool=PoolId(""),
    role=Role.DECODE,
    gpus_per_replica=0,
    current_replicas=0,
    min_replicas=0,
    required_speed=(0.0,),
    utilisation=(0.0,),
    curve=PowerCurve(p_s_mw=0, p_u_mw=1, alpha=1.0, idle_mw=0, min_mw=0, max_mw=0, useful_mw=0),
    wanted=0,
)


def build(demands: Sequence[DeploymentDemand], limits: SiteLimits, weights: Weights, *, from_zero: bool) -> Problem:
    """The problem of ``demands``, each with a pool at least. ``from_zero``: their floors may be missed, at a price."""
    pools = [*[pool for demand in demands for pool in demand.pools.values()], _DUMMY]
    columns = _columns(pools)
    size, now, floors, wanted, spare, least_speed = columns
    curves = _caps(tuple([pool.curve for pool in pools]), limits.reserve_mw_per_idle_gpu)
    table = padded(pools, curves.slowest, spare, from_zero=from_zero)
    first = np.array(list(accumulate([len(demand.pools) for demand in demands], initial=0)))
    owner = np.array([d for d, demand in enumerate(demands) for _ in demand.pools])
    own_gpus = np.array([np.inf if demand.max_gpus is None else float(demand.max_gpus) for demand in demands])
    sizes = np.add.reduceat(np.maximum(1.0, wanted[:-1]) * size[:-1], first[:-1])
    least = 0.0 * floors if from_zero else floors
    asked = table.counts[:-1] * size[:-1, None]
    real = np.isfinite(table.counts)
    real[:-1] &= asked <= _most_gpus((least * size)[:-1], own_gpus, owner, first, limits)[:, None]
    real[:, 0] = True
    count = np.where(real, table.counts, 0.0)
    prompts = np.where(real | (table.prompts <= 0.0), table.prompts, np.inf)
    answers = np.where(real | (table.answers <= 0.0), table.answers, np.inf)
    ready = np.clip(now - table.counts[:, 0], 0, real.sum(axis=1) - 1).astype(np.int64)
    gpus = count * size[:, None]
    changed = weights.churn * size[:, None] * np.abs(count - now[:, None])
    ranks = {p: rank for rank, p in enumerate(sorted({demand.priority for demand in demands}))}
    reserve = float(limits.reserve_mw_per_idle_gpu)
    return Problem(
        demands=tuple(demands),
        owner=owner,
        first=first,
        worth=np.array([weights.priority ** ranks[demand.priority] for demand in demands]) * sizes,
        own_gpus=own_gpus,
        size=size,
        wanted=wanted,
        width=real.sum(axis=1),
        count=count.astype(np.int64),
        gpus=gpus,
        need=np.where(real, table.need, np.inf),
        prompts=prompts,
        answers=answers,
        at_first=np.array([felt[np.arange(len(ready)), ready] for felt in (prompts, answers)]),
        now=np.maximum(now, table.counts[:, 0]),
        starting=np.array([demand.starting_part for demand in demands]),
        spare=spare,
        least=least_speed,
        busy=np.where(real, table.busy, 0.0),
        fixed=np.where(real, weights.gpu * gpus + changed, np.inf),
        kept=_kept(np.where(real, table.counts, np.inf), columns, sizes, owner, first),
        curve=curves.law,
        energy=weights.energy / 1000.0,
        floor=curves.floor,
        useful=curves.useful,
        last=curves.last,
        speed=curves.speed,
        step_mw=STEP_MW,
        alike=min(1.0, ALIKE_WATTS / max(TINY, weights.sla)),
        reserve_mw=reserve,
        budget_mw=max(0.0, limits.budget_mw - reserve * limits.gpus),
        # Where even idle GPUs may not keep their reserve, none serves.
        gpu_limit=float(limits.gpus) if limits.budget_mw >= reserve * limits.gpus else 0.0,
    )


def _columns(pools: Sequence[PoolDemand]) -> Floats:
    """(6, P) GPUs a replica, replicas that run, floors, wanted replicas, factor on the need to spare, least speed."""
    rows = [
        (p.gpus_per_replica, p.current_replicas, p.min_replicas, p.wanted, p.spare_speed, p.least_speed) for p in pools
    ]
    return np.array(rows, dtype=np.float64).T


def _kept(counts: Floats, columns: Floats, sizes: Floats, owner: Ints, first: Ints) -> Floats:
    """(P + 1, N) factor on the share for replicas given up, and for GPUs below the floors. ``sizes`` (D) in GPUs."""
    size, now, floors, *_ = columns[:, :-1, None]
    held = np.maximum(1.0, np.add.reduceat(now[:, 0], first[:-1]))[owner][:, None]
    lost = GIVE_UP * np.maximum(0.0, now - counts[:-1]) / held
    lost += MISSING * size * np.maximum(0.0, floors - counts[:-1]) / sizes[owner][:, None]
    kept = np.empty(counts.shape)
    kept[:-1], kept[-1] = np.exp(-lost), 1.0
    return kept


def _most_gpus(floors: Floats, own_gpus: Floats, owner: Ints, first: Ints, limits: SiteLimits) -> Floats:
    """(P) what a pool may hold while its partners have their ``floors`` (P), in GPUs."""
    partners = np.add.reduceat(floors, first[:-1])[owner] - floors
    return np.minimum(float(limits.gpus), own_gpus[owner] - partners)


def felt_needs(pool: PoolDemand) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """By count, the speeds that shares are predicted from: of prompts and of answers; empty for a phase not served."""
    return needs(pool.role, pool.required_speed, pool.arriving_speed, pool.prompt_speed)


@dataclass(frozen=True, slots=True)
class _Caps:
    """(P + 1) lowest steps, steps to the useful ones and to the last, (P + 1, S) speeds, (P + 1, 5) curves, (P + 1)
    speeds at the lowest useful cap."""

    floor: Ints
    useful: Ints
    last: Ints
    speed: Floats
    law: Floats
    slowest: Floats


@lru_cache(maxsize=64)
def _caps(curves: tuple[PowerCurve, ...], parked_mw: int, step_mw: int = STEP_MW) -> _Caps:
    """The caps of these curves, of which the last is the dummy pool's. Not to be written to.

    Kept for the next call, because curves change slowly, and a tick asks twice.
    """
    floor = np.array([_least_steps(curve, parked_mw, step_mw) for curve in curves], dtype=np.int64)
    useful = np.array([_lowest_steps(curve, step_mw) for curve in curves], dtype=np.int64) - floor
    last = useful + np.array([_last_step(curve, step_mw) for curve in curves], dtype=np.int64)
    laws = [(c.p_s_mw, max(1, c.p_u_mw - c.p_s_mw), c.alpha, c.idle_mw, c.p_u_mw) for c in curves]
    law = np.array(laws, dtype=np.float64)
    steps = np.minimum(np.arange(int(last.max()) + 1), last[:, None])
    caps = (floor[:, None] + steps) * float(step_mw)
    speed = np.clip((caps - law[:, 0:1]) / law[:, 1:2], 0.0, 1.0) ** law[:, 2:3]
    for row, curve in enumerate(curves[:-1]):
        if is_fixed(curve):
            speed[row, :] = chosen_speed(curve, curve.max_mw)
        for step in range(int(useful[row])):
            speed[row, step] = min(speed[row, useful[row]], tail_speed(curve, int(floor[row] + step) * step_mw))
    slowest = np.array([chosen_speed(c, min(_lowest_steps(c, step_mw) * step_mw, c.max_mw)) for c in curves])
    for table in (floor, useful, last, speed, law, slowest):
        table.flags.writeable = False
    return _Caps(floor, useful, last, speed, law, slowest)
