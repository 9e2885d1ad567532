"""Scale-down by a tree of scenarios instead of by past gaps (``core/allocation/returns.py``): good requests, GPU-hours.

    python -m tests.benchmarks.future.scenario_tree [--profile DIR] [--only burst] [--seed 7]

A prototype, to see whether choosing by a model of the future beats what the planner does; nothing that ships uses it.
A scenario is what the load itself wanted in the three start-up times after a past moment like this one: as many
replicas recommended, and as long since more were. The fifteen most similar become a tree of three branches, each with
two of its own; the count now is the one with the least expected replica-seconds, plus those that are missing at the
price at which ``returns`` counts them. Loads and runs are those of ``returning_loads`` with another seed.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from planner.core.allocation.returns import LATE_PART, History
from planner.core.limits import hpa_behavior
from planner.core.state import PoolState
from planner.domain.config import PoolConfig
from planner.domain.plan import Limited
from planner.domain.reasons import ReasonCode
from planner.sim.evaluation.scores import score
from planner.sim.evaluation.simulation import simulate
from planner.sim.policies.catalogue import make
from planner.sim.policies.ours import OursSettings
from tests.benchmarks.returning_loads import ARRIVALS, Rate, bursts, cycle

SEED = 7
STAGES, SCENARIOS, BRANCHES, TWIGS = 3, 15, 3, 2
Needs = tuple[int, ...]
"""The most replicas wanted in each start-up time that follows."""


def cheapest_count(scenarios: Sequence[Needs], lowest: int, highest: int, price: float) -> int:
    """The count now, from ``lowest`` to ``highest``, with the least expected cost over the tree of ``scenarios``.

    ``price``: of a missing replica, in replicas. A replica that is started serves a stage later.
    """
    most = max(highest, *(max(needs) for needs in scenarios))
    ordered = sorted(scenarios)
    branches = [sorted(part, key=lambda needs: needs[1:]) for part in _parts(ordered, BRANCHES)]

    def last(part: Sequence[Needs], before: int) -> float:
        return min(
            sum(max(before, count) + price * max(0, needs[2] - min(before, count)) for needs in part)
            for count in range(1, most + 1)
        )

    def second(part: Sequence[Needs], before: int) -> float:
        return min(
            sum(max(before, count) + price * max(0, needs[1] - min(before, count)) for needs in part)
            + sum(last(twig, count) for twig in _parts(part, TWIGS))
            for count in range(1, most + 1)
        )

    def whole(count: int) -> float:
        held = sum(count + price * max(0, needs[0] - count) for needs in ordered)
        return held + sum(second(part, count) for part in branches)

    return min(range(lowest, highest + 1), key=whole)


def _parts(ordered: Sequence[Needs], number: int) -> list[Sequence[Needs]]:
    """Almost equal parts, none of them empty."""
    ends = [round(len(ordered) * part / number) for part in range(number + 1)]
    return [ordered[begin:end] for begin, end in pairwise(ends) if end > begin]


def similar(past: History, recommended: int, gone_s: float, stage_s: float) -> list[Needs]:
    """What followed the past moments that were most like this one: (recommended, seconds since more were)."""
    found: list[tuple[float, Needs]] = []
    for place, (t_s, count) in enumerate(past):
        if t_s + STAGES * stage_s > past[-1][0]:
            break
        since = next((t_s - at for at, before in reversed(past[:place]) if before > count), 20.0 * stage_s)
        needs = tuple(
            max((c for at, c in past if t_s + k * stage_s < at <= t_s + (k + 1) * stage_s), default=count)
            for k in range(STAGES)
        )
        found.append((abs(count - recommended) + abs(since - gone_s) / stage_s, needs))
    return [needs for _, needs in sorted(found)[:SCENARIOS]]


@dataclass
class Tree:
    """Takes the place of ``hpa_behavior.keep`` for one run; before there are scenarios, that decides as usual."""

    past: dict[str, list[tuple[float, int]]] = field(default_factory=dict)
    decided: int = 0

    def keep(
        self, pool: PoolConfig, current: int, recommended: int, known: PoolState, t_s: float, quantile: float
    ) -> Limited | None:
        past = self.past.setdefault(pool.pool, [])
        past += [one for one in known.recommendations if not past or one[0] > past[-1][0]]
        gone_s = next((t_s - at for at, count in reversed(past) if count > recommended), 0.0)
        scenarios = similar(tuple(past), recommended, gone_s, pool.startup_s)
        if len(scenarios) < SCENARIOS:
            return USUAL(pool, current, recommended, known, t_s, quantile)
        self.decided += 1
        count = cheapest_count(scenarios, recommended, current, LATE_PART * quantile / (1.0 - quantile))
        if count <= recommended:
            return None
        return Limited(count, ReasonCode.STABILIZATION_DOWN, f"{count} cost least in {len(scenarios)} scenarios")


USUAL = hpa_behavior.keep


@contextmanager
def deciding(tree: Tree) -> Iterator[None]:
    """``tree`` in place of the planner's own rule."""
    hpa_behavior.keep = tree.keep
    try:
        yield
    finally:
        hpa_behavior.keep = USUAL


def at_random(seed: int) -> Rate:
    """Bursts of 120 s at 16/s that nobody can foresee: after 60 to 900 s at 8/s, drawn anew each time."""
    rng = random.Random(seed)
    return cycle(*((seconds, per_s) for _ in range(50) for seconds, per_s in ((rng.uniform(60, 900), 8), (120, 16))))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--profile", type=Path, help="default: the built-in one")
    parser.add_argument("--only", action="append", help="loads whose name contains this (repeatable; default: all)")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--quantile", type=float, action="append", help="ttft_quantile (repeatable; default 0.95)")
    args = parser.parse_args(argv)
    print("| load | quantile | by past gaps: good, GPU-h | by the tree: good, GPU-h | decided by the tree |")
    print("| --- | --- | --- | --- | --- |")
    loads = {**ARRIVALS, "burst 120 s at 16/s, after 60 to 900 s at 8/s": (at_random(args.seed), 3000.0)}
    for name, (rate, until_s) in loads.items():
        if args.only and not any(part in name for part in args.only):
            continue
        world = bursts(rate, until_s, args.profile, args.seed)
        for quantile in args.quantile or [0.95]:
            tree, settings = Tree(), OursSettings(ttft_quantile=quantile)
            usual = score(simulate(world, make("ours", settings)))
            with deciding(tree):
                other = score(simulate(world, make("ours", settings)))
            runs = " | ".join(f"{found.good_share:.2%}, {found.gpu_hours:.3f}" for found in (usual, other))
            print(f"| {name} | {quantile:g} | {runs} | {tree.decided} |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
