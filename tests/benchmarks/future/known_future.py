"""What could be won by looking ahead: our planner beside planners that know the future for a while and no longer.

    python -m tests.benchmarks.future.known_future [--profile DIR] [--only burst] [--seed 7]

Generated loads of ``returning_loads`` with another seed, start-up time 60 s. All GPU-hours are at the good share that
our planner reaches (quantile 0.95): the least of a plan that knows every arrival; the same where a plan knows the
arrivals of the next two or three start-up times only, and decides again every ten seconds; and our planner where its
forecast is the true rate of the load, which nobody can know better without knowing the dice.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from planner.core.forecast.blend import Blend
from planner.domain.predictor import PointModel
from planner.sim.bound.clairvoyant_bound import BoundAim, bound
from planner.sim.bound.count_program import BoundWorld, Planned, PlanStep, evaluate, solve
from planner.sim.bound.phase_table import PhaseTable
from planner.sim.bound.world_model import model
from planner.sim.evaluation.scores import Scores, score
from planner.sim.evaluation.simulation import simulate
from planner.sim.policies.catalogue import make
from planner.sim.policies.ours import OursSettings
from planner.sim.workload.scenario import Scenario
from tests.benchmarks.returning_loads import ARRIVALS, Rate, bursts

SEED, STARTUP_S, SPAN_S = 7, 60.0, 30.0
LENGTH = 60.0
"""Means above this are token lengths, which these loads draw alike at all times; no rate of them is as high."""
QUANTILES = (0.5, 0.65, 0.8, 0.9, 0.95)
HALVINGS = 14


@dataclass(frozen=True, slots=True)
class TrueRate:
    """A forecast that knows the rate from which arrivals are drawn: the highest of a span until help could serve.

    Lengths are forecast as usual.
    """

    rate: Rate
    seen_s: float = 0.0
    usual: PointModel = field(default_factory=Blend)

    @property
    def name(self) -> str:
        return "true"

    @property
    def ready(self) -> bool:
        return self.usual.ready

    def observe(self, t_s: float, y: float) -> TrueRate:
        return replace(self, seen_s=t_s, usual=self.usual.observe(t_s, y))

    def mean(self, horizon_s: float) -> float:
        if self.usual.mean(horizon_s) > LENGTH:
            return self.usual.mean(horizon_s)
        ends_s = [self.seen_s + SPAN_S * number for number in range(1, round(horizon_s / SPAN_S) + 1)]
        return max(
            sum(self.rate(end_s - SPAN_S * (part + 0.5) / 10.0) for part in range(10)) / 10.0 for end_s in ends_s
        )


def plan_ahead(world: BoundWorld, price: float, ahead: int) -> Planned:
    """The plan of one that knows ``ahead`` intervals, makes the first move of the best plan for them, looks again."""
    p, d = world.prefill, world.decode
    counts, at, steps = (0, 0), 0.0, []
    for t in range(world.intervals):
        level = min(round(at), p.levels - 1)
        solved = solve(_part(world, t, t + ahead), price)
        counts = solved.begin if t == 0 else divmod(int(solved.moves[0, counts[0], level, counts[1]]), d.counts)
        caps = divmod(int(solved.caps[0, counts[0], level, counts[1]]), len(d.caps_mw))
        steps.append(PlanStep(counts[0] + 1, counts[1] + 1, *caps))
        at = float(np.interp(at, np.arange(p.levels), p.after[t, counts[0], caps[0]]))
    return evaluate(world, steps)


def _part(world: BoundWorld, begin: int, end: int) -> BoundWorld:
    def cut(table: PhaseTable) -> PhaseTable:
        return replace(
            table, share=table.share[begin:end], joules=table.joules[begin:end], after=table.after[begin:end]
        )

    return replace(world, prefill=cut(world.prefill), decode=cut(world.decode), requests=world.requests[begin:end])


def cheapest(plan: Callable[[float], Planned], good: float, dear: float) -> float:
    """The least cost with so many good requests, over the prices up to ``dear`` of a request that is not."""
    low, high = dear / 1e6, dear
    best = plan(high).cost
    for _ in range(HALVINGS):
        price = (low * high) ** 0.5
        found = plan(price)
        if found.good >= good:
            high, best = price, min(best, found.cost)
        else:
            low = price
    return best


def at_share(points: Sequence[Scores], share: float) -> str:
    """GPU-hours at a share, between the two runs around it."""
    ordered = sorted(points, key=lambda found: found.good_share)
    for below, above in pairwise(ordered):
        if below.good_share <= share <= above.good_share:
            part = (share - below.good_share) / max(1e-9, above.good_share - below.good_share)
            return f"{below.gpu_hours + part * (above.gpu_hours - below.gpu_hours):.3f}"
    if ordered[0].good_share > share:
        return f"at most {ordered[0].gpu_hours:.3f}"
    return f"{ordered[-1].good_share:.2%} at {ordered[-1].gpu_hours:.3f}"


def run(world: Scenario, quantile: float, rate: Rate | None = None) -> Scores:
    settings = OursSettings(ttft_quantile=quantile)
    if rate is not None:
        settings = replace(settings, predictor="true", predictors=(("true", TrueRate(rate)),))
    return score(simulate(world, make("ours", settings)))


def row(name: str, world: Scenario, rate: Rate) -> str:
    """One load's line."""
    ours = run(world, 0.95)
    share = ours.good_share
    tables = model(world, by_joules=False)
    good, dear = share * float(tables.requests.sum()), tables.most_cost() / 100.0
    whole = bound(world, share, BoundAim.HOURS).least_cost(share)
    each = round(STARTUP_S / tables.every_s)
    known = [
        cheapest(lambda price, k=starts: plan_ahead(tables, price, max(1, k * each)), good, dear) / 3600.0  # type: ignore[misc]
        for starts in (1, 2)
    ]
    true = at_share([run(world, quantile, rate) for quantile in QUANTILES], share)
    ends = f"{known[0]:.3f} | {known[1]:.3f} | {true}"
    return f"| {name} | {share:.2%} | {ours.gpu_hours:.3f} | {whole:.3f} | {ends} |"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--profile", type=Path, help="default: the built-in one")
    parser.add_argument("--only", default="", help="loads whose name contains this")
    parser.add_argument("--seed", type=int, default=SEED)
    args = parser.parse_args(argv)
    heads = ("load", "good", "ours", "knows all", "knows two start-ups", "knows three", "ours with the true rate")
    print(f"| {' | '.join(heads)} |\n{'| --- ' * len(heads)}|")
    for name, (rate, until_s) in ARRIVALS.items():
        if args.only in name:
            print(row(name, bursts(rate, until_s, args.profile, args.seed), rate), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
