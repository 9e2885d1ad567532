"""The most that any planner can make of the flipping mix of ``watts_short``: who knows the load, under the same budget.

    python -m tests.benchmarks.power.clairvoyant_short [--share 0.5] [--loads 0.55,0.7]

``most`` is the bound of the model (``planner/sim/BOUND.md``), ``plan`` what its plan makes in the plant; beside them
the best uniform caps and ours.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from planner.sim.bound.clairvoyant_bound import bound
from planner.sim.evaluation.scores import Scores, score
from planner.sim.evaluation.simulation import simulate
from planner.sim.policies.catalogue import make
from planner.sim.policies.ours import OursSettings
from planner.sim.workload.scenario import Scenario
from tests.benchmarks.power import watts_short


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--share", type=float, default=0.5, help="of the nameplate")
    parser.add_argument("--loads", type=lambda text: [float(load) for load in text.split(",")], default=[0.55, 0.7])
    parser.add_argument("--gpus", type=int, default=8)
    args = parser.parse_args(argv)
    print("| watts, load | best uniform caps | ours | most | plan | W.s over | most / uniform | plan / uniform |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for load in args.loads:
        case = watts_short.ShortCase(args.gpus, load, args.share)
        world = watts_short.scenario(case)
        uniform = max(_run(world, name).good_share for name in watts_short.candidates(case, world, "uniform"))
        ours, plan = _run(world, "ours"), _run(world, "clairvoyant:0.97")
        found = bound(world, 1.0)
        most = min(found.most_good, found.requests) / found.requests
        shares = f"{uniform:.2%} | {ours.good_share:.2%} | {most:.2%} | {plan.good_share:.2%}"
        times = f"{plan.violation_watt_seconds:.0f} | {most / uniform:.2f} | {plan.good_share / uniform:.2f}"
        print(f"| {args.share:.0%}, {load:g} | {shares} | {times} |", flush=True)
    return 0


def _run(world: Scenario, policy: str) -> Scores:
    return score(simulate(world, make(policy, OursSettings())))


if __name__ == "__main__":
    raise SystemExit(main())
