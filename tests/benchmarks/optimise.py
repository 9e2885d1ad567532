"""The optimiser beside an exhaustive search: score and time; and the time of a large site's tick.

    python -m tests.benchmarks.optimise [--instances 60] [--repeats 5] [--json]

``exact`` looks at every combination of up to three deployments, where somebody goes short; the gap is the relative loss
of good requests (shares within 0.2 % are equal on purpose: cost decides there). The large sites have 100 deployments of
prefill and decode pools and about 10,000 GPUs, with ample watts, and with too few of them; the ten sites of a large
planner have 50 deployments each. Times are CPU time, which a busy machine stretches less than the clock's; those of one
deployment and of the ten sites stand beside a floor of the same run, a hundred operations on arrays of one deployment's
size, which a busy machine stretches as much.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from dataclasses import asdict, dataclass

import numpy as np

from planner.core.allocation.optimiser import priority_classes
from planner.core.allocation.optimiser.solve import allocate
from planner.domain.demand import DEFAULT_WEIGHTS
from tests.unit.planner.core.allocation.optimiser import exhaustive
from tests.unit.planner.core.allocation.optimiser.instances import instance

REPEATS, FLOOR_OPERATIONS = 10, 100
LARGE = {"ample": (1.2, 1.3), "short": (0.7, 0.8), "dire": (0.4, 0.5)}


@dataclass(frozen=True, slots=True)
class Small:
    """Up to three deployments beside the exhaustive answer; times are medians of CPU milliseconds."""

    instances: int
    gap_mean: float
    gap_worst: float
    ours_ms: float
    ours_ms_worst: float
    exact_ms: float
    exact_ms_worst: float


@dataclass(frozen=True, slots=True)
class Large:
    """One site at scale: the least and the median of the repeats, in CPU milliseconds (one thread)."""

    budget: str
    deployments: int
    gpus: int
    least_ms: float
    median_ms: float


@dataclass(frozen=True, slots=True)
class Alone:
    """One deployment of two pools and eight counts each, short of watts: medians of CPU milliseconds."""

    ours_ms: float
    floor_ms: float

    @property
    def ratio(self) -> float:
        return self.ours_ms / self.floor_ms


@dataclass(frozen=True, slots=True)
class Sites:
    """Ten sites of 50 deployments, all short of watts, one after the other: the least of the repeats in CPU ms."""

    deployments: int
    gpus: int
    least_ms: float
    floor_ms: float

    @property
    def ratio(self) -> float:
        return self.least_ms / self.floor_ms


def sites(repeats: int) -> Sites:
    row = np.arange(1.0, 52.0)
    many = [instance(seed, deployments=50, most=12, tightness=(0.5, 0.8)) for seed in range(10)]
    times, floors = [], []
    for _ in range(repeats):
        start = time.process_time()
        for demands, limits in many:
            priority_classes.allocate(demands, limits)
        middle = time.process_time()
        for _ in range(10 * FLOOR_OPERATIONS):
            np.log(row)
        times.append((middle - start) * 1000)
        floors.append((time.process_time() - middle) * 100)
    every = sum(len(demands) for demands, _ in many)
    return Sites(every, sum(limits.gpus for _, limits in many), min(times), min(floors))


def alone(instances: int) -> Alone:
    ours, floor, row = [], [], np.arange(1.0, 52.0)
    for seed in range(instances):
        demands, limits = instance(seed, deployments=1, most=8, tightness=(0.3, 0.8))
        if len(demands[0].pools) < 2 or not any(allocate(demands, limits).shortfall.values()):
            continue
        start = time.process_time()
        for _ in range(REPEATS):
            allocate(demands, limits)
        middle = time.process_time()
        for _ in range(REPEATS * FLOOR_OPERATIONS):
            np.log(row)
        end = time.process_time()
        ours.append((middle - start) * 1000 / REPEATS)
        floor.append((end - middle) * 1000 / REPEATS)
    return Alone(statistics.median(ours), statistics.median(floor))


def small(instances: int) -> Small:
    gaps, ours_ms, exact_ms = [], [], []
    for seed in range(instances):
        demands, limits = instance(seed, deployments=1 + seed % 3, most=4, tightness=(0.2, 1.0))
        start = time.process_time()
        answer = allocate(demands, limits)
        ours_ms.append((time.process_time() - start) * 1000)
        if not any(answer.shortfall.values()):
            continue
        middle = time.process_time()
        best = exhaustive.most(demands, limits, DEFAULT_WEIGHTS)
        exact_ms.append((time.process_time() - middle) * 1000)
        gap = best - exhaustive.value(demands, answer, DEFAULT_WEIGHTS)
        gaps.append(gap / sum(exhaustive.worths(demands, DEFAULT_WEIGHTS)))
    return Small(
        len(gaps),
        statistics.mean(gaps),
        max(gaps),
        statistics.median(ours_ms),
        max(ours_ms),
        statistics.median(exact_ms),
        max(exact_ms),
    )


def large(budget: str, repeats: int) -> Large:
    demands, limits = instance(1, deployments=100, most=51, tightness=LARGE[budget])
    times = []
    for _ in range(repeats):
        start = time.process_time()
        priority_classes.allocate(demands, limits)
        times.append((time.process_time() - start) * 1000)
    return Large(budget, len(demands), limits.gpus, min(times), statistics.median(times))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    one, few, many = alone(args.instances), small(args.instances), [large(name, args.repeats) for name in LARGE]
    ten = sites(args.repeats)
    if args.json:
        print(
            json.dumps(
                {
                    "alone": {**asdict(one), "ratio": one.ratio},
                    "small": asdict(few),
                    "large": [asdict(row) for row in many],
                    "sites": {**asdict(ten), "ratio": ten.ratio},
                },
                indent=1,
            )
        )
        return 0
    print(
        f"one deployment short of watts: {one.ours_ms:.2f} ms, {one.ratio:.1f} times the floor of {one.floor_ms:.2f} ms"
    )
    print(f"{few.instances} short sites of up to 3 deployments: gap {few.gap_mean:.3%} mean, {few.gap_worst:.3%} worst")
    print(f"  ours {few.ours_ms:.1f} ms median, {few.ours_ms_worst:.0f} worst; ", end="")
    print(f"exact {few.exact_ms:.0f} ms median, {few.exact_ms_worst:.0f} worst")
    for row in many:
        print(
            f"{row.deployments} deployments, {row.gpus} GPUs, {row.budget} watts: "
            f"{row.least_ms:.0f} ms least, {row.median_ms:.0f} ms median"
        )
    print(
        f"{ten.deployments} deployments on ten sites short of watts, {ten.gpus} GPUs: {ten.least_ms:.0f} ms least, "
        f"{ten.ratio:.0f} times the floor of {ten.floor_ms:.2f} ms"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
