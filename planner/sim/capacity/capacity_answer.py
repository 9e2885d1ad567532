"""The answer in words: how many GPUs and watts keep the promise, and what one GPU fewer gives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from planner.sim.capacity.frontier import CapacityPoint, best_within, smallest_good


@dataclass(frozen=True, slots=True)
class CapacityAnswer:
    """The smallest point that keeps the promise, and its neighbours."""

    promise_share: float
    best: CapacityPoint
    """The best share that was measured at all."""
    smallest: CapacityPoint | None
    """None where no measured point keeps the promise."""
    next_smaller_gpus: int | None
    """GPUs of the next smaller cluster; None where the smallest point is on the smallest one."""
    fewer: CapacityPoint | None
    """The best of all smaller clusters that were measured, under any of their budgets."""
    fewest_watts: CapacityPoint | None
    """The point with the fewest watts that keeps the promise, of any size."""
    exact: bool
    """Whether the next smaller cluster was measured, or there is none; otherwise a smaller one may do."""


def capacity_answer(points: Sequence[CapacityPoint], promise_share: float, counts: Sequence[int]) -> CapacityAnswer:
    """The answer by the measured points (at least one), of clusters of ``counts`` GPUs (rising)."""
    best = max(points, key=lambda point: (point.good_share, -point.gpus, -point.watts))
    smallest = smallest_good(points, promise_share)
    if smallest is None:
        return CapacityAnswer(promise_share, best, None, None, None, None, exact=False)
    good = (point for point in points if point.good_share >= promise_share)
    smaller = max((gpus for gpus in counts if gpus < smallest.gpus), default=None)
    return CapacityAnswer(
        promise_share,
        best,
        smallest,
        smaller,
        best_within(points, smallest.gpus - 1, float("inf")),
        min(good, key=lambda point: (point.watts, point.gpus)),
        exact=smaller is None or any(point.gpus == smaller for point in points),
    )


def in_words(answer: CapacityAnswer, budget_watts: float) -> list[str]:
    """The answer as sentences, the most important first."""
    found = answer.smallest
    if found is None:
        promised = f"{100 * answer.promise_share:.4g} %"
        best = f"the best are {_size(answer.best)} with {percent(answer.best.good_share)} good"
        return [f"Nothing measured within {budget_watts:g} W serves {promised} of this load in time: {best}."]
    lines = [f"{_size(found)} serve this load with {percent(found.good_share)} good; {_smaller(answer, found)}."]
    cheapest = answer.fewest_watts
    if cheapest is not None and cheapest.watts < found.watts:
        good = percent(cheapest.good_share)
        lines.append(f"The fewest watts are {cheapest.watts} W, with {cheapest.gpus} GPUs and {good} good.")
    return lines


def _smaller(answer: CapacityAnswer, found: CapacityPoint) -> str:
    if answer.next_smaller_gpus is None:
        return "fewer GPUs hold no worker of each phase"
    if answer.fewer is None:
        return "no smaller cluster was measured: give more --points"
    if not answer.exact:
        smaller = f"{_size(answer.fewer)} give {percent(answer.fewer.good_share)}"
        return f"nothing between was measured, and {smaller}: more --points find the fewest"
    less = found.gpus - answer.next_smaller_gpus
    return f"{'one GPU fewer gives' if less == 1 else f'{less} GPUs fewer give'} {percent(answer.fewer.good_share)}"


def _size(point: CapacityPoint) -> str:
    return f"{point.gpus} GPUs and {point.watts} W"


def percent(good_share: float) -> str:
    """A share in percent, two decimals; cut off, for rounding could show a promise as kept that was not."""
    return f"{math.floor(good_share * 10_000 + 1e-9) / 100:.2f} %"
