"""How far a run is from the least that a planner who knows the trace needs: one number, and one sentence."""

from __future__ import annotations

from dataclasses import dataclass

from planner.sim.bound.clairvoyant_bound import Bound, BoundAim
from planner.sim.evaluation.scores import Scores


@dataclass(frozen=True, slots=True)
class Regret:
    """A run's cost over the least cost at its share; under a budget, the most good requests over the run's own."""

    times: float
    sentence: str


def regret(scores: Scores, bound: Bound, *, budget: bool) -> Regret | None:
    """None where the model knows no cost for the run's share, or the run has no good requests."""
    if budget:
        if not scores.good_requests:
            return None
        most = min(bound.most_good, bound.requests)
        times = most / scores.good_requests
        return Regret(times, f"the most good under this budget is {most / bound.requests:.2%}, {times:.3f} times this")
    least = bound.least_cost(scores.good_share)
    if least <= 0:
        return None
    cost = scores.gpu_hours if bound.aim is BoundAim.HOURS else scores.serving_energy_joules / 1e6
    unit = "GPU-h" if bound.aim is BoundAim.HOURS else "MJ"
    who = "who knows the trace needs no less for this share"
    return Regret(cost / least, f"{cost / least:.3f} times the {least:.2f} {unit} of the bound: a planner {who}")
